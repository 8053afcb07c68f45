//! Times counted in buckets that grow with the time: exact to 1.6 %, from 1 ns to centuries.

/// Buckets for each doubling.
const PARTS: u64 = 64;

/// A histogram.
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u64,
}

impl Default for Histogram {
    /// Empty.
    fn default() -> Self {
        let last = index(u64::MAX);
        Self {
            buckets: vec![0; last + 1],
            count: 0,
            sum: 0,
        }
    }
}

/// The bucket of a value: below [`PARTS`] one each, then [`PARTS`] for each doubling.
fn index(value: u64) -> usize {
    if value < PARTS {
        return value as usize;
    }
    let shift = value.ilog2() - PARTS.ilog2();
    // The leading one of what is left counts as one more row of parts.
    ((u64::from(shift) * PARTS) + (value >> shift)) as usize
}

/// The middle of a bucket.
fn middle(index: usize) -> f64 {
    let index = index as u64;
    if index < 2 * PARTS {
        return index as f64;
    }
    let shift = index / PARTS - 1;
    let low = (index - shift * PARTS) << shift;
    low as f64 + (1u64 << shift) as f64 / 2.0
}

impl Histogram {
    /// Counts a value.
    pub fn add(&mut self, value: u64) {
        self.buckets[index(value)] += 1;
        self.count += 1;
        self.sum += value;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean.
    pub fn mean(&self) -> f64 {
        self.sum as f64 / self.count as f64
    }

    /// The value that this share of them does not exceed, 0 without values.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = (share * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return middle(index);
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_as_its_bucket() {
        for value in (0..300).chain([1000, 4095, 4096, 123_456, 1 << 40, u64::MAX / 3]) {
            let back = middle(index(value));
            let error = (back - value as f64).abs();
            assert!(error <= value as f64 / PARTS as f64, "{value} {back}");
        }
    }

    #[test]
    fn quantiles_and_mean() {
        let mut all = Histogram::default();
        (1..=10_000).for_each(|n| all.add(n));
        assert_eq!((all.count(), all.mean()), (10_000, 5000.5));
        for (share, exact) in [(0.0, 1.0), (0.5, 5000.0), (0.99, 9900.0), (1.0, 10_000.0)] {
            let value = all.quantile(share);
            assert!((value - exact).abs() <= exact / 60.0, "{share}: {value}");
        }
        assert_eq!(Histogram::default().quantile(0.5), 0.0);
    }
}
