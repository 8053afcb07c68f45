//! A flow rule as it is asked for.

use super::{Action, Actions, MAX_ACTIONS, Match};
use crate::VportId;
use crate::edit::{FieldError, TunnelSetError};
use crate::eswitch::MAX_VPORTS;
use crate::meter::MeterError;

/// The highest number of a chain, as in tc, which has 28 bits for it (uapi linux/pkt_cls.h,
/// `TC_ACT_EXT_VAL_MASK`).
pub const MAX_CHAIN: u32 = 0x0fff_ffff;

/// A flow rule as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// Which chain it is in; packets begin in 0.
    pub chain: u32,
    /// 1 to 65535; the lowest number wins, as in tc; among equals the rule added first.
    pub priority: u16,
    /// Which packets.
    pub matches: Match,
    /// What to do with them.
    pub actions: Actions,
    /// The caller's own mark, returned by listings; 0 where none was given.
    pub cookie: u64,
    /// Remove it when no packet has taken it for so many seconds; 0: never.
    pub idle_timeout: u32,
}

impl Default for RuleSpec {
    /// Every packet of chain 0, at the priority that tc would choose first, no action.
    fn default() -> Self {
        Self {
            chain: 0,
            priority: DEFAULT_PRIORITY,
            matches: Match::default(),
            actions: Actions::default(),
            cookie: 0,
            idle_timeout: 0,
        }
    }
}

/// The priority of a rule that does not name one.
pub const DEFAULT_PRIORITY: u16 = 49152;

