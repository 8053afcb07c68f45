//! From the first bytes of a frame to its key.

use super::ethernet::{ETH_HEADER_LEN, VLAN_TAG_LEN, be16, is_vlan};
use super::{eth_type, ip_proto, ipv4::Ipv4, ipv6::Ipv6, l4};
use crate::flow::FlowKey;
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
        prio: 0,
        len: ETH_HEADER_LEN,
    };
    if is_vlan(l2.eth_type) {
        l2 = parse_tags(head).ok_or(DropReason::Runt)?;
    }
    let l3 = head.get(l2.len..).unwrap_or_default();
    let ip = match l2.eth_type {
        eth_type::IPV4 => parse_ipv4(l3),
        eth_type::IPV6 => parse_ipv6(l3),
        _ => Ip::default(),
    };
    let (l4_src, l4_dst) = match l3.get(ip.l4.unwrap_or(usize::MAX)..) {
        Some(l4) if ip_proto::has_ports(ip.proto) => l4::ports(l4).unwrap_or_default(),
        _ => (0, 0),
    };
    Ok(Parsed {
        key: assemble(eth, in_port, &l2, &ip, l4_src, l4_dst),
        l3_offset: l2.len as u16,
        l4_offset: ip.l4.map_or(0, |offset| (l2.len + offset) as u16),
        fragment: ip.fragment,
    })
}

/// The key, made word by word: whoever reads it next does so by words too, and would have to wait
/// for a word whose parts were stored one by one.
#[inline(always)]
fn assemble(
    eth: &[u8; ETH_HEADER_LEN],
    in_port: VportId,
    l2: &L2,
    ip: &Ip,
    l4_src: u16,
    l4_dst: u16,
) -> FlowKey {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = *eth;
    let [p0, p1, p2, p3] = in_port.0.to_ne_bytes();
    let [t0, t1] = l2.eth_type.to_ne_bytes();
    let [v0, v1] = l2.vlan.to_ne_bytes();
    let [a0, a1] = l4_src.to_ne_bytes();
    let [b0, b1] = l4_dst.to_ne_bytes();
    let words: [u64; FlowKey::WORDS] = [
        ip.src[0],
        ip.src[1],
        ip.dst[0],
        ip.dst[1],
        u64::from_ne_bytes([d0, d1, d2, d3, d4, d5, s0, s1]),
        u64::from_ne_bytes([s2, s3, s4, s5, p0, p1, p2, p3]),
        u64::from_ne_bytes([t0, t1, v0, v1, a0, a1, b0, b1]),
        u64::from_ne_bytes([ip.proto, l2.prio, 0, 0, 0, 0, 0, 0]),
    ];
    bytemuck::cast(words)
}

/// The Ethernet header and its tags.
#[derive(Clone, Copy)]
struct L2 {
    eth_type: u16,
    /// As [`FlowKey::vlan`].
    vlan: u16,
    prio: u8,
    len: usize,
}

/// What an IP header yields: addresses as words of the key.
#[derive(Clone, Copy, Default)]
struct Ip {
    src: [u64; 2],
    dst: [u64; 2],
    proto: u8,
    fragment: bool,
    /// Where the transport header begins, from the start of the IP header.
    l4: Option<usize>,
}

/// The outer tag, a second one is only passed over. `None` if the outer one is cut off.
fn parse_tags(head: &[u8]) -> Option<L2> {
    let mut at = ETH_HEADER_LEN;
    let (tci, inner) = (be16(head, at)?, be16(head, at + 2)?);
    at += VLAN_TAG_LEN;
    let mut eth_type = inner;
    if is_vlan(inner)
        && let Some(innermost) = be16(head, at + 2)
    {
        at += VLAN_TAG_LEN;
        eth_type = innermost;
    }
    Some(L2 {
        eth_type,
        vlan: FlowKey::VLAN_PRESENT | tci & 0xfff,
        prio: (tci >> 13) as u8,
        len: at,
    })
}

#[inline(always)]
fn parse_ipv4(l3: &[u8]) -> Ip {
    let Some(ip) = Ipv4::parse(l3) else {
        return Ip::default();
    };
    let word = |[a, b, c, d]: [u8; 4]| u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]);
    Ip {
        src: [word(*ip.src()), 0],
        dst: [word(*ip.dst()), 0],
        proto: ip.proto(),
        fragment: ip.is_fragment(),
        l4: (!ip.is_later_fragment()).then(|| ip.header_len()),
    }
}

#[inline(always)]
fn parse_ipv6(l3: &[u8]) -> Ip {
    let Some(ip) = Ipv6::parse(l3) else {
        return Ip::default();
    };
    let upper = ip.upper();
    Ip {
        src: bytemuck::cast(*ip.src()),
        dst: bytemuck::cast(*ip.dst()),
        proto: upper.proto,
        fragment: upper.fragment,
        l4: upper.reached.then_some(upper.offset),
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
        assert_eq!((first.key.l4_dst, first.l4_offset), (80, 34));
        frame[21] = 5;
        let later = parse_all(&frame).unwrap();
        assert!(later.fragment);
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
        let tci = spec.vlan.unwrap_or(0);
        Parsed {
            key: FlowKey {
                ip_src: address(spec.ips.0),
                ip_dst: address(spec.ips.1),
                eth_dst: spec.dst,
                eth_src: spec.src,
                in_port: PORT.0,
                eth_type: if spec.v6 { 0x86dd } else { 0x0800 },
                vlan: spec.vlan.map_or(0, |tci| 0x1000 | tci & 0xfff),
                l4_src: spec.ports.0,
                l4_dst: spec.ports.1,
                ip_proto: if spec.tcp { 6 } else { 17 },
                vlan_prio: (tci >> 13) as u8,
                reserved: [0; 6],
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
                prop_assert_eq!(got, whole);
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
