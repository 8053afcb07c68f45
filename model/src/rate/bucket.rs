//! A token bucket that may go into debt: what is sent is known only once it was taken from the
//! ring, so the last burst may be more than there is, and the next one waits the longer. Over time
//! the rate is exact, whatever the size of bursts.

use crate::Nanos;

/// How much a bucket saves while nothing is sent: that of so long a time. Less, and a worker that
/// the system keeps from running would lose its channels some of their rate; more, and a channel
/// that was silent could send too much at once.
const SAVED: f64 = 40e6;

/// Bytes that may be sent.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Bytes; below zero is debt.
    tokens: f64,
    /// When that was true.
    at: Nanos,
    /// Bytes per nanosecond.
    rate: f64,
}

impl Bucket {
    /// An empty bucket.
    pub fn new(bytes_per_second: f64, now: Nanos) -> Self {
        Self {
            tokens: 0.0,
            at: now,
            rate: bytes_per_second / 1e9,
        }
    }

    /// At most so many bytes are saved.
    pub fn depth(&self) -> f64 {
        self.rate * SAVED
    }

    fn refill(&mut self, now: Nanos) {
        // Workers read the clock one after the other and may come here in another order.
        let passed = now.saturating_sub(self.at);
        self.tokens = (self.tokens + self.rate * passed as f64).min(self.depth());
        self.at = self.at.max(now);
    }

    /// Another rate from now on; debt stays.
    pub fn set_rate(&mut self, bytes_per_second: f64, now: Nanos) {
        self.refill(now);
        self.rate = bytes_per_second / 1e9;
    }

    /// Bytes that may be sent now; not above zero: none.
    pub fn tokens(&mut self, now: Nanos) -> f64 {
        self.refill(now);
        self.tokens
    }

    /// Bytes were sent.
    pub fn charge(&mut self, bytes: u64) {
        self.tokens -= bytes as f64;
    }

    /// When something may be sent, as far as is known at the time of the last look: the end of
    /// time if the rate is 0.
    pub fn ready_at(&self) -> Nanos {
        if self.tokens > 0.0 {
            return self.at;
        }
        // Saturates.
        let wait = ((1.0 - self.tokens) / self.rate).ceil() as Nanos;
        self.at.saturating_add(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn savings_are_bounded_and_debt_is_paid_back() {
        let mut bucket = Bucket::new(1e6, 0);
        assert_eq!(bucket.tokens(0), 0.0);
        let full = bucket.tokens(3600 * SECOND);
        assert!((full - 40_000.0).abs() < 1e-6, "{full}");
        bucket.charge(140_000);
        let ready = bucket.ready_at();
        assert!(
            ready.abs_diff(3600 * SECOND + SECOND / 10) < 2000,
            "{ready}"
        );
        assert!(bucket.tokens(ready) > 0.0);
        bucket.set_rate(0.0, ready);
        bucket.charge(1_000);
        assert_eq!(bucket.ready_at(), Nanos::MAX);
        // The clock of another worker, a little behind.
        assert!(bucket.tokens(ready - 500) < 0.0);
    }

    proptest! {
        /// Whoever sends whenever it may, in bursts of any size and late by less than what is
        /// saved, sends at the rate.
        #[test]
        fn the_rate_is_exact_over_time(
            rate in 1e4f64..1e9,
            bursts in prop::collection::vec((64u64..50_000, 0u64..2_000_000), 1..50),
        ) {
            let mut bucket = Bucket::new(rate, 0);
            let mut now = 0;
            let mut sent = 0u64;
            for (bytes, late) in bursts.iter().cycle().take(2_000) {
                while bucket.tokens(now) > 0.0 {
                    bucket.charge(*bytes);
                    sent += bytes;
                }
                now = bucket.ready_at() + late;
            }
            let earned = rate * now as f64 / 1e9;
            prop_assert!((sent as f64 + bucket.tokens(now) - earned).abs() < 1.0 + earned * 1e-6);
        }
    }
}
