//! The path of a packet, and the threads that walk it.
//!
//! A `worker` takes a burst from one source (`receive`), asks the switch where each packet
//! goes (`classify`), and gives each destination its share in one go (`deliver`). Control
//! changes what the workers read through `published` and never makes them wait.

mod balance;
mod classify;
mod deliver;
mod explain;
mod frame;
mod lro;
mod outbox;
mod published;
mod receive;
mod source;
mod waker;
mod watch;
mod worker;

pub use explain::Step;
pub use published::{Change, Config, Publisher};
pub use source::Source;
pub use waker::Waker;
pub use worker::Worker;

use crate::capture::Captures;
use crate::port::Uring;
use chanio_model::eswitch::{self, Fdb, RxMode, Switch, VportConfig};
use chanio_model::rate::Scheduler;
use chanio_model::{Mac, Nanos, VportId};
use parking_lot::{Mutex, RwLock};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

/// What control, sessions and workers share.
pub struct Datapath {
    /// Control's hold on the configuration. Workers never take this lock: [`Publisher::apply`]
    /// waits for them.
    publisher: Mutex<Publisher>,
    /// Learned and static addresses. Workers read it for a burst and write it to learn.
    fdb: RwLock<Fdb>,
    wakers: Vec<Arc<Waker>>,
    loads: balance::Loads,
    /// Who may send how fast.
    scheduler: Scheduler,
    captures: Arc<Captures>,
    stopping: AtomicBool,
    epoch: Instant,
}

/// The running workers.
pub struct Workers {
    datapath: Arc<Datapath>,
    threads: Vec<JoinHandle<()>>,
}

impl Datapath {
    /// Start `workers` threads that forward for this switch.
    pub fn start(workers: usize, switch: Switch, fdb: Fdb) -> io::Result<(Arc<Self>, Workers)> {
        let (datapath, workers) = Self::prepare(workers, switch, fdb)?;
        let mut running = Workers {
            datapath: datapath.clone(),
            threads: Vec::new(),
        };
        for (index, worker) in workers.into_iter().enumerate() {
            let thread = std::thread::Builder::new()
                .name(format!("worker{index}"))
                .spawn(move || worker.run())?;
            running.threads.push(thread);
        }
        Ok((datapath, running))
    }

    /// A datapath whose workers are the caller's to run, round by round: for benches.
    pub fn prepare(
        workers: usize,
        switch: Switch,
        fdb: Fdb,
    ) -> io::Result<(Arc<Self>, Vec<Worker>)> {
        let wakers: Vec<_> = (0..workers)
            .map(|_| Waker::new().map(Arc::new))
            .collect::<Result<_, _>>()?;
        let (publisher, readers) = Publisher::new(switch, &wakers);
        let datapath = Arc::new(Self {
            publisher: Mutex::new(publisher),
            fdb: RwLock::new(fdb),
            loads: balance::Loads::new(workers),
            scheduler: Scheduler::default(),
            captures: Arc::default(),
            wakers,
            stopping: AtomicBool::new(false),
            epoch: Instant::now(),
        });
        let urings = open_urings(workers);
        let workers = readers
            .into_iter()
            .zip(urings)
            .enumerate()
            .map(|(index, (reader, uring))| Worker::new(index, reader, datapath.clone(), uring))
            .collect::<Result<_, _>>()?;
        Ok((datapath, workers))
    }

    /// Nanoseconds since this datapath started.
    pub fn now(&self) -> Nanos {
        self.epoch.elapsed().as_nanos() as Nanos
    }

    /// How many workers there are; the number of counter shards.
    pub fn workers(&self) -> usize {
        self.wakers.len()
    }

    /// The waker of the worker that serves a source, if it was not moved.
    pub fn waker(&self, source: Source) -> &Arc<Waker> {
        self.waker_of(source.worker(self.wakers.len()))
    }

    /// The waker of a worker, 0 to [`Datapath::workers`] - 1.
    pub fn waker_of(&self, worker: usize) -> &Arc<Waker> {
        &self.wakers[worker]
    }

    /// Make changes visible to all workers at once; see [`Publisher::apply`].
    pub fn apply(&self, changes: &[Change]) {
        self.publisher.lock().apply(changes);
    }

    /// What would become of a finished frame that comes in at `vport`, or is sent by the host on
    /// its representor. Nothing comes of it.
    pub fn explain(&self, vport: VportId, from_host: bool, frame: &[u8]) -> Vec<Step> {
        let origin = match from_host {
            true => receive::Origin::Representor,
            false => receive::Origin::Vport,
        };
        let head = &frame[..frame.len().min(frame::HEAD)];
        let len = frame.len() as u32;
        self.with_config(|config| {
            let fdb = self.fdb.read();
            explain::explain(config, &fdb, vport, origin, head, len, self.now())
        })
    }

    /// Look at the configuration.
    pub fn with_config<R>(&self, look: impl FnOnce(&Config) -> R) -> R {
        look(self.publisher.lock().config())
    }

    /// Who may send how fast.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Who wants to see frames.
    pub fn captures(&self) -> &Arc<Captures> {
        &self.captures
    }

    /// The address table.
    pub fn fdb(&self) -> &RwLock<Fdb> {
        &self.fdb
    }

    /// Change one vport's configuration; false when there is no such vport.
    pub fn update_vport(&self, vport: VportId, change: impl FnOnce(&mut VportConfig)) -> bool {
        let mut publisher = self.publisher.lock();
        let Some(config) = publisher.config().switch.vport(vport) else {
            return false;
        };
        let mut config = (**config).clone();
        change(&mut config);
        publisher.apply(&[Change::Switch(eswitch::Change::SetVport(
            vport,
            Arc::new(config),
        ))]);
        true
    }

    /// Set a channel's receive filter.
    pub fn set_rx_mode(&self, vport: VportId, mode: RxMode) -> Result<(), String> {
        self.update_vport(vport, |config| config.rx_mode = mode);
        Ok(())
    }

    /// Give a channel another address of its own.
    pub fn set_mac(&self, vport: VportId, mac: Mac) -> Result<(), String> {
        let mut publisher = self.publisher.lock();
        let Some(config) = publisher.config().switch.vport(vport) else {
            return Err("the channel is gone".into());
        };
        let mut config = (**config).clone();
        let vid = config.port_vlan.map_or(0, |vlan| vlan.id());
        {
            let mut fdb = self.fdb.write();
            fdb.insert_static(vid, mac, vport)
                .map_err(|conflict| conflict.to_string())?;
            if let Some(old) = config.macs.first().filter(|old| **old != mac) {
                fdb.remove(vid, *old);
            }
        }
        // Those behind it are control's.
        match config.macs.first_mut() {
            Some(first) => *first = mac,
            None => config.macs.push(mac),
        }
        publisher.apply(&[Change::Switch(eswitch::Change::SetVport(
            vport,
            Arc::new(config),
        ))]);
        Ok(())
    }
}

/// What each worker serves netdevs with; none of them has a ring where one cannot have it.
fn open_urings(workers: usize) -> Vec<Option<Uring>> {
    let opened: Result<Vec<_>, _> = (0..workers).map(|_| Uring::open().map(Some)).collect();
    opened.unwrap_or_else(|why| {
        tracing::warn!("TAPs are read and written frame by frame: {why}");
        (0..workers).map(|_| None).collect()
    })
}

impl Drop for Workers {
    /// Ends the threads and waits for them.
    fn drop(&mut self) {
        self.datapath.stopping.store(true, Ordering::Release);
        for waker in &self.datapath.wakers {
            waker.wake();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
