//! Meters: what tc's `police` action asks of a packet (net/sched/act_police.c, tc-police(8)).
//!
//! A meter holds tokens in nanoseconds of sending time. A packet conforms if each bucket has as
//! much as the packet takes; only then are the buckets charged.
//!
//! Left out: `avrate`, which polices by the kernel's rate estimator, a moving average over timer
//! ticks that no hardware has; a rule that asks for it is refused where rules are read.

use crate::Nanos;
use parking_lot::Mutex;
use thiserror::Error;

/// What a meter lets pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeterSpec {
    /// Bytes a second and what may come at once.
    pub bytes: Option<ByteRate>,
    /// Packets a second and how many may come at once; not together with `bytes`.
    pub packets: Option<PacketRate>,
    /// The longest frame that conforms, in bytes with its Ethernet header; each segment's, if it
    /// is to be segmented. `None`: [`MeterSpec::DEFAULT_MTU`] with a byte rate, else any.
    pub mtu: Option<u32>,
}

/// A rate in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRate {
    /// Bytes a second, at least 1.
    pub rate: u64,
    /// The bucket, in bytes, at least 1.
    pub burst: u32,
    /// A second bucket that is as large as the MTU and filled at this rate, in bytes a second.
    pub peak: Option<u64>,
}

/// A rate in packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketRate {
    /// Packets a second, at least 1.
    pub rate: u64,
    /// The bucket, in packets, at least 1.
    pub burst: u32,
}

/// Why there is no such meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MeterError {
    /// A rate of nothing is `drop`.
    #[error("{0} of 0: expected 1 or more")]
    Zero(&'static str),
    /// One kind of rate only.
    #[error("a byte rate and a packet rate in one meter: expected one of them")]
    TwoRates,
    /// Nothing to check.
    #[error("a meter without rate and mtu: expected at least one of them")]
    Nothing,
    /// A peak below the rate would make the rate meaningless.
    #[error("peakrate {peak} bytes/s: expected more than the rate of {rate} bytes/s")]
    Peak {
        /// As asked, bytes a second.
        peak: u64,
        /// The rate it comes with, bytes a second.
        rate: u64,
    },
}

impl MeterSpec {
    /// What tc polices to when a byte rate comes without `mtu`: its rate table of 256 cells is
    /// then made for 2047 bytes, cells of 8, and act_police takes 255 of them (tc's
    /// `tc_calc_rtable`, `tcf_police_init`).
    pub const DEFAULT_MTU: u32 = 255 << 3;

    /// Whether it measures something.
    pub fn check(&self) -> Result<(), MeterError> {
        match (self.bytes, self.packets, self.mtu) {
            (Some(_), Some(_), _) => return Err(MeterError::TwoRates),
            (None, None, None) => return Err(MeterError::Nothing),
            _ => {}
        }
        if let Some(ByteRate { rate, burst, peak }) = self.bytes {
            if rate == 0 {
                return Err(MeterError::Zero("rate"));
            }
            if burst == 0 {
                return Err(MeterError::Zero("burst"));
            }
            match peak {
                Some(0) => return Err(MeterError::Zero("peakrate")),
                Some(peak) if peak <= rate => return Err(MeterError::Peak { peak, rate }),
                _ => {}
            }
        }
        if let Some(PacketRate { rate, burst }) = self.packets {
            if rate == 0 {
                return Err(MeterError::Zero("pkts_rate"));
            }
            if burst == 0 {
                return Err(MeterError::Zero("pkts_burst"));
            }
        }
        if self.mtu == Some(0) {
            return Err(MeterError::Zero("mtu"));
        }
        Ok(())
    }

    fn longest(&self) -> u32 {
        let default = self.bytes.map_or(u32::MAX, |_| Self::DEFAULT_MTU);
        self.mtu.unwrap_or(default)
    }
}

/// The time a unit takes at some rate, as a product and a shift: no packet costs a division.
#[derive(Clone, Copy, Debug)]
struct Cost {
    factor: u64,
    shift: u32,
}

