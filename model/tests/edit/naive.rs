//! What each operation does, on a whole frame in a vector, every checksum computed anew.

use chanio_model::ct::NatRewrite;
use chanio_model::edit::*;
use std::net::IpAddr;

/// Where things are, found byte by byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Where {
    pub l3: usize,
    pub eth_type: u16,
    pub v4: bool,
    pub v6: bool,
    pub proto: u8,
    /// 0: none.
    pub l4: usize,
    pub end: usize,
    pub fragment: bool,
    pub later: bool,
}

pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from(bytes[at]) << 8 | u16::from(bytes[at + 1])
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at] = (value >> 8) as u8;
    bytes[at + 1] = value as u8;
}

pub fn find(frame: &[u8]) -> Where {
    let mut l3 = 14;
    while matches!(be16(frame, l3 - 2), 0x8100 | 0x88a8) {
        l3 += 4;
    }
    find_ip(frame, l3, be16(frame, l3 - 2))
}

fn find_ip(frame: &[u8], l3: usize, eth_type: u16) -> Where {
    let mut at = Where {
        l3,
        eth_type,
        v4: false,
        v6: false,
        proto: 0,
        l4: 0,
        end: 0,
        fragment: false,
        later: false,
    };
    let ip = &frame[l3..];
    if eth_type == 0x0800 && ip.len() >= 20 {
        at.v4 = true;
        at.proto = ip[9];
        at.end = l3 + usize::from(be16(ip, 2));
        at.fragment = be16(ip, 6) & 0x3fff != 0;
        at.later = be16(ip, 6) & 0x1fff != 0;
        at.l4 = l3 + usize::from(ip[0] & 15) * 4;
    } else if eth_type == 0x86dd && ip.len() >= 40 {
        at.v6 = true;
        at.proto = ip[6];
        at.end = l3 + 40 + usize::from(be16(ip, 4));
        let mut next = 40;
        while matches!(at.proto, 60 | 44) && !at.later {
            if at.proto == 44 {
                at.fragment |= be16(ip, next + 2) & 0xfff9 != 0;
                at.later = be16(ip, next + 2) & 0xfff8 != 0;
            }
            at.proto = ip[next];
            next += if at.fragment {
                8
            } else {
                (usize::from(ip[next + 1]) + 1) * 8
            };
        }
        at.l4 = l3 + next;
    }
    if at.later {
        at.l4 = 0;
    }
    at
}

