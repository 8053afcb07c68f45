//! The virtio-net header (virtio 1.3 §5.1.6), which stands in front of every frame in a ring.

use super::{Csum, Gso, GsoKind, Offload};
use crate::DropReason;
use crate::rss::PacketHash;
use crate::wire::{Parsed, eth_type, ip_proto, l4};

/// The header with `num_buffers`; the legacy form without it has two bytes less.
pub const VNET_HDR_LEN: usize = 12;

/// The header with `num_buffers` and the hash behind it (`VIRTIO_NET_F_HASH_REPORT`).
pub const HASH_HDR_LEN: usize = 20;

/// The header of [`HASH_HDR_LEN`] bytes, made of the shorter one: hash and report in little-endian
/// order, then two bytes of padding.
#[inline]
pub fn with_hash(header: &[u8; VNET_HDR_LEN], hash: PacketHash) -> [u8; HASH_HDR_LEN] {
    let mut out = [0; HASH_HDR_LEN];
    out[..VNET_HDR_LEN].copy_from_slice(header);
    out[12..16].copy_from_slice(&hash.value.to_le_bytes());
    out[16..18].copy_from_slice(&(hash.report as u16).to_le_bytes());
    out
}

/// Bits of [`VnetHdr::flags`].
pub mod flags {
    /// The checksum is to be finished from `csum_start` on.
    pub const NEEDS_CSUM: u8 = 1;
    /// The checksum was verified.
    pub const DATA_VALID: u8 = 2;
}

/// Values of [`VnetHdr::gso_type`].
pub mod gso_type {
    /// A frame as it is.
    pub const NONE: u8 = 0;
    /// TCP over IPv4.
    pub const TCPV4: u8 = 1;
    /// UDP fragmentation, which is never negotiated here.
    pub const UDP: u8 = 3;
    /// TCP over IPv6.
    pub const TCPV6: u8 = 4;
    /// UDP segmentation.
    pub const UDP_L4: u8 = 5;
    /// To be added to the TCP types: the frame has ECN's CWR flag.
    pub const ECN: u8 = 0x80;
}

/// Smallest TCP payload per segment: what Linux is left with at its smallest path MTU and all
/// options (`TCP_MIN_GSO_SIZE`). Less would only multiply packets.
const MIN_TCP_SIZE: u16 = 8;
/// Segments that one TCP frame may ask for: 64 KiB at 48 bytes each is some 1,400.
const MAX_TCP_SEGMENTS: u32 = 2048;
/// Segments that one UDP frame may ask for (Linux: `UDP_MAX_SEGMENTS`).
const MAX_UDP_SEGMENTS: u32 = 128;

/// The header as it is in memory, but in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHdr {
    /// See [`flags`].
    pub flags: u8,
    /// See [`gso_type`].
    pub gso_type: u8,
    /// Length of all headers in bytes; a hint that a receiver must not rely on.
    pub hdr_len: u16,
    /// Payload per segment in bytes.
    pub gso_size: u16,
    /// Where to start summing, in bytes from the start of the frame.
    pub csum_start: u16,
    /// Where the checksum goes, in bytes from `csum_start`.
    pub csum_offset: u16,
    /// Receive only: how many buffers the frame takes.
    pub num_buffers: u16,
}

