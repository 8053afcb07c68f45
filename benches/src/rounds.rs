//! Rounds: chanio and each peer one after the other, so that what the machine does to one it soon
//! does to the others.

use crate::bed::Bed;
use crate::cases::{Case, Contender, Metric, Series};
use crate::machine::{BACKEND_CPU, CLIENT_CPU, Stopped, Watch, settle};
use crate::rig::{Rig, Trouble};
use chanio_testbed::process::run as run_program;
use serde::Serialize;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// How to measure.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Options {
    /// Runs of each contender; in a series of cases that make a plot, half as many
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub rounds: usize,
    /// Length of a window, seconds
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    pub secs: f64,
    /// Windows in a run until one is clean
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub tries: usize,
    /// Drop windows beside which a cache line took longer from cpu to cpu and back, ns
    #[arg(long, default_value_t = 120.0, value_name = "NS")]
    pub far: f64,
    /// Drop windows in which a busy thread waited for its cpu, or the host took it, for a larger
    /// share
    #[arg(long, default_value_t = 0.02, value_name = "SHARE")]
    pub wait: f64,
    /// Drop windows of the cases without a cpu for each busy thread in which other programs used
    /// more of a cpu
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    pub others: f64,
    /// Before each window, wait so long at most for the machine to do nothing else, seconds
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub settle: u64,
}

/// A window of measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Who was measured.
    pub contender: &'static str,
    /// From 1 on.
    pub round: usize,
    /// One for each metric.
    pub values: Vec<f64>,
    /// Before and after, ns.
    pub ping_pong: [f64; 2],
    /// Share of the window.
    pub wait: f64,
    /// Share of the window.
    pub steal: f64,
    /// Cpus that the backend used.
    pub backend_cpu: f64,
    /// Cpus that programs used which have nothing to do with it.
    pub others: f64,
    /// Why it does not count, if it does not.
    pub dropped: Option<String>,
}

/// All that was measured in a case.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Its name.
    pub case: String,
    /// What went on.
    pub about: String,
    /// The plot that it is a point of.
    pub series: Option<Series>,
    /// Runs of each contender there were to be.
    pub rounds: usize,
    /// What was measured.
    pub metrics: Vec<Metric>,
    /// chanio, then its peers.
    pub contenders: Vec<&'static str>,
    /// In the order in which they were taken.
    pub samples: Vec<Sample>,
    /// Who cannot do this, and why.
    pub unsupported: BTreeMap<&'static str, String>,
    /// Runs that could not be made.
    pub failures: Vec<String>,
}

/// Runs a case. `go_on` is asked before each run.
pub fn run(bed: &Bed, case: &Case, options: &Options, go_on: &dyn Fn() -> bool) -> Outcome {
    let rounds = match case.series {
        Some(_) => options.rounds.div_ceil(2),
        None => options.rounds,
    };
    let mut outcome = Outcome {
        case: case.name.clone(),
        rounds,
        about: case.about.clone(),
        series: case.series.clone(),
        metrics: case.metrics.clone(),
        contenders: case.contenders.iter().map(|c| c.name).collect(),
        samples: Vec::new(),
        unsupported: BTreeMap::new(),
        failures: Vec::new(),
    };
    let count = case.contenders.len();
    for round in 1..=rounds {
        for place in 0..count {
            let contender = &case.contenders[(place + round - 1) % count];
            let name = contender.name;
            if outcome.unsupported.contains_key(name) {
                continue;
            }
            if !go_on() {
                outcome.failures.push("interrupted".into());
                return outcome;
            }
            let label = format!("{} {round}/{rounds} {name}", case.name);
            // The testbed's helpers panic with all that the programs said.
            let run = AssertUnwindSafe(|| one(bed, case, contender, options, round, &label));
            match catch_unwind(run).unwrap_or_else(|panic| Err(Trouble::Failed(text_of(&*panic)))) {
                Ok(samples) => outcome.samples.extend(samples),
                Err(Trouble::Unsupported(why)) => {
                    println!("{label}: {why}");
                    outcome.unsupported.insert(name, why);
                }
                Err(Trouble::Failed(why)) => {
                    println!("{label}: failed: {why}");
                    outcome
                        .failures
                        .push(format!("{name}, round {round}: {why}"));
                }
            }
        }
    }
    outcome
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic").to_owned()
}

