//! Frames out of a small world, so that rules meet them, with right checksums.

use super::carried::{Outer, outer};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::ops::Range;

/// Station addresses, a group and all.
pub const MACS: [[u8; 6]; 5] = [
    [2, 0, 0, 0, 0, 1],
    [2, 0, 0, 0, 0, 2],
    [2, 0, 0, 0, 0x10, 1],
    [1, 0, 0x5e, 0, 0, 1],
    [0xff; 6],
];

/// Numbers of ports, with neighbours and both ends of a range.
pub const PORTS: [u16; 6] = [1, 2, 80, 81, 0x1234, 0xfffe];

/// A frame that a port receives.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Number of the port.
    pub port: usize,
    /// Destination, as an index into [`MACS`].
    pub dst: usize,
    /// Source, likewise.
    pub src: usize,
    /// Outermost first.
    pub tags: Vec<Tag>,
    /// What follows.
    pub body: Body,
    /// Bytes of payload.
    pub len: usize,
    /// Cut off behind so many bytes.
    pub cut: Option<usize>,
    /// TCP or UDP whose checksum is left to be finished, where it can be.
    pub unfinished: bool,
    /// The tunnel that it arrives in.
    pub outer: Option<Outer>,
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug)]
pub struct Tag {
    /// 802.1ad.
    pub ad: bool,
    /// VLAN id.
    pub id: u16,
    /// Priority.
    pub prio: u8,
    /// Drop eligible.
    pub dei: bool,
}

/// What is behind the tags.
#[derive(Clone, Debug)]
pub enum Body {
    /// IPv4 or IPv6.
    Ip(Ip),
    /// ARP over Ethernet for IPv4.
    Arp {
        /// Operation.
        op: u16,
        /// Sender and target, as in [`Ip`].
        ips: (u8, u8),
        /// Sender and target, indices into [`MACS`].
        macs: (usize, usize),
    },
    /// Label stack entries, the last with its bottom bit set.
    Mpls(Vec<u32>),
    /// Another EtherType.
    Other(u16),
}

/// An IP packet.
#[derive(Clone, Debug)]
pub struct Ip {
    /// IPv6.
    pub v6: bool,
    /// Source and destination, numbers that [`Ip::address`] turns into addresses.
    pub ips: (u8, u8),
    /// Type of service, traffic class.
    pub tos: u8,
    /// Time to live, hop limit.
    pub ttl: u8,
    /// Whether there are options (IPv4: one of four bytes, IPv6: a destination options header).
    pub options: bool,
    /// Which part of a fragmented packet it is.
    pub part: Part,
    /// What it carries.
    pub l4: L4,
}

/// Which part of a fragmented packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Not fragmented.
    Whole,
    /// The first.
    First,
    /// A later one.
    Later,
}

/// A transport header.
#[derive(Clone, Debug)]
pub enum L4 {
    /// TCP: ports and the 12 bits of flags.
    Tcp(u16, u16, u16),
    /// UDP: ports, and whether its checksum is zero.
    Udp(u16, u16, bool),
    /// SCTP: ports.
    Sctp(u16, u16),
    /// ICMP, ICMPv6: type and code.
    Icmp(u8, u8),
    /// Another protocol.
    Other(u8),
}

impl Ip {
    /// The address with this number, as text and as bytes.
    pub fn address(&self, number: u8) -> (String, Vec<u8>) {
        let (a, b) = (number / 4 % 4, number % 4);
        if self.v6 {
            let mut bytes = vec![0x20, 1, 0x0d, 0xb8, 0, 0, 0, a];
            bytes.extend([0, 0, 0, 0, 0, 0, 0, b]);
            let address: [u8; 16] = bytes.clone().try_into().expect("16 bytes");
            (std::net::Ipv6Addr::from(address).to_string(), bytes)
        } else {
            (format!("10.{a}.0.{b}"), vec![10, a, 0, b])
        }
    }