impl Cost {
    /// `None` for a rate of 0.
    fn of(rate: u64) -> Option<Self> {
        // As many bits as leave room for a length of 32: exact to one part in 2^31 for every
        // rate that a byte takes less than 4 s at.
        let mut cost = Self {
            factor: 1_000_000_000u64.checked_div(rate)?,
            shift: 0,
        };
        while cost.factor < 1 << 31 && cost.shift < 63 {
            cost.shift += 1;
            cost.factor = ((1_000_000_000u128 << cost.shift) / u128::from(rate)) as u64;
        }
        Some(cost)
    }

    fn of_units(self, units: u32) -> i64 {
        ((u128::from(units) * u128::from(self.factor)) >> self.shift) as i64
    }
}

/// A bucket's parameters.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    cost: Cost,
    /// When full, in nanoseconds.
    full: i64,
}

/// Tokens, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Tokens {
    /// When they were last counted.
    at: Nanos,
    rate: i64,
    peak: i64,
}

/// One meter; many rules and workers may share it.
#[derive(Debug)]
pub struct Meter {
    spec: MeterSpec,
    longest: u32,
    /// By bytes or by packets.
    rate: Option<Bucket>,
    by_packets: bool,
    peak: Option<Bucket>,
    tokens: Mutex<Tokens>,
}

impl Meter {
    /// A meter that begins at `now`: the byte buckets full, the packet bucket empty, as in the
    /// kernel (`tcf_police_init` fills only the former).
    pub fn new(spec: MeterSpec, now: Nanos) -> Result<Self, MeterError> {
        spec.check()?;
        let longest = spec.longest();
        let (amount, per_second) = match (spec.bytes, spec.packets) {
            (Some(bytes), _) => (bytes.burst, bytes.rate),
            (None, Some(packets)) => (packets.burst, packets.rate),
            (None, None) => (0, 0),
        };
        // 2^32 units at one a second are 2^62 ns: no sum of two overflows.
        let rate = Cost::of(per_second).map(|cost| Bucket {
            cost,
            full: cost.of_units(amount),
        });
        let peak = spec.bytes.and_then(|bytes| bytes.peak);
        let peak = peak.and_then(Cost::of).map(|cost| Bucket {
            cost,
            full: cost.of_units(longest),
        });
        let by_packets = spec.packets.is_some();
        let tokens = Tokens {
            at: now,
            rate: rate.map_or(0, |bucket| if by_packets { 0 } else { bucket.full }),
            peak: peak.map_or(0, |bucket| bucket.full),
        };
        Ok(Self {
            spec,
            longest,
            rate,
            by_packets,
            peak,
            tokens: Mutex::new(tokens),
        })
    }

    /// What it was made from.
    pub fn spec(&self) -> &MeterSpec {
        &self.spec
    }

    /// Whether a packet conforms; if so, it is charged. `len` is what it costs in bytes, `frame`
    /// the length that the MTU limits (the longest segment's of one that is to be segmented).
    ///
    /// A clock that went back counts as one that stood still.
    #[inline]
    pub fn conforms(&self, len: u32, frame: u32, now: Nanos) -> bool {
        self.decide(len, frame, now, true)
    }

    /// What [`Meter::conforms`] would say, charging nothing.
    pub fn would_conform(&self, len: u32, frame: u32, now: Nanos) -> bool {
        self.decide(len, frame, now, false)
    }

