//! The decision: what becomes of one packet.

use super::cache::{Decision, FlowCache, Slot};
use super::output::Tag;
use super::ports::{Member, Port, Ports};
use super::{
    Change, ChangeError, Dest, Fdb, MAX_VPORTS, Meta, Mode, Output, Outputs, VlanOp, VportConfig,
};
use crate::flow::{Action, FlowKey, Rule, Seen, Tables};
use crate::{DropReason, Mac, VportId, wire};
use std::sync::Arc;

/// The configuration of the whole switch, and its forwarding.
///
/// Deciding takes `&self`; the only thing it writes is the counters of the rules. A clone shares
/// configurations and rules (with their counters).
#[derive(Clone, Debug, Default)]
pub struct Switch {
    mode: Mode,
    vepa: bool,
    uplink_present: bool,
    ports: Ports,
    tables: Tables,
    /// Counts changes, for [`FlowCache`].
    epoch: u64,
}

/// How many times a packet may go on in another chain. The kernel bounds reclassification by
/// TC_ACT_RECLASSIFY the same way (net/sched/cls_api.c, `max_reclassify_loop`), at 16.
pub const MAX_JUMPS: usize = 16;

/// What follows a rule's actions.
enum Next {
    /// Nothing.
    Done(Result<(), DropReason>),
    /// Another chain.
    Chain(u32),
}

