//! Joining TCP segments that follow each other, as hardware does for a host that takes large
//! packets (LRO; ethtool's rx-gro-hw, NETIF_F_GRO_HW).
//!
//! The rules are those of the kernel's GRO (Documentation/networking/segmentation-offloads.rst;
//! tcp_gro_receive, inet_gro_receive, ipv6_gro_receive), but narrower where its result could not
//! be cut into exactly what came: cutting a train with [`super::Segmenter`] gives every byte of
//! its segments again, IPv4 identifications and TCP flags included.

use super::outer::{finish_ip, pseudo};
use super::{Csum, Gso, GsoKind, Offload};
use crate::wire::ipv6::IPV6_HEADER_LEN;
use crate::wire::l4::{TCP_CHECKSUM, tcp_flags, tcp_header_len};
use crate::wire::{ETH_HEADER_LEN, IpVersion, Layout, Transport, VLAN_TAG_LEN, checksum, ip_proto};

/// Longest headers of a segment: two tags, IPv6, TCP with all options.
const MAX_HEADERS: usize = ETH_HEADER_LEN + 2 * VLAN_TAG_LEN + IPV6_HEADER_LEN + 60;
/// IPv4 without options, and version 4.
const PLAIN_IPV4: u8 = 0x45;
/// TCP flags that may differ between segments of a train: the last one's count for all of it.
const AT_THE_END: u8 = tcp_flags::FIN | tcp_flags::PSH;
/// TCP flags that a segment of a train may have beside those.
const THROUGHOUT: u8 = tcp_flags::ACK | tcp_flags::ECE;

/// A TCP segment that can be part of a train.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Its headers, with zeros where those of a train's segments differ.
    common: [u8; MAX_HEADERS],
    /// How many of these bytes there are.
    headers: u8,
    l3: u8,
    l4: u8,
    version: IpVersion,
    /// Bytes of payload, at least 1.
    payload: u32,
    /// TCP's number of the first of them.
    seq: u32,
    /// IPv4's identification.
    id: u16,
    /// Those flags of [`AT_THE_END`] that it has.
    ends: u8,
}

impl Segment {
    /// Looks at a frame of `frame_len` bytes that begins with `head`. `None` for all that has to
    /// travel on its own: other protocols, IP options, fragments, padding, wrong lengths and IPv4
    /// checksums, flags other than ACK, PSH, FIN and ECE, no payload, frames that are still to be
    /// cut. The TCP checksum is not looked at: [`Segment::verify`].
    pub fn of(head: &[u8], frame_len: u32, offload: &Offload) -> Option<Self> {
        if offload.gso.is_some() {
            return None;
        }
        let layout = Layout::of(head)?;
        let (l3, ip) = (layout.l3, layout.ip?);
        let Transport::At(l4) = ip.l4 else {
            return None;
        };
        let headers = l4 + tcp_header_len(head.get(l4..)?)?;
        let plain = match ip.version {
            IpVersion::V4 => {
                head[l3] == PLAIN_IPV4
                    // The highest bit of the three is reserved.
                    && head[l3 + 6] & 0x80 == 0
                    && checksum::internet(&head[l3..l4]) == 0
            }
            IpVersion::V6 => l4 == l3 + IPV6_HEADER_LEN,
        };
        let payload = frame_len.checked_sub(headers as u32)?;
        let tcp = head.get(l4..headers)?;
        let (flags, ends) = (tcp[13] & !AT_THE_END, tcp[13] & AT_THE_END);
        let csum = offload.csum.is_none_or(|csum| {
            usize::from(csum.start) == l4 && usize::from(csum.offset) == TCP_CHECKSUM
        });
        let fits = plain
            && csum
            && ip.proto == ip_proto::TCP
            && !ip.fragment
            && ip.end == frame_len as usize
            && headers <= MAX_HEADERS
            && payload > 0
            // No bits beside the data offset.
            && tcp[12] & 0xf == 0
            && flags & !THROUGHOUT == 0
            && flags & tcp_flags::ACK != 0;
        if !fits {
            return None;
        }
        let be16 = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        let id = match ip.version {
            IpVersion::V4 => be16(l3 + 4),
            IpVersion::V6 => 0,
        };
        let mut common = [0; MAX_HEADERS];
        common[..headers].copy_from_slice(&head[..headers]);
        match ip.version {
            // Length and identification; the checksum over them.
            IpVersion::V4 => {
                common[l3 + 2..l3 + 6].fill(0);
                common[l3 + 10..l3 + 12].fill(0);
            }
            IpVersion::V6 => common[l3 + 4..l3 + 6].fill(0),
        }
        common[l4 + 4..l4 + 8].fill(0);
        common[l4 + 13] = flags;
        common[l4 + TCP_CHECKSUM..l4 + TCP_CHECKSUM + 2].fill(0);
        Some(Self {
            common,
            headers: headers as u8,
            l3: l3 as u8,
            l4: l4 as u8,
            version: ip.version,
            payload,
            seq,
            id,
            ends,
        })
    }

