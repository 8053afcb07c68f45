//! `chanio demo`: a whole NIC in one process. An emulator with many channels, a driver attached to
//! each over vhost-user, flow rules, and traffic; at the end, what passed, what was dropped and
//! why, and whether both sides counted the same.

mod frames;
mod report;

pub use report::Report;

use chanio_emu::frontend::{Client, ClientError, ClientOptions};
use chanio_emu::nic::spec::*;
use chanio_emu::nic::{Nic, Refused};
use chanio_emu::port::nofile_limit;
use chanio_model::eswitch::Mode;
use chanio_model::flow::{Action, FlowKey, Match, RuleSpec};
use chanio_model::{ChannelName, Mac, VportId};
use frames::Flow;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What to show.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct DemoOptions {
    /// Queue pairs of the NIC; each becomes a channel
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(8..=60_000))]
    pub queues: u32,
    /// Seconds of traffic
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Forwarding threads
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,
}

/// Why the demo could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The NIC refused a request.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A driver could not attach or go on.
    #[error("channel {channel}: {source}")]
    Client {
        /// Which channel's.
        channel: usize,
        /// Why.
        source: ClientError,
    },
    /// No place for the sockets.
    #[error("run directory: {0}")]
    RunDir(std::io::Error),
    /// Too few file descriptors even for the sockets.
    #[error(
        "queues: {queues} channels need {needed} open files, the limit is {limit}: raise it \
         (`ulimit -Hn`) or ask for fewer"
    )]
    Descriptors {
        /// Channels asked for.
        queues: u32,
        /// Open files they need.
        needed: u64,
        /// Open files there may be.
        limit: u64,
    },
}

/// Open files of an attached driver and of the NIC because of it: both ends of the socket and of
/// the kick, and the shared memory.
const FILES_PER_DRIVER: u64 = 5;
/// And of the process. The channels' own sockets are in a table apart, with the same limit.
const FILES_SPARE: u64 = 200;

/// Fewest drivers that make a conversation: a pair, the three with a part of their own, and one
/// without a rule.
const MIN_DRIVERS: u64 = 6;

/// At most so many pairs of channels talk to each other; the others show what a miss is.
const MAX_PAIRS: usize = 100;
/// Frames that a channel sends before the next one has its turn.
const BURST: usize = 16;

const QUEUE: ClientOptions = ClientOptions {
    queue_size: 64,
    buffer_size: 256,
    features: 0,
    calls: false,
};

/// Run it all; the report says whether the counters agreed.
pub fn run(options: DemoOptions) -> Result<Report, DemoError> {
    let drivers = drivers_that_fit(options.queues)?;
    let run_dir = place().map_err(DemoError::RunDir)?;
    let nic = Nic::start(NicConfig {
        queues: options.queues,
        run_dir: run_dir.path().to_owned(),
        workers: options.workers as usize,
        representors: RepresentorMode::Off,
        uplink: UplinkSpec::None,
        nic_index: 0,
        ageing_secs: 300,
        profile: &chanio_model::profile::GENERIC,
        offload: false,
    })?;
    nic.set_eswitch(EswitchChange {
        mode: Some(Mode::Switchdev),
        ..Default::default()
    })?;

    let started = Instant::now();
    let channels = add_channels(&nic, options.queues, Cast::new(drivers).spoofer)?;
    let created = started.elapsed();

    let started = Instant::now();
    let mut clients = connect(&channels[..drivers])?;
    let connected = started.elapsed();

    let cast = Cast::new(drivers);
    let rules = nic.add_rules(cast.rules(&channels))?.len();

    let mut report = Report::new(channels.len(), drivers, rules, created, connected);
    let started = Instant::now();
    talk(&cast, &channels, &mut clients, options.seconds, &mut report)?;
    report.finish(started.elapsed(), &nic);
    drop(clients);
    nic.shutdown();
    Ok(report)
}

/// A folder for the sockets, in memory if there is a place for that: on a busy disk ten thousand
/// files take a minute. `TMPDIR` wins.
fn place() -> std::io::Result<tempfile::TempDir> {
    if std::env::var_os("TMPDIR").is_none() {
        let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let mut places = own.into_iter().chain([PathBuf::from("/dev/shm")]);
        if let Some(dir) = places.find_map(|place| tempfile::tempdir_in(place).ok()) {
            return Ok(dir);
        }
    }
    tempfile::tempdir()
}

