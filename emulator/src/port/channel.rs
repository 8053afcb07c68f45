//! A channel that is a vhost-user device: its rings, and what its driver has asked for.

use super::{Representor, Steering};
use crate::datapath::{Datapath, Source};
use crate::ring::{Call, Kick, Notifier, Ring, RingFault};
use crate::vhost::{Device, RingIndex, RingStart, header_len};
use chanio_model::eswitch::RxMode;
use chanio_model::offload::RxOffloads;
use chanio_model::rss::{HashTypes, RssKey, RssSettings};
use chanio_model::{Mac, Nanos, VportId};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};

/// A ring that the driver sends on.
pub struct TxQueue {
    /// The ring.
    pub ring: Ring,
    /// Bytes of virtio-net header in front of each frame: 10 or 12.
    pub header_len: usize,
    call: Option<Call>,
    /// Held for its registration with the worker; `None`: the ring must be polled.
    kick: Option<Kick>,
    last_work: Nanos,
    /// The last packet came soon after the one before.
    busy: bool,
    /// The driver was asked to tell when it adds work.
    asked: bool,
}

impl TxQueue {
    /// Whether the driver tells when it adds work.
    pub fn has_kick(&self) -> bool {
        self.kick.is_some()
    }

    /// There was work `now`; with gaps below `linger` the ring is busy. A driver whose ring is polled
    /// from here on need not tell of more: that is a system call of its own for each burst.
    pub fn worked(&mut self, now: Nanos, linger: Nanos) {
        self.busy = now.saturating_sub(self.last_work) < linger;
        self.last_work = now;
        if self.busy && self.asked {
            self.ring.disable_kicks();
            self.asked = false;
        }
    }

    /// Asks the driver to tell of more work; returns whether there is some already.
    ///
    /// # Errors
    /// As [`Ring::enable_kicks`].
    pub fn ask(&mut self) -> Result<bool, RingFault> {
        self.asked = true;
        self.ring.enable_kicks()
    }

    /// Whether to poll it again though it is empty: for `linger` after its last packet, if it is
    /// busy. A packet alone is no reason: of ten thousand channels that send one now and then, each
    /// would cost far more than its packet.
    pub fn lingers(&self, now: Nanos, linger: Nanos) -> bool {
        self.busy && now.saturating_sub(self.last_work) < linger
    }

    /// Wakes the driver if it asks for that, after [`Ring::show`] and a fence.
    pub fn announce(&mut self, notifier: &mut Notifier) {
        if self.ring.wants_call() {
            notify(&self.call, notifier);
        }
    }
}

/// A ring that the driver receives on.
pub struct RxQueue {
    /// The ring.
    pub ring: Ring,
    /// Bytes of virtio-net header in front of each frame: 10 or 12.
    pub header_len: usize,
    /// A frame may take several buffers.
    pub mergeable: bool,
    /// What the driver takes unfinished.
    pub offloads: RxOffloads,
    /// The header has room for the packet's hash.
    pub hash_report: bool,
    call: Option<Call>,
}

impl RxQueue {
    /// As [`TxQueue::announce`].
    pub fn announce(&mut self, notifier: &mut Notifier) {
        if self.ring.wants_call() {
            notify(&self.call, notifier);
        }
    }
}

fn notify(call: &Option<Call>, notifier: &mut Notifier) {
    if let Some(call) = call
        && let Err(error) = notifier.notify(call)
    {
        tracing::debug!(%error, "calling a driver");
    }
}

struct QueuePair {
    tx: Mutex<Option<Box<TxQueue>>>,
    rx: Mutex<Option<Box<RxQueue>>>,
    /// Who serves the transmit ring. Changes only while its lock is held.
    worker: AtomicUsize,
}

/// A vhost-user device. A ring's lock is held by a worker for one burst at a time, and by the
/// session only to start or stop it; after a stop nothing refers to its memory.
pub struct Channel {
    id: VportId,
    pairs: Box<[QueuePair]>,
    datapath: Arc<Datapath>,
    /// Its carrier follows the driver.
    representor: Option<Arc<Representor>>,
    driver: Mutex<Driver>,
    mac: Mutex<Mac>,
    mtu: AtomicU16,
    link_up: AtomicBool,
    trust: AtomicBool,
    lro: AtomicBool,
    /// What control has it receive.
    rx_mode: Mutex<RxMode>,
    features: AtomicU64,
    /// Pairs that the driver wants packets on (control queue).
    wanted_pairs: AtomicU16,
    /// Receive rings 0 to n-1 run; what workers spread packets over.
    rx_pairs: AtomicU16,
    steering: Steering,
}

#[derive(Default)]
struct Driver {
    connected: bool,
    faulted: bool,
    fault: Option<String>,
}

