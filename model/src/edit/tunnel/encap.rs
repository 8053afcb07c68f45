//! Putting a tunnel's headers around a packet, as the kernel's tunnel devices do with what
//! tunnel_key says (vxlan_xmit_one, geneve_xmit_skb, gre_fb_xmit and what they end in).

use super::set::{Payload, TunnelKind, TunnelSet};
use super::{ETH_TYPE_TEB, GRE_LEN, VXLAN_LEN, ecn, entropy, gpe, gre_flags, vxlan_flags};
use crate::DropReason;
use crate::edit::Packet;
use crate::offload::{Csum, MAX_OUTER, Outer};
use crate::wire::checksum::{Sum, pseudo_v4, pseudo_v6};
use crate::wire::ipv4::{self, IPV4_HEADER_LEN};
use crate::wire::ipv6::IPV6_HEADER_LEN;
use crate::wire::l4::{UDP_CHECKSUM, UDP_HEADER_LEN};
use crate::wire::{ETH_HEADER_LEN, IpVersion, Layout, eth_type, ip_proto};
use std::net::IpAddr;

/// Linux's default (`net.ipv4.ip_default_ttl`, `net.ipv6.conf.*.hop_limit`).
const DEFAULT_TTL: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;
const GRE_CHECKSUM: usize = 4;

/// What the outer headers take from the packet inside.
#[derive(Clone, Copy)]
struct Inner {
    tos: u8,
    ttl: Option<u8>,
    version: Option<IpVersion>,
    source_port: u16,
}

impl Inner {
    fn of(head: &[u8], layout: &Layout) -> Self {
        let version = layout.ip.map(|ip| ip.version);
        let l3 = &head[layout.l3..];
        let (tos, ttl) = match version {
            Some(IpVersion::V4) => (l3[1], Some(l3[8])),
            Some(IpVersion::V6) => (l3[0] << 4 | l3[1] >> 4, Some(l3[7])),
            None => (0, None),
        };
        Self {
            tos,
            ttl,
            version,
            source_port: entropy::source_port(head),
        }
    }
}

/// Lengths of the outer headers in bytes.
#[derive(Clone, Copy)]
struct Lengths {
    ip: usize,
    /// The UDP header, if it is one, and the tunnel's own.
    tunnel: usize,
}

impl Lengths {
    fn of(set: &TunnelSet) -> Self {
        let ip = match set.dst {
            IpAddr::V4(_) => IPV4_HEADER_LEN,
            IpAddr::V6(_) => IPV6_HEADER_LEN,
        };
        let tunnel = match set.kind {
            TunnelKind::Vxlan | TunnelKind::VxlanGpe => UDP_HEADER_LEN + VXLAN_LEN,
            TunnelKind::Geneve => UDP_HEADER_LEN + VXLAN_LEN + set.options.len(),
            TunnelKind::Gre => {
                GRE_LEN + 4 * (usize::from(set.csum) + usize::from(set.key.is_some()))
            }
        };
        Self { ip, tunnel }
    }

    fn all(self) -> usize {
        ETH_HEADER_LEN + self.ip + self.tunnel
    }
}

