//! What there is, read from the kernel each time.

use super::super::container::{self, Inside, attach};
use super::super::ethtool::{self, On};
use super::super::link::Link;
use super::super::ports::{Port, Ports, tunnel_device};
use super::super::rss;
use super::super::sysfs::{Bus, read_number};
use super::super::wanted::no_channel;
use super::Pci;
use crate::DeviceError;
use crate::nic::{Channel, FunctionKind};
use chanio_emu::nic::spec::Attach;
use chanio_model::{ChannelName, Mac, VportId};
use chanio_netlink::devlink::{self, EswitchMode, Flavour, Function, OperationalState};
use std::collections::HashMap;
use std::path::Path;

/// Where netdevsim's devices have their settings.
const NETDEVSIM_DEBUG: &str = "/sys/kernel/debug/netdevsim";

/// What channels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Subfunctions.
    Sf,
    /// Virtual functions.
    Vf,
    /// Macvlan devices that have queues of the NIC's.
    Macvlan,
}

impl From<Kind> for FunctionKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Sf => FunctionKind::Sf,
            Kind::Vf => FunctionKind::Vf,
            Kind::Macvlan => FunctionKind::Macvlan,
        }
    }
}

/// A channel.
#[derive(Clone, Debug)]
pub(super) struct PciChannel {
    /// Its vport, name, and representor; in legacy mode its own netdev.
    pub(super) port: Port,
    /// devlink's index; none in legacy mode, where virtual functions have no ports.
    pub(super) index: Option<u32>,
    /// Of the subfunction or virtual function.
    pub(super) number: u32,
    /// What is behind the port.
    pub(super) function: Function,
    /// Its netdev, where that was found.
    pub(super) inside: Option<std::sync::Arc<Inside>>,
}

impl PciChannel {
    /// Its address, as its owner has set it.
    pub(super) fn mac(&self) -> Option<Mac> {
        let set = self
            .function
            .hw_addr
            .as_deref()
            .and_then(|a| a.try_into().ok())
            .map(Mac);
        let own = self.inside.as_ref().map(|inside| inside.link.mac);
        set.filter(|mac| !mac.is_zero()).or(own)
    }
}

/// The device and all that belongs to it.
pub(super) struct State {
    pub(super) mode: EswitchMode,
    /// The wire's netdev.
    pub(super) uplink: Option<Link>,
    /// In the order of their vports.
    pub(super) channels: Vec<PciChannel>,
    /// Representors of functions that are no channels.
    pub(super) nameless: Vec<(VportId, Link)>,
    /// Numbers of subfunctions that are taken, by whomever.
    pub(super) sf_numbers: Vec<u32>,
    /// Virtual functions that there are.
    pub(super) vfs: u32,
    /// All netdevs.
    pub(super) links: Vec<Link>,
}

impl State {
    pub(super) fn channel(&self, name: &str) -> Option<&PciChannel> {
        self.channels
            .iter()
            .find(|channel| channel.port.name == name)
    }

    /// The channels of these names, or all if there are none.
    pub(super) fn pick(&self, names: &[String]) -> Result<Vec<&PciChannel>, DeviceError> {
        if names.is_empty() {
            return Ok(self.channels.iter().collect());
        }
        let all = self.channels.iter();
        let by_name: HashMap<&str, _> = all.map(|c| (&*c.port.name, c)).collect();
        let named = |name: &String| by_name.get(&**name).copied();
        let found = names.iter().map(|n| named(n).ok_or_else(|| no_channel(n)));
        found.collect()
    }

    pub(super) fn into_ports(self) -> Ports {
        let uplink = self.uplink.map(|link| Port {
            vport: VportId::UPLINK,
            name: "uplink".into(),
            link,
        });
        let channels = self.channels.into_iter().map(|channel| channel.port);
        let tunnels = self
            .links
            .iter()
            .filter_map(|l| Some((tunnel_device(l)?, l.index)));
        let ports = uplink.into_iter().chain(channels).collect();
        Ports::new(ports, tunnels.collect())
    }
}

/// The vport of a function: the first virtual one's is 1, as mlx5 and ice number them, a
/// subfunction's the number that it was given.
pub(super) fn vport(kind: Kind, number: u32) -> VportId {
    match kind {
        Kind::Sf | Kind::Macvlan => VportId(number),
        Kind::Vf => VportId(number.saturating_add(1)),
    }
}