/// What the channel's driver is doing, for listings.
pub struct DriverState {
    /// A client is attached.
    pub connected: bool,
    /// Stopped for `fault` until a new client comes or control clears it.
    pub faulted: bool,
    /// Why it was last stopped.
    pub fault: Option<String>,
    /// Negotiated virtio features.
    pub features: u64,
    /// Pairs of which both rings run.
    pub active_pairs: u16,
}

/// What control sets of a channel's device.
#[derive(Clone)]
pub struct DeviceSettings {
    /// Address in config space.
    pub mac: Mac,
    /// MTU in config space, bytes.
    pub mtu: u16,
    /// Link bit in config space.
    pub link_up: bool,
    /// Whether the driver may change its address and receive mode.
    pub trust: bool,
    /// Whether TCP segments are joined for a driver that takes large packets.
    pub lro: bool,
    /// What is received while the driver asks for nothing else.
    pub rx_mode: RxMode,
}

impl Channel {
    /// A device with no driver.
    pub fn new(
        id: VportId,
        pairs: u16,
        settings: DeviceSettings,
        datapath: Arc<Datapath>,
        representor: Option<Arc<Representor>>,
    ) -> Self {
        let pair = |pair| QueuePair {
            tx: Mutex::new(None),
            rx: Mutex::new(None),
            worker: AtomicUsize::new(Source::Queue(id, pair).worker(datapath.workers())),
        };
        Self {
            id,
            pairs: (0..pairs).map(pair).collect(),
            datapath,
            representor,
            driver: Mutex::default(),
            mac: Mutex::new(settings.mac),
            mtu: AtomicU16::new(settings.mtu),
            link_up: AtomicBool::new(settings.link_up),
            trust: AtomicBool::new(settings.trust),
            lro: AtomicBool::new(settings.lro),
            rx_mode: Mutex::new(settings.rx_mode),
            features: AtomicU64::new(0),
            wanted_pairs: AtomicU16::new(pairs),
            rx_pairs: AtomicU16::new(0),
            steering: Steering::default(),
        }
    }

    /// Change what the device shows of itself.
    pub fn configure(&self, settings: DeviceSettings) {
        *self.mac.lock() = settings.mac;
        self.mtu.store(settings.mtu, Ordering::Relaxed);
        self.link_up.store(settings.link_up, Ordering::Relaxed);
        self.trust.store(settings.trust, Ordering::Relaxed);
        self.lro.store(settings.lro, Ordering::Relaxed);
        *self.rx_mode.lock() = settings.rx_mode;
        self.follow_carrier();
    }

    /// Whether TCP segments are joined for a driver that takes large packets.
    #[inline]
    pub fn lro(&self) -> bool {
        self.lro.load(Ordering::Relaxed)
    }

    /// The transmit ring of a pair, for the length of a burst; empty when it does not run.
    pub fn tx(&self, pair: u16) -> Option<MutexGuard<'_, Option<Box<TxQueue>>>> {
        Some(self.pairs.get(usize::from(pair))?.tx.lock())
    }

    /// The worker that serves the transmit ring of a pair.
    pub fn worker(&self, pair: u16) -> Option<usize> {
        let pair = self.pairs.get(usize::from(pair))?;
        Some(pair.worker.load(Ordering::Relaxed))
    }

    /// Have another worker serve a transmit ring. False, and nothing changed, if it does not run.
    ///
    /// Nothing is lost or overtakes: a burst is forwarded under the ring's lock, which is held
    /// here, and the new worker looks at the ring whether it is kicked or not.
    pub fn move_queue(&self, pair: u16, worker: usize) -> bool {
        let Some(place) = self.pairs.get(usize::from(pair)) else {
            return false;
        };
        let token = Source::Queue(self.id, pair).token();
        let waker = self.datapath.waker_of(worker);
        let mut tx = place.tx.lock();
        let Some(queue) = tx.as_mut() else {
            return false;
        };
        if let Some(kick) = &mut queue.kick
            && let Err(error) = kick.move_to(waker.epoll().clone(), token)
        {
            tracing::debug!(vport = %self.id, pair, %error, "the queue stays where it is");
            return false;
        }
        place.worker.store(worker, Ordering::Relaxed);
        drop(tx);
        waker.post(token);
        true
    }

    /// The receive ring of a pair, for the length of a burst; empty when it does not run.
    pub fn rx(&self, pair: u16) -> Option<MutexGuard<'_, Option<Box<RxQueue>>>> {
        Some(self.pairs.get(usize::from(pair))?.rx.lock())
    }

    /// How many receive rings flows are spread over; 0: nobody receives.
    pub fn rx_pairs(&self) -> u16 {
        self.rx_pairs.load(Ordering::Relaxed)
    }

    /// How packets are spread over the receive rings.
    pub fn steering(&self) -> &Steering {
        &self.steering
    }

    /// For listings.
    pub fn driver_state(&self) -> DriverState {
        let driver = self.driver.lock();
        let runs = |p: &&QueuePair| p.tx.lock().is_some() && p.rx.lock().is_some();
        DriverState {
            connected: driver.connected,
            faulted: driver.faulted,
            fault: driver.fault.clone(),
            features: self.features.load(Ordering::Relaxed),
            active_pairs: self.pairs.iter().filter(runs).count() as u16,
        }
    }

    /// Let the channel start again after a fault.
    pub fn clear_fault(&self) {
        let mut driver = self.driver.lock();
        driver.faulted = false;
        driver.fault = None;
    }

    fn count_rx_pairs(&self) {
        let running = self
            .pairs
            .iter()
            .take_while(|p| p.rx.lock().is_some())
            .count() as u16;
        let wanted = self.wanted_pairs.load(Ordering::Relaxed);
        self.rx_pairs.store(running.min(wanted), Ordering::Relaxed);
    }

    fn stop_all(&self) {
        self.rx_pairs.store(0, Ordering::Relaxed);
        for pair in &self.pairs {
            *pair.tx.lock() = None;
            *pair.rx.lock() = None;
        }
        self.follow_carrier();
    }

    /// The representor's carrier follows the channel: link up and a driver receiving.
    fn follow_carrier(&self) {
        let up = self.link_up.load(Ordering::Relaxed) && self.rx_pairs() > 0;
        if let Some(representor) = &self.representor
            && let Err(error) = representor.tap.set_carrier(up)
        {
            tracing::warn!(vport = %self.id, %error, "carrier of the representor");
        }
    }
}

