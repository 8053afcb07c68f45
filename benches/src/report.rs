//! What is left of a comparison: a table to read and a file to compute with.

use crate::facts::Facts;
use crate::figures::{Row, Spread, rows};
use crate::rounds::{Options, Outcome};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

#[derive(Serialize)]
struct Results<'a> {
    machine: &'a Facts,
    options: &'a Options,
    rows: Vec<Row>,
    cases: &'a [Outcome],
}

/// Writes `results.md` and `results.json` to `dir`; the table.
///
/// # Errors
/// They cannot be written.
pub fn write(
    dir: &Path,
    facts: &Facts,
    options: &Options,
    outcomes: &[Outcome],
) -> std::io::Result<String> {
    std::fs::create_dir_all(dir)?;
    let text = markdown(facts, options, outcomes);
    std::fs::write(dir.join("results.md"), &text)?;
    let results = Results {
        machine: facts,
        options,
        rows: outcomes.iter().flat_map(rows).collect(),
        cases: outcomes,
    };
    let json = serde_json::to_string_pretty(&results)?;
    std::fs::write(dir.join("results.json"), json + "\n")?;
    Ok(text)
}

fn markdown(facts: &Facts, options: &Options, outcomes: &[Outcome]) -> String {
    let mut text = String::from("# chanio beside its peers\n\n");
    let packages: Vec<_> = facts
        .packages
        .iter()
        .map(|(n, v)| format!("{n} {v}"))
        .collect();
    let _ = writeln!(
        text,
        "Made by `benches/compare.sh` on {}: commit {}, {} ({} cpus, {} MiB), kernel {}; {}.\n",
        facts.date,
        facts.commit,
        facts.cpu,
        facts.cpus,
        facts.memory,
        facts.kernel,
        packages.join(", ")
    );
    let _ = writeln!(
        text,
        "The ratio is chanio to the peer within one round, over {} rounds of {} s, half as many in \
         the cases that make a plot; figures are \
         min / median / max. A sample counts when a cache line went from cpu to cpu and back in at \
         most {} ns before and after it, and no busy thread waited for its cpu, nor the host took \
         it, for more than {} % of it. Rows marked * had no round in which all counted: they say \
         little.\n",
        options.rounds,
        options.secs,
        options.far,
        100.0 * options.wait
    );
    text += "| case | peer | ratio | chanio | peer | unit | better | rounds |\n";
    text += "|---|---|---|---|---|---|---|---|\n";
    for outcome in outcomes {
        for row in rows(outcome) {
            text += &line(&row, outcome.rounds);
        }
    }
    text += "\nThe cases:\n\n";
    for outcome in outcomes {
        let dropped = outcome
            .samples
            .iter()
            .filter(|s| s.dropped.is_some())
            .count();
        let taken = outcome.samples.len();
        let _ = writeln!(
            text,
            "- `{}`: {}. {taken} samples taken, {dropped} dropped.",
            outcome.case, outcome.about
        );
        for failure in &outcome.failures {
            let first = failure.lines().next().unwrap_or_default();
            let _ = writeln!(text, "  - could not be made: {first}");
        }
    }
    text
}

fn line(row: &Row, rounds: usize) -> String {
    let mark = if row.dirty { " *" } else { "" };
    let better = if row.higher_is_better {
        "higher"
    } else {
        "lower"
    };
    let figures = format!(
        "{}{mark} | {} | {}",
        row.unsupported.clone().unwrap_or_else(|| shown(row.ratio)),
        shown(row.chanio),
        shown(row.peer_values)
    );
    format!(
        "| {} | {} | {figures} | {} | {better} | {}/{rounds} |\n",
        row.what, row.peer, row.unit, row.clean_rounds
    )
}

fn shown(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "-".into(),
        |s| {
            format!(
                "{} / {} / {}",
                number(s.min),
                number(s.median),
                number(s.max)
            )
        },
    )
}

/// With three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
