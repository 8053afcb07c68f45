//! The way from a backend to whoever answers as the kernel: netlink sockets, the files of /sys,
//! SIOCETHTOOL, and other network namespaces. [`Machine`] is the kernel of this machine, [`Played`]
//! an emulator that plays one, and [`Faults`] wraps either and fails on demand.

mod ethtool_ioctl;
mod faults;
mod machine;
mod netns;
mod played;
mod session;
mod socket;

pub use faults::{Effect, Faults, Operation, When};
pub use machine::Machine;
pub use netns::Netns;
pub use played::Played;
pub use session::{Family, Files, Session, TransportError};

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Which family of netlink a socket speaks (linux/netlink.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Protocol {
    /// NETLINK_ROUTE: links, addresses, neighbours, tc.
    Route = 0,
    /// NETLINK_GENERIC: devlink and ethtool.
    Generic = 16,
}

/// One netlink socket.
pub trait Wire: Send {
    /// Sends one datagram. `files` are the descriptors that it refers to, see
    /// [`Wire::file_number`].
    fn send(&mut self, datagram: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()>;
    /// The next datagram, or `None` when there was none until then.
    fn receive(&mut self, until: Instant) -> io::Result<Option<Vec<u8>>>;
    /// From now on what a multicast group is told comes here as well.
    fn join(&mut self, group: u32) -> io::Result<()>;
    /// The number that an attribute such as IFLA_NET_NS_FD holds for the descriptor in that place
    /// of `files`.
    fn file_number(&self, place: u32, file: BorrowedFd<'_>) -> u32;
}

/// Somebody who answers as the kernel.
pub trait Transport: Send + Sync {
    /// A netlink socket in the namespace of the devices.
    fn open(&self, protocol: Protocol) -> io::Result<Box<dyn Wire>>;
    /// A netlink socket in a container's namespace.
    fn open_in(&self, netns: &Netns, protocol: Protocol) -> io::Result<Box<dyn Wire>>;
    /// The content of a file under /sys.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Writes a file under /sys in one go.
    fn write(&self, path: &Path, data: &[u8]) -> io::Result<()>;
    /// The names in a directory under /sys, in order.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Where a link under /sys points.
    fn link_target(&self, path: &Path) -> io::Result<PathBuf>;
    /// SIOCETHTOOL: carries out the command in `data` (linux/ethtool.h) on a netdev and puts what
    /// the driver made of it there.
    fn ethtool(&self, netdev: &str, data: &mut Vec<u8>) -> io::Result<()>;
    /// The same for a netdev in a container's namespace.
    fn ethtool_in(&self, netns: &Netns, netdev: &str, data: &mut Vec<u8>) -> io::Result<()>;
    /// How long what a driver does on its own, such as a new function's netdev, is waited for.
    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}
