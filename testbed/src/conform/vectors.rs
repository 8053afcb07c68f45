//! Rules with the frames that are sent and what must come out, made by scapy.

use super::bed::Bed;
use super::case::{Case, Ended, Failure, Need, Setup, Stop, same};
use super::world::Expected;
use crate::difftest::protocol::from_hex;
use chanio::DeviceError;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What `vectors.py` writes; a test holds the one against the other.
pub const VECTORS: &str = include_str!("vectors.json");

/// A case as scapy made it.
#[derive(Clone, Debug, Deserialize)]
pub struct Vector {
    /// `match.` or `action.`, the key or action, and which variant of it.
    pub name: String,
    /// Keys and actions of the capability list that must be there for the rules to be taken.
    pub claims: Vec<String>,
    /// In a line.
    pub about: String,
    /// Where it is written.
    pub source: String,
    /// In the order in which they are added; `{a}` is a channel, `{z}` and `{y}` are zones.
    pub rules: Vec<String>,
    /// One after the other.
    pub sends: Vec<Send>,
    /// Packets that each rule must have counted; empty: not looked at.
    pub counts: Vec<u64>,
}

/// A frame that is sent.
#[derive(Clone, Debug, Deserialize)]
pub struct Send {
    /// By whom.
    pub from: String,
    /// In hex.
    pub frame: String,
    /// What must come out, by place.
    pub out: BTreeMap<String, Vec<String>>,
}

/// All of them.
///
/// # Panics
/// If the file is not what `vectors.py` writes.
pub fn all() -> Vec<Vector> {
    serde_json::from_str(VECTORS).expect("vectors.json is made by vectors.py")
}

/// Each as a case.
pub fn cases() -> Vec<Case> {
    all().into_iter().map(case).collect()
}

fn case(vector: Vector) -> Case {
    let mut needs = vec![Need::Switchdev];
    let mut sends = vector.sends.iter();
    if sends.any(|send| send.out.keys().any(|place| place.starts_with("rep_"))) {
        needs.push(Need::Representors);
    }
    Case {
        name: Cow::Owned(vector.name.clone()),
        about: Cow::Owned(vector.about.clone()),
        source: Cow::Owned(vector.source.clone()),
        needs: Cow::Owned(needs),
        setup: Setup::World,
        body: Box::new(move |bed| run(&vector, bed)),
    }
}

impl Vector {
    /// The plain form of a key or action, not a variant of it.
    fn is_base(&self) -> bool {
        self.name.matches('.').count() == 1
    }

    /// The first claim that the device does not make.
    fn unclaimed(&self, bed: &Bed) -> Option<&str> {
        let caps = &bed.info.capabilities;
        let made = |claim: &&String| match claim.split_once(' ') {
            Some(("match", key)) => caps.match_keys.contains(&key),
            Some((_, action)) => caps.actions.contains(&action),
            None => false,
        };
        let missing = self.claims.iter().find(|claim| !made(claim));
        missing.map(String::as_str)
    }
}

fn run(vector: &Vector, bed: &mut Bed) -> Ended {
    // Connections outlive rules, and runs.
    let zone = bed.random.below(0xfffe) + 1;
    let (z, y) = (zone.to_string(), (zone % 0xfffe + 1).to_string());
    let filled = |rule: &String| rule.replace("{z}", &z).replace("{y}", &y);
    let rules: Vec<String> = vector.rules.iter().map(filled).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let unclaimed = vector.unclaimed(bed).map(str::to_owned);
    let ids = match (bed.rules(&rules), unclaimed) {
        (Ok(ids), None) => ids,
        (Ok(_), Some(claim)) => {
            return Err(Stop::Failed(Failure::new(format!(
                "rules with `{claim}` are taken, but it is not among the device's capabilities"
            ))));
        }
        (Err(DeviceError::Refused { reason }), None) if vector.is_base() => {
            return Err(Stop::Failed(Failure::new(format!(
                "claimed, but refused: {reason}"
            ))));
        }
        (Err(DeviceError::Refused { reason }), _) => return Err(Stop::NotSupported(reason)),
        (Err(error), _) => return Err(error.into()),
    };
    for send in &vector.sends {
        let (from, frame) = (place(bed, &send.from)?, bytes(&send.frame)?);
        let mut expected: Vec<Expected> = Vec::new();
        for (name, frames) in &send.out {
            let at = place(bed, name)?;
            for frame in frames {
                expected.push((at, bytes(frame)?));
            }
        }
        if expected.is_empty() {
            bed.world.send(from, &frame)?;
            bed.world.quiet()?;
        } else {
            bed.world.exchange(from, &frame, &expected)?;
        }
    }
    bed.world.quiet()?;
    if vector.counts.is_empty() {
        return Ok(());
    }
    same(
        "packets that the rules have counted",
        bed.counted(&ids)?,
        vector.counts.clone(),
    )
}

fn place(bed: &Bed, name: &str) -> Ended<super::world::Place> {
    let found = bed.world.place(name);
    found.ok_or_else(|| Stop::Error(format!("vectors.json: no place is called `{name}`")))
}

fn bytes(hex: &str) -> Ended<Vec<u8>> {
    from_hex(hex).ok_or_else(|| Stop::Error(format!("vectors.json: `{hex}` is not hex")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chanio_model::flow::text::{ACTIONS, KEYS};
    use std::collections::BTreeSet;

    /// Keys that say how a rule is kept, not what it is for; each has a case of its own.
    const KEPT: [&str; 5] = ["chain", "prio", "cookie", "idle_timeout", "action"];

    #[test]
    fn each_key_and_action_has_a_vector() {
        let vectors = all();
        let claimed: BTreeSet<_> = vectors.iter().flat_map(|v| &v.claims).collect();
        for key in KEYS.split(", ").filter(|key| !KEPT.contains(key)) {
            // Ports are put into blocks by another request.
            let has = key == "block" || claimed.contains(&format!("match {key}"));
            assert!(has, "no vector for the key {key}");
        }
        for action in ACTIONS.split(", ") {
            let has = claimed.contains(&format!("action {action}"));
            assert!(has, "no vector for the action {action}");
        }
    }

    #[test]
    fn each_rule_reads_and_each_frame_is_marked() {
        use crate::conform::world::MARK;
        let names: BTreeSet<_> = all().into_iter().map(|v| v.name).collect();
        assert_eq!(names.len(), all().len(), "names are distinct");
        for vector in all() {
            for rule in &vector.rules {
                let rule = rule.replace("{z}", "5").replace("{y}", "6");
                let rule = rule.replace("{a}", "vport:1").replace("{b}", "vport:2");
                let rule = rule.replace("{c}", "vport:3");
                let read = rule.parse::<chanio_model::flow::RuleSpec>();
                assert!(read.is_ok(), "{}: {rule}: {read:?}", vector.name);
            }
            for send in &vector.sends {
                let all = send.out.values().flatten().chain([&send.frame]);
                for hex in all {
                    let frame = from_hex(hex).expect("hex");
                    let marked = frame.windows(MARK.len()).any(|part| part == MARK);
                    assert!(marked, "{}: {hex}", vector.name);
                }
            }
        }
    }
}
