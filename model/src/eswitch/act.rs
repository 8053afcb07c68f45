//! What each action does to a packet under way.

use super::output::Tag;
use super::probe::Probe;
use super::walk::Walk;
use super::{Dest, HeadId, VlanOp};
use crate::ct::{CtAction, CtPacket};
use crate::edit::TunnelSet;
use crate::flow::{Action, Control, Rule, Sample};
use crate::offload::l3_len;
use crate::wire::{ETH_HEADER_LEN, VLAN_TAG_LEN};
use crate::{DropReason, VportId};

/// What follows a rule's actions.
pub(super) enum Next {
    /// Nothing.
    Done(Result<(), DropReason>),
    /// Another chain.
    Chain(u32),
}

/// What follows an action.
pub(super) enum Flow {
    /// The next one.
    Go,
    /// None.
    Stop(Next),
}

impl<'s, P: Probe> Walk<'_, 's, P> {
    /// Does one action; an error drops the packet. `meters` counts the rule's police actions.
    #[inline]
    pub(super) fn act(
        &mut self,
        rule: &'s Rule,
        action: &'s Action,
        meters: &mut usize,
    ) -> Result<Flow, DropReason> {
        match action {
            Action::Drop => return Err(DropReason::RuleDrop),
            Action::Pass | Action::Trap => return Ok(Flow::Stop(Next::Done(self.pass()))),
            Action::Goto(chain) => {
                let chain = rule.origin().chain(*chain);
                return Ok(Flow::Stop(Next::Chain(chain)));
            }
            Action::Redirect(to) => {
                self.send(*to, true)?;
                return Ok(Flow::Stop(Next::Done(Ok(()))));
            }
            Action::Mirror(to) => match self.send(*to, false) {
                Ok(()) => {}
                // Only the copy is lost.
                Err(reason) => self.lose_at(self.key.vport(), reason),
            },
            other => return self.act_rare(rule, other, meters),
        }
        Ok(Flow::Go)
    }

    /// Those that look at more than the key, or change the packet.
    #[inline(never)]
    fn act_rare(
        &mut self,
        rule: &'s Rule,
        action: &'s Action,
        meters: &mut usize,
    ) -> Result<Flow, DropReason> {
        self.simple = false;
        match action {
            Action::TunnelSet(set) => self.encap = Some(set),
            Action::TunnelUnset => (self.encap, self.tunnel) = (None, None),
            Action::Sample(sample) => self.sample(sample),
            Action::Police(_) => {
                let nth = *meters;
                *meters += 1;
                return Ok(self.police(rule, nth));
            }
            Action::Ct(ct) => self.track(ct)?,
            _ => self.rewrite(action)?,
        }
        Ok(Flow::Go)
    }

    fn rewrite(&mut self, action: &Action) -> Result<(), DropReason> {
        let (_, packet) = self.load()?;
        match action {
            Action::VlanPush(tag) => packet.vlan_push(*tag)?,
            Action::VlanPop => {
                packet.vlan_pop();
            }
            Action::VlanModify(to) => {
                packet.vlan_modify(*to);
            }
            Action::MplsPush(push) => packet.mpls_push(push)?,
            Action::MplsPop(proto) => {
                packet.mpls_pop(*proto)?;
            }
            Action::MplsModify(to) => packet.mpls_modify(to)?,
            Action::MplsDecTtl => packet.mpls_dec_ttl()?,
            Action::Csum(which) => packet.csum(*which)?,
            Action::Pedit(edits) => {
                for edit in edits {
                    packet.edit(edit)?;
                }
            }
            _ => {}
        }
        self.rewritten();
        Ok(())
    }

    fn police(&mut self, rule: &Rule, nth: usize) -> Flow {
        // Each police action has one.
        let Some(policer) = rule.policer(nth) else {
            return Flow::Go;
        };
        let now = self.arriving.meta.now;
        let frame = self.l3_len + self.l3_offset() as u32;
        let conforms = if P::DRY {
            policer.meter.would_conform(self.len, frame, now)
        } else {
            policer.meter.conforms(self.len, frame, now)
        };
        let control = if conforms {
            policer.police.conform
        } else {
            policer.police.exceed
        };
        Flow::Stop(match control {
            Control::Pipe => return Flow::Go,
            Control::Drop => Next::Done(self.lose(DropReason::Policed)),
            Control::Pass => Next::Done(self.pass()),
            Control::Goto(chain) => Next::Chain(rule.origin().chain(chain)),
        })
    }

    fn track(&mut self, action: &CtAction) -> Result<(), DropReason> {
        self.refresh()?;
        if !self.tracked {
            self.out.work.tracked.reset();
            self.tracked = true;
        }
        let l3 = self.l3_offset();
        let (head, len) = self.bytes();
        let packet = CtPacket::parse(head, len, self.key.eth_type, l3);
        let (conntrack, now) = (self.switch.conntrack(), self.arriving.meta.now);
        let tracked = &mut self.out.work.tracked;
        let rewrite = if P::DRY {
            conntrack.preview(action, tracked, &packet, now)?
        } else {
            conntrack.run(action, tracked, &packet, now)?
        };
        self.ct = *tracked.key();
        if !rewrite.is_empty() {
            let (_, packet) = self.load()?;
            packet.nat(&rewrite)?;
            self.rewritten();
        }
        Ok(())
    }

    /// Where the network header begins in the bytes as they are now.
    fn l3_offset(&self) -> usize {
        // The in-port's VLAN is on the packet before it is among its bytes.
        let key = if self.is_loaded() {
            &self.key
        } else {
            self.arriving.key
        };
        let tags = [key.vlan, key.cvlan]
            .iter()
            .filter(|tag| **tag != 0)
            .count();
        ETH_HEADER_LEN + tags * VLAN_TAG_LEN
    }

    fn sample(&mut self, sample: &Sample) {
        if !self.out.work.chance.one_in(sample.rate) {
            return;
        }
        let encap = self.encap.take();
        if let Err(reason) = self.send(sample.to, false) {
            self.lose_at(self.key.vport(), reason);
        }
        self.encap = encap;
    }

    /// Sends it, or a copy, to a vport, in the tunnel that it is to travel in.
    #[inline]
    fn send(&mut self, to: VportId, last: bool) -> Result<(), DropReason> {
        self.refresh()?;
        match self.encap {
            None => {
                let head = self.head_id();
                self.give(to, self.key.eth_dst, self.tag, self.l3_len, head)
            }
            Some(set) => self.send_in_tunnel(to, set, last),
        }
    }

    /// Gives it to one vport, or notes why that does not take it.
    #[inline]
    fn give(
        &mut self,
        to: VportId,
        dst: crate::Mac,
        tag: Tag,
        l3_len: u32,
        head: HeadId,
    ) -> Result<(), DropReason> {
        match self.switch.egress(to, dst, tag, l3_len) {
            Some(Ok(vlan)) => {
                self.output(Dest::Vport(to), vlan, head);
                Ok(())
            }
            Some(Err(reason)) => {
                self.lose_at(to, reason);
                Ok(())
            }
            None => Err(DropReason::RuleTarget),
        }
    }

    #[inline(never)]
    fn send_in_tunnel(
        &mut self,
        to: VportId,
        set: &TunnelSet,
        last: bool,
    ) -> Result<(), DropReason> {
        self.load()?;
        let work = &mut *self.out.work;
        // A copy travels in the tunnel; the packet stays as it is for the actions behind.
        let packet = if last {
            &mut work.packet
        } else {
            work.copy.copy_of(&work.packet);
            &mut work.copy
        };
        packet.tunnel_set(set)?;
        let len = packet.frame_len();
        let l3_len = l3_len(packet.offload().gso.as_ref(), len, ETH_HEADER_LEN as u32);
        let head = self.out.heads.push(packet.edited());
        self.probe.rewritten(packet.head(), len);
        let untagged = Tag {
            vlan: 0,
            keep: VlanOp::None,
        };
        self.give(to, set.eth_dst, untagged, l3_len, head)
    }
}
