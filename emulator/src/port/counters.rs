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
    queues: Box<[QueueCounters]>,
}

/// Of a queue pair: packets and bytes, sent and received by the channel. Any worker may deliver to a
/// queue, so there is one for all of them, counted once for a burst.
#[derive(Default)]
struct QueueCounters {
    tx: [AtomicU64; 2],
    rx: [AtomicU64; 2],
}

/// Nobody else writes at the same time, so a plain add that others may read is enough.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

impl Counters {
    /// All zero, for `workers` writers and a port without queues.
    pub fn new(workers: usize) -> Self {
        Self::with_queues(workers, 0)
    }

    /// All zero, for a port with so many queue pairs.
    pub fn with_queues(workers: usize, pairs: u16) -> Self {
        Self {
            shards: (0..workers).map(|_| Shard::default()).collect(),
            queues: (0..pairs).map(|_| QueueCounters::default()).collect(),
        }
    }

    fn queue(&self, pair: u16, tx: bool) -> Option<&[AtomicU64; 2]> {
        let queue = self.queues.get(usize::from(pair))?;
        Some(if tx { &queue.tx } else { &queue.rx })
    }

    /// [`Counters::count_queue`] by whoever holds the lock of the ring: nobody else counts there
    /// meanwhile. An atomic addition would first wait for all that was written to the other
    /// side's memory.
    #[inline]
    pub fn count_locked_queue(&self, pair: u16, tx: bool, packets: u64, bytes: u64) {
        if let Some([all_packets, all_bytes]) = self.queue(pair, tx) {
            add(all_packets, packets);
            add(all_bytes, bytes);
        }
    }

    /// Count what the channel has sent (`tx`) or received on a queue pair.
    #[inline]
    pub fn count_queue(&self, pair: u16, tx: bool, packets: u64, bytes: u64) {
        if let Some([all_packets, all_bytes]) = self.queue(pair, tx) {
            all_packets.fetch_add(packets, Relaxed);
            all_bytes.fetch_add(bytes, Relaxed);
        }
    }

    /// (packets, bytes) of each queue pair, sent and received.
    pub fn queues(&self) -> impl Iterator<Item = [(u64, u64); 2]> {
        let read = |[packets, bytes]: &[AtomicU64; 2]| (packets.load(Relaxed), bytes.load(Relaxed));
        self.queues.iter().map(move |q| [read(&q.tx), read(&q.rx)])
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
    fn queues_are_counted_by_pair_and_direction() {
        let counters = Counters::with_queues(1, 2);
        counters.count_queue(1, true, 2, 120);
        counters.count_queue(1, false, 1, 60);
        counters.count_queue(2, false, 1, 60);
        let all: Vec<_> = counters.queues().collect();
        assert_eq!(all, [[(0, 0); 2], [(2, 120), (1, 60)]]);
    }

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
