//! Flow rules: what they match, what they do, and the tables that find the right one.
//!
//! | file | what lives there |
//! |---|---|
//! | `key` | the fixed key of one packet |
//! | `rule` | a rule as it is asked for, and which rules are well formed |
//! | `installed` | a rule in the tables, with its counters |
//! | `tables` | tuple-space search |
//! | [`mod@reference`] | the same by asking every rule in turn |
//! | [`text`], `parse`, `display` | a rule as text, in the words of tc-flower |

mod display;
mod installed;
mod key;
mod parse;
pub mod reference;
mod rule;
mod tables;
pub mod text;

pub use display::NameOfPort;
pub use installed::{Rule, RuleCounter, RuleTotals};
pub use key::FlowKey;
pub use parse::{MAX_RULE_TEXT, PortNames, RuleTextError};
pub use rule::{Action, Actions, MAX_ACTIONS, Match, RuleError, RuleSpec};
pub use tables::Tables;
