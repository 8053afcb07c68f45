//! The thread that listens to the kernel.

use super::bridge_db::FdbKey;
use super::link::Bridge;
use super::mirror::{Effect, Mirror};
use super::plan::{Basis, Form, Part, Planner, RuleKey, Source};
use super::way;
use crate::nic::Nic;
use crate::port::rtnl::{Request, Rtnl, messages};
use chanio_model::Nanos;
use chanio_netlink::tc::{At, EGRESS, GET_FILTER, GET_QDISC, Header, INGRESS};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Groups of linux/rtnetlink.h, RTNLGRP_*: LINK, NEIGH, TC; addresses, routes and rules of IPv4, the
/// same of IPv6; BRVLAN, and of nexthops.
const GROUPS: [u32; 11] = [1, 3, 4, 5, 7, 8, 9, 11, 19, BRVLAN, NEXTHOP];
const NEXTHOP: u32 = 32;
const BRVLAN: u32 = 33;
/// RTM_GETVLAN of linux/rtnetlink.h.
const RTM_GETVLAN: u16 = 114;
/// Room for one datagram of notifications.
const DATAGRAM_LEN: usize = 64 * 1024;
/// A plan is made when the kernel has been quiet for so long,
const QUIET: Duration = Duration::from_millis(3);
/// or goes on talking for so long, or twice as long as the last plan took.
const PATIENCE: Duration = Duration::from_millis(50);
/// How often it is tried to read the kernel's state while it changes.
const DUMPS: usize = 5;
/// When to try again after it could not be read.
const RETRY: Duration = Duration::from_secs(1);
/// Bounds of the time between two looks at which addresses were used.
const REFRESH: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(10);

/// A running listener; it ends when this is dropped.
pub struct Offload {
    wake: Arc<EventFd>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Offload {
    /// Listens to the calling thread's network namespace for a NIC, which writes to `wake` when
    /// what plans are made for changes.
    ///
    /// # Errors
    /// The system refuses a netlink socket or a thread.
    pub(crate) fn start(nic: Weak<Nic>, wake: Arc<EventFd>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut listener = Listener {
            nic,
            events: subscribe()?,
            rtnl: Rtnl::open()?,
            wake: wake.clone(),
            stop: stop.clone(),
            mirror: Mirror::default(),
            planner: Planner::default(),
            refreshed: BTreeMap::new(),
            neighbours: Vec::new(),
            used: BTreeMap::new(),
        };
        let thread = std::thread::Builder::new().name("offload".into());
        let thread = Some(thread.spawn(move || listener.run())?);
        Ok(Self { wake, stop, thread })
    }
}

impl Drop for Offload {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let woken = self.wake.write(1).is_ok();
        if let Some(thread) = self.thread.take()
            // The last hold on the NIC may be that thread's own.
            && thread.thread().id() != std::thread::current().id()
            && woken
        {
            let _ = thread.join();
        }
    }
}

fn subscribe() -> io::Result<Socket> {
    /// What does not fit is read anew.
    const RECV_BUFFER: usize = 8 << 20;
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in GROUPS {
        match (group, socket.add_membership(group)) {
            // Before Linux 5.7 and 5.3 there are none.
            (BRVLAN | NEXTHOP, _) => {}
            (_, joined) => joined?,
        }
    }
    socket.set_non_blocking(true)?;
    // Ignores the system's maximum if we have the privilege.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECV_BUFFER);
    Ok(socket)
}

struct Listener {
    nic: Weak<Nic>,
    events: Socket,
    rtnl: Rtnl,
    wake: Arc<EventFd>,
    stop: Arc<AtomicBool>,
    mirror: Mirror,
    planner: Planner,
    /// When frames from an address were last seen in hardware, as the bridge was told.
    refreshed: BTreeMap<FdbKey, Nanos>,
    /// The rules that send packets to a neighbour, and when the kernel was told that they do.
    neighbours: Vec<(RuleKey, Neighbour)>,
    used: BTreeMap<Neighbour, Nanos>,
}

/// A netdev, and an address there.
type Neighbour = (u32, IpAddr);

impl Listener {
    fn run(&mut self) {
        let mut datagram = vec![0; DATAGRAM_LEN];
        // Whether the mirror has to be read anew, since when there is something to plan.
        let (mut unknown, mut pending) = (true, Some(Instant::now()));
        let mut last_plan = Duration::ZERO;
        let mut next_refresh = Instant::now();
        loop {
            if unknown {
                match self.resync() {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => {
                        tracing::warn!(%error, "offload: the kernel's state could not be read");
                        if !self.wait(RETRY) {
                            return;
                        }
                        continue;
                    }
                }
            }
            let patience = match pending {
                Some(_) => QUIET,
                None => next_refresh.saturating_duration_since(Instant::now()),
            };
            let heard = match self.listen(patience, &mut datagram) {
                Some(effect) => effect,
                None => return,
            };
            unknown = heard == Effect::Unknown;
            if heard != Effect::None {
                pending.get_or_insert_with(Instant::now);
            }
            if let Some(since) = pending
                && (heard == Effect::None || since.elapsed() > PATIENCE.max(2 * last_plan))
                && !unknown
            {
                let began = Instant::now();
                match self.apply() {
                    Some(true) => pending = None,
                    Some(false) => {}
                    None => return,
                }
                last_plan = began.elapsed();
            }
            if Instant::now() >= next_refresh {
                let Some(pause) = self.refresh() else { return };
                next_refresh = Instant::now() + pause;
            }
        }
    }

