//! Whether both sides did the same, and where they are meant not to.

use super::case::{Case, Outcome};
use super::eswitch::Run;
use super::rule::Rule;
use super::tunnel::{settle, without_gre6_ecn};
use std::collections::BTreeSet;

/// Where the eswitch differs from tc in software on purpose. Each is told in
/// `docs/differences.md` under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Intended {
    /// tc in software loses what it traps; a switch gives it to the host.
    Trap,
    /// tc's csum makes a checksum where UDP over IPv6 has none.
    Udp6NoChecksum,
    /// tc's csum leaves fragments over IPv6 alone.
    Ip6Fragment,
    /// GRE's netdev over IPv6 does not tell on the outside that congestion can be marked.
    Gre6Ecn,
}

/// What came out for one frame.
type Came = Vec<(String, Vec<u8>)>;

impl Intended {
    /// All of them.
    pub const ALL: [Intended; 4] = [
        Intended::Trap,
        Intended::Udp6NoChecksum,
        Intended::Ip6Fragment,
        Intended::Gre6Ecn,
    ];

    /// The name that reports and the table use.
    pub fn name(self) -> &'static str {
        match self {
            Intended::Trap => "trap",
            Intended::Udp6NoChecksum => "udp6_no_checksum",
            Intended::Ip6Fragment => "ip6_fragment",
            Intended::Gre6Ecn => "gre6_ecn",
        }
    }

    /// What comes out of tc for frame `n`, told from what came out of the eswitch; `None` if that
    /// is the same.
    fn explain(self, case: &Case, run: &Run, n: usize, came: &Came) -> Option<Came> {
        let mut met = case.rules.iter();
        let mut any = |is: fn(&Rule) -> bool| {
            met.any(|rule| run.hits[n].contains(&(rule.chain, rule.prio)) && is(rule))
        };
        match self {
            Intended::Trap => {
                let trapped = any(|rule| rule.actions.last().is_some_and(|last| last == "trap"));
                let representor = format!("r{}", case.frames[n].port);
                let rest = came.iter().filter(|(netdev, _)| *netdev != representor);
                trapped.then(|| rest.cloned().collect())
            }
            Intended::Gre6Ecn => {
                let sent = any(|rule| {
                    let set = |action: &String| action.starts_with("tunnel_key set kind gre");
                    rule.actions.iter().any(set)
                });
                let change = |(netdev, bytes): &(String, Vec<u8>)| {
                    (netdev.clone(), without_gre6_ecn(bytes.clone()))
                };
                sent.then(|| came.iter().map(change).collect())
            }
            Intended::Udp6NoChecksum | Intended::Ip6Fragment => {
                let summed = any(|rule| rule.actions.iter().any(|a| a.starts_with("pedit")));
                let change = |(netdev, bytes): &(String, Vec<u8>)| {
                    let changed = match self {
                        Intended::Ip6Fragment => case.frames[n].with_old_checksum(bytes),
                        _ => case.frames[n].with_udp6_checksum(bytes),
                    };
                    (netdev.clone(), changed.unwrap_or_else(|| bytes.clone()))
                };
                summed.then(|| came.iter().map(change).collect())
            }
        }
    }
}

pub(super) fn settle_all(came: &Came) -> Came {
    let settled = came
        .iter()
        .map(|(netdev, bytes)| (netdev.clone(), settle(bytes.clone())));
    settled.collect()
}

/// Which differences together make of what came out of the eswitch what came out of tc.
fn explained(case: &Case, run: &Run, n: usize, theirs: &Came) -> Option<BTreeSet<Intended>> {
    let settled = settle_all(&run.outcome.frames[n]);
    let mut came = settled.clone();
    let mut reasons = BTreeSet::new();
    for reason in Intended::ALL {
        if let Some(now) = reason.explain(case, run, n, &came)
            && now != came
        {
            came = now;
            reasons.insert(reason);
        }
    }
    // Copies that were made before the rewriting have no checksum on either side.
    let same = came.len() == theirs.len()
        && came.iter().zip(theirs).all(|(ours, theirs)| {
            ours == theirs
                || settled.contains(theirs) && reasons.contains(&Intended::Udp6NoChecksum)
        });
    same.then_some(reasons)
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
        let theirs = settle_all(theirs);
        if settle_all(ours) == theirs {
            continue;
        }
        match explained(case, run, n, &theirs) {
            Some(reasons) => intended.extend(reasons),
            None => {
                let sent = (String::from("sent"), case.frames[n].bytes());
                return Verdict::Different(format!(
                    "frame {n}: {}by the eswitch:\n{}by tc:\n{}",
                    show(&[sent]),
                    show(ours),
                    show(&theirs)
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
