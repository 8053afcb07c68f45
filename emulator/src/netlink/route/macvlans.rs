//! Macvlan devices on the physical function's netdev. While its feature l2-fwd-offload is on, the
//! driver gives each of them queues of its own, as long as it has some (ndo_dfwd_add_station;
//! intel/i40e/i40e_main.c: i40e_fwd_add), and it is a port of the NIC's switch: here a channel.
//! One that gets none is the kernel's own, in software, as drivers/net/macvlan.c: macvlan_open has
//! it: its address is then one that the physical function's netdev listens to.

use super::links::{IFLA, IFNAME, Link};
use crate::netlink::played::{Played, Role};
use crate::netlink::refuse;
use crate::netlink::table::{Function, Kind};
use crate::port::IfName;
use chanio_model::Mac;
use chanio_netlink::attr::Writer;
use chanio_netlink::kernel::{Client, Refusal, Reply};
use chanio_netlink::message::{Message, NLM_F_CREATE};
use nix::net::if_::if_nametoindex;

/// IFLA_INFO_* (linux/if_link.h).
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
/// IFLA_MACVLAN_*.
const MACVLAN_MODE: u16 = 1;
/// MACVLAN_MODE_PASSTHRU, of which macvlan_open asks the driver nothing; MACVLAN_MODE_VEPA, which
/// is the mode when none is given.
const PASSTHRU: u32 = 8;
const VEPA: u32 = 2;

/// The functions' key of the first: no port of devlink's has such an index.
const FIRST_KEY: u32 = 1 << 31;

/// What a request for a macvlan device asks for.
struct Asked {
    mode: u32,
    name: Option<String>,
    address: Option<[u8; 6]>,
    mtu: Option<u32>,
    queues: u32,
}

impl Asked {
    /// Of a request for a macvlan device on this netdev; none of one for something else.
    fn read(request: &Message, link: &Link<'_>, lower: u32) -> Result<Option<Self>, Refusal> {
        let attributes = &link.attributes;
        let Some(info) = attributes.attr(libc::IFLA_LINKINFO) else {
            return Ok(None);
        };
        let info = info.nest(&IFLA)?;
        let kind: Option<String> = info.get(INFO_KIND)?;
        let is_new = request.flags & NLM_F_CREATE != 0 && link.ifindex()? == 0;
        let on = attributes.get::<u32>(libc::IFLA_LINK)?;
        if kind.as_deref() != Some("macvlan") || !is_new || on != Some(lower) {
            return Ok(None);
        }
        let mode = match info.attr(INFO_DATA) {
            Some(data) => data.nest(&IFLA)?.get(MACVLAN_MODE)?,
            None => None,
        };
        Ok(Some(Asked {
            mode: mode.unwrap_or(VEPA),
            name: attributes.get(IFNAME)?,
            address: attributes.get(libc::IFLA_ADDRESS)?,
            mtu: attributes.get(libc::IFLA_MTU)?,
            queues: attributes.get(libc::IFLA_NUM_TX_QUEUES)?.unwrap_or(1),
        }))
    }

    /// Whether the driver is asked for queues at all, and takes it: i40e_fwd_add wants "a single Q
    /// device".
    fn can_be_offloaded(&self) -> bool {
        self.mode != PASSTHRU && self.queues == 1
    }
}

impl Played {
    /// Makes a macvlan device that has queues of the NIC's; none: the request is for something
    /// else, or for one that gets no queues.
    pub(super) fn add_macvlan(
        &mut self,
        client: &Client,
        request: &Message,
        link: &Link<'_>,
    ) -> Result<Option<Reply>, Refusal> {
        let Some(uplink) = self.uplink().filter(|_| self.l2_forwarding) else {
            return Ok(None);
        };
        let Some(asked) = Asked::read(request, link, uplink)? else {
            return Ok(None);
        };
        let count = self.macvlans().count();
        if !asked.can_be_offloaded() || count >= usize::from(self.vendor.macvlans) {
            tracing::info!(
                count,
                "macvlan: no queues of the NIC's, it is the kernel's own"
            );
            return Ok(None);
        }
        let taken = |number: &u16| self.functions.get(FIRST_KEY + u32::from(*number)).is_some();
        let number = (0..).find(|number| !taken(number)).unwrap_or(0);
        let key = FIRST_KEY + u32::from(number);
        // net/core/rtnetlink.c: rtnl_newlink_create
        let names = |n: u16| format!("macvlan{n}");
        let free = |name: &String| if_nametoindex(name.as_str()).is_err();
        let name = match asked.name {
            Some(name) => name,
            None => (0..)
                .map(names)
                .find(free)
                .ok_or_else(|| Refusal::errno(libc::ENFILE))?,
        };
        let name: IfName = name.parse().map_err(|_| Refusal::errno(libc::EINVAL))?;
        let lower = self.mtu_of(uplink)?;
        if asked.mtu.is_some_and(|mtu| mtu > lower) {
            return Err(Refusal::errno(libc::EINVAL));
        }
        if asked.address.is_some_and(|mac| !Mac(mac).is_unicast()) {
            return Err(Refusal::errno(libc::EADDRNOTAVAIL));
        }
        let mode = asked.mode;
        self.make(vec![(key, Kind::Macvlan { number, mode })])?;
        let done = self
            .show_macvlan(key, &name, asked.address.map(Mac))
            .and_then(|ifindex| {
                let mtu = asked.mtu.unwrap_or(lower).to_ne_bytes().to_vec();
                self.finish(client, request, link, ifindex, &[(libc::IFLA_MTU, mtu)])
            });
        if let Err(refusal) = done {
            self.remove_macvlan(key)?;
            return Err(refusal);
        }
        Ok(Some(Reply::Answers(Vec::new())))
    }

