//! Recognizing a tunnel in a packet and verifying its headers, as the kernel's tunnel devices do
//! on receipt (vxlan_rcv, geneve_udp_encap_recv, gre_parse_header).

use super::geneve::geneve_options;
use super::set::{Payload, TunnelKind};
use super::{ETH_TYPE_TEB, GRE_LEN, VXLAN_LEN, gpe, gre_flags, vxlan_flags};
use crate::DropReason;
use crate::wire::l4::{UDP_CHECKSUM, UDP_HEADER_LEN};
use crate::wire::{
    ETH_HEADER_LEN, IpLayout, IpVersion, Layout, Transport, be16, checksum, eth_type, ip_proto,
};
use arrayvec::ArrayVec;
use std::net::IpAddr;

/// Which UDP destination ports are tunnels. GRE always is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelPorts(ArrayVec<(u16, TunnelKind), 16>);

impl Default for TunnelPorts {
    /// The ports that IANA gave.
    fn default() -> Self {
        let kinds = [TunnelKind::Vxlan, TunnelKind::VxlanGpe, TunnelKind::Geneve];
        Self(
            kinds
                .map(|kind| (kind.default_port(), kind))
                .into_iter()
                .collect(),
        )
    }
}

impl TunnelPorts {
    /// No UDP port is a tunnel.
    pub fn none() -> Self {
        Self(ArrayVec::new())
    }

    /// Makes a port one of this kind, whatever it was before. False if there are 16 already, or
    /// for GRE, which has no ports.
    pub fn set(&mut self, port: u16, kind: TunnelKind) -> bool {
        if kind == TunnelKind::Gre {
            return false;
        }
        match self.0.iter_mut().find(|(p, _)| *p == port) {
            Some(entry) => {
                entry.1 = kind;
                true
            }
            None => self.0.try_push((port, kind)).is_ok(),
        }
    }

    /// The ports and what they are, by number.
    pub fn iter(&self) -> impl Iterator<Item = (u16, TunnelKind)> {
        let mut list = self.0.clone();
        list.sort_unstable();
        list.into_iter()
    }

    /// What a port is.
    #[inline]
    pub fn get(&self, port: u16) -> Option<TunnelKind> {
        let found = self.0.iter().find(|(p, _)| *p == port);
        found.map(|(_, kind)| *kind)
    }
}

/// A tunnel's headers, verified, and where the packet inside is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundTunnel<'a> {
    /// Which protocol.
    pub kind: TunnelKind,
    /// What is inside.
    pub payload: Payload,
    /// EtherType of a bare IP packet inside; 0 if it is an Ethernet frame.
    pub payload_type: u16,
    /// Outer source address.
    pub src: IpAddr,
    /// Outer destination address.
    pub dst: IpAddr,
    /// Outer UDP source port; 0 in GRE.
    pub src_port: u16,
    /// Outer UDP destination port; 0 in GRE.
    pub dst_port: u16,
    /// The VNI, or GRE's key.
    pub key: Option<u32>,
    /// Outer type of service, or traffic class.
    pub tos: u8,
    /// Outer TTL, or hop limit.
    pub ttl: u8,
    /// Outer IPv4: don't fragment.
    pub df: bool,
    /// There is an outer UDP checksum, or GRE's. It is not verified: that would take the payload,
    /// which stays where it is.
    pub csum: bool,
    /// Geneve: operations and management.
    pub oam: bool,
    /// Geneve: there are critical options.
    pub critical: bool,
    /// VXLAN group policy, as [`super::TunnelSet::gbp`].
    pub gbp: Option<u32>,
    /// Geneve options, whole ones.
    pub options: &'a [u8],
    /// Where what is inside begins, in bytes from the start of the frame.
    pub inner: usize,
    /// Where it ends by the outer headers' lengths; what follows is padding.
    pub end: usize,
}

