//! One packet's way through the chains.

use super::act::{Flow, Next};
use super::output::Tag;
use super::probe::Probe;
use super::view::{InnerView, look_inside, may_be_tunnel};
use super::{Arriving, Dest, HeadId, Outputs, Switch, VlanOp};
use crate::edit::{TunnelSet, VlanModify, VlanProto, VlanTag};
use crate::flow::{CtKey, FlowKey, Inner, KeyFlags, MAX_CHAIN, Rule, Seen};
use crate::offload::l3_len;
use crate::{DropReason, VportId, wire};
use std::sync::Arc;

/// How many times a packet may go on in another chain. The kernel has such a bound, too, and of
/// the same height (net/sched/cls_api.c, `max_reclassify_loop`).
pub const MAX_JUMPS: usize = 16;

/// What came of a packet.
pub(super) struct Walked<'s> {
    pub(super) result: Result<(), DropReason>,
    /// The rule that it took in chain 0.
    pub(super) first: Option<&'s Arc<Rule>>,
    /// Which rule it took in chain 0 follows from what is in its key.
    pub(super) by_key: bool,
    /// Everything that came of it follows from its key and length, and no other rule counted it.
    pub(super) simple: bool,
}

/// A packet under way.
pub(super) struct Walk<'w, 's, P> {
    pub(super) switch: &'s Switch,
    pub(super) arriving: Arriving<'w>,
    pub(super) out: &'w mut Outputs,
    pub(super) probe: &'w mut P,
    /// Its headers as they are now, the in-port's VLAN on it.
    pub(super) key: FlowKey,
    pub(super) tag: Tag,
    /// What counters count, and what an MTU limits.
    pub(super) len: u32,
    pub(super) l3_len: u32,
    pub(super) ct: CtKey,
    /// What it was taken out of.
    pub(super) tunnel: Option<InnerView>,
    /// What it is to travel in.
    pub(super) encap: Option<&'s TunnelSet>,
    /// It is in the worker's memory, where it can be rewritten.
    loaded: bool,
    /// Its bytes changed since `key` was made.
    stale: bool,
    /// Its bytes as they are now, if they were kept.
    head: Option<HeadId>,
    pub(super) simple: bool,
    /// It met a `ct` action.
    pub(super) tracked: bool,
}

impl<'w, 's, P: Probe> Walk<'w, 's, P> {
    pub(super) fn new(
        switch: &'s Switch,
        arriving: Arriving<'w>,
        tag: Tag,
        out: &'w mut Outputs,
        probe: &'w mut P,
    ) -> Self {
        let mut key = *arriving.key;
        key.vlan = tag.vlan;
        key.block = switch.block_of(key.vport());
        Self {
            switch,
            arriving,
            out,
            probe,
            key,
            tag,
            len: arriving.meta.len,
            l3_len: arriving.meta.l3_len,
            ct: CtKey::default(),
            tunnel: None,
            encap: None,
            loaded: false,
            stale: false,
            head: None,
            simple: true,
            tracked: false,
        }
    }

    /// All of its way; `first` is the rule of chain 0 if that is known already.
    #[inline]
    pub(super) fn run(mut self, first: Option<&'s Arc<Rule>>) -> Walked<'s> {
        let mut by_key = true;
        let first = match first {
            Some(rule) => Some(rule),
            None => self.lookup(0, &mut by_key),
        };
        let mut next = match first {
            Some(rule) => self.take(rule),
            None => Next::Done(self.miss(0)),
        };
        let mut jumps = 0;
        let result = loop {
            let chain = match next {
                Next::Done(result) => break result,
                Next::Chain(chain) => chain,
            };
            self.simple = false;
            jumps += 1;
            if jumps > MAX_JUMPS {
                break self.lose(DropReason::TooManyJumps);
            }
            if let Err(reason) = self.refresh() {
                break self.lose(reason);
            }
            next = match self.lookup(chain, &mut true) {
                Some(rule) => self.take(rule),
                None => Next::Done(self.miss(chain)),
            };
        };
        Walked {
            result,
            first,
            by_key,
            simple: self.simple && by_key,
        }
    }

    /// The rule that it takes in a chain.
    #[inline]
    fn lookup(&mut self, chain: u32, by_key: &mut bool) -> Option<&'s Arc<Rule>> {
        let tables = self.switch.tables();
        let looks = tables.looks(chain);
        let view;
        let inner = match &self.tunnel {
            Some(inner) => Some(Inner {
                flow: &self.key,
                tunnel: &inner.tunnel,
            }),
            None if looks.is_some_and(|looks| looks.tunnel)
                && may_be_tunnel(&self.key, self.switch.tunnel_ports()) =>
            {
                *by_key = false;
                let (head, len) = self.bytes();
                view = look_inside(head, len, &self.key, self.switch.tunnel_ports());
                view.as_ref().map(|view| Inner {
                    flow: &view.flow,
                    tunnel: &view.tunnel,
                })
            }
            None => None,
        };
        let seen = Seen {
            flow: &self.key,
            ct: &self.ct,
            inner,
        };
        let rule = tables.lookup(chain, seen);
        self.probe
            .lookup(chain & MAX_CHAIN, seen, rule.map(|rule| &**rule));
        rule
    }

