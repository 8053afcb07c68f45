//! The fixed key that one parse of a packet yields and that every table looks up.

use crate::{Mac, VportId};

/// What the tables see of a packet's own headers. Also used as a mask: a zero bit is "any".
///
/// Plain data without padding, one cache line, so that tables can mask, compare and hash it by
/// words. All numbers are in host order; addresses are in wire order. Headers that exclude each
/// other share their place: what the address fields hold is told by `eth_type`, what the port
/// fields hold by `ip_proto`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(8))]
pub struct FlowKey {
    /// Source address; IPv4 sits in the first four bytes, the rest zero. ARP: see
    /// [`FlowKey::arp_sender`]. MPLS: see [`FlowKey::mpls`].
    pub ip_src: [u8; 16],
    /// Destination address, as above. ARP: see [`FlowKey::arp_target`].
    pub ip_dst: [u8; 16],
    /// Destination MAC.
    pub eth_dst: Mac,
    /// Source MAC.
    pub eth_src: Mac,
    /// The vport (its number) that the packet came in on.
    pub in_port: u16,
    /// The group of ports that `in_port` shares its rules with (tc's shared block); 0: none.
    pub block: u16,
    /// EtherType behind all VLAN tags.
    pub eth_type: u16,
    /// Outer VLAN: 0 untagged, else `VLAN_PRESENT`, 12 bits of id, 3 bits of priority on top.
    pub vlan: u16,
    /// TCP, UDP or SCTP source port; ICMP: type, then code. 0 where there is none, and in a
    /// fragment (a flow dissector that stops at fragments, as flower's does, sees none either).
    pub l4_src: u16,
    /// TCP, UDP or SCTP destination port; as above.
    pub l4_dst: u16,
    /// Inner VLAN, as `vlan`.
    pub cvlan: u16,
    /// The 12 bits behind TCP's data offset.
    pub tcp_flags: u16,
    /// IPv4 protocol, or the IPv6 next header behind extension headers. ARP: the operation.
    pub ip_proto: u8,
    /// IPv4 type of service, IPv6 traffic class.
    pub ip_tos: u8,
    /// IPv4 time to live, IPv6 hop limit.
    pub ip_ttl: u8,
    /// Bits of [`KeyFlags`].
    pub flags: u8,
}

/// The bits of [`FlowKey::flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyFlags;

impl KeyFlags {
    /// Part of a fragmented IP packet.
    pub const FRAG: u8 = 0x01;
    /// The first part of one.
    pub const FIRST_FRAG: u8 = 0x02;
    /// The outer tag is an 802.1ad one (0x88a8).
    pub const VLAN_AD: u8 = 0x04;
    /// The inner tag is an 802.1ad one.
    pub const CVLAN_AD: u8 = 0x08;
    /// All that there are.
    pub const ALL: u8 = 0x0f;
}

/// How many MPLS label stack entries the key holds, as many as the kernel's dissector reads.
pub const MPLS_MAX: usize = 7;

impl FlowKey {
    /// Set in [`FlowKey::vlan`] when the packet carries a tag.
    pub const VLAN_PRESENT: u16 = 0x1000;
    /// The VLAN id's bits in [`FlowKey::vlan`].
    pub const VLAN_ID: u16 = 0x0fff;
    /// The priority's bits in [`FlowKey::vlan`].
    pub const VLAN_PRIO: u16 = 0xe000;
    /// Number of 64-bit words in a key.
    pub const WORDS: usize = size_of::<FlowKey>() / 8;

    /// The key as words, for masking, comparing and hashing.
    #[inline]
    pub fn words(&self) -> &[u64; Self::WORDS] {
        bytemuck::cast_ref(self)
    }

    /// The same to be written to.
    #[inline]
    pub fn words_mut(&mut self) -> &mut [u64; Self::WORDS] {
        bytemuck::cast_mut(self)
    }

    /// Bitwise and: the part of this key that `mask` looks at.
    #[inline]
    pub fn masked(&self, mask: &FlowKey) -> FlowKey {
        let mut out = *self;
        let words = out.words_mut().iter_mut().zip(mask.words());
        words.for_each(|(word, mask)| *word &= mask);
        out
    }

    /// What all packets of a flow have in common: all but TCP's flags, type of service and time
    /// to live.
    #[inline]
    pub fn of_flow(mut self) -> FlowKey {
        (self.tcp_flags, self.ip_tos, self.ip_ttl) = (0, 0, 0);
        self
    }

