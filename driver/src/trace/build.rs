//! A frame out of the words of a match: what it leaves open is filled in with something plain.

use chanio_model::Mac;
use chanio_model::flow::{FlowKey, KeyFlags};
use chanio_model::wire::checksum::{self, pseudo_v4, pseudo_v6};
use chanio_model::wire::{eth_type, ip_proto};

/// Behind the transport header.
const PAYLOAD: [u8; 26] = *b"abcdefghijklmnopqrstuvwxyz";
const LOCAL: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];

/// A frame with these headers, checksums right. What is zero and cannot be (addresses, the time
/// to live, the EtherType) gets a value.
pub fn frame(key: &FlowKey) -> Vec<u8> {
    let mut frame = Vec::new();
    let or = |mac: Mac, other| if mac.is_zero() { other } else { mac };
    frame.extend(or(key.eth_dst, LOCAL[1]).0);
    frame.extend(or(key.eth_src, LOCAL[0]).0);
    tag(&mut frame, key.vlan, key.flags & KeyFlags::VLAN_AD != 0);
    tag(&mut frame, key.cvlan, key.flags & KeyFlags::CVLAN_AD != 0);
    let behind = if key.eth_type == 0 {
        eth_type::IPV4
    } else {
        key.eth_type
    };
    frame.extend(behind.to_be_bytes());
    match behind {
        eth_type::IPV4 => ipv4(&mut frame, key),
        eth_type::IPV6 => ipv6(&mut frame, key),
        eth_type::ARP | eth_type::RARP => arp(&mut frame, key),
        eth_type::MPLS_UC | eth_type::MPLS_MC => mpls(&mut frame, key),
        _ => frame.extend(PAYLOAD),
    }
    frame
}

fn tag(frame: &mut Vec<u8>, vlan: u16, is_ad: bool) {
    if vlan & FlowKey::VLAN_PRESENT != 0 {
        let tpid = if is_ad {
            eth_type::QINQ
        } else {
            eth_type::VLAN
        };
        frame.extend(tpid.to_be_bytes());
        frame.extend((vlan & !FlowKey::VLAN_PRESENT).to_be_bytes());
    }
}

/// The fragment offset in units of 8 bytes, and whether more follow.
fn fragment(key: &FlowKey) -> (u16, bool) {
    let is = |flag| key.flags & flag != 0;
    match (is(KeyFlags::FRAG), is(KeyFlags::FIRST_FRAG)) {
        (false, _) => (0, false),
        (true, true) => (0, true),
        (true, false) => (64, false),
    }
}

fn ttl(key: &FlowKey) -> u8 {
    if key.ip_ttl == 0 { 64 } else { key.ip_ttl }
}

fn proto(key: &FlowKey) -> u8 {
    if key.ip_proto == 0 {
        ip_proto::UDP
    } else {
        key.ip_proto
    }
}