/// RFC 1071, word by word.
fn sum(pieces: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = pieces.concat();
    let mut total = 0u32;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn pseudo(frame: &[u8], at: &Where) -> Vec<u8> {
    let mut out = if at.v4 {
        frame[at.l3 + 12..at.l3 + 20].to_vec()
    } else {
        frame[at.l3 + 8..at.l3 + 40].to_vec()
    };
    out.extend(((at.end - at.l4) as u32).to_be_bytes());
    out.extend([0, 0, 0, at.proto]);
    out
}

/// Where the transport's Internet checksum is, and whether there is a pseudo-header.
pub fn field(at: &Where) -> Option<(usize, bool)> {
    let (offset, pseudo) = match at.proto {
        6 => (16, true),
        17 | 33 | 136 => (6, true),
        58 if at.v6 => (2, true),
        1 | 2 if at.v4 => (2, false),
        _ => return None,
    };
    (at.l4 != 0).then_some((at.l4 + offset, pseudo))
}

/// What the transport's checksum is the complement of, without itself.
fn transport_sum(frame: &[u8], at: &Where) -> Option<u16> {
    let (field, with_pseudo) = field(at)?;
    let pseudo = if with_pseudo {
        pseudo(frame, at)
    } else {
        vec![]
    };
    let mut bytes = frame[at.l4..at.end].to_vec();
    bytes[field - at.l4..][..2].fill(0);
    Some(sum(&[&pseudo, &bytes]))
}

pub fn partial(frame: &[u8]) -> Option<u16> {
    let at = find(frame);
    let (_, with_pseudo) = field(&at)?;
    Some(if with_pseudo {
        sum(&[&pseudo(frame, &at)])
    } else {
        0
    })
}

pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

/// All checksums of the frame's own headers anew; UDP's only if `udp`.
pub fn checksums(frame: &mut [u8], udp: bool) {
    let at = find(frame);
    header_checksum(frame, &at);
    if at.fragment || at.l4 == 0 {
        return;
    }
    if at.proto == 132 {
        return sctp(frame, &at);
    }
    if at.proto == 17 && !udp {
        return;
    }
    if let (Some((field, _)), Some(sum)) = (field(&at), transport_sum(frame, &at)) {
        let sum = match at.proto {
            136 => match udplite_sum(frame, &at) {
                Some(sum) => sum,
                None => return put16(frame, field, 0),
            },
            _ => sum,
        };
        let sum = if at.proto == 17 && !sum == 0 {
            0xffff
        } else {
            !sum
        };
        put16(frame, field, sum);
    }
}

/// Over what the length field says; nothing if that is not a number that it can be.
fn udplite_sum(frame: &[u8], at: &Where) -> Option<u16> {
    let len = at.end - at.l4;
    let covered = match usize::from(be16(frame, at.l4 + 4)) {
        0 => len,
        n if (8..=len).contains(&n) => n,
        _ => return None,
    };
    let mut bytes = frame[at.l4..at.l4 + covered].to_vec();
    bytes[6..8].fill(0);
    Some(sum(&[&pseudo(frame, at), &bytes]))
}

fn header_checksum(frame: &mut [u8], at: &Where) {
    if at.v4 {
        put16(frame, at.l3 + 10, 0);
        let end = at.l3 + usize::from(frame[at.l3] & 15) * 4;
        let value = !sum(&[&frame[at.l3..end]]);
        put16(frame, at.l3 + 10, value);
    }
}

fn sctp(frame: &mut [u8], at: &Where) {
    frame[at.l4 + 8..at.l4 + 12].fill(0);
    let crc = crc32c(&frame[at.l4..at.end]);
    frame[at.l4 + 8..at.l4 + 12].copy_from_slice(&crc.to_le_bytes());
}

/// Has the checksums follow a change from `old`: as if the bytes of a datagram that a fragment
/// does not have were added to it.
fn follow(old: &[u8], frame: &mut [u8]) {
    let at = find(frame);
    header_checksum(frame, &at);
    if at.l4 == 0 {
        return;
    }
    if at.proto == 132 {
        if !at.fragment {
            sctp(frame, &at);
        }
        return;
    }
    if let (Some((field, _)), Some(before), Some(after)) = (
        field(&at),
        transport_sum(old, &at),
        transport_sum(frame, &at),
    ) {
        let checksum = be16(old, field);
        if at.proto == 17 && checksum == 0 {
            return;
        }
        // What the unseen bytes add up to.
        let unseen = sum(&[&(!checksum).to_be_bytes(), &(!before).to_be_bytes()]);
        let new = !sum(&[&after.to_be_bytes(), &unseen.to_be_bytes()]);
        put16(
            frame,
            field,
            if at.proto == 17 && new == 0 {
                0xffff
            } else {
                new
            },
        );
    }
}

fn set_bits(frame: &mut [u8], bit: usize, len: usize, change: FieldChange) {
    let get = |frame: &[u8], i: usize| frame[(bit + i) / 8] >> (7 - (bit + i) % 8) & 1;
    let old = (0..len).fold(0u128, |v, i| v << 1 | u128::from(get(frame, i)));
    let new = match change {
        FieldChange::Set { value, mask } => old & !mask | value & mask,
        FieldChange::Add(n) => (old + u128::from(n)) % (1 << len.min(64)),
    };
    for i in 0..len {
        let at = (bit + i) / 8;
        let shift = 7 - (bit + i) % 8;
        frame[at] = frame[at] & !(1 << shift) | ((new >> (len - 1 - i) & 1) as u8) << shift;
    }
}

pub fn edit(frame: &mut [u8], edit: &FieldEdit) {
    let at = find(frame);
    let port = |proto: u8, offset: usize| {
        (at.l4 != 0 && at.proto == proto && at.l4 + offset + 2 <= frame.len())
            .then_some((at.l4 + offset) * 8)
    };
    let v4 = |bits: usize| at.v4.then_some(at.l3 * 8 + bits);
    let v6 = |bits: usize| at.v6.then_some(at.l3 * 8 + bits);
    let bit = match edit.field {
        Field::EthDst => Some(0),
        Field::EthSrc => Some(48),
        Field::Ipv4Tos => v4(8),
        Field::Ipv4Ttl => v4(64),
        Field::Ipv4Src => v4(96),
        Field::Ipv4Dst => v4(128),
        Field::Ipv6TrafficClass => v6(4),
        Field::Ipv6FlowLabel => v6(12),
        Field::Ipv6HopLimit => v6(56),
        Field::Ipv6Src => v6(64),
        Field::Ipv6Dst => v6(192),
        Field::TcpSrc => port(6, 0),
        Field::TcpDst => port(6, 2),
        Field::UdpSrc => port(17, 0),
        Field::UdpDst => port(17, 2),
        Field::SctpSrc => port(132, 0),
        Field::SctpDst => port(132, 2),
    };
    if let Some(bit) = bit {
        let old = frame.to_vec();
        set_bits(frame, bit, edit.field.bits() as usize, edit.change);
        follow(&old, frame);
    }
}

pub fn vlan_push(frame: &mut Vec<u8>, tag: VlanTag) {
    let tci = u16::from(tag.prio) << 13 | tag.vid;
    let bytes = [tag.proto.eth_type().to_be_bytes(), tci.to_be_bytes()].concat();
    frame.splice(12..12, bytes);
}

fn tagged(frame: &[u8]) -> bool {
    matches!(be16(frame, 12), 0x8100 | 0x88a8)
}

pub fn vlan_pop(frame: &mut Vec<u8>) {
    if tagged(frame) {
        frame.drain(12..16);
    }
}

pub fn vlan_modify(frame: &mut [u8], to: VlanModify) {
    if tagged(frame) {
        let old = be16(frame, 14);
        let prio = to.prio.map_or(old >> 13, u16::from);
        put16(frame, 12, to.proto.eth_type());
        put16(frame, 14, prio << 13 | old & 0x1000 | to.vid);
    }
}

/// Only the first `known` bytes can be looked at: padding behind them is in the way of a sum.
pub fn csum(frame: &mut [u8], known: usize) {
    let at = find(frame);
    let udp = at.proto == 17 && at.l4 != 0 && !at.fragment;
    let padded = at.end > known && at.end != frame.len() && at.proto != 136;
    if padded || at.proto == 33 || udp && at.v4 && be16(frame, at.l4 + 6) == 0 {
        header_checksum(frame, &at);
    } else {
        checksums(frame, true);
    }
}

/// Outer headers in front of the frame. `port` and `ident` are the ones that were chosen.
pub fn tunnel_set(frame: &mut Vec<u8>, set: &TunnelSet, port: u16, ident: u16) {
    let at = find(frame);
    let (tos, ttl) = if at.v4 {
        (frame[at.l3 + 1], frame[at.l3 + 8])
    } else if at.v6 {
        (frame[at.l3] << 4 | frame[at.l3 + 1] >> 4, frame[at.l3 + 7])
    } else {
        (0, 64)
    };
    let bare = set.payload == Payload::Ip;
    let inside = if bare {
        frame[at.l3..].to_vec()
    } else {
        frame.clone()
    };
    let inside_type = if bare { at.eth_type } else { 0x6558 };
    let gre = set.kind == TunnelKind::Gre;

    let mut l4 = Vec::new();
    if gre {
        let mut flags = 0u16;
        flags |= if set.csum { 0x8000 } else { 0 };
        flags |= if set.key.is_some() { 0x2000 } else { 0 };
        l4.extend(flags.to_be_bytes());
        l4.extend(inside_type.to_be_bytes());
        l4.extend(vec![0; if set.csum { 4 } else { 0 }]);
        l4.extend(
            set.key
                .map(|k| k.to_be_bytes().to_vec())
                .unwrap_or_default(),
        );
    } else {
        let header = match set.kind {
            TunnelKind::Vxlan => {
                let gbp = set.gbp.unwrap_or(0);
                let first = 0x0800_0000 | gbp | if gbp != 0 { 0x8000_0000 } else { 0 };
                first.to_be_bytes().to_vec()
            }
            TunnelKind::VxlanGpe => {
                let next = [(0x6558, 3), (0x0800, 1), (0x86dd, 2)];
                let next = next.iter().find(|(t, _)| *t == inside_type).unwrap().1;
                vec![0x0c, 0, 0, next]
            }
            _ => {
                let mut header = vec![(set.options.len() / 4) as u8, 0];
                header.extend(inside_type.to_be_bytes());
                header
            }
        };
        let len = 16 + set.options.len() + inside.len();
        for word in [port, set.dst_port, len as u16, 0] {
            l4.extend(word.to_be_bytes());
        }
        l4.extend(header);
        l4.extend((set.key.unwrap_or(0) << 8).to_be_bytes());
        l4.extend(set.options.iter());
    }
    l4.extend(inside);

    let outer_tos = set.tos.unwrap_or(tos) & 0xfc | if tos & 3 == 3 { 2 } else { tos & 3 };
    let outer_ttl = match set.ttl {
        0 if gre => ttl,
        0 => 64,
        ttl => ttl,
    };
    let proto = if gre { 47 } else { 17 };
    let mut out = [set.eth_dst.0, set.eth_src.0].concat();
    match (set.src, set.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            out.extend([8, 0, 0x45, outer_tos]);
            out.extend(((20 + l4.len()) as u16).to_be_bytes());
            out.extend(ident.to_be_bytes());
            out.extend([if set.df { 0x40 } else { 0 }, 0, outer_ttl, proto, 0, 0]);
            out.extend(src.octets());
            out.extend(dst.octets());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            out.extend([0x86, 0xdd]);
            let first = 0x6000_0000 | u32::from(outer_tos) << 20 | set.flow_label;
            out.extend(first.to_be_bytes());
            out.extend((l4.len() as u16).to_be_bytes());
            out.extend([proto, outer_ttl]);
            out.extend(src.octets());
            out.extend(dst.octets());
        }
        _ => unreachable!(),
    }
    let gre_at = out.len();
    out.extend(l4);
    if gre && set.csum {
        let value = !sum(&[&out[gre_at..]]);
        put16(&mut out, gre_at + 4, value);
    }
    checksums(&mut out, set.csum);
    *frame = out;
}

