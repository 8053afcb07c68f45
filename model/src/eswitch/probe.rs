//! Watching a packet on its way through the tables.

use super::Output;
use crate::flow::{Action, Rule, Seen};
use crate::{DropReason, VportId};

/// Is told every table that a packet is looked up in, every action that is done to it and what
/// becomes of it. [`NoProbe`] costs nothing.
pub trait Probe {
    /// Whether the packet is only an example: nothing is counted, metered, tracked or learned.
    const DRY: bool;

    /// A packet that looks like this was looked up in a chain and took this rule.
    #[inline]
    fn lookup(&mut self, _chain: u32, _seen: Seen<'_>, _rule: Option<&Rule>) {}

    /// A rule's action, the `index`th (0 is the first), is about to be done.
    #[inline]
    fn action(&mut self, _index: usize, _action: &Action) {}

    /// The packet as an action has left it: its first bytes, and its length.
    #[inline]
    fn rewritten(&mut self, _head: &[u8], _len: u32) {}

    /// A copy goes there.
    #[inline]
    fn output(&mut self, _output: Output) {}

    /// A copy, or the packet itself, is lost at this vport.
    #[inline]
    fn lost(&mut self, _vport: VportId, _reason: DropReason) {}
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProbe;

impl Probe for NoProbe {
    const DRY: bool = false;
}
