//! `chanio conform`: the conformance suite on one device or several.

use chanio::{DeviceAddress, device};
use chanio_testbed::conform::bed::{Endpoints, Opener};
use chanio_testbed::conform::case::Case;
use chanio_testbed::conform::machine::agent;
use chanio_testbed::conform::render;
use chanio_testbed::conform::report::{CaseReport, DeviceReport, Outcome, Report};
use chanio_testbed::conform::suite::{self, Options};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Put devices through the conformance suite, and say where they differ.
///
/// A device must be unused: cases make and remove channels and rules and change its mode; it is
/// left as it was. Exit codes: 0 nothing failed (and with --compare, nothing differs), 1 something
/// did, 2 usage.
#[derive(Parser)]
#[command(name = "chanio conform", version)]
struct Args {
    /// emu:DIR, pci/0000:03:00.0, netdevsim/NAME or veth:NAME; a column of the matrix each
    #[arg(long, env = "CHANIO_DEVICE", value_name = "DEVICE")]
    device: Vec<String>,
    /// The devices are those of an emulator that plays the kernel: its run directory
    #[arg(long, env = "CHANIO_VIA", value_name = "DIR")]
    via: Option<PathBuf>,
    /// Write conformance.json, conformance.xml (JUnit) and conformance.html there
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Only cases whose name contains this, or of a group where it ends in a dot (`slow.`)
    #[arg(long = "case", value_name = "PATTERN")]
    cases: Vec<String>,
    /// List the cases, do not run them
    #[arg(long)]
    list: bool,
    /// Two conformance.json, or two devices to be run: print where they differ
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with = "device")]
    compare: Option<Vec<String>>,
    /// What random choices are made from [default: another each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Who has the channels [default: netdevs where the device and this user can]
    #[arg(long, value_name = "KIND")]
    endpoints: Option<Endpoints>,
    /// The netdev at the other end of the device's wire [default: an emulator's own tap:IF]
    #[arg(long, value_name = "NETDEV")]
    wire: Option<String>,
    /// Put the matrix and the list of cases into this file, as docs/conformance.md has them
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// What the device is called in the report [default: its profile or driver]
    #[arg(long, value_name = "NAME")]
    title: Option<String>,
    /// Take devices out of these conformance.json as further columns
    #[arg(long, value_name = "JSON")]
    with: Vec<PathBuf>,
    /// Serve the suite on another machine, whose guest this one is, over this character device
    #[arg(long, value_name = "PORT", hide = true)]
    serve: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Say on stderr of each case how it ended, as soon as it has
    #[arg(long)]
    verbose: bool,
}

