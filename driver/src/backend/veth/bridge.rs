//! The bridge: made, its modes, VLANs of its ports, its address table.

use super::super::undo::Undo;
use super::super::wanted::{check_mac, check_vlan, no_channel};
use super::channel::veth_vlan;
use super::state::{Mark, Mode, State};
use super::{DeviceError, Veth};
use crate::nic::FdbEntry;
use chanio_model::{Mac, VportId};
use chanio_netlink::message::{NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::link::{
    AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags as Flags, InfoBridgePort, LinkAttribute,
    LinkExtentMask, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkBridgeVlan, LinkUnspec};
use std::collections::HashMap;

/// The kernel's default (BR_DEFAULT_AGEING_TIME).
pub(super) const DEFAULT_AGEING_SECS: u32 = 300;
/// The VLAN that a bridge puts untagged frames in (its default PVID).
pub(super) const OWN_VLAN: u16 = 1;
/// The VLANs that are passed with their tags by ports without a port VLAN.
const TAGGED: [u16; 2] = [2, 4094];
/// Nanoseconds of a clock tick in what the kernel tells (USER_HZ).
const TICK_NS: u64 = 10_000_000;

/// Which VLANs a port is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum PortVlan {
    /// As the kernel makes it: untagged frames only.
    #[default]
    New,
    /// Untagged frames, and all tags as they come.
    All,
    /// This one, whose tag the port adds and takes off.
    One(u16),
}

impl PortVlan {
    pub(super) fn of(vlan: u16) -> Self {
        match vlan {
            0 => PortVlan::All,
            vlan => PortVlan::One(vlan),
        }
    }
}

impl Veth {
    /// What there is, with a bridge that says it is ours.
    pub(super) fn ensure_bridge(&mut self, undo: &mut Undo<Self>) -> Result<State, DeviceError> {
        let mut state = self.state()?;
        let step = format!("making bridge `{}`", self.bridge);
        if state.bridge.is_none() {
            let plain = || LinkBridge::new(self.bridge.as_str());
            let made = self.route.make(plain().vlan_filtering(true).build(), &[]);
            // Without CONFIG_BRIDGE_VLAN_FILTERING there are no port VLANs, and who asks for one
            // is told.
            let made = match made {
                Err(error) if error.is(libc::EOPNOTSUPP) => self.route.make(plain().build(), &[]),
                made => made,
            };
            made.map_err(|e| e.at(&step))?;
            undo.push(
                format!("removing bridge `{}`", self.bridge),
                |veth: &mut Self| {
                    let link = veth.route.link_named(veth.bridge.as_str());
                    let gone = match link.map_err(|e| e.at("finding it"))? {
                        Some(link) => veth.route.remove(link.index),
                        None => Ok(()),
                    };
                    gone.map_err(|e| e.at("removing it"))
                },
            );
            let link = self
                .route
                .link_named(self.bridge.as_str())
                .map_err(|e| e.at(&step))?;
            let index = link.map_or(0, |link| link.index);
            let up = LinkUnspec::new_with_index(index).up().build();
            self.route.set(up).map_err(|e| e.at(&step))?;
            let mark = state.mark;
            state = self.state()?;
            state.mark = mark;
        }
        if let Some(link) = &state.bridge {
            match link.alias.as_deref() {
                None | Some("") => self.mark(&state, state.mark, undo)?,
                Some(alias) if Mark::parse(alias).is_some() => {}
                Some(other) => {
                    return Err(DeviceError::Refused {
                        reason: format!(
                            "bridge `{}` has the ifalias `{other}`, where the eswitch's mode is \
                             to be kept; it has to be empty",
                            self.bridge
                        ),
                    });
                }
            }
        }
        Ok(state)
    }

    /// Writes what the bridge says.
    fn mark(
        &mut self,
        state: &State,
        mark: Mark,
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        let Some(link) = &state.bridge else {
            return Ok(());
        };
        let index = link.index;
        let old = link.alias.clone().unwrap_or_default();
        let alias = move |text: String| LinkUnspec::new_with_index(index).alias(text).build();
        let step = "setting the bridge's ifalias";
        self.route.set(alias(mark.text())).map_err(|e| e.at(step))?;
        undo.push(step, move |veth: &mut Self| {
            veth.route.set(alias(old)).map_err(|e| e.at(step))
        });
        Ok(())
    }

