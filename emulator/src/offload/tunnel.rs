//! Tunnels' netdevs: what goes into them is encapsulated in hardware, and what comes out of them is
//! decapsulated there, as far as that is what the kernel would do.
//!
//! The kernel gives a packet to such a netdev's filters when it has come in on the uplink's
//! representor, was for an address of the host, and was found to be in a tunnel. So a rule at the
//! uplink leads what is for the host and may be in the tunnel to a chain of the netdev's own, and a
//! filter there is a rule of that chain. What is redirected into such
//! a netdev leaves by the route and the neighbour that the kernel has for the other end, as in
//! drivers/net/ethernet/mellanox/mlx5/core/en/tc_tun.c, `mlx5e_tc_tun_create_header_ipv4`.

use super::link::{Link, attributes, u8_of, u16_of, u32_of};
use super::mirror::{Hook, Mirror};
use super::plan::{Basis, KernelPort, no_entry, no_exit};
use super::way::Ends;
use chanio_model::edit::{TunnelKind, TunnelPorts, TunnelSet};
use chanio_model::flow::{Action, FlowKey, MAX_CHAIN, Match, RuleSpec, TunnelFlags};
use chanio_model::wire::{ETH_HEADER_LEN, VLAN_TAG_LEN, eth_type, ip_proto};
use chanio_model::{Mac, VportId};
use chanio_netlink::tc::model::{NextHop, TunnelDevice};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

// linux/if_link.h
const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_REMCSUM_TX: u16 = 21;
const IFLA_VXLAN_REMCSUM_RX: u16 = 22;
const IFLA_VXLAN_GBP: u16 = 23;
const IFLA_VXLAN_COLLECT_METADATA: u16 = 25;
const IFLA_VXLAN_GPE: u16 = 27;
const IFLA_VXLAN_VNIFILTER: u16 = 30;
const IFLA_GENEVE_PORT: u16 = 5;
const IFLA_GENEVE_COLLECT_METADATA: u16 = 6;
const IFLA_GENEVE_INNER_PROTO_INHERIT: u16 = 14;
// linux/if_tunnel.h
const IFLA_GRE_LINK: u16 = 1;
const IFLA_GRE_IFLAGS: u16 = 2;
const IFLA_GRE_COLLECT_METADATA: u16 = 18;

/// A tunnel's netdev.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tunnel {
    pub kind: TunnelKind,
    /// UDP port; 0 for GRE.
    pub port: u16,
    /// Its packets say themselves what their outer headers are.
    pub external: bool,
    /// A setting by which it takes or makes other packets than the switch does.
    pub odd: Option<&'static str>,
}

/// Out of what is particular to a netdev of this kind (IFLA_INFO_DATA); `None`: it is no tunnel's.
pub(super) fn tunnel(kind: &str, data: &[u8]) -> Option<Tunnel> {
    let kind = match kind {
        "vxlan" => TunnelKind::Vxlan,
        "geneve" => TunnelKind::Geneve,
        "gretap" => TunnelKind::Gre,
        _ => return None,
    };
    let (mut port, mut external, mut odd) = (0, false, None);
    for nla in attributes(data) {
        // Of flags there is nothing but the attribute.
        let on = nla.value().is_empty() || u8_of(&nla) != 0;
        match (kind, nla.kind()) {
            (TunnelKind::Vxlan, IFLA_VXLAN_PORT) | (TunnelKind::Geneve, IFLA_GENEVE_PORT) => {
                port = u16::from_be(u16_of(&nla));
            }
            (TunnelKind::Vxlan, IFLA_VXLAN_COLLECT_METADATA)
            | (TunnelKind::Geneve, IFLA_GENEVE_COLLECT_METADATA)
            | (TunnelKind::Gre, IFLA_GRE_COLLECT_METADATA) => external = on,
            (TunnelKind::Vxlan, IFLA_VXLAN_GBP) if on => odd = Some("gbp"),
            (TunnelKind::Vxlan, IFLA_VXLAN_GPE) if on => odd = Some("gpe"),
            (TunnelKind::Vxlan, IFLA_VXLAN_VNIFILTER) if on => odd = Some("vnifilter"),
            (TunnelKind::Vxlan, IFLA_VXLAN_REMCSUM_TX | IFLA_VXLAN_REMCSUM_RX) if on => {
                odd = Some("remcsum");
            }
            (TunnelKind::Geneve, IFLA_GENEVE_INNER_PROTO_INHERIT) if on => {
                odd = Some("innerprotoinherit");
            }
            (TunnelKind::Gre, IFLA_GRE_IFLAGS) if u16_of(&nla) != 0 => {
                odd = Some("key, csum or seq");
            }
            (TunnelKind::Vxlan, IFLA_VXLAN_LINK) | (TunnelKind::Gre, IFLA_GRE_LINK)
                if u32_of(&nla) != 0 =>
            {
                odd = Some("dev");
            }
            _ => {}
        }
    }
    Some(Tunnel {
        kind,
        port,
        external,
        odd,
    })
}

