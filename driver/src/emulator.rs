//! The backend for `chanio-emu`: gRPC over its control socket.

use crate::nic::*;
use crate::{DeviceError, Nic};
use chanio_emu::control::proto::control_client::ControlClient;
use chanio_emu::control::proto::{self, attach::Kind};
use chanio_emu::nic::spec::Attach;
use chanio_model::Mac;
use chanio_model::eswitch::ReceiveChange;
use chanio_model::flow::text;
use chanio_model::profile::{self, Profile};
use chanio_model::rate::RateChange;
use chanio_model::rss::RssChange;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel as Transport, Endpoint};
use tonic::{Response, Status, Streaming};

/// 10,000 channels with all their fields are some megabytes.
const MAX_MESSAGE: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A running emulator.
pub struct Emulator {
    address: String,
    runtime: Runtime,
    client: ControlClient<Transport>,
}

impl Emulator {
    /// The emulator with this run directory.
    pub fn connect(run_dir: &Path) -> Result<Self, DeviceError> {
        let address = format!("emu:{}", run_dir.display());
        let socket = run_dir.join("control.sock");
        let unreachable = |why: String| DeviceError::Unreachable {
            address: address.clone(),
            why,
        };
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| unreachable(e.to_string()))?;
        if !socket.exists() {
            return Err(unreachable(format!(
                "no emulator runs there ({} is missing)",
                socket.display()
            )));
        }
        let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display()))
            .map_err(|e| unreachable(e.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT);
        let transport = runtime.block_on(endpoint.connect()).map_err(|e| {
            let cause = std::error::Error::source(&e).map_or(e.to_string(), |c| c.to_string());
            unreachable(format!("cannot connect to {}: {cause}", socket.display()))
        })?;
        let client = ControlClient::new(transport)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Ok(Self {
            address,
            runtime,
            client,
        })
    }

    fn call<T>(
        &self,
        request: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, DeviceError> {
        let answer = self.runtime.block_on(request);
        answer
            .map(Response::into_inner)
            .map_err(|status| self.refusal(&status))
    }

    fn list<T>(
        &self,
        request: impl Future<Output = Result<Response<Streaming<T>>, Status>>,
    ) -> Result<Vec<T>, DeviceError> {
        let mut stream = self.call(request)?;
        let mut items = Vec::new();
        while let Some(item) = self
            .runtime
            .block_on(stream.message())
            .map_err(|status| self.refusal(&status))?
        {
            items.push(item);
        }
        Ok(items)
    }

    fn refusal(&self, status: &Status) -> DeviceError {
        match status.code() {
            tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled => {
                DeviceError::Unreachable {
                    address: self.address.clone(),
                    why: status.message().to_owned(),
                }
            }
            tonic::Code::Unimplemented => DeviceError::Unsupported {
                what: "this request".into(),
                why: format!("{} is of another version", self.address),
            },
            _ => DeviceError::Refused {
                reason: status.message().to_owned(),
            },
        }
    }
}

impl Nic for Emulator {
    fn info(&mut self) -> Result<NicInfo, DeviceError> {
        let mut client = self.client.clone();
        let nic = self.call(client.get_nic(proto::GetNicRequest {}))?;
        // One that only a newer emulator knows claims everything: it still says no itself.
        let profile = profile::by_name(&nic.profile);
        let representors = nic.no_representors.is_empty();
        let mut attach = vec!["vhost-user", "vhost-user-client:PATH"];
        if representors {
            attach.push("tap:NETNS[:IF]");
        }
        Ok(NicInfo {
            device: self.address.clone(),
            version: nic.version,
            queues: Some(nic.queues),
            queues_free: Some(nic.queues_free),
            channels: nic.channels,
            workers: Some(nic.workers),
            uplink: nic.uplink,
            profile: nic.profile,
            capabilities: Capabilities {
                max_channels: nic.max_channels,
                attach,
                modes: match nic.no_switchdev.is_empty() {
                    true => vec!["legacy", "switchdev"],
                    false => vec!["legacy"],
                },
                representors,
                no_representors: some(nic.no_representors),
                match_keys: profile.map_or_else(|| text::KEYS.split(", ").collect(), Profile::keys),
                actions: profile
                    .map_or_else(|| text::ACTIONS.split(", ").collect(), Profile::actions),
                cannot: BTreeMap::new(),
            },
        })
    }

