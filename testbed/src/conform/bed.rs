//! The device under test, and what cases make on it.

use super::behind::Table;
use super::case::{Ended, Failure, Setup, Stop};
use super::endpoint::{Driver, Endpoint, Netdev, Nobody};
use super::machine::{Machine, Plugged};
use super::report::Measured;
use super::stacks::{Counted, Talk};
use super::suite::SuiteError;
use super::world::{Port, World};
use crate::netns::Netns;
use chanio::nic::{Channel, ChannelSpec, EswitchChange, NicInfo};
use chanio::{DeviceError, Feature, Nic};
use chanio_emu::nic::spec::Attach;
use chanio_model::Mac;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Opens the device, as often as it is asked to.
pub type Opener = Box<dyn Fn() -> Result<Box<dyn Nic>, DeviceError>>;

/// Who has the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Endpoints {
    /// Netdevs in network namespaces.
    Netns,
    /// Virtio drivers at vhost-user sockets.
    VhostUser,
    /// A QEMU guest with Debian's kernel, which each channel is a NIC of.
    Guest,
    /// Channels have no ends that frames come out of.
    Nobody,
}

/// The device under test.
pub struct Bed {
    /// Calls to it.
    pub nic: Box<dyn Nic>,
    /// What it said about itself.
    pub info: NicInfo,
    /// What cases have made on it.
    pub world: World,
    /// What was measured.
    pub measured: Vec<Measured>,
    /// Who has the channels.
    pub endpoints: Endpoints,
    /// Random choices.
    pub random: Random,
    open: Opener,
    wire: Option<String>,
    netns: BTreeMap<String, Netns>,
    /// The guest that has the channels.
    machine: Option<Arc<Machine>>,
    /// Where the host's ends are, if this kernel carries out the rules itself.
    behind: Option<Table>,
    /// The world is the one of [`Setup::World`], or somebody has changed it.
    standard: bool,
}

/// Deterministic random numbers (xorshift64*; only for choosing what to send).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next 32 bits.
    pub fn word(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u32) -> u32 {
        self.word() % n
    }
}

/// A channel with one queue pair and nothing special about it, of this name.
pub fn wish(name: &str) -> ChannelSpec {
    ChannelSpec {
        function: None,
        roce: None,
        name: name.to_owned(),
        queues: 1,
        mac: None,
        vlan: 0,
        mtu: 1500,
        spoofchk: false,
        trust: false,
        link_up: true,
        rss: None,
        lro: false,
        block: 0,
        receive: Default::default(),
        attach: Attach::VhostUser,
    }
}

impl Bed {
    /// Opens the device.
    ///
    /// # Errors
    /// It cannot be opened, or its channels cannot be attached to.
    pub fn open(
        open: Opener,
        endpoints: Option<Endpoints>,
        wire: Option<String>,
        seed: u64,
    ) -> Result<Self, SuiteError> {
        let mut nic = open()?;
        let info = nic.info()?;
        let has = |kind: &str| info.capabilities.attach.iter().any(|a| a.starts_with(kind));
        let chosen = match endpoints {
            Some(chosen) => chosen,
            None if has("tap:") && nix::unistd::geteuid().is_root() => Endpoints::Netns,
            None if has("vhost-user") => Endpoints::VhostUser,
            None if has("tap:") => Endpoints::Netns,
            None => Endpoints::Nobody,
        };
        let machine = match chosen {
            Endpoints::Guest if !has("vhost-user") => {
                let why = format!("{}: no channel is a vhost-user device", info.device);
                return Err(SuiteError::Guest(why));
            }
            Endpoints::Guest => Some(Machine::boot().map_err(SuiteError::Guest)?),
            _ => None,
        };
        let in_software = info.profile == "veth" && !info.capabilities.actions.is_empty();
        // The emulator's own wire may have its other end here.
        let wire = wire.or_else(|| info.uplink.strip_prefix("tap:").map(str::to_owned));
        Ok(Self {
            nic,
            info,
            world: World::default(),
            measured: Vec::new(),
            endpoints: chosen,
            random: Random::new(seed),
            open,
            wire,
            netns: BTreeMap::new(),
            machine,
            behind: in_software.then(Table::new),
            standard: false,
        })
    }

