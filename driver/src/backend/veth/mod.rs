//! `veth:NAME`: veth pairs and the bridge NAME, for machines without a NIC that has channels.
//!
//! A channel is a veth pair: one end is in the container's namespace, the other, the representor,
//! is called `c<nic>pf0sf<N>` and has the channel's name as its ifalias. In legacy mode
//! representors are ports of the bridge, in switchdev mode they are left to the host and to flow
//! rules (tc flower with skip_hw). The bridge's ifalias, `chanio nic <nic> <mode>`, says which; a
//! bridge that somebody else has made is taken as it is, in legacy mode. The bridge's port that is
//! no channel's is the uplink.

mod block;
mod bridge;
mod channel;
mod rate;
mod state;

use super::flower::{NO_FLOWER, Place, Rules, is_missing_classifier};
use super::ports::Ports;
use super::route::Route;
use super::software;
use super::undo::all_or_nothing;
use super::wanted::{self, invalid, no_channel};
use crate::feature::{cannot, refuse};
use crate::nic::*;
use crate::transport::{Netns, Transport};
use crate::{DeviceError, Feature, Nic};
use chanio_emu::port::IfName;
use chanio_model::rate::RateChange;
use chanio_netlink::message::{NLM_F_CREATE, NLM_F_EXCL};
use chanio_netlink::tc::action::{Action, Control, Gact};
use chanio_netlink::tc::flower::{FlowerRule, RuleFlags};
use chanio_netlink::tc::{At, Filter, FilterKind, INGRESS, NEW_FILTER, NEW_QDISC, Qdisc};
use state::{Mark, Mode};
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

/// The largest number of ports of a bridge (net/bridge/br_private.h, BR_MAX_PORTS; number 0 is
/// nobody's: br_if.c, find_portno).
const MAX_PORTS: u32 = 1023;

/// A bridge and its veth pairs.
pub struct Veth {
    transport: Arc<dyn Transport>,
    route: Route,
    bridge: IfName,
    /// Why the kernel has no flower; found out when it is asked for.
    no_flower: OnceLock<Option<String>>,
}

impl Veth {
    /// The bridge of this name, which is made with the first channel if there is none yet.
    ///
    /// # Errors
    /// Not a netdev's name; a netdev of this name is no bridge; no netlink.
    pub fn open(name: &str, transport: Arc<dyn Transport>) -> Result<Self, DeviceError> {
        let bridge =
            name.parse()
                .map_err(|e: chanio_emu::port::IfNameError| DeviceError::Refused {
                    reason: e.to_string(),
                })?;
        let route = Route::open(&*transport)?;
        let mut veth = Veth {
            transport,
            route,
            bridge,
            no_flower: OnceLock::new(),
        };
        veth.state()?;
        Ok(veth)
    }

    fn address(&self) -> String {
        format!("veth:{}", self.bridge)
    }

    fn ports(&mut self) -> Result<Ports, DeviceError> {
        Ok(self.state()?.into_ports())
    }

