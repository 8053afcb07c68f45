//! The one thread behind all connections: messages, reconnects, control queues. Clients of sockets
//! that we listen at are sent in by the [`super::doorman`].
//!
//! Nothing here waits for a client. Events only say where to look: what is done follows from what
//! is found there, so a late event for something that has gone does no harm.

use super::connection::{Connection, Outcome};
use super::control_ring::Scratch;
use super::device::Device;
use super::doorman::{Next, Visitors};
use super::listen::connect_to;
use super::session::Watch;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

/// Tokens of what is no connection; those carry their slot.
const MAILBOX: u64 = u64::MAX;
const VISITORS: u64 = u64::MAX - 1;
/// The slot that a timer has when it is about visitors.
const NO_SLOT: u32 = u32::MAX;
/// First and longest wait before connecting again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How long visitors wait when the process has run out of descriptors.
const VISITORS_PAUSE: Duration = Duration::from_millis(100);
/// Visitors let in before connections get their turn.
const VISITORS_TURN: usize = 64;

/// How clients come.
pub enum Role {
    /// The doorman sends them in.
    Listen,
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

impl SessionHandle {
    /// As a number.
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// From what [`SessionHandle::to_bits`] has made.
    pub(super) fn from_bits(bits: u64) -> Self {
        SessionHandle {
            slot: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

/// What other threads ask of the loop.
pub enum Command {
    /// Serve these from now on.
    Add(Vec<Endpoint>, Sender<Vec<SessionHandle>>),
    /// Stop rings, close connections.
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
    visitors: Visitors,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Connections with more to do than one turn allows.
    ready: VecDeque<u32>,
    /// When to connect, or let visitors in, again.
    timers: BinaryHeap<Reverse<(Instant, u32, u32)>>,
    scratch: Scratch,
}

impl EventLoop {
    /// A loop that lets `visitors` in and reads its commands from `mailbox` when the eventfd that
    /// it returns is written.
    ///
    /// # Errors
    /// What the system says when it makes an epoll set or opens /dev/null.
    pub fn new(mailbox: Receiver<Command>, visitors: Visitors) -> io::Result<(Self, Arc<EventFd>)> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, MAILBOX))?;
        let wake = Arc::new(wake);
        epoll.add(&visitors, EpollEvent::new(EpollFlags::EPOLLIN, VISITORS))?;
        let this = EventLoop {
            epoll: Arc::new(epoll),
            wake: Arc::clone(&wake),
            mailbox,
            visitors,
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
                match event.data() {
                    MAILBOX => {
                        if !self.read_mail() {
                            break 'serving;
                        }
                    }
                    VISITORS => self.let_in(),
                    slot => self.serve(slot as u32),
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
                    let handles = endpoints.into_iter().map(|endpoint| self.add(endpoint));
                    let _ = reply.send(handles.collect());
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

    fn add(&mut self, endpoint: Endpoint) -> SessionHandle {
        let at = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot::default());
                (self.slots.len() - 1) as u32
            }
        };
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
        handle
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

    fn let_in(&mut self) {
        for _ in 0..VISITORS_TURN {
            match self.visitors.next() {
                Ok(Next::Nobody) => return,
                Ok(Next::Visitor(handle, stream)) => self.receive(handle, stream),
                Ok(Next::LostVisitor) => {
                    tracing::warn!("a client was turned away: too many open files");
                }
                Ok(Next::Closed) => {
                    // It ends before us only if it fails.
                    tracing::error!("nobody listens for clients any more");
                    let _ = self.epoll.delete(&self.visitors);
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "letting clients in; trying again shortly");
                    let _ = self.epoll.delete(&self.visitors);
                    let at = Instant::now() + VISITORS_PAUSE;
                    self.timers.push(Reverse((at, NO_SLOT, 0)));
                    return;
                }
            }
        }
    }

    fn receive(&mut self, handle: SessionHandle, stream: UnixStream) {
        let is_taken = |this: &mut Self| Some(this.resolve(handle)?.connection.is_some());
        if is_taken(self) == Some(true) {
            // It may have gone already, and this be its successor.
            self.serve(handle.slot);
        }
        match is_taken(self) {
            Some(false) => self.attach(handle.slot, stream),
            Some(true) => tracing::debug!(handle.slot, "a second client was refused"),
            // The channel was removed while its client was at the door.
            None => {}
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
        let token = u64::from(slot);
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
            if slot == NO_SLOT {
                let event = EpollEvent::new(EpollFlags::EPOLLIN, VISITORS);
                if let Err(errno) = self.epoll.add(&self.visitors, event) {
                    tracing::warn!(%errno, "watching for clients; trying again shortly");
                    self.timers
                        .push(Reverse((now + VISITORS_PAUSE, NO_SLOT, 0)));
                }
                continue;
            }
            let connects = self
                .resolve(SessionHandle { slot, generation })
                .is_some_and(|entry| entry.connection.is_none());
            if connects {
                self.connect(slot);
            }
        }
    }
}
