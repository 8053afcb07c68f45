//! Functions' netdevs, wherever they are: a driver carries out what a container does to its netdev,
//! a new address or MTU, in hardware. Here the kernel has done it to a TAP, and tells of it.
//!
//! A namespace that a netdev was moved to has a number in the one it came from, and a socket can
//! hear of all that have one (NETLINK_LISTEN_ALL_NSID) without keeping any of them alive. Numbers
//! are used again, so what is told is a hint: how the netdev is, is asked of the TAP itself.

use super::played::{Played, Role};
use super::route::LinkNews;
use crate::nic::spec::ChannelChange;
use chanio_netlink::message::Message;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use rtnetlink::sys::{Socket, SocketAddr};
use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// RTNLGRP_LINK.
const LINKS: u32 = 1;
/// The kernel sends no longer datagrams to those who listen.
const DATAGRAM: usize = 64 << 10;
/// Places of netdevs that are remembered; beyond, new ones are not followed.
const MOST: usize = 1 << 20;

/// Who listens to all namespaces.
pub struct Abroad {
    socket: Socket,
    buffer: Vec<u8>,
    /// The ports of functions by the number of their netdev's namespace and its index there.
    ports: HashMap<(i32, u32), u32>,
}

impl Abroad {
    /// Listens from now on.
    ///
    /// # Errors
    /// CAP_NET_BROADCAST is missing.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(super::played::ROUTE as isize)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        socket.set_listen_all_namespaces(true)?;
        socket.add_membership(LINKS)?;
        Ok(Self {
            socket,
            buffer: vec![0; DATAGRAM],
            ports: HashMap::new(),
        })
    }

    /// Has the NIC follow all that was told.
    pub fn follow(&mut self, played: &mut Played) -> io::Result<()> {
        while let Some((netns, messages)) = self.next()? {
            for message in messages {
                let news = LinkNews::parse(&message.payload);
                if let Some(news) = news.ok().flatten() {
                    self.take(netns, message.kind, &news, played);
                }
            }
        }
        Ok(())
    }

    /// What was told next, and of which namespace; `None`: of the emulator's own.
    fn next(&mut self) -> io::Result<Option<(Option<i32>, Vec<Message>)>> {
        loop {
            let mut control = nix::cmsg_space!(i32);
            let mut parts = [IoSliceMut::new(&mut self.buffer)];
            let received = recvmsg::<()>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT,
            );
            let received = match received {
                Ok(received) => received,
                Err(Errno::EAGAIN) => return Ok(None),
                // What was lost is made up for by what comes next about the same netdev.
                Err(Errno::EINTR | Errno::ENOBUFS) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let length = received.bytes;
            let number = |message| match message {
                ControlMessageOwned::Unknown(unknown)
                    if unknown.cmsg_header.cmsg_level == libc::SOL_NETLINK
                        && unknown.cmsg_header.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID =>
                {
                    let bytes = unknown.data_bytes.first_chunk().copied();
                    bytes.map(i32::from_ne_bytes)
                }
                _ => None,
            };
            let netns = received.cmsgs()?.find_map(number);
            let messages = Message::parse_all(&self.buffer[..length]).unwrap_or_default();
            return Ok(Some((netns, messages)));
        }
    }

    fn take(&mut self, netns: Option<i32>, kind: u16, news: &LinkNews, played: &mut Played) {
        let at_home = || match played.role(news.ifindex)? {
            Role::Function(port) => Some(port),
            _ => None,
        };
        let port = match netns {
            Some(number) => self.ports.get(&(number, news.ifindex)).copied(),
            None => at_home(),
        };
        let Some(port) = port else { return };
        match (kind, netns) {
            (libc::RTM_NEWLINK, _) => played.follow_netdev(port, news),
            (libc::RTM_DELLINK, Some(number)) => {
                self.ports.remove(&(number, news.ifindex));
            }
            (libc::RTM_DELLINK, None) => {
                if let Some(netns) = news.moved_to
                    && self.ports.len() < MOST
                {
                    let ifindex = news.new_ifindex.unwrap_or(news.ifindex);
                    self.ports.insert((netns, ifindex), port);
                }
            }
            _ => {}
        }
    }
}

impl AsFd for Abroad {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Played {
    /// A function's netdev may have another address or MTU now.
    fn follow_netdev(&mut self, port: u32, news: &LinkNews) {
        let Some(function) = self.functions.get(port) else {
            return;
        };
        // Before its driver has come, what is told is how it was made.
        if function.auxiliary().is_none() {
            return;
        }
        let owned = function.hw_addr.is_some();
        let channel = function.channel.clone();
        let Ok(info) = self.nic.channel(channel.as_str()) else {
            return;
        };
        let spec = &info.spec;
        let same = news.mac.is_none_or(|mac| spec.mac == Some(mac))
            && news.mtu.is_none_or(|mtu| mtu == u32::from(spec.mtu));
        if same {
            return;
        }
        let Ok((mac, mtu)) = self.nic.netdev_settings(&channel) else {
            return;
        };
        // intel/ice/ice_virtchnl.c: ice_can_vf_change_mac; i40e as well. mlx5's may change it.
        let own = self.vendor.driver == "mlx5_core" || spec.trust || !owned;
        let change = ChannelChange {
            mac: (own && Some(mac) != spec.mac && mac.is_unicast()).then_some(mac),
            mtu: u16::try_from(mtu).ok().filter(|mtu| *mtu != spec.mtu),
            ..ChannelChange::default()
        };
        if change == ChannelChange::default() {
            return;
        }
        if let Err(refused) = self.nic.follow_netdev(&channel, change) {
            tracing::warn!(%refused, %channel, "following a function's netdev");
        }
    }
}
