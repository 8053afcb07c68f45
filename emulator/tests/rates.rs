//! Rates with real rings: drivers that always have something to send, and what comes through.

mod common;

use chanio_emu::frontend::{Client, ClientOptions};
use chanio_emu::vhost::features::EVENT_IDX;
use chanio_model::flow::Action;
use chanio_model::rate::{RateChange, RateName};
use chanio_model::{DropReason, Mac, VportId};
use common::*;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const MBIT: u64 = 125_000;

fn rate(words: &str) -> RateChange {
    let words: Vec<_> = words.split(' ').filter(|word| !word.is_empty()).collect();
    RateChange::from_words(&words).unwrap()
}

struct Sender {
    vport: VportId,
    name: RateName,
    client: Client,
    frame: Vec<u8>,
}

impl Sender {
    fn fill(&mut self) {
        while self.client.send(&self.frame).unwrap() {}
        self.client.flush().unwrap();
    }
}

/// Channels whose frames of 1,000 bytes go nowhere: a rule drops them.
fn senders(bed: &Bed, count: usize) -> Vec<Sender> {
    let options = ClientOptions {
        features: EVENT_IDX,
        // Enough to go on with while the test's own thread does not run.
        queue_size: if count > 100 { 32 } else { 256 },
        buffer_size: 2048,
        calls: false,
    };
    let sender = |i: usize| {
        let info = bed.add(spec(&format!("c{i}")));
        bed.rule(1, from(info.vport), &[Action::Drop]);
        let socket = info.socket.as_deref().unwrap();
        Sender {
            vport: info.vport,
            name: info.spec.name.clone(),
            client: Client::connect(socket, options).unwrap(),
            frame: frame(Mac([2, 9, 9, 9, 9, 9]), info.mac, &[0; 986]),
        }
    };
    (0..count).map(sender).collect()
}

/// Until all have begun, the first ones have a node for themselves.
const BEGINNING: Duration = Duration::from_millis(200);

fn keep_sending(senders: &mut [Sender], time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        for sender in senders.iter_mut() {
            sender.fill();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What each sends in so many seconds while all do, bytes per second by the NIC's counters.
fn measure(bed: &Bed, senders: &mut [Sender], time: Duration) -> Vec<f64> {
    // All at once: the rings would run dry meanwhile, and each would be looked at at another time.
    let sent = |senders: &[Sender]| -> Vec<u64> {
        let bytes = bed.nic.stats().into_iter();
        let bytes: HashMap<_, _> = bytes.map(|s| (s.vport, s.tx.bytes)).collect();
        senders.iter().map(|sender| bytes[&sender.vport]).collect()
    };
    keep_sending(senders, BEGINNING);
    let before = sent(senders);
    let start = Instant::now();
    keep_sending(senders, time);
    let (after, seconds) = (sent(senders), start.elapsed().as_secs_f64());
    let pairs = before.into_iter().zip(after);
    pairs
        .map(|(before, after)| (after - before) as f64 / seconds)
        .collect()
}

#[track_caller]
fn within(rates: &[f64], asked: impl Fn(usize) -> f64, tolerance: f64) {
    for (i, rate) in rates.iter().enumerate() {
        let error = (rate - asked(i)).abs() / asked(i);
        assert!(
            error < tolerance,
            "c{i}: {rate:.0} B/s, asked for {:.0}",
            asked(i)
        );
    }
}

#[test]
fn a_ceiling_holds_packets_back_and_loses_none() {
    let bed = Bed::switchdev(1);
    let mut senders = senders(&bed, 2);
    let set = |i: usize, words: &str| bed.nic.set_rate(&senders[i].name, &rate(words)).unwrap();
    set(0, "tx_max 8mbit");
    set(1, "tx_max 80mbit");
    let rates = measure(&bed, &mut senders, Duration::from_secs(3));
    // Not a test of the machine: a busy one may be late.
    within(&rates, |i| [8.0, 80.0][i] * MBIT as f64, 0.1);
    for sender in &senders {
        let stats = bed.stats(sender.vport);
        // All that was taken from the ring came as far as the rule.
        assert_eq!(stats.drops, [(DropReason::RuleDrop, stats.tx.packets)]);
    }
    // Without a ceiling it goes on at once.
    bed.nic
        .set_rate(&senders[0].name, &rate("tx_max 0"))
        .unwrap();
    let free = measure(&bed, &mut senders[..1], Duration::from_millis(500));
    assert!(free[0] > 16.0 * MBIT as f64, "{free:?}");
}

#[test]
fn siblings_share_by_weight() {
    let bed = Bed::switchdev(2);
    let mut senders = senders(&bed, 4);
    bed.nic
        .add_rate(&name("gold"), &rate("tx_max 40mbit"))
        .unwrap();
    for (i, sender) in senders.iter().enumerate() {
        let words = format!("parent gold tx_weight {}", i + 1);
        bed.nic.set_rate(&sender.name, &rate(&words)).unwrap();
    }
    let rates = measure(&bed, &mut senders, Duration::from_secs(3));
    within(&rates, |i| (i + 1) as f64 * 4.0 * MBIT as f64, 0.1);
    // One falls silent: the others have its share.
    let rates = measure(&bed, &mut senders[..3], Duration::from_secs(3));
    within(&rates, |i| (i + 1) as f64 * 40.0 / 6.0 * MBIT as f64, 0.1);
    // A channel that goes takes its leaf along.
    bed.nic.del_channels(&[senders[0].name.clone()]).unwrap();
    assert!(
        bed.nic
            .rates()
            .iter()
            .all(|info| info.name != senders[0].name)
    );
}

/// For how long the workers of this process had work and no cpu so far (proc(5), schedstat).
fn workers_waited() -> Duration {
    let mut waited = Duration::ZERO;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").starts_with("worker") {
            let schedstat = read("schedstat");
            let nanos = schedstat.split_whitespace().nth(1);
            waited += Duration::from_nanos(nanos.and_then(|n| n.parse().ok()).unwrap_or(0));
        }
    }
    waited
}

