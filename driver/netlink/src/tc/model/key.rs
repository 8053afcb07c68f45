//! What a filter matches, as the switch's keys.

use super::{ETH_P_ALL, NotOffloaded};
use crate::attr::Masked;
use crate::tc::flower::{EncKey, FlowerKey};
use crate::tc::tunnel_options::TunnelOptions;
use chanio_model::Mac;
use chanio_model::edit::TunnelKind;
use chanio_model::edit::tunnel::{GeneveOption, GeneveOptions};
use chanio_model::flow::{FlowKey, KeyFlags, Match, PortRange, TunnelFlags, TunnelKey};
use chanio_model::wire::eth_type::{QINQ, VLAN};
use std::net::{Ipv4Addr, Ipv6Addr};

type Done = Result<(), NotOffloaded>;

/// Presence and id: all of it, for a packet without a tag.
const NO_TAG: u16 = FlowKey::VLAN_PRESENT | FlowKey::VLAN_ID;

pub(super) fn read(key: &FlowerKey, protocol: u16, to: &mut Match) -> Done {
    refuse_rare(key)?;
    ethernet(key, protocol, to)?;
    network(key, to);
    transport(key, to)?;
    arp_and_mpls(key, to)?;
    connection(key, to);
    tunnel(&key.enc, to)
}

/// The packet must have come through a tunnel of this kind.
pub(super) fn came_through(kind: TunnelKind, to: &mut Match) -> Done {
    let part = to.more_mut().tunnel.get_or_insert_default();
    if part.mask.kind != 0 && part.value.kind != TunnelKey::number(kind) {
        return Err(NotOffloaded::Key(
            "options of another kind of tunnel".to_owned(),
        ));
    }
    (part.value.kind, part.mask.kind) = (TunnelKey::number(kind), u8::MAX);
    Ok(())
}

fn refuse_rare(key: &FlowerKey) -> Done {
    let other = &key.other;
    let rare = [
        ("indev", key.eth.indev.is_some()),
        ("hash", other.hash.is_some()),
        ("pppoe_sid", other.pppoe_sid.is_some()),
        ("ppp_proto", other.ppp_proto.is_some()),
        ("l2tpv3_sid", other.l2tpv3_sid.is_some()),
        ("l2_miss", other.l2_miss.is_some()),
        ("spi", other.spi.is_some()),
        ("cfm", key.cfm.is_some()),
    ];
    match rare.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(NotOffloaded::Key((*name).to_owned())),
        None => Ok(()),
    }
}

/// A tag's words of the key.
fn tag(id: Option<u16>, priority: Option<u8>) -> (u16, u16) {
    let mut value = FlowKey::VLAN_PRESENT;
    let mut mask = FlowKey::VLAN_PRESENT;
    if let Some(id) = id {
        value |= id & FlowKey::VLAN_ID;
        mask |= FlowKey::VLAN_ID;
    }
    if let Some(priority) = priority {
        value |= u16::from(priority) << 13;
        mask |= FlowKey::VLAN_PRIO;
    }
    (value, mask)
}

/// tc tells a tag by its EtherType, then what is behind it; a filter for another protocol sees
/// only packets without a tag (tcf_classify compares the outermost type).
fn ethernet(key: &FlowerKey, protocol: u16, to: &mut Match) -> Done {
    let (value, mask) = (&mut to.value, &mut to.mask);
    if let Some(mac) = key.eth.dst {
        (value.eth_dst, mask.eth_dst) = masked_mac(mac);
    }
    if let Some(mac) = key.eth.src {
        (value.eth_src, mask.eth_src) = masked_mac(mac);
    }
    let is_tag = |kind: Option<u16>| matches!(kind, Some(VLAN | QINQ));
    let by_filter = (protocol != ETH_P_ALL).then_some(protocol);
    // tc says with the key what the outermost type is; the kernel, which it is behind the tags
    // (net/sched/cls_flower.c, fl_dump_key).
    let outermost = match is_tag(by_filter) {
        true => by_filter,
        false => key.eth.eth_type.or(by_filter),
    };
    let inner = &key.cvlan;
    let mut kind = outermost;
    if is_tag(kind) {
        (value.vlan, mask.vlan) = tag(key.vlan.id, key.vlan.priority);
        mask.flags |= KeyFlags::VLAN_AD;
        value.flags |= if kind == Some(QINQ) {
            KeyFlags::VLAN_AD
        } else {
            0
        };
        kind = key.vlan.eth_type;
        if is_tag(kind) {
            (value.cvlan, mask.cvlan) = tag(inner.id, inner.priority);
            mask.flags |= KeyFlags::CVLAN_AD;
            value.flags |= if kind == Some(QINQ) {
                KeyFlags::CVLAN_AD
            } else {
                0
            };
            kind = inner.eth_type;
        } else if kind.is_some() {
            mask.cvlan = NO_TAG;
        }
    } else if kind.is_some() {
        mask.vlan = NO_TAG;
    }
    let tags = u8::from(value.vlan != 0) + u8::from(value.cvlan != 0);
    if tags < 1 && key.vlan != Default::default() || tags < 2 && *inner != Default::default() {
        return Err(NotOffloaded::Key(
            "a VLAN tag without its protocol".to_owned(),
        ));
    }
    match (key.eth.num_of_vlans, tags) {
        (None, _) => {}
        (Some(0), 0) => mask.vlan = NO_TAG,
        (Some(1), 0 | 1) => {
            if tags == 0 {
                (value.vlan, mask.vlan) = (FlowKey::VLAN_PRESENT, FlowKey::VLAN_PRESENT);
            }
            mask.cvlan = NO_TAG;
        }
        (Some(count), _) => return Err(NotOffloaded::Key(format!("num_of_vlans {count}"))),
    }
    if let Some(kind) = kind {
        (value.eth_type, mask.eth_type) = (kind, u16::MAX);
    }
    Ok(())
}

