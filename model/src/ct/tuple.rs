//! What identifies one direction of a connection.

use crate::wire::ip_proto;
use std::net::IpAddr;

/// One direction of a connection: from whom to whom, in which zone.
///
/// Plain data without padding, so that it can be hashed and compared by words. Addresses in wire
/// order, IPv4 in the first four bytes; numbers in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(8))]
pub struct Tuple {
    /// Source address.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
    /// Source port; ICMP: the identifier.
    pub src_port: u16,
    /// Destination port; ICMP: the type, then the code.
    pub dst_port: u16,
    /// Connections of different zones have nothing to do with each other.
    pub zone: u16,
    /// IP protocol.
    pub proto: u8,
    /// 4 or 6.
    pub version: u8,
}

impl Tuple {
    const WORDS: usize = size_of::<Tuple>() / 8;

    /// The tuple as words.
    #[inline]
    pub(super) fn words(&self) -> impl Iterator<Item = u64> + '_ {
        let words: &[u64; Self::WORDS] = bytemuck::cast_ref(self);
        words.iter().copied()
    }

    /// Whether `src_port` is an ICMP identifier and `dst_port` type and code.
    #[inline]
    pub(super) fn is_icmp(&self) -> bool {
        matches!(self.proto, ip_proto::ICMP | ip_proto::ICMPV6)
    }

    /// What a reply looks like; `None` for ICMP that nothing answers.
    pub(super) fn inverted(&self) -> Option<Self> {
        let (src_port, dst_port) = if self.is_icmp() {
            let [icmp_type, code] = self.dst_port.to_be_bytes();
            let answer = match self.proto {
                ip_proto::ICMP => super::icmp::answer_v4(icmp_type)?,
                _ => super::icmp::answer_v6(icmp_type)?,
            };
            (self.src_port, u16::from_be_bytes([answer, code]))
        } else {
            (self.dst_port, self.src_port)
        };
        Some(Self {
            src: self.dst,
            dst: self.src,
            src_port,
            dst_port,
            ..*self
        })
    }

    /// Source address as the standard library has it.
    pub fn src_ip(&self) -> IpAddr {
        ip(self.version, &self.src)
    }

    /// Destination address, likewise.
    pub fn dst_ip(&self) -> IpAddr {
        ip(self.version, &self.dst)
    }
}

fn ip(version: u8, address: &[u8; 16]) -> IpAddr {
    match (version, address.first_chunk::<4>()) {
        (4, Some(v4)) => IpAddr::from(*v4),
        _ => IpAddr::from(*address),
    }
}

/// An address as tuples have it, and its version.
pub(super) fn octets(address: IpAddr) -> ([u8; 16], u8) {
    match address {
        IpAddr::V4(v4) => {
            let mut out = [0; 16];
            out[..4].copy_from_slice(&v4.octets());
            (out, 4)
        }
        IpAddr::V6(v6) => (v6.octets(), 6),
    }
}
