//! Tunnels' netdevs of a stock kernel, in software alone and with hardware; at the other end is
//! another kernel's stack, with netdevs of its own.

use crate::{SOON, ip, tc};
use chanio_emu::nic::spec::{KernelRule, UplinkSpec};
use chanio_model::VportId;
use chanio_testbed::netns::{Netns, isolate};
use chanio_testbed::nic::{Bed, container};
use chanio_testbed::process::{run, wait_for};
use std::process::Command;
use std::time::Instant;

/// The uplink's representor.
const UPLINK: &str = "c0p0";
/// Both netdevs at the other end have this address, so that filters can tell it.
const FAR: &str = "02:00:00:00:07:02";

/// What a kind of tunnel is made with: its netdev here, that at the other end, and what tc is told.
struct Tunnel {
    kind: &'static str,
    here: &'static str,
    there: &'static str,
    set: &'static str,
    key: &'static str,
}

const TUNNELS: [Tunnel; 3] = [
    Tunnel {
        kind: "vxlan",
        here: "dstport 4789 external",
        there: "id 7 local 192.0.2.2 remote 192.0.2.1 dstport 4789",
        set: "dst_port 4789",
        key: "enc_dst_port 4789",
    },
    Tunnel {
        kind: "geneve",
        here: "external",
        there: "id 7 remote 192.0.2.1",
        set: "dst_port 6081",
        key: "",
    },
    Tunnel {
        kind: "gretap",
        here: "external",
        there: "key 7 local 192.0.2.2 remote 192.0.2.1",
        set: "",
        key: "",
    },
];

/// What is listed of the filters, the representor's first.
fn filters(bed: &Bed) -> Vec<KernelRule> {
    let mut rules = bed.nic.kernel_rules().unwrap();
    rules.sort_by_key(|rule| (rule.place == "out0", rule.priority));
    rules
}

fn in_hardware(bed: &Bed) -> bool {
    let rules = filters(bed);
    rules.len() == 4
        && rules
            .iter()
            .all(|rule| rule.in_hw == 1 && rule.why_not.is_none())
}

