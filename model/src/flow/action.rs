//! What a rule does with a packet.

use super::{MAX_CHAIN, RuleError};
use crate::VportId;
use crate::eswitch::MAX_VPORTS;

/// One step of what a rule does with a packet, in the words of tc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lose it (counted as `rule_drop`); ends the list.
    Drop,
    /// Give it to the host on the in-port's representor, as if nothing had matched; ends the list.
    Pass,
    /// Give it to the host on the in-port's representor to be looked at: for a switch that is
    /// hardware the same as [`Action::Pass`], while tc's software would let the host see it as
    /// dropped by hardware; ends the list.
    Trap,
    /// Send it out of this vport (a channel, or the uplink); ends the list.
    Redirect(VportId),
    /// Send a copy out of this vport and go on.
    Mirror(VportId),
    /// Go on in this chain; ends the list.
    Goto(u32),
}

/// How many actions a rule may have, as in tc (uapi linux/pkt_cls.h, `TCA_ACT_MAX_PRIO`).
pub const MAX_ACTIONS: usize = 32;

/// A rule's actions. Only the last one may be final; a list that ends without a final one is as
/// if [`Action::Pass`] followed, as in tc.
pub type Actions = Box<[Action]>;

impl Action {
    /// Whether no action can follow this one.
    pub fn is_final(&self) -> bool {
        match self {
            Action::Drop | Action::Pass | Action::Trap | Action::Redirect(_) | Action::Goto(_) => {
                true
            }
            Action::Mirror(_) => false,
        }
    }

    /// The vport it sends to.
    pub fn target(&self) -> Option<VportId> {
        match self {
            Action::Redirect(vport) | Action::Mirror(vport) => Some(*vport),
            _ => None,
        }
    }

    /// Whether it is well formed.
    pub(super) fn check(&self) -> Result<(), RuleError> {
        match self {
            Action::Redirect(vport) | Action::Mirror(vport) if vport.0 >= MAX_VPORTS => {
                Err(RuleError::Target(*vport))
            }
            Action::Goto(to) if *to > MAX_CHAIN => Err(RuleError::Goto { to: *to }),
            _ => Ok(()),
        }
    }
}
