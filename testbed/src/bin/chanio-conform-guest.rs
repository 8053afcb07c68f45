//! The conformance suite inside a Debian guest: see `chanio_testbed::conform::in_guest`.

use chanio_testbed::conform::in_guest::{self, Column, Order};
use chanio_testbed::conform::render;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Run the conformance suite on a device of a Debian guest's kernel.
///
/// Exit codes: 0 nothing failed, 1 something did or no report came.
#[derive(Parser)]
struct Args {
    /// On what
    column: Column,
    /// Write conformance.json, conformance.xml (JUnit) and conformance.html there, and the guest's
    /// console as guest.log
    #[arg(long, value_name = "DIR")]
    report: PathBuf,
    /// Only cases whose name contains this, or of a group where it ends in a dot (`slow.`)
    #[arg(long = "case", value_name = "PATTERN")]
    cases: Vec<String>,
    /// What random choices are made from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How long it may take; the guest's processor is emulated
    #[arg(long, value_name = "N", default_value_t = 60)]
    minutes: u64,
    /// On netdevsim, say also how long it takes to make so many channels at once
    #[arg(long, value_name = "CHANNELS")]
    allocate: Vec<u32>,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("chanio-conform-guest: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing failed.
fn run(args: Args) -> Result<bool, String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let order = Order {
        column: args.column,
        cases: args.cases,
        seed: args.seed,
        patience: Duration::from_secs(60 * args.minutes),
        then: in_guest::allocation(&args.allocate),
    };
    std::fs::create_dir_all(&args.report).map_err(|e| e.to_string())?;
    let (report, said) = in_guest::run(dir.path(), &order)?;
    render::write(&args.report, &report).map_err(|e| e.to_string())?;
    std::fs::write(args.report.join("guest.log"), &said).map_err(|e| e.to_string())?;
    print!("{said}");
    for device in &report.devices {
        println!("{} ({}): {}", device.title, device.device, device.summary());
    }
    Ok(report.is_good())
}