impl Packet {
    /// Puts the packet into a tunnel; `set` has passed its [check](TunnelSet::check). From here on
    /// the outer headers are the ones that are edited.
    ///
    /// A checksum that is still to be finished inside stays so, and the outer one is computed
    /// from it without looking at the payload; if there is none inside, the outer one is left to be finished. A frame still to be cut keeps its `gso`
    /// for the inner frame; each segment then gets the outer headers.
    pub fn tunnel_set(&mut self, set: &TunnelSet) -> Result<(), DropReason> {
        let layout = self.layout()?;
        let inner = Inner::of(self.head(), &layout);
        let lengths = Lengths::of(set);
        let bare = set.payload == Payload::Ip;
        let removed = if bare { layout.l3 } else { 0 };
        if bare && inner.version.is_none() {
            return Err(DropReason::TunnelPayload);
        }
        self.check_room(lengths, removed)?;
        let sum_behind = self.pending_sum(removed)?;

        // Nothing is refused from here on.
        if bare {
            self.remove(0, removed);
        }
        let payload_len = self.frame_len();
        let gso = self.offload().gso;
        let segments = gso.map_or(1, |gso| {
            let payload = payload_len.saturating_sub(u32::from(gso.hdr_len));
            payload.div_ceil(u32::from(gso.size)).max(1)
        });
        let ident = self.next_ident(segments as u16);
        let deeper = self.offload().outer;
        let len = lengths.all();
        let room = self.insert(0, len)?;
        write_ethernet(set, room);
        let (ip, tunnel) = room[ETH_HEADER_LEN..].split_at_mut(lengths.ip);
        let l4_len = payload_len + lengths.tunnel as u32;
        // Of a frame to be cut the lengths are each segment's, written when it is cut; here they
        // are only such that the headers can be parsed.
        let l4_len16 = l4_len.min(u32::from(u16::MAX) - IPV4_HEADER_LEN as u32) as u16;
        write_ip(set, inner, ip, l4_len16, ident);
        write_tunnel(set, inner, tunnel, l4_len16);

        let offload = self.offload_mut();
        offload.data_valid = false;
        if gso.is_some() {
            let outermost = Outer {
                len: len as u16,
                bare,
            };
            offload.outer = [outermost, deeper[0]];
        }
        self.write_checksum(set, lengths, l4_len, sum_behind);
        Ok(())
    }

    fn check_room(&self, lengths: Lengths, removed: usize) -> Result<(), DropReason> {
        if self.room() + removed < lengths.all() {
            return Err(DropReason::RewriteRoom);
        }
        let offload = self.offload();
        let inside = match offload.gso {
            Some(_) if offload.outer[MAX_OUTER - 1].len != 0 => {
                return Err(DropReason::RewriteRoom);
            }
            Some(gso) => u32::from(gso.hdr_len) + u32::from(gso.size),
            None => self.frame_len(),
        };
        // What an IPv4 packet can be; IPv6 could have 20 bytes more.
        let l4_len = lengths.tunnel as u32 + inside - removed as u32;
        if l4_len + IPV4_HEADER_LEN as u32 > u32::from(u16::MAX) {
            return Err(DropReason::RewriteLength);
        }
        Ok(())
    }

    /// The outer checksum, where the tunnel has one.
    fn write_checksum(
        &mut self,
        set: &TunnelSet,
        lengths: Lengths,
        l4_len: u32,
        sum_behind: Option<Sum>,
    ) {
        if !set.csum {
            return;
        }
        let l4 = ETH_HEADER_LEN + lengths.ip;
        let (pseudo, offset) = match set.kind {
            TunnelKind::Gre => (Sum::new(), GRE_CHECKSUM),
            _ => (pseudo_header(set, l4_len), UDP_CHECKSUM),
        };
        let to_be_cut = self.offload().gso.is_some();
        let tunnel = &mut self.head_mut()[l4..l4 + lengths.tunnel];
        let sum = match sum_behind {
            // Written when it is cut; anything but 0 says that there is to be one.
            _ if to_be_cut => pseudo.partial(),
            Some(behind) => {
                let sum = pseudo.bytes(tunnel).word(behind.partial()).finish();
                if set.kind != TunnelKind::Gre && sum == 0 {
                    0xffff
                } else {
                    sum
                }
            }
            None => pseudo.partial(),
        };
        tunnel[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
        if !to_be_cut && sum_behind.is_none() {
            self.offload_mut().csum = Some(Csum {
                start: l4 as u16,
                offset: offset as u16,
            });
        }
    }
}

fn write_ethernet(set: &TunnelSet, out: &mut [u8]) {
    let eth_type = match set.dst {
        IpAddr::V4(_) => eth_type::IPV4,
        IpAddr::V6(_) => eth_type::IPV6,
    };
    out[..6].copy_from_slice(&set.eth_dst.0);
    out[6..12].copy_from_slice(&set.eth_src.0);
    out[12..14].copy_from_slice(&eth_type.to_be_bytes());
}

/// `l4_len` of what follows the header.
fn write_ip(set: &TunnelSet, inner: Inner, out: &mut [u8], l4_len: u16, ident: u16) {
    let tos = ecn::outer_tos(set.tos.unwrap_or(inner.tos), inner.tos);
    let ttl = match (set.ttl, set.kind) {
        (0, TunnelKind::Gre) => inner.ttl.unwrap_or(DEFAULT_TTL),
        (0, _) => DEFAULT_TTL,
        (ttl, _) => ttl,
    };
    let proto = match set.kind {
        TunnelKind::Gre => ip_proto::GRE,
        _ => ip_proto::UDP,
    };
    out.fill(0);
    match (set.src, set.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            (out[0], out[1]) = (0x45, tos);
            if set.df {
                out[6..8].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
            }
            (out[8], out[9]) = (ttl, proto);
            out[12..16].copy_from_slice(&src.octets());
            out[16..20].copy_from_slice(&dst.octets());
            ipv4::finish(out, l4_len + IPV4_HEADER_LEN as u16, ident);
        }
        (src, dst) => {
            let octets = |ip| match ip {
                IpAddr::V6(ip) => ip.octets(),
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            };
            let first = 6 << 28 | u32::from(tos) << 20 | set.flow_label & 0xf_ffff;
            out[..4].copy_from_slice(&first.to_be_bytes());
            out[4..6].copy_from_slice(&l4_len.to_be_bytes());
            (out[6], out[7]) = (proto, ttl);
            out[8..24].copy_from_slice(&octets(src));
            out[24..40].copy_from_slice(&octets(dst));
        }
    }
}

