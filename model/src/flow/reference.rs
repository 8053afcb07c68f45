//! The obvious implementation of the tables, which the fast one is held against.

use super::{Match, Origin, Rule, Seen};
use crate::RuleId;
use std::sync::Arc;

/// All rules in a list; a look-up asks each.
#[derive(Clone, Debug, Default)]
pub struct LinearTables {
    rules: Vec<Arc<Rule>>,
}

impl LinearTables {
    /// As [`super::Tables::lookup`].
    pub fn lookup(&self, chain: u32, seen: Seen<'_>) -> Option<&Arc<Rule>> {
        let of_chain = self.rules.iter().filter(|r| r.chain() == chain);
        let covering = of_chain.filter(|r| r.spec().matches.covers(seen));
        covering.min_by_key(|r| r.rank())
    }

    /// As [`super::Tables::insert`].
    pub fn insert(&mut self, rule: Arc<Rule>) -> bool {
        let is_new = self.rules.iter().all(|r| r.id() != rule.id());
        if is_new {
            self.rules.push(rule);
        }
        is_new
    }

    /// As [`super::Tables::remove`].
    pub fn remove(&mut self, id: RuleId) -> Option<Arc<Rule>> {
        let place = self.rules.iter().position(|r| r.id() == id)?;
        Some(self.rules.remove(place))
    }

    /// As [`super::Tables::remove_all_of`].
    pub fn remove_all_of(&mut self, origin: Origin) -> usize {
        let before = self.rules.len();
        self.rules.retain(|rule| rule.origin() != origin);
        before - self.rules.len()
    }

    /// As [`super::Tables::find`].
    pub fn find(&self, chain: u32, priority: u16, matches: &Match) -> Option<&Arc<Rule>> {
        let wanted = |r: &&Arc<Rule>| {
            let spec = r.spec();
            r.origin() == Origin::Control
                && (spec.chain, spec.priority) == (chain, priority)
                && spec.matches == *matches
        };
        self.rules.iter().filter(wanted).min_by_key(|r| r.rank())
    }
}
