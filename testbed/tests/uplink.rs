//! The wire: a netdev of the host, and capture files.

use chanio_emu::nic::spec::*;
use chanio_testbed::netns::{Netns, isolate};
use chanio_testbed::nic::{Bed, container};
use chanio_testbed::process::{Process, run};
use std::process::Command;
use std::time::Duration;

fn ip(words: &str) {
    run(Command::new("ip").args(words.split_whitespace()));
}

#[test]
fn a_container_reaches_the_wire_through_af_packet() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let (red, world) = (Netns::new("red"), Netns::new("world"));
    ip("link add wire0 type veth peer name eth0 netns world");
    ip("link set wire0 up");
    world.run(&["ip", "addr", "add", "10.9.0.254/24", "dev", "eth0"]);
    world.run(&["ip", "link", "set", "eth0", "up"]);
    let uplink = UplinkSpec::Packet("wire0".into());
    let bed = Bed::with_uplink(dir.path(), RepresentorMode::Tap, uplink);
    let ch = bed.add(vec![container("red", "red", "10.9.0.1/24", 1)]);
    red.run(&["ping", "-c", "3", "-i", "0.2", "-W", "3", "10.9.0.254"]);
    let fdb = bed.nic.fdb();
    assert!(
        fdb.iter().any(|e| e.vport.is_uplink() && !e.is_static),
        "{fdb:?}"
    );

    // The same by rules; before them the wire ends at its representor.
    let mode = EswitchChange {
        mode: Some(chanio_model::eswitch::Mode::Switchdev),
        ..Default::default()
    };
    bed.nic.set_eswitch(mode).unwrap();
    let ping = ["ping", "-c", "1", "-W", "1", "10.9.0.254"];
    assert!(!red.command(&ping).output().unwrap().status.success());
    bed.rule("in_port red action redirect uplink");
    bed.rule("in_port uplink action redirect red");
    red.run(&["ping", "-c", "3", "-i", "0.2", "-W", "3", "10.9.0.254"]);
    let mut server = Process::start(
        "iperf3",
        dir.path(),
        &mut world.command(&["iperf3", "-s", "-1"]),
    );
    std::thread::sleep(Duration::from_millis(500));
    let text = red.run(&["iperf3", "-c", "10.9.0.254", "-t", "2", "-f", "m"]);
    let line = text.lines().find(|l| l.contains("receiver")).unwrap();
    println!("to the wire: {}", line.trim());
    server.wait(Duration::from_secs(10));
    let red_stats = bed.stats(ch[0].vport);
    let wire = bed.stats(chanio_model::VportId::UPLINK);
    println!("{red_stats:?}\n{wire:?}");
    assert!(wire.rx.packets > 100 && wire.tx.packets > 10);
    bed.nic.shutdown();
    assert!(!std::path::Path::new("/sys/class/net/c0p0").exists());
}

#[test]
fn a_capture_is_played_to_a_container() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let red = Netns::new("red");
    let input = dir.path().join("in.pcap");
    let script = format!(
        "from scapy.all import *\nwrpcap('{}', [Ether(dst='ff:ff:ff:ff:ff:ff', \
         src='02:00:00:00:00:77')/IP(src='10.9.0.7', dst='10.9.0.1')/UDP(sport=9, dport=9)/Raw(bytes([i])) \
         for i in range(200)])",
        input.display()
    );
    run(Command::new("/usr/bin/python3").args(["-c", &script]));
    let uplink = UplinkSpec::Pcap {
        input: Some(input),
        output: None,
    };
    let bed = Bed::with_uplink(dir.path(), RepresentorMode::Off, uplink);
    let ch = bed.add(vec![container("red", "red", "10.9.0.1/24", 1)]);
    let mut sniffer = Process::start(
        "tcpdump",
        dir.path(),
        &mut red.command(&[
            "tcpdump",
            "-i",
            "eth0",
            "-n",
            "-l",
            "--immediate-mode",
            // Small slots, or tcpdump's own ring is too short for a burst.
            "-s",
            "128",
            "udp",
        ]),
    );
    sniffer.wait_output("tcpdump", 0, Duration::from_secs(10), |t| {
        t.contains("listening on")
    });
    bed.nic.play();
    sniffer.wait_output("200 packets", 0, Duration::from_secs(10), |t| {
        t.matches("10.9.0.7").count() == 200
    });
    assert_eq!(bed.stats(ch[0].vport).rx.packets, 200);
    assert_eq!(bed.stats(chanio_model::VportId::UPLINK).tx.packets, 200);
    bed.nic.shutdown();
}
