//! Links: what the kernel tells of the netdevs, and what the driver adds.

use super::GET_LINK;
use crate::netlink::host::Host;
use crate::netlink::played::{Played, Role};
use crate::netlink::table::Kind;
use chanio_model::Mac;
use chanio_netlink::attr::{AttrSet, Table, Writer};
use chanio_netlink::kernel::{Client, Refusal, Reply};
use chanio_netlink::message::{Message, NLM_F_DUMP};
use nix::net::if_::if_nametoindex;

/// struct ifinfomsg.
const HEADER_LEN: usize = 16;

/// IFLA_* (linux/if_link.h); of most only the number matters here.
pub(super) static IFLA: AttrSet = AttrSet {
    prefix: "IFLA_",
    names: &[],
};
const ADDRESS: u16 = libc::IFLA_ADDRESS;
pub(super) const IFNAME: u16 = libc::IFLA_IFNAME;
const LINKINFO: u16 = libc::IFLA_LINKINFO;
const NUM_VF: u16 = libc::IFLA_NUM_VF;
pub const VFINFO_LIST: u16 = libc::IFLA_VFINFO_LIST;
const EXT_MASK: u16 = libc::IFLA_EXT_MASK;
const PHYS_SWITCH_ID: u16 = libc::IFLA_PHYS_SWITCH_ID;
const PHYS_PORT_NAME: u16 = libc::IFLA_PHYS_PORT_NAME;
const ALT_IFNAME: u16 = libc::IFLA_ALT_IFNAME;
const PARENT_DEV_NAME: u16 = libc::IFLA_PARENT_DEV_NAME;
const PARENT_DEV_BUS_NAME: u16 = libc::IFLA_PARENT_DEV_BUS_NAME;

/// Of linux/if_link.h.
const NEW_NETNSID: u16 = 45;
const NEW_IFINDEX: u16 = 49;

/// RTEXT_FILTER_VF: whoever asks wants to be told of virtual functions (linux/rtnetlink.h).
const FILTER_VF: u32 = 1;
/// NLA_F_NESTED and NLA_F_NET_BYTEORDER.
const TYPE_MASK: u16 = 0x3fff;

/// A message about a link, taken apart.
pub struct Link<'a> {
    header: &'a [u8],
    pub(super) attributes: Table<'a>,
}

impl<'a> Link<'a> {
    /// Reads the payload of RTM_*LINK; none for what is about something else, as bridge ports.
    pub fn parse(payload: &'a [u8]) -> Result<Option<Self>, Refusal> {
        let Some((header, attributes)) = payload.split_at_checked(HEADER_LEN) else {
            // Old programs ask with a family alone (struct rtgenmsg).
            return Ok(None);
        };
        // ip(8) asks for AF_PACKET; only bridge ports are something else.
        if header[0] == libc::AF_BRIDGE as u8 {
            return Ok(None);
        }
        let attributes = Table::new(&IFLA, attributes)?;
        Ok(Some(Link { header, attributes }))
    }

    /// The index it names, or that of the name it names.
    pub(super) fn ifindex(&self) -> Result<u32, Refusal> {
        let bytes = [
            self.header[4],
            self.header[5],
            self.header[6],
            self.header[7],
        ];
        match u32::from_ne_bytes(bytes) {
            0 => {}
            ifindex => return Ok(ifindex),
        }
        let name: Option<String> = match self.attributes.get(IFNAME)? {
            Some(name) => Some(name),
            None => self.attributes.get(ALT_IFNAME)?,
        };
        Ok(name.map_or(0, |name| if_nametoindex(name.as_str()).unwrap_or(0)))
    }

    /// The same without these attributes, and with others behind.
    pub(super) fn rebuilt(
        &self,
        without: &[u16],
        more: &[(u16, Vec<u8>)],
    ) -> Result<Vec<u8>, Refusal> {
        let mut out = Writer::new();
        out.bytes(self.header);
        for attr in self.attributes.iter() {
            if !without.contains(&(attr.kind & TYPE_MASK)) {
                out.attr(attr.kind, |out| out.bytes(attr.value));
            }
        }
        for (kind, value) in more {
            out.attr(*kind, |out| out.bytes(value));
        }
        Ok(out.finish()?)
    }
}

