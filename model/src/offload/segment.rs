//! Checksum and segmentation in software, for receivers that cannot take a frame unfinished.

use super::outer::{OuterHeaders, finish_ip, pseudo, put_checksum};
use super::{Csum, GsoKind, Offload};
use crate::DropReason;
use crate::wire::l4::{TCP_CHECKSUM, UDP_CHECKSUM, UDP_HEADER_LEN, tcp_flags, tcp_header_len};
use crate::wire::{IpVersion, Layout, Transport, checksum, ip_at, ip_proto};

/// Finishes a checksum in place: sums from `csum.start` to the end of the frame, with the
/// pseudo-header's sum that the sender left in the field. False, and nothing changed, if the field
/// lies outside the frame.
pub fn finish_checksum(frame: &mut [u8], csum: Csum) -> bool {
    let start = usize::from(csum.start);
    let field = start + usize::from(csum.offset);
    if field + 2 > frame.len() {
        return false;
    }
    let sum = no_zero(checksum::internet(&frame[start..]));
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

/// RFC 768: a UDP checksum of 0 means there is none, and its complement means the same number.
/// Harmless for the others, as in ones' complement both are zero.
pub(super) fn no_zero(sum: u16) -> u16 {
    if sum == 0 { 0xffff } else { sum }
}

/// Cuts one frame into the segments that would have been sent without segmentation offload.
#[derive(Clone, Copy, Debug)]
pub struct Segmenter<'a> {
    outer: OuterHeaders<'a>,
    headers: &'a [u8],
    payload: &'a [u8],
    version: IpVersion,
    proto: u8,
    size: usize,
    l3: usize,
    l4: usize,
}

impl<'a> Segmenter<'a> {
    /// For a whole frame that `offload` was checked for (and shifted with). The headers are
    /// parsed again, so one of another frame is `BadOffload` and no more, as is one without
    /// `gso`.
    pub fn new(frame: &'a [u8], offload: &Offload) -> Result<Self, DropReason> {
        const BAD: DropReason = DropReason::BadOffload;
        let gso = offload.gso.ok_or(BAD)?;
        let (version, proto) = match gso.kind {
            GsoKind::Tcp4 => (IpVersion::V4, ip_proto::TCP),
            GsoKind::Tcp6 => (IpVersion::V6, ip_proto::TCP),
            GsoKind::Udp4 => (IpVersion::V4, ip_proto::UDP),
            GsoKind::Udp6 => (IpVersion::V6, ip_proto::UDP),
        };
        let (outer, frame) = OuterHeaders::split(frame, &offload.outer)?;
        let (l3, ip) = if outer.bare {
            (0, ip_at(frame, 0, version.eth_type()))
        } else {
            let layout = Layout::of(frame).ok_or(BAD)?;
            (layout.l3, layout.ip)
        };
        let ip = ip.ok_or(BAD)?;
        let Transport::At(l4) = ip.l4 else {
            return Err(BAD);
        };
        let hdr_len = usize::from(gso.hdr_len)
            .checked_sub(outer.len())
            .ok_or(BAD)?;
        let (headers, payload) = frame.split_at_checked(hdr_len).ok_or(BAD)?;
        let l4_len = match proto {
            ip_proto::TCP => headers.get(l4..).and_then(tcp_header_len).ok_or(BAD)?,
            _ => UDP_HEADER_LEN,
        };
        let ok = (ip.version, ip.proto) == (version, proto)
            && !ip.fragment
            && l4 + l4_len == headers.len()
            // So that every length field of a segment fits its 16 bits.
            && outer.len() + headers.len() + usize::from(gso.size) <= usize::from(u16::MAX)
            && gso.size != 0;
        let segmenter = Self {
            outer,
            headers,
            payload,
            version,
            proto,
            size: usize::from(gso.size),
            l3,
            l4,
        };
        if ok { Ok(segmenter) } else { Err(BAD) }
    }

    /// Number of segments; 1 for a frame without payload.
    pub fn count(&self) -> usize {
        self.payload.len().div_ceil(self.size).max(1)
    }

    /// Length of the longest segment with its headers, in bytes: room for [`Segmenter::write`].
    pub fn max_len(&self) -> usize {
        self.outer.len() + self.headers.len() + self.size.min(self.payload.len())
    }

