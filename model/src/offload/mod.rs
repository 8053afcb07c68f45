//! Checksum and segmentation offloads: the header that asks for them, and doing them in software.
//!
//! | file | what lives there |
//! |---|---|
//! | `header` | the virtio-net header, and what is left of it once it was checked |
//! | `segment` | finishing a checksum, cutting a frame into segments |
//! | `train` | joining segments that follow each other |
//! | `outer` | the headers of a tunnel in front of each segment |

mod header;
mod outer;
mod segment;
mod train;

pub use header::{HASH_HDR_LEN, VNET_HDR_LEN, VnetHdr, flags, gso_type, with_hash};
pub use segment::{Segmenter, finish_checksum};
pub use train::{Segment, Train};

/// A checksum that the sender left to be finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Csum {
    /// Where the bytes to sum begin, from the start of the frame.
    pub start: u16,
    /// Where the result goes, from `start`. The sum over the pseudo-header is there already.
    pub offset: u16,
}

/// What kind of segmentation a frame still needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4, each segment a datagram (USO).
    Udp4,
    /// UDP over IPv6, likewise.
    Udp6,
}

/// A frame that still has to be cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gso {
    /// How.
    pub kind: GsoKind,
    /// Payload of each segment but the last, in bytes.
    pub size: u16,
    /// Length of everything in front of the payload, Ethernet header included, in bytes.
    pub hdr_len: u16,
    /// TCP: the CWR flag belongs to the first segment only (RFC 3168).
    pub ecn: bool,
}

/// Headers that a tunnel put in front of a frame that still has to be cut into segments; each
/// segment gets them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outer {
    /// Their length, the tunnel's own header included, in bytes; 0: no tunnel.
    pub len: u16,
    /// What follows them is an IP packet, not an Ethernet frame.
    pub bare: bool,
}

/// Tunnels in tunnels around a frame to be cut.
pub const MAX_OUTER: usize = 2;

/// What is still to be done to a frame, checked against its headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Offload {
    /// Finish this checksum.
    pub csum: Option<Csum>,
    /// Cut into segments; `csum` is there then.
    pub gso: Option<Gso>,
    /// Tunnels around a frame with `gso`, the outermost first. Nobody takes such a frame uncut.
    pub outer: [Outer; MAX_OUTER],
    /// Somebody we believe has verified the checksum. Never taken from a driver's header: virtio
    /// 1.3 §5.1.6.2 has the bit in the other direction only.
    pub data_valid: bool,
}

/// What a receiver can take unfinished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RxOffloads {
    /// Unfinished checksums (`VIRTIO_NET_F_GUEST_CSUM`).
    pub csum: bool,
    /// [`GsoKind::Tcp4`] (`GUEST_TSO4`).
    pub tso4: bool,
    /// [`GsoKind::Tcp6`] (`GUEST_TSO6`).
    pub tso6: bool,
    /// TCP segmentation with ECN (`GUEST_ECN`).
    pub ecn: bool,
    /// [`GsoKind::Udp4`] (`GUEST_USO4`).
    pub uso4: bool,
    /// [`GsoKind::Udp6`] (`GUEST_USO6`).
    pub uso6: bool,
}

impl RxOffloads {
    /// Everything.
    pub const ALL: Self = Self {
        csum: true,
        tso4: true,
        tso6: true,
        ecn: true,
        uso4: true,
        uso6: true,
    };
}

/// Bytes from the network header, `l3_offset`, on in the largest frame that one of `len` bytes
/// becomes on the wire.
#[inline]
pub(crate) fn l3_len(gso: Option<&Gso>, len: u32, l3_offset: u32) -> u32 {
    let wire = gso.map_or(len, |g| len.min(u32::from(g.hdr_len) + u32::from(g.size)));
    wire.saturating_sub(l3_offset)
}

impl Offload {
    /// Whether the receiver can take the frame as it is. If not: [`Segmenter`] for `gso`,
    /// [`finish_checksum`] for `csum` alone.
    #[inline]
    pub fn fits(&self, rx: RxOffloads) -> bool {
        if self.csum.is_some() && !rx.csum {
            return false;
        }
        self.gso.is_none_or(|gso| {
            if self.outer[0].len != 0 {
                return false;
            }
            let kind = match gso.kind {
                GsoKind::Tcp4 => rx.tso4,
                GsoKind::Tcp6 => rx.tso6,
                GsoKind::Udp4 => rx.uso4,
                GsoKind::Udp6 => rx.uso6,
            };
            kind && (rx.ecn || !gso.ecn)
        })
    }