/// All tunnels' netdevs, and the uplink below them.
pub(super) struct Tunnels<'a> {
    mirror: &'a Mirror,
    ports: &'a TunnelPorts,
    uplink: Option<&'a KernelPort>,
    /// Why nothing that comes in at the uplink is taken out of a tunnel in hardware.
    no_entry: Option<String>,
    /// Netdevs with filters of their own, and the chain that the first of their chains is in.
    chains: BTreeMap<u32, u32>,
}

impl<'a> Tunnels<'a> {
    pub fn new(mirror: &'a Mirror, basis: &'a Basis) -> Self {
        let uplink = basis.ports.iter().find(|p| p.vport == VportId::UPLINK);
        let no_entry = uplink.and_then(|uplink| below(mirror, basis, uplink.ifindex));
        let places = mirror.filters.values().flat_map(BTreeMap::keys);
        let used: HashSet<u32> = places.map(|place| place.chain).collect();
        let netdevs = mirror.links.iter().filter(|(index, link)| {
            link.tunnel.is_some() && mirror.filters.contains_key(&Hook::Ingress(**index))
        });
        let netdevs: BTreeSet<u32> = netdevs.map(|(index, _)| *index).collect();
        let free = (1..=MAX_CHAIN).rev().filter(|chain| !used.contains(chain));
        let chains = netdevs.into_iter().zip(free).collect();
        Self {
            chains,
            mirror,
            ports: &basis.tunnel_ports,
            uplink,
            no_entry,
        }
    }

    /// The uplink, and the tunnels' netdevs that have filters of their own.
    pub fn with_filters(&self) -> impl Iterator<Item = (&'a KernelPort, u32)> {
        let uplink = self.uplink;
        let netdevs = self.chains.keys();
        netdevs.filter_map(move |index| Some((uplink?, *index)))
    }

    /// Has a rule of the first of a netdev's chains be in that of its own; returns the rule that
    /// leads there what is for the same address of the host.
    pub fn enter(&self, index: u32, spec: &mut RuleSpec) -> Option<RuleSpec> {
        let uplink = self.uplink?;
        let tunnel = self.mirror.links.get(&index)?.tunnel?;
        let mut entry = Match::default();
        let (value, mask) = (&mut entry.value, &mut entry.mask);
        (value.in_port, mask.in_port) = (uplink.vport.0 as u16, u16::MAX);
        mask.vlan = FlowKey::VLAN_PRESENT | FlowKey::VLAN_ID;
        let netdev = self.mirror.links.get(&uplink.ifindex)?;
        (value.eth_dst, mask.eth_dst) = (netdev.mac, Mac::BROADCAST);
        let outer = spec.matches.tunnel()?;
        value.eth_type = match outer.value.flags & TunnelFlags::IPV6 {
            0 => eth_type::IPV4,
            _ => eth_type::IPV6,
        };
        mask.eth_type = u16::MAX;
        (value.ip_dst, mask.ip_dst) = (outer.value.dst, outer.mask.dst);
        mask.ip_proto = u8::MAX;
        value.ip_proto = ip_proto::GRE;
        if tunnel.kind != TunnelKind::Gre {
            value.ip_proto = ip_proto::UDP;
            (value.l4_dst, mask.l4_dst) = (tunnel.port, u16::MAX);
        }
        entry.normalize();
        spec.chain = *self.chains.get(&index)?;
        Some(RuleSpec {
            priority: 1,
            matches: entry,
            actions: [Action::Goto(spec.chain)].into(),
            ..RuleSpec::default()
        })
    }

    /// Why no filter of a tunnel's netdev is in hardware.
    pub fn no_entry(&self, index: u32) -> Option<String> {
        let link = self.mirror.links.get(&index)?;
        let tunnel = link.tunnel?;
        let name = &link.name;
        if let Some(why) = self.why_not(index) {
            return Some(why);
        }
        if link.xdp {
            return Some(format!("an XDP program looks at what {name} receives"));
        }
        let mut others = self.mirror.links.iter();
        let other = others.find(|(at, other)| {
            **at != index
                && other.up
                && other
                    .tunnel
                    .is_some_and(|t| (t.kind, t.port) == (tunnel.kind, tunnel.port))
        });
        if let Some((_, other)) = other {
            return Some(format!("{} may take packets for {name}", other.name));
        }
        if tunnel.kind != TunnelKind::Gre && self.ports.get(tunnel.port) != Some(tunnel.kind) {
            return Some(format!(
                "UDP port {} is none of the switch's for {} (chanio eswitch set --tunnel-ports)",
                tunnel.port,
                tunnel.kind.name()
            ));
        }
        self.no_entry.clone()
    }

