//! What stands behind a vport: the channel's rings or netdev, the wire, and the host's
//! representor.

mod channel;
mod counters;

pub use channel::{Channel, DeviceSettings, RxQueue, TxQueue};
pub use counters::{Counted, Counters};

use chanio_model::{ChannelName, VportId};
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
    pub representor: Option<Representor>,
    /// What passed and what was lost.
    pub counters: Counters,
}

/// Where a port's packets go and come from.
pub enum Endpoint {
    /// A vhost-user device.
    Rings(Arc<Channel>),
    /// A netdev in a container, one TAP queue per pair.
    Netdev(Vec<Tap>),
    /// The wire.
    Uplink(Uplink),
}
mod stub; pub use stub::*;
