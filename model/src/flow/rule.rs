//! A flow rule as it is asked for.

use super::FlowKey;
use crate::VportId;
use arrayvec::ArrayVec;

/// Which packets a rule is for: those whose key equals `value` in every bit of `mask`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Wanted bits; zero wherever the mask is zero.
    pub value: FlowKey,
    /// Bits that count.
    pub mask: FlowKey,
}

impl Match {
    /// Whether a packet with this key is meant.
    pub fn covers(&self, key: &FlowKey) -> bool {
        key.masked(&self.mask) == self.value
    }
}

/// One step of what a rule does with a packet, in the words of tc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Lose it (counted as `rule_drop`); ends the list.
    Drop,
    /// Give it to the host on the in-port's representor, as if nothing had matched; ends the list.
    Pass,
    /// Send it out of this vport (a channel, or the uplink); ends the list.
    Redirect(VportId),
    /// Send a copy out of this vport and go on.
    Mirror(VportId),
}

impl Action {
    /// Whether no action can follow this one.
    pub fn is_final(self) -> bool {
        !matches!(self, Action::Mirror(_))
    }
}

/// At most eight actions; the last one, and no other, is final.
pub type Actions = ArrayVec<Action, 8>;

/// A flow rule as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// 1 to 65535; the lowest number wins, as in tc; among equals the rule added first.
    pub priority: u16,
    /// Which packets.
    pub matches: Match,
    /// What to do with them.
    pub actions: Actions,
    /// The caller's own mark, returned by listings; 0 where none was given.
    pub cookie: u64,
}
