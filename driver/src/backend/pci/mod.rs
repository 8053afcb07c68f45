//! `pci/DDDD:BB:DD.F` and `netdevsim/NAME`: NICs that are driven by devlink, tc and /sys.
//!
//! What a channel is depends on the driver and on the switch's mode:
//!
//! | driver | mode | channel |
//! |---|---|---|
//! | mlx5_core, ice | switchdev | a subfunction (`sf`) |
//! | any with SR-IOV | either | a virtual function (`vf`), on ice once there are some |
//! | i40e, ixgbe, fm10k | legacy | a macvlan device with queues of the NIC's (`macvlan`), while the
//!   netdev's feature l2-fwd-offload is on and there are no virtual functions |
//!
//! A representor has the channel's name as its ifalias; where there is none, the channel's own
//! netdev has.

mod claims;
mod macvlan;
mod rate;
mod settings;
mod sf;
mod state;
mod vf;

use super::devlink::Devlinks;
use super::features::Features;
use super::flower::{Place, Rules};
use super::ports::{Port, representor};
use super::route::Route;
use super::stats::{of_netdev, of_representor};
use super::sysfs::{Bus, Device};
use super::undo::all_or_nothing;
use super::wanted::{self, no_channel};
use crate::feature::{cannot, refuse};
use crate::nic::*;
use crate::transport::Transport;
use crate::{DeviceError, Feature, Nic};
use chanio_model::VportId;
use chanio_model::rate::RateChange;
use chanio_netlink::devlink::EswitchMode;
use state::{Kind, State};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// A NIC.
pub struct Pci {
    transport: Arc<dyn Transport>,
    route: Route,
    devlink: Devlinks,
    features: Features,
    device: Device,
    driver: String,
    /// devlink knew of an eswitch then.
    eswitch_there: bool,
    /// What channels were when it was last looked: what [`Nic::why_not`] speaks of.
    kind: Kind,
}

impl Pci {
    /// The device of this slot.
    ///
    /// # Errors
    /// There is none, it has no driver, or its driver has no channels.
    pub fn open(slot: &str, transport: Arc<dyn Transport>) -> Result<Self, DeviceError> {
        Self::on(Bus::Pci, slot, transport)
    }

    /// The netdevsim device of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn netdevsim(name: &str, transport: Arc<dyn Transport>) -> Result<Self, DeviceError> {
        Self::on(Bus::Netdevsim, name, transport)
    }

    fn on(bus: Bus, name: &str, transport: Arc<dyn Transport>) -> Result<Self, DeviceError> {
        let device = Device {
            bus,
            name: name.to_owned(),
        };
        let driver = device.driver(&*transport)?;
        let mut pci = Pci {
            route: Route::open(&*transport)?,
            devlink: Devlinks::open(&*transport, bus.name(), name)?,
            features: Features::open(&*transport)?,
            transport,
            device,
            driver,
            eswitch_there: false,
            kind: Kind::Vf,
        };
        pci.state()?;
        Ok(pci)
    }

    fn with_rules<T>(
        &mut self,
        what: &'static str,
        work: impl FnOnce(&mut Rules<'_>) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let state = self.state()?;
        if state.mode != EswitchMode::Switchdev {
            return Err(match self.why_not(Feature::Switchdev) {
                Some(_) => refuse(self, Feature::Flows),
                None => DeviceError::Refused {
                    reason: format!("{what} needs eswitch mode switchdev, the mode is legacy"),
                },
            });
        }
        work(&mut Rules {
            session: self.route.session(),
            ports: &state.into_ports(),
            place: Place::Hardware,
        })
    }

    /// A mode in which channels are something else is not gone into while there are some: the driver
    /// would remove subfunctions, and virtual functions would be nobody's.
    fn check_channels_stay(&self, state: &State, mode: EswitchMode) -> Result<(), DeviceError> {
        let after = self.kind_in(mode, state.vfs);
        if after == self.kind || state.channels.is_empty() {
            return Ok(());
        }
        let called = |kind: Kind| match kind {
            Kind::Sf => "subfunctions, which are there in switchdev mode only",
            Kind::Vf => "virtual functions, which in switchdev mode are no channels",
            Kind::Macvlan => "macvlan devices, which are there in legacy mode only",
        };
        Err(DeviceError::Unsupported {
            what: "a change of mode with channels".into(),
            why: format!(
                "the {} channels are {}; remove them first",
                state.channels.len(),
                called(self.kind)
            ),
        })
    }

    fn read_eswitch(&mut self) -> Result<Eswitch, DeviceError> {
        let mode = self.state()?.mode;
        let switchdev = mode == EswitchMode::Switchdev;
        let flows = match switchdev {
            true => self.with_rules("", |rules| rules.list())?.len() as u64,
            false => 0,
        };
        Ok(Eswitch {
            mode: if switchdev { "switchdev" } else { "legacy" },
            vepa: false,
            ageing_secs: 0,
            flows,
            fdb_entries: 0,
            tunnel_ports: None,
            uplink_block: None,
            kernel_overruns: None,
        })
    }
}