/// Who plays what.
struct Cast {
    /// Channels 2i and 2i+1 for i below this talk to each other.
    pairs: usize,
    /// Sends with an address that is not its own, under spoof checking.
    spoofer: usize,
    /// Is sent to but never takes a frame out of its ring.
    sleeper: usize,
    /// Gets a copy of what the first pair says.
    monitor: usize,
    channels: usize,
}

impl Cast {
    fn new(channels: usize) -> Self {
        let pairs = ((channels - 4) / 2).min(MAX_PAIRS);
        let first = 2 * pairs;
        Self {
            pairs,
            spoofer: first,
            sleeper: first + 1,
            monitor: first + 2,
            channels,
        }
    }

    fn talkers(&self) -> std::ops::Range<usize> {
        0..2 * self.pairs
    }

    fn bystanders(&self) -> std::ops::Range<usize> {
        self.monitor + 1..self.channels
    }

    /// To the peer, except mail; the first pair is watched; the last one bothers the sleeper.
    fn rules(&self, channels: &[ChannelInfo]) -> Vec<RuleSpec> {
        let vport = |i: usize| channels[i].vport;
        let mut rules = Vec::new();
        for i in self.talkers() {
            let mut actions = vec![];
            if i < 2 {
                actions.push(Action::Mirror(vport(self.monitor)));
            }
            if i + 1 == 2 * self.pairs {
                actions.push(Action::Mirror(vport(self.sleeper)));
            }
            actions.push(Action::Redirect(vport(i ^ 1)));
            rules.push(rule(10, from(vport(i)), actions));
            if i % 2 == 0 {
                rules.push(rule(1, mail(from(vport(i))), vec![Action::Drop]));
            }
        }
        rules
    }
}

fn rule(priority: u16, matches: Match, actions: Vec<Action>) -> RuleSpec {
    RuleSpec {
        priority,
        matches,
        actions: actions.into(),
        ..RuleSpec::default()
    }
}

fn from(vport: VportId) -> Match {
    Match::from_port(vport)
}

/// TCP to port 25.
fn mail(mut matches: Match) -> Match {
    let FlowKey {
        eth_type,
        ip_proto,
        l4_dst,
        ..
    } = &mut matches.value;
    (*eth_type, *ip_proto, *l4_dst) = (0x0800, 6, 25);
    let FlowKey {
        eth_type,
        ip_proto,
        l4_dst,
        ..
    } = &mut matches.mask;
    (*eth_type, *ip_proto, *l4_dst) = (u16::MAX, u8::MAX, u16::MAX);
    matches
}

/// Every channel gets a driver, or as many as the limit of open files leaves room for.
fn drivers_that_fit(queues: u32) -> Result<usize, DemoError> {
    let limit = nofile_limit(FILES_SPARE + u64::from(queues) * FILES_PER_DRIVER);
    let drivers = limit.saturating_sub(FILES_SPARE) / FILES_PER_DRIVER;
    let needed = FILES_SPARE + u64::from(queues).max(MIN_DRIVERS * FILES_PER_DRIVER);
    if limit < needed {
        return Err(DemoError::Descriptors {
            queues,
            needed,
            limit,
        });
    }
    Ok(drivers.min(u64::from(queues)) as usize)
}

