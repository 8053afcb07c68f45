//! DPDK's virtio driver in each of its ways to drive a ring: packed, in order, vectorized.

use chanio_emu::nic::spec::*;
use chanio_testbed::hugepages::Hugepages;
use chanio_testbed::netns::isolate;
use chanio_testbed::nic::{Bed, channel};
use chanio_testbed::testpmd::Testpmd;
use std::path::Path;
use std::time::{Duration, Instant};

const RING_PACKED: u64 = 1 << 34;
const IN_ORDER: u64 = 1 << 35;

/// What a client is started with, and which of the two features it must have taken.
const CLIENTS: [(&str, u64); 10] = [
    (",in_order=0", 0),
    (",in_order=0,mrg_rxbuf=0,vectorized=1", 0),
    (",in_order=1", IN_ORDER),
    (",in_order=1,mrg_rxbuf=0", IN_ORDER),
    (",packed_vq=1,in_order=0", RING_PACKED),
    (",packed_vq=1,in_order=0,mrg_rxbuf=0", RING_PACKED),
    (",packed_vq=1,in_order=1", RING_PACKED | IN_ORDER),
    (
        ",packed_vq=1,in_order=1,mrg_rxbuf=0",
        RING_PACKED | IN_ORDER,
    ),
    (
        ",packed_vq=1,in_order=1,mrg_rxbuf=0,vectorized=1",
        RING_PACKED | IN_ORDER,
    ),
    (
        ",packed_vq=1,in_order=1,mrg_rxbuf=0,queue_size=250",
        RING_PACKED | IN_ORDER,
    ),
];

/// A switch with two channels that send to each other.
fn two_channels(dir: &Path) -> (Bed, Vec<ChannelInfo>) {
    let bed = Bed::switchdev(dir, RepresentorMode::Off);
    let channels = bed.add(vec![channel("a"), channel("b")]);
    bed.rule("in_port a action redirect b");
    bed.rule("in_port b action redirect a");
    (bed, channels)
}

/// Both ends have counted the same.
#[track_caller]
fn same_counts(bed: &Bed, channels: &[ChannelInfo], pmd: &mut Testpmd) {
    for info in bed.nic.channels() {
        assert_eq!(info.fault, None);
    }
    let client = pmd.stats();
    println!("{client:?}");
    assert!(client[0].tx > 1000 && client[1].tx > 1000, "{client:?}");
    for (i, (port, info)) in client.iter().zip(channels).enumerate() {
        let s = bed.stats(info.vport);
        assert_eq!((s.tx.packets, s.tx.bytes), (port.tx, port.tx_bytes));
        assert_eq!((s.rx.packets, s.rx.bytes), (port.rx, port.rx_bytes));
        let lost: u64 = s.drops.iter().map(|d| d.1).sum();
        assert_eq!(client[1 - i].tx, port.rx + lost, "{s:?}");
    }
}

#[test]
fn both_ends_count_the_same_however_rings_are_driven() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let pages = Hugepages::reserve(dir.path(), 256);
    for (i, (options, features)) in CLIENTS.into_iter().enumerate() {
        println!("{options}");
        let run = dir.path().join(format!("run{i}"));
        std::fs::create_dir(&run).unwrap();
        let (bed, channels) = two_channels(&run);
        let sockets: Vec<&Path> = channels
            .iter()
            .map(|c| c.socket.as_deref().unwrap())
            .collect();
        let mut pmd = Testpmd::start(&format!("rings{i}"), &run, &pages, &sockets, options);
        for info in bed.nic.channels() {
            assert_eq!(info.state, ChannelState::Running, "{options}: {info:?}");
            assert_eq!(info.features & (RING_PACKED | IN_ORDER), features);
        }
        pmd.command("set txpkts 64");
        pmd.forward("io", "start tx_first 4", Duration::from_millis(700));
        pmd.drain();
        same_counts(&bed, &channels, &mut pmd);
        // More than there are buffers, in several descriptors each.
        pmd.command("set txpkts 300,700,500");
        pmd.forward("txonly", "start", Duration::from_millis(300));
        pmd.drain();
        same_counts(&bed, &channels, &mut pmd);
        drop(pmd);
        bed.nic.shutdown();
    }
}

#[test]
fn a_client_that_is_killed_under_load_comes_back_with_any_rings() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let pages = Hugepages::reserve(dir.path(), 256);
    let (bed, channels) = two_channels(dir.path());
    let sockets: Vec<&Path> = channels
        .iter()
        .map(|c| c.socket.as_deref().unwrap())
        .collect();
    let mut before = [0, 0];
    for (round, (options, _)) in CLIENTS.iter().cycle().skip(4).take(7).enumerate() {
        let mut pmd = Testpmd::start(
            &format!("killed{round}"),
            dir.path(),
            &pages,
            &sockets,
            options,
        );
        pmd.command("set fwd io");
        pmd.command("start tx_first 8");
        std::thread::sleep(Duration::from_millis(300));
        pmd.kill();
        for (info, before) in channels.iter().zip(&mut before) {
            let now = bed.stats(info.vport).tx.packets;
            assert!(now > *before, "{options}: nothing was sent");
            *before = now;
        }
        let until = Instant::now() + Duration::from_secs(5);
        while bed
            .nic
            .channels()
            .iter()
            .any(|c| c.state != ChannelState::Disconnected)
        {
            assert!(Instant::now() < until, "{options}: nobody noticed");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    bed.nic.shutdown();
}