    /// Why a tunnel's netdev is nothing that the switch could stand for.
    fn why_not(&self, index: u32) -> Option<String> {
        let link = self.mirror.links.get(&index)?;
        let tunnel = link.tunnel?;
        let name = &link.name;
        if !link.up {
            return Some(format!("{name} is down"));
        }
        if !tunnel.external {
            return Some(format!(
                "{name} is not `external`: its packets do not say what their outer headers are"
            ));
        }
        let odd = tunnel.odd?;
        Some(format!("{name} has {odd}"))
    }

    /// A netdev that packets are sent into.
    pub fn device(&self, index: u32) -> Option<TunnelDevice> {
        let tunnel = self.mirror.links.get(&index)?.tunnel?;
        let usable = self.no_device(index).is_none();
        usable.then_some(TunnelDevice {
            kind: tunnel.kind,
            dst_port: tunnel.port,
        })
    }

    /// Why nothing is sent into a tunnel's netdev in hardware; `None` as well if it is no such one.
    pub fn no_device(&self, index: u32) -> Option<String> {
        self.mirror.links.get(&index)?.tunnel?;
        let why = self.why_not(index);
        why.or_else(|| no_exit(self.mirror, index))
    }

    /// The way to the other end.
    ///
    /// # Errors
    /// Why there is none in hardware.
    pub fn hop(&self, ends: Ends) -> Result<NextHop, String> {
        let to = ends.1;
        let uplink = self.uplink.ok_or("the uplink has no representor")?;
        let netdev = self.mirror.links.get(&uplink.ifindex);
        let netdev = netdev.ok_or("the uplink's representor is not in this network namespace")?;
        let way = match self.mirror.ways.get(&ends) {
            None => return Err(format!("the route to {to} is not known")),
            Some(way) => way.as_ref().map_err(Clone::clone)?,
        };
        if way.netdev != uplink.ifindex {
            let name = self.mirror.links.get(&way.netdev).map(|l| &*l.name);
            let name = name.unwrap_or("another netdev");
            return Err(format!(
                "the route to {to} leads to {name}, not to {}",
                netdev.name
            ));
        }
        let neighbour = self.mirror.neighbours.get(&(way.netdev, way.via));
        let eth_dst = neighbour.copied().ok_or_else(|| {
            let name = &netdev.name;
            format!("neighbour {} on {name} is not known yet", way.via)
        })?;
        Ok(NextHop {
            vport: uplink.vport,
            eth_src: netdev.mac,
            eth_dst,
        })
    }

    /// What is not known or in the way of any other end with this address.
    pub fn unreachable(&self, to: IpAddr) -> Option<String> {
        let ends = self.mirror.ways.keys().filter(|ends| ends.1 == to);
        ends.copied().find_map(|ends| self.hop(ends).err())
    }

    /// Adds to the match of a filter of a tunnel's netdev what the kernel has found out before the
    /// packet gets there; in chains behind the first that has been looked at.
    ///
    /// # Errors
    /// Why the switch cannot tell which packets those are.
    pub fn outside(&self, index: u32, chain: u32, matches: &mut Match) -> Result<(), String> {
        let tunnel = self.mirror.links.get(&index).and_then(|l| l.tunnel);
        let (Some(tunnel), Some(uplink)) = (tunnel, self.uplink) else {
            return Err("the uplink has no representor".to_owned());
        };
        let (value, mask) = (&mut matches.value, &mut matches.mask);
        (value.in_port, mask.in_port) = (uplink.vport.0 as u16, u16::MAX);
        if chain != 0 {
            matches.normalize();
            return matches.check().map_err(|error| error.to_string());
        }
        if tunnel.kind == TunnelKind::Gre && value.eth_dst.is_zero() && value.eth_src.is_zero() {
            // The switch makes a header of zeros for a bare packet in GRE, which this netdev does
            // not take.
            let why = "no dst_mac or src_mac, which packets in GRE without an Ethernet header lack";
            return Err(why.to_owned());
        }
        let outer = matches.more_mut().tunnel.get_or_insert_default();
        let (value, mask) = (&mut outer.value, &mut outer.mask);
        if tunnel.kind != TunnelKind::Gre {
            if mask.dst_port == u16::MAX && value.dst_port != tunnel.port {
                let port = value.dst_port;
                return Err(format!("enc_dst_port {port}: nothing comes from there"));
            }
            (value.dst_port, mask.dst_port) = (tunnel.port, u16::MAX);
        }
        let is_v6 = value.flags & TunnelFlags::IPV6 != 0;
        let known = mask.flags & TunnelFlags::IPV6 != 0;
        let (to, whole) = match is_v6 {
            true => (Ipv6Addr::from(value.dst).into(), mask.dst == [0xff; 16]),
            false => {
                let [a, b, c, d, ..] = value.dst;
                let whole = mask.dst[..4] == [0xff; 4];
                (IpAddr::from(Ipv4Addr::new(a, b, c, d)), whole)
            }
        };
        if !known || !whole {
            return Err("no enc_dst_ip: it would be in hardware for one address".to_owned());
        }
        if !self.mirror.addresses.iter().any(|(_, ours)| *ours == to) {
            return Err(format!("enc_dst_ip {to} is no address of this host"));
        }
        // Without a checksum over IPv6, and with one in GRE, packets are for whoever asked for them.
        if is_v6 {
            mask.flags |= TunnelFlags::CSUM;
            value.flags |= TunnelFlags::CSUM;
        } else if tunnel.kind == TunnelKind::Gre {
            mask.flags |= TunnelFlags::CSUM;
            value.flags &= !TunnelFlags::CSUM;
        }
        matches.normalize();
        matches.check().map_err(|error| error.to_string())
    }