fn progress(what: &'static str, len: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:22} {wide_bar} {pos:>6}/{len} {elapsed:>4}");
    let bar = ProgressBar::new(len as u64).with_message(what);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn add_channels(
    nic: &Arc<Nic>,
    queues: u32,
    spoofer: usize,
) -> Result<Vec<ChannelInfo>, DemoError> {
    const BATCH: usize = 1000;
    let bar = progress("creating channels", queues as usize);
    let mut channels = Vec::with_capacity(queues as usize);
    while channels.len() < queues as usize {
        let first = channels.len();
        let batch = first..(first + BATCH).min(queues as usize);
        let spec = |i: usize| ChannelSpec {
            name: channel_name(i),
            queues: 1,
            mac: None,
            vlan: None,
            mtu: 1500,
            spoofchk: i == spoofer,
            trust: false,
            lro: false,
            link_up: true,
            rss: None,
            block: 0,
            receive: Default::default(),
            attach: Attach::VhostUser,
        };
        channels.extend(nic.add_channels(batch.map(spec).collect())?);
        bar.set_position(channels.len() as u64);
    }
    bar.finish_and_clear();
    Ok(channels)
}

fn channel_name(i: usize) -> ChannelName {
    format!("ch{}", i + 1).parse().expect("letters and digits")
}

fn connect(channels: &[ChannelInfo]) -> Result<Vec<Client>, DemoError> {
    let bar = progress("attaching drivers", channels.len());
    let mut clients = Vec::with_capacity(channels.len());
    for (channel, info) in channels.iter().enumerate() {
        let socket = info
            .socket
            .as_deref()
            .expect("a vhost-user channel has a socket");
        let client = Client::connect(socket, QUEUE);
        clients.push(client.map_err(|source| DemoError::Client { channel, source })?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(clients)
}

/// Traffic for a while, then until nothing is in flight any more.
fn talk(
    cast: &Cast,
    channels: &[ChannelInfo],
    clients: &mut [Client],
    seconds: u32,
    report: &mut Report,
) -> Result<(), DemoError> {
    let at = |channel| move |source| DemoError::Client { channel, source };
    let mac = |i: usize| channels[i].mac;
    // Everybody without a rule says one thing: it goes to a representor, and there is none.
    for i in cast.bystanders() {
        let frame = Flow::udp(mac(i), mac(0), i).frame();
        report.sent(clients[i].send(&frame).map_err(at(i))?);
        clients[i].flush().map_err(at(i))?;
    }
    let mut frames: Vec<[Vec<u8>; 2]> = Vec::new();
    for i in cast.talkers() {
        let flow = Flow::udp(mac(i), mac(i ^ 1), i);
        frames.push([flow.frame(), flow.mail().frame()]);
    }
    let spoofed = Flow::udp(Mac([2, 0xba, 0xd, 0, 0, 1]), mac(0), 0).frame();

    let bar = progress("traffic", seconds as usize * 10);
    let until = Instant::now() + Duration::from_secs(u64::from(seconds));
    let mut buffer = Vec::new();
    let mut round = 0usize;
    while Instant::now() < until {
        for i in cast.talkers() {
            for n in 0..BURST {
                // One in eight of what the even ones say is mail.
                let kind = usize::from(i % 2 == 0 && n % 8 == 0);
                if !report.sent(clients[i].send(&frames[i][kind]).map_err(at(i))?) {
                    break;
                }
            }
            clients[i].flush().map_err(at(i))?;
        }
        report.sent(
            clients[cast.spoofer]
                .send(&spoofed)
                .map_err(at(cast.spoofer))?,
        );
        clients[cast.spoofer].flush().map_err(at(cast.spoofer))?;
        take(cast, clients, &mut buffer, report)?;
        round += 1;
        if round.is_multiple_of(64) {
            let left = until.saturating_duration_since(Instant::now());
            bar.set_position(u64::from(seconds) * 10 - left.as_millis() as u64 / 100);
        }
    }
    bar.finish_and_clear();
    let patience = Instant::now() + Duration::from_secs(5);
    for i in 0..clients.len() {
        while clients[i].in_flight().map_err(at(i))? > 0 && Instant::now() < patience {
            take(cast, clients, &mut buffer, report)?;
        }
    }
    take(cast, clients, &mut buffer, report)
}

/// Everybody but the sleeper takes what has come.
fn take(
    cast: &Cast,
    clients: &mut [Client],
    buffer: &mut Vec<u8>,
    report: &mut Report,
) -> Result<(), DemoError> {
    for channel in cast.talkers().chain([cast.monitor]) {
        let client = &mut clients[channel];
        while client
            .receive(buffer)
            .map_err(|source| DemoError::Client { channel, source })?
        {
            report.received(buffer.len());
        }
    }
    Ok(())
}
