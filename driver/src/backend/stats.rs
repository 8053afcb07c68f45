//! Counters of a port, out of those of its netdevs.

use super::link::Link;
use super::ports::Port;
use crate::nic::{RepresentorStats, VportStats};
use std::collections::BTreeMap;

/// Whose losses they are, and where the other side of it is.
#[derive(Clone, Copy)]
enum Of {
    Representor,
    Channel,
}

/// What a netdev has lost: under which name, and why.
fn lost(link: &Link, of: Of) -> impl Iterator<Item = (String, u64, &'static str)> {
    let stats = &link.stats;
    let (whose, no_room) = match of {
        Of::Representor => (
            "representor",
            [
                "the host had no room for it",
                "the channel had no room for it",
            ],
        ),
        Of::Channel => (
            "channel",
            ["the channel had no room for it", "the NIC did not take it"],
        ),
    };
    let reasons = [
        ("rx_dropped", stats.rx_dropped, no_room[0]),
        ("tx_dropped", stats.tx_dropped, no_room[1]),
        ("rx_errors", stats.rx_errors, "it was damaged"),
        ("tx_errors", stats.tx_errors, "it could not be sent"),
    ];
    let some = reasons.into_iter().filter(|(_, count, _)| *count > 0);
    some.map(move |(name, count, why)| (format!("{whose}_{name}"), count, why))
}

fn representor(port: &Port) -> RepresentorStats {
    let stats = &port.link.stats;
    RepresentorStats {
        name: port.link.name.clone(),
        rx_packets: stats.rx_packets,
        rx_bytes: stats.rx_bytes,
        tx_packets: stats.tx_packets,
        tx_bytes: stats.tx_bytes,
    }
}

/// Counters of a channel as its own netdev has them, and of its representor if it has one.
pub(super) fn of_netdev(port: &Port, own: &Link, has_representor: bool) -> VportStats {
    let stats = &own.stats;
    let mut losses: Vec<_> = lost(own, Of::Channel).collect();
    if has_representor {
        losses.extend(lost(&port.link, Of::Representor));
    }
    VportStats {
        vport: port.vport.0,
        name: port.name.clone(),
        tx_packets: stats.tx_packets,
        tx_bytes: stats.tx_bytes,
        rx_packets: stats.rx_packets,
        rx_bytes: stats.rx_bytes,
        drops: drops(&losses),
        representor: has_representor.then(|| representor(port)),
        queues: BTreeMap::new(),
        explanations: explanations(losses),
    }
}

/// Counters of a port that only its representor counts: what the channel sends is received there,
/// except for what hardware sends elsewhere.
pub(super) fn of_representor(port: &Port) -> VportStats {
    let stats = &port.link.stats;
    let losses: Vec<_> = lost(&port.link, Of::Representor).collect();
    VportStats {
        vport: port.vport.0,
        name: port.name.clone(),
        tx_packets: stats.rx_packets,
        tx_bytes: stats.rx_bytes,
        rx_packets: stats.tx_packets,
        rx_bytes: stats.tx_bytes,
        drops: drops(&losses),
        representor: Some(representor(port)),
        queues: BTreeMap::new(),
        explanations: explanations(losses),
    }
}

fn drops(losses: &[(String, u64, &'static str)]) -> BTreeMap<String, u64> {
    let counts = losses.iter().map(|(name, count, _)| (name.clone(), *count));
    counts.collect()
}

fn explanations(losses: Vec<(String, u64, &'static str)>) -> BTreeMap<String, String> {
    let whys = losses.into_iter().map(|(name, _, why)| (name, why.into()));
    whys.collect()
}
