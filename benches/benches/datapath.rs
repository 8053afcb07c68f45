//! A worker's round: receive, classify, deliver, from one driver's ring to another's. Only the
//! worker's time counts, not the drivers'.

use chanio_emu::datapath::{Change, Datapath, Worker};
use chanio_emu::port::{Channel, Counters, DeviceSettings, Endpoint, Limiter, Port};
use chanio_emu::ring::Ring;
use chanio_emu::ring::driver::{DriverQueue, SharedArea};
use chanio_emu::vhost::{Device, RingIndex, RingStart, features};
use chanio_model::eswitch::{self, Fdb, Mode, Switch, VportConfig};
use chanio_model::flow::{Rule, RuleSpec};
use chanio_model::{Mac, RuleId, VportId};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nix::sys::epoll::EpollTimeout;
use std::sync::Arc;
use std::time::{Duration, Instant};

const QUEUE: u16 = 256;
const BUFFER: u32 = 2048;
const BURST: usize = 32;
const HEADER: u32 = 12;
const TX_AT: u64 = 0;
const RX_AT: u64 = 0x4000;
const BUFFERS: u64 = 0x1_0000;

/// A driver with a transmit and a receive ring, and the channel behind it.
struct Station {
    area: SharedArea,
    tx: DriverQueue,
    rx: DriverQueue,
    next: u64,
    channel: Arc<Channel>,
}

impl Station {
    fn new(id: u32, datapath: &Arc<Datapath>) -> Self {
        let area = SharedArea::new(0, BUFFERS + 2 * u64::from(QUEUE) * u64::from(BUFFER)).unwrap();
        let queue = |at| DriverQueue::new(area.memory().clone(), at, QUEUE, true, 0).unwrap();
        let settings = DeviceSettings {
            mac: mac(id),
            mtu: 9000,
            link_up: true,
            trust: false,
            lro: false,
            rx_mode: Default::default(),
        };
        let channel = Channel::new(VportId(id), 1, settings, datapath.clone(), None);
        Self {
            tx: queue(TX_AT),
            rx: queue(RX_AT),
            area,
            next: 0,
            channel: Arc::new(channel),
        }
    }

    fn start(&mut self) {
        for n in 0..u64::from(QUEUE) {
            let at = BUFFERS + (u64::from(QUEUE) + n) * u64::from(BUFFER);
            self.rx.add_in(&[(at, BUFFER)]).unwrap();
        }
        self.rx.publish();
        for (index, queue) in [(0, &self.rx), (1, &self.tx)] {
            let ring = Ring::new(self.area.memory().clone(), &queue.config()).unwrap();
            self.channel.start_ring(
                RingIndex(index),
                RingStart {
                    ring,
                    kick: None,
                    call: None,
                    features: features::VERSION_1 | features::MRG_RXBUF | features::EVENT_IDX,
                },
            );
        }
    }

    fn port(&self, id: u32) -> Arc<Port> {
        Arc::new(Port {
            id: VportId(id),
            channel: None,
            endpoint: Endpoint::Rings(self.channel.clone()),
            representor: None,
            counters: Counters::new(1),
            limiter: Limiter::default(),
        })
    }

    fn send(&mut self, frames: &[Vec<u8>], from: usize) {
        while self.tx.poll_used().unwrap().is_some() {}
        for n in 0..BURST {
            let frame = &frames[(from + n) % frames.len()];
            let at = BUFFERS + self.next * u64::from(BUFFER);
            self.next = (self.next + 1) % u64::from(QUEUE);
            self.area
                .memory()
                .write(at + u64::from(HEADER), frame)
                .unwrap();
            self.tx
                .add_out(&[(at, HEADER + frame.len() as u32)])
                .unwrap();
        }
        self.tx.publish();
    }

    /// Takes what has come and gives the buffers back.
    fn receive(&mut self) -> usize {
        let mut n = 0;
        while let Some((_, _)) = self.rx.poll_used().unwrap() {
            let at = BUFFERS + (u64::from(QUEUE) + n as u64) * u64::from(BUFFER);
            self.rx.add_in(&[(at, BUFFER)]).unwrap();
            n += 1;
        }
        self.rx.publish();
        n
    }
}

fn mac(id: u32) -> Mac {
    let [.., c, d] = id.to_be_bytes();
    Mac([2, 0, 0, 0, c, d])
}

struct Bench {
    worker: Worker,
    a: Station,
    b: Station,
}

