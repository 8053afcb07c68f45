//! An emulator in the kernel's place: its socket `netlink.sock`
//! (`chanio_netlink::played`).

use chanio_netlink::played::{Answer, MAX_PACKET, Request, SOCKET_NAME};
use nix::errno::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recv, sendmsg, socket_with, sockopt,
};
use std::collections::VecDeque;
use std::fs;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Descriptors that one datagram may take along.
const MAX_FILES: usize = 32;

/// An emulator.
#[derive(Debug)]
pub struct Via {
    socket: PathBuf,
    /// For files and ioctls.
    files: Line,
    /// The network namespace in which it is.
    netns: PathBuf,
}

impl Via {
    /// The emulator whose run directory this is.
    ///
    /// # Errors
    /// There is none, or none that plays the kernel (`chanio-emu --netlink`).
    pub fn open(run_dir: &Path) -> io::Result<Self> {
        let socket = run_dir.join(SOCKET_NAME);
        let files = Line::connect(&socket)?;
        let process = sockopt::socket_peercred(&files.0).map_err(io::Error::from)?;
        let process = process.pid.as_raw_nonzero();
        let netns = fs::read_link(format!("/proc/{process}/ns/net"))?;
        Ok(Self {
            socket,
            files,
            netns,
        })
    }

    /// A netlink socket of this protocol for a thread; none where the real kernel is to give it:
    /// the device is in the emulator's network namespace and cannot be seen from others.
    pub fn open_socket(&self, protocol: i32, thread: u32) -> Result<Option<Far>, Errno> {
        let netns = fs::read_link(format!("/proc/{thread}/ns/net"));
        if netns.map_err(|_| Errno::ESRCH)? != self.netns {
            return Ok(None);
        }
        let line = Line::connect(&self.socket).map_err(errno_of)?;
        let mut far = Far {
            line,
            inbox: VecDeque::new(),
        };
        match far.ask(&Request::Open(protocol.cast_unsigned())) {
            Ok(_) => Ok(Some(far)),
            Err(Errno::EPROTONOSUPPORT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Has the emulator carry out what is not for a netlink socket.
    pub fn ask(&self, request: &Request) -> Result<Vec<u8>, Errno> {
        self.files.send(request, &[])?;
        match self.files.receive(RecvFlags::empty())? {
            Some(Answer::Result { errno: 0, data }) => Ok(data),
            Some(Answer::Result { errno, .. }) => Err(Errno::from_raw(errno)),
            _ => Err(Errno::EPROTO),
        }
    }
}

/// A netlink socket that ends in the emulator.
#[derive(Debug)]
pub struct Far {
    line: Line,
    /// Datagrams that came while something else was waited for.
    inbox: VecDeque<Vec<u8>>,
}

impl Far {
    /// Sends a datagram and the files that it names.
    pub fn send(&self, datagram: Vec<u8>, files: &[OwnedFd]) -> Result<(), Errno> {
        self.line.send(&Request::Datagram(datagram), files)
    }

    /// Has the emulator carry out a request about the socket.
    pub fn ask(&mut self, request: &Request) -> Result<Vec<u8>, Errno> {
        self.line.send(request, &[])?;
        loop {
            match self.line.receive(RecvFlags::empty())? {
                Some(Answer::Result { errno: 0, data }) => return Ok(data),
                Some(Answer::Result { errno, .. }) => return Err(Errno::from_raw(errno)),
                Some(Answer::Datagram(datagram)) => self.inbox.push_back(datagram),
                None => return Err(Errno::EPROTO),
            }
        }
    }

    /// The next datagram that has come.
    pub fn receive(&mut self) -> Result<Option<Vec<u8>>, Errno> {
        if let Some(datagram) = self.inbox.pop_front() {
            return Ok(Some(datagram));
        }
        match self.line.receive(RecvFlags::DONTWAIT)? {
            Some(Answer::Datagram(datagram)) => Ok(Some(datagram)),
            Some(Answer::Result { .. }) => Err(Errno::EPROTO),
            None => Ok(None),
        }
    }

    /// To wait on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.line.0.as_fd()
    }
}

/// A connection.
#[derive(Debug)]
struct Line(OwnedFd);

impl Line {
    fn connect(path: &Path) -> io::Result<Self> {
        let line = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        connect(&line, &SocketAddrUnix::new(path)?)?;
        // Room for the longest packet; where the system's limit is lower, for what it allows.
        let _ = sockopt::set_socket_send_buffer_size(&line, 2 * MAX_PACKET);
        Ok(Self(line))
    }

    fn send(&self, request: &Request, files: &[OwnedFd]) -> Result<(), Errno> {
        let packet = request.to_bytes().map_err(|_| Errno::EMSGSIZE)?;
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(Errno::ETOOMANYREFS);
        }
        let parts = [IoSlice::new(&packet)];
        let sent = sendmsg(&self.0, &parts, &mut control, SendFlags::NOSIGNAL);
        sent.map(drop).map_err(|error| errno_of(error.into()))
    }

    /// The next packet; none if there is none yet. An emulator that has gone is ENODEV.
    fn receive(&self, flags: RecvFlags) -> Result<Option<Answer>, Errno> {
        let mut packet = vec![0; MAX_PACKET];
        match recv(&self.0, &mut packet[..], flags) {
            Ok((_, 0)) => Err(Errno::ENODEV),
            Ok((_, length)) => {
                let answer = Answer::parse(&packet[..length.min(MAX_PACKET)]);
                answer.map(Some).map_err(|_| Errno::EPROTO)
            }
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(errno_of(error.into())),
        }
    }
}

fn errno_of(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
