//! Between messages and the NIC's own types. What comes in is checked here; what goes out is only
//! spelled.

use super::error::RequestError;
use super::proto;
use crate::capture::{Filter, MAX_SNAPLEN, Point, Record};
use crate::datapath::Step;
use crate::nic::edge::{self, DEFAULT_MTU, MTU, QUEUES, RssText, shown};
use crate::nic::spec::*;
use crate::nic::{PortNames, Refused};
use chanio_model::ct::{CtCounters, CtEntry, Tuple};
use chanio_model::edit::{TunnelPorts, TunnelPortsError};
use chanio_model::eswitch::{Dest, Mode, Receive, ReceiveChange, VlanSet};
use chanio_model::flow::Action;
use chanio_model::rate::{RateChange, RateName};
use chanio_model::rss::{RssChange, RssSettings};
use chanio_model::{ChannelName, DropReason, Mac, VportId};
use ipnet::IpNet;

/// A channel as asked for.
pub fn channel_spec(asked: proto::ChannelSpec) -> Result<ChannelSpec, RequestError> {
    let or = |value: u32, default: u16| match value {
        0 => i64::from(default),
        asked => i64::from(asked),
    };
    let queues = edge::number("queues", or(asked.queues, 1), QUEUES)?;
    let rss = asked.rss.as_ref().map(rss_change).transpose()?;
    let rss = rss.map(|change| change.apply(None, queues).map_err(Refused::from));
    Ok(ChannelSpec {
        name: edge::channel_name(&asked.name)?,
        queues,
        rss: rss.transpose()?.flatten(),
        block: edge::number("block", asked.block.into(), 0..=u16::MAX)?,
        receive: match &asked.receive {
            None => Receive::default(),
            // The first address may be the NIC's choice, and is checked there.
            Some(asked) => receive(asked)?
                .apply(&Receive::default(), None)
                .map_err(Refused::from)?,
        },
        mac: match asked.mac.as_str() {
            "" => None,
            text => Some(edge::mac(text)?),
        },
        vlan: edge::port_vlan(asked.vlan.into())?,
        mtu: edge::number("mtu", or(asked.mtu, DEFAULT_MTU), MTU)?,
        spoofchk: asked.spoofchk,
        trust: asked.trust,
        link_up: !asked.link_down,
        lro: asked.lro,
        attach: attach(asked.attach)?,
    })
}

/// A rate object's name, and what to change of it.
pub fn rate_change(asked: proto::RateChange) -> Result<(RateName, RateChange), RequestError> {
    let parent = |text: String| match text.as_str() {
        "" => Ok(None),
        text => rate_name("parent", text).map(Some),
    };
    let change = RateChange {
        tx_share: asked.tx_share,
        tx_max: asked.tx_max,
        tx_priority: asked.tx_priority,
        tx_weight: asked.tx_weight,
        parent: asked.parent.map(parent).transpose()?,
    };
    Ok((rate_name("name", &asked.name)?, change))
}

/// The name of a rate object.
pub fn rate_name(field: &'static str, text: &str) -> Result<RateName, RequestError> {
    text.parse().map_err(|_| RequestError::Invalid {
        field,
        value: format!("`{}`", shown(text)),
        allowed: "1 to 63 characters out of a-z A-Z 0-9 . _ -, the first a letter or digit",
    })
}

impl From<RateInfo> for proto::Rate {
    fn from(info: RateInfo) -> Self {
        let parent = info.rates.parent.map(|name| name.to_string());
        Self {
            name: info.name.to_string(),
            node: info.is_node,
            tx_share: info.rates.tx_share,
            tx_max: info.rates.tx_max,
            tx_priority: info.rates.tx_priority,
            tx_weight: info.rates.tx_weight,
            parent: parent.unwrap_or_default(),
        }
    }
}

fn rss_change(asked: &proto::Rss) -> Result<RssChange, Refused> {
    let table = asked.table.iter().copied().map(i64::from).collect();
    let change = edge::rss(&RssText {
        types: asked.hash_types.as_deref(),
        key: asked.key.as_deref(),
        table: Some(table).filter(|table: &Vec<i64>| !table.is_empty()),
        unclassified: asked.unclassified.map(i64::from),
    })?;
    Ok(RssChange {
        off: asked.off,
        ..change
    })
}

impl From<RssSettings> for proto::Rss {
    fn from(settings: RssSettings) -> Self {
        Self {
            off: false,
            hash_types: Some(settings.types().to_string()),
            key: Some(settings.key().to_string()),
            table: settings.table().iter().copied().map(u32::from).collect(),
            unclassified: Some(settings.unclassified().into()),
        }
    }
}

