//! All cases on one device.

use super::bed::{Bed, Endpoints, Opener};
use super::case::{Case, Ended, Need, Stop};
use super::cases;
use super::report::{CaseReport, DeviceReport, Outcome};
use crate::difftest::protocol::from_hex;
use chanio::DeviceError;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// What is to be run, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Cases whose names contain one of these, or begin with it where it ends in `.`; all if
    /// there is none.
    pub patterns: Vec<String>,
    /// Who has the channels; `None`: what suits the device.
    pub endpoints: Option<Endpoints>,
    /// The netdev at the other end of the device's wire.
    pub wire: Option<String>,
    /// What random choices are made from.
    pub seed: u64,
}

/// Why nothing could be run.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The guest that is to have the channels.
    #[error("--endpoints guest: {0}")]
    Guest(String),
    /// Cases take everything off the device.
    #[error(
        "{device} is in use: it has {channels} channels and {rules} rules, and the suite would \
         remove them (chanio channel del, chanio flow del)"
    )]
    InUse {
        /// Its address.
        device: String,
        /// How many it has.
        channels: u32,
        /// How many it has.
        rules: usize,
    },
    /// It does not come to the state it was in.
    #[error("{device}: cleaning up: {why}")]
    CleanUp {
        /// Its address.
        device: String,
        /// What went wrong.
        why: String,
    },
}

/// The cases that are asked for.
pub fn chosen(patterns: &[String]) -> Vec<Case> {
    let wanted = |case: &Case| {
        let fits = |pattern: &String| match pattern.strip_suffix('.') {
            Some(group) => case.name.split('.').next() == Some(group),
            None => case.name.contains(pattern.as_str()),
        };
        patterns.is_empty() || patterns.iter().any(fits)
    };
    let all = cases::all().into_iter();
    all.filter(wanted).collect()
}

/// Runs what is asked for on a device that nobody uses; `each` is told what came of each case.
/// The device is left as it was.
///
/// # Errors
/// The device cannot be opened, is in use, or cannot be put back.
pub fn run(
    open: Opener,
    options: &Options,
    mut each: impl FnMut(&CaseReport),
) -> Result<DeviceReport, SuiteError> {
    let (endpoints, wire) = (options.endpoints, options.wire.clone());
    let mut bed = Bed::open(open, endpoints, wire, options.seed)?;
    let before = bed.nic.eswitch().map(|eswitch| eswitch.mode);
    let rules = match bed.nic.flows() {
        Ok(flows) => flows.len(),
        Err(DeviceError::Unsupported { .. }) => 0,
        Err(error) => return Err(error.into()),
    };
    let info = bed.info.clone();
    if info.channels > 0 || rules > 0 {
        return Err(SuiteError::InUse {
            device: info.device,
            channels: info.channels,
            rules,
        });
    }
    let mut report = DeviceReport {
        title: match info.profile.as_str() {
            "" => info.device.clone(),
            profile => profile.to_owned(),
        },
        device: info.device.clone(),
        profile: info.profile,
        version: info.version,
        endpoints: match bed.endpoints {
            Endpoints::Netns => "netns".into(),
            Endpoints::VhostUser => "vhost-user".into(),
            Endpoints::Guest => "guest".into(),
            Endpoints::Nobody => "nobody".into(),
        },
        cases: Vec::new(),
    };
    for case in chosen(&options.patterns) {
        let done = run_case(&mut bed, &case);
        each(&done);
        report.cases.push(done);
    }
    let cleaned = bed.clear().and_then(|()| match before {
        Ok(mode) => bed.mode(mode),
        // What has no mode has none to go back to.
        Err(_) => Ok(()),
    });
    match cleaned {
        Ok(()) | Err(Stop::NotSupported(_)) => Ok(report),
        Err(Stop::Error(why)) => Err(SuiteError::CleanUp {
            device: info.device,
            why,
        }),
        Err(Stop::Failed(failure)) => Err(SuiteError::CleanUp {
            device: info.device,
            why: failure.why,
        }),
    }
}

