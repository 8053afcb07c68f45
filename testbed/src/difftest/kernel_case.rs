//! A case through tc flower: as an order to the guest, and its report as an outcome.

use super::case::{Case, Outcome, Seen};
use super::protocol::{Order, Report, Sent, from_hex, to_hex};
use super::rule::Rule;
use super::tc::{self, TcError, TcRule};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of virtio-net header in front of each frame.
const VNET_HDR: usize = 12;

/// An order to the guest.
#[derive(Clone, Debug)]
pub struct KernelCase {
    /// What it says.
    pub order: Order,
    rules: Vec<((u32, u16), TcRule)>,
}

/// A rule's text with zones and indices of police that no other order has: what was in them is not
/// forgotten at once.
pub(super) fn apart(text: &str, order: u32) -> String {
    let mut before = "";
    let words = text.split(' ').map(|word| {
        let number = word.parse::<u32>().ok();
        let number = match (std::mem::replace(&mut before, word), number) {
            ("zone" | "ct_zone", Some(zone)) => Some(order % 16_000 * 4 + zone),
            ("index", Some(index)) => Some(order * 4 + index),
            _ => None,
        };
        number.map_or(word.to_owned(), |number| number.to_string())
    });
    words.collect::<Vec<_>>().join(" ")
}

/// How many cases were said so far.
static ORDERS: AtomicU32 = AtomicU32::new(0);

/// Says a case in tc's words.
pub fn order(case: &Case) -> Result<KernelCase, TcError> {
    let mut rules = Vec::new();
    let number = ORDERS.fetch_add(1, Ordering::Relaxed);
    for rule in &case.rules {
        let text = apart(&rule.text(), number);
        rules.push(((rule.chain, rule.prio), tc::rule(&text)?));
    }
    let block = |rule: &Rule| if rule.is_for_tunnels() { 2 } else { 1 };
    let blocks: BTreeSet<_> = case.rules.iter().map(block).collect();
    let chains: BTreeSet<_> = case.rules.iter().map(|r| (block(r), r.chain)).collect();
    let frames = case.frames.iter().map(|frame| Sent {
        port: frame.port,
        hex: to_hex(&[&frame.header()[..], &frame.bytes()].concat()),
        put_aside: frame.outer.is_some(),
    });
    let order = Order {
        setup: rules.iter().map(|(_, rule)| rule.line.clone()).collect(),
        frames: frames.collect(),
        show: blocks
            .iter()
            .map(|n| format!("filter show block {n}"))
            .collect(),
        cleanup: chains
            .iter()
            .map(|(block, n)| format!("filter del block {block} chain {n}"))
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
        // One list for each block.
        let shown: Result<Vec<Vec<Value>>, _> = serde_json::Deserializer::from_str(&report.shown)
            .into_iter()
            .collect();
        let shown = shown.unwrap_or_else(|e| panic!("tc's JSON: {e}: {report:#?}"));
        let filters = shown.iter().flatten();
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
