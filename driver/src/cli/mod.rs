//! `chanio`: one file per noun, and what they share.

mod capture;
mod channel;
mod companion;
mod ct;
mod eswitch;
mod fdb;
mod flow;
mod nic;
mod out;
mod rate;
mod run;
mod stats;
mod trace;
mod watch;

use chanio::demo::{self, DemoOptions};
use chanio::{DeviceAddress, DeviceError, Nic, device};
use clap::{CommandFactory, Parser, Subcommand};
use out::{Out, Printed};
use std::path::PathBuf;
use std::process::ExitCode;

/// Allocate channels, show representors, program the switch, and see where packets went.
///
/// Exit codes: 0 done, 1 refused by the device or not reachable, 2 usage.
#[derive(Parser)]
#[command(name = "chanio", version)]
struct Cli {
    /// emu:DIR, pci/0000:03:00.0, netdevsim/NAME or veth:NAME [default: the only emulator running]
    #[arg(long, global = true, env = "CHANIO_DEVICE", value_name = "DEVICE")]
    device: Option<String>,
    /// The device is one of an emulator that plays the kernel: its run directory [default: the
    /// device is this machine's]
    #[arg(long, global = true, env = "CHANIO_VIA", value_name = "DIR")]
    via: Option<PathBuf>,
    /// Print JSON (docs/json.md)
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Subcommand)]
enum Noun {
    /// The device and what it can do
    #[command(subcommand)]
    Nic(nic::Command),
    /// The switch's mode and settings
    #[command(subcommand)]
    Eswitch(eswitch::Command),
    /// Channels: a container's share of the NIC
    #[command(subcommand)]
    Channel(channel::Command),
    /// Representors: the host's netdevs of vports
    #[command(subcommand)]
    Representor(channel::RepresentorCommand),
    /// Flow rules of switchdev mode
    #[command(subcommand)]
    Flow(flow::Command),
    /// Addresses of legacy mode
    #[command(subcommand)]
    Fdb(fdb::Command),
    /// Connections that `ct` actions track
    #[command(subcommand)]
    Ct(ct::Command),
    /// How fast channels may send, in devlink-rate's terms
    #[command(subcommand)]
    Rate(rate::Command),
    /// Counters, and what was lost and why
    Stats(stats::Args),
    /// What would become of a packet, and why: every table, rule, action and the verdict
    Trace(trace::Args),
    /// Frames as they pass, or where they are lost and why
    Capture(capture::Args),
    /// Run a program, as devlink, tc, ip or ethtool, for which an emulator plays the kernel
    ///
    /// The program's netlink sockets, the files of the device under /sys and ethtool's ioctl are
    /// those of the emulator whose run directory --via names (chanio-emu --netlink). All else is
    /// this machine's.
    Run(run::Args),
    /// Completions for a shell, on standard output
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
    /// A whole NIC with channels, rules and traffic in this process
    Demo(DemoOptions),
    /// The conformance suite on one device or several (docs/conformance.md)
    #[command(disable_help_flag = true)]
    Conform {
        /// See `chanio conform --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Demo(#[from] demo::DemoError),
    #[error(transparent)]
    Run(#[from] chanio_run::Error),
    #[error("the counters do not agree")]
    Disagree,
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl CliError {
    fn code(&self) -> u8 {
        match self {
            CliError::Usage(_) | CliError::Device(DeviceError::Address(_)) => 2,
            _ => 1,
        }
    }
}

/// Parse, do, print.
pub fn run() -> ExitCode {
    // Its options are its own, also those that are called like ours.
    if let Some(args) = companion::asked_for(std::env::args_os(), "conform") {
        return companion::run("chanio-conform", &args);
    }
    let cli = Cli::parse();
    let mut out = Out::new(cli.json);
    match dispatch(cli, &mut out) {
        Ok(code) => code,
        // Whoever read the output has seen enough.
        Err(CliError::Io(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chanio: {error}");
            ExitCode::from(error.code())
        }
    }
}

fn dispatch(cli: Cli, out: &mut Out) -> Result<ExitCode, CliError> {
    let open = || -> Result<Box<dyn Nic>, CliError> {
        let address = match &cli.device {
            Some(text) => text.parse()?,
            None => only_device()?,
        };
        Ok(match &cli.via {
            None => device::open(&address)?,
            Some(run_dir) => device::open_via(&address, run_dir)?,
        })
    };
    let Printed = match cli.noun {
        Noun::Nic(nic::Command::List) => nic::list(cli.via.as_deref(), out)?,
        Noun::Nic(nic::Command::Show) => nic::show(&mut *open()?, out)?,
        Noun::Eswitch(command) => eswitch::run(command, &mut *open()?, out)?,
        Noun::Channel(command) => {
            command.check()?;
            channel::run(command, &mut *open()?, out)?
        }
        Noun::Representor(channel::RepresentorCommand::Show) => {
            channel::representors(&mut *open()?, out)?
        }
        Noun::Flow(command) => flow::run(command, &mut *open()?, out)?,
        Noun::Fdb(command) => fdb::run(command, &mut *open()?, out)?,
        Noun::Ct(command) => ct::run(command, &mut *open()?, out)?,
        Noun::Rate(command) => rate::run(command, &mut *open()?, out)?,
        Noun::Stats(args) => stats::run(&args, &mut *open()?, out)?,
        Noun::Trace(args) => trace::run(args, &mut *open()?, out)?,
        Noun::Capture(args) => capture::run(args, &mut *open()?, out)?,
        Noun::Run(args) => return run::run(&args, cli.via.as_deref()),
        Noun::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "chanio", &mut script);
            out.text(&String::from_utf8_lossy(&script))?
        }
        Noun::Conform { args } => {
            return Err(CliError::Usage(format!(
                "conform: its options come behind it ({args:?})"
            )));
        }
        Noun::Demo(options) => {
            let report = demo::run(options)?;
            let printed = out.text(&format!("{report}\n"))?;
            if !report.agrees() {
                return Err(CliError::Disagree);
            }
            printed
        }
    };
    Ok(ExitCode::SUCCESS)
}

/// The device meant when none is named.
fn only_device() -> Result<DeviceAddress, CliError> {
    let mut found = device::emulators();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(CliError::Device(DeviceError::Unreachable {
            address: "device".into(),
            why: "no emulator runs in the usual places; name one with --device emu:DIR or \
                  $CHANIO_DEVICE"
                .into(),
        })),
        _ => {
            let names: Vec<_> = found.iter().map(ToString::to_string).collect();
            Err(CliError::Usage(format!(
                "device: which of {}? Name it with --device",
                names.join(", ")
            )))
        }
    }
}

/// `on` or `off`.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

impl Switch {
    fn is_on(self) -> bool {
        matches!(self, Switch::On)
    }
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// A table cell for something that may not be there.
fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

/// Nanoseconds for people.
fn idle(ns: Option<u64>) -> String {
    ns.map_or("-".into(), |ns| format!("{:.3}", ns as f64 / 1e9))
}

type Done = Result<Printed, CliError>;
