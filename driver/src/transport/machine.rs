//! The kernel of this machine.

use super::socket::KernelSocket;
use super::{Netns, Protocol, Transport, Wire, ethtool_ioctl};
use chanio_emu::nic::Refused;
use chanio_emu::port::netns;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// The kernel of this machine, and its /sys.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine;

impl Transport for Machine {
    fn open(&self, protocol: Protocol) -> io::Result<Box<dyn Wire>> {
        Ok(Box::new(KernelSocket::open(protocol)?))
    }

    fn open_in(&self, netns: &Netns, protocol: Protocol) -> io::Result<Box<dyn Wire>> {
        let opened = within(netns, "opening netlink", || KernelSocket::open(protocol));
        Ok(Box::new(opened?))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        // Not created where it is missing: a driver makes its attributes, nobody else.
        let mut file = fs::File::options().write(true).open(path)?;
        io::Write::write_all(&mut file, data)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
        let names = entries.into_iter().map(|e| e.file_name());
        let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    fn link_target(&self, path: &Path) -> io::Result<PathBuf> {
        fs::read_link(path)
    }

    fn ethtool(&self, netdev: &str, data: &mut Vec<u8>) -> io::Result<()> {
        ethtool_ioctl::carry_out(netdev, data)
    }

    fn ethtool_in(&self, netns: &Netns, netdev: &str, data: &mut Vec<u8>) -> io::Result<()> {
        within(netns, "ethtool", || ethtool_ioctl::carry_out(netdev, data))
    }
}

/// Does it in a container's namespace.
fn within<T: Send>(
    netns: &Netns,
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let done = netns::inside(netns.as_fd(), netns.name(), || {
        work().map_err(|e| Refused::os(what, e))
    });
    done.map_err(|refused| match refused {
        Refused::Os { source, .. } => source,
        Refused::Invalid { .. } => io::Error::new(io::ErrorKind::InvalidInput, refused),
        Refused::Missing { .. } => io::Error::new(io::ErrorKind::PermissionDenied, refused),
        refused => io::Error::other(refused),
    })
}