fn attach(asked: Option<proto::Attach>) -> Result<Attach, RequestError> {
    use proto::attach::{Kind, Tap};
    match asked.and_then(|a| a.kind) {
        None | Some(Kind::VhostUser(_)) => Ok(Attach::VhostUser),
        Some(Kind::VhostUserClient(client)) => Ok(Attach::vhost_user_client(&client.path)?),
        Some(Kind::Tap(Tap {
            netns,
            ifname,
            addresses,
        })) => {
            let addresses: Result<_, _> = addresses.iter().map(|a| ip_net(a)).collect();
            Ok(Attach::tap(&netns, &ifname, addresses?)?)
        }
    }
}

fn ip_net(text: &str) -> Result<IpNet, RequestError> {
    text.parse().map_err(|_| RequestError::Invalid {
        field: "addresses",
        value: format!("`{}`", shown(text)),
        allowed: "ADDRESS/PREFIX, as 10.0.0.1/24",
    })
}

/// Names of channels that are asked about or removed: one that cannot be a name is no channel's.
pub fn channel_names(names: &[String]) -> Result<Vec<ChannelName>, RequestError> {
    let name = |text: &String| text.parse().map_err(|_| no_channel(text));
    names.iter().map(name).collect()
}

/// No such channel.
pub fn no_channel(name: &str) -> RequestError {
    Refused::NoChannel(shown(name)).into()
}

/// What of a channel to change.
pub fn channel_change(
    asked: proto::SetChannelRequest,
) -> Result<(ChannelName, ChannelChange), RequestError> {
    let name = asked.name.parse().map_err(|_| no_channel(&asked.name))?;
    let mtu = |mtu: u32| edge::number("mtu", mtu.into(), MTU);
    let change = ChannelChange {
        mac: asked.mac.as_deref().map(edge::mac).transpose()?,
        vlan: asked.vlan.map(|v| edge::port_vlan(v.into())).transpose()?,
        mtu: asked.mtu.map(mtu).transpose()?,
        spoofchk: asked.spoofchk,
        trust: asked.trust,
        link_up: asked.link_up,
        rss: asked.rss.as_ref().map(rss_change).transpose()?,
        lro: asked.lro,
        block: asked
            .block
            .map(|block| edge::number("block", block.into(), 0..=u16::MAX))
            .transpose()?,
        receive: asked
            .receive
            .as_ref()
            .map(receive)
            .transpose()?
            .unwrap_or_default(),
        clear_fault: asked.clear_fault,
    };
    Ok((name, change))
}

/// What of a channel's reception to change.
fn receive(asked: &proto::Receive) -> Result<ReceiveChange, RequestError> {
    let macs = |list: &[String]| {
        list.iter()
            .map(|mac| edge::mac(mac))
            .collect::<Result<_, _>>()
    };
    let vlans = |text: &String| match text.as_str() {
        "" => Ok(None),
        text => text.parse::<VlanSet>().map(|set| Some(Box::new(set))),
    };
    let vlans = asked.vlan_filter.as_ref().map(vlans).transpose();
    Ok(ReceiveChange {
        promisc: asked.promisc,
        allmulti: asked.allmulti,
        add: macs(&asked.add_macs)?,
        del: macs(&asked.del_macs)?,
        vlans: vlans.map_err(|error| Refused::Invalid {
            field: "vlan_filter",
            value: shown(asked.vlan_filter.as_deref().unwrap_or_default()),
            allowed: error.to_string(),
        })?,
    })
}

/// Settings of the eswitch to change.
pub fn eswitch_change(asked: proto::SetEswitchRequest) -> Result<EswitchChange, RequestError> {
    use proto::EswitchMode;
    let mode = match EswitchMode::try_from(asked.mode) {
        Ok(EswitchMode::Unspecified) => None,
        Ok(EswitchMode::Legacy) => Some(Mode::Legacy),
        Ok(EswitchMode::Switchdev) => Some(Mode::Switchdev),
        Err(_) => {
            return Err(RequestError::Invalid {
                field: "mode",
                value: asked.mode.to_string(),
                allowed: "1 (legacy) or 2 (switchdev), or 0 to leave it",
            });
        }
    };
    Ok(EswitchChange {
        mode,
        vepa: asked.vepa,
        ageing_secs: asked.ageing_secs,
        tunnel_ports: asked
            .tunnel_ports
            .map(|text| tunnel_ports(&text))
            .transpose()?,
        uplink_block: asked
            .uplink_block
            .map(|block| edge::number("uplink_block", block.into(), 0..=u16::MAX))
            .transpose()?,
    })
}