/// Takes the tunnel off that [`tunnel_set`] has put on, and says whether the packet survives.
pub fn tunnel_unset(frame: &mut Vec<u8>, set: &TunnelSet) -> bool {
    let at = find(frame);
    let tos = if at.v4 {
        frame[at.l3 + 1]
    } else {
        frame[at.l3] << 4 | frame[at.l3 + 1] >> 4
    };
    let len = match set.kind {
        TunnelKind::Gre => 4 + if set.csum { 4 } else { 0 } + if set.key.is_some() { 4 } else { 0 },
        _ => 16 + set.options.len(),
    };
    let inner_type = match set.payload {
        Payload::Ip if frame[at.l4 + len] >> 4 == 4 => 0x0800u16,
        Payload::Ip => 0x86dd,
        Payload::Ethernet => 0,
    };
    let mut inside = frame[at.l4 + len..at.end].to_vec();
    if set.payload == Payload::Ip {
        let mut header = vec![0; 12];
        header.extend(inner_type.to_be_bytes());
        inside.splice(..0, header);
    }
    let inner = find(&inside);
    let old = inside.clone();
    let inner_tos = match (inner.v4, inner.v6) {
        (true, _) => inside[inner.l3 + 1],
        (_, true) => inside[inner.l3] << 4 | inside[inner.l3 + 1] >> 4,
        _ => {
            *frame = inside;
            return true;
        }
    };
    let ecn = match (tos & 3, inner_tos & 3) {
        (3, 0) => return false,
        (3, _) => 3,
        (1, 2) => 1,
        (_, ecn) => ecn,
    };
    if ecn != inner_tos & 3 {
        if inner.v4 {
            inside[inner.l3 + 1] = inner_tos & 0xfc | ecn;
        } else {
            inside[inner.l3 + 1] = inside[inner.l3 + 1] & 0xcf | ecn << 4;
        }
        follow(&old, &mut inside);
    }
    *frame = inside;
    true
}

