//! A vhost-user socket, looked at without waiting: is a whole message there, and may we answer?
//!
//! [`BackendReqHandler`] reads and writes until it is done, so it is called only when neither can
//! wait. This file has the session layer's only unsafe code: it borrows the handler's socket, asks
//! about it, takes over received descriptors, and gives a thread open files of its own.

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
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
    /// A header, and how many bytes of the message were seen with it: not always all there are.
    Header(Header, usize),
}

/// Bytes looked at: a header and the body of most messages.
const LOOK_LEN: usize = 256;

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
        let mut bytes = [0; LOOK_LEN];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(self.0.as_raw_fd(), &mut bytes, flags) {
            Ok(0) => Ok(Head::End),
            Ok(n) => match bytes[..n].first_chunk::<HEADER_LEN>() {
                Some(header) => {
                    let [request, flags, size]: [u32; 3] = bytemuck::cast(*header);
                    let header = Header {
                        request,
                        flags,
                        size,
                    };
                    Ok(Head::Header(header, n))
                }
                None => Ok(Head::Part(n)),
            },
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
    /// middle of it, or too many descriptors came with it.
    ///
    /// # Errors
    /// What recvmsg(2) says.
    pub fn take(&self, body: &mut [u8]) -> Result<Option<Vec<OwnedFd>>, Errno> {
        let mut header = [0; HEADER_LEN];
        let whole = HEADER_LEN + body.len();
        let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(body)];
        let received = receive(self.0, &mut parts)?;
        Ok((received.bytes == whole && !received.cut).then_some(received.fds))
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

/// What came in one go.
pub struct Received {
    /// Of the parts, from the first on.
    pub bytes: usize,
    /// Attached descriptors, at most [`MAX_FDS`].
    pub fds: Vec<OwnedFd>,
    /// More were attached than that, or than this process may have open. They are closed already.
    pub cut: bool,
}

/// Takes bytes and descriptors off a unix socket, without waiting.
///
/// # Errors
/// What recvmsg(2) says.
pub fn receive(socket: BorrowedFd<'_>, parts: &mut [IoSliceMut<'_>]) -> Result<Received, Errno> {
    // SAFETY: CMSG_SPACE only computes. 64-bit words, because a control message starts with one.
    let space = unsafe { libc::CMSG_SPACE((MAX_FDS * size_of::<RawFd>()) as u32) } as usize;
    let mut control = [0u64; 16];
    debug_assert!(space <= size_of_val(&control));
    // SAFETY: of a msghdr all bytes may be 0: no address, no parts, no control messages.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // IoSliceMut is an iovec (std promises it).
    message.msg_iov = parts.as_mut_ptr().cast();
    message.msg_iovlen = parts.len() as _;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = space as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the message points at `parts` and `control`, live and exclusive, with their lengths.
    let result = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let bytes = Errno::result(result)? as usize;
    let mut fds = Vec::new();
    // SAFETY: the message is as recvmsg has left it, and `control` still lives.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !next.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give headers that lie in `control` as a whole.
        let header = unsafe { next.read_unaligned() };
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: CMSG_LEN only computes.
            let empty = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = (header.cmsg_len as usize).saturating_sub(empty) / size_of::<RawFd>();
            // SAFETY: the data behind this header.
            let data: *const RawFd = unsafe { libc::CMSG_DATA(next) }.cast();
            // Also of a message that was cut: those that are there are ours to close.
            fds.extend((0..count).map(|i| {
                // SAFETY: `count` descriptors lie there, by the kernel's own length; it has just
                // made them for us, and nobody else has them.
                unsafe { OwnedFd::from_raw_fd(data.add(i).read_unaligned()) }
            }));
        }
        // SAFETY: as for the first.
        next = unsafe { libc::CMSG_NXTHDR(&raw const message, next) };
    }
    let cut = message.msg_flags & libc::MSG_CTRUNC != 0;
    Ok(Received { bytes, fds, cut })
}

/// Gives the calling thread a table of open files of its own, with standard input, output and
/// error and a duplicate of `keep` in it, which is returned. What the thread opens from now on
/// nobody else sees, and it does not see what they open. Signals stay with the others: a handler
/// that writes to a file would find another one, or none, under its number here.
///
/// Where the kernel cannot do that (before Linux 5.9), the thread goes on with everybody's files.
/// The calling thread must have none open that it uses but `keep`.
///
/// # Errors
/// No duplicate can be made.
pub fn own_files(keep: &OwnedFd) -> io::Result<OwnedFd> {
    let close_range = |first: RawFd, last: libc::c_uint, flags: libc::c_uint| {
        // SAFETY: called with CLOSE_RANGE_UNSHARE first; once that has worked, all descriptors that
        // this closes are copies in a table that only this thread has, and it uses none of them.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_close_range, first as libc::c_uint, last, flags)
        })
    };
    const LAST: libc::c_uint = libc::c_uint::MAX;
    let all_signals = nix::sys::signal::SigSet::all();
    let keeps = keep.as_raw_fd();
    all_signals.thread_block()?;
    // In one call, because container runtimes allow it but not unshare(2); and nothing above the
    // one to keep is ever copied.
    if let Err(errno) = close_range(keeps + 1, LAST, libc::CLOSE_RANGE_UNSHARE) {
        tracing::warn!(%errno, "no table of open files for a thread: sockets count with the rest");
        return keep.try_clone();
    }
    let kept = keep.try_clone()?;
    let at = kept.as_raw_fd();
    if at > 3 {
        close_range(3, at as libc::c_uint - 1, 0)?;
    }
    close_range(at + 1, LAST, 0)?;
    Ok(kept)
}