fn tunnel_ports(text: &str) -> Result<TunnelPorts, RequestError> {
    let invalid = |error: TunnelPortsError| Refused::Invalid {
        field: "tunnel_ports",
        value: shown(text),
        allowed: error.to_string(),
    };
    Ok(text.parse().map_err(invalid)?)
}

/// VLAN and address of an FDB entry.
pub fn fdb_key(vid: u32, mac: &str) -> Result<(u16, Mac), RequestError> {
    Ok((edge::vid(vid.into())?, edge::mac(mac)?))
}

/// A rule as listed.
pub fn flow(names: &PortNames, info: &RuleInfo) -> proto::Flow {
    proto::Flow {
        id: info.id.0,
        rule: names.rule(&info.spec),
        priority: info.spec.priority.into(),
        cookie: info.spec.cookie,
        packets: info.packets,
        bytes: info.bytes,
        idle_ns: info.idle_ns,
        actions: flow_actions(names, info),
        chain: info.spec.chain,
    }
}

fn flow_actions(names: &PortNames, info: &RuleInfo) -> Vec<proto::FlowAction> {
    let actions = info.spec.actions.iter().zip(&info.actions);
    let one = |(action, seen): (&Action, &ActionInfo)| proto::FlowAction {
        action: names.action(action),
        packets: seen.packets,
        bytes: seen.bytes,
        idle_ns: seen.idle_ns,
    };
    actions.map(one).collect()
}

/// A filter or an address of the kernel's as listed.
pub fn kernel_rule(names: &PortNames, rule: KernelRule) -> proto::KernelRule {
    let text = rule.spec.map(|spec| names.rule(&spec)).or(rule.text);
    proto::KernelRule {
        place: rule.place,
        kind: rule.kind,
        chain: rule.chain,
        priority: rule.priority.into(),
        handle: rule.handle,
        protocol: rule.protocol.into(),
        rule: text.unwrap_or_default(),
        ports: rule.ports,
        in_hw: rule.in_hw,
        why_not: rule.why_not.unwrap_or_default(),
        ids: rule.ids.into_iter().map(|id| id.0).collect(),
        packets: rule.packets,
        bytes: rule.bytes,
        idle_ns: rule.idle_ns,
    }
}

/// A zone of connections, or all of them.
pub fn zone(asked: Option<u32>) -> Result<Option<u16>, RequestError> {
    let zone = asked.map(|zone| edge::number("zone", zone.into(), 0..=u16::MAX));
    Ok(zone.transpose()?)
}

impl From<CtEntry> for proto::Connection {
    fn from(entry: CtEntry) -> Self {
        let side = |tuple: Tuple, counters: CtCounters| proto::ConnectionSide {
            src: tuple.src_ip().to_string(),
            dst: tuple.dst_ip().to_string(),
            src_port: tuple.src_port.into(),
            dst_port: tuple.dst_port.into(),
            packets: counters.packets,
            bytes: counters.bytes,
        };
        let [there, back] = entry.counters;
        Self {
            id: entry.id,
            zone: entry.original.zone.into(),
            protocol: entry.original.proto.into(),
            state: entry.state.unwrap_or_default().to_owned(),
            original: Some(side(entry.original, there)),
            reply: Some(side(entry.reply, back)),
            seen_reply: entry.seen_reply,
            assured: entry.assured,
            offloaded: entry.offloaded,
            expires_ns: entry.expires_in,
            mark: entry.mark,
            label: entry.label.to_vec(),
        }
    }
}

/// An address as listed.
pub fn fdb_entry(names: &PortNames, info: &FdbInfo) -> proto::FdbEntry {
    proto::FdbEntry {
        vid: info.vid.into(),
        mac: info.mac.to_string(),
        vport: info.vport.0,
        port: names.name(info.vport),
        r#static: info.is_static,
        idle_ns: info.idle_ns,
    }
}

impl From<NicInfo> for proto::Nic {
    fn from(info: NicInfo) -> Self {
        Self {
            version: info.version.to_owned(),
            queues: info.queues,
            queues_free: info.queues_free,
            channels: info.channels,
            workers: info.workers as u32,
            uplink: info.uplink,
            no_representors: info.representors.err().unwrap_or_default(),
            run_dir: info.run_dir.display().to_string(),
            profile: info.profile.name.to_owned(),
            max_channels: info.profile.channels.most.min(u64::from(info.queues)) as u32,
            no_switchdev: info
                .profile
                .no_switchdev
                .map_or(String::new(), |(text, source)| format!("{text} ({source})")),
        }
    }
}

