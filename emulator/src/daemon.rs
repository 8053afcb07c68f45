//! The emulator as a process: starts what is configured, says so, and follows signals.

use crate::config::{self, ApplyError, Config, ConfigError};
use crate::control::{ControlServer, RunDir};
use crate::netlink::{NetlinkConfig, NetlinkServer};
use crate::nic::{Nic, NicApi, Refused};
use crate::port::nofile_limit;
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::sync::Arc;

/// Descriptors per queue pair: the transmit ring's kick, and a call for each ring.
const FDS_PER_PAIR: u64 = 3;
/// Descriptors per channel, of which there are at most as many as queue pairs: a connection, the
/// control ring's kick and call, the channel back to the frontend, the representor. The listener
/// is in another table (docs/adr/0003-doorman.md), which holds fewer than this one.
const FDS_PER_CHANNEL: u64 = 5;
/// Descriptors of the process itself, and of messages that bring some.
const FDS: u64 = 1024;

/// Why the process ends otherwise than asked to.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What is configured cannot be made.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The NIC, or the system.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Runs a NIC until SIGTERM or SIGINT, and leaves nothing behind. SIGHUP has `read` called for the
/// configuration to change to; if that cannot be done, the NIC goes on as it is.
///
/// With `netlink`, the kernel is played for it as well.
///
/// Writes one line to standard output, and READY=1 to systemd, when everything accepts.
///
/// # Errors
/// Why it could not start.
pub fn run(
    read: impl Fn() -> Result<Config, ConfigError>,
    netlink: Option<NetlinkConfig>,
) -> Result<(), DaemonError> {
    let mut config = read()?;
    // From here on a signal waits until there is somebody to follow it.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|e| Refused::os("waiting for signals", e))?;
    let wanted = descriptors(&config);
    let limit = nofile_limit(wanted);
    if limit < wanted {
        tracing::warn!(
            limit,
            wanted,
            "fewer open files than all queues may need: see ulimit -Hn"
        );
    }
    let run_dir = RunDir::claim(&config.nic.run_dir)?;
    let mut nic_config = config.nic.clone();
    nic_config.run_dir = run_dir.path().to_owned();
    let nic = Nic::start(nic_config)?;

    let plan = config::plan(&Config::empty(config.nic.clone()), &config)?;
    config::apply(&*nic, &plan)?;
    let server = ControlServer::start(nic.clone(), &run_dir)?;
    let netlink = netlink
        .map(|config| NetlinkServer::start(nic.clone(), &run_dir, config))
        .transpose()?;
    say_ready(&nic)?;
    nic.play();

    for signal in signals.forever() {
        match signal {
            SIGHUP => {
                let _ = notify_reloading();
                match reload(&server, &config, &read) {
                    Ok(new) => config = new,
                    Err(error) => tracing::error!(%error, "not reloaded"),
                }
                let _ = sd_notify::notify(&[NotifyState::Ready]);
            }
            _ => break,
        }
    }
    tracing::info!("stopping");
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    server.stop();
    drop(netlink);
    nic.shutdown();
    Ok(())
}

fn descriptors(config: &Config) -> u64 {
    let in_file = config.channels.len() as u64;
    // More may come through the API; few NICs have a channel per queue pair.
    let channels = in_file.max(u64::from(config.nic.queues) / 4);
    FDS + FDS_PER_PAIR * u64::from(config.nic.queues) + FDS_PER_CHANNEL * channels
}

fn say_ready(nic: &Arc<Nic>) -> Result<(), Refused> {
    let info = nic.info();
    let representors = if info.representors.is_ok() {
        "tap"
    } else {
        "none"
    };
    let line = format!(
        "ready run-dir={} queues={} channels={} representors={representors} uplink={} workers={}\n",
        info.run_dir.display(),
        info.queues,
        info.channels,
        info.uplink,
        info.workers
    );
    let mut out = std::io::stdout().lock();
    let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    written.map_err(|e| Refused::os("writing to standard output", e))?;
    // Does nothing without systemd.
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        tracing::warn!(%error, "telling systemd");
    }
    Ok(())
}

/// systemd wants the time with it, to tell this reload from others.
fn notify_reloading() -> std::io::Result<()> {
    sd_notify::notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
}

fn reload(
    server: &ControlServer,
    current: &Config,
    read: impl Fn() -> Result<Config, ConfigError>,
) -> Result<Config, DaemonError> {
    let new = read()?;
    let plan = config::plan(current, &new)?;
    server.alone(|nic: &dyn NicApi| config::apply(nic, &plan))?;
    tracing::info!(%plan, "reloaded");
    Ok(new)
}
