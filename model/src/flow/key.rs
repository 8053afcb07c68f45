//! The fixed key that one parse of a packet yields and that every table looks up.

use crate::{Mac, VportId};

/// What the tables see of a packet. Also used as a mask: a zero bit is "any".
///
/// Plain data without padding, so that tables can mask, compare and hash it by words. All numbers
/// are in host order; addresses are in wire order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(8))]
pub struct FlowKey {
    /// Source address; IPv4 sits in the first four bytes, the rest zero.
    pub ip_src: [u8; 16],
    /// Destination address; IPv4 sits in the first four bytes, the rest zero.
    pub ip_dst: [u8; 16],
    /// Destination MAC.
    pub eth_dst: Mac,
    /// Source MAC.
    pub eth_src: Mac,
    /// The vport (its number) that the packet came in on.
    pub in_port: u32,
    /// EtherType behind all VLAN tags.
    pub eth_type: u16,
    /// Outer VLAN: 0 untagged, else `VLAN_PRESENT | vid` (12 bits of vid).
    pub vlan: u16,
    /// TCP, UDP or SCTP source port; 0 where there is none (or not the first fragment).
    pub l4_src: u16,
    /// TCP, UDP or SCTP destination port; as above.
    pub l4_dst: u16,
    /// IPv4 protocol, or the IPv6 next header behind extension headers.
    pub ip_proto: u8,
    /// Outer VLAN's priority (3 bits).
    pub vlan_prio: u8,
    /// Zero: keeps the key a whole number of words without hidden padding.
    pub reserved: [u8; 6],
}

impl FlowKey {
    /// Set in [`FlowKey::vlan`] when the packet carries a tag.
    pub const VLAN_PRESENT: u16 = 0x1000;
    /// Number of 64-bit words in a key.
    pub const WORDS: usize = size_of::<FlowKey>() / 8;

    /// The key as words, for masking, comparing and hashing.
    pub fn words(&self) -> &[u64; Self::WORDS] {
        bytemuck::cast_ref(self)
    }

    /// Bitwise and: the part of this key that `mask` looks at.
    pub fn masked(&self, mask: &FlowKey) -> FlowKey {
        let mut out = FlowKey::default();
        let (a, b) = (self.words(), mask.words());
        let words: &mut [u64; Self::WORDS] = bytemuck::cast_mut(&mut out);
        for i in 0..Self::WORDS {
            words[i] = a[i] & b[i];
        }
        out
    }

    /// Where the packet came in.
    pub fn vport(&self) -> VportId {
        VportId(self.in_port)
    }

    /// The VLAN id (0: untagged or priority tag).
    pub fn vid(&self) -> u16 {
        self.vlan & 0xfff
    }
}
