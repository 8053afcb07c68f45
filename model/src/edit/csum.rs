//! Checksums computed anew, as act_csum of tc does (net/sched/act_csum.c).

use super::Packet;
use crate::DropReason;
use crate::offload::Csum;
use crate::wire::checksum::{self, Sum, pseudo_v4, pseudo_v6};
use crate::wire::{IpLayout, IpVersion, Layout, Transport, be16, eth_type, ip_proto};
use crate::wire::{ipv4::Ipv4, ipv6::Ipv6};

/// Which checksums, as bits of tc's `TCA_CSUM_UPDATE_FLAG_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Csums(pub u8);

impl Csums {
    /// The IPv4 header's.
    pub const IPV4_HEADER: Self = Self(1);
    /// ICMP's and ICMPv6's.
    pub const ICMP: Self = Self(2);
    /// IGMP's.
    pub const IGMP: Self = Self(4);
    /// TCP's.
    pub const TCP: Self = Self(8);
    /// UDP's.
    pub const UDP: Self = Self(16);
    /// UDP-Lite's.
    pub const UDPLITE: Self = Self(32);
    /// SCTP's.
    pub const SCTP: Self = Self(64);
    /// Names as in tc, in the order of the bits.
    pub const NAMES: [(&'static str, Self); 7] = [
        ("ip4h", Self::IPV4_HEADER),
        ("icmp", Self::ICMP),
        ("igmp", Self::IGMP),
        ("tcp", Self::TCP),
        ("udp", Self::UDP),
        ("udplite", Self::UDPLITE),
        ("sctp", Self::SCTP),
    ];

    /// All of `other` are among these.
    #[inline]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Csums {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A transport whose checksum is to be computed.
#[derive(Clone, Copy)]
struct Target {
    /// Where its header begins, and where its bytes end.
    l4: usize,
    end: usize,
    /// Where the checksum is, from `l4`.
    field: usize,
    /// Bytes that it takes in, from `l4`.
    covered: usize,
    /// A result of 0 is written as 0xffff.
    no_zero: bool,
    pseudo: Sum,
}

impl Packet {
    /// Computes checksums anew, whatever they are now. What the packet does not have is passed
    /// over; `CsumCutOff` for one that ends before its own length says.
    ///
    /// The sum over a payload that lies behind the head is left to be finished where the frame is
    /// delivered, as drivers leave it to a device. Where that cannot be said, because the frame
    /// has padding behind the IP packet there, or the checksum is SCTP's or takes in a part only
    /// (UDP-Lite), it stays as the changes so far have kept it. So does that of a first fragment,
    /// for which the kernel writes the sum over the fragment, which no receiver can use; and of a
    /// frame still to be cut, whose segments get theirs then.
    pub fn csum(&mut self, which: Csums) -> Result<(), DropReason> {
        const CUT_OFF: DropReason = DropReason::CsumCutOff;
        let layout = self.layout()?;
        let Some(ip) = layout.ip else {
            return match layout.eth_type {
                eth_type::IPV4 | eth_type::IPV6 => Err(CUT_OFF),
                _ => Ok(()),
            };
        };
        match ip.l4 {
            Transport::At(l4) => self.csum_transport(which, &layout, ip, l4)?,
            Transport::Later => {}
            Transport::Unknown if self.tail() == 0 => return Err(CUT_OFF),
            Transport::Unknown => return Err(DropReason::RewriteDepth),
        }
        if which.contains(Csums::IPV4_HEADER) && ip.version == IpVersion::V4 {
            let header_len = usize::from(self.head()[layout.l3] & 0xf) * 4;
            let header = &mut self.head_mut()[layout.l3..layout.l3 + header_len];
            header[10..12].fill(0);
            let sum = checksum::internet(header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        Ok(())
    }

    fn csum_transport(
        &mut self,
        which: Csums,
        layout: &Layout,
        ip: IpLayout,
        l4: usize,
    ) -> Result<(), DropReason> {
        let v4 = ip.version == IpVersion::V4;
        let (asked, header_len) = match ip.proto {
            ip_proto::ICMP if v4 => (Csums::ICMP, 8),
            ip_proto::ICMPV6 if !v4 => (Csums::ICMP, 8),
            ip_proto::IGMP if v4 => (Csums::IGMP, 8),
            ip_proto::TCP => (Csums::TCP, 20),
            ip_proto::UDP => (Csums::UDP, 8),
            ip_proto::UDPLITE => (Csums::UDPLITE, 8),
            ip_proto::SCTP => (Csums::SCTP, 12),
            _ => return Ok(()),
        };
        if !which.contains(asked) || ip.fragment || self.offload().gso.is_some() {
            return Ok(());
        }
        if ip.end as u32 > self.frame_len() || ip.end < l4 + header_len {
            return Err(DropReason::CsumCutOff);
        }
        if l4 + header_len > self.head().len() {
            return Err(DropReason::RewriteDepth);
        }
        if ip.proto == ip_proto::SCTP {
            self.csum_sctp(l4, ip.end);
            return Ok(());
        }
        let len = ip.end - l4;
        let field = match ip.proto {
            ip_proto::TCP => 16,
            ip_proto::UDP | ip_proto::UDPLITE => 6,
            _ => 2,
        };
        let target = Target {
            l4,
            end: ip.end,
            field,
            covered: len,
            no_zero: field == 6,
            pseudo: pseudo(&self.head()[layout.l3..], ip, len as u32),
        };
        match ip.proto {
            ip_proto::UDP => self.csum_udp(target, v4),
            ip_proto::UDPLITE => self.csum_udplite(target),
            _ => self.put_sum(target),
        }
        Ok(())
    }

    fn csum_udp(&mut self, target: Target, v4: bool) {
        let udp = &self.head()[target.l4..];
        let none = udp[6..8] == [0, 0];
        let length_agrees = be16(udp, 4).map(usize::from) == Some(target.covered);
        // RFC 768: none is fine over IPv4.
        if v4 && none {
            self.finished(target);
        } else if length_agrees {
            self.put_sum(target);
        } else {
            self.put_none(target);
        }
    }

    /// RFC 3828 §3.1: the length field says how much is covered, 0 meaning all. The pseudo-header
    /// has the whole length; act_csum puts the coverage there, which no receiver does.
    fn csum_udplite(&mut self, target: Target) {
        let coverage = be16(&self.head()[target.l4..], 4).map_or(0, usize::from);
        match coverage {
            0 => self.put_sum(target),
            covered if (8..=target.covered).contains(&covered) => {
                self.put_sum(Target { covered, ..target });
            }
            _ => self.put_none(target),
        }
    }

    /// The checksum over all of its bytes, here or where it is delivered.
    fn put_sum(&mut self, target: Target) {
        let Target {
            l4,
            end,
            field,
            covered,
            pseudo,
            ..
        } = target;
        let here = l4 + covered <= self.head().len();
        let to_the_end = l4 + covered == end && end as u32 == self.frame_len();
        // Another checksum to be finished, further in: a tunnel's packet.
        let inside = self.offload().csum.filter(|csum| {
            let start = usize::from(csum.start);
            start > l4 && start < l4 + covered
        });
        let inside = match inside {
            Some(_) if !to_the_end => return,
            Some(_) => match self.pending_sum(l4) {
                Ok(sum) => sum,
                Err(_) => return,
            },
            None if !here && !to_the_end => return,
            None => None,
        };
        self.put(target, 0);
        match inside {
            Some(_) => {
                // With the field itself zero now.
                let Ok(Some(sum)) = self.pending_sum(l4) else {
                    return;
                };
                let sum = pseudo.word(sum.partial()).finish();
                self.put(target, sum);
            }
            None if here => {
                let bytes = &self.head()[l4..l4 + covered];
                let sum = pseudo.bytes(bytes).finish();
                self.put(target, sum);
                self.finished(target);
            }
            None => {
                let at = l4 + field;
                let partial = pseudo.partial();
                self.change_word(at, |_| partial);
                self.offload_mut().csum = Some(Csum {
                    start: l4 as u16,
                    offset: field as u16,
                });
            }
        }
    }

    fn put(&mut self, target: Target, sum: u16) {
        let sum = if sum == 0 && target.no_zero {
            0xffff
        } else {
            sum
        };
        self.change_word(target.l4 + target.field, |_| sum);
    }

    /// No checksum: what act_csum leaves where UDP's length is not that of the packet.
    fn put_none(&mut self, target: Target) {
        self.change_word(target.l4 + target.field, |_| 0);
        self.finished(target);
    }

    /// Nothing is left to be done to this checksum.
    fn finished(&mut self, target: Target) {
        if self.is_pending(target.l4, target.field) {
            self.offload_mut().csum = None;
        }
    }

    fn csum_sctp(&mut self, l4: usize, end: usize) {
        const FIELD: std::ops::Range<usize> = 8..12;
        if let Some(sctp) = self.head_mut().get_mut(l4..end) {
            sctp[FIELD].fill(0);
            let crc = crc32c::crc32c(sctp);
            sctp[FIELD].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

/// The pseudo-header's sum, of a protocol that has one.
fn pseudo(l3: &[u8], ip: IpLayout, len: u32) -> Sum {
    let sum = match ip.version {
        IpVersion::V4 if matches!(ip.proto, ip_proto::ICMP | ip_proto::IGMP) => None,
        IpVersion::V4 => Ipv4::parse(l3).map(|v4| pseudo_v4(v4.src(), v4.dst(), ip.proto, len)),
        IpVersion::V6 => Ipv6::parse(l3).map(|v6| pseudo_v6(v6.src(), v6.dst(), ip.proto, len)),
    };
    sum.unwrap_or_default()
}
