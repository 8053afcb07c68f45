//! Virtual functions. There are as many as sriov_numvfs says, which changes only between none and
//! some: a channel is one of them that nobody has yet. In legacy mode the physical function's
//! netdev sets them up (`ip link set … vf N`), and there are no representors.

use super::super::container::{self, Inside};
use super::super::ethtool::{On, queues, set_queues};
use super::super::link::Link;
use super::super::rss::{self, Spread};
use super::super::sysfs::{Bus, Device};
use super::super::undo::Undo;
use super::super::wanted::{Wanted, check_mac, check_mtu, check_vlan, invalid};
use super::Pci;
use super::settings::Settings;
use super::state::{Kind, PciChannel, State, vport};
use crate::DeviceError;
use crate::nic::{ChannelChange, Rate};
use crate::transport::Netns;
use chanio_model::rate::RateChange;
use chanio_model::{ChannelName, Mac};
use chanio_netlink::devlink::{EswitchMode, Function};
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::{LinkAttribute, LinkVfInfo, VfInfo};
use std::os::fd::AsFd;
use std::time::Instant;

/// Bytes per second of a Mbit/s, in which the rates of virtual functions are set.
const MBIT: u64 = 125_000;

/// The error for a channel whose netdev cannot be got at.
fn nameless(channel: &str) -> DeviceError {
    DeviceError::Refused {
        reason: format!("the namespace of channel `{channel}` has no name in /run/netns"),
    }
}

impl Pci {
    pub(super) fn vf_device(&self, number: u32) -> Result<Device, DeviceError> {
        let number = u16::try_from(number).unwrap_or(u16::MAX);
        self.device.vf(&*self.transport, number)
    }

    pub(super) fn vf_settings(&self, state: &State, channel: &PciChannel) -> Settings {
        let told = match self.kind {
            Kind::Vf => Settings::of(state.uplink.as_ref(), channel.number),
            Kind::Sf | Kind::Macvlan => None,
        };
        told.unwrap_or(Settings::NONE)
    }

    /// The channels of legacy mode: virtual functions whose netdevs have a channel's name as their
    /// ifalias.
    pub(super) fn legacy_vfs(&self, state: &State) -> Result<Vec<PciChannel>, DeviceError> {
        let mut functions = Vec::new();
        if state.vfs == 0 || self.device.bus == Bus::Netdevsim {
            return Ok(Vec::new());
        }
        for number in 0..state.vfs {
            let device = self.vf_device(number)?.name;
            let mac = Settings::of(state.uplink.as_ref(), number).map(|settings| settings.mac);
            functions.push((device, mac.filter(|mac| !mac.is_zero())));
        }
        let name = |link: &Link| -> Option<String> {
            let alias = link.alias.clone()?;
            alias.parse::<ChannelName>().is_ok().then_some(alias)
        };
        let place = |link: &Link| {
            functions
                .iter()
                .position(|(device, mac)| match &link.parent {
                    Some(parent) => parent == device,
                    // See `find_inside`.
                    None => *mac == Some(link.mac),
                })
        };
        let wanted = |link: &Link| name(link).is_some() && place(link).is_some();
        let found = container::find(&*self.transport, wanted)?;
        let mut channels = Vec::new();
        for inside in found {
            let (Some(name), Some(number)) = (name(&inside.link), place(&inside.link)) else {
                continue;
            };
            channels.push(self.legacy_channel(name, number as u32, inside));
        }
        Ok(channels)
    }

    fn legacy_channel(&self, name: String, number: u32, inside: Inside) -> PciChannel {
        PciChannel {
            port: super::super::ports::Port {
                vport: vport(Kind::Vf, number),
                name,
                link: inside.link.clone(),
            },
            index: None,
            number,
            function: Function::default(),
            inside: Some(std::sync::Arc::new(inside)),
        }
    }

