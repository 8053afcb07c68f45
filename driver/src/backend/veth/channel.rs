//! Channels: made, changed, told.

use super::super::container::{self, Inside, attach};
use super::super::link::MAX_ALIAS;
use super::super::undo::{Undo, all_or_nothing};
use super::super::wanted::{
    Place, Wanted, check_mac, check_mtu, check_names, check_vlan, invalid, no_channel,
};
use super::bridge::{OWN_VLAN, PortVlan};
use super::state::{Mode, State, representor};
use super::{MAX_PORTS, Veth};
use crate::feature::refuse;
use crate::nic::{Channel, ChannelChange};
use crate::transport::Netns;
use crate::{DeviceError, Feature, Nic};
use chanio_model::VportId;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVeth, LinkAttribute, LinkMessage,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use std::collections::HashMap;
use std::os::fd::AsFd;

impl Veth {
    /// Makes channels, all or none.
    pub(super) fn add(&mut self, wanted: Vec<Wanted>) -> Result<Vec<Channel>, DeviceError> {
        let names: Vec<_> = wanted.iter().map(|w| w.name.to_string()).collect();
        all_or_nothing(self, |veth, undo| {
            let state = veth.ensure_bridge(undo)?;
            check_names(&wanted, state.channels.iter().map(|c| &*c.name))?;
            let most = (MAX_PORTS as usize).saturating_sub(state.uplinks.len());
            let room = most.saturating_sub(state.channels.len());
            if wanted.len() > room {
                return Err(invalid(
                    "channels",
                    wanted.len(),
                    format!("{room} at most, for {most} in all: a bridge has {MAX_PORTS} ports"),
                ));
            }
            for channel in &wanted {
                veth.check_vlan_of(&state, channel.vlan)?;
                if channel.spoofchk && state.mode() == Mode::Switchdev {
                    return Err(veth.only_legacy("spoofchk"));
                }
            }
            let taken: Vec<_> = state.channels.iter().map(|c| c.vport).collect();
            let free = (1..).map(VportId).filter(|vport| !taken.contains(vport));
            for (channel, vport) in wanted.iter().zip(free) {
                veth.add_one(&state, channel, vport, undo)?;
            }
            veth.tell_channels(&names)
        })
    }

    fn only_legacy(&self, what: &str) -> DeviceError {
        DeviceError::Refused {
            reason: format!("{what} needs eswitch mode legacy, where the bridge does it"),
        }
    }

    /// A port VLAN is the bridge's to add and to take off.
    fn check_vlan_of(&self, state: &State, vlan: u16) -> Result<(), DeviceError> {
        if vlan == 0 {
            return Ok(());
        }
        check_vlan(vlan)?;
        if vlan == OWN_VLAN {
            let allowed = "0 or 2 to 4094: 1 is what the bridge calls untagged frames";
            return Err(invalid("vlan", vlan, allowed));
        }
        if state.mode() == Mode::Switchdev {
            return Err(self.only_legacy("vlan"));
        }
        if state.bridge.is_some() && !state.filters_vlans() {
            return Err(DeviceError::Refused {
                reason: format!(
                    "vlan: bridge `{0}` does not look at tags: ip link set {0} type bridge \
                     vlan_filtering 1, where the kernel has CONFIG_BRIDGE_VLAN_FILTERING",
                    self.bridge
                ),
            });
        }
        Ok(())
    }