    #[inline]
    fn decide(&self, len: u32, frame: u32, now: Nanos, charge: bool) -> bool {
        if frame > self.longest {
            return false;
        }
        let Some(rate) = self.rate else {
            return true;
        };
        let mut tokens = self.tokens.lock();
        let passed = i64::try_from(now.saturating_sub(tokens.at)).unwrap_or(i64::MAX);
        let passed = passed.min(rate.full);
        let units = if self.by_packets { 1 } else { len };
        let mut after = Tokens {
            at: now.max(tokens.at),
            rate: (tokens.rate + passed).min(rate.full) - rate.cost.of_units(units),
            peak: 0,
        };
        if let Some(peak) = self.peak {
            // The kernel adds no more than the first bucket holds here, too.
            after.peak = (tokens.peak + passed).min(peak.full) - peak.cost.of_units(len);
        }
        let conforms = after.rate >= 0 && after.peak >= 0;
        if conforms && charge {
            *tokens = after;
        }
        conforms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The buckets in plain arithmetic, refilled and emptied in steps of their own.
    struct Naive {
        spec: MeterSpec,
        at: Nanos,
        /// Nanoseconds of sending time left: by rate, by peak.
        left: (u128, u128),
    }

    fn time(amount: u128, rate: u64) -> u128 {
        amount * 1_000_000_000 / u128::from(rate)
    }

    impl Naive {
        fn full(&self) -> (u128, u128) {
            let longest = u128::from(self.spec.mtu.unwrap_or(2040));
            match (self.spec.bytes, self.spec.packets) {
                (Some(b), _) => (
                    time(u128::from(b.burst), b.rate),
                    b.peak.map_or(0, |peak| time(longest, peak)),
                ),
                (_, Some(p)) => (time(u128::from(p.burst), p.rate), 0),
                _ => (0, 0),
            }
        }

        fn new(spec: MeterSpec) -> Self {
            let mut naive = Self {
                spec,
                at: 0,
                left: (0, 0),
            };
            if spec.bytes.is_some() {
                naive.left = naive.full();
            }
            naive
        }

        fn conforms(&mut self, len: u32, frame: u32, now: Nanos) -> bool {
            let limit = match (self.spec.mtu, self.spec.bytes) {
                (Some(mtu), _) => mtu,
                (None, Some(_)) => 2040,
                (None, None) => u32::MAX,
            };
            if frame > limit {
                return false;
            }
            let full = self.full();
            let refill = u128::from(now - self.at).min(full.0);
            let (mut rate, mut peak) = self.left;
            rate = (rate + refill).min(full.0);
            peak = (peak + refill).min(full.1);
            let costs = match (self.spec.bytes, self.spec.packets) {
                (Some(b), _) => (
                    time(u128::from(len), b.rate),
                    b.peak.map_or(0, |peak| time(u128::from(len), peak)),
                ),
                (_, Some(p)) => (time(1, p.rate), 0),
                _ => return true,
            };
            if costs.0 > rate || costs.1 > peak {
                return false;
            }
            self.left = (rate - costs.0, peak - costs.1);
            self.at = now;
            true
        }
    }

    /// Rates that divide a shifted 10^9, so that no rounding hides a difference.
    fn rate() -> impl Strategy<Value = u64> {
        (0u32..24, 0u32..8).prop_map(|(twos, fives)| (1 << twos) * 5u64.pow(fives))
    }

    fn spec() -> impl Strategy<Value = MeterSpec> {
        let bytes = (rate(), 1u32..200_000, any::<bool>()).prop_map(|(rate, burst, peak)| {
            let peak = peak.then_some(rate * 4);
            (Some(ByteRate { rate, burst, peak }), None)
        });
        let packets =
            (rate(), 1u32..50).prop_map(|(rate, burst)| (None, Some(PacketRate { rate, burst })));
        let kinds = prop_oneof![3 => bytes, 2 => packets, 1 => Just((None, None))];
        (kinds, proptest::option::of(1u32..3000)).prop_map(|((bytes, packets), mtu)| {
            let any = bytes.is_some() || packets.is_some();
            MeterSpec {
                bytes,
                packets,
                mtu: if any { mtu } else { mtu.or(Some(1500)) },
            }
        })
    }

    proptest! {
        #[test]
        fn equals_plain_arithmetic(
            spec in spec(),
            packets in proptest::collection::vec((0u64..40_000_000, 1u32..3000), 1..200),
        ) {
            let (meter, mut naive) = (Meter::new(spec, 0).unwrap(), Naive::new(spec));
            let mut now = 0;
            for (gap, len) in packets {
                now += gap;
                let would = meter.would_conform(len, len, now);
                let got = meter.conforms(len, len, now);
                prop_assert_eq!(would, got);
                prop_assert_eq!(got, naive.conforms(len, len, now), "{} at {}", len, now);
            }
        }

        /// Ten seconds of twice as much as is allowed.
        #[test]
        fn lets_through_what_was_asked(
            rate in 20_000u64..5_000_000_000,
            by_packets in any::<bool>(),
            lens in proptest::collection::vec(64u32..1500, 100),
        ) {
            let burst = (rate / 100).max(3000) as u32;
            let spec = if by_packets {
                MeterSpec {
                    packets: Some(PacketRate { rate: rate / 1000, burst: burst.div_ceil(1000) }),
                    ..Default::default()
                }
            } else {
                MeterSpec { bytes: Some(ByteRate { rate, burst, peak: None }), ..Default::default() }
            };
            let meter = Meter::new(spec, 0).unwrap();
            let asked = if by_packets { rate / 1000 } else { rate };
            // No more than 200,000 packets: ten seconds, or a shorter while at high rates.
            let mean = if by_packets { 1 } else { 782 };
            let span = (200_000 * mean * 1_000_000_000u128 / (2 * u128::from(asked)))
                .min(10_000_000_000) as u64;
            let (mut now, mut passed, mut i) = (0u64, 0u64, 0);
            while now < span {
                let len = lens[i % lens.len()];
                i += 1;
                let units = if by_packets { 1 } else { u64::from(len) };
                if meter.conforms(len, len, now) {
                    passed += units;
                }
                now += (u128::from(units) * 1_000_000_000 / (2 * u128::from(asked))) as u64 + 1;
            }
            let expected = (u128::from(asked) * u128::from(span) / 1_000_000_000) as f64;
            let start = if by_packets { 0.0 } else { f64::from(burst) };
            let off = (passed as f64 - start - expected).abs() / expected;
            // The while must be long enough for one frame more or less not to count.
            let grain = 1500.0 * 2.0 / (expected * if by_packets { 1500.0 } else { 1.0 });
            prop_assert!(off < 0.02 + grain, "{passed} of {expected} + {start}");
        }
    }

    #[test]
    fn by_hand() {
        let bytes = ByteRate {
            rate: 1000,
            burst: 1500,
            peak: None,
        };
        let spec = MeterSpec {
            bytes: Some(bytes),
            ..Default::default()
        };
        let meter = Meter::new(spec, 5).unwrap();
        assert!(meter.conforms(1000, 1014, 5));
        assert!(meter.conforms(500, 514, 5));
        assert!(!meter.conforms(1, 15, 5), "empty");
        assert!(!meter.conforms(100, 114, 5 + 99_999_999));
        assert!(meter.conforms(100, 114, 5 + 100_000_000));
        assert!(!meter.conforms(1, 1, 0), "time does not go back");
        assert!(!meter.conforms(1, 2041, u64::MAX), "longer than the MTU");
        assert!(
            meter.conforms(1500, 2040, u64::MAX),
            "the MTU is the frame's"
        );

        let spec = MeterSpec {
            packets: Some(PacketRate { rate: 10, burst: 2 }),
            ..Default::default()
        };
        let meter = Meter::new(spec, 0).unwrap();
        assert!(!meter.conforms(60, 60, 0), "begins empty");
        assert!(meter.conforms(9000, 9000, 100_000_000), "any length");
        assert!(!meter.conforms(60, 60, 199_999_999));
        for (late, conforms) in [(0, true), (0, true), (0, false)] {
            assert_eq!(meter.conforms(60, 60, 10_000_000_000 + late), conforms);
        }
    }

    #[test]
    fn refuses() {
        let bytes = |rate, peak| ByteRate {
            rate,
            burst: 1000,
            peak,
        };
        let packets = |rate, burst| PacketRate { rate, burst };
        let new = |bytes, packets, mtu| {
            let spec = MeterSpec {
                bytes,
                packets,
                mtu,
            };
            Meter::new(spec, 0).map(|_| ()).unwrap_err()
        };
        assert_eq!(new(None, None, None), MeterError::Nothing);
        let both = new(Some(bytes(1, None)), Some(packets(1, 1)), None);
        assert_eq!(both, MeterError::TwoRates);
        assert_eq!(
            new(Some(bytes(0, None)), None, None),
            MeterError::Zero("rate")
        );
        assert_eq!(
            new(None, Some(packets(0, 1)), None),
            MeterError::Zero("pkts_rate")
        );
        assert_eq!(
            new(None, Some(packets(1, 0)), None),
            MeterError::Zero("pkts_burst")
        );
        assert_eq!(new(None, None, Some(0)), MeterError::Zero("mtu"));
        let low = MeterError::Peak { peak: 9, rate: 9 };
        assert_eq!(new(Some(bytes(9, Some(9))), None, None), low);
    }
}
