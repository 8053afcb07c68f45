//! Tuple-space search: one hash table per distinct mask.
//!
//! A look-up costs one probe per mask, best mask first, and stops as soon as no further mask can
//! hold a better rule; adding and removing a rule costs the logarithm of the number of rules plus
//! a short move in the list of masks.

use super::{FlowKey, Rule};
use crate::RuleId;
use crate::hash::HashKey;
use arrayvec::ArrayVec;
use hashbrown::HashTable;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Order of precedence, the smallest wins: priority, then age.
type Rank = (u16, RuleId);

/// The rules that want the same value under the same mask.
#[derive(Clone, Debug)]
struct Bucket {
    value: FlowKey,
    /// The one that wins.
    best: Arc<Rule>,
    /// Those it hides, by rank.
    hidden: Vec<Arc<Rule>>,
}

/// All rules with one mask.
#[derive(Clone, Debug)]
struct Subtable {
    /// The words of the mask that are not zero, with their positions.
    words: ArrayVec<(u8, u64), { FlowKey::WORDS }>,
    buckets: HashTable<Bucket>,
    ranks: BTreeSet<Rank>,
}

impl Subtable {
    fn new(mask: FlowKey) -> Self {
        let numbered = (0u8..).zip(*mask.words());
        Self {
            words: numbered.filter(|(_, word)| *word != 0).collect(),
            buckets: HashTable::new(),
            ranks: BTreeSet::new(),
        }
    }

    /// The hash of the part of `key` that the mask looks at.
    #[inline]
    fn hash(&self, hash: &HashKey, key: &FlowKey) -> u64 {
        let words = key.words();
        let seen = |&(i, mask): &(u8, u64)| words[usize::from(i) % FlowKey::WORDS] & mask;
        hash.hash(self.words.iter().map(seen))
    }

    /// Whether `key` under the mask is `value`.
    #[inline]
    fn covers(&self, value: &FlowKey, key: &FlowKey) -> bool {
        let (value, key) = (value.words(), key.words());
        self.words.iter().all(|&(i, mask)| {
            let i = usize::from(i) % FlowKey::WORDS;
            key[i] & mask == value[i]
        })
    }

    #[inline]
    fn lookup(&self, hash: &HashKey, key: &FlowKey) -> Option<&Arc<Rule>> {
        let bucket = self
            .buckets
            .find(self.hash(hash, key), |b| self.covers(&b.value, key))?;
        Some(&bucket.best)
    }

    fn insert(&mut self, hash: &HashKey, rule: Arc<Rule>) {
        self.ranks.insert(rule.rank());
        let value = rule.spec().matches.value;
        let at = self.hash(hash, &value);
        if let Some(bucket) = self.buckets.find_mut(at, |b| b.value == value) {
            let mut rule = rule;
            if rule.rank() < bucket.best.rank() {
                std::mem::swap(&mut rule, &mut bucket.best);
            }
            let place = bucket.hidden.partition_point(|r| r.rank() < rule.rank());
            bucket.hidden.insert(place, rule);
            return;
        }
        let mut buckets = std::mem::take(&mut self.buckets);
        let bucket = Bucket {
            value,
            best: rule,
            hidden: Vec::new(),
        };
        buckets.insert_unique(at, bucket, |b| self.hash(hash, &b.value));
        self.buckets = buckets;
    }

    fn remove(&mut self, hash: &HashKey, rule: &Rule) {
        self.ranks.remove(&rule.rank());
        let value = rule.spec().matches.value;
        let at = self.hash(hash, &value);
        let Ok(mut found) = self.buckets.find_entry(at, |b| b.value == value) else {
            return;
        };
        let bucket = found.get_mut();
        if bucket.best.id() != rule.id() {
            let place = bucket.hidden.partition_point(|r| r.rank() < rule.rank());
            bucket.hidden.remove(place);
        } else if bucket.hidden.is_empty() {
            found.remove();
        } else {
            bucket.best = bucket.hidden.remove(0);
        }
    }
}

/// The rules of a switch.
#[derive(Clone, Debug)]
pub struct Tables {
    hash: HashKey,
    /// The masks in use, in the order in which a look-up tries them: by their best rule.
    order: Vec<(Rank, u32)>,
    /// By the numbers in `order`; the empty ones are listed in `free`.
    subtables: Vec<Subtable>,
    free: Vec<u32>,
    by_mask: FxHashMap<FlowKey, u32>,
    rules: FxHashMap<RuleId, Arc<Rule>>,
    generation: u64,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            hash: HashKey::random(),
            order: Vec::new(),
            subtables: Vec::new(),
            free: Vec::new(),
            by_mask: FxHashMap::default(),
            rules: FxHashMap::default(),
            generation: 0,
        }
    }
}

impl Tables {
    /// The rule for a packet: among those that cover `key` the one with the lowest priority
    /// number, then the lowest id.
    #[inline]
    pub fn lookup(&self, key: &FlowKey) -> Option<&Arc<Rule>> {
        let mut best: Option<&Arc<Rule>> = None;
        for (rank, index) in &self.order {
            if best.is_some_and(|b| b.rank() < *rank) {
                break;
            }
            if let Some(rule) = self.subtables[*index as usize].lookup(&self.hash, key)
                && best.is_none_or(|b| rule.rank() < b.rank())
            {
                best = Some(rule);
            }
        }
        best
    }

    /// Adds a rule; false (and nothing done) if its id is there already.
    pub fn insert(&mut self, rule: Arc<Rule>) -> bool {
        if self.rules.contains_key(&rule.id()) {
            return false;
        }
        self.generation += 1;
        self.rules.insert(rule.id(), rule.clone());
        let mask = rule.spec().matches.mask;
        let index = match self.by_mask.get(&mask) {
            Some(index) => *index,
            None => self.add_mask(mask),
        };
        let hash = self.hash;
        self.reorder(index, |subtable| subtable.insert(&hash, rule));
        true
    }

    /// Removes a rule and returns it.
    pub fn remove(&mut self, id: RuleId) -> Option<Arc<Rule>> {
        let rule = self.rules.remove(&id)?;
        self.generation += 1;
        let mask = rule.spec().matches.mask;
        if let Some(&index) = self.by_mask.get(&mask) {
            let hash = self.hash;
            self.reorder(index, |subtable| subtable.remove(&hash, &rule));
            if self.subtables[index as usize].ranks.is_empty() {
                self.by_mask.remove(&mask);
                self.free.push(index);
            }
        }
        Some(rule)
    }

    /// The rule with this id.
    pub fn get(&self, id: RuleId) -> Option<&Arc<Rule>> {
        self.rules.get(&id)
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Number of distinct masks: what a look-up that finds nothing costs.
    pub fn masks(&self) -> usize {
        self.order.len()
    }

    /// All rules, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.values()
    }

    /// Grows with every change, so that a cached look-up can tell that it is stale.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn add_mask(&mut self, mask: FlowKey) -> u32 {
        let index = match self.free.pop() {
            Some(index) => {
                self.subtables[index as usize] = Subtable::new(mask);
                index
            }
            None => {
                self.subtables.push(Subtable::new(mask));
                self.subtables.len() as u32 - 1
            }
        };
        self.by_mask.insert(mask, index);
        index
    }

    /// Changes a subtable and gives it its new place in the order of look-up.
    fn reorder(&mut self, index: u32, change: impl FnOnce(&mut Subtable)) {
        let subtable = &mut self.subtables[index as usize];
        let before = subtable.ranks.first().copied();
        change(subtable);
        let after = subtable.ranks.first().copied();
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
