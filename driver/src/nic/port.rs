//! The switch's ports: representors, addresses behind them, counters.

use serde::Serialize;
use std::collections::BTreeMap;

/// A representor.
#[derive(Clone, Debug, Serialize)]
pub struct Representor {
    /// The netdev.
    pub name: String,
    /// Its vport.
    pub vport: u32,
    /// The channel; `null` for the uplink's.
    pub channel: Option<String>,
    /// Administratively up.
    pub up: bool,
    /// Carrier.
    pub carrier: bool,
    /// Bytes.
    pub mtu: u32,
}

/// An address.
#[derive(Clone, Debug, Serialize)]
pub struct FdbEntry {
    /// 0: untagged.
    pub vlan: u32,
    /// The address.
    pub mac: String,
    /// A channel's name, or `uplink`.
    pub port: String,
    /// The port's vport.
    pub vport: u32,
    /// Not learned.
    #[serde(rename = "static")]
    pub is_static: bool,
    /// Nanoseconds since it was seen; `null` for static ones.
    pub idle_ns: Option<u64>,
}

/// Counters of a vport. Packets, and bytes from the Ethernet header on without FCS.
#[derive(Clone, Debug, Serialize)]
pub struct VportStats {
    /// Its number.
    pub vport: u32,
    /// The channel's name, or `uplink`.
    pub name: String,
    /// Sent by the channel.
    pub tx_packets: u64,
    /// Sent by the channel.
    pub tx_bytes: u64,
    /// Received by the channel.
    pub rx_packets: u64,
    /// Received by the channel.
    pub rx_bytes: u64,
    /// Packets lost, by reason; reasons with no loss are left out.
    pub drops: BTreeMap<String, u64>,
    /// The host's side.
    pub representor: Option<RepresentorStats>,
    /// By queue pair, in ethtool's names: `rx_queue_0_packets`. Empty if not asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub queues: BTreeMap<String, u64>,
    /// What the reasons mean.
    #[serde(skip)]
    pub explanations: BTreeMap<String, String>,
}

/// A representor's counters, as `ip -s link` shows them.
#[derive(Clone, Debug, Serialize)]
pub struct RepresentorStats {
    /// The netdev.
    pub name: String,
    /// From the channel to the host.
    pub rx_packets: u64,
    /// From the channel to the host.
    pub rx_bytes: u64,
    /// From the host to the channel.
    pub tx_packets: u64,
    /// From the host to the channel.
    pub tx_bytes: u64,
}