/// Why a specification is not one that the switch takes. The field is named as in the text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// tc keeps 0 for "choose one".
    #[error("prio: 0 is not a priority, allowed are 1 to 65535")]
    Priority,
    /// More than tc could say.
    #[error("chain: {0} is out of range, allowed are 0 to {MAX_CHAIN}")]
    Chain(u32),
    /// Such a match could never be true.
    #[error("match: the value has bits set outside its mask")]
    ValueOutsideMask,
    /// A part of the match that is there but asks for nothing.
    #[error("match: a part asks for nothing")]
    EmptyPart,
    /// Matched whole or not at all.
    #[error("{0}: must be matched whole or not at all")]
    Partial(&'static str),
    /// The value cannot occur.
    #[error("{0}: the value is out of range")]
    Range(&'static str),
    /// A field of a header that the rest of the match does not ask for.
    #[error("{field}: needs {needs}")]
    Needs {
        /// What was given.
        field: &'static str,
        /// What is missing.
        needs: &'static str,
    },
    /// States that exclude each other.
    #[error("ct_state: +new excludes +est and +rpl, +inv excludes all but +trk")]
    CtState,
    /// Actions are missing.
    #[error("action: there is none, at least one is needed")]
    NoAction,
    /// More than [`MAX_ACTIONS`].
    #[error("action: {0} actions, allowed are {MAX_ACTIONS}")]
    TooManyActions(usize),
    /// Actions that would never be done.
    #[error("action: nothing can follow drop, pass, trap, redirect or goto")]
    AfterFinalAction,
    /// A goto that leads back or nowhere.
    #[error("goto: chain {to} is out of range, allowed are 0 to {MAX_CHAIN}")]
    Goto {
        /// Where it would lead.
        to: u32,
    },
    /// A pedit that changes nothing.
    #[error("pedit: there is no field, at least one is needed")]
    NoEdit,
    /// A field that cannot become that.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// Outer headers that cannot be made.
    #[error(transparent)]
    Tunnel(#[from] TunnelSetError),
    /// A meter that measures nothing.
    #[error("police: {0}")]
    Meter(#[from] MeterError),
    /// A police action is referred to that there is not.
    #[error("police index: no rule has {0}, so its rates have to be given")]
    NoPolice(u32),
    /// Rates or verdicts that are not those of the rules that have it.
    #[error("police index: rules have {0} with other parameters; without any it is shared")]
    PoliceTaken(u32),
    /// No such vport can exist.
    #[error("action: vport {} is out of range, allowed are 0 to {}", .0.0, MAX_VPORTS - 1)]
    Target(VportId),
}

impl RuleSpec {
    /// The vports that it names, in the match and in actions.
    pub fn ports(&self) -> impl Iterator<Item = VportId> {
        let targets = self.actions.iter().filter_map(Action::target);
        self.matches.in_port().into_iter().chain(targets)
    }

    /// Whether the specification is well formed: everything that the text form can say, and
    /// nothing else.
    pub fn check(&self) -> Result<(), RuleError> {
        if self.priority == 0 {
            return Err(RuleError::Priority);
        }
        if self.chain > MAX_CHAIN {
            return Err(RuleError::Chain(self.chain));
        }
        self.matches.check()?;
        check_actions(&self.actions)
    }
}

fn check_actions(actions: &[Action]) -> Result<(), RuleError> {
    let (_, before) = actions.split_last().ok_or(RuleError::NoAction)?;
    if actions.len() > MAX_ACTIONS {
        return Err(RuleError::TooManyActions(actions.len()));
    }
    if before.iter().any(|a| a.is_final()) {
        return Err(RuleError::AfterFinalAction);
    }
    actions.iter().try_for_each(Action::check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::eth_type;

    fn spec(change: impl FnOnce(&mut RuleSpec)) -> Result<(), RuleError> {
        let mut spec = RuleSpec {
            actions: [Action::Drop].into(),
            ..RuleSpec::default()
        };
        change(&mut spec);
        spec.check()
    }

    fn set(value: &mut u16, mask: &mut u16, to: u16) {
        (*value, *mask) = (to, u16::MAX);
    }

    #[test]
    fn takes_and_refuses() {
        assert_eq!(spec(|_| ()), Ok(()));
        assert_eq!(spec(|s| s.priority = 0), Err(RuleError::Priority));
        assert_eq!(
            spec(|s| s.matches.value.l4_src = 1),
            Err(RuleError::ValueOutsideMask)
        );
        assert_eq!(
            spec(|s| s.matches.mask.in_port = 1),
            Err(RuleError::Partial("in_port"))
        );
        let ports = |s: &mut RuleSpec| {
            let m = &mut s.matches;
            set(&mut m.value.eth_type, &mut m.mask.eth_type, eth_type::IPV4);
            m.mask.l4_dst = 0xfff0;
        };
        assert!(matches!(
            spec(ports),
            Err(RuleError::Needs {
                field: "dst_port",
                ..
            })
        ));
        assert_eq!(
            spec(|s| {
                ports(s);
                (s.matches.value.ip_proto, s.matches.mask.ip_proto) = (17, 255);
            }),
            Ok(())
        );
        let long = |s: &mut RuleSpec| {
            let m = &mut s.matches;
            set(&mut m.value.eth_type, &mut m.mask.eth_type, eth_type::IPV4);
            m.mask.ip_src = [0xff; 16];
        };
        assert!(matches!(
            spec(long),
            Err(RuleError::Needs {
                field: "src_ip",
                ..
            })
        ));
    }

    #[test]
    fn vlan_is_absent_any_or_one_id() {
        let vlan =
            |value, mask| spec(|s| (s.matches.value.vlan, s.matches.mask.vlan) = (value, mask));
        for (value, mask) in [
            (0, 0),
            (0x1000, 0x1000),
            (0, 0x1fff),
            (0x1000, 0x1fff),
            (0x1ffe, 0x1fff),
        ] {
            assert_eq!(vlan(value, mask), Ok(()), "{value:x}/{mask:x}");
        }
        for (value, mask) in [
            (0, 0x1000),
            (0x1fff, 0x1fff),
            (5, 0x1fff),
            (0x1000, 0x1001),
            (0, 0xffff),
            (0x1000, 0x3000),
        ] {
            assert!(vlan(value, mask).is_err(), "{value:x}/{mask:x}");
        }
        let prio = vlan(0x6000, 0xe000);
        assert!(matches!(
            prio,
            Err(RuleError::Needs {
                field: "vlan_prio",
                ..
            })
        ));
        assert_eq!(vlan(0x7000, 0xf000), Ok(()));
    }

    #[test]
    fn one_final_action_at_the_end() {
        let actions = |list: &[Action]| spec(|s| s.actions = list.iter().cloned().collect());
        let mirror = Action::Mirror(VportId(3));
        assert_eq!(actions(&[mirror.clone(), Action::Pass]), Ok(()));
        assert_eq!(actions(&[]), Err(RuleError::NoAction));
        assert_eq!(
            actions(std::slice::from_ref(&mirror)),
            Ok(()),
            "as tc, then it passes"
        );
        assert!(actions(&vec![mirror.clone(); MAX_ACTIONS + 1]).is_err());
        assert_eq!(
            actions(&[Action::Drop, mirror]),
            Err(RuleError::AfterFinalAction)
        );
        let far = VportId(MAX_VPORTS);
        assert_eq!(
            actions(&[Action::Redirect(far)]),
            Err(RuleError::Target(far))
        );
    }
}