    fn add_one(
        &mut self,
        state: &State,
        wanted: &Wanted,
        vport: VportId,
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        let place = wanted.place()?;
        let name = representor(state.mark.nic, vport);
        let netns = Netns::open(&place.netns)?;
        let pair = pair(&name, wanted, place, self.route.netns_number(&netns));
        let made = self.route.make(pair, &[netns.as_fd()]);
        made.map_err(|error| match error.is(libc::EEXIST) {
            true => invalid(
                "attach",
                format!("netdev `{}` in netns `{}`", place.ifname, place.netns),
                format!("a name that no netdev there has yet (nor `{name}` here)"),
            ),
            false => error.at(&format!("making netdev `{name}` and its peer")),
        })?;
        let remove = name.clone();
        undo.push(
            format!("removing netdev `{name}`"),
            move |veth: &mut Self| {
                let link = veth
                    .route
                    .link_named(&remove)
                    .map_err(|e| e.at("finding it"))?;
                let gone = link.map_or(Ok(()), |link| veth.route.remove(link.index));
                gone.map_err(|e| e.at("removing it"))
            },
        );
        let step = format!("setting up netdev `{name}`");
        let link = self.route.link_named(&name).map_err(|e| e.at(&step))?;
        let index = link
            .map(|link| link.index)
            .ok_or_else(|| DeviceError::Refused {
                reason: format!("netdev `{name}` is gone"),
            })?;
        let mut change = LinkUnspec::new_with_index(index).alias(wanted.name.as_str());
        debug_assert!(wanted.name.as_str().len() <= MAX_ALIAS);
        if let (Mode::Legacy, Some(bridge)) = (state.mode(), &state.bridge) {
            change = change.controller(bridge.index);
        }
        if wanted.link_up {
            change = change.up();
        }
        // A representor does not speak for itself.
        let silent = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let silent = LinkAttribute::AfSpecUnspec(vec![silent]);
        let change = change.append_extra_attribute(silent).build();
        self.route.set(change).map_err(|e| e.at(&step))?;
        if wanted.block != 0 {
            self.set_block(wanted.name.as_str(), index, 0, wanted.block)?;
        }
        if state.mode() == Mode::Legacy {
            if state.filters_vlans() {
                self.set_port_vlan(index, PortVlan::default(), PortVlan::of(wanted.vlan))?;
            }
            let inner = veth_vlan(state, wanted.vlan);
            match wanted.spoofchk {
                true => self.lock(index, wanted.mac, inner)?,
                false => self.add_own(index, wanted.mac, inner)?,
            }
        }
        container::bring_up(&*self.transport, place)
    }

