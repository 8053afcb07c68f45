//! `<run-dir>/netlink.sock`: one thread for all who connect.

use super::NetlinkConfig;
use super::abroad::Abroad;
use super::connection::{Asked, Connection};
use super::host::HostEvents;
use super::played::{Played, ROUTE};
use crate::control::RunDir;
use crate::nic::{Nic, Refused};
use chanio_netlink::kernel::Kernel;
use chanio_netlink::played::{Answer, MAX_PACKET, SOCKET_NAME};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use rustix::net::{SocketFlags, accept_with, sockopt};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// Clients at once. Each is one file of the emulator's.
const MAX_CLIENTS: usize = 1024;

/// The kernel, played. Dropping it stops it.
pub struct NetlinkServer {
    path: PathBuf,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl NetlinkServer {
    /// Plays the kernel for a NIC at the socket in its run directory; when this returns, the
    /// socket accepts.
    ///
    /// # Errors
    /// [`Refused::Missing`] without netdevs or a wire; [`Refused::Os`].
    pub fn start(nic: Arc<Nic>, run_dir: &RunDir, config: NetlinkConfig) -> Result<Self, Refused> {
        let path = run_dir.path().join(SOCKET_NAME);
        let failed = |e: io::Error| Refused::os(format!("netlink: {}", path.display()), e);
        let played = Played::new(nic, config)?;
        if played.uplink().is_none() {
            return Err(Refused::Missing {
                what: "netlink: the netdev of the PCI device".into(),
                why: "it is the wire's, and there is no wire: --uplink tap:IF, packet:IF or pcap:"
                    .into(),
            });
        }
        let listener = run_dir.listen_for_packets(SOCKET_NAME).map_err(failed)?;
        let stop = Arc::new(EventFd::new().map_err(|e| failed(e.into()))?);
        let mut server = Server {
            listener,
            stop: stop.clone(),
            events: HostEvents::open(ROUTE).map_err(failed)?,
            abroad: Abroad::open().map_err(|e| {
                Refused::os(
                    "netlink: hearing of netdevs in containers (CAP_NET_BROADCAST)",
                    e,
                )
            })?,
            played,
            connections: BTreeMap::new(),
            next: 0,
            buffer: vec![0; MAX_PACKET],
        };
        let thread = std::thread::Builder::new().name("netlink".into());
        let thread = thread
            .spawn(move || {
                if let Err(error) = server.run() {
                    tracing::error!(%error, "the kernel is not played any more");
                }
            })
            .map_err(failed)?;
        Ok(Self {
            path,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for NetlinkServer {
    fn drop(&mut self) {
        if self.stop.write(1).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

struct Server {
    listener: OwnedFd,
    stop: Arc<EventFd>,
    events: HostEvents,
    abroad: Abroad,
    played: Played,
    connections: BTreeMap<u64, Connection>,
    next: u64,
    buffer: Vec<u8>,
}

impl Server {
    fn run(&mut self) -> io::Result<()> {
        loop {
            let Some(ready) = self.wait()? else {
                return Ok(());
            };
            self.played.probe(Instant::now());
            // Before any request, so that who has changed a netdev and then asks finds it changed.
            if ready.abroad {
                self.abroad.follow(&mut self.played)?;
            }
            // Nobody tells of what happens in a container: it is looked for before whoever asks
            // now could see it. There are few of them.
            self.played.forget_lost_macvlans();
            if ready.accept {
                self.accept()?;
            }
            if ready.events {
                self.relay()?;
            }
            for number in ready.writable {
                let flushed = self.connections.get_mut(&number).map(Connection::flush);
                if let Some(Err(error)) = flushed {
                    self.end(number, &error);
                }
            }
            for number in ready.readable {
                self.receive(number);
            }
            self.tell();
        }
    }

    /// Waits for something to do; none when it is time to end.
    fn wait(&self) -> io::Result<Option<Ready>> {
        let timeout = match self.played.functions.next_probe() {
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![
            readable(self.stop.as_fd()),
            readable(self.listener.as_fd()),
            readable(self.events.as_fd()),
            readable(self.abroad.as_fd()),
        ];
        for connection in self.connections.values() {
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, connection.has_waiting());
            fds.push(PollFd::new(connection.as_fd(), flags));
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let told = |index: usize| fds[index].revents().unwrap_or(PollFlags::empty());
        if !told(0).is_empty() {
            return Ok(None);
        }
        let mut ready = Ready {
            accept: !told(1).is_empty(),
            events: !told(2).is_empty(),
            abroad: !told(3).is_empty(),
            ..Ready::default()
        };
        for (index, number) in (4..).zip(self.connections.keys()) {
            if told(index).contains(PollFlags::POLLOUT) {
                ready.writable.push(*number);
            }
            if told(index).intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
                ready.readable.push(*number);
            }
        }
        Ok(Some(ready))
    }

    fn accept(&mut self) -> io::Result<()> {
        let socket = match accept_with(&self.listener, SocketFlags::CLOEXEC) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(%error, "accepting a client");
                return Ok(());
            }
        };
        if self.connections.len() == MAX_CLIENTS {
            tracing::warn!(MAX_CLIENTS, "one client too many");
            return Ok(());
        }
        // Room for the longest packet; where the system's limit is lower, for what it allows.
        let _ = sockopt::set_socket_send_buffer_size(&socket, 2 * MAX_PACKET);
        self.connections.insert(self.next, Connection::new(socket));
        self.next += 1;
        Ok(())
    }

    fn receive(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        let asked = connection.receive(&mut self.played, &mut self.buffer);
        match asked {
            Ok(Asked::Nothing) => {}
            Ok(Asked::Joined(group)) => {
                if let Err(error) = self.events.join(group) {
                    tracing::debug!(%error, group, "a group of the kernel's");
                }
            }
            Ok(Asked::Left(group)) => self.forget(group),
            Ok(Asked::Gone) => self.end(number, &"the client has gone"),
            Err(error) => self.end(number, &error),
        }
    }

    fn end(&mut self, number: u64, why: &dyn std::fmt::Display) {
        tracing::debug!(number, %why, "the end of a netlink client");
        if let Some(connection) = self.connections.remove(&number) {
            for group in connection.route_groups() {
                self.forget(group);
            }
        }
    }

    /// Listens no more to a group that nobody listens to.
    fn forget(&self, group: u32) {
        let listens = |connection: &Connection| connection.listens(ROUTE, group);
        if !self.connections.values().any(listens) {
            let _ = self.events.leave(group);
        }
    }

    /// What the kernel tells, for those who listen, as the driver would have it told.
    fn relay(&mut self) -> io::Result<()> {
        while let Some((messages, groups)) = self.events.next()? {
            for message in messages {
                let told = self.played.as_the_driver(message, 0);
                let Ok(Some(message)) = told else { continue };
                let datagram = message.to_bytes();
                self.send_to(&datagram, |connection| {
                    connection
                        .route_groups()
                        // Groups beyond the 32nd have no bit.
                        .any(|group| match group {
                            1..=32 => groups & 1 << (group - 1) != 0,
                            _ => groups == 0,
                        })
                });
            }
        }
        Ok(())
    }

    /// What has happened to the NIC, for those who listen.
    fn tell(&mut self) {
        for notification in self.played.notifications() {
            let datagram = notification.message.to_bytes();
            self.send_to(&datagram, |connection| {
                connection.listens(notification.protocol, notification.group)
            });
        }
    }

    fn send_to(&mut self, datagram: &[u8], whom: impl Fn(&Connection) -> bool) {
        let answer = Answer::Datagram(datagram.to_vec());
        let mut ended = Vec::new();
        for (number, connection) in &mut self.connections {
            if whom(connection)
                && let Err(error) = connection.send(&answer)
            {
                ended.push((*number, error));
            }
        }
        for (number, error) in ended {
            self.end(number, &error);
        }
    }
}

/// What there is to do.
#[derive(Default)]
struct Ready {
    accept: bool,
    events: bool,
    abroad: bool,
    readable: Vec<u64>,
    writable: Vec<u64>,
}
