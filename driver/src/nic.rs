//! What can be asked of a device, whatever it is; and the plain data it answers with, which is
//! also what `--json` prints (docs/json.md).

use crate::DeviceError;
use crate::feature::{Feature, refuse};
use chanio_model::edit::TunnelPorts;
use chanio_model::eswitch::ReceiveChange;
use chanio_model::rate::RateChange;
use chanio_model::rss::RssChange;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A NIC. Calls may block; each does all it says or, on an error, nothing. What a backend leaves
/// out is refused with [`Nic::why_not`]'s reason.
pub trait Nic {
    /// Why the device cannot do this; `None`: it can.
    fn why_not(&self, feature: Feature) -> Option<String> {
        let _ = feature;
        None
    }
    /// The device and what it can do.
    fn info(&mut self) -> Result<NicInfo, DeviceError>;
    /// The eswitch's settings.
    fn eswitch(&mut self) -> Result<Eswitch, DeviceError>;
    /// Change settings of the eswitch. Another mode removes rules and learned addresses.
    fn set_eswitch(&mut self, change: EswitchChange) -> Result<Eswitch, DeviceError>;
    /// Make channels, all or none.
    fn add_channels(&mut self, specs: Vec<ChannelSpec>) -> Result<Vec<Channel>, DeviceError>;
    /// Remove channels, all or none, with the rules that name them.
    fn del_channels(&mut self, names: &[String]) -> Result<(), DeviceError>;
    /// Change a running channel.
    fn set_channel(&mut self, name: &str, change: ChannelChange) -> Result<Channel, DeviceError>;
    /// These channels, or all if `names` is empty.
    fn channels(&mut self, names: &[String]) -> Result<Vec<Channel>, DeviceError>;
    /// Representors that exist.
    fn representors(&mut self) -> Result<Vec<Representor>, DeviceError> {
        Err(refuse(self, Feature::Representors))
    }
    /// Add flow rules in their text form, all or none; with `replace`, each in the place of the
    /// one of its chain and priority that matches the same.
    fn add_flows(&mut self, rules: Vec<String>, replace: bool) -> Result<Vec<u64>, DeviceError> {
        let _ = (rules, replace);
        Err(refuse(self, Feature::Flows))
    }
    /// Remove flow rules, all or none.
    fn del_flows(&mut self, ids: &[u64]) -> Result<(), DeviceError> {
        let _ = ids;
        Err(refuse(self, Feature::Flows))
    }
    /// Remove every flow rule; how many.
    fn flush_flows(&mut self) -> Result<u64, DeviceError> {
        Err(refuse(self, Feature::Flows))
    }
    /// Flow rules, in the order they were added.
    fn flows(&mut self) -> Result<Vec<Flow>, DeviceError> {
        Err(refuse(self, Feature::Flows))
    }
    /// What tc and bridges of the kernel have for representors, and whether it is in hardware.
    fn kernel_rules(&mut self) -> Result<Vec<KernelRule>, DeviceError> {
        Err(DeviceError::Unsupported {
            what: "flow show --kernel".into(),
            why: "only an emulator that runs with --offload has it; ask tc -s filter show".into(),
        })
    }
    /// The address table.
    fn fdb(&mut self) -> Result<Vec<FdbEntry>, DeviceError> {
        Err(refuse(self, Feature::Fdb))
    }
    /// Add a static address; VLAN 0 is untagged.
    fn add_fdb(&mut self, vlan: u16, mac: &str, port: &str) -> Result<(), DeviceError> {
        let _ = (vlan, mac, port);
        Err(refuse(self, Feature::Fdb))
    }
    /// Remove an added static address.
    fn del_fdb(&mut self, vlan: u16, mac: &str) -> Result<(), DeviceError> {
        let _ = (vlan, mac);
        Err(refuse(self, Feature::Fdb))
    }
    /// Forget learned addresses; how many.
    fn flush_fdb(&mut self) -> Result<u64, DeviceError> {
        Err(refuse(self, Feature::Fdb))
    }
    /// Tracked connections of a zone, or of all.
    fn connections(&mut self, zone: Option<u16>) -> Result<Vec<Connection>, DeviceError> {
        let _ = zone;
        Err(refuse(self, Feature::Connections))
    }
    /// Forget the connections of a zone, or all; how many.
    fn flush_connections(&mut self, zone: Option<u16>) -> Result<u64, DeviceError> {
        let _ = zone;
        Err(refuse(self, Feature::Connections))
    }
    /// Rate nodes and channels' leaves: these, or all if `names` is empty.
    fn rates(&mut self, names: &[String]) -> Result<Vec<Rate>, DeviceError> {
        let _ = names;
        Err(refuse(self, Feature::TxMax))
    }
    /// Make a rate node.
    fn add_rate(&mut self, name: &str, change: RateChange) -> Result<Rate, DeviceError> {
        let _ = (name, change);
        Err(refuse(self, Feature::RateNodes))
    }
    /// Change a rate node, or the leaf of a channel.
    fn set_rate(&mut self, name: &str, change: RateChange) -> Result<Rate, DeviceError> {
        let _ = (name, change);
        Err(refuse(self, Feature::TxMax))
    }
    /// Remove a rate node that nothing is below.
    fn del_rate(&mut self, name: &str) -> Result<(), DeviceError> {
        let _ = name;
        Err(refuse(self, Feature::RateNodes))
    }
    /// Counters of these vports, or of all if `names` is empty.
    /// With `queues`, of each queue pair as well.
    fn stats(&mut self, names: &[String], queues: bool) -> Result<Vec<VportStats>, DeviceError>;
    /// What would become of a finished frame that comes in at a port, or that the host sends on
    /// its representor. Nothing comes of it.
    fn trace(
        &mut self,
        port: &str,
        from_host: bool,
        frame: Vec<u8>,
    ) -> Result<Vec<TraceStep>, DeviceError> {
        let _ = (port, from_host, frame);
        Err(refuse(self, Feature::Trace))
    }
    /// Show frames to `each` as they pass or are lost, until it has seen enough (`false`), the
    /// time given is over, or the process is interrupted.
    fn capture(
        &mut self,
        what: CaptureFilter,
        each: &mut dyn FnMut(CapturedFrame) -> bool,
    ) -> Result<(), DeviceError> {
        let _ = (what, each);
        Err(refuse(self, Feature::Capture))
    }
}

