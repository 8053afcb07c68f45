//! Receive-side scaling: which queue a packet goes to.

use super::A;
use crate::conform::bed::{Bed, wish, within};
use crate::conform::case::{
    Case, Ended,
    Need::{Legacy, Netdev},
    Setup::Bare,
    Stop, case, ensure, same,
};
use crate::conform::report::{Bar, Measured};
use crate::difftest::frame::{Body, Frame, Ip, L4, Part};
use chanio::nic::{ChannelChange, ChannelSpec};
use chanio_model::rss::{HashTypes, RssChange, RssKey, bitwise};
use std::time::Duration;

const RSS: &str = "Microsoft: RSS hashing types; virtio 1.3 §5.1.6.4; ethtool(8): -x, -X";

/// Queues of the channel that receives.
const QUEUES: u16 = 4;
/// Flows that are sent.
const FLOWS: u16 = 400;

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "spread.even",
            "four hundred flows are spread over four queues, none with less than half its share",
            RSS,
            Bare,
            &[Legacy, Netdev],
            even,
        ),
        case(
            "spread.one_flow",
            "packets of one flow stay on one queue",
            RSS,
            Bare,
            &[Legacy, Netdev],
            one_flow,
        ),
        case(
            "spread.exact",
            "with a key and a table of ours, every flow is on the queue that the hash says",
            RSS,
            Bare,
            &[Legacy, Netdev],
            exact,
        ),
        case(
            "spread.table",
            "a table that names one queue leads everything there",
            RSS,
            Bare,
            &[Legacy, Netdev],
            table,
        ),
    ]
}

fn two(bed: &mut Bed, rss: Option<RssChange>) -> Ended {
    bed.mode("legacy")?;
    let mac = |last| Some(format!("02:00:00:00:00:{last:02}"));
    // The first two stations of the frames below.
    let a = ChannelSpec {
        mac: mac(1),
        ..wish("a")
    };
    let b = ChannelSpec {
        mac: mac(2),
        queues: QUEUES,
        rss,
        ..wish("b")
    };
    bed.add(vec![a, b])?;
    Ok(())
}

/// A packet of flow `n`, and what its hash is made over: addresses, then ports, as on the wire.
fn packet(n: u16) -> (Vec<u8>, Vec<u8>) {
    let (ips, ports) = ((1 + (n % 3) as u8, 5 + (n % 5) as u8), (1000 + n, 443));
    let ip = Ip {
        v6: n % 4 == 3,
        ips,
        tos: 0,
        ttl: 64,
        options: false,
        part: Part::Whole,
        l4: match n % 2 {
            0 => L4::Udp(ports.0, ports.1, false),
            _ => L4::Tcp(ports.0, ports.1, 0x10),
        },
    };
    let mut hashed = [ip.address(ips.0).1, ip.address(ips.1).1].concat();
    hashed.extend([ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat());
    let frame = Frame {
        port: 0,
        dst: 1,
        src: 0,
        outer: None,
        tags: Vec::new(),
        body: Body::Ip(ip),
        len: 50,
        cut: None,
        unfinished: false,
    };
    (frame.bytes(), hashed)
}

/// Packets that each queue of `b` has received.
fn received(bed: &mut Bed) -> Result<Vec<u64>, chanio::DeviceError> {
    let stats = bed.nic.stats(&["b".into()], true)?;
    let count = |queue| {
        let name = format!("rx_queue_{queue}_packets");
        let of = stats.first().and_then(|vport| vport.queues.get(&name));
        of.copied().unwrap_or(0)
    };
    Ok((0..QUEUES).map(count).collect())
}

/// Sends these flows; how many packets each queue received more than before.
fn sent_over(bed: &mut Bed, flows: impl Iterator<Item = u16>) -> Ended<Vec<u64>> {
    let before = received(bed)?;
    let mut sent = 0;
    for flow in flows {
        bed.world.end(A)?.send(&packet(flow).0)?;
        sent += 1;
        if sent % 50 == 0 {
            // So that no queue is full.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let mut more = Vec::new();
    within(Duration::from_secs(3), "all packets to be received", || {
        let now = received(bed)?;
        more = now
            .iter()
            .zip(&before)
            .map(|(now, then)| now - then)
            .collect();
        Ok(more.iter().sum::<u64>() >= sent)
    })
    .map_err(|stop| match stop {
        Stop::Failed(mut failure) => {
            failure.got = format!("{more:?}");
            failure.expected = format!("{sent} in all");
            Stop::Failed(failure)
        }
        other => other,
    })?;
    same("packets in all", more.iter().sum(), sent)?;
    Ok(more)
}

fn plot(bed: &mut Bed, title: &str, got: &[u64], expected: &[u64]) {
    let bar = |(queue, (got, expected)): (usize, (&u64, &u64))| Bar {
        label: format!("queue {queue}"),
        value: *got as f64,
        expected: *expected as f64,
    };
    bed.measured.push(Measured {
        title: title.into(),
        unit: "packets".into(),
        bars: got.iter().zip(expected).enumerate().map(bar).collect(),
    });
}

fn even(bed: &mut Bed) -> Ended {
    two(bed, None)?;
    let share = u64::from(FLOWS / QUEUES);
    let got = sent_over(bed, 0..FLOWS)?;
    plot(
        bed,
        "Flows by queue, as the device spreads them",
        &got,
        &[share; 4],
    );
    ensure(got.iter().all(|n| *n >= share / 2), || {
        format!("{FLOWS} flows by queue: {got:?}")
    })
}

fn one_flow(bed: &mut Bed) -> Ended {
    two(bed, None)?;
    for flow in [1, 2, 3] {
        let got = sent_over(bed, std::iter::repeat_n(flow, 40))?;
        let busy = got.iter().filter(|n| **n > 0).count();
        same("queues of one flow", busy, 1)?;
    }
    Ok(())
}

/// Not in any order that something could fall into by itself.
const TABLE: [u16; 16] = [3, 0, 2, 1, 1, 3, 0, 2, 2, 2, 3, 1, 0, 3, 1, 0];

fn exact(bed: &mut Bed) -> Ended {
    let key: Vec<u8> = (0..40).map(|_| bed.random.word() as u8).collect();
    let key = RssKey::new(&key).map_err(|e| Stop::Error(e.to_string()))?;
    let rss = RssChange {
        off: false,
        types: Some(HashTypes::USUAL),
        key: Some(key),
        table: Some(TABLE.to_vec()),
        unclassified: Some(0),
    };
    two(bed, Some(rss))?;
    let mut expected = vec![0; QUEUES.into()];
    for flow in 0..FLOWS {
        let hash = bitwise(&key, &packet(flow).1);
        expected[usize::from(TABLE[hash as usize % TABLE.len()])] += 1;
    }
    let got = sent_over(bed, 0..FLOWS)?;
    plot(
        bed,
        "Flows by queue, with a key and a table of ours",
        &got,
        &expected,
    );
    same("flows by queue", got, expected)
}

fn table(bed: &mut Bed) -> Ended {
    two(bed, None)?;
    let one = ChannelChange {
        rss: Some(RssChange {
            table: Some(vec![2]),
            unclassified: Some(2),
            ..RssChange::default()
        }),
        ..ChannelChange::default()
    };
    let now = bed.nic.set_channel("b", one)?;
    same("the table", now.rss.map(|rss| rss.table), Some(vec![2]))?;
    let got = sent_over(bed, 0..100)?;
    same("flows by queue", got, vec![0, 0, 100, 0])
}
