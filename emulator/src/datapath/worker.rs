//! A forwarding thread: a run-to-completion loop over the sources that have work.
//!
//! Sources that have work are polled; one that had none for a while is told to ask for a wake-up
//! and sleeps in epoll. What this costs follows the sources that are active, not those that exist.

use super::Datapath;
use super::balance::Balance;
use super::published::Reader;
use super::receive::{Progress, Receiver, Round};
use super::source::Source;
use super::waker::WAKE;
use crate::port::{Endpoint, Uring};
use chanio_model::Nanos;
use nix::sys::epoll::{EpollEvent, EpollTimeout};
use rustc_hash::FxHashSet;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Time between two looks at epoll while there are active sources: each is a system call, which
/// costs as much as some frames, and at whose end whoever else wants the processor gets it. Others
/// wait so long to be found, so it has to be far below the time that a ring is polled in vain: else
/// two that answer each other take turns in falling asleep.
const UNTIL_EPOLL: Nanos = 5_000;

/// How long a ring is polled after its last packet before it sleeps. Long enough to bridge the
/// gaps of a busy flow, short enough that a single request does not burn a core.
const LINGER: Nanos = 500_000;

/// In rounds, where those take long because many sources have much to send. Their drivers are as
/// long about theirs; a ring that slept between would cost both sides a system call for each burst.
const LINGER_ROUNDS: Nanos = 4;

struct Active {
    source: Source,
    /// In which there was work, since the loads were last compared.
    bursts: u32,
}

/// A source whose packets wait for credit: the earliest first, and of two the one that has waited
/// longer.
type Parked = Reverse<(Nanos, u64, Source)>;

/// Longest sleep while sources are parked, milliseconds.
const LONGEST_SLEEP: u64 = 1000;

/// One forwarding thread's state.
pub struct Worker {
    index: usize,
    reader: Reader,
    datapath: Arc<Datapath>,
    active: Vec<Active>,
    /// Active or parked.
    is_active: FxHashSet<Source>,
    parked: BinaryHeap<Parked>,
    /// How many were parked so far.
    parkings: u64,
    posts: Vec<u64>,
    /// When the last round began, unless the worker goes to sleep behind it.
    last_round: Option<Nanos>,
    receiver: Receiver,
    balance: Balance,
}

impl Worker {
    pub(super) fn new(
        index: usize,
        reader: Reader,
        datapath: Arc<Datapath>,
        uring: Option<Uring>,
    ) -> io::Result<Self> {
        Ok(Self {
            index,
            reader,
            datapath,
            active: Vec::new(),
            is_active: FxHashSet::default(),
            parked: BinaryHeap::new(),
            parkings: 0,
            posts: Vec::new(),
            last_round: None,
            receiver: Receiver::new(index, uring)?,
            balance: Balance::new(index),
        })
    }

    pub(super) fn run(mut self) {
        while !self.datapath.stopping.load(Ordering::Acquire) {
            let first = self.round();
            while !self.active.is_empty() && self.round() - first < UNTIL_EPOLL {}
            self.wait(self.timeout());
        }
    }

    /// How long to sleep if nothing happens. Whole milliseconds are good enough: credit is saved
    /// for longer than that.
    fn timeout(&self) -> EpollTimeout {
        if !self.active.is_empty() {
            return EpollTimeout::ZERO;
        }
        let Some(Reverse((until, ..))) = self.parked.peek() else {
            return EpollTimeout::NONE;
        };
        let wait = until.saturating_sub(self.datapath.now());
        EpollTimeout::from(wait.div_ceil(1_000_000).min(LONGEST_SLEEP) as u16)
    }

    /// Parked sources whose time has come are active again.
    fn unpark(&mut self, now: Nanos) {
        while let Some(&Reverse((until, _, source))) = self.parked.peek()
            && until <= now
        {
            self.parked.pop();
            let bursts = 0;
            self.active.push(Active { source, bursts });
        }
    }

    /// Serve every active source once, by the newest configuration; returns when that began.
    pub fn round(&mut self) -> Nanos {
        self.reader.refresh();
        self.serve_active()
    }

    /// Sleep until a source has something or `timeout` is over; it is served from the next round
    /// on.
    pub fn wait(&mut self, timeout: EpollTimeout) {
        let mut events = [EpollEvent::empty(); 256];
        let waker = self.datapath.wakers[self.index].clone();
        // An interrupted wait is a wait without events.
        let n = waker.epoll().wait(&mut events, timeout).unwrap_or(0);
        for event in &events[..n] {
            match event.data() {
                WAKE => waker.take_posts(&mut self.posts),
                token => self.posts.push(token),
            }
        }
        if self.posts.is_empty() {
            return;
        }
        for source in self.posts.drain(..).filter_map(Source::from_token) {
            if self.is_active.insert(source) {
                let bursts = 0;
                self.active.push(Active { source, bursts });
            }
        }
    }

    fn serve_active(&mut self) -> Nanos {
        let now = self.datapath.now();
        if self.balance.begin_round(now, &self.datapath.loads) {
            self.compare_loads(now);
        }
        self.datapath.scheduler.tick(now);
        self.unpark(now);
        let took = self.last_round.map_or(0, |began| now - began);
        let linger = LINGER.max(LINGER_ROUNDS * took);
        let config = self.reader.config();
        let mut i = 0;
        while i < self.active.len() {
            let Active { source, bursts } = &mut self.active[i];
            let progress =
                self.receiver
                    .serve(*source, config, &self.datapath, Round { now, linger });
            if let Progress::Worked | Progress::Drained { worked: true } = progress {
                *bursts += 1;
                self.balance.worked();
            }
            match progress {
                Progress::Worked | Progress::Idle => {}
                Progress::Parked(until) => {
                    self.parked.push(Reverse((until, self.parkings, *source)));
                    self.parkings += 1;
                    self.active.swap_remove(i);
                    continue;
                }
                Progress::Drained { .. } | Progress::Asleep => {
                    self.is_active.remove(source);
                    self.active.swap_remove(i);
                    continue;
                }
            }
            i += 1;
        }
        self.last_round = (!self.active.is_empty()).then_some(now);
        now
    }

    /// Gives a queue to another worker if that is better for both.
    fn compare_loads(&mut self, now: Nanos) {
        let bursts = self.active.iter().map(|a| (a.source, a.bursts));
        let given = self.balance.give_away(now, &self.datapath.loads, bursts);
        if let Some((Source::Queue(vport, pair), to)) = given
            && let Some(Endpoint::Rings(channel)) =
                self.reader.config().port(vport).map(|p| &p.endpoint)
            && channel.move_queue(pair, to)
        {
            tracing::debug!(%vport, pair, from = self.index, to, "a queue changes workers");
            let source = Source::Queue(vport, pair);
            self.active.retain(|a| a.source != source);
            self.is_active.remove(&source);
        }
        for active in &mut self.active {
            active.bursts = 0;
        }
    }
}