fn masked_mac(mac: Masked<[u8; 6]>) -> (Mac, Mac) {
    let and = std::array::from_fn(|i| mac.value[i] & mac.mask[i]);
    (Mac(and), Mac(mac.mask))
}

fn v4(address: Masked<Ipv4Addr>) -> ([u8; 16], [u8; 16]) {
    let wide = |address: Ipv4Addr| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&address.octets());
        bytes
    };
    (wide(address.value & address.mask), wide(address.mask))
}

fn v6(address: Masked<Ipv6Addr>) -> ([u8; 16], [u8; 16]) {
    (
        (address.value & address.mask).octets(),
        address.mask.octets(),
    )
}

fn network(key: &FlowerKey, to: &mut Match) {
    let (value, mask) = (&mut to.value, &mut to.mask);
    if let Some(proto) = key.ip.proto {
        (value.ip_proto, mask.ip_proto) = (proto, u8::MAX);
    }
    if let Some(tos) = key.ip.tos {
        (value.ip_tos, mask.ip_tos) = (tos.value & tos.mask, tos.mask);
    }
    if let Some(ttl) = key.ip.ttl {
        (value.ip_ttl, mask.ip_ttl) = (ttl.value & ttl.mask, ttl.mask);
    }
    if let Some(src) = key.ip.v4_src.map(v4).or(key.ip.v6_src.map(v6)) {
        (value.ip_src, mask.ip_src) = src;
    }
    if let Some(dst) = key.ip.v4_dst.map(v4).or(key.ip.v6_dst.map(v6)) {
        (value.ip_dst, mask.ip_dst) = dst;
    }
    // The two lowest bits are the same in both (TCA_FLOWER_KEY_FLAGS_*).
    if let Some(flags) = key.ip.flags {
        let bits = KeyFlags::FRAG | KeyFlags::FIRST_FRAG;
        mask.flags |= flags.mask as u8 & bits;
        value.flags |= (flags.value & flags.mask) as u8 & bits;
    }
}

fn transport(key: &FlowerKey, to: &mut Match) -> Done {
    let src = key.tcp.src.or(key.udp.src).or(key.sctp.src);
    let dst = key.tcp.dst.or(key.udp.dst).or(key.sctp.dst);
    let (value, mask) = (&mut to.value, &mut to.mask);
    if let Some(port) = src {
        (value.l4_src, mask.l4_src) = (port.value & port.mask, port.mask);
    }
    if let Some(port) = dst {
        (value.l4_dst, mask.l4_dst) = (port.value & port.mask, port.mask);
    }
    if let Some(flags) = key.tcp.flags {
        let bits = flags.mask & 0xfff;
        (value.tcp_flags, mask.tcp_flags) = (flags.value & bits, bits);
    }
    let four = (key.icmpv4.kind, key.icmpv4.code);
    let six = (key.icmpv6.kind, key.icmpv6.code);
    let (kind, code) = if four == (None, None) { six } else { four };
    if kind.is_some() || code.is_some() {
        let nothing = Masked { value: 0, mask: 0 };
        let (kind, code) = (kind.unwrap_or(nothing), code.unwrap_or(nothing));
        value.set_icmp(kind.value & kind.mask, code.value & code.mask);
        mask.set_icmp(kind.mask, code.mask);
    }
    let ranges = &key.ranges;
    let sides = [
        ("src_port", ranges.src_min, ranges.src_max),
        ("dst_port", ranges.dst_min, ranges.dst_max),
    ];
    for (name, min, max) in sides {
        let range = match (min, max) {
            (None, None) => continue,
            (Some(min), Some(max)) => PortRange { min, max },
            _ => return Err(NotOffloaded::Key(format!("half a range of {name}"))),
        };
        let more = to.more_mut();
        if name == "src_port" {
            more.src_ports = Some(range);
        } else {
            more.dst_ports = Some(range);
        }
    }
    Ok(())
}

