//! The NIC as control sees it. Every request, from the CLI, the API or the config file, ends in a
//! method of [`Nic`] that either does all of it or refuses with a reason and changes nothing.

mod api;
pub mod attach_text;
mod channels;
mod connections;
pub mod edge;
pub mod error;
mod eswitch;
mod kernel;
mod names;
mod netdevs;
mod rates;
pub mod spec;

pub use api::NicApi;
pub use error::Refused;
pub use names::PortNames;

use crate::capture::{Capture, Filter};
use crate::datapath::{Change, Datapath, Source, Step, Workers};
use crate::offload::Offload;
use crate::port::{
    Counted, Counters, Endpoint, Limiter, Netdevs, Port, RepresentorSpec, Representors, Uplink,
    probe,
};
use crate::vhost::{SessionHandle, VhostServer};
use chanio_model::eswitch::{self as model, Fdb, FdbLimits, Mode, Switch};
use chanio_model::flow::{Policers, Rule};
use chanio_model::rate::Tree;
use chanio_model::{ChannelName, Nanos, RuleId, VportId};
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use spec::*;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A running NIC. Dropping it stops everything and leaves no socket or netdev behind.
pub struct Nic {
    config: NicConfig,
    datapath: Arc<Datapath>,
    /// `Err`: why there are no representors.
    representors: Result<Representors, String>,
    state: Mutex<State>,
    /// What ends with the NIC, in this order.
    vhost: VhostServer,
    running: Mutex<Option<Running>>,
}

struct Running {
    /// Follows the kernel, if it is to.
    _offload: Option<Offload>,
    _workers: Workers,
    ageing: JoinHandle<()>,
    stop_ageing: Sender<()>,
}

struct State {
    channels: BTreeMap<ChannelName, Entry>,
    names: BTreeMap<VportId, ChannelName>,
    /// By the netdev of their representor.
    by_netdev: FxHashMap<u32, VportId>,
    /// Vports below `next_vport` that no channel has.
    free_vports: BTreeSet<VportId>,
    next_vport: u32,
    queues_used: u64,
    rules: BTreeMap<RuleId, Arc<Rule>>,
    next_rule: u64,
    /// Meters that rules share.
    policers: Policers,
    /// Rules with an idle timeout, maybe some that have gone since, and when they were made.
    timed: BTreeMap<RuleId, Nanos>,
    /// What of the kernel's is in hardware.
    kernel: kernel::KernelRules,
    ageing_secs: u32,
    rates: Tree,
    /// `None` once the NIC has shut down.
    uplink: Option<Arc<Port>>,
    closing: bool,
}

impl State {
    /// The uplink and all channels.
    fn ports(&self) -> impl Iterator<Item = &Arc<Port>> {
        self.uplink
            .iter()
            .chain(self.channels.values().map(|entry| &entry.port))
    }

    /// One of them.
    fn port(&self, vport: VportId) -> Option<&Arc<Port>> {
        match vport.is_uplink() {
            true => self.uplink.as_ref(),
            false => {
                let name = self.names.get(&vport)?;
                self.channels.get(name).map(|entry| &entry.port)
            }
        }
    }
}

struct Entry {
    spec: ChannelSpec,
    port: Arc<Port>,
    session: Option<SessionHandle>,
}

/// MTU of the uplink's representor, bytes.
const UPLINK_MTU: u32 = 1500;

/// What representors are made with, or what this machine lacks for them.
fn open_netdevs() -> Result<Arc<Netdevs>, String> {
    probe()?;
    Netdevs::open()
        .map(Arc::new)
        .map_err(|refused| refused.to_string())
}

/// In nanoseconds.
fn seconds(secs: u32) -> Nanos {
    Nanos::from(secs) * 1_000_000_000
}

/// How often learned addresses are checked for their age.
const AGEING_PERIOD: Duration = Duration::from_secs(1);

/// How many places of the connection table are looked at in each period.
const CONNECTIONS_AGED: u32 = 65_536;

/// Refuses a value outside its range.
fn check_range<T: PartialOrd + std::fmt::Display>(
    field: &'static str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), Refused> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Refused::Invalid {
        field,
        value: value.to_string(),
        allowed: format!("{} to {}", range.start(), range.end()),
    })
}

