//! Flow rules: what they match, what they do, and the tables that find the right one.

mod key;
mod rule;

pub use key::FlowKey;
pub use rule::{Action, Actions, Match, RuleSpec};