    /// Changes a channel, all or nothing.
    pub(super) fn change(
        &mut self,
        name: &str,
        change: ChannelChange,
    ) -> Result<Channel, DeviceError> {
        let needs = [
            (Feature::SetQueues, change.queues.is_some()),
            (Feature::Rss, change.rss.is_some()),
            (Feature::Lro, change.lro == Some(true)),
            (Feature::Distrust, change.trust == Some(false)),
            (
                Feature::Block,
                change.block.is_some_and(|block| block != 0)
                    && self.why_not(Feature::Block).is_some(),
            ),
            (Feature::Receive, change.receive != Default::default()),
        ];
        for (feature, needed) in needs {
            if needed {
                return Err(refuse(self, feature));
            }
        }
        let mac = change.mac.as_deref().map(check_mac).transpose()?;
        change.mtu.map(check_mtu).transpose()?;
        let state = self.state()?;
        let port = state.channel(name).ok_or_else(|| no_channel(name))?.clone();
        let old = self.tell_channels(&[name.to_owned()])?;
        let old = old.into_iter().next().ok_or_else(|| no_channel(name))?;
        let old_vlan = old.vlan.map_or(0, |vlan| vlan as u16);
        if let Some(vlan) = change.vlan {
            self.check_vlan_of(&state, vlan)?;
        }
        if change.spoofchk == Some(true) && state.mode() == Mode::Switchdev {
            return Err(self.only_legacy("spoofchk"));
        }
        let index = port.link.index;
        all_or_nothing(self, |veth, undo| {
            if change.mac.is_some() || change.mtu.is_some() {
                veth.change_inside(&port, mac, change.mtu, undo)?;
            }
            if let Some(mtu) = change.mtu {
                veth.step(
                    undo,
                    "setting the MTU",
                    link(index).mtu(mtu.into()).build(),
                    link(index).mtu(port.link.mtu).build(),
                )?;
            }
            if let Some(to) = change.block {
                let from = old.block.and_then(|block| u16::try_from(block).ok());
                let from = from.unwrap_or(0);
                if from != to {
                    veth.set_block(&old.name, index, from, to)?;
                    let name = old.name.clone();
                    undo.push("putting it back into its block", move |veth: &mut Self| {
                        veth.set_block(&name, index, to, from)
                    });
                }
            }
            if let Some(up) = change.link_up {
                let way = |up| match up {
                    true => link(index).up().build(),
                    false => link(index).down().build(),
                };
                veth.step(undo, "setting the link's state", way(up), way(port.link.up))?;
            }
            // A lock names address and VLAN: it is taken off before they change.
            let vlan = change.vlan.unwrap_or(old_vlan);
            let lock = change.spoofchk.unwrap_or(old.spoofchk);
            let was = match old.spoofchk {
                true => veth.locked_to(&state, name, &old.mac)?,
                false => None,
            };
            let to = mac.map_or_else(|| check_mac(&old.mac), Ok);
            let moved = vlan != old_vlan || mac.is_some_and(|mac| Some(mac) != was);
            let inner = |vlan| veth_vlan(&state, vlan);
            if let (Some(was), true) = (was, moved || !lock) {
                let at = inner(old_vlan);
                undo.push("spoofchk", move |veth: &mut Self| veth.lock(index, was, at));
                veth.unlock(index, was, at)?;
            }
            let own = check_mac(&old.mac).ok();
            let legacy = state.mode() == Mode::Legacy;
            if let (Some(own), true, true, None) = (own, legacy, moved, was) {
                let at = inner(old_vlan);
                undo.push("adding the address again", move |veth: &mut Self| {
                    veth.add_own(index, own, at)
                });
                veth.remove_own(index, own, at)?;
            }
            if vlan != old_vlan {
                let (from, to) = (PortVlan::of(old_vlan), PortVlan::of(vlan));
                undo.push("setting the port VLAN", move |veth: &mut Self| {
                    veth.set_port_vlan(index, to, from)
                });
                veth.set_port_vlan(index, from, to)?;
            }
            if lock && (moved || !old.spoofchk) {
                let (mac, at) = (to?, inner(vlan));
                // What was there before, without a lock.
                let kept = legacy && !old.spoofchk && !moved;
                undo.push("spoofchk", move |veth: &mut Self| {
                    veth.unlock(index, mac, at)?;
                    match kept {
                        true => veth.add_own(index, mac, at),
                        false => Ok(()),
                    }
                });
                veth.lock(index, mac, at)?;
            }
            let unlocked = old.spoofchk && !lock;
            if let (Some(mac), true, false, true) = (mac.or(own), legacy, lock, moved || unlocked) {
                let at = inner(vlan);
                undo.push("removing the address", move |veth: &mut Self| {
                    veth.remove_own(index, mac, at)
                });
                veth.add_own(index, mac, at)?;
            }
            let mut now = veth.tell_channels(&[name.to_owned()])?;
            now.pop().ok_or_else(|| no_channel(name))
        })
    }

    /// One change of a netdev, and the one that undoes it.
    fn step(
        &mut self,
        undo: &mut Undo<Self>,
        what: &'static str,
        change: LinkMessage,
        back: LinkMessage,
    ) -> Result<(), DeviceError> {
        self.route.set(change).map_err(|e| e.at(what))?;
        undo.push(what, move |veth: &mut Self| {
            veth.route.set(back).map_err(|e| e.at(what))
        });
        Ok(())
    }

    /// Changes the container's end, which has to be in a namespace with a name.
    fn change_inside(
        &mut self,
        port: &super::super::ports::Port,
        mac: Option<chanio_model::Mac>,
        mtu: Option<u16>,
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        let names = self.netns_names()?;
        let home = port.link.link_netns.and_then(|id| names.get(&id));
        let (Some(home), Some(index)) = (home, port.link.link) else {
            return Err(DeviceError::Refused {
                reason: format!(
                    "the namespace of channel `{}` has no name in /run/netns",
                    port.name
                ),
            });
        };
        let netns = Netns::open(home)?;
        let mut inside = super::Route::open_in(&*self.transport, &netns)?;
        let link = inside
            .link(index, None)
            .map_err(|e| e.at("finding the channel's netdev"))?;
        let link = link.ok_or_else(|| no_channel(&port.name))?;
        let netns = home.clone();
        container::change(&*self.transport, &Inside { netns, link }, mac, mtu, undo)
    }

