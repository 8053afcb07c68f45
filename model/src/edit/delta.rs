//! Keeping an Internet checksum right while the bytes under it change (RFC 1624).

use crate::wire::checksum::Sum;

/// How much a ones' complement sum changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delta(u16);

fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

impl Delta {
    /// Of bytes that begin at an even position under the sum.
    pub(super) fn of(old: &[u8], new: &[u8]) -> Self {
        Self::between(Sum::new().bytes(old), Sum::new().bytes(new))
    }

    /// Of one sum into another.
    pub(super) fn between(old: Sum, new: Sum) -> Self {
        Self(add(!old.partial(), new.partial()))
    }

    /// Both changes.
    pub(super) fn and(self, other: Delta) -> Self {
        Self(add(self.0, other.0))
    }

    /// A checksum after the change: RFC 1624 §3, equation 3.
    pub(super) fn of_checksum(self, checksum: u16) -> u16 {
        !add(!checksum, self.0)
    }

    /// A sum that was left uninverted, for the device to finish, after the change.
    pub(super) fn of_partial(self, partial: u16) -> u16 {
        add(partial, self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum::internet;
    use proptest::prelude::*;

    #[test]
    fn rfc_1624_example() {
        // §4: the word 0x5555 becomes 0x3285 under the checksum 0xdd2f.
        let delta = Delta::of(&[0x55, 0x55], &[0x32, 0x85]);
        assert_eq!(delta.of_checksum(0xdd2f), 0x0000);
    }

    proptest! {
        #[test]
        fn equals_summing_anew(
            mut bytes in proptest::collection::vec(any::<u8>(), 8..64),
            new in any::<[u8; 4]>(),
            at in 0usize..2,
        ) {
            bytes[7] |= 1; // a sum that is not zero, as that of any pseudo-header
            let before = internet(&bytes);
            let old = bytes[2 * at..2 * at + 4].to_vec();
            bytes[2 * at..2 * at + 4].copy_from_slice(&new);
            let delta = Delta::of(&old, &new);
            prop_assert_eq!(delta.of_checksum(before), internet(&bytes));
            prop_assert_eq!(!delta.of_partial(!before), internet(&bytes));
        }
    }
}