impl Bench {
    fn new(mode: Mode, rules: &[RuleSpec]) -> Self {
        let mut fdb = Fdb::default();
        for id in [1, 2] {
            fdb.insert_static(0, mac(id), VportId(id)).unwrap();
        }
        let mut switch = Switch::default();
        let config = Arc::new(VportConfig {
            mtu: 9000,
            ..VportConfig::default()
        });
        let mut changes = vec![eswitch::Change::SetMode(mode)];
        for id in [1, 2] {
            changes.push(eswitch::Change::AddVport(VportId(id), config.clone()));
        }
        for (n, spec) in (1..).zip(rules) {
            let rule = Rule::new(RuleId(n), spec.clone(), 1).unwrap();
            changes.push(eswitch::Change::AddRule(Arc::new(rule)));
        }
        for change in &changes {
            switch.apply(change).unwrap();
        }
        let (datapath, mut workers) = Datapath::prepare(1, switch, fdb).unwrap();
        let mut worker = workers.pop().unwrap();
        let (mut a, mut b) = (Station::new(1, &datapath), Station::new(2, &datapath));
        std::thread::scope(|scope| {
            let ports = [Change::AddPort(a.port(1)), Change::AddPort(b.port(2))];
            let applied = scope.spawn(|| datapath.apply(&{ ports }));
            while !applied.is_finished() {
                worker.round();
            }
        });
        a.start();
        b.start();
        worker.wait(EpollTimeout::ZERO);
        Self { worker, a, b }
    }

    /// Bursts of `frames` from the one to the other; the time that the worker took.
    fn run(&mut self, iterations: u64, frames: &[Vec<u8>]) -> Duration {
        let mut spent = Duration::ZERO;
        for i in 0..iterations as usize {
            self.a.send(frames, i * BURST);
            let start = Instant::now();
            self.worker.round();
            spent += start.elapsed();
            assert_eq!(self.b.receive(), BURST);
        }
        spent
    }
}

/// UDP of `len` bytes, one flow each.
fn frames(flows: u32, len: usize) -> Vec<Vec<u8>> {
    let one = |n: u32| {
        let mut frame = vec![0; len];
        frame[..6].copy_from_slice(&mac(2).0);
        frame[6..12].copy_from_slice(&mac(1).0);
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&(len as u16 - 14).to_be_bytes());
        frame[22..24].copy_from_slice(&[64, 17]);
        let [.., a, b] = n.to_be_bytes();
        frame[26..34].copy_from_slice(&[10, 1, a, b, 10, 2, 0, 1]);
        frame[34..36].copy_from_slice(&(1024 + n as u16).to_be_bytes());
        frame[36..38].copy_from_slice(&5000u16.to_be_bytes());
        frame[38..40].copy_from_slice(&(len as u16 - 34).to_be_bytes());
        frame
    };
    (0..flows).map(one).collect()
}

fn forward(c: &mut Criterion) {
    let mut group = c.benchmark_group("worker, 32 frames, legacy");
    group.throughput(Throughput::Elements(BURST as u64));
    for len in [64, 1500] {
        let mut bench = Bench::new(Mode::Legacy, &[]);
        let frames = frames(1, len);
        group.bench_function(BenchmarkId::from_parameter(len), |b| {
            b.iter_custom(|n| bench.run(n, &frames));
        });
    }
}

/// 1,000 rules on five-tuples under 8 masks; the packets' rules are spread over them.
fn rules(c: &mut Criterion) {
    let mut specs = Vec::new();
    for n in 0..1000u32 {
        let [.., a, b] = n.to_be_bytes();
        let text = format!(
            "in_port vport:1 ip_proto udp src_ip 10.1.{a}.{b} dst_ip 10.2.0.0/{} src_port {} \
             dst_port 5000 action redirect vport:2",
            24 + n % 8,
            1024 + n
        );
        specs.push(RuleSpec::parse(&text, &|_| None).unwrap_or_else(|e| panic!("{text}: {e}")));
    }
    let mut group = c.benchmark_group("worker, 32 frames, 1000 rules, 8 masks");
    group.throughput(Throughput::Elements(BURST as u64));
    for flows in [1, 1000] {
        let mut bench = Bench::new(Mode::Switchdev, &specs);
        let frames = frames(flows, 64);
        group.bench_function(BenchmarkId::from_parameter(flows), |b| {
            b.iter_custom(|n| bench.run(n, &frames));
        });
    }
}

criterion_group!(benches, forward, rules);
criterion_main!(benches);
