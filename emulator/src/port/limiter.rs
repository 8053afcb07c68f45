//! A port's place among the rates, for the workers that serve its queues.

use crate::ring::BURST;
use chanio_model::Nanos;
use chanio_model::rate::Leaf;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// What limits a port; nothing, to begin with.
#[derive(Debug, Default)]
pub struct Limiter {
    /// Lets ports without a limit do without the lock.
    any: AtomicBool,
    leaf: RwLock<Option<Leaf>>,
    /// Bytes of the longest packet of late.
    longest: AtomicU32,
}

/// Leave to take packets.
#[derive(Debug)]
pub struct Quota {
    leaf: Option<Leaf>,
    /// As many bytes, and what the last packet has more than that.
    pub bytes: u64,
    /// As many packets, 1 to [`BURST`], for who learns how long they are only by taking them.
    pub packets: usize,
}

impl Limiter {
    /// Limits the port, or no longer does.
    pub fn set(&self, leaf: Option<Leaf>) {
        let any = leaf.is_some();
        *self.leaf.write() = leaf;
        self.any.store(any, Ordering::Relaxed);
    }

    /// How much may be taken from one of its queues now.
    ///
    /// # Errors
    /// None, and when to ask again.
    #[inline]
    pub fn ask(&self, now: Nanos) -> Result<Quota, Nanos> {
        let none = Quota {
            leaf: None,
            bytes: u64::MAX,
            packets: BURST,
        };
        if !self.any.load(Ordering::Relaxed) {
            return Ok(none);
        }
        let Some(leaf) = self.leaf.read().clone() else {
            return Ok(none);
        };
        let bytes = leaf.ask(now)?;
        // What is taken too much is debt, and a slow channel that begins with a burst of long ones
        // would be silent for seconds. So it is one, as long as nothing is known of them.
        let longest = match self.longest.load(Ordering::Relaxed) {
            0 => u64::MAX,
            longest => u64::from(longest),
        };
        let packets = bytes.div_ceil(longest).clamp(1, BURST as u64) as usize;
        Ok(Quota {
            leaf: Some(leaf),
            bytes,
            packets,
        })
    }

    /// What came of it: lengths of the packets taken.
    #[inline]
    pub fn taken(&self, quota: &Quota, lengths: impl ExactSizeIterator<Item = usize>) {
        let Some(leaf) = &quota.leaf else {
            return;
        };
        let (bytes, longest) = lengths.fold((0, 0), |(sum, longest), len| {
            (sum + len as u64, len.max(longest))
        });
        if longest == 0 {
            return;
        }
        leaf.charge(bytes);
        // Long ones come between short ones: that there were some is not forgotten at once.
        let before = self.longest.load(Ordering::Relaxed);
        let longest = (longest as u32).max(before - before / 8);
        self.longest.store(longest, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chanio_model::rate::{Rates, Scheduler};

    #[test]
    fn a_quota_is_as_much_as_there_is_credit_for() {
        let limiter = Limiter::default();
        let free = limiter.ask(0).unwrap();
        assert_eq!((free.bytes, free.packets), (u64::MAX, BURST));
        limiter.taken(&free, [1514; 3].into_iter());

        let scheduler = Scheduler::default();
        let rates = Rates {
            tx_max: 1_000_000,
            ..Rates::default()
        };
        limiter.set(Some(scheduler.set(&"c".parse().unwrap(), &rates, 0)));
        let first = limiter.ask(10_000_000).unwrap();
        assert_eq!(
            (first.bytes, first.packets),
            (10_000, 1),
            "nothing is known of its packets"
        );
        limiter.taken(&first, [1000; 4].into_iter());
        // 10,000 bytes in the first ten milliseconds, 4,000 of them gone, by packets of 1,000.
        let second = limiter.ask(10_000_000).unwrap();
        assert_eq!((second.bytes, second.packets), (6_000, 6));
        // Short ones for a while, and long ones are still expected.
        limiter.taken(&second, [60; 5].into_iter());
        assert_eq!(limiter.ask(10_000_000).unwrap().packets, 7);
        for _ in 0..80 {
            limiter.taken(&second, [1].into_iter());
        }
        assert_eq!(limiter.ask(10_000_000).unwrap().packets, BURST);
        limiter.taken(&second, [60_000].into_iter());
        assert!(limiter.ask(10_000_000).is_err());
        limiter.set(None);
        assert_eq!(limiter.ask(10_000_000).unwrap().packets, BURST);
    }
}
