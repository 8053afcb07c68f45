//! The switch's keys as what a filter matches, and where the filter hangs.

use super::key::TUNNEL_FLAGS;
use super::{ETH_P_ALL, NotOffloaded, Surroundings};
use crate::attr::{Masked, Value};
use crate::tc::flower::{FlowerKey, FlowerRule, MplsLse};
use crate::tc::tunnel_options::{GeneveOption, TunnelOptions, VxlanOption};
use crate::tc::{At, Filter, FilterKind, INGRESS};
use chanio_model::Mac;
use chanio_model::edit::TunnelKind;
use chanio_model::edit::tunnel::geneve_options;
use chanio_model::flow::{FlowKey, KeyFlags, MPLS_MAX, Match, TunnelFlags, TunnelKey};
use chanio_model::wire::eth_type::{ARP, IPV4, IPV6, MPLS_MC, MPLS_UC, QINQ, RARP, VLAN};
use chanio_model::wire::ip_proto;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A filter without actions and priority.
pub(super) fn filter(from: &Match, around: &dyn Surroundings) -> Result<Filter, NotOffloaded> {
    let mut key = FlowerKey::default();
    let protocol = ethernet(from, &mut key)?;
    network(from, &mut key);
    transport(from, &mut key);
    arp_and_mpls(from, &mut key);
    connection(from, &mut key);
    if let Some(tunnel) = from.tunnel() {
        if tunnel.mask.flags & TunnelFlags::KEY != 0 {
            return Err(NotOffloaded::Key("enc_flags key".to_owned()));
        }
        read_tunnel(&tunnel.value, &tunnel.mask, &mut key);
    }
    let kind = Some(FilterKind::Flower(Box::new(FlowerRule {
        key,
        ..FlowerRule::default()
    })));
    Ok(Filter {
        at: place(from, around)?,
        protocol,
        kind,
        ..Filter::default()
    })
}

fn place(from: &Match, around: &dyn Surroundings) -> Result<At, NotOffloaded> {
    let at = |ifindex: u32| At::Device {
        ifindex: ifindex.cast_signed(),
        parent: INGRESS,
    };
    match (from.in_port(), from.mask.block) {
        (Some(vport), 0) => {
            let ifindex = around.ifindex(vport).ok_or(NotOffloaded::Device(vport.0))?;
            Ok(at(ifindex))
        }
        (Some(_), _) => Err(NotOffloaded::Key("in_port together with block".to_owned())),
        (None, 0) => {
            let kind = from.tunnel().and_then(|tunnel| tunnel.value.tunnel_kind());
            kind.and_then(|kind| around.tunnel_device(kind))
                .map(at)
                .ok_or(NotOffloaded::NoPort)
        }
        (None, _) => Ok(At::Block(from.value.block.into())),
    }
}

fn masked<T: PartialEq + Default>(value: T, mask: T) -> Option<Masked<T>> {
    (mask != T::default()).then_some(Masked { value, mask })
}

fn mac(Mac(value): Mac, Mac(mask): Mac) -> Option<Masked<[u8; 6]>> {
    masked(value, mask)
}

/// What is asked of a tag.
#[derive(PartialEq)]
enum Tag {
    /// Nothing.
    Any,
    /// That there is none.
    None,
    /// That there is one.
    Some {
        id: Option<u16>,
        priority: Option<u8>,
        eth_type: u16,
    },
}

fn tag(value: u16, mask: u16, (ad, sure): (bool, bool)) -> Result<Tag, NotOffloaded> {
    if mask == 0 {
        return Ok(Tag::Any);
    }
    if value & FlowKey::VLAN_PRESENT == 0 {
        return Ok(Tag::None);
    }
    if !sure {
        let what = "a VLAN tag without vlan_tpid: a filter is for one protocol, it";
        return Err(NotOffloaded::Key(what.to_owned()));
    }
    Ok(Tag::Some {
        id: (mask & FlowKey::VLAN_ID != 0).then_some(value & FlowKey::VLAN_ID),
        priority: (mask & FlowKey::VLAN_PRIO != 0).then_some((value >> 13) as u8),
        eth_type: if ad { QINQ } else { VLAN },
    })
}