/// One thing that happens to a traced packet.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "step", rename_all = "lowercase")]
pub enum TraceStep {
    /// It is looked up.
    Lookup {
        /// In this chain.
        chain: u32,
        /// With these headers, as a match would ask for them.
        headers: String,
        /// The rule it takes.
        rule: Option<u64>,
        /// That rule as text.
        rule_text: Option<String>,
    },
    /// An action of the rule is done.
    Action {
        /// As text.
        action: String,
    },
    /// It was rewritten.
    Rewritten {
        /// What it begins with now, in hex.
        #[serde(serialize_with = "hex")]
        head: Vec<u8>,
        /// Bytes of all of it.
        len: u32,
    },
    /// A copy goes there.
    Output {
        /// A channel's name, or `uplink`.
        port: String,
        /// To the host, on the port's representor.
        representor: bool,
        /// What it begins with there, in hex.
        #[serde(serialize_with = "hex")]
        head: Vec<u8>,
    },
    /// It, or a copy, is lost.
    Lost {
        /// The port that is charged.
        port: String,
        /// The drop reason.
        reason: String,
        /// What that means.
        explanation: String,
    },
}

/// What to capture; an empty list means all.
#[derive(Clone, Debug, Default)]
pub struct CaptureFilter {
    /// Channels, representors or `uplink`.
    pub ports: Vec<String>,
    /// `tx`, `rx`, `representor-rx`, `representor-tx`, `drop`.
    pub points: Vec<String>,
    /// Queue pair.
    pub queue: Option<u16>,
    /// Names of drop reasons.
    pub reasons: Vec<String>,
    /// So many bytes of each frame; 0: all.
    pub snaplen: u32,
    /// End after so long.
    pub duration: Option<Duration>,
}

