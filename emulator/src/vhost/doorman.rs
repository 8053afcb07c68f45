//! The thread that listens at all sockets and hands over who connects.
//!
//! It has open files of its own (docs/adr/0003-doorman.md), so that 10,000 listeners cost the rest
//! of the process none of the descriptors it may have. Everything opened in that thread is closed
//! there; what leaves it is a client, duplicated by the kernel as it crosses.
//!
//! A client that connects is accepted and sent to the session thread over a pair of sockets, with
//! the handle of the session it has come for. When the session thread does not keep up, or has no
//! descriptors left, the pair fills and clients wait where they are.

use super::event_loop::SessionHandle;
use super::listen::{SocketFile, listen_at};
use super::socket::{own_files, receive};
use crate::nic::Refused;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, send, sendmsg, socketpair,
};
use rustc_hash::FxHashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long accepting rests when the system has run out of something.
const PAUSE: Duration = Duration::from_millis(100);
/// Clients accepted at a listener before others get their turn.
const TURN: usize = 8;
/// Listeners looked at before commands are.
const EVENTS: usize = 64;

/// Listens for clients. Everything is closed and removed when it is dropped.
pub struct Doorman {
    commands: Sender<Command>,
    pair: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

enum Command {
    /// Listen at all of these paths or at none.
    Open(Vec<(SessionHandle, PathBuf)>, Sender<Result<(), Refused>>),
    /// Do not listen for these any more.
    Close(Vec<SessionHandle>, Sender<()>),
}

impl Doorman {
    /// Starts the thread. What it opens counts against RLIMIT_NOFILE apart from everything else.
    ///
    /// # Errors
    /// What the system says.
    pub fn start() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, its) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let its = Arc::new(its);
        let (commands, mailbox) = channel();
        let (started, start) = channel();
        let thread = {
            let its = Arc::clone(&its);
            std::thread::Builder::new()
                .name("doorman".into())
                .spawn(move || {
                    let prepared = own_files(&its).and_then(|pair| Rooms::new(pair, mailbox));
                    // Let go of before the answer: the last holder closes it, in its own table.
                    drop(its);
                    match prepared {
                        Ok(rooms) => {
                            let _ = started.send(Ok(()));
                            rooms.serve();
                        }
                        Err(error) => drop(started.send(Err(error))),
                    }
                })?
        };
        start
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread has ended")))?;
        drop(its);
        Ok(Self {
            commands,
            pair: Arc::new(ours),
            thread: Some(thread),
        })
    }

    /// Where those who connect come in.
    pub fn visitors(&self) -> Visitors {
        Visitors(Arc::clone(&self.pair))
    }

    /// Listens at some paths; either at all of them or, with an error, at none. Clients wait until
    /// all is done.
    ///
    /// # Errors
    /// [`Refused::Os`] as [`listen_at`], or the table of open files is full.
    pub fn open(&self, doors: Vec<(SessionHandle, PathBuf)>) -> Result<(), Refused> {
        if doors.is_empty() {
            return Ok(());
        }
        self.ask(|reply| Command::Open(doors, reply))
            .unwrap_or(Err(Refused::ShuttingDown))
    }

    /// Stops listening. When it returns, the files are gone and nobody comes in any more, though
    /// somebody may be on the way.
    pub fn close(&self, handles: Vec<SessionHandle>) {
        self.ask(|reply| Command::Close(handles, reply));
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = channel();
        self.commands.send(command(reply)).ok()?;
        // A pair that is full wakes as well.
        let _ = send(self.pair.as_raw_fd(), &[0], NOW);
        answer.recv().ok()
    }
}

const NOW: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);

impl Drop for Doorman {
    fn drop(&mut self) {
        self.commands = channel().0;
        let _ = send(self.pair.as_raw_fd(), &[0], NOW);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that listens has panicked");
        }
    }
}

/// The session thread's end: clients that have connected.
pub struct Visitors(Arc<OwnedFd>);

/// Who has come.
pub enum Next {
    /// A client.
    Visitor(SessionHandle, UnixStream),
    /// One for whom there was no descriptor. The kernel has hung up on it.
    LostVisitor,
    /// Nobody now.
    Nobody,
    /// Nobody ever again.
    Closed,
}

impl AsFd for Visitors {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Visitors {
    /// The next client, without waiting.
    ///
    /// # Errors
    /// There is no descriptor for one now: it stays where it is. Or what recvmsg(2) says.
    pub fn next(&self) -> io::Result<Next> {
        // Asked before the client is taken, since then it is too late to let it wait.
        drop(self.0.try_clone()?);
        let mut bits = [0; 8];
        let received = match receive(self.0.as_fd(), &mut [IoSliceMut::new(&mut bits)]) {
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Next::Nobody),
            Err(errno) => return Err(errno.into()),
        };
        let mut fds = received.fds;
        Ok(match (received.bytes, fds.pop()) {
            (0, _) => Next::Closed,
            (_, None) => Next::LostVisitor,
            (_, Some(fd)) => {
                let handle = SessionHandle::from_bits(u64::from_ne_bytes(bits));
                Next::Visitor(handle, UnixStream::from(fd))
            }
        })
    }
}

/// State of the thread.
struct Rooms {
    pair: OwnedFd,
    mailbox: Receiver<Command>,
    /// All listeners.
    epoll: Epoll,
    doors: FxHashMap<u64, Door>,
    /// Accepted, and there was no room in the pair.
    waiting: Option<(u64, UnixStream)>,
    /// Accepting rests until then.
    resting: Option<Instant>,
}