/// UDP and the tunnel's own header, without the checksum.
fn write_tunnel(set: &TunnelSet, inner: Inner, out: &mut [u8], l4_len: u16) {
    out.fill(0);
    if set.kind == TunnelKind::Gre {
        return write_gre(set, inner, out);
    }
    let (udp, header) = out.split_at_mut(UDP_HEADER_LEN);
    udp[..2].copy_from_slice(&inner.source_port.to_be_bytes());
    udp[2..4].copy_from_slice(&set.dst_port.to_be_bytes());
    udp[4..6].copy_from_slice(&l4_len.to_be_bytes());
    let vni = set.key.unwrap_or(0) << 8;
    header[4..8].copy_from_slice(&vni.to_be_bytes());
    match set.kind {
        TunnelKind::VxlanGpe => {
            header[0] = vxlan_flags::VNI | vxlan_flags::NEXT;
            header[3] = match (set.payload, inner.version) {
                (Payload::Ip, Some(IpVersion::V4)) => gpe::IPV4,
                (Payload::Ip, _) => gpe::IPV6,
                (Payload::Ethernet, _) => gpe::ETHERNET,
            };
        }
        TunnelKind::Geneve => {
            header[0] = (set.options.len() / 4) as u8;
            // The critical flag stays clear whatever the options are: tunnel_key has no word for
            // it and the kernel sets it only when told.
            header[2..4].copy_from_slice(&payload_type(set, inner).to_be_bytes());
            header[8..].copy_from_slice(&set.options);
        }
        _ => {
            // The kernel leaves the extension out when it has nothing to say.
            let gbp = set.gbp.unwrap_or(0);
            header[..4].copy_from_slice(&gbp.to_be_bytes());
            header[0] = vxlan_flags::VNI;
            if gbp != 0 {
                header[0] |= vxlan_flags::GBP;
            }
        }
    }
}

fn write_gre(set: &TunnelSet, inner: Inner, out: &mut [u8]) {
    let mut flags = 0;
    if set.csum {
        flags |= gre_flags::CSUM;
    }
    if let Some(key) = set.key {
        flags |= gre_flags::KEY;
        let at = out.len() - 4;
        out[at..].copy_from_slice(&key.to_be_bytes());
    }
    out[..2].copy_from_slice(&flags.to_be_bytes());
    out[2..4].copy_from_slice(&payload_type(set, inner).to_be_bytes());
}

fn payload_type(set: &TunnelSet, inner: Inner) -> u16 {
    match (set.payload, inner.version) {
        (Payload::Ip, Some(version)) => version.eth_type(),
        _ => ETH_TYPE_TEB,
    }
}

fn pseudo_header(set: &TunnelSet, l4_len: u32) -> Sum {
    match (set.src, set.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            pseudo_v4(&src.octets(), &dst.octets(), ip_proto::UDP, l4_len)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            pseudo_v6(&src.octets(), &dst.octets(), ip_proto::UDP, l4_len)
        }
        // Refused by `check`.
        _ => Sum::new(),
    }
}
