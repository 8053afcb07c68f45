//! `compare`: chanio beside its peers, on this machine, in one command.

mod backend;
mod bed;
mod cases;
mod client;
mod facts;
mod figures;
mod helper;
mod histogram;
mod machine;
mod many;
mod plot;
mod report;
mod rig;
mod rounds;

use clap::Parser;
use many::NAME as MANY;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Compare chanio with its peers, and write a table, its data and plots.
///
/// Each round runs chanio and its peers one after the other, the backend on cpu 0 and its client on
/// cpu 1. Only the ratios within a round say something: the figures change with the machine's mood.
/// Exit codes: 0 done, whatever the figures; 1 a run could not be made; 2 usage.
#[derive(Parser)]
#[command(disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    helper: Option<helper::Command>,
    #[command(flatten)]
    options: rounds::Options,
    /// Run this case, or all of a series (active, idle); may be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    case: Vec<String>,
    /// Name the cases
    #[arg(long)]
    list: bool,
    /// Where results.md, results.json and plots go
    #[arg(long, default_value = "docs/performance", value_name = "DIR")]
    out: PathBuf,
    /// Beside how many idle channels to measure
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "0,100,500,2000,9900",
        value_name = "N,N,…"
    )]
    idle: Vec<usize>,
    /// Niceness of what is measured; a negative one keeps a busy machine's other work off the cpus
    #[arg(
        long,
        default_value_t = 0,
        allow_negative_numbers = true,
        value_name = "N"
    )]
    nice: i32,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(command) = &arguments.helper {
        return match helper::run(command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("compare: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let mut cases = cases::all(&arguments.idle);
    if arguments.list {
        for case in &cases {
            println!("{:<16} {}", case.name, case.about);
        }
        println!("{MANY:<16} what 10,000 channels cost: program `scale`, into {MANY}.md");
        return ExitCode::SUCCESS;
    }
    for name in &arguments.case {
        if name != MANY && !cases.iter().any(|case| case.is_called(name)) {
            eprintln!("compare: --case {name}: no such case; --list names them");
            return ExitCode::from(2);
        }
    }
    let asked = |case: &cases::Case| arguments.case.iter().any(|name| case.is_called(name));
    cases.retain(|case| arguments.case.is_empty() || asked(case));
    match compare(&arguments, &cases) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all runs could be made.
fn compare(arguments: &Arguments, cases: &[cases::Case]) -> std::io::Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        return Err(std::io::Error::other("hugepages and namespaces need root"));
    }
    if cases.iter().any(|case| case.guest) {
        // The image may have to be downloaded. If that fails, so do the runs.
        let _ = std::panic::catch_unwind(chanio_testbed::guest::image);
    }
    // Everything made from here on is seen by nobody else, and gone with this process; what
    // outlives it (the number of hugepages) goes back when the bed is dropped.
    chanio_testbed::netns::isolate();
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    let go_on = || !interrupted.load(Ordering::Relaxed);
    let facts = facts::Facts::gather();
    let bed = bed::Bed::new(arguments.nice)?;
    // A run that panics has its message in the results.
    std::panic::set_hook(Box::new(|_| ()));
    let mut outcomes = Vec::new();
    for case in cases {
        outcomes.push(rounds::run(&bed, case, &arguments.options, &go_on));
        if !go_on() {
            break;
        }
    }
    let table = report::write(&arguments.out, &facts, &arguments.options, &outcomes)?;
    plot::write(&arguments.out, &outcomes).map_err(|e| std::io::Error::other(e.to_string()))?;
    let many = arguments.case.is_empty() || arguments.case.iter().any(|name| name == MANY);
    let many = !(many && go_on()) || many::run(&bed, &arguments.out)?;
    print!("\n{table}");
    Ok(many && outcomes.iter().all(|outcome| outcome.failures.is_empty()))
}

/// Polls for something that takes its time.
///
/// # Panics
/// When it takes longer than `patience`.
fn wait_until(patience: Duration, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < until, "waited in vain for {patience:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
