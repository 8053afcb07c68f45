//! Busy queues spread over the workers.

mod common;

use chanio_emu::frontend::Client;
use chanio_emu::vhost::features::EVENT_IDX;
use chanio_model::{Mac, VportId};
use common::*;
use std::time::{Duration, Instant};

/// A driver that keeps its ring full of broadcasts with a running number.
struct Sender {
    vport: VportId,
    mac: Mac,
    client: Client,
    sent: u32,
}

impl Sender {
    fn fill(&mut self) {
        let everybody = Mac([0xff; 6]);
        let numbered = |n: u32| {
            let mut payload = [0; 46];
            payload[..4].copy_from_slice(&n.to_le_bytes());
            frame(everybody, self.mac, &payload)
        };
        while self.client.send(&numbered(self.sent)).unwrap() {
            self.sent += 1;
        }
        self.client.flush().unwrap();
    }
}

#[test]
fn two_busy_queues_that_share_a_worker_part() {
    let bed = Bed::new(2);
    let sender = |name: &str| {
        let (info, client) = bed.attached(spec(name), EVENT_IDX);
        Sender {
            vport: info.vport,
            mac: info.mac,
            client,
            sent: 0,
        }
    };
    let mut a = sender("a");
    let (_, mut receiver) = bed.attached(spec("r"), 0);
    let mut b = sender("b");
    // Each broadcast goes to all of them, so that two drivers can keep a worker busy.
    let crowd = (0..300).map(|i| spec(&format!("x{i}"))).collect();
    bed.nic.add_channels(crowd).unwrap();
    let worker = |sender: &Sender| bed.nic.worker_of(sender.vport, 0).unwrap();
    assert_eq!(worker(&a), worker(&b));

    let mut last = [None; 2];
    let mut look = |receiver: &mut Client, of: [Mac; 2]| {
        let mut frame = Vec::new();
        while receiver.receive(&mut frame).unwrap() {
            let from = usize::from(frame[6..12] == of[1].0);
            let number = u32::from_le_bytes(frame[14..18].try_into().unwrap());
            let before = last[from].replace(number);
            assert!(before < Some(number), "{number} after {before:?}");
        }
    };
    let macs = [a.mac, b.mac];
    let until = Instant::now() + Duration::from_secs(30);
    let mut parted = None;
    // On for a while: nothing moves back.
    while parted.is_none_or(|at: Instant| at.elapsed() < Duration::from_millis(500)) {
        a.fill();
        b.fill();
        look(&mut receiver, macs);
        if worker(&a) != worker(&b) {
            parted.get_or_insert_with(Instant::now);
        }
        assert!(Instant::now() < until, "both stay on worker {}", worker(&a));
    }
    assert_ne!(worker(&a), worker(&b));
    for sender in [&mut a, &mut b] {
        wait_for("all to be taken", || {
            look(&mut receiver, macs);
            sender.client.in_flight().unwrap() == 0
        });
        let tx = bed.stats(sender.vport).tx;
        assert_eq!(tx.packets, u64::from(sender.sent));
    }
}