impl Nic for Pci {
    fn why_not(&self, feature: Feature) -> Option<String> {
        let sf = self.kind == Kind::Sf;
        let macvlan = self.kind == Kind::Macvlan;
        let netdevsim = self.device.bus == Bus::Netdevsim;
        let why = match feature {
            Feature::VhostUser => {
                "the channel is a netdev, not a virtio device; use --attach tap:NETNS[:IF]"
            }
            Feature::Netns if netdevsim => {
                "netdevsim's virtual functions have no netdevs; use --attach none"
            }
            Feature::Flows if netdevsim => {
                "its driver offloads no flower filters (drivers/net/netdevsim/bpf.c)"
            }
            Feature::Queues | Feature::SetQueues | Feature::Rss if netdevsim => {
                "netdevsim's virtual functions have no netdevs"
            }
            Feature::Queues | Feature::SetQueues if macvlan => {
                "a macvlan device has one queue, and its driver itself says how many of the NIC's \
                 are behind it"
            }
            Feature::Rss if macvlan => {
                "a macvlan device has the physical function's: ethtool -X of its netdev"
            }
            Feature::PortVlan if macvlan => {
                "the NIC knows a macvlan device by its address alone: ip link add … type vlan in \
                 the container"
            }
            Feature::Spoofchk if macvlan => {
                "a macvlan device has none: its driver has no such setting"
            }
            Feature::Distrust if macvlan => {
                "who owns the container's namespace can change the netdev's address"
            }
            Feature::LinkState if macvlan => "a macvlan device's link follows the wire",
            Feature::TxMax | Feature::TxShare | Feature::RateNodes if macvlan => {
                "the driver has no rates for macvlan devices: tc qdisc in the container"
            }
            Feature::Representors if macvlan => {
                "a macvlan device has no representor: its driver gives it queues and no port of a \
                 switch, and what it sends and receives never passes the host"
            }
            Feature::Roce if !sf => "only a subfunction's can be set, before its driver comes",
            Feature::PortVlan if sf => {
                "a subfunction has no port VLAN: in switchdev mode flow rules push and pop tags"
            }
            Feature::Spoofchk if sf => "a subfunction has no spoofchk: flow rules match addresses",
            Feature::Distrust if sf => "a subfunction is always trusted",
            Feature::LinkState if sf => {
                "a subfunction's link follows the wire; deactivate it by removing the channel"
            }
            Feature::Lro => "it is set in the container: ethtool -K lro, rx-gro-hw",
            Feature::Vepa | Feature::Ageing => "the switch of the NIC has no such setting",
            Feature::Fdb => {
                "the NIC's own table is not told: in switchdev mode the host's bridge has one"
            }
            Feature::Switchdev | Feature::Flows | Feature::Representors if self.no_eswitch() => {
                "its driver has no devlink eswitch"
            }
            Feature::RateNodes if self.no_eswitch() => "its driver has no devlink rates",
            Feature::QueueStats => "they are counted in the container: ethtool -S",
            Feature::Receive => {
                "who owns the netdev chooses that: ip link, ip maddress, bridge fdb"
            }
            Feature::Block => {
                "the representor is a netdev: tc qdisc add dev … ingress_block N clsact"
            }
            Feature::TunnelPorts => {
                "the driver follows the tunnels' netdevs: ip link add … dstport"
            }
            Feature::Connections => "the kernel has them as well: conntrack -L shows them",
            Feature::Trace => "the NIC does not tell what it would do with a packet",
            Feature::Capture => "the representor is a netdev: tcpdump shows what the host sees",
            _ => return None,
        };
        Some(why.to_owned())
    }

