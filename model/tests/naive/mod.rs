//! A switch written for being obviously right, not fast.

use chanio_model::eswitch::{Change, Dest, Mode, Output, Outputs, RxMode, VlanOp, VportConfig};
use chanio_model::flow::reference::LinearTables;
use chanio_model::flow::{Action, FlowKey, Seen};
use chanio_model::{DropReason, Mac, VportId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Short, so that entries age within a test.
pub const AGEING: u64 = 60;
const UPLINK: VportId = VportId::UPLINK;

/// A tag: priority and VLAN id.
type Tag = Option<(u8, u16)>;

/// What became of a packet: who got it with which tag, and who lost it why; sorted.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Verdict {
    error: Option<DropReason>,
    got: Vec<(Dest, Tag)>,
    lost: Vec<(VportId, DropReason)>,
}

fn tag_of(key: &FlowKey) -> Tag {
    (key.vlan != 0).then(|| (key.vlan_prio(), key.vid()))
}

fn applied(op: VlanOp, tag: Tag) -> Tag {
    match (op, tag) {
        (VlanOp::None, tag) => tag,
        (VlanOp::Push(tci), None) => Some(((tci >> 13) as u8, tci & 0xfff)),
        (VlanOp::Pop, Some(_)) => None,
        (VlanOp::SetVid(vid), Some((prio, _))) => Some((prio, vid)),
        (op, tag) => panic!("{op:?} cannot be done to {tag:?}"),
    }
}

impl Verdict {
    /// What the switch under test decided, in these terms.
    pub fn of(key: &FlowKey, result: Result<(), DropReason>, out: &Outputs) -> Self {
        let got = |o: &Output| (o.dest, applied(o.vlan, tag_of(key)));
        let verdict = Self {
            error: result.err(),
            got: out.list.iter().map(got).collect(),
            lost: out.lost.clone(),
        };
        verdict.sorted()
    }

    fn error(reason: DropReason) -> Self {
        Self {
            error: Some(reason),
            ..Self::default()
        }
    }

    fn sorted(mut self) -> Self {
        self.got.sort();
        self.lost.sort();
        self
    }

    fn is_empty(&self) -> bool {
        self.got.is_empty() && self.lost.is_empty()
    }
}

#[derive(Debug)]
struct Entry {
    vid: u16,
    mac: Mac,
    vport: VportId,
    /// `None`: static.
    seen: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Naive {
    legacy_left: bool,
    vepa: bool,
    uplink: bool,
    ports: BTreeMap<VportId, Arc<VportConfig>>,
    rules: LinearTables,
    fdb: Vec<Entry>,
}

impl Naive {
    pub fn apply(&mut self, change: &Change) -> bool {
        match change.clone() {
            Change::AddVport(id, config) => {
                !self.ports.contains_key(&id) && self.ports.insert(id, config).is_none()
            }
            Change::SetVport(id, config) => {
                self.ports.contains_key(&id) && self.ports.insert(id, config).is_some()
            }
            Change::RemoveVport(id) => self.ports.remove(&id).is_some(),
            Change::SetMode(mode) => {
                self.legacy_left = mode == Mode::Switchdev;
                true
            }
            Change::SetVepa(vepa) => {
                self.vepa = vepa;
                true
            }
            Change::SetUplink(present) => {
                self.uplink = present;
                true
            }
            Change::AddRule(rule) => self.rules.insert(rule),
            Change::RemoveRule(id) => self.rules.remove(id).is_some(),
            Change::RemoveRulesOf(origin) => {
                self.rules.remove_all_of(origin);
                true
            }
            Change::ReplaceRule(rule) => {
                self.rules.remove(rule.id()).is_some() && self.rules.insert(rule)
            }
            Change::SetTunnelPorts(_) | Change::SetUplinkBlock(_) => true,
        }
    }

    pub fn insert_static(&mut self, vid: u16, mac: Mac, vport: VportId) -> bool {
        let same = |e: &Entry| (e.vid, e.mac) == (vid, mac);
        if let Some(entry) = self.fdb.iter().find(|e| same(e) && e.seen.is_none()) {
            return entry.vport == vport;
        }
        self.fdb.retain(|e| !same(e));
        self.fdb.push(Entry {
            vid,
            mac,
            vport,
            seen: None,
        });
        true
    }

