//! Translated addresses and ports, as nf_nat writes them (net/netfilter/nf_nat_proto.c).

use super::Packet;
use super::delta::Delta;
use crate::DropReason;
use crate::ct::{NatEnd, NatRewrite};
use crate::wire::checksum::Sum;
use crate::wire::{
    IpLayout, IpVersion, Layout, Transport, checksum_field, ip_at, ip_proto, l4::TCP_HEADER_LEN,
};

/// ICMP's header, after which an error has the packet it is about.
const ICMP_HEADER_LEN: usize = 8;
/// Bytes of the transport header that an error quotes at least.
const QUOTED_LEN: usize = 8;
/// Where a query's identifier is.
const ICMP_IDENTIFIER: usize = 4;

/// Which end of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Src,
    Dst,
}

impl End {
    fn opposite(self) -> Self {
        match self {
            End::Src => End::Dst,
            End::Dst => End::Src,
        }
    }

    /// Where its address is, from the start of the IP header, and the address's length.
    fn address(self, version: IpVersion) -> (usize, usize) {
        match (version, self) {
            (IpVersion::V4, End::Src) => (12, 4),
            (IpVersion::V4, End::Dst) => (16, 4),
            (IpVersion::V6, End::Src) => (8, 16),
            (IpVersion::V6, End::Dst) => (24, 16),
        }
    }
}

/// A query's identifier, or an error.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Icmp {
    Query,
    Error,
    Other,
}

/// What an ICMP message is to NAT (icmp_manip_pkt, nf_conntrack_icmp_error).
fn icmp(proto: u8, kind: u8) -> Icmp {
    match (proto, kind) {
        (ip_proto::ICMP, 0 | 8 | 13..=18) | (ip_proto::ICMPV6, 128 | 129) => Icmp::Query,
        (ip_proto::ICMP, 3 | 4 | 5 | 11 | 12) | (ip_proto::ICMPV6, 0..=127) => Icmp::Error,
        _ => Icmp::Other,
    }
}

impl Packet {
    /// Writes translated addresses and ports. In an ICMP error the embedded packet gets them too,
    /// at its opposite ends, with its own checksums as far as they are there. Nothing happens to
    /// what is not IP, or has addresses only (a later fragment, another protocol).
    pub fn nat(&mut self, rewrite: &NatRewrite) -> Result<(), DropReason> {
        let layout = self.layout()?;
        let Some(ip) = layout.ip else {
            return Ok(());
        };
        let ends = [(End::Src, rewrite.src), (End::Dst, rewrite.dst)];
        let ends = ends.into_iter().filter_map(|(end, to)| Some((end, to?)));
        if let Some(l4) = self.icmp_error(ip) {
            return self.nat_error(&layout, ip, l4, ends);
        }
        for (end, to) in ends {
            self.nat_address(&layout, ip.version, end, &to)?;
            if let Some(at) = self.port(ip, end) {
                let port = to.port.to_be_bytes();
                self.write_transport(&layout, at, &port)?;
            }
        }
        Ok(())
    }

    fn icmp_error(&self, ip: IpLayout) -> Option<usize> {
        let Transport::At(l4) = ip.l4 else {
            return None;
        };
        let kind = *self.head().get(l4)?;
        (icmp(ip.proto, kind) == Icmp::Error).then_some(l4)
    }

    fn nat_address(
        &mut self,
        layout: &Layout,
        version: IpVersion,
        end: End,
        to: &NatEnd,
    ) -> Result<(), DropReason> {
        let (offset, len) = end.address(version);
        self.write_address(layout, layout.l3 + offset, &to.address[..len])
    }

