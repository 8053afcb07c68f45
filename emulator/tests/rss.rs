//! Receive-side scaling through a running NIC: a driver with four queue pairs, and the flows of
//! Microsoft's verification suite, whose hashes are published.

mod common;
#[path = "vhost_session/fixture.rs"]
#[expect(dead_code, reason = "of the sessions' fixture, the client")]
mod fixture;

use chanio_emu::frontend::Client as Sender;
use chanio_emu::nic::Refused;
use chanio_emu::nic::spec::*;
use chanio_emu::ring::driver::DriverQueue;
use chanio_emu::vhost::features::{HASH_REPORT, IN_ORDER, MQ, RING_PACKED, RSS};
use chanio_model::Mac;
use chanio_model::rss::{HashTypes, RssChange, RssKey};
use common::*;
use fixture::{BUFFERS, Client};
use std::time::{Duration, Instant};

const PAIRS: u16 = 4;
/// Bytes of a buffer, and buffers of a receive ring.
const BUFFER: u32 = 2048;
const COUNT: u64 = 16;
/// Where commands and answers are.
const COMMAND: u64 = BUFFERS;
const ANSWER: u64 = BUFFERS + 0x1000;
const RECEIVE: u64 = BUFFERS + 0x2000;

/// Source, destination, the hash over addresses and TCP ports.
type Flow = ([u8; 4], u16, [u8; 4], u16, u32);
const FLOWS: [Flow; 5] = [
    (
        [66, 9, 149, 187],
        2794,
        [161, 142, 100, 80],
        1766,
        0x51cc_c178,
    ),
    (
        [199, 92, 111, 2],
        14230,
        [65, 69, 140, 83],
        4739,
        0xc626_b0ea,
    ),
    (
        [24, 19, 198, 95],
        12898,
        [12, 22, 207, 184],
        38024,
        0x5c2b_394a,
    ),
    (
        [38, 27, 205, 30],
        48228,
        [209, 142, 163, 6],
        2217,
        0xafc7_327f,
    ),
    (
        [153, 39, 163, 191],
        44251,
        [202, 188, 127, 2],
        1303,
        0x10e8_28a2,
    ),
];