    pub fn table(&self, now: u64) -> Vec<(u16, Mac, VportId, bool)> {
        let current = self
            .fdb
            .iter()
            .filter(|e| e.seen.is_none_or(|seen| now - seen < AGEING));
        let mut table: Vec<_> = current
            .map(|e| (e.vid, e.mac, e.vport, e.seen.is_none()))
            .collect();
        table.sort();
        table
    }

    fn whereabouts(&self, vid: u16, mac: Mac, now: u64) -> Option<VportId> {
        let found = self
            .table(now)
            .into_iter()
            .find(|e| (e.0, e.1) == (vid, mac));
        found.map(|e| e.2)
    }

    fn learn(&mut self, vid: u16, mac: Mac, vport: VportId, now: u64) {
        let same = |e: &Entry| (e.vid, e.mac) == (vid, mac);
        let fixed = self.fdb.iter().any(|e| same(e) && e.seen.is_none());
        if !mac.is_unicast() || fixed {
            return;
        }
        self.fdb.retain(|e| !same(e));
        self.fdb.push(Entry {
            vid,
            mac,
            vport,
            seen: Some(now),
        });
    }

    pub fn channel_sent(&mut self, key: &FlowKey, l3_len: u32, now: u64) -> Verdict {
        let in_port = key.vport();
        let mut tag = tag_of(key);
        if in_port != UPLINK {
            let Some(port) = self.ports.get(&in_port).filter(|p| p.link_up) else {
                return Verdict::error(DropReason::VportDown);
            };
            if port.spoofchk && !port.macs.contains(&key.eth_src) {
                return Verdict::error(DropReason::SpoofedMac);
            }
            if l3_len > u32::from(port.mtu) {
                return Verdict::error(DropReason::TooLong);
            }
            if let Some(vlan) = port.port_vlan {
                tag = match tag {
                    None => Some((0, vlan.id())),
                    Some((prio, 0)) => Some((prio, vlan.id())),
                    Some(_) => return Verdict::error(DropReason::VlanNotAllowed),
                };
            }
        }
        let mut key = *key;
        if let Some((prio, vid)) = tag {
            key.vlan = 0x1000 | vid | u16::from(prio) << 13;
        }
        let verdict = if self.legacy_left {
            self.classify(&key, l3_len)
        } else {
            self.bridge(&key, l3_len, now)
        };
        verdict.sorted()
    }

    pub fn host_sent(&self, vport: VportId, key: &FlowKey, l3_len: u32) -> Verdict {
        let mut verdict = Verdict::default();
        if !self.legacy_left {
            return Verdict::error(DropReason::RepresentorIgnored);
        }
        if self.deliver(vport, key, l3_len, &mut verdict) {
            verdict
        } else {
            Verdict::error(DropReason::NoDestination)
        }
    }

    fn classify(&self, key: &FlowKey, l3_len: u32) -> Verdict {
        let mut verdict = Verdict::default();
        let in_port = key.vport();
        let to_host = (Dest::Representor(in_port), tag_of(key));
        let mut chain = 0;
        for _ in 0..=16 {
            let Some(rule) = self.rules.lookup(chain, Seen::plain(key)) else {
                verdict.got.push(to_host);
                return verdict;
            };
            let mut next = None;
            let mut loss = None;
            for action in &rule.spec().actions {
                match action {
                    Action::Drop => loss = Some(DropReason::RuleDrop),
                    Action::Goto(to) => next = Some(*to),
                    Action::Redirect(to) if !self.deliver(*to, key, l3_len, &mut verdict) => {
                        loss = Some(DropReason::RuleTarget);
                    }
                    Action::Mirror(to) if !self.deliver(*to, key, l3_len, &mut verdict) => {
                        verdict.lost.push((in_port, DropReason::RuleTarget));
                    }
                    _ => {}
                }
            }
            let last = rule.spec().actions.last();
            let ends = matches!(
                last,
                Some(Action::Drop | Action::Redirect(_) | Action::Goto(_))
            );
            if !ends {
                verdict.got.push(to_host);
            }
            match (loss, next) {
                (Some(reason), _) if verdict.is_empty() => return Verdict::error(reason),
                (Some(reason), _) => verdict.lost.push((in_port, reason)),
                (None, Some(to)) => {
                    chain = to;
                    continue;
                }
                (None, None) => {}
            }
            return verdict;
        }
        if verdict.is_empty() {
            return Verdict::error(DropReason::TooManyJumps);
        }
        verdict.lost.push((in_port, DropReason::TooManyJumps));
        verdict
    }

