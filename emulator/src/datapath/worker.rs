//! A forwarding thread: a run-to-completion loop over the sources that have work.
//!
//! Sources that have work are polled; one that had none for a while is told to ask for a wake-up
//! and sleeps in epoll. What this costs follows the sources that are active, not those that exist.

use super::Datapath;
use super::published::Reader;
use super::receive::{Progress, Receiver};
use super::source::Source;
use super::waker::WAKE;
use chanio_model::Nanos;
use nix::sys::epoll::{EpollEvent, EpollTimeout};
use rustc_hash::FxHashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How long a ring is polled after its last packet before it sleeps. Long enough to bridge the
/// gaps of a busy flow, short enough that a single request does not burn a core.
const LINGER: Nanos = 50_000;

/// Rounds over the active sources between two looks at epoll.
const ROUNDS_PER_EPOLL: u32 = 16;

struct Active {
    source: Source,
    last_work: Nanos,
}

/// One forwarding thread's state.
pub struct Worker {
    index: usize,
    reader: Reader,
    datapath: Arc<Datapath>,
    active: Vec<Active>,
    is_active: FxHashSet<Source>,
    posts: Vec<u64>,
    receiver: Receiver,
}

impl Worker {
    pub(super) fn new(index: usize, reader: Reader, datapath: Arc<Datapath>) -> io::Result<Self> {
        Ok(Self {
            index,
            reader,
            datapath,
            active: Vec::new(),
            is_active: FxHashSet::default(),
            posts: Vec::new(),
            receiver: Receiver::new(index)?,
        })
    }

    pub(super) fn run(mut self) {
        while !self.datapath.stopping.load(Ordering::Acquire) {
            for _ in 0..ROUNDS_PER_EPOLL {
                self.round();
                if self.active.is_empty() {
                    break;
                }
            }
            let timeout = if self.active.is_empty() {
                EpollTimeout::NONE
            } else {
                EpollTimeout::ZERO
            };
            self.wait(timeout);
        }
    }

    /// Serve every active source once, by the newest configuration.
    pub fn round(&mut self) {
        self.reader.refresh();
        self.serve_active();
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
        let now = self.datapath.now();
        for source in self.posts.drain(..).filter_map(Source::from_token) {
            if self.is_active.insert(source) {
                self.active.push(Active {
                    source,
                    last_work: now,
                });
            }
        }
    }

    fn serve_active(&mut self) {
        let now = self.datapath.now();
        let config = self.reader.config();
        let mut i = 0;
        while i < self.active.len() {
            let Active { source, last_work } = &mut self.active[i];
            let patient = now.saturating_sub(*last_work) < LINGER;
            match self
                .receiver
                .serve(*source, config, &self.datapath, now, patient)
            {
                Progress::Worked => *last_work = now,
                Progress::Idle => {}
                Progress::Asleep => {
                    self.is_active.remove(source);
                    self.active.swap_remove(i);
                    continue;
                }
            }
            i += 1;
        }
    }
}
