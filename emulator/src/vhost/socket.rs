//! A vhost-user socket, looked at without waiting: is a whole message there, and may we answer?
//!
//! [`BackendReqHandler`] reads and writes until it is done, so it is called only when neither can
//! wait. This file has the session layer's only unsafe code: it borrows the handler's socket, asks
//! about it, and takes over received descriptors.

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recv, recvmsg, send};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use vhost::vhost_user::message::{FrontendReq, VhostUserHeaderFlag};
use vhost::vhost_user::{BackendReqHandler, VhostUserBackendReqHandler};

/// Bytes of a message header: request, flags, size of what follows; u32 each, in the order of the
/// machine.
pub const HEADER_LEN: usize = 12;

/// Descriptors that a message may carry in practice; the kernel discards more.
const MAX_FDS: usize = 8;

/// A message header as sent, nothing checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What is asked for.
    pub request: u32,
    /// Version in the low two bits, REPLY, NEED_REPLY.
    pub flags: u32,
    /// Bytes behind the header.
    pub size: u32,
}

impl Header {
    /// For people.
    pub fn name(&self) -> String {
        match FrontendReq::try_from(self.request) {
            Ok(request) => format!("{request:?}"),
            Err(()) => format!("request {}", self.request),
        }
    }

    /// The client waits for an answer, if that was negotiated.
    pub fn needs_reply(&self) -> bool {
        self.flags & VhostUserHeaderFlag::NEED_REPLY.bits() != 0
    }
}

/// What is at the head of the socket's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Nothing.
    Nothing,
    /// The client has closed the connection; nothing is left to read.
    End,
    /// The first bytes of a header, this many.
    Part(usize),
    /// A header.
    Header(Header),
}

/// A connected vhost-user socket.
#[derive(Clone, Copy)]
pub struct Socket<'a>(BorrowedFd<'a>);

impl<'a> Socket<'a> {
    /// The handler's socket.
    pub fn of<S: VhostUserBackendReqHandler>(handler: &'a BackendReqHandler<S>) -> Self {
        // SAFETY: the handler owns the socket, closes it only when dropped, and is borrowed for as
        // long as the result lives.
        Socket(unsafe { BorrowedFd::borrow_raw(handler.as_raw_fd()) })
    }

    /// Whether the client has closed its sending side, and whether a reply would go out at once.
    ///
    /// The kernel calls a unix socket writable while three quarters of its send buffer are free,
    /// far more than the longest reply, so one reply never waits.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn poll(&self) -> Result<(bool, bool), Errno> {
        let events = libc::POLLOUT | libc::POLLRDHUP;
        let mut this = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events,
            revents: 0,
        };
        // SAFETY: one live pollfd, and the call does not wait. (nix has no name for POLLRDHUP.)
        Errno::result(unsafe { libc::poll(&raw mut this, 1, 0) })?;
        let ended = this.revents & (libc::POLLRDHUP | libc::POLLHUP) != 0;
        Ok((ended, this.revents & libc::POLLOUT != 0))
    }

    /// Looks at the first bytes without taking them.
    ///
    /// # Errors
    /// What recv(2) says, except that there is nothing.
    pub fn head(&self) -> Result<Head, Errno> {
        let mut bytes = [0; HEADER_LEN];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(self.0.as_raw_fd(), &mut bytes, flags) {
            Ok(0) => Ok(Head::End),
            Ok(HEADER_LEN) => {
                let [request, flags, size]: [u32; 3] = bytemuck::cast(bytes);
                Ok(Head::Header(Header {
                    request,
                    flags,
                    size,
                }))
            }
            Ok(n) => Ok(Head::Part(n)),
            Err(Errno::EAGAIN) => Ok(Head::Nothing),
            Err(errno) => Err(errno),
        }
    }

    /// Bytes that can be read now.
    ///
    /// # Errors
    /// What ioctl(2) says.
    pub fn unread(&self) -> Result<usize, Errno> {
        let mut unread: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int, to a live local.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::FIONREAD, &raw mut unread) };
        Errno::result(result)?;
        Ok(usize::try_from(unread).unwrap_or(0))
    }

    /// Takes a message that is there as a whole: its body into `body`, and what came with it.
    /// `Ok(None)`: it came in pieces, which only a client does that attaches descriptors to the
    /// middle of it.
    ///
    /// # Errors
    /// What recvmsg(2) says.
    pub fn take(&self, body: &mut [u8]) -> Result<Option<Vec<OwnedFd>>, Errno> {
        let mut header = [0; HEADER_LEN];
        let whole = HEADER_LEN + body.len();
        let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(body)];
        let mut control = nix::cmsg_space!([std::os::fd::RawFd; MAX_FDS]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let mut fds = Vec::new();
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = part {
                // SAFETY: the kernel has just made these descriptors for us; nobody else has them.
                fds.extend(
                    received
                        .into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
        Ok((message.bytes == whole).then_some(fds))
    }

    /// Answers a request with 0 (done) or 1 (refused). Call only when a reply would not wait.
    ///
    /// # Errors
    /// What send(2) says.
    pub fn acknowledge(&self, request: &Header, done: bool) -> Result<(), Errno> {
        let flags = 1 | VhostUserHeaderFlag::REPLY.bits();
        let reply: [u32; 5] = [request.request, flags, 8, u32::from(!done), 0];
        let reply: [u8; 20] = bytemuck::cast(reply);
        send_whole(self.0.as_raw_fd(), &reply)
    }
}

/// Tells the frontend over its backend channel that config space has changed. It is not asked to
/// answer; if it does not read, it is not told.
///
/// # Errors
/// What send(2) says.
pub fn send_config_changed(channel: &std::os::unix::net::UnixStream) -> Result<(), Errno> {
    const CONFIG_CHANGE_MSG: u32 = 2;
    let message: [u8; HEADER_LEN] = bytemuck::cast([CONFIG_CHANGE_MSG, 1u32, 0]);
    send_whole(channel.as_raw_fd(), &message)
}

fn send_whole(fd: std::os::fd::RawFd, bytes: &[u8]) -> Result<(), Errno> {
    let sent = send(fd, bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(Errno::EMSGSIZE)
    }
}
