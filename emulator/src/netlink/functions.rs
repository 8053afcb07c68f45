//! Virtual functions and subfunctions: channels whose TAP is the function's netdev.
//!
//! A subfunction has a port, with a representor, from the moment it is added; its netdev appears
//! when it was activated and its driver has come, and goes when it is deactivated. The netdev is
//! therefore made in a namespace that nobody sees, and moved.

use super::played::Played;
use super::refuse;
use crate::nic::Refused;
use crate::nic::spec::{Attach, ChannelChange, ChannelSpec};
use crate::port::IfName;
use chanio_model::rss::{RssKey, RssSettings};
use chanio_model::{ChannelName, Mac, VportId};
use chanio_netlink::kernel::Refusal;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a function's driver takes to come: as a device on the auxiliary bus is probed by a
/// thread of the kernel's, nobody may take it for done when the request is.
const PROBE: Duration = Duration::from_millis(20);

/// What kind of function it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A subfunction, by the number that its owner gave it.
    Sf(u32),
    /// A virtual function, counted from 0.
    Vf(u16),
}

/// Whether a function's driver is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It is being configured.
    Inactive,
    /// Its driver will have come by then.
    Probing(Instant),
    /// Its driver is there.
    Attached {
        /// The netdev's index in the emulator's namespace, when it came there.
        ifindex: u32,
        /// N of its auxiliary device.
        auxiliary: u32,
    },
    /// It is in use, but its driver could not make its netdev.
    Detached,
}

/// A function.
#[derive(Clone, Debug)]
pub struct Function {
    /// What kind.
    pub kind: Kind,
    /// The channel that it is.
    pub channel: ChannelName,
    /// Its vport.
    pub vport: VportId,
    /// Its representor's netdev.
    pub representor: u32,
    /// Its address, once somebody has set one.
    pub hw_addr: Option<Mac>,
    /// RoCE is allowed.
    pub roce: bool,
    /// It can be migrated.
    pub migratable: bool,
    /// How many event queues its driver may make.
    pub max_io_eqs: u32,
    /// Whether it is in use.
    pub life: Life,
    /// Queue pairs that its packets are spread over.
    pub used_queues: u16,
    /// Its netdev's name, when it appears.
    pub netdev: IfName,
}

impl Function {
    /// It was activated.
    pub fn is_active(&self) -> bool {
        self.life != Life::Inactive
    }
}

/// mellanox/mlx5/core/eswitch.h: MLX5_ESW_DEFAULT_SF_COMP_EQS, of a subfunction's event queues
/// those for completions.
const DEFAULT_IO_EQS: u32 = 8;

/// A namespace in which netdevs are that nobody shall see yet.
pub fn hidden_namespace() -> io::Result<OwnedFd> {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        // What is up there shall not send anything on its own.
        let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    };
    // Threads are in namespaces, and this one ends here.
    let thread = std::thread::Builder::new().name("netns".into());
    let died = |_| Err(io::Error::other("the thread panicked"));
    thread.spawn(make)?.join().unwrap_or_else(died)
}

impl Played {
    /// The function behind a port.
    pub fn function(&self, port: u32) -> Result<&Function, Refusal> {
        self.functions
            .get(&port)
            .ok_or_else(|| Refusal::errno(libc::ENODEV))
    }

    /// Adds a subfunction, inactive, and tells its port.
    pub fn add_sf(&mut self, number: u32) -> Result<u32, Refusal> {
        let kind = Kind::Sf(number);
        if self.functions.values().any(|f| f.kind == kind) {
            return Err(self
                .vendor
                .refuse(libc::EEXIST, self.vendor.words.sf_exists));
        }
        let port = self.free_sf_port();
        self.make(vec![(port, kind)])?;
        Ok(port)
    }

    /// Whether a port's function is a virtual one.
    pub fn is_vf(&self, port: u32) -> bool {
        let kind = self.functions.get(&port).map(|f| f.kind);
        matches!(kind, Some(Kind::Vf(_)))
    }

    /// The lowest index that no subfunction's port has.
    fn free_sf_port(&self) -> u32 {
        let first = self.vendor.first_sf_port;
        let mut ports = self.functions.range(first..).map(|(port, _)| *port);
        // Most often they are all in a row.
        let last = self.functions.last_key_value().map_or(0, |(port, _)| *port);
        let is_sf = |f: &Function| matches!(f.kind, Kind::Sf(_));
        let count = self.functions.len() - self.vfs().count();
        match self.functions.last_key_value() {
            Some((_, f)) if is_sf(f) && last == first + count as u32 - 1 => last + 1,
            Some((_, f)) if is_sf(f) => (first..)
                .find(|port| ports.next() != Some(*port))
                .unwrap_or(last + 1),
            _ => first,
        }
    }

