//! `bridge fdb … self`: addresses that a port of the NIC receives (net/core/rtnetlink.c:
//! rtnl_fdb_add, ndo_dflt_fdb_add). With `master` they are a bridge's, which is the kernel's.

use super::links::is_dump;
use crate::netlink::played::{Played, Role};
use crate::netlink::refuse;
use crate::nic::Refused;
use chanio_model::{Mac, VportId};
use chanio_netlink::kernel::{Client, Refusal, Reply};
use chanio_netlink::message::{Message, NLM_F_EXCL};
use rtnetlink::packet_core::{Emitable, Parseable};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use std::collections::BTreeMap;

/// RTNLGRP_NEIGH.
const GROUP: u32 = 3;

/// Addresses that were added here: VLAN and address, and the netdev.
pub type Addresses = BTreeMap<(u16, Mac), u32>;

/// What is asked for.
struct Asked {
    message: NeighbourMessage,
    ifindex: u32,
    vport: VportId,
    vid: u16,
    mac: Mac,
}

impl Played {
    /// The address of a port that a request is about; none of what is the kernel's.
    fn own_address(&self, request: &Message) -> Result<Option<Asked>, Refusal> {
        let parsed = NeighbourMessage::parse(request.payload.as_slice());
        let message = parsed.map_err(|e| refuse::text(libc::EINVAL, &e.to_string()))?;
        let header = &message.header;
        let own = header.flags.contains(NeighbourFlags::Own)
            && !header.flags.contains(NeighbourFlags::Controller);
        if header.family != AddressFamily::Bridge || !own {
            return Ok(None);
        }
        let vport = match self.visible_role(header.ifindex) {
            Some(Role::Uplink) => VportId::UPLINK,
            Some(Role::Other(vport)) => vport,
            Some(Role::Representor(port) | Role::Function(port)) => self.function(port)?.vport,
            None => return Ok(None),
        };
        let mut mac = None;
        let mut vid = 0;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(address) => {
                    let bytes = <[u8; 6]>::try_from(address.as_slice());
                    mac =
                        Some(Mac(bytes.map_err(|_| {
                            refuse::text(libc::EINVAL, "invalid address")
                        })?));
                }
                NeighbourAttribute::Vlan(id) => vid = *id,
                _ => {}
            }
        }
        let Some(mac) = mac else {
            return Err(refuse::text(libc::EINVAL, "invalid address"));
        };
        // Groups are what the netdev itself listens to.
        Ok((!mac.is_multicast()).then_some(Asked {
            ifindex: header.ifindex,
            vport,
            vid,
            mac,
            message,
        }))
    }

    /// RTM_NEWNEIGH.
    pub(super) fn add_neighbour(
        &mut self,
        client: &Client,
        request: &Message,
    ) -> Result<Reply, Refusal> {
        let Some(asked) = self.own_address(request)? else {
            return self.route.ask(request, client.strict);
        };
        let state = asked.message.header.state;
        // bridge(8) says that nobody asks for it, too (NUD_NOARP).
        let permanent = u16::from(state) & u16::from(NeighbourState::Permanent) != 0;
        if state != NeighbourState::None && !permanent {
            let words = "FDB only supports static addresses";
            return Err(refuse::text(libc::EINVAL, words));
        }
        let key = (asked.vid, asked.mac);
        match self.addresses.get(&key) {
            Some(ifindex) if *ifindex == asked.ifindex => {
                return match request.flags & NLM_F_EXCL != 0 {
                    true => Err(Refusal::errno(libc::EEXIST)),
                    false => Ok(Reply::Answers(Vec::new())),
                };
            }
            _ => {}
        }
        let added = self.nic.add_fdb(asked.vid, asked.mac, asked.vport);
        added.map_err(|refused| match &refused {
            Refused::Invalid { field: "mac", .. } => {
                let words = refused.to_string();
                self.vendor.refuse(libc::EEXIST, &words)
            }
            _ => self.vendor.refusal(&refused),
        })?;
        self.addresses.insert(key, asked.ifindex);
        self.tell_address(&asked, libc::RTM_NEWNEIGH);
        Ok(Reply::Answers(Vec::new()))
    }

    /// RTM_DELNEIGH.
    pub(super) fn del_neighbour(
        &mut self,
        client: &Client,
        request: &Message,
    ) -> Result<Reply, Refusal> {
        let Some(asked) = self.own_address(request)? else {
            return self.route.ask(request, client.strict);
        };
        let key = (asked.vid, asked.mac);
        if self.addresses.get(&key) != Some(&asked.ifindex) {
            return Err(Refusal::errno(libc::ENOENT));
        }
        self.nic
            .del_fdb(asked.vid, asked.mac)
            .map_err(|refused| self.vendor.refusal(&refused))?;
        self.addresses.remove(&key);
        self.tell_address(&asked, libc::RTM_DELNEIGH);
        Ok(Reply::Answers(Vec::new()))
    }

    /// RTM_GETNEIGH.
    pub(super) fn get_neighbours(
        &mut self,
        client: &Client,
        request: &Message,
    ) -> Result<Reply, Refusal> {
        let reply = self.route.ask(request, client.strict)?;
        let bridge = request.payload.first() == Some(&(libc::AF_BRIDGE as u8));
        let (Reply::Dump(mut all), true, true) = (reply.clone(), bridge, is_dump(request)) else {
            return Ok(reply);
        };
        // bridge(8) names the netdev in the header, whose index both structs that it may be have at
        // the same place.
        let of = request
            .payload
            .get(4..8)
            .and_then(|bytes| bytes.try_into().ok());
        let of = of.map_or(0, u32::from_ne_bytes);
        for ((vid, mac), ifindex) in &self.addresses {
            if of == 0 || of == *ifindex {
                all.push(address_message(*ifindex, *vid, *mac, libc::RTM_NEWNEIGH));
            }
        }
        Ok(Reply::Dump(all))
    }

    fn tell_address(&mut self, asked: &Asked, kind: u16) {
        let told = address_message(asked.ifindex, asked.vid, asked.mac, kind);
        self.tell_route(GROUP, told);
    }

    /// A netdev has gone, and its addresses with it.
    pub fn forget_addresses(&mut self, ifindex: u32) {
        self.addresses.retain(|_, of| *of != ifindex);
    }
}

fn address_message(ifindex: u32, vid: u16, mac: Mac, kind: u16) -> Message {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = ifindex;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
    if vid != 0 {
        message.attributes.push(NeighbourAttribute::Vlan(vid));
    }
    let mut payload = vec![0; message.buffer_len()];
    message.emit(&mut payload);
    Message {
        kind,
        payload,
        ..Message::default()
    }
}