    /// Its protocol number.
    pub fn proto(&self) -> u8 {
        match self.l4 {
            L4::Tcp(..) => 6,
            L4::Udp(..) => 17,
            L4::Sctp(..) => 132,
            L4::Icmp(..) if self.v6 => 58,
            L4::Icmp(..) => 1,
            L4::Other(proto) => proto,
        }
    }

    fn bytes(&self, payload: &[u8]) -> Vec<u8> {
        let (src, dst) = (self.address(self.ips.0).1, self.address(self.ips.1).1);
        let mut upper = match self.part {
            Part::Later => payload.to_vec(),
            _ => self.transport(payload, &src, &dst),
        };
        let (more, offset) = match self.part {
            Part::Whole => (0, 0),
            Part::First => (1, 0),
            // In units of eight bytes.
            Part::Later => (0, 100u16),
        };
        let mut out = Vec::new();
        if self.v6 {
            let mut next = self.proto();
            if self.part != Part::Whole {
                let mut header = vec![next, 0];
                header.extend((offset << 3 | more).to_be_bytes());
                header.extend([0, 0, 0, 9]);
                upper.splice(0..0, header);
                next = 44;
            }
            if self.options {
                upper.splice(0..0, [next, 0, 1, 4, 0, 0, 0, 0]);
                next = 60;
            }
            out.extend([0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
            out.extend((upper.len() as u16).to_be_bytes());
            out.extend([next, self.ttl]);
            out.extend(src);
            out.extend(dst);
        } else {
            let words = if self.options { 6 } else { 5 };
            out.extend([0x40 | words, self.tos]);
            out.extend((u16::from(words) * 4 + upper.len() as u16).to_be_bytes());
            out.extend([0x12, 0x34]);
            out.extend((more << 13 | offset).to_be_bytes());
            out.extend([self.ttl, self.proto(), 0, 0]);
            out.extend(src);
            out.extend(dst);
            if self.options {
                out.extend([1, 1, 1, 0]);
            }
            let sum = checksum(&out);
            out[10..12].copy_from_slice(&sum);
        }
        out.extend(upper);
        out
    }

    fn transport(&self, payload: &[u8], src: &[u8], dst: &[u8]) -> Vec<u8> {
        let ports = |src: u16, dst: u16| [src.to_be_bytes(), dst.to_be_bytes()].concat();
        let (mut out, at) = match self.l4 {
            L4::Tcp(src, dst, flags) => {
                let mut out = ports(src, dst);
                out.extend([0, 0, 0, 1, 0, 0, 0, 2]);
                out.extend((5 << 12 | flags).to_be_bytes());
                out.extend([0x20, 0, 0, 0, 0, 0]);
                (out, 16)
            }
            L4::Udp(src, dst, _) => {
                let mut out = ports(src, dst);
                out.extend((8 + payload.len() as u16).to_be_bytes());
                out.extend([0, 0]);
                (out, 6)
            }
            L4::Sctp(src, dst) => {
                let mut out = ports(src, dst);
                out.extend([0, 0, 0, 7, 0, 0, 0, 0]);
                out.extend(payload);
                let crc = crc32c(&out);
                out[8..12].copy_from_slice(&crc);
                return out;
            }
            L4::Icmp(kind, code) => (vec![kind, code, 0, 0, 0, 1, 0, 2], 2),
            L4::Other(_) => return payload.to_vec(),
        };
        out.extend(payload);
        let mut summed = Vec::new();
        if self.v6 || !matches!(self.l4, L4::Icmp(..)) {
            summed.extend([src, dst].concat());
            summed.extend((out.len() as u32).to_be_bytes());
            summed.extend([0, 0, 0, self.proto()]);
        }
        summed.extend(&out);
        let sum = match (&self.l4, checksum(&summed)) {
            (L4::Udp(_, _, true), _) => [0, 0],
            (L4::Udp(..), [0, 0]) => [0xff, 0xff],
            (_, sum) => sum,
        };
        out[at..at + 2].copy_from_slice(&sum);
        out
    }
}

/// Puts the checksum over a pseudo-header and these bytes in at `at`; a sum of zero as UDP has it.
pub(super) fn with_checksum(pseudo: &[u8], bytes: &mut [u8], at: usize) {
    let sum = match checksum(&[pseudo, bytes].concat()) {
        [0, 0] => [0xff; 2],
        sum => sum,
    };
    bytes[at..at + 2].copy_from_slice(&sum);
}

/// RFC 1071, as simply as it can be done.
pub(super) fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| match pair {
        [a, b] => u32::from(*a) << 8 | u32::from(*b),
        rest => u32::from(rest[0]) << 8,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// RFC 9260 appendix A, as simply as it can be done: the polynomial bit by bit, lowest byte first.
fn crc32c(bytes: &[u8]) -> [u8; 4] {
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    });
    (!crc).to_le_bytes()
}

impl Ip {
    /// Length of the transport header, and where in it the checksum is.
    fn checksum_place(&self) -> Option<(usize, usize)> {
        match self.l4 {
            L4::Tcp(..) => Some((20, 16)),
            L4::Udp(..) => Some((8, 6)),
            L4::Icmp(..) => Some((8, 2)),
            L4::Sctp(..) | L4::Other(_) => None,
        }
    }
}

impl Frame {
    /// As it is on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let inside = self.inside();
        match &self.outer {
            Some(outer) => outer.wrap(&inside),
            None => inside,
        }
    }