    /// How a train of such segments is cut.
    pub fn kind(&self) -> GsoKind {
        match self.version {
            IpVersion::V4 => GsoKind::Tcp4,
            IpVersion::V6 => GsoKind::Tcp6,
        }
    }

    /// Whether both are of one direction of one connection, and so have to stay in order.
    pub fn is_of_flow(&self, other: &Self) -> bool {
        let flow = |segment: &Self| {
            let (l3, l4) = (usize::from(segment.l3), usize::from(segment.l4));
            let addresses = match segment.version {
                IpVersion::V4 => l3 + 12,
                IpVersion::V6 => l3 + 8,
            };
            addresses..l4 + 4
        };
        let (mine, theirs) = (flow(self), flow(other));
        self.version == other.version && self.common[mine] == other.common[theirs]
    }

    /// Whether the checksum of `frame`, the whole segment, is right, or nobody has to know: a
    /// train's is unfinished, so its receiver believes it.
    pub fn verify(&self, frame: &[u8], offload: &Offload) -> bool {
        if offload.csum.is_some() || offload.data_valid {
            return true;
        }
        let (l3, l4) = (usize::from(self.l3), usize::from(self.l4));
        let Some((before, tcp)) = frame.split_at_checked(l4) else {
            return false;
        };
        let pseudo = pseudo(self.version, &before[l3..], ip_proto::TCP, tcp.len() as u32);
        pseudo.is_some_and(|pseudo| pseudo.bytes(tcp).finish() == 0)
    }

    fn common(&self) -> &[u8] {
        &self.common[..usize::from(self.headers)]
    }
}

/// Segments joined so far, whose bytes are in the caller's buffer.
#[derive(Clone, Copy, Debug)]
pub struct Train {
    first: Segment,
    /// Bytes in the buffer.
    len: usize,
    /// How many segments.
    count: u16,
    /// TCP's number of what would be next.
    next: u32,
    /// Nothing can follow: the last was shorter than the first, or said that it is the last.
    complete: bool,
    ends: u8,
}

impl Train {
    /// A train of one: `frame`, which is at the start of the buffer already.
    pub fn begin(first: Segment) -> Self {
        Self {
            first,
            len: usize::from(first.headers) + first.payload as usize,
            count: 1,
            next: first.seq.wrapping_add(first.payload),
            complete: first.ends != 0,
            ends: first.ends,
        }
    }

    /// How many segments it has.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Whether this segment is the next one.
    pub fn continues_with(&self, segment: &Segment) -> bool {
        let first = &self.first;
        let longest = usize::from(first.l3) + usize::from(u16::MAX);
        !self.complete
            && segment.seq == self.next
            && segment.payload <= first.payload
            && segment.common() == first.common()
            && (first.version == IpVersion::V6 || segment.id == first.id.wrapping_add(self.count))
            && self.len + segment.payload as usize <= longest
    }

    /// Appends the payload of `frame`, the whole of a segment that it
    /// [continues with](Train::continues_with). False, and nothing changed, if the buffer is full.
    pub fn append(&mut self, buffer: &mut [u8], segment: &Segment, frame: &[u8]) -> bool {
        let payload = frame.get(usize::from(segment.headers)..).unwrap_or(&[]);
        let end = self.len + payload.len();
        let Some(room) = buffer.get_mut(self.len..end) else {
            return false;
        };
        room.copy_from_slice(payload);
        self.lengthen(segment);
        true
    }

    /// Counts a segment that it continues with, whose payload is not here yet.
    pub fn lengthen(&mut self, segment: &Segment) {
        self.len += segment.payload as usize;
        self.count += 1;
        self.next = self.next.wrapping_add(segment.payload);
        self.ends = segment.ends;
        self.complete = segment.ends != 0 || segment.payload < self.first.payload;
    }

