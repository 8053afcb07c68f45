//! From the first bytes of a frame to its key.

use super::ethernet::{ETH_HEADER_LEN, VLAN_TAG_LEN, be16, is_vlan};
use super::{arp, eth_type, ip_proto, ipv4::Ipv4, ipv6::Ipv6, l4};
use crate::flow::{FlowKey, KeyFlags, MPLS_MAX};
use crate::{DropReason, VportId};

/// How much of a frame the parser may look at, in bytes: two tags, IPv6 with some extension
/// headers and TCP with all options fit.
pub const HEAD_LEN: usize = 192;

/// What one look at a frame yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What the tables look up.
    pub key: FlowKey,
    /// Where the Ethernet header and its tags end, in bytes from the start of the frame.
    pub l3_offset: u16,
    /// Where the transport header begins; 0 if there is none that can be read: not IP, cut off,
    /// or a later fragment.
    pub l4_offset: u16,
    /// Part of a fragmented IP packet, the first part too.
    pub fragment: bool,
}

/// Parses a frame of `frame_len` bytes that came in on `in_port`, of which `head` holds the first
/// ones (all of it, or [`HEAD_LEN`] bytes and more).
///
/// Only a frame whose Ethernet header is cut off (less than 14 bytes, or 18 with a VLAN tag) is
/// refused, as `Runt`. Behind that header odd and cut-off ones leave their fields zero: the frame
/// is switched by what is known of it.
#[inline(always)]
pub fn parse(head: &[u8], frame_len: u32, in_port: VportId) -> Result<Parsed, DropReason> {
    let head = &head[..head
        .len()
        .min(frame_len as usize)
        .min(usize::from(u16::MAX))];
    let eth: &[u8; ETH_HEADER_LEN] = head.first_chunk().ok_or(DropReason::Runt)?;
    let mut l2 = L2 {
        eth_type: u16::from_be_bytes([eth[12], eth[13]]),
        vlan: 0,
        cvlan: 0,
        flags: 0,
        len: ETH_HEADER_LEN,
    };
    if is_vlan(l2.eth_type) {
        l2 = parse_tags(l2.eth_type, head).ok_or(DropReason::Runt)?;
    }
    let l3 = head.get(l2.len..).unwrap_or_default();
    let net = match l2.eth_type {
        eth_type::IPV4 => parse_ipv4(l3),
        eth_type::IPV6 => parse_ipv6(l3),
        other => parse_other(other, l3),
    };
    let l4 = match l3.get(net.l4.unwrap_or(usize::MAX)..) {
        Some(l4) if !net.fragment => parse_l4(net.proto, l4),
        _ => L4::default(),
    };
    Ok(Parsed {
        key: assemble(eth, in_port, &l2, &net, l4),
        l3_offset: l2.len as u16,
        l4_offset: net.l4.map_or(0, |offset| (l2.len + offset) as u16),
        fragment: net.fragment,
    })
}

/// The key, made word by word: whoever reads it next does so by words too, and would have to wait
/// for a word whose parts were stored one by one.
#[inline(always)]
fn assemble(eth: &[u8; ETH_HEADER_LEN], in_port: VportId, l2: &L2, net: &Net, l4: L4) -> FlowKey {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = *eth;
    let [p0, p1] = (in_port.0 as u16).to_ne_bytes();
    let [t0, t1] = l2.eth_type.to_ne_bytes();
    let [v0, v1] = l2.vlan.to_ne_bytes();
    let [a0, a1] = l4.src.to_ne_bytes();
    let [b0, b1] = l4.dst.to_ne_bytes();
    let [c0, c1] = l2.cvlan.to_ne_bytes();
    let [f0, f1] = l4.tcp_flags.to_ne_bytes();
    let words: [u64; FlowKey::WORDS] = [
        net.src[0],
        net.src[1],
        net.dst[0],
        net.dst[1],
        u64::from_ne_bytes([d0, d1, d2, d3, d4, d5, s0, s1]),
        u64::from_ne_bytes([s2, s3, s4, s5, p0, p1, 0, 0]),
        u64::from_ne_bytes([t0, t1, v0, v1, a0, a1, b0, b1]),
        u64::from_ne_bytes([
            c0,
            c1,
            f0,
            f1,
            net.proto,
            net.tos,
            net.ttl,
            l2.flags | net.flags,
        ]),
    ];
    bytemuck::cast(words)
}

