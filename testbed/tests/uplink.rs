//! The wire: a netdev of the host, and capture files.

use chanio_emu::nic::spec::*;
use chanio_testbed::netns::{Netns, ip_counters, isolate};
use chanio_testbed::nic::{Bed, container};
use chanio_testbed::process::{Process, run, wait_for};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn ip(words: &str) {
    run(Command::new("ip").args(words.split_whitespace()));
}

/// A veth hands over what a netdev with a wire would have finished: checksums, and tags where they
/// belong. XDP cannot be told what is missing.
fn finish_what_is_sent(world: &Netns) {
    for feature in ["tx", "txvlan"] {
        world.run(&["ethtool", "-K", "eth0", feature, "off"]);
    }
}

#[test]
fn a_container_reaches_the_wire_through_af_packet() {
    a_container_reaches_the_wire(UplinkSpec::Packet("wire0".into()));
}

#[test]
fn a_container_reaches_the_wire_through_af_xdp() {
    a_container_reaches_the_wire(UplinkSpec::Xdp("wire0".into()));
}

fn a_container_reaches_the_wire(uplink: UplinkSpec) {
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
    if matches!(uplink, UplinkSpec::Xdp(_)) {
        finish_what_is_sent(&world);
    }
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
    for netns in [&red, &world] {
        let errors = netns.run(&["nstat", "-az", "TcpInCsumErrors", "IpInDiscards"]);
        let errors = errors
            .lines()
            .skip(1)
            .flat_map(|l| l.split_whitespace().nth(1));
        assert!(errors.clone().count() == 2 && errors.clone().all(|n| n == "0"));
    }
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

/// A wire to another namespace, `world`, in which a bridge is the neighbour switch.
fn wire_to_a_switch() -> Netns {
    let world = Netns::new("world");
    ip("link add wire0 type veth peer name eth0 netns world");
    ip("link set wire0 up");
    for words in [
        "link add br0 type bridge",
        "link set eth0 up master br0",
        "link set br0 up",
    ] {
        let words: Vec<&str> = std::iter::once("ip").chain(words.split(' ')).collect();
        world.run(&words);
    }
    world
}

/// tcpdump in a namespace, listening, writing to `file`.
fn capture(netns: &Netns, netdev: &str, file: &Path, filter: &str) -> Process {
    let name = format!("tcpdump-{}", netns.name());
    let file_name = file.to_str().unwrap();
    let mut words = vec![
        "tcpdump",
        "-i",
        netdev,
        "-U",
        "--immediate-mode",
        "-w",
        file_name,
    ];
    words.extend(filter.split_whitespace());
    let dir = file.parent().unwrap();
    let mut tcpdump = Process::start(&name, dir, &mut netns.command(&words));
    tcpdump.wait_output("tcpdump", 0, Duration::from_secs(10), |t| {
        t.contains("listening on")
    });
    tcpdump
}

/// A field of each frame of a capture, as tshark decodes it.
fn decoded(file: &Path, filter: &str, field: &str) -> Vec<String> {
    let text = run(Command::new("tshark").args([
        "-r",
        file.to_str().unwrap(),
        "-Y",
        filter,
        "-T",
        "fields",
        "-e",
        field,
    ]));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_vepa_sends_its_own_traffic_through_the_neighbour_switch() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let (red, _blue) = (Netns::new("red"), Netns::new("blue"));
    let world = wire_to_a_switch();
    let uplink = UplinkSpec::Packet("wire0".into());
    let bed = Bed::with_uplink(dir.path(), RepresentorMode::Off, uplink);
    bed.add(vec![
        container("red", "red", "10.9.0.1/24", 1),
        container("blue", "blue", "10.9.0.2/24", 1),
    ]);
    let vepa = |on| {
        let change = EswitchChange {
            vepa: Some(on),
            ..Default::default()
        };
        bed.nic.set_eswitch(change).unwrap();
    };
    let seen_outside = |name: &str, works: bool| {
        let file = dir.path().join(name);
        let mut tcpdump = capture(&world, "eth0", &file, "icmp");
        let ping = ["ping", "-c", "3", "-i", "0.2", "-W", "1", "10.9.0.2"];
        assert_eq!(
            red.command(&ping).output().unwrap().status.success(),
            works,
            "{name}"
        );
        std::thread::sleep(Duration::from_millis(300));
        tcpdump.kill();
        decoded(&file, "icmp", "icmp.type").len()
    };
    assert_eq!(seen_outside("veb", true), 0, "a VEB keeps it inside");
    vepa(true);
    // A bridge does not send back where it came from, unless told to.
    assert_eq!(
        seen_outside("deaf", false),
        3,
        "requests, and nobody hears them"
    );
    world.run(&["bridge", "link", "set", "dev", "eth0", "hairpin", "on"]);
    // Three requests and three answers, each on its way out and on its way back.
    assert_eq!(seen_outside("vepa", true), 12);
    vepa(false);
    assert_eq!(seen_outside("veb again", true), 0);
    bed.nic.shutdown();
}

#[test]
fn a_port_vlan_is_on_the_wire_and_not_in_the_container_and_spoofing_is_nowhere() {
    a_port_vlan(UplinkSpec::Packet("wire0".into()));
}

#[test]
fn a_port_vlan_is_on_the_wire_of_af_xdp() {
    a_port_vlan(UplinkSpec::Xdp("wire0".into()));
}

fn a_port_vlan(uplink: UplinkSpec) {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let red = Netns::new("red");
    let world = wire_to_a_switch();
    if matches!(uplink, UplinkSpec::Xdp(_)) {
        finish_what_is_sent(&world);
    }
    let bed = Bed::with_uplink(dir.path(), RepresentorMode::Off, uplink);
    let ch = bed.add(vec![ChannelSpec {
        vlan: chanio_model::Vlan::new(7),
        spoofchk: true,
        ..container("red", "red", "10.9.0.1/24", 1)
    }]);
    let (outside, inside) = (dir.path().join("outside"), dir.path().join("inside"));
    let mut captures = [
        capture(&world, "eth0", &outside, "ether proto 0x88b5 or vlan"),
        capture(&red, "eth0", &inside, ""),
    ];
    let scapy = |netns: &Netns, send: &str| {
        let script = format!(
            "from scapy.all import *\nmac = '{}'\nb = 'ff:ff:ff:ff:ff:ff'\nfor f in [{send}]:\n    \
             sendp(f, iface='eth0', verbose=0)",
            ch[0].mac
        );
        netns.run(&["/usr/bin/python3", "-c", &script]);
    };
    // Out: its own, one with a forged address, one with a tag of its own.
    scapy(
        &red,
        "Ether(src=mac, dst=b, type=0x88b5)/Raw(b'own'), \
         Ether(src='02:00:00:00:00:99', dst=b, type=0x88b5)/Raw(b'forged'), \
         Ether(src=mac, dst=b)/Dot1Q(vlan=9, type=0x88b5)/Raw(b'tagged')",
    );
    // In: in its VLAN, in another, in none.
    scapy(
        &world,
        "Ether(dst=mac, type=0x8100)/Dot1Q(vlan=7, type=0x88b5)/Raw(b'in seven'), \
         Ether(dst=mac, type=0x8100)/Dot1Q(vlan=8, type=0x88b5)/Raw(b'in eight'), \
         Ether(dst=mac, type=0x88b5)/Raw(b'in none')",
    );
    std::thread::sleep(Duration::from_millis(500));
    captures.iter_mut().for_each(Process::kill);
    let ours = format!("eth.src == {}", ch[0].mac);
    assert_eq!(decoded(&outside, &ours, "vlan.id"), ["7"]);
    assert_eq!(
        decoded(&outside, "eth.src == 02:00:00:00:00:99", "vlan.id"),
        [""; 0]
    );
    let arrived = format!("eth.dst == {}", ch[0].mac);
    assert_eq!(decoded(&inside, &arrived, "data.data"), [hex(b"in seven")]);
    assert_eq!(decoded(&inside, &arrived, "vlan.id"), [""]);

    let count = |vport, reason| {
        let drops = bed.stats(vport).drops;
        drops.iter().find(|d| d.0 == reason).map_or(0, |d| d.1)
    };
    use chanio_model::DropReason::*;
    println!("{:?}", bed.stats(ch[0].vport));
    assert_eq!(count(ch[0].vport, SpoofedMac), 1);
    assert_eq!(count(ch[0].vport, VlanNotAllowed), 1);
    // The bridge outside may have sent something of its own.
    assert!(count(chanio_model::VportId::UPLINK, NoDestination) >= 2);
    bed.nic.shutdown();
}

/// As tshark shows bytes; Ethernet frames are padded with zeros.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn the_host_is_on_the_wire_of_a_tap_uplink() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let red = Netns::new("red");
    let bed = Bed::with_uplink(
        dir.path(),
        RepresentorMode::Tap,
        UplinkSpec::Tap("wire0".into()),
    );
    bed.add(vec![container("red", "red", "10.9.0.1/24", 1)]);
    ip("addr add 10.9.0.254/24 dev wire0");
    ip("link set wire0 up");
    red.run(&["ping", "-c", "3", "-i", "0.2", "-W", "3", "10.9.0.254"]);
    run(Command::new("ping").args(["-c", "3", "-i", "0.2", "-W", "3", "10.9.0.1"]));
    // The host has something to say of its own now and then.
    wait_for(
        "both ends to have counted the same",
        Duration::from_secs(5),
        || {
            let wire = bed.stats(chanio_model::VportId::UPLINK);
            let (to_host, _, from_host, _) = ip_counters("wire0");
            to_host >= 6 && (wire.rx.packets, wire.tx.packets) == (to_host, from_host)
        },
    );
    bed.nic.shutdown();
    assert!(!Path::new("/sys/class/net/wire0").exists());
}

