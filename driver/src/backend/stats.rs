//! Counters of a port, out of those of its netdev.

use super::ports::Port;
use crate::nic::{RepresentorStats, VportStats};
use std::collections::BTreeMap;

/// Counters of a channel without a representor, as its own netdev has them.
pub(super) fn of_netdev(port: &Port) -> VportStats {
    let stats = &port.link.stats;
    VportStats {
        vport: port.vport.0,
        name: port.name.clone(),
        tx_packets: stats.tx_packets,
        tx_bytes: stats.tx_bytes,
        rx_packets: stats.rx_packets,
        rx_bytes: stats.rx_bytes,
        drops: BTreeMap::new(),
        representor: None,
        queues: BTreeMap::new(),
        explanations: BTreeMap::new(),
    }
}

/// Counters of a port that only its representor counts: what the channel sends is received there.
pub(super) fn of_representor(port: &Port) -> VportStats {
    let stats = &port.link.stats;
    let reasons = [
        (
            "representor_rx_dropped",
            stats.rx_dropped,
            "the host had no room for it",
        ),
        (
            "representor_tx_dropped",
            stats.tx_dropped,
            "the channel had no room for it",
        ),
        ("representor_rx_errors", stats.rx_errors, "it was damaged"),
        (
            "representor_tx_errors",
            stats.tx_errors,
            "it could not be sent",
        ),
    ];
    let lost = reasons.iter().filter(|(_, count, _)| *count > 0);
    let representor = RepresentorStats {
        name: port.link.name.clone(),
        rx_packets: stats.rx_packets,
        rx_bytes: stats.rx_bytes,
        tx_packets: stats.tx_packets,
        tx_bytes: stats.tx_bytes,
    };
    VportStats {
        vport: port.vport.0,
        name: port.name.clone(),
        tx_packets: stats.rx_packets,
        tx_bytes: stats.rx_bytes,
        rx_packets: stats.tx_packets,
        rx_bytes: stats.tx_bytes,
        drops: lost
            .clone()
            .map(|(name, count, _)| ((*name).into(), *count))
            .collect(),
        representor: Some(representor),
        queues: BTreeMap::new(),
        explanations: lost
            .map(|(name, _, why)| ((*name).into(), (*why).into()))
            .collect(),
    }
}
