//! What tracking sees of a packet.

use super::icmp::{self, Message};
use super::sctp::Chunks;
use super::tcp::Segment;
use super::tuple::Tuple;
use crate::wire::ipv4::{IPV4_HEADER_LEN, Ipv4};
use crate::wire::ipv6::{IPV6_HEADER_LEN, Ipv6};
use crate::wire::{eth_type, ip_proto, l4};

/// A packet as tracking sees it, from the bytes at its front.
#[derive(Clone, Copy, Debug)]
pub struct CtPacket {
    /// Who sent it to whom; zone 0.
    pub(super) tuple: Tuple,
    pub(super) body: Body,
    /// The IP packet, in bytes: what connections count.
    pub(super) len: u32,
    /// Plain enough for the flow table that act_ct asks first (act_ct.c,
    /// `tcf_ct_flow_table_fill_tuple_ipv4` and `_ipv6`).
    pub(super) plain: bool,
}

/// What kind of packet it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    /// Nothing that `ct` works on.
    NotIp,
    /// A part of a datagram.
    Fragment,
    /// IP, but nothing that can belong to a connection.
    Untrackable,
    Tcp(Segment),
    Udp {
        /// Its length field fits.
        valid: bool,
    },
    UdpLite {
        /// Its length field fits and it has a checksum.
        valid: bool,
    },
    /// An ICMP query or answer.
    Icmp,
    /// An ICMP error.
    IcmpError(Embedded),
    Sctp(Chunks),
    Gre,
    /// Any other protocol.
    Other,
}

/// The packet that an ICMP error is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Embedded {
    pub(super) tuple: Tuple,
    /// The error is a redirect.
    pub(super) redirect: bool,
}

impl CtPacket {
    /// The packet whose IP header begins at `l3_offset` in a frame of `frame_len` bytes, of which
    /// `head` holds the first ones; `eth_type` as in the innermost VLAN tag.
    ///
    /// What lies behind `head` is not seen: a transport header that does makes a packet that
    /// cannot be tracked, and so do SCTP chunks there go unnoticed.
    pub fn parse(head: &[u8], frame_len: u32, eth_type: u16, l3_offset: usize) -> Self {
        let frame_len = frame_len as usize;
        let head = &head[..head.len().min(frame_len)];
        let l3 = head.get(l3_offset..).unwrap_or_default();
        let on_wire = frame_len.saturating_sub(l3_offset);
        let ip = match eth_type {
            eth_type::IPV4 => Ip::v4(l3, on_wire),
            eth_type::IPV6 => Ip::v6(l3, on_wire),
            _ => return Self::without(Body::NotIp, Tuple::default(), 0),
        };
        let Some(ip) = ip else {
            return Self::without(Body::Untrackable, Tuple::default(), on_wire);
        };
        if ip.fragment {
            return Self::without(Body::Fragment, ip.tuple, ip.len);
        }
        ip.packet(l3)
    }

    fn without(body: Body, tuple: Tuple, len: usize) -> Self {
        Self {
            tuple,
            body,
            len: len as u32,
            plain: false,
        }
    }

    /// Who sent it to whom, if it belongs to a connection or may begin one.
    pub fn tuple(&self) -> Option<&Tuple> {
        let none = matches!(
            self.body,
            Body::NotIp | Body::Fragment | Body::Untrackable | Body::IcmpError(_)
        );
        (!none).then_some(&self.tuple)
    }
}

/// What an IP header says.
struct Ip {
    /// Without ports.
    tuple: Tuple,
    /// Where the transport header begins, from the IP header.
    l4: usize,
    /// The IP packet's length, padding behind it cut off.
    len: usize,
    fragment: bool,
    /// No options or extension headers, and somewhere to go.
    plain: bool,
    hops: u8,
}