fn arp_and_mpls(key: &FlowerKey, to: &mut Match) -> Done {
    let (value, mask) = (&mut to.value, &mut to.mask);
    let arp = &key.arp;
    if *arp != Default::default() {
        let ip = |ip: Option<Masked<Ipv4Addr>>| {
            ip.map_or(([0; 4], [0; 4]), |ip| {
                ((ip.value & ip.mask).octets(), ip.mask.octets())
            })
        };
        let mac = |mac: Option<Masked<[u8; 6]>>| mac.map_or_else(Default::default, masked_mac);
        let (sip, sha, tip, tha) = (ip(arp.sip), mac(arp.sha), ip(arp.tip), mac(arp.tha));
        value.set_arp_sender(sip.0, sha.0);
        mask.set_arp_sender(sip.1, sha.1);
        value.set_arp_target(tip.0, tha.0);
        mask.set_arp_target(tip.1, tha.1);
        if let Some(op) = arp.op {
            if op.mask != u8::MAX {
                return Err(NotOffloaded::Partial("arp_op"));
            }
            (value.ip_proto, mask.ip_proto) = (op.value, op.mask);
        }
    }
    let first = &key.mpls.first;
    let all = key
        .mpls
        .lses
        .iter()
        .map(|lse| (lse.depth, lse.label, lse.tc, lse.bos, lse.ttl));
    let first = [(Some(1), first.label, first.tc, first.bos, first.ttl)];
    for (depth, label, tc, bos, ttl) in all.chain(first) {
        let fields = [
            (label, 12, 0xf_ffff),
            (tc.map(u32::from), 9, 7),
            (bos.map(u32::from), 8, 1),
            (ttl.map(u32::from), 0, 0xff),
        ];
        let given = fields
            .iter()
            .filter_map(|(field, at, bits)| Some((field.as_ref()?, at, bits)));
        let (mut entry, mut counts) = (0, 0);
        for (field, at, bits) in given {
            entry |= (field & bits) << at;
            counts |= bits << at;
        }
        if counts == 0 {
            continue;
        }
        let depth = match depth {
            Some(depth @ 1..=7) => usize::from(depth) - 1,
            _ => {
                return Err(NotOffloaded::Key(
                    "an MPLS entry outside depth 1 to 7".to_owned(),
                ));
            }
        };
        value.set_mpls(depth, value.mpls(depth) | entry);
        mask.set_mpls(depth, mask.mpls(depth) | counts);
    }
    Ok(())
}

fn connection(key: &FlowerKey, to: &mut Match) {
    let ct = &key.ct;
    if *ct == Default::default() {
        return;
    }
    let part = &mut to.more_mut().ct;
    // TCA_FLOWER_KEY_CT_FLAGS_* are the switch's bits.
    if let Some(state) = ct.state {
        (part.value.state, part.mask.state) = (state.value & state.mask, state.mask);
    }
    if let Some(zone) = ct.zone {
        (part.value.zone, part.mask.zone) = (zone.value & zone.mask, zone.mask);
    }
    if let Some(mark) = ct.mark {
        (part.value.mark, part.mask.mark) = (mark.value & mark.mask, mark.mask);
    }
    if let Some(labels) = ct.labels {
        part.value.label = std::array::from_fn(|i| labels.value[i] & labels.mask[i]);
        part.mask.label = labels.mask;
    }
}

/// TCA_FLOWER_KEY_FLAGS_TUNNEL_* and the switch's bits.
pub(super) const TUNNEL_FLAGS: [(u32, u8); 4] = [
    (1 << 2, TunnelFlags::CSUM),
    (1 << 3, TunnelFlags::DF),
    (1 << 4, TunnelFlags::OAM),
    (1 << 5, TunnelFlags::CRIT),
];

