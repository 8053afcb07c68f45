//! Macvlan devices on the physical function's netdev that have queues of the NIC's own, as i40e,
//! ixgbe and fm10k give them while the netdev's feature l2-fwd-offload is on
//! (ndo_dfwd_add_station). A channel's name is the ifalias of its netdev.
//!
//! The kernel tries it when a macvlan device comes up, and where the driver refuses, it forwards
//! in software without telling anybody (drivers/net/macvlan.c: macvlan_open). What it leaves to
//! be seen is the address: of a device in software it is one more that the physical function's
//! netdev listens to (dev_uc_add), of one that has queues it is not.

use super::super::container::{self, Inside};
use super::super::ethtool::{self, On};
use super::super::features::Feature as Switch;
use super::super::link::Link;
use super::super::ports::Port;
use super::super::route::Route;
use super::super::sysfs::Bus;
use super::super::undo::Undo;
use super::super::wanted::{Wanted, check_mtu, invalid};
use super::Pci;
use super::state::{Kind, PciChannel, State};
use crate::DeviceError;
use crate::nic::{ChannelChange, FunctionKind};
use crate::transport::Netns;
use chanio_model::{ChannelName, Mac, VportId};
use chanio_netlink::devlink::{EswitchMode, Function};
use rtnetlink::packet_route::link::MacVlanMode;
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkMacVlan, LinkUnspec};
use std::collections::HashSet;
use std::sync::Arc;

/// The feature (net/ethtool/common.c: netdev_features_strings).
const L2_FORWARDING: &str = "l2-fwd-offload";

/// How many macvlan devices i40e gives queues to, of so many vectors (intel/i40e/i40e_main.c:
/// i40e_fwd_add).
fn i40e_most(vectors: u32) -> u32 {
    match vectors {
        0 => 0,
        1..=8 => vectors - 1,
        9..=16 => vectors - 8,
        17..=32 => vectors - 16,
        33..=64 => (vectors - 16) / 2,
        65..=128 => (vectors - 32) / 4,
        // None of the driver's cases but the last.
        129.. => (vectors - 1).min(128),
    }
}

/// A vport for a device that the NIC has no number for: out of its address, as the others' stay
/// the same as long as the channel lives.
fn vport(mac: Mac) -> VportId {
    let [_, _, a, b, c, d] = mac.0;
    VportId((u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff).max(1))
}

/// The name until it is in its container.
fn first_name(mac: Mac) -> String {
    let [_, _, a, b, c, d] = mac.0;
    format!("mv{a:02x}{b:02x}{c:02x}{d:02x}")
}

impl Pci {
    /// The state of the feature; none where netdev or kernel have none.
    pub(super) fn l2_forwarding(
        &mut self,
        uplink: Option<&Link>,
    ) -> Result<Option<Switch>, DeviceError> {
        let Some(uplink) = uplink else {
            return Ok(None);
        };
        let told = self.features.get(&uplink.name, L2_FORWARDING);
        told.map_err(|e| e.at(&format!("asking for the features of `{}`", uplink.name)))
    }

    /// Switches the feature, if it is not so already.
    pub(super) fn switch_l2_forwarding(
        &mut self,
        state: &State,
        on: bool,
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        let uplink = self.netdev_of_function(state)?.name.clone();
        let told = self.l2_forwarding(state.uplink.as_ref())?;
        if told.is_some_and(|switch| switch.on == on) || (told.is_none() && !on) {
            return Ok(());
        }
        let refused = |why: &str| DeviceError::Unsupported {
            what: "function macvlan".into(),
            why: format!("netdev `{uplink}` (driver {}) {why}", self.driver),
        };
        match told {
            None => return Err(refused("has no feature l2-fwd-offload")),
            Some(Switch { free: false, .. }) => {
                return Err(refused("has l2-fwd-offload off, fixed"));
            }
            Some(_) => {}
        }
        let word = |on| if on { "on" } else { "off" };
        let step = format!("switching l2-fwd-offload of `{uplink}` {}", word(on));
        let set = self.features.set(&uplink, L2_FORWARDING, on);
        set.map_err(|e| e.at(&step))?;
        let netdev = uplink.clone();
        undo.push(step.clone(), move |pci: &mut Self| {
            let back = pci.features.set(&netdev, L2_FORWARDING, !on);
            back.map_err(|e| e.at("switching it back"))
        });
        let now = self.l2_forwarding(state.uplink.as_ref())?;
        match now.is_some_and(|switch| switch.on == on) {
            true => Ok(()),
            // A driver's refusal is in the kernel's log, if anywhere.
            false => Err(DeviceError::Refused {
                reason: format!("{step}: the driver ({}) has not done it", self.driver),
            }),
        }
    }