    /// Does something with the flow rules, which only switchdev mode has.
    fn with_rules<T>(
        &mut self,
        what: &'static str,
        work: impl FnOnce(&mut Rules<'_>) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let state = self.state()?;
        if state.mode() != Mode::Switchdev {
            return Err(DeviceError::Refused {
                reason: format!("{what} needs eswitch mode switchdev, the mode is legacy"),
            });
        }
        self.any_rules(work)
    }

    fn any_rules<T>(
        &mut self,
        work: impl FnOnce(&mut Rules<'_>) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let ports = self.ports()?;
        work(&mut Rules {
            session: self.route.session(),
            ports: &ports,
            place: Place::Software,
        })
    }

    fn read_eswitch(&mut self) -> Result<Eswitch, DeviceError> {
        let state = self.state()?;
        let mode = state.mode();
        let ageing = state.bridge.as_ref().and_then(|link| link.bridge);
        let flows = match mode {
            Mode::Legacy => 0,
            Mode::Switchdev => self.any_rules(|rules| rules.list())?.len() as u64,
        };
        Ok(Eswitch {
            mode: mode.name(),
            vepa: false,
            ageing_secs: ageing.map_or(bridge::DEFAULT_AGEING_SECS, |b| b.ageing / 100),
            flows,
            fdb_entries: self.read_fdb(&state)?.len() as u64,
            tunnel_ports: None,
            uplink_block: None,
            kernel_overruns: None,
        })
    }
}

/// Whether the netdev is a bridge that says it is driven so.
pub(super) fn is_ours(link: &super::link::Link) -> bool {
    link.is("bridge")
        && link
            .alias
            .as_deref()
            .is_some_and(|alias| Mark::parse(alias).is_some())
}

/// Why the kernel has no tc flower; tried in a namespace that nobody else is in.
fn why_no_flower(transport: &dyn Transport) -> Option<String> {
    let failed = |e: DeviceError| Some(format!("cannot find out whether it has flower: {e}"));
    let netns = match Netns::scratch() {
        Ok(netns) => netns,
        Err(error) => return failed(error),
    };
    let mut route = match Route::open_in(transport, &netns) {
        Ok(route) => route,
        Err(error) => return failed(error),
    };
    // lo is the first netdev of every namespace.
    let ifindex = 1;
    let flower = FlowerRule {
        actions: vec![Action::new(Gact::default(), Control::Ok)],
        flags: Some(RuleFlags(RuleFlags::SKIP_HW)),
        ..FlowerRule::default()
    };
    let filter = Filter {
        at: At::Device {
            ifindex,
            parent: INGRESS,
        },
        priority: 1,
        protocol: 3,
        kind: Some(FilterKind::Flower(Box::new(flower))),
        ..Filter::default()
    };
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    let requests = [
        Qdisc::clsact(ifindex).message(NEW_QDISC, flags),
        filter.message(NEW_FILTER, flags),
    ];
    for request in requests.into_iter().flatten() {
        match route.session().request(request) {
            Ok(_) => {}
            Err(error) if is_missing_classifier(&error) => return Some(NO_FLOWER.into()),
            Err(error) => return Some(format!("the kernel refuses a flower filter: {error}")),
        }
    }
    None
}

impl Nic for Veth {
    fn why_not(&self, feature: Feature) -> Option<String> {
        let why = match feature {
            Feature::VhostUser => {
                "a veth pair is a netdev, not a virtio device; use --attach tap:NETNS[:IF]"
            }
            Feature::Distrust => {
                "who owns the container's namespace can change the netdev's address; spoofchk \
                 drops what it then sends"
            }
            Feature::Rss => "veth has no hash: packets stay on the queue of the cpu that sends",
            Feature::Function => "a channel is a veth pair",
            Feature::Roce => "veth has no RDMA",
            Feature::SetQueues => "the queues of a veth pair are made with it",
            Feature::Lro => {
                "veth is a netdev with the kernel's GRO: ethtool -K gro in the container"
            }
            Feature::Vepa => "a bridge forwards between its ports itself",
            Feature::TxShare => "tbf, which limits the container's end, gives no guarantee",
            Feature::RateNodes => "each container's end has a qdisc of its own",
            Feature::QueueStats => "veth counts by netdev only",
            Feature::Receive => {
                "who owns the netdev chooses that: ip link, ip maddress, bridge fdb"
            }
            Feature::TunnelPorts => "a tunnel's netdev has its port: ip link add … dstport",
            Feature::Connections => "they are the kernel's: conntrack -L shows them",
            Feature::Trace => "the kernel does not tell what it would do with a packet",
            Feature::Capture => "the representor is a netdev: tcpdump shows its frames",
            Feature::Flows | Feature::Block => {
                let probe = || why_no_flower(&*self.transport);
                return self.no_flower.get_or_init(probe).clone();
            }
            _ => return None,
        };
        Some(why.to_owned())
    }

    fn info(&mut self) -> Result<NicInfo, DeviceError> {
        let state = self.state()?;
        let (keys, actions) = match self.why_not(Feature::Flows) {
            None => {
                let ports = self.ports()?;
                (software::keys(&ports), software::actions(&ports))
            }
            Some(_) => Default::default(),
        };
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(NicInfo {
            device: self.address(),
            version: format!("Linux {}", release.trim_end()),
            queues: None,
            queues_free: None,
            channels: state.channels.len() as u32,
            workers: None,
            uplink: state.uplinks_text(),
            profile: "veth".into(),
            capabilities: Capabilities {
                max_channels: MAX_PORTS - state.uplinks.len() as u32,
                attach: vec!["tap:NETNS[:IF]"],
                modes: vec!["legacy", "switchdev"],
                representors: true,
                no_representors: None,
                match_keys: keys,
                actions,
                cannot: cannot(self),
            },
        })
    }

    fn eswitch(&mut self) -> Result<Eswitch, DeviceError> {
        self.read_eswitch()
    }

    fn set_eswitch(&mut self, change: EswitchChange) -> Result<Eswitch, DeviceError> {
        if change.vepa == Some(true) {
            return Err(refuse(self, Feature::Vepa));
        }
        if change.tunnel_ports.is_some() {
            return Err(refuse(self, Feature::TunnelPorts));
        }
        if change.uplink_block.is_some() {
            return Err(DeviceError::Unsupported {
                what: "a block of the uplink".into(),
                why: "it is a netdev of the host's: tc qdisc add dev … ingress_block N clsact"
                    .into(),
            });
        }
        if let Some(secs) = change.ageing_secs
            && !(10..=1_000_000).contains(&secs)
        {
            return Err(invalid("ageing", secs, "10 to 1000000 seconds"));
        }
        let mode = change.switchdev.map(|on| match on {
            true => Mode::Switchdev,
            false => Mode::Legacy,
        });
        all_or_nothing(self, |veth, undo| {
            let state = veth.ensure_bridge(undo)?;
            if let Some(secs) = change.ageing_secs {
                veth.set_ageing(&state, secs, undo)?;
            }
            let changed = mode.filter(|mode| *mode != state.mode());
            if let Some(mode) = changed {
                veth.set_mode(&state, mode, undo)?;
            }
            let mut now = veth.read_eswitch()?;
            if changed.is_some() {
                // Last, because it cannot be undone.
                veth.any_rules(|rules| rules.flush())?;
                now.flows = 0;
            }
            Ok(now)
        })
    }

    fn add_channels(&mut self, specs: Vec<ChannelSpec>) -> Result<Vec<Channel>, DeviceError> {
        let wanted = specs.into_iter().map(|spec| wanted::check(self, spec));
        let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
        match wanted.is_empty() {
            true => Ok(Vec::new()),
            false => self.add(wanted),
        }
    }

    fn del_channels(&mut self, names: &[String]) -> Result<(), DeviceError> {
        let state = self.state()?;
        state.pick(names)?;
        let wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        if state.mode() == Mode::Switchdev {
            self.any_rules(|rules| {
                let naming = rules.naming(&wanted)?;
                rules.del(&naming)
            })?;
        }
        for channel in state.channels.iter().filter(|c| wanted.contains(&*c.name)) {
            let step = format!("removing netdev `{}`", channel.link.name);
            self.route
                .remove(channel.link.index)
                .map_err(|e| e.at(&step))?;
        }
        Ok(())
    }

    fn set_channel(&mut self, name: &str, change: ChannelChange) -> Result<Channel, DeviceError> {
        self.change(name, change)
    }

    fn channels(&mut self, names: &[String]) -> Result<Vec<Channel>, DeviceError> {
        self.tell_channels(names)
    }

    fn representors(&mut self) -> Result<Vec<Representor>, DeviceError> {
        let ports = self.ports()?;
        Ok(ports.all().iter().map(|port| port.representor()).collect())
    }

    fn add_flows(&mut self, rules: Vec<String>, replace: bool) -> Result<Vec<u64>, DeviceError> {
        self.with_rules("a flow rule", |all| all.add(&rules, replace))
    }

    fn del_flows(&mut self, ids: &[u64]) -> Result<(), DeviceError> {
        self.any_rules(|rules| rules.del(ids))
    }

    fn flush_flows(&mut self) -> Result<u64, DeviceError> {
        self.any_rules(|rules| rules.flush())
    }

    fn flows(&mut self) -> Result<Vec<Flow>, DeviceError> {
        self.any_rules(|rules| rules.list())
    }

    fn fdb(&mut self) -> Result<Vec<FdbEntry>, DeviceError> {
        let state = self.state()?;
        self.read_fdb(&state)
    }

    fn add_fdb(&mut self, vlan: u16, mac: &str, port: &str) -> Result<(), DeviceError> {
        self.change_fdb(vlan, mac, Some(port))
    }

    fn del_fdb(&mut self, vlan: u16, mac: &str) -> Result<(), DeviceError> {
        self.change_fdb(vlan, mac, None)
    }

    fn flush_fdb(&mut self) -> Result<u64, DeviceError> {
        self.forget_learned()
    }

    fn rates(&mut self, names: &[String]) -> Result<Vec<Rate>, DeviceError> {
        self.read_rates(names)
    }

    fn set_rate(&mut self, name: &str, change: RateChange) -> Result<Rate, DeviceError> {
        self.change_rate(name, change)
    }

    fn stats(&mut self, names: &[String], queues: bool) -> Result<Vec<VportStats>, DeviceError> {
        if queues {
            return Err(refuse(self, Feature::QueueStats));
        }
        let ports = self.ports()?;
        for name in names {
            if ports.named(name).is_none() {
                return Err(no_channel(name));
            }
        }
        let wanted = |name: &String| names.is_empty() || names.contains(name);
        let ports = ports.all().iter().filter(|port| wanted(&port.name));
        Ok(ports.map(super::stats::of_representor).collect())
    }
}