    /// The names of namespaces, by their numbers in this one.
    pub(super) fn netns_names(&mut self) -> Result<HashMap<i32, String>, DeviceError> {
        let mut names = HashMap::new();
        for name in Netns::names() {
            // One that has gone meanwhile, or that may not be opened, is nobody's here.
            let Ok(netns) = Netns::open(&name) else {
                continue;
            };
            let id = self
                .route
                .netns_id(&netns)
                .map_err(|e| e.at("numbering namespaces"))?;
            if let Some(id) = id {
                names.entry(id).or_insert(name);
            }
        }
        Ok(names)
    }

    /// The channels of these names, or all if there are none.
    pub(super) fn tell_channels(&mut self, names: &[String]) -> Result<Vec<Channel>, DeviceError> {
        let state = self.state()?;
        let picked = state.pick(names)?;
        let homes = self.netns_names()?;
        let vlans = self.port_vlans(&state)?;
        let blocks = self.blocks()?;
        let mut channels = Vec::with_capacity(picked.len());
        for port in picked {
            let link = &port.link;
            let peer = match link.link {
                Some(index) => match self.route.link(index, link.link_netns) {
                    // Its namespace is just going.
                    Err(error) if error.is(libc::EINVAL) => None,
                    peer => peer.map_err(|e| e.at("asking for a channel's netdev"))?,
                },
                None => None,
            };
            let home = link.link_netns.and_then(|id| homes.get(&id));
            let running = peer.as_ref().is_some_and(|peer| peer.up);
            channels.push(Channel {
                name: port.name.clone(),
                vport: port.vport.0,
                mac: peer
                    .as_ref()
                    .map_or_else(|| "?".into(), |peer| peer.mac.to_string()),
                queues: link.tx_queues,
                active_queues: if running { link.tx_queues } else { 0 },
                vlan: vlans.get(&link.index).map(|vlan| u32::from(*vlan)),
                mtu: link.mtu,
                spoofchk: link.locked,
                trust: true,
                lro: false,
                link: if link.up { "up" } else { "down" },
                attach: attach(
                    home.map(String::as_str),
                    peer.as_ref().map(|peer| &*peer.name),
                ),
                representor: Some(link.name.clone()),
                socket: None,
                state: match (&peer, running) {
                    (_, true) => "running",
                    (Some(_), _) => "connected",
                    (None, _) => "disconnected",
                },
                fault: None,
                features: "0x0".into(),
                rss: None,
                roce: None,
                block: blocks.get(&link.index).map(|block| u32::from(*block)),
                more_macs: Vec::new(),
                promisc: true,
                allmulti: false,
                vlan_filter: None,
            });
        }
        Ok(channels)
    }
}

fn link(index: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index)
}

/// What the bridge calls the VLAN of a channel: none where it does not look at tags.
pub(super) fn veth_vlan(state: &State, vlan: u16) -> Option<u16> {
    state
        .filters_vlans()
        .then_some(if vlan == 0 { OWN_VLAN } else { vlan })
}

/// A pair of which one end is made in the container's namespace, under its name there.
fn pair(name: &str, wanted: &Wanted, place: &Place, netns: LinkAttribute) -> LinkMessage {
    let count = u32::from(wanted.queues);
    let tx_queues = LinkAttribute::NumTxQueues(count);
    let rx_queues = LinkAttribute::NumRxQueues(count);
    let peer = LinkUnspec::new_with_name(place.ifname.as_str())
        .append_extra_attribute(tx_queues.clone())
        .append_extra_attribute(rx_queues.clone())
        .mtu(wanted.mtu)
        .address(wanted.mac.0.to_vec())
        .append_extra_attribute(netns)
        .build();
    LinkVeth::new(name, "")
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .append_extra_attribute(tx_queues)
        .append_extra_attribute(rx_queues)
        .mtu(wanted.mtu)
        .build()
}
