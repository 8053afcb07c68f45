//! The calls of the control API, each ending in a request to the NIC.

use super::convert;
use super::error::RequestError;
use super::proto::{self, control_server::Control};
use crate::nic::{NicApi, PortNames, Refused};
use chanio_model::flow::RuleSpec;
use chanio_model::rate::RateError;
use chanio_model::{RuleId, VportId};
use futures_util::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use tonic::{Request, Response, Status};

type Result<T, E = RequestError> = std::result::Result<T, E>;
type Reply<T> = std::result::Result<Response<T>, Status>;
type Stream<T> = tokio_stream::Iter<std::vec::IntoIter<std::result::Result<T, Status>>>;

/// A NIC, and the order in which it is asked for changes.
pub(super) struct Shared {
    pub nic: Arc<dyn NicApi>,
    /// Held while names are looked up and then used, and by everything that could meanwhile give
    /// a port's number to another channel.
    pub changes: Mutex<()>,
}

/// Serves [`Control`].
#[derive(Clone)]
pub(super) struct Service(pub Arc<Shared>);

impl Service {
    /// Runs a request, which may block, where that holds up nobody.
    async fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(&dyn NicApi) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, Status> {
        let shared = self.0.clone();
        let done = tokio::task::spawn_blocking(move || request(&*shared.nic)).await;
        let done = done.map_err(|_| Status::internal("the request ended early; see the log"))?;
        Ok(done?)
    }

    /// The same, with nobody changing anything meanwhile.
    async fn ask_alone<T: Send + 'static>(
        &self,
        request: impl FnOnce(&dyn NicApi) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, Status> {
        let shared = self.0.clone();
        self.ask(move |nic| {
            let _alone = shared.changes.lock();
            request(nic)
        })
        .await
    }
}

fn listed<T, U: From<T>>(list: Vec<T>) -> Response<Stream<U>> {
    let list: Vec<_> = list.into_iter().map(|item| Ok(item.into())).collect();
    Response::new(tokio_stream::iter(list))
}

fn vport(nic: &dyn NicApi, name: &str) -> Result<VportId> {
    nic.vport_by_name(name).ok_or_else(|| RequestError::NoPort {
        field: "port",
        name: name.to_owned(),
    })
}

#[tonic::async_trait]
impl Control for Service {
    async fn get_nic(&self, _: Request<proto::GetNicRequest>) -> Reply<proto::Nic> {
        let info = self.ask(|nic| Ok(nic.info())).await?;
        Ok(Response::new(info.into()))
    }

    async fn get_eswitch(&self, _: Request<proto::GetEswitchRequest>) -> Reply<proto::Eswitch> {
        let info = self.ask(|nic| Ok(nic.eswitch())).await?;
        Ok(Response::new(info.into()))
    }

    async fn set_eswitch(&self, asked: Request<proto::SetEswitchRequest>) -> Reply<proto::Eswitch> {
        let change = convert::eswitch_change(asked.into_inner())?;
        let info = self
            .ask_alone(move |nic| Ok(nic.set_eswitch(change)?))
            .await?;
        Ok(Response::new(info.into()))
    }

    type AddChannelsStream = Stream<proto::Channel>;

    async fn add_channels(
        &self,
        asked: Request<proto::AddChannelsRequest>,
    ) -> Reply<Self::AddChannelsStream> {
        let asked = asked.into_inner().channels;
        let added = self.ask_alone(move |nic| {
            let count = asked.len();
            let spec = |(i, spec)| {
                convert::channel_spec(spec).map_err(|e: RequestError| e.item("channels", i, count))
            };
            let specs: Result<Vec<_>> = asked.into_iter().enumerate().map(spec).collect();
            Ok(nic.add_channels(specs?)?)
        });
        Ok(listed(added.await?))
    }

