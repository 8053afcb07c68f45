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
}

impl HashKey {
    /// A fresh secret from the standard library's per-process randomness.
    pub(crate) fn random() -> Self {
        let source = RandomState::new();
        Self {
            start: source.hash_one(0u8),
            factor: source.hash_one(1u8) | 1,
        }
    }

    /// The hash of no words yet.
    #[inline]
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Takes one more word into `hash`.
    #[inline]
    pub(crate) fn mix(&self, hash: u64, word: u64) -> u64 {
        // The folded 128-bit product: every input bit reaches both the low bits (bucket) and the
        // high bits (tag) that hashbrown looks at.
        let product = u128::from(hash ^ word) * u128::from(self.factor);
        product as u64 ^ (product >> 64) as u64
    }

    /// The hash of one word.
    #[inline]
    pub(crate) fn one(&self, word: u64) -> u64 {
        self.mix(self.start, word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn neighbours_spread_over_buckets_and_tags() {
        let key = HashKey::random();
        let hashes: Vec<u64> = (0..4096u64).map(|w| key.one(w << 16)).collect();
        let buckets: HashSet<u64> = hashes.iter().map(|h| h & 0xfff).collect();
        let tags: HashSet<u64> = hashes.iter().map(|h| h >> 57).collect();
        // A random function leaves about 63 % of the buckets used.
        assert!(buckets.len() > 1500, "{}", buckets.len());
        assert!(tags.len() > 60, "{}", tags.len());
        assert_ne!(key.one(1), HashKey::random().one(1));
    }
}
