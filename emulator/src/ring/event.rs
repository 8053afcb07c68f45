//! Eventfds received from a client: kicks (driver to device) and calls (device to driver).
//!
//! The client holds the same open file description and can do to it what it likes: fill its
//! counter, drain it, change its O_NONBLOCK flag. Nothing here reads or writes one.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use thiserror::Error;

/// Why a received descriptor is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EventError {
    /// It is something else, which might block or have effects when polled or signalled.
    #[error("file descriptor is {found:?}, not an eventfd")]
    NotEventFd {
        /// What /proc/self/fd says it is.
        found: String,
    },
    /// It could not be looked at.
    #[error("cannot tell what kind of file descriptor was received: {errno}")]
    Inspect {
        /// What the kernel said.
        errno: Errno,
    },
    /// It could not be watched.
    #[error("cannot watch an eventfd: {errno}")]
    Epoll {
        /// What the kernel said.
        errno: Errno,
    },
}

/// A descriptor that has been checked to be an eventfd. Clones share it: a session keeps one to
/// start the ring again in new memory.
#[derive(Clone, Debug)]
pub struct EventFd(Arc<OwnedFd>);

impl EventFd {
    /// Accepts a received descriptor.
    ///
    /// # Errors
    /// [`EventError::NotEventFd`] for anything but an eventfd.
    pub fn new(fd: impl Into<OwnedFd>) -> Result<Self, EventError> {
        let fd = fd.into();
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let found =
            nix::fcntl::readlink(link.as_str()).map_err(|errno| EventError::Inspect { errno })?;
        // A file's link is its path, which starts with a slash: no file can pass for this.
        if found.as_encoded_bytes() != b"anon_inode:[eventfd]" {
            return Err(EventError::NotEventFd {
                found: found.to_string_lossy().into_owned(),
            });
        }
        Ok(EventFd(Arc::new(fd)))
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A kick eventfd in an epoll set, edge triggered: each write is reported once without the counter
/// ever being read, which a client that drains or blocks it could interfere with. One report may
/// stand for several kicks. If it was written before it was registered, that is reported too.
///
/// Leaves the set when dropped. Closing the descriptor alone would not do that: the client's
/// duplicate keeps the description, and its kicks would go on being reported.
#[derive(Debug)]
pub struct Kick {
    fd: EventFd,
    epoll: Arc<Epoll>,
}

impl Kick {
    /// Starts watching; events carry `token`.
    ///
    /// # Errors
    /// [`EventError::Epoll`].
    pub fn register(fd: EventFd, epoll: Arc<Epoll>, token: u64) -> Result<Self, EventError> {
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll
            .add(&fd, EpollEvent::new(interest, token))
            .map_err(|errno| EventError::Epoll { errno })?;
        Ok(Kick { fd, epoll })
    }

    /// Watches it in another set instead. If it was ever written, that is reported there.
    ///
    /// # Errors
    /// [`EventError::Epoll`]; it stays where it was. The same set is an error.
    pub fn move_to(&mut self, epoll: Arc<Epoll>, token: u64) -> Result<(), EventError> {
        // The old one leaves its set when it is dropped here.
        *self = Kick::register(self.fd.clone(), epoll, token)?;
        Ok(())
    }
}

impl Drop for Kick {
    fn drop(&mut self) {
        if let Err(errno) = self.epoll.delete(&self.fd) {
            tracing::error!(%errno, "a kick eventfd stays in its epoll set");
        }
    }
}

/// A call eventfd. [`super::Notifier`] raises it.
#[derive(Debug)]
pub struct Call(EventFd);

impl Call {
    /// A call on this eventfd.
    pub fn new(fd: EventFd) -> Self {
        Call(fd)
    }
}

impl AsFd for Call {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    use nix::sys::epoll::EpollCreateFlags;
    use nix::sys::eventfd;

    fn pair() -> (eventfd::EventFd, EventFd) {
        let client = eventfd::EventFd::new().unwrap();
        let ours = client.as_fd().try_clone_to_owned().unwrap();
        (client, EventFd::new(ours).unwrap())
    }

    fn events(epoll: &Epoll) -> Vec<u64> {
        let mut events = [EpollEvent::empty(); 8];
        let n = epoll.wait(&mut events, 0u8).unwrap();
        events[..n].iter().map(|e| e.data()).collect()
    }

    #[test]
    fn only_eventfds_pass() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("anon_inode:[eventfd]");
        let refused = EventFd::new(File::create(&path).unwrap()).unwrap_err();
        assert!(matches!(refused, EventError::NotEventFd { .. }));
        let (pipe, _writer) = nix::unistd::pipe().unwrap();
        let refused = EventFd::new(pipe).unwrap_err();
        assert!(matches!(refused, EventError::NotEventFd { found } if found.starts_with("pipe:")));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let refused = EventFd::new(epoll.0).unwrap_err();
        assert_eq!(
            refused,
            EventError::NotEventFd {
                found: "anon_inode:[eventpoll]".into()
            }
        );
    }

    #[test]
    fn each_kick_is_reported_without_being_read() {
        let epoll = Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
        let (client, ours) = pair();
        client.write(1).unwrap();
        let _kick = Kick::register(ours, Arc::clone(&epoll), 7).unwrap();
        assert_eq!(events(&epoll), [7], "a kick from before");
        assert_eq!(events(&epoll), [0u64; 0]);
        client.write(1).unwrap();
        client.write(1).unwrap();
        assert_eq!(events(&epoll), [7]);
        assert_eq!(events(&epoll), [0u64; 0]);
    }

    #[test]
    fn a_dropped_kick_is_silent_although_the_client_lives() {
        let epoll = Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
        let (client, ours) = pair();
        let kick = Kick::register(ours, Arc::clone(&epoll), 7).unwrap();
        drop(kick);
        client.write(1).unwrap();
        assert_eq!(events(&epoll), [0u64; 0]);
    }
}