    /// To a known destination: what it does not take is lost there.
    fn deliver(&self, to: VportId, key: &FlowKey, l3_len: u32, verdict: &mut Verdict) -> bool {
        if to == UPLINK {
            verdict.got.push((Dest::Vport(to), tag_of(key)));
            return true;
        }
        let Some(port) = self.ports.get(&to) else {
            return false;
        };
        match receive(port, key, l3_len) {
            Ok(tag) => verdict.got.push((Dest::Vport(to), tag)),
            Err(reason) => verdict.lost.push((to, reason)),
        }
        true
    }

    fn bridge(&mut self, key: &FlowKey, l3_len: u32, now: u64) -> Verdict {
        let (in_port, vid) = (key.vport(), key.vid());
        let mut verdict = Verdict::default();
        let mut not_to = vec![in_port];
        if !self.vepa {
            self.learn(vid, key.eth_src, in_port, now);
        } else if in_port != UPLINK {
            self.learn(vid, key.eth_src, in_port, now);
            verdict.got.push((Dest::Vport(UPLINK), tag_of(key)));
            return verdict;
        } else {
            not_to.extend(self.whereabouts(vid, key.eth_src, now));
        }
        if !key.eth_dst.is_multicast()
            && let Some(to) = self.whereabouts(vid, key.eth_dst, now)
        {
            if not_to.contains(&to) {
                return Verdict::error(DropReason::SamePort);
            }
            if self.deliver(to, key, l3_len, &mut verdict) {
                return verdict;
            }
        }
        if self.uplink && in_port != UPLINK {
            verdict.got.push((Dest::Vport(UPLINK), tag_of(key)));
        }
        for (id, port) in &self.ports {
            if not_to.contains(id) {
                continue;
            }
            // Of what can go wrong, only the MTU is a loss in a flood.
            match receive(port, key, 0) {
                Ok(_) if l3_len > u32::from(port.mtu) => {
                    verdict.lost.push((*id, DropReason::MtuExceeded));
                }
                Ok(tag) => verdict.got.push((Dest::Vport(*id), tag)),
                Err(_) => {}
            }
        }
        if verdict.is_empty() {
            return Verdict::error(DropReason::NoDestination);
        }
        verdict
    }
}

/// The tag with which a channel receives a frame, or why it does not.
fn receive(port: &VportConfig, key: &FlowKey, l3_len: u32) -> Result<Tag, DropReason> {
    if !port.link_up {
        return Err(DropReason::LinkDown);
    }
    let tag = match port.port_vlan {
        Some(vlan) if key.vid() != vlan.id() => return Err(DropReason::VlanFiltered),
        Some(_) => None,
        None => tag_of(key),
    };
    if l3_len > u32::from(port.mtu) {
        return Err(DropReason::MtuExceeded);
    }
    let RxMode::Filtered(filter) = &port.rx_mode else {
        return Ok(tag);
    };
    if filter.promisc {
        return Ok(tag);
    }
    if let (Some(set), Some((_, vid))) = (&filter.vlans, tag)
        && vid != 0
        && !set.contains(vid)
    {
        return Err(DropReason::VlanFiltered);
    }
    let dst = key.eth_dst;
    let listed = if dst.is_multicast() {
        filter.allmulti || dst == Mac::BROADCAST || filter.multicast.contains(&dst)
    } else {
        filter.alluni || port.macs.contains(&dst) || filter.unicast.contains(&dst)
    };
    if listed {
        Ok(tag)
    } else {
        Err(DropReason::MacFiltered)
    }
}
