//! Requests about tracked connections.

use super::Nic;
use chanio_model::ct::{Conntrack, CtEntry};
use std::sync::Arc;

impl Nic {
    fn conntrack(&self) -> Arc<Conntrack> {
        self.datapath.with_config(|c| c.switch.conntrack().clone())
    }

    /// Connections of a zone, or of all, in no particular order. Workers go on meanwhile: one that
    /// comes or goes may be there or not.
    pub fn connections(&self, zone: Option<u16>) -> Vec<CtEntry> {
        let mut list = Vec::new();
        self.conntrack().visit(self.datapath.now(), |entry| {
            if zone.is_none_or(|zone| entry.original.zone == zone) {
                list.push(entry);
            }
        });
        list
    }

    /// Forget the connections of a zone, or all; how many there were.
    pub fn flush_connections(&self, zone: Option<u16>) -> u32 {
        self.conntrack().flush(zone)
    }
}
