//! DPDK's virtio driver on the channels.

use chanio_emu::nic::spec::*;
use chanio_testbed::hugepages::Hugepages;
use chanio_testbed::netns::{ip_counters, isolate};
use chanio_testbed::nic::{Bed, channel};
use chanio_testbed::process::{run, wait_for};
use chanio_testbed::testpmd::Testpmd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

#[test]
fn client_channel_rule_and_representor_count_the_same() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let pages = Hugepages::reserve(dir.path(), 256);
    let bed = Bed::switchdev(dir.path(), RepresentorMode::Tap);
    let nic = &bed.nic;
    let ch = bed.add(vec![channel("a"), channel("b")]);
    let sockets: Vec<&Path> = ch.iter().map(|c| c.socket.as_deref().unwrap()).collect();
    bed.rule("prio 10 in_port a action redirect b");
    bed.rule("prio 10 in_port b action redirect a");
    let mut pmd = Testpmd::start("pmd", dir.path(), &pages, &sockets, "");
    assert!(
        nic.channels()
            .iter()
            .all(|c| c.state == ChannelState::Running),
        "{:?}",
        nic.channels()
    );

    // Packets go round and round.
    pmd.forward("io", "start tx_first 4", Duration::from_secs(2));
    pmd.drain();
    let client = pmd.stats();
    println!("round and round: {client:?}");
    assert!(client[0].tx > 1000, "{client:?}");
    for (port, info) in client.iter().zip(&ch) {
        let s = bed.stats(info.vport);
        assert_eq!(
            (s.tx.packets, s.tx.bytes),
            (port.tx, port.tx_bytes),
            "{s:?}"
        );
        assert_eq!(
            (s.rx.packets, s.rx.bytes),
            (port.rx, port.rx_bytes),
            "{s:?}"
        );
    }
    for (rule, port) in nic.rules().iter().zip(&client) {
        assert_eq!((rule.packets, rule.bytes), (port.tx, port.tx_bytes));
    }

    // A drop rule takes exactly what matches: part of the flows that flowgen makes.
    bed.rule("prio 1 in_port a dst_ip 0.0.0.0/0.0.0.3 action drop");
    let before = (pmd.stats(), bed.stats(ch[1].vport));
    pmd.forward("flowgen", "start", Duration::from_secs(1));
    pmd.drain();
    let after = (pmd.stats(), bed.stats(ch[1].vport));
    let dropped = nic.rules().pop().unwrap().packets;
    let sent = after.0[0].tx - before.0[0].tx;
    let lost: u64 = after.1.drops.iter().map(|d| d.1).sum();
    let got = after.1.rx.packets - before.1.rx.packets;
    println!(
        "flowgen: {sent} sent, {dropped} dropped by the rule, {got} delivered, {lost} no buffers"
    );
    assert!(dropped > 0 && dropped < sent);
    assert_eq!(sent, dropped + got + lost);
    let at_a = bed.stats(ch[0].vport);
    let by_rule = at_a
        .drops
        .iter()
        .find(|d| d.0 == chanio_model::DropReason::RuleDrop)
        .unwrap();
    assert_eq!(by_rule.1, dropped);

    // Without rules all of it comes out of the representors.
    nic.flush_rules();
    let names: Vec<_> = ch.iter().map(|c| c.representor.clone().unwrap()).collect();
    assert_eq!(names, ["c0pf0sf1", "c0pf0sf2"]);
    for name in &names {
        run(Command::new("ip").args(["link", "set", name, "up"]));
    }
    let before = pmd.stats();
    pmd.forward("txonly", "start", Duration::from_millis(300));
    pmd.drain();
    let after = pmd.stats();
    for (i, info) in ch.iter().enumerate() {
        let s = bed.stats(info.vport);
        let slow = after[i].tx - before[i].tx;
        let full: u64 = s
            .drops
            .iter()
            .filter(|d| d.0.name().starts_with("representor"))
            .map(|d| d.1)
            .sum();
        println!(
            "slow path: {slow} sent, {} to the representor, {full} it did not take",
            s.representor_rx.packets
        );
        assert!(s.representor_rx.packets > 0);
        assert_eq!(slow, s.representor_rx.packets + full);
        let (packets, bytes, ..) = ip_counters(&names[i]);
        assert_eq!(
            (packets, bytes),
            (s.representor_rx.packets, s.representor_rx.bytes)
        );
    }
    nic.shutdown();
    assert!(!Path::new("/sys/class/net/c0pf0sf1").exists());
}

