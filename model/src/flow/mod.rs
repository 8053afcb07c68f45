//! Flow rules: what they match, what they do, and the tables that find the right one.
//!
//! | file | what lives there |
//! |---|---|
//! | `key` | the fixed key of one packet |
//! | `rule` | a rule as it is asked for, and which rules are well formed |
//! | `installed` | a rule in the tables, with its counters |
//! | `tables` | tuple-space search |
//! | [`reference`] | the same by asking every rule in turn |
//! | `parse`, `display` | a rule as text, in the words of tc-flower |

mod installed;
mod key;
pub mod reference;
mod rule;
mod tables;

pub use installed::{Rule, RuleCounter, RuleTotals};
pub use key::FlowKey;
pub use rule::{Action, Actions, Match, RuleError, RuleSpec};
pub use tables::Tables;
