//! A flow rule as it is asked for.

use super::FlowKey;
use crate::eswitch::MAX_VPORTS;
use crate::wire::{eth_type, ip_proto};
use crate::{Mac, VportId};
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

    /// The vport it sends to.
    pub fn target(self) -> Option<VportId> {
        match self {
            Action::Redirect(vport) | Action::Mirror(vport) => Some(vport),
            Action::Drop | Action::Pass => None,
        }
    }
}

/// How many actions a rule may have.
pub const MAX_ACTIONS: usize = 8;

/// A rule's actions; the last one, and no other, is final.
pub type Actions = ArrayVec<Action, MAX_ACTIONS>;

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

/// Why a specification is not one that the switch takes. The field is named as in the text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// tc keeps 0 for "choose one".
    #[error("prio: 0 is not a priority, allowed are 1 to 65535")]
    Priority,
    /// Such a match could never be true.
    #[error("match: the value has bits set outside its mask")]
    ValueOutsideMask,
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
    /// Actions are missing.
    #[error("action: the last one must be drop, pass or redirect")]
    NoFinalAction,
    /// Actions that would never be done.
    #[error("action: nothing can follow drop, pass or redirect")]
    AfterFinalAction,
    /// No such vport can exist.
    #[error("action: vport {} is out of range, allowed are 0 to {}", .0.0, MAX_VPORTS - 1)]
    Target(VportId),
}

impl RuleSpec {
    /// Whether the specification is well formed: everything that the text form can say, and
    /// nothing else. Each field that counts must be one that the rest of the match makes sure
    /// exists in the packet, as in tc.
    pub fn check(&self) -> Result<(), RuleError> {
        if self.priority == 0 {
            return Err(RuleError::Priority);
        }
        self.matches.check()?;
        check_actions(&self.actions)
    }
}

fn check_actions(actions: &[Action]) -> Result<(), RuleError> {
    let (last, before) = actions.split_last().ok_or(RuleError::NoFinalAction)?;
    if before.iter().any(|a| a.is_final()) {
        return Err(RuleError::AfterFinalAction);
    }
    if !last.is_final() {
        return Err(RuleError::NoFinalAction);
    }
    let far = actions
        .iter()
        .filter_map(|a| a.target())
        .find(|v| v.0 >= MAX_VPORTS);
    far.map_or(Ok(()), |vport| Err(RuleError::Target(vport)))
}

/// All bits or none.
fn whole<T: PartialEq + Default>(name: &'static str, mask: T, full: T) -> Result<(), RuleError> {
    if mask == T::default() || mask == full {
        Ok(())
    } else {
        Err(RuleError::Partial(name))
    }
}

fn needs(ok: bool, field: &'static str, needs: &'static str) -> Result<(), RuleError> {
    if ok {
        Ok(())
    } else {
        Err(RuleError::Needs { field, needs })
    }
}

impl Match {
    fn check(&self) -> Result<(), RuleError> {
        let (value, mask) = (&self.value, &self.mask);
        if value.masked(mask) != *value {
            return Err(RuleError::ValueOutsideMask);
        }
        whole("reserved", mask.reserved, [0; 6])?;
        whole("in_port", mask.in_port, u32::MAX)?;
        whole("eth_type", mask.eth_type, u16::MAX)?;
        whole("ip_proto", mask.ip_proto, u8::MAX)?;
        if value.in_port >= MAX_VPORTS {
            return Err(RuleError::Range("in_port"));
        }
        self.check_vlan()?;
        self.check_ip()
    }

    fn check_vlan(&self) -> Result<(), RuleError> {
        let (value, mask) = (&self.value, &self.mask);
        whole("vlan_prio", mask.vlan_prio, 7)?;
        let tagged = value.vlan & FlowKey::VLAN_PRESENT != 0;
        match mask.vlan {
            // A bare "has a tag": the id does not count.
            FlowKey::VLAN_PRESENT if tagged => {}
            0 => {}
            FULL_VLAN if tagged && value.vid() == 4095 => return Err(RuleError::Range("vlan_id")),
            FULL_VLAN if tagged || value.vlan == 0 => {}
            _ => return Err(RuleError::Partial("vlan_id")),
        }
        needs(mask.vlan_prio == 0 || tagged, "vlan_prio", "a VLAN tag")
    }

    fn check_ip(&self) -> Result<(), RuleError> {
        let (value, mask) = (&self.value, &self.mask);
        let family = (mask.eth_type != 0).then_some(value.eth_type);
        let v4 = family == Some(eth_type::IPV4);
        let v6 = family == Some(eth_type::IPV6);
        for (name, bytes) in [("src_ip", &mask.ip_src), ("dst_ip", &mask.ip_dst)] {
            if *bytes != [0; 16] {
                needs(v4 || v6, name, "eth_type ipv4 or ipv6")?;
                needs(v6 || bytes[4..] == [0; 12], name, "eth_type ipv6")?;
            }
        }
        let proto = (mask.ip_proto != 0).then_some(value.ip_proto);
        needs(
            proto.is_none() || v4 || v6,
            "ip_proto",
            "eth_type ipv4 or ipv6",
        )?;
        let ported = proto.is_some_and(ip_proto::has_ports);
        for (name, bits) in [("src_port", mask.l4_src), ("dst_port", mask.l4_dst)] {
            needs(bits == 0 || ported, name, "ip_proto tcp, udp or sctp")?;
        }
        Ok(())
    }
}

/// The whole of [`FlowKey::vlan`].
pub(super) const FULL_VLAN: u16 = FlowKey::VLAN_PRESENT | 0xfff;
/// The whole of an address.
pub(super) const FULL_MAC: Mac = Mac([0xff; 6]);

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(change: impl FnOnce(&mut RuleSpec)) -> Result<(), RuleError> {
        let mut spec = RuleSpec {
            priority: 1,
            matches: Match::default(),
            actions: [Action::Drop].into_iter().collect(),
            cookie: 0,
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
            spec(|s| s.matches.mask.reserved[5] = 1),
            Err(RuleError::Partial("reserved"))
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
        ] {
            assert!(vlan(value, mask).is_err(), "{value:x}/{mask:x}");
        }
        let prio = spec(|s| (s.matches.value.vlan_prio, s.matches.mask.vlan_prio) = (3, 7));
        assert!(matches!(
            prio,
            Err(RuleError::Needs {
                field: "vlan_prio",
                ..
            })
        ));
    }

    #[test]
    fn one_final_action_at_the_end() {
        let actions = |list: &[Action]| spec(|s| s.actions = list.iter().copied().collect());
        let mirror = Action::Mirror(VportId(3));
        assert_eq!(actions(&[mirror, Action::Pass]), Ok(()));
        assert_eq!(actions(&[]), Err(RuleError::NoFinalAction));
        assert_eq!(actions(&[mirror]), Err(RuleError::NoFinalAction));
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
