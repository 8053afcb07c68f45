//! Frames for tests: built from a description, and verified independently of the code under test.

use crate::wire::checksum::{Sum, pseudo_v4, pseudo_v6};
use crate::{Mac, wire};

/// A TCP or UDP frame to be built. Its transport checksum holds the pseudo-header's sum, as a
/// driver leaves it to the device.
#[derive(Clone, Debug)]
pub(crate) struct FrameSpec {
    pub(crate) dst: Mac,
    pub(crate) src: Mac,
    /// The outer tag's control information.
    pub(crate) vlan: Option<u16>,
    /// A second tag's.
    pub(crate) inner_vlan: Option<u16>,
    pub(crate) v6: bool,
    pub(crate) tcp: bool,
    /// Bytes of IPv4 options.
    pub(crate) ip_options: usize,
    /// Bytes of IPv6 destination options (a multiple of 8).
    pub(crate) ip6_options: usize,
    /// Bytes of TCP options.
    pub(crate) tcp_options: usize,
    /// IPv4: first of several fragments.
    pub(crate) fragment: bool,
    pub(crate) ports: (u16, u16),
    pub(crate) ips: ([u8; 16], [u8; 16]),
    /// Bytes of payload.
    pub(crate) payload: usize,
}

impl FrameSpec {
    pub(crate) fn tcp4(payload: usize) -> Self {
        let mut ips = ([0; 16], [0; 16]);
        for i in 0..16u8 {
            (ips.0[usize::from(i)], ips.1[usize::from(i)]) = (10 + i, 200 - i);
        }
        Self {
            dst: Mac([2, 0, 0, 0, 0, 2]),
            src: Mac([2, 0, 0, 0, 0, 1]),
            vlan: None,
            inner_vlan: None,
            v6: false,
            tcp: true,
            ip_options: 0,
            ip6_options: 0,
            tcp_options: 0,
            fragment: false,
            ports: (1234, 80),
            ips,
            payload,
        }
    }

    pub(crate) fn udp4(payload: usize) -> Self {
        Self {
            tcp: false,
            ..Self::tcp4(payload)
        }
    }

    pub(crate) fn l3_offset(&self) -> usize {
        14 + 4 * (usize::from(self.vlan.is_some()) + usize::from(self.inner_vlan.is_some()))
    }

    pub(crate) fn l4_offset(&self) -> usize {
        let l3_len = if self.v6 {
            40 + self.ip6_options
        } else {
            20 + self.ip_options
        };
        self.l3_offset() + l3_len
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let l4 = self.l4_bytes();
        let mut out = Vec::new();
        out.extend(self.dst.0);
        out.extend(self.src.0);
        for (tpid, tci) in [(0x8100u16, self.vlan), (0x88a8, self.inner_vlan)] {
            if let Some(tci) = tci {
                out.extend(tpid.to_be_bytes());
                out.extend(tci.to_be_bytes());
            }
        }
        let proto = if self.tcp { 6 } else { 17 };
        if self.v6 {
            out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            out.extend(((self.ip6_options + l4.len()) as u16).to_be_bytes());
            out.extend([if self.ip6_options > 0 { 60 } else { proto }, 64]);
            out.extend(self.ips.0);
            out.extend(self.ips.1);
            if self.ip6_options > 0 {
                out.extend([proto, (self.ip6_options / 8 - 1) as u8, 1]);
                out.push((self.ip6_options - 4) as u8);
                out.extend(vec![0; self.ip6_options - 4]);
            }
        } else {
            let from = out.len() + 2;
            out.extend([8, 0, 0x45 + (self.ip_options / 4) as u8, 0]);
            out.extend(((20 + self.ip_options + l4.len()) as u16).to_be_bytes());
            out.extend([
                0x12,
                0x34,
                if self.fragment { 0x20 } else { 0 },
                0,
                64,
                proto,
                0,
                0,
            ]);
            out.extend(&self.ips.0[..4]);
            out.extend(&self.ips.1[..4]);
            out.extend(vec![1; self.ip_options]);
            let sum = Sum::new().add(&out[from..]).finish();
            out[from + 10..from + 12].copy_from_slice(&sum.to_be_bytes());
        }
        out.extend(l4);
        out
    }

    fn l4_bytes(&self) -> Vec<u8> {
        let mut l4 = Vec::new();
        l4.extend(self.ports.0.to_be_bytes());
        l4.extend(self.ports.1.to_be_bytes());
        let field = if self.tcp {
            l4.extend([0, 0, 1, 0, 0, 0, 2, 0]);
            l4.extend([
                (5 + self.tcp_options / 4) as u8 * 16,
                0x18,
                0xff,
                0xff,
                0,
                0,
                0,
                0,
            ]);
            l4.extend(vec![1; self.tcp_options]);
            16
        } else {
            l4.extend(((8 + self.payload) as u16).to_be_bytes());
            l4.extend([0, 0]);
            6
        };
        l4.extend((0..self.payload).map(|i| (i * 7 + i / 256) as u8));
        let (proto, len) = (if self.tcp { 6 } else { 17 }, l4.len() as u32);
        let (src, dst) = (&self.ips.0, &self.ips.1);
        let pseudo = if self.v6 {
            pseudo_v6(src, dst, proto, len)
        } else {
            let (src, dst) = (src.first_chunk().unwrap(), dst.first_chunk().unwrap());
            pseudo_v4(src, dst, proto, len)
        };
        l4[field..field + 2].copy_from_slice(&pseudo.partial().to_be_bytes());
        l4
    }
}

/// Whether lengths and checksums of a TCP or UDP frame are right, from the bytes alone.
pub(crate) fn checksums_verify(frame: &[u8]) -> bool {
    let mut l3 = 14;
    while wire::is_vlan(u16::from_be_bytes([frame[l3 - 2], frame[l3 - 1]])) {
        l3 += 4;
    }
    let ip = &frame[l3..];
    let be = |at: usize| usize::from(u16::from_be_bytes([ip[at], ip[at + 1]]));
    // Sums the pseudo-header as bytes, not through the functions under test.
    let (mut bytes, proto, l4) = if ip[0] >> 4 == 4 {
        let header = &ip[..usize::from(ip[0] & 15) * 4];
        if be(2) != ip.len() || wire::checksum::internet(header) != 0 {
            return false;
        }
        (ip[12..20].to_vec(), ip[9], &ip[header.len()..])
    } else {
        if be(4) + 40 != ip.len() {
            return false;
        }
        let (mut next, mut at) = (ip[6], 40);
        while next == 60 {
            next = ip[at];
            at += (usize::from(ip[at + 1]) + 1) * 8;
        }
        (ip[8..40].to_vec(), next, &ip[at..])
    };
    if proto == 17 && usize::from(u16::from_be_bytes([l4[4], l4[5]])) != l4.len() {
        return false;
    }
    bytes.extend((l4.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, proto]);
    bytes.extend(l4);
    wire::checksum::internet(&bytes) == 0
}
