//! The ways to tunnels' other ends, as the kernel has them: addresses, neighbours and routes.

use super::link::{attributes, u32_of};
use super::mirror::{Effect, Mirror};
use crate::port::rtnl::{Request, Rtnl};
use chanio_model::Mac;
use chanio_netlink::attr::Writer;
use chanio_netlink::tc::FilterKind;
use chanio_netlink::tc::action::{Kind, TunnelMetadata};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::io;
use std::net::IpAddr;

// linux/if_addr.h, linux/neighbour.h, linux/rtnetlink.h
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// The states in which packets are sent to a neighbour (NUD_VALID of net/neighbour.h).
const NUD_VALID: u16 = 0x80 | 0x40 | 0x02 | 0x10 | 0x04 | 0x08;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_METRICS: u16 = 8;
const RTA_VIA: u16 = 18;
const RTA_ENCAP: u16 = 22;
const RTN_UNICAST: u8 = 1;
const IFADDRMSG_LEN: usize = 8;
const NDMSG_LEN: usize = 12;
const RTMSG_LEN: usize = 12;

/// A tunnel's ends: ours and the other.
pub(super) type Ends = (IpAddr, IpAddr);

/// The first step to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Out of this netdev.
    pub netdev: u32,
    /// To this neighbour there.
    pub via: IpAddr,
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// RTM_*ADDR: the netdev and its address.
pub(super) fn address(body: &[u8]) -> Option<(u32, IpAddr)> {
    let (header, rest) = body.split_first_chunk::<IFADDRMSG_LEN>()?;
    let index = u32::from_ne_bytes(*header.last_chunk()?);
    let (mut local, mut any) = (None, None);
    for nla in attributes(rest) {
        match nla.kind() {
            IFA_LOCAL => local = ip_of(nla.value()),
            // Of a netdev between two ends it is the other one's.
            IFA_ADDRESS => any = ip_of(nla.value()),
            _ => {}
        }
    }
    Some((index, local.or(any)?))
}

/// RTM_*NEIGH of IP: the netdev and the address, and the MAC if it can be used.
pub(super) fn neighbour(body: &[u8]) -> Option<((u32, IpAddr), Option<Mac>)> {
    let (header, rest) = body.split_first_chunk::<NDMSG_LEN>()?;
    if !matches!(i32::from(header[0]), libc::AF_INET | libc::AF_INET6) {
        return None;
    }
    let index = u32::from_ne_bytes(*header[4..].first_chunk()?);
    let state = u16::from_ne_bytes(*header[8..].first_chunk()?);
    let (mut to, mut mac) = (None, None);
    for nla in attributes(rest) {
        match nla.kind() {
            NDA_DST => to = ip_of(nla.value()),
            NDA_LLADDR => mac = <[u8; 6]>::try_from(nla.value()).ok().map(Mac),
            _ => {}
        }
    }
    Some(((index, to?), mac.filter(|_| state & NUD_VALID != 0)))
}

/// The ends of all tunnels that filters send packets into.
pub(super) fn wanted(mirror: &Mirror) -> BTreeSet<Ends> {
    if mirror.links.values().all(|link| link.tunnel.is_none()) {
        return BTreeSet::new();
    }
    let filters = mirror.filters.values().flat_map(|f| f.values());
    let actions = filters.filter_map(|seen| match &seen.filter.as_ref().ok()?.kind {
        Some(FilterKind::Flower(rule)) => Some(&rule.actions),
        Some(FilterKind::Matchall(rule)) => Some(&rule.actions),
        _ => None,
    });
    let sets = actions.flatten().filter_map(|action| match &action.kind {
        Kind::TunnelKey(tunnel) => ends(&tunnel.metadata),
        _ => None,
    });
    sets.collect()
}

fn ends(metadata: &TunnelMetadata) -> Option<Ends> {
    let v4 = metadata.ipv4_src.zip(metadata.ipv4_dst);
    let v6 = metadata.ipv6_src.zip(metadata.ipv6_dst);
    let v4 = v4.map(|(src, dst)| (src.into(), dst.into()));
    v4.or(v6.map(|(src, dst)| (src.into(), dst.into())))
}

/// Asks the kernel for the ways that are missing, and forgets those that nobody wants any more, or
/// all when routes have changed.
pub(super) fn find(mirror: &mut Mirror, rtnl: &mut Rtnl) -> io::Result<()> {
    let wanted = wanted(mirror);
    let stale = std::mem::take(&mut mirror.ways_stale);
    mirror
        .ways
        .retain(|ends, _| !stale && wanted.contains(ends));
    for ends in wanted {
        if let Entry::Vacant(missing) = mirror.ways.entry(ends) {
            missing.insert(route(rtnl, ends)?);
        }
    }
    Ok(())
}

