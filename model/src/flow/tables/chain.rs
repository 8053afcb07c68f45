//! The rules of one chain: a hash table per distinct mask.

use super::Rank;
use super::subtable::{Mask, Subtable};
use crate::flow::{FlowKey, Match, Origin, Rule, Seen};
use crate::hash::HashKey;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// One chain's rules.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    /// The masks in use, in the order in which a look-up tries them: by their best rule.
    order: Vec<(Rank, u32)>,
    /// By the numbers in `order`; the empty ones are listed in `free`.
    subtables: Vec<Subtable>,
    free: Vec<u32>,
    by_mask: FxHashMap<Mask, u32>,
    looks: Looks,
}

/// What the rules of a chain look at, taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// The bits of a packet's own headers.
    pub flow: FlowKey,
    /// Some rule asks what connection tracking said.
    pub ct: bool,
    /// Some rule asks for outer headers.
    pub tunnel: bool,
}

impl Looks {
    fn add(&mut self, mask: &Mask) {
        let bits = mask.flow_bits();
        let words = self.flow.words_mut().iter_mut().zip(bits.words());
        words.for_each(|(all, more)| *all |= more);
        self.ct |= mask.is_tracked();
        self.tunnel |= mask.is_tunnel();
    }
}

impl Chain {
    /// The best rule that covers the packet.
    #[inline]
    pub(super) fn lookup(&self, hash: &HashKey, seen: Seen<'_>) -> Option<&Arc<Rule>> {
        let mut best: Option<&Arc<Rule>> = None;
        for (rank, index) in &self.order {
            if best.is_some_and(|b| b.rank() < *rank) {
                break;
            }
            if let Some(rule) = self.subtables[*index as usize].lookup(hash, seen)
                && best.is_none_or(|b| rule.rank() < b.rank())
            {
                best = Some(rule);
            }
        }
        best
    }

    pub(super) fn insert(&mut self, hash: &HashKey, rule: Arc<Rule>) {
        let mask = Mask::of(&rule.spec().matches);
        let index = match self.by_mask.get(&mask) {
            Some(index) => *index,
            None => self.add_mask(mask),
        };
        self.reorder(index, |subtable| subtable.insert(hash, rule));
    }

    pub(super) fn remove(&mut self, hash: &HashKey, rule: &Rule) {
        let mask = Mask::of(&rule.spec().matches);
        let Some(&index) = self.by_mask.get(&mask) else {
            return;
        };
        self.reorder(index, |subtable| subtable.remove(hash, rule));
        if self.subtables[index as usize].first().is_none() {
            self.by_mask.remove(&mask);
            self.free.push(index);
            self.looks = Looks::default();
            self.by_mask.keys().for_each(|mask| self.looks.add(mask));
        }
    }

    /// The rule that asks for exactly this at this priority, the oldest if there are several.
    pub(super) fn find(
        &self,
        hash: &HashKey,
        priority: u16,
        matches: &Match,
    ) -> Option<&Arc<Rule>> {
        let index = *self.by_mask.get(&Mask::of(matches))?;
        let mut rules = self.subtables[index as usize].wanting(hash, matches);
        rules.find(|r| {
            r.origin() == Origin::Control
                && r.spec().priority == priority
                && r.spec().matches == *matches
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_mask.is_empty()
    }

    pub(super) fn has_mask(&self, mask: &Mask) -> bool {
        self.by_mask.contains_key(mask)
    }

    pub(super) fn masks(&self) -> usize {
        self.order.len()
    }

    pub(super) fn looks(&self) -> &Looks {
        &self.looks
    }

    fn add_mask(&mut self, mask: Mask) -> u32 {
        let subtable = Subtable::new(&mask);
        let index = match self.free.pop() {
            Some(index) => {
                self.subtables[index as usize] = subtable;
                index
            }
            None => {
                self.subtables.push(subtable);
                self.subtables.len() as u32 - 1
            }
        };
        self.looks.add(&mask);
        self.by_mask.insert(mask, index);
        index
    }

    /// Changes a subtable and gives it its new place in the order of look-up.
    fn reorder(&mut self, index: u32, change: impl FnOnce(&mut Subtable)) {
        let subtable = &mut self.subtables[index as usize];
        let before = subtable.first();
        change(subtable);
        let after = subtable.first();
        if before == after {
            return;
        }
        if let Some(rank) = before
            && let Ok(place) = self.order.binary_search(&(rank, index))
        {
            self.order.remove(place);
        }
        if let Some(rank) = after {
            let place = self.order.partition_point(|entry| *entry < (rank, index));
            self.order.insert(place, (rank, index));
        }
    }
}