    /// What channels are to be that somebody asks for.
    pub(super) fn choose(
        &self,
        state: &State,
        asked: Option<FunctionKind>,
    ) -> Result<Kind, DeviceError> {
        let Some(asked) = asked.filter(|asked| *asked != self.kind.into()) else {
            return Ok(self.kind);
        };
        let refused = |why: String| {
            Err(DeviceError::Refused {
                reason: format!("function: {asked} is not possible now: {why}"),
            })
        };
        let legacy = state.mode == EswitchMode::Legacy && self.device.bus == Bus::Pci;
        match (asked, self.kind) {
            (FunctionKind::Macvlan, Kind::Vf) if legacy && state.vfs == 0 => Ok(Kind::Macvlan),
            (FunctionKind::Macvlan, Kind::Vf) if legacy => {
                let there = state.vfs;
                refused(format!(
                    "there are {there} virtual functions (sriov_numvfs)"
                ))
            }
            (FunctionKind::Vf, Kind::Macvlan) if state.channels.is_empty() => Ok(Kind::Vf),
            (FunctionKind::Vf, Kind::Macvlan) => {
                let there = state.channels.len();
                refused(format!(
                    "there are {there} channels that are macvlan devices"
                ))
            }
            _ => refused(format!(
                "channels of {} in {} mode are of kind {}",
                self.driver,
                if state.mode == EswitchMode::Legacy {
                    "legacy"
                } else {
                    "switchdev"
                },
                FunctionKind::from(self.kind),
            )),
        }
    }