/// Fills in types and tags, and tells the filter's protocol.
fn ethernet(from: &Match, key: &mut FlowerKey) -> Result<u16, NotOffloaded> {
    let (value, mask) = (&from.value, &from.mask);
    key.eth.dst = mac(value.eth_dst, mask.eth_dst);
    key.eth.src = mac(value.eth_src, mask.eth_src);
    let flag = |bits: u8, flag: u8| bits & flag != 0;
    let ad = |f: u8| (flag(value.flags, f), flag(mask.flags, f));
    let (outer_ad, inner_ad) = (ad(KeyFlags::VLAN_AD), ad(KeyFlags::CVLAN_AD));
    let outer = tag(value.vlan, mask.vlan, outer_ad)?;
    let inner = tag(value.cvlan, mask.cvlan, inner_ad)?;
    let payload = (mask.eth_type != 0).then_some(value.eth_type);
    let unsure = || NotOffloaded::Key("a type behind tags that may or may not be there".to_owned());
    match (outer, inner) {
        (
            Tag::Some {
                id,
                priority,
                eth_type,
            },
            inner,
        ) => {
            key.eth.eth_type = Some(eth_type);
            (key.vlan.id, key.vlan.priority) = (id, priority);
            match inner {
                Tag::Some {
                    id,
                    priority,
                    eth_type: inner_type,
                } => {
                    key.vlan.eth_type = Some(inner_type);
                    (key.cvlan.id, key.cvlan.priority) = (id, priority);
                    key.cvlan.eth_type = payload;
                }
                Tag::None if payload.is_some() => key.vlan.eth_type = payload,
                Tag::None => key.eth.num_of_vlans = Some(1),
                Tag::Any if payload.is_some() => return Err(unsure()),
                Tag::Any => {}
            }
            Ok(eth_type)
        }
        (Tag::None, _) => {
            key.eth.eth_type = payload;
            if payload.is_none() {
                key.eth.num_of_vlans = Some(0);
            }
            Ok(payload.unwrap_or(ETH_P_ALL))
        }
        (Tag::Any, _) if payload.is_some() => Err(unsure()),
        (Tag::Any, _) => Ok(ETH_P_ALL),
    }
}

fn v4(value: &[u8; 16], mask: &[u8; 16]) -> Option<Masked<Ipv4Addr>> {
    let short = |bytes: &[u8; 16]| Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]);
    (short(mask) != Ipv4Addr::UNSPECIFIED).then(|| Masked {
        value: short(value),
        mask: short(mask),
    })
}

fn v6(value: &[u8; 16], mask: &[u8; 16]) -> Option<Masked<Ipv6Addr>> {
    let whole = |bytes: &[u8; 16]| Ipv6Addr::from(*bytes);
    (*mask != [0; 16]).then(|| Masked {
        value: whole(value),
        mask: whole(mask),
    })
}

fn network(from: &Match, key: &mut FlowerKey) {
    let (value, mask) = (&from.value, &from.mask);
    let ip = &mut key.ip;
    match value.eth_type {
        IPV4 => {
            ip.v4_src = v4(&value.ip_src, &mask.ip_src);
            ip.v4_dst = v4(&value.ip_dst, &mask.ip_dst);
        }
        IPV6 => {
            ip.v6_src = v6(&value.ip_src, &mask.ip_src);
            ip.v6_dst = v6(&value.ip_dst, &mask.ip_dst);
        }
        _ => return,
    }
    ip.proto = (mask.ip_proto != 0).then_some(value.ip_proto);
    ip.tos = masked(value.ip_tos, mask.ip_tos);
    ip.ttl = masked(value.ip_ttl, mask.ip_ttl);
    let bits = KeyFlags::FRAG | KeyFlags::FIRST_FRAG;
    ip.flags = masked((value.flags & bits).into(), (mask.flags & bits).into());
}

fn transport(from: &Match, key: &mut FlowerKey) {
    let (value, mask) = (&from.value, &from.mask);
    let proto = key.ip.proto.unwrap_or(0);
    let src = masked(value.l4_src, mask.l4_src);
    let dst = masked(value.l4_dst, mask.l4_dst);
    match proto {
        ip_proto::TCP => {
            (key.tcp.src, key.tcp.dst) = (src, dst);
            key.tcp.flags = masked(value.tcp_flags, mask.tcp_flags);
        }
        ip_proto::UDP => (key.udp.src, key.udp.dst) = (src, dst),
        ip_proto::SCTP => (key.sctp.src, key.sctp.dst) = (src, dst),
        _ => {
            let ((kind, code), (kinds, codes)) = (value.icmp(), mask.icmp());
            let (kind, code) = (masked(kind, kinds), masked(code, codes));
            if proto == ip_proto::ICMPV6 {
                (key.icmpv6.kind, key.icmpv6.code) = (kind, code);
            } else {
                (key.icmpv4.kind, key.icmpv4.code) = (kind, code);
            }
        }
    }
    if let (Some(more), true) = (&from.more, ip_proto::has_ports(proto)) {
        let ends = |range: chanio_model::flow::PortRange| (Some(range.min), Some(range.max));
        let ranges = &mut key.ranges;
        (ranges.src_min, ranges.src_max) = more.src_ports.map_or((None, None), ends);
        (ranges.dst_min, ranges.dst_max) = more.dst_ports.map_or((None, None), ends);
    }
}

