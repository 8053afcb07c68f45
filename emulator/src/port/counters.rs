//! Counters of one port: one shard per worker, so that counting needs no atomic read-modify-write;
//! summed when somebody asks.

use chanio_model::DropReason;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a port counts besides losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counted {
    /// Entered the switch here.
    Tx,
    /// Left the switch here.
    Rx,
    /// Given to the host on the representor.
    RepresentorRx,
    /// Sent by the host on the representor.
    RepresentorTx,
}

const COUNTED: usize = 4;

#[repr(align(64))]
struct Shard {
    packets: [AtomicU64; COUNTED],
    bytes: [AtomicU64; COUNTED],
    drops: [AtomicU64; DropReason::COUNT],
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            packets: Default::default(),
            bytes: Default::default(),
            drops: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// Packets and bytes by [`Counted`], losses by reason.
pub struct Counters {
    shards: Box<[Shard]>,
}

/// Only the worker that owns the shard writes, so a plain add that others may read is enough.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

impl Counters {
    /// All zero, for `workers` writers.
    pub fn new(workers: usize) -> Self {
        Self {
            shards: (0..workers).map(|_| Shard::default()).collect(),
        }
    }

    /// Count `packets` with `bytes` in all. `worker` is the calling worker's own index.
    pub fn count(&self, worker: usize, what: Counted, packets: u64, bytes: u64) {
        add(&self.shards[worker].packets[what as usize], packets);
        add(&self.shards[worker].bytes[what as usize], bytes);
    }

    /// Count lost packets.
    pub fn lose(&self, worker: usize, reason: DropReason, packets: u64) {
        add(&self.shards[worker].drops[reason as usize], packets);
    }

    /// (packets, bytes) over all workers.
    pub fn total(&self, what: Counted) -> (u64, u64) {
        self.shards.iter().fold((0, 0), |(packets, bytes), shard| {
            (
                packets + shard.packets[what as usize].load(Relaxed),
                bytes + shard.bytes[what as usize].load(Relaxed),
            )
        })
    }

    /// Losses over all workers, without the reasons that have none.
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        let sum = |reason: DropReason| -> u64 {
            self.shards
                .iter()
                .map(|s| s.drops[reason as usize].load(Relaxed))
                .sum()
        };
        DropReason::ALL
            .iter()
            .map(|r| (*r, sum(*r)))
            .filter(|(_, n)| *n > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_summed() {
        let counters = Counters::new(2);
        counters.count(0, Counted::Tx, 2, 120);
        counters.count(1, Counted::Tx, 1, 60);
        counters.lose(1, DropReason::RuleDrop, 3);
        assert_eq!(counters.total(Counted::Tx), (3, 180));
        assert_eq!(counters.total(Counted::Rx), (0, 0));
        assert_eq!(counters.drops(), [(DropReason::RuleDrop, 3)]);
    }
}
