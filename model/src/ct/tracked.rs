//! What tracking says of one packet.

/// The bits of a state (uapi linux/pkt_cls.h, `TCA_FLOWER_KEY_CT_FLAGS_*`).
pub mod state {
    /// Begins a connection that was not answered yet.
    pub const NEW: u16 = 0x01;
    /// Belongs to a connection that went both ways.
    pub const EST: u16 = 0x02;
    /// An ICMP error about a connection's packet.
    pub const REL: u16 = 0x04;
    /// Went through `ct`.
    pub const TRK: u16 = 0x08;
    /// Belongs to no connection and cannot begin one.
    pub const INV: u16 = 0x10;
    /// Against the direction in which its connection began.
    pub const RPL: u16 = 0x20;
}

/// What tracking says of one packet; what rules behind a `ct` action match. The executor keeps one
/// per packet under way, or resets one per worker.
#[derive(Clone, Debug, Default)]
pub struct Tracked {
    pub(super) state: u16,
    pub(super) zone: u16,
    pub(super) mark: u32,
    pub(super) label: [u8; 16],
}

impl Tracked {
    /// A packet that met no `ct` action yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes it that of another packet.
    #[inline]
    pub fn reset(&mut self) {
        self.state = 0;
        self.zone = 0;
        self.mark = 0;
        self.label = [0; 16];
    }

    /// Bits of [`state`]; 0 before any `ct` action and behind `ct clear`.
    #[inline]
    pub fn state(&self) -> u16 {
        self.state
    }

    /// The zone it was tracked in.
    #[inline]
    pub fn zone(&self) -> u16 {
        self.zone
    }

    /// Its connection's mark.
    #[inline]
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// Its connection's label, the lowest byte first.
    #[inline]
    pub fn label(&self) -> &[u8; 16] {
        &self.label
    }
}