    /// Makes channels of virtual functions that nobody has.
    pub(super) fn add_vfs(
        &mut self,
        state: &State,
        wanted: &[Wanted],
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        let nameless = self.device.bus == Bus::Netdevsim && state.mode == EswitchMode::Legacy;
        if nameless {
            return Err(DeviceError::Unsupported {
                what: "a channel in eswitch mode legacy".into(),
                why: "netdevsim's virtual functions have no netdevs, and only a representor can \
                      then have the channel's name"
                    .into(),
            });
        }
        let mut vfs = state.vfs;
        let idle = state.channels.is_empty() && vfs != 0 && vfs < wanted.len() as u32;
        if idle && self.nobody_has_vfs(state)? {
            self.device
                .set_number(&*self.transport, "sriov_numvfs", 0)?;
            undo.push(
                "making the virtual functions again",
                move |pci: &mut Self| {
                    let device = pci.device.clone();
                    device.set_number(&*pci.transport, "sriov_numvfs", vfs)
                },
            );
            vfs = 0;
        }
        if vfs == 0 {
            vfs = wanted.len() as u32;
            let most = self.most_channels(state)?;
            if vfs > most {
                return Err(invalid(
                    "channels",
                    vfs,
                    format!("{most} at most (sriov_totalvfs)"),
                ));
            }
            self.device
                .set_number(&*self.transport, "sriov_numvfs", vfs)?;
            undo.push("setting sriov_numvfs back to 0", |pci: &mut Self| {
                pci.device.set_number(&*pci.transport, "sriov_numvfs", 0)
            });
        }
        let taken: Vec<_> = state
            .channels
            .iter()
            .map(|channel| channel.number)
            .collect();
        let free: Vec<_> = (0..vfs).filter(|number| !taken.contains(number)).collect();
        if free.len() < wanted.len() {
            return Err(DeviceError::Refused {
                reason: format!(
                    "channels: {} asked for, {} of the device's {vfs} virtual functions are free, \
                     and sriov_numvfs changes only while nobody has one: remove all channels, then \
                     add as many as are wanted at once",
                    wanted.len(),
                    free.len()
                ),
            });
        }
        let now = self.state()?;
        for (number, channel) in free.into_iter().zip(wanted) {
            self.add_vf(&now, number, channel, undo)?;
        }
        Ok(())
    }

