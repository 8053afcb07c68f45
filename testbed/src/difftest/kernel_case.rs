//! A case through tc flower: as an order to the guest, and its report as an outcome.

use super::case::{Case, Outcome, Seen};
use super::protocol::{Order, Report, Sent, from_hex, to_hex};
use super::tc::{self, TcError, TcRule};
use serde_json::Value;
use std::collections::BTreeSet;

/// Bytes of virtio-net header in front of each frame.
const VNET_HDR: usize = 12;

/// An order to the guest.
#[derive(Clone, Debug)]
pub struct KernelCase {
    /// What it says.
    pub order: Order,
    rules: Vec<((u32, u16), TcRule)>,
}

/// Says a case in tc's words.
pub fn order(case: &Case) -> Result<KernelCase, TcError> {
    let mut rules = Vec::new();
    for rule in &case.rules {
        rules.push(((rule.chain, rule.prio), tc::rule(&rule.text())?));
    }
    let chains: BTreeSet<_> = case.rules.iter().map(|rule| rule.chain).collect();
    let frames = case.frames.iter().map(|frame| Sent {
        port: frame.port,
        hex: to_hex(&[&frame.header()[..], &frame.bytes()].concat()),
    });
    let order = Order {
        setup: rules.iter().map(|(_, rule)| rule.line.clone()).collect(),
        frames: frames.collect(),
        show: vec!["filter show block 1".into()],
        cleanup: chains
            .iter()
            .map(|n| format!("filter del block 1 chain {n}"))
            .collect(),
    };
    Ok(KernelCase { order, rules })
}

impl KernelCase {
    /// What the report tells.
    ///
    /// # Panics
    /// If it does not read as one of tc's.
    pub fn outcome(&self, report: &Report) -> Outcome {
        let mut outcome = Outcome {
            frames: report
                .frames
                .iter()
                .map(|got| {
                    let frames = got.iter().map(|got| {
                        let mut bytes = from_hex(&got.hex).expect("hex");
                        (got.netdev.clone(), bytes.split_off(VNET_HDR))
                    });
                    let mut frames: Vec<_> = frames.collect();
                    frames.sort_by(|a, b| a.0.cmp(&b.0));
                    frames
                })
                .collect(),
            ..Outcome::default()
        };
        let shown: Value = serde_json::from_str(&report.shown)
            .unwrap_or_else(|e| panic!("tc's JSON: {e}: {report:#?}"));
        let filters = shown.as_array().into_iter().flatten();
        // Each priority comes twice, the second time with the filter.
        let filters: Vec<_> = filters
            .filter(|filter| filter.get("options").is_some())
            .collect();
        for (name, rule) in &self.rules {
            let of = |filter: &&&Value| {
                filter["chain"].as_u64() == Some(name.0.into())
                    && filter["pref"].as_u64() == Some(name.1.into())
            };
            let Some(filter) = filters.iter().find(of) else {
                outcome.refused.insert(*name, report.refused.clone());
                continue;
            };
            let seen = rule.actions.iter().map(|at| {
                let stats = &filter["options"]["actions"][*at]["stats"];
                let number = |key: &str| {
                    stats[key]
                        .as_u64()
                        .unwrap_or_else(|| panic!("{key} in {filter:#}"))
                };
                Seen {
                    packets: number("packets"),
                    bytes: number("bytes"),
                }
            });
            outcome.seen.insert(*name, seen.collect());
        }
        outcome
    }
}
