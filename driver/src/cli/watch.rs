//! Showing something again and again.

use super::Done;
use super::out::Out;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Columns that count, of which rates are shown.
const COUNTERS: [&str; 10] = [
    "PACKETS",
    "BYTES",
    "TX PACKETS",
    "TX BYTES",
    "RX PACKETS",
    "RX BYTES",
    "DROPPED",
    "TO HOST",
    "FROM HOST",
    "VALUE",
];
/// Columns that say nothing about which row it is, besides those.
const VARYING: [&str; 3] = ["IDLE (s)", "STATE", "ACTIVE"];

#[derive(Clone, Copy, clap::Args)]
pub struct Watch {
    /// Again and again, every so many seconds (0.1 to 3600, 1 if not given), with what counters grow
    /// by in a second; with --json one document a line
    #[arg(
        long,
        value_name = "SECS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1",
        value_parser = seconds
    )]
    watch: Option<Duration>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let secs = text
        .parse::<f64>()
        .ok()
        .filter(|secs| (0.1..=3600.0).contains(secs));
    secs.map(Duration::from_secs_f64)
        .ok_or_else(|| "not a number of seconds of 0.1 to 3600".to_owned())
}

impl Watch {
    /// Shows it once, or until somebody has seen enough.
    pub fn show(self, out: &mut Out, mut show: impl FnMut(&mut Out) -> Done) -> Done {
        let Some(every) = self.watch else {
            return show(out);
        };
        let mut next = Instant::now();
        loop {
            out.next_round();
            show(out)?;
            next = (next + every).max(Instant::now());
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
}

/// The counters of a round, by row.
#[derive(Default)]
pub struct Counted {
    at: Option<Instant>,
    rows: HashMap<String, Vec<u64>>,
}

impl Counted {
    /// Puts what counters have grown by in a second behind them, for rows that were there in the
    /// round before, and keeps this round for the next.
    pub fn add_rates(&mut self, heading: &[&str], rows: &mut [Vec<String>], now: Instant) {
        let before = std::mem::take(self);
        let secs = before.at.map(|at| now.duration_since(at).as_secs_f64());
        for row in rows {
            let cells = || heading.iter().zip(row.iter());
            let named = cells().filter(|(h, _)| !COUNTERS.contains(h) && !VARYING.contains(h));
            let name = named
                .map(|(_, cell)| cell.as_str())
                .collect::<Vec<_>>()
                .join("\n");
            let counters = cells().filter(|(h, _)| COUNTERS.contains(h));
            let counters: Vec<u64> = counters.filter_map(|(_, cell)| cell.parse().ok()).collect();
            if let (Some(secs), Some(before)) = (secs, before.rows.get(&name)) {
                let mut rates = counters.iter().zip(before);
                let counting = heading.iter().zip(row.iter_mut());
                let counting = counting
                    .filter(|(h, cell)| COUNTERS.contains(h) && cell.parse::<u64>().is_ok());
                for (_, cell) in counting {
                    if let Some((now, before)) = rates.next() {
                        let rate = now.saturating_sub(*before) as f64 / secs;
                        cell.push_str(&format!(" ({rate:.0}/s)"));
                    }
                }
            }
            self.rows.insert(name, counters);
        }
        self.at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_same_row_and_per_second() {
        let heading = ["NAME", "TX PACKETS", "TO HOST", "IDLE (s)"];
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        let mut counted = Counted::default();
        let begin = Instant::now();
        let mut rows = [row(["a", "100", "-", "1"]), row(["b", "5", "7", "-"])];
        counted.add_rates(&heading, &mut rows, begin);
        assert_eq!(rows[0], row(["a", "100", "-", "1"]));
        let mut rows = [
            row(["b", "15", "7", "0.5"]),
            row(["a", "300", "-", "2"]),
            row(["c", "1", "1", "-"]),
        ];
        counted.add_rates(&heading, &mut rows, begin + Duration::from_secs(2));
        assert_eq!(rows[0], row(["b", "15 (5/s)", "7 (0/s)", "0.5"]));
        assert_eq!(rows[1], row(["a", "300 (100/s)", "-", "2"]));
        assert_eq!(rows[2], row(["c", "1", "1", "-"]));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "-1", "NaN", "3601", "x"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