    /// Writes segment `n`, all its checksums done, into `out` and returns its length in bytes.
    /// `None` if there is no such segment or `out` is too short for it.
    pub fn write(&self, n: usize, out: &mut [u8]) -> Option<usize> {
        if n >= self.count() {
            return None;
        }
        let from = n * self.size;
        let payload = &self.payload[from..self.payload.len().min(from + self.size)];
        let len = self.outer.len() + self.headers.len() + payload.len();
        let out = out.get_mut(..len)?;
        let segment = &mut out[self.outer.len()..];
        segment[..self.headers.len()].copy_from_slice(self.headers);
        segment[self.headers.len()..].copy_from_slice(payload);
        finish_ip(self.version, n, &mut segment[self.l3..], self.l4 - self.l3);
        self.fix_l4(n, segment);
        self.outer.write(n, out);
        Some(len)
    }

    fn fix_l4(&self, n: usize, out: &mut [u8]) {
        let (before, segment) = out.split_at_mut(self.l4);
        let len = segment.len() as u32;
        let field = if self.proto == ip_proto::TCP {
            self.fix_tcp(n, segment);
            TCP_CHECKSUM
        } else {
            segment[4..6].copy_from_slice(&(len as u16).to_be_bytes());
            UDP_CHECKSUM
        };
        let pseudo = pseudo(self.version, &before[self.l3..], self.proto, len);
        put_checksum(pseudo.unwrap_or_default(), segment, field);
    }

