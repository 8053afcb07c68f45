//! A virtual machine with a stock Debian kernel on a vhost-user channel of two queue pairs, and a
//! container on a TAP channel.

use chanio_emu::nic::spec::*;
use chanio_testbed::guest::{BOOT, Guest};
use chanio_testbed::netns::{Netns, ip_counters, isolate};
use chanio_testbed::nic::{Bed, channel, container};
use chanio_testbed::process::{Process, run};
use std::process::Command;
use std::time::Duration;

const SCRIPT: &str = "
ethtool -L eth0 combined 2
ip link set eth0 up
ip addr add 10.9.0.9/24 dev eth0
ethtool -k eth0 | grep -E 'tcp-segmentation-offload|tx-checksumming'
ping -c 3 10.9.0.1 && echo 'guest: slow ping'
iperf3 -c 10.9.0.1 -t 3 -P 2 --forceflush && echo 'guest: slow tcp'
iperf3 -c 10.9.0.1 -t 2 -R --forceflush && echo 'guest: slow tcp back'
iperf3 -c 10.9.0.1 -t 2 -u -b 5M --forceflush && echo 'guest: slow udp'
read go < /dev/console
ping -c 3 10.9.0.1 && echo 'guest: fast ping'
iperf3 -c 10.9.0.1 -t 3 -P 2 --forceflush && echo 'guest: fast tcp'
iperf3 -c 10.9.0.1 -t 2 -u -b 5M --forceflush && echo 'guest: fast udp'
read go < /dev/console
iperf3 -c 10.9.0.1 -t 2 -R --forceflush && echo 'guest: fast tcp back'
";

/// Lengths of the frames in a capture, longest first.
fn longest_frames(file: &std::path::Path, filter: &str) -> Vec<u32> {
    let text = run(Command::new("tshark").args([
        "-r",
        file.to_str().unwrap(),
        "-T",
        "fields",
        "-e",
        "frame.len",
        "-Y",
        filter,
    ]));
    let mut lengths: Vec<u32> = text.lines().map(|l| l.parse().unwrap()).collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    lengths
}

/// How many frames of a capture have a TCP checksum that is not (yet) right, and how many there are.
fn unfinished_checksums(file: &std::path::Path) -> (usize, usize) {
    let text = run(Command::new("tshark").args([
        "-r",
        file.to_str().unwrap(),
        "-o",
        "tcp.check_checksum:TRUE",
        "-T",
        "fields",
        "-e",
        "tcp.checksum.status",
    ]));
    let wrong = text.lines().filter(|status| *status == "0").count();
    (wrong, text.lines().count())
}

