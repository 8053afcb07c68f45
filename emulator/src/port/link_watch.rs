//! Watching the netdevs of a network namespace: what the host sets on a representor (up, MTU) has
//! to be known without asking.

use super::rtnl::{Rtnl, messages};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::RwLock;
use rtnetlink::packet_core::NlasIterator;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{LinkFlags, LinkHeader};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustc_hash::FxHashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Room for one notification with all its attributes.
const DATAGRAM_LEN: usize = 64 * 1024;

/// A netdev as the host has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Has carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Bytes.
    pub mtu: u32,
}

/// What is known of every netdev of the namespace, by ifindex; a few milliseconds behind.
#[derive(Debug, Default)]
pub struct LinkTable(RwLock<FxHashMap<u32, LinkState>>);

impl LinkTable {
    /// `None`: there is no such netdev in the namespace (any more).
    pub fn get(&self, ifindex: u32) -> Option<LinkState> {
        self.0.read().get(&ifindex).copied()
    }

    /// How many netdevs there are.
    pub fn len(&self) -> usize {
        self.0.read().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The value of an attribute in the body of a link message, as `read` reads it.
pub(super) fn attribute<T>(
    body: &[u8],
    kind: u16,
    read: impl FnOnce(&[u8]) -> Option<T>,
) -> Option<T> {
    let mut attributes = NlasIterator::new(body.get(16..)?).flatten();
    read(attributes.find(|nla| nla.kind() == kind)?.value())
}

/// The same of one of 32 bits.
pub(super) fn attribute_u32(body: &[u8], kind: u16) -> Option<u32> {
    attribute(body, kind, |value| {
        Some(u32::from_ne_bytes(*value.first_chunk()?))
    })
}

/// Which netdev the body of a link message is about, and how it is. `None` for what bridges tell
/// of their ports in messages of the same type.
fn parse_link(body: &[u8]) -> Option<(u32, LinkState)> {
    let header = LinkHeader::parse(body).ok()?;
    if header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let state = LinkState {
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        mtu: attribute_u32(body, libc::IFLA_MTU).unwrap_or(0),
    };
    Some((header.index, state))
}

fn subscribe() -> io::Result<Socket> {
    /// Making 10,000 netdevs causes some 50 MB of notifications; what does not fit here costs a
    /// resynchronisation, not more.
    const RECV_BUFFER: usize = 4 << 20;
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, libc::RTMGRP_LINK as u32))?;
    socket.set_non_blocking(true)?;
    // Ignores the system's maximum if we have the privilege.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECV_BUFFER);
    Ok(socket)
}

/// A thread that keeps a [`LinkTable`] up to date; it ends when this is dropped.
pub(super) struct LinkWatch {
    links: Arc<LinkTable>,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl LinkWatch {
    /// Watches the calling thread's network namespace. The table is complete on return.
    pub(super) fn start() -> io::Result<Self> {
        let links = Arc::new(LinkTable::default());
        let stop = Arc::new(EventFd::new()?);
        let mut watcher = Watcher {
            // Subscribed before the first dump, so that no change falls between.
            events: subscribe()?,
            rtnl: Rtnl::open()?,
            links: links.clone(),
            stop: stop.clone(),
        };
        watcher.resync()?;
        let thread = std::thread::Builder::new().name("netdev-watch".into());
        let thread = Some(thread.spawn(move || watcher.run())?);
        Ok(Self {
            links,
            stop,
            thread,
        })
    }

    pub(super) fn links(&self) -> &Arc<LinkTable> {
        &self.links
    }
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        if self.stop.write(1).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

struct Watcher {
    events: Socket,
    rtnl: Rtnl,
    links: Arc<LinkTable>,
    stop: Arc<EventFd>,
}

impl Watcher {
    fn run(&mut self) {
        let mut datagram = vec![0; DATAGRAM_LEN];
        while self.wait() {
            if let Err(err) = self.drain(&mut datagram) {
                tracing::error!(%err, "netdevs are not watched any more");
                break;
            }
        }
    }

    /// Waits for notifications; false when it is time to end.
    fn wait(&self) -> bool {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = [readable(self.events.as_fd()), readable(self.stop.as_fd())];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => fds[1].any() != Some(true),
            Err(errno) => errno == Errno::EINTR,
        }
    }

    fn drain(&mut self, datagram: &mut [u8]) -> io::Result<()> {
        loop {
            let mut room = &mut *datagram;
            match self.events.recv(&mut room, 0) {
                Ok(len) => self.note(&datagram[..len.min(DATAGRAM_LEN)]),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // Notifications were lost (netlink(7)), so the table has to be read anew.
                Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => self.resync()?,
                Err(err) => return Err(err),
            }
        }
    }

    fn note(&self, datagram: &[u8]) {
        let mut links = self.links.0.write();
        for (header, body) in messages(datagram) {
            match (header.message_type, parse_link(body)) {
                (libc::RTM_NEWLINK, Some((ifindex, state))) => {
                    links.insert(ifindex, state);
                }
                (libc::RTM_DELLINK, Some((ifindex, _))) => {
                    links.remove(&ifindex);
                }
                _ => {}
            }
        }
    }

    fn resync(&mut self) -> io::Result<()> {
        let mut links = FxHashMap::default();
        self.rtnl
            .dump_links(|body| links.extend(parse_link(body)))?;
        *self.links.0.write() = links;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An `ifinfomsg` with one attribute.
    fn link(family: u8, ifindex: u32, flags: i32, mtu: u32) -> Vec<u8> {
        let mut body = vec![family, 0, 1, 0];
        body.extend(ifindex.to_ne_bytes());
        body.extend(flags.to_ne_bytes());
        body.extend([0; 4]);
        body.extend(8u16.to_ne_bytes());
        body.extend(libc::IFLA_MTU.to_ne_bytes());
        body.extend(mtu.to_ne_bytes());
        body
    }

    #[test]
    fn reads_flags_and_mtu_and_leaves_bridge_ports_alone() {
        let up = libc::IFF_UP | libc::IFF_LOWER_UP;
        let state = LinkState {
            up: true,
            carrier: true,
            mtu: 9000,
        };
        assert_eq!(parse_link(&link(0, 7, up, 9000)), Some((7, state)));
        assert_eq!(parse_link(&link(libc::AF_BRIDGE as u8, 7, up, 9000)), None);
        for len in 0..16 {
            assert_eq!(parse_link(&link(0, 7, up, 9000)[..len]), None);
        }
    }

    #[test]
    fn the_table_begins_complete() {
        let watch = LinkWatch::start().unwrap();
        let lo = nix::net::if_::if_nametoindex("lo").unwrap();
        assert!(watch.links().get(lo).unwrap().mtu > 0);
        assert_eq!(watch.links().get(0), None);
        assert!(!watch.links().is_empty());
    }
}
