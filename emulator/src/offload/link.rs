//! What the kernel tells of netdevs and of bridges' ports (RTM_*LINK).
//!
//! Attributes are picked one by one, because one that is damaged or new must not hide the others.

use super::tunnel::{Tunnel, tunnel};
use chanio_model::Mac;
use rtnetlink::packet_core::{NlaBuffer, NlasIterator};
use rtnetlink::packet_route::link::{LinkFlags, LinkHeader};

// linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BR_AGEING_TIME: u16 = 4;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BR_VLAN_PROTOCOL: u16 = 8;
const IFLA_BR_MULTI_BOOLOPT: u16 = 46;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_PROXYARP: u16 = 10;
const IFLA_BRPORT_PROXYARP_WIFI: u16 = 12;
const IFLA_BRPORT_VLAN_TUNNEL: u16 = 29;
const IFLA_BRPORT_NEIGH_SUPPRESS: u16 = 32;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_BRPORT_NEIGH_VLAN_SUPPRESS: u16 = 43;

/// BR_BOOLOPT_MST_ENABLE of linux/if_bridge.h.
const MST_ENABLED: u32 = 1 << 2;
/// BR_STATE_FORWARDING of linux/if_bridge.h.
pub(super) const FORWARDING: u8 = 3;

/// A netdev.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub name: String,
    /// Its own address; zeros if that is no Ethernet address.
    pub mac: Mac,
    /// `bridge`, `vxlan` and so on; empty for what has none.
    pub kind: String,
    /// Administratively up.
    pub up: bool,
    /// Has carrier.
    pub carrier: bool,
    pub promisc: bool,
    /// Bytes.
    pub mtu: u32,
    /// The netdev that it is a port of.
    pub master: Option<u32>,
    /// An XDP program looks at what it receives.
    pub xdp: bool,
    /// If it is a bridge.
    pub bridge: Option<Bridge>,
    /// If it is a bridge's port.
    pub port: Option<BridgePort>,
    /// If it is a tunnel's.
    pub tunnel: Option<Tunnel>,
}

/// A bridge's settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bridge {
    /// Hundredths of a second that an address lives without traffic.
    pub ageing: u32,
    pub vlan_filtering: bool,
    /// EtherType of the tags that it filters by.
    pub vlan_protocol: u16,
    /// The ports' states are by VLAN.
    pub mst: bool,
}

/// A port's settings in its bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BridgePort {
    /// BR_STATE_*
    pub state: u8,
    pub isolated: bool,
    /// Answers ARP or neighbour discovery in others' names.
    pub proxies: bool,
    /// Turns VLANs into tunnels.
    pub tunnels: bool,
}

/// The attributes up to the first that is cut off.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

pub(super) fn u32_of(nla: &NlaBuffer<&[u8]>) -> u32 {
    nla.value()
        .first_chunk()
        .map_or(0, |b| u32::from_ne_bytes(*b))
}

pub(super) fn u16_of(nla: &NlaBuffer<&[u8]>) -> u16 {
    nla.value()
        .first_chunk()
        .map_or(0, |b| u16::from_ne_bytes(*b))
}

pub(super) fn u8_of(nla: &NlaBuffer<&[u8]>) -> u8 {
    nla.value().first().copied().unwrap_or(0)
}

fn text_of(nla: &NlaBuffer<&[u8]>) -> String {
    let value = nla.value();
    let text = value.split(|b| *b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// A netdev as RTM_NEWLINK of no particular family tells of it, and its index.
pub(super) fn link(body: &[u8]) -> Option<(u32, Link)> {
    let header = LinkHeader::parse(body).ok()?;
    let mut link = Link {
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        promisc: header.flags.contains(LinkFlags::Promisc),
        ..Link::default()
    };
    for nla in attributes(body.get(16..)?) {
        match nla.kind() {
            IFLA_ADDRESS => {
                let mac = <[u8; 6]>::try_from(nla.value());
                link.mac = mac.map(Mac).unwrap_or_default();
            }
            IFLA_IFNAME => link.name = text_of(&nla),
            IFLA_MTU => link.mtu = u32_of(&nla),
            IFLA_MASTER => link.master = Some(u32_of(&nla)),
            IFLA_XDP => {
                let mut inside = attributes(nla.value());
                link.xdp = inside.any(|nla| nla.kind() == IFLA_XDP_ATTACHED && u8_of(&nla) != 0);
            }
            IFLA_LINKINFO => info(nla.value(), &mut link),
            _ => {}
        }
    }
    Some((header.index, link))
}

/// The kind comes before what is particular to it (net/core/rtnetlink.c, `rtnl_link_fill`).
fn info(bytes: &[u8], link: &mut Link) {
    let mut slave_of_bridge = false;
    for nla in attributes(bytes) {
        match nla.kind() {
            IFLA_INFO_KIND => link.kind = text_of(&nla),
            IFLA_INFO_DATA if link.kind == "bridge" => link.bridge = Some(bridge(nla.value())),
            IFLA_INFO_DATA => link.tunnel = tunnel(&link.kind, nla.value()),
            IFLA_INFO_SLAVE_KIND => slave_of_bridge = text_of(&nla) == "bridge",
            IFLA_INFO_SLAVE_DATA if slave_of_bridge => link.port = Some(port(nla.value())),
            _ => {}
        }
    }
}

fn bridge(bytes: &[u8]) -> Bridge {
    let mut bridge = Bridge::default();
    for nla in attributes(bytes) {
        match nla.kind() {
            IFLA_BR_AGEING_TIME => bridge.ageing = u32_of(&nla),
            IFLA_BR_VLAN_FILTERING => bridge.vlan_filtering = u8_of(&nla) != 0,
            IFLA_BR_VLAN_PROTOCOL => bridge.vlan_protocol = u16::from_be(u16_of(&nla)),
            IFLA_BR_MULTI_BOOLOPT => bridge.mst = u32_of(&nla) & MST_ENABLED != 0,
            _ => {}
        }
    }
    bridge
}

fn port(bytes: &[u8]) -> BridgePort {
    let mut port = BridgePort::default();
    for nla in attributes(bytes) {
        let on = u8_of(&nla) != 0;
        match nla.kind() {
            IFLA_BRPORT_STATE => port.state = u8_of(&nla),
            IFLA_BRPORT_ISOLATED => port.isolated = on,
            IFLA_BRPORT_VLAN_TUNNEL => port.tunnels = on,
            IFLA_BRPORT_PROXYARP
            | IFLA_BRPORT_PROXYARP_WIFI
            | IFLA_BRPORT_NEIGH_SUPPRESS
            | IFLA_BRPORT_NEIGH_VLAN_SUPPRESS => port.proxies |= on,
            _ => {}
        }
    }
    port
}

/// What a bridge tells of one of its ports, or of itself (RTM_*LINK of AF_BRIDGE): the index, and of
/// a port that it has its settings.
pub(super) fn bridge_port(body: &[u8]) -> Option<(u32, Option<BridgePort>)> {
    let header = LinkHeader::parse(body).ok()?;
    let mut all = attributes(body.get(16..)?);
    let info = all.find(|nla| nla.kind() == IFLA_PROTINFO);
    Some((header.index, info.map(|info| port(info.value()))))
}