/// The Ethernet header and its tags.
#[derive(Clone, Copy)]
struct L2 {
    eth_type: u16,
    /// As [`FlowKey::vlan`].
    vlan: u16,
    cvlan: u16,
    /// As [`FlowKey::flags`].
    flags: u8,
    len: usize,
}

/// What a network header yields: addresses, and what shares their place, as words of the key.
#[derive(Clone, Copy, Default)]
struct Net {
    src: [u64; 2],
    dst: [u64; 2],
    proto: u8,
    tos: u8,
    ttl: u8,
    /// As [`FlowKey::flags`].
    flags: u8,
    fragment: bool,
    /// Where the transport header begins, from the start of the network header.
    l4: Option<usize>,
}

/// What a transport header yields.
#[derive(Clone, Copy, Default)]
struct L4 {
    src: u16,
    dst: u16,
    tcp_flags: u16,
}

/// The tags: two at most, a third is no header we know. `None` if the outer one is cut off.
fn parse_tags(outer: u16, head: &[u8]) -> Option<L2> {
    let flag = |tpid: u16, flag: u8| if tpid == eth_type::QINQ { flag } else { 0 };
    let mut at = ETH_HEADER_LEN;
    let (tci, behind) = (be16(head, at)?, be16(head, at + 2)?);
    at += VLAN_TAG_LEN;
    let mut l2 = L2 {
        eth_type: behind,
        vlan: FlowKey::vlan_of_tci(tci),
        cvlan: 0,
        flags: flag(outer, KeyFlags::VLAN_AD),
        len: at,
    };
    if is_vlan(behind)
        && let (Some(tci), Some(innermost)) = (be16(head, at), be16(head, at + 2))
    {
        l2.len = at + VLAN_TAG_LEN;
        l2.cvlan = FlowKey::vlan_of_tci(tci);
        l2.flags |= flag(behind, KeyFlags::CVLAN_AD);
        l2.eth_type = innermost;
    }
    Some(l2)
}

#[inline(always)]
fn parse_ipv4(l3: &[u8]) -> Net {
    let Some(ip) = Ipv4::parse(l3) else {
        return Net::default();
    };
    let word = |[a, b, c, d]: [u8; 4]| u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]);
    let (fragment, later) = (ip.is_fragment(), ip.is_later_fragment());
    Net {
        src: [word(*ip.src()), 0],
        dst: [word(*ip.dst()), 0],
        proto: ip.proto(),
        tos: ip.tos(),
        ttl: ip.ttl(),
        flags: fragment_flags(fragment, later),
        fragment,
        l4: (!later).then(|| ip.header_len()),
    }
}

#[inline(always)]
fn parse_ipv6(l3: &[u8]) -> Net {
    let Some(ip) = Ipv6::parse(l3) else {
        return Net::default();
    };
    let upper = ip.upper();
    Net {
        src: bytemuck::cast(*ip.src()),
        dst: bytemuck::cast(*ip.dst()),
        proto: upper.proto,
        tos: ip.traffic_class(),
        ttl: ip.hop_limit(),
        flags: fragment_flags(upper.fragment, !upper.reached),
        fragment: upper.fragment,
        l4: upper.reached.then_some(upper.offset),
    }
}

#[inline(always)]
fn fragment_flags(fragment: bool, later: bool) -> u8 {
    match (fragment, later) {
        (false, _) => 0,
        (true, false) => KeyFlags::FRAG | KeyFlags::FIRST_FRAG,
        (true, true) => KeyFlags::FRAG,
    }
}

/// Neither kind of IP: what shares the addresses' place.
#[cold]
fn parse_other(eth_type: u16, l3: &[u8]) -> Net {
    let mut key = FlowKey::default();
    match eth_type {
        eth_type::ARP | eth_type::RARP => arp::fill(l3, &mut key),
        eth_type::MPLS_UC | eth_type::MPLS_MC => fill_mpls(l3, &mut key),
        _ => {}
    }
    Net {
        src: bytemuck::cast(key.ip_src),
        dst: bytemuck::cast(key.ip_dst),
        proto: key.ip_proto,
        ..Net::default()
    }
}