    fn info(&mut self) -> Result<NicInfo, DeviceError> {
        let state = self.state()?;
        let info = self
            .devlink
            .info()
            .map_err(|e| e.at("asking what the device is"))?;
        let info = info.map(|told| told.info).unwrap_or_default();
        let firmware = info
            .running
            .iter()
            .find_map(|version| version.value.clone());
        let switchdev = self.why_not(Feature::Switchdev);
        let attach = match self.why_not(Feature::Netns) {
            None => vec!["tap:NETNS[:IF]"],
            Some(_) => vec!["none"],
        };
        let max_channels = self.most_channels(&state)?;
        let channels = state.channels.len() as u32;
        let ports = state.into_ports();
        let (match_keys, actions) = match self.why_not(Feature::Flows) {
            None => self.claims(&info, &ports),
            Some(_) => (Vec::new(), Vec::new()),
        };
        let uplink = ports.of_vport(VportId::UPLINK);
        Ok(NicInfo {
            device: self.device.address(),
            version: firmware.unwrap_or_default(),
            queues: None,
            queues_free: None,
            channels,
            workers: None,
            uplink: uplink.map_or("none".into(), |port| port.link.name.clone()),
            profile: self.driver.clone(),
            capabilities: Capabilities {
                max_channels,
                attach,
                modes: match switchdev {
                    None => vec!["legacy", "switchdev"],
                    Some(_) => vec!["legacy"],
                },
                representors: switchdev.is_none(),
                no_representors: switchdev,
                match_keys,
                actions,
                cannot: cannot(self),
            },
        })
    }

    fn eswitch(&mut self) -> Result<Eswitch, DeviceError> {
        self.read_eswitch()
    }

    fn set_eswitch(&mut self, change: EswitchChange) -> Result<Eswitch, DeviceError> {
        let needs = [
            (Feature::Vepa, change.vepa == Some(true)),
            (Feature::Ageing, change.ageing_secs.is_some()),
            (Feature::TunnelPorts, change.tunnel_ports.is_some()),
            (Feature::Block, change.uplink_block.is_some()),
            (Feature::Switchdev, change.switchdev == Some(true)),
        ];
        for (feature, needed) in needs {
            if needed && self.why_not(feature).is_some() {
                return Err(refuse(self, feature));
            }
        }
        let state = self.state()?;
        let mode = change.switchdev.map(|on| match on {
            true => EswitchMode::Switchdev,
            false => EswitchMode::Legacy,
        });
        if let Some(mode) = mode.filter(|mode| *mode != state.mode) {
            self.check_channels_stay(&state, mode)?;
            // intel/ice/ice_eswitch.c: ice_eswitch_mode_set refuses while there are some.
            if &*self.driver == "ice" && state.channels.is_empty() && self.nobody_has_vfs(&state)? {
                self.device
                    .set_number(&*self.transport, "sriov_numvfs", 0)?;
            }
            self.devlink
                .set_mode(mode)
                .map_err(|e| e.at("setting the eswitch's mode"))?;
        }
        self.read_eswitch()
    }

    fn add_channels(&mut self, specs: Vec<ChannelSpec>) -> Result<Vec<Channel>, DeviceError> {
        let state = self.state()?;
        let asked = specs.first().and_then(|spec| spec.function);
        if specs.iter().any(|spec| spec.function != asked) {
            return Err(DeviceError::Refused {
                reason: "function: all channels of one call have to be of one kind".into(),
            });
        }
        self.kind = self.choose(&state, asked)?;
        let wanted = specs.into_iter().map(|spec| wanted::check(self, spec));
        let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
        wanted::check_names(&wanted, state.channels.iter().map(|c| &*c.port.name))?;
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<_> = wanted.iter().map(|w| w.name.to_string()).collect();
        all_or_nothing(self, |pci, undo| {
            match pci.kind {
                Kind::Sf => pci.add_sfs(&state, &wanted, undo)?,
                Kind::Vf => {
                    if asked.is_some() {
                        pci.switch_l2_forwarding(&state, false, undo)?;
                    }
                    pci.add_vfs(&state, &wanted, undo)?;
                }
                Kind::Macvlan => pci.add_macvlans(&state, &wanted, undo)?,
            }
            pci.channels(&names)
        })
    }

    fn del_channels(&mut self, names: &[String]) -> Result<(), DeviceError> {
        let state = self.state()?;
        state.pick(names)?;
        let wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        if state.mode == EswitchMode::Switchdev {
            self.with_rules("", |rules| {
                let naming = rules.naming(&wanted)?;
                rules.del(&naming)
            })?;
        }
        let gone = state
            .channels
            .iter()
            .filter(|c| wanted.contains(&*c.port.name));
        let gone: Vec<_> = gone.cloned().collect();
        match self.kind {
            Kind::Sf => self.del_sfs(&gone),
            Kind::Vf => self.del_vfs(&state, &gone),
            Kind::Macvlan => self.del_macvlans(&gone),
        }
    }

