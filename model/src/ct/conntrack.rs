//! The table of connections, and one packet through it.

use super::packet::Body;
use super::{CtAction, CtConfig, CtPacket, NatRewrite, Tracked, state};
use crate::{DropReason, Nanos};

/// The connections of a NIC. Workers share it by reference.
#[derive(Debug)]
pub struct Conntrack {
    config: CtConfig,
}

impl Conntrack {
    /// No connections yet.
    pub fn new(config: CtConfig) -> Self {
        Self { config }
    }

    /// The settings.
    pub fn config(&self) -> &CtConfig {
        &self.config
    }

    /// Does what a `ct` action says to a packet: `tracked` is what earlier actions made of it,
    /// and tells afterwards what rules see. What is returned is to be rewritten in the packet
    /// (nothing, mostly); an error drops it. `packet` is the packet as it is at this action, so
    /// parsed again after a rewrite.
    pub fn run(
        &self,
        action: &CtAction,
        tracked: &mut Tracked,
        packet: &CtPacket,
        now: Nanos,
    ) -> Result<NatRewrite, DropReason> {
        self.act(action, tracked, packet, now, false)
    }

    /// What [`Conntrack::run`] would do now, leaving all connections as they are: for tracing.
    pub fn preview(
        &self,
        action: &CtAction,
        tracked: &mut Tracked,
        packet: &CtPacket,
        now: Nanos,
    ) -> Result<NatRewrite, DropReason> {
        self.act(action, tracked, packet, now, true)
    }

    fn act(
        &self,
        action: &CtAction,
        tracked: &mut Tracked,
        packet: &CtPacket,
        _now: Nanos,
        _dry: bool,
    ) -> Result<NatRewrite, DropReason> {
        tracked.reset();
        let CtAction::Track(spec) = action else {
            return Ok(NatRewrite::default());
        };
        match packet.body {
            Body::NotIp => return Err(DropReason::CtNotIp),
            Body::Fragment => {}
            _ => {
                tracked.zone = spec.zone;
                tracked.state = state::TRK | state::INV;
            }
        }
        Ok(NatRewrite::default())
    }
}
