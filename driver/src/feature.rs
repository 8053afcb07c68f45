//! What not every device can do, and how it is refused.

use crate::{DeviceError, Nic};
use std::collections::BTreeMap;

macro_rules! features {
    ($($(#[$doc:meta])* $feature:ident = $name:literal,)+) => {
        /// Something that not every device can do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Feature {
            $($(#[$doc])* $feature,)+
        }

        impl Feature {
            /// All of them.
            pub const ALL: &[Feature] = &[$(Feature::$feature),+];

            /// As `chanio nic show` and errors have it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Feature::$feature => $name,)+
                }
            }
        }
    };
}

features! {
    /// A channel behind a vhost-user socket.
    VhostUser = "attach vhost-user",
    /// A channel as a netdev in a network namespace.
    Netns = "attach tap",
    /// More than one queue pair for a channel.
    Queues = "queues",
    /// Another number of queue pairs for a channel that is in use.
    SetQueues = "queues of a channel in use",
    /// Choosing what kind of function of the NIC's a channel is.
    Function = "function",
    /// Allowing a channel RDMA over Ethernet, or forbidding it.
    Roce = "roce",
    /// A port VLAN.
    PortVlan = "vlan",
    /// Dropping frames from addresses that are not the channel's.
    Spoofchk = "spoofchk",
    /// Forbidding the channel to change its address.
    Distrust = "trust off",
    /// Taking a channel's link down.
    LinkState = "link down",
    /// Choosing what a channel receives, and further addresses.
    Receive = "more-mac, promisc, allmulti, vlan-filter",
    /// Rules that several channels share.
    Block = "block",
    /// Choosing how packets are spread over queues.
    Rss = "rss",
    /// Joining TCP segments for a channel.
    Lro = "lro",
    /// Eswitch mode switchdev.
    Switchdev = "switchdev",
    /// Forwarding between channels over the wire.
    Vepa = "vepa",
    /// Setting how long addresses live.
    Ageing = "ageing",
    /// A host's netdev for each channel.
    Representors = "representors",
    /// Flow rules.
    Flows = "flow rules",
    /// An address table.
    Fdb = "fdb",
    /// A ceiling for what a channel sends.
    TxMax = "rate tx_max",
    /// A guarantee for what a channel sends.
    TxShare = "rate tx_share",
    /// Channels that share a rate.
    RateNodes = "rate nodes",
    /// Counters of each queue.
    QueueStats = "stats of queues",
    /// Following a packet through the tables.
    Trace = "trace",
    /// Choosing tunnels' UDP ports.
    TunnelPorts = "tunnel ports",
    /// Looking at tracked connections.
    Connections = "ct",
    /// Frames as they pass.
    Capture = "capture",
}

/// The error for what a device cannot do, with its reason.
pub fn refuse<N: Nic + ?Sized>(nic: &N, feature: Feature) -> DeviceError {
    let why = nic.why_not(feature);
    DeviceError::Unsupported {
        what: feature.name().into(),
        why: why.unwrap_or_else(|| "this kind of device has no such thing".into()),
    }
}

/// All that a device cannot do, with its reasons.
pub fn cannot<N: Nic + ?Sized>(nic: &N) -> BTreeMap<&'static str, String> {
    let reasons = Feature::ALL
        .iter()
        .filter_map(|f| Some((f.name(), nic.why_not(*f)?)));
    reasons.collect()
}
