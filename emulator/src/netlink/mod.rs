//! The kernel, played for one NIC: what the driver of such a NIC answers to devlink, rtnetlink and
//! ethtool, and the files of its PCI device.
//!
//! Netdevs are real ones: the uplink's and the channels' representors are the TAPs that they always
//! are, and virtual functions and subfunctions are channels whose TAP is in this namespace. So
//! rtnetlink requests go to the kernel in whose namespace the emulator runs, and what the driver of
//! a real NIC would add is put into the answers; only what the kernel cannot know of is done here.
//!
//! | module | what lives there |
//! |---|---|
//! | `server` | `<run-dir>/netlink.sock` and its thread (the framing: `chanio_netlink::played`) |
//! | `connection` | one client |
//! | `host` | the real kernel's netlink socket |
//! | `played` | the device and who carries out what |
//! | `vendor` | what each driver shows, numbers and says |
//! | `functions` | virtual functions and subfunctions |
//! | `table` | how they are found |
//! | `abroad` | what containers do to their netdevs |
//! | `devlink` | devlink's requests |
//! | `ethtool` | channels, receive-side scaling and statistics |
//! | `route` | rtnetlink's requests |
//! | `sysfs` | the files of the device |
//! | `slot` | where on the PCI bus it is |
//!
//! Sources are cited where a driver's behaviour is followed, as paths of Linux 6.12.

mod abroad;
mod connection;
mod devlink;
mod ethtool;
mod functions;
mod host;
mod played;
mod refuse;
mod route;
mod server;
mod slot;
mod sysfs;
mod table;
mod vendor;

pub use server::NetlinkServer;
pub use slot::{PciSlot, PciSlotError};

/// How the kernel is played.
#[derive(Clone, Copy, Debug)]
pub struct NetlinkConfig {
    /// Where on the PCI bus the NIC is.
    pub slot: PciSlot,
    /// Queue pairs of each virtual function and subfunction, 1 to 256.
    pub function_queues: u16,
}