    /// Where the packet came in.
    #[inline]
    pub fn vport(&self) -> VportId {
        VportId(u32::from(self.in_port))
    }

    /// The VLAN id (0: untagged or priority tag).
    #[inline]
    pub fn vid(&self) -> u16 {
        self.vlan & Self::VLAN_ID
    }

    /// The outer tag's priority.
    #[inline]
    pub fn vlan_prio(&self) -> u8 {
        (self.vlan >> 13) as u8
    }

    /// What [`FlowKey::vlan`] is for a tag with this control information: the drop eligible bit
    /// gives its place to "present".
    #[inline]
    pub fn vlan_of_tci(tci: u16) -> u16 {
        tci | Self::VLAN_PRESENT
    }

    /// ICMP's type and code.
    pub fn icmp(&self) -> (u8, u8) {
        let [kind, code] = self.l4_src.to_be_bytes();
        (kind, code)
    }

    /// Sets ICMP's type and code.
    #[inline]
    pub fn set_icmp(&mut self, kind: u8, code: u8) {
        self.l4_src = u16::from_be_bytes([kind, code]);
    }

    /// ARP's sender: protocol and hardware address.
    pub fn arp_sender(&self) -> ([u8; 4], Mac) {
        arp_of(&self.ip_src)
    }

    /// ARP's target: protocol and hardware address.
    pub fn arp_target(&self) -> ([u8; 4], Mac) {
        arp_of(&self.ip_dst)
    }

    /// Sets ARP's sender.
    pub fn set_arp_sender(&mut self, ip: [u8; 4], mac: Mac) {
        self.ip_src = arp_to(ip, mac);
    }

    /// Sets ARP's target.
    pub fn set_arp_target(&mut self, ip: [u8; 4], mac: Mac) {
        self.ip_dst = arp_to(ip, mac);
    }

    /// MPLS label stack entry `depth` (0 is the top), as RFC 3032 §2.1 lays out its 32 bits; 0 if
    /// the packet has none so deep.
    pub fn mpls(&self, depth: usize) -> u32 {
        let (half, at) = match depth {
            0..4 => (&self.ip_src, depth * 4),
            4..MPLS_MAX => (&self.ip_dst, depth * 4 - 16),
            _ => return 0,
        };
        half[at..]
            .first_chunk()
            .map_or(0, |b| u32::from_be_bytes(*b))
    }

    /// Sets MPLS label stack entry `depth`; those deeper than [`MPLS_MAX`] have no place.
    pub fn set_mpls(&mut self, depth: usize, entry: u32) {
        let (half, at) = match depth {
            0..4 => (&mut self.ip_src, depth * 4),
            4..MPLS_MAX => (&mut self.ip_dst, depth * 4 - 16),
            _ => return,
        };
        half[at..at + 4].copy_from_slice(&entry.to_be_bytes());
    }
}

/// Bytes 0 to 3 the protocol address, 4 to 9 the hardware address.
fn arp_of(field: &[u8; 16]) -> ([u8; 4], Mac) {
    let [a, b, c, d, m0, m1, m2, m3, m4, m5, ..] = *field;
    ([a, b, c, d], Mac([m0, m1, m2, m3, m4, m5]))
}

fn arp_to([a, b, c, d]: [u8; 4], Mac([m0, m1, m2, m3, m4, m5]): Mac) -> [u8; 16] {
    [a, b, c, d, m0, m1, m2, m3, m4, m5, 0, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_places_give_back_what_was_put() {
        let mut key = FlowKey::default();
        for depth in 0..=MPLS_MAX {
            key.set_mpls(depth, 0x1234_5000 + depth as u32);
        }
        for depth in 0..MPLS_MAX {
            assert_eq!(key.mpls(depth), 0x1234_5000 + depth as u32);
        }
        assert_eq!(key.mpls(MPLS_MAX), 0);
        key.set_icmp(8, 3);
        assert_eq!(key.icmp(), (8, 3));
        let (ip, mac) = ([10, 0, 0, 1], Mac([2, 3, 4, 5, 6, 7]));
        key.set_arp_sender(ip, mac);
        key.set_arp_target([1; 4], Mac([9; 6]));
        assert_eq!((key.arp_sender(), key.arp_target().0), ((ip, mac), [1; 4]));
        key.vlan = FlowKey::vlan_of_tci(0xa005);
        assert_eq!((key.vid(), key.vlan_prio()), (5, 5));
    }

    #[test]
    fn a_key_is_one_cache_line() {
        assert_eq!(size_of::<FlowKey>(), 64);
    }
}