struct Door {
    listener: UnixListener,
    _file: SocketFile,
}

/// Why a turn ends early.
enum Stop {
    /// The session thread has gone.
    Gone,
    /// The pair is full.
    Full,
    /// The system lacks something.
    Rest,
}

impl Rooms {
    fn new(pair: OwnedFd, mailbox: Receiver<Command>) -> io::Result<Self> {
        Ok(Self {
            pair,
            mailbox,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            doors: FxHashMap::default(),
            waiting: None,
            resting: None,
        })
    }

    fn serve(mut self) {
        loop {
            let (ready, knocks) = match self.wait() {
                Ok(events) => events,
                Err(Errno::EINTR) => continue,
                Err(errno) => {
                    return tracing::error!(%errno, "cannot wait for clients");
                }
            };
            if ready.intersects(PollFlags::POLLIN | PollFlags::POLLHUP) && !self.read_mail() {
                return;
            }
            let now = Instant::now();
            if self.resting.is_some_and(|until| until > now) {
                continue;
            }
            self.resting = None;
            let outcome = match self.waiting.take() {
                Some((door, stream)) => self.send_in(door, stream),
                None if knocks => self.accept(),
                None => Ok(()),
            };
            match outcome {
                Ok(()) | Err(Stop::Full) => {}
                Err(Stop::Rest) => self.resting = Some(now + PAUSE),
                Err(Stop::Gone) => return,
            }
        }
    }

    /// What the pair is ready for, and whether somebody wants to connect.
    fn wait(&self) -> Result<(PollFlags, bool), Errno> {
        let mut interest = PollFlags::POLLIN;
        let (mut fds, mut timeout) = (2, PollTimeout::NONE);
        if let Some(until) = self.resting {
            let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            fds = 1;
        } else if self.waiting.is_some() {
            interest |= PollFlags::POLLOUT;
            fds = 1;
        }
        let mut polled = [
            PollFd::new(self.pair.as_fd(), interest),
            PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut polled[..fds], timeout)?;
        let events = |fd: &PollFd<'_>| fd.revents().unwrap_or(PollFlags::empty());
        Ok((events(&polled[0]), !events(&polled[1]).is_empty()))
    }

    /// Carries out what is in the mailbox; `false` if the thread is to end.
    fn read_mail(&mut self) -> bool {
        // Before the mail is read: what is sent after that wakes us again.
        let mut byte = [0];
        while let Ok(n) = recv(self.pair.as_raw_fd(), &mut byte, MsgFlags::MSG_DONTWAIT) {
            if n == 0 {
                return false;
            }
        }
        loop {
            match self.mailbox.try_recv() {
                Ok(Command::Open(doors, reply)) => drop(reply.send(self.open(doors))),
                Ok(Command::Close(handles, reply)) => {
                    self.close(handles.into_iter().map(SessionHandle::to_bits));
                    let _ = reply.send(());
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn open(&mut self, doors: Vec<(SessionHandle, PathBuf)>) -> Result<(), Refused> {
        let mut opened = Vec::with_capacity(doors.len());
        for (handle, path) in &doors {
            let (listener, _file) = listen_at(path).map_err(|source| {
                Refused::os(format!("listening at {}", path.display()), source)
            })?;
            opened.push((handle.to_bits(), Door { listener, _file }));
        }
        // Without one more nobody could ever be accepted.
        let room = self.pair.try_clone();
        drop(room.map_err(|source| Refused::os("a descriptor to accept clients with", source))?);
        let watch = |(door, Door { listener, .. }): &(u64, Door)| {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, *door);
            self.epoll.add(listener, event)
        };
        opened
            .iter()
            .try_for_each(watch)
            .map_err(|source| Refused::os("watching a socket", source))?;
        self.doors.extend(opened);
        Ok(())
    }

    fn close(&mut self, doors: impl Iterator<Item = u64>) {
        for door in doors {
            self.doors.remove(&door);
            self.waiting.take_if(|(waiting, _)| *waiting == door);
        }
    }

    fn accept(&mut self) -> Result<(), Stop> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let n = self
            .epoll
            .wait(&mut events, EpollTimeout::ZERO)
            .unwrap_or(0);
        for event in &events[..n] {
            let door = event.data();
            for _ in 0..TURN {
                let Some(Door { listener, .. }) = self.doors.get(&door) else {
                    break;
                };
                match listener.accept() {
                    Ok((stream, _)) => self.send_in(door, stream)?,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => match error.raw_os_error() {
                        Some(libc::ECONNABORTED | libc::EINTR) => {}
                        _ => {
                            tracing::warn!(%error, "accepting a client; trying again shortly");
                            return Err(Stop::Rest);
                        }
                    },
                }
            }
        }
        Ok(())
    }

    fn send_in(&mut self, door: u64, stream: UnixStream) -> Result<(), Stop> {
        let bits = door.to_ne_bytes();
        let fds = [stream.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let parts = [IoSlice::new(&bits)];
        let stop = match sendmsg::<()>(self.pair.as_raw_fd(), &parts, &rights, NOW, None) {
            Ok(_) => return Ok(()),
            Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => return Err(Stop::Gone),
            Err(Errno::EAGAIN) => Stop::Full,
            Err(errno) => {
                // Too many descriptors are on their way somewhere (ETOOMANYREFS), or no memory.
                tracing::warn!(%errno, "handing over a client; trying again shortly");
                Stop::Rest
            }
        };
        self.waiting = Some((door, stream));
        Err(stop)
    }
}
