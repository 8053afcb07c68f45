//! Filters of a stock kernel's tc, in software alone and with hardware.

use crate::wire::{Wires, station};
use crate::{SOON, bridged, handed_up, ip, tc};
use chanio_emu::nic::spec::KernelRule;
use chanio_model::Mac;
use chanio_testbed::netns::isolate;
use chanio_testbed::nic::Bed;
use chanio_testbed::process::wait_for;
use std::time::{Duration, Instant};

/// Bytes of a packet's payload.
const PAYLOAD: usize = 20;

/// A UDP packet to 10.0.0.N, its header's checksum right.
fn udp(host: u8, port: u16, tag: Option<u16>) -> Vec<u8> {
    let mut frame = [Mac([2, 0, 0, 0, 9, host]).0, station(0).0].concat();
    if let Some(tci) = tag {
        frame.extend([0x81, 0]);
        frame.extend(tci.to_be_bytes());
    }
    frame.extend([8, 0]);
    let mut header = vec![
        0x45, 0, 0, 48, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 9, 10, 0, 0, host,
    ];
    let words = header
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(header);
    frame.extend([0, 7]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 28, 0, 0]);
    frame.extend([0x5a; PAYLOAD]);
    frame
}

/// Nothing comes any more; the guest's processor is slow with what it has not done before.
const SILENCE: Duration = Duration::from_millis(500);

/// Frames that tell their number.
fn frames() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for host in 1..=4 {
        for tag in [None, Some(5), Some(0xe007)] {
            all.extend([7, 53].map(|port| udp(host, port, tag)));
        }
    }
    for (n, frame) in (0..).zip(&mut all) {
        let payload = frame.len() - PAYLOAD;
        frame[payload] = n;
    }
    all
}

/// What came, by the number of the frame.
fn by_frame(got: Vec<(usize, Vec<u8>)>) -> Vec<Vec<(usize, Vec<u8>)>> {
    let mut all = vec![Vec::new(); frames().len()];
    for (port, frame) in got {
        all[usize::from(frame[frame.len() - PAYLOAD])].push((port, frame));
    }
    all
}

/// Filters, and for each how it is listed: `None` in hardware, else a part of the reason.
type Setup = (&'static [&'static str], &'static [Option<&'static str>]);

/// R0 to R3 are the representors.
const SETUPS: &[Setup] = &[
    (
        &[
            "dev R0 ingress protocol ip pref 10 flower dst_ip 10.0.0.1 action mirred egress redirect dev R1",
            "dev R0 ingress protocol ip pref 20 flower skip_hw dst_ip 10.0.0.2 action drop",
            "dev R0 ingress protocol ip pref 30 flower dst_ip 10.0.0.0/30 action mirred egress redirect dev R2",
            "dev R0 ingress protocol 802.1q pref 40 flower vlan_id 5 action vlan pop pipe action mirred egress redirect dev R3",
            "dev R0 ingress protocol all pref 50 matchall action drop",
        ],
        &[None, Some("skip_hw"), None, None, None],
    ),
    (
        &[
            "dev R0 ingress protocol ip pref 1 flower ip_proto udp dst_port 53 action mirred egress mirror dev R1",
            "dev R0 ingress protocol ip pref 2 flower dst_ip 10.0.0.1 action mirred egress mirror dev R1 pipe action mirred egress redirect dev R2",
            "dev R0 ingress protocol ip pref 3 flower dst_ip 10.0.0.2 action pedit ex munge ip ttl set 9 munge eth dst set 02:00:00:00:00:77 pipe action csum ip4h pipe action mirred egress redirect dev R1",
            "dev R0 ingress protocol ip pref 4 flower dst_ip 10.0.0.3 action vlan push id 9 pipe action mirred egress redirect dev R1",
            "dev R0 ingress protocol ip pref 5 flower dst_ip 10.0.0.4 action pedit ex munge ip ttl set 9",
        ],
        &[Some("mirred mirror"), None, None, None, Some("pedit")],
    ),
    (
        &[
            "dev R0 ingress chain 0 protocol ip pref 1 flower dst_ip 10.0.0.0/31 action goto chain 1",
            "dev R0 ingress chain 0 protocol ip pref 2 flower action vlan push id 3 pipe action goto chain 2",
            "dev R0 ingress chain 1 protocol ip pref 1 flower ip_proto udp dst_port 7 action mirred egress redirect dev R1",
            "dev R0 ingress chain 2 protocol all pref 9 matchall action mirred egress redirect dev R2",
            "dev R0 ingress chain 0 protocol 802.1q pref 3 flower vlan_id 5 action vlan modify id 6 pipe action goto chain 1",
        ],
        &[None, None, Some("vlan"), None, None],
    ),
    (
        &[
            "block 22 protocol ip pref 1 flower dst_ip 10.0.0.1 action mirred egress redirect dev R2",
            "block 22 protocol ip pref 2 flower dst_ip 10.0.0.2 action police rate 1gbit burst 100k conform-exceed drop/pipe action mirred egress redirect dev R3",
            "block 22 protocol ip pref 3 flower dst_ip 10.0.0.3 action ct zone 4 action goto chain 1",
        ],
        &[None, None, Some("action ct")],
    ),
];

