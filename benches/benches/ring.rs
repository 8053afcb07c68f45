//! Bursts through rings of both layouts, between a device and a driver in one process.

use chanio_emu::ring::driver::{DriverQueue, QueueOptions, SharedArea};
use chanio_emu::ring::{BURST, Burst, Ring, RxScratch};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const QUEUE: u16 = 256;
const BUFFER: u32 = 2048;
/// Where the buffers are: behind the tables.
const BUFFERS: u64 = 0x1_0000;

/// The ways to drive a ring, and their names.
fn layouts() -> [(&'static str, QueueOptions); 4] {
    let split = QueueOptions {
        event_idx: true,
        ..QueueOptions::split(QUEUE)
    };
    let packed = QueueOptions {
        event_idx: true,
        ..QueueOptions::packed(QUEUE)
    };
    let in_order = |layout| QueueOptions {
        in_order: true,
        ..layout
    };
    [
        ("split", split),
        ("split in order", in_order(split)),
        ("packed", packed),
        ("packed in order", in_order(packed)),
    ]
}

struct Side {
    area: SharedArea,
    driver: DriverQueue,
    device: Ring,
}

impl Side {
    fn new(options: QueueOptions) -> Self {
        let area = SharedArea::new(0, BUFFERS + u64::from(QUEUE) * u64::from(BUFFER)).unwrap();
        let driver = DriverQueue::with(area.memory().clone(), 0, options).unwrap();
        let device = Ring::new(area.memory().clone(), &driver.config()).unwrap();
        Self {
            area,
            driver,
            device,
        }
    }

    fn buffer(n: usize) -> u64 {
        BUFFERS + n as u64 * u64::from(BUFFER)
    }

    fn reap(&mut self) {
        while self.driver.poll_used().unwrap().is_some() {}
    }
}

/// A driver adds 32 frames; the device takes, reads the head of, and completes them.
fn transmit(c: &mut Criterion) {
    let mut group = c.benchmark_group("transmit burst of 32");
    group.throughput(Throughput::Elements(BURST as u64));
    for (name, options) in layouts() {
        for len in [64u32, 1500] {
            let mut side = Side::new(options);
            let mut burst = Burst::default();
            let mut head = [0; 192];
            group.bench_function(BenchmarkId::new(name, len), |b| {
                b.iter(|| {
                    for n in 0..BURST {
                        side.driver.add_out(&[(Side::buffer(n), 12 + len)]).unwrap();
                    }
                    side.driver.publish();
                    assert_eq!(side.device.pop_burst(&mut burst, BURST).unwrap(), BURST);
                    for chain in burst.iter() {
                        let take = head.len().min(len as usize);
                        chain.readable().copy_out(12, &mut head[..take]);
                        black_box(&head);
                    }
                    side.device.push_read(&burst);
                    side.device.publish();
                    side.reap();
                });
            });
        }
    }
}

/// A device delivers 32 frames from a burst of another ring: one copy, guest to guest.
fn forward(c: &mut Criterion) {
    let mut group = c.benchmark_group("forward burst of 32");
    group.throughput(Throughput::Elements(BURST as u64));
    for (name, options) in layouts() {
        for len in [64u32, 1500] {
            let (mut from, mut to) = (Side::new(options), Side::new(options));
            let (mut burst, mut scratch) = (Burst::default(), RxScratch::default());
            for n in 0..BURST {
                from.driver.add_out(&[(Side::buffer(n), 12 + len)]).unwrap();
            }
            from.driver.publish();
            from.device.pop_burst(&mut burst, BURST).unwrap();
            black_box(from.area.memory());
            group.bench_function(BenchmarkId::new(name, len), |b| {
                b.iter(|| {
                    for n in 0..BURST {
                        to.driver.add_in(&[(Side::buffer(n), BUFFER)]).unwrap();
                    }
                    to.driver.publish();
                    let mut filling = to.device.fill(&mut scratch, BURST);
                    for chain in burst.iter() {
                        assert!(filling.put(&[0; 12], Some((chain.readable(), 12))));
                    }
                    drop(filling);
                    to.device.publish();
                    to.reap();
                });
            });
        }
    }
}

criterion_group!(benches, transmit, forward);
criterion_main!(benches);