    /// Takes the representors out of the bridge, or puts them into it.
    pub(super) fn set_mode(
        &mut self,
        state: &State,
        mode: Mode,
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        let vlans = self.port_vlans(state)?;
        if mode == Mode::Switchdev {
            for channel in &state.channels {
                if vlans.contains_key(&channel.link.index) || channel.link.locked {
                    return Err(DeviceError::Refused {
                        reason: format!(
                            "mode: channel `{}` has a port VLAN or spoofchk, which only legacy \
                             mode's bridge can do; take it off first",
                            channel.name
                        ),
                    });
                }
            }
        }
        let Some(bridge) = &state.bridge else {
            return Ok(());
        };
        let (filters, bridge) = (state.filters_vlans(), bridge.index);
        let told = self.tell_channels(&[])?;
        for channel in &state.channels {
            let (index, was) = (channel.link.index, channel.link.master);
            let own = told.iter().find(|told| told.name == channel.name);
            // One that is in no namespace any more has none.
            let own = own.and_then(|told| check_mac(&told.mac).ok());
            undo.push("moving a representor back", move |veth: &mut Self| {
                veth.enslave(index, was, filters, own)
            });
            let to = (mode == Mode::Legacy).then_some(bridge);
            self.enslave(index, to, filters, own)?;
        }
        let mark = Mark { mode, ..state.mark };
        self.mark(state, mark, undo)
    }

    /// Makes a netdev a port of the bridge, where the channel's own address is known to be, or of
    /// none, which forgets it.
    fn enslave(
        &mut self,
        index: u32,
        to: Option<u32>,
        filters: bool,
        own: Option<Mac>,
    ) -> Result<(), DeviceError> {
        let change = LinkUnspec::new_with_index(index)
            .controller(to.unwrap_or(0))
            .build();
        self.route
            .set(change)
            .map_err(|e| e.at("moving a representor"))?;
        if to.is_none() {
            return Ok(());
        }
        if filters {
            self.set_port_vlan(index, PortVlan::New, PortVlan::All)?;
        }
        match own {
            Some(mac) => self.add_own(index, mac, filters.then_some(OWN_VLAN)),
            None => Ok(()),
        }
    }

    /// A NIC knows where its channels' addresses are; a bridge is told, so that it does not flood
    /// what is sent to a channel that has not sent yet.
    pub(super) fn add_own(
        &mut self,
        index: u32,
        mac: Mac,
        vlan: Option<u16>,
    ) -> Result<(), DeviceError> {
        let put = self.put_fdb(index, mac, vlan);
        put.map_err(|e| e.at("adding the channel's address to the bridge's table"))
    }