fn arp_and_mpls(from: &Match, key: &mut FlowerKey) {
    let (value, mask) = (&from.value, &from.mask);
    if let ARP | RARP = value.eth_type {
        let ip = |value: [u8; 4], mask: [u8; 4]| {
            (mask != [0; 4]).then(|| Masked {
                value: value.into(),
                mask: mask.into(),
            })
        };
        let (sender, senders) = (value.arp_sender(), mask.arp_sender());
        let (target, targets) = (value.arp_target(), mask.arp_target());
        (key.arp.sip, key.arp.tip) = (ip(sender.0, senders.0), ip(target.0, targets.0));
        (key.arp.sha, key.arp.tha) = (mac(sender.1, senders.1), mac(target.1, targets.1));
        key.arp.op = masked(value.ip_proto, mask.ip_proto);
    }
    if let MPLS_UC | MPLS_MC = value.eth_type {
        for depth in 0..MPLS_MAX {
            let (entry, bits) = (value.mpls(depth), mask.mpls(depth));
            let part = |at: u32, wide: u32| (bits >> at & wide != 0).then_some(entry >> at & wide);
            if bits != 0 {
                key.mpls.lses.push(MplsLse {
                    depth: Some(depth as u8 + 1),
                    label: part(12, 0xf_ffff),
                    tc: part(9, 7).map(|tc| tc as u8),
                    bos: part(8, 1).map(|bos| bos as u8),
                    ttl: part(0, 0xff).map(|ttl| ttl as u8),
                });
            }
        }
    }
}

fn connection(from: &Match, key: &mut FlowerKey) {
    let Some(more) = &from.more else { return };
    let (value, mask) = (&more.ct.value, &more.ct.mask);
    key.ct.state = masked(value.state, mask.state);
    key.ct.zone = masked(value.zone, mask.zone);
    key.ct.mark = masked(value.mark, mask.mark);
    key.ct.labels = masked(value.label, mask.label);
}

fn read_tunnel(value: &TunnelKey, mask: &TunnelKey, key: &mut FlowerKey) {
    let enc = &mut key.enc;
    enc.key_id = (mask.id != 0).then_some(value.id);
    if value.flags & TunnelFlags::IPV6 != 0 {
        enc.v6_src = v6(&value.src, &mask.src);
        enc.v6_dst = v6(&value.dst, &mask.dst);
    } else {
        enc.v4_src = v4(&value.src, &mask.src);
        enc.v4_dst = v4(&value.dst, &mask.dst);
    }
    enc.src_port = masked(value.src_port, mask.src_port);
    enc.dst_port = masked(value.dst_port, mask.dst_port);
    enc.tos = masked(value.tos, mask.tos);
    enc.ttl = masked(value.ttl, mask.ttl);
    let bits = |flags: u8| {
        TUNNEL_FLAGS
            .iter()
            .filter(|(_, ours)| flags & ours != 0)
            .fold(0, |all, (bit, _)| all | bit)
    };
    enc.flags = masked(bits(value.flags), bits(mask.flags));
    if mask.options_len == 0 {
        return;
    }
    if value.tunnel_kind() == Some(TunnelKind::Vxlan) {
        let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |b| u32::from_be_bytes(*b));
        let of = |gbp| TunnelOptions {
            vxlan: Some(VxlanOption { gbp: Some(gbp) }),
            ..TunnelOptions::default()
        };
        enc.options = Some(Masked {
            value: of(word(&value.options)),
            mask: of(word(&mask.options)),
        });
        return;
    }
    let mut options = Masked {
        value: TunnelOptions::default(),
        mask: TunnelOptions::default(),
    };
    let mut at = 0;
    for option in geneve_options(value.options()).flatten() {
        let bits = &mask.options[at..at + 4 + option.data.len()];
        options.value.geneve.push(GeneveOption {
            class: Some(option.class),
            kind: Some(option.kind),
            data: Some(option.data.to_vec()),
        });
        options.mask.geneve.push(GeneveOption {
            class: Some(u16::from_be_bytes([bits[0], bits[1]])),
            kind: Some(bits[2]),
            data: Some(bits[4..].to_vec()),
        });
        at += bits.len();
    }
    debug_assert!(options.value.is_nest() == options.mask.is_nest());
    enc.options = Some(options);
}