    /// Sleeps until it is time or the NIC wants something; false when it is time to end.
    fn wait(&self, at_most: Duration) -> bool {
        let mut fds = [PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut fds, timeout);
        let _ = self.wake.read();
        !self.stop.load(Ordering::Acquire)
    }

    /// Takes in what the kernel says within a time; `None` when it is time to end.
    fn listen(&mut self, at_most: Duration, datagram: &mut [u8]) -> Option<Effect> {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = [readable(self.events.as_fd()), readable(self.wake.as_fd())];
        // Rounded up, so that a time of less than a millisecond does not make a busy loop.
        let millis = u16::try_from(at_most.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "offload: the kernel is not listened to any more");
                return None;
            }
        }
        let (spoken, woken) = (fds[0].any() == Some(true), fds[1].any() == Some(true));
        if self.stop.load(Ordering::Acquire) {
            return None;
        }
        let mut effect = Effect::None;
        if woken {
            let _ = self.wake.read();
            effect = Effect::Changed;
        }
        if spoken {
            effect = effect.max(self.drain(datagram));
        }
        Some(effect)
    }

    fn drain(&mut self, datagram: &mut [u8]) -> Effect {
        let mut effect = Effect::None;
        loop {
            let mut room = &mut *datagram;
            match self.events.recv(&mut room, 0) {
                Ok(len) => {
                    for (header, body) in messages(&datagram[..len.min(DATAGRAM_LEN)]) {
                        effect = effect.max(self.mirror.note(header.message_type, body));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return effect,
                // Notifications were lost (netlink(7)); what is still there is older than what is
                // read next.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    effect = Effect::Unknown;
                    let overruns = self.nic.upgrade().map(|nic| nic.offload_overrun());
                    tracing::warn!(
                        overruns,
                        "offload: notifications of the kernel were lost, all is read anew"
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "offload: listening to the kernel");
                    return Effect::Unknown;
                }
            }
        }
    }

    /// Reads all of the kernel's state; false when the NIC is gone.
    fn resync(&mut self) -> io::Result<bool> {
        let Some(nic) = self.nic.upgrade() else {
            return Ok(false);
        };
        let basis = nic.offload_basis();
        drop(nic);
        for _ in 0..DUMPS {
            let mut mirror = Mirror::default();
            if self.dump(&mut mirror, &basis)? {
                self.mirror = mirror;
                return Ok(true);
            }
        }
        Err(io::Error::other("it changes faster than it can be read"))
    }

    /// False: it changed meanwhile, and some of it may be missing.
    fn dump(&mut self, mirror: &mut Mirror, basis: &Basis) -> io::Result<bool> {
        let rtnl = &mut self.rtnl;
        let mut ask = |mirror: &mut Mirror, kind: u16, body: &[u8]| {
            rtnl.dump(kind, body, |kind, body| {
                mirror.note(kind, body);
            })
        };
        let bridge = libc::AF_BRIDGE as u8;
        let mut whole = ask(mirror, libc::RTM_GETLINK, &[0; 16])?;
        if mirror.links.values().any(|link| link.bridge.is_some()) {
            match ask(mirror, RTM_GETVLAN, &[bridge, 0, 0, 0, 0, 0, 0, 0]) {
                Ok(all) => whole &= all,
                // Then no bridge that looks at VLANs has addresses in hardware.
                Err(error) => tracing::warn!(%error, "offload: reading the bridges' VLANs"),
            }
            let neighbours = [bridge, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            whole &= ask(mirror, libc::RTM_GETNEIGH, &neighbours)?;
        }
        let tunnels = mirror
            .links
            .iter()
            .filter(|(_, link)| link.tunnel.is_some());
        let tunnels: Vec<u32> = tunnels.map(|(index, _)| *index).collect();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut header = [0; 12];
            header[0] = family as u8;
            whole &= ask(mirror, libc::RTM_GETADDR, &header[..8])?;
            whole &= ask(mirror, libc::RTM_GETNEIGH, &header)?;
        }
        whole &= ask(mirror, GET_QDISC, &[0; Header::SIZE])?;
        let mut places = Vec::new();
        for index in basis.ports.iter().map(|port| port.ifindex).chain(tunnels) {
            let Some(qdiscs) = mirror.qdiscs.get(&index) else {
                continue;
            };
            let at = |parent| At::Device {
                ifindex: index.cast_signed(),
                parent,
            };
            match qdiscs.ingress {
                None => {}
                Some(None) => places.push(at(INGRESS)),
                Some(Some(block)) => places.push(At::Block(block)),
            }
            if qdiscs.egress {
                places.push(qdiscs.egress_block.map_or(at(EGRESS), At::Block));
            }
        }
        places.sort_by_key(|at| at.header().ifindex);
        places.dedup();
        for at in places {
            let mut body = chanio_netlink::attr::Writer::new();
            at.header().emit(&mut body);
            let body = body.finish().map_err(io::Error::other)?;
            match ask(mirror, GET_FILTER, &body) {
                Ok(all) => whole &= all,
                // It went with its qdisc meanwhile, of which there will be a notification.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL)) => {
                }
                Err(error) => return Err(error),
            }
        }
        Ok(whole)
    }

    /// Makes a plan and has the NIC carry it out; false if it changed meanwhile, `None` when it is
    /// gone.
    fn apply(&mut self) -> Option<bool> {
        let nic = self.nic.upgrade()?;
        let basis = nic.offload_basis();
        if let Err(error) = way::find(&mut self.mirror, &mut self.rtnl) {
            // Who has no way stays in the kernel.
            tracing::warn!(%error, "offload: asking for routes");
        }
        let mut plan = self.planner.plan(&self.mirror, &basis);
        self.neighbours = std::mem::take(&mut plan.neighbours);
        Some(nic.offload(basis.epoch, plan))
    }

    /// Tells bridges which addresses, and the host which neighbours were used in hardware, so that
    /// they do not age; returns when to do so again, `None` when the NIC is gone.
    fn refresh(&mut self) -> Option<Duration> {
        let nic = self.nic.upgrade()?;
        let (mut keys, mut addresses) = (Vec::<RuleKey>::new(), Vec::new());
        let ports: BTreeMap<u32, ()> = nic
            .offload_basis()
            .ports
            .iter()
            .map(|p| (p.ifindex, ()))
            .collect();
        for (key, entry) in &self.mirror.fdb {
            if !entry.fixed && !entry.local && ports.contains_key(&entry.port) {
                let from = [Form::Any, Form::Tagged, Form::Untagged].map(Part::From);
                keys.extend(from.map(|part| (Source::Fdb(*key), part)));
                addresses.push((*key, entry.port));
            }
        }
        let used = nic.last_used(&keys);
        let keys: Vec<_> = self.neighbours.iter().map(|(key, _)| *key).collect();
        let neighbours_used = nic.last_used(&keys);
        drop(nic);
        let mut now = BTreeMap::new();
        let mut requests = Vec::new();
        for ((key, port), used) in addresses.into_iter().zip(used.chunks(3)) {
            let used = used.iter().copied().max().unwrap_or(0);
            let before = self.refreshed.get(&key).copied().unwrap_or(0);
            if used > before {
                requests.push(use_address(key, port));
            }
            now.insert(key, used.max(before));
        }
        self.refreshed = now;
        let mut now: BTreeMap<Neighbour, Nanos> = BTreeMap::new();
        for ((_, neighbour), used) in self.neighbours.iter().zip(neighbours_used) {
            let latest = now.entry(*neighbour).or_default();
            *latest = used.max(*latest);
        }
        let before = std::mem::replace(&mut self.used, now);
        for (neighbour, used) in &self.used {
            if *used > before.get(neighbour).copied().unwrap_or(0) {
                requests.push(way::use_neighbour(*neighbour));
            }
        }
        match self.rtnl.run(requests) {
            Ok(outcomes) => {
                // An address that is gone would be learned anew by the next of its frames, and a
                // neighbour asked for.
                let refused = outcomes.into_iter().find_map(Result::err);
                if let Some(error) = refused {
                    tracing::debug!(%error, "offload: refreshing an address");
                }
            }
            Err(error) => tracing::warn!(%error, "offload: refreshing addresses"),
        }
        let bridges = self.mirror.links.values().filter_map(|link| link.bridge);
        let ages =
            bridges.map(|Bridge { ageing, .. }| Duration::from_millis(u64::from(ageing) * 10));
        let shortest = ages.min().unwrap_or(*REFRESH.end());
        Some((shortest / 4).clamp(*REFRESH.start(), *REFRESH.end()))
    }
}

/// As if a frame from the address had come in at its port (NTF_USE; net/bridge/br_fdb.c,
/// `__br_fdb_add`).
fn use_address(key: FdbKey, port: u32) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port;
    message.header.state = NeighbourState::Reachable;
    message.header.flags = NeighbourFlags::Controller | NeighbourFlags::Use;
    let attributes = &mut message.attributes;
    attributes.push(NeighbourAttribute::LinkLayerAddress(key.mac.0.to_vec()));
    if key.vid != 0 {
        attributes.push(NeighbourAttribute::Vlan(key.vid));
    }
    Request {
        message: RouteNetlinkMessage::NewNeighbour(message),
        flags: 0,
    }
}