    fn fix_tcp(&self, n: usize, tcp: &mut [u8]) {
        let first = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        let seq = first.wrapping_add((n * self.size) as u32);
        tcp[4..8].copy_from_slice(&seq.to_be_bytes());
        if n + 1 < self.count() {
            tcp[13] &= !(tcp_flags::FIN | tcp_flags::PSH);
        }
        // RFC 3168 §6.1.2: the sender says once that it has reduced its window.
        if n > 0 {
            tcp[13] &= !tcp_flags::CWR;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::{Gso, VnetHdr, flags, gso_type};
    use crate::testing::{FrameSpec, checksums_verify};
    use crate::{VportId, wire};
    use proptest::prelude::*;

    fn cut(frame: &[u8], gso: Gso) -> Result<Segmenter<'_>, DropReason> {
        let offload = Offload {
            gso: Some(gso),
            ..Offload::default()
        };
        Segmenter::new(frame, &offload)
    }

    fn hdr(spec: &FrameSpec, size: u16) -> VnetHdr {
        let kind = match (spec.tcp, spec.v6) {
            (true, false) => gso_type::TCPV4,
            (true, true) => gso_type::TCPV6,
            (false, _) => gso_type::UDP_L4,
        };
        VnetHdr {
            flags: flags::NEEDS_CSUM,
            gso_type: kind,
            gso_size: size,
            csum_start: spec.l4_offset() as u16,
            csum_offset: if spec.tcp { 16 } else { 6 },
            ..VnetHdr::default()
        }
    }

    #[test]
    fn finishes_what_the_driver_began() {
        for spec in [FrameSpec::tcp4(33), FrameSpec::udp4(1), FrameSpec::udp4(0)] {
            let mut frame = spec.build();
            let offset = if spec.tcp { 16 } else { 6 };
            let csum = Csum {
                start: spec.l4_offset() as u16,
                offset,
            };
            assert!(!checksums_verify(&frame), "only the pseudo-header so far");
            assert!(finish_checksum(&mut frame, csum));
            assert!(checksums_verify(&frame));
            let far = Csum {
                start: frame.len() as u16 - 1,
                offset: 0,
            };
            assert!(!finish_checksum(&mut frame, far));
        }
    }

    #[test]
    fn tcp_flags_and_numbers() {
        let mut frame = FrameSpec::tcp4(2500).build();
        frame[34 + 13] = tcp_flags::FIN | tcp_flags::PSH | tcp_flags::CWR | 0x10;
        frame[34 + 4..34 + 8].copy_from_slice(&0xffff_fff0u32.to_be_bytes());
        frame[18..20].copy_from_slice(&0xffffu16.to_be_bytes());
        let gso = Gso {
            kind: GsoKind::Tcp4,
            size: 1000,
            hdr_len: 54,
            ecn: true,
        };
        let cut = cut(&frame, gso).unwrap();
        assert_eq!((cut.count(), cut.max_len()), (3, 1054));
        let mut out = [0; 1054];
        let got: Vec<_> = (0..3)
            .map(|n| {
                let len = cut.write(n, &mut out).unwrap();
                assert!(checksums_verify(&out[..len]));
                let seq = u32::from_be_bytes(*out[38..].first_chunk().unwrap());
                (len, out[47], seq, u16::from_be_bytes([out[18], out[19]]))
            })
            .collect();
        let want = [
            (1054, 0x90, 0xffff_fff0, 0xffff),
            (1054, 0x10, 0x3d8, 0),
            (554, 0x19, 0x7c0, 1),
        ];
        assert_eq!(got, want);
        assert_eq!(cut.write(3, &mut out), None);
        assert_eq!(cut.write(0, &mut out[..1053]), None);
    }

    #[test]
    fn refuses_a_frame_that_it_was_not_checked_for() {
        let frame = FrameSpec::tcp4(3000).build();
        let gso = Gso {
            kind: GsoKind::Tcp4,
            size: 1000,
            hdr_len: 54,
            ecn: false,
        };
        assert!(cut(&frame, gso).is_ok());
        for bad in [
            Gso {
                kind: GsoKind::Tcp6,
                ..gso
            },
            Gso {
                kind: GsoKind::Udp4,
                ..gso
            },
            Gso { hdr_len: 53, ..gso },
            Gso { hdr_len: 58, ..gso },
            Gso {
                hdr_len: u16::MAX,
                ..gso
            },
            Gso { size: 0, ..gso },
            Gso {
                size: u16::MAX,
                ..gso
            },
        ] {
            assert_eq!(
                cut(&frame, bad).err(),
                Some(DropReason::BadOffload),
                "{bad:?}"
            );
        }
        assert!(cut(&frame[..20], gso).is_err());
        assert!(cut(&[], gso).is_err());
    }

    proptest! {
        #[test]
        fn segments_carry_the_payload_and_verify(
            tcp: bool, v6: bool, vlan: bool,
            options in 0usize..=10,
            len in 1usize..9000,
            size in 80u16..3000,
        ) {
            let spec = FrameSpec {
                tcp, v6,
                vlan: vlan.then_some(0x2005),
                tcp_options: if tcp { options * 4 } else { 0 },
                ..FrameSpec::tcp4(len)
            };
            let frame = spec.build();
            let parsed = wire::parse(&frame, frame.len() as u32, VportId(1)).unwrap();
            let offload = hdr(&spec, size).check(&parsed, &frame, frame.len() as u32).unwrap();
            let Some(gso) = offload.gso else {
                prop_assert!(len <= usize::from(size));
                return Ok(());
            };
            let cut = cut(&frame, gso).unwrap();
            let mut out = vec![0; cut.max_len()];
            let mut payload = Vec::new();
            for n in 0..cut.count() {
                let len = cut.write(n, &mut out).unwrap();
                prop_assert!(checksums_verify(&out[..len]));
                let again = wire::parse(&out[..len], len as u32, VportId(1)).unwrap();
                prop_assert_eq!(again.key.of_flow(), parsed.key.of_flow());
                let part = &out[usize::from(gso.hdr_len)..len];
                prop_assert!(n + 1 == cut.count() || part.len() == usize::from(size));
                payload.extend_from_slice(part);
            }
            prop_assert_eq!(&payload[..], &frame[usize::from(gso.hdr_len)..]);
        }

        /// Whatever a sender says about whatever frame, nothing panics, and what is accepted can
        /// be done.
        #[test]
        fn accepted_offloads_can_be_done(
            bytes in proptest::collection::vec(any::<u8>(), 14..400),
            base in any::<bool>(),
            raw in any::<[u8; 12]>(),
            likely: bool,
        ) {
            let spec = FrameSpec { tcp: base, ..FrameSpec::tcp4(300) };
            let mut frame = spec.build();
            if likely {
                let n = bytes.len().min(frame.len());
                for (i, byte) in bytes[..n].iter().enumerate().filter(|(_, b)| **b > 230) {
                    frame[i] = *byte;
                }
            } else {
                frame = bytes;
            }
            let mut asked = VnetHdr::read(&raw);
            if likely {
                asked = VnetHdr { gso_size: asked.gso_size % 300, ..hdr(&spec, 0) };
            }
            let Ok(parsed) = wire::parse(&frame, frame.len() as u32, VportId(1)) else {
                return Ok(());
            };
            let head = &frame[..frame.len().min(wire::HEAD_LEN)];
            let Ok(offload) = asked.check(&parsed, head, frame.len() as u32) else {
                return Ok(());
            };
            if let Some(gso) = offload.gso {
                let cut = cut(&frame, gso).unwrap();
                let mut out = vec![0; cut.max_len()];
                prop_assert!((0..cut.count()).all(|n| cut.write(n, &mut out).is_some()));
            }
            if let Some(csum) = offload.csum {
                prop_assert!(finish_checksum(&mut frame, csum));
            }
        }
    }
}