#[test]
fn a_guest_and_a_container_talk_through_representors_and_then_through_rules() {
    if !chanio_testbed::can_run() {
        return;
    }
    chanio_testbed::guest::image();
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let pod = Netns::new("pod");
    let bed = Bed::switchdev(dir.path(), RepresentorMode::Tap);
    let ch = bed.add(vec![
        ChannelSpec {
            queues: 2,
            ..channel("vm")
        },
        container("pod", "pod", "10.9.0.1/24", 2),
    ]);
    let reps: Vec<_> = ch.iter().map(|c| c.representor.clone().unwrap()).collect();
    let ip = |words: &str| run(Command::new("ip").args(words.split_whitespace()));
    ip("link add br0 type bridge");
    ip("link set br0 up");
    for rep in &reps {
        ip(&format!("link set {rep} up"));
        ip(&format!("link set {rep} master br0"));
    }
    let _server = pod.iperf3_server(dir.path());
    // Headers of all of TCP; and some frames of it whole, for their checksums.
    let (pcap, whole) = (dir.path().join("pod.pcap"), dir.path().join("whole.pcap"));
    let captures = [
        ("tcpdump", &pcap, &["-s", "96", "tcp"][..]),
        (
            "tcpdump-whole",
            &whole,
            &["-c", "200", "tcp and greater 1000 and src 10.9.0.9"],
        ),
    ];
    let mut sniffers = captures.map(|(name, file, how)| {
        let mut words = vec!["tcpdump", "-i", "eth0", "-w", file.to_str().unwrap()];
        words.extend(how);
        let mut tcpdump = Process::start(name, dir.path(), &mut pod.command(&words));
        tcpdump.wait_output("tcpdump", 0, Duration::from_secs(10), |t| {
            t.contains("listening on")
        });
        tcpdump
    });

    let net = (ch[0].socket.as_deref().unwrap(), ch[0].mac, 2);
    let mut guest = Guest {
        net: Some(net),
        ..Guest::new(dir.path(), SCRIPT)
    }
    .boot();
    guest.wait_output("the guest to boot", 0, BOOT, |t| {
        t.contains("tcp-segmentation")
    });
    let vm = bed.nic.channel("vm").unwrap();
    assert_eq!((vm.fault, vm.state), (None, ChannelState::Running));
    for step in ["slow ping", "slow tcp\r", "slow tcp back", "slow udp"] {
        let line = format!("guest: {step}");
        guest.wait_output(&line, 0, Duration::from_secs(60), |t| t.contains(&line));
    }
    let text = guest.output();
    assert!(text.contains("tcp-segmentation-offload: on"), "{text}");
    let vm = bed.nic.channel("vm").unwrap();
    assert_eq!(
        (vm.state, vm.active_queues),
        (ChannelState::Running, 2),
        "{vm:?}"
    );

    bed.rule("in_port vm action redirect pod");
    bed.rule("in_port pod action redirect vm");
    std::thread::sleep(Duration::from_millis(300));
    let before: Vec<_> = reps.iter().map(|rep| ip_counters(rep)).collect();
    guest.say("go");
    guest.wait_output("fast udp", 0, Duration::from_secs(60), |t| {
        t.contains("guest: fast udp")
    });
    let vm_before = bed.stats(ch[0].vport).rx;
    guest.say("go");
    let fast = guest.wait_output("fast tcp back", 0, Duration::from_secs(60), |t| {
        t.contains("guest: fast tcp back")
    });
    let vm_after = bed.stats(ch[0].vport).rx;
    let after: Vec<_> = reps.iter().map(|rep| ip_counters(rep)).collect();
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(
            (before.0, before.1),
            (after.0, after.1),
            "the slow path stands still"
        );
    }
    guest.wait(Duration::from_secs(30));
    for line in fast.lines().filter(|l| {
        l.contains("receiver")
            || l.contains("round-trip")
            || l.contains("offload")
            || l.contains("tx-check")
    }) {
        println!("{}", line.trim());
    }
    sniffers.iter_mut().for_each(|tcpdump| {
        tcpdump.terminate();
    });

    // TSO really used: frames many times the MTU arrive whole in the container, and whole in the
    // guest.
    let tcp = longest_frames(&pcap, "tcp && ip.src == 10.9.0.9");
    println!(
        "frames from the guest: {} of TCP, the longest {:?}",
        tcp.len(),
        &tcp[..3]
    );
    assert!(tcp[0] > 10_000, "{:?}", &tcp[..3]);
    let (packets, bytes) = (
        vm_after.packets - vm_before.packets,
        vm_after.bytes - vm_before.bytes,
    );
    let mean = bytes / packets;
    println!("frames to the guest: {packets} with a mean of {mean} bytes");
    assert!(mean > 3000);
    // And so are checksums: they arrive unfinished, which tcpdump shows as wrong ones.
    let unfinished = unfinished_checksums(&whole);
    println!("checksums left to the NIC: {unfinished:?} of the guest's frames");
    assert!(unfinished.0 > 0 && unfinished.0 == unfinished.1);
    for info in &ch {
        let stats = bed.stats(info.vport);
        println!("{}: {stats:?}", info.spec.name);
        assert!(stats.rx.packets > 0);
    }
    bed.nic.shutdown();
}

