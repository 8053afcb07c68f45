//! The obvious implementation of the tables, which the fast one is held against.

use super::{FlowKey, Rule};
use crate::RuleId;
use std::sync::Arc;

/// All rules in a list; a look-up asks each.
#[derive(Clone, Debug, Default)]
pub struct LinearTables {
    rules: Vec<Arc<Rule>>,
}

impl LinearTables {
    /// As [`super::Tables::lookup`].
    pub fn lookup(&self, key: &FlowKey) -> Option<&Arc<Rule>> {
        let covering = self.rules.iter().filter(|r| r.spec().matches.covers(key));
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
}
