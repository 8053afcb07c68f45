//! What a rule does with a packet.

use super::{MAX_CHAIN, RuleError};
use crate::VportId;
use crate::ct::{CtAction, CtSpec};
use crate::edit::{Csums, FieldEdit, MplsModify, MplsPush, TunnelSet, VlanModify, VlanTag};
use crate::eswitch::MAX_VPORTS;
use crate::meter::{MeterError, MeterSpec};
use crate::wire::eth_type;

/// One step of what a rule does with a packet, in the words of tc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lose it (counted as `rule_drop`); ends the list.
    Drop,
    /// Give it to the host on the in-port's representor, as if nothing had matched; ends the list.
    Pass,
    /// Give it to the host on the in-port's representor to be looked at: for a switch that is
    /// hardware the same as [`Action::Pass`]; ends the list.
    Trap,
    /// Send it out of this vport (a channel, or the uplink); ends the list.
    Redirect(VportId),
    /// Send a copy out of this vport and go on.
    Mirror(VportId),
    /// Go on in this chain, with the packet as it is now; ends the list.
    Goto(u32),
    /// Put a VLAN tag in front of those that are there.
    VlanPush(VlanTag),
    /// Take the outer VLAN tag off.
    VlanPop,
    /// Change the outer VLAN tag.
    VlanModify(VlanModify),
    /// Put a label in front of the network header.
    MplsPush(MplsPush),
    /// Take the outer label off; what follows has this EtherType.
    MplsPop(u16),
    /// Change the outer label.
    MplsModify(MplsModify),
    /// Take one off the outer label's time to live.
    MplsDecTtl,
    /// Change header fields, one after the other.
    Pedit(Box<[FieldEdit]>),
    /// Compute checksums anew.
    Csum(Csums),
    /// What is sent from here on travels in this tunnel.
    TunnelSet(Box<TunnelSet>),
    /// Forget the tunnel that the packet came in, and the one it was to travel in.
    TunnelUnset,
    /// Go on one way or another, by how much came so far.
    Police(Box<Police>),
    /// Track its connection, or translate its addresses.
    Ct(Box<CtAction>),
    /// Send a copy of some packets out of a vport.
    Sample(Sample),
}

/// A meter, and what follows from it (tc-police(8)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Police {
    /// Rules that name the same share one bucket; 0: the rule's own.
    pub index: u32,
    /// What conforms. Nothing at all: as other rules with this index say.
    pub meter: MeterSpec,
    /// What becomes of a packet that does not.
    pub exceed: Control,
    /// What becomes of one that does.
    pub conform: Control,
}

/// How a list of actions goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Control {
    /// With the next action.
    Pipe,
    /// As [`Action::Drop`].
    Drop,
    /// As [`Action::Pass`].
    Pass,
    /// As [`Action::Goto`].
    Goto(u32),
}

/// Copies for whoever looks at samples (tc-sample(8), which gives them to psample instead of a
/// port).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sample {
    /// One of so many, chosen at random; 1: all.
    pub rate: u32,
    /// psample's group, for whoever lists rules.
    pub group: u32,
    /// Where copies go.
    pub to: VportId,
}

/// How many actions a rule may have, as in tc (uapi linux/pkt_cls.h, `TCA_ACT_MAX_PRIO`).
pub const MAX_ACTIONS: usize = 32;

/// A rule's actions. Only the last one may be final; a list that ends without a final one is as
/// if [`Action::Pass`] followed, as in tc.
pub type Actions = Box<[Action]>;