    /// Makes one packet of two or more segments: its length, and what is left to do to it.
    pub fn finish(&self, buffer: &mut [u8]) -> (usize, Offload) {
        let first = &self.first;
        let (l3, l4) = (usize::from(first.l3), usize::from(first.l4));
        let frame = &mut buffer[..self.len];
        finish_ip(first.version, 0, &mut frame[l3..], l4 - l3);
        frame[l4 + 13] = frame[l4 + 13] & !AT_THE_END | self.ends;
        let (before, tcp) = frame.split_at_mut(l4);
        let pseudo = pseudo(
            first.version,
            &before[l3..],
            ip_proto::TCP,
            tcp.len() as u32,
        );
        let sum = pseudo.unwrap_or_default().partial();
        tcp[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
        let offload = Offload {
            csum: Some(Csum {
                start: l4 as u16,
                offset: TCP_CHECKSUM as u16,
            }),
            gso: Some(Gso {
                kind: first.kind(),
                // A train of at least two fits an IP packet.
                size: first.payload as u16,
                hdr_len: u16::from(first.headers),
                ecn: false,
            }),
            ..Offload::default()
        };
        (self.len, offload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::{Segmenter, finish_checksum};
    use crate::testing::{FrameSpec, checksums_verify};
    use proptest::prelude::*;

    const NOTHING: Offload = Offload {
        csum: None,
        gso: None,
        outer: [super::super::Outer {
            len: 0,
            bare: false,
        }; super::super::MAX_OUTER],
        data_valid: false,
    };

    fn cut(frame: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
        let cut = Segmenter::new(frame, offload).unwrap();
        let segment = |n| {
            let mut out = vec![0; cut.max_len()];
            let len = cut.write(n, &mut out).unwrap();
            out.truncate(len);
            out
        };
        (0..cut.count()).map(segment).collect()
    }

    /// Large packets, as they are, where two or more frames could be joined.
    fn join(frames: &[Vec<u8>]) -> Vec<(Vec<u8>, Offload)> {
        let mut out = Vec::new();
        let mut buffer = vec![0; 70_000];
        let mut train: Option<Train> = None;
        let put = |out: &mut Vec<_>, train: Option<Train>, buffer: &mut [u8]| {
            let Some(train) = train else { return };
            let (len, offload) = match train.count() {
                1 => (train.len, NOTHING),
                _ => train.finish(buffer),
            };
            out.push((buffer[..len].to_vec(), offload));
        };
        for frame in frames {
            let head = &frame[..frame.len().min(crate::wire::HEAD_LEN)];
            let segment = Segment::of(head, frame.len() as u32, &NOTHING);
            let segment = segment.filter(|segment| segment.verify(frame, &NOTHING));
            if let (Some(train), Some(segment)) = (&mut train, &segment)
                && train.continues_with(segment)
            {
                assert!(train.append(&mut buffer, segment, frame));
                continue;
            }
            put(&mut out, train.take(), &mut buffer);
            buffer[..frame.len()].copy_from_slice(frame);
            match segment {
                Some(segment) => train = Some(Train::begin(segment)),
                None => out.push((frame.clone(), NOTHING)),
            }
        }
        put(&mut out, train, &mut buffer);
        out
    }

    fn apart(joined: &[(Vec<u8>, Offload)]) -> Vec<Vec<u8>> {
        let cut = |(frame, offload): &(Vec<u8>, Offload)| match offload.gso {
            Some(_) => cut(frame, offload),
            None => vec![frame.clone()],
        };
        joined.iter().flat_map(cut).collect()
    }

    fn segments(spec: &FrameSpec, size: u16, flags: u8) -> Vec<Vec<u8>> {
        let mut frame = spec.build();
        let l4 = spec.l4_offset();
        frame[l4 + 13] = flags;
        let kind = if spec.v6 {
            GsoKind::Tcp6
        } else {
            GsoKind::Tcp4
        };
        let gso = Gso {
            kind,
            size,
            hdr_len: (l4 + 20 + spec.tcp_options) as u16,
            ecn: false,
        };
        let csum = Csum {
            start: l4 as u16,
            offset: TCP_CHECKSUM as u16,
        };
        if spec.payload <= usize::from(size) {
            assert!(finish_checksum(&mut frame, csum));
            return vec![frame];
        }
        let offload = Offload {
            gso: Some(gso),
            csum: Some(csum),
            ..NOTHING
        };
        cut(&frame, &offload)
    }

    #[test]
    fn a_cut_packet_becomes_one_again() {
        for (v6, vlan) in [(false, None), (true, None), (false, Some(0x2005))] {
            let spec = FrameSpec {
                v6,
                vlan,
                tcp_options: 12,
                ..FrameSpec::tcp4(5000)
            };
            let frames = segments(&spec, 1448, 0x19);
            assert_eq!(frames.len(), 4);
            let joined = join(&frames);
            assert_eq!(joined.len(), 1);
            let (whole, offload) = &joined[0];
            let gso = offload.gso.unwrap();
            assert_eq!((whole.len(), gso.size), (spec.build().len(), 1448));
            let mut finished = whole.clone();
            assert!(finish_checksum(&mut finished, offload.csum.unwrap()));
            assert!(checksums_verify(&finished));
            assert_eq!(finished[spec.l4_offset() + 13], 0x19);
            assert_eq!(apart(&joined), frames);
        }
    }

    /// What one byte of a header means for a train: the second of three segments has it otherwise.
    #[test]
    fn what_differs_travels_on_its_own() {
        let spec = FrameSpec {
            tcp_options: 12,
            ..FrameSpec::tcp4(3 * 1000)
        };
        let frames = segments(&spec, 1000, 0x10);
        let trains = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut frames = frames.clone();
            change(&mut frames[1]);
            let joined = join(&frames);
            assert_eq!(apart(&joined), frames);
            joined.len()
        };
        let with = |at: usize, value: u8| {
            trains(&|frame| {
                frame[at] = value;
                mend(frame);
            })
        };
        assert_eq!(trains(&|_| {}), 1);
        for (what, at, value) in [
            ("source address", 6, 4),
            ("tos", 15, 4),
            ("identification", 19, 0xff),
            ("don't fragment", 20, 0x40),
            ("ttl", 22, 63),
            ("source", 29, 7),
            ("port", 35, 9),
            ("number", 41, 9),
            ("acknowledgement", 45, 9),
            ("syn", 47, 0x12),
            ("window reduced", 47, 0x90),
            ("echo", 47, 0x50),
            ("window", 49, 1),
            ("urgent", 53, 1),
            ("option", 60, 9),
        ] {
            assert_eq!(with(at, value), 3, "{what}");
        }
        assert_eq!(with(47, 0x18), 2, "ends a train");
        assert_eq!(trains(&|f| f[51] ^= 1), 3, "wrong checksum");
        assert_eq!(trains(&|f| f[200] ^= 1), 3, "not the bytes of its checksum");
        assert_eq!(trains(&|f| f[25] ^= 1), 3, "wrong IPv4 checksum");
        assert_eq!(trains(&|f| f.push(0)), 3, "padding");
    }

    /// Puts right checksums in again.
    fn mend(frame: &mut [u8]) {
        finish_ip_checksum(frame);
        let (before, tcp) = frame.split_at_mut(34);
        let sum = pseudo(IpVersion::V4, &before[14..], 6, tcp.len() as u32).unwrap();
        super::super::outer::put_checksum(sum, tcp, TCP_CHECKSUM);
    }

    fn finish_ip_checksum(frame: &mut [u8]) {
        frame[24..26].fill(0);
        let sum = checksum::internet(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }

    #[test]
    fn no_train_is_longer_than_an_ip_packet() {
        let spec = FrameSpec::tcp4(60_000);
        let mut frames = segments(&spec, 30_000, 0x10);
        let mut third = frames[1].clone();
        let seq = 0x100 + 60_000u32;
        third[38..42].copy_from_slice(&seq.to_be_bytes());
        third[18..20].copy_from_slice(&0x1236u16.to_be_bytes());
        mend(&mut third);
        frames.push(third);
        let lens: Vec<_> = join(&frames).iter().map(|(f, _)| f.len()).collect();
        assert_eq!(lens, [60_054, 30_054]);
    }

    proptest! {
        /// Segments of several packets of a flow, some of them changed, lost or swapped: cutting
        /// what they are joined to gives exactly them.
        #[test]
        fn cut_again_it_is_what_came(
            v6: bool,
            tagged: bool,
            options in 0usize..4,
            packets in prop::collection::vec((1usize..8000, 100u16..1500, any::<bool>()), 1..4),
            changes in prop::collection::vec((0usize..64, 0usize..100, any::<u8>()), 0..4),
            mended: bool,
            swap in prop::option::of((0usize..64, 0usize..64)),
        ) {
            let mut frames = Vec::new();
            let mut expected = 0;
            for (payload, size, push) in packets {
                let spec = FrameSpec {
                    v6,
                    vlan: tagged.then_some(7),
                    tcp_options: 4 * options,
                    ..FrameSpec::tcp4(payload)
                };
                frames.extend(segments(&spec, size, if push { 0x18 } else { 0x10 }));
                expected += 1;
            }
            let untouched = changes.is_empty() && swap.is_none();
            let count = frames.len();
            for (which, at, value) in changes {
                let frame = &mut frames[which % count];
                let at = at % frame.len();
                frame[at] = value;
                if mended && !v6 && !tagged && frame[14] == 0x45 && frame.len() >= 54 {
                    mend(frame);
                }
            }
            if let Some((a, b)) = swap {
                frames.swap(a % count, b % count);
            }
            let joined = join(&frames);
            prop_assert_eq!(apart(&joined), frames);
            if untouched {
                // Packets with the same numbers do not follow each other.
                prop_assert_eq!(joined.len(), expected);
            }
        }
    }
}