    fn set_channel(&mut self, name: &str, change: ChannelChange) -> Result<Channel, DeviceError> {
        let needs = [
            (Feature::SetQueues, change.queues.is_some()),
            (Feature::Rss, change.rss.is_some()),
            (Feature::Lro, change.lro == Some(true)),
            (Feature::PortVlan, change.vlan.is_some_and(|vlan| vlan != 0)),
            (Feature::Spoofchk, change.spoofchk == Some(true)),
            (Feature::Distrust, change.trust == Some(false)),
            (Feature::LinkState, change.link_up == Some(false)),
            (Feature::Block, change.block.is_some_and(|block| block != 0)),
            (Feature::Receive, change.receive != Default::default()),
        ];
        for (feature, needed) in needs {
            if needed && self.why_not(feature).is_some() {
                return Err(refuse(self, feature));
            }
        }
        let state = self.state()?;
        let channel = state.channel(name).ok_or_else(|| no_channel(name))?.clone();
        all_or_nothing(self, |pci, undo| {
            match pci.kind {
                Kind::Sf => pci.change_sf(&channel, &change, undo)?,
                Kind::Vf => pci.change_vf(&state, &channel, &change, undo)?,
                Kind::Macvlan => pci.change_macvlan(&state, &channel, &change, undo)?,
            }
            pci.change_spread(&channel, &change, undo)?;
            let mut now = pci.channels(&[name.to_owned()])?;
            now.pop().ok_or_else(|| no_channel(name))
        })
    }

    fn channels(&mut self, names: &[String]) -> Result<Vec<Channel>, DeviceError> {
        let state = self.state()?;
        self.tell_channels(&state, names)
    }

    fn representors(&mut self) -> Result<Vec<Representor>, DeviceError> {
        let state = self.state()?;
        if state.mode != EswitchMode::Switchdev {
            return match self.why_not(Feature::Representors) {
                Some(_) => Err(refuse(self, Feature::Representors)),
                None => Ok(Vec::new()),
            };
        }
        let nameless: Vec<_> = state
            .nameless
            .iter()
            .map(|(vport, link)| representor(link, *vport, None))
            .collect();
        let ports = state.into_ports();
        let named = ports.all().iter().map(|port| port.representor());
        Ok(named.chain(nameless).collect())
    }

    fn add_flows(&mut self, rules: Vec<String>, replace: bool) -> Result<Vec<u64>, DeviceError> {
        if self.why_not(Feature::Flows).is_some() {
            return Err(refuse(self, Feature::Flows));
        }
        self.with_rules("a flow rule", |all| all.add(&rules, replace))
    }

    fn del_flows(&mut self, ids: &[u64]) -> Result<(), DeviceError> {
        self.with_rules("a flow rule", |rules| rules.del(ids))
    }

    fn flush_flows(&mut self) -> Result<u64, DeviceError> {
        match self.state()?.mode {
            EswitchMode::Switchdev => self.with_rules("", |rules| rules.flush()),
            _ => Ok(0),
        }
    }

    fn flows(&mut self) -> Result<Vec<Flow>, DeviceError> {
        match self.state()?.mode {
            EswitchMode::Switchdev => self.with_rules("", |rules| rules.list()),
            _ => Ok(Vec::new()),
        }
    }

    fn rates(&mut self, names: &[String]) -> Result<Vec<Rate>, DeviceError> {
        self.read_rates(names)
    }

    fn add_rate(&mut self, name: &str, change: RateChange) -> Result<Rate, DeviceError> {
        self.make_node(name, change)
    }

    fn set_rate(&mut self, name: &str, change: RateChange) -> Result<Rate, DeviceError> {
        self.change_rate(name, change)
    }

    fn del_rate(&mut self, name: &str) -> Result<(), DeviceError> {
        self.remove_node(name)
    }

    fn stats(&mut self, names: &[String], queues: bool) -> Result<Vec<VportStats>, DeviceError> {
        if queues {
            return Err(refuse(self, Feature::QueueStats));
        }
        let state = self.state()?;
        let mut channels = state.channels.clone();
        self.find_inside(&mut channels)?;
        let found = channels.into_iter();
        let found = found.filter_map(|c| Some((c.port.vport, c.inside?)));
        let inside: HashMap<_, _> = found.collect();
        let switchdev = state.mode == EswitchMode::Switchdev;
        let ports = state.into_ports();
        for name in names {
            if ports.named(name).is_none() {
                return Err(no_channel(name));
            }
        }
        let wanted: BTreeSet<&String> = names.iter().collect();
        let wanted = |port: &&Port| names.is_empty() || wanted.contains(&port.name);
        let ports = ports.all().iter().filter(wanted);
        let stats = ports.map(|port| match inside.get(&port.vport) {
            Some(own) => of_netdev(port, &own.link, switchdev),
            // Whoever has it does not show its netdev: what the host sees of it.
            None => of_representor(port),
        });
        Ok(stats.collect())
    }
}