fn write_end(frame: &mut [u8], at: &Where, src: bool, address: &[u8; 16], port: u16, ports: bool) {
    let (offset, len) = match (at.v4, src) {
        (true, true) => (12, 4),
        (true, false) => (16, 4),
        (false, true) => (8, 16),
        (false, false) => (24, 16),
    };
    frame[at.l3 + offset..][..len].copy_from_slice(&address[..len]);
    if at.l4 == 0 || !ports {
        return;
    }
    match at.proto {
        6 | 17 | 33 | 132 | 136 => put16(frame, at.l4 + if src { 0 } else { 2 }, port),
        1 if matches!(frame[at.l4], 0 | 8 | 13..=18) => put16(frame, at.l4 + 4, port),
        58 if matches!(frame[at.l4], 128 | 129) => put16(frame, at.l4 + 4, port),
        _ => {}
    }
}

pub fn nat(frame: &mut [u8], rewrite: &NatRewrite) {
    let at = find(frame);
    if !at.v4 && !at.v6 {
        return;
    }
    let error = at.l4 != 0
        && match at.proto {
            1 if at.v4 => matches!(frame[at.l4], 3 | 4 | 5 | 11 | 12),
            58 => frame[at.l4] < 128,
            1 => matches!(frame[at.l4], 3 | 4 | 5 | 11 | 12),
            _ => false,
        };
    for (src, end) in [(true, rewrite.src), (false, rewrite.dst)] {
        let Some(end) = end else { continue };
        let old = frame.to_vec();
        write_end(frame, &at, src, &end.address, end.port, !error);
        if error {
            // The embedded packet, as a frame of its own; its checksums follow if it has them.
            let eth_type: u16 = if at.v4 { 0x0800 } else { 0x86dd };
            let l3 = at.l4 + 8;
            let inside = find_ip(frame, l3, eth_type);
            let before = frame[l3..at.end].to_vec();
            write_end(frame, &inside, !src, &end.address, end.port, true);
            let mut alone = [
                vec![0; 12],
                eth_type.to_be_bytes().to_vec(),
                frame[l3..at.end].to_vec(),
            ]
            .concat();
            let was = [vec![0; 12], eth_type.to_be_bytes().to_vec(), before].concat();
            let min = if inside.proto == 6 { 20 } else { 8 };
            if at.end >= inside.l4 + min {
                follow_quoted(&was, &mut alone);
            } else {
                header_checksum(&mut alone, &find(&was));
            }
            frame[l3..at.end].copy_from_slice(&alone[14..]);
        }
        follow(&old, frame);
    }
}

/// As [`follow`], for a packet that may be cut off anywhere behind its transport header.
fn follow_quoted(old: &[u8], frame: &mut Vec<u8>) {
    let len = frame.len();
    let end = find(old).end.max(len);
    // What is missing is the same before and after.
    let mut old = old.to_vec();
    old.resize(end, 0);
    frame.resize(end, 0);
    follow(&old, frame);
    frame.truncate(len);
}