    fn eswitch(&mut self) -> Result<Eswitch, DeviceError> {
        let mut client = self.client.clone();
        Ok(eswitch(
            &self.call(client.get_eswitch(proto::GetEswitchRequest {}))?,
        ))
    }

    fn set_eswitch(&mut self, change: EswitchChange) -> Result<Eswitch, DeviceError> {
        let mode = match change.switchdev {
            None => proto::EswitchMode::Unspecified,
            Some(false) => proto::EswitchMode::Legacy,
            Some(true) => proto::EswitchMode::Switchdev,
        };
        let request = proto::SetEswitchRequest {
            mode: mode.into(),
            vepa: change.vepa,
            ageing_secs: change.ageing_secs,
            tunnel_ports: change.tunnel_ports.map(|ports| ports.to_string()),
            uplink_block: change.uplink_block.map(u32::from),
        };
        let mut client = self.client.clone();
        Ok(eswitch(&self.call(client.set_eswitch(request))?))
    }

    fn add_channels(&mut self, specs: Vec<ChannelSpec>) -> Result<Vec<Channel>, DeviceError> {
        if specs.iter().any(|spec| spec.attach == Attach::Nothing) {
            return Err(DeviceError::Unsupported {
                what: "attach none".into(),
                why: "an emulator's channel is a vhost-user device or a TAP".into(),
            });
        }
        specs.iter().try_for_each(check_said)?;
        let channels = specs.into_iter().map(channel_spec).collect();
        let mut client = self.client.clone();
        let made = self.list(client.add_channels(proto::AddChannelsRequest { channels }))?;
        Ok(made.into_iter().map(channel).collect())
    }

    fn del_channels(&mut self, names: &[String]) -> Result<(), DeviceError> {
        let request = proto::DeleteChannelsRequest {
            names: names.to_vec(),
        };
        let mut client = self.client.clone();
        self.call(client.delete_channels(request)).map(|_| ())
    }

    fn set_channel(&mut self, name: &str, change: ChannelChange) -> Result<Channel, DeviceError> {
        let request = proto::SetChannelRequest {
            name: name.to_owned(),
            mac: change.mac,
            vlan: change.vlan.map(u32::from),
            mtu: change.mtu.map(u32::from),
            spoofchk: change.spoofchk,
            trust: change.trust,
            link_up: change.link_up,
            rss: change.rss.map(rss_change),
            lro: change.lro,
            block: change.block.map(u32::from),
            receive: Some(receive(change.receive)),
            clear_fault: change.clear_fault,
        };
        let mut client = self.client.clone();
        self.call(client.set_channel(request)).map(channel)
    }

    fn channels(&mut self, names: &[String]) -> Result<Vec<Channel>, DeviceError> {
        let request = proto::ListChannelsRequest {
            names: names.to_vec(),
        };
        let mut client = self.client.clone();
        Ok(self
            .list(client.list_channels(request))?
            .into_iter()
            .map(channel)
            .collect())
    }

    fn representors(&mut self) -> Result<Vec<Representor>, DeviceError> {
        let mut client = self.client.clone();
        let list = self.list(client.list_representors(proto::ListRepresentorsRequest {}))?;
        let representor = |r: proto::Representor| Representor {
            name: r.name,
            vport: r.vport,
            channel: some(r.channel),
            up: r.up,
            carrier: r.carrier,
            mtu: r.mtu,
        };
        Ok(list.into_iter().map(representor).collect())
    }

    fn add_flows(&mut self, rules: Vec<String>, replace: bool) -> Result<Vec<u64>, DeviceError> {
        let mut client = self.client.clone();
        let request = proto::AddFlowsRequest { rules, replace };
        Ok(self.call(client.add_flows(request))?.ids)
    }

    fn del_flows(&mut self, ids: &[u64]) -> Result<(), DeviceError> {
        let request = proto::DeleteFlowsRequest {
            ids: ids.to_vec(),
            all: false,
        };
        let mut client = self.client.clone();
        self.call(client.delete_flows(request)).map(|_| ())
    }

