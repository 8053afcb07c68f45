//! TCP (RFC 9293), UDP (RFC 768) and ICMP (RFC 792) headers, as far as they have to be known.

/// TCP without options: 20 bytes.
pub const TCP_HEADER_LEN: usize = 20;
/// UDP: 8 bytes.
pub const UDP_HEADER_LEN: usize = 8;
/// Where TCP keeps its checksum.
pub const TCP_CHECKSUM: usize = 16;
/// Where UDP keeps its checksum.
pub const UDP_CHECKSUM: usize = 6;
/// Flags in byte 13 of a TCP header.
pub mod tcp_flags {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Hand over at once.
    pub const PSH: u8 = 0x08;
    /// There is an acknowledgement.
    pub const ACK: u8 = 0x10;
    /// The other end's packets met congestion (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced (RFC 3168).
    pub const CWR: u8 = 0x80;
}

/// Source and destination port of TCP, UDP or SCTP; `None` if they are cut off.
#[inline]
pub fn ports(l4: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *l4.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// The 12 bits behind TCP's data offset; 0 if there is no whole header.
#[inline]
pub fn tcp_flags_of(l4: &[u8]) -> u16 {
    match l4.first_chunk::<TCP_HEADER_LEN>() {
        Some(tcp) if tcp[12] >> 4 >= 5 => u16::from_be_bytes([tcp[12], tcp[13]]) & 0xfff,
        _ => 0,
    }
}

/// Type and code of ICMP or ICMPv6, in that order, at the start of `l4`; `None` if the header's
/// eight bytes are cut off.
#[inline]
pub fn icmp(l4: &[u8]) -> Option<u16> {
    let header: &[u8; 8] = l4.first_chunk()?;
    Some(u16::from_be_bytes([header[0], header[1]]))
}

/// Length of the TCP header at the start of `l4`, 20 to 60 bytes; `None` if it says less or is
/// not wholly there.
#[inline]
pub fn tcp_header_len(l4: &[u8]) -> Option<usize> {
    let len = usize::from(*l4.get(12)? >> 4) * 4;
    (TCP_HEADER_LEN..=l4.len()).contains(&len).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_length_is_checked() {
        let mut tcp = [0u8; 24];
        tcp[12] = 0x60;
        assert_eq!(tcp_header_len(&tcp), Some(24));
        assert_eq!(tcp_header_len(&tcp[..23]), None);
        tcp[12] = 0x4f;
        assert_eq!(tcp_header_len(&tcp), None);
        assert_eq!(tcp_header_len(&tcp[..12]), None);
        assert_eq!(ports(&[0, 80, 1, 187]), Some((80, 443)));
        assert_eq!(ports(&[0, 80, 1]), None);
    }
}
