//! What is asked of the NIC and what it tells: plain data, no behaviour.

use chanio_model::edit::TunnelPorts;
use chanio_model::eswitch::{Mode, Receive, ReceiveChange};
use chanio_model::flow::RuleSpec;
use chanio_model::profile::Profile;
use chanio_model::rate::{RateName, Rates};
use chanio_model::rss::{RssChange, RssSettings};
use chanio_model::{ChannelName, DropReason, Mac, RuleId, Vlan, VportId};
use std::path::PathBuf;

/// How the NIC is made; fixed for its lifetime.
#[derive(Clone, Debug)]
pub struct NicConfig {
    /// Queue pairs in the pool, 1 to 1,000,000.
    pub queues: u32,
    /// Where sockets live: `channel/<name>.sock`, `control.sock`.
    pub run_dir: PathBuf,
    /// Forwarding threads, 1 to 64.
    pub workers: usize,
    /// Whether vports get a netdev in this network namespace.
    pub representors: RepresentorMode,
    /// The wire.
    pub uplink: UplinkSpec,
    /// N of the representors' names `c<N>pf0sf<M>`, 0 to 99.
    pub nic_index: u32,
    /// How long a learned FDB entry lives without traffic, seconds, 10 to 1,000,000.
    pub ageing_secs: u32,
    /// Whose limits it has, and whose refusals.
    pub profile: &'static Profile,
    /// Follow the kernel: what tc and bridges do with representors is done in hardware, where the
    /// result is the same. Needs representors.
    pub offload: bool,
}

/// Whether vports get a netdev.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepresentorMode {
    /// TAPs when the machine can make them; otherwise none, and `nic show` says what is missing.
    Auto,
    /// TAPs, or refuse to start.
    Tap,
    /// None.
    Off,
}

/// The wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UplinkSpec {
    /// No wire.
    None,
    /// A TAP of this name, made here: what the host sends on it arrives from the wire.
    Tap(String),
    /// An existing netdev, through AF_PACKET.
    Packet(String),
    /// An existing netdev, through AF_XDP.
    Xdp(String),
    /// Frames of `input` (pcap or pcapng) arrive in order; frames sent are appended to `output`.
    Pcap {
        /// Played once when the uplink comes up; `None`: nothing arrives.
        input: Option<PathBuf>,
        /// Written as pcapng; `None`: what is sent is only counted.
        output: Option<PathBuf>,
    },
}

/// Where a channel's queues go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attach {
    /// A vhost-user socket at which we listen.
    VhostUser,
    /// A vhost-user socket of somebody else's, to which we connect, again and again.
    VhostUserClient {
        /// The other side's socket.
        path: PathBuf,
    },
    /// A multi-queue TAP in a container's network namespace.
    Tap {
        /// A name as in `ip netns`, or a path such as /proc/PID/ns/net.
        netns: String,
        /// Name of the netdev in there; `None`: `eth0`.
        ifname: Option<String>,
        /// Addresses it gets.
        addresses: Vec<ipnet::IpNet>,
    },
    /// Nowhere: of devices whose functions have no netdevs, as netdevsim's. No emulator's channel
    /// is such.
    Nothing,
}

/// A channel as asked for.
#[derive(Clone, Debug)]
pub struct ChannelSpec {
    /// Unique in the NIC.
    pub name: ChannelName,
    /// Queue pairs, 1 to 256 (TAP) or 1 to 127 (vhost-user: ring indices have 8 bits, and one
    /// ring is the control queue).
    pub queues: u16,
    /// `None`: the NIC chooses a locally administered address.
    pub mac: Option<Mac>,
    /// Port VLAN: added to what the channel sends, taken off what it receives.
    pub vlan: Option<Vlan>,
    /// Largest L3 packet, bytes, 68 to 9,500.
    pub mtu: u16,
    /// Drop frames whose source is not the channel's own.
    pub spoofchk: bool,
    /// Allow the driver to change its address and to ask for promiscuous mode.
    pub trust: bool,
    /// Administrative link state.
    pub link_up: bool,
    /// How packets are spread over its queues; `None`: by a hash of the emulator's own.
    pub rss: Option<RssSettings>,
    /// Join TCP segments for a driver that takes large packets (LRO, ethtool's rx-gro-hw); only
    /// with a vhost-user device.
    pub lro: bool,
    /// The group of ports that it shares its rules with, as tc's shared block; 0: none.
    pub block: u16,
    /// What it receives while its driver asks for nothing else, and its further addresses.
    pub receive: Receive,
    /// Where its queues go.
    pub attach: Attach,
}

