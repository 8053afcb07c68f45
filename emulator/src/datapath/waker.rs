//! How control wakes a worker that sleeps in epoll, and what it wants of it.

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// A worker's epoll set, its wake-up call and its letter box. Others register their descriptors
/// and leave tokens; the worker sleeps on it.
pub struct Waker {
    epoll: Arc<Epoll>,
    event: EventFd,
    /// Sources to look at even without an event.
    mailbox: Mutex<Vec<u64>>,
}

/// The token of the wake-up call itself.
pub const WAKE: u64 = u64::MAX;

impl Waker {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        let epoll = Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        let event =
            EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        // Edge-triggered, so that nobody has to read it.
        epoll.add(
            &event,
            EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, WAKE),
        )?;
        Ok(Self {
            epoll,
            event,
            mailbox: Mutex::new(Vec::new()),
        })
    }

    /// The set, for those who register with it.
    pub fn epoll(&self) -> &Arc<Epoll> {
        &self.epoll
    }

    /// End the worker's sleep.
    pub fn wake(&self) {
        // Fails only when the counter is at its maximum, and then the worker is awake anyway.
        let _ = self.event.write(1);
    }

    /// Have the worker look at a source.
    pub fn post(&self, token: u64) {
        self.mailbox.lock().push(token);
        self.wake();
    }

    /// Take what was posted.
    pub fn take_posts(&self, into: &mut Vec<u64>) {
        into.append(&mut self.mailbox.lock());
    }

    /// Report events of `fd` (readable, edge-triggered) under `token`.
    pub fn watch(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        Ok(self.epoll.add(fd, EpollEvent::new(flags, token))?)
    }
}