#[test]
fn what_af_xdp_cannot_have_is_said() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let world = Netns::new("world");
    ip("link add wire0 type veth peer name eth0 netns world");
    let open = |name: &str| {
        let spec: UplinkSpec = format!("xdp:{name}").parse().unwrap();
        chanio_emu::port::Uplink::open(&spec)
    };
    let why = |name: &str| open(name).unwrap_err().to_string();
    assert!(why("nothing").contains("xdp:nothing is not allowed, must be a netdev that exists"));
    assert!(why("lo").contains("an Ethernet netdev"));
    ip("link set wire0 mtu 3803");
    let too_long = why("wire0");
    assert!(
        too_long.contains("MTU is at most 3802, this one has 3803"),
        "{too_long}"
    );
    ip("link set wire0 mtu 3802");
    world.run(&["ip", "link", "set", "eth0", "mtu", "3802"]);
    let first = open("wire0").unwrap();
    let again = why("wire0");
    assert!(again.contains("no other AF_XDP socket has"), "{again}");
    drop(first);
    // Nothing was left behind.
    let second = open("wire0").unwrap();
    assert!(run(Command::new("ip").args(["link", "show", "wire0"])).contains("xdp"));
    drop(second);
    assert!(!run(Command::new("ip").args(["link", "show", "wire0"])).contains("xdp"));
}