    async fn delete_channels(
        &self,
        asked: Request<proto::DeleteChannelsRequest>,
    ) -> Reply<proto::DeleteChannelsResponse> {
        let names = asked.into_inner().names;
        self.ask_alone(move |nic| Ok(nic.del_channels(&convert::channel_names(&names)?)?))
            .await?;
        Ok(Response::new(proto::DeleteChannelsResponse {}))
    }

    async fn set_channel(&self, asked: Request<proto::SetChannelRequest>) -> Reply<proto::Channel> {
        let (name, change) = convert::channel_change(asked.into_inner())?;
        let info = self
            .ask_alone(move |nic| Ok(nic.set_channel(&name, change)?))
            .await?;
        Ok(Response::new(info.into()))
    }

    type ListChannelsStream = Stream<proto::Channel>;

    async fn list_channels(
        &self,
        asked: Request<proto::ListChannelsRequest>,
    ) -> Reply<Self::ListChannelsStream> {
        let names = asked.into_inner().names;
        let list = self.ask(move |nic| {
            if names.is_empty() {
                return Ok(nic.channels());
            }
            let channel = |name: &String| {
                let found = nic.channel(name);
                found.map_err(|e| match e {
                    Refused::NoChannel(name) => convert::no_channel(&name),
                    other => other.into(),
                })
            };
            names.iter().map(channel).collect()
        });
        Ok(listed(list.await?))
    }

    type ListRepresentorsStream = Stream<proto::Representor>;

    async fn list_representors(
        &self,
        _: Request<proto::ListRepresentorsRequest>,
    ) -> Reply<Self::ListRepresentorsStream> {
        Ok(listed(self.ask(|nic| Ok(nic.representors())).await?))
    }

    async fn add_flows(
        &self,
        asked: Request<proto::AddFlowsRequest>,
    ) -> Reply<proto::AddFlowsResponse> {
        let proto::AddFlowsRequest { rules, replace } = asked.into_inner();
        let ids = self.ask_alone(move |nic| {
            let names = |name: &str| nic.vport_by_name(name);
            let parse = |(i, text): (usize, &String)| {
                let spec = RuleSpec::parse(text, &names).map_err(RequestError::from);
                spec.map_err(|e| e.item("rules", i, rules.len()))
            };
            let specs: Result<Vec<_>> = rules.iter().enumerate().map(parse).collect();
            Ok(if replace {
                nic.replace_rules(specs?)?
            } else {
                nic.add_rules(specs?)?
            })
        });
        let ids = ids.await?.into_iter().map(|RuleId(id)| id).collect();
        Ok(Response::new(proto::AddFlowsResponse { ids }))
    }

    async fn delete_flows(
        &self,
        asked: Request<proto::DeleteFlowsRequest>,
    ) -> Reply<proto::DeleteFlowsResponse> {
        let proto::DeleteFlowsRequest { ids, all } = asked.into_inner();
        let deleted = self.ask_alone(move |nic| {
            if all && !ids.is_empty() {
                return Err(RequestError::Invalid {
                    field: "all",
                    value: "true together with ids".to_owned(),
                    allowed: "one or the other",
                });
            }
            if all {
                return Ok(nic.flush_rules());
            }
            let ids: BTreeSet<_> = ids.into_iter().map(RuleId).collect();
            let ids: Vec<_> = ids.into_iter().collect();
            nic.del_rules(&ids)?;
            Ok(ids.len())
        });
        let deleted = deleted.await? as u64;
        Ok(Response::new(proto::DeleteFlowsResponse { deleted }))
    }

    type ListFlowsStream = Stream<proto::Flow>;

    async fn list_flows(
        &self,
        _: Request<proto::ListFlowsRequest>,
    ) -> Reply<Self::ListFlowsStream> {
        let list = self.ask_alone(|nic| {
            let names = PortNames::of(nic);
            Ok(nic
                .rules()
                .iter()
                .map(|rule| convert::flow(&names, rule))
                .collect())
        });
        Ok(listed::<proto::Flow, _>(list.await?))
    }

