//! The real kernel's netlink socket, for all that is not the NIC's.

use chanio_netlink::kernel::{Refusal, Reply};
use chanio_netlink::message::{
    Acknowledgement, Message, NLM_F_ACK, NLM_F_DUMP, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP,
};
use rtnetlink::sys::{Socket, SocketAddr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// A socket that asks one thing after the other.
pub struct Host {
    socket: Socket,
    sequence: u32,
    strict: bool,
}

impl Host {
    /// Opens one of this protocol in the calling thread's network namespace.
    pub fn open(protocol: i32) -> io::Result<Self> {
        let mut socket = Socket::new(protocol as isize)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        Ok(Self {
            socket,
            sequence: 1,
            strict: false,
        })
    }

    /// Has the kernel carry out a request as if it came from a client that is as strict.
    pub fn ask(&mut self, request: &Message, strict: bool) -> Result<Reply, Refusal> {
        if strict != self.strict && self.socket.set_netlink_get_strict_chk(strict).is_ok() {
            self.strict = strict;
        }
        self.sequence = self.sequence.wrapping_add(1);
        let request = Message {
            sequence: self.sequence,
            port: 0,
            // An acknowledgement tells where the answers end.
            flags: request.flags | NLM_F_ACK,
            ..request.clone()
        };
        let failed = |error: io::Error| Refusal::errno(error.raw_os_error().unwrap_or(libc::EIO));
        self.socket.send(&request.to_bytes(), 0).map_err(failed)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full().map_err(failed)?;
            for message in Message::parse_all(&datagram)? {
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    NLMSG_NOOP => {}
                    NLMSG_ERROR => {
                        let told = Acknowledgement::parse(&message)?;
                        if told.error != 0 {
                            return Err(Refusal {
                                errno: told.error,
                                told: told.told,
                            });
                        }
                        return Ok(Reply::Answers(answers));
                    }
                    NLMSG_DONE => {
                        let error = message.payload.first_chunk().copied();
                        return match error.map_or(0, i32::from_ne_bytes) {
                            error if error < 0 => Err(Refusal::errno(error.saturating_neg())),
                            _ if request.flags & NLM_F_DUMP == NLM_F_DUMP => {
                                Ok(Reply::Dump(answers))
                            }
                            _ => Ok(Reply::Answers(answers)),
                        };
                    }
                    _ => answers.push(message),
                }
            }
        }
    }
}

/// A socket that hears what the kernel tells groups.
pub struct HostEvents(Socket);

impl HostEvents {
    /// Hears of nothing yet.
    pub fn open(protocol: i32) -> io::Result<Self> {
        let mut socket = Socket::new(protocol as isize)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Hears of this group as well.
    pub fn join(&self, group: u32) -> io::Result<()> {
        self.0.add_membership(group)
    }

    /// Hears no more of it.
    pub fn leave(&self, group: u32) -> io::Result<()> {
        self.0.drop_membership(group)
    }

    /// The next datagram's messages and the groups it was sent to, a bit each.
    pub fn next(&self) -> io::Result<Option<(Vec<Message>, u32)>> {
        match self.0.recv_from_full() {
            Ok((datagram, from)) => {
                let messages = Message::parse_all(&datagram).unwrap_or_default();
                Ok(Some((messages, from.multicast_groups())))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            // What was lost is lost for the clients, too.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for HostEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