impl Pci {
    /// Looks, and remembers what channels are.
    pub(super) fn state(&mut self) -> Result<State, DeviceError> {
        let mode = self
            .devlink
            .mode()
            .map_err(|e| e.at("asking for the eswitch's mode"))?;
        self.eswitch_there = mode.is_some();
        let mode = mode.unwrap_or(EswitchMode::Legacy);
        let vfs = self
            .device
            .number(&*self.transport, "sriov_numvfs")?
            .unwrap_or(0);
        self.kind = self.kind_in(mode, vfs);
        let links = self.route.links().map_err(|e| e.at("listing netdevs"))?;
        let ports = self.devlink.ports().map_err(|e| e.at("listing ports"))?;
        let places = links.iter().enumerate();
        let by_index: HashMap<u32, usize> = places.map(|(place, l)| (l.index, place)).collect();
        let link_of = |port: &devlink::Port| {
            let index = port.netdev_ifindex?;
            by_index.get(&index).map(|place| &links[*place])
        };
        let physical = |port: &&devlink::Port| port.flavour == Some(Flavour::Physical);
        let mut uplink = ports.iter().find(physical).and_then(link_of).cloned();
        if uplink.is_none() {
            // A driver without devlink ports: the device's own netdev.
            let names = self.device.netdevs(&*self.transport)?;
            uplink = links
                .iter()
                .find(|link| names.contains(&link.name))
                .cloned();
        }
        let mut channels = Vec::new();
        let mut nameless = Vec::new();
        let mut sf_numbers = Vec::new();
        for port in &ports {
            let (flavour, number) = match (port.flavour, port.sf, port.vf) {
                (Some(Flavour::PciSf), Some(number), _) => {
                    sf_numbers.push(number);
                    (Kind::Sf, number)
                }
                (Some(Flavour::PciVf), _, Some(number)) => (Kind::Vf, number.into()),
                _ => continue,
            };
            let link = link_of(port).filter(|_| flavour == self.kind);
            let name = link.and_then(|link| link.alias.as_deref());
            // An emulator calls its functions by their ports' names until somebody has them.
            let port_name = link.and_then(|link| link.port_name.as_deref());
            let name = name
                .filter(|alias| alias.parse::<ChannelName>().is_ok() && Some(*alias) != port_name);
            if let (Some(link), None) = (link, name) {
                nameless.push((vport(flavour, number), link.clone()));
            }
            if let (Some(link), Some(name)) = (link, name) {
                channels.push(PciChannel {
                    port: Port {
                        vport: vport(flavour, number),
                        name: name.to_owned(),
                        link: link.clone(),
                    },
                    index: port.index,
                    number,
                    function: port.function.clone().unwrap_or_default(),
                    inside: None,
                });
            }
        }
        let mut state = State {
            mode,
            uplink,
            channels,
            nameless,
            sf_numbers,
            vfs,
            links,
        };
        if self.kind == Kind::Vf && mode == EswitchMode::Legacy {
            if self.device.bus == Bus::Pci && vfs == 0 {
                let switch = self.l2_forwarding(state.uplink.as_ref())?;
                if switch.is_some_and(|switch| switch.on) {
                    self.kind = Kind::Macvlan;
                }
            }
            state.channels = match self.kind {
                Kind::Macvlan => self.macvlans(state.uplink.as_ref())?,
                _ => self.legacy_vfs(&state)?,
            };
        }
        state.channels.sort_by_key(|channel| channel.port.vport);
        Ok(state)
    }

    /// What channels are in a mode, with so many virtual functions.
    pub(super) fn kind_in(&self, mode: EswitchMode, vfs: u32) -> Kind {
        match (&*self.driver, mode) {
            ("mlx5_core", EswitchMode::Switchdev) => Kind::Sf,
            ("ice", EswitchMode::Switchdev) if vfs == 0 => Kind::Sf,
            _ => Kind::Vf,
        }
    }

    /// Whether the driver has no eswitch that devlink knows.
    pub(super) fn no_eswitch(&self) -> bool {
        !self.eswitch_there
    }

    /// How many channels there can be.
    pub(super) fn most_channels(&self, state: &State) -> Result<u32, DeviceError> {
        match self.kind {
            Kind::Vf => {
                let most = match self.device.bus {
                    Bus::Pci => self.device.number(&*self.transport, "sriov_totalvfs")?,
                    // For root, and where debugfs is mounted.
                    Bus::Netdevsim => {
                        let file = Path::new(NETDEVSIM_DEBUG).join(&self.device.name);
                        read_number(&*self.transport, &file.join("max_vfs")).unwrap_or(None)
                    }
                };
                Ok(most.unwrap_or(match self.device.bus {
                    Bus::Pci => state.vfs,
                    Bus::Netdevsim => u32::from(u16::MAX),
                }))
            }
            Kind::Macvlan => self.most_macvlans(state),
            // The NIC tells that it has no more by refusing one; a number has 32 bits, and a
            // representor's name 15 characters.
            Kind::Sf => Ok(u32::from(u16::MAX)),
        }
    }

