//! From the first bytes of a frame to its key.

use super::ethernet::{ETH_HEADER_LEN, VLAN_TAG_LEN, be16, is_vlan};
use super::{eth_type, ip_proto, ipv4::Ipv4, ipv6::Ipv6, l4};
use crate::flow::FlowKey;
use crate::{DropReason, Mac, VportId};

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
#[inline]
pub fn parse(head: &[u8], frame_len: u32, in_port: VportId) -> Result<Parsed, DropReason> {
    let head = &head[..head
        .len()
        .min(frame_len as usize)
        .min(usize::from(u16::MAX))];
    let eth: &[u8; ETH_HEADER_LEN] = head.first_chunk().ok_or(DropReason::Runt)?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *eth;
    let mut parsed = Parsed {
        key: FlowKey {
            eth_dst: Mac([d0, d1, d2, d3, d4, d5]),
            eth_src: Mac([s0, s1, s2, s3, s4, s5]),
            in_port: in_port.0,
            eth_type: u16::from_be_bytes([t0, t1]),
            ..FlowKey::default()
        },
        l3_offset: ETH_HEADER_LEN as u16,
        l4_offset: 0,
        fragment: false,
    };
    if is_vlan(parsed.key.eth_type) {
        parse_tags(head, &mut parsed)?;
    }
    let l3 = &head[usize::from(parsed.l3_offset)..];
    match parsed.key.eth_type {
        eth_type::IPV4 => parse_ipv4(l3, &mut parsed),
        eth_type::IPV6 => parse_ipv6(l3, &mut parsed),
        _ => {}
    }
    Ok(parsed)
}

/// The outer tag goes into the key, a second one is only passed over.
fn parse_tags(head: &[u8], parsed: &mut Parsed) -> Result<(), DropReason> {
    let mut at = ETH_HEADER_LEN;
    let (Some(tci), Some(inner)) = (be16(head, at), be16(head, at + 2)) else {
        return Err(DropReason::Runt);
    };
    at += VLAN_TAG_LEN;
    parsed.key.vlan = FlowKey::VLAN_PRESENT | tci & 0xfff;
    parsed.key.vlan_prio = (tci >> 13) as u8;
    parsed.key.eth_type = inner;
    if is_vlan(inner)
        && let Some(innermost) = be16(head, at + 2)
    {
        at += VLAN_TAG_LEN;
        parsed.key.eth_type = innermost;
    }
    parsed.l3_offset = at as u16;
    Ok(())
}

#[inline]
fn parse_ipv4(l3: &[u8], parsed: &mut Parsed) {
    let Some(ip) = Ipv4::parse(l3) else {
        return;
    };
    parsed.key.ip_src[..4].copy_from_slice(ip.src());
    parsed.key.ip_dst[..4].copy_from_slice(ip.dst());
    parsed.key.ip_proto = ip.proto();
    parsed.fragment = ip.is_fragment();
    if !ip.is_later_fragment() {
        parse_l4(l3, ip.header_len(), parsed);
    }
}

#[inline]
fn parse_ipv6(l3: &[u8], parsed: &mut Parsed) {
    let Some(ip) = Ipv6::parse(l3) else {
        return;
    };
    let upper = ip.upper();
    parsed.key.ip_src = *ip.src();
    parsed.key.ip_dst = *ip.dst();
    parsed.key.ip_proto = upper.proto;
    parsed.fragment = upper.fragment;
    if upper.reached {
        parse_l4(l3, upper.offset, parsed);
    }
}

#[inline]
fn parse_l4(l3: &[u8], offset: usize, parsed: &mut Parsed) {
    let Some(bytes) = l3.get(offset..) else {
        return;
    };
    parsed.l4_offset = parsed.l3_offset + offset as u16;
    if ip_proto::has_ports(parsed.key.ip_proto)
        && let Some((src, dst)) = l4::ports(bytes)
    {
        parsed.key.l4_src = src;
        parsed.key.l4_dst = dst;
    }
}