impl ChannelSpec {
    /// A channel with one queue pair, a vhost-user socket, and nothing special about it.
    pub fn new(name: ChannelName) -> Self {
        Self {
            name,
            queues: 1,
            mac: None,
            vlan: None,
            mtu: super::edge::DEFAULT_MTU,
            spoofchk: false,
            trust: false,
            link_up: true,
            rss: None,
            lro: false,
            block: 0,
            receive: Receive::default(),
            attach: Attach::VhostUser,
        }
    }
}

/// What of a channel can be changed while it runs; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelChange {
    /// New address.
    pub mac: Option<Mac>,
    /// `Some(None)` removes the port VLAN.
    pub vlan: Option<Option<Vlan>>,
    /// New MTU, bytes.
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
    /// See [`ChannelSpec::block`].
    pub block: Option<u16>,
    /// See [`ChannelSpec::receive`].
    pub receive: ReceiveChange,
    /// Start a channel again that was stopped for a fault.
    pub clear_fault: bool,
}

/// What a driver at the other end is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelState {
    /// Nobody is attached.
    Disconnected,
    /// A client is attached but has started no ring.
    Connected,
    /// At least one ring runs.
    Running,
    /// Stopped for the reason in [`ChannelInfo::fault`].
    Faulted,
}

/// A channel as it is.
#[derive(Clone, Debug)]
pub struct ChannelInfo {
    /// What was asked for (with the MAC chosen), and changed since.
    pub spec: ChannelSpec,
    /// The address in use (the driver may have changed it, if trusted).
    pub mac: Mac,
    /// Its vport.
    pub vport: VportId,
    /// Its representor's netdev, if it has one.
    pub representor: Option<String>,
    /// Its socket, for a vhost-user channel.
    pub socket: Option<PathBuf>,
    /// What the other end is doing.
    pub state: ChannelState,
    /// Why it was last stopped.
    pub fault: Option<String>,
    /// Virtio feature bits in use (virtio 1.3 §5.1.3), 0 while no driver is attached.
    pub features: u64,
    /// Queue pairs with both rings running.
    pub active_queues: u16,
    /// How packets are spread over its queues now: as control or, after it, the driver has asked.
    pub rss: Option<RssSettings>,
}

/// A representor as it is.
#[derive(Clone, Debug)]
pub struct RepresentorInfo {
    /// The netdev's name when it was made.
    pub name: String,
    /// The netdev, even after it was renamed.
    pub ifindex: u32,
    /// Whose representor.
    pub vport: VportId,
    /// The channel; `None` for the uplink's.
    pub channel: Option<ChannelName>,
    /// Administratively up, as the host has set it.
    pub up: bool,
    /// Carrier: follows the channel's link and connection.
    pub carrier: bool,
    /// MTU, bytes.
    pub mtu: u32,
}

/// The whole NIC.
#[derive(Clone, Debug)]
pub struct NicInfo {
    /// Emulator version.
    pub version: &'static str,
    /// Queue pairs in the pool.
    pub queues: u32,
    /// Queue pairs not taken.
    pub queues_free: u32,
    /// Channels.
    pub channels: u32,
    /// Forwarding threads.
    pub workers: usize,
    /// The wire, in the words of `--uplink`.
    pub uplink: String,
    /// Whether representors are netdevs, and if not, why.
    pub representors: Result<(), String>,
    /// Where its sockets are.
    pub run_dir: PathBuf,
    /// Whose limits and refusals it has.
    pub profile: &'static Profile,
}

/// The eswitch's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EswitchInfo {
    /// legacy or switchdev.
    pub mode: Mode,
    /// Frames between channels go over the wire instead of turning around here.
    pub vepa: bool,
    /// Seconds a learned FDB entry lives without traffic.
    pub ageing_secs: u32,
    /// Which UDP ports are tunnels'.
    pub tunnel_ports: TunnelPorts,
    /// The group of ports that the uplink shares its rules with, as [`ChannelSpec::block`].
    pub uplink_block: u16,
    /// How often notifications of the kernel were lost, so that everything was read anew; `None`:
    /// it is not followed.
    pub kernel_overruns: Option<u64>,
    /// Flow rules.
    pub rules: usize,
    /// FDB entries, learned and static.
    pub fdb_entries: usize,
}