    /// The virtual functions, in their order.
    pub fn vfs(&self) -> impl Iterator<Item = (u32, &Function)> {
        let first = self.vendor.first_vf_port;
        let all = self.functions.range(first..self.vendor.first_sf_port);
        all.map(|(port, function)| (*port, function))
    }

    /// Removes a subfunction.
    pub fn del_sf(&mut self, port: u32) -> Result<(), Refusal> {
        let function = self.function(port)?.clone();
        self.nic
            .del_channels(std::slice::from_ref(&function.channel))
            .map_err(|refused| self.vendor.refusal(&refused))?;
        self.functions.remove(&port);
        self.forget(&function);
        Ok(())
    }

    /// What was known of the netdevs of a function that has gone.
    fn forget(&mut self, function: &Function) {
        let netdev = match function.life {
            Life::Attached { ifindex, .. } => Some(ifindex),
            _ => None,
        };
        for ifindex in netdev.into_iter().chain([function.representor]) {
            // The rules have gone with the channel that they name.
            self.filters.forget(ifindex);
            self.forget_addresses(ifindex);
        }
        self.free_auxiliary(function.life);
    }

    /// Has so many virtual functions, all of them new; 0: none.
    pub fn set_vfs(&mut self, count: u16) -> Result<(), Refusal> {
        if count == 0 {
            let (ports, channels): (Vec<_>, Vec<_>) = self
                .vfs()
                .map(|(port, f)| (port, f.channel.clone()))
                .unzip();
            self.nic
                .del_channels(&channels)
                .map_err(|refused| self.vendor.refusal(&refused))?;
            for port in ports {
                if let Some(function) = self.functions.remove(&port) {
                    self.forget(&function);
                }
            }
            return Ok(());
        }
        let kinds: Vec<_> = (self.vendor.first_vf_port..)
            .zip((0..count).map(Kind::Vf))
            .collect();
        self.make(kinds.clone())?;
        // The kernel, too, looks for their drivers before the write to sriov_numvfs returns.
        let now = Instant::now();
        for (port, _) in kinds {
            if let Some(function) = self.functions.get_mut(&port) {
                function.life = Life::Probing(now);
            }
        }
        self.probe(now);
        Ok(())
    }

    /// Makes the channels of functions, all or none.
    fn make(&mut self, kinds: Vec<(u32, Kind)>) -> Result<(), Refusal> {
        let hidden = match &self.hidden {
            Some(hidden) => hidden,
            None => {
                let made = hidden_namespace().map_err(|error| {
                    self.vendor.refuse(
                        error.raw_os_error().unwrap_or(libc::EIO),
                        &format!(
                            "a network namespace for netdevs to come (CAP_SYS_ADMIN): {error}"
                        ),
                    )
                })?;
                self.hidden.insert(made)
            }
        };
        let netns = format!("/proc/self/fd/{}", hidden.as_raw_fd());
        let mut specs = Vec::with_capacity(kinds.len());
        let mut names = Vec::with_capacity(kinds.len());
        for (_, kind) in &kinds {
            let (name, netdev) = self.names(*kind);
            let channel: ChannelName = name
                .parse()
                .map_err(|error| refuse::text(libc::EINVAL, &format!("{error}")))?;
            specs.push(ChannelSpec {
                queues: self.config.function_queues,
                rss: Some(RssSettings::even(
                    RssKey::MICROSOFT,
                    self.config.function_queues,
                )),
                attach: Attach::Tap {
                    netns: netns.clone(),
                    ifname: Some(netdev.to_string()),
                    addresses: Vec::new(),
                },
                ..ChannelSpec::new(channel)
            });
            names.push(netdev);
        }
        let refusal = |refused: &Refused| self.vendor.refusal(refused);
        let infos = self.nic.add_channels(specs).map_err(|r| refusal(&r))?;
        for (((port, kind), info), netdev) in kinds.into_iter().zip(infos).zip(names) {
            let function = Function {
                kind,
                channel: info.spec.name,
                vport: info.vport,
                representor: info
                    .representor
                    .and_then(|name| if_nametoindex(name.as_str()).ok())
                    .unwrap_or(0),
                hw_addr: None,
                roce: true,
                migratable: false,
                max_io_eqs: DEFAULT_IO_EQS,
                life: Life::Inactive,
                used_queues: self.config.function_queues,
                netdev,
            };
            self.functions.insert(port, function);
        }
        Ok(())
    }