fn tunnel(enc: &EncKey, to: &mut Match) -> Done {
    if *enc == EncKey::default() {
        return Ok(());
    }
    let part = to.more_mut().tunnel.get_or_insert_default();
    let (value, mask) = (&mut part.value, &mut part.mask);
    if let Some(id) = enc.key_id {
        (value.id, mask.id) = (id, u32::MAX);
    }
    let sides = [(enc.v4_src, enc.v6_src, 0), (enc.v4_dst, enc.v6_dst, 1)];
    for (four, six, side) in sides {
        let Some((address, bits)) = four.map(v4).or(six.map(v6)) else {
            continue;
        };
        mask.flags |= TunnelFlags::IPV6;
        value.flags |= if four.is_none() { TunnelFlags::IPV6 } else { 0 };
        if side == 0 {
            (value.src, mask.src) = (address, bits);
        } else {
            (value.dst, mask.dst) = (address, bits);
        }
    }
    let whole = |name, port: Option<Masked<u16>>| match port {
        None => Ok(0),
        Some(Masked { mask: 0, .. }) => Ok(0),
        Some(Masked {
            value,
            mask: u16::MAX,
        }) => Ok(u32::from(value) | 1 << 16),
        Some(_) => Err(NotOffloaded::Partial(name)),
    };
    for (port, side) in [
        (whole("enc_src_port", enc.src_port)?, 0),
        (whole("enc_dst_port", enc.dst_port)?, 1),
    ] {
        match (port, side) {
            (0, _) => {}
            (port, 0) => (value.src_port, mask.src_port) = (port as u16, u16::MAX),
            (port, _) => (value.dst_port, mask.dst_port) = (port as u16, u16::MAX),
        }
    }
    if let Some(tos) = enc.tos {
        (value.tos, mask.tos) = (tos.value & tos.mask, tos.mask);
    }
    if let Some(ttl) = enc.ttl {
        (value.ttl, mask.ttl) = (ttl.value & ttl.mask, ttl.mask);
    }
    if let Some(flags) = enc.flags {
        for (theirs, ours) in TUNNEL_FLAGS {
            mask.flags |= if flags.mask & theirs != 0 { ours } else { 0 };
            value.flags |= if flags.mask & flags.value & theirs != 0 {
                ours
            } else {
                0
            };
        }
    }
    match &enc.options {
        Some(options) => tunnel_options(options, value, mask),
        None => Ok(()),
    }
}

fn tunnel_options(
    options: &Masked<TunnelOptions>,
    value: &mut TunnelKey,
    mask: &mut TunnelKey,
) -> Done {
    let (wanted, bits) = (&options.value, &options.mask);
    let rare = wanted.erspan.is_some() || wanted.gtp.is_some() || wanted.pfcp.is_some();
    if rare || !wanted.unknown.is_empty() {
        return Err(NotOffloaded::Key(
            "options other than geneve's and vxlan's".to_owned(),
        ));
    }
    let kind = if let Some(vxlan) = &wanted.vxlan {
        let gbp = vxlan.gbp.unwrap_or(0);
        let counts = bits
            .vxlan
            .as_ref()
            .and_then(|vxlan| vxlan.gbp)
            .unwrap_or(u32::MAX);
        value.options[..4].copy_from_slice(&(gbp & counts).to_be_bytes());
        mask.options[..4].copy_from_slice(&counts.to_be_bytes());
        value.options_len = 4;
        TunnelKind::Vxlan
    } else {
        let (wire, counts) = geneve_bytes(wanted, bits)?;
        for (i, (byte, bits)) in wire.iter().zip(&counts).enumerate() {
            (value.options[i], mask.options[i]) = (byte & bits, *bits);
        }
        value.options_len = wire.len() as u16;
        TunnelKind::Geneve
    };
    mask.options_len = u16::MAX;
    (value.kind, mask.kind) = (TunnelKey::number(kind), u8::MAX);
    Ok(())
}

/// The options as in the packet, and which of their bits count; lengths always do.
fn geneve_bytes(
    wanted: &TunnelOptions,
    bits: &TunnelOptions,
) -> Result<(GeneveOptions, GeneveOptions), NotOffloaded> {
    let odd = || NotOffloaded::Key("geneve_opts that do not fit a packet".to_owned());
    let (mut wire, mut counts) = (GeneveOptions::new(), GeneveOptions::new());
    for (i, option) in wanted.geneve.iter().enumerate() {
        let mask = bits.geneve.get(i);
        let data = option.data.as_deref().unwrap_or_default();
        let all = vec![0xff; data.len()];
        let data_mask = mask.and_then(|m| m.data.as_deref()).unwrap_or(&all);
        if data_mask.len() != data.len() {
            return Err(odd());
        }
        let one = |class, kind, data| GeneveOption { class, kind, data };
        let value = one(option.class.unwrap_or(0), option.kind.unwrap_or(0), data);
        let class = mask.and_then(|m| m.class).unwrap_or(u16::MAX);
        let kind = mask.and_then(|m| m.kind).unwrap_or(u8::MAX);
        let start = counts.len();
        let fits = value.append_to(&mut wire) && one(class, kind, data_mask).append_to(&mut counts);
        match counts.get_mut(start + 3) {
            Some(length) if fits => *length = 0x1f,
            _ => return Err(odd()),
        }
    }
    Ok((wire, counts))
}
