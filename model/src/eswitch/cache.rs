//! A cache of decisions in front of the switch: exact match on the bits of the key that any rule
//! of chain 0 looks at, so that what no rule looks at does not make two flows out of one.
//!
//! A look-up in the tables costs a probe for each mask; here it costs one. What is kept is what
//! most packets are: one copy to one place as it came, or a drop by a rule. Of other decisions the
//! rule in chain 0 is kept, if it depends on no more than the key and the length.

use super::{Dest, Output};
use crate::DropReason;
use crate::flow::{FlowKey, Rule};
use crate::hash::HashKey;
use std::sync::Arc;

/// Sets of two entries. 32,768 flows; about 4 MiB once switchdev mode is used.
const SETS: usize = 16_384;

/// What becomes of the packets of one flow.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    pub(super) what: Kept,
    /// Holds for packets of at most so many bytes behind the Ethernet header and its tags.
    pub(super) max_l3_len: u32,
    /// The rule to be counted; `None`: no rule matched.
    pub(super) rule: Option<Arc<Rule>>,
}

/// How much of a decision is kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept {
    /// All of it.
    Verdict(Result<Output, DropReason>),
    /// The rule in chain 0.
    Rule,
}

/// The key on a line of its own, the decision on the next.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Entry {
    key: FlowKey,
    decision: Decision,
    epoch: u64,
}

/// What legacy mode looks at: addresses, in-port, tag.
type L2 = (u64, u64, u16);

#[inline]
fn l2(key: &FlowKey) -> L2 {
    let words = key.words();
    (words[4], words[5], key.vlan)
}

/// One worker's cache for one switch.
#[derive(Debug)]
pub struct FlowCache {
    hash: HashKey,
    /// Allocated by the first decision that is kept.
    entries: Vec<Option<Entry>>,
    /// The configuration that entries must be from.
    epoch: u64,
    /// The bits of keys that decide in it.
    mask: FlowKey,
    /// The last decision of this burst in legacy mode, which holds no longer: the address table
    /// may change between bursts.
    last: Option<(L2, Output, u32)>,
}

/// Where a key would be, found before it is needed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot(u32);

impl Default for FlowCache {
    fn default() -> Self {
        Self {
            hash: HashKey::random(),
            entries: Vec::new(),
            epoch: u64::MAX,
            mask: FlowKey::default(),
            last: None,
        }
    }
}

impl FlowCache {
    /// Entries that are decisions of an older configuration are not found any more.
    #[inline]
    pub(super) fn begin_burst(&mut self, epoch: u64, mask: impl FnOnce() -> FlowKey) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.mask = mask();
        }
        self.last = None;
    }

    /// Where the key would be. Looks there already, so that the memory is near when it is asked
    /// for; all of a burst's keys are best looked up before the first is asked for.
    #[inline]
    pub(super) fn slot(&self, key: &FlowKey) -> Slot {
        let seen = key.words().iter().zip(self.mask.words());
        let set = self.hash.hash(seen.map(|(word, mask)| word & mask)) as usize % SETS;
        let first = self.entries.get(2 * set).and_then(Option::as_ref);
        // Any use of the entry will do to have it loaded; the answer is always the same.
        let seen = first.map_or(0, |entry| (entry.epoch >> 63) as u32);
        Slot(set as u32 | seen << 31)
    }

    #[inline]
    pub(super) fn get(&self, slot: Slot, key: &FlowKey) -> Option<&Decision> {
        let at = 2 * (slot.0 as usize % SETS);
        let set = self.entries.get(at..at + 2)?;
        let found = set.iter().flatten().find(|e| self.agrees(&e.key, key))?;
        (found.epoch == self.epoch).then_some(&found.decision)
    }

    /// Whether a kept key is that of a packet. No branch by word: most keys that are compared are
    /// equal.
    #[inline]
    fn agrees(&self, kept: &FlowKey, key: &FlowKey) -> bool {
        let (kept, key, mask) = (kept.words(), key.words(), self.mask.words());
        let differs = |i: usize| kept[i] ^ key[i] & mask[i];
        (0..FlowKey::WORDS).fold(0, |all, i| all | differs(i)) == 0
    }

    /// Keeps a decision in the place of the older of its set, or of an outdated one.
    pub(super) fn insert(&mut self, slot: Slot, key: &FlowKey, decision: Decision) {
        if self.entries.is_empty() {
            self.entries.resize(2 * SETS, None);
        }
        let at = 2 * (slot.0 as usize % SETS);
        let (epoch, key) = (self.epoch, key.masked(&self.mask));
        let [first, second] = &mut self.entries[at..at + 2] else {
            return;
        };
        let entry = Entry {
            key,
            decision,
            epoch,
        };
        let current = |e: &Option<Entry>| e.as_ref().is_some_and(|e| e.epoch == epoch);
        if current(first) && first.as_ref().is_some_and(|e| e.key != key) {
            *second = first.take();
        } else if second.as_ref().is_some_and(|e| e.key == key) {
            *second = None;
        }
        *first = Some(entry);
    }

    #[inline]
    pub(super) fn last(&self, key: &FlowKey, l3_len: u32) -> Option<Output> {
        let (of, output, max_l3_len) = self.last?;
        (of == l2(key) && l3_len <= max_l3_len).then_some(output)
    }

    /// [`FlowCache::last`] for an untagged frame that begins with `eth`, of which nothing else was
    /// looked at.
    #[inline]
    pub(super) fn last_of(&self, eth: &[u8; 14], in_port: u32, l3_len: u32) -> Option<Output> {
        let ((first, second, vlan), output, max_l3_len) = self.last?;
        let [p0, p1] = (in_port as u16).to_ne_bytes();
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *eth;
        let same = u64::from_ne_bytes([a, b, c, d, e, f, g, h]) == first
            && u64::from_ne_bytes([i, j, k, l, p0, p1, 0, 0]) == second
            && vlan == 0
            && l3_len <= max_l3_len;
        same.then_some(output)
    }

    #[inline]
    pub(super) fn set_last(&mut self, key: &FlowKey, output: Output, max_l3_len: u32) {
        self.last = Some((l2(key), output, max_l3_len));
    }
}

