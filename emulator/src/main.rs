//! The emulator's command line.

use chanio_emu::config::{Config, Overrides, ProfileName};
use chanio_emu::daemon::{self, DaemonError};
use chanio_emu::netlink::{NetlinkConfig, PciSlot};
use chanio_emu::nic::spec::{RepresentorMode, UplinkSpec};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// A multi-queue NIC with an embedded switch, in software.
///
/// Options win over the config file's [nic] table. SIGHUP reads the file again. RUST_LOG sets what
/// is logged to standard error, as RUST_LOG=debug.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Queue pairs of the NIC, 1 to 1,000,000
    #[arg(long, value_name = "N")]
    queues: Option<i64>,
    /// Directory for sockets [default: /run/chanio, or $XDG_RUNTIME_DIR/chanio if not root]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Forwarding threads, 1 to 64 [default: one per CPU]
    #[arg(long, value_name = "N")]
    workers: Option<i64>,
    /// Make channels ch1 to chN
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=65_535))]
    channels: Option<u32>,
    /// Queue pairs of each of these channels [default: 1]
    #[arg(long, value_name = "K", requires = "channels")]
    queues_per_channel: Option<i64>,
    /// Netdevs for vports: auto (if the machine can), tap, off [default: auto]
    #[arg(long, value_name = "KIND")]
    representors: Option<RepresentorMode>,
    /// The wire: none, tap:IF, packet:IF, xdp:IF, pcap:FILE [default: none]
    #[arg(long, value_name = "WIRE")]
    uplink: Option<UplinkSpec>,
    /// TOML file with [nic], [eswitch], [[channel]], [[flow]], [[fdb]]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// N of the representors' names cNpf0sfM, 0 to 99 [default: 0]
    #[arg(long, value_name = "N")]
    nic_index: Option<i64>,
    /// Whose limits and refusals it has: generic, mlx5-cx6dx, intel-e810, intel-x710
    /// [default: generic]
    #[arg(long, value_name = "NAME")]
    profile: Option<ProfileName>,
    /// Do in hardware what tc and bridges of the kernel do with representors
    #[arg(long)]
    offload: bool,
    /// Play the kernel for the NIC at <run-dir>/netlink.sock: devlink, rtnetlink and /sys as the
    /// driver of the profile's NIC has them. Without --uplink the wire is one with nobody there
    #[arg(long, conflicts_with = "offload")]
    netlink: bool,
    /// Where on the PCI bus it is with --netlink [default: 0000:03:00.0]
    #[arg(long, value_name = "DDDD:BB:DD.F", requires = "netlink")]
    pci: Option<PciSlot>,
    /// Queue pairs of each virtual function and subfunction with --netlink, 1 to 256
    #[arg(long, value_name = "K", requires = "netlink", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    function_queues: u16,
    /// Seconds that learned addresses live without traffic, 10 to 1,000,000 [default: 300]
    #[arg(long, value_name = "S")]
    ageing: Option<i64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let netlink = args.netlink.then(|| NetlinkConfig {
        slot: args.pci.unwrap_or_default(),
        function_queues: args.function_queues,
    });
    let overrides = Overrides {
        queues: args.queues,
        workers: args.workers,
        representors: args.representors,
        uplink: args.uplink,
        nic_index: args.nic_index,
        ageing_secs: args.ageing,
        profile: args.profile,
        offload: args.offload,
        run_dir: args.run_dir,
        channels: args.channels.unwrap_or(0),
        queues_per_channel: args.queues_per_channel,
    };
    let read = || {
        let mut config = Config::read(args.config.as_deref(), &overrides)?;
        if netlink.is_some() && config.nic.uplink == UplinkSpec::None {
            // The PCI device's netdev is the wire's, so there has to be one.
            config.nic.uplink = UplinkSpec::Pcap {
                input: None,
                output: None,
            };
        }
        Ok(config)
    };
    match daemon::run(read, netlink) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chanio-emu: {error}");
            ExitCode::from(if matches!(error, DaemonError::Config(_)) {
                2
            } else {
                1
            })
        }
    }
}