    /// Why packets of a port do not fit through the uplink once they are in a tunnel.
    pub fn too_long(&self, from: &KernelPort, spec: &RuleSpec) -> Option<String> {
        let set = encapsulation(spec)?;
        let uplink = self.mirror.links.get(&self.uplink?.ifindex)?;
        let longest = u32::from(from.mtu?) + inside(spec) + outside(set);
        if set.kind == TunnelKind::Gre {
            // Unlike the others, ip_md_tunnel_xmit looks at its netdev's MTU.
            let mut netdevs = self.mirror.links.values();
            let mtu = from.mtu?.into();
            let low = |link: &&Link| {
                link.up && link.mtu < mtu && link.tunnel.is_some_and(|t| t.kind == set.kind)
            };
            if let Some(link) = netdevs.find(low) {
                let Link {
                    name, mtu: most, ..
                } = link;
                return Some(format!(
                    "mtu: {name} takes {most} bytes, packets may have {mtu}"
                ));
            }
        }
        let (name, mtu) = (&uplink.name, uplink.mtu);
        (longest > mtu).then(|| {
            format!("mtu: {name} takes {mtu} bytes, packets in the tunnel may have {longest}")
        })
    }

    /// The neighbour that a rule's packets go to.
    pub fn neighbour(&self, spec: &RuleSpec) -> Option<(u32, IpAddr)> {
        let set = encapsulation(spec)?;
        let way = self.mirror.ways.get(&(set.src, set.dst))?.as_ref().ok()?;
        Some((way.netdev, way.via))
    }
}

/// What is in the way between the uplink and the tunnels' netdevs.
fn below(mirror: &Mirror, basis: &Basis, uplink: u32) -> Option<String> {
    if let Some(why) = no_entry(mirror, basis, uplink) {
        return Some(why);
    }
    let link = mirror.links.get(&uplink)?;
    let name = &link.name;
    if let Some(master) = link.master {
        let master = mirror
            .links
            .get(&master)
            .map_or("another netdev", |l| &*l.name);
        return Some(format!("what {name} receives is for {master}"));
    }
    let block = mirror.qdiscs.get(&uplink).and_then(|q| q.ingress.flatten());
    let hook = block.map_or(Hook::Ingress(uplink), Hook::Block);
    let filters = mirror.filters.get(&hook).is_some_and(|f| !f.is_empty());
    filters.then(|| format!("filters look at what {name} receives"))
}

fn encapsulation(spec: &RuleSpec) -> Option<&TunnelSet> {
    spec.actions.iter().find_map(|action| match action {
        Action::TunnelSet(set) => Some(&**set),
        _ => None,
    })
}

/// Bytes that a packet has in front of what its MTU counts, when it goes into the tunnel.
fn inside(spec: &RuleSpec) -> u32 {
    let (value, mask) = (&spec.matches.value, &spec.matches.mask);
    let untagged =
        mask.vlan & FlowKey::VLAN_PRESENT != 0 && value.vlan & FlowKey::VLAN_PRESENT == 0;
    let pushed = |action: &&Action| matches!(action, Action::VlanPush(_) | Action::MplsPush(_));
    let pushed = spec.actions.iter().filter(pushed).count();
    let tags = usize::from(!untagged) + pushed;
    (ETH_HEADER_LEN + tags * VLAN_TAG_LEN) as u32
}

/// Bytes of the headers that an outer packet's MTU counts.
fn outside(set: &TunnelSet) -> u32 {
    let ip = if set.dst.is_ipv6() { 40 } else { 20 };
    let shim = match set.kind {
        TunnelKind::Gre => 4 + 4 * (u32::from(set.key.is_some()) + u32::from(set.csum)),
        _ => 16 + set.options.len() as u32,
    };
    ip + shim
}