    /// The same work on the frame after `delta` bytes were put in (or, negative, taken out) in
    /// front of its network header, as a VLAN tag is.
    #[inline]
    pub fn shifted(mut self, delta: i16) -> Self {
        // The offsets lie behind an Ethernet header and inside a worker's snapshot, so what is put
        // in or taken out in front of them cannot make them wrap.
        if let Some(csum) = &mut self.csum {
            csum.start = csum.start.saturating_add_signed(delta);
        }
        if let Some(gso) = &mut self.gso {
            gso.hdr_len = gso.hdr_len.saturating_add_signed(delta);
        }
        let outer = &mut self.outer[0];
        if outer.len != 0 {
            outer.len = outer.len.saturating_add_signed(delta);
        }
        self
    }

    /// Length of all [`Offload::outer`] headers in bytes.
    pub fn outer_len(&self) -> usize {
        self.outer.iter().map(|outer| usize::from(outer.len)).sum()
    }

    /// The header for a receiver, built from nothing but what was checked. The caller has made
    /// sure that it [fits](Offload::fits). `num_buffers` is 1, which is also what virtio 1.3
    /// §5.1.6.4.1 wants where buffers are not merged.
    #[inline]
    pub fn to_hdr(&self, rx: RxOffloads) -> VnetHdr {
        let mut hdr = VnetHdr {
            num_buffers: 1,
            ..VnetHdr::default()
        };
        if let Some(csum) = self.csum {
            hdr.flags = flags::NEEDS_CSUM;
            hdr.csum_start = csum.start;
            hdr.csum_offset = csum.offset;
        } else if self.data_valid && rx.csum {
            hdr.flags = flags::DATA_VALID;
        }
        if let Some(gso) = self.gso {
            let kind = match gso.kind {
                GsoKind::Tcp4 => gso_type::TCPV4,
                GsoKind::Tcp6 => gso_type::TCPV6,
                GsoKind::Udp4 | GsoKind::Udp6 => gso_type::UDP_L4,
            };
            hdr.gso_type = kind | if gso.ecn { gso_type::ECN } else { 0 };
            hdr.gso_size = gso.size;
            hdr.hdr_len = gso.hdr_len;
        }
        hdr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TSO: Offload = Offload {
        csum: Some(Csum {
            start: 34,
            offset: 16,
        }),
        gso: Some(Gso {
            kind: GsoKind::Tcp4,
            size: 1448,
            hdr_len: 66,
            ecn: true,
        }),
        outer: [Outer {
            len: 0,
            bare: false,
        }; MAX_OUTER],
        data_valid: false,
    };

    #[test]
    fn fits_asks_for_every_feature_in_use() {
        assert!(TSO.fits(RxOffloads::ALL));
        assert!(Offload::default().fits(RxOffloads::default()));
        for lacking in [
            RxOffloads {
                csum: false,
                ..RxOffloads::ALL
            },
            RxOffloads {
                tso4: false,
                ..RxOffloads::ALL
            },
            RxOffloads {
                ecn: false,
                ..RxOffloads::ALL
            },
        ] {
            assert!(!TSO.fits(lacking), "{lacking:?}");
        }
        let others = RxOffloads {
            csum: true,
            tso4: true,
            ecn: true,
            ..RxOffloads::default()
        };
        assert!(TSO.fits(others));
        for (kind, field) in [
            (
                GsoKind::Tcp6,
                RxOffloads {
                    tso6: true,
                    ..RxOffloads::default()
                },
            ),
            (
                GsoKind::Udp4,
                RxOffloads {
                    uso4: true,
                    ..RxOffloads::default()
                },
            ),
            (
                GsoKind::Udp6,
                RxOffloads {
                    uso6: true,
                    ..RxOffloads::default()
                },
            ),
        ] {
            let gso = Gso {
                kind,
                size: 9,
                hdr_len: 60,
                ecn: false,
            };
            let offload = Offload {
                gso: Some(gso),
                ..Offload::default()
            };
            assert!(offload.fits(field) && !offload.fits(RxOffloads::default()));
        }
    }

    #[test]
    fn header_is_built_anew() {
        let hdr = TSO.shifted(4).to_hdr(RxOffloads::ALL);
        let want = VnetHdr {
            flags: flags::NEEDS_CSUM,
            gso_type: gso_type::TCPV4 | gso_type::ECN,
            hdr_len: 70,
            gso_size: 1448,
            csum_start: 38,
            csum_offset: 16,
            num_buffers: 1,
        };
        assert_eq!(hdr, want);
        assert_eq!(TSO.shifted(4).shifted(-4), TSO);
        let valid = Offload {
            data_valid: true,
            ..Offload::default()
        };
        assert_eq!(valid.to_hdr(RxOffloads::ALL).flags, flags::DATA_VALID);
        assert_eq!(
            valid.to_hdr(RxOffloads::default()).flags,
            0,
            "not negotiated"
        );
    }
}