    /// Has a new one appear under its name, with its address.
    fn show_macvlan(&mut self, key: u32, name: &IfName, mac: Option<Mac>) -> Result<u32, Refusal> {
        if let Some(mac) = mac {
            self.set_hw_addr(key, mac)?;
        }
        if let Some(function) = self.functions.get_mut(key) {
            function.netdev = name.clone();
        }
        self.driver_comes(key);
        let shown = self.functions.get(key).and_then(Function::ifindex);
        shown.ok_or_else(|| Refusal::errno(libc::EIO))
    }

    /// What else was asked for, which the kernel does: its namespace, MTU, flags.
    fn finish(
        &mut self,
        client: &Client,
        request: &Message,
        link: &Link<'_>,
        ifindex: u32,
        more: &[(u16, Vec<u8>)],
    ) -> Result<(), Refusal> {
        const DONE: [u16; 8] = [
            libc::IFLA_LINKINFO,
            libc::IFLA_MTU,
            libc::IFLA_LINK,
            libc::IFLA_ADDRESS,
            libc::IFLA_IFNAME,
            libc::IFLA_NUM_TX_QUEUES,
            libc::IFLA_NUM_RX_QUEUES,
            libc::IFLA_EXT_MASK,
        ];
        let mut payload = link.rebuilt(&DONE, more)?;
        payload[4..8].copy_from_slice(&ifindex.to_ne_bytes());
        let request = Message {
            kind: super::SET_LINK,
            flags: request.flags & 0xff,
            payload,
            ..request.clone()
        };
        self.route.ask(&request, client.strict).map(drop)
    }

    fn mtu_of(&mut self, ifindex: u32) -> Result<u32, Refusal> {
        let asked = super::links::question(ifindex);
        let Reply::Answers(told) = self.route.ask(&asked, false)? else {
            return Err(Refusal::errno(libc::ENODEV));
        };
        let told = told.first().ok_or_else(|| Refusal::errno(libc::ENODEV))?;
        let link = Link::parse(&told.payload)?;
        let mtu = match &link {
            Some(link) => link.attributes.get(libc::IFLA_MTU)?,
            None => None,
        };
        mtu.ok_or_else(|| refuse::text(libc::EIO, "a netdev without an MTU"))
    }

    /// Those that have queues of the NIC's, by their keys.
    pub fn macvlans(&self) -> impl Iterator<Item = u32> {
        let all = self.functions.range(FIRST_KEY..u32::MAX);
        all.map(|(key, _)| key)
    }

    /// Removes one, and gives its queues back.
    fn remove_macvlan(&mut self, key: u32) -> Result<(), Refusal> {
        let channel = self.function(key)?.channel.clone();
        self.nic
            .del_channels(&[channel])
            .map_err(|refused| self.vendor.refusal(&refused))?;
        self.forget(key);
        Ok(())
    }

    /// Gives back the queues of those that were deleted in a container, where nobody asked us.
    pub fn forget_lost_macvlans(&mut self) {
        let is_lost = |key: &u32| {
            let function = self.functions.get(*key);
            function.is_some_and(|f| matches!(self.nic.netdev_place(&f.channel), Ok(None)))
        };
        let lost: Vec<u32> = self.macvlans().filter(is_lost).collect();
        for key in lost {
            if let Err(refusal) = self.remove_macvlan(key) {
                tracing::warn!(%refusal, "a macvlan device whose netdev has gone");
            }
        }
    }

    /// RTM_DELLINK.
    pub(super) fn del_link(
        &mut self,
        client: &Client,
        request: &Message,
    ) -> Result<Reply, Refusal> {
        let link = Link::parse(&request.payload)?;
        let ifindex = link.map_or(Ok(0), |link| link.ifindex())?;
        match self.visible_role(ifindex) {
            Some(Role::Function(key)) if key >= FIRST_KEY => {
                self.remove_macvlan(key)?;
                Ok(Reply::Answers(Vec::new()))
            }
            _ => self.route.ask(request, client.strict),
        }
    }

    /// IFLA_LINKINFO and IFLA_LINK of one, in place of a TAP's.
    pub(super) fn macvlan_info(&self, mode: u32) -> Result<Vec<(u16, Vec<u8>)>, Refusal> {
        let mut info = Writer::new();
        info.put(INFO_KIND, &"macvlan".to_owned());
        info.attr(INFO_DATA, |out| out.put(MACVLAN_MODE, &mode));
        let lower = self.uplink().unwrap_or(0);
        Ok(vec![
            (libc::IFLA_LINK, lower.to_ne_bytes().to_vec()),
            (libc::IFLA_LINKINFO, info.finish()?),
        ])
    }
}
