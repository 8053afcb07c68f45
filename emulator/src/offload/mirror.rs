//! The kernel's side as its messages tell of it: netdevs, bridges, qdiscs and filters.
//!
//! Notifications and answers to dumps go the same way in, so that a resynchronisation is a new
//! mirror that is told everything.

use super::bridge_db::{self, FdbEntry, FdbKey, PortVlan};
use super::link::{self, Link};
use super::way::{Ends, Way};
use chanio_model::Mac;
use chanio_netlink::tc::{
    CLSACT, DEL_FILTER, DEL_QDISC, EGRESS, Filter, Header, NEW_FILTER, NEW_QDISC, Qdisc, tca,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// RTM_*VLAN of linux/rtnetlink.h.
const RTM_NEWVLAN: u16 = 112;
const RTM_DELVLAN: u16 = 113;
/// RTM_*ACTION of linux/rtnetlink.h.
const RTM_NEWACTION: u16 = 48;
const RTM_DELACTION: u16 = 49;
/// RTM_*NEXTHOP of linux/rtnetlink.h.
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
/// TC_H_ROOT of linux/pkt_sched.h.
const ROOT: u32 = 0xffff_ffff;
/// What a block's number stands behind instead of a device's (TCM_IFINDEX_MAGIC_BLOCK).
const BLOCK: i32 = -1;

/// Where filters hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Hook {
    /// On what a netdev receives.
    Ingress(u32),
    /// On what it sends.
    Egress(u32),
    /// On what all netdevs of a shared block receive or send.
    Block(u32),
}

/// A filter's place behind its hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub chain: u32,
    pub priority: u16,
    pub handle: u32,
}

/// A filter, and when it came: among those of one priority the first goes first.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub order: u64,
    /// ETH_P_*
    pub protocol: u16,
    /// `Err`: what could not be understood of it.
    pub filter: Result<Filter, String>,
}

/// A netdev's qdiscs.
#[derive(Clone, Debug, Default)]
pub(super) struct Qdiscs {
    /// It has an ingress or clsact qdisc; with the shared block that it is bound to.
    pub ingress: Option<Option<u32>>,
    /// Filters may look at what it sends.
    pub egress: bool,
    /// The shared block that filters on what it sends are in.
    pub egress_block: Option<u32>,
    /// The kind of its root qdisc.
    pub root: Option<String>,
}

/// What a message means for whoever has looked at the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// It is not as it was.
    Changed,
    /// Something changed that the message does not tell: everything has to be read anew.
    Unknown,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Mirror {
    pub links: HashMap<u32, Link>,
    /// Of ports and bridges.
    pub vlans: HashMap<u32, BTreeMap<u16, PortVlan>>,
    pub fdb: BTreeMap<FdbKey, FdbEntry>,
    pub qdiscs: HashMap<u32, Qdiscs>,
    pub filters: BTreeMap<Hook, BTreeMap<Place, Seen>>,
    /// The host's own, by netdev.
    pub addresses: BTreeSet<(u32, IpAddr)>,
    /// Those that packets can be sent to, by netdev.
    pub neighbours: HashMap<(u32, IpAddr), Mac>,
    /// To the ends of tunnels, as far as they were asked for; or why there is none.
    pub ways: BTreeMap<Ends, Result<Way, String>>,
    /// They have to be asked for anew.
    pub ways_stale: bool,
    next_order: u64,
}

impl Mirror {
    /// Takes in one message: its type and what is behind its header.
    pub fn note(&mut self, kind: u16, body: &[u8]) -> Effect {
        match kind {
            libc::RTM_NEWLINK | libc::RTM_DELLINK => self.note_link(kind, body),
            libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => {
                let of_ip = self.note_neighbour(kind == libc::RTM_DELNEIGH, body);
                of_ip.max(self.note_fdb(kind, body))
            }
            libc::RTM_NEWADDR | libc::RTM_DELADDR => {
                self.note_address(kind == libc::RTM_DELADDR, body)
            }
            libc::RTM_NEWROUTE
            | libc::RTM_DELROUTE
            | libc::RTM_NEWRULE
            | libc::RTM_DELRULE
            | RTM_NEWNEXTHOP
            | RTM_DELNEXTHOP => self.note_route(),
            RTM_NEWVLAN | RTM_DELVLAN => self.note_vlans(kind, body),
            NEW_QDISC | DEL_QDISC => self.note_qdisc(kind, body),
            NEW_FILTER | DEL_FILTER => self.note_filter(kind, body),
            // Filters that use the action do something else now, and nothing tells which.
            RTM_NEWACTION | RTM_DELACTION => Effect::Unknown,
            _ => Effect::None,
        }
    }