    /// The same without the tunnel that it is in.
    pub fn inside(&self) -> Vec<u8> {
        let mut out = [MACS[self.dst], MACS[self.src]].concat();
        for tag in &self.tags {
            out.extend(if tag.ad { [0x88, 0xa8] } else { [0x81, 0] });
            let tci = u16::from(tag.prio) << 13 | u16::from(tag.dei) << 12 | tag.id;
            out.extend(tci.to_be_bytes());
        }
        let payload: Vec<u8> = (0..self.len).map(|i| (i * 7 + 3) as u8).collect();
        out.extend(self.eth_type().to_be_bytes());
        match &self.body {
            Body::Ip(ip) => out.extend(ip.bytes(&payload)),
            Body::Arp { op, ips, macs } => {
                out.extend([0, 1, 8, 0, 6, 4]);
                out.extend(op.to_be_bytes());
                for (ip, mac) in [(ips.0, macs.0), (ips.1, macs.1)] {
                    out.extend(MACS[mac]);
                    out.extend([10, ip / 4 % 4, 0, ip % 4]);
                }
                out.extend(payload);
            }
            Body::Mpls(labels) => {
                labels
                    .iter()
                    .for_each(|entry| out.extend(entry.to_be_bytes()));
                out.extend(payload);
            }
            Body::Other(_) => out.extend(payload),
        }
        if let (Some((start, at)), Body::Ip(ip)) = (self.to_finish(out.len()), &self.body) {
            let mut pseudo = [ip.address(ip.ips.0).1, ip.address(ip.ips.1).1].concat();
            pseudo.extend(((out.len() - start) as u32).to_be_bytes());
            pseudo.extend([0, 0, 0, ip.proto()]);
            let [high, low] = checksum(&pseudo);
            out[start + at..start + at + 2].copy_from_slice(&[!high, !low]);
        }
        // No port takes less than an Ethernet header.
        if let Some(cut) = self.cut {
            out.truncate(cut.max(14));
        }
        out
    }

    /// Where the sum of an unfinished checksum of a frame of `frame_len` bytes starts, and how far
    /// behind it goes.
    fn to_finish(&self, frame_len: usize) -> Option<(usize, usize)> {
        let Body::Ip(ip) = &self.body else {
            return None;
        };
        let possible =
            matches!(ip.l4, L4::Tcp(..) | L4::Udp(_, _, false)) && ip.part == Part::Whole;
        let (header, at) = ip
            .checksum_place()
            .filter(|_| possible && self.unfinished)?;
        match self.cut {
            None => Some((frame_len - self.len - header, at)),
            Some(_) => None,
        }
    }