/// Windows on one contender until one is clean.
fn one(
    bed: &Bed,
    case: &Case,
    contender: &Contender,
    options: &Options,
    round: usize,
    label: &str,
) -> Result<Vec<Sample>, Trouble> {
    let mut rig = (contender.start)(bed)?;
    let time = Duration::from_secs_f64(options.secs);
    // Caches, address tables, the clock of the cpu.
    rig.window(time.min(Duration::from_millis(500)))?;
    let mut samples: Vec<Sample> = Vec::new();
    let mut before = calibrate(bed, &*rig, options)?;
    while samples.len() < options.tries && samples.last().is_none_or(|s| s.dropped.is_some()) {
        let watch = Watch::start(rig.processes());
        let values = rig.window(time)?;
        let load = watch.end();
        let after = calibrate(bed, &*rig, options)?;
        let mut sample = Sample {
            contender: contender.name,
            round,
            values,
            ping_pong: [before, after],
            wait: load.wait,
            steal: load.steal,
            backend_cpu: load.backend_cpu,
            others: load.others,
            dropped: None,
        };
        sample.dropped = why_dirty(&sample, case.contended, options);
        print(label, case, &sample);
        samples.push(sample);
        before = after;
    }
    if let Err(why) = rig.finish() {
        println!("{label}: dropped: {why}");
        samples
            .iter_mut()
            .for_each(|s| s.dropped = Some(why.clone()));
    }
    Ok(samples)
}

/// How far apart the cpus are, in a process of its own for its niceness.
fn calibrate(bed: &Bed, rig: &dyn Rig, options: &Options) -> Result<f64, Trouble> {
    let pids = rig.processes();
    let _stopped = Stopped::new(&pids);
    settle(Duration::from_secs(options.settle));
    let mut command = bed.command(&[BACKEND_CPU, CLIENT_CPU], std::env::current_exe()?);
    let said = run_program(command.arg("ping-pong"));
    let nanos = said.trim().parse();
    nanos.map_err(|e| Trouble::Failed(format!("ping-pong said `{said}`: {e}")))
}

fn why_dirty(sample: &Sample, contended: bool, options: &Options) -> Option<String> {
    let far = sample.ping_pong[0].max(sample.ping_pong[1]);
    if far > options.far {
        Some(format!("cpus far apart ({far:.0} ns)"))
    } else if contended && sample.others > options.others {
        Some(format!(
            "others used {:.0} % of a cpu",
            100.0 * sample.others
        ))
    } else if !contended && sample.wait > options.wait {
        Some(format!("waited for a cpu ({:.1} %)", 100.0 * sample.wait))
    } else if sample.steal > options.wait {
        Some(format!("the host took {:.1} %", 100.0 * sample.steal))
    } else {
        None
    }
}

fn print(label: &str, case: &Case, sample: &Sample) {
    let mut line = format!("{label}:");
    for (metric, value) in case.metrics.iter().zip(&sample.values) {
        line += &format!(" {} {value:.3} {}", metric.name, metric.unit).replace("  ", " ");
    }
    let [before, after] = sample.ping_pong;
    let percent = |share: f64| 100.0 * share;
    line += &format!(
        ", ping-pong {before:.0}/{after:.0} ns, wait {:.1} %, others {:.1} %, steal {:.1} %",
        percent(sample.wait),
        percent(sample.others),
        percent(sample.steal)
    );
    match &sample.dropped {
        Some(why) => println!("{line}; dropped: {why}"),
        None => println!("{line}"),
    }
}