#[derive(Debug, thiserror::Error)]
enum ConformError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Device(#[from] chanio::DeviceError),
    #[error(transparent)]
    Suite(#[from] suite::SuiteError),
    #[error("{path}: {why}")]
    File { path: String, why: String },
    /// Nobody reads what is printed, or it cannot be written.
    #[error("printing: {0}")]
    Print(#[from] io::Error),
}

fn main() -> ExitCode {
    let args = Args::parse();
    // A case makes a thousand channels, and whoever is at an end has a file or two.
    chanio_emu::port::nofile_limit(16_384);
    match run(&args, &mut io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        // Who has read enough has closed the pipe.
        Err(ConformError::Print(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chanio conform: {error}");
            let usage = matches!(
                error,
                ConformError::Usage(_) | ConformError::Device(chanio::DeviceError::Address(_))
            );
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

/// Whether nothing is wrong.
fn run(args: &Args, out: &mut impl Write) -> Result<bool, ConformError> {
    if let Some(port) = &args.serve {
        let failed = |e: io::Error| ConformError::File {
            path: port.display().to_string(),
            why: e.to_string(),
        };
        agent::serve(port).map_err(failed)?;
        return Ok(true);
    }
    let cases = suite::chosen(&args.cases);
    if cases.is_empty() {
        return Err(ConformError::Usage(format!(
            "--case: no case is called like {}; --list shows them",
            args.cases.join(" or ")
        )));
    }
    if args.list {
        for case in &cases {
            writeln!(
                out,
                "{:<34} {}\n{:<34} ({})",
                case.name, case.about, "", case.source
            )?;
        }
        return Ok(true);
    }
    let seed = args.seed.unwrap_or_else(|| std::process::id().into());
    if let Some(pair) = &args.compare {
        let one = device_or_report(&pair[0], args, &cases, seed)?;
        let other = device_or_report(&pair[1], args, &cases, seed)?;
        return Ok(compare(&one, &other, out)?);
    }
    if args.device.is_empty() && args.with.is_empty() {
        return Err(ConformError::Usage(
            "--device: which? emu:DIR, pci/0000:03:00.0, netdevsim/NAME or veth:NAME".into(),
        ));
    }
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION").into(),
        seed,
        devices: Vec::new(),
    };
    for path in &args.with {
        report.devices.extend(read(path)?.devices);
    }
    if args.title.is_some() && args.device.len() != 1 {
        return Err(ConformError::Usage("--title: for one --device".into()));
    }
    for address in &args.device {
        report.devices.push(on_device(address, args, &cases, seed)?);
    }
    write(args, &report, &cases, out)?;
    Ok(report.is_good())
}

fn write(
    args: &Args,
    report: &Report,
    cases: &[Case],
    out: &mut impl Write,
) -> Result<(), ConformError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |why: String| ConformError::File { path, why }
    };
    if let Some(dir) = &args.report {
        let written = render::write(dir, report);
        written.map_err(|e| failed(dir)(e.to_string()))?;
    }
    if let Some(path) = &args.markdown {
        let written = render::rewrite(path, report, cases);
        written.map_err(|e| failed(path)(e.to_string()))?;
    }
    if args.json {
        let text = serde_json::to_string_pretty(report);
        let text = text.map_err(|e| failed(Path::new("JSON"))(e.to_string()))?;
        writeln!(out, "{text}")?;
    } else {
        for device in &report.devices {
            print(device, out)?;
        }
    }
    Ok(())
}

/// All that did not pass, and the tally.
fn print(device: &DeviceReport, out: &mut impl Write) -> io::Result<()> {
    for case in &device.cases {
        let Some(why) = case.outcome.why() else {
            continue;
        };
        let word = case.outcome.word().replace('_', " ");
        writeln!(out, "{}: {word}: {}: {why}", device.title, case.name)?;
        if let Outcome::Failed {
            expected,
            got,
            frames,
            trace,
            ..
        } = &case.outcome
        {
            writeln!(out, "    expected {expected}\n    got      {got}")?;
            for (n, frame) in frames.iter().enumerate() {
                let side = if frame.from_host { " by the host" } else { "" };
                writeln!(out, "    sent on {}{side}: {}", frame.port, frame.hex)?;
                for line in trace.get(n).iter().flat_map(|text| text.lines()) {
                    writeln!(out, "        {line}")?;
                }
            }
        }
    }
    let summary = device.summary();
    writeln!(out, "{} ({}): {summary}", device.title, device.device)
}

fn opener(address: &str, via: Option<&PathBuf>) -> Result<Opener, ConformError> {
    let address: DeviceAddress = address.parse()?;
    let via = via.cloned();
    Ok(Box::new(move || match &via {
        None => device::open(&address),
        Some(run_dir) => device::open_via(&address, run_dir),
    }))
}

fn on_device(
    address: &str,
    args: &Args,
    cases: &[Case],
    seed: u64,
) -> Result<DeviceReport, ConformError> {
    let options = Options {
        patterns: args.cases.clone(),
        endpoints: args.endpoints,
        wire: args.wire.clone(),
        seed,
    };
    let bar = match args.verbose {
        true => ProgressBar::hidden(),
        false => ProgressBar::new(cases.len() as u64),
    };
    // The template is a constant that parses.
    if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {wide_msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(address.to_owned());
    let mut bad = 0;
    let done = suite::run(
        opener(address, args.via.as_ref())?,
        &options,
        |case: &CaseReport| {
            bad += u32::from(case.outcome.is_bad());
            if args.verbose {
                let (word, why) = (case.outcome.word(), case.outcome.why());
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                eprintln!("{} {word} {:.1} s{why}", case.name, case.seconds);
            }
            let said = if bad > 0 {
                format!("{} ({bad} bad)", case.name)
            } else {
                case.name.clone()
            };
            bar.set_message(said);
            bar.inc(1);
        },
    );
    bar.finish_and_clear();
    let mut report = done?;
    if let Some(title) = &args.title {
        report.title.clone_from(title);
    }
    Ok(report)
}

fn read(path: &Path) -> Result<Report, ConformError> {
    let failed = |why: String| ConformError::File {
        path: path.display().to_string(),
        why,
    };
    let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| failed(format!("no report: {e}")))
}

fn device_or_report(
    text: &str,
    args: &Args,
    cases: &[Case],
    seed: u64,
) -> Result<DeviceReport, ConformError> {
    let path = Path::new(text);
    if !path.is_file() {
        return on_device(text, args, cases, seed);
    }
    let mut devices = read(path)?.devices;
    match devices.len() {
        1 => Ok(devices.remove(0)),
        n => Err(ConformError::Usage(format!(
            "--compare: {text} has {n} devices, one is needed"
        ))),
    }
}

/// Whether nothing differs.
fn compare(one: &DeviceReport, other: &DeviceReport, out: &mut impl Write) -> io::Result<bool> {
    let found = render::differences(one, other);
    for (letter, device) in [("A", one), ("B", other)] {
        let summary = device.summary();
        writeln!(
            out,
            "{letter}: {} ({}): {summary}",
            device.title, device.device
        )?;
    }
    for difference in &found {
        writeln!(
            out,
            "{}\n    A {}\n    B {}",
            difference.case, difference.one, difference.other
        )?;
    }
    writeln!(out, "{} cases differ", found.len())?;
    Ok(found.is_empty())
}