/// RTM_GETROUTE: which way the kernel would send a packet from one end to the other.
fn route(rtnl: &mut Rtnl, (from, to): Ends) -> io::Result<Result<Way, String>> {
    let (family, bits) = match to {
        IpAddr::V4(_) => (libc::AF_INET, 32),
        IpAddr::V6(_) => (libc::AF_INET6, 128),
    };
    let mut body = Writer::new();
    let mut header = [0; RTMSG_LEN];
    (header[0], header[1], header[2]) = (family as u8, bits, bits);
    body.bytes(&header);
    for (kind, address) in [(RTA_DST, to), (RTA_SRC, from)] {
        body.attr(kind, |body| match address {
            IpAddr::V4(address) => body.bytes(&address.octets()),
            IpAddr::V6(address) => body.bytes(&address.octets()),
        });
    }
    let body = body.finish().map_err(io::Error::other)?;
    let mut way = Err(format!("the kernel did not tell the route to {to}"));
    let asked = rtnl.ask(libc::RTM_GETROUTE, &body, |_, body| {
        way = read_route(to, body)
    });
    Ok(match asked? {
        Ok(()) => way,
        Err(error) => Err(format!("no route from {from} to {to}: {error}")),
    })
}

fn read_route(to: IpAddr, body: &[u8]) -> Result<Way, String> {
    let short = || format!("the kernel's route to {to} is cut off");
    let (header, rest) = body.split_first_chunk::<RTMSG_LEN>().ok_or_else(short)?;
    if header[7] != RTN_UNICAST {
        return Err(format!("{to} is no address of another host"));
    }
    let (mut netdev, mut via) = (None, to);
    for nla in attributes(rest) {
        match nla.kind() {
            RTA_OIF => netdev = Some(u32_of(&nla)),
            RTA_GATEWAY => via = ip_of(nla.value()).unwrap_or(via),
            // An address of the other version: its family goes first.
            RTA_VIA => {
                let address = nla.value().get(2..).and_then(ip_of);
                via = address.unwrap_or(via);
            }
            RTA_METRICS => return Err(format!("the route to {to} has metrics")),
            RTA_ENCAP => return Err(format!("the route to {to} encapsulates")),
            _ => {}
        }
    }
    let netdev = netdev.ok_or_else(short)?;
    Ok(Way { netdev, via })
}

/// As if a packet were sent to the neighbour: if it was not heard of for long, it is asked whether
/// it is still there (NTF_USE; net/core/neighbour.c, `neigh_add`).
pub(super) fn use_neighbour((netdev, via): (u32, IpAddr)) -> Request {
    let mut message = NeighbourMessage::default();
    let (family, address) = match via {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    message.header.family = family;
    message.header.ifindex = netdev;
    message.header.flags = NeighbourFlags::Use;
    message
        .attributes
        .push(NeighbourAttribute::Destination(address));
    Request {
        message: RouteNetlinkMessage::NewNeighbour(message),
        flags: 0,
    }
}

impl Mirror {
    pub(super) fn note_address(&mut self, gone: bool, body: &[u8]) -> Effect {
        let Some(address) = address(body) else {
            return Effect::None;
        };
        let different = match gone {
            true => self.addresses.remove(&address),
            false => self.addresses.insert(address),
        };
        // Who has no tunnels does not look at addresses.
        let matters = self.links.values().any(|link| link.tunnel.is_some());
        self.note_route();
        match different && matters {
            true => Effect::Changed,
            false => Effect::None,
        }
    }

    pub(super) fn note_neighbour(&mut self, gone: bool, body: &[u8]) -> Effect {
        let Some((key, mac)) = neighbour(body) else {
            return Effect::None;
        };
        let mac = mac.filter(|_| !gone);
        let before = match mac {
            Some(mac) => self.neighbours.insert(key, mac),
            None => self.neighbours.remove(&key),
        };
        let matters = self
            .ways
            .values()
            .flatten()
            .any(|way| (way.netdev, way.via) == key);
        match matters && before != mac {
            true => Effect::Changed,
            false => Effect::None,
        }
    }

    /// Routes or what chooses among them have changed: the ways are found anew.
    pub(super) fn note_route(&mut self) -> Effect {
        if self.ways.is_empty() {
            return Effect::None;
        }
        self.ways_stale = true;
        Effect::Changed
    }
}