/// Whether a driver with this receive mode would see other stations' unicast, or all multicast.
fn wants_trust(mode: &RxMode, own: Mac) -> bool {
    match mode {
        RxMode::All => true,
        RxMode::Filtered(filter) => {
            let others = filter.unicast.iter().any(|mac| *mac != own);
            filter.promisc || filter.alluni || filter.allmulti || others
        }
    }
}

impl Device for Channel {
    fn max_queue_pairs(&self) -> u16 {
        self.pairs.len() as u16
    }

    fn mac(&self) -> Mac {
        *self.mac.lock()
    }

    fn mtu(&self) -> u16 {
        self.mtu.load(Ordering::Relaxed)
    }

    fn link_up(&self) -> bool {
        self.link_up.load(Ordering::Relaxed)
    }

    fn set_connected(&self, connected: bool) {
        let mut driver = self.driver.lock();
        driver.connected = connected;
        if connected {
            // A new client starts clean; the reason stays readable until the next fault.
            driver.faulted = false;
        }
        drop(driver);
        if !connected {
            self.stop_all();
        }
    }

    fn set_features(&self, features: u64) {
        self.features.store(features, Ordering::Relaxed);
        if features == 0 {
            // The driver is gone or has reset the device: back to what a device starts with.
            self.wanted_pairs
                .store(self.max_queue_pairs(), Ordering::Relaxed);
            self.steering.forget_driver();
            let mode = self.rx_mode.lock().clone();
            let _ = self.datapath.set_rx_mode(self.id, mode);
        }
    }

    fn start_ring(&self, index: RingIndex, start: RingStart) {
        // Held while the ring goes in, so that a fault on another thread cannot slip between.
        let driver = self.driver.lock();
        let Some(pair) = self.pairs.get(usize::from(index.pair())) else {
            return;
        };
        if driver.faulted {
            return;
        }
        let RingStart {
            mut ring,
            kick,
            call,
            features,
        } = start;
        let header_len = header_len(features);
        if index.is_tx() {
            let source = Source::Queue(self.id, index.pair());
            let mut tx = pair.tx.lock();
            let waker = self.datapath.waker_of(pair.worker.load(Ordering::Relaxed));
            let kick =
                match kick.map(|fd| Kick::register(fd, waker.epoll().clone(), source.token())) {
                    None => None,
                    Some(Ok(kick)) => Some(kick),
                    Some(Err(error)) => {
                        drop((tx, driver));
                        return self.fault(format!("ring {}: kick: {error}", index.0));
                    }
                };
            *tx = Some(Box::new(TxQueue {
                ring,
                header_len,
                call,
                kick,
                last_work: 0,
                busy: false,
                // By whoever had the ring before us.
                asked: true,
            }));
            drop(tx);
            waker.post(source.token());
        } else {
            // What the driver adds is found when there is something to deliver.
            ring.disable_kicks();
            *pair.rx.lock() = Some(Box::new(RxQueue {
                ring,
                header_len,
                mergeable: features & crate::vhost::MRG_RXBUF != 0,
                offloads: crate::vhost::rx_offloads(features),
                hash_report: features & crate::vhost::HASH_REPORT != 0,
                call,
            }));
            self.count_rx_pairs();
            drop(driver);
            self.follow_carrier();
        }
    }

