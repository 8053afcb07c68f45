//! Channels and their rates.

use chanio_model::eswitch::ReceiveChange;
use chanio_model::rss::RssChange;
use serde::Serialize;

/// What kind of function of the NIC's a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionKind {
    /// A subfunction.
    Sf,
    /// A virtual function.
    Vf,
    /// A macvlan device that has queues of the NIC's.
    Macvlan,
}

impl std::fmt::Display for FunctionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            FunctionKind::Sf => "sf",
            FunctionKind::Vf => "vf",
            FunctionKind::Macvlan => "macvlan",
        })
    }
}

/// A channel to be made.
#[derive(Clone, Debug)]
pub struct ChannelSpec {
    /// Unique on its NIC.
    pub name: String,
    /// What it is; `None`: the device chooses.
    pub function: Option<FunctionKind>,
    /// RDMA over Ethernet is allowed; `None`: as the device has it.
    pub roce: Option<bool>,
    /// Queue pairs.
    pub queues: u16,
    /// `None`: the device chooses.
    pub mac: Option<String>,
    /// Port VLAN, 1 to 4094; 0: none.
    pub vlan: u16,
    /// Bytes.
    pub mtu: u16,
    /// Drop frames whose source is not the channel's own.
    pub spoofchk: bool,
    /// Allow the driver to change address and receive mode.
    pub trust: bool,
    /// Administrative link state.
    pub link_up: bool,
    /// How packets are spread over its queues; `None`: as the device does it.
    pub rss: Option<RssChange>,
    /// Join TCP segments for a driver that takes large packets.
    pub lro: bool,
    /// The group of ports that it shares its rules with; 0: none.
    pub block: u16,
    /// What of its reception is to be otherwise than everything.
    pub receive: ReceiveChange,
    /// Where its queues go.
    pub attach: chanio_emu::nic::spec::Attach,
}

/// What to change of a channel; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct ChannelChange {
    /// Queue pairs.
    pub queues: Option<u16>,
    /// Address.
    pub mac: Option<String>,
    /// Port VLAN; 0 removes it.
    pub vlan: Option<u16>,
    /// Bytes.
    pub mtu: Option<u16>,
    /// Spoof checking.
    pub spoofchk: Option<bool>,
    /// Trust.
    pub trust: Option<bool>,
    /// Administrative link state.
    pub link_up: Option<bool>,
    /// How packets are spread over its queues.
    pub rss: Option<RssChange>,
    /// Joining of TCP segments.
    pub lro: Option<bool>,
    /// The group of ports that it shares its rules with; 0: none.
    pub block: Option<u16>,
    /// What it receives, and its further addresses.
    pub receive: ReceiveChange,
    /// Start again after a fault.
    pub clear_fault: bool,
}

/// A channel.
#[derive(Clone, Debug, Serialize)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// Its vport.
    pub vport: u32,
    /// The address in use.
    pub mac: String,
    /// Queue pairs.
    pub queues: u32,
    /// Queue pairs with both rings running.
    pub active_queues: u32,
    /// Port VLAN.
    pub vlan: Option<u32>,
    /// Bytes.
    pub mtu: u32,
    /// Spoof checking.
    pub spoofchk: bool,
    /// Trust.
    pub trust: bool,
    /// TCP segments are joined.
    pub lro: bool,
    /// Administrative link state: `up` or `down`.
    pub link: &'static str,
    /// Where its queues go: `vhost-user`, `vhost-user-client:PATH`, `tap:NETNS:IF`.
    pub attach: String,
    /// The representor's netdev.
    pub representor: Option<String>,
    /// Its vhost-user socket.
    pub socket: Option<String>,
    /// `disconnected`, `connected`, `running` or `faulted`.
    pub state: &'static str,
    /// Why it was last stopped.
    pub fault: Option<String>,
    /// Virtio feature bits in use, in hex.
    pub features: String,
    /// How packets are spread over its queues; `null`: as the device does it. A channel that is
    /// driven through the kernel tells it only when it is asked for by name.
    pub rss: Option<Rss>,
    /// RDMA over Ethernet is allowed; `null`: the device does not tell.
    pub roce: Option<bool>,
    /// The group of ports that it shares its rules with.
    pub block: Option<u32>,
    /// Addresses besides the first.
    pub more_macs: Vec<String>,
    /// It receives all addresses, while its driver asks for nothing else.
    pub promisc: bool,
    /// It receives all groups.
    pub allmulti: bool,
    /// Tagged frames that it receives; `null`: of all VLANs.
    pub vlan_filter: Option<String>,
}

/// Receive-side scaling in force.
#[derive(Clone, Debug, Serialize)]
pub struct Rss {
    /// What is hashed.
    pub hash_types: Vec<String>,
    /// In hex, with colons.
    pub key: String,
    /// Queue pairs by the low bits of the hash.
    pub table: Vec<u32>,
    /// The queue pair for packets of which nothing is hashed.
    pub unclassified: u32,
}

/// How fast a channel, or all below a node, may send.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    /// A channel's name, or a node's.
    pub name: String,
    /// `leaf` or `node`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Guaranteed within the parent, bytes per second; 0: nothing.
    pub tx_share: u64,
    /// Ceiling, bytes per second; 0: none.
    pub tx_max: u64,
    /// Among siblings, the highest goes first.
    pub tx_priority: u32,
    /// Among siblings of one priority.
    pub tx_weight: u32,
    /// The node above.
    pub parent: Option<String>,
}