    /// It is no longer the channel's; one that is not there is no error.
    pub(super) fn remove_own(
        &mut self,
        index: u32,
        mac: Mac,
        vlan: Option<u16>,
    ) -> Result<(), DeviceError> {
        let entry = RouteNetlinkMessage::DelNeighbour(entry(index, mac, vlan));
        match self.route.request(&entry, 0) {
            Err(error) if !error.is(libc::ENOENT) => {
                Err(error.at("removing the channel's address from the bridge's table"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn set_ageing(
        &mut self,
        state: &State,
        secs: u32,
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        let name = self.bridge.to_string();
        let set = move |ticks: u32| LinkBridge::new(&name).ageing_time(ticks).build();
        let old = state.bridge.as_ref().and_then(|link| link.bridge);
        let old = old.map_or(DEFAULT_AGEING_SECS * 100, |settings| settings.ageing);
        let step = "setting the ageing time";
        self.route
            .reconfigure(set(secs * 100))
            .map_err(|e| e.at(step))?;
        undo.push(step, move |veth: &mut Self| {
            veth.route.reconfigure(set(old)).map_err(|e| e.at(step))
        });
        Ok(())
    }

    /// Changes which VLANs a port is in.
    pub(super) fn set_port_vlan(
        &mut self,
        index: u32,
        from: PortVlan,
        to: PortVlan,
    ) -> Result<(), DeviceError> {
        let own = Flags::Pvid | Flags::Untagged;
        let [first, last] = TAGGED;
        let all = || {
            LinkBridgeVlan::new(index)
                .vlan_range_start(first, Flags::empty())
                .vlan_range_end(last, Flags::empty())
                .build()
        };
        let one = |vlan, flags| LinkBridgeVlan::new(index).vlan(vlan, flags).build();
        let remove = |link| {
            (
                RouteNetlinkMessage::DelLink(link),
                "taking a port out of a VLAN",
            )
        };
        let add = |link| {
            (
                RouteNetlinkMessage::SetLink(link),
                "putting a port into a VLAN",
            )
        };
        let mut steps = Vec::new();
        match (from, to) {
            (from, to) if from == to => {}
            (PortVlan::New, PortVlan::All) => steps.push(add(all())),
            (PortVlan::All, PortVlan::New) => steps.push(remove(all())),
            (PortVlan::New, PortVlan::One(vlan)) => {
                steps.push(add(one(vlan, own)));
                steps.push(remove(one(OWN_VLAN, Flags::empty())));
            }
            (PortVlan::One(vlan), PortVlan::New) => {
                steps.push(add(one(OWN_VLAN, own)));
                steps.push(remove(one(vlan, Flags::empty())));
            }
            (from, to) => {
                self.set_port_vlan(index, from, PortVlan::New)?;
                return self.set_port_vlan(index, PortVlan::New, to);
            }
        }
        for (message, step) in steps {
            self.route.request(&message, 0).map_err(|e| e.at(step))?;
        }
        Ok(())
    }

    /// The port VLANs of channels that have one, by netdev.
    pub(super) fn port_vlans(&mut self, state: &State) -> Result<HashMap<u32, u16>, DeviceError> {
        let mut vlans = HashMap::new();
        if !state.filters_vlans() {
            return Ok(vlans);
        }
        let mut asked = LinkMessage::default();
        asked.header.interface_family = AddressFamily::Bridge;
        let mask = vec![LinkExtentMask::BrvlanCompressed];
        asked.attributes.push(LinkAttribute::ExtMask(mask));
        let asked = RouteNetlinkMessage::GetLink(asked);
        let told = self
            .route
            .dump(&asked)
            .map_err(|e| e.at("listing VLANs of ports"))?;
        for message in told {
            let RouteNetlinkMessage::NewLink(link) = message else {
                continue;
            };
            let pvid = link
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::AfSpecBridge(specs) => specs.iter().find_map(pvid),
                    _ => None,
                });
            let pvid = pvid.filter(|vlan| *vlan != OWN_VLAN);
            vlans.extend(pvid.map(|vlan| (link.header.index, vlan)));
        }
        Ok(vlans)
    }

    /// From now on the port takes frames from this address only: it learns nothing, and what is
    /// not in the table for it is dropped (IFLA_BRPORT_LOCKED).
    pub(super) fn lock(
        &mut self,
        index: u32,
        mac: Mac,
        vlan: Option<u16>,
    ) -> Result<(), DeviceError> {
        let step = "switching on spoofchk (IFLA_BRPORT_LOCKED, since Linux 5.16)";
        let port = LinkBridgePort::new(index)
            .append_info_data(InfoBridgePort::Learning(false))
            .append_info_data(InfoBridgePort::Flush)
            .append_info_data(InfoBridgePort::Locked(true))
            .build();
        self.route.reconfigure(port).map_err(|e| e.at(step))?;
        self.put_fdb(index, mac, vlan).map_err(|e| e.at(step))
    }

    /// The address that a locked port takes frames from: the container's, if it is in the table,
    /// for the container can have changed it since.
    pub(super) fn locked_to(
        &mut self,
        state: &State,
        name: &str,
        mac: &str,
    ) -> Result<Option<Mac>, DeviceError> {
        let entries = self.read_fdb(state)?;
        let here = entries
            .iter()
            .filter(|entry| entry.is_static && entry.port == name);
        let mut macs: Vec<_> = here.map(|entry| entry.mac.as_str()).collect();
        macs.sort_by_key(|known| *known != mac);
        macs.first().map(|mac| check_mac(mac)).transpose()
    }

    /// Frames are taken from every address again.
    pub(super) fn unlock(
        &mut self,
        index: u32,
        mac: Mac,
        vlan: Option<u16>,
    ) -> Result<(), DeviceError> {
        let step = "switching off spoofchk";
        let port = LinkBridgePort::new(index)
            .append_info_data(InfoBridgePort::Learning(true))
            .append_info_data(InfoBridgePort::Locked(false))
            .build();
        self.route.reconfigure(port).map_err(|e| e.at(step))?;
        self.remove_own(index, mac, vlan)
    }

    fn put_fdb(
        &mut self,
        index: u32,
        mac: Mac,
        vlan: Option<u16>,
    ) -> Result<(), crate::transport::TransportError> {
        let entry = RouteNetlinkMessage::NewNeighbour(entry(index, mac, vlan));
        self.route.request(&entry, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Adds a static address at a port, or removes one.
    pub(super) fn change_fdb(
        &mut self,
        vlan: u16,
        mac: &str,
        port: Option<&str>,
    ) -> Result<(), DeviceError> {
        let mac = check_mac(mac)?;
        check_vlan(vlan)?;
        let state = self.state()?;
        if state.mode() == Mode::Switchdev {
            return Err(DeviceError::Refused {
                reason: "an FDB entry needs eswitch mode legacy, the mode is switchdev".into(),
            });
        }
        if vlan > OWN_VLAN && !state.filters_vlans() {
            return Err(DeviceError::Refused {
                reason: format!("vlan: bridge `{}` does not look at tags", self.bridge),
            });
        }
        let entries = self.read_fdb(&state)?;
        let inner = veth_vlan(&state, vlan);
        let ports = state.into_ports();
        if let Some(name) = port {
            let port = ports.named(name).ok_or_else(|| no_channel(name))?;
            let put = self.put_fdb(port.link.index, mac, inner);
            return put.map_err(|e| e.at("adding the address"));
        }
        let same =
            |e: &&FdbEntry| e.is_static && e.vlan == u32::from(vlan) && e.mac == mac.to_string();
        let found = entries.iter().find(same).and_then(|e| ports.named(&e.port));
        let Some(port) = found else {
            return Err(DeviceError::Refused {
                reason: format!("mac: no static FDB entry {mac} in VLAN {vlan}"),
            });
        };
        let gone = RouteNetlinkMessage::DelNeighbour(entry(port.link.index, mac, inner));
        let gone = self.route.request(&gone, 0);
        gone.map_err(|e| e.at("removing the address"))
    }

    /// Forgets learned addresses; how many.
    pub(super) fn forget_learned(&mut self) -> Result<u64, DeviceError> {
        let state = self.state()?;
        let learned = self
            .read_fdb(&state)?
            .into_iter()
            .filter(|e| !e.is_static)
            .count();
        if state.bridge.is_some() {
            let flush = LinkBridge::new(self.bridge.as_str()).fdb_flush().build();
            let done = self.route.reconfigure(flush);
            done.map_err(|e| e.at("flushing the bridge's FDB"))?;
        }
        Ok(learned as u64)
    }

    /// The addresses behind the switch's ports; netdevs' own are none.
    pub(super) fn read_fdb(&mut self, state: &State) -> Result<Vec<FdbEntry>, DeviceError> {
        let Some(bridge) = &state.bridge else {
            return Ok(Vec::new());
        };
        let mut asked = NeighbourMessage::default();
        asked.header.family = AddressFamily::Bridge;
        let asked = RouteNetlinkMessage::GetNeighbour(asked);
        let told = self
            .route
            .dump(&asked)
            .map_err(|e| e.at("listing the bridge's FDB"))?;
        let port = |index: u32| -> Option<(u32, String)> {
            let channel = state.channels.iter().find(|port| port.link.index == index);
            if let Some(channel) = channel {
                return Some((channel.vport.0, channel.name.clone()));
            }
            let uplink = state.uplinks.iter().any(|link| link.index == index);
            uplink.then(|| (VportId::UPLINK.0, "uplink".to_owned()))
        };
        let mut entries: Vec<_> = told
            .iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewNeighbour(entry) => {
                    let (vport, name) = port(entry.header.ifindex)?;
                    read_entry(entry, bridge.index, vport, name)
                }
                _ => None,
            })
            .collect();
        entries.sort_by(|a, b| (a.vlan, &a.mac).cmp(&(b.vlan, &b.mac)));
        // Netdevs' own addresses are told once for each VLAN that the port is in, and as entries
        // without one; an address is one entry here.
        entries.dedup_by(|a, b| (a.vlan, &a.mac) == (b.vlan, &b.mac));
        Ok(entries)
    }
}

fn pvid(spec: &AfSpecBridge) -> Option<u16> {
    match spec {
        AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid }) if flags.contains(Flags::Pvid) => {
            Some(*vid)
        }
        _ => None,
    }
}

/// A static entry of the bridge that the port belongs to.
fn entry(index: u32, mac: Mac, vlan: Option<u16>) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    entry.header.family = AddressFamily::Bridge;
    entry.header.ifindex = index;
    entry.header.state = NeighbourState::Noarp;
    entry.header.flags = NeighbourFlags::Controller;
    let address = NeighbourAttribute::LinkLayerAddress(mac.0.to_vec());
    entry.attributes.push(address);
    entry.attributes.extend(vlan.map(NeighbourAttribute::Vlan));
    entry
}

fn read_entry(entry: &NeighbourMessage, bridge: u32, vport: u32, port: String) -> Option<FdbEntry> {
    let (mut mac, mut vlan, mut used, mut of_bridge) = (None, 0, None, false);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(&bytes[..]).ok().map(Mac);
            }
            NeighbourAttribute::Vlan(OWN_VLAN) => {}
            NeighbourAttribute::Vlan(id) => vlan = *id,
            NeighbourAttribute::CacheInfo(cache) => used = Some(cache.updated),
            NeighbourAttribute::Controller(index) => of_bridge = *index == bridge,
            _ => {}
        }
    }
    // The netdev's own address is permanent (NUD_PERMANENT), one of its own filter is not the
    // bridge's.
    let own = entry.header.state == NeighbourState::Permanent;
    if own || !of_bridge {
        return None;
    }
    let is_static = entry.header.state == NeighbourState::Noarp;
    Some(FdbEntry {
        vlan: vlan.into(),
        mac: mac?.to_string(),
        port,
        vport,
        is_static,
        idle_ns: used
            .filter(|_| !is_static)
            .map(|ticks| u64::from(ticks) * TICK_NS),
    })
}