    fn flush_flows(&mut self) -> Result<u64, DeviceError> {
        let request = proto::DeleteFlowsRequest {
            ids: vec![],
            all: true,
        };
        let mut client = self.client.clone();
        Ok(self.call(client.delete_flows(request))?.deleted)
    }

    fn flows(&mut self) -> Result<Vec<Flow>, DeviceError> {
        let mut client = self.client.clone();
        let list = self.list(client.list_flows(proto::ListFlowsRequest {}))?;
        Ok(list.into_iter().map(flow).collect())
    }

    fn kernel_rules(&mut self) -> Result<Vec<KernelRule>, DeviceError> {
        let mut client = self.client.clone();
        let list = self.list(client.list_kernel_rules(proto::ListKernelRulesRequest {}))?;
        Ok(list.into_iter().map(kernel_rule).collect())
    }

    fn connections(&mut self, zone: Option<u16>) -> Result<Vec<Connection>, DeviceError> {
        let zone = zone.map(u32::from);
        let mut client = self.client.clone();
        let list = self.list(client.list_connections(proto::ListConnectionsRequest { zone }))?;
        Ok(list.into_iter().map(connection).collect())
    }

    fn flush_connections(&mut self, zone: Option<u16>) -> Result<u64, DeviceError> {
        let zone = zone.map(u32::from);
        let mut client = self.client.clone();
        let request = client.flush_connections(proto::FlushConnectionsRequest { zone });
        self.call(request).map(|done| done.flushed.into())
    }

    fn fdb(&mut self) -> Result<Vec<FdbEntry>, DeviceError> {
        let mut client = self.client.clone();
        let list = self.list(client.list_fdb(proto::ListFdbRequest {}))?;
        let entry = |e: proto::FdbEntry| FdbEntry {
            vlan: e.vid,
            mac: e.mac,
            port: e.port,
            vport: e.vport,
            is_static: e.r#static,
            idle_ns: e.idle_ns,
        };
        Ok(list.into_iter().map(entry).collect())
    }

    fn add_fdb(&mut self, vlan: u16, mac: &str, port: &str) -> Result<(), DeviceError> {
        let request = proto::AddFdbRequest {
            vid: vlan.into(),
            mac: mac.to_owned(),
            port: port.to_owned(),
        };
        let mut client = self.client.clone();
        self.call(client.add_fdb(request)).map(|_| ())
    }

    fn del_fdb(&mut self, vlan: u16, mac: &str) -> Result<(), DeviceError> {
        let request = proto::DeleteFdbRequest {
            vid: vlan.into(),
            mac: mac.to_owned(),
        };
        let mut client = self.client.clone();
        self.call(client.delete_fdb(request)).map(|_| ())
    }

    fn flush_fdb(&mut self) -> Result<u64, DeviceError> {
        let mut client = self.client.clone();
        Ok(self
            .call(client.flush_fdb(proto::FlushFdbRequest {}))?
            .flushed)
    }

    fn rates(&mut self, names: &[String]) -> Result<Vec<Rate>, DeviceError> {
        let names = names.to_vec();
        let mut client = self.client.clone();
        let list = self.list(client.list_rates(proto::ListRatesRequest { names }))?;
        Ok(list.into_iter().map(rate).collect())
    }

    fn add_rate(&mut self, name: &str, change: RateChange) -> Result<Rate, DeviceError> {
        let mut client = self.client.clone();
        self.call(client.add_rate(rate_change(name, change)))
            .map(rate)
    }

    fn set_rate(&mut self, name: &str, change: RateChange) -> Result<Rate, DeviceError> {
        let mut client = self.client.clone();
        self.call(client.set_rate(rate_change(name, change)))
            .map(rate)
    }

    fn del_rate(&mut self, name: &str) -> Result<(), DeviceError> {
        let name = name.to_owned();
        let mut client = self.client.clone();
        self.call(client.delete_rate(proto::DeleteRateRequest { name }))
            .map(|_| ())
    }

    fn stats(&mut self, names: &[String], queues: bool) -> Result<Vec<VportStats>, DeviceError> {
        let request = proto::ListStatsRequest {
            names: names.to_vec(),
            queues,
        };
        let mut client = self.client.clone();
        Ok(self
            .list(client.list_stats(request))?
            .into_iter()
            .map(vport_stats)
            .collect())
    }

