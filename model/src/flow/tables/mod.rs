//! Tuple-space search: per chain one hash table per distinct mask.
//!
//! A look-up costs one probe per mask, best mask first, and stops as soon as no further mask can
//! hold a better rule; adding and removing a rule costs the logarithm of the number of rules plus
//! a short move in the list of masks.
//!
//! | file | what lives there |
//! |---|---|
//! | `chain` | a chain's masks in the order of look-up |
//! | `subtable` | the rules of one mask |

mod chain;
mod subtable;

pub use chain::Looks;

use super::{Match, Origin, Rank, Rule, RuleSpec, Seen};
use crate::RuleId;
use crate::hash::HashKey;
use chain::Chain;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use subtable::Mask;

/// The rules of a switch.
#[derive(Clone, Debug)]
pub struct Tables {
    hash: HashKey,
    /// Where every packet begins.
    first: Chain,
    /// The chains other than 0 that have rules.
    others: FxHashMap<u32, Chain>,
    rules: FxHashMap<RuleId, Arc<Rule>>,
    generation: u64,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            hash: HashKey::random(),
            first: Chain::default(),
            others: FxHashMap::default(),
            rules: FxHashMap::default(),
            generation: 0,
        }
    }
}

impl Tables {
    /// The rule for a packet: among those of the chain that cover it the one of the first
    /// [`Origin`](super::Origin), then with the lowest priority number, then the lowest id.
    #[inline]
    pub fn lookup(&self, chain: u32, seen: Seen<'_>) -> Option<&Arc<Rule>> {
        self.chain(chain)?.lookup(&self.hash, seen)
    }

    /// What the rules of a chain look at.
    pub fn looks(&self, chain: u32) -> Option<&Looks> {
        self.chain(chain).map(Chain::looks)
    }

    #[inline]
    fn chain(&self, chain: u32) -> Option<&Chain> {
        match chain {
            0 => Some(&self.first),
            _ => self.others.get(&chain),
        }
    }

    /// Adds a rule; false (and nothing done) if its id is there already.
    pub fn insert(&mut self, rule: Arc<Rule>) -> bool {
        if self.rules.contains_key(&rule.id()) {
            return false;
        }
        self.generation += 1;
        self.rules.insert(rule.id(), rule.clone());
        let chain = match rule.chain() {
            0 => &mut self.first,
            chain => self.others.entry(chain).or_default(),
        };
        chain.insert(&self.hash, rule);
        true
    }

    /// Removes a rule and returns it.
    pub fn remove(&mut self, id: RuleId) -> Option<Arc<Rule>> {
        let rule = self.rules.remove(&id)?;
        self.generation += 1;
        let number = rule.chain();
        if number == 0 {
            self.first.remove(&self.hash, &rule);
        } else if let Some(chain) = self.others.get_mut(&number) {
            chain.remove(&self.hash, &rule);
            if chain.is_empty() {
                self.others.remove(&number);
            }
        }
        Some(rule)
    }

    /// Removes every rule of this origin; how many there were. Where they are the most, the tables are
    /// emptied and those of others added again.
    pub fn remove_all_of(&mut self, origin: Origin) -> usize {
        let of_it = |rule: &&Arc<Rule>| rule.origin() == origin;
        let gone = self.rules.values().filter(of_it).count();
        if gone == 0 || gone < self.rules.len() - gone {
            let ids: Vec<_> = self.rules.values().filter(of_it).map(|r| r.id()).collect();
            ids.into_iter().for_each(|id| drop(self.remove(id)));
            return gone;
        }
        self.first = Chain::default();
        self.others = FxHashMap::default();
        let rules = std::mem::take(&mut self.rules);
        self.generation += 1;
        let kept = rules.into_values().filter(|rule| rule.origin() != origin);
        for rule in kept {
            self.insert(rule);
        }
        gone
    }

    /// The rule with this id.
    pub fn get(&self, id: RuleId) -> Option<&Arc<Rule>> {
        self.rules.get(&id)
    }

    /// Control's rule of this chain and priority that asks for exactly this; the oldest, if several
    /// do.
    pub fn find(&self, chain: u32, priority: u16, matches: &Match) -> Option<&Arc<Rule>> {
        self.chain(chain)?.find(&self.hash, priority, matches)
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Number of distinct masks over all chains; in one chain: what a look-up that finds nothing
    /// costs.
    pub fn masks(&self) -> usize {
        self.first.masks() + self.others.values().map(Chain::masks).sum::<usize>()
    }

    /// Number of distinct masks if these rules were added.
    pub fn masks_with<'a>(&self, specs: impl Iterator<Item = &'a RuleSpec>) -> usize {
        let mut new = FxHashSet::default();
        for spec in specs {
            let mask = Mask::of(&spec.matches);
            if !self.chain(spec.chain).is_some_and(|c| c.has_mask(&mask)) {
                new.insert((spec.chain, mask));
            }
        }
        self.masks() + new.len()
    }

    /// All rules, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.values()
    }

    /// Grows with every change, so that a cached look-up can tell that it is stale.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}
