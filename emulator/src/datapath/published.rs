//! The configuration that workers read, and how control changes it without ever making them wait.
//!
//! Two copies exist. Workers read one; control changes the other, swaps them, waits until every
//! worker has moved over, and makes the same change on the copy they left. A change costs what
//! the change costs, not what the configuration weighs, and when [`Publisher::apply`] returns no
//! worker sees what it removed.

use super::waker::Waker;
use crate::port::Port;
use chanio_model::VportId;
use chanio_model::eswitch::{self, Switch};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// All that a worker needs to forward.
#[derive(Clone)]
pub struct Config {
    /// The eswitch.
    pub switch: Switch,
    ports: Vec<Option<Arc<Port>>>,
}

impl Config {
    /// The port behind a vport.
    pub fn port(&self, vport: VportId) -> Option<&Arc<Port>> {
        self.ports.get(vport.index())?.as_ref()
    }

    /// All ports.
    pub fn ports(&self) -> impl Iterator<Item = &Arc<Port>> {
        self.ports.iter().flatten()
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Switch(change) => {
                // Control checks before it changes, so a refusal is a bug of ours.
                if let Err(error) = self.switch.apply(change) {
                    tracing::error!(%error, "the switch refused a change");
                    debug_assert!(false, "{error}");
                }
            }
            Change::AddPort(port) => {
                let index = port.id.index();
                if self.ports.len() <= index {
                    self.ports.resize(index + 1, None);
                }
                self.ports[index] = Some(port.clone());
            }
            Change::RemovePort(vport) => self.ports[vport.index()] = None,
        }
    }
}

/// One step of a configuration change.
pub enum Change {
    /// In the switch.
    Switch(eswitch::Change),
    /// A port appears, or replaces the one at its vport.
    AddPort(Arc<Port>),
    /// A port goes.
    RemovePort(VportId),
}

/// A worker's side: where to find the newest configuration.
pub struct Published {
    generation: AtomicU64,
    current: Mutex<Arc<Config>>,
    readers: Box<[ReaderState]>,
}

struct ReaderState {
    /// The newest generation this worker has taken; `u64::MAX` when it has ended.
    seen: AtomicU64,
    waker: Arc<Waker>,
}

/// A worker's hold on the configuration.
pub struct Reader {
    published: Arc<Published>,
    index: usize,
    generation: u64,
    config: Arc<Config>,
}

impl Reader {
    /// The configuration as of the last [`Reader::refresh`].
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Take the newest configuration, if there is a newer one. Call between bursts: what was read
    /// from the old one must not be used any more.
    pub fn refresh(&mut self) {
        // Acquire pairs with the release in `Publisher::apply`: the new configuration is in
        // `current` by the time its generation is seen.
        if self.published.generation.load(Ordering::Acquire) != self.generation {
            let current = self.published.current.lock();
            self.generation = self.published.generation.load(Ordering::Acquire);
            self.config = current.clone();
            drop(current);
            self.published.readers[self.index]
                .seen
                .store(self.generation, Ordering::Release);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.published.readers[self.index]
            .seen
            .store(u64::MAX, Ordering::Release);
    }
}

/// Control's side: the only writer.
pub struct Publisher {
    published: Arc<Published>,
    standby: Arc<Config>,
}

/// How long a change waits for a worker to take it. Workers look between bursts, so this only
/// runs out when the machine is badly overloaded; the change then costs a copy.
const PATIENCE: Duration = Duration::from_secs(2);

impl Publisher {
    /// An empty switch, for workers with these wakers, and the readers of those workers.
    pub fn new(switch: Switch, wakers: &[Arc<Waker>]) -> (Self, Vec<Reader>) {
        let config = Config {
            switch,
            ports: Vec::new(),
        };
        let current = Arc::new(config.clone());
        let reader_state = |w: &Arc<Waker>| ReaderState {
            seen: AtomicU64::new(0),
            waker: w.clone(),
        };
        let published = Arc::new(Published {
            generation: AtomicU64::new(0),
            current: Mutex::new(current.clone()),
            readers: wakers.iter().map(reader_state).collect(),
        });
        let readers = (0..wakers.len())
            .map(|index| Reader {
                published: published.clone(),
                index,
                generation: 0,
                config: current.clone(),
            })
            .collect();
        (
            Self {
                published,
                standby: Arc::new(config),
            },
            readers,
        )
    }

