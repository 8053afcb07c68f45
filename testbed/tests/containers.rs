//! Containers: network namespaces with a channel as their netdev.

use chanio_emu::nic::spec::*;
use chanio_testbed::netns::{Netns, ip_counters, isolate};
use chanio_testbed::nic::{Bed, container};
use chanio_testbed::process::{Process, run};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn ip(words: &str) {
    run(Command::new("ip").args(words.split_whitespace()));
}

/// Mbit/s that iperf3 measures from one container to another.
fn iperf(dir: &Path, server: &Netns, client: &Netns, address: &str, options: &[&str]) -> f64 {
    let mut listening = Process::start(
        "iperf3",
        dir,
        &mut server.command(&["iperf3", "-s", "-1", "--forceflush"]),
    );
    listening.wait_output("iperf3 to listen", 0, Duration::from_secs(10), |t| {
        t.contains("listening")
    });
    let mut args = vec!["iperf3", "-J", "-t", "2", "-c", address];
    args.extend(options);
    let json: serde_json::Value = serde_json::from_str(&client.run(&args)).expect("iperf3 -J");
    let sum = if options.contains(&"-u") {
        &json["end"]["sum"]
    } else {
        &json["end"]["sum_received"]
    };
    sum["bits_per_second"].as_f64().expect("a rate") / 1e6
}

#[test]
fn containers_talk_through_bridged_representors_and_then_through_rules() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let (red, blue) = (Netns::new("red"), Netns::new("blue"));
    let bed = Bed::switchdev(dir.path(), RepresentorMode::Tap);
    let ch = bed.add(vec![
        container("red", "red", "10.9.0.1/24", 2),
        container("blue", "blue", "10.9.0.2/24", 1),
    ]);
    let reps: Vec<_> = ch.iter().map(|c| c.representor.clone().unwrap()).collect();
    assert_eq!(reps, ["c0pf0sf1", "c0pf0sf2"]);
    assert_eq!(
        run(Command::new("cat").arg("/sys/class/net/c0pf0sf1/ifalias")).trim(),
        "red"
    );
    let inside = red.run(&["ip", "-d", "link", "show", "eth0"]);
    assert!(inside.contains(&ch[0].mac.to_string()), "{inside}");
    assert!(
        !inside.contains("c0pf0sf1") && !inside.contains("alias"),
        "{inside}"
    );

    // No rule: what the host does with the representors decides. First nothing.
    for rep in &reps {
        ip(&format!("link set {rep} up"));
    }
    let ping = ["ping", "-c", "3", "-i", "0.2", "-W", "1", "10.9.0.2"];
    assert!(!red.command(&ping).output().unwrap().status.success());

    ip("link add br0 type bridge");
    ip("link set br0 up");
    for rep in &reps {
        ip(&format!("link set {rep} master br0"));
    }
    // What waited for an answer all the while comes first.
    red.run(&ping);
    let mut sniffer = Process::start(
        "tcpdump",
        dir.path(),
        Command::new("tcpdump").args(["-i", "c0pf0sf1", "-n", "-l", "--immediate-mode", "icmp"]),
    );
    sniffer.wait_output("tcpdump to listen", 0, Duration::from_secs(10), |t| {
        t.contains("listening on")
    });
    red.run(&ping);
    let seen = sniffer.wait_output("six packets", 0, Duration::from_secs(5), |t| {
        t.matches("ICMP echo").count() >= 6
    });
    assert_eq!(seen.matches("echo request").count(), 3, "{seen}");
    assert_eq!(seen.matches("echo reply").count(), 3, "{seen}");
    let slow = iperf(dir.path(), &blue, &red, "10.9.0.2", &[]);
    let slow_udp = iperf(dir.path(), &blue, &red, "10.9.0.2", &["-u", "-b", "50M"]);

    // The host's netdevs and the NIC have counted the same.
    for (rep, info) in reps.iter().zip(&ch) {
        let stats = bed.stats(info.vport);
        let (rx, rx_bytes, tx, tx_bytes) = ip_counters(rep);
        assert_eq!(
            (stats.representor_rx, stats.representor_tx),
            (
                Count {
                    packets: rx,
                    bytes: rx_bytes
                },
                Count {
                    packets: tx,
                    bytes: tx_bytes
                }
            )
        );
        // All of the channel's traffic took the slow path.
        assert_eq!(
            stats.tx.packets,
            stats.representor_rx.packets + stats.drops.iter().map(|d| d.1).sum::<u64>(),
            "{stats:?}"
        );
        assert_eq!(stats.rx, stats.representor_tx);
    }

    // Rules: the same connectivity, and the representors stand still.
    bed.rule("prio 10 in_port red action redirect blue");
    bed.rule("prio 10 in_port blue action redirect red");
    std::thread::sleep(Duration::from_millis(200));
    let before: Vec<_> = reps.iter().map(|rep| ip_counters(rep)).collect();
    let seen = sniffer.said();
    red.run(&ping);
    let fast = iperf(dir.path(), &blue, &red, "10.9.0.2", &[]);
    let after: Vec<_> = reps.iter().map(|rep| ip_counters(rep)).collect();
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(
            (before.0, before.1),
            (after.0, after.1),
            "packets to the host"
        );
    }
    assert_eq!(
        sniffer.said(),
        seen,
        "tcpdump sees nothing that is offloaded"
    );
    println!(
        "TCP {slow:.0} Mbit/s through representors, {fast:.0} Mbit/s through rules; UDP {slow_udp:.0} of 50 Mbit/s"
    );
    assert!(slow > 10.0 && fast > 10.0 && slow_udp > 45.0);

    // A container's link follows its channel, and goes with it.
    let down = ChannelChange {
        link_up: Some(false),
        ..Default::default()
    };
    bed.nic.set_channel(&"red".parse().unwrap(), down).unwrap();
    assert!(
        red.run(&["ip", "link", "show", "eth0"])
            .contains("NO-CARRIER")
    );
    bed.nic.del_channels(&["red".parse().unwrap()]).unwrap();
    assert!(
        !red.command(&["ip", "link", "show", "eth0"])
            .output()
            .unwrap()
            .status
            .success()
    );
    assert!(!Path::new("/sys/class/net/c0pf0sf1").exists());
    bed.nic.shutdown();
    assert!(!Path::new("/sys/class/net/c0pf0sf2").exists());
}