/// What a message about a link says of its address, MTU and place.
#[derive(Clone, Copy, Debug)]
pub struct LinkNews {
    pub ifindex: u32,
    pub mac: Option<Mac>,
    pub mtu: Option<u32>,
    /// The number of the namespace that it was moved to.
    pub moved_to: Option<i32>,
    /// Its index there, where it is another.
    pub new_ifindex: Option<u32>,
}

impl LinkNews {
    /// Reads the payload of RTM_NEWLINK or RTM_DELLINK; none for what is about something else.
    pub fn parse(payload: &[u8]) -> Result<Option<Self>, Refusal> {
        let Some(link) = Link::parse(payload)? else {
            return Ok(None);
        };
        let attributes = &link.attributes;
        Ok(Some(Self {
            ifindex: link.ifindex()?,
            mac: attributes.get::<[u8; 6]>(ADDRESS)?.map(Mac),
            mtu: attributes.get(libc::IFLA_MTU)?,
            moved_to: attributes.get::<u32>(NEW_NETNSID)?.map(u32::cast_signed),
            new_ifindex: attributes.get::<u32>(NEW_IFINDEX)?.filter(|i| *i != 0),
        }))
    }
}

impl Played {
    /// RTM_GETLINK.
    pub(super) fn get_link(
        &mut self,
        client: &Client,
        request: &Message,
    ) -> Result<Reply, Refusal> {
        let asked = Link::parse(&request.payload)?;
        let mask = match &asked {
            Some(link) => link.attributes.get(EXT_MASK)?.unwrap_or(0),
            None => 0,
        };
        let reply = self.route.ask(request, client.strict)?;
        Ok(match reply {
            Reply::Dump(links) => Reply::Dump(
                links
                    .into_iter()
                    .filter_map(|link| self.as_the_driver(link, mask).transpose())
                    .collect::<Result<_, _>>()?,
            ),
            Reply::Answers(links) => {
                let mut answers = Vec::new();
                for link in links {
                    let link = self.as_the_driver(link, mask)?;
                    answers.push(link.ok_or_else(|| Refusal::errno(libc::ENODEV))?);
                }
                Reply::Answers(answers)
            }
        })
    }

    /// What the kernel tells of a link, with what the driver would add; none of one that would not
    /// be there.
    pub fn as_the_driver(&self, message: Message, mask: u32) -> Result<Option<Message>, Refusal> {
        let Some(link) = Link::parse(&message.payload)? else {
            return Ok(Some(message));
        };
        let Some(role) = self.role(link.ifindex()?) else {
            return Ok(Some(message));
        };
        if self.is_hidden(role) {
            return Ok(None);
        }
        let text = |text: &str| [text.as_bytes(), b"\0"].concat();
        let mut more = Vec::new();
        if self.switchdev()
            && let Some(name) = self.phys_port_name(role)
        {
            more.push((PHYS_PORT_NAME, text(&name)));
            more.push((PHYS_SWITCH_ID, self.switch_id().to_vec()));
        }
        let mut without = vec![LINKINFO, NUM_VF];
        if let Some(mode) = self.macvlan_mode(role) {
            more.extend(self.macvlan_info(mode)?);
            without.push(libc::IFLA_LINK);
        } else {
            let (bus, device) = self.parent(role);
            more.push((PARENT_DEV_NAME, text(&device)));
            more.push((PARENT_DEV_BUS_NAME, text(bus)));
        }
        if role == Role::Uplink && mask & FILTER_VF != 0 {
            more.push((NUM_VF, (self.vfs().count() as u32).to_ne_bytes().to_vec()));
            more.push((VFINFO_LIST, self.vf_list()?));
        }
        // What only a TAP says of itself.
        let payload = link.rebuilt(&without, &more)?;
        Ok(Some(Message { payload, ..message }))
    }