    /// The configuration as the last change left it.
    pub fn config(&self) -> &Config {
        &self.standby
    }

    /// Make all of `changes` visible at once. On return every worker uses the new configuration
    /// and nothing refers to what was removed.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            Arc::make_mut(&mut self.standby).apply(change);
        }
        let mut old = {
            let mut current = self.published.current.lock();
            let old = std::mem::replace(&mut *current, self.standby.clone());
            self.published.generation.fetch_add(1, Ordering::Release);
            old
        };
        self.wait_for_readers();
        for change in changes {
            // No worker holds `old` now; if one still did, this would copy it and stay correct.
            Arc::make_mut(&mut old).apply(change);
        }
        self.standby = old;
    }

    fn wait_for_readers(&self) {
        let generation = self.published.generation.load(Ordering::Relaxed);
        let behind = |reader: &ReaderState| reader.seen.load(Ordering::Acquire) < generation;
        let started = Instant::now();
        for reader in &self.published.readers {
            if behind(reader) {
                reader.waker.wake();
            }
            let mut rounds = 0u32;
            while behind(reader) && started.elapsed() < PATIENCE {
                rounds += 1;
                if rounds < 50 {
                    std::thread::yield_now()
                } else {
                    std::thread::sleep(Duration::from_micros(20))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{Counters, Endpoint, Limiter, Uplink};
    use chanio_model::eswitch::Mode;
    use std::sync::atomic::AtomicBool;

    fn port(id: u32) -> Arc<Port> {
        Arc::new(Port {
            id: VportId(id),
            channel: None,
            endpoint: Endpoint::Uplink(Uplink::None),
            representor: None,
            counters: Counters::new(1),
            limiter: Limiter::default(),
        })
    }

    fn wakers(n: usize) -> Vec<Arc<Waker>> {
        (0..n).map(|_| Arc::new(Waker::new().unwrap())).collect()
    }

    #[test]
    fn a_removed_port_is_gone_when_apply_returns() {
        let (mut publisher, readers) = Publisher::new(Switch::default(), &wakers(2));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for mut reader in readers {
                scope.spawn({
                    let stop = &stop;
                    move || {
                        while !stop.load(Ordering::Relaxed) {
                            reader.refresh();
                            // What is there now must stay usable until the next refresh.
                            for port in reader.config().ports() {
                                assert!(Arc::strong_count(port) >= 1);
                            }
                        }
                    }
                });
            }
            for id in 1..200 {
                let port = port(id);
                publisher.apply(&[Change::AddPort(port.clone())]);
                assert!(publisher.config().port(VportId(id)).is_some());
                publisher.apply(&[Change::RemovePort(VportId(id))]);
                assert_eq!(Arc::strong_count(&port), 1, "only ours is left");
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn both_copies_change_and_a_reader_sees_all_or_nothing() {
        let (mut publisher, mut readers) = Publisher::new(Switch::default(), &wakers(1));
        let mut reader = readers.remove(0);
        for round in 0..4 {
            let mode = if round % 2 == 0 {
                Mode::Switchdev
            } else {
                Mode::Legacy
            };
            let before = reader.config().switch.mode();
            std::thread::scope(|scope| {
                let publisher = &mut publisher;
                let changing = scope.spawn(move || {
                    publisher.apply(&[
                        Change::Switch(eswitch::Change::SetMode(mode)),
                        Change::AddPort(port(round)),
                    ]);
                });
                assert_eq!(reader.config().switch.mode(), before);
                while reader.config().switch.mode() != mode {
                    reader.refresh();
                }
                assert_eq!(reader.config().ports().count() as u32, round + 1);
                changing.join().unwrap();
            });
            assert_eq!(publisher.config().switch.mode(), mode);
            assert_eq!(publisher.config().ports().count() as u32, round + 1);
        }
    }

    #[test]
    fn ended_workers_hold_nobody_up() {
        let (mut publisher, readers) = Publisher::new(Switch::default(), &wakers(2));
        drop(readers);
        let started = Instant::now();
        publisher.apply(&[Change::AddPort(port(1))]);
        assert!(started.elapsed() < PATIENCE);
    }
}