    /// The virtio-net header that it is sent with.
    pub fn header(&self) -> [u8; 12] {
        let mut header = [0; 12];
        if let Some((start, at)) = self.to_finish(self.bytes().len()) {
            // virtio 1.3 §5.1.6: NEEDS_CSUM, csum_start, csum_offset.
            header[0] = 1;
            header[6..8].copy_from_slice(&(start as u16).to_le_bytes());
            header[8..10].copy_from_slice(&(at as u16).to_le_bytes());
        }
        header
    }

    /// What a rule has made of this frame, but with the checksum that UDP over IPv6 has to have;
    /// only for such packets without one, in a tunnel or not.
    pub fn with_udp6_checksum(&self, now: &[u8]) -> Option<Vec<u8>> {
        let Body::Ip(ip) = &self.body else {
            return None;
        };
        if !ip.v6 || ip.part != Part::Whole || !matches!(ip.l4, L4::Udp(_, _, true)) {
            return None;
        }
        // Whatever rules put in front, the end stays where it is.
        let udp = now.len().checked_sub(8 + self.len)?;
        let options = if ip.options { 8 } else { 0 };
        let addresses = udp.checked_sub(options + 32)?;
        let mut out = now.to_vec();
        if now[udp + 6..udp + 8] == [0, 0] {
            let mut summed = now[addresses..addresses + 32].to_vec();
            summed.extend(((now.len() - udp) as u32).to_be_bytes());
            summed.extend([0, 0, 0, 17]);
            summed.extend(&now[udp..]);
            let sum = checksum(&summed);
            let sum = if sum == [0, 0] { [0xff; 2] } else { sum };
            out[udp + 6..udp + 8].copy_from_slice(&sum);
        }
        Some(out)
    }

    /// What a rule has made of this frame, but with the transport checksum that it was sent with;
    /// only for first fragments over IPv6.
    pub fn with_old_checksum(&self, now: &[u8]) -> Option<Vec<u8>> {
        let Body::Ip(ip) = &self.body else {
            return None;
        };
        let (header, at) = ip.checksum_place()?;
        // Whatever rules put in front, the end stays where it is.
        let from_end = header + self.len - at;
        let sent = self.bytes();
        let mut out = now.to_vec();
        let place = out.len().checked_sub(from_end)?..out.len() - from_end + 2;
        out[place].copy_from_slice(&sent[sent.len() - from_end..][..2]);
        (ip.v6 && ip.part == Part::First).then_some(out)
    }

    /// Where a cut is in the options of IPv4.
    fn options(&self) -> Range<usize> {
        let from = 14 + 4 * self.tags.len() + 20;
        match &self.body {
            Body::Ip(ip) if ip.options && !ip.v6 => from..from + 4,
            _ => 0..0,
        }
    }

    /// EtherType behind all tags.
    pub fn eth_type(&self) -> u16 {
        match &self.body {
            Body::Ip(ip) if ip.v6 => 0x86dd,
            Body::Ip(_) => 0x0800,
            Body::Arp { .. } => 0x0806,
            Body::Mpls(_) => 0x8847,
            Body::Other(eth_type) => *eth_type,
        }
    }
}

fn tag() -> impl Strategy<Value = Tag> {
    let id = select(&[5u16, 6, 0, 4094][..]);
    (
        prop::bool::weighted(0.3),
        id,
        0u8..8,
        prop::bool::weighted(0.1),
    )
        .prop_map(|(ad, id, prio, dei)| Tag { ad, id, prio, dei })
}

fn tags() -> impl Strategy<Value = Vec<Tag>> {
    prop_oneof![5 => Just(Vec::new()), 3 => vec(tag(), 1), 2 => vec(tag(), 2)]
}

/// A transport header.
fn l4() -> impl Strategy<Value = L4> {
    let ports = || (select(&PORTS[..]), select(&PORTS[..]));
    let flags = prop_oneof![select(&[0x02u16, 0x12, 0x10, 0x11, 0x18][..]), 0u16..0x1000];
    prop_oneof![
        3 => (ports(), flags).prop_map(|((s, d), flags)| L4::Tcp(s, d, flags)),
        3 => (ports(), prop::bool::weighted(0.2)).prop_map(|((s, d), zero)| L4::Udp(s, d, zero)),
        1 => ports().prop_map(|(s, d)| L4::Sctp(s, d)),
        2 => (select(&[0u8, 3, 8, 11, 128, 129, 135][..]), 0u8..3).prop_map(|(k, c)| L4::Icmp(k, c)),
        1 => select(&[2u8, 47, 50, 89][..]).prop_map(L4::Other),
    ]
}

