//! Traps: the ways in which packets leave a device's pipeline for the host, or are dropped.

use super::attributes::stats;
use super::devlink;
use crate::Result;
use crate::attr::{Attr, Flag, Value, Writer, numbers, record};

numbers! {
    /// enum devlink_trap_action
    pub enum TrapAction: u8 {
        /// The packet is lost.
        Drop = 0,
        /// The host gets the packet.
        Trap = 1,
        /// The host gets a copy.
        Mirror = 2,
    }
}
numbers! {
    /// enum devlink_trap_type
    pub enum TrapType: u8 {
        /// For packets that are lost.
        Drop = 0,
        /// For packets that the device could not forward.
        Exception = 1,
        /// For packets of the control plane.
        Control = 2,
    }
}

record! {
    /// What a trap has counted.
    pub struct TrapStats of stats {
        /// Packets that the host got.
        packets: u64 = RX_PACKETS;
        /// Their bytes.
        bytes: u64 = RX_BYTES;
        /// Packets that the device lost.
        dropped: u64 = RX_DROPPED;
    }
}

impl Value for TrapStats {
    fn parse(attr: &Attr<'_>) -> Result<Self> {
        Self::read(&attr.nest(&stats::ALL)?)
    }
    fn emit(&self, out: &mut Writer) {
        self.write(out);
    }
    fn is_nest(&self) -> bool {
        true
    }
    fn all_ones(&self) -> Self {
        TrapStats {
            packets: Some(!0),
            bytes: Some(!0),
            dropped: Some(!0),
        }
    }
}

record! {
    /// A trap.
    pub struct Trap of devlink {
        /// Its name.
        name: String = TRAP_NAME;
        /// What it does.
        action: TrapAction as u8 = TRAP_ACTION;
        /// What it is for.
        kind: TrapType as u8 = TRAP_TYPE;
        /// Whether all drivers mean the same by it.
        generic: Flag = TRAP_GENERIC;
        /// What is told beside the packet, as a nest of flags.
        metadata: Vec<u8> = TRAP_METADATA;
        /// The group that it is in.
        group: String = TRAP_GROUP_NAME;
        /// The group's token bucket.
        policer: u32 = TRAP_POLICER_ID;
        /// Packets per second that it lets through.
        policer_rate: u64 = TRAP_POLICER_RATE;
        /// Packets at once that it lets through.
        policer_burst: u64 = TRAP_POLICER_BURST;
        /// What it has counted.
        stats: TrapStats = STATS;
    }
}
