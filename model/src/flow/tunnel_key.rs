//! What the outer headers of a tunnelled packet said, as tables see it.

use crate::edit::TunnelKind;
use crate::edit::tunnel::GENEVE_OPTIONS_MAX;

/// The outer headers of a decapsulated packet: tc's `enc_*` keys. Also a mask.
///
/// Plain data without padding; numbers in host order, addresses and options in wire order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(8))]
pub struct TunnelKey {
    /// Outer source address; IPv4 sits in the first four bytes, the rest zero.
    pub src: [u8; 16],
    /// Outer destination address.
    pub dst: [u8; 16],
    /// VNI, or GRE key.
    pub id: u32,
    /// Outer UDP source port; 0 for GRE.
    pub src_port: u16,
    /// Outer UDP destination port; 0 for GRE.
    pub dst_port: u16,
    /// Outer type of service or traffic class.
    pub tos: u8,
    /// Outer time to live or hop limit.
    pub ttl: u8,
    /// [`TunnelKey::number`] of the kind; 0: not tunnelled.
    pub kind: u8,
    /// Bits of [`TunnelFlags`].
    pub flags: u8,
    /// Bytes of `options` in use.
    pub options_len: u16,
    /// Zero: keeps the key a whole number of words.
    pub reserved: [u8; 6],
    /// Geneve: the options as on the wire. VXLAN with group policy: the extension's 32 bits.
    pub options: [u8; GENEVE_OPTIONS_MAX],
}

/// The bits of [`TunnelKey::flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelFlags;

impl TunnelFlags {
    /// The outer header is IPv6.
    pub const IPV6: u8 = 0x01;
    /// The outer IPv4 header forbids fragmentation.
    pub const DF: u8 = 0x02;
    /// The outer UDP or GRE header has a checksum.
    pub const CSUM: u8 = 0x04;
    /// Geneve: the packet is for control, not data.
    pub const OAM: u8 = 0x08;
    /// Geneve: an option says that whoever does not know it must drop the packet.
    pub const CRIT: u8 = 0x10;
    /// GRE: there is a key.
    pub const KEY: u8 = 0x20;
    /// All that there are.
    pub const ALL: u8 = 0x3f;
}

/// All kinds.
pub(super) const KINDS: [TunnelKind; 4] = [
    TunnelKind::Vxlan,
    TunnelKind::VxlanGpe,
    TunnelKind::Geneve,
    TunnelKind::Gre,
];

impl Default for TunnelKey {
    /// Not tunnelled; as a mask, anything.
    fn default() -> Self {
        bytemuck::Zeroable::zeroed()
    }
}

impl TunnelKey {
    /// Number of 64-bit words in it.
    pub const WORDS: usize = size_of::<TunnelKey>() / 8;

    /// As words.
    #[inline]
    pub fn words(&self) -> &[u64; Self::WORDS] {
        bytemuck::cast_ref(self)
    }

    /// The number that stands for a kind in [`TunnelKey::kind`].
    pub fn number(kind: TunnelKind) -> u8 {
        1 + kind as u8
    }

    /// The kind; `None` if it is not tunnelled.
    pub fn tunnel_kind(&self) -> Option<TunnelKind> {
        let mut kinds = KINDS.into_iter();
        kinds.find(|kind| Self::number(*kind) == self.kind)
    }

    /// The options in use.
    pub fn options(&self) -> &[u8] {
        &self.options[..usize::from(self.options_len).min(GENEVE_OPTIONS_MAX)]
    }
}