impl Nic {
    /// Start a NIC with an uplink, an eswitch in legacy mode and no channels.
    pub fn start(config: NicConfig) -> Result<Arc<Self>, Refused> {
        check_range("queues", config.queues, 1..=1_000_000)?;
        check_range("workers", config.workers, 1..=64)?;
        check_range("nic_index", config.nic_index, 0..=99)?;
        check_range("ageing_secs", config.ageing_secs, 10..=1_000_000)?;
        crate::ring::sigbus::install()
            .map_err(|e| Refused::os("installing the SIGBUS handler", e))?;

        let representors = match config.representors {
            RepresentorMode::Off => Err("switched off".to_owned()),
            mode => match open_netdevs() {
                Ok(netdevs) => Ok(Representors::new(netdevs, config.nic_index)),
                Err(why) if mode == RepresentorMode::Auto => {
                    tracing::warn!(why, "no representors");
                    Err(why)
                }
                Err(why) => {
                    return Err(Refused::Missing {
                        what: "representors".into(),
                        why,
                    });
                }
            },
        };
        let planner = match (config.offload, &representors) {
            (false, _) => None,
            (true, Ok(_)) => {
                let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
                Some(Arc::new(wake.map_err(|e| Refused::os("offload", e))?))
            }
            (true, Err(why)) => {
                return Err(Refused::Missing {
                    what: "offload".into(),
                    why: format!("there are no representors: {why}"),
                });
            }
        };
        let mut fdb = Fdb::default();
        fdb.set_limits(FdbLimits {
            ageing: seconds(config.ageing_secs),
            ..FdbLimits::default()
        });
        let (datapath, workers) = Datapath::start(config.workers, Switch::default(), fdb)
            .map_err(|e| Refused::os("starting the workers", e))?;

        let uplink = Uplink::open(&config.uplink)?;
        let representor = match &representors {
            Ok(representors) if config.uplink != UplinkSpec::None => {
                let spec = RepresentorSpec {
                    vport: VportId::UPLINK,
                    channel: None,
                    mtu: UPLINK_MTU,
                    carrier: true,
                    mac: None,
                };
                representors.create(&[spec])?.pop().map(Arc::new)
            }
            _ => None,
        };
        let by_netdev = representor.iter().map(|r| (r.ifindex, VportId::UPLINK));
        let by_netdev = by_netdev.collect();
        let uplink = Arc::new(Port {
            id: VportId::UPLINK,
            channel: None,
            endpoint: Endpoint::Uplink(uplink),
            representor,
            counters: Counters::new(config.workers),
            limiter: Limiter::default(),
        });
        let present = model::Change::SetUplink(config.uplink != UplinkSpec::None);
        datapath.apply(&[Change::Switch(present), Change::AddPort(uplink.clone())]);
        watch(&datapath, &uplink)?;

        let vhost =
            VhostServer::start().map_err(|e| Refused::os("starting the session loop", e))?;
        std::fs::create_dir_all(config.run_dir.join("channel"))
            .map_err(|e| Refused::os(format!("run_dir: {}", config.run_dir.display()), e))?;
        let nic = Arc::new(Self {
            state: Mutex::new(State {
                channels: BTreeMap::new(),
                names: BTreeMap::new(),
                by_netdev,
                free_vports: BTreeSet::new(),
                next_vport: 1,
                queues_used: 0,
                rules: BTreeMap::new(),
                next_rule: 1,
                policers: Policers::default(),
                timed: BTreeMap::new(),
                kernel: kernel::KernelRules::new(planner.clone()),
                ageing_secs: config.ageing_secs,
                rates: Tree::default(),
                uplink: Some(uplink),
                closing: false,
            }),
            config,
            datapath,
            representors,
            vhost,
            running: Mutex::new(None),
        });
        let (stop_ageing, stopped) = channel();
        let weak = Arc::downgrade(&nic);
        let ageing = std::thread::Builder::new()
            .name("ageing".into())
            .spawn(move || {
                while stopped.recv_timeout(AGEING_PERIOD) == Err(RecvTimeoutError::Timeout) {
                    let Some(nic) = weak.upgrade() else { return };
                    nic.age();
                }
            })
            .map_err(|e| Refused::os("starting the ageing thread", e))?;
        let offload = planner.map(|wake| Offload::start(Arc::downgrade(&nic), wake));
        *nic.running.lock() = Some(Running {
            _offload: offload
                .transpose()
                .map_err(|e| Refused::os("offload: listening to the kernel", e))?,
            _workers: workers,
            ageing,
            stop_ageing,
        });
        Ok(nic)
    }