fn run_case(bed: &mut Bed, case: &Case) -> CaseReport {
    let started = Instant::now();
    bed.measured.clear();
    let mut drops = BTreeMap::new();
    let ended = met(bed, case).and_then(|()| {
        bed.set_up(case.setup)?;
        let before = bed.drops();
        let run = catch_unwind(AssertUnwindSafe(|| (case.body)(bed)));
        drops = more(&bed.drops(), &before);
        run.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(Stop::Error(text.unwrap_or_else(|| "panicked".into())))
        })
    });
    let mut outcome = Outcome::from(ended);
    if let Outcome::Failed { frames, trace, .. } = &mut outcome {
        frames.extend(bed.world.sent.iter().cloned());
        *trace = traced(bed);
    }
    if outcome.is_bad() {
        // Whatever it left behind is not for the next one.
        if let Err(stop) = bed.clear() {
            eprintln!("conform: after {}: {stop:?}", case.name);
        }
        bed.remove_rate_nodes();
    }
    CaseReport {
        name: case.name.to_string(),
        about: case.about.to_string(),
        source: case.source.to_string(),
        outcome,
        seconds: (started.elapsed().as_secs_f64() * 1e4).round() / 1e4,
        measured: std::mem::take(&mut bed.measured),
        drops,
    }
}

/// What the device says would become of the frames that were sent last.
fn traced(bed: &mut Bed) -> Vec<String> {
    let mut texts = Vec::new();
    for sent in bed.world.sent.clone() {
        let frame = from_hex(&sent.hex).unwrap_or_default();
        texts.push(match bed.nic.trace(&sent.port, sent.from_host, frame) {
            Ok(steps) => chanio::trace::describe(&steps),
            Err(error) => error.to_string(),
        });
    }
    texts
}

/// What was lost since.
fn more(
    now: &BTreeMap<String, BTreeMap<String, u64>>,
    before: &BTreeMap<String, BTreeMap<String, u64>>,
) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    for (vport, drops) in now {
        let then = |reason| before.get(vport).and_then(|of| of.get(reason)).copied();
        let lost = drops.iter().map(|(reason, n)| {
            // A channel made anew begins at nothing.
            (reason.clone(), n.saturating_sub(then(reason).unwrap_or(0)))
        });
        let lost: BTreeMap<_, _> = lost.filter(|(_, n)| *n > 0).collect();
        if !lost.is_empty() {
            all.insert(vport.clone(), lost);
        }
    }
    all
}

/// Whether the device can do what the case needs.
fn met(bed: &mut Bed, case: &Case) -> Ended {
    let mut needs = case.needs.iter();
    needs.try_for_each(|need| meets(bed, need))
}

fn meets(bed: &mut Bed, need: &Need) -> Ended {
    let caps = &bed.info.capabilities;
    let missing = |why: String| Err(Stop::NotSupported(why));
    match need {
        Need::Switchdev if !caps.modes.contains(&"switchdev") => no_mode(bed, "switchdev"),
        Need::Legacy if !caps.modes.contains(&"legacy") => no_mode(bed, "legacy"),
        Need::Representors if !caps.representors => {
            let why = caps.no_representors.clone();
            missing(format!("representors: {}", why.unwrap_or("none".into())))
        }
        Need::Netdev => match bed.endpoints {
            Endpoints::Netns | Endpoints::Guest => Ok(()),
            Endpoints::VhostUser => {
                missing("the channels of this run are virtio drivers, not netdevs".into())
            }
            Endpoints::Nobody => missing(bed.why_nobody()),
        },
        Need::Wire => bed.open_wire(),
        _ => Ok(()),
    }
}

/// Why there is no such mode, in the device's own words.
fn no_mode(bed: &mut Bed, mode: &str) -> Ended {
    match bed.mode(mode) {
        Ok(()) => Err(Stop::Error(format!(
            "the device takes mode {mode}, but it is not among its capabilities"
        ))),
        Err(Stop::Failed(failure)) => Err(Stop::NotSupported(
            failure.why.trim_start_matches("refused: ").to_owned(),
        )),
        Err(stop) => Err(stop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_parts_of_names_or_groups() {
        let names = |pattern: &str| -> Vec<String> {
            let cases = chosen(&[pattern.to_owned()]);
            cases.iter().map(|case| case.name.to_string()).collect()
        };
        assert!(names("slow.").iter().all(|name| name.starts_with("slow.")));
        assert!(names("slow.").len() > 3);
        assert_eq!(names("match.enc_tos"), ["match.enc_tos"]);
        assert!(names("nothing of that kind").is_empty());
        assert!(chosen(&[]).len() > 150);
    }

    #[test]
    fn losses_count_from_where_they_stood() {
        let of = |n| BTreeMap::from([("a".to_owned(), BTreeMap::from([("runt".to_owned(), n)]))]);
        assert_eq!(more(&of(5), &of(3)), of(2));
        assert_eq!(more(&of(3), &of(3)), BTreeMap::new());
        assert_eq!(more(&of(3), &BTreeMap::new()), of(3));
    }
}