    fn netdev_of_function<'a>(&self, state: &'a State) -> Result<&'a Link, DeviceError> {
        state.uplink.as_ref().ok_or_else(|| DeviceError::Refused {
            reason: format!("{} has no netdev here", self.device.address()),
        })
    }

    /// How many there can be, as far as that can be told.
    pub(super) fn most_macvlans(&self, state: &State) -> Result<u32, DeviceError> {
        Ok(match &*self.driver {
            "i40e" => {
                // As many vectors as the netdev has queues, unless somebody has changed these
                // (intel/i40e/i40e_main.c: i40e_vsi_setup_queue_map).
                let uplink = self.netdev_of_function(state)?;
                let told = ethtool::queues(&*self.transport, On::Here(&uplink.name))?;
                told.map_or(0, |queues| i40e_most(queues.used))
            }
            // intel/ixgbe/ixgbe.h: IXGBE_MAX_MACVLANS; intel/fm10k/fm10k.h: FM10K_MAX_STATIONS
            "ixgbe" | "fm10k" => 63,
            // It tells by refusing one.
            _ => u32::from(u16::MAX),
        })
    }

    /// The channels: macvlan devices on the netdev in namespaces that have a name, as far as they
    /// have a channel's name.
    pub(super) fn macvlans(&self, uplink: Option<&Link>) -> Result<Vec<PciChannel>, DeviceError> {
        let Some(uplink) = uplink else {
            return Ok(Vec::new());
        };
        let home = Netns::open("/proc/thread-self/ns/net")?;
        let mut channels = Vec::new();
        for inside in container::find(&*self.transport, |link| {
            link.is("macvlan") || link.is("tun")
        })? {
            let name = inside.link.alias.clone().unwrap_or_default();
            if name.parse::<ChannelName>().is_err() || !self.is_on(&inside, uplink, &home)? {
                continue;
            }
            let vport = vport(inside.link.mac);
            channels.push(PciChannel {
                port: Port {
                    vport,
                    name,
                    link: inside.link.clone(),
                },
                index: None,
                number: vport.0,
                function: Function::default(),
                inside: Some(Arc::new(inside)),
            });
        }
        Ok(channels)
    }

    /// Whether a netdev in a container is a macvlan device on the physical function's netdev.
    fn is_on(&self, inside: &Inside, uplink: &Link, home: &Netns) -> Result<bool, DeviceError> {
        if inside.link.is("tun") {
            // An emulator's, which in a kernel that is not played looks like what it is: the
            // emulator knows it.
            let driver = ethtool::driver_in(&*self.transport, inside)?;
            return Ok(driver.as_deref() == Some("macvlan"));
        }
        if inside.link.link != Some(uplink.index) {
            return Ok(false);
        }
        let mut there = Route::open_in(&*self.transport, &Netns::open(&inside.netns)?)?;
        let id = there.netns_id(home);
        let id = id.map_err(|e| e.at("numbering namespaces"))?;
        Ok(id.is_some() && id == inside.link.link_netns)
    }

    /// The addresses that the netdev listens to besides its own.
    pub(super) fn listened(&mut self, uplink: &Link) -> Result<HashSet<Mac>, DeviceError> {
        let mut asked = NeighbourMessage::default();
        asked.header.family = AddressFamily::Bridge;
        asked.header.ifindex = uplink.index;
        let told = self.route.dump(&RouteNetlinkMessage::GetNeighbour(asked));
        let step = format!("asking what `{}` listens to", uplink.name);
        let mut addresses = HashSet::new();
        for message in told.map_err(|e| e.at(&step))? {
            let RouteNetlinkMessage::NewNeighbour(entry) = message else {
                continue;
            };
            let header = &entry.header;
            if header.ifindex != uplink.index || !header.flags.contains(NeighbourFlags::Own) {
                continue;
            }
            addresses.extend(
                entry
                    .attributes
                    .iter()
                    .filter_map(|attribute| match attribute {
                        NeighbourAttribute::LinkLayerAddress(address) => {
                            <[u8; 6]>::try_from(address.as_slice()).ok().map(Mac)
                        }
                        _ => None,
                    }),
            );
        }
        Ok(addresses)
    }

    /// Makes macvlan devices, each with queues of the NIC's, or none.
    pub(super) fn add_macvlans(
        &mut self,
        state: &State,
        wanted: &[Wanted],
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        let uplink = self.netdev_of_function(state)?;
        if !uplink.up {
            return Err(DeviceError::Refused {
                reason: format!(
                    "netdev `{0}` is down, and its driver gives queues to macvlan devices only \
                     while it is up: ip link set {0} up",
                    uplink.name
                ),
            });
        }
        self.switch_l2_forwarding(state, true, undo)?;
        let before = self.listened(uplink)?;
        for channel in wanted {
            if channel.mtu > uplink.mtu {
                let most = format!("68 to {}, the MTU of `{}`", uplink.mtu, uplink.name);
                return Err(invalid("mtu", channel.mtu, most));
            }
            if before.contains(&channel.mac) {
                let allowed = format!("one that `{}` does not listen to itself", uplink.name);
                return Err(invalid("mac", channel.mac, allowed));
            }
        }
        for channel in wanted {
            self.add_macvlan(uplink, channel, undo)?;
        }
        let software = self.listened(uplink)?;
        let (without, with): (Vec<_>, Vec<_>) =
            wanted.iter().partition(|c| software.contains(&c.mac));
        match without.first() {
            None => Ok(()),
            Some(first) => Err(DeviceError::Refused {
                reason: format!(
                    "channel `{}`: its macvlan device got no queues of the NIC's and would be \
                     forwarded in software; the driver ({}) gives some to {} at most here, and {} \
                     have them",
                    first.name,
                    self.driver,
                    self.most_macvlans(state)?,
                    state.channels.len() + with.len(),
                ),
            }),
        }
    }

    fn add_macvlan(
        &mut self,
        uplink: &Link,
        wanted: &Wanted,
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        let place = wanted.place()?;
        let name = first_name(wanted.mac);
        let step = format!("making a macvlan device on `{}`", uplink.name);
        let made = LinkMacVlan::new(&name, uplink.index, MacVlanMode::Bridge)
            .address(wanted.mac.0.to_vec())
            .mtu(wanted.mtu)
            .build();
        self.route.make(made, &[]).map_err(|e| e.at(&step))?;
        let (netns, ifname) = (place.netns.clone(), place.ifname.to_string());
        let (called, alias) = (name.clone(), wanted.name.to_string());
        undo.push(
            format!("removing the macvlan device of `{alias}`"),
            move |pci: &mut Self| pci.remove_macvlan(&called, &netns, &ifname, &alias),
        );
        let link = self.route.link_named(&name).map_err(|e| e.at(&step))?;
        let link = link.ok_or_else(|| DeviceError::Refused {
            reason: format!("{step}: it is gone"),
        })?;
        let named = LinkUnspec::new_with_index(link.index)
            .alias(wanted.name.as_str())
            .build();
        self.route
            .set(named)
            .map_err(|e| e.at("naming the channel's netdev"))?;
        self.move_inside(&link, wanted, undo)
    }

    /// Removes a new one, which is here under its first name or in the container.
    fn remove_macvlan(
        &mut self,
        name: &str,
        netns: &str,
        ifname: &str,
        alias: &str,
    ) -> Result<(), DeviceError> {
        let here = self.route.link_named(name);
        if let Some(link) = here.map_err(|e| e.at("looking for it"))? {
            let removed = self.route.remove(link.index);
            return removed.map_err(|e| e.at("removing it"));
        }
        let mut inside = Route::open_in(&*self.transport, &Netns::open(netns)?)?;
        let there = inside.link_named(ifname);
        match there.map_err(|e| e.at("looking for it"))? {
            Some(link) if link.alias.as_deref() == Some(alias) => {
                let removed = inside.remove(link.index);
                removed.map_err(|e| e.at("removing it"))
            }
            _ => Ok(()),
        }
    }

    /// Removes channels.
    pub(super) fn del_macvlans(&mut self, gone: &[PciChannel]) -> Result<(), DeviceError> {
        for inside in gone.iter().filter_map(|channel| channel.inside.as_ref()) {
            let mut there = Route::open_in(&*self.transport, &Netns::open(&inside.netns)?)?;
            let removed = there.remove(inside.link.index);
            removed.map_err(|e| e.at(&format!("removing netdev `{}`", inside.link.name)))?;
        }
        Ok(())
    }

    /// Changes a channel: of such a device only the MTU can be.
    pub(super) fn change_macvlan(
        &mut self,
        state: &State,
        channel: &PciChannel,
        change: &ChannelChange,
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        change.mtu.map(check_mtu).transpose()?;
        if change.mac.is_some() {
            // macvlan_sync_address: the new one would be a matter of software.
            return Err(DeviceError::Unsupported {
                what: "mac".into(),
                why: "the NIC knows a macvlan device by the address that it came up with; remove \
                      the channel and add it with another"
                    .into(),
            });
        }
        let uplink = self.netdev_of_function(state)?;
        if let Some(mtu) = change.mtu.filter(|mtu| u32::from(*mtu) > uplink.mtu) {
            let most = format!("68 to {}, the MTU of `{}`", uplink.mtu, uplink.name);
            return Err(invalid("mtu", mtu, most));
        }
        self.change_inside(channel, None, change.mtu, undo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i40e_shares_its_vectors_out() {
        let most = [1, 2, 8, 9, 16, 17, 32, 33, 64, 65, 128].map(i40e_most);
        assert_eq!(most, [0, 1, 7, 1, 8, 1, 16, 8, 24, 8, 24]);
    }

    #[test]
    fn a_vport_is_never_the_wires() {
        assert_eq!(vport(Mac([2, 0, 0, 0, 0, 0])), VportId(1));
        assert_eq!(vport(Mac([2, 0, 0xff, 0, 0, 7])), VportId(0x7f00_0007));
        assert!(first_name(Mac([2, 0, 0xff, 0, 0, 7])).len() < 16);
    }
}
