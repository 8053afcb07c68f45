//! What the demo's two sides counted.

use chanio_emu::nic::Nic;
use chanio_emu::nic::spec::VportStats;
use chanio_model::DropReason;
use comfy_table::{CellAlignment, Table, presets};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The figures of a run.
pub struct Report {
    channels: usize,
    drivers: usize,
    rules: usize,
    created: Duration,
    connected: Duration,
    talked: Duration,
    sent: u64,
    received: u64,
    received_bytes: u64,
    rule_packets: u64,
    entered: u64,
    delivered: u64,
    left_in_rings: u64,
    drops: BTreeMap<DropReason, u64>,
    rss_kib: Option<u64>,
}

impl Report {
    pub(super) fn new(
        channels: usize,
        drivers: usize,
        rules: usize,
        created: Duration,
        connected: Duration,
    ) -> Self {
        Self {
            channels,
            drivers,
            rules,
            created,
            connected,
            talked: Duration::ZERO,
            sent: 0,
            received: 0,
            received_bytes: 0,
            rule_packets: 0,
            entered: 0,
            delivered: 0,
            left_in_rings: 0,
            drops: BTreeMap::new(),
            rss_kib: None,
        }
    }

    /// Counts a frame that a driver sent, if it did; and says whether.
    pub(super) fn sent(&mut self, accepted: bool) -> bool {
        self.sent += u64::from(accepted);
        accepted
    }

    /// Counts a frame that a driver received.
    pub(super) fn received(&mut self, bytes: usize) {
        self.received += 1;
        self.received_bytes += bytes as u64;
    }

    /// Asks the NIC for its side of the story.
    pub(super) fn finish(&mut self, talked: Duration, nic: &Nic) {
        self.talked = talked;
        self.rss_kib = rss_kib();
        self.rule_packets = nic.rules().iter().map(|r| r.packets).sum();
        for VportStats { tx, rx, drops, .. } in nic.stats() {
            self.entered += tx.packets;
            self.delivered += rx.packets;
            for (reason, packets) in drops {
                *self.drops.entry(reason).or_default() += packets;
            }
        }
        // What the driver that never looks still has in its ring.
        self.left_in_rings = self.delivered.saturating_sub(self.received);
    }

    /// Whether every frame sent entered the switch, and every frame delivered was received or
    /// waits in the ring of the one driver that takes none.
    pub fn agrees(&self) -> bool {
        self.sent == self.entered && self.left_in_rings <= 64 && self.received <= self.delivered
    }
}

/// Resident memory of this process, KiB.
fn rss_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            channels,
            drivers,
            rules,
            created,
            connected,
            talked,
            ..
        } = self;
        writeln!(
            f,
            "{channels} channels created in {:.2} s, {drivers} drivers attached in {:.2} s, \
             {rules} flow rules, {:.1} s of traffic",
            created.as_secs_f64(),
            connected.as_secs_f64(),
            talked.as_secs_f64(),
        )?;
        if drivers < channels {
            writeln!(
                f,
                "(the limit of open files leaves room for no more drivers: see ulimit -Hn)"
            )?;
        }
        if let Some(kib) = self.rss_kib {
            let each = kib as f64 / *channels as f64;
            writeln!(
                f,
                "memory, drivers and NIC together: {} MiB ({each:.1} KiB a channel)",
                kib / 1024
            )?;
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["", "packets", "what it means"]);
        let mut row = |what: &str, packets: u64, meaning: &str| {
            table.add_row([what, &packets.to_string(), meaning]);
        };
        row("sent by drivers", self.sent, "");
        row(
            "entered the switch",
            self.entered,
            "as the channels counted it",
        );
        row(
            "matched a rule",
            self.rule_packets,
            "as the rules counted it",
        );
        row(
            "delivered",
            self.delivered,
            "copies of mirror rules count as well",
        );
        row(
            "received by drivers",
            self.received,
            &format!("{} bytes", self.received_bytes),
        );
        row(
            "left in a ring",
            self.left_in_rings,
            "one driver takes nothing out",
        );
        for (reason, packets) in &self.drops {
            row(
                &format!("dropped: {}", reason.name()),
                *packets,
                reason.explain(),
            );
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        let rate = self.entered as f64 / self.talked.as_secs_f64().max(1e-9) / 1e6;
        let verdict = if self.agrees() {
            "agree"
        } else {
            "DO NOT AGREE"
        };
        write!(
            f,
            "{rate:.2} million packets per second in; drivers' and NIC's counters {verdict}"
        )
    }
}