    fn note_link(&mut self, kind: u16, body: &[u8]) -> Effect {
        let of_bridge = body.first() == Some(&(libc::AF_BRIDGE as u8));
        if of_bridge {
            let Some((index, port)) = link::bridge_port(body) else {
                return Effect::None;
            };
            let Some(link) = self.links.get_mut(&index) else {
                return Effect::None;
            };
            let gone = kind == libc::RTM_DELLINK;
            if !gone && port.is_none() {
                // A bridge that tells of itself.
                return Effect::None;
            }
            let port = port.filter(|_| !gone);
            return changed(std::mem::replace(&mut link.port, port) != port);
        }
        let Some((index, mut link)) = link::link(body) else {
            return Effect::None;
        };
        if kind == libc::RTM_DELLINK {
            self.forget(index);
            return Effect::Changed;
        }
        let before = self.links.get(&index);
        // Some notifications are short of what is particular to a kind.
        if let Some(before) = before {
            if link.bridge.is_none() && link.kind == before.kind {
                link.bridge = before.bridge;
            }
            if link.port.is_none() && link.master == before.master {
                link.port = before.port;
            }
            if link.tunnel.is_none() && link.kind == before.kind {
                link.tunnel = before.tunnel;
            }
        }
        let same = before == Some(&link);
        self.links.insert(index, link);
        if !same {
            // Going down takes routes along that nobody tells of (net/ipv4/fib_frontend.c).
            self.note_route();
        }
        changed(!same)
    }

    /// A netdev goes, with all that was on it.
    fn forget(&mut self, index: u32) {
        self.links.remove(&index);
        self.vlans.remove(&index);
        self.fdb
            .retain(|key, entry| key.bridge != index && entry.port != index);
        self.addresses.retain(|(netdev, _)| *netdev != index);
        self.neighbours.retain(|(netdev, _), _| *netdev != index);
        self.note_route();
        self.filters.remove(&Hook::Ingress(index));
        self.filters.remove(&Hook::Egress(index));
        if self.qdiscs.remove(&index).is_some() {
            self.drop_unbound_blocks();
        }
    }

    fn note_fdb(&mut self, kind: u16, body: &[u8]) -> Effect {
        let Some((key, entry)) = bridge_db::fdb(body) else {
            return Effect::None;
        };
        let before = match kind {
            libc::RTM_NEWNEIGH => self.fdb.insert(key, entry),
            _ => self.fdb.remove(&key),
        };
        changed(kind != libc::RTM_NEWNEIGH || before != Some(entry))
    }

    fn note_vlans(&mut self, kind: u16, body: &[u8]) -> Effect {
        let Some((index, list)) = bridge_db::vlans(body) else {
            return Effect::None;
        };
        let of_port = self.vlans.entry(index).or_default();
        let mut different = false;
        for (first, last, vlan) in list {
            for vid in first..=last {
                let wanted = (kind == RTM_NEWVLAN).then_some(vlan);
                if wanted.is_some_and(|vlan| vlan.pvid) {
                    // There is one; that another is none any more is not always told.
                    of_port.values_mut().for_each(|other| other.pvid = false);
                }
                let before = match wanted {
                    Some(vlan) => of_port.insert(vid, vlan),
                    None => of_port.remove(&vid),
                };
                different |= before != wanted;
            }
        }
        changed(different)
    }

