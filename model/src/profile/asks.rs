//! What a rule asks for, in the terms that drivers check it by.

use crate::ct::{CtAction, CtSpec};
use crate::edit::{Csums, Field, FieldChange, FieldEdit};
use crate::flow::{Action, FlowKey, KeyFlags, Masked, Match, RuleSpec, TunnelKey};
use crate::wire::{eth_type, ip_proto};

/// The whole EtherType it asks for.
pub fn eth_type_of(m: &Match) -> Option<u16> {
    (m.mask.eth_type != 0).then_some(m.value.eth_type)
}

/// The IP protocol it asks for.
pub fn proto(m: &Match) -> Option<u8> {
    let ip = matches!(eth_type_of(m), Some(eth_type::IPV4 | eth_type::IPV6));
    (ip && m.mask.ip_proto != 0).then_some(m.value.ip_proto)
}

pub fn is_ip(m: &Match) -> bool {
    matches!(eth_type_of(m), Some(eth_type::IPV4 | eth_type::IPV6))
}

/// Fields of ARP.
pub fn arp(m: &Match) -> bool {
    let arp = matches!(eth_type_of(m), Some(eth_type::ARP | eth_type::RARP));
    arp && (m.mask.ip_proto != 0 || m.mask.ip_src != [0; 16] || m.mask.ip_dst != [0; 16])
}

/// MPLS labels.
pub fn mpls(m: &Match) -> bool {
    let mpls = matches!(eth_type_of(m), Some(eth_type::MPLS_UC | eth_type::MPLS_MC));
    mpls && (m.mask.ip_src != [0; 16] || m.mask.ip_dst != [0; 16])
}

/// ICMP's type or code.
pub fn icmp(m: &Match) -> bool {
    let icmp = matches!(proto(m), Some(ip_proto::ICMP | ip_proto::ICMPV6));
    icmp && m.mask.l4_src != 0
}

/// Transport ports, or a range of them.
pub fn ports(m: &Match) -> bool {
    let masked = m.mask.l4_src != 0 || m.mask.l4_dst != 0;
    (masked && !icmp(m)) || port_range(m)
}

pub fn port_range(m: &Match) -> bool {
    m.more.as_ref().is_some_and(|more| more.has_ranges())
}

/// Ports of something that is neither TCP nor UDP.
pub fn ports_of_others(m: &Match) -> bool {
    ports(m) && !matches!(proto(m), Some(ip_proto::TCP | ip_proto::UDP))
}

/// The mask asks for some bits of the VLAN id, but not for all.
pub fn partial_vid(mask: u16) -> bool {
    !matches!(mask & FlowKey::VLAN_ID, 0 | FlowKey::VLAN_ID)
}

/// The first fragment or the later ones.
pub fn first_frag(m: &Match) -> bool {
    m.mask.flags & KeyFlags::FIRST_FRAG != 0
}

/// The state of connections.
pub fn ct_match(m: &Match) -> bool {
    m.more
        .as_ref()
        .is_some_and(|more| more.ct != Masked::default())
}

/// Bits of ct_state that must be set.
pub fn ct_on(m: &Match) -> u16 {
    m.more.as_ref().map_or(0, |more| more.ct.value.state)
}

/// Outer headers.
pub fn tunnel(m: &Match) -> Option<&Masked<TunnelKey>> {
    m.tunnel()
}

pub fn has(spec: &RuleSpec, what: impl Fn(&Action) -> bool) -> bool {
    spec.actions.iter().any(what)
}

pub fn count(spec: &RuleSpec, what: impl Fn(&Action) -> bool) -> usize {
    spec.actions.iter().filter(|action| what(action)).count()
}

/// Sends the packet on, or to another table.
pub fn forwards(action: &Action) -> bool {
    matches!(
        action,
        Action::Redirect(_) | Action::Mirror(_) | Action::Goto(_) | Action::Pass | Action::Trap
    )
}

/// Rewrites a field of a header, as drivers understand it: a VLAN id, too.
pub fn modifies(action: &Action) -> bool {
    matches!(action, Action::Pedit(_) | Action::VlanModify(_))
}

/// Touches the MPLS header.
pub fn mpls_action(action: &Action) -> bool {
    matches!(
        action,
        Action::MplsPush(_) | Action::MplsPop(_) | Action::MplsModify(_) | Action::MplsDecTtl
    )
}

fn edits_of(action: &Action) -> &[FieldEdit] {
    match action {
        Action::Pedit(edits) => edits,
        _ => &[],
    }
}

/// All fields it sets.
pub fn edits(spec: &RuleSpec) -> impl Iterator<Item = &FieldEdit> {
    spec.actions.iter().flat_map(edits_of)
}

/// Part of what tells a connection.
pub fn tuple_field(field: Field) -> bool {
    address_field(field) || port_field(field)
}

pub fn address_field(field: Field) -> bool {
    use Field::*;
    matches!(field, Ipv4Src | Ipv4Dst | Ipv6Src | Ipv6Dst)
}

pub fn port_field(field: Field) -> bool {
    use Field::*;
    matches!(field, TcpSrc | TcpDst | UdpSrc | UdpDst | SctpSrc | SctpDst)
}

/// Of the IP header, other than its time to live.
pub fn ip_field_but_ttl(field: Field) -> bool {
    use Field::*;
    address_field(field) || matches!(field, Ipv4Tos | Ipv6TrafficClass | Ipv6FlowLabel)
}

/// The bits that are set, if they are not one run.
pub fn scattered(edit: &FieldEdit) -> bool {
    match edit.change {
        FieldChange::Set { mask, .. } => {
            let run = mask >> mask.trailing_zeros().min(127);
            run & run.wrapping_add(1) != 0
        }
        FieldChange::Add(_) => false,
    }
}

/// What it asks connection tracking for, one by one.
pub fn tracked(spec: &RuleSpec) -> impl Iterator<Item = &CtSpec> {
    spec.actions.iter().filter_map(|action| match action {
        Action::Ct(ct) => match &**ct {
            CtAction::Track(track) => Some(track),
            CtAction::Clear => None,
        },
        _ => None,
    })
}

/// Whether it forgets the connection.
pub fn clears_ct(spec: &RuleSpec) -> bool {
    has(
        spec,
        |action| matches!(action, Action::Ct(ct) if **ct == CtAction::Clear),
    )
}

/// Checksums beside these.
pub fn csums_beside(spec: &RuleSpec, known: u8) -> bool {
    has(
        spec,
        |action| matches!(action, Action::Csum(Csums(bits)) if bits & !known != 0),
    )
}