impl From<EswitchInfo> for proto::Eswitch {
    fn from(info: EswitchInfo) -> Self {
        let mode = match info.mode {
            Mode::Legacy => proto::EswitchMode::Legacy,
            Mode::Switchdev => proto::EswitchMode::Switchdev,
        };
        Self {
            mode: mode.into(),
            vepa: info.vepa,
            ageing_secs: info.ageing_secs,
            flows: info.rules as u64,
            fdb_entries: info.fdb_entries as u64,
            tunnel_ports: info.tunnel_ports.to_string(),
            uplink_block: info.uplink_block.into(),
            kernel_overruns: info.kernel_overruns,
        }
    }
}

impl From<Attach> for proto::Attach {
    fn from(attach: Attach) -> Self {
        use proto::attach::{Kind, Tap, VhostUser, VhostUserClient};
        let kind = match attach {
            // No channel is attached so.
            Attach::Nothing => return Self { kind: None },
            Attach::VhostUser => Kind::VhostUser(VhostUser {}),
            Attach::VhostUserClient { path } => Kind::VhostUserClient(VhostUserClient {
                path: path.display().to_string(),
            }),
            Attach::Tap {
                netns,
                ifname,
                addresses,
            } => Kind::Tap(Tap {
                netns,
                ifname: ifname.unwrap_or_default(),
                addresses: addresses.iter().map(IpNet::to_string).collect(),
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl From<ChannelSpec> for proto::ChannelSpec {
    fn from(spec: ChannelSpec) -> Self {
        Self {
            name: spec.name.to_string(),
            queues: spec.queues.into(),
            mac: spec.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            vlan: spec.vlan.map_or(0, |v| v.id().into()),
            mtu: spec.mtu.into(),
            spoofchk: spec.spoofchk,
            trust: spec.trust,
            link_down: !spec.link_up,
            rss: spec.rss.map(Into::into),
            lro: spec.lro,
            block: spec.block.into(),
            receive: Some(proto::Receive {
                promisc: Some(spec.receive.promisc),
                allmulti: Some(spec.receive.allmulti),
                add_macs: spec.receive.addresses.iter().map(Mac::to_string).collect(),
                del_macs: Vec::new(),
                vlan_filter: spec.receive.vlans.map(|set| set.to_string()),
            }),
            attach: Some(spec.attach.into()),
        }
    }
}

impl From<ChannelInfo> for proto::Channel {
    fn from(info: ChannelInfo) -> Self {
        let state = match info.state {
            ChannelState::Disconnected => proto::ChannelState::Disconnected,
            ChannelState::Connected => proto::ChannelState::Connected,
            ChannelState::Running => proto::ChannelState::Running,
            ChannelState::Faulted => proto::ChannelState::Faulted,
        };
        let socket = info.socket.map(|path| path.display().to_string());
        Self {
            spec: Some(info.spec.into()),
            mac: info.mac.to_string(),
            vport: info.vport.0,
            representor: info.representor.unwrap_or_default(),
            socket: socket.unwrap_or_default(),
            state: state.into(),
            fault: info.fault.unwrap_or_default(),
            features: info.features,
            active_queues: info.active_queues.into(),
            rss: info.rss.map(Into::into),
        }
    }
}

/// A channel's name, or `uplink`.
fn owner(channel: Option<ChannelName>) -> String {
    channel.map_or_else(|| "uplink".to_owned(), |name| name.to_string())
}

impl From<RepresentorInfo> for proto::Representor {
    fn from(info: RepresentorInfo) -> Self {
        Self {
            name: info.name,
            vport: info.vport.0,
            channel: info.channel.map(|c| c.to_string()).unwrap_or_default(),
            up: info.up,
            carrier: info.carrier,
            mtu: info.mtu,
        }
    }
}

impl From<Count> for proto::Count {
    fn from(Count { packets, bytes }: Count) -> Self {
        Self { packets, bytes }
    }
}

impl From<VportStats> for proto::VportStats {
    fn from(stats: VportStats) -> Self {
        let drop = |(reason, packets): (chanio_model::DropReason, u64)| proto::Drop {
            reason: reason.name().to_owned(),
            packets,
            explanation: reason.explain().to_owned(),
        };
        let queue = |queue: QueueStats| proto::QueueStats {
            tx: Some(queue.tx.into()),
            rx: Some(queue.rx.into()),
        };
        Self {
            vport: stats.vport.0,
            name: owner(stats.channel),
            tx: Some(stats.tx.into()),
            rx: Some(stats.rx.into()),
            representor: stats.representor.unwrap_or_default(),
            representor_rx: Some(stats.representor_rx.into()),
            representor_tx: Some(stats.representor_tx.into()),
            drops: stats.drops.into_iter().map(drop).collect(),
            queues: stats.queues.into_iter().map(queue).collect(),
        }
    }
}

/// What to capture. `vport` finds ports by name.
pub fn capture_filter(
    asked: proto::CaptureRequest,
    vport: impl Fn(&str) -> Option<VportId>,
) -> Result<Filter, RequestError> {
    let port = |name: &String| {
        vport(name).ok_or_else(|| RequestError::NoPort {
            field: "ports",
            name: name.clone(),
        })
    };
    let invalid = |field, name: &str, allowed| RequestError::Invalid {
        field,
        value: format!("`{}`", shown(name)),
        allowed,
    };
    let point = |name: &String| {
        Point::by_name(name).ok_or_else(|| {
            let allowed = "tx, rx, representor-rx, representor-tx or drop";
            invalid("points", name, allowed)
        })
    };
    let reason = |name: &String| {
        let found = DropReason::ALL.iter().find(|r| r.name() == name);
        let allowed = "the name of a drop reason, as `stats` shows them";
        found
            .copied()
            .ok_or_else(|| invalid("reasons", name, allowed))
    };
    let queue = |queue: u32| edge::number("queue", queue.into(), 0..=255);
    Ok(Filter {
        ports: asked.ports.iter().map(port).collect::<Result<_, _>>()?,
        points: asked.points.iter().map(point).collect::<Result<_, _>>()?,
        queue: asked.queue.map(queue).transpose()?,
        reasons: asked.reasons.iter().map(reason).collect::<Result<_, _>>()?,
        snaplen: match asked.snaplen {
            0 => MAX_SNAPLEN,
            n => edge::number("snaplen", n.into(), 1..=MAX_SNAPLEN)?,
        },
    })
}

/// A captured frame, at a port of this name.
pub fn captured(port: String, record: Record, missed: u64) -> proto::CapturedFrame {
    let Record {
        at_ns,
        place,
        len,
        bytes,
    } = record;
    proto::CapturedFrame {
        at_ns,
        port,
        point: place.point.name().to_owned(),
        queue: place.queue.map(u32::from),
        len,
        data: bytes,
        reason: place.reason.map_or("", DropReason::name).to_owned(),
        rule: place.rule.map(|id| id.0),
        missed,
        no_rule_in: place.no_rule_in,
    }
}

/// The frame of a trace: whole, and not longer than any may be.
pub fn traced_frame(frame: &[u8]) -> Result<(), RequestError> {
    match frame.len() {
        14..=65_535 => Ok(()),
        len => Err(RequestError::Invalid {
            field: "frame",
            value: format!("{len} bytes"),
            allowed: "14 to 65535 bytes",
        }),
    }
}

/// A step of a trace, with ports and rules as they are called.
pub fn trace_step(names: &PortNames, rules: &[RuleInfo], step: Step) -> proto::TraceStep {
    use proto::trace_step::{Lookup, Lost, Output, Rewritten, Step as Kind};
    let step = match step {
        Step::Lookup { chain, key, rule } => {
            let at = rule.and_then(|id| rules.binary_search_by_key(&id, |r| r.id).ok());
            Kind::Lookup(Lookup {
                chain,
                headers: names.headers(&key),
                rule: rule.map(|id| id.0),
                rule_text: at.map_or(String::new(), |at| names.rule(&rules[at].spec)),
            })
        }
        Step::Action(action) => Kind::Action(names.action(&action)),
        Step::Rewritten(head, len) => Kind::Rewritten(Rewritten { head, len }),
        Step::Output(dest, head) => {
            let (vport, representor) = match dest {
                Dest::Vport(vport) => (vport, false),
                Dest::Representor(vport) => (vport, true),
            };
            Kind::Output(Output {
                port: names.name(vport),
                representor,
                head,
            })
        }
        Step::Lost(vport, reason) => Kind::Lost(Lost {
            port: names.name(vport),
            reason: reason.name().to_owned(),
            explanation: reason.explain().to_owned(),
        }),
    };
    proto::TraceStep { step: Some(step) }
}
