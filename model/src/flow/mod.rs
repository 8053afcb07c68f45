//! Flow rules: what they match, what they do, and the tables that find the right one.
//!
//! | file | what lives there |
//! |---|---|
//! | `key`, `ct_key`, `tunnel_key` | what a look-up knows of one packet |
//! | `matches`, `check` | which packets a rule is for, and which matches are well formed |
//! | `action` | what a rule does |
//! | `rule` | a rule as it is asked for |
//! | `origin` | whose a rule is |
//! | `installed` | a rule in the tables, with its counters |
//! | `policers` | the meters of rules, and those that rules share |
//! | `tables` | tuple-space search |
//! | [`mod@reference`] | the same by asking every rule in turn |
//! | [`text`] | a rule as text, in the words of tc-flower |

mod action;
mod check;
mod ct_key;
mod installed;
mod key;
mod matches;
mod origin;
mod policers;
pub mod reference;
mod rule;
mod tables;
pub mod text;
mod tunnel_key;

pub use action::{Action, Actions, Control, MAX_ACTIONS, Police, Sample};
pub use ct_key::{CtKey, CtState};
pub use installed::{Rank, Rule, RuleCounter, RuleTotals};
pub use key::{FlowKey, KeyFlags, MPLS_MAX};
pub use matches::{Inner, Masked, Match, More, PortRange, Seen};
pub use origin::Origin;
pub use policers::Policers;
pub use rule::{DEFAULT_PRIORITY, MAX_CHAIN, RuleError, RuleSpec};
pub use tables::{Looks, Tables};
pub use text::{MAX_RULE_TEXT, NameOfPort, PortNames, RuleTextError};
pub use tunnel_key::{TunnelFlags, TunnelKey};