#[track_caller]
fn wait_in_hardware(bed: &Bed) {
    let end = Instant::now() + SOON;
    while !in_hardware(bed) {
        assert!(Instant::now() < end, "{:#?}", filters(bed));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Packets that the host was handed on both representors.
fn handed_up(bed: &Bed, red: VportId) -> u64 {
    let of = |vport| bed.stats(vport).representor_rx.packets;
    of(red) + of(VportId::UPLINK)
}

fn with_tunnels(offload: bool) {
    let dir = tempfile::tempdir().unwrap();
    let (red, world) = (Netns::new("red"), Netns::new("world"));
    ip("link add wire0 mtu 1600 type veth peer name eth0 mtu 1600 netns world");
    ip("link set wire0 up");
    world.run(&["ip", "addr", "add", "192.0.2.2/24", "dev", "eth0"]);
    world.run(&["ip", "link", "set", "eth0", "up"]);
    let uplink: UplinkSpec = "packet:wire0".parse().unwrap();
    let bed = Bed::following_on(dir.path(), offload, uplink);
    let channel = bed
        .add(vec![container("red", "red", "10.7.0.1/24", 1)])
        .remove(0);
    let representor = channel.representor.as_deref().unwrap();
    ip(&format!("link set {UPLINK} up mtu 1600"));
    ip(&format!("addr add 192.0.2.1/24 dev {UPLINK}"));
    ip(&format!("link set {representor} up"));
    for tunnel in &TUNNELS {
        let Tunnel {
            kind,
            here,
            there,
            set,
            key,
        } = tunnel;
        ip(&format!("link add out0 mtu 1500 type {kind} {here}"));
        ip("link set out0 up");
        let there = format!("ip link add tun7 address {FAR} mtu 1500 type {kind} {there}");
        world.run(&["sh", "-ec", &there]);
        world.run(&[
            "sh",
            "-ec",
            "ip addr add 10.7.0.2/24 dev tun7; ip link set tun7 up",
        ]);
        for netdev in [representor, "out0"] {
            tc(&format!("qdisc add dev {netdev} clsact"));
        }
        for (pref, protocol) in [(1, "arp"), (2, "ip")] {
            let at = |netdev| {
                format!("filter add dev {netdev} ingress protocol {protocol} pref {pref} flower")
            };
            tc(&format!(
                "{} action tunnel_key set id 7 src_ip 192.0.2.1 dst_ip 192.0.2.2 {set} nocsum \
                 action mirred egress redirect dev out0",
                at(representor)
            ));
            tc(&format!(
                "{} src_mac {FAR} enc_key_id 7 enc_src_ip 192.0.2.2 enc_dst_ip 192.0.2.1 {key} \
                 action tunnel_key unset action mirred egress redirect dev {representor}",
                at("out0")
            ));
        }
        let ping = |size: &str| {
            let ping = [
                "ping", "-c", "3", "-i", "0.2", "-W", "3", "-s", size, "10.7.0.2",
            ];
            let done = red.command(&ping).output().unwrap();
            if !done.status.success() {
                println!("{}", run(Command::new("ip").args(["-s", "link"])));
                println!("{}", world.run(&["ip", "-s", "link"]));
                println!(
                    "{}",
                    tc(&format!("-s filter show dev {representor} ingress"))
                );
                println!("{}", tc("-s filter show dev out0 ingress"));
                panic!("{kind}, {size} bytes: {:#?}", bed.nic.stats());
            }
        };
        // The kernel's way, by which it learns its neighbour.
        ping("56");
        if offload {
            wait_in_hardware(&bed);
            let (before, packets) = (handed_up(&bed, channel.vport), filters(&bed)[1].packets);
            for size in ["56", "1000", "1472"] {
                ping(size);
            }
            assert_eq!(handed_up(&bed, channel.vport), before, "{kind}");
            let rules = filters(&bed);
            assert_eq!(
                (rules[1].packets, rules[3].packets >= 9),
                (packets + 9, true)
            );
            let place = &rules[3].place;
            println!(
                "{kind}: {} packets into the tunnel, {} out of it at {place}, none by the host",
                rules[1].packets, rules[3].packets
            );
            if *kind == "vxlan" {
                what_speaks_against_it(&bed, representor, || {
                    ping("56");
                });
            }
        } else {
            for size in ["56", "1000", "1472"] {
                ping(size);
            }
        }
        tc(&format!("qdisc del dev {representor} clsact"));
        ip("link del out0");
        world.run(&["ip", "link", "del", "tun7"]);
        if offload {
            wait_for("no filter to be left", SOON, || filters(&bed).is_empty());
        }
    }
    drop(bed);
    ip("link del wire0");
}

/// Each takes some filters out of hardware, says why, and traffic goes on through the kernel.
fn what_speaks_against_it(bed: &Bed, representor: &str, ping: impl Fn()) {
    let sh = |line: &str| run(Command::new("sh").args(["-ec", line]));
    // What to do, the reason at the representor's filters, that at the tunnel's netdev, and back.
    let cases = [
        (
            format!("ip link set {UPLINK} mtu 1500"),
            "mtu: c0p0 takes 1500 bytes, packets in the tunnel may have 15",
            "",
            format!("ip link set {UPLINK} mtu 1600"),
        ),
        (
            format!("ip neigh del 192.0.2.2 dev {UPLINK}"),
            "neighbour 192.0.2.2 on c0p0 is not known yet",
            "",
            String::new(),
        ),
        (
            format!(
                "tc qdisc add dev {UPLINK} clsact; \
                 tc filter add dev {UPLINK} ingress pref 1 matchall action pass"
            ),
            "",
            "filters look at what c0p0 receives",
            format!("tc qdisc del dev {UPLINK} clsact"),
        ),
        (
            "ip link set out0 mtu 1450; ip link set out0 down".to_owned(),
            "out0 is down",
            "out0 is down",
            "ip link set out0 up".to_owned(),
        ),
    ];
    for (change, into, out_of, back) in cases {
        sh(&change);
        let right = |why: &Option<String>, wanted: &str| match why {
            Some(why) => !wanted.is_empty() && why.starts_with(wanted),
            None => wanted.is_empty(),
        };
        let end = Instant::now() + SOON;
        loop {
            let rules = filters(bed);
            let of = |place: &str, wanted: &str| {
                let mut of_place = rules.iter().filter(|rule| rule.place == place);
                of_place.all(|rule| right(&rule.why_not, wanted))
            };
            if of(representor, into) && of("out0", out_of) {
                break;
            }
            assert!(Instant::now() < end, "{change}: {rules:#?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        if !change.contains("down") {
            ping();
        }
        if !back.is_empty() {
            sh(&back);
        }
        ping();
        wait_in_hardware(bed);
    }
}

#[test]
#[ignore = "runs in a guest, whose kernel has tunnels' netdevs and flower"]
fn tunnels_are_entered_and_left_in_hardware() {
    isolate();
    with_tunnels(false);
    with_tunnels(true);
}
