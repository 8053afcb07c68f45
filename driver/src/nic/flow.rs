//! Flow rules, those of the kernel, and tracked connections.

use super::hex;
use serde::Serialize;
use std::collections::BTreeMap;

/// A flow rule.
#[derive(Clone, Debug, Serialize)]
pub struct Flow {
    /// Its identity.
    pub id: u64,
    /// The rule as text.
    pub rule: String,
    /// The lowest wins.
    pub priority: u32,
    /// The caller's mark.
    pub cookie: u64,
    /// What it matches: key and value as in the text.
    #[serde(rename = "match")]
    pub matches: BTreeMap<String, String>,
    /// What it does, in order.
    pub actions: Vec<String>,
    /// Packets that took it.
    pub packets: u64,
    /// Bytes of those packets.
    pub bytes: u64,
    /// Nanoseconds since a packet last took it; `null`: never.
    pub idle_ns: Option<u64>,
    /// Packets begin in 0.
    pub chain: u32,
    /// What got to each of its actions, in their order.
    pub action_stats: Vec<FlowAction>,
}

/// What got to one action of a rule.
#[derive(Clone, Debug, Serialize)]
pub struct FlowAction {
    /// The action as text.
    pub action: String,
    /// Packets that got to it.
    pub packets: u64,
    /// Bytes of those packets.
    pub bytes: u64,
    /// Nanoseconds since one last did; `null`: never.
    pub idle_ns: Option<u64>,
}

/// A filter of tc's on a representor, or an address that a bridge knows to be behind one.
#[derive(Clone, Debug, Serialize)]
pub struct KernelRule {
    /// The netdev, `block N`, or the bridge.
    pub place: String,
    /// `flower`, `matchall`, `u32` and so on; `fdb` for an address.
    pub kind: String,
    /// tc's chain; 0 for an address.
    pub chain: u32,
    /// tc's priority (`pref`); 0 for an address.
    pub priority: u32,
    /// The filter's own number; 0 for an address.
    pub handle: u32,
    /// EtherType that the filter is for, 3: all; 0 for an address.
    pub protocol: u32,
    /// A filter that is in hardware as a rule of the switch; an address with VLAN and netdev.
    pub rule: Option<String>,
    /// On so many ports it could be in hardware.
    pub ports: u32,
    /// On so many it is.
    pub in_hw_count: u32,
    /// Why it is not in hardware, on the first port where it is not.
    pub why_not: Option<String>,
    /// The rules that are there for it, as traces and captures name them.
    pub ids: Vec<u64>,
    /// Packets that took it in hardware.
    pub packets: u64,
    /// Bytes of those packets.
    pub bytes: u64,
    /// Nanoseconds since a packet last did; `null`: none.
    pub idle_ns: Option<u64>,
}

/// A tracked connection.
#[derive(Clone, Debug, Serialize)]
pub struct Connection {
    /// No other connection ever had it.
    pub id: u64,
    /// Connections of different zones have nothing to do with each other.
    pub zone: u32,
    /// IP protocol.
    pub protocol: u32,
    /// The state of TCP and SCTP, by nf_conntrack's names.
    pub state: Option<String>,
    /// Packets that go as the first one, before translation.
    pub original: ConnectionSide,
    /// The answers, before translation.
    pub reply: ConnectionSide,
    /// The other end has answered.
    pub seen_reply: bool,
    /// Not to be dropped for others.
    pub assured: bool,
    /// In the flow table.
    pub offloaded: bool,
    /// Nanoseconds that it may be silent from now on.
    pub expires_ns: u64,
    /// Its mark.
    pub mark: u32,
    /// Its label in hex, the lowest byte first.
    #[serde(serialize_with = "hex")]
    pub label: Vec<u8>,
}

/// One direction of a connection.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConnectionSide {
    /// Source address.
    pub src: String,
    /// Destination address.
    pub dst: String,
    /// Source port; of ICMP the identifier.
    pub src_port: u32,
    /// Destination port; of ICMP the type times 256, and the code.
    pub dst_port: u32,
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets.
    pub bytes: u64,
}