/// Looks for a tunnel in a frame of `frame_len` bytes that begins with `head`.
///
/// `Ok(None)`: there is none that can be looked into here: another protocol or port, a fragment,
/// something else than Ethernet or IP inside, or VXLAN-GPE and GRE with what nobody here knows
/// (operations and management, another version, routing). `TunnelMalformed`: there is one with
/// headers that the kernel's device would drop the packet for. `RewriteDepth`: they are longer
/// than `head`.
pub fn find<'a>(
    head: &'a [u8],
    frame_len: u32,
    ports: &TunnelPorts,
) -> Result<Option<FoundTunnel<'a>>, DropReason> {
    let head = &head[..head.len().min(frame_len as usize)];
    let Some(Layout {
        l3, ip: Some(ip), ..
    }) = Layout::of(head)
    else {
        return Ok(None);
    };
    let Transport::At(l4) = ip.l4 else {
        return Ok(None);
    };
    if ip.fragment {
        return Ok(None);
    }
    let (udp_port, kind) = match ip.proto {
        ip_proto::UDP => {
            let port = be16(head, l4 + 2).unwrap_or(0);
            let Some(kind) = ports.get(port) else {
                return Ok(None);
            };
            (port, kind)
        }
        ip_proto::GRE => (0, TunnelKind::Gre),
        _ => return Ok(None),
    };
    let outer = outer(head, l3, ip, kind, udp_port);
    let reader = Reader {
        head,
        frame_len: frame_len as usize,
    };
    // The IP header first, as ip_rcv does.
    if ip.end > frame_len as usize || ip.end < l4 {
        return Err(DropReason::TunnelMalformed);
    }
    if ip.version == IpVersion::V4 && checksum::internet(&head[l3..l4]) != 0 {
        return Err(DropReason::TunnelMalformed);
    }
    match kind {
        TunnelKind::Gre => reader.gre(
            l4,
            FoundTunnel {
                end: ip.end,
                ..outer
            },
        ),
        _ => reader.udp(
            l4,
            FoundTunnel {
                end: ip.end,
                ..outer
            },
        ),
    }
}

/// What the outer IP header says.
fn outer(head: &[u8], l3: usize, ip: IpLayout, kind: TunnelKind, dst_port: u16) -> FoundTunnel<'_> {
    let bytes = &head[l3..];
    let at = |from: usize| bytes.get(from..).and_then(|b| b.first_chunk()).copied();
    let (src, dst, tos, ttl, df) = match ip.version {
        IpVersion::V4 => {
            let address = |from| at(from).map_or([0; 4], |a: [u8; 4]| a);
            let df = bytes[6] & 0x40 != 0;
            (
                address(12).into(),
                address(16).into(),
                bytes[1],
                bytes[8],
                df,
            )
        }
        IpVersion::V6 => {
            let address = |from: usize| -> [u8; 16] {
                let slice = bytes.get(from..).and_then(|b| b.first_chunk());
                slice.copied().unwrap_or_default()
            };
            let tos = bytes[0] << 4 | bytes[1] >> 4;
            (address(8).into(), address(24).into(), tos, bytes[7], false)
        }
    };
    FoundTunnel {
        kind,
        payload: Payload::Ethernet,
        payload_type: 0,
        src,
        dst,
        src_port: 0,
        dst_port,
        key: None,
        tos,
        ttl,
        df,
        csum: false,
        oam: false,
        critical: false,
        gbp: None,
        options: &[],
        inner: 0,
        end: ip.end,
    }
}

/// How a look for a tunnel ends.
type Found<'a> = Result<Option<FoundTunnel<'a>>, DropReason>;

/// What is known of the frame.
#[derive(Clone, Copy)]
struct Reader<'a> {
    head: &'a [u8],
    frame_len: usize,
}