/// How exact the ceilings of many channels are, alone and when they compete for a node's. Prints
/// what it finds; run it alone: it is about time.
#[test]
#[ignore = "takes 70 seconds of a quiet machine"]
fn many_channels_over_ten_seconds() {
    chanio_emu::port::raise_nofile_limit(20_000).unwrap();
    for (count, each) in [(2, 40), (100, 10), (1_000, 1)] {
        for compete in [false, true] {
            let bed = Bed::switchdev(1);
            let mut senders = senders(&bed, count);
            let node = format!("tx_max {}mbit", each * count as u64);
            bed.nic.add_rate(&name("node"), &rate(&node)).unwrap();
            let all: u64 = (0..count).map(|i| 1 + i as u64 % 4).sum();
            let share = |i: usize| match compete {
                true => (each * count as u64 * (1 + i as u64 % 4)) as f64 / all as f64,
                false => each as f64,
            };
            for (i, sender) in senders.iter().enumerate() {
                let words = match compete {
                    true => format!("parent node tx_weight {}", 1 + i % 4),
                    false => format!("tx_max {each}mbit"),
                };
                bed.nic.set_rate(&sender.name, &rate(&words)).unwrap();
            }
            let before = workers_waited();
            let rates = measure(&bed, &mut senders, Duration::from_secs(10));
            let waited = workers_waited() - before;
            let errors = rates.iter().enumerate();
            let errors = errors.map(|(i, rate)| 100.0 * (rate / (share(i) * MBIT as f64) - 1.0));
            let (low, high) = errors.fold((f64::MAX, f64::MIN), |(low, high), error| {
                (low.min(error), high.max(error))
            });
            let all = rates.iter().sum::<f64>() / ((each * count as u64 * MBIT) as f64);
            println!(
                "{count} channels, competing {compete}: {low:+.2} % to {high:+.2} %, all together \
                 {:+.2} %; the worker waited {waited:.2?} for a cpu",
                100.0 * (all - 1.0)
            );
            within(&rates, |i| share(i) * MBIT as f64, 0.02);
        }
    }
}