    /// Forgets what was not used for too long: addresses, connections, rules that ask for it.
    fn age(&self) {
        let now = self.datapath.now();
        self.datapath.fdb().write().age(now);
        let conntrack = self.datapath.with_config(|c| c.switch.conntrack().clone());
        conntrack.expire(now, CONNECTIONS_AGED);
        self.expire_rules(now);
    }

    /// Let the frames of an uplink's capture file arrive; for when the channels are there. Does
    /// nothing for other uplinks.
    pub fn play(&self) {
        self.datapath
            .waker(Source::Uplink)
            .post(Source::Uplink.token());
    }

    /// Stop forwarding and remove every channel, socket and netdev. Requests that come later are
    /// refused. Does nothing the second time.
    pub fn shutdown(&self) {
        let names: Vec<_> = {
            let mut state = self.state.lock();
            if std::mem::replace(&mut state.closing, true) {
                return;
            }
            state.channels.keys().cloned().collect()
        };
        if let Err(error) = self.remove_channels(&names) {
            tracing::error!(%error, "removing the channels");
        }
        self.datapath.apply(&[Change::RemovePort(VportId::UPLINK)]);
        // With it goes its representor.
        let uplink = self.state.lock().uplink.take();
        drop(uplink);
        if let Some(Running {
            _offload,
            _workers,
            ageing,
            stop_ageing,
        }) = self.running.lock().take()
        {
            drop(stop_ageing);
            // The last hold on the NIC may be the ageing thread's own.
            if ageing.thread().id() != std::thread::current().id() {
                let _ = ageing.join();
            }
        }
        let _ = std::fs::remove_dir(self.config.run_dir.join("channel"));
    }

    /// The whole NIC.
    pub fn info(&self) -> NicInfo {
        let state = self.state.lock();
        NicInfo {
            version: env!("CARGO_PKG_VERSION"),
            queues: self.config.queues,
            queues_free: (u64::from(self.config.queues) - state.queues_used) as u32,
            channels: state.channels.len() as u32,
            workers: self.config.workers,
            uplink: self.config.uplink.to_string(),
            representors: self.representors.as_ref().map(|_| ()).map_err(Clone::clone),
            run_dir: self.config.run_dir.clone(),
            profile: self.config.profile,
        }
    }

    /// Representors that exist, in the order of their vports.
    pub fn representors(&self) -> Vec<RepresentorInfo> {
        let state = self.state.lock();
        let ports = state.ports();
        let mut list: Vec<_> = ports
            .filter_map(|port| {
                let representor = port.representor.as_ref()?;
                // `None` when somebody has removed the netdev or moved it elsewhere.
                let links = self.representors.as_ref().ok()?.netdevs().links();
                let link = links.get(representor.ifindex)?;
                Some(RepresentorInfo {
                    name: representor.name.to_string(),
                    ifindex: representor.ifindex,
                    vport: port.id,
                    channel: port.channel.clone(),
                    up: link.up,
                    carrier: link.carrier,
                    mtu: link.mtu,
                })
            })
            .collect();
        list.sort_by_key(|r| r.vport);
        list
    }

    /// The vport whose representor is this netdev.
    pub fn vport_by_netdev(&self, ifindex: u32) -> Option<VportId> {
        self.state.lock().by_netdev.get(&ifindex).copied()
    }

    /// The netdev that is a vport's representor.
    pub fn netdev_of(&self, vport: VportId) -> Option<u32> {
        let state = self.state.lock();
        let representor = &state.port(vport)?.representor;
        representor.as_ref().map(|r| r.ifindex)
    }