    /// Where the port, or a query's identifier, is.
    fn port(&self, ip: IpLayout, end: End) -> Option<usize> {
        let Transport::At(l4) = ip.l4 else {
            return None;
        };
        let at = match ip.proto {
            ip_proto::TCP | ip_proto::UDP | ip_proto::UDPLITE | ip_proto::DCCP | ip_proto::SCTP => {
                match end {
                    End::Src => l4,
                    End::Dst => l4 + 2,
                }
            }
            ip_proto::ICMP | ip_proto::ICMPV6 => {
                let kind = *self.head().get(l4)?;
                if icmp(ip.proto, kind) != Icmp::Query {
                    return None;
                }
                l4 + ICMP_IDENTIFIER
            }
            _ => return None,
        };
        (at + 2 <= self.head().len()).then_some(at)
    }

    /// An error about a packet of the connection (nf_nat_icmp_reply_translation).
    fn nat_error(
        &mut self,
        layout: &Layout,
        outer: IpLayout,
        l4: usize,
        ends: impl Iterator<Item = (End, NatEnd)>,
    ) -> Result<(), DropReason> {
        let l3 = l4 + ICMP_HEADER_LEN;
        let inside = ip_at(self.head(), l3, outer.version.eth_type());
        let inside = inside.ok_or(DropReason::NatInner)?;
        let end = outer.end.min(self.frame_len() as usize);
        let field = self.inner_checksum(inside, end)?;
        // The sum over the message changes by whatever is written inside it.
        let sum = |packet: &Packet| Sum::new().bytes(&packet.head()[l3..]);
        for (end, to) in ends {
            self.nat_address(layout, outer.version, end, &to)?;
            let before = sum(self);
            self.rewrite_inside(inside, l3, end.opposite(), &to, field);
            let delta = Delta::between(before, sum(self));
            self.fix_transport(layout, delta, false)?;
        }
        Ok(())
    }

    /// Where the embedded packet's transport has its checksum, if it is there; and whether it
    /// takes in addresses. The outer packet ends at `end`.
    fn inner_checksum(
        &self,
        inside: IpLayout,
        end: usize,
    ) -> Result<Option<(usize, bool)>, DropReason> {
        let Transport::At(l4) = inside.l4 else {
            return Ok(None);
        };
        // What an error must quote (RFC 792).
        if l4 + QUOTED_LEN > end {
            return Err(DropReason::NatInner);
        }
        let field = checksum_field(inside.version, inside.proto);
        let needed = match (inside.proto, field) {
            // Of TCP that is without the checksum.
            (ip_proto::TCP, Some(_)) if l4 + TCP_HEADER_LEN <= end => TCP_HEADER_LEN,
            _ => QUOTED_LEN,
        };
        if l4 + needed > self.head().len() {
            return Err(DropReason::RewriteDepth);
        }
        let field = field.filter(|(offset, _)| offset + 2 <= needed);
        let Some((offset, pseudo)) = field else {
            return Ok(None);
        };
        let at = l4 + offset;
        let none = inside.proto == ip_proto::UDP && self.head()[at..at + 2] == [0, 0];
        Ok((!none).then_some((at, pseudo)))
    }

    fn rewrite_inside(
        &mut self,
        inside: IpLayout,
        l3: usize,
        end: End,
        to: &NatEnd,
        field: Option<(usize, bool)>,
    ) {
        let (offset, len) = end.address(inside.version);
        let address = self.replace(l3 + offset, &to.address[..len]);
        if inside.version == IpVersion::V4 {
            self.change_word(l3 + 10, |sum| address.of_checksum(sum));
        }
        let port = self.port(inside, end);
        let port = port.map_or(Delta::default(), |at| {
            self.replace(at, &to.port.to_be_bytes())
        });
        if let Some((at, pseudo)) = field {
            let udp = inside.proto == ip_proto::UDP;
            let delta = if pseudo { address.and(port) } else { port };
            self.change_word(at, |sum| match delta.of_checksum(sum) {
                0 if udp => 0xffff,
                sum => sum,
            });
        }
    }

    /// Writes bytes that are in the head, and tells by how much their sum changes.
    fn replace(&mut self, at: usize, new: &[u8]) -> Delta {
        let old = &mut self.head_mut()[at..at + new.len()];
        let delta = Delta::of(old, new);
        old.copy_from_slice(new);
        delta
    }
}