impl Action {
    /// Whether no action can follow this one.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Action::Drop | Action::Pass | Action::Trap | Action::Redirect(_) | Action::Goto(_)
        )
    }

    /// The vport it sends to.
    pub fn target(&self) -> Option<VportId> {
        match self {
            Action::Redirect(vport) | Action::Mirror(vport) => Some(*vport),
            Action::Sample(sample) => Some(sample.to),
            _ => None,
        }
    }

    /// Whether some packets may not get past it: then those behind it have counters of their own.
    pub fn may_stop(&self) -> bool {
        !self.is_final() && !matches!(self, Action::Mirror(_) | Action::Sample(_))
    }

    /// The police action that it is.
    pub(super) fn police(&self) -> Option<&Police> {
        match self {
            Action::Police(police) => Some(police),
            _ => None,
        }
    }

    /// Whether it is well formed.
    pub(super) fn check(&self) -> Result<(), RuleError> {
        if let Some(vport) = self.target()
            && vport.0 >= MAX_VPORTS
        {
            return Err(RuleError::Target(vport));
        }
        match self {
            Action::Goto(to) => check_chain(*to),
            Action::VlanPush(tag) => check_tag(tag.vid, Some(tag.prio)),
            Action::VlanModify(to) => check_tag(to.vid, to.prio),
            Action::MplsPush(push) => check_label(push.proto, push.label, push.tc),
            Action::MplsModify(to) => {
                check_label(eth_type::MPLS_UC, to.label.unwrap_or(0), to.tc.unwrap_or(0))
            }
            Action::Pedit(edits) if edits.is_empty() => Err(RuleError::NoEdit),
            Action::Pedit(edits) => Ok(edits.iter().try_for_each(FieldEdit::check)?),
            Action::Csum(Csums(0 | 128..)) => Err(RuleError::Range("csum")),
            Action::TunnelSet(set) => Ok(set.check()?),
            Action::Police(police) => police.check(),
            Action::Ct(ct) => check_ct(ct),
            Action::Sample(Sample { rate: 0, .. }) => Err(RuleError::Range("sample rate")),
            _ => Ok(()),
        }
    }
}

fn check_chain(to: u32) -> Result<(), RuleError> {
    if to > MAX_CHAIN {
        return Err(RuleError::Goto { to });
    }
    Ok(())
}

fn check_tag(vid: u16, prio: Option<u8>) -> Result<(), RuleError> {
    if vid > 4094 {
        return Err(RuleError::Range("vlan id"));
    }
    if prio.is_some_and(|prio| prio > 7) {
        return Err(RuleError::Range("vlan priority"));
    }
    Ok(())
}

fn check_label(proto: u16, label: u32, tc: u8) -> Result<(), RuleError> {
    if !matches!(proto, eth_type::MPLS_UC | eth_type::MPLS_MC) {
        return Err(RuleError::Range("mpls protocol"));
    }
    if label > 0xf_ffff {
        return Err(RuleError::Range("mpls label"));
    }
    if tc > 7 {
        return Err(RuleError::Range("mpls tc"));
    }
    Ok(())
}

fn check_ct(ct: &CtAction) -> Result<(), RuleError> {
    let CtAction::Track(CtSpec {
        commit,
        force,
        mark,
        mark_mask,
        label,
        label_mask,
        ..
    }) = ct
    else {
        return Ok(());
    };
    let labels = label.iter().zip(label_mask);
    let outside = mark & !mark_mask != 0 || labels.clone().any(|(v, m)| v & !m != 0);
    if outside {
        return Err(RuleError::ValueOutsideMask);
    }
    let sets = *force || *mark_mask != 0 || *label_mask != [0; 16];
    if sets && !commit {
        return Err(RuleError::Needs {
            field: "ct",
            needs: "commit for force, mark and label",
        });
    }
    Ok(())
}

impl Police {
    /// Whether it is one that other rules have told about.
    pub fn is_reference(&self) -> bool {
        self.index != 0 && self.meter == MeterSpec::default()
    }

    fn check(&self) -> Result<(), RuleError> {
        if self.is_reference() {
            let plain = (self.exceed, self.conform) == (Control::Drop, Control::Pipe);
            // What follows was told with the rates.
            return plain.then_some(()).ok_or(MeterError::Nothing.into());
        }
        self.meter.check()?;
        for control in [self.exceed, self.conform] {
            if let Control::Goto(to) = control {
                check_chain(to)?;
            }
        }
        Ok(())
    }
}
