//! The vports of the channels, and the lists that a flood walks.

use super::VportConfig;
use crate::{Vlan, VportId};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// One channel's vport: what every packet asks for, next to the rest.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) config: Arc<VportConfig>,
    /// Its place in the flood list; meaningless while the link is down.
    place: u32,
    /// Port VLAN, 0 if it has none.
    pub(super) port_vlan: u16,
    pub(super) block: u16,
    pub(super) mtu: u16,
    pub(super) link_up: bool,
    pub(super) spoofchk: bool,
    /// The driver has a receive filter.
    pub(super) filtered: bool,
}

/// A port in a flood list, with what decides most deliveries so that a flood reads memory in
/// order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) id: VportId,
    pub(super) mtu: u16,
    pub(super) filtered: bool,
}

/// All channels' vports by number, and those with link up again by port VLAN (0: the trunks).
#[derive(Clone, Debug, Default)]
pub(super) struct Ports {
    slots: Vec<Option<Port>>,
    trunks: Vec<Member>,
    by_vlan: FxHashMap<u16, Vec<Member>>,
    count: usize,
}

impl Ports {
    #[inline]
    pub(super) fn get(&self, id: VportId) -> Option<&Port> {
        self.slots.get(id.index())?.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (VportId, &Arc<VportConfig>)> {
        let numbered = self.slots.iter().zip(0..);
        numbered.filter_map(|(slot, id)| Some((VportId(id), &slot.as_ref()?.config)))
    }

    /// Ports without port VLAN, link up.
    #[inline]
    pub(super) fn trunks(&self) -> &[Member] {
        &self.trunks
    }

    /// Ports whose port VLAN is `vid`, link up; none for 0.
    #[inline]
    pub(super) fn in_vlan(&self, vid: u16) -> &[Member] {
        self.by_vlan.get(&vid).map_or(&[], Vec::as_slice)
    }

    /// Adds the port or gives it a new configuration.
    pub(super) fn set(&mut self, id: VportId, config: Arc<VportConfig>) {
        self.remove(id);
        let mut port = Port {
            place: 0,
            port_vlan: config.port_vlan.map_or(0, Vlan::id),
            block: config.block,
            mtu: config.mtu,
            link_up: config.link_up,
            spoofchk: config.spoofchk,
            filtered: config.rx_mode != super::RxMode::All,
            config,
        };
        if port.link_up {
            let members = match port.port_vlan {
                0 => &mut self.trunks,
                vid => self.by_vlan.entry(vid).or_default(),
            };
            port.place = members.len() as u32;
            members.push(Member {
                id,
                mtu: port.mtu,
                filtered: port.filtered,
            });
        }
        if self.slots.len() <= id.index() {
            self.slots.resize(id.index() + 1, None);
        }
        self.slots[id.index()] = Some(port);
        self.count += 1;
    }

    /// Whether there was such a port.
    pub(super) fn remove(&mut self, id: VportId) -> bool {
        let Some(port) = self.slots.get_mut(id.index()).and_then(Option::take) else {
            return false;
        };
        self.count -= 1;
        if port.link_up {
            let members = match port.port_vlan {
                0 => &mut self.trunks,
                vid => self.by_vlan.entry(vid).or_default(),
            };
            members.swap_remove(port.place as usize);
            let moved = members.get(port.place as usize).map(|m| m.id);
            if members.is_empty() && port.port_vlan != 0 {
                self.by_vlan.remove(&port.port_vlan);
            }
            if let Some(moved) = moved.and_then(|id| self.slots[id.index()].as_mut()) {
                moved.place = port.place;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// After any history the flood lists hold each port with link up once, and nothing else.
    #[test]
    fn lists_follow_every_change() {
        let mut ports = Ports::default();
        let mut model: BTreeMap<u32, (u16, bool)> = BTreeMap::new();
        let mut state = 1u64;
        for _ in 0..5000 {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let id = 1 + (state >> 33) as u32 % 40;
            let vlan = (state >> 40) as u16 % 4;
            let up = (state >> 50) & 3 != 0;
            if (state >> 60) & 3 == 0 {
                assert_eq!(ports.remove(VportId(id)), model.remove(&id).is_some());
            } else {
                let config = VportConfig {
                    port_vlan: Vlan::new(vlan),
                    link_up: up,
                    ..VportConfig::default()
                };
                ports.set(VportId(id), Arc::new(config));
                model.insert(id, (vlan, up));
            }
            assert_eq!(ports.len(), model.len());
            for vlan in 0..4 {
                let list = if vlan == 0 {
                    ports.trunks()
                } else {
                    ports.in_vlan(vlan)
                };
                let mut got: Vec<u32> = list.iter().map(|m| m.id.0).collect();
                got.sort_unstable();
                let want = model.iter().filter(|(_, v)| **v == (vlan, true));
                assert_eq!(got, want.map(|(id, _)| *id).collect::<Vec<_>>());
            }
        }
        assert!(ports.in_vlan(0).is_empty());
        assert_eq!(ports.iter().count(), model.len());
    }
}
