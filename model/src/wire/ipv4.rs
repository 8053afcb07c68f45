//! IPv4 headers (RFC 791).

use super::checksum;

/// The header without options: 20 bytes.
pub const IPV4_HEADER_LEN: usize = 20;

/// A view of a header that lies wholly in its slice.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    fixed: &'a [u8; IPV4_HEADER_LEN],
}

impl<'a> Ipv4<'a> {
    /// The header at the start of `bytes`, if version and header length are right and all of it,
    /// options included, is there.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let view = Self {
            fixed: bytes.first_chunk()?,
        };
        let ihl = view.header_len();
        let ok = view.fixed[0] >> 4 == 4 && (IPV4_HEADER_LEN..=bytes.len()).contains(&ihl);
        ok.then_some(view)
    }

    /// In bytes, 20 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.fixed[0] & 0xf) * 4
    }

    /// Protocol number.
    #[inline]
    pub fn proto(&self) -> u8 {
        self.fixed[9]
    }

    /// Type of service: DSCP and ECN.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.fixed[1]
    }

    /// Time to live.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.fixed[8]
    }

    /// Part of a datagram: more fragments follow, or this is not the first.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        u16::from_be_bytes([self.fixed[6], self.fixed[7]]) & 0x3fff != 0
    }

    /// Not the first fragment: what follows is no transport header.
    #[inline]
    pub fn is_later_fragment(&self) -> bool {
        u16::from_be_bytes([self.fixed[6], self.fixed[7]]) & 0x1fff != 0
    }

    /// Source address.
    #[inline]
    pub fn src(&self) -> &'a [u8; 4] {
        self.fixed[12..].first_chunk().unwrap_or(&[0; 4])
    }

    /// Destination address.
    #[inline]
    pub fn dst(&self) -> &'a [u8; 4] {
        self.fixed[16..].first_chunk().unwrap_or(&[0; 4])
    }

    /// Identification.
    pub fn ident(&self) -> u16 {
        u16::from_be_bytes([self.fixed[4], self.fixed[5]])
    }
}

/// Writes total length (header included, bytes) and identification into a header and computes
/// its checksum anew. Does nothing to fewer than 20 bytes.
pub fn finish(header: &mut [u8], total_len: u16, ident: u16) {
    if let Some(fixed) = header.first_chunk_mut::<IPV4_HEADER_LEN>() {
        fixed[2..4].copy_from_slice(&total_len.to_be_bytes());
        fixed[4..6].copy_from_slice(&ident.to_be_bytes());
        fixed[10..12].fill(0);
        let sum = checksum::internet(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_wrong_version_and_lengths() {
        let mut header = [0u8; 24];
        header[0] = 0x46;
        header[6] = 0x20;
        let view = Ipv4::parse(&header).unwrap();
        assert_eq!(view.header_len(), 24);
        assert!(view.is_fragment() && !view.is_later_fragment());
        assert!(Ipv4::parse(&header[..23]).is_none(), "options cut off");
        assert!(Ipv4::parse(&header[..19]).is_none());
        for first in [0x44, 0x36, 0x66] {
            header[0] = first;
            assert!(Ipv4::parse(&header).is_none(), "{first:x}");
        }
    }

    #[test]
    fn finished_header_verifies() {
        let mut header = [0u8; 20];
        header[0] = 0x45;
        header[8..].copy_from_slice(&[64, 6, 0xff, 0xff, 10, 0, 0, 1, 10, 0, 0, 2]);
        finish(&mut header, 1500, 0xfffe);
        assert_eq!(checksum::internet(&header), 0);
        assert_eq!(header[2..6], [0x05, 0xdc, 0xff, 0xfe]);
        assert_eq!(Ipv4::parse(&header).unwrap().ident(), 0xfffe);
    }
}