    /// A function's channel and netdev.
    fn names(&self, kind: Kind) -> (String, IfName) {
        let prefix = self.config.slot.netdev_prefix();
        let (channel, long, short) = match kind {
            Kind::Sf(number) => (
                format!("pf0sf{number}"),
                format!("{prefix}s{number}"),
                format!("sf{number}"),
            ),
            Kind::Vf(number) => (
                format!("pf0vf{number}"),
                format!("{prefix}v{number}"),
                format!("vf{number}"),
            ),
        };
        // Of the two the short one has at most 12 bytes, none of them special.
        let name = long.parse().or_else(|_| short.parse());
        (channel, name.expect("a letter and a number"))
    }

    /// Activates a subfunction: its driver comes.
    pub fn activate(&mut self, port: u32) -> Result<(), Refusal> {
        self.function(port)?;
        if let Some(function) = self.functions.get_mut(&port)
            && !function.is_active()
        {
            function.life = Life::Probing(Instant::now() + PROBE);
        }
        Ok(())
    }

    /// Deactivates a subfunction: its driver goes, and with it its netdev, wherever that is.
    pub fn deactivate(&mut self, port: u32) -> Result<(), Refusal> {
        let function = self.function(port)?.clone();
        if let (Life::Attached { .. }, Some(hidden)) = (function.life, &self.hidden) {
            let moved = self
                .nic
                .move_netdev(&function.channel, hidden.as_fd(), &function.netdev);
            if let Err(error) = moved {
                // Its namespace has gone, and the netdev with it.
                tracing::debug!(%error, port, "taking back the netdev of a subfunction");
            }
        }
        if let Some(function) = self.functions.get_mut(&port) {
            function.life = Life::Inactive;
        }
        self.free_auxiliary(function.life);
        Ok(())
    }

    /// Has the switch and the netdev know a function by another address, which its driver chose.
    pub fn set_mac(&self, port: u32, mac: Mac) -> Result<(), Refusal> {
        let channel = &self.function(port)?.channel;
        let change = ChannelChange {
            mac: Some(mac),
            ..ChannelChange::default()
        };
        let changed = self.nic.set_channel(channel, change);
        changed
            .map(drop)
            .map_err(|refused| self.vendor.refusal(&refused))
    }

    /// Sets a function's address, as its owner does.
    pub fn set_hw_addr(&mut self, port: u32, mac: Mac) -> Result<(), Refusal> {
        self.set_mac(port, mac)?;
        if let Some(function) = self.functions.get_mut(&port) {
            function.hw_addr = Some(mac);
        }
        Ok(())
    }

    /// When the next driver has come.
    pub fn next_probe(&self) -> Option<Instant> {
        let probing = self.functions.values().filter_map(|f| match f.life {
            Life::Probing(at) => Some(at),
            _ => None,
        });
        probing.min()
    }

    /// The drivers that have come by now show their netdevs.
    pub fn probe(&mut self, now: Instant) {
        let due = |f: &Function| matches!(f.life, Life::Probing(at) if at <= now);
        let ports: Vec<u32> = self
            .functions
            .iter()
            .filter_map(|(port, f)| due(f).then_some(*port))
            .collect();
        for port in ports {
            let Some(function) = self.functions.get(&port).cloned() else {
                continue;
            };
            let moved =
                self.nic
                    .move_netdev(&function.channel, self.home.as_fd(), &function.netdev);
            let life = match moved {
                Ok(ifindex) => Life::Attached {
                    ifindex,
                    auxiliary: self.new_auxiliary(),
                },
                Err(error) => {
                    tracing::warn!(%error, netdev = %function.netdev, "the netdev of a function");
                    Life::Detached
                }
            };
            if let Some(function) = self.functions.get_mut(&port) {
                function.life = life;
            }
        }
    }

    /// The lowest free N of an auxiliary device.
    fn new_auxiliary(&mut self) -> u32 {
        self.auxiliaries.free.pop_first().unwrap_or_else(|| {
            self.auxiliaries.next += 1;
            self.auxiliaries.next - 1
        })
    }

    fn free_auxiliary(&mut self, life: Life) {
        if let Life::Attached { auxiliary, .. } = life {
            self.auxiliaries.free.insert(auxiliary);
        }
    }
}

/// Which numbers auxiliary devices have.
#[derive(Debug)]
pub struct Auxiliaries {
    free: BTreeSet<u32>,
    next: u32,
}

impl Default for Auxiliaries {
    fn default() -> Self {
        Self {
            free: BTreeSet::new(),
            // The physical function's own are before.
            next: 2,
        }
    }
}
