//! The netlink sockets that the program has and that end here.

use crate::filter::{FIRST_FD, FIRST_FILE};
use crate::via::Far;
use chanio_netlink::kernel::{Client, Notification};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A datagram that waits to be read.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The group it was sent to; 0 for an answer.
    pub group: u32,
}

/// One socket.
#[derive(Debug)]
pub struct Socket {
    /// Whose port, protocol and options.
    pub client: Client,
    /// SOCK_RAW or SOCK_DGRAM.
    pub kind: i32,
    /// The groups that it listens to.
    pub groups: BTreeSet<u32>,
    /// How long a read waits.
    pub read_timeout: Option<Duration>,
    /// Where it ends; none of one that ends in this process.
    pub far: Option<Far>,
    /// What waits to be read. While there is something, so there is in the program's end.
    queue: VecDeque<Datagram>,
    /// Our end of the pair: told when the program has closed all of its.
    ours: OwnedFd,
    /// Its numbers in the program: dup gives it several.
    numbers: Vec<u32>,
    /// Why nothing comes from where it ends any more.
    pub lost: Option<Errno>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Sockets(Vec<Socket>);

/// Where the kernel, too, begins when the process's own number is taken (netlink_autobind).
const FIRST_CHOSEN_PORT: u32 = (-4096i32).cast_unsigned();

impl Sockets {
    /// Makes one: the program's end, and its number there.
    pub fn open(
        &mut self,
        protocol: i32,
        kind: i32,
        nonblocking: bool,
        far: Option<Far>,
    ) -> Result<(OwnedFd, u32), Errno> {
        let number = self.free_number()?;
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        if nonblocking {
            nix::fcntl::fcntl(&theirs, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        self.0.push(Socket {
            client: Client {
                protocol,
                ..Client::default()
            },
            kind,
            groups: BTreeSet::new(),
            read_timeout: None,
            far,
            queue: VecDeque::new(),
            ours,
            numbers: vec![number],
            lost: None,
        });
        Ok((theirs, number))
    }

    /// Another number for the same socket.
    pub fn duplicate(&mut self, number: u32) -> Result<u32, Errno> {
        let new = self.free_number()?;
        self.by_number(number)
            .ok_or(Errno::EBADF)?
            .numbers
            .push(new);
        Ok(new)
    }

    /// The socket that the program knows under this number.
    pub fn by_number(&mut self, number: u32) -> Option<&mut Socket> {
        self.0
            .iter_mut()
            .find(|socket| socket.numbers.contains(&number))
    }

    /// Gives it this port, or one of its own for 0.
    pub fn bind(&mut self, number: u32, port: u32, process: u32) -> Result<(), Errno> {
        let protocol = self.by_number(number).ok_or(Errno::EBADF)?.client.protocol;
        let taken = |port: u32| {
            self.0
                .iter()
                .any(|s| s.client.protocol == protocol && s.client.port == port)
        };
        let chosen = match port {
            0 if !taken(process) => process,
            0 => (0..FIRST_CHOSEN_PORT)
                .map(|i| FIRST_CHOSEN_PORT - i)
                .find(|p| !taken(*p))
                .unwrap_or(0),
            asked if taken(asked) => return Err(Errno::EADDRINUSE),
            asked => asked,
        };
        if let Some(socket) = self.by_number(number) {
            socket.client.port = chosen;
        }
        Ok(())
    }

    /// Hands a notification to whoever listens.
    pub fn notify(&mut self, notification: &Notification) -> Result<(), Errno> {
        let bytes = notification.message.to_bytes();
        for socket in &mut self.0 {
            if socket.client.protocol == notification.protocol
                && socket.groups.contains(&notification.group)
            {
                socket.push(Datagram {
                    bytes: bytes.clone(),
                    group: notification.group,
                })?;
            }
        }
        Ok(())
    }

    /// Whether any listens to a group.
    pub fn any_listens(&self) -> bool {
        let listens = |socket: &Socket| socket.far.is_none() && !socket.groups.is_empty();
        self.0.iter().any(listens)
    }

    /// What to wait on for the program to close them, and for what comes from elsewhere.
    pub fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let ours = self
            .0
            .iter()
            .map(|socket| PollFd::new(socket.ours.as_fd(), PollFlags::empty()));
        let far = self.0.iter().filter_map(|socket| socket.far.as_ref());
        ours.chain(far.map(|far| PollFd::new(far.fd(), PollFlags::POLLIN)))
    }

    /// Takes in what has come from elsewhere.
    pub fn receive_far(&mut self) {
        for socket in &mut self.0 {
            if let Err(errno) = socket.receive_far() {
                // As a netlink socket whose kernel module has gone: nothing comes any more.
                socket.far = None;
                socket.lost = Some(errno);
            }
        }
    }

    /// Forgets those that the program has closed.
    pub fn reap(&mut self) {
        self.0.retain(|socket| {
            let mut fds = [PollFd::new(socket.ours.as_fd(), PollFlags::empty())];
            let closed = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
            !closed
        });
    }

    fn free_number(&mut self) -> Result<u32, Errno> {
        self.reap();
        let taken = |number: &u32| self.0.iter().any(|socket| socket.numbers.contains(number));
        (FIRST_FD..FIRST_FILE)
            .find(|number| !taken(number))
            .ok_or(Errno::EMFILE)
    }
}

impl Socket {
    /// Adds a datagram and makes the program's end readable.
    pub fn push(&mut self, datagram: Datagram) -> Result<(), Errno> {
        if self.queue.is_empty() {
            match send(
                self.ours.as_raw_fd(),
                &[0],
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            ) {
                // Closed meanwhile: nobody will read it.
                Ok(_) | Err(Errno::EPIPE) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.queue.push_back(datagram);
        Ok(())
    }

    /// Takes in what has come from where it ends.
    pub fn receive_far(&mut self) -> Result<(), Errno> {
        let port = self.client.port;
        while let Some(far) = &mut self.far
            && let Some(mut bytes) = far.receive()?
        {
            address(&mut bytes, port);
            self.push(Datagram { bytes, group: 0 })?;
        }
        Ok(())
    }

    /// The next datagram.
    pub fn front(&self) -> Option<&Datagram> {
        self.queue.front()
    }

    /// Takes the next datagram away; with the last one the program's end, of the number that it
    /// just read, is no longer readable.
    pub fn pop(&mut self, end: &ProgramFile) -> Result<(), Errno> {
        if self.queue.len() == 1 {
            let mut byte = [0];
            recv(end.0.as_raw_fd(), &mut byte, MsgFlags::MSG_DONTWAIT)?;
        }
        self.queue.pop_front();
        Ok(())
    }
}

/// Puts the socket's port into answers; notifications, which no request's number is in, have none.
fn address(datagram: &mut [u8], port: u32) {
    let mut rest = datagram;
    while let [_, _, _, _, _, _, _, _, s0, s1, s2, s3, at @ ..] = &mut *rest
        && let Some(own) = at.first_chunk_mut()
    {
        if [*s0, *s1, *s2, *s3] != [0; 4] {
            *own = port.to_ne_bytes();
        }
        let Some(length) = rest.first_chunk().map(|l| u32::from_ne_bytes(*l) as usize) else {
            return;
        };
        let next = length.max(16).next_multiple_of(4).min(rest.len());
        rest = &mut rest[next..];
    }
}

/// The process that a thread belongs to.
pub fn process_of(thread: u32) -> Result<u32, Errno> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).map_err(|_| Errno::ESRCH)?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|tgid| tgid.trim().parse().ok())
        .ok_or(Errno::ESRCH)
}

/// A file of the program, shared with it for a moment.
#[derive(Debug)]
pub struct ProgramFile(OwnedFd);

impl ProgramFile {
    /// The one with this number.
    pub fn of(thread: u32, number: u32) -> Result<Self, Errno> {
        let process = process_of(thread)?.cast_signed();
        let process = Pid::from_raw(process).ok_or(Errno::ESRCH)?;
        let raw = |error: rustix::io::Errno| Errno::from_raw(error.raw_os_error());
        let pidfd = pidfd_open(process, PidfdFlags::empty()).map_err(raw)?;
        let file = pidfd_getfd(&pidfd, number.cast_signed(), PidfdGetfdFlags::empty());
        file.map(ProgramFile).map_err(raw)
    }

    /// Whether reads of it do not wait.
    pub fn is_nonblocking(&self) -> Result<bool, Errno> {
        let flags = nix::fcntl::fcntl(&self.0, nix::fcntl::FcntlArg::F_GETFL)?;
        Ok(OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK))
    }

    /// To look at it.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// To hand it back under another number.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }
}