    /// Does what the rule says.
    #[inline]
    fn take(&mut self, rule: &'s Rule) -> Next {
        if rule.spec().matches.is_tunnel()
            && self.tunnel.is_none()
            && let Err(reason) = self.leave_tunnel()
        {
            return Next::Done(self.lose(reason));
        }
        let meta = self.arriving.meta;
        if !P::DRY {
            rule.count(meta.shard, self.len, meta.now);
        }
        let mut meters = 0;
        for (index, action) in rule.spec().actions.iter().enumerate() {
            self.probe.action(index, action);
            if !P::DRY {
                rule.count_action(index, meta.shard, self.len, meta.now);
            }
            match self.act(rule, action, &mut meters) {
                Ok(Flow::Go) => {}
                Ok(Flow::Stop(next)) => return next,
                Err(reason) => return Next::Done(self.lose(reason)),
            }
        }
        Next::Done(self.pass())
    }

    /// A rule for what is in the tunnel took it: the inner packet is the packet from here on.
    fn leave_tunnel(&mut self) -> Result<(), DropReason> {
        let (head, len) = self.bytes();
        let ports = self.switch.tunnel_ports();
        let view = look_inside(head, len, &self.key, ports).ok_or(DropReason::TunnelMalformed)?;
        let (_, packet) = self.load()?;
        packet.tunnel_unset(ports)?;
        self.rewritten();
        self.refresh()?;
        self.len = self.out.work.packet.frame_len();
        self.tunnel = Some(view);
        Ok(())
    }

    /// Its first bytes as they are now, and its length.
    pub(super) fn bytes(&self) -> (&[u8], u32) {
        if self.loaded {
            let packet = &self.out.work.packet;
            (packet.head(), packet.frame_len())
        } else {
            (self.arriving.head, self.arriving.meta.len)
        }
    }

    /// The packet to be rewritten, with the in-port's VLAN on it. [`Walk::rewritten`] must follow.
    pub(super) fn load(&mut self) -> Result<(&'s Switch, &mut crate::edit::Packet), DropReason> {
        if !self.loaded {
            let Arriving {
                meta,
                head,
                offload,
                ..
            } = self.arriving;
            let packet = &mut self.out.work.packet;
            packet.load(head, meta.len, offload.copied().unwrap_or_default())?;
            match self.tag.keep {
                VlanOp::Push(tci) => packet.vlan_push(VlanTag {
                    proto: VlanProto::Dot1Q,
                    vid: tci & 0xfff,
                    prio: (tci >> 13) as u8,
                })?,
                VlanOp::SetVid(vid) => {
                    let ad = self.key.flags & KeyFlags::VLAN_AD != 0;
                    let proto = if ad {
                        VlanProto::Dot1Ad
                    } else {
                        VlanProto::Dot1Q
                    };
                    packet.vlan_modify(VlanModify {
                        proto,
                        vid,
                        prio: None,
                    });
                }
                VlanOp::None | VlanOp::Pop => {}
            }
            self.tag.keep = VlanOp::None;
            self.loaded = true;
        }
        Ok((self.switch, &mut self.out.work.packet))
    }

    /// Whether its bytes are in the worker's memory.
    pub(super) fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Its bytes have changed.
    pub(super) fn rewritten(&mut self) {
        self.stale = true;
        self.head = None;
        self.simple = false;
        let packet = &self.out.work.packet;
        self.probe.rewritten(packet.head(), packet.frame_len());
    }

    /// Makes key, tag and lengths those of its bytes.
    pub(super) fn refresh(&mut self) -> Result<(), DropReason> {
        if !self.stale {
            return Ok(());
        }
        let packet = &self.out.work.packet;
        let len = packet.frame_len();
        let parsed = wire::parse(packet.head(), len, self.key.vport())?;
        let block = self.key.block;
        self.key = FlowKey {
            block,
            ..parsed.key
        };
        self.tag = Tag::as_came(&self.key);
        self.l3_len = l3_len(packet.offload().gso.as_ref(), len, parsed.l3_offset.into());
        self.stale = false;
        Ok(())
    }

    /// What its bytes are to whoever delivers it.
    pub(super) fn head_id(&mut self) -> HeadId {
        if !self.loaded {
            return HeadId::AS_IT_CAME;
        }
        let (out, head) = (&mut *self.out, &mut self.head);
        *head.get_or_insert_with(|| out.heads.push(out.work.packet.edited()))
    }

    /// To the host, on the in-port's representor.
    pub(super) fn pass(&mut self) -> Result<(), DropReason> {
        let head = self.head_id();
        let dest = Dest::Representor(self.key.vport());
        self.output(dest, self.tag.keep, head);
        Ok(())
    }

    fn miss(&mut self, chain: u32) -> Result<(), DropReason> {
        self.out.missed = Some(chain & MAX_CHAIN);
        self.pass()
    }

    pub(super) fn output(&mut self, dest: Dest, vlan: VlanOp, head: HeadId) {
        let output = super::Output { dest, vlan, head };
        self.probe.output(output);
        self.out.list.push(output);
    }

    /// The packet itself is lost: an error if nothing else came of it, else a note.
    pub(super) fn lose(&mut self, reason: DropReason) -> Result<(), DropReason> {
        let in_port = self.key.vport();
        self.probe.lost(in_port, reason);
        if self.out.list.is_empty() && self.out.lost.is_empty() {
            return Err(reason);
        }
        self.out.lost.push((in_port, reason));
        Ok(())
    }

    /// A copy does not get to a vport.
    pub(super) fn lose_at(&mut self, vport: VportId, reason: DropReason) {
        self.probe.lost(vport, reason);
        self.out.lost.push((vport, reason));
    }
}