    /// Counters of one vport.
    pub fn stats_of(&self, vport: VportId) -> Option<VportStats> {
        let state = self.state.lock();
        state.port(vport).map(|port| port_stats(port))
    }

    /// Counters of every vport, in their order.
    pub fn stats(&self) -> Vec<VportStats> {
        let state = self.state.lock();
        let ports = state.ports();
        let mut list: Vec<_> = ports.map(|port| port_stats(port)).collect();
        list.sort_by_key(|s| s.vport);
        list
    }

    /// Show frames from now on.
    pub fn capture(&self, filter: Filter) -> Capture {
        self.datapath.captures().start(filter)
    }

    /// What would become of a finished frame that comes in at a vport, or that the host sends on
    /// its representor. Nothing comes of it.
    pub fn trace(&self, vport: VportId, from_host: bool, frame: &[u8]) -> Vec<Step> {
        self.datapath.explain(vport, from_host, frame)
    }

    /// Which worker serves the transmit ring of a channel's queue pair now, counted from 0.
    pub fn worker_of(&self, vport: VportId, pair: u16) -> Option<usize> {
        let state = self.state.lock();
        let port = state.ports().find(|port| port.id == vport)?;
        match &port.endpoint {
            Endpoint::Rings(channel) => channel.worker(pair),
            _ => None,
        }
    }

    /// A channel's name, a representor's netdev, or `uplink`.
    pub fn vport_by_name(&self, name: &str) -> Option<VportId> {
        let state = self.state.lock();
        if name == "uplink" {
            return Some(VportId::UPLINK);
        }
        if let Some(entry) = name
            .parse()
            .ok()
            .and_then(|n: ChannelName| state.channels.get(&n))
        {
            return Some(entry.port.id);
        }
        let ports = state.ports();
        let is_named = |p: &&Arc<Port>| {
            p.representor
                .as_ref()
                .is_some_and(|r| r.name.to_string() == name)
        };
        ports.into_iter().find(is_named).map(|p| p.id)
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn port_stats(port: &Port) -> VportStats {
    let count = |what| {
        let (packets, bytes) = port.counters.total(what);
        Count { packets, bytes }
    };
    let mut drops = port.counters.drops();
    if let Endpoint::Uplink(uplink) = &port.endpoint {
        drops.extend(uplink.lost());
        drops.sort_unstable_by_key(|(reason, _)| *reason);
    }
    let queue = |both: [(u64, u64); 2]| {
        let [tx, rx] = both.map(|(packets, bytes)| Count { packets, bytes });
        QueueStats { tx, rx }
    };
    VportStats {
        vport: port.id,
        channel: port.channel.clone(),
        tx: count(Counted::Tx),
        rx: count(Counted::Rx),
        representor: port.representor.as_ref().map(|r| r.name.to_string()),
        representor_rx: count(Counted::RepresentorRx),
        representor_tx: count(Counted::RepresentorTx),
        drops,
        queues: port.counters.queues().map(queue).collect(),
    }
}

/// Have the workers listen to a port's netdevs.
fn watch(datapath: &Datapath, port: &Port) -> Result<(), Refused> {
    let watch = |fd: std::os::fd::BorrowedFd<'_>, source: Source| {
        let waker = datapath.waker(source);
        waker
            .watch(fd, source.token())
            .map_err(|e| Refused::os("watching a netdev", e))
    };
    if let Some(representor) = &port.representor {
        watch(representor.tap.as_fd(), Source::Representor(port.id))?;
    }
    match &port.endpoint {
        Endpoint::Rings(_) => {}
        Endpoint::Netdev(netdev) => {
            for (pair, tap) in netdev.queues.iter().enumerate() {
                watch(tap.as_fd(), Source::Queue(port.id, pair as u16))?;
            }
        }
        Endpoint::Uplink(uplink) => {
            // A capture has none and waits for `Nic::play`.
            for fd in uplink.fds() {
                watch(fd, Source::Uplink)?;
            }
        }
    }
    Ok(())
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Legacy => "legacy",
        Mode::Switchdev => "switchdev",
    }
}