/// A frame that was captured.
#[derive(Clone, Debug, Serialize)]
pub struct CapturedFrame {
    /// Nanoseconds since 1970.
    pub at_ns: u64,
    /// The channel's name, or `uplink`.
    pub port: String,
    /// As in [`CaptureFilter::points`].
    pub point: String,
    /// Queue pair, where it is known.
    pub queue: Option<u32>,
    /// Bytes from the Ethernet header on, without FCS.
    pub len: u32,
    /// Its first bytes, in hex.
    #[serde(serialize_with = "hex")]
    pub data: Vec<u8>,
    /// Why it was lost.
    pub reason: Option<String>,
    /// The flow rule that decided.
    pub rule: Option<u64>,
    /// Frames missed since the capture began.
    pub missed: u64,
    /// The chain that had no rule for it, so that it goes to the host.
    pub no_rule_in: Option<u32>,
}

fn hex<S: serde::Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    to.serialize_str(&digits)
}

/// A device and what it can do.
#[derive(Clone, Debug, Serialize)]
pub struct NicInfo {
    /// Its address.
    pub device: String,
    /// Version of what runs it.
    pub version: String,
    /// Queue pairs; `None`: there is no common pool.
    pub queues: Option<u32>,
    /// Queue pairs that no channel has; `None`: there is no common pool.
    pub queues_free: Option<u32>,
    /// Channels that exist.
    pub channels: u32,
    /// Forwarding threads; `None`: the device's own affair.
    pub workers: Option<u32>,
    /// The wire.
    pub uplink: String,
    /// The kind of NIC that an emulator is like; of others, the driver.
    pub profile: String,
    /// What it can do.
    pub capabilities: Capabilities,
}

/// What a device can do.
#[derive(Clone, Debug, Serialize)]
pub struct Capabilities {
    /// Most channels.
    pub max_channels: u32,
    /// Ways to attach a channel.
    pub attach: Vec<&'static str>,
    /// Eswitch modes.
    pub modes: Vec<&'static str>,
    /// Whether channels have representors.
    pub representors: bool,
    /// Why they have none.
    pub no_representors: Option<String>,
    /// Keys of flow rules.
    pub match_keys: Vec<&'static str>,
    /// Actions of flow rules.
    pub actions: Vec<&'static str>,
    /// What it cannot do, and why.
    pub cannot: BTreeMap<&'static str, String>,
}

/// The eswitch's settings.
#[derive(Clone, Debug, Serialize)]
pub struct Eswitch {
    /// `legacy` or `switchdev`.
    pub mode: &'static str,
    /// Frames between channels go over the wire.
    pub vepa: bool,
    /// Seconds that a learned address lives without traffic.
    pub ageing_secs: u32,
    /// Flow rules.
    pub flows: u64,
    /// Addresses, learned and static.
    pub fdb_entries: u64,
    /// Which UDP ports are tunnels'; `null`: the device does not tell.
    pub tunnel_ports: Option<String>,
    /// The group of ports that the uplink shares its rules with; `null`: none.
    pub uplink_block: Option<u32>,
    /// How often notifications of the kernel were lost, so that everything was read anew; `null`:
    /// the device does not follow the kernel in its switch.
    pub kernel_overruns: Option<u64>,
}

/// Settings to change; `None` leaves one as it is.
#[derive(Clone, Debug, Default)]
pub struct EswitchChange {
    /// Switchdev (`true`) or legacy.
    pub switchdev: Option<bool>,
    /// See [`Eswitch::vepa`].
    pub vepa: Option<bool>,
    /// 10 to 1,000,000.
    pub ageing_secs: Option<u32>,
    /// Which UDP ports are tunnels'.
    pub tunnel_ports: Option<TunnelPorts>,
    /// The group of ports that the uplink shares its rules with; 0: none.
    pub uplink_block: Option<u16>,
}

/// A channel to be made.
#[derive(Clone, Debug)]
pub struct ChannelSpec {
    /// Unique on its NIC.
    pub name: String,
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
    /// How packets are spread over its queues; `null`: as the device does it.
    pub rss: Option<Rss>,
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