    fn stop_ring(&self, index: RingIndex) -> Option<u16> {
        let pair = self.pairs.get(usize::from(index.pair()))?;
        if index.is_tx() {
            let queue = pair.tx.lock().take()?;
            Some(queue.ring.next_avail())
        } else {
            let queue = pair.rx.lock().take()?;
            self.count_rx_pairs();
            self.follow_carrier();
            Some(queue.ring.next_avail())
        }
    }

    fn set_active_pairs(&self, pairs: u16) {
        self.steering.spread_by_device();
        self.wanted_pairs.store(pairs, Ordering::Relaxed);
        self.count_rx_pairs();
    }

    fn set_rss(&self, rss: RssSettings) {
        self.steering.set_by_driver(rss);
        // The table says which pairs receive.
        let all = self.max_queue_pairs();
        self.wanted_pairs.store(all, Ordering::Relaxed);
        self.count_rx_pairs();
    }

    fn set_hash_report(&self, types: HashTypes, key: RssKey) {
        self.steering.report_by_driver(types, key);
    }

    fn set_rx_mode(&self, mode: RxMode) -> Result<(), String> {
        if !self.trust.load(Ordering::Relaxed) && wants_trust(&mode, self.mac()) {
            return Err("the channel is not trusted".into());
        }
        self.datapath.set_rx_mode(self.id, mode)
    }

    fn set_mac(&self, mac: Mac) -> Result<(), String> {
        if !self.trust.load(Ordering::Relaxed) && mac != self.mac() {
            return Err("the channel is not trusted".into());
        }
        if !mac.is_unicast() {
            return Err(format!("{mac} is not a station's address"));
        }
        self.datapath.set_mac(self.id, mac)?;
        *self.mac.lock() = mac;
        Ok(())
    }

    fn fault(&self, reason: String) {
        {
            let mut driver = self.driver.lock();
            tracing::warn!(vport = %self.id, reason, "channel stopped");
            driver.faulted = true;
            driver.fault = Some(reason);
        }
        self.stop_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::driver::{DriverQueue, QueueOptions, SharedArea};
    use crate::ring::{BURST, Burst};

    const DATA: u64 = 0x8000;

    /// A frame sent and taken at once: whether it was to be kicked for.
    fn send(queue: &mut DriverQueue, tx: &mut TxQueue) -> bool {
        queue.add_out(&[(DATA, 72)]).unwrap();
        let kick = queue.publish();
        let mut burst = Burst::default();
        assert_eq!(tx.ring.pop_burst(&mut burst, BURST), Ok(1));
        tx.ring.push_read(&burst);
        tx.ring.publish();
        assert!(queue.poll_used().unwrap().is_some());
        kick
    }

    #[test]
    fn a_driver_is_asked_to_kick_while_its_ring_sleeps_and_not_while_it_is_polled() {
        let layouts = [QueueOptions::split(8), QueueOptions::packed(8)];
        for (layout, event_idx) in layouts.into_iter().flat_map(|l| [(l, false), (l, true)]) {
            let options = QueueOptions {
                event_idx,
                ..layout
            };
            let area = SharedArea::new(0, 0x1_0000).unwrap();
            let mem = area.memory();
            let mut queue = DriverQueue::with(Arc::clone(mem), 0x1000, options).unwrap();
            let mut tx = TxQueue {
                ring: Ring::new(Arc::clone(mem), &queue.config()).unwrap(),
                header_len: 12,
                call: None,
                kick: None,
                last_work: 0,
                busy: false,
                asked: true,
            };
            const LINGER: Nanos = 50_000;
            let mut now = 10 * LINGER;
            for _ in 0..3 {
                assert_eq!(tx.ask(), Ok(false), "{options:?}");
                assert!(send(&mut queue, &mut tx), "{options:?}: asleep");
                tx.worked(now, LINGER);
                now += LINGER / 2;
                send(&mut queue, &mut tx);
                tx.worked(now, LINGER);
                for _ in 0..20 {
                    now += LINGER / 2;
                    assert!(!send(&mut queue, &mut tx), "{options:?}: polled");
                    tx.worked(now, LINGER);
                }
                now += 10 * LINGER;
                assert!(!tx.lingers(now, LINGER));
            }
        }
    }
}