    type ListKernelRulesStream = Stream<proto::KernelRule>;

    async fn list_kernel_rules(
        &self,
        _: Request<proto::ListKernelRulesRequest>,
    ) -> Reply<Self::ListKernelRulesStream> {
        let list = self.ask_alone(|nic| {
            let (names, rules) = (PortNames::of(nic), nic.kernel_rules()?);
            let list = rules.into_iter();
            Ok(list
                .map(|rule| convert::kernel_rule(&names, rule))
                .collect())
        });
        Ok(listed::<proto::KernelRule, _>(list.await?))
    }

    type ListFdbStream = Stream<proto::FdbEntry>;

    async fn list_fdb(&self, _: Request<proto::ListFdbRequest>) -> Reply<Self::ListFdbStream> {
        let list = self.ask_alone(|nic| {
            let names = PortNames::of(nic);
            Ok(nic
                .fdb()
                .iter()
                .map(|entry| convert::fdb_entry(&names, entry))
                .collect())
        });
        Ok(listed::<proto::FdbEntry, _>(list.await?))
    }

    async fn add_fdb(&self, asked: Request<proto::AddFdbRequest>) -> Reply<proto::AddFdbResponse> {
        let proto::AddFdbRequest { vid, mac, port } = asked.into_inner();
        let (vid, mac) = convert::fdb_key(vid, &mac)?;
        self.ask_alone(move |nic| Ok(nic.add_fdb(vid, mac, vport(nic, &port)?)?))
            .await?;
        Ok(Response::new(proto::AddFdbResponse {}))
    }

    async fn delete_fdb(
        &self,
        asked: Request<proto::DeleteFdbRequest>,
    ) -> Reply<proto::DeleteFdbResponse> {
        let proto::DeleteFdbRequest { vid, mac } = asked.into_inner();
        let (vid, mac) = convert::fdb_key(vid, &mac)?;
        self.ask_alone(move |nic| Ok(nic.del_fdb(vid, mac)?))
            .await?;
        Ok(Response::new(proto::DeleteFdbResponse {}))
    }

    async fn flush_fdb(
        &self,
        _: Request<proto::FlushFdbRequest>,
    ) -> Reply<proto::FlushFdbResponse> {
        let flushed = self.ask_alone(|nic| Ok(nic.flush_fdb() as u64)).await?;
        Ok(Response::new(proto::FlushFdbResponse { flushed }))
    }

    type ListConnectionsStream = Stream<proto::Connection>;

    async fn list_connections(
        &self,
        asked: Request<proto::ListConnectionsRequest>,
    ) -> Reply<Self::ListConnectionsStream> {
        let zone = convert::zone(asked.into_inner().zone)?;
        Ok(listed(
            self.ask(move |nic| Ok(nic.connections(zone))).await?,
        ))
    }

    async fn flush_connections(
        &self,
        asked: Request<proto::FlushConnectionsRequest>,
    ) -> Reply<proto::FlushConnectionsResponse> {
        let zone = convert::zone(asked.into_inner().zone)?;
        let flushed = self.ask(move |nic| Ok(nic.flush_connections(zone))).await?;
        Ok(Response::new(proto::FlushConnectionsResponse { flushed }))
    }

    type ListRatesStream = Stream<proto::Rate>;

    async fn list_rates(
        &self,
        asked: Request<proto::ListRatesRequest>,
    ) -> Reply<Self::ListRatesStream> {
        let names = asked.into_inner().names;
        let list = self.ask(move |nic| {
            let all = nic.rates();
            if names.is_empty() {
                return Ok(all);
            }
            let one = |name: &String| {
                let name = convert::rate_name("name", name)?;
                let found = all.iter().find(|info| info.name == name).cloned();
                found.ok_or_else(|| Refused::from(RateError::Unknown(name)).into())
            };
            names.iter().map(one).collect()
        });
        Ok(listed(list.await?))
    }

