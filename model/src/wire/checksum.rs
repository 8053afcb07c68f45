//! The Internet checksum (RFC 1071) and the pseudo-headers of TCP and UDP (RFC 9293 §3.1, RFC 768,
//! RFC 8200 §8.1).

/// A ones' complement sum under way, over 16-bit words in network order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Sum of the words as this machine reads them: RFC 1071 §2(B), the byte order may be put
    /// right once at the end. 32-bit pieces in 64 bits hold 2^32 carries.
    total: u64,
    /// An odd number of bytes so far: the next byte is the low half of a word.
    odd: bool,
}

impl Sum {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the bytes in, as if they followed the earlier ones directly.
    #[inline]
    pub fn add(mut self, bytes: &[u8]) -> Self {
        let folded = fold(sum_ne(bytes));
        // Bytes at odd positions count as the other half: RFC 1071 §2(B) again.
        let folded = if self.odd {
            folded.swap_bytes()
        } else {
            folded
        };
        self.total += u64::from(folded);
        self.odd ^= bytes.len() % 2 != 0;
        self
    }

    /// Takes in one word, given in host order. Only behind an even number of bytes.
    #[inline]
    pub fn add_word(mut self, word: u16) -> Self {
        debug_assert!(!self.odd);
        self.total += u64::from(word.to_be());
        self
    }

    /// The sum, folded but not inverted, in host order: what a driver leaves in the checksum
    /// field for the device to finish.
    #[inline]
    pub fn partial(self) -> u16 {
        u16::from_be(fold(self.total))
    }

    /// The checksum in host order.
    #[inline]
    pub fn finish(self) -> u16 {
        !self.partial()
    }
}

#[inline]
fn sum_ne(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total: u64 = words
        .iter()
        .map(|w| u64::from(u32::from_ne_bytes(*w)))
        .sum();
    let (pairs, last) = rest.as_chunks::<2>();
    for pair in pairs {
        total += u64::from(u16::from_ne_bytes(*pair));
    }
    if let [byte] = last {
        total += u64::from(u16::from_ne_bytes([*byte, 0]));
    }
    total
}

#[inline]
fn fold(mut total: u64) -> u16 {
    total = (total >> 32) + (total & 0xffff_ffff);
    total = (total >> 32) + (total & 0xffff_ffff);
    total = (total >> 16) + (total & 0xffff);
    total = (total >> 16) + (total & 0xffff);
    total = (total >> 16) + (total & 0xffff);
    total as u16
}

/// The checksum of some bytes, in host order; 0 over bytes that hold their right checksum.
#[inline]
pub fn internet(bytes: &[u8]) -> u16 {
    Sum::new().add(bytes).finish()
}

/// The pseudo-header over IPv4: addresses in wire order, `len` of transport header and payload in
/// bytes.
#[inline]
pub fn pseudo_v4(src: &[u8; 4], dst: &[u8; 4], proto: u8, len: u32) -> Sum {
    let sum = Sum::new().add(src).add(dst).add_word(u16::from(proto));
    sum.add(&len.to_be_bytes())
}

/// The pseudo-header over IPv6, as [`pseudo_v4`].
#[inline]
pub fn pseudo_v6(src: &[u8; 16], dst: &[u8; 16], proto: u8, len: u32) -> Sum {
    let sum = Sum::new().add(src).add(dst).add_word(u16::from(proto));
    sum.add(&len.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 word by word.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn rfc_1071_example() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().add(&bytes).partial(), 0xddf2);
        assert_eq!(internet(&bytes), !0xddf2);
        assert_eq!(internet(&[]), 0xffff);
    }

    #[test]
    fn known_udp_datagram() {
        // 10.0.0.1:1 -> 10.0.0.2:2, payload "hi". By hand: 2 * 0a00 + 1 + 2 + 11 + a
        // (pseudo-header) + 1 + 2 + a + 6869 = 7c94, and the complement of that.
        let udp = [0, 1, 0, 2, 0, 10, 0, 0, b'h', b'i'];
        let sum = pseudo_v4(&[10, 0, 0, 1], &[10, 0, 0, 2], 17, 10).add(&udp);
        assert_eq!(sum.finish(), 0x836b);
    }

    proptest! {
        #[test]
        fn equals_the_slow_sum(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(internet(&bytes), slow(&bytes));
        }

        #[test]
        fn pieces_of_any_length_add_up(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cuts in proptest::collection::vec(0usize..300, 0..4),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|c| (*c).min(bytes.len())).collect();
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let (mut sum, mut from) = (Sum::new(), 0);
            for cut in cuts {
                sum = sum.add(&bytes[from..cut]);
                from = cut;
            }
            prop_assert_eq!(sum.finish(), slow(&bytes));
        }
    }
}
