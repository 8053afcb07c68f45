//! One case, and what became of it on either side.

use super::frame::{Frame, carried_frame, frame};
use super::rule::{Rule, rule, whole_tunnels};
use super::tracked::tracked;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Ports that take part: the uplink and three channels.
pub const PORTS: usize = 4;

/// How many rules a case has at most.
const MAX_RULES: u16 = 7;

/// Rules, and frames sent one after the other.
#[derive(Clone, Debug)]
pub struct Case {
    /// In the order in which they are added.
    pub rules: Vec<Rule>,
    /// In the order in which they are sent.
    pub frames: Vec<Frame>,
}

/// What became of a case. Rules are named by chain and priority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Rules that were not taken, with what was said about it.
    pub refused: BTreeMap<(u32, u16), String>,
    /// For each frame what came out: `p` and the number of the port, or `r` and that of the
    /// representor; in order where it is the same netdev.
    pub frames: Vec<Vec<(String, Vec<u8>)>>,
    /// Of each rule that was taken, for each of its actions what it saw.
    pub seen: BTreeMap<(u32, u16), Vec<Seen>>,
}

/// What an action saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Packets.
    pub packets: u64,
    /// Bytes as tc counts them at ingress: without the Ethernet header, and without the outermost
    /// tag, which the kernel takes off first.
    pub bytes: u64,
}

/// A random case.
pub fn case() -> impl Strategy<Value = Case> {
    prop_oneof![
        4 => with_rules(vec(frame(PORTS), 1..8).boxed(), true),
        2 => with_rules(carried().boxed(), false),
        2 => tracked().prop_map(|(rules, frames)| Case { rules, frames }),
    ]
}

/// Some in tunnels, some that the uplink does not receive.
fn carried() -> impl Strategy<Value = Vec<Frame>> {
    let other = frame(PORTS - 1).prop_map(|frame| Frame {
        port: frame.port + 1,
        ..frame
    });
    vec(prop_oneof![3 => carried_frame(), 1 => other], 1..8)
}

/// Frames with rules for them, and for others if they may be for `any`.
fn with_rules(frames: BoxedStrategy<Vec<Frame>>, any: bool) -> impl Strategy<Value = Case> {
    frames.prop_flat_map(move |frames| {
        let rule = |n| proptest::option::weighted(0.7, rule(PORTS, n, frames.clone(), any));
        let rules: Vec<_> = (0..MAX_RULES).map(rule).collect();
        (rules, Just(frames)).prop_map(|(rules, frames)| {
            let mut case = Case {
                rules: rules.into_iter().flatten().collect(),
                frames,
            };
            case.rules.extend(whole_tunnels(&case.frames));
            if case.rules.iter().any(Rule::rewrites) {
                // tc's csum loses what is shorter than its headers say.
                case.frames.iter_mut().for_each(|frame| frame.cut = None);
            }
            case
        })
    })
}

impl Case {
    /// The case with one thing less, in every way there is.
    pub fn smaller(&self) -> Vec<Case> {
        let mut all = Vec::new();
        let mut with = |change: &dyn Fn(&mut Case)| {
            let mut case = self.clone();
            change(&mut case);
            all.push(case);
        };
        for n in (0..self.rules.len()).filter(|n| !self.rules[*n].kept) {
            with(&|case| drop(case.rules.remove(n)));
        }
        for n in 0..self.frames.len() {
            if self.frames.len() > 1 {
                with(&|case| drop(case.frames.remove(n)));
            }
        }
        for (n, rule) in self.rules.iter().enumerate() {
            for action in 0..rule.actions.len() {
                if rule.actions.len() > 1 {
                    with(&|case| drop(case.rules[n].actions.remove(action)));
                }
            }
            for key in (0..rule.keys.len()).filter(|key| !rule.needs(&rule.keys[*key])) {
                with(&|case| drop(case.rules[n].keys.remove(key)));
            }
        }
        for (n, frame) in self.frames.iter().enumerate() {
            if frame.cut.is_some() {
                with(&|case| case.frames[n].cut = None);
            }
            if frame.unfinished {
                with(&|case| case.frames[n].unfinished = false);
            }
            for tag in 0..frame.tags.len() {
                with(&|case| {
                    case.frames[n].tags.remove(tag);
                });
            }
        }
        all
    }
}
