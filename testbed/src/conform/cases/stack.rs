//! A kernel's own TCP at both ends, with whatever offloads it uses.

use crate::conform::bed::{Bed, wish};
use crate::conform::case::{Case, Ended, Need::Netdev, Setup::Bare, Stop, case, ensure, same};
use crate::conform::stacks::{Counted, Talk};

const OFFLOAD: &str = "Documentation/networking/segmentation-offloads.rst, checksum-offloads.rst";

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "stack.tcp",
            "eight megabytes of TCP each way arrive as they were, without a bad checksum",
            OFFLOAD,
            Bare,
            &[Netdev],
            |bed| tcp(bed, &[]),
        ),
        case(
            "stack.tcp_plain",
            "the same with the sender's offloads switched off",
            OFFLOAD,
            Bare,
            &[Netdev],
            |bed| tcp(bed, &["tso", "gso", "tx"]),
        ),
        case(
            "stack.segmentation",
            "segments longer than the MTU pass whole from channel to channel",
            "virtio 1.3 §5.1.6.2.2; Documentation/networking/segmentation-offloads.rst",
            Bare,
            &[Netdev],
            segmentation,
        ),
        case(
            "stack.udp",
            "datagrams of every length up to the MTU arrive, without a bad checksum",
            OFFLOAD,
            Bare,
            &[Netdev],
            udp,
        ),
    ]
}

/// Two channels with addresses, joined by rules where the device has such, else by its switch; the
/// bad packets that their stacks had met before.
fn joined(bed: &mut Bed) -> Ended<Counted> {
    let rules = bed.info.capabilities.actions.contains(&"redirect");
    bed.mode(if rules { "switchdev" } else { "legacy" })?;
    bed.add(vec![wish("a"), wish("b")])?;
    if rules {
        bed.rules(&[
            "in_port {a} action redirect {b}",
            "in_port {b} action redirect {a}",
        ])?;
    }
    for (name, last) in [("a", 1), ("b", 2)] {
        let address = format!("10.77.0.{last}/24");
        let set = bed.run_at(name, &["ip", "addr", "add", &address, "dev", "eth0"])?;
        set.map_err(|said| Stop::Error(format!("ip: {said}")))?;
    }
    bed.talk(Talk::Nothing, ["a", "b"])
}

/// They talk, and meet no bad packet.
fn well(bed: &mut Bed, talk: Talk, before: &Counted) -> Ended {
    let bad = bed.talk(talk, ["a", "b"])?;
    let enough = bad.iter().all(|of| of.len() >= 5);
    ensure(enough, || format!("snmp counters: {bad:?}"))?;
    same("bad packets that a receiver's stack met", &bad, before)
}

/// Whether ethtool could switch these off on both netdevs.
fn switch_off(bed: &mut Bed, features: &[&str]) -> Ended {
    for name in ["a", "b"] {
        for feature in features {
            let off = bed.run_at(name, &["ethtool", "-K", "eth0", feature, "off"])?;
            off.map_err(|said| Stop::NotSupported(format!("ethtool: {said}")))?;
        }
    }
    Ok(())
}

fn tcp(bed: &mut Bed, off: &[&str]) -> Ended {
    let before = joined(bed)?;
    switch_off(bed, off)?;
    well(bed, Talk::Tcp, &before)
}

fn segmentation(bed: &mut Bed) -> Ended {
    let before = joined(bed)?;
    well(bed, Talk::Tcp, &before)?;
    let stats = bed.nic.stats(&["a".into()], false)?;
    let mean = stats[0].tx_bytes / stats[0].tx_packets.max(1);
    if mean <= 1514 {
        return Err(Stop::NotSupported(format!(
            "frames of {mean} bytes on average: every segment is a frame of its own"
        )));
    }
    Ok(())
}

fn udp(bed: &mut Bed) -> Ended {
    let before = joined(bed)?;
    well(bed, Talk::Udp, &before)
}
