//! A netlink socket of the machine's kernel.

use super::{Protocol, Wire};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rtnetlink::sys::{Socket, SocketAddr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Instant;

/// A netlink socket in the namespace of the thread that opened it.
pub(super) struct KernelSocket(Socket);

impl KernelSocket {
    /// Opens it, connected to the kernel, and asks for the kernel's words in refusals.
    pub(super) fn open(protocol: Protocol) -> io::Result<Self> {
        let mut socket = Socket::new(protocol as isize)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Without them (before Linux 4.12) a refusal has a number only.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        Ok(Self(socket))
    }
}

impl Wire for KernelSocket {
    fn send(&mut self, datagram: &[u8], _: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.0.send(datagram, 0).map(drop)
    }

    fn receive(&mut self, until: Instant) -> io::Result<Option<Vec<u8>>> {
        if !wait_readable(self.0.as_fd(), until)? {
            return Ok(None);
        }
        self.0.recv_from_full().map(|(datagram, _)| Some(datagram))
    }

    fn join(&mut self, group: u32) -> io::Result<()> {
        self.0.add_membership(group)
    }

    fn file_number(&self, _: u32, file: BorrowedFd<'_>) -> u32 {
        // Descriptors are not negative.
        file.as_raw_fd().cast_unsigned()
    }
}

/// Waits until there is something to read, or until then.
pub(super) fn wait_readable(file: BorrowedFd<'_>, until: Instant) -> io::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // Rounded up, so that the last wait is not a busy one.
        let millis = left.as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let mut files = [PollFd::new(file, PollFlags::POLLIN)];
        match poll(&mut files, timeout) {
            Ok(0) if Instant::now() >= until => return Ok(false),
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}