impl Ip {
    fn v4(l3: &[u8], on_wire: usize) -> Option<Self> {
        let ip = Ipv4::parse(l3)?;
        let mut tuple = Tuple {
            proto: ip.proto(),
            version: 4,
            ..Tuple::default()
        };
        tuple.src[..4].copy_from_slice(ip.src());
        tuple.dst[..4].copy_from_slice(ip.dst());
        let total = usize::from(u16::from_be_bytes([l3[2], l3[3]]));
        let (l4, len, hops) = (ip.header_len(), total.min(on_wire), l3[8]);
        (l4 <= len).then_some(Self {
            tuple,
            l4,
            len,
            fragment: ip.is_fragment(),
            plain: l4 == IPV4_HEADER_LEN && hops > 1,
            hops,
        })
    }

    fn v6(l3: &[u8], on_wire: usize) -> Option<Self> {
        /// No next header (RFC 8200 §4.7).
        const NOTHING: u8 = 59;
        let ip = Ipv6::parse(l3)?;
        let upper = ip.upper();
        let tuple = Tuple {
            src: *ip.src(),
            dst: *ip.dst(),
            proto: upper.proto,
            version: 6,
            ..Tuple::default()
        };
        let payload = usize::from(u16::from_be_bytes([l3[4], l3[5]]));
        let (len, hops) = ((IPV6_HEADER_LEN + payload).min(on_wire), l3[7]);
        let there =
            upper.fragment || (upper.reached && upper.offset <= len && upper.proto != NOTHING);
        there.then_some(Self {
            tuple,
            l4: upper.offset,
            len,
            fragment: upper.fragment,
            plain: upper.offset == IPV6_HEADER_LEN && hops > 1,
            hops,
        })
    }

    /// The packet, from the IP header on. `self` is no fragment.
    fn packet(mut self, l3: &[u8]) -> CtPacket {
        let l3 = &l3[..l3.len().min(self.len)];
        let l4 = l3.get(self.l4..).unwrap_or_default();
        let l4_len = self.len - self.l4;
        let body = match self.tuple.proto {
            ip_proto::ICMP | ip_proto::ICMPV6 => self.icmp(l3, l4),
            ip_proto::GRE => gre(l4, &mut self.tuple),
            proto if has_ports(proto) => {
                let ports = l4::ports(l4);
                (self.tuple.src_port, self.tuple.dst_port) = ports.unwrap_or_default();
                ports.map(|_| match proto {
                    ip_proto::TCP => Body::Tcp(Segment::parse(l4, l4_len)),
                    ip_proto::UDP => Body::Udp {
                        valid: udp_length(l4).is_some_and(|(len, _)| (8..=l4_len).contains(&len)),
                    },
                    ip_proto::UDPLITE => Body::UdpLite {
                        // A coverage of 0 is all of it (RFC 3828 §3.1).
                        valid: udp_length(l4).is_some_and(|(len, sum)| {
                            sum != 0 && (len == 0 || (8..=l4_len).contains(&len))
                        }),
                    },
                    _ => Body::Sctp(Chunks::parse(l4, l4_len)),
                })
            }
            _ => Some(Body::Other),
        };
        let whole = match body {
            Some(Body::Tcp(_)) => l4.len() >= l4::TCP_HEADER_LEN,
            Some(Body::Udp { .. }) => true,
            Some(Body::Gre) => l4.len() >= 4 && l4[1] & 7 == 0,
            _ => false,
        };
        CtPacket {
            tuple: self.tuple,
            body: body.unwrap_or(Body::Untrackable),
            len: self.len as u32,
            plain: self.plain && whole,
        }
    }