fn tcp(flow: usize, dst: Mac, src: Mac) -> Vec<u8> {
    let (from, sport, to, dport, _) = FLOWS[flow];
    let mut frame = [dst.0, src.0].concat();
    frame.extend([8, 0, 0x45, 0, 0, 46, 0, 1, 0, 0, 64, 6, 0, 0]);
    frame.extend(from);
    frame.extend(to);
    frame.extend(sport.to_be_bytes());
    frame.extend(dport.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.extend([flow as u8; 6]);
    frame
}

/// A driver with four receive rings and a control queue.
struct Driver {
    client: Client,
    rx: Vec<DriverQueue>,
    control: DriverQueue,
    header: usize,
}

impl Driver {
    fn attach(info: &ChannelInfo, features: u64) -> Self {
        let mut client = Client::negotiated(info.socket.as_deref().unwrap(), features);
        client.share();
        let mut rx = Vec::new();
        let pairs = if features & (MQ | RSS) != 0 { PAIRS } else { 1 };
        for pair in 0..pairs {
            let mut queue = client.queue(2 * pair, 0);
            for n in 0..COUNT {
                let at = RECEIVE + (u64::from(pair) * COUNT + n) * u64::from(BUFFER);
                queue.add_in(&[(at, BUFFER)]).unwrap();
            }
            queue.publish();
            let index = usize::from(2 * pair);
            client.run_existing(index, &queue, 0).unwrap();
            rx.push(queue);
        }
        let control = client.run(2 * pairs, 0);
        let header = if features & HASH_REPORT != 0 { 20 } else { 12 };
        Driver {
            client,
            rx,
            control,
            header,
        }
    }

    /// Carries out a command; whether the device took it.
    fn command(&mut self, bytes: &[u8]) -> bool {
        let memory = self.client.area.memory();
        memory.write(COMMAND, bytes).unwrap();
        let out = [(COMMAND, bytes.len() as u32)];
        self.control.add(&out, &[(ANSWER, 1)]).unwrap();
        if self.control.publish() {
            self.client.kick.write(1).unwrap();
        }
        wait_for("an answer", || self.control.poll_used().unwrap().is_some());
        let mut answer = [0xee];
        memory.read(ANSWER, &mut answer).unwrap();
        answer[0] == 0
    }

    /// What comes within a short while: queue pair, header and frame.
    fn receive(&mut self) -> Vec<(u16, Vec<u8>, Vec<u8>)> {
        let mut got = Vec::new();
        let mut quiet = Instant::now();
        while quiet.elapsed() < Duration::from_millis(30) {
            for (pair, queue) in (0..).zip(&mut self.rx) {
                // Nothing is given back, and the device takes buffers in their order.
                while let Some((_, len)) = queue.poll_used().unwrap() {
                    let n = COUNT - u64::from(fixture::SIZE - queue.free()) - 1;
                    let at = RECEIVE + (u64::from(pair) * COUNT + n) * u64::from(BUFFER);
                    let mut bytes = vec![0; len as usize];
                    self.client.area.memory().read(at, &mut bytes).unwrap();
                    let frame = bytes.split_off(self.header);
                    got.push((pair, bytes, frame));
                    quiet = Instant::now();
                }
            }
        }
        got
    }
}

fn rss_config(table: [u16; 4], max_tx: u16) -> Vec<u8> {
    let mut bytes = vec![4, 1];
    bytes.extend(HashTypes::USUAL.bits().to_le_bytes());
    for number in [3, 1].iter().chain(&table).chain(&[max_tx]) {
        bytes.extend(number.to_le_bytes());
    }
    bytes.push(40);
    bytes.extend(RssKey::MICROSOFT.bytes());
    bytes
}

struct Bench {
    bed: Bed,
    info: ChannelInfo,
    sender: Sender,
    src: Mac,
}

impl Bench {
    fn new() -> Self {
        let bed = Bed::new(2);
        let (from, sender) = bed.attached(spec("from"), 0);
        let info = bed.add(ChannelSpec {
            queues: PAIRS,
            ..spec("to")
        });
        let src = from.mac;
        Bench {
            bed,
            info,
            sender,
            src,
        }
    }

    /// Sends each flow once, and an ARP request, of which nothing is hashed.
    fn send_all(&mut self) {
        for flow in 0..FLOWS.len() {
            send(&mut self.sender, &tcp(flow, self.info.mac, self.src));
        }
        let mut arp = [self.info.mac.0, self.src.0].concat();
        arp.extend([8, 6]);
        arp.resize(60, 0);
        send(&mut self.sender, &arp);
    }

    fn set(&self, change: RssChange) -> Result<ChannelInfo, Refused> {
        let rss = Some(change);
        let change = ChannelChange {
            rss,
            ..ChannelChange::default()
        };
        self.bed.nic.set_channel(&self.info.spec.name, change)
    }
}

/// Each flow at the pair that this table has for it, with the header's last bytes as they must be.
fn check(got: &[(u16, Vec<u8>, Vec<u8>)], table: [u16; 4], unclassified: u16, reported: bool) {
    assert_eq!(got.len(), FLOWS.len() + 1);
    for (pair, header, frame) in got {
        let (expected, hash, report) = match frame[13] {
            6 => (unclassified, 0, 0u16),
            _ => {
                let hash = FLOWS[usize::from(frame[54])].4;
                (table[hash as usize & 3], hash, 2)
            }
        };
        assert_eq!(*pair, expected, "{frame:?}");
        assert_eq!(header[10..12], [1, 0], "num_buffers");
        if let Some(tail) = header.get(12..20) {
            let (hash, report) = if reported { (hash, report) } else { (0, 0) };
            let [h, r] = [hash.to_le_bytes().to_vec(), report.to_le_bytes().to_vec()];
            assert_eq!(tail, [h, r, vec![0, 0]].concat());
        }
    }
}

const SPLIT: u64 = !(RING_PACKED | IN_ORDER);

#[test]
fn the_driver_chooses_queues_and_is_told_the_published_hashes() {
    for features in [SPLIT, !0, SPLIT & !HASH_REPORT] {
        let mut bench = Bench::new();
        let mut driver = Driver::attach(&bench.info, features);
        assert!(driver.command(&rss_config([3, 2, 1, 0], PAIRS)));
        bench.send_all();
        let got = driver.receive();
        check(&got, [3, 2, 1, 0], 1, true);
        let stats = bench.bed.stats(bench.info.vport);
        for (pair, queue) in (0..).zip(&stats.queues) {
            let packets = got.iter().filter(|(at, ..)| *at == pair).count() as u64;
            assert_eq!((queue.rx.packets, queue.rx.bytes), (packets, packets * 60));
        }
        let info = bench.bed.nic.channel("to").unwrap();
        assert_eq!(info.rss.unwrap().table(), [3, 2, 1, 0]);

        // What does not fit the device changes nothing.
        assert!(!driver.command(&rss_config([4, 0, 0, 0], PAIRS)), "queue 4");
        assert!(!driver.command(&rss_config([0; 4], 0)), "max_tx_vq 0");
        assert!(!driver.command(&rss_config([0; 4], PAIRS + 1)));
        bench.send_all();
        check(&driver.receive(), [3, 2, 1, 0], 1, true);
    }
}

#[test]
fn without_the_feature_the_commands_are_refused() {
    let bench = Bench::new();
    let mut driver = Driver::attach(&bench.info, SPLIT & !RSS & !HASH_REPORT);
    assert!(!driver.command(&rss_config([0; 4], 1)));
    let off = [4, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(!driver.command(&off), "HASH_CONFIG");
    assert!(driver.command(&[4, 0, 2, 0]), "VQ_PAIRS_SET");
}

#[test]
fn a_hash_is_reported_without_rss() {
    let mut bench = Bench::new();
    let mut driver = Driver::attach(&bench.info, SPLIT & !RSS & !MQ);
    bench.send_all();
    check(&driver.receive(), [0; 4], 0, false);
    let mut hash = vec![4, 2];
    hash.extend(HashTypes::USUAL.bits().to_le_bytes());
    hash.extend([0; 8]);
    hash.push(40);
    hash.extend(RssKey::MICROSOFT.bytes());
    assert!(driver.command(&hash));
    bench.send_all();
    check(&driver.receive(), [0; 4], 0, true);
}

#[test]
fn control_chooses_queues_while_the_driver_does_not() {
    let mut bench = Bench::new();
    let mut driver = Driver::attach(&bench.info, SPLIT);
    // All pairs, without RSS of the driver's.
    assert!(driver.command(&[4, 0, 4, 0]));
    let ours = RssChange {
        key: Some(RssKey::MICROSOFT),
        table: Some(vec![1, 1, 2, 3]),
        unclassified: Some(3),
        ..RssChange::default()
    };
    bench.set(ours.clone()).unwrap();
    bench.send_all();
    check(&driver.receive(), [1, 1, 2, 3], 3, true);
    assert!(driver.command(&rss_config([0, 0, 0, 2], PAIRS)));
    bench.send_all();
    check(&driver.receive(), [0, 0, 0, 2], 1, true);
    drop(driver);
    wait_for("the driver to be gone", || {
        bench.bed.nic.channel("to").unwrap().state == ChannelState::Disconnected
    });
    let left = bench.bed.nic.channel("to").unwrap().rss.unwrap();
    assert_eq!(left.table(), [1, 1, 2, 3]);

    let refused = bench.set(RssChange {
        table: Some(vec![0, 4]),
        ..RssChange::default()
    });
    let reason = refused.unwrap_err().to_string();
    assert_eq!(
        reason,
        "rss table: queue 4, the channel has 4, counted from 0"
    );
    let off = RssChange {
        off: true,
        ..RssChange::default()
    };
    assert!(bench.set(off).unwrap().rss.is_none());
}
