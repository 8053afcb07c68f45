//! Virtual functions and subfunctions: channels whose TAP is the function's netdev. So are macvlan
//! devices that have queues of the NIC's (`macvlans`).
//!
//! A subfunction has a port, with a representor, from the moment it is added; its netdev appears
//! when it was activated and its driver has come, and goes when it is deactivated. Until then the
//! netdev is there, but down, and nobody is told of it: moving it in from another namespace would
//! cost a grace period of the kernel's for each function.

use super::played::Played;
use super::refuse;
use super::table::{Function, Kind};
use crate::nic::Refused;
use crate::nic::spec::{Attach, ChannelChange, ChannelSpec};
use crate::port::IfName;
use chanio_model::rss::{RssKey, RssSettings};
use chanio_model::{ChannelName, Mac};
use chanio_netlink::kernel::Refusal;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a function's driver takes to come: as a device on the auxiliary bus is probed by a
/// thread of the kernel's, nobody may take it for done when the request is.
const PROBE: Duration = Duration::from_millis(20);

/// mellanox/mlx5/core/eswitch.h: MLX5_ESW_DEFAULT_SF_COMP_EQS, of a subfunction's event queues
/// those for completions.
const DEFAULT_IO_EQS: u32 = 8;

/// A namespace in which netdevs are whose functions were deactivated.
fn hidden_namespace() -> io::Result<OwnedFd> {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
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
            .get(port)
            .ok_or_else(|| Refusal::errno(libc::ENODEV))
    }

    /// Adds a subfunction, inactive, and tells its port.
    pub fn add_sf(&mut self, number: u32) -> Result<u32, Refusal> {
        let kind = Kind::Sf(number);
        if self.functions.port_of(kind).is_some() {
            return Err(self
                .vendor
                .refuse(libc::EEXIST, self.vendor.words.sf_exists));
        }
        let port = self.functions.take_sf_port();
        let made = self.make(vec![(port, kind)]);
        if made.is_err() {
            self.functions.give_sf_port_back(port);
        }
        made.map(|()| port)
    }

    /// Whether a port's function is a virtual one.
    pub fn is_vf(&self, port: u32) -> bool {
        let kind = self.functions.get(port).map(|f| f.kind);
        matches!(kind, Some(Kind::Vf(_)))
    }

    /// The virtual functions, in their order.
    pub fn vfs(&self) -> impl Iterator<Item = (u32, &Function)> {
        let first = self.vendor.first_vf_port;
        self.functions.range(first..self.vendor.first_sf_port)
    }

    /// Removes a subfunction.
    pub fn del_sf(&mut self, port: u32) -> Result<(), Refusal> {
        let channel = self.function(port)?.channel.clone();
        self.nic
            .del_channels(&[channel])
            .map_err(|refused| self.vendor.refusal(&refused))?;
        self.forget(port);
        Ok(())
    }

    /// A function has gone, with its netdevs and all that was known of them.
    pub(super) fn forget(&mut self, port: u32) {
        let netdev = self.functions.get(port).and_then(Function::ifindex);
        let Some(function) = self.functions.remove(port) else {
            return;
        };
        for ifindex in netdev.into_iter().chain([function.representor]) {
            // The rules have gone with the channel that they name.
            self.filters.forget(ifindex);
            self.forget_addresses(ifindex);
        }
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
                self.forget(port);
            }
            return Ok(());
        }
        let kinds: Vec<_> = (self.vendor.first_vf_port..)
            .zip((0..count).map(Kind::Vf))
            .collect();
        self.make(kinds.clone())?;
        // The kernel, too, looks for their drivers before the write to sriov_numvfs returns.
        for (port, _) in kinds {
            self.driver_comes(port);
        }
        Ok(())
    }

    /// Makes the channels of functions, all or none.
    pub(super) fn make(&mut self, kinds: Vec<(u32, Kind)>) -> Result<(), Refusal> {
        let netns = format!("/proc/self/fd/{}", self.home.as_raw_fd());
        let mut specs = Vec::with_capacity(kinds.len());
        let mut names = Vec::with_capacity(kinds.len());
        for (_, kind) in &kinds {
            let (name, netdev) = self.names(*kind);
            let channel: ChannelName = name
                .parse()
                .map_err(|error| refuse::text(libc::EINVAL, &format!("{error}")))?;
            let queues = self.queues_of(*kind);
            specs.push(ChannelSpec {
                queues,
                rss: Some(RssSettings::even(RssKey::MICROSOFT, queues)),
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
        let infos = self.nic.add_functions(specs).map_err(|r| refusal(&r))?;
        let index = |name: &str| if_nametoindex(name).ok();
        for (((port, kind), info), netdev) in kinds.into_iter().zip(infos).zip(names) {
            let representor = info.representor.as_deref().and_then(index);
            let ifindex = index(netdev.as_str());
            let queues = self.queues_of(kind);
            let mut function = Function::new(kind, info.spec.name, info.vport, netdev);
            function.representor = representor.unwrap_or(0);
            function.max_io_eqs = DEFAULT_IO_EQS;
            function.used_queues = queues;
            self.functions.insert(port, function, ifindex);
        }
        Ok(())
    }

    /// Queue pairs of a function.
    fn queues_of(&self, kind: Kind) -> u16 {
        match kind {
            // intel/i40e/i40e_main.c: i40e_fwd_add wants "a single Q device".
            Kind::Macvlan { .. } => 1,
            Kind::Sf(_) | Kind::Vf(_) => self.config.function_queues,
        }
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
            // Until it has the name that it is to have.
            Kind::Macvlan { number, .. } => (
                format!("pf0mv{number}"),
                format!("{prefix}m{number}"),
                format!("mv{number}"),
            ),
        };
        // Of the two the short one has at most 12 bytes, none of them special.
        let name = long.parse().or_else(|_| short.parse());
        (channel, name.expect("a letter and a number"))
    }

    /// Activates a subfunction: its driver comes.
    pub fn activate(&mut self, port: u32) -> Result<(), Refusal> {
        if !self.function(port)?.is_active() {
            self.functions.await_driver(port, Instant::now() + PROBE);
        }
        Ok(())
    }

    /// Deactivates a subfunction: its driver goes, and with it its netdev, wherever that is.
    pub fn deactivate(&mut self, port: u32) -> Result<(), Refusal> {
        let function = self.function(port)?;
        if function.auxiliary().is_some() {
            let (channel, netdev) = (function.channel.clone(), function.netdev.clone());
            let nic = self.nic.clone();
            let moved = nic.move_netdev(&channel, self.hidden()?, &netdev);
            if let Err(error) = moved {
                // Its namespace has gone, and the netdev with it.
                tracing::debug!(%error, port, "taking back the netdev of a subfunction");
            }
            self.functions.set_ifindex(port, None);
        }
        self.functions.deactivate(port);
        Ok(())
    }

    /// Where netdevs are whose functions were deactivated: what was set there, as addresses, has
    /// gone, as with a netdev that its driver makes anew.
    fn hidden(&mut self) -> Result<BorrowedFd<'_>, Refusal> {
        if self.hidden.is_none() {
            let made = hidden_namespace().map_err(|error| {
                let words = format!("a network namespace for netdevs (CAP_SYS_ADMIN): {error}");
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                self.vendor.refuse(errno, &words)
            })?;
            self.hidden = Some(made);
        }
        let hidden = self.hidden.as_ref();
        Ok(hidden.unwrap_or(&self.home).as_fd())
    }

    /// Has the switch and the netdev know a function by another address, which its driver chose.
    pub fn set_mac(&self, port: u32, mac: Mac) -> Result<(), Refusal> {
        let channel = &self.function(port)?.channel;
        let info = self.nic.channel(channel.as_str());
        if info.is_ok_and(|info| info.spec.mac == Some(mac)) {
            return Ok(());
        }
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
        if let Some(function) = self.functions.get_mut(port) {
            function.hw_addr = Some(mac);
        }
        Ok(())
    }

    /// The drivers that have come by now show their netdevs.
    pub fn probe(&mut self, now: Instant) {
        while let Some(port) = self.functions.next_due(now) {
            self.driver_comes(port);
        }
    }

    pub(super) fn driver_comes(&mut self, port: u32) {
        let Some(function) = self.functions.get(port) else {
            return;
        };
        // For one that was not taken away, this only makes sure that it is as it was made.
        let moved = self
            .nic
            .move_netdev(&function.channel, self.home.as_fd(), &function.netdev);
        if let Err(error) = &moved {
            tracing::warn!(%error, netdev = %function.netdev, "the netdev of a function");
        }
        let ifindex = moved.ok();
        self.functions.driver_came(port, ifindex);
        // The kernel knows of no change to a netdev that was there all the time.
        if let Some(ifindex) = ifindex
            && let Err(error) = self.tell_link(ifindex)
        {
            tracing::debug!(%error, ifindex, "telling of a function's netdev");
        }
    }
}
