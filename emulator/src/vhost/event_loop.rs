//! The one thread behind all sockets: listeners, connections, reconnects, control queues.
//!
//! Nothing here waits for a client. Events only say where to look: what is done follows from what
//! is found there, so a late event for something that has gone does no harm.

use super::connection::{Connection, Outcome};
use super::control_ring::Scratch;
use super::device::Device;
use super::listen::{SocketFile, connect_to};
use super::session::Watch;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

const MAILBOX: u64 = u64::MAX;
/// First and longest wait before connecting again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How long accepting rests when the process has run out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Clients accepted at a listener before others get their turn.
const ACCEPT_TURN: usize = 8;

/// How clients come.
pub enum Role {
    /// They connect here.
    Listen {
        /// Our end.
        listener: UnixListener,
        /// Its name.
        _file: SocketFile,
    },
    /// We connect there, again and again.
    Connect {
        /// The other side's socket.
        path: PathBuf,
    },
}

/// Something to serve.
pub struct Endpoint {
    /// How clients come.
    pub role: Role,
    /// What they come to.
    pub device: Arc<dyn Device>,
}

/// An endpoint that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionHandle {
    slot: u32,
    generation: u32,
}

/// What other threads ask of the loop.
pub enum Command {
    /// All of them or none.
    Add(Vec<Endpoint>, Sender<io::Result<Vec<SessionHandle>>>),
    /// Stop rings, close sockets, remove files.
    Remove(Vec<SessionHandle>, Sender<()>),
    /// Disconnect the client.
    Reset(SessionHandle, Sender<()>),
    /// Tell the driver that config space has changed.
    ConfigChanged(SessionHandle),
    /// Ask the driver to announce its addresses.
    Announce(SessionHandle),
    /// End the thread.
    Stop,
}

struct Entry {
    endpoint: Endpoint,
    connection: Option<Box<Connection>>,
    /// Waits in `ready`.
    queued: bool,
    backoff: Duration,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    entry: Option<Box<Entry>>,
}

/// State of the thread.
pub struct EventLoop {
    epoll: Arc<Epoll>,
    wake: Arc<EventFd>,
    mailbox: Receiver<Command>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Connections with more to do than one turn allows.
    ready: VecDeque<u32>,
    /// When to connect, or accept, again.
    timers: BinaryHeap<Reverse<(Instant, u32, u32)>>,
    scratch: Scratch,
}

fn listener_token(slot: u32) -> u64 {
    u64::from(slot) << 1
}

fn connection_token(slot: u32) -> u64 {
    u64::from(slot) << 1 | 1
}

