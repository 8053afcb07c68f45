//! One system call on a played socket, carried out as the kernel would on a netlink socket
//! (net/netlink/af_netlink.c, netlink(7)).

use crate::memory::{Buffer, Memory, MessageHeader};
use crate::notify::Stopped;
use crate::played::Elsewhere;
use crate::sockets::{Datagram, ProgramFile, Socket, Sockets, process_of};
use chanio_netlink::kernel::{Kernel, serve};
use chanio_netlink::played::Request;
use chanio_netlink::route::replace_netns_fds;
use nix::errno::Errno;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// What becomes of a call.
#[derive(Debug)]
pub enum Outcome {
    /// It returns this.
    Done(u64),
    /// It returns this file.
    File {
        /// The file.
        file: OwnedFd,
        /// Its number in the program; none: the lowest that is free.
        number: Option<u32>,
        /// SOCK_CLOEXEC and its like.
        close_on_exec: bool,
    },
    /// The kernel carries it out: it is not about a played socket.
    Resume,
    /// It waits for something to read, until then.
    Wait(Option<Instant>),
}

/// sockaddr_nl: family, padding, port, groups.
const ADDRESS_SIZE: usize = 12;

const SOL_NETLINK: i32 = 270;
const NETLINK_ADD_MEMBERSHIP: i32 = 1;
const NETLINK_DROP_MEMBERSHIP: i32 = 2;
const NETLINK_LIST_MEMBERSHIPS: i32 = 9;
const NETLINK_EXT_ACK: i32 = 11;
const NETLINK_GET_STRICT_CHK: i32 = 12;

/// Carries it out.
pub fn carry_out(
    stopped: &Stopped,
    sockets: &mut Sockets,
    kernel: &mut dyn Kernel,
    elsewhere: &mut Option<Elsewhere>,
) -> Result<Outcome, Errno> {
    let call = Call {
        stopped,
        memory: Memory::of(stopped.thread),
    };
    if stopped.call == libc::SYS_socket {
        return call.socket(sockets, kernel, elsewhere.as_ref());
    }
    let number = call.int(0).cast_unsigned();
    let by_number = is_on_a_file(stopped.call);
    let Some(socket) = sockets.by_number(number).filter(|_| by_number) else {
        return match elsewhere {
            Some(elsewhere) => elsewhere.carry_out(stopped),
            None => Ok(Outcome::Resume),
        };
    };
    if let Some(errno) = socket.lost {
        return Err(errno);
    }
    let done = match stopped.call {
        libc::SYS_bind => return call.bind(sockets, number),
        libc::SYS_connect => Ok(0),
        libc::SYS_getsockname => call.tell_address(socket.client.port, group_bits(socket)),
        libc::SYS_getpeername => call.tell_address(0, 0),
        libc::SYS_setsockopt => call.set_option(socket),
        libc::SYS_getsockopt => call.get_option(socket),
        libc::SYS_sendto => return call.send_to(sockets, number, kernel),
        libc::SYS_write => {
            let buffer = call.buffer();
            return call.send(sockets, number, kernel, &[buffer]);
        }
        libc::SYS_writev => {
            let buffers = call
                .memory
                .read_buffers(call.arg(1), call.arg(2) as usize)?;
            return call.send(sockets, number, kernel, &buffers);
        }
        libc::SYS_sendmsg => {
            let header = call.memory.read_message_header(call.arg(1))?;
            call.check_destination(header.name, header.name_len as usize)?;
            let buffers = call
                .memory
                .read_buffers(header.buffers, header.buffer_count)?;
            return call.send(sockets, number, kernel, &buffers);
        }
        libc::SYS_recvfrom | libc::SYS_recvmsg | libc::SYS_read | libc::SYS_readv => {
            return call.receive(socket, number);
        }
        libc::SYS_dup => return call.duplicate(sockets, number, false),
        libc::SYS_fcntl => match call.int(1) {
            libc::F_DUPFD => return call.duplicate(sockets, number, false),
            libc::F_DUPFD_CLOEXEC => return call.duplicate(sockets, number, true),
            _ => return Ok(Outcome::Resume),
        },
        // A number of the program's choice would not be one of those that come here.
        libc::SYS_dup3 => Err(Errno::EINVAL),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_dup2 => Err(Errno::EINVAL),
        _ => Err(Errno::ENOSYS),
    };
    done.map(Outcome::Done)
}

