//! Many random cases through both sides, and of those that differ the smallest that still does.

use super::case::{Case, case};
use super::compare::{Verdict, compare};
use super::kernel::Kernel;
use super::{eswitch, kernel_case};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// How many cases are in the guest at the same time.
const BATCH: usize = 50;

/// How often a case that differs is made smaller.
const SHRINKS: usize = 100;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Cases that were run.
    pub cases: usize,
    /// The same on both sides.
    pub equal: usize,
    /// The same but for intended differences, by name.
    pub intended: BTreeMap<&'static str, usize>,
    /// Frames that were sent.
    pub frames: usize,
    /// Frames that at least one rule was for.
    pub matched: usize,
    /// By the first word of a key or an action: in how many rules that were for some frame.
    pub words: BTreeMap<String, usize>,
    /// Cases that differ, made small, with how.
    pub different: Vec<String>,
}

/// Random cases that follow from a seed.
pub struct Draw(TestRunner);

impl Draw {
    /// From the first one on.
    pub fn new(seed: u64) -> Self {
        let config = Config {
            failure_persistence: None,
            ..Config::default()
        };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        Self(TestRunner::new_with_rng(config, rng))
    }

    /// The next one.
    pub fn case(&mut self) -> Case {
        let tree = case().new_tree(&mut self.0).expect("no conditions");
        tree.current()
    }
}

/// Runs `cases` cases made from `seed`; stops early after `enough` that differ.
pub fn explore(kernel: &mut Kernel, cases: usize, seed: u64, enough: usize) -> Tally {
    let mut draw = Draw::new(seed);
    let mut tally = Tally::default();
    while tally.cases < cases && tally.different.len() < enough {
        let some = BATCH.min(cases - tally.cases);
        let drawn: Vec<_> = (0..some).map(|_| draw.case()).collect();
        for (n, verdict) in judge(kernel, &drawn, &mut tally).into_iter().enumerate() {
            let Verdict::Different(how) = verdict else {
                continue;
            };
            if tally.different.len() < enough {
                let found = shrink(kernel, drawn[n].clone(), how);
                tally.different.push(found);
            }
        }
    }
    tally
}

fn judge(kernel: &mut Kernel, cases: &[Case], tally: &mut Tally) -> Vec<Verdict> {
    let verdicts = verdicts(kernel, cases, |case, run| {
        tally.frames += case.frames.len();
        tally.matched += run.hits.iter().filter(|hits| !hits.is_empty()).count();
        for rule in &case.rules {
            if run
                .hits
                .iter()
                .any(|hits| hits.contains(&(rule.chain, rule.prio)))
            {
                for part in rule.keys.iter().chain(&rule.actions) {
                    let word = part.split(' ').next().unwrap_or_default();
                    *tally.words.entry(word.to_owned()).or_default() += 1;
                }
            }
        }
    });
    for verdict in &verdicts {
        tally.cases += 1;
        match verdict {
            Verdict::Equal => tally.equal += 1,
            Verdict::Intended(names) => {
                for name in names {
                    *tally.intended.entry(name.name()).or_default() += 1;
                }
            }
            Verdict::Different(_) => {}
        }
    }
    verdicts
}

fn verdicts(
    kernel: &mut Kernel,
    cases: &[Case],
    mut look: impl FnMut(&Case, &eswitch::Run),
) -> Vec<Verdict> {
    let orders = cases.iter().map(|case| {
        let order = kernel_case::order(case);
        order.unwrap_or_else(|e| panic!("{e}: {}", show(case)))
    });
    let orders: Vec<_> = orders.collect();
    let lines: Vec<_> = orders.iter().map(|order| order.order.clone()).collect();
    let reports = kernel.run(&lines);
    let sides = cases.iter().zip(orders.iter().zip(&reports));
    sides
        .map(|(case, (order, report))| {
            let run = eswitch::run(case);
            look(case, &run);
            compare(case, &run, &order.outcome(report))
        })
        .collect()
}

/// A case from which nothing can be taken without both sides agreeing, as text.
fn shrink(kernel: &mut Kernel, mut case: Case, mut how: String) -> String {
    for _ in 0..SHRINKS {
        let mut smaller = case.smaller();
        // Without some keys tc has no words for others.
        smaller.retain(|case| kernel_case::order(case).is_ok());
        let verdicts = verdicts(kernel, &smaller, |_, _| ());
        let found = smaller
            .into_iter()
            .zip(verdicts)
            .find_map(|(case, verdict)| match verdict {
                Verdict::Different(how) => Some((case, how)),
                _ => None,
            });
        match found {
            Some(found) => (case, how) = found,
            None => break,
        }
    }
    format!("{}{how}", show(&case))
}

/// A case as text, in the switch's words and in tc's.
pub fn show(case: &Case) -> String {
    let mut text = String::new();
    for rule in &case.rules {
        text.push_str(&format!("rule: {}\n", rule.text()));
        match super::tc::rule(&rule.text()) {
            Ok(tc) => text.push_str(&format!("  tc: {}\n", tc.line)),
            Err(e) => text.push_str(&format!("  tc: {e}\n")),
        }
    }
    for frame in &case.frames {
        text.push_str(&format!("frame: {frame:?}\n"));
    }
    text
}

impl Display for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} cases: {} equal, {} different, intended differences {:?}; {} of {} frames matched",
            self.cases,
            self.equal,
            self.different.len(),
            self.intended,
            self.matched,
            self.frames
        )?;
        write!(f, "in rules that matched: {:?}", self.words)?;
        for (n, different) in self.different.iter().enumerate() {
            write!(f, "\n---- {}\n{different}", n + 1)?;
        }
        Ok(())
    }
}