impl<'a> Reader<'a> {
    /// The bytes from `at` on, which the packet that ends at `end` must have.
    fn take(&self, at: usize, len: usize, end: usize) -> Result<&'a [u8], DropReason> {
        if at + len > end {
            return Err(DropReason::TunnelMalformed);
        }
        let bytes = self.head.get(at..at + len);
        debug_assert!(end <= self.frame_len);
        bytes.ok_or(DropReason::RewriteDepth)
    }

    fn udp(&self, l4: usize, mut found: FoundTunnel<'a>) -> Found<'a> {
        let udp = self.take(l4, UDP_HEADER_LEN, found.end)?;
        let len = usize::from(be16(udp, 4).unwrap_or(0));
        // RFC 768: header and data; longer than the IP packet is as wrong as shorter than itself.
        if len < UDP_HEADER_LEN || l4 + len > found.end {
            return Err(DropReason::TunnelMalformed);
        }
        found.end = l4 + len;
        found.src_port = be16(udp, 0).unwrap_or(0);
        found.csum = udp[UDP_CHECKSUM..] != [0, 0];
        let at = l4 + UDP_HEADER_LEN;
        let header = self.take(at, VXLAN_LEN, found.end)?;
        let [_, _, _, _, a, b, c, last] = *header else {
            return Err(DropReason::TunnelMalformed);
        };
        found.key = Some(u32::from_be_bytes([0, a, b, c]));
        found.inner = at + VXLAN_LEN;
        match found.kind {
            TunnelKind::Geneve => self.geneve(header, found),
            TunnelKind::VxlanGpe => self.gpe(header, found),
            _ => self.vxlan(header, last, found),
        }
    }

    /// Bits that are not those of the extensions known must be zero, or the packet is not for us
    /// to understand: vxlan_rcv drops it.
    fn vxlan(&self, header: &[u8], last: u8, mut found: FoundTunnel<'a>) -> Found<'a> {
        let flags = header[0];
        if flags & !vxlan_flags::GBP != vxlan_flags::VNI || last != 0 {
            return Err(DropReason::TunnelMalformed);
        }
        let [_, a, b, c, ..] = *header else {
            return Err(DropReason::TunnelMalformed);
        };
        let policy = u32::from_be_bytes([0, a, b, c]);
        if flags & vxlan_flags::GBP != 0 {
            found.gbp = Some(policy & super::set::GBP_MASK);
        } else if policy != 0 {
            return Err(DropReason::TunnelMalformed);
        }
        self.ethernet(found)
    }

    fn gpe(&self, header: &[u8], found: FoundTunnel<'a>) -> Found<'a> {
        let flags = header[0];
        if flags & vxlan_flags::VNI == 0 {
            return Err(DropReason::TunnelMalformed);
        }
        let other = flags & (vxlan_flags::VERSION | vxlan_flags::OAM) != 0;
        if other || flags & vxlan_flags::NEXT == 0 {
            return Ok(None);
        }
        match header[3] {
            gpe::ETHERNET => self.ethernet(found),
            gpe::IPV4 => self.bare(eth_type::IPV4, found),
            gpe::IPV6 => self.bare(eth_type::IPV6, found),
            _ => Ok(None),
        }
    }

    fn geneve(&self, header: &[u8], mut found: FoundTunnel<'a>) -> Found<'a> {
        // RFC 8926 §3.4: version 0 is the only one.
        if header[0] >> 6 != 0 {
            return Err(DropReason::TunnelMalformed);
        }
        let len = usize::from(header[0] & 0x3f) * 4;
        found.oam = header[1] & 0x80 != 0;
        found.critical = header[1] & 0x40 != 0;
        found.options = self.take(found.inner, len, found.end)?;
        if geneve_options(found.options).any(|option| option.is_none()) {
            return Err(DropReason::TunnelMalformed);
        }
        found.inner += len;
        self.typed(be16(header, 2).unwrap_or(0), found)
    }

    fn gre(&self, l4: usize, mut found: FoundTunnel<'a>) -> Found<'a> {
        let header = self.take(l4, GRE_LEN, found.end)?;
        let flags = be16(header, 0).unwrap_or(0);
        if flags & (gre_flags::VERSION | gre_flags::ROUTING) != 0 {
            return Ok(None);
        }
        found.inner = l4 + GRE_LEN;
        if flags & gre_flags::CSUM != 0 {
            self.take(found.inner, 4, found.end)?;
            found.csum = true;
            found.inner += 4;
        }
        if flags & gre_flags::KEY != 0 {
            let key = self.take(found.inner, 4, found.end)?;
            found.key = key.first_chunk().map(|key| u32::from_be_bytes(*key));
            found.inner += 4;
        }
        if flags & gre_flags::SEQUENCE != 0 {
            self.take(found.inner, 4, found.end)?;
            found.inner += 4;
        }
        self.typed(be16(header, 2).unwrap_or(0), found)
    }

    fn typed(&self, payload: u16, found: FoundTunnel<'a>) -> Found<'a> {
        match payload {
            ETH_TYPE_TEB => self.ethernet(found),
            eth_type::IPV4 | eth_type::IPV6 => self.bare(payload, found),
            _ => Ok(None),
        }
    }

    /// A frame inside must have its Ethernet header, and its tags.
    fn ethernet(&self, found: FoundTunnel<'a>) -> Found<'a> {
        self.take(found.inner, ETH_HEADER_LEN, found.end)?;
        let known = self.head.len().min(found.end);
        if Layout::of(&self.head[found.inner..known]).is_some() {
            return Ok(Some(found));
        }
        // The tags are cut off, by the sender or by how much is known.
        Err(if known == found.end {
            DropReason::TunnelMalformed
        } else {
            DropReason::RewriteDepth
        })
    }

    fn bare(&self, payload_type: u16, found: FoundTunnel<'a>) -> Found<'a> {
        self.take(found.inner, 1, found.end)?;
        Ok(Some(FoundTunnel {
            payload: Payload::Ip,
            payload_type,
            ..found
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::port;
    use super::*;

    #[test]
    fn ports_are_replaced_and_bounded() {
        let mut ports = TunnelPorts::default();
        assert_eq!(ports.get(port::GENEVE), Some(TunnelKind::Geneve));
        assert_eq!(ports.get(80), None);
        assert!(ports.set(port::GENEVE, TunnelKind::Vxlan));
        assert_eq!(ports.get(port::GENEVE), Some(TunnelKind::Vxlan));
        assert!(!ports.set(47, TunnelKind::Gre));
        let added = (1..100)
            .filter(|p| ports.set(*p, TunnelKind::Geneve))
            .count();
        assert_eq!(added, 13);
    }
}
