//! From samples to rows: each is the ratio of chanio to a peer in the same round.

use crate::rounds::{Outcome, Sample};
use serde::Serialize;

/// Of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The one in the middle, or between the two in the middle.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of `values`, if there are any.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[half]
        } else {
            (values[half - 1] + values[half]) / 2.0
        };
        Some(Self { min, median, max })
    }
}

/// A line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The case, with the metric where there are several.
    pub what: String,
    /// Of the values.
    pub unit: &'static str,
    /// Whether a ratio above 1 speaks for chanio.
    pub higher_is_better: bool,
    /// Compared with whom.
    pub peer: &'static str,
    /// chanio to peer, over the rounds that have both.
    pub ratio: Option<Spread>,
    /// Its values in the rounds that count.
    pub chanio: Option<Spread>,
    /// The peer's.
    pub peer_values: Option<Spread>,
    /// Rounds with a clean sample of both.
    pub clean_rounds: usize,
    /// No round was clean: the figures are from the samples that were dropped.
    pub dirty: bool,
    /// Who cannot do this, and why.
    pub unsupported: Option<String>,
}

/// The lines of a case.
pub fn rows(outcome: &Outcome) -> Vec<Row> {
    let mut rows = Vec::new();
    let (chanio, peers) = outcome.contenders.split_first().expect("chanio is there");
    for (index, metric) in outcome.metrics.iter().enumerate() {
        for peer in peers {
            let pairs = |dropped_too: bool| -> Vec<(f64, f64)> {
                let rounds = 1..=outcome.samples.iter().map(|s| s.round).max().unwrap_or(0);
                let value = |who, round| value(outcome, who, round, index, dropped_too);
                let pair = |round| Some((value(*chanio, round)?, value(*peer, round)?));
                rounds.filter_map(pair).collect()
            };
            let clean = pairs(false);
            let dirty = clean.is_empty();
            let used = if dirty { pairs(true) } else { clean.clone() };
            let no = |who| {
                let why = outcome.unsupported.get(who)?;
                Some(format!("{who}: {why}"))
            };
            let unsupported = no(*chanio).or_else(|| no(*peer));
            let figures = |who, of: fn(&(f64, f64)) -> f64| match unsupported {
                None => Spread::of(used.iter().map(of).collect()),
                // Who can do it is shown also beside one who cannot.
                Some(_) => of_contender(outcome, who, index),
            };
            let (chanio_values, peer_values) = (figures(chanio, |p| p.0), figures(peer, |p| p.1));
            rows.push(Row {
                what: format!("{} {}", outcome.case, metric.name)
                    .trim()
                    .to_owned(),
                unit: metric.unit,
                higher_is_better: metric.higher_is_better,
                peer,
                ratio: Spread::of(used.iter().map(|(a, b)| a / b).collect()),
                chanio: chanio_values,
                peer_values,
                clean_rounds: clean.len(),
                dirty: dirty && !used.is_empty(),
                unsupported,
            });
        }
    }
    rows
}

/// The values of one contender on its own, over the rounds: of clean samples if there are any.
pub fn of_contender(outcome: &Outcome, contender: &str, metric: usize) -> Option<Spread> {
    let last = outcome.samples.iter().map(|s| s.round).max()?;
    let values = |dropped_too| -> Vec<f64> {
        let one = |round| value(outcome, contender, round, metric, dropped_too);
        (1..=last).filter_map(one).collect()
    };
    Spread::of(values(false)).or_else(|| Spread::of(values(true)))
}

/// The median of the windows of one contender in one round.
fn value(
    outcome: &Outcome,
    contender: &str,
    round: usize,
    metric: usize,
    dropped_too: bool,
) -> Option<f64> {
    let of_run = |s: &&Sample| s.contender == contender && s.round == round;
    let counts = |s: &&Sample| dropped_too || s.dropped.is_none();
    let samples = outcome.samples.iter().filter(of_run).filter(counts);
    Some(Spread::of(samples.map(|s| s.values[metric]).collect())?.median)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::MPPS;
    use std::collections::BTreeMap;

    fn sample(contender: &'static str, round: usize, value: f64, clean: bool) -> Sample {
        Sample {
            contender,
            round,
            values: vec![value],
            ping_pong: [50.0; 2],
            wait: 0.0,
            steal: 0.0,
            backend_cpu: 1.0,
            others: 0.0,
            dropped: (!clean).then(|| "far".to_owned()),
        }
    }

    fn outcome(samples: Vec<Sample>) -> Outcome {
        Outcome {
            case: "c".into(),
            about: String::new(),
            series: None,
            rounds: 3,
            metrics: vec![MPPS],
            contenders: vec!["chanio", "peer"],
            samples,
            unsupported: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let rows = rows(&outcome(vec![
            sample("chanio", 1, 4.0, true),
            sample("peer", 1, 2.0, true),
            sample("peer", 2, 4.0, true),
            sample("chanio", 2, 4.0, true),
            // No partner: counts nowhere.
            sample("chanio", 3, 100.0, true),
            sample("peer", 3, 1.0, false),
        ]));
        let spread = |min, median, max| Some(Spread { min, median, max });
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].ratio, spread(1.0, 1.5, 2.0));
        assert_eq!(rows[0].chanio, spread(4.0, 4.0, 4.0));
        assert_eq!((rows[0].clean_rounds, rows[0].dirty), (2, false));
    }

    #[test]
    fn dropped_samples_are_shown_only_when_there_is_nothing_else() {
        let rows = rows(&outcome(vec![
            sample("chanio", 1, 4.0, false),
            sample("peer", 1, 2.0, true),
        ]));
        assert_eq!(rows[0].ratio.unwrap().median, 2.0);
        assert_eq!((rows[0].clean_rounds, rows[0].dirty), (0, true));
    }

    #[test]
    fn the_median_of_two_is_between_them() {
        assert_eq!(Spread::of(vec![3.0, 1.0]).unwrap().median, 2.0);
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