#[test]
fn ten_kills_under_load_lose_nothing_elsewhere() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let pages = Hugepages::reserve(dir.path(), 512);
    let bed = Bed::switchdev(dir.path(), RepresentorMode::Off);
    let nic = &bed.nic;
    let ch = bed.add(
        ["steady1", "steady2", "dying1", "dying2"]
            .map(channel)
            .to_vec(),
    );
    let sockets: Vec<&Path> = ch.iter().map(|c| c.socket.as_deref().unwrap()).collect();
    for (from, to) in [
        ("steady1", "steady2"),
        ("steady2", "steady1"),
        ("dying1", "dying2"),
        ("dying2", "dying1"),
    ] {
        bed.rule(&format!("in_port {from} action redirect {to}"));
    }
    let mut steady = Testpmd::start("steady", dir.path(), &pages, &sockets[..2], "");
    // 32 packets in each direction, for ever: one that is lost is missing at the end.
    steady.command("set fwd io");
    steady.command("start tx_first 1");
    for round in 0..10 {
        let mut dying = Testpmd::start(
            &format!("dying{round}"),
            dir.path(),
            &pages,
            &sockets[2..],
            "",
        );
        dying.command("set fwd io");
        dying.command("start tx_first 8");
        std::thread::sleep(Duration::from_millis(300));
        let moved = bed.stats(ch[2].vport).tx.packets;
        dying.kill();
        assert!(moved > 0);
        wait_for("its end to be noticed", Duration::from_secs(5), || {
            nic.channel("dying1").unwrap().state == ChannelState::Disconnected
        });
    }
    steady.command("stop");
    steady.drain();
    let client = steady.stats();
    println!("through ten kills: {client:?}");
    for (i, info) in ch[..2].iter().enumerate() {
        let s = bed.stats(info.vport);
        assert!(s.drops.is_empty(), "{s:?}");
        assert_eq!(client[i].tx, client[1 - i].rx, "{client:?}");
        assert_eq!((s.tx.packets, s.rx.packets), (client[i].tx, client[i].rx));
    }
    nic.shutdown();
}

#[test]
fn a_channel_can_connect_to_a_client_that_listens() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let pages = Hugepages::reserve(dir.path(), 256);
    let bed = Bed::switchdev(dir.path(), RepresentorMode::Off);
    let nic = &bed.nic;
    let sockets = ["x", "y"].map(|name| dir.path().join(name));
    let spec = |i: usize| ChannelSpec {
        attach: Attach::VhostUserClient {
            path: sockets[i].clone(),
        },
        ..channel(["x", "y"][i])
    };
    let ch = bed.add(vec![spec(0), spec(1)]);
    bed.rule("in_port x action redirect y");
    bed.rule("in_port y action redirect x");
    let paths: Vec<&Path> = sockets.iter().map(|p| p.as_path()).collect();
    let mut pmd = Testpmd::start("server", dir.path(), &pages, &paths, ",server=1");
    pmd.forward("io", "start tx_first 1", Duration::from_secs(1));
    pmd.drain();
    let client = pmd.stats();
    println!("as a client: {client:?}");
    assert!(client[0].rx > 1000, "{client:?}");
    assert_eq!(bed.stats(ch[0].vport).tx.packets, client[0].tx);
    nic.shutdown();
}

#[test]
fn a_channel_that_connects_comes_back_when_its_client_does() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let pages = Hugepages::reserve(dir.path(), 256);
    let bed = Bed::switchdev(dir.path(), RepresentorMode::Off);
    let sockets = ["x", "y"].map(|name| dir.path().join(name));
    let spec = |i: usize| ChannelSpec {
        attach: Attach::VhostUserClient {
            path: sockets[i].clone(),
        },
        ..channel(["x", "y"][i])
    };
    let ch = bed.add(vec![spec(0), spec(1)]);
    bed.rule("in_port x action redirect y");
    bed.rule("in_port y action redirect x");
    let paths: Vec<&Path> = sockets.iter().map(|p| p.as_path()).collect();
    for round in 0..3 {
        let before = bed.stats(ch[0].vport).tx.packets;
        // DPDK does not take over a socket file that another process has left.
        for path in &paths {
            let _ = std::fs::remove_file(path);
        }
        let name = format!("server{round}");
        let mut pmd = Testpmd::start(&name, dir.path(), &pages, &paths, ",server=1");
        pmd.forward("io", "start tx_first 1", Duration::from_millis(300));
        pmd.drain();
        let client = pmd.stats();
        println!("round {round}: {client:?}");
        assert!(client[0].rx > 1000, "{client:?}");
        let now = bed.stats(ch[0].vport).tx.packets;
        assert_eq!(now - before, client[0].tx);
        pmd.kill();
        let states = || bed.nic.channels().into_iter().map(|c| c.state);
        wait_for("its end to be noticed", Duration::from_secs(5), || {
            states().all(|s| s == ChannelState::Disconnected)
        });
    }
    bed.nic.shutdown();
}
