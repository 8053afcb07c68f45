//! What many channels cost: making them, drivers that attach and do nothing, waking up for one of
//! them, and all of them sending a little. And what many flow rules cost. The emulator runs as a
//! process of its own; the drivers are in this one.
//!
//! `cargo build --release --workspace --bins && target/release/scale`, as root for representors.

mod create;
mod drivers;
mod emulator;
mod rules;

use clap::Parser;

/// Measure the emulator with many channels.
#[derive(Parser)]
struct Args {
    /// Channels with a driver each; two open files each on either side
    #[arg(long, default_value_t = 9_900)]
    drivers: u32,
    /// Channels to create
    #[arg(long, default_value_t = 10_000)]
    channels: u32,
    /// Times that channels are created
    #[arg(long, default_value_t = 5)]
    repeat: u32,
    /// Forwarding threads of the emulator
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Packets per second of each channel when all send
    #[arg(long, default_value_t = 10)]
    rate: u32,
    /// Kicks to sleeping workers
    #[arg(long, default_value_t = 10_000)]
    kicks: u32,
    /// Flow rules to add
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1000,100000,1000000",
        value_name = "N,N,…"
    )]
    rules: Vec<u32>,
    /// Only one part
    #[arg(long, value_enum)]
    only: Option<Part>,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Part {
    Create,
    Drivers,
    Rules,
}

fn main() {
    let args = Args::parse();
    let wants = |part| args.only.is_none_or(|only| only == part);
    if wants(Part::Rules) {
        rules::run_all(&args.rules);
    }
    if wants(Part::Create) {
        create::run(args.channels, args.repeat);
    }
    if wants(Part::Drivers) {
        drivers::run(&drivers::Options {
            drivers: args.drivers,
            workers: args.workers,
            rate: args.rate,
            kicks: args.kicks,
        });
    }
}

/// The least, the middle and the greatest.
fn spread(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    match values {
        [] => "none".into(),
        _ => format!(
            "{:.2} / {:.2} / {:.2}",
            values[0],
            values[values.len() / 2],
            values[values.len() - 1]
        ),
    }
}