#[test]
fn odd_frames_pass_unharmed_in_legacy_mode() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let (red, blue) = (Netns::new("red"), Netns::new("blue"));
    let pcap = dir.path().join("wire.pcapng");
    let uplink = UplinkSpec::Pcap {
        input: None,
        output: Some(pcap.clone()),
    };
    let bed = Bed::with_uplink(dir.path(), RepresentorMode::Off, uplink);
    bed.add(vec![
        container("red", "red", "10.9.0.1/24", 1),
        container("blue", "blue", "10.9.0.2/24", 1),
    ]);
    let got = dir.path().join("blue.pcap");
    let mut sniffer = Process::start(
        "tcpdump",
        dir.path(),
        &mut blue.command(&[
            "tcpdump",
            "-i",
            "eth0",
            "-U",
            "--immediate-mode",
            "-w",
            got.to_str().unwrap(),
        ]),
    );
    sniffer.wait_output("tcpdump to listen", 0, Duration::from_secs(10), |t| {
        t.contains("listening on")
    });
    let script = "
from scapy.all import *
b = 'ff:ff:ff:ff:ff:ff'
m = get_if_hwaddr('eth0')
frames = [
    Ether(dst=b)/Dot1Q(vlan=7)/IP(dst='10.9.0.2')/UDP(dport=7)/'tagged',
    Ether(dst=b, type=0x88a8)/Dot1AD(vlan=8)/Dot1Q(vlan=9)/IP(dst='10.9.0.2')/UDP(dport=7)/'twice',
    Ether(dst='01:00:5e:00:00:05')/IP(dst='224.0.0.5')/'multicast',
    Ether(dst=b)/IPv6(dst='ff02::1')/ICMPv6EchoRequest(),
    Ether(dst=b, type=0x88b5)/Raw(b'x'),
    Ether(dst=b)/IP(dst='10.9.0.2', frag=5)/Raw(b'fragment'),
]
for f in frames:
    f.src = m
    sendp(f, iface='eth0', verbose=0)
";
    red.run(&["/usr/bin/python3", "-c", script]);
    std::thread::sleep(Duration::from_millis(1500));
    sniffer.kill();
    bed.nic.shutdown();
    drop(bed);
    let fields = |file: &Path| {
        run(Command::new("tshark").args([
            "-r",
            file.to_str().unwrap(),
            "-T",
            "fields",
            "-e",
            "ieee8021ad.id",
            "-e",
            "vlan.id",
            "-e",
            "eth.type",
            "-e",
            "frame.len",
            "-o",
            "ip.check_checksum:TRUE",
            "-e",
            "ip.checksum.status",
        ]))
    };
    let (at_blue, on_wire) = (fields(&got), fields(&pcap));
    println!("{on_wire}");
    assert_eq!(on_wire, at_blue, "a flood is the same everywhere");
    assert_eq!(on_wire.lines().count(), 6, "{on_wire}");
    assert!(
        on_wire.contains("\t7\t") && on_wire.contains("8\t9\t"),
        "{on_wire}"
    );
}

#[test]
fn a_container_with_as_many_queues_as_the_kernel_gives() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let (red, blue) = (Netns::new("red"), Netns::new("blue"));
    let bed = Bed::switchdev(dir.path(), RepresentorMode::Off);
    let ch = bed.add(vec![
        container("red", "red", "10.9.0.1/24", 256),
        container("blue", "blue", "10.9.0.2/24", 1),
    ]);
    bed.rule("in_port red action redirect blue");
    bed.rule("in_port blue action redirect red");
    let inside = red.run(&["ip", "-d", "link", "show", "eth0"]);
    assert!(inside.contains("numtxqueues 256"), "{inside}");
    red.run(&["ping", "-c", "3", "-i", "0.2", "-W", "3", "10.9.0.2"]);
    let rate = iperf(dir.path(), &blue, &red, "10.9.0.2", &["-P", "8"]);
    println!("eight flows over 256 queues: {rate:.0} Mbit/s");
    assert!(rate > 10.0);
    bed.nic.del_channels(&[ch[0].spec.name.clone()]).unwrap();
    assert_eq!(bed.nic.info().queues_free, 999);
    bed.nic.shutdown();
}