    /// Whether all virtual functions have netdevs, and these are in this namespace and down: then
    /// no container has one, no virtual machine, and nobody here.
    pub(super) fn nobody_has_vfs(&self, state: &State) -> Result<bool, DeviceError> {
        if self.device.bus == Bus::Netdevsim || state.vfs == 0 {
            return Ok(false);
        }
        for number in 0..state.vfs {
            let names = self.vf_device(number)?.netdevs(&*self.transport)?;
            let down = |name: &String| state.links.iter().any(|l| l.name == *name && !l.up);
            if names.is_empty() || !names.iter().all(down) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn add_vf(
        &mut self,
        state: &State,
        number: u32,
        wanted: &Wanted,
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        let old = Settings::of(state.uplink.as_ref(), number);
        let old = old.ok_or_else(|| DeviceError::Refused {
            reason: format!(
                "the netdev of {} does not tell of virtual function {number}: of {} at once what it \
                 tells may not fit an attribute of netlink (IFLA_VFINFO_LIST, 65535 bytes)",
                self.device.address(),
                state.vfs
            ),
        })?;
        let legacy = state.mode == EswitchMode::Legacy;
        let new = Settings {
            mac: wanted.mac,
            vlan: Some(u32::from(wanted.vlan)).filter(|vlan| *vlan != 0),
            // In switchdev mode these are for flow rules, and drivers refuse them.
            spoofchk: if legacy {
                wanted.spoofchk
            } else {
                old.spoofchk || wanted.spoofchk
            },
            trust: if legacy {
                wanted.trust
            } else {
                old.trust || wanted.trust
            },
            link_up: wanted.link_up,
            ..old
        };
        if self.device.bus == Bus::Netdevsim {
            self.set_vf(state, number, old, new, undo)?;
            return self.name_representor(number, wanted, undo);
        }
        let place = wanted.place()?;
        let link = self.wait_vf_netdev(number)?;
        let back = link.clone();
        let (netns, ifname) = (place.netns.clone(), place.ifname.to_string());
        // Undone last, because the netdev's address follows the function's.
        undo.push(
            format!("taking back netdev `{}`", link.name),
            move |pci: &mut Self| pci.take_back(&netns, &ifname, &back),
        );
        self.set_vf(state, number, old, new, undo)?;
        if !legacy {
            self.name_representor(number, wanted, undo)?;
        }
        if legacy {
            let named = LinkUnspec::new_with_index(link.index)
                .alias(wanted.name.as_str())
                .build();
            self.route
                .set(named)
                .map_err(|e| e.at("naming the channel's netdev"))?;
        }
        self.move_inside(&link, wanted, undo)
    }

    /// Changes a virtual function through the physical one's netdev.
    fn set_vf(
        &mut self,
        state: &State,
        number: u32,
        old: Settings,
        new: Settings,
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        let uplink = state.uplink.as_ref().map_or(0, |link| link.index);
        let request = move |info: VfInfo| {
            let list = LinkAttribute::VfInfoList(vec![LinkVfInfo(vec![info])]);
            LinkUnspec::new_with_index(uplink)
                .append_extra_attribute(list)
                .build()
        };
        let backs = old.requests(new, number);
        for ((what, info), (_, back)) in new.requests(old, number).into_iter().zip(backs) {
            let step = format!("setting {what} of virtual function {number}");
            self.route.set(request(info)).map_err(|e| e.at(&step))?;
            undo.push(step.clone(), move |pci: &mut Self| {
                pci.route
                    .set(request(back))
                    .map_err(|e| e.at("setting it back"))
            });
        }
        Ok(())
    }

    fn name_representor(
        &mut self,
        number: u32,
        wanted: &Wanted,
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        let ports = self.devlink.ports().map_err(|e| e.at("listing ports"))?;
        let port = ports
            .iter()
            .find(|port| port.vf.map(u32::from) == Some(number));
        let index = port.and_then(|port| port.netdev_ifindex);
        let index = index.ok_or_else(|| DeviceError::Refused {
            reason: format!("virtual function {number} has no representor"),
        })?;
        let old = self
            .route
            .link(index, None)
            .map_err(|e| e.at("finding a representor"))?;
        let old = old.unwrap_or_default();
        let change = |alias: &str, mtu: u32, up: bool| {
            let link = LinkUnspec::new_with_index(index).alias(alias).mtu(mtu);
            if up {
                link.up().build()
            } else {
                link.down().build()
            }
        };
        let step = "setting up the representor";
        let back = change(old.alias.as_deref().unwrap_or(""), old.mtu, old.up);
        let new = change(wanted.name.as_str(), wanted.mtu, true);
        self.route.set(new).map_err(|e| e.at(step))?;
        undo.push(step, move |pci: &mut Self| {
            pci.route.set(back).map_err(|e| e.at(step))
        });
        Ok(())
    }

    /// The function's netdev in this namespace.
    fn wait_vf_netdev(&mut self, number: u32) -> Result<Link, DeviceError> {
        let device = self.vf_device(number)?;
        let until = Instant::now() + self.transport.patience();
        loop {
            if let Some(name) = device.netdevs(&*self.transport)?.first() {
                let link = self.route.link_named(name);
                if let Some(link) = link.map_err(|e| e.at("finding a function's netdev"))? {
                    return Ok(link);
                }
            }
            if Instant::now() >= until {
                return Err(DeviceError::Refused {
                    reason: format!(
                        "virtual function {number} ({}) has no netdev here: its driver has not \
                         come, or the netdev is in another namespace",
                        device.name
                    ),
                });
            }
            self.wait(until)?;
        }
    }

    /// Brings a netdev back from a container, with what it was; one that never went is changed
    /// back where it is. Index 0: it is in the container.
    fn take_back(&mut self, netns: &str, ifname: &str, was: &Link) -> Result<(), DeviceError> {
        let here = match was.index {
            0 => None,
            index => {
                let link = self.route.link(index, None);
                link.map_err(|e| e.at("looking for it"))?
            }
        };
        let restored = |index: u32| {
            LinkUnspec::new_with_index(index)
                .name(was.name.as_str())
                .alias(was.alias.as_deref().unwrap_or(""))
                .address(was.mac.0.to_vec())
                .mtu(was.mtu)
        };
        if here.is_some_and(|link| link.name == was.name) {
            let change = restored(was.index).build();
            return self.route.set(change).map_err(|e| e.at("changing it back"));
        }
        let netns = Netns::open(netns)?;
        let mut inside = super::Route::open_in(&*self.transport, &netns)?;
        let link = inside
            .link_named(ifname)
            .map_err(|e| e.at("looking for it"))?;
        let Some(link) = link else {
            return Ok(());
        };
        let home = Netns::open("/proc/thread-self/ns/net")?;
        let number = inside.netns_number(&home);
        // Down first: most kernels rename nothing that is up.
        let down = LinkUnspec::new_with_index(link.index).down().build();
        inside.set(down).map_err(|e| e.at("taking it down"))?;
        let change = restored(link.index).append_extra_attribute(number).build();
        inside
            .set_with(change, home.as_fd())
            .map_err(|e| e.at("moving it back"))
    }

    /// Gives virtual functions back.
    pub(super) fn del_vfs(
        &mut self,
        state: &State,
        gone: &[PciChannel],
    ) -> Result<(), DeviceError> {
        let mut gone = gone.to_vec();
        self.find_inside(&mut gone)?;
        super::all_or_nothing(self, |pci, undo| {
            for channel in &gone {
                if let Some(inside) = &channel.inside {
                    let home = Link {
                        name: format!("vf{}", channel.number),
                        alias: None,
                        // A new number in this namespace.
                        index: 0,
                        ..inside.link.clone()
                    };
                    pci.take_back(&inside.netns, &inside.link.name, &home)?;
                }
                if channel.index.is_some() {
                    let nameless = LinkUnspec::new_with_index(channel.port.link.index)
                        .alias("")
                        .down()
                        .build();
                    pci.route
                        .set(nameless)
                        .map_err(|e| e.at("clearing the representor"))?;
                }
                // Where ports have rates, the functions' are theirs, and not to be set here.
                let leaf = channel.index;
                if let Some(port) = leaf {
                    pci.clear_leaf(port, undo)?;
                }
                if let Some(old) = Settings::of(state.uplink.as_ref(), channel.number) {
                    let rate = |old| if leaf.is_some() { old } else { 0 };
                    let new = Settings {
                        vlan: None,
                        link_up: true,
                        min_rate: rate(old.min_rate),
                        max_rate: rate(old.max_rate),
                        ..old
                    };
                    pci.set_vf(state, channel.number, old, new, undo)?;
                }
            }
            Ok(())
        })
    }

    /// Changes a virtual function.
    pub(super) fn change_vf(
        &mut self,
        state: &State,
        channel: &PciChannel,
        change: &ChannelChange,
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        let mac = change.mac.as_deref().map(check_mac).transpose()?;
        change.mtu.map(check_mtu).transpose()?;
        change.vlan.map(check_vlan).transpose()?;
        let old = self.vf_settings(state, channel);
        let new = Settings {
            mac: mac.unwrap_or(old.mac),
            vlan: match change.vlan {
                Some(vlan) => Some(u32::from(vlan)).filter(|vlan| *vlan != 0),
                None => old.vlan,
            },
            spoofchk: change.spoofchk.unwrap_or(old.spoofchk),
            trust: change.trust.unwrap_or(old.trust),
            link_up: change.link_up.unwrap_or(old.link_up),
            ..old
        };
        let mut found = [channel.clone()];
        self.find_inside(&mut found)?;
        self.set_vf(state, channel.number, old, new, undo)?;
        let [channel] = found;
        self.change_inside(&channel, mac, change.mtu, undo)
    }

    /// Changes how many queues a channel uses, and how packets are spread over them.
    pub(super) fn change_spread(
        &mut self,
        channel: &PciChannel,
        change: &ChannelChange,
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        if change.queues.is_none() && change.rss.is_none() {
            return Ok(());
        }
        let mut found = [channel.clone()];
        self.find_inside(&mut found)?;
        let inside = found[0].inside.clone();
        let inside = inside.ok_or_else(|| nameless(&channel.port.name))?;
        let transport = self.transport.clone();
        let on = On::Inside(&inside);
        if let Some(queues) = change.queues {
            let spread = Spread::read(&*transport, on)?;
            let before = set_queues(&*transport, on, inside.link.tx_queues, queues)?;
            if let Some(before) = before {
                let (transport, inside) = (transport.clone(), inside.clone());
                undo.push("setting the number of queues back", move |_: &mut Self| {
                    let on = On::Inside(&inside);
                    set_queues(&*transport, on, 0, before)?;
                    spread.map_or(Ok(()), |spread| spread.put_back(&*transport, on))
                });
            }
        }
        if let Some(rss) = &change.rss {
            let queues = queues(&*transport, on)?;
            let queues = queues.map_or(inside.link.tx_queues, |queues| queues.used);
            rss::change(&transport, &inside, rss, queues, undo)?;
        }
        Ok(())
    }

    /// Changes a channel's own netdev, and the representor's MTU with it.
    pub(super) fn change_inside(
        &mut self,
        channel: &PciChannel,
        mac: Option<Mac>,
        mtu: Option<u16>,
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        if mac.is_none() && mtu.is_none() {
            return Ok(());
        }
        // netdevsim's functions have no netdevs; the address is set already.
        if self.device.bus == Bus::Pci {
            let inside = channel.inside.as_ref();
            let inside = inside.ok_or_else(|| nameless(&channel.port.name))?;
            container::change(&*self.transport, inside, mac, mtu, undo)?;
        }
        if let (Some(mtu), Some(_)) = (mtu, channel.index) {
            let representor = &channel.port.link;
            let set = |mtu: u32| {
                LinkUnspec::new_with_index(representor.index)
                    .mtu(mtu)
                    .build()
            };
            let (step, back) = ("setting the representor's MTU", set(representor.mtu));
            self.route.set(set(mtu.into())).map_err(|e| e.at(step))?;
            undo.push(step, move |pci: &mut Self| {
                pci.route.set(back).map_err(|e| e.at(step))
            });
        }
        Ok(())
    }

    /// What a virtual function may send, as the physical one's netdev limits it.
    pub(super) fn vf_rate(&self, state: &State, channel: &PciChannel) -> Rate {
        let settings = self.vf_settings(state, channel);
        Rate {
            name: channel.port.name.clone(),
            kind: "leaf",
            tx_share: u64::from(settings.min_rate) * MBIT,
            tx_max: u64::from(settings.max_rate) * MBIT,
            tx_priority: 0,
            tx_weight: 1,
            parent: None,
        }
    }

    /// Changes it.
    pub(super) fn set_vf_rate(
        &mut self,
        state: &State,
        channel: &PciChannel,
        change: &RateChange,
    ) -> Result<(), DeviceError> {
        let in_group = change.parent.as_ref().is_some_and(Option::is_some);
        if in_group || change.tx_priority.is_some_and(|p| p != 0) || change.tx_weight.is_some() {
            return Err(DeviceError::Unsupported {
                what: "parent, tx_priority, tx_weight".into(),
                why: "in legacy mode a virtual function has a minimum and a maximum only".into(),
            });
        }
        let old = self.vf_settings(state, channel);
        let in_mbit = |field: &str, bytes: Option<u64>, old: u32| match bytes {
            None => Ok(old),
            Some(bytes) if bytes % MBIT != 0 || bytes / MBIT > u64::from(u32::MAX) => Err(invalid(
                field,
                format!("{bytes} bytes/s"),
                "whole Mbit/s (125000 bytes/s)",
            )),
            // Checked above.
            Some(bytes) => Ok((bytes / MBIT) as u32),
        };
        let new = Settings {
            min_rate: in_mbit("tx_share", change.tx_share, old.min_rate)?,
            max_rate: in_mbit("tx_max", change.tx_max, old.max_rate)?,
            ..old
        };
        super::all_or_nothing(self, |pci, undo| {
            pci.set_vf(state, channel.number, old, new, undo)
        })
    }
}