    fn trace(
        &mut self,
        port: &str,
        from_host: bool,
        frame: Vec<u8>,
    ) -> Result<Vec<TraceStep>, DeviceError> {
        let mut client = self.client.clone();
        let asked = proto::TraceRequest {
            port: port.to_owned(),
            from_host,
            frame,
        };
        let steps = self.call(client.trace(asked))?.steps;
        Ok(steps.into_iter().filter_map(trace_step).collect())
    }

    fn capture(
        &mut self,
        what: CaptureFilter,
        each: &mut dyn FnMut(CapturedFrame) -> bool,
    ) -> Result<(), DeviceError> {
        let mut client = self.client.clone();
        let asked = proto::CaptureRequest {
            ports: what.ports,
            points: what.points,
            queue: what.queue.map(u32::from),
            reasons: what.reasons,
            snaplen: what.snaplen,
        };
        let mut frames = self.call(client.capture(asked))?;
        let over = async {
            match what.duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        let interrupted = tokio::signal::ctrl_c();
        let shown = async {
            while let Some(frame) = frames.message().await? {
                if !each(captured(frame)) {
                    break;
                }
            }
            Ok(())
        };
        let ended = self.runtime.block_on(async {
            tokio::select! {
                ended = shown => ended,
                () = over => Ok(()),
                _ = interrupted => Ok(()),
            }
        });
        ended.map_err(|status| self.refusal(&status))
    }
}

/// An empty string means there is none.
fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn eswitch(e: &proto::Eswitch) -> Eswitch {
    Eswitch {
        mode: match e.mode() {
            proto::EswitchMode::Switchdev => "switchdev",
            proto::EswitchMode::Legacy | proto::EswitchMode::Unspecified => "legacy",
        },
        vepa: e.vepa,
        ageing_secs: e.ageing_secs,
        flows: e.flows,
        fdb_entries: e.fdb_entries,
        tunnel_ports: some(e.tunnel_ports.clone()),
        uplink_block: Some(e.uplink_block).filter(|block| *block != 0),
        kernel_overruns: e.kernel_overruns,
    }
}

/// On the wire 0 means that nothing was said, and the device's default; here it was said.
fn check_said(spec: &ChannelSpec) -> Result<(), DeviceError> {
    let zero = |field, allowed| DeviceError::Refused {
        reason: format!("{field}: 0 is not allowed, must be {allowed}"),
    };
    match spec {
        ChannelSpec { queues: 0, .. } => Err(zero("queues", "1 to 256")),
        ChannelSpec { mtu: 0, .. } => Err(zero("mtu", "68 to 9500")),
        _ => Ok(()),
    }
}

fn channel_spec(spec: ChannelSpec) -> proto::ChannelSpec {
    let kind = match spec.attach {
        // None comes here: see add_channels.
        Attach::VhostUser | Attach::Nothing => Kind::VhostUser(proto::attach::VhostUser {}),
        Attach::VhostUserClient { path } => Kind::VhostUserClient(proto::attach::VhostUserClient {
            path: path.display().to_string(),
        }),
        Attach::Tap {
            netns,
            ifname,
            addresses,
        } => Kind::Tap(proto::attach::Tap {
            netns,
            ifname: ifname.unwrap_or_default(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
        }),
    };
    proto::ChannelSpec {
        name: spec.name,
        queues: spec.queues.into(),
        mac: spec.mac.unwrap_or_default(),
        vlan: spec.vlan.into(),
        mtu: spec.mtu.into(),
        spoofchk: spec.spoofchk,
        trust: spec.trust,
        link_down: !spec.link_up,
        rss: spec.rss.map(rss_change),
        lro: spec.lro,
        block: spec.block.into(),
        receive: Some(receive(spec.receive)),
        attach: Some(proto::Attach { kind: Some(kind) }),
    }
}

fn receive(change: ReceiveChange) -> proto::Receive {
    let texts = |macs: Vec<Mac>| macs.iter().map(Mac::to_string).collect();
    proto::Receive {
        promisc: change.promisc,
        allmulti: change.allmulti,
        add_macs: texts(change.add),
        del_macs: texts(change.del),
        vlan_filter: change
            .vlans
            .map(|set| set.map_or(String::new(), |set| set.to_string())),
    }
}

fn channel(c: proto::Channel) -> Channel {
    let state = match c.state() {
        proto::ChannelState::Disconnected => "disconnected",
        proto::ChannelState::Connected => "connected",
        proto::ChannelState::Running => "running",
        proto::ChannelState::Faulted => "faulted",
        proto::ChannelState::Unspecified => "unknown",
    };
    let spec = c.spec.unwrap_or_default();
    let attach = match spec.attach.and_then(|a| a.kind) {
        Some(Kind::Tap(tap)) => {
            let ifname = if tap.ifname.is_empty() {
                "eth0"
            } else {
                &tap.ifname
            };
            format!("tap:{}:{ifname}", tap.netns)
        }
        Some(Kind::VhostUserClient(client)) => format!("vhost-user-client:{}", client.path),
        Some(Kind::VhostUser(_)) | None => "vhost-user".into(),
    };
    let receive = spec.receive.unwrap_or_default();
    Channel {
        block: (spec.block != 0).then_some(spec.block),
        more_macs: receive.add_macs,
        promisc: receive.promisc.unwrap_or(true),
        allmulti: receive.allmulti.unwrap_or(false),
        vlan_filter: receive.vlan_filter.and_then(some),
        name: spec.name,
        vport: c.vport,
        mac: c.mac,
        queues: spec.queues,
        active_queues: c.active_queues,
        vlan: (spec.vlan != 0).then_some(spec.vlan),
        mtu: spec.mtu,
        spoofchk: spec.spoofchk,
        trust: spec.trust,
        lro: spec.lro,
        link: if spec.link_down { "down" } else { "up" },
        attach,
        representor: some(c.representor),
        socket: some(c.socket),
        state,
        fault: some(c.fault),
        features: format!("{:#x}", c.features),
        rss: c.rss.map(rss),
    }
}

fn rate_change(name: &str, change: RateChange) -> proto::RateChange {
    let parent = change.parent;
    proto::RateChange {
        name: name.to_owned(),
        tx_share: change.tx_share,
        tx_max: change.tx_max,
        tx_priority: change.tx_priority,
        tx_weight: change.tx_weight,
        parent: parent.map(|name| name.map_or_else(String::new, |name| name.to_string())),
    }
}

fn rate(rate: proto::Rate) -> Rate {
    Rate {
        name: rate.name,
        kind: if rate.node { "node" } else { "leaf" },
        tx_share: rate.tx_share,
        tx_max: rate.tx_max,
        tx_priority: rate.tx_priority,
        tx_weight: rate.tx_weight,
        parent: some(rate.parent),
    }
}

fn rss_change(change: RssChange) -> proto::Rss {
    let table = change.table.unwrap_or_default();
    proto::Rss {
        off: change.off,
        hash_types: change.types.map(|types| types.to_string()),
        key: change.key.map(|key| key.to_string()),
        table: table.into_iter().map(u32::from).collect(),
        unclassified: change.unclassified.map(u32::from),
    }
}

fn rss(rss: proto::Rss) -> Rss {
    let types = rss.hash_types.unwrap_or_default();
    let types = types.split(',').filter(|name| *name != "none");
    Rss {
        hash_types: types.map(str::to_owned).collect(),
        key: rss.key.unwrap_or_default(),
        table: rss.table,
        unclassified: rss.unclassified.unwrap_or_default(),
    }
}

/// Key and value as they stand in the text, and the actions behind them.
fn flow(f: proto::Flow) -> Flow {
    let mut parts = f.rule.split(" action ");
    let mut matches = BTreeMap::new();
    let mut words = parts.next().unwrap_or_default().split_whitespace();
    while let Some(key) = words.next() {
        let Some(value) = words.next() else { break };
        if !matches!(key, "chain" | "prio" | "cookie" | "idle_timeout") {
            matches.insert(key.to_owned(), value.to_owned());
        }
    }
    let actions = parts.map(str::to_owned).collect();
    let seen = |a: proto::FlowAction| FlowAction {
        action: a.action,
        packets: a.packets,
        bytes: a.bytes,
        idle_ns: a.idle_ns,
    };
    Flow {
        id: f.id,
        rule: f.rule,
        priority: f.priority,
        cookie: f.cookie,
        matches,
        actions,
        packets: f.packets,
        bytes: f.bytes,
        idle_ns: f.idle_ns,
        chain: f.chain,
        action_stats: f.actions.into_iter().map(seen).collect(),
    }
}

/// In the names that drivers give `ethtool -S`.
fn connection(c: proto::Connection) -> Connection {
    let side = |side: Option<proto::ConnectionSide>| {
        let side = side.unwrap_or_default();
        ConnectionSide {
            src: side.src,
            dst: side.dst,
            src_port: side.src_port,
            dst_port: side.dst_port,
            packets: side.packets,
            bytes: side.bytes,
        }
    };
    Connection {
        id: c.id,
        zone: c.zone,
        protocol: c.protocol,
        state: some(c.state),
        original: side(c.original),
        reply: side(c.reply),
        seen_reply: c.seen_reply,
        assured: c.assured,
        offloaded: c.offloaded,
        expires_ns: c.expires_ns,
        mark: c.mark,
        label: c.label,
    }
}

fn kernel_rule(rule: proto::KernelRule) -> KernelRule {
    KernelRule {
        place: rule.place,
        kind: rule.kind,
        chain: rule.chain,
        priority: rule.priority,
        handle: rule.handle,
        protocol: rule.protocol,
        rule: some(rule.rule),
        ports: rule.ports,
        in_hw_count: rule.in_hw,
        why_not: some(rule.why_not),
        ids: rule.ids,
        packets: rule.packets,
        bytes: rule.bytes,
        idle_ns: rule.idle_ns,
    }
}

fn queue_stats(queues: &[proto::QueueStats]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (number, queue) in queues.iter().enumerate() {
        for (direction, count) in [("rx", &queue.rx), ("tx", &queue.tx)] {
            let count = count.unwrap_or_default();
            all.insert(format!("{direction}_queue_{number}_packets"), count.packets);
            all.insert(format!("{direction}_queue_{number}_bytes"), count.bytes);
        }
    }
    all
}

fn vport_stats(s: proto::VportStats) -> VportStats {
    let (tx, rx) = (s.tx.unwrap_or_default(), s.rx.unwrap_or_default());
    let (to_host, from_host) = (
        s.representor_rx.unwrap_or_default(),
        s.representor_tx.unwrap_or_default(),
    );
    VportStats {
        vport: s.vport,
        name: s.name,
        tx_packets: tx.packets,
        tx_bytes: tx.bytes,
        rx_packets: rx.packets,
        rx_bytes: rx.bytes,
        drops: s
            .drops
            .iter()
            .map(|d| (d.reason.clone(), d.packets))
            .collect(),
        representor: some(s.representor).map(|name| RepresentorStats {
            name,
            rx_packets: to_host.packets,
            rx_bytes: to_host.bytes,
            tx_packets: from_host.packets,
            tx_bytes: from_host.bytes,
        }),
        queues: queue_stats(&s.queues),
        explanations: s
            .drops
            .into_iter()
            .map(|d| (d.reason, d.explanation))
            .collect(),
    }
}

fn captured(f: proto::CapturedFrame) -> CapturedFrame {
    CapturedFrame {
        at_ns: f.at_ns,
        port: f.port,
        point: f.point,
        queue: f.queue,
        len: f.len,
        data: f.data,
        reason: some(f.reason),
        rule: f.rule,
        missed: f.missed,
        no_rule_in: f.no_rule_in,
    }
}

/// `None`: of a kind that only a newer emulator knows.
fn trace_step(step: proto::TraceStep) -> Option<TraceStep> {
    use proto::trace_step::Step;
    Some(match step.step? {
        Step::Lookup(l) => TraceStep::Lookup {
            chain: l.chain,
            headers: l.headers,
            rule: l.rule,
            rule_text: some(l.rule_text),
        },
        Step::Action(action) => TraceStep::Action { action },
        Step::Rewritten(r) => TraceStep::Rewritten {
            head: r.head,
            len: r.len,
        },
        Step::Output(o) => TraceStep::Output {
            port: o.port,
            representor: o.representor,
            head: o.head,
        },
        Step::Lost(l) => TraceStep::Lost {
            port: l.port,
            reason: l.reason,
            explanation: l.explanation,
        },
    })
}