impl Switch {
    /// Applies one change, or refuses it and changes nothing.
    pub fn apply(&mut self, change: &Change) -> Result<(), ChangeError> {
        match change {
            Change::AddVport(id, config) => {
                if id.is_uplink() || id.0 >= MAX_VPORTS {
                    return Err(ChangeError::VportRange(*id));
                }
                if self.ports.get(*id).is_some() {
                    return Err(ChangeError::VportExists(*id));
                }
                self.ports.set(*id, config.clone());
            }
            Change::SetVport(id, config) => {
                if self.ports.get(*id).is_none() {
                    return Err(ChangeError::NoVport(*id));
                }
                self.ports.set(*id, config.clone());
            }
            Change::RemoveVport(id) => {
                if !self.ports.remove(*id) {
                    return Err(ChangeError::NoVport(*id));
                }
            }
            Change::SetMode(mode) => self.mode = *mode,
            Change::SetVepa(vepa) => self.vepa = *vepa,
            Change::SetUplink(present) => self.uplink_present = *present,
            Change::AddRule(rule) => {
                if !self.tables.insert(rule.clone()) {
                    return Err(ChangeError::RuleExists(rule.id()));
                }
            }
            Change::RemoveRule(id) => {
                self.tables.remove(*id).ok_or(ChangeError::NoRule(*id))?;
            }
        }
        self.epoch += 1;
        Ok(())
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether legacy mode leaves switching to the neighbour.
    pub fn vepa(&self) -> bool {
        self.vepa
    }

    /// Whether floods reach the wire.
    pub fn uplink_present(&self) -> bool {
        self.uplink_present
    }

    /// A channel's configuration.
    pub fn vport(&self, id: VportId) -> Option<&Arc<VportConfig>> {
        self.ports.get(id).map(|port| &port.config)
    }

    /// Number of channels.
    pub fn vport_count(&self) -> usize {
        self.ports.len()
    }

    /// All channels by number.
    pub fn vports(&self) -> impl Iterator<Item = (VportId, &Arc<VportConfig>)> {
        self.ports.iter()
    }

    /// The flow rules.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// A packet that came in from a channel or the wire (`key.in_port`).
    ///
    /// `out` is cleared first. On an error the packet is lost, that reason is to be charged to the
    /// in-port, and there is nothing to deliver. On success at least one of `out.list` and
    /// `out.lost` holds something, and all of it counts. `out.learn` counts in either case.
    #[inline]
    pub fn from_vport(
        &self,
        fdb: &Fdb,
        key: &FlowKey,
        meta: Meta,
        out: &mut Outputs,
    ) -> Result<(), DropReason> {
        out.clear();
        let tag = if key.vport().is_uplink() {
            Tag::as_came(key)
        } else {
            self.admit(key, meta)?
        };
        match self.mode {
            Mode::Legacy => self.bridge(fdb, key, tag, meta, out),
            Mode::Switchdev => self.classify(key, tag, meta, out).1,
        }
    }

    /// Where the decision about `key` would be in `cache`. To be asked for all packets of a burst
    /// before [`Switch::from_vport_cached`] is called for the first.
    #[inline]
    pub fn slot(&self, cache: &FlowCache, key: &FlowKey) -> Slot {
        match self.mode {
            Mode::Legacy => Slot::default(),
            Mode::Switchdev => cache.slot(key),
        }
    }

    /// A new burst for `cache`, which must have been used with this switch alone, or with clones
    /// of it that went through the same changes. Within a burst `fdb` and the time stay the same.
    #[inline]
    pub fn begin_burst(&self, cache: &mut FlowCache) {
        cache.begin_burst(self.epoch);
    }

    /// [`Switch::from_vport`], answered out of `cache` where that has the same answer.
    #[inline]
    pub fn from_vport_cached(
        &self,
        cache: &mut FlowCache,
        slot: Slot,
        fdb: &Fdb,
        key: &FlowKey,
        meta: Meta,
        out: &mut Outputs,
    ) -> Result<(), DropReason> {
        if self.mode == Mode::Legacy {
            if let Some(output) = cache.last(key, meta.l3_len) {
                out.clear();
                out.list.push(output);
                return Ok(());
            }
            self.from_vport(fdb, key, meta, out)?;
            if let ([output], [], None) = (&out.list[..], &out.lost[..], out.learn) {
                cache.set_last(key, *output, self.max_l3_len(key.vport(), output.dest));
            }
            return Ok(());
        }
        out.clear();
        if let Some(kept) = cache.get(slot, key)
            && meta.l3_len <= kept.max_l3_len
        {
            if let Some(rule) = &kept.rule {
                rule.count(meta.shard, meta.len, meta.now);
            }
            out.missed = kept.missed();
            out.list.push(kept.verdict?);
            return Ok(());
        }
        let tag = if key.vport().is_uplink() {
            Tag::as_came(key)
        } else {
            self.admit(key, meta)?
        };
        let (rule, result) = self.classify(key, tag, meta, out);
        let Some(rule) = rule else {
            return result;
        };
        let (verdict, max_l3_len) = match (result, &out.list[..], &out.lost[..]) {
            (Ok(()), [output], []) => (Ok(*output), self.max_l3_len(key.vport(), output.dest)),
            (Err(reason @ DropReason::RuleDrop), ..) => (
                Err(reason),
                self.max_l3_len(key.vport(), Dest::Vport(VportId::UPLINK)),
            ),
            _ => return result,
        };
        let rule = rule.cloned();
        let decision = Decision {
            verdict,
            max_l3_len,
            rule,
        };
        cache.insert(slot, key, decision);
        result
    }

    /// The only output of a frame with nothing left to do, told by its Ethernet header alone: one
    /// that the packet before it in this burst had, too. `None`: parse it and ask.
    #[inline]
    pub fn repeated(
        &self,
        cache: &FlowCache,
        head: &[u8],
        len: u32,
        in_port: VportId,
    ) -> Option<Output> {
        let eth: &[u8; wire::ETH_HEADER_LEN] = head.first_chunk()?;
        if wire::is_vlan(u16::from_be_bytes([eth[12], eth[13]])) {
            return None;
        }
        cache.last_of(eth, in_port.0, len - wire::ETH_HEADER_LEN as u32)
    }

    /// Whether [`Switch::repeated`] may ever find something.
    #[inline]
    pub fn repeats(&self) -> bool {
        self.mode == Mode::Legacy
    }

    /// What both ends' MTUs let pass.
    fn max_l3_len(&self, from: VportId, to: Dest) -> u32 {
        let mtu = |id: VportId| match self.ports.get(id) {
            Some(port) if !id.is_uplink() => u32::from(port.mtu),
            _ => u32::MAX,
        };
        match to {
            Dest::Vport(to) => mtu(from).min(mtu(to)),
            Dest::Representor(_) => mtu(from),
        }
    }

    /// A packet that the host sent on the representor of `vport`: it comes out of that vport.
    /// `out` as for [`Switch::from_vport`]; an error is to be charged to the representor.
    pub fn from_representor(
        &self,
        vport: VportId,
        key: &FlowKey,
        meta: Meta,
        out: &mut Outputs,
    ) -> Result<(), DropReason> {
        out.clear();
        if self.mode == Mode::Legacy {
            return Err(DropReason::RepresentorIgnored);
        }
        if self.send(vport, key, Tag::as_came(key), meta, out) {
            Ok(())
        } else {
            Err(DropReason::NoDestination)
        }
    }

    /// Whether a channel may send this, and with which tag it enters the switch.
    #[inline]
    fn admit(&self, key: &FlowKey, meta: Meta) -> Result<Tag, DropReason> {
        let port = self.ports.get(key.vport()).ok_or(DropReason::VportDown)?;
        if !port.link_up {
            return Err(DropReason::VportDown);
        }
        if port.spoofchk {
            let src = key.eth_src.to_bits();
            if !port.config.macs.iter().any(|mac| mac.to_bits() == src) {
                return Err(DropReason::SpoofedMac);
            }
        }
        if meta.l3_len > u32::from(port.mtu) {
            return Err(DropReason::TooLong);
        }
        match port.port_vlan {
            0 => Ok(Tag::as_came(key)),
            // A priority tag names no VLAN, so the frame still belongs to the port's.
            vid if key.vid() == 0 => Ok(Tag::assigned(key, vid)),
            _ => Err(DropReason::VlanNotAllowed),
        }
    }

    // ---- switchdev ----

    /// What came of it, and the rule that decided, or that there was none; `None` if there were
    /// several.
    #[inline]
    fn classify(
        &self,
        key: &FlowKey,
        tag: Tag,
        meta: Meta,
        out: &mut Outputs,
    ) -> (Option<Option<&Arc<Rule>>>, Result<(), DropReason>) {
        let mut inside = *key;
        inside.vlan = tag.vlan;
        let Some(rule) = self.tables.lookup(0, Seen::plain(&inside)) else {
            return (Some(None), self.miss(key, tag, out));
        };
        let mut next = self.act(rule, &inside, tag, meta, out);
        if let Next::Done(result) = next {
            return (Some(Some(rule)), result);
        }
        for _ in 0..MAX_JUMPS {
            let Next::Chain(chain) = next else { break };
            next = match self.tables.lookup(chain, Seen::plain(&inside)) {
                Some(rule) => self.act(rule, &inside, tag, meta, out),
                None => Next::Done(self.miss(key, tag, out)),
            };
        }
        match next {
            Next::Done(result) => (None, result),
            Next::Chain(_) => (None, out.lose(key.vport(), DropReason::TooManyJumps)),
        }
    }

    fn miss(&self, key: &FlowKey, tag: Tag, out: &mut Outputs) -> Result<(), DropReason> {
        out.missed = true;
        out.push(Dest::Representor(key.vport()), tag.keep);
        Ok(())
    }

    fn act(&self, rule: &Rule, key: &FlowKey, tag: Tag, meta: Meta, out: &mut Outputs) -> Next {
        rule.count(meta.shard, meta.len, meta.now);
        let in_port = key.vport();
        for action in &rule.spec().actions {
            match *action {
                Action::Pass | Action::Trap => break,
                Action::Drop => return Next::Done(out.lose(in_port, DropReason::RuleDrop)),
                Action::Goto(chain) => return Next::Chain(chain),
                Action::Redirect(to) => {
                    if self.send(to, key, tag, meta, out) {
                        return Next::Done(Ok(()));
                    }
                    return Next::Done(out.lose(in_port, DropReason::RuleTarget));
                }
                Action::Mirror(to) => {
                    if !self.send(to, key, tag, meta, out) {
                        out.lost.push((in_port, DropReason::RuleTarget));
                    }
                }
            }
        }
        out.push(Dest::Representor(in_port), tag.keep);
        Next::Done(Ok(()))
    }

    /// Sends to one vport, or notes why it does not take the packet; false if there is no such
    /// vport.
    #[inline]
    fn send(&self, to: VportId, key: &FlowKey, tag: Tag, meta: Meta, out: &mut Outputs) -> bool {
        if to.is_uplink() {
            out.push(Dest::Vport(to), tag.keep);
            return true;
        }
        let Some(port) = self.ports.get(to) else {
            return false;
        };
        match egress(port, key.eth_dst, tag, meta) {
            Ok(vlan) => out.push(Dest::Vport(to), vlan),
            Err(reason) => out.lost.push((to, reason)),
        }
        true
    }

    // ---- legacy ----

    #[inline]
    fn bridge(
        &self,
        fdb: &Fdb,
        key: &FlowKey,
        tag: Tag,
        meta: Meta,
        out: &mut Outputs,
    ) -> Result<(), DropReason> {
        let (in_port, vid) = (key.vport(), tag.vid());
        let from_wire = in_port.is_uplink();
        // A VEPA sees its own channels' frames come back from the neighbour, so what arrives from
        // the wire says nothing about where a source is, and must not go back to its sender.
        let reflected = if self.vepa && from_wire {
            fdb.lookup(vid, key.eth_src, meta.now)
        } else {
            if fdb.needs_learning(vid, key.eth_src, in_port, meta.now) {
                out.learn = Some((vid, key.eth_src));
            }
            None
        };
        if self.vepa && !from_wire {
            out.push(Dest::Vport(VportId::UPLINK), tag.keep);
            return Ok(());
        }
        // A bridge learns first and looks up then: who writes to itself is found at its own port.
        if out.learn.is_some() && key.eth_dst == key.eth_src {
            return Err(DropReason::SamePort);
        }
        if !key.eth_dst.is_multicast()
            && let Some(to) = fdb.lookup(vid, key.eth_dst, meta.now)
        {
            if to == in_port || Some(to) == reflected {
                return Err(DropReason::SamePort);
            }
            // An entry may outlive its vport for a moment: then the address is unknown.
            if self.send(to, key, tag, meta, out) {
                return Ok(());
            }
        }
        self.flood(in_port, reflected, key, tag, meta, out)
    }

    /// To every port in the VLAN but the one it came from. Ports that are down or whose driver
    /// filters it out are no members, so nothing is lost there.
    #[cold]
    #[inline(never)]
    fn flood(
        &self,
        in_port: VportId,
        reflected: Option<VportId>,
        key: &FlowKey,
        tag: Tag,
        meta: Meta,
        out: &mut Outputs,
    ) -> Result<(), DropReason> {
        let (dst, vid) = (key.eth_dst, tag.vid());
        if self.uplink_present && !in_port.is_uplink() {
            out.push(Dest::Vport(VportId::UPLINK), tag.keep);
        }
        let mut to_each = |members: &[Member], seen_vid: u16, vlan: VlanOp| {
            for member in members {
                if member.id == in_port || Some(member.id) == reflected {
                    continue;
                }
                if member.filtered && !self.takes(member.id, dst, seen_vid) {
                    continue;
                }
                if meta.l3_len > u32::from(member.mtu) {
                    out.lost.push((member.id, DropReason::MtuExceeded));
                } else {
                    out.push(Dest::Vport(member.id), vlan);
                }
            }
        };
        to_each(self.ports.trunks(), vid, tag.keep);
        to_each(self.ports.in_vlan(vid), 0, tag.strip());
        if out.list.is_empty() && out.lost.is_empty() {
            return Err(DropReason::NoDestination);
        }
        Ok(())
    }

    fn takes(&self, id: VportId, dst: Mac, vid: u16) -> bool {
        self.ports
            .get(id)
            .is_some_and(|port| port.config.filter(dst, vid).is_ok())
    }
}

/// Whether a channel takes a packet that is meant for it, and what becomes of the tag.
#[inline]
fn egress(port: &Port, dst: Mac, tag: Tag, meta: Meta) -> Result<VlanOp, DropReason> {
    if !port.link_up {
        return Err(DropReason::LinkDown);
    }
    let (vlan, seen_vid) = match port.port_vlan {
        0 => (tag.keep, tag.vid()),
        vid if tag.vid() == vid => (tag.strip(), 0),
        _ => return Err(DropReason::VlanFiltered),
    };
    if meta.l3_len > u32::from(port.mtu) {
        return Err(DropReason::MtuExceeded);
    }
    if port.filtered {
        port.config.filter(dst, seen_vid)?;
    }
    Ok(vlan)
}
