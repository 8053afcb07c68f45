//! The headers of a tunnel in front of each segment of what it carries.

use super::{MAX_OUTER, Outer};
use crate::DropReason;
use crate::wire::checksum::{self, Sum};
use crate::wire::l4::{UDP_CHECKSUM, UDP_HEADER_LEN};
use crate::wire::{IpVersion, Layout, Transport, ip_at, ip_proto, ipv4, ipv6};

/// Where GRE keeps its checksum (RFC 2784 §2.1), and the flag that says that it does.
const GRE_CHECKSUM: usize = 4;
const GRE_CHECKSUM_PRESENT: u8 = 0x80;

/// One tunnel's headers.
#[derive(Clone, Copy, Debug)]
struct Tunnel {
    /// Offsets from the start of the frame.
    l3: usize,
    l4: usize,
    version: IpVersion,
    proto: u8,
}

/// All tunnels' headers around a frame to be cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct OuterHeaders<'a> {
    bytes: &'a [u8],
    /// The outermost first.
    tunnels: [Option<Tunnel>; MAX_OUTER],
    /// The frame inside is a bare IP packet.
    pub(super) bare: bool,
}

impl<'a> OuterHeaders<'a> {
    /// Splits a frame into the outer headers and what they are around.
    pub(super) fn split(
        frame: &'a [u8],
        outer: &[Outer; MAX_OUTER],
    ) -> Result<(Self, &'a [u8]), DropReason> {
        const BAD: DropReason = DropReason::BadOffload;
        let (mut at, mut bare) = (0, false);
        let mut tunnels = [None; MAX_OUTER];
        for (tunnel, outer) in tunnels.iter_mut().zip(outer).filter(|(_, o)| o.len != 0) {
            let end = at + usize::from(outer.len);
            let headers = frame.get(at..end).ok_or(BAD)?;
            *tunnel = Some(Tunnel::parse(headers, at, bare).ok_or(BAD)?);
            (at, bare) = (end, outer.bare);
        }
        let (bytes, inside) = frame.split_at_checked(at).ok_or(BAD)?;
        Ok((
            Self {
                bytes,
                tunnels,
                bare,
            },
            inside,
        ))
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes the headers in front of segment `n`, which `out` holds finished behind room for
    /// them, with lengths, identification and checksums of their own.
    pub(super) fn write(&self, n: usize, out: &mut [u8]) {
        out[..self.bytes.len()].copy_from_slice(self.bytes);
        for tunnel in self.tunnels.iter().rev().flatten() {
            tunnel.finish(n, out);
        }
    }
}

impl Tunnel {
    /// The headers at the start of `headers`, which begins at `at` in the frame.
    fn parse(headers: &[u8], at: usize, bare: bool) -> Option<Self> {
        let (l3, ip) = if bare {
            let version = headers.first()? >> 4;
            (
                0,
                ip_at(headers, 0, IpVersion::from_number(version)?.eth_type()),
            )
        } else {
            let layout = Layout::of(headers)?;
            (layout.l3, layout.ip)
        };
        let ip = ip?;
        let Transport::At(l4) = ip.l4 else {
            return None;
        };
        let known = match ip.proto {
            ip_proto::UDP => headers.len() >= l4 + UDP_HEADER_LEN,
            ip_proto::GRE => {
                headers.len() >= l4 + 8 || headers.get(l4)? & GRE_CHECKSUM_PRESENT == 0
            }
            _ => false,
        };
        known.then_some(Self {
            l3: at + l3,
            l4: at + l4,
            version: ip.version,
            proto: ip.proto,
        })
    }

    /// `out` ends where the packet does.
    fn finish(&self, n: usize, out: &mut [u8]) {
        finish_ip(self.version, n, &mut out[self.l3..], self.l4 - self.l3);
        let (before, l4) = out.split_at_mut(self.l4);
        let len = l4.len();
        match self.proto {
            ip_proto::UDP => {
                l4[4..6].copy_from_slice(&(len as u16).to_be_bytes());
                let wanted = l4[UDP_CHECKSUM..UDP_CHECKSUM + 2] != [0, 0];
                let pseudo = pseudo(self.version, &before[self.l3..], self.proto, len as u32);
                if wanted && let Some(pseudo) = pseudo {
                    put_checksum(pseudo, l4, UDP_CHECKSUM);
                }
            }
            _ if l4[0] & GRE_CHECKSUM_PRESENT != 0 => put_checksum(Sum::new(), l4, GRE_CHECKSUM),
            _ => {}
        }
    }
}

/// Writes the lengths of segment `n` into its IP header, which `packet` begins with, and what
/// follows from them. Whoever cuts made sure that every length fits 16 bits.
pub(super) fn finish_ip(version: IpVersion, n: usize, packet: &mut [u8], header_len: usize) {
    let len = packet.len();
    match version {
        IpVersion::V4 => {
            let first = u16::from_be_bytes([packet[4], packet[5]]);
            let header = &mut packet[..header_len];
            ipv4::finish(header, len as u16, first.wrapping_add(n as u16));
        }
        IpVersion::V6 => {
            let payload_len = (len - ipv6::IPV6_HEADER_LEN) as u16;
            packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
        }
    }
}

/// The sum over the pseudo-header of the IP header at the start of `l3`.
pub(super) fn pseudo(version: IpVersion, l3: &[u8], proto: u8, len: u32) -> Option<Sum> {
    match version {
        IpVersion::V4 => {
            ipv4::Ipv4::parse(l3).map(|ip| checksum::pseudo_v4(ip.src(), ip.dst(), proto, len))
        }
        IpVersion::V6 => {
            ipv6::Ipv6::parse(l3).map(|ip| checksum::pseudo_v6(ip.src(), ip.dst(), proto, len))
        }
    }
}

/// Puts the checksum of `pseudo` and all of `bytes` in at `field`.
pub(super) fn put_checksum(pseudo: Sum, bytes: &mut [u8], field: usize) {
    bytes[field..field + 2].fill(0);
    let sum = super::segment::no_zero(pseudo.bytes(bytes).finish());
    bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}