const PACKED_SCRIPT: &str = "
ethtool -L eth0 combined 2
ip link set eth0 up
ip addr add 10.9.0.9/24 dev eth0
cat /sys/class/net/eth0/device/features
ping -c 3 10.9.0.1 && echo 'guest: ping'
ping -c 3 -s 20000 10.9.0.1 && echo 'guest: fragments'
iperf3 -c 10.9.0.1 -t 3 -P 2 --forceflush && echo 'guest: tcp'
iperf3 -c 10.9.0.1 -t 2 -R --forceflush && echo 'guest: tcp back'
# All rings stop and begin again.
driver=/sys/bus/virtio/drivers/virtio_net
for device in $driver/virtio*; do echo ${device##*/} > $driver/unbind; done
echo ${device##*/} > $driver/bind
ip link set eth0 up
ip addr add 10.9.0.9/24 dev eth0
ping -c 3 10.9.0.1 && echo 'guest: again'
";

#[test]
fn a_guest_with_packed_rings() {
    if !chanio_testbed::can_run() {
        return;
    }
    chanio_testbed::guest::image();
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let pod = Netns::new("pod");
    let bed = Bed::switchdev(dir.path(), RepresentorMode::Off);
    let ch = bed.add(vec![
        ChannelSpec {
            queues: 2,
            ..channel("vm")
        },
        container("pod", "pod", "10.9.0.1/24", 2),
    ]);
    bed.rule("in_port vm action redirect pod");
    bed.rule("in_port pod action redirect vm");
    let _server = pod.iperf3_server(dir.path());
    let net = (ch[0].socket.as_deref().unwrap(), ch[0].mac, 2);
    let mut guest = Guest {
        net: Some(net),
        device: ",packed=on",
        ..Guest::new(dir.path(), PACKED_SCRIPT)
    }
    .boot();
    guest.wait_output("guest: ping", 0, BOOT, |t| t.contains("guest: ping"));
    let vm = bed.nic.channel("vm").unwrap();
    assert_eq!((&vm.fault, vm.state), (&None, ChannelState::Running));
    assert_ne!(vm.features & 1 << 34, 0, "{:#x}", vm.features);
    for step in ["fragments", "tcp\r", "tcp back", "again"] {
        let line = format!("guest: {step}");
        guest.wait_output(&line, 0, Duration::from_secs(60), |t| t.contains(&line));
    }
    guest.wait(Duration::from_secs(30));
    for line in guest.output().lines().filter(|l| l.contains("receiver")) {
        println!("{}", line.trim());
    }
    let vm = bed.nic.channel("vm").unwrap();
    assert_eq!(vm.fault, None);
    bed.nic.shutdown();
}

const LEGACY_SCRIPT: &str = "
ip link set eth0 up
ip addr add 10.9.0.9/24 dev eth0
cat /sys/class/net/eth0/device/features
ethtool -k eth0 | grep -E 'tcp-segmentation-offload|tx-checksumming|rx-checksumming'
ping -c 3 10.9.0.1 && echo 'guest: ping'
ping -c 3 -s 20000 10.9.0.1 && echo 'guest: fragments'
iperf3 -c 10.9.0.1 -t 2 --forceflush && echo 'guest: tcp'
iperf3 -c 10.9.0.1 -t 2 -R --forceflush && echo 'guest: tcp back'
iperf3 -c 10.9.0.1 -t 1 -u -b 5M -R --forceflush && echo 'guest: udp back'
sleep 1
cd /sys/class/net/eth0/statistics
echo guest: counted $(cat rx_packets) $(cat tx_packets) end
";

/// No VIRTIO_F_VERSION_1, no mergeable buffers (so headers of 10 bytes), and no offloads: what the
/// container leaves undone, the NIC does.
#[test]
fn a_legacy_guest_that_takes_nothing_unfinished() {
    if !chanio_testbed::can_run() {
        return;
    }
    chanio_testbed::guest::image();
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let pod = Netns::new("pod");
    let bed = Bed::switchdev(dir.path(), RepresentorMode::Off);
    let ch = bed.add(vec![
        channel("vm"),
        container("pod", "pod", "10.9.0.1/24", 1),
    ]);
    bed.rule("in_port vm action redirect pod");
    bed.rule("in_port pod action redirect vm");
    let _server = pod.iperf3_server(dir.path());
    let mut guest = Guest {
        net: Some((ch[0].socket.as_deref().unwrap(), ch[0].mac, 1)),
        device: ",disable-modern=on,disable-legacy=off,mrg_rxbuf=off,csum=off,guest_csum=off,\
                 guest_tso4=off,guest_tso6=off,guest_ecn=off,host_tso4=off,host_tso6=off,host_ecn=off",
        ..Guest::new(dir.path(), LEGACY_SCRIPT)
    }
    .boot();
    guest.wait_output("guest: ping", 0, BOOT, |t| t.contains("guest: ping"));
    let vm = bed.nic.channel("vm").unwrap();
    assert_eq!((&vm.fault, vm.state), (&None, ChannelState::Running));
    let modern = 1 << 32 | 1 << 15 | 1 << 1 | 1;
    assert_eq!(vm.features & modern, 0, "{:#x}", vm.features);
    guest.wait_output("fragments", 0, Duration::from_secs(60), |t| {
        t.contains("guest: fragments")
    });
    let before = bed.stats(ch[1].vport).tx;
    for step in ["tcp\r", "tcp back", "udp back"] {
        let line = format!("guest: {step}");
        guest.wait_output(&line, 0, Duration::from_secs(60), |t| t.contains(&line));
    }
    let after = bed.stats(ch[1].vport).tx;
    guest.wait(Duration::from_secs(30));
    for line in guest
        .output()
        .lines()
        .filter(|l| l.contains("receiver") || l.contains("offload"))
    {
        println!("{}", line.trim());
    }
    // The container segments nothing itself, whatever the guest takes; and both count the same.
    let mean = (after.bytes - before.bytes) / (after.packets - before.packets);
    let vm = bed.stats(ch[0].vport);
    println!("frames from the container: a mean of {mean} bytes; {vm:?}");
    assert!(mean > 1600);
    assert!(vm.rx.bytes / vm.rx.packets <= 1514);
    let counted = format!("guest: counted {} {} end", vm.rx.packets, vm.tx.packets);
    assert!(
        guest.output().contains(&counted),
        "{counted}: {}",
        guest.output()
    );
    assert_eq!(bed.nic.channel("vm").unwrap().fault, None);
    bed.nic.shutdown();
}
