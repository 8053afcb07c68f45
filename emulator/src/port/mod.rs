//! What stands behind a vport, and the netdevs that this needs.
//!
//! | module | what lives there |
//! |---|---|
//! | [`burst`] | the frames of a burst to and from a netdev, in few system calls |
//! | `channel` | a channel that is a vhost-user device |
//! | `counters` | what passed a port and what was lost |
//! | `limiter` | whether its queues may be served now |
//! | `steering` | which queue pair a packet goes to |
//! | [`tap`] | one queue of a TAP |
//! | [`netdev`] | changing and watching netdevs over netlink, thousands at a time |
//! | [`representor`] | the host netdevs of vports |
//! | [`mod@attach`] | a channel as a multi-queue TAP inside a container's network namespace |
//! | [`uplink`] | the wire: TAP, AF_PACKET, AF_XDP or capture files |
//!
//! Every port takes and gives frames with a 12-byte virtio-net header in front, little-endian
//! (virtio 1.3 §5.1.6), so that an unfinished checksum or a whole TCP segment train passes as it is.

pub mod attach;
pub mod burst;
mod channel;
mod counters;
mod ifname;
mod limiter;
mod limits;
mod link_watch;
pub mod netdev;
pub mod netns;
pub mod representor;
pub(crate) mod rtnl;
mod steering;
pub mod tap;
mod tun_ioctl;
pub mod uplink;

pub use attach::{Attached, TapSpec, attach};
pub use burst::{Inbox, Netdev, Uring};
pub use channel::{Channel, DeviceSettings, RxQueue, TxQueue};
pub use counters::{Counted, Counters};
pub use ifname::{IfName, IfNameError};
pub use limiter::{Limiter, Quota};
pub use limits::{nofile_limit, raise_nofile_limit};
pub use link_watch::{LinkState, LinkTable};
pub use netdev::{LinkChange, Netdevs};
pub use representor::{Representor, RepresentorName, RepresentorSpec, Representors};
pub use steering::Steering;
pub use tap::{Tap, probe};
pub use uplink::Uplink;

use chanio_model::{ChannelName, VportId};
use std::io;
use std::sync::Arc;

/// One port of the switch with everything that carries its packets.
pub struct Port {
    /// Its place in the switch.
    pub id: VportId,
    /// The channel's name; `None` for the uplink.
    pub channel: Option<ChannelName>,
    /// Where its packets go and come from.
    pub endpoint: Endpoint,
    /// The host's side, if it has one.
    pub representor: Option<Arc<Representor>>,
    /// What passed and what was lost.
    pub counters: Counters,
    /// How fast it may send.
    pub limiter: Limiter,
}

/// Where a port's packets go and come from.
pub enum Endpoint {
    /// A vhost-user device.
    Rings(Arc<Channel>),
    /// A netdev in a container, one TAP queue per pair.
    Netdev(Attached),
    /// The wire.
    Uplink(Uplink),
}

impl Endpoint {
    /// How packets are spread over its queues; `None`: it has but one.
    pub fn steering(&self) -> Option<&Steering> {
        match self {
            Endpoint::Rings(channel) => Some(channel.steering()),
            Endpoint::Netdev(netdev) => Some(&netdev.steering),
            Endpoint::Uplink(_) => None,
        }
    }
}

/// Bytes that hold any frame a port gives: 12 of virtio-net header, an Ethernet header with two
/// VLAN tags, and 64 KiB, the most that Linux puts into one frame for a netdev that has not asked
/// for more (`GSO_LEGACY_MAX_SIZE`). A shorter buffer cuts long frames off.
pub const RECV_BUF_LEN: usize = 12 + 22 + 65_536;

/// Why a port did not take a frame.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The other side's queue is full.
    #[error("the queue is full")]
    Full,
    /// The netdev is administratively down, or gone.
    #[error("the netdev is down or gone")]
    Down,
    /// Longer than the MTU, and not a frame to be segmented.
    #[error("the frame is longer than the MTU")]
    TooBig,
    /// The kernel does not accept this virtio-net header for this frame, or it asks for something
    /// that the port's `offloads()` leave out.
    #[error("the virtio-net header does not fit the frame")]
    BadHeader,
    /// Anything else.
    #[error(transparent)]
    Other(io::Error),
}

impl From<io::Error> for SendError {
    /// As `write` on a TAP and `sendmsg` on a packet socket fail.
    fn from(err: io::Error) -> Self {
        match err.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => SendError::Full,
            Some(libc::EIO | libc::EBADFD | libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => {
                SendError::Down
            }
            Some(libc::EMSGSIZE) => SendError::TooBig,
            Some(libc::EINVAL) => SendError::BadHeader,
            _ => SendError::Other(err),
        }
    }
}