/// Label stack entries up to the bottom of the stack (RFC 3032 §2.1).
fn fill_mpls(l3: &[u8], key: &mut FlowKey) {
    const BOTTOM: u32 = 0x100;
    for (depth, entry) in l3.chunks_exact(4).take(MPLS_MAX).enumerate() {
        let entry = entry.first_chunk().map_or(0, |b| u32::from_be_bytes(*b));
        key.set_mpls(depth, entry);
        if entry & BOTTOM != 0 {
            break;
        }
    }
}

#[inline(always)]
fn parse_l4(proto: u8, l4: &[u8]) -> L4 {
    match proto {
        ip_proto::TCP | ip_proto::UDP | ip_proto::SCTP => {
            let (src, dst) = l4::ports(l4).unwrap_or_default();
            let tcp_flags = if proto == ip_proto::TCP {
                l4::tcp_flags_of(l4)
            } else {
                0
            };
            L4 {
                src,
                dst,
                tcp_flags,
            }
        }
        ip_proto::ICMP | ip_proto::ICMPV6 => {
            let src = l4::icmp(l4).unwrap_or_default();
            L4 {
                src,
                ..L4::default()
            }
        }
        _ => L4::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mac;
    use crate::testing::FrameSpec;
    use proptest::prelude::*;

    const PORT: VportId = VportId(9);

    fn parse_all(frame: &[u8]) -> Result<Parsed, DropReason> {
        parse(frame, frame.len() as u32, PORT)
    }

    #[test]
    fn only_a_cut_ethernet_header_is_refused() {
        let mut frame = [0u8; 60];
        assert_eq!(parse_all(&frame[..13]), Err(DropReason::Runt));
        assert_eq!(
            parse(&frame, 13, PORT),
            Err(DropReason::Runt),
            "the frame, not the buffer"
        );
        let parsed = parse_all(&frame[..14]).unwrap();
        assert_eq!((parsed.l3_offset, parsed.l4_offset), (14, 0));
        frame[12] = 0x81;
        assert_eq!(
            parse_all(&frame[..17]),
            Err(DropReason::Runt),
            "the tag belongs to it"
        );
        assert_eq!(
            parse_all(&frame[..18]).unwrap().key.vlan,
            FlowKey::VLAN_PRESENT
        );
        // A second tag that is cut off is an EtherType like any other.
        frame[16] = 0x81;
        let parsed = parse_all(&frame[..21]).unwrap();
        assert_eq!(
            (parsed.key.eth_type, parsed.l3_offset),
            (eth_type::VLAN, 18)
        );
        // A third one is payload.
        frame[20] = 0x81;
        let parsed = parse_all(&frame).unwrap();
        assert_eq!(
            (parsed.key.eth_type, parsed.l3_offset),
            (eth_type::VLAN, 22)
        );
    }

    #[test]
    fn fragments() {
        let spec = FrameSpec {
            fragment: true,
            ..FrameSpec::udp4(100)
        };
        let mut frame = spec.build();
        let first = parse_all(&frame).unwrap();
        assert!(first.fragment);
        assert_eq!((first.key.l4_dst, first.l4_offset), (0, 34));
        assert_eq!(first.key.flags, KeyFlags::FRAG | KeyFlags::FIRST_FRAG);
        frame[21] = 5;
        let later = parse_all(&frame).unwrap();
        assert!(later.fragment);
        assert_eq!(later.key.flags, KeyFlags::FRAG);
        assert_eq!(
            (later.key.l4_src, later.key.l4_dst, later.l4_offset),
            (0, 0, 0)
        );
        assert_eq!(later.key.ip_proto, ip_proto::UDP);
    }

    fn spec() -> impl Strategy<Value = FrameSpec> {
        let tags = (any::<Option<u16>>(), any::<Option<u16>>());
        let kinds = (
            any::<bool>(),
            any::<bool>(),
            0usize..=10,
            0usize..=8,
            0usize..=10,
        );
        let names = (any::<[u8; 6]>(), any::<[u8; 6]>(), any::<(u16, u16)>());
        (tags, kinds, names, any::<[[u8; 16]; 2]>(), 0usize..200).prop_map(
            |(tags, kinds, names, [src, dst], payload)| FrameSpec {
                dst: Mac(names.0),
                src: Mac(names.1),
                vlan: tags.0,
                inner_vlan: tags.0.and(tags.1),
                v6: kinds.0,
                tcp: kinds.1,
                ip_options: kinds.2 * 4,
                ip6_options: kinds.3 * 8,
                tcp_options: kinds.4 * 4,
                fragment: false,
                ports: names.2,
                ips: (src, dst),
                payload,
            },
        )
    }

    fn expected(spec: &FrameSpec) -> Parsed {
        let address = |full: [u8; 16]| {
            let mut address = full;
            if !spec.v6 {
                address[4..].fill(0);
            }
            address
        };
        let tcp_flags = u16::from(spec.tcp) * 0x18;
        Parsed {
            key: FlowKey {
                ip_src: address(spec.ips.0),
                ip_dst: address(spec.ips.1),
                eth_dst: spec.dst,
                eth_src: spec.src,
                in_port: PORT.0 as u16,
                block: 0,
                eth_type: if spec.v6 { 0x86dd } else { 0x0800 },
                vlan: spec.vlan.map_or(0, |tci| 0x1000 | tci & 0xefff),
                cvlan: spec.inner_vlan.map_or(0, |tci| 0x1000 | tci & 0xefff),
                l4_src: spec.ports.0,
                l4_dst: spec.ports.1,
                ip_proto: if spec.tcp { 6 } else { 17 },
                tcp_flags,
                ip_tos: 0,
                ip_ttl: 64,
                flags: if spec.inner_vlan.is_some() {
                    KeyFlags::CVLAN_AD
                } else {
                    0
                },
            },
            l3_offset: spec.l3_offset() as u16,
            l4_offset: spec.l4_offset() as u16,
            fragment: false,
        }
    }

    proptest! {
        #[test]
        fn finds_what_was_built(spec in spec()) {
            let frame = spec.build();
            let want = expected(&spec);
            let head = &frame[..frame.len().min(HEAD_LEN)];
            prop_assert_eq!(parse(head, frame.len() as u32, PORT), Ok(want));
        }

        /// Cut anywhere, each field is either what it was or zero, and no ports are made up.
        #[test]
        fn cut_frames_never_gain(spec in spec(), cut in 14usize..400) {
            let frame = spec.build();
            let cut = cut.min(frame.len());
            let whole = expected(&spec);
            let Ok(got) = parse_all(&frame[..cut]) else {
                prop_assert!(spec.vlan.is_some() && cut < 18);
                return Ok(());
            };
            prop_assert!(got.l4_offset == 0 || got.l4_offset == whole.l4_offset);
            prop_assert!(usize::from(got.l4_offset) <= cut);
            let ports = (got.key.l4_src, got.key.l4_dst);
            if cut < spec.l4_offset() + 4 {
                prop_assert_eq!(ports, (0, 0));
            } else {
                let mut known = whole;
                if cut < spec.l4_offset() + 20 {
                    known.key.tcp_flags = 0;
                }
                prop_assert_eq!(got, known);
            }
            prop_assert!([[0; 16], whole.key.ip_src].contains(&got.key.ip_src));
            prop_assert_eq!(got.key.vlan, whole.key.vlan);
        }

        #[test]
        fn any_bytes_are_parsed_within_bounds(
            bytes in proptest::collection::vec(any::<u8>(), 0..250),
            kind in 0usize..6,
            len in 0u32..400,
        ) {
            let mut bytes = bytes;
            let starts: [&[u8]; 6] = [
                &[], &[8, 0, 0x45], &[0x86, 0xdd, 0x60], &[0x81, 0, 0, 0, 8, 0, 0x46],
                &[0x88, 0xa8, 0, 0, 0x81, 0], &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 0],
            ];
            if let Some(at) = bytes.get_mut(12..12 + starts[kind].len()) {
                at.copy_from_slice(starts[kind]);
            }
            if let Ok(parsed) = parse(&bytes, len, PORT) {
                let shown = bytes.len().min(len as usize);
                prop_assert!(usize::from(parsed.l3_offset) <= shown);
                prop_assert!(usize::from(parsed.l4_offset) <= shown);
            }
        }
    }
}
