//! Which worker gives a busy queue to which other one.
//!
//! Queues are spread over the workers by number when they start. That is even for many, but two
//! busy ones may share a worker while another sleeps. So each worker measures how busy it is, and
//! one that is busy all the time looks for one that is not and gives it the queue whose move makes
//! the busier of the two least busy. Nothing moves unless that is a gain worth having.

use super::source::Source;
use chanio_model::Nanos;
use std::sync::atomic::{AtomicU64, Ordering};

/// How long work is added up before it counts, and after which a worker that has not said anything
/// new is asleep.
const WINDOW: Nanos = 10_000_000;
const SILENCE: Nanos = 10 * WINDOW;
/// After a queue has moved, until the loads have followed.
const SETTLE: Nanos = 20 * WINDOW;
/// A worker that is at work for less of its time than this gives nothing away.
const SATURATED: u32 = 850;
/// What the busier of the two must have left at most, of what the giver has.
const GAIN: f64 = 0.9;

/// How busy each worker is, for the others to see.
#[derive(Debug)]
pub struct Loads(Box<[AtomicU64]>);

impl Loads {
    /// Nobody is busy.
    pub fn new(workers: usize) -> Self {
        Loads((0..workers).map(|_| AtomicU64::new(0)).collect())
    }

    /// In thousandths of its time; 0 of one that sleeps.
    fn of(&self, worker: usize, now: Nanos) -> u32 {
        // Milliseconds above, thousandths below: one word, so that they belong together.
        let word = self.0[worker].load(Ordering::Relaxed);
        let said_at = (word >> 16) * 1_000_000;
        if now.saturating_sub(said_at) > SILENCE {
            return 0;
        }
        (word & 0xffff) as u32
    }

    fn say(&self, worker: usize, load: u32, now: Nanos) {
        let word = (now / 1_000_000) << 16 | u64::from(load);
        self.0[worker].store(word, Ordering::Relaxed);
    }
}

/// One worker's account of its own time.
#[derive(Debug)]
pub struct Balance {
    worker: usize,
    /// When the last round began, and whether it found work.
    round: (Nanos, bool),
    window_start: Nanos,
    busy: Nanos,
    /// Smoothed over a few windows, thousandths.
    load: u32,
    rest_until: Nanos,
}

impl Balance {
    /// A worker that has done nothing yet.
    pub fn new(worker: usize) -> Self {
        Balance {
            worker,
            round: (0, false),
            window_start: 0,
            busy: 0,
            load: 0,
            rest_until: 0,
        }
    }

    /// A round began `now`; the one before it took until then. True when a window is over and
    /// [`Balance::give_away`] wants to know what each source did in it.
    pub fn begin_round(&mut self, now: Nanos, loads: &Loads) -> bool {
        let (began, worked) = self.round;
        if worked {
            self.busy += now.saturating_sub(began);
        }
        self.round = (now, false);
        let window = now.saturating_sub(self.window_start);
        if window < WINDOW {
            return false;
        }
        let share = (self.busy * 1000 / window).min(1000) as u32;
        // After a long sleep there is nothing left to smooth.
        self.load = match window > SILENCE {
            true => share,
            false => (self.load + share) / 2,
        };
        loads.say(self.worker, self.load, now);
        (self.window_start, self.busy) = (now, 0);
        true
    }

    /// The round has found work.
    pub fn worked(&mut self) {
        self.round.1 = true;
    }

    /// What to give to whom, of sources with the bursts that each of them had in the window.
    pub fn give_away(
        &mut self,
        now: Nanos,
        loads: &Loads,
        bursts: impl Iterator<Item = (Source, u32)> + Clone,
    ) -> Option<(Source, usize)> {
        if self.load < SATURATED || now < self.rest_until {
            return None;
        }
        let others = (0..loads.0.len()).filter(|worker| *worker != self.worker);
        let (to, its) = others
            .map(|worker| (worker, loads.of(worker, now)))
            .min_by_key(|(_, load)| *load)?;
        let all: u64 = bursts.clone().map(|(_, n)| u64::from(n)).sum();
        let (mine, its) = (f64::from(self.load), f64::from(its));
        let after = |n: u32| {
            let moved = mine * f64::from(n) / all.max(1) as f64;
            (mine - moved).max(its + moved)
        };
        let (source, left) = bursts
            .filter(|(source, _)| matches!(source, Source::Queue(..)))
            .map(|(source, n)| (source, after(n)))
            .min_by(|(_, a), (_, b)| a.total_cmp(b))?;
        if left > GAIN * mine {
            return None;
        }
        self.rest_until = now + SETTLE;
        Some((source, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chanio_model::VportId;

    fn queue(vport: u32) -> Source {
        Source::Queue(VportId(vport), 0)
    }

    /// A worker that was at work for `busy` thousandths of the last windows.
    fn worker(index: usize, busy: u64, loads: &Loads) -> (Balance, Nanos) {
        let mut balance = Balance::new(index);
        let mut now = 0;
        for _ in 0..20 {
            balance.begin_round(now, loads);
            balance.worked();
            now += WINDOW * busy / 1000;
            balance.begin_round(now, loads);
            now += WINDOW - WINDOW * busy / 1000;
        }
        balance.begin_round(now, loads);
        (balance, now)
    }

    #[test]
    fn one_of_two_busy_queues_goes_to_the_idle_worker_once() {
        let loads = Loads::new(3);
        worker(1, 400, &loads);
        let (mut balance, now) = worker(0, 1000, &loads);
        let bursts = [(queue(1), 500), (queue(3), 480), (Source::Uplink, 10)];
        let given = balance.give_away(now, &loads, bursts.into_iter());
        assert_eq!(given, Some((queue(1), 2)));
        let again = balance.give_away(now + WINDOW, &loads, bursts.into_iter());
        assert_eq!(again, None, "until the loads have followed");
    }

    #[test]
    fn nothing_moves_without_a_gain() {
        let loads = Loads::new(2);
        let (mut idle, now) = worker(1, 500, &loads);
        let pair = [(queue(1), 100), (queue(3), 100)];
        assert_eq!(
            idle.give_away(now, &loads, pair.into_iter()),
            None,
            "not saturated"
        );
        let loads = Loads::new(2);
        let (mut busy, now) = worker(0, 1000, &loads);
        let alone = [(queue(1), 1000), (queue(3), 20)];
        assert_eq!(busy.give_away(now, &loads, alone.into_iter()), None);
        let netdevs = [
            (Source::Uplink, 100),
            (Source::Representor(VportId(1)), 100),
        ];
        assert_eq!(busy.give_away(now, &loads, netdevs.into_iter()), None);
        worker(1, 900, &loads);
        assert_eq!(
            busy.give_away(now, &loads, pair.into_iter()),
            None,
            "nobody is idle"
        );
        assert_eq!(busy.give_away(now, &loads, std::iter::empty()), None);
    }

    #[test]
    fn a_worker_that_sleeps_is_idle_whatever_it_said_last() {
        let loads = Loads::new(2);
        let (_, now) = worker(1, 1000, &loads);
        assert!(loads.of(1, now) > 900);
        assert_eq!(loads.of(1, now + 2 * SILENCE), 0);
    }
}
