//! Keyed hashing of a few words.
//!
//! What the tables hash comes out of packets, so a sender must not be able to choose colliding
//! keys: each table draws its own secret once and folds it into every product.

use std::hash::{BuildHasher, RandomState};

/// The secret of one table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashKey {
    start: u64,
    factor: u64,
    last: u64,
}

/// The two halves of the full product, folded: every input bit reaches most output bits.
#[inline]
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl HashKey {
    /// A fresh secret from the standard library's per-process randomness.
    pub(crate) fn random() -> Self {
        let source = RandomState::new();
        Self {
            start: source.hash_one(0u8),
            factor: source.hash_one(1u8) | 1,
            last: source.hash_one(2u8) | 1,
        }
    }

    /// The hash of some words.
    #[inline]
    pub(crate) fn hash(&self, words: impl Iterator<Item = u64>) -> u64 {
        let hash = words.fold(self.start, |hash, word| folded(hash ^ word, self.factor));
        // Words at regular distances come out of one product at regular distances, which may be
        // a multiple of the number of buckets; not out of two.
        folded(hash, self.last)
    }

    /// The hash of one word.
    #[inline]
    pub(crate) fn one(&self, word: u64) -> u64 {
        self.hash(std::iter::once(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn regular_distances_spread_over_buckets_and_tags() {
        for shift in (0..48).cycle().take(500) {
            let key = HashKey::random();
            let hashes: Vec<u64> = (0..4096u64).map(|w| key.one(w << shift)).collect();
            let buckets: HashSet<u64> = hashes.iter().map(|h| h & 0xfff).collect();
            let tags: HashSet<u64> = hashes.iter().map(|h| h >> 57).collect();
            // A random function leaves about 63 % of the buckets used: 2589.
            assert!(
                buckets.len() > 1500,
                "{} at {shift}, {key:?}",
                buckets.len()
            );
            assert!(tags.len() > 60, "{} at {shift}, {key:?}", tags.len());
        }
        assert_ne!(HashKey::random().one(1), HashKey::random().one(1));
    }
}
