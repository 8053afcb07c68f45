//! Statistics under the names that the driver gives them.

use super::Netdev;
use crate::netlink::played::{Played, Role};
use crate::nic::spec::Count;
use chanio_model::VportId;
use nix::errno::Errno;

/// What each queue pair counts.
const PER_QUEUE: [(&str, &str); 4] = [
    ("rx", "packets"),
    ("rx", "bytes"),
    ("tx", "packets"),
    ("tx", "bytes"),
];

impl Played {
    /// The names, in the order of the values. Of mlx5 as in mellanox/mlx5/core/en_stats.c
    /// (sw_stats_desc, rq_stats_desc, sq_stats_desc) and en_rep.c (vport_rep_stats_desc), of
    /// Intel's as in ice_ethtool.c (ice_gstrings_vsi_stats) and iavf's.
    pub(super) fn stat_names(&self, netdev: &Netdev) -> Vec<String> {
        let mlx5 = self.vendor.driver == "mlx5_core";
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        match netdev.role {
            Role::Function(_) => {
                let mut names: Vec<String> =
                    owned(&["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"]);
                for queue in 0..netdev.most {
                    for (way, what) in PER_QUEUE {
                        names.push(match mlx5 {
                            true => format!("{way}{queue}_{what}"),
                            false => format!("{way}_queue_{queue}_{what}"),
                        });
                    }
                }
                names
            }
            // What the function sends is what its representor's vport receives.
            _ if mlx5 => owned(&[
                "vport_rx_packets",
                "vport_rx_bytes",
                "vport_tx_packets",
                "vport_tx_bytes",
                "rx_packets",
                "rx_bytes",
                "tx_packets",
                "tx_bytes",
            ]),
            _ => owned(&["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"]),
        }
    }

    pub(super) fn stat_values(&self, netdev: &Netdev) -> Result<Vec<u64>, Errno> {
        let vport = match netdev.role {
            Role::Uplink => VportId::UPLINK,
            Role::Other(vport) => vport,
            Role::Representor(port) | Role::Function(port) => {
                self.functions.get(port).ok_or(Errno::ENODEV)?.vport
            }
        };
        let stats = self.nic.stats_of(vport).ok_or(Errno::ENODEV)?;
        let pair = |count: &Count| [count.packets, count.bytes];
        let mut values = Vec::new();
        match netdev.role {
            Role::Function(_) => {
                values.extend(pair(&stats.rx));
                values.extend(pair(&stats.tx));
                for queue in 0..usize::from(netdev.most) {
                    let queue = stats.queues.get(queue).cloned().unwrap_or_default();
                    values.extend(pair(&queue.rx));
                    values.extend(pair(&queue.tx));
                }
            }
            _ => {
                if self.vendor.driver == "mlx5_core" {
                    values.extend(pair(&stats.tx));
                    values.extend(pair(&stats.rx));
                }
                values.extend(pair(&stats.representor_rx));
                values.extend(pair(&stats.representor_tx));
            }
        }
        Ok(values)
    }
}
