//! The Toeplitz hash, as Microsoft's documentation of receive-side scaling defines it: for every
//! input bit that is set, the 32 bits of the key that begin at its position are added, without
//! carry.

use super::input::MAX_INPUT;
use super::settings::RssKey;

/// Half bytes of the longest input.
const NIBBLES: usize = 2 * MAX_INPUT;

/// The sums for every value of every half byte of the input. Half bytes, because whole ones would
/// take 36 KiB for each channel.
#[derive(Clone)]
pub struct Toeplitz(Box<[[u32; 16]; NIBBLES]>);

impl std::fmt::Debug for Toeplitz {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Toeplitz")
    }
}

/// The 32 bits of the key that begin at `bit`; past its end there are zeros.
fn window(key: &RssKey, bit: usize) -> u32 {
    let byte = |i: usize| u64::from(key.bytes().get(i).copied().unwrap_or(0));
    let from = bit / 8;
    let five = (0..5).fold(0, |word, i| word << 8 | byte(from + i));
    (five >> (8 - bit % 8)) as u32
}

impl Toeplitz {
    /// The tables of a key.
    pub fn new(key: &RssKey) -> Self {
        let mut tables = Box::new([[0; 16]; NIBBLES]);
        for (position, table) in tables.iter_mut().enumerate() {
            for (value, sum) in table.iter_mut().enumerate() {
                let set = (0..4).filter(|bit| value & (8 >> bit) != 0);
                *sum = set.fold(0, |sum, bit| sum ^ window(key, 4 * position + bit));
            }
        }
        Self(tables)
    }

    /// The hash of at most [`MAX_INPUT`] bytes; what is longer is not looked at.
    #[inline]
    pub fn hash(&self, input: &[u8]) -> u32 {
        let (tables, _) = self.0.as_chunks::<2>();
        input
            .iter()
            .zip(tables)
            .fold(0, |sum, (byte, [high, low])| {
                sum ^ high[usize::from(byte >> 4)] ^ low[usize::from(byte & 15)]
            })
    }
}

/// The same by its definition, one bit at a time: what the tables are held against.
pub fn bitwise(key: &RssKey, input: &[u8]) -> u32 {
    let bits = 0..8 * input.len();
    let set = bits.filter(|bit| input[bit / 8] & (0x80 >> (bit % 8)) != 0);
    set.fold(0, |sum, bit| sum ^ window(key, bit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_bit_takes_the_key_at_its_place() {
        let key = RssKey::MICROSOFT;
        assert_eq!(bitwise(&key, &[0x80]), 0x6d5a_56da);
        assert_eq!(bitwise(&key, &[0x40]), 0x6d5a_56da << 1);
        assert_eq!(bitwise(&key, &[0, 0x80]), 0x5a56_da25);
        assert_eq!(Toeplitz::new(&key).hash(&[]), 0);
    }

    proptest! {
        #[test]
        fn tables_say_what_the_definition_says(
            key in any::<[u8; 40]>(),
            input in prop::collection::vec(any::<u8>(), 0..=MAX_INPUT),
        ) {
            let key = RssKey::new(&key).unwrap();
            prop_assert_eq!(Toeplitz::new(&key).hash(&input), bitwise(&key, &input));
        }
    }
}
