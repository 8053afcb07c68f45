//! An emulator that plays the kernel, over the socket in its run directory
//! (`chanio_netlink::played`).

use super::socket::wait_readable;
use super::{Machine, Netns, Protocol, Transport, Wire};
use chanio_netlink::played::{Answer, Entry, MAX_PACKET, Request, SOCKET_NAME};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg,
    socket,
};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the emulator may take for a file, an ioctl or the subscription to a group.
const PATIENCE: Duration = Duration::from_secs(30);

/// The emulator with this run directory, playing the kernel for its own NIC. Containers'
/// namespaces are the machine's own.
#[derive(Clone, Debug)]
pub struct Played {
    socket: PathBuf,
}

impl Played {
    /// Finds the emulator with this run directory.
    ///
    /// # Errors
    /// None runs there, or it does not play the kernel.
    pub fn find(run_dir: &Path) -> io::Result<Self> {
        let socket = run_dir.join(SOCKET_NAME);
        let played = Played { socket };
        played.connect().map_err(|error| {
            let why = format!(
                "cannot connect to {}: {error}; is `chanio-emu --netlink` running there?",
                played.socket.display()
            );
            io::Error::new(error.kind(), why)
        })?;
        Ok(played)
    }

    fn connect(&self) -> io::Result<Connection> {
        let file = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        connect(file.as_raw_fd(), &UnixAddr::new(&self.socket)?)?;
        Ok(Connection {
            file,
            datagrams: VecDeque::new(),
        })
    }

    /// One request of files and ioctls.
    fn ask(&self, request: &Request) -> io::Result<Vec<u8>> {
        self.ask_with(request, &[])
    }

    fn ask_with(&self, request: &Request, files: &[BorrowedFd<'_>]) -> io::Result<Vec<u8>> {
        let mut connection = self.connect()?;
        connection.send(request, files)?;
        connection.result()
    }

    fn ioctl(&self, netdev: &str, data: &mut [u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let request = Request::Ethtool {
            interface: netdev.to_owned(),
            command: data.to_vec(),
        };
        let answer = self.ask_with(&request, files)?;
        if answer.len() < data.len() {
            return Err(invalid("an answer shorter than its command"));
        }
        let length = data.len();
        data.copy_from_slice(&answer[..length]);
        Ok(())
    }
}

/// A path as the packets have it.
fn text(path: &Path) -> io::Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
}

impl Transport for Played {
    fn open(&self, protocol: Protocol) -> io::Result<Box<dyn Wire>> {
        let mut connection = self.connect()?;
        connection.send(&Request::Open(protocol as u32), &[])?;
        connection.result()?;
        Ok(Box::new(connection))
    }

    fn open_in(&self, netns: &Netns, protocol: Protocol) -> io::Result<Box<dyn Wire>> {
        Machine.open_in(netns, protocol)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.ask(&Request::Read(text(path)?))
    }

    fn write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        let request = Request::Write {
            path: text(path)?,
            data: data.to_vec(),
        };
        self.ask(&request).map(drop)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let data = self.ask(&Request::List(text(path)?))?;
        let entries = Entry::parse_list(&data).map_err(invalid)?;
        let mut names: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
        names.sort();
        Ok(names)
    }

    fn link_target(&self, path: &Path) -> io::Result<PathBuf> {
        let target = self.ask(&Request::ReadLink(text(path)?))?;
        Ok(String::from_utf8(target).map_err(invalid)?.into())
    }

    fn ethtool(&self, netdev: &str, data: &mut Vec<u8>) -> io::Result<()> {
        match self.ioctl(netdev, data, &[]) {
            Err(error) if is_the_kernels(&error) => Machine.ethtool(netdev, data),
            done => done,
        }
    }

    fn ethtool_in(&self, netns: &Netns, netdev: &str, data: &mut Vec<u8>) -> io::Result<()> {
        match self.ioctl(netdev, data, &[netns.as_fd()]) {
            Err(error) if is_the_kernels(&error) => Machine.ethtool_in(netns, netdev, data),
            done => done,
        }
    }
}

/// A netdev that is not the emulator's, or what no driver has to answer itself.
fn is_the_kernels(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOTTY))
}

fn invalid(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

/// One connection.
struct Connection {
    file: OwnedFd,
    /// What came while the result of a request was waited for.
    datagrams: VecDeque<Vec<u8>>,
}

impl Connection {
    fn send(&mut self, request: &Request, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let packet = request.to_bytes().map_err(invalid)?;
        let numbers: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let control = if files.is_empty() { &[][..] } else { &rights };
        let parts = [IoSlice::new(&packet)];
        sendmsg::<()>(
            self.file.as_raw_fd(),
            &parts,
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }

    fn next(&mut self, until: Instant) -> io::Result<Option<Answer>> {
        if !wait_readable(self.file.as_fd(), until)? {
            return Ok(None);
        }
        let mut packet = vec![0; MAX_PACKET];
        let length = recv(self.file.as_raw_fd(), &mut packet, MsgFlags::empty())?;
        if length == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the emulator has closed the connection",
            ));
        }
        Answer::parse(&packet[..length]).map(Some).map_err(invalid)
    }

    /// The result of the request that was sent last.
    fn result(&mut self) -> io::Result<Vec<u8>> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.next(until)? {
                Some(Answer::Datagram(datagram)) => self.datagrams.push_back(datagram),
                Some(Answer::Result { errno: 0, data }) => return Ok(data),
                Some(Answer::Result { errno, .. }) => {
                    return Err(io::Error::from_raw_os_error(errno));
                }
                None => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }
}

impl Wire for Connection {
    fn send(&mut self, datagram: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        Connection::send(self, &Request::Datagram(datagram.to_vec()), files)
    }

    fn receive(&mut self, until: Instant) -> io::Result<Option<Vec<u8>>> {
        if let Some(datagram) = self.datagrams.pop_front() {
            return Ok(Some(datagram));
        }
        match self.next(until)? {
            Some(Answer::Datagram(datagram)) => Ok(Some(datagram)),
            Some(Answer::Result { .. }) => Err(invalid("a result that nobody asked for")),
            None => Ok(None),
        }
    }

    fn join(&mut self, group: u32) -> io::Result<()> {
        Connection::send(self, &Request::Join(group), &[])?;
        self.result().map(drop)
    }

    fn file_number(&self, place: u32, _: BorrowedFd<'_>) -> u32 {
        place
    }
}
