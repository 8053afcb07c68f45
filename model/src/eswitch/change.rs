//! What can change about a switch.

use super::{Mode, VportConfig};
use crate::edit::TunnelPorts;
use crate::flow::{Origin, Rule};
use crate::{RuleId, VportId};
use std::sync::Arc;

/// Vport numbers are below this.
pub const MAX_VPORTS: u32 = 65_536;

/// One change of a switch. Applying the same changes in the same order to two equal switches
/// leaves them equal; none but [`Change::RemoveRulesOf`] takes time in proportion to the number of
/// vports or rules.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new channel.
    AddVport(VportId, Arc<VportConfig>),
    /// A new configuration of a channel.
    SetVport(VportId, Arc<VportConfig>),
    /// A channel goes. Rules that send to it stay and count `rule_target`.
    RemoveVport(VportId),
    /// Another mode. Rules stay and are looked at in switchdev mode only.
    SetMode(Mode),
    /// Legacy mode: leave switching between channels to the neighbour on the wire (802.1Qbg
    /// VEPA).
    SetVepa(bool),
    /// Whether floods reach the wire. A packet meant for the uplink alone goes there in any case.
    SetUplink(bool),
    /// The group of ports that the uplink shares its rules with; 0: none.
    SetUplinkBlock(u16),
    /// A new rule.
    AddRule(Arc<Rule>),
    /// Another rule in the place of the one with its id.
    ReplaceRule(Arc<Rule>),
    /// A rule goes.
    RemoveRule(RuleId),
    /// All rules of one go, however many there are.
    RemoveRulesOf(Origin),
    /// Which UDP ports are tunnels'.
    SetTunnelPorts(TunnelPorts),
}

/// Why a change was refused; nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Not a channel's number.
    #[error("vport {}: a channel's number is 1 to {}", .0.0, MAX_VPORTS - 1)]
    VportRange(VportId),
    /// Already there.
    #[error("vport {0} already exists")]
    VportExists(VportId),
    /// Not there.
    #[error("vport {0} does not exist")]
    NoVport(VportId),
    /// The id is taken.
    #[error("rule {0} already exists")]
    RuleExists(RuleId),
    /// Not there.
    #[error("rule {0} does not exist")]
    NoRule(RuleId),
}