fn with_representors(wires: &Wires, text: &str) -> String {
    (0..4).fold(text.to_owned(), |text, n| {
        text.replace(&format!("R{n}"), wires.representor(n))
    })
}

fn filters(bed: &Bed) -> Vec<KernelRule> {
    let mut rules = bed.nic.kernel_rules().unwrap();
    rules.retain(|rule| rule.kind != "fdb");
    rules
}

fn with_filters(offload: bool) -> Vec<Vec<(usize, Vec<u8>)>> {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::following(dir.path(), offload);
    let mut wires = Wires::new(&bed, 4);
    // What filters leave is seen at all ports.
    bridged(&wires, "");
    let mut results = Vec::new();
    for (lines, listed) in SETUPS {
        let block = if lines[0].starts_with("block") {
            "ingress_block 22"
        } else {
            ""
        };
        for port in [0, 1] {
            tc(&format!(
                "qdisc add dev {} {block} clsact",
                wires.representor(port)
            ));
        }
        for line in *lines {
            tc(&format!("filter add {}", with_representors(&wires, line)));
        }
        if offload {
            let all = Instant::now() + SOON;
            while filters(&bed).len() != lines.len() {
                assert!(
                    Instant::now() < all,
                    "of {lines:?} listed are {:#?}",
                    filters(&bed)
                );
                std::thread::sleep(Duration::from_millis(5));
            }
            let rules = filters(&bed);
            for (rule, wanted) in rules.iter().zip(*listed) {
                let why = rule.why_not.as_deref();
                let right = match (why, wanted) {
                    (Some(why), Some(wanted)) => why.contains(wanted),
                    (why, wanted) => why.is_none() && wanted.is_none() && rule.in_hw == rule.ports,
                };
                assert!(right, "{rule:?}: {wanted:?}");
            }
        }
        results.extend(by_frame(wires.send_all(0, &frames(), SILENCE)));
        if offload && block.is_empty() && lines[0].contains("10.0.0.1 action mirred") {
            taken_by_hardware(&bed, &mut wires);
        }
        for port in [0, 1] {
            tc(&format!("qdisc del dev {} clsact", wires.representor(port)));
        }
        if offload {
            wait_for("no filter to be left", SOON, || filters(&bed).is_empty());
        }
    }
    drop(bed);
    ip("link del br0");
    results
}

/// The first filter of the first setup takes its packets without the host.
fn taken_by_hardware(bed: &Bed, wires: &mut Wires) {
    let before = (
        filters(bed)[0].packets,
        handed_up(bed, wires.channels[0].vport),
    );
    let frame = udp(1, 7, None);
    for _ in 0..10 {
        assert_eq!(wires.send(0, &frame), [(1, frame.clone())]);
    }
    let after = (
        filters(bed)[0].packets,
        handed_up(bed, wires.channels[0].vport),
    );
    assert_eq!(after, (before.0 + 10, before.1));
    let shown = tc(&format!(
        "-s filter show dev {} ingress pref 10",
        wires.representor(0)
    ));
    assert!(shown.contains("Sent 0 bytes 0 pkt"), "{shown}");
    println!(
        "hardware: {} packets by the first filter, the kernel's: 0",
        after.0
    );
}

#[test]
#[ignore = "runs in a guest, whose kernel has flower"]
fn filters_in_hardware_do_what_they_do_in_the_kernel() {
    isolate();
    let (slow, fast) = (with_filters(false), with_filters(true));
    for (n, (slow, fast)) in slow.iter().zip(&fast).enumerate() {
        assert_eq!(slow, fast, "frame {n}");
    }
    let reached = slow.iter().filter(|got| !got.is_empty()).count();
    println!("{reached} of {} frames came out somewhere", slow.len());
    assert!(slow.len() == 96 && reached > 60);
}