    /// The bus and the name there of a netdev's device.
    pub fn parent(&self, role: Role) -> (&'static str, String) {
        let slot = self.config.slot;
        if let Role::Function(port) = role
            && let Some(function) = self.functions.get(port)
        {
            match function.kind {
                Kind::Vf(number) => return ("pci", slot.vf(number).to_string()),
                Kind::Sf(_) => {
                    let class = self.vendor.sf_device.unwrap_or_default();
                    if let Some(auxiliary) = function.auxiliary() {
                        return ("auxiliary", format!("{class}.{auxiliary}"));
                    }
                }
                // The device of the netdev below it; it has none itself.
                Kind::Macvlan { .. } => {}
            }
        }
        ("pci", slot.to_string())
    }

    /// RTM_SETLINK, and RTM_NEWLINK of a netdev that is there.
    pub(super) fn set_link(
        &mut self,
        client: &Client,
        request: &Message,
    ) -> Result<Reply, Refusal> {
        let Some(link) = Link::parse(&request.payload)? else {
            return self.route.ask(request, client.strict);
        };
        if request.kind == super::NEW_LINK
            && let Some(made) = self.add_macvlan(client, request, &link)?
        {
            return Ok(made);
        }
        let role = self.role(link.ifindex()?);
        if role.is_some_and(|role| self.is_hidden(role)) {
            return Err(Refusal::errno(libc::ENODEV));
        }
        let mut done = Vec::new();
        match role {
            Some(Role::Uplink) => {
                if let Some(list) = link.attributes.attr(VFINFO_LIST) {
                    self.set_vfs_of(&list)?;
                    done.push(VFINFO_LIST);
                }
            }
            Some(Role::Function(port)) => {
                // The switch's part. The netdev's own is the kernel's, also where it has been told
                // to somebody else that the address is another.
                if let Some(address) = link.attributes.get::<[u8; 6]>(ADDRESS)? {
                    self.set_mac(port, Mac(address))?;
                }
            }
            _ => {}
        }
        let names = [IFNAME, ALT_IFNAME, EXT_MASK];
        let mut left = link.attributes.iter();
        let is_left = |kind: u16| !done.contains(&kind) && !names.contains(&kind);
        let by_index = link.header[4..8] != [0; 4];
        let renamed = by_index && link.attributes.attr(IFNAME).is_some();
        // ifi_flags and ifi_change: up, down.
        let flags = link.header[8..] != [0; 8];
        if !done.is_empty()
            && !flags
            && !renamed
            && !left.any(|attr| is_left(attr.kind & TYPE_MASK))
        {
            return Ok(Reply::Answers(Vec::new()));
        }
        let request = Message {
            payload: link.rebuilt(&done, &[])?,
            ..request.clone()
        };
        self.route.ask(&request, client.strict)
    }

    /// The link's message for whoever listens, as after a change that the kernel has no part in.
    pub fn tell_link(&mut self, ifindex: u32) -> Result<(), Refusal> {
        /// RTNLGRP_LINK.
        const GROUP: u32 = 1;
        let question = question(ifindex);
        if let Reply::Answers(links) = self.get_link(&Client::default(), &question)? {
            for link in links {
                self.tell_route(GROUP, link);
            }
        }
        Ok(())
    }
}

/// The address of the netdev of this name.
pub fn address_of(host: &mut Host, name: &str) -> Option<Mac> {
    let ifindex = if_nametoindex(name).ok()?;
    let Reply::Answers(told) = host.ask(&question(ifindex), false).ok()? else {
        return None;
    };
    let link = Link::parse(&told.first()?.payload).ok()??;
    let address = link.attributes.get::<[u8; 6]>(ADDRESS).ok()?;
    address.map(Mac)
}

/// RTM_GETLINK of one netdev.
pub(super) fn question(ifindex: u32) -> Message {
    let mut payload = vec![0; HEADER_LEN];
    payload[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    Message {
        kind: GET_LINK,
        flags: 1,
        payload,
        ..Message::default()
    }
}

/// Whether a request is for a listing.
pub fn is_dump(request: &Message) -> bool {
    request.flags & NLM_F_DUMP == NLM_F_DUMP
}