impl EventLoop {
    /// A loop that reads its commands from `mailbox` when `wake` is written.
    ///
    /// # Errors
    /// What the system says when it makes an epoll set or opens /dev/null.
    pub fn new(mailbox: Receiver<Command>) -> io::Result<(Self, Arc<EventFd>)> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, MAILBOX))?;
        let wake = Arc::new(wake);
        let this = EventLoop {
            epoll: Arc::new(epoll),
            wake: Arc::clone(&wake),
            mailbox,
            slots: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            timers: BinaryHeap::new(),
            scratch: Scratch::new()?,
        };
        Ok((this, wake))
    }

    /// Runs until [`Command::Stop`], or until nobody can send one.
    pub fn run(mut self) {
        let mut events = [EpollEvent::empty(); 256];
        'serving: loop {
            let n = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(n) => n,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(errno) => {
                    tracing::error!(%errno, "the session loop cannot wait for events and ends");
                    break;
                }
            };
            for event in &events[..n] {
                let token = event.data();
                if token == MAILBOX {
                    if !self.read_mail() {
                        break 'serving;
                    }
                } else if token & 1 == 0 {
                    self.accept((token >> 1) as u32);
                } else {
                    self.serve((token >> 1) as u32);
                }
            }
            for _ in 0..self.ready.len() {
                let Some(slot) = self.ready.pop_front() else {
                    break;
                };
                if let Some(entry) = self.entry(slot) {
                    entry.queued = false;
                    self.serve(slot);
                }
            }
            self.expire_timers();
        }
        for slot in 0..self.slots.len() as u32 {
            self.remove(slot);
        }
    }

    fn timeout(&self) -> EpollTimeout {
        if !self.ready.is_empty() {
            return EpollTimeout::ZERO;
        }
        let Some(Reverse((at, ..))) = self.timers.peek() else {
            return EpollTimeout::NONE;
        };
        // Up to a whole millisecond, or the last part of one would be spent spinning.
        let wait = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::ZERO)
    }

    fn entry(&mut self, slot: u32) -> Option<&mut Entry> {
        self.slots.get_mut(slot as usize)?.entry.as_deref_mut()
    }

    fn resolve(&mut self, handle: SessionHandle) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(handle.slot as usize)?;
        slot.entry
            .as_deref_mut()
            .filter(|_| slot.generation == handle.generation)
    }

    // ---- commands ----

    /// Carries out what is in the mailbox; `false` if the thread is to end.
    fn read_mail(&mut self) -> bool {
        // Before the mail is read: what is sent after that wakes us again.
        let _ = self.wake.read();
        loop {
            match self.mailbox.try_recv() {
                Ok(Command::Add(endpoints, reply)) => {
                    let _ = reply.send(self.add(endpoints));
                }
                Ok(Command::Remove(handles, reply)) => {
                    for handle in handles {
                        if self.resolve(handle).is_some() {
                            self.remove(handle.slot);
                        }
                    }
                    let _ = reply.send(());
                }
                Ok(Command::Reset(handle, reply)) => {
                    if self.resolve(handle).is_some() {
                        self.disconnect(handle.slot);
                    }
                    let _ = reply.send(());
                }
                Ok(Command::ConfigChanged(handle)) => {
                    if let Some(connection) = self.connection(handle) {
                        connection.session().config_changed();
                    }
                }
                Ok(Command::Announce(handle)) => {
                    if let Some(connection) = self.connection(handle) {
                        connection.session().request_announce();
                    }
                }
                Ok(Command::Stop) => return false,
                Err(std::sync::mpsc::TryRecvError::Empty) => return true,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn connection(&mut self, handle: SessionHandle) -> Option<&mut Connection> {
        self.resolve(handle)?.connection.as_deref_mut()
    }

    fn add(&mut self, endpoints: Vec<Endpoint>) -> io::Result<Vec<SessionHandle>> {
        let mut handles = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            match self.add_one(endpoint) {
                Ok(handle) => handles.push(handle),
                Err(error) => {
                    for handle in handles {
                        self.remove(handle.slot);
                    }
                    return Err(error);
                }
            }
        }
        Ok(handles)
    }

    fn add_one(&mut self, endpoint: Endpoint) -> io::Result<SessionHandle> {
        let at = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot::default());
                (self.slots.len() - 1) as u32
            }
        };
        if let Role::Listen { listener, .. } = &endpoint.role
            && let Err(error) = watch_listener(&self.epoll, listener, at)
        {
            self.free.push(at);
            return Err(error);
        }
        let connects = matches!(endpoint.role, Role::Connect { .. });
        let slot = &mut self.slots[at as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let handle = SessionHandle {
            slot: at,
            generation: slot.generation,
        };
        let (connection, queued, backoff) = (None, false, BACKOFF.0);
        slot.entry = Some(Box::new(Entry {
            endpoint,
            connection,
            queued,
            backoff,
        }));
        if connects {
            self.connect(at);
        }
        Ok(handle)
    }

    fn remove(&mut self, slot: u32) {
        self.close(slot);
        if let Some(Slot { entry, .. }) = self.slots.get_mut(slot as usize)
            && entry.take().is_some()
        {
            self.free.push(slot);
        }
    }

    // ---- clients come ----

    fn accept(&mut self, slot: u32) {
        let epoll = Arc::clone(&self.epoll);
        for _ in 0..ACCEPT_TURN {
            let Some(Role::Listen { listener, .. }) = self.entry(slot).map(|e| &e.endpoint.role)
            else {
                return;
            };
            match listener.accept() {
                Ok((stream, _)) => {
                    if self
                        .entry(slot)
                        .is_some_and(|entry| entry.connection.is_some())
                    {
                        // It may have gone already, and this be its successor.
                        self.serve(slot);
                    }
                    if self
                        .entry(slot)
                        .is_some_and(|entry| entry.connection.is_some())
                    {
                        tracing::debug!(slot, "a second client was refused");
                        continue;
                    }
                    self.attach(slot, stream);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => match error.raw_os_error() {
                    Some(libc::ECONNABORTED | libc::EINTR) => {}
                    _ => {
                        tracing::warn!(%error, "accepting a client; trying again shortly");
                        let _ = epoll.delete(listener);
                        return self.set_timer(slot, ACCEPT_PAUSE);
                    }
                },
            }
        }
    }

    fn connect(&mut self, slot: u32) {
        let Some(Role::Connect { path }) = self.entry(slot).map(|e| &e.endpoint.role) else {
            return;
        };
        match connect_to(path) {
            Ok(stream) => self.attach(slot, stream),
            Err(error) => {
                tracing::trace!(%error, path = %path.display(), "connecting");
                self.retry_later(slot);
            }
        }
    }

    fn attach(&mut self, slot: u32, stream: UnixStream) {
        let token = connection_token(slot);
        // Both directions, edge triggered: a whole message may wait for its reply to have room.
        let interest = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        let epoll = Arc::clone(&self.epoll);
        let watched = stream
            .set_nonblocking(true)
            .and_then(|()| Ok(epoll.add(&stream, EpollEvent::new(interest, token))?));
        if let Err(error) = watched {
            tracing::warn!(%error, "a client cannot be watched and is refused");
            return self.retry_later(slot);
        }
        let Some(entry) = self.entry(slot) else {
            return;
        };
        let device = Arc::clone(&entry.endpoint.device);
        device.set_connected(true);
        entry.connection = Some(Box::new(Connection::new(
            stream,
            device,
            Watch { epoll, token },
        )));
    }

    // ---- clients speak ----

    fn serve(&mut self, slot: u32) {
        let Some(entry) = self
            .slots
            .get_mut(slot as usize)
            .and_then(|s| s.entry.as_deref_mut())
        else {
            return;
        };
        let Some(connection) = entry.connection.as_deref_mut() else {
            return;
        };
        match connection.serve(&mut self.scratch) {
            Outcome::Wait => {
                // It speaks the protocol: should it go, it may come back at once.
                entry.backoff = BACKOFF.0;
            }
            Outcome::More => {
                if !entry.queued {
                    entry.queued = true;
                    self.ready.push_back(slot);
                }
            }
            Outcome::Gone => self.disconnect(slot),
            Outcome::Fault(error) => {
                entry.endpoint.device.fault(error.to_string());
                self.disconnect(slot);
            }
        }
    }

    // ---- clients go ----

    /// Drops the connection; a listener takes the next client, a connector tries again.
    fn disconnect(&mut self, slot: u32) {
        if self.close(slot) {
            self.retry_later(slot);
        }
    }

    fn close(&mut self, slot: u32) -> bool {
        let Some(entry) = self.entry(slot) else {
            return false;
        };
        let Some(connection) = entry.connection.take() else {
            return false;
        };
        connection.session().close();
        drop(connection);
        entry.endpoint.device.set_connected(false);
        true
    }

    fn retry_later(&mut self, slot: u32) {
        let Some(entry) = self.entry(slot) else {
            return;
        };
        if let Role::Connect { .. } = entry.endpoint.role {
            let wait = entry.backoff;
            entry.backoff = (wait * 2).min(BACKOFF.1);
            self.set_timer(slot, wait);
        }
    }

    fn set_timer(&mut self, slot: u32, wait: Duration) {
        let generation = self.slots[slot as usize].generation;
        self.timers
            .push(Reverse((Instant::now() + wait, slot, generation)));
    }

    fn expire_timers(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((at, slot, generation))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let epoll = Arc::clone(&self.epoll);
            let Some(entry) = self.resolve(SessionHandle { slot, generation }) else {
                continue;
            };
            match &entry.endpoint.role {
                Role::Connect { .. } if entry.connection.is_none() => self.connect(slot),
                Role::Connect { .. } => {}
                Role::Listen { listener, .. } => {
                    if let Err(error) = watch_listener(&epoll, listener, slot) {
                        tracing::warn!(%error, "watching a listener; trying again shortly");
                        self.set_timer(slot, ACCEPT_PAUSE);
                    }
                }
            }
        }
    }
}

fn watch_listener(epoll: &Epoll, listener: &UnixListener, slot: u32) -> io::Result<()> {
    epoll.add(
        listener,
        EpollEvent::new(EpollFlags::EPOLLIN, listener_token(slot)),
    )?;
    Ok(())
}