impl Decision {
    /// Whether the packet, at any length the decision holds for, comes out on a representor
    /// because no rule matched.
    #[inline]
    pub(super) fn missed(&self) -> bool {
        self.rule.is_none()
            && matches!(self.what, Kept::Verdict(Ok(output)) if matches!(output.dest, Dest::Representor(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VportId;
    use crate::eswitch::{HeadId, VlanOp};

    fn decision(to: u32) -> Decision {
        let dest = Dest::Vport(VportId(to));
        let vlan = VlanOp::None;
        Decision {
            what: Kept::Verdict(Ok(Output {
                dest,
                vlan,
                head: HeadId::AS_IT_CAME,
            })),
            max_l3_len: 1500,
            rule: None,
        }
    }

    fn all() -> FlowKey {
        bytemuck::cast([u64::MAX; FlowKey::WORDS])
    }

    fn key(n: u32) -> FlowKey {
        FlowKey {
            ip_src: u128::from(n).to_be_bytes(),
            ..FlowKey::default()
        }
    }

    fn to(cache: &FlowCache, n: u32) -> Option<u32> {
        let key = key(n);
        let found = cache.get(cache.slot(&key), &key)?;
        match found.what {
            Kept::Verdict(Ok(Output {
                dest: Dest::Vport(vport),
                ..
            })) => Some(vport.0),
            _ => None,
        }
    }

    #[test]
    fn keeps_thousands_of_flows_and_the_newest_of_too_many() {
        let mut cache = FlowCache::default();
        cache.begin_burst(1, all);
        for n in 0..10_000 {
            cache.insert(cache.slot(&key(n)), &key(n), decision(n));
            assert_eq!(to(&cache, n), Some(n));
        }
        let kept = (0..10_000).filter(|n| to(&cache, *n) == Some(*n)).count();
        // Of 10,000 keys in 16,384 sets of two, some 460 are the third or later of theirs.
        assert!(kept > 9_300, "{kept}");
        assert!((0..10_000).all(|n| to(&cache, n).is_none_or(|v| v == n)));
    }

    #[test]
    fn an_older_configuration_s_decisions_are_gone() {
        let mut cache = FlowCache::default();
        cache.begin_burst(1, all);
        cache.insert(cache.slot(&key(1)), &key(1), decision(7));
        cache.begin_burst(2, all);
        assert_eq!(to(&cache, 1), None);
        cache.insert(cache.slot(&key(1)), &key(1), decision(8));
        assert_eq!(to(&cache, 1), Some(8));
        cache.insert(cache.slot(&key(1)), &key(1), decision(9));
        assert_eq!(to(&cache, 1), Some(9));
    }
}