    fn icmp(&mut self, l3: &[u8], l4: &[u8]) -> Option<Body> {
        let header: &[u8; 8] = l4.first_chunk()?;
        let version = if self.tuple.proto == ip_proto::ICMP {
            4
        } else {
            6
        };
        if version != self.tuple.version {
            return None;
        }
        let [icmp_type, code] = [header[0], header[1]];
        match icmp::message(self.tuple.proto, icmp_type) {
            Message::Untracked => None,
            Message::Query => {
                self.tuple.src_port = u16::from_be_bytes([header[4], header[5]]);
                self.tuple.dst_port = u16::from_be_bytes([icmp_type, code]);
                Some(Body::Icmp)
            }
            Message::Error => {
                let redirect = icmp_type == icmp::REDIRECT || icmp_type == icmp::REDIRECT_V6;
                let at = match (version, redirect) {
                    (6, true) => self.redirected(l3, l4)?,
                    _ => header.len(),
                };
                let tuple = embedded(l4.get(at..)?, version)?;
                Some(Body::IcmpError(Embedded { tuple, redirect }))
            }
        }
    }

    /// Where the embedded packet of an IPv6 redirect begins (RFC 4861 §4.5, §8.1): behind the
    /// two addresses, in the first option.
    fn redirected(&self, l3: &[u8], l4: &[u8]) -> Option<usize> {
        const OPTION: usize = 40;
        let link_local = l3[8] == 0xfe && l3[9] & 0xc0 == 0x80;
        let option = l4.get(OPTION..OPTION + 2)?;
        let ok = l4[1] == 0 && self.hops == 255 && link_local && option[0] == 4 && option[1] > 0;
        ok.then_some(OPTION + 8)
    }
}

/// Who sent the packet that an ICMP error carries, from its IP header on. Eight bytes of its
/// transport header are all that RFC 792 promises.
fn embedded(l3: &[u8], version: u8) -> Option<Tuple> {
    let (mut tuple, l4) = if version == 4 {
        let ip = Ipv4::parse(l3)?;
        let mut tuple = Tuple {
            proto: ip.proto(),
            version,
            ..Tuple::default()
        };
        tuple.src[..4].copy_from_slice(ip.src());
        tuple.dst[..4].copy_from_slice(ip.dst());
        (!ip.is_later_fragment()).then_some((tuple, ip.header_len()))?
    } else {
        let ip = Ipv6::parse(l3)?;
        let upper = ip.upper();
        let tuple = Tuple {
            src: *ip.src(),
            dst: *ip.dst(),
            proto: upper.proto,
            version,
            ..Tuple::default()
        };
        upper.reached.then_some((tuple, upper.offset))?
    };
    let l4 = l3.get(l4..)?;
    match tuple.proto {
        ip_proto::ICMP | ip_proto::ICMPV6 => {
            let header: &[u8; 8] = l4.first_chunk()?;
            tuple.src_port = u16::from_be_bytes([header[4], header[5]]);
            tuple.dst_port = u16::from_be_bytes([header[0], header[1]]);
        }
        ip_proto::GRE => {
            gre(l4, &mut tuple)?;
        }
        proto if has_ports(proto) => (tuple.src_port, tuple.dst_port) = l4::ports(l4)?,
        _ => {}
    }
    Some(tuple)
}

/// Whether tracking tells connections of this protocol apart by ports.
pub(super) fn has_ports(proto: u8) -> bool {
    ip_proto::has_ports(proto) || proto == ip_proto::UDPLITE
}

/// Length (UDP-Lite: coverage) and checksum of a UDP header.
fn udp_length(l4: &[u8]) -> Option<(usize, u16)> {
    let header: &[u8; 8] = l4.first_chunk()?;
    let be = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    Some((usize::from(be(4)), be(6)))
}

/// GRE is told apart by addresses only; that of PPTP (version 1, RFC 2637 §4.1) by its call, too,
/// and it must carry PPP.
fn gre(l4: &[u8], tuple: &mut Tuple) -> Option<Body> {
    const PPP: [u8; 2] = [0x88, 0x0b];
    if let Some(header) = l4.first_chunk::<8>()
        && header[1] & 7 == 1
    {
        if header[2..4] != PPP {
            return None;
        }
        tuple.dst_port = u16::from_be_bytes([header[6], header[7]]);
    }
    Some(Body::Gre)
}
