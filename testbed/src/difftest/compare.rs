//! Whether both sides did the same, and where they are meant not to.

use super::case::{Case, Outcome};
use super::eswitch::Run;
use std::collections::BTreeSet;

/// Where the eswitch differs from tc in software on purpose. Each is told in
/// `docs/differences.md` under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Intended {
    /// tc in software loses what it traps; a switch gives it to the host.
    Trap,
}

impl Intended {
    /// All of them.
    pub const ALL: [Intended; 1] = [Intended::Trap];

    /// The name that reports and the table use.
    pub fn name(self) -> &'static str {
        match self {
            Intended::Trap => "trap",
        }
    }

    /// What came out of the kernel, were this the only difference: `None` if it does not explain
    /// anything about this frame.
    fn explain(self, case: &Case, run: &Run, frame: usize) -> Option<Vec<(String, Vec<u8>)>> {
        let came = &run.outcome.frames[frame];
        match self {
            Intended::Trap => {
                let last = case
                    .rules
                    .iter()
                    .filter(|rule| run.hits[frame].contains(&(rule.chain, rule.prio)));
                let trapped = last
                    .filter(|rule| rule.actions.last().is_some_and(|a| a == "trap"))
                    .count()
                    > 0;
                let representor = format!("r{}", case.frames[frame].port);
                let kept = came.iter().filter(|(netdev, _)| *netdev != representor);
                trapped.then(|| kept.cloned().collect())
            }
        }
    }
}

/// What a comparison says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same, byte for byte and count for count.
    Equal,
    /// The same but for these.
    Intended(BTreeSet<Intended>),
    /// Not the same, and how.
    Different(String),
}

/// Compares.
pub fn compare(case: &Case, run: &Run, kernel: &Outcome) -> Verdict {
    let ours = &run.outcome;
    let mut intended = BTreeSet::new();
    if ours.refused.keys().ne(kernel.refused.keys()) {
        let (ours, kernel) = (&ours.refused, &kernel.refused);
        return Verdict::Different(format!(
            "refused by the eswitch {ours:#?}\nby tc {kernel:#?}"
        ));
    }
    for (n, (ours, theirs)) in ours.frames.iter().zip(&kernel.frames).enumerate() {
        if ours == theirs {
            continue;
        }
        let reason = Intended::ALL.into_iter().find(|reason| {
            reason
                .explain(case, run, n)
                .is_some_and(|expected| expected == *theirs)
        });
        match reason {
            Some(reason) => intended.insert(reason),
            None => {
                let sent = (String::from("sent"), case.frames[n].bytes());
                return Verdict::Different(format!(
                    "frame {n}: {}by the eswitch:\n{}by tc:\n{}",
                    show(&[sent]),
                    show(ours),
                    show(theirs)
                ));
            }
        };
    }
    for (name, seen) in &ours.seen {
        let theirs = kernel.seen.get(name);
        let same = theirs.is_some_and(|theirs| theirs.iter().zip(seen).all(|(a, b)| a == b));
        if !same {
            return Verdict::Different(format!(
                "counters of the rule of chain {}, prio {}: {seen:?}\nby tc: {theirs:?}",
                name.0, name.1
            ));
        }
    }
    match intended.is_empty() {
        true => Verdict::Equal,
        false => Verdict::Intended(intended),
    }
}

fn show(frames: &[(String, Vec<u8>)]) -> String {
    let lines = frames.iter().map(|(netdev, bytes)| {
        format!(
            "  {netdev} {} bytes {}\n",
            bytes.len(),
            super::protocol::to_hex(bytes)
        )
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_documented() {
        let table = include_str!("../../../docs/differences.md");
        for difference in Intended::ALL {
            let row = format!("| `{}` |", difference.name());
            assert!(table.contains(&row), "{row} is missing");
        }
    }
}
