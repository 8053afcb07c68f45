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
    /// Bytes of a packet, of the last burst.
    mean: AtomicU32,
}

/// Leave to take packets.
#[derive(Debug)]
pub struct Quota {
    leaf: Option<Leaf>,
    /// As many of them, 1 to [`BURST`].
    pub packets: usize,
}

impl Limiter {
    /// Limits the port, or no longer does.
    pub fn set(&self, leaf: Option<Leaf>) {
        let any = leaf.is_some();
        *self.leaf.write() = leaf;
        self.any.store(any, Ordering::Relaxed);
    }

    /// How many packets may be taken from one of its queues now.
    ///
    /// # Errors
    /// None, and when to ask again.
    #[inline]
    pub fn ask(&self, now: Nanos) -> Result<Quota, Nanos> {
        if !self.any.load(Ordering::Relaxed) {
            return Ok(Quota {
                leaf: None,
                packets: BURST,
            });
        }
        let leaf = self.leaf.read().clone();
        let Some(asked) = &leaf else {
            return Ok(Quota {
                leaf,
                packets: BURST,
            });
        };
        let room = asked.ask(now)?;
        // Sizes are known only once packets were taken. What was taken too much is debt.
        let mean = self.mean.load(Ordering::Relaxed).max(1);
        let packets = room.div_ceil(u64::from(mean)).clamp(1, BURST as u64);
        Ok(Quota {
            leaf,
            packets: packets as usize,
        })
    }

    /// What came of it: lengths of the packets taken.
    #[inline]
    pub fn taken(&self, quota: &Quota, lengths: impl ExactSizeIterator<Item = usize>) {
        let Some(leaf) = &quota.leaf else {
            return;
        };
        let packets = lengths.len();
        if packets == 0 {
            return;
        }
        let bytes: usize = lengths.sum();
        leaf.charge(bytes as u64);
        self.mean.store((bytes / packets) as u32, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chanio_model::rate::{Rates, Scheduler};

    #[test]
    fn a_quota_is_as_many_packets_as_there_is_credit_for() {
        let limiter = Limiter::default();
        let free = limiter.ask(0).unwrap();
        assert_eq!(free.packets, BURST);
        limiter.taken(&free, [1514; 3].into_iter());

        let scheduler = Scheduler::default();
        let rates = Rates {
            tx_max: 1_000_000,
            ..Rates::default()
        };
        limiter.set(Some(scheduler.set(&"c".parse().unwrap(), &rates, 0)));
        let first = limiter.ask(10_000_000).unwrap();
        limiter.taken(&first, [1000; 4].into_iter());
        // 10,000 bytes in the first ten milliseconds, 4,000 of them gone, by packets of 1,000.
        assert_eq!(limiter.ask(10_000_000).unwrap().packets, 6);
        limiter.taken(&first, [60_000].into_iter());
        assert!(limiter.ask(10_000_000).is_err());
        limiter.set(None);
        assert_eq!(limiter.ask(10_000_000).unwrap().packets, BURST);
    }
}
