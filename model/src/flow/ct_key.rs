//! What connection tracking said about a packet, as tables see it.

/// The connection tracking part of a look-up; all zero before a `ct` action. Also a mask.
///
/// Plain data without padding; numbers in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(8))]
pub struct CtKey {
    /// The connection's label, as the kernel keeps it: 128 bits, the lowest byte first.
    pub label: [u8; 16],
    /// The connection's mark.
    pub mark: u32,
    /// Bits of [`CtState`].
    pub state: u16,
    /// The zone in which it was tracked.
    pub zone: u16,
}

/// The bits of [`CtKey::state`] (uapi linux/pkt_cls.h, `TCA_FLOWER_KEY_CT_FLAGS_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtState;

impl CtState {
    /// Begins a connection that is not committed yet.
    pub const NEW: u16 = 0x01;
    /// Belongs to a committed connection.
    pub const EST: u16 = 0x02;
    /// Comes with another connection: an ICMP error about it.
    pub const REL: u16 = 0x04;
    /// Went through connection tracking.
    pub const TRK: u16 = 0x08;
    /// Could not be tracked.
    pub const INV: u16 = 0x10;
    /// Goes against the direction in which the connection began.
    pub const RPL: u16 = 0x20;
    /// All that there are.
    pub const ALL: u16 = 0x3f;
}

impl CtKey {
    /// Number of 64-bit words in it.
    pub const WORDS: usize = size_of::<CtKey>() / 8;

    /// As words.
    #[inline]
    pub fn words(&self) -> &[u64; Self::WORDS] {
        bytemuck::cast_ref(self)
    }
}