    /// The device as another program would open it.
    ///
    /// # Errors
    /// The device's.
    pub fn another(&self) -> Result<Box<dyn Nic>, DeviceError> {
        (self.open)()
    }

    /// Makes what must be there before a case begins.
    ///
    /// # Errors
    /// The device refuses.
    pub fn set_up(&mut self, setup: Setup) -> Ended {
        match setup {
            Setup::Bare => {
                self.clear()?;
                // Some devices have channels in one mode only: this one, if they have it at all.
                if self.info.capabilities.modes.contains(&"switchdev") {
                    self.mode("switchdev")?;
                }
            }
            Setup::World if self.standard => {
                self.flush_flows()?;
                self.world.drain()?;
            }
            Setup::World => {
                self.clear()?;
                self.mode("switchdev")?;
                let specs = [("a", 0x0a), ("b", 0x0b), ("c", 0x0c)].map(|(name, last)| {
                    let mac = format!("02:c0:00:00:00:{last:02x}");
                    ChannelSpec {
                        mac: Some(mac),
                        ..wish(name)
                    }
                });
                self.add(specs.into())?;
                self.standard = true;
            }
        }
        self.world.sent.clear();
        // Only cases about the wire look at it.
        self.world.wire = None;
        Ok(())
    }

    fn flush_flows(&mut self) -> Ended {
        match self.nic.flush_flows() {
            Ok(_) | Err(DeviceError::Unsupported { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes all channels and rules.
    ///
    /// # Errors
    /// The device refuses.
    pub fn clear(&mut self) -> Ended {
        self.standard = false;
        self.world.ports.clear();
        self.flush_flows()?;
        let channels = self.nic.channels(&[])?;
        let names: Vec<_> = channels.into_iter().map(|c| c.name).collect();
        if !names.is_empty() {
            self.nic.del_channels(&names)?;
        }
        Ok(())
    }

    /// Removes what a case that ended badly has left besides channels and rules: rate nodes, where
    /// there are such.
    pub fn remove_rate_nodes(&mut self) {
        let rates = self.nic.rates(&[]).unwrap_or_default();
        for node in rates.iter().filter(|rate| rate.kind == "node") {
            if let Err(error) = self.nic.del_rate(&node.name) {
                eprintln!("conform: rate node {}: {error}", node.name);
            }
        }
    }

    /// The switch in this mode.
    ///
    /// # Errors
    /// The device has no such mode.
    pub fn mode(&mut self, mode: &str) -> Ended {
        let now = self.nic.eswitch()?;
        self.world.legacy = mode == "legacy";
        if now.mode != mode {
            let switchdev = Some(mode == "switchdev");
            self.nic.set_eswitch(EswitchChange {
                switchdev,
                ..EswitchChange::default()
            })?;
        }
        Ok(())
    }

    /// Makes channels, with somebody at every end. Where a spec attaches to a vhost-user socket,
    /// the attachment is the one of [`Bed::endpoints`].
    ///
    /// # Errors
    /// The device refuses, or an end cannot be opened.
    pub fn add(&mut self, specs: Vec<ChannelSpec>) -> Ended<Vec<Channel>> {
        self.standard = false;
        let specs = specs.into_iter().map(|spec| self.attached(spec)).collect();
        let channels = self.nic.add_channels(specs)?;
        for channel in &channels {
            let port = self.port(channel)?;
            self.world.ports.push(port);
        }
        Ok(channels)
    }

    /// Removes a channel, and whoever had it.
    ///
    /// # Errors
    /// The device refuses.
    pub fn del(&mut self, name: &str) -> Ended {
        self.standard = false;
        self.nic.del_channels(&[name.to_owned()])?;
        self.world.ports.retain(|port| port.name != name);
        Ok(())
    }

    /// The spec with the attachment that this run uses.
    pub fn attached(&mut self, mut spec: ChannelSpec) -> ChannelSpec {
        if spec.attach != Attach::VhostUser {
            return spec;
        }
        spec.attach = match self.endpoints {
            Endpoints::VhostUser | Endpoints::Guest => Attach::VhostUser,
            Endpoints::Nobody => Attach::Nothing,
            Endpoints::Netns => Attach::Tap {
                netns: self.netns(&spec.name).name().to_owned(),
                ifname: None,
                addresses: Vec::new(),
            },
        };
        spec
    }

    /// The same for the `n`th of many channels at whose own ends nobody is: where they are
    /// netdevs, all are in one namespace.
    pub fn crowded(&mut self, n: u32, mut spec: ChannelSpec) -> ChannelSpec {
        if self.endpoints == Endpoints::Netns && spec.attach == Attach::VhostUser {
            spec.attach = Attach::Tap {
                netns: self.netns("many").name().to_owned(),
                ifname: Some(format!("many{n}")),
                addresses: Vec::new(),
            };
        }
        self.attached(spec)
    }

    /// Why nobody is at the channels' own ends, in the device's words.
    pub fn why_nobody(&self) -> String {
        let why = self.nic.why_not(Feature::Netns);
        why.unwrap_or_else(|| "nobody is at the channels' own ends".into())
    }

    /// Whether channels are netdevs, below a kernel's own stack.
    pub fn has_netdevs(&self) -> bool {
        matches!(self.endpoints, Endpoints::Netns | Endpoints::Guest)
    }

    /// What a program says that is run where the channel of this name is a netdev, `eth0`; or, if it
    /// fails, why.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run_at(&mut self, channel: &str, words: &[&str]) -> Ended<Result<String, String>> {
        let (good, out, err) = match &self.machine {
            Some(machine) => {
                let said = machine.run(channel, words)?;
                (said.good, said.out, said.err)
            }
            None => {
                let out = self.netns(channel).command(words).output()?;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                (out.status.success(), text(&out.stdout), text(&out.stderr))
            }
        };
        Ok(match good {
            true => Ok(out),
            false => Err(err.trim().to_owned()),
        })
    }

    /// Has the kernels' stacks at two channels talk to each other.
    ///
    /// # Errors
    /// As [`Talk::perform`].
    pub fn talk(&mut self, talk: Talk, channels: [&str; 2]) -> Ended<Counted> {
        match &self.machine {
            Some(machine) => machine.talk(talk, channels),
            None => talk.perform(&channels.map(|name| self.netns(name).path())),
        }
    }

    /// The network namespace of the channel of this name; it stays until the run is over.
    fn netns(&mut self, channel: &str) -> &Netns {
        self.netns.entry(channel.to_owned()).or_insert_with(|| {
            // A name is a file's; the channel's may be longer than that, or odd.
            let plain = channel.chars().filter(char::is_ascii_alphanumeric);
            let plain: String = plain.take(20).collect();
            Netns::new(&format!("conform-{}-{plain}", std::process::id()))
        })
    }

    fn port(&mut self, channel: &Channel) -> Ended<Port> {
        let own = self.own_end(channel)?;
        let host = match &channel.representor {
            Some(netdev) => Some(self.host_end(netdev)?),
            None => None,
        };
        let mac = channel.mac.parse::<Mac>();
        let mac = mac.map_err(|e| Failure::new(format!("mac: `{}`: {e}", channel.mac)));
        Ok(Port {
            name: channel.name.clone(),
            mac: mac.map_err(Stop::Failed)?.0,
            representor: channel.representor.clone(),
            own,
            host,
        })
    }

    /// Somebody at a channel's own end.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn own_end(&mut self, channel: &Channel) -> Ended<Box<dyn Endpoint>> {
        if let (Some(socket), Some(machine)) = (&channel.socket, &self.machine) {
            let nic = Plugged {
                channel: channel.name.clone(),
                mac: channel.mac.clone(),
                queues: channel.queues,
                mtu: channel.mtu,
            };
            return Ok(Box::new(machine.plug(Path::new(socket), &nic)?));
        }
        if let Some(socket) = &channel.socket {
            return Ok(Box::new(Driver::attach(Path::new(socket))?));
        }
        if self.endpoints == Endpoints::Nobody {
            return Ok(Box::new(Nobody(self.why_nobody())));
        }
        let netns = self.netns(&channel.name);
        // What is merged on its way up is not what came.
        let up = "ip link set eth0 up; ethtool -K eth0 gro off >/dev/null 2>&1; true";
        netns.run(&["sh", "-c", up]);
        Ok(Box::new(Netdev::open_inside(&netns.path(), "eth0")?))
    }

    /// The host, on a representor.
    fn host_end(&self, netdev: &str) -> Ended<Box<dyn Endpoint>> {
        set_up(netdev)?;
        Ok(match &self.behind {
            Some(table) => Box::new(table.host(netdev)?),
            None => Box::new(Netdev::open(netdev)?),
        })
    }

    /// Somebody at the other end of the wire.
    ///
    /// # Errors
    /// Nobody can be there.
    pub fn open_wire(&mut self) -> Ended {
        let Some(netdev) = &self.wire else {
            return Err(Stop::NotSupported(
                "nobody is at the other end of the wire: name a netdev with --wire".into(),
            ));
        };
        if self.world.wire.is_none() {
            set_up(netdev)?;
            self.world.wire = Some(Box::new(Netdev::open(netdev)?));
        }
        Ok(())
    }

    /// Whether it says of every lost packet why: what can follow a packet knows.
    pub fn tells_losses(&self) -> bool {
        self.nic.why_not(Feature::Trace).is_none()
    }

    /// As [`Bed::add`], for channels with something that not every device has.
    ///
    /// # Errors
    /// The device refuses: then it is not supported.
    pub fn add_if_possible(&mut self, specs: Vec<ChannelSpec>) -> Ended<Vec<Channel>> {
        self.add(specs).map_err(|stop| match stop {
            Stop::Failed(Failure { why, .. }) => {
                Stop::NotSupported(why.trim_start_matches("refused: ").to_owned())
            }
            other => other,
        })
    }

    /// Adds rules in which `{a}` is channel `a`; their ids.
    ///
    /// # Errors
    /// The device refuses.
    pub fn rules(&mut self, rules: &[&str]) -> Result<Vec<u64>, DeviceError> {
        let named = |rule: &&str| rule.replace(['{', '}'], "");
        self.nic.add_flows(rules.iter().map(named).collect(), false)
    }

    /// Packets that each of these rules has counted.
    ///
    /// # Errors
    /// The device's.
    pub fn counted(&mut self, ids: &[u64]) -> Ended<Vec<u64>> {
        let flows = self.nic.flows()?;
        let of = |id: &u64| flows.iter().find(|flow| flow.id == *id);
        ids.iter()
            .map(|id| match of(id) {
                Some(flow) => Ok(flow.packets),
                None => Err(Stop::Failed(Failure::new(format!(
                    "rule {id} is not listed"
                )))),
            })
            .collect()
    }

    /// What was lost so far, by vport and reason; nothing where the device does not tell.
    pub fn drops(&mut self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let stats = self.nic.stats(&[], false).unwrap_or_default();
        let lost = |drops: &BTreeMap<String, u64>| !drops.is_empty();
        let stats = stats.into_iter().map(|vport| (vport.name, vport.drops));
        stats.filter(|(_, drops)| lost(drops)).collect()
    }
}

/// Takes one of the host's netdevs up, which is to say nothing of its own.
fn set_up(netdev: &str) -> Ended {
    let _ = std::fs::write(
        format!("/proc/sys/net/ipv6/conf/{netdev}/disable_ipv6"),
        "1",
    );
    let mut up = Command::new("ip");
    let done = up.args(["link", "set", netdev, "up"]).output()?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(Stop::Error(format!("{netdev}: {}", said.trim())));
    }
    Ok(())
}

/// Waits until something is so.
///
/// # Errors
/// It was not in time.
pub fn within(
    time: Duration,
    what: &str,
    mut done: impl FnMut() -> Result<bool, DeviceError>,
) -> Ended {
    let until = Instant::now() + time;
    while !done()? {
        if Instant::now() > until {
            return Err(Stop::Failed(Failure::new(format!(
                "waited {} s in vain for {what}",
                time.as_secs_f64()
            ))));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