/// An IP packet.
fn ip() -> impl Strategy<Value = Ip> {
    let part = prop_oneof![8 => Just(Part::Whole), 1 => Just(Part::First), 1 => Just(Part::Later)];
    let tos = select(&[0u8, 0, 0x10, 0xb8, 0x03][..]);
    let ttl = select(&[64u8, 1, 2, 255, 0][..]);
    let options = prop::bool::weighted(0.15);
    (
        any::<bool>(),
        (0u8..16, 0u8..16),
        tos,
        ttl,
        options,
        part,
        l4(),
    )
        .prop_map(|(v6, ips, tos, ttl, options, part, l4)| Ip {
            v6,
            ips,
            tos,
            ttl,
            options,
            part,
            l4,
        })
}

fn body() -> impl Strategy<Value = Body> {
    let macs = || (0..MACS.len(), 0..MACS.len());
    let arp = (1u16..4, (0u8..16, 0u8..16), macs());
    let label = (
        select(&[16u32, 17, 0xfffff][..]),
        0u32..8,
        select(&[1u32, 64][..]),
    );
    let labels = vec(
        label.prop_map(|(label, tc, ttl)| label << 12 | tc << 9 | ttl),
        1..4,
    );
    prop_oneof![
        12 => ip().prop_map(Body::Ip),
        2 => arp.prop_map(|(op, ips, macs)| Body::Arp { op, ips, macs }),
        1 => labels.prop_map(|mut entries| {
            if let Some(last) = entries.last_mut() {
                *last |= 1 << 8;
            }
            Body::Mpls(entries)
        }),
        1 => select(&[0x88ccu16, 0x88b5][..]).prop_map(Body::Other),
    ]
}

/// A frame that one of `ports` ports receives.
pub fn frame(ports: usize) -> impl Strategy<Value = Frame> {
    // What is cut off has headers that end too early.
    let cut = prop_oneof![14 => Just(None), 1 => (20usize..80).prop_map(Some)];
    // A source is a station's own address.
    let len = prop_oneof![5 => 26usize..80, 1 => 400usize..500];
    let ends = (0..ports, 0..MACS.len(), 0usize..3);
    (ends, tags(), body(), len, (cut, prop::bool::weighted(0.2)))
        .prop_map(
            |((port, dst, src), tags, body, len, (cut, unfinished))| Frame {
                port,
                dst,
                src,
                tags,
                body,
                len,
                cut,
                unfinished,
                outer: None,
            },
        )
        .prop_map(|frame| match frame.cut {
            // To tc an IPv4 header is there without its options.
            Some(cut) if frame.options().contains(&cut) => Frame { cut: None, ..frame },
            _ => frame,
        })
}

/// A frame in a tunnel, which the uplink receives.
pub fn carried_frame() -> impl Strategy<Value = Frame> {
    (frame(1), outer()).prop_map(|(frame, mut outer)| {
        if !frame.tags.is_empty() {
            // The kernel takes the tag for the header that has the mark.
            outer.tos &= 0xfc;
        }
        if outer.is_bare() && (!frame.tags.is_empty() || !matches!(frame.body, Body::Ip(_))) {
            outer.kind = "vxlan";
        }
        Frame {
            port: 0,
            cut: None,
            unfinished: false,
            outer: Some(outer),
            ..frame
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_known_packets() {
        // RFC 1071 §3, and the check value that catalogues of CRCs give for CRC-32C.
        assert_eq!(
            checksum(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]),
            [!0xdd, !0xf2]
        );
        assert_eq!(crc32c(b"123456789"), 0xe306_9283u32.to_le_bytes());
    }
}