/// Whether a call's first argument is the number of a file that it is about.
fn is_on_a_file(call: libc::c_long) -> bool {
    use crate::filter::{ON_A_FILE, WRITES};
    ON_A_FILE.contains(&call) || WRITES.contains(&call)
}

struct Call<'a> {
    stopped: &'a Stopped,
    memory: Memory,
}

impl Call<'_> {
    fn arg(&self, index: usize) -> u64 {
        self.stopped.args[index]
    }

    /// An argument of type int: the upper half of its register means nothing.
    fn int(&self, index: usize) -> i32 {
        (self.arg(index) as u32).cast_signed()
    }

    /// The buffer of read, write, send and recv.
    fn buffer(&self) -> Buffer {
        Buffer {
            at: self.arg(1),
            len: self.arg(2) as usize,
        }
    }

    fn socket(
        &self,
        sockets: &mut Sockets,
        kernel: &dyn Kernel,
        elsewhere: Option<&Elsewhere>,
    ) -> Result<Outcome, Errno> {
        let (flags, protocol) = (self.int(1), self.int(2));
        let kind = flags & !(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
        let far = match elsewhere {
            Some(elsewhere) => elsewhere.open_socket(protocol, self.stopped.thread)?,
            None => None,
        };
        if far.is_none() && !kernel.plays(protocol) {
            return Ok(Outcome::Resume);
        }
        if kind != libc::SOCK_RAW && kind != libc::SOCK_DGRAM {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        let nonblocking = flags & libc::SOCK_NONBLOCK != 0;
        let (file, number) = sockets.open(protocol, kind, nonblocking, far)?;
        Ok(Outcome::File {
            file,
            number: Some(number),
            close_on_exec: flags & libc::SOCK_CLOEXEC != 0,
        })
    }

    fn duplicate(
        &self,
        sockets: &mut Sockets,
        number: u32,
        close_on_exec: bool,
    ) -> Result<Outcome, Errno> {
        let file = ProgramFile::of(self.stopped.thread, number)?.into_fd();
        Ok(Outcome::File {
            file,
            number: Some(sockets.duplicate(number)?),
            close_on_exec,
        })
    }

    fn bind(&self, sockets: &mut Sockets, number: u32) -> Result<Outcome, Errno> {
        let (port, groups) =
            self.read_address(self.arg(1), self.int(2).cast_unsigned() as usize)?;
        sockets.bind(number, port, process_of(self.stopped.thread)?)?;
        if let Some(socket) = sockets.by_number(number) {
            let bits = (0..32).filter(|bit| groups & 1 << bit != 0);
            for group in bits.map(|bit| bit + 1) {
                join(socket, group)?;
            }
        }
        Ok(Outcome::Done(0))
    }

    fn read_address(&self, at: u64, len: usize) -> Result<(u32, u32), Errno> {
        if len < ADDRESS_SIZE {
            return Err(Errno::EINVAL);
        }
        let bytes = self.memory.read(at, ADDRESS_SIZE)?;
        if u16::from_ne_bytes([bytes[0], bytes[1]]) != libc::AF_NETLINK as u16 {
            return Err(Errno::EINVAL);
        }
        let word =
            |i: usize| u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        Ok((word(4), word(8)))
    }

    /// Only the kernel is here to talk to.
    fn check_destination(&self, at: u64, len: usize) -> Result<(), Errno> {
        if at == 0 || len == 0 {
            return Ok(());
        }
        match self.read_address(at, len)? {
            (0, _) => Ok(()),
            _ => Err(Errno::ECONNREFUSED),
        }
    }

    /// getsockname and getpeername.
    fn tell_address(&self, port: u32, groups: u32) -> Result<u64, Errno> {
        self.write_address(self.arg(1), self.arg(2), port, groups)?;
        Ok(0)
    }

    /// An address into a buffer whose length stands elsewhere, as getsockname and recvfrom do.
    fn write_address(&self, at: u64, len_at: u64, port: u32, groups: u32) -> Result<(), Errno> {
        let room = self.memory.read_u32(len_at)? as usize;
        let address = address(port, groups);
        self.memory.write(at, &address[..room.min(ADDRESS_SIZE)])?;
        self.memory
            .write(len_at, &(ADDRESS_SIZE as u32).to_ne_bytes())
    }

    fn send_to(
        &self,
        sockets: &mut Sockets,
        number: u32,
        kernel: &mut dyn Kernel,
    ) -> Result<Outcome, Errno> {
        self.check_destination(self.arg(4), self.int(5).cast_unsigned() as usize)?;
        self.send(sockets, number, kernel, &[self.buffer()])
    }

    fn send(
        &self,
        sockets: &mut Sockets,
        number: u32,
        kernel: &mut dyn Kernel,
        buffers: &[Buffer],
    ) -> Result<Outcome, Errno> {
        let datagram = self.memory.gather(buffers)?;
        if sockets
            .by_number(number)
            .is_some_and(|socket| socket.client.port == 0)
        {
            sockets.bind(number, 0, process_of(self.stopped.thread)?)?;
        }
        let socket = sockets.by_number(number).ok_or(Errno::EBADF)?;
        if let Some(far) = &socket.far {
            let (datagram, files) = self.with_files(&datagram)?;
            let length = datagram.len();
            far.send(datagram, &files)?;
            return Ok(Outcome::Done(length as u64));
        }
        // The kernel, too, drops a datagram that is no messages, and says it was sent.
        let answers = serve(kernel, &socket.client, &datagram).unwrap_or_default();
        for bytes in answers {
            socket.push(Datagram { bytes, group: 0 })?;
        }
        Ok(Outcome::Done(datagram.len() as u64))
    }

    /// A datagram that names the program's files, with those files.
    fn with_files(&self, datagram: &[u8]) -> Result<(Vec<u8>, Vec<OwnedFd>), Errno> {
        let mut datagram = datagram.to_vec();
        let mut files = Vec::new();
        replace_netns_fds(&mut datagram, |number| {
            let file = ProgramFile::of(self.stopped.thread, number).ok()?;
            files.push(file.into_fd());
            Some(files.len() as u32 - 1)
        });
        Ok((datagram, files))
    }

    fn receive(&self, socket: &mut Socket, number: u32) -> Result<Outcome, Errno> {
        let plain = [libc::SYS_read, libc::SYS_readv].contains(&self.stopped.call);
        let message = self.stopped.call == libc::SYS_recvmsg;
        let flags = match () {
            () if plain => 0,
            () if message => self.int(2),
            () => self.int(3),
        };
        let end = ProgramFile::of(self.stopped.thread, number)?;
        socket.receive_far()?;
        let Some(datagram) = socket.front() else {
            if flags & libc::MSG_DONTWAIT != 0 || end.is_nonblocking()? {
                return Err(Errno::EAGAIN);
            }
            return Ok(Outcome::Wait(
                socket.read_timeout.map(|timeout| Instant::now() + timeout),
            ));
        };
        let header = message
            .then(|| self.memory.read_message_header(self.arg(1)))
            .transpose()?;
        let buffers = match header {
            Some(header) => self
                .memory
                .read_buffers(header.buffers, header.buffer_count)?,
            None if self.stopped.call == libc::SYS_readv => self
                .memory
                .read_buffers(self.arg(1), self.arg(2) as usize)?,
            None => vec![self.buffer()],
        };
        let (length, group) = (datagram.bytes.len(), datagram.group);
        let copied = self.memory.scatter(&buffers, &datagram.bytes)?;
        if let Some(header) = header {
            self.finish_message(&header, group, copied < length)?;
        } else if !plain && self.arg(4) != 0 {
            self.write_address(self.arg(4), self.arg(5), 0, bit_of(group))?;
        }
        if flags & libc::MSG_PEEK == 0 {
            socket.pop(&end)?;
        }
        let told = if flags & libc::MSG_TRUNC != 0 {
            length
        } else {
            copied
        };
        Ok(Outcome::Done(told as u64))
    }

    fn finish_message(&self, header: &MessageHeader, group: u32, cut: bool) -> Result<(), Errno> {
        let mut name_len = 0;
        if header.name != 0 {
            let room = (header.name_len as usize).min(ADDRESS_SIZE);
            self.memory
                .write(header.name, &address(0, bit_of(group))[..room])?;
            name_len = ADDRESS_SIZE as u32;
        }
        let flags = if cut { libc::MSG_TRUNC } else { 0 };
        self.memory.finish_message_header(header, name_len, flags)
    }

    fn set_option(&self, socket: &mut Socket) -> Result<u64, Errno> {
        let (level, name, at) = (self.int(1), self.int(2), self.arg(3));
        let value = || self.memory.read_u32(at);
        match (level, name) {
            (SOL_NETLINK, NETLINK_ADD_MEMBERSHIP) => {
                join(socket, value()?)?;
            }
            (SOL_NETLINK, NETLINK_DROP_MEMBERSHIP) => {
                let group = value()?;
                socket.groups.remove(&group);
                if let Some(far) = &mut socket.far {
                    far.ask(&Request::Leave(group))?;
                }
            }
            (SOL_NETLINK, NETLINK_EXT_ACK | NETLINK_GET_STRICT_CHK) => {
                let value = value()?;
                match name {
                    NETLINK_EXT_ACK => socket.client.ext_ack = value != 0,
                    _ => socket.client.strict = value != 0,
                }
                if let Some(far) = &mut socket.far {
                    let name = name.cast_unsigned();
                    far.ask(&Request::Option { name, value })?;
                }
            }
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => {
                let bytes = self.memory.read(at, 16)?;
                let (words, _) = bytes.as_chunks();
                let timeout = Duration::from_secs(u64::from_ne_bytes(words[0]))
                    + Duration::from_micros(u64::from_ne_bytes(words[1]).min(999_999));
                socket.read_timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
            }
            // Buffer sizes, filters and the like change nothing that is played.
            (SOL_NETLINK | libc::SOL_SOCKET, _) => {}
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(0)
    }

    fn get_option(&self, socket: &Socket) -> Result<u64, Errno> {
        let value: i32 = match (self.int(1), self.int(2)) {
            (libc::SOL_SOCKET, libc::SO_TYPE) => socket.kind,
            (libc::SOL_SOCKET, libc::SO_DOMAIN) => libc::AF_NETLINK,
            (libc::SOL_SOCKET, libc::SO_PROTOCOL) => socket.client.protocol,
            (libc::SOL_SOCKET, libc::SO_ERROR) => 0,
            (libc::SOL_SOCKET, libc::SO_SNDBUF | libc::SO_RCVBUF) => DEFAULT_BUFFER,
            (SOL_NETLINK, NETLINK_EXT_ACK) => socket.client.ext_ack.into(),
            (SOL_NETLINK, NETLINK_GET_STRICT_CHK) => socket.client.strict.into(),
            (SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS) => return self.list_memberships(socket),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        self.write_option(&value.to_ne_bytes())
    }

    /// A bit for each group, in words.
    fn list_memberships(&self, socket: &Socket) -> Result<u64, Errno> {
        let highest = socket.groups.last().copied().unwrap_or(1).min(MAX_GROUP);
        let mut words = vec![0u32; highest.div_ceil(32) as usize];
        for group in socket.groups.range(1..=highest) {
            words[(group - 1) as usize / 32] |= 1 << ((group - 1) % 32);
        }
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.write_option(&bytes)
    }

    fn write_option(&self, bytes: &[u8]) -> Result<u64, Errno> {
        let room = self.memory.read_u32(self.arg(4))? as usize;
        self.memory
            .write(self.arg(3), &bytes[..room.min(bytes.len())])?;
        self.memory
            .write(self.arg(4), &(bytes.len() as u32).to_ne_bytes())?;
        Ok(0)
    }
}

/// Has a socket hear of a group.
fn join(socket: &mut Socket, group: u32) -> Result<(), Errno> {
    if let Some(far) = &mut socket.far {
        far.ask(&Request::Join(group))?;
    }
    socket.groups.insert(group);
    Ok(())
}

/// net.core.rmem_default.
const DEFAULT_BUFFER: i32 = 212_992;
/// No family has more groups; what a program asks for beyond is not listed.
const MAX_GROUP: u32 = 1024;

fn address(port: u32, groups: u32) -> [u8; ADDRESS_SIZE] {
    let mut bytes = [0; ADDRESS_SIZE];
    bytes[..2].copy_from_slice(&(libc::AF_NETLINK as u16).to_ne_bytes());
    bytes[4..8].copy_from_slice(&port.to_ne_bytes());
    bytes[8..].copy_from_slice(&groups.to_ne_bytes());
    bytes
}

/// The bit of a group in an address; groups above 32 have none.
fn bit_of(group: u32) -> u32 {
    group
        .checked_sub(1)
        .and_then(|bit| 1u32.checked_shl(bit))
        .unwrap_or(0)
}

fn group_bits(socket: &Socket) -> u32 {
    socket
        .groups
        .iter()
        .fold(0, |bits, group| bits | bit_of(*group))
}
