//! Frames shown to whoever asks, as they pass or where they are lost.
//!
//! Workers look at one flag per burst. Only while somebody captures do they copy frames, into a
//! queue of bounded length for each capture; what finds it full is counted as missed, and traffic
//! never waits.

mod filter;

pub use filter::{Filter, MAX_SNAPLEN, Point};

use chanio_model::{DropReason, RuleId, VportId};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Frames that wait for a slow reader.
const QUEUE: usize = 4096;

/// Where a frame is when it is shown.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The port; of a lost frame the one that is charged.
    pub vport: VportId,
    /// What happens to it there.
    pub point: Point,
    /// Queue pair, where the port has several and it is known.
    pub queue: Option<u16>,
    /// Why it was lost.
    pub reason: Option<DropReason>,
    /// The flow rule that decided.
    pub rule: Option<RuleId>,
    /// The chain that had no rule for it.
    pub no_rule_in: Option<u32>,
}

/// A frame that was seen.
#[derive(Clone, Debug)]
pub struct Record {
    /// Nanoseconds since 1970.
    pub at_ns: u64,
    /// Where.
    pub place: Place,
    /// Its length, Ethernet header included, in bytes.
    pub len: u32,
    /// Its first bytes, as many as were asked for.
    pub bytes: Vec<u8>,
}

struct Tap {
    filter: Filter,
    queue: mpsc::Sender<Record>,
    missed: AtomicU64,
}

/// All captures of a NIC.
#[derive(Default)]
pub struct Captures {
    active: AtomicBool,
    taps: RwLock<Vec<Arc<Tap>>>,
}

/// A running capture; dropping it ends it.
pub struct Capture {
    captures: Arc<Captures>,
    tap: Arc<Tap>,
    queue: mpsc::Receiver<Record>,
}

impl Captures {
    /// Whether anybody captures. What came of [`Captures::start`] is seen within a burst.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Begin to capture.
    pub fn start(self: &Arc<Self>, filter: Filter) -> Capture {
        let (sender, queue) = mpsc::channel(QUEUE);
        let tap = Arc::new(Tap {
            filter,
            queue: sender,
            missed: AtomicU64::new(0),
        });
        let mut taps = self.taps.write();
        taps.push(tap.clone());
        self.active.store(true, Ordering::Relaxed);
        drop(taps);
        Capture {
            captures: self.clone(),
            tap,
            queue,
        }
    }

    /// Show a frame of `len` bytes to those who want it; `copy` appends up to so many of its
    /// first bytes.
    pub fn show(&self, place: Place, len: usize, copy: impl Fn(&mut Vec<u8>, usize)) {
        for tap in self.taps.read().iter() {
            if !tap.filter.wants(&place) {
                continue;
            }
            let Ok(slot) = tap.queue.try_reserve() else {
                tap.missed.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let mut bytes = Vec::new();
            copy(&mut bytes, len.min(tap.filter.snaplen as usize));
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            slot.send(Record {
                at_ns: now.map_or(0, |since| since.as_nanos() as u64),
                place,
                len: len as u32,
                bytes,
            });
        }
    }

    fn end(&self, tap: &Arc<Tap>) {
        let mut taps = self.taps.write();
        taps.retain(|t| !Arc::ptr_eq(t, tap));
        self.active.store(!taps.is_empty(), Ordering::Relaxed);
    }
}

impl Capture {
    /// The next frame, once there is one, and how many were missed until now.
    pub async fn next(&mut self) -> Option<(Record, u64)> {
        let record = self.queue.recv().await?;
        Some((record, self.tap.missed.load(Ordering::Relaxed)))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.captures.end(&self.tap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(vport: u32, reason: Option<DropReason>) -> Place {
        Place {
            vport: VportId(vport),
            point: reason.map_or(Point::FromPort, |_| Point::Lost),
            queue: Some(0),
            reason,
            rule: None,
            no_rule_in: None,
        }
    }

    fn show(captures: &Captures, place: Place) {
        let frame = [7u8; 100];
        captures.show(place, frame.len(), |into, n| {
            into.extend_from_slice(&frame[..n]);
        });
    }

    #[tokio::test]
    async fn shows_what_is_wanted_and_counts_what_does_not_fit() {
        let captures = Arc::new(Captures::default());
        assert!(!captures.is_active());
        let mut lost = captures.start(Filter {
            points: vec![Point::Lost],
            snaplen: 64,
            ..Filter::default()
        });
        let mut one = captures.start(Filter {
            ports: vec![VportId(1)],
            ..Filter::default()
        });
        assert!(captures.is_active());
        show(&captures, place(1, None));
        show(&captures, place(2, Some(DropReason::RuleDrop)));
        for _ in 0..QUEUE + 10 {
            show(&captures, place(1, None));
        }
        let (record, missed) = lost.next().await.unwrap();
        assert_eq!((record.len, record.bytes.len(), missed), (100, 64, 0));
        assert_eq!(record.place.reason, Some(DropReason::RuleDrop));
        let (record, missed) = one.next().await.unwrap();
        assert_eq!((record.bytes, missed), (vec![7; 100], 11));
        drop(lost);
        assert!(captures.is_active());
        drop(one);
        assert!(!captures.is_active());
    }
}
