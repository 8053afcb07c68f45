//! One client: a netlink socket of somebody's, or somebody who asks for files.

use super::played::{Played, ROUTE};
use chanio_netlink::kernel::{Client, serve};
use chanio_netlink::played::{Answer, MAX_PACKET, Request};
use chanio_netlink::route::replace_netns_fds;
use nix::errno::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send,
};
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Descriptors that one datagram may bring.
const MAX_FILES: usize = 32;
/// Bytes that may wait for a client that does not read; one that lets more come up is let go.
const MAX_WAITING: usize = 64 << 20;

/// A connection.
pub struct Connection {
    socket: OwnedFd,
    /// What the netlink socket is; none of one that has not said.
    client: Option<Client>,
    groups: BTreeSet<u32>,
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
}

/// What a client asked that is not for the NIC alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    Nothing,
    /// It listens to this group of NETLINK_ROUTE now.
    Joined(u32),
    /// It does not any more.
    Left(u32),
    /// It has gone.
    Gone,
}

impl Connection {
    /// With a client that has just connected, and is known by this number.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            client: None,
            groups: BTreeSet::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Whether something waits to be sent.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The groups of NETLINK_ROUTE it listens to.
    pub fn route_groups(&self) -> impl Iterator<Item = u32> {
        let is_route = self.client.is_some_and(|client| client.protocol == ROUTE);
        self.groups.iter().copied().filter(move |_| is_route)
    }

    /// Whether it listens to this group of this protocol.
    pub fn listens(&self, protocol: i32, group: u32) -> bool {
        self.client
            .is_some_and(|client| client.protocol == protocol)
            && self.groups.contains(&group)
    }

    /// Sends, or has it wait until the client has read what was before.
    pub fn send(&mut self, answer: &Answer) -> io::Result<()> {
        let packet = answer.to_bytes().map_err(io::Error::other)?;
        self.waiting_bytes += packet.len();
        self.waiting.push_back(packet);
        self.flush()?;
        if self.waiting_bytes > MAX_WAITING {
            return Err(io::Error::other("the client does not read"));
        }
        Ok(())
    }

    /// Sends what waits, as far as the client has room.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(packet) = self.waiting.front() {
            match send(
                &self.socket,
                packet,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(_) => {
                    self.waiting_bytes -= packet.len();
                    self.waiting.pop_front();
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads and carries out one packet. An error ends the connection.
    pub fn receive(&mut self, played: &mut Played, buffer: &mut [u8]) -> io::Result<Asked> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(buffer)];
        let received = match recvmsg(&self.socket, &mut parts, &mut control, flags) {
            Ok(received) if received.bytes == 0 => return Ok(Asked::Gone),
            Ok(received) => received,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(Asked::Nothing),
            Err(error) => return Err(error.into()),
        };
        let mut files = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                files.extend(fds);
            }
        }
        let cut = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
        if received.flags.intersects(cut) {
            let words = format!("a packet of more than {MAX_PACKET} bytes or {MAX_FILES} files");
            return Err(io::Error::other(words));
        }
        let request = Request::parse(&buffer[..received.bytes]).map_err(io::Error::other)?;
        self.carry_out(request, &files, played)
    }

    fn carry_out(
        &mut self,
        request: Request,
        files: &[OwnedFd],
        played: &mut Played,
    ) -> io::Result<Asked> {
        let result = match request {
            Request::Datagram(datagram) => {
                self.datagram(datagram, files, played)?;
                return Ok(Asked::Nothing);
            }
            Request::Open(protocol) => self.open(protocol, played),
            Request::Option { name, value } => self.option(name, value),
            Request::Join(group) => match &self.client {
                Some(client) => {
                    let asked = match client.protocol == ROUTE && self.groups.insert(group) {
                        true => Asked::Joined(group),
                        false => Asked::Nothing,
                    };
                    self.groups.insert(group);
                    self.result(Ok(Vec::new()))?;
                    return Ok(asked);
                }
                None => Err(Errno::ENOTCONN),
            },
            Request::Leave(group) => {
                let asked = match (self.groups.remove(&group), &self.client) {
                    (true, Some(client)) if client.protocol == ROUTE => Asked::Left(group),
                    _ => Asked::Nothing,
                };
                self.result(Ok(Vec::new()))?;
                return Ok(asked);
            }
            Request::Ethtool { interface, command } => match files.first() {
                Some(netns) => played.ethtool_ioctl_in(netns.as_fd(), &interface, command),
                None => played.ethtool_ioctl(&interface, command),
            },
            Request::Read(path) => played.sys_read(&path),
            Request::Write { path, data } => played.sys_write(&path, &data).map(|()| Vec::new()),
            Request::List(path) => played.sys_list(&path),
            Request::ReadLink(path) => played.sys_read_link(&path),
        };
        self.result(result)?;
        Ok(Asked::Nothing)
    }

    fn open(&mut self, protocol: u32, played: &Played) -> Result<Vec<u8>, Errno> {
        use chanio_netlink::kernel::Kernel;
        let protocol = i32::try_from(protocol).map_err(|_| Errno::EPROTONOSUPPORT)?;
        if self.client.is_some() {
            return Err(Errno::EISCONN);
        }
        if !played.plays(protocol) {
            return Err(Errno::EPROTONOSUPPORT);
        }
        self.client = Some(Client {
            protocol,
            // The client knows its port; sequence numbers alone tell answers apart here.
            port: 0,
            ext_ack: true,
            strict: false,
        });
        Ok(Vec::new())
    }

    fn option(&mut self, name: u32, value: u32) -> Result<Vec<u8>, Errno> {
        /// linux/netlink.h
        const EXT_ACK: u32 = 11;
        const GET_STRICT_CHK: u32 = 12;
        let client = self.client.as_mut().ok_or(Errno::ENOTCONN)?;
        match name {
            EXT_ACK => client.ext_ack = value != 0,
            GET_STRICT_CHK => client.strict = value != 0,
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(Vec::new())
    }

    fn datagram(
        &mut self,
        mut datagram: Vec<u8>,
        files: &[OwnedFd],
        played: &mut Played,
    ) -> io::Result<()> {
        let Some(client) = self.client else {
            return Err(io::Error::other("a datagram before the socket was opened"));
        };
        if client.protocol == ROUTE {
            // Of the files that came with it only, whatever number the client writes.
            let local = |index: u32| files.get(index as usize).map(AsRawFd::as_raw_fd);
            let local = |index| local(index).and_then(|fd| u32::try_from(fd).ok());
            replace_netns_fds(&mut datagram, local);
        }
        // What is no messages is dropped by the kernel, too.
        let answers = serve(played, &client, &datagram).unwrap_or_default();
        for answer in answers {
            self.send(&Answer::Datagram(answer))?;
        }
        Ok(())
    }

    fn result(&mut self, result: Result<Vec<u8>, Errno>) -> io::Result<()> {
        let (errno, data) = match result {
            Ok(data) => (0, data),
            Err(errno) => (errno as i32, Vec::new()),
        };
        self.send(&Answer::Result { errno, data })
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
