//! A device that remembers what it was told, and a client to talk to it.

pub use chanio_emu::frontend::region;
use chanio_emu::ring::driver::{DriverQueue, QueueOptions, SharedArea};
use chanio_emu::ring::{BURST, Burst};
use chanio_emu::vhost::{Device, RingIndex, RingStart, SessionHandle, SessionSpec, VhostServer};
use chanio_model::Mac;
use chanio_model::eswitch::RxMode;
use chanio_model::rss::{HashTypes, RssKey, RssSettings};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

pub const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
pub const MTU: u16 = 1500;
pub const VERSION_1: u64 = 1 << 32;
pub const EVENT_IDX: u64 = 1 << 29;
pub const PROTOCOL_FEATURES: u64 = 1 << 30;
pub const RING_PACKED: u64 = 1 << 34;
pub const IN_ORDER: u64 = 1 << 35;
/// All features but those that change how rings are driven.
pub const SPLIT: u64 = !(RING_PACKED | IN_ORDER);
/// Guest address of the client's memory, and entries of its rings.
pub const BASE: u64 = 0x10_0000;
pub const SIZE: u16 = 64;

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct State {
    pub connected: bool,
    pub connects: usize,
    pub features: u64,
    pub rings: BTreeMap<u16, RingStart>,
    pub starts: usize,
    pub faults: Vec<String>,
    pub active_pairs: Option<u16>,
    pub rss: Option<RssSettings>,
    pub hash: Option<(HashTypes, RssKey)>,
    pub rx_mode: RxMode,
    pub mac: Option<Mac>,
    pub trusted: bool,
}

pub struct Fake {
    pairs: u16,
    state: Mutex<State>,
    changed: Condvar,
}

