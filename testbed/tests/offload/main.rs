//! Transparent offload beside the kernel of this machine, which has bridges; and in a guest, where
//! this same program runs beside a kernel that has all of tc.

mod filters;
mod lost;
mod ovs;
mod tunnels;
mod wire;

use chanio_emu::nic::spec::KernelRule;
use chanio_model::eswitch::Mode;
use chanio_model::{Mac, VportId};
use chanio_testbed::guest::{BOOT, Guest, image};
use chanio_testbed::netns::isolate;
use chanio_testbed::nic::Bed;
use chanio_testbed::process::{run, wait_for};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use wire::{Marker, Wires, frame, station};

const SOON: Duration = Duration::from_secs(5);

fn ip(words: &str) {
    run(Command::new("ip").args(words.split_whitespace()));
}

fn bridge(words: &str) -> String {
    run(Command::new("bridge").args(words.split_whitespace()))
}

fn tc(words: &str) -> String {
    run(Command::new("tc").args(words.split_whitespace()))
}

/// What is listed of an address, and of a VLAN if it is given.
fn address(bed: &Bed, mac: Mac, vlan: &str) -> Option<KernelRule> {
    let text = format!("{mac}{vlan} dev");
    let rules = bed.nic.kernel_rules().unwrap();
    rules.into_iter().find(|rule| {
        let listed = rule.text.as_deref();
        rule.kind == "fdb" && listed.is_some_and(|listed| listed.starts_with(&text))
    })
}

fn wait_in_hardware(bed: &Bed, mac: Mac, vlan: &str) {
    wait_for(&format!("{mac}{vlan} in hardware"), SOON, || {
        address(bed, mac, vlan).is_some_and(|rule| rule.in_hw == 1 && rule.why_not.is_none())
    });
}