fn ipv4(frame: &mut Vec<u8>, key: &FlowKey) {
    let v4 = |address: [u8; 16], other| match address {
        [0, 0, 0, 0, ..] => other,
        [a, b, c, d, ..] => [a, b, c, d],
    };
    let (src, dst) = (
        v4(key.ip_src, [192, 0, 2, 1]),
        v4(key.ip_dst, [192, 0, 2, 2]),
    );
    let (offset, more) = fragment(key);
    let sum = |len: u32| pseudo_v4(&src, &dst, proto(key), len);
    let l4 = transport(key, offset, sum);
    let start = frame.len();
    frame.extend([0x45, key.ip_tos]);
    frame.extend((20 + l4.len() as u16).to_be_bytes());
    frame.extend([0, 1]);
    frame.extend((offset | if more { 0x2000 } else { 0 }).to_be_bytes());
    frame.extend([ttl(key), proto(key), 0, 0]);
    frame.extend(src);
    frame.extend(dst);
    let sum = checksum::internet(&frame[start..]);
    frame[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(l4);
}

fn ipv6(frame: &mut Vec<u8>, key: &FlowKey) {
    let v6 = |address: [u8; 16], last| match address {
        [0, ..] if address == [0; 16] => {
            [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
        }
        given => given,
    };
    let (src, dst) = (v6(key.ip_src, 1), v6(key.ip_dst, 2));
    let (offset, more) = fragment(key);
    let is_fragment = key.flags & KeyFlags::FRAG != 0;
    let sum = |len: u32| pseudo_v6(&src, &dst, proto(key), len);
    let l4 = transport(key, offset, sum);
    let len = l4.len() as u16 + if is_fragment { 8 } else { 0 };
    let [hi, lo] = (0x6000 | u16::from(key.ip_tos) << 4).to_be_bytes();
    frame.extend([hi, lo, 0, 0]);
    frame.extend(len.to_be_bytes());
    // RFC 8200 §4.5: the fragment header is number 44.
    frame.extend([if is_fragment { 44 } else { proto(key) }, ttl(key)]);
    frame.extend(src);
    frame.extend(dst);
    if is_fragment {
        frame.extend([proto(key), 0]);
        frame.extend((offset << 3 | u16::from(more)).to_be_bytes());
        frame.extend([0, 0, 0, 1]);
    }
    frame.extend(l4);
}

/// The transport header and payload; of a later fragment, payload alone.
fn transport(key: &FlowKey, offset: u16, pseudo: impl Fn(u32) -> checksum::Sum) -> Vec<u8> {
    if offset != 0 {
        return PAYLOAD.to_vec();
    }
    let or = |port: u16, other: u16| if port == 0 { other } else { port };
    let ports = [
        or(key.l4_src, 49_152).to_be_bytes(),
        or(key.l4_dst, 7).to_be_bytes(),
    ]
    .concat();
    let (mut header, sum_at, with_pseudo) = match proto(key) {
        ip_proto::UDP => {
            let len = (8 + PAYLOAD.len() as u16).to_be_bytes();
            ([&ports[..], &len, &[0, 0]].concat(), Some(6), true)
        }
        ip_proto::TCP => {
            let flags = if key.tcp_flags == 0 {
                0x10
            } else {
                key.tcp_flags & 0xfff
            };
            let flags = (5 << 12 | flags).to_be_bytes();
            let numbers = [0, 0, 0, 1, 0, 0, 0, 1];
            let rest = [&flags[..], &[0xff, 0xff, 0, 0, 0, 0]].concat();
            ([&ports[..], &numbers, &rest].concat(), Some(16), true)
        }
        ip_proto::SCTP => ([&ports[..], &[0; 8]].concat(), None, false),
        icmp @ (ip_proto::ICMP | ip_proto::ICMPV6) => {
            let echo = if icmp == ip_proto::ICMP {
                (8, 0)
            } else {
                (128, 0)
            };
            let (kind, code) = if key.l4_src == 0 { echo } else { key.icmp() };
            let header = vec![kind, code, 0, 0, 0, 1, 0, 1];
            (header, Some(2), icmp == ip_proto::ICMPV6)
        }
        _ => (Vec::new(), None, false),
    };
    header.extend(PAYLOAD);
    if let Some(at) = sum_at {
        let start = if with_pseudo {
            pseudo(header.len() as u32)
        } else {
            checksum::Sum::new()
        };
        let sum = start.bytes(&header).finish();
        // RFC 768: a sum of zero is sent as all ones.
        let sum = if sum == 0 && proto(key) == ip_proto::UDP {
            0xffff
        } else {
            sum
        };
        header[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    header
}

/// RFC 826 for Ethernet and IPv4.
fn arp(frame: &mut Vec<u8>, key: &FlowKey) {
    frame.extend([0, 1, 8, 0, 6, 4, 0, key.ip_proto.max(1)]);
    for (ip, mac) in [key.arp_sender(), key.arp_target()] {
        frame.extend(mac.0);
        frame.extend(ip);
    }
}

/// RFC 3032 §2.1, as many entries as the key has up to the bottom of the stack.
fn mpls(frame: &mut Vec<u8>, key: &FlowKey) {
    const BOTTOM: u32 = 0x100;
    let mut depth = 0;
    loop {
        let entry = key.mpls(depth);
        depth += 1;
        let is_last = key.mpls(depth) == 0 || entry & BOTTOM != 0;
        let ttl = if entry & 0xff == 0 { 64 } else { 0 };
        let entry = entry | ttl | if is_last { BOTTOM } else { 0 };
        frame.extend(entry.to_be_bytes());
        if is_last {
            break;
        }
    }
    frame.extend(PAYLOAD);
}

#[cfg(test)]
mod tests {
    use super::*;
    use chanio_model::VportId;
    use chanio_model::flow::RuleSpec;
    use chanio_model::wire;

    #[test]
    fn a_match_covers_the_frame_built_from_it() {
        for text in [
            "eth_type ipv4",
            "src_mac 02:00:00:00:00:05 dst_mac ff:ff:ff:ff:ff:ff eth_type arp arp_op reply arp_sip 10.0.0.1 arp_tip 10.0.0.2",
            "vlan_id 5 vlan_prio 3 src_ip 10.0.0.1 dst_ip 10.0.0.2 ip_proto tcp src_port 5 dst_port 80 tcp_flags 0x2",
            "vlan_tpid 802.1ad vlan_id 7 cvlan_id 8 eth_type ipv4 ip_proto udp dst_port 53",
            "src_ip 2001:db8::7 ip_proto tcp dst_port 443 ip_ttl 3 ip_tos 0x20",
            "eth_type ipv6 ip_proto icmpv6 type 129 code 0",
            "eth_type ipv4 ip_proto icmp type 3 code 1",
            "eth_type ipv4 ip_proto sctp src_port 1 dst_port 2",
            "eth_type ipv4 ip_proto udp ip_flags frag/firstfrag",
            "eth_type ipv6 ip_proto udp ip_flags frag/nofirstfrag",
            "eth_type mpls_uc mpls_label 100 mpls_ttl 9 mpls_label@2 200",
            "eth_type 0x88b5",
        ] {
            let spec: RuleSpec = format!("{text} action drop").parse().unwrap();
            let built = frame(&spec.matches.value);
            let parsed = wire::parse(&built, built.len() as u32, VportId(1)).unwrap();
            let seen = parsed.key.masked(&spec.matches.mask);
            assert_eq!(seen, spec.matches.value, "{text}");
        }
    }
}
