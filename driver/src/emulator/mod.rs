//! The backend for `chanio-emu`: gRPC over its control socket. `channels` and `rules` turn what is
//! asked and told into the API's messages and back.

mod channels;
mod rules;

use crate::feature::{Feature, cannot, refuse};
use crate::nic::*;
use crate::{DeviceError, Nic};
use chanio_emu::control::proto;
use chanio_emu::control::proto::control_client::ControlClient;
use chanio_emu::nic::spec::Attach;
use chanio_model::flow::text;
use chanio_model::profile::{self, Profile};
use chanio_model::rate::RateChange;
use channels::{
    channel, channel_spec, check_said, eswitch, rate, rate_change, receive, rss_change, some,
};
use rules::{captured, connection, flow, kernel_rule, trace_step, vport_stats};
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

    /// Refuses what is asked for of what an emulator has not.
    fn must_have(&self, feature: Feature, asked: bool) -> Result<(), DeviceError> {
        match asked {
            true => Err(refuse(self, feature)),
            false => Ok(()),
        }
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
    fn why_not(&self, feature: Feature) -> Option<String> {
        let why = match feature {
            Feature::Function => "an emulator's channel is a vhost-user device or a TAP",
            Feature::Roce => "an emulator has no RDMA",
            Feature::SetQueues => {
                "how many of its queues a channel uses is for its driver to say: ethtool -L there"
            }
            _ => return None,
        };
        Some(why.to_owned())
    }

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
                cannot: cannot(self),
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
        for spec in &specs {
            check_said(spec)?;
            self.must_have(Feature::Function, spec.function.is_some())?;
            self.must_have(Feature::Roce, spec.roce.is_some())?;
        }
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
        self.must_have(Feature::SetQueues, change.queues.is_some())?;
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