fn wait_not(bed: &Bed, mac: Mac, why: &str) {
    let mut last = None;
    let end = Instant::now() + SOON;
    while Instant::now() < end {
        last = address(bed, mac, "");
        if last
            .as_ref()
            .is_some_and(|r| r.why_not.as_deref() == Some(why) && r.in_hw == 0)
        {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{mac} is not said to be out because of `{why}`: {last:?}");
}

/// Packets that the host has been given of a vport.
fn handed_up(bed: &Bed, vport: VportId) -> u64 {
    bed.stats(vport).representor_rx.packets
}

fn bridged(wires: &Wires, settings: &str) {
    ip(&format!(
        "link add br0 type bridge mcast_snooping 0 {settings}"
    ));
    ip("link set br0 up");
    for port in 0..wires.channels.len() {
        ip(&format!(
            "link set {} up master br0",
            wires.representor(port)
        ));
    }
    wait_for("the ports to forward", SOON, || {
        bridge("link show").matches("state forwarding").count() == wires.channels.len()
    });
}

#[test]
fn addresses_that_a_bridge_learns_are_switched_in_hardware() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::following(dir.path(), true);
    let mut wires = Wires::new(&bed, 3);
    // Two seconds, in hundredths.
    bridged(&wires, "ageing_time 200");
    let vports: Vec<_> = wires.channels.iter().map(|c| c.vport).collect();
    let all = Mac::BROADCAST;

    // Broadcast is the bridge's; from it the bridge learns.
    for port in 0..2 {
        let hello = frame(all, station(port as u8), None, 1);
        let got = wires.send(port, &hello);
        assert_eq!(got.len(), 2, "the two others");
    }
    wait_in_hardware(&bed, station(0), "");
    wait_in_hardware(&bed, station(1), "");
    // What goes between the two does not touch the host.
    let before = handed_up(&bed, vports[0]);
    let data = frame(station(1), station(0), None, 2);
    for _ in 0..10 {
        assert_eq!(wires.send(0, &data), [(1, data.clone())]);
    }
    assert_eq!(handed_up(&bed, vports[0]), before);
    assert_eq!(address(&bed, station(1), "").unwrap().packets, 10);
    // Tags are nothing to this bridge.
    let tagged = frame(station(1), station(0), Some(0x6005), 2);
    assert_eq!(wires.send(0, &tagged), [(1, tagged.clone())]);
    // To itself, to nobody, from a stranger: the bridge's again.
    assert_eq!(wires.send(0, &frame(station(0), station(0), None, 3)), []);
    assert_eq!(
        wires.send(0, &frame(station(9), station(0), None, 3)).len(),
        2
    );
    assert_eq!(
        wires.send(0, &frame(station(1), station(8), None, 3)).len(),
        1
    );
    assert_eq!(handed_up(&bed, vports[0]), before + 3);
    wait_in_hardware(&bed, station(8), "");

    // A station that keeps talking in hardware does not age; one that is silent does.
    let end = Instant::now() + Duration::from_millis(3500);
    let before = handed_up(&bed, vports[0]);
    while Instant::now() < end {
        wires.send(0, &data);
    }
    assert!(
        address(&bed, station(0), "").is_some(),
        "{}",
        bridge("fdb show")
    );
    let silent = |mac| address(&bed, mac, "").is_none_or(|rule| rule.in_hw == 0);
    wait_for("the silent one to go", SOON, || silent(station(8)));
    // Since then frames to the other one, which was silent as well, are flooded by the bridge.
    wait_for("that one, too", SOON, || silent(station(1)));
    wires.send(0, &data);
    assert!(handed_up(&bed, vports[0]) > before);

    // A station moves: the bridge sees it and says so.
    ip("link set br0 type bridge ageing_time 30000");
    for (port, n) in [(0, 0), (1, 1), (2, 0)] {
        wires.send(port, &frame(all, station(n), None, 4));
    }
    wait_for("the new place", SOON, || {
        let at = address(&bed, station(0), "").and_then(|rule| rule.text);
        at.is_some_and(|text| text.ends_with(wires.representor(2)))
    });
    wait_in_hardware(&bed, station(0), "");
    wait_in_hardware(&bed, station(1), "");
    let back = frame(station(0), station(1), None, 5);
    let before = handed_up(&bed, vports[1]);
    assert_eq!(wires.send(1, &back), [(2, back.clone())]);
    assert_eq!(handed_up(&bed, vports[1]), before);

    // What speaks against it is said, and takes it out.
    let rep = wires.representor(2).to_owned();
    for (there, why, gone) in [
        (
            format!("bridge link set dev {rep} isolated on"),
            format!("{rep} is isolated from other ports"),
            format!("bridge link set dev {rep} isolated off"),
        ),
        (
            format!("bridge link set dev {rep} neigh_suppress on"),
            format!("{rep} answers for others (neigh_suppress, proxy_arp)"),
            format!("bridge link set dev {rep} neigh_suppress off"),
        ),
        (
            format!("tc qdisc add dev {rep} root tbf rate 1gbit burst 10k latency 1ms"),
            format!("qdisc tbf treats what {rep} sends"),
            format!("tc qdisc del dev {rep} root"),
        ),
        (
            "ip link set br0 promisc on".to_owned(),
            "br0 is promiscuous: the host wants to see every frame".to_owned(),
            "ip link set br0 promisc off".to_owned(),
        ),
        (
            format!("ip link set {rep} mtu 1400"),
            format!("mtu: {rep} takes 1400 bytes, packets may have 1500"),
            format!("ip link set {rep} mtu 1500"),
        ),
    ] {
        let sh = |line: &str| run(Command::new("sh").args(["-ec", line]));
        sh(&there);
        wait_not(&bed, station(0), &why);
        assert_eq!(wires.send(1, &back), [(2, back.clone())], "{why}");
        sh(&gone);
        wait_in_hardware(&bed, station(0), "");
    }

    // The mode takes rules along and brings them back; a channel takes its own.
    bed.set_mode(Mode::Legacy);
    assert_eq!(bed.nic.offloaded_rules().len(), 0);
    wait_not(&bed, station(0), "the eswitch is in legacy mode");
    bed.set_mode(Mode::Switchdev);
    wait_in_hardware(&bed, station(0), "");
    bridge(&format!("fdb del {} dev {rep} master", station(0)));
    wait_for("the address to go", SOON, || {
        address(&bed, station(0), "").is_none()
    });
    bed.nic.del_channels(&["b".parse().unwrap()]).unwrap();
    let names = |vport| {
        bed.nic
            .offloaded_rules()
            .iter()
            .any(|r| r.spec.ports().any(|p| p == vport))
    };
    assert!(!names(vports[1]));
    wait_for("no address to be left", SOON, || {
        bed.nic.kernel_rules().unwrap().is_empty()
    });
    ip("link del br0");
}

/// From each port, to all that are in a VLAN with it.
const MARKERS: [&[Marker]; 4] = [
    &[marker(None, &[2]), marker(Some(7), &[1, 3])],
    &[marker(Some(5), &[0, 2]), marker(Some(7), &[0, 3])],
    &[marker(None, &[0, 1])],
    &[marker(None, &[0, 1])],
];
/// To four stations with seven tags.
const FRAMES_OF_PORT: usize = 4 * 7;

const fn marker(tag: Option<u16>, reaches: &'static [usize]) -> Marker {
    Marker { tag, reaches }
}

/// What comes out of each frame of a list; every frame twice, the second time with all addresses
/// in hardware if `offload` says so.
fn with_vlans(offload: bool) -> Vec<Vec<(usize, Vec<u8>)>> {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::following(dir.path(), offload);
    let mut wires = Wires::new(&bed, 4);
    bridged(&wires, "vlan_filtering 1");
    // a: 1 and 5 without tag when it leaves. b: tagged 5 and 7. c: 5 as its own. d: only 7.
    let set = |port: usize, words: &str| {
        bridge(&format!("vlan {words} dev {}", wires.representor(port)));
    };
    for (port, vlans) in [
        (0, &["add vid 5 untagged", "add vid 7"][..]),
        (1, &["del vid 1", "add vid 5", "add vid 7"]),
        (2, &["add vid 5 pvid untagged"]),
        (3, &["del vid 1", "add vid 7 pvid"]),
    ] {
        vlans.iter().for_each(|words| set(port, words));
    }
    // Stations are in several VLANs.
    let hello = |wires: &mut Wires| {
        for (port, tags) in [
            (0, &[None, Some(5), Some(7)][..]),
            (1, &[Some(5), Some(7)]),
            (2, &[None, Some(1)]),
            (3, &[None]),
        ] {
            for tag in tags {
                wires.send(port, &frame(Mac::BROADCAST, station(port as u8), *tag, 0));
            }
        }
    };
    hello(&mut wires);
    if offload {
        for (mac, vlan) in [
            (0, 1),
            (0, 5),
            (0, 7),
            (1, 5),
            (1, 7),
            (2, 5),
            (2, 1),
            (3, 7),
        ] {
            wait_in_hardware(&bed, station(mac), &format!(" vlan {vlan}"));
        }
    }
    let before: u64 = wires
        .channels
        .iter()
        .map(|c| handed_up(&bed, c.vport))
        .sum();
    let mut results = Vec::new();
    for (from, markers) in MARKERS.iter().enumerate() {
        for to in 0..4 {
            for tag in [
                None,
                Some(1),
                Some(5),
                Some(0xa005),
                Some(7),
                Some(9),
                Some(0x6000),
            ] {
                let sent = frame(station(to), station(from as u8), tag, 1);
                results.push(wires.send_marked(from, &sent, markers));
            }
        }
    }
    let after: u64 = wires
        .channels
        .iter()
        .map(|c| handed_up(&bed, c.vport))
        .sum();
    // Markers are broadcasts, and those are the bridge's.
    let markers: usize = MARKERS
        .iter()
        .map(|of_port| of_port.len() * FRAMES_OF_PORT)
        .sum();
    let slow = after - before - markers as u64;
    println!(
        "offload {offload}: {slow} of {} frames took the host's way",
        results.len()
    );
    if !offload {
        assert_eq!(slow as usize, results.len());
    }
    let reached = results.iter().filter(|got| !got.is_empty()).count();
    // All that reached one port and whose source the bridge knew went another way.
    assert!(
        reached > 20 && (!offload || slow as usize <= results.len() - 16),
        "{reached} {slow}"
    );
    drop(bed);
    ip("link del br0");
    results
}

#[test]
#[ignore = "runs in a guest, whose kernel has VLAN filtering"]
fn vlans_are_added_and_taken_off_as_the_bridge_does() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let (slow, fast) = (with_vlans(false), with_vlans(true));
    for (n, (slow, fast)) in slow.iter().zip(&fast).enumerate() {
        assert_eq!(slow, fast, "frame {n}");
    }
}

/// The tests that this machine's kernel is not enough for.
#[test]
fn a_guest_with_all_of_tc_and_vlans() {
    if !chanio_testbed::can_run() {
        return;
    }
    image();
    let dir = tempfile::tempdir().unwrap();
    let own = std::env::current_exe().unwrap();
    let name = own.file_name().unwrap().to_str().unwrap();
    let script = format!(
        "load tun bridge sch_ingress cls_flower cls_matchall act_csum act_ct act_gact act_mirred \
         act_pedit act_police act_tunnel_key act_vlan veth vxlan geneve ip_gre openvswitch\n\
         {name} --ignored --test-threads 1 --nocapture\n"
    );
    let mut programs = vec![own.clone(), PathBuf::from("/usr/sbin/bridge")];
    programs.extend(ovs::PROGRAMS.map(PathBuf::from));
    let mut guest = Guest {
        programs: &programs,
        ..Guest::new(dir.path(), &script)
    }
    .boot();
    let said = guest.wait_output("the guest's tests", 0, BOOT, |text| {
        text.contains("guest: done") || text.contains("guest: failed")
    });
    println!("{said}");
    assert!(said.contains("test result: ok. 4 passed"));
}