    /// The channels of these names, or all if there are none.
    pub(super) fn tell_channels(
        &mut self,
        state: &State,
        names: &[String],
    ) -> Result<Vec<Channel>, DeviceError> {
        let mut picked: Vec<_> = state.pick(names)?.into_iter().cloned().collect();
        self.find_inside(&mut picked)?;
        let mut told: Vec<_> = picked
            .iter()
            .map(|channel| self.tell(state, channel))
            .collect();
        if let (Kind::Macvlan, Some(uplink)) = (self.kind, &state.uplink) {
            let software = self.listened(uplink)?;
            for (channel, told) in picked.iter().zip(&mut told) {
                if channel.mac().is_some_and(|mac| software.contains(&mac)) {
                    told.state = "faulted";
                    told.fault = Some(format!(
                        "it is forwarded in software: the driver gives it no queues, and `{}` \
                         listens to its address",
                        uplink.name
                    ));
                }
            }
        }
        // Of all channels that there may be it would take long.
        if !names.is_empty() && self.kind != Kind::Macvlan {
            for (channel, told) in picked.iter().zip(&mut told) {
                if let Some(inside) = &channel.inside {
                    told.rss = rss::tell(&*self.transport, inside)?;
                    let queues = ethtool::queues(&*self.transport, On::Inside(inside))?;
                    if let Some(queues) = queues {
                        told.queues = queues.used;
                        told.active_queues = told.active_queues.min(queues.used);
                    }
                }
            }
        }
        Ok(told)
    }

    /// Finds the netdevs of channels, in whatever namespace that has a name.
    pub(super) fn find_inside(&self, channels: &mut [PciChannel]) -> Result<(), DeviceError> {
        let netdevs = self.device.bus == Bus::Pci;
        if !netdevs || channels.iter().all(|channel| channel.inside.is_some()) {
            return Ok(());
        }
        let auxiliaries = match self.kind {
            Kind::Sf => self.auxiliaries()?,
            Kind::Vf | Kind::Macvlan => HashMap::new(),
        };
        let (mut by_device, mut by_mac) = (HashMap::new(), HashMap::new());
        for (place, channel) in channels.iter().enumerate() {
            let device = match self.kind {
                Kind::Sf => auxiliaries.get(&channel.number).cloned(),
                Kind::Vf => Some(self.vf_device(channel.number)?.name),
                Kind::Macvlan => None,
            };
            by_device.extend(device.map(|device| (device, place)));
            by_mac.extend(channel.mac().map(|mac| (mac, place)));
        }
        let place = |link: &Link| match &link.parent {
            Some(parent) => by_device.get(parent).copied(),
            // The netdev of an emulator's function has no device in a kernel that is not played.
            None => by_mac.get(&link.mac).copied(),
        };
        let found = container::find(&*self.transport, |link| place(link).is_some())?;
        for inside in found {
            if let Some(at) = place(&inside.link) {
                channels[at].inside = Some(std::sync::Arc::new(inside));
            }
        }
        Ok(())
    }

    fn tell(&self, state: &State, channel: &PciChannel) -> Channel {
        let netdevs = self.device.bus == Bus::Pci;
        let inside = channel.inside.as_ref();
        let link = inside.map(|inside| &inside.link);
        let queues = match channel.function.max_io_eqs {
            Some(count) if self.kind == Kind::Sf => count,
            _ => link.map_or(0, |link| link.tx_queues),
        };
        let attached = match self.kind {
            Kind::Sf => channel.function.operational_state == Some(OperationalState::Attached),
            Kind::Vf | Kind::Macvlan => link.is_some() || !netdevs,
        };
        let running = attached && link.is_none_or(|link| link.up);
        let settings = self.vf_settings(state, channel);
        Channel {
            name: channel.port.name.clone(),
            vport: channel.port.vport.0,
            mac: channel
                .mac()
                .or(Some(settings.mac).filter(|mac| !mac.is_zero()))
                .map_or_else(|| "?".into(), |mac| mac.to_string()),
            queues,
            active_queues: if running { queues } else { 0 },
            vlan: settings.vlan,
            mtu: link.map_or(channel.port.link.mtu, |link| link.mtu),
            spoofchk: settings.spoofchk,
            trust: settings.trust,
            lro: false,
            link: if settings.link_up { "up" } else { "down" },
            attach: match inside {
                Some(inside) => inside.attach(),
                None if netdevs => attach(None, None),
                None => Attach::Nothing.to_string(),
            },
            representor: (state.mode == EswitchMode::Switchdev)
                .then(|| channel.port.link.name.clone()),
            socket: None,
            state: match (attached, running) {
                (_, true) => "running",
                (true, _) => "connected",
                _ => "disconnected",
            },
            fault: None,
            features: "0x0".into(),
            rss: None,
            roce: self.roce(channel),
            block: None,
            more_macs: Vec::new(),
            promisc: true,
            allmulti: false,
            vlan_filter: None,
        }
    }
}