    async fn add_rate(&self, asked: Request<proto::RateChange>) -> Reply<proto::Rate> {
        let (name, change) = convert::rate_change(asked.into_inner())?;
        let info = self.ask_alone(move |nic| Ok(nic.add_rate(&name, &change)?));
        Ok(Response::new(info.await?.into()))
    }

    async fn set_rate(&self, asked: Request<proto::RateChange>) -> Reply<proto::Rate> {
        let (name, change) = convert::rate_change(asked.into_inner())?;
        let info = self.ask_alone(move |nic| Ok(nic.set_rate(&name, &change)?));
        Ok(Response::new(info.await?.into()))
    }

    async fn delete_rate(
        &self,
        asked: Request<proto::DeleteRateRequest>,
    ) -> Reply<proto::DeleteRateResponse> {
        let name = convert::rate_name("name", &asked.into_inner().name)?;
        self.ask_alone(move |nic| Ok(nic.del_rate(&name)?)).await?;
        Ok(Response::new(proto::DeleteRateResponse {}))
    }

    type ListStatsStream = Stream<proto::VportStats>;

    async fn list_stats(
        &self,
        asked: Request<proto::ListStatsRequest>,
    ) -> Reply<Self::ListStatsStream> {
        let proto::ListStatsRequest { names, queues } = asked.into_inner();
        let list = self.ask(move |nic| {
            let stats = nic.stats().into_iter().map(|mut stats| {
                stats.queues.truncate(if queues { usize::MAX } else { 0 });
                stats.into()
            });
            let all: Vec<proto::VportStats> = stats.collect();
            if names.is_empty() {
                return Ok(all);
            }
            let mut by_name: HashMap<_, _> = all.iter().map(|s| (&*s.name, s)).collect();
            // A representor's name means its vport, as everywhere.
            by_name.extend(all.iter().map(|s| (&*s.representor, s)));
            let found = |name: &String| {
                let stats = by_name.get(name.as_str()).filter(|_| !name.is_empty());
                stats
                    .map(|s| (*s).clone())
                    .ok_or_else(|| RequestError::NoPort {
                        field: "names",
                        name: name.clone(),
                    })
            };
            names.iter().map(found).collect()
        });
        Ok(listed::<proto::VportStats, _>(list.await?))
    }

    type CaptureStream = BoxStream<'static, std::result::Result<proto::CapturedFrame, Status>>;

    async fn capture(&self, asked: Request<proto::CaptureRequest>) -> Reply<Self::CaptureStream> {
        let asked = asked.into_inner();
        let (capture, names) = self
            .ask_alone(move |nic| {
                let filter = convert::capture_filter(asked, |name| nic.vport_by_name(name))?;
                Ok((nic.capture(filter), PortNames::of(nic)))
            })
            .await?;
        let frames = stream::unfold((capture, names), |(mut capture, names)| async {
            let (record, missed) = capture.next().await?;
            let port = names.name(record.place.vport);
            let frame = convert::captured(port, record, missed);
            Some((Ok(frame), (capture, names)))
        });
        Ok(Response::new(frames.boxed()))
    }

    async fn trace(&self, asked: Request<proto::TraceRequest>) -> Reply<proto::TraceResponse> {
        let proto::TraceRequest {
            port,
            from_host,
            frame,
        } = asked.into_inner();
        convert::traced_frame(&frame)?;
        let steps = self.ask_alone(move |nic| {
            let vport = vport(nic, &port)?;
            let (names, mut rules) = (PortNames::of(nic), nic.rules());
            rules.extend(nic.offloaded_rules());
            rules.sort_by_key(|rule| rule.id);
            let steps = nic.trace(vport, from_host, &frame).into_iter();
            Ok(steps
                .map(|step| convert::trace_step(&names, &rules, step))
                .collect())
        });
        Ok(Response::new(proto::TraceResponse {
            steps: steps.await?,
        }))
    }
}