impl VnetHdr {
    /// Reads the 12-byte form, or the legacy one if there are only 10 bytes. Bytes that are not
    /// there read as zero.
    #[inline]
    pub fn read(bytes: &[u8]) -> Self {
        let mut raw = [0; VNET_HDR_LEN];
        match bytes.first_chunk() {
            Some(whole) => raw = *whole,
            None => raw[..bytes.len()].copy_from_slice(bytes),
        }
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, n0, n1] = raw;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
            num_buffers: u16::from_le_bytes([n0, n1]),
        }
    }

    /// Writes the 12-byte form; its first 10 bytes are the legacy one.
    #[inline]
    pub fn write(&self, out: &mut [u8; VNET_HDR_LEN]) {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        let [n0, n1] = self.num_buffers.to_le_bytes();
        *out = [
            self.flags,
            self.gso_type,
            h0,
            h1,
            g0,
            g1,
            s0,
            s1,
            o0,
            o1,
            n0,
            n1,
        ];
    }

    /// Whether the sender says that it verified the checksum; for ports that may say so (a
    /// netdev), who then set [`Offload::data_valid`].
    pub fn says_data_valid(&self) -> bool {
        self.flags & flags::DATA_VALID != 0
    }

    /// Checks the header against a frame of `frame_len` bytes that begins with `head` and was
    /// parsed from it. Whatever does not fit is `BadOffload`. A frame with nothing to cut (its
    /// payload is one segment) comes out without `gso`.
    #[inline]
    pub fn check(
        &self,
        parsed: &Parsed,
        head: &[u8],
        frame_len: u32,
    ) -> Result<Offload, DropReason> {
        if self.flags & flags::NEEDS_CSUM == 0 && self.gso_type == gso_type::NONE {
            return Ok(Offload::default());
        }
        let head = &head[..head.len().min(frame_len as usize)];
        let csum = self.check_csum(parsed, head, frame_len)?;
        let gso = match self.gso_type {
            gso_type::NONE => None,
            _ => self.check_gso(csum, parsed, head, frame_len)?,
        };
        Ok(Offload {
            csum: Some(csum),
            gso,
            ..Offload::default()
        })
    }

    /// virtio 1.3 §5.1.6.2: every GSO frame also needs its checksum finished.
    fn check_csum(&self, parsed: &Parsed, head: &[u8], frame_len: u32) -> Result<Csum, DropReason> {
        let (start, offset) = (self.csum_start, self.csum_offset);
        let end = u32::from(start) + u32::from(offset) + 2;
        let ok = self.flags & flags::NEEDS_CSUM != 0
            && start >= parsed.l3_offset
            && usize::from(start) < head.len()
            && end <= frame_len;
        if ok {
            Ok(Csum { start, offset })
        } else {
            Err(DropReason::BadOffload)
        }
    }

    fn check_gso(
        &self,
        csum: Csum,
        parsed: &Parsed,
        head: &[u8],
        frame_len: u32,
    ) -> Result<Option<Gso>, DropReason> {
        const BAD: DropReason = DropReason::BadOffload;
        let ecn = self.gso_type & gso_type::ECN != 0;
        let l4_start = parsed.l4_offset;
        let l4_bytes = head.get(usize::from(l4_start)..).ok_or(BAD)?;
        let ip = parsed.key.eth_type;
        let tcp = || l4::tcp_header_len(l4_bytes).ok_or(BAD);
        let (kind, proto, l4_len) = match (self.gso_type & !gso_type::ECN, ip) {
            (gso_type::TCPV4, eth_type::IPV4) => (GsoKind::Tcp4, ip_proto::TCP, tcp()?),
            (gso_type::TCPV6, eth_type::IPV6) => (GsoKind::Tcp6, ip_proto::TCP, tcp()?),
            (gso_type::UDP_L4, eth_type::IPV4) if !ecn => {
                (GsoKind::Udp4, ip_proto::UDP, l4::UDP_HEADER_LEN)
            }
            (gso_type::UDP_L4, eth_type::IPV6) if !ecn => {
                (GsoKind::Udp6, ip_proto::UDP, l4::UDP_HEADER_LEN)
            }
            _ => return Err(BAD),
        };
        let (field, min_size, max_segments) = match kind {
            GsoKind::Tcp4 | GsoKind::Tcp6 => (l4::TCP_CHECKSUM, MIN_TCP_SIZE, MAX_TCP_SEGMENTS),
            GsoKind::Udp4 | GsoKind::Udp6 => (l4::UDP_CHECKSUM, 1, MAX_UDP_SEGMENTS),
        };
        let hdr_len = usize::from(l4_start) + l4_len;
        let payload = frame_len.checked_sub(hdr_len as u32).ok_or(BAD)?;
        let ok = l4_start != 0
            && hdr_len <= head.len()
            && parsed.key.ip_proto == proto
            && !parsed.fragment
            && csum.start == l4_start
            && usize::from(csum.offset) == field
            && self.gso_size >= min_size
            && payload.div_ceil(u32::from(self.gso_size)) <= max_segments;
        if !ok {
            return Err(BAD);
        }
        let gso = Gso {
            kind,
            size: self.gso_size,
            hdr_len: hdr_len as u16,
            ecn,
        };
        Ok((payload > u32::from(self.gso_size)).then_some(gso))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VportId;
    use crate::testing::FrameSpec;
    use crate::wire;

    const TSO4: VnetHdr = VnetHdr {
        flags: flags::NEEDS_CSUM,
        gso_type: gso_type::TCPV4,
        hdr_len: 9999,
        gso_size: 1000,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 7,
    };

    fn check(hdr: VnetHdr, frame: &[u8]) -> Result<Offload, DropReason> {
        let head = &frame[..frame.len().min(wire::HEAD_LEN)];
        let parsed = wire::parse(head, frame.len() as u32, VportId(1)).unwrap();
        hdr.check(&parsed, head, frame.len() as u32)
    }

    #[test]
    fn twelve_and_ten_bytes() {
        let mut bytes = [0; VNET_HDR_LEN];
        TSO4.write(&mut bytes);
        assert_eq!(bytes, [1, 1, 0x0f, 0x27, 0xe8, 3, 34, 0, 16, 0, 7, 0]);
        assert_eq!(VnetHdr::read(&bytes), TSO4);
        let legacy = VnetHdr {
            num_buffers: 0,
            ..TSO4
        };
        assert_eq!(VnetHdr::read(&bytes[..10]), legacy);
        assert_eq!(VnetHdr::read(&[]), VnetHdr::default());
    }

    #[test]
    fn header_length_is_computed_not_believed() {
        let frame = FrameSpec {
            tcp_options: 12,
            ..FrameSpec::tcp4(3000)
        }
        .build();
        let offload = check(TSO4, &frame).unwrap();
        let gso = Gso {
            kind: GsoKind::Tcp4,
            size: 1000,
            hdr_len: 66,
            ecn: false,
        };
        assert_eq!(offload.gso, Some(gso));
        assert_eq!(
            offload.csum,
            Some(Csum {
                start: 34,
                offset: 16
            })
        );
        assert!(!offload.data_valid);
    }

    #[test]
    fn nothing_asked_nothing_done() {
        let frame = FrameSpec::tcp4(10).build();
        let junk = VnetHdr {
            flags: flags::DATA_VALID,
            gso_type: 0,
            ..TSO4
        };
        assert_eq!(check(junk, &frame), Ok(Offload::default()));
        let one = check(TSO4, &frame).unwrap();
        assert!(one.gso.is_none() && one.csum.is_some(), "a single segment");
    }

    #[test]
    fn refuses_what_does_not_fit_the_frame() {
        let tcp4 = FrameSpec::tcp4(3000);
        let frame = tcp4.build();
        for (what, bad) in [
            ("no checksum", VnetHdr { flags: 0, ..TSO4 }),
            (
                "size 0",
                VnetHdr {
                    gso_size: 0,
                    ..TSO4
                },
            ),
            (
                "tiny size",
                VnetHdr {
                    gso_size: 7,
                    ..TSO4
                },
            ),
            (
                "other IP version",
                VnetHdr {
                    gso_type: gso_type::TCPV6,
                    ..TSO4
                },
            ),
            (
                "other protocol",
                VnetHdr {
                    gso_type: gso_type::UDP_L4,
                    ..TSO4
                },
            ),
            (
                "UFO",
                VnetHdr {
                    gso_type: gso_type::UDP,
                    ..TSO4
                },
            ),
            (
                "unknown",
                VnetHdr {
                    gso_type: 2,
                    ..TSO4
                },
            ),
            (
                "ECN alone",
                VnetHdr {
                    gso_type: gso_type::ECN,
                    ..TSO4
                },
            ),
            (
                "not the TCP header",
                VnetHdr {
                    csum_start: 35,
                    ..TSO4
                },
            ),
            (
                "not the TCP checksum",
                VnetHdr {
                    csum_offset: 6,
                    ..TSO4
                },
            ),
        ] {
            assert_eq!(check(bad, &frame), Err(DropReason::BadOffload), "{what}");
        }
        let ecn = VnetHdr {
            gso_type: gso_type::TCPV4 | gso_type::ECN,
            ..TSO4
        };
        assert!(check(ecn, &frame).unwrap().gso.unwrap().ecn);
        let fragment = FrameSpec {
            fragment: true,
            ..tcp4
        }
        .build();
        assert_eq!(check(TSO4, &fragment), Err(DropReason::BadOffload));
        let mut short_tcp = frame.clone();
        short_tcp[34 + 12] = 0x40;
        assert_eq!(check(TSO4, &short_tcp), Err(DropReason::BadOffload));
        assert_eq!(check(TSO4, &frame[..40]), Err(DropReason::BadOffload));
        assert_eq!(check(TSO4, &frame[..14]), Err(DropReason::BadOffload));
    }

    #[test]
    fn number_of_segments_is_bounded() {
        let udp = FrameSpec::udp4(1290).build();
        let uso = VnetHdr {
            gso_type: gso_type::UDP_L4,
            csum_offset: 6,
            gso_size: 11,
            ..TSO4
        };
        assert_eq!(check(uso, &udp).unwrap().gso.unwrap().hdr_len, 42);
        let too_many = VnetHdr {
            gso_size: 10,
            ..uso
        };
        assert_eq!(check(too_many, &udp), Err(DropReason::BadOffload));
    }

    #[test]
    fn plain_checksum_lies_inside_frame_and_snapshot() {
        let frame = FrameSpec::udp4(300).build();
        let plain = VnetHdr {
            gso_type: 0,
            csum_offset: 6,
            ..TSO4
        };
        assert!(check(plain, &frame).is_ok());
        let end = frame.len() as u16;
        for (start, offset, ok) in [
            (14, 0, true),
            (13, 0, false),
            (191, 6, true),
            (192, 6, false),
            (34, end - 36, true),
            (34, end - 35, false),
            (34, u16::MAX, false),
            (u16::MAX, u16::MAX, false),
        ] {
            let hdr = VnetHdr {
                csum_start: start,
                csum_offset: offset,
                ..plain
            };
            assert_eq!(check(hdr, &frame).is_ok(), ok, "{start}+{offset}");
        }
    }
}