impl Fake {
    pub fn new(pairs: u16) -> Arc<Self> {
        Arc::new(Fake {
            pairs,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    pub fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let result = f(&mut self.state.lock().unwrap());
        self.changed.notify_all();
        result
    }

    /// Waits until the state is as wanted.
    #[track_caller]
    pub fn wait(&self, what: &str, wanted: impl Fn(&State) -> bool) {
        let guard = self.state.lock().unwrap();
        let (guard, timeout) = self
            .changed
            .wait_timeout_while(guard, PATIENCE, |state| !wanted(state))
            .unwrap();
        let running: Vec<_> = guard.rings.keys().collect();
        assert!(
            !timeout.timed_out(),
            "{what}: connected {}, rings {running:?}, faults {:?}",
            guard.connected,
            guard.faults
        );
    }

    #[track_caller]
    pub fn wait_fault(&self, text: &str) {
        self.wait(text, |state| {
            state.faults.iter().any(|fault| fault.contains(text))
        });
        self.wait("fault disconnects", |state| !state.connected);
    }

    /// Takes what is waiting in a ring: bytes of each chain.
    pub fn pop(&self, index: u16) -> Vec<u32> {
        self.with(|state| {
            let start = state.rings.get_mut(&index).expect("the ring runs");
            let mut burst = Burst::default();
            start.ring.pop_burst(&mut burst, BURST).unwrap();
            let lengths = burst.iter().map(|chain| chain.readable().len()).collect();
            for chain in burst.iter() {
                start.ring.push_used(chain.token(), 0);
            }
            start.ring.publish();
            lengths
        })
    }
}

impl Device for Fake {
    fn max_queue_pairs(&self) -> u16 {
        self.pairs
    }

    fn mac(&self) -> Mac {
        self.with(|state| state.mac.unwrap_or(MAC))
    }

    fn mtu(&self) -> u16 {
        MTU
    }

    fn link_up(&self) -> bool {
        true
    }

    fn set_connected(&self, connected: bool) {
        self.with(|state| {
            assert_ne!(state.connected, connected, "told only what changes");
            assert!(state.rings.is_empty(), "no ring runs without a client");
            state.connected = connected;
            state.connects += usize::from(connected);
        });
    }

    fn set_features(&self, features: u64) {
        self.with(|state| state.features = features);
    }

    fn start_ring(&self, index: RingIndex, start: RingStart) {
        self.with(|state| {
            assert_eq!(start.features, state.features);
            assert!(index.pair() < self.pairs);
            assert!(state.rings.insert(index.0, start).is_none(), "started once");
            state.starts += 1;
        });
    }

    fn stop_ring(&self, index: RingIndex) -> Option<u16> {
        self.with(|state| Some(state.rings.remove(&index.0)?.ring.next_avail()))
    }

    fn set_active_pairs(&self, pairs: u16) {
        self.with(|state| state.active_pairs = Some(pairs));
    }

    fn set_rss(&self, rss: RssSettings) {
        self.with(|state| state.rss = Some(rss));
    }

    fn set_hash_report(&self, types: HashTypes, key: RssKey) {
        self.with(|state| state.hash = Some((types, key)));
    }

    fn set_rx_mode(&self, mode: RxMode) -> Result<(), String> {
        self.with(|state| {
            let wants_all = matches!(&mode, RxMode::Filtered(filter) if filter.promisc);
            if wants_all && !state.trusted {
                return Err("not trusted".into());
            }
            state.rx_mode = mode;
            Ok(())
        })
    }

    fn set_mac(&self, mac: Mac) -> Result<(), String> {
        self.with(|state| {
            if !state.trusted {
                return Err("not trusted".into());
            }
            state.mac = Some(mac);
            Ok(())
        })
    }

    fn fault(&self, reason: String) {
        self.with(|state| {
            state.rings.clear();
            state.faults.push(reason);
        });
    }
}

/// A server with one device behind one socket.
pub struct Bench {
    pub server: VhostServer,
    pub device: Arc<Fake>,
    pub handle: SessionHandle,
    pub path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Bench {
    pub fn new(pairs: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.sock");
        let server = VhostServer::start().unwrap();
        let device = Fake::new(pairs);
        let spec = SessionSpec::Listen(path.clone(), device.clone());
        let handle = server.add(vec![spec]).unwrap()[0];
        Bench {
            server,
            device,
            handle,
            path,
            _dir: dir,
        }
    }

    /// A client that has negotiated everything for split rings, and shared its memory.
    pub fn client(&self) -> Client {
        self.client_with(SPLIT)
    }

    /// The same for what is offered of `features`.
    pub fn client_with(&self, features: u64) -> Client {
        let client = Client::negotiated(&self.path, features);
        client.share();
        client
    }
}

/// A well-behaved client: memory for eight rings and buffers behind them.
pub struct Client {
    pub frontend: Frontend,
    pub area: SharedArea,
    pub features: u64,
    pub kick: EventFd,
    pub call: EventFd,
}

impl Client {
    /// Connects and negotiates what is offered of `features`, asking for acknowledgements.
    pub fn negotiated(path: &std::path::Path, features: u64) -> Self {
        let mut frontend = Frontend::connect(path, 256).unwrap();
        frontend.set_owner().unwrap();
        let features = frontend.get_features().unwrap() & features;
        let protocol = frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(protocol).unwrap();
        if protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        frontend.set_features(features).unwrap();
        Self::over(frontend, features)
    }

    /// A client that has negotiated already.
    pub fn over(frontend: Frontend, features: u64) -> Self {
        let area = SharedArea::new(BASE, 0x10_0000).unwrap();
        let (kick, call) = (eventfd(), eventfd());
        Client {
            frontend,
            area,
            features,
            kick,
            call,
        }
    }

    pub fn region(&self) -> VhostUserMemoryRegionInfo {
        region(&self.area)
    }

    pub fn share(&self) {
        self.frontend.set_mem_table(&[self.region()]).unwrap();
    }

    /// An empty queue in the client's memory whose indices start at `start`.
    pub fn queue(&self, index: u16, start: u16) -> DriverQueue {
        let has = |feature| self.features & feature != 0;
        let options = QueueOptions {
            size: SIZE,
            packed: has(RING_PACKED),
            event_idx: has(EVENT_IDX),
            in_order: has(IN_ORDER),
            start,
        };
        let at = BASE + u64::from(index) * 0x1000;
        DriverQueue::with(self.area.memory().clone(), at, options).unwrap()
    }

    /// Sets a ring up as QEMU does, but does not enable it.
    pub fn set_up(&self, index: u16, start: u16) -> DriverQueue {
        let queue = self.queue(index, start);
        let at = usize::from(index);
        self.frontend.set_vring_call(at, &self.call).unwrap();
        self.frontend.set_vring_num(at, SIZE).unwrap();
        self.frontend.set_vring_base(at, start).unwrap();
        self.frontend
            .set_vring_addr(at, &addresses(&queue))
            .unwrap();
        self.frontend.set_vring_kick(at, &self.kick).unwrap();
        queue
    }

    pub fn run(&mut self, index: u16, start: u16) -> DriverQueue {
        let queue = self.set_up(index, start);
        self.frontend
            .set_vring_enable(usize::from(index), true)
            .unwrap();
        queue
    }
}

pub fn addresses(queue: &DriverQueue) -> VringConfigData {
    let config = queue.config();
    VringConfigData {
        queue_max_size: config.size,
        queue_size: config.size,
        flags: 0,
        desc_table_addr: config.desc,
        used_ring_addr: config.used,
        avail_ring_addr: config.avail,
        log_addr: None,
    }
}

pub fn eventfd() -> EventFd {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).unwrap()
}

/// Where buffers are in the client's memory.
pub const BUFFERS: u64 = BASE + 0x8_0000;

impl Client {
    /// Runs a ring that has chains in it already.
    pub fn run_existing(
        &mut self,
        index: usize,
        queue: &DriverQueue,
        base: u16,
    ) -> vhost::Result<()> {
        self.frontend.set_vring_num(index, SIZE)?;
        self.frontend.set_vring_base(index, base)?;
        self.frontend.set_vring_addr(index, &addresses(queue))?;
        self.frontend.set_vring_kick(index, &self.kick)?;
        self.frontend.set_vring_enable(index, true)
    }
}
