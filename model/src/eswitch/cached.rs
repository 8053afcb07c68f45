//! Answers out of the cache, where it has the same answer.

use super::cache::{Decision, FlowCache, Kept, Slot};
use super::probe::NoProbe;
use super::walk::{Walk, Walked};
use super::{Arriving, Dest, Fdb, Mode, Output, Outputs, Switch};
use crate::flow::{FlowKey, KeyFlags};
use crate::{DropReason, Mac, VportId, wire};

/// What decides about a packet whatever the rules are: where it came in, its addresses, its tag.
const ALWAYS: FlowKey = FlowKey {
    ip_src: [0; 16],
    ip_dst: [0; 16],
    eth_dst: Mac([0xff; 6]),
    eth_src: Mac([0xff; 6]),
    in_port: u16::MAX,
    block: 0,
    eth_type: 0,
    vlan: u16::MAX,
    l4_src: 0,
    l4_dst: 0,
    cvlan: 0,
    tcp_flags: 0,
    ip_proto: 0,
    ip_tos: 0,
    ip_ttl: 0,
    flags: 0,
};

/// What tells whether it may be in a tunnel.
const TUNNEL: FlowKey = FlowKey {
    eth_type: u16::MAX,
    l4_dst: u16::MAX,
    ip_proto: u8::MAX,
    flags: KeyFlags::FRAG,
    ..ALWAYS
};

impl Switch {
    /// Where the decision about `key` would be in `cache`. To be asked for all packets of a burst
    /// before [`Switch::from_vport_cached`] is called for the first.
    #[inline]
    pub fn slot(&self, cache: &FlowCache, key: &FlowKey) -> Slot {
        match self.mode() {
            Mode::Legacy => Slot::default(),
            Mode::Switchdev => cache.slot(key),
        }
    }

    /// A new burst for `cache`, which must have been used with this switch alone, or with clones
    /// of it that went through the same changes. Within a burst `fdb` and the time stay the same.
    #[inline]
    pub fn begin_burst(&self, cache: &mut FlowCache) {
        cache.begin_burst(self.epoch, || self.cache_mask());
    }

    /// The bits of a key that which rule of chain 0 a packet takes may depend on, and what that
    /// then does with it: two packets that agree in them share a decision.
    fn cache_mask(&self) -> FlowKey {
        let Some(looks) = self.tables().looks(0) else {
            return ALWAYS;
        };
        let mut mask = if looks.tunnel { TUNNEL } else { ALWAYS };
        let words = mask.words_mut().iter_mut().zip(looks.flow.words());
        words.for_each(|(mask, looks)| *mask |= looks);
        mask
    }

    /// [`Switch::from_vport`], answered out of `cache` where that has the same answer.
    #[inline]
    pub fn from_vport_cached(
        &self,
        cache: &mut FlowCache,
        slot: Slot,
        fdb: &Fdb,
        packet: Arriving<'_>,
        out: &mut Outputs,
    ) -> Result<(), DropReason> {
        let Arriving { key, meta, .. } = packet;
        if self.mode() == Mode::Legacy {
            if let Some(output) = cache.last(key, meta.l3_len) {
                out.clear();
                out.list.push(output);
                return Ok(());
            }
            self.from_vport(fdb, packet, out)?;
            if let ([output], [], None) = (&out.list[..], &out.lost[..], out.learn) {
                cache.set_last(key, *output, self.max_l3_len(key.vport(), output.dest));
            }
            return Ok(());
        }
        out.clear();
        if let Some(kept) = cache.get(slot, key)
            && meta.l3_len <= kept.max_l3_len
        {
            if let Kept::Verdict(verdict) = kept.what {
                if let Some(rule) = &kept.rule {
                    rule.count(meta.shard, meta.len, meta.now);
                }
                out.missed = kept.missed().then_some(0);
                out.list.push(verdict?);
                return Ok(());
            }
            let tag = self.admit(key, meta)?;
            let mut probe = NoProbe;
            let walk = Walk::new(self, packet, tag, out, &mut probe);
            return walk.run(kept.rule.as_ref()).result;
        }
        self.decide(cache, slot, packet, out)
    }

    /// The whole way, and what of it can be kept.
    #[inline(never)]
    fn decide(
        &self,
        cache: &mut FlowCache,
        slot: Slot,
        packet: Arriving<'_>,
        out: &mut Outputs,
    ) -> Result<(), DropReason> {
        let Arriving { key, meta, .. } = packet;
        let tag = self.admit(key, meta)?;
        let mut probe = NoProbe;
        let walk = Walk::new(self, packet, tag, out, &mut probe);
        let Walked {
            result,
            first,
            by_key,
            simple,
        } = walk.run(None);
        let from = self.max_l3_len(key.vport(), Dest::Vport(VportId::UPLINK));
        let (what, max_l3_len) = match (result, &out.list[..], &out.lost[..]) {
            (Ok(()), [output], []) if simple => {
                let max = self.max_l3_len(key.vport(), output.dest);
                (Kept::Verdict(Ok(*output)), max)
            }
            (Err(reason @ DropReason::RuleDrop), ..) if simple => {
                (Kept::Verdict(Err(reason)), from)
            }
            _ if by_key && first.is_some() => (Kept::Rule, from),
            _ => return result,
        };
        let rule = first.cloned();
        let decision = Decision {
            what,
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
        self.mode() == Mode::Legacy
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
}