/// Eswitch settings to change; `None` leaves one as it is.
#[derive(Clone, Debug, Default)]
pub struct EswitchChange {
    /// Changing the mode removes all flow rules and learned FDB entries, as devlink does.
    pub mode: Option<Mode>,
    /// See [`EswitchInfo::vepa`].
    pub vepa: Option<bool>,
    /// 10 to 1,000,000.
    pub ageing_secs: Option<u32>,
    /// See [`EswitchInfo::tunnel_ports`].
    pub tunnel_ports: Option<TunnelPorts>,
    /// See [`EswitchInfo::uplink_block`].
    pub uplink_block: Option<u16>,
}

/// A rate object as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateInfo {
    /// A channel's name, or a node's.
    pub name: RateName,
    /// A node; otherwise a channel's leaf.
    pub is_node: bool,
    /// Its settings.
    pub rates: Rates,
}

/// A flow rule as it is.
#[derive(Clone, Debug)]
pub struct RuleInfo {
    /// Its identity.
    pub id: RuleId,
    /// What was asked for.
    pub spec: RuleSpec,
    /// Packets that took it.
    pub packets: u64,
    /// Bytes of those packets, from the Ethernet header on, without FCS.
    pub bytes: u64,
    /// Nanoseconds since a packet last took it; `None`: never.
    pub idle_ns: Option<u64>,
    /// What got to each of its actions, in their order.
    pub actions: Vec<ActionInfo>,
}

/// A filter of tc's on a representor, or an address that a bridge knows to be behind one.
#[derive(Clone, Debug)]
pub struct KernelRule {
    /// The netdev, `block N`, or the bridge.
    pub place: String,
    /// `flower`, `matchall`, `u32` and so on; `fdb` for an address.
    pub kind: String,
    /// tc's chain; 0 for an address.
    pub chain: u32,
    /// tc's priority (`pref`); 0 for an address.
    pub priority: u16,
    /// The filter's own number; 0 for an address.
    pub handle: u32,
    /// EtherType that the filter is for, 3: all; 0 for an address.
    pub protocol: u16,
    /// What an address is listed as.
    pub text: Option<String>,
    /// As a rule of the switch, on the first port where it is in hardware.
    pub spec: Option<RuleSpec>,
    /// On so many ports it could be in hardware.
    pub ports: u32,
    /// On so many it is.
    pub in_hw: u32,
    /// Why it is not, on the first port where it is not.
    pub why_not: Option<String>,
    /// The rules that are there for it, by number.
    pub ids: Vec<RuleId>,
    /// Packets that took it in hardware.
    pub packets: u64,
    /// Bytes of those packets, from the Ethernet header on, without FCS.
    pub bytes: u64,
    /// Nanoseconds since the last one; `None`: none came.
    pub idle_ns: Option<u64>,
}

/// What got to one action of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionInfo {
    /// Packets.
    pub packets: u64,
    /// Bytes of those packets, from the Ethernet header on, without FCS.
    pub bytes: u64,
    /// Nanoseconds since the last one; `None`: none came.
    pub idle_ns: Option<u64>,
}

/// An FDB entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbInfo {
    /// 0: untagged.
    pub vid: u16,
    /// The address.
    pub mac: Mac,
    /// Where it is.
    pub vport: VportId,
    /// Static (added by control or a channel's own) or learned.
    pub is_static: bool,
    /// Nanoseconds since it was last seen; `None` for static ones.
    pub idle_ns: Option<u64>,
}

/// Packets and bytes (from the Ethernet header on, without FCS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets (a GSO frame is one).
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Counters of a queue pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Sent by the channel.
    pub tx: Count,
    /// Received by the channel.
    pub rx: Count,
}

/// Counters of a vport and of its representor.
#[derive(Clone, Debug)]
pub struct VportStats {
    /// Which.
    pub vport: VportId,
    /// The channel; `None` for the uplink.
    pub channel: Option<ChannelName>,
    /// Sent by the channel (uplink: received from the wire): what entered the switch here.
    pub tx: Count,
    /// Received by the channel (uplink: sent on the wire): what left the switch here.
    pub rx: Count,
    /// The representor's netdev.
    pub representor: Option<String>,
    /// Given to the host on the representor: what `ip -s link` shows as its RX.
    pub representor_rx: Count,
    /// Sent by the host on the representor: what `ip -s link` shows as its TX.
    pub representor_tx: Count,
    /// Packets lost, by reason; reasons with no loss are left out.
    pub drops: Vec<(DropReason, u64)>,
    /// Of each queue pair of a channel.
    pub queues: Vec<QueueStats>,
}
