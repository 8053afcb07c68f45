//! Frames with right lengths and checksums.

use crate::wire::checksum::{Sum, pseudo_v4, pseudo_v6};
use crate::wire::{eth_type, ip_proto};

/// An end of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// In wire order, IPv4 in the first four bytes.
    pub address: [u8; 16],
    /// 4 or 6.
    pub version: u8,
    /// Port or ICMP identifier.
    pub port: u16,
}

impl End {
    /// An IPv4 end.
    pub fn v4(address: [u8; 4], port: u16) -> Self {
        let mut full = [0; 16];
        full[..4].copy_from_slice(&address);
        Self {
            address: full,
            version: 4,
            port,
        }
    }

    /// An IPv6 end: `fd00::` and these last four bytes.
    pub fn v6(last: [u8; 4], port: u16) -> Self {
        let mut address = [0; 16];
        address[0] = 0xfd;
        address[12..].copy_from_slice(&last);
        Self {
            address,
            version: 6,
            port,
        }
    }
}

/// Where a protocol keeps its checksum, and whether the addresses count.
fn checksum_place(proto: u8) -> Option<(usize, bool)> {
    match proto {
        ip_proto::TCP => Some((16, true)),
        ip_proto::UDP | ip_proto::UDPLITE => Some((6, true)),
        ip_proto::ICMP => Some((2, false)),
        ip_proto::ICMPV6 => Some((2, true)),
        _ => None,
    }
}

/// An IP packet around this transport header and payload, whose checksum is put in.
pub fn packet(src: &End, dst: &End, proto: u8, l4: &[u8]) -> Vec<u8> {
    let mut l4 = l4.to_vec();
    let len = l4.len() as u32;
    let [s4, d4] = [&src.address, &dst.address].map(|full| [full[0], full[1], full[2], full[3]]);
    if let Some((at, with_addresses)) = checksum_place(proto)
        && l4.len() >= at + 2
    {
        l4[at..at + 2].fill(0);
        let pseudo = match (with_addresses, src.version) {
            (false, _) => Sum::new(),
            (true, 4) => pseudo_v4(&s4, &d4, proto, len),
            (true, _) => pseudo_v6(&src.address, &dst.address, proto, len),
        };
        let sum = match pseudo.bytes(&l4).finish() {
            0 if proto != ip_proto::TCP => 0xffff,
            sum => sum,
        };
        l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let mut out = Vec::new();
    if src.version == 4 {
        let total = (20 + l4.len()) as u16;
        out.extend([0x45, 0]);
        out.extend(total.to_be_bytes());
        out.extend([0x12, 0x34, 0, 0, 64, proto, 0, 0]);
        out.extend(s4);
        out.extend(d4);
        let sum = Sum::new().bytes(&out).finish();
        out[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        out.extend([0x60, 0, 0, 0]);
        out.extend((l4.len() as u16).to_be_bytes());
        out.extend([proto, 64]);
        out.extend(src.address);
        out.extend(dst.address);
    }
    out.extend(l4);
    out
}

/// The Ethernet frame around an IP packet.
pub(super) fn ethernet(packet: &[u8]) -> Vec<u8> {
    let kind = match packet[0] >> 4 {
        4 => eth_type::IPV4,
        _ => eth_type::IPV6,
    };
    let mut out = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    out.extend(kind.to_be_bytes());
    out.extend(packet);
    out
}

/// A UDP header and payload.
pub(super) fn udp(src: u16, dst: u16, payload: usize) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(src.to_be_bytes());
    out.extend(dst.to_be_bytes());
    out.extend(((8 + payload) as u16).to_be_bytes());
    out.extend([0, 0]);
    out.extend((0..payload).map(|i| i as u8));
    out
}