    fn note_qdisc(&mut self, kind: u16, body: &[u8]) -> Effect {
        let Ok(qdisc) = Qdisc::parse(body) else {
            return Effect::None;
        };
        let Ok(index) = u32::try_from(qdisc.header.ifindex) else {
            return Effect::None;
        };
        let name = qdisc.more.kind.as_deref().unwrap_or_default();
        let there = kind == NEW_QDISC;
        let of_link = self.qdiscs.entry(index).or_default();
        if qdisc.header.parent == CLSACT || matches!(name, "ingress" | "clsact") {
            let more = &qdisc.more;
            of_link.ingress = there.then_some(more.ingress_block.filter(|b| *b != 0));
            of_link.egress = there && name == "clsact";
            of_link.egress_block = more.egress_block.filter(|b| there && *b != 0);
            if !there {
                // Nobody tells of the filters that went with it.
                self.filters.remove(&Hook::Ingress(index));
                self.filters.remove(&Hook::Egress(index));
            }
            self.drop_unbound_blocks();
        } else if qdisc.header.parent == ROOT {
            of_link.root = there.then(|| name.to_owned());
        } else {
            return Effect::None;
        }
        Effect::Changed
    }

    fn drop_unbound_blocks(&mut self) {
        let bound: BTreeSet<u32> = self.blocks().collect();
        self.filters.retain(|hook, _| match hook {
            Hook::Block(block) => bound.contains(block),
            _ => true,
        });
    }

    /// The blocks that netdevs are bound to.
    pub fn blocks(&self) -> impl Iterator<Item = u32> {
        let of_link = |q: &Qdiscs| [q.ingress.flatten(), q.egress_block];
        self.qdiscs.values().flat_map(of_link).flatten()
    }

    fn note_filter(&mut self, kind: u16, body: &[u8]) -> Effect {
        let Ok((header, attributes)) = Header::parse(body) else {
            return Effect::None;
        };
        let Some(hook) = hook(&header) else {
            return Effect::None;
        };
        let mut all = link::attributes(attributes);
        let chain = all.find(|nla| nla.kind() == tca::CHAIN);
        let place = Place {
            chain: chain.map_or(0, |nla| link::u32_of(&nla)),
            priority: (header.info >> 16) as u16,
            handle: header.handle,
        };
        let of_hook = self.filters.entry(hook).or_default();
        if kind == DEL_FILTER {
            let before = of_hook.len();
            match place.handle {
                // All of its chain and priority.
                0 => {
                    of_hook.retain(|at, _| (at.chain, at.priority) != (place.chain, place.priority))
                }
                _ => {
                    of_hook.remove(&place);
                }
            }
            return changed(of_hook.len() != before);
        }
        let filter = Filter::parse(body).map_err(|error| error.to_string());
        let named = |name: &str| {
            let kind = filter.as_ref().ok().and_then(|f| f.kind.as_ref());
            kind.is_some_and(|kind| kind.name() == name)
        };
        // What stands for a whole priority, and u32's hash tables: they match nothing themselves.
        if place.handle == 0 || named("u32") && place.handle & 0xf_ffff == 0 {
            // A new matchall is told of without all that it is (net/sched/cls_matchall.c,
            // `mall_change` hands out what was there before).
            return match named("matchall") {
                true => Effect::Unknown,
                false => Effect::None,
            };
        }
        let order = of_hook
            .get(&place)
            .map_or(self.next_order, |seen| seen.order);
        self.next_order += 1;
        let seen = Seen {
            order,
            protocol: u16::from_be(header.info as u16),
            filter,
        };
        of_hook.insert(place, seen);
        Effect::Changed
    }
}

fn changed(changed: bool) -> Effect {
    match changed {
        true => Effect::Changed,
        false => Effect::None,
    }
}

/// `None`: filters that choose a class of a qdisc.
fn hook(header: &Header) -> Option<Hook> {
    if header.ifindex == BLOCK {
        return Some(Hook::Block(header.parent));
    }
    let index = u32::try_from(header.ifindex).ok()?;
    match header.parent {
        EGRESS => Some(Hook::Egress(index)),
        // An ingress qdisc goes by any number of this major one.
        0xffff_0000..=0xffff_fffe => Some(Hook::Ingress(index)),
        _ => None,
    }
}
