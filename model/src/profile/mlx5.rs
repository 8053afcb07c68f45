//! NVIDIA (Mellanox) ConnectX, driver mlx5_core, in switchdev mode. Paths are below
//! drivers/net/ethernet/mellanox/mlx5/core of Linux 6.1.

use super::asks::*;
use super::{Check, Limit, Profile};
use crate::VportId;
use crate::edit::{Csums, Field, FieldChange, TunnelKind};
use crate::flow::{Action, Control, CtState, FlowKey, RuleSpec, TunnelKey};
use crate::wire::ip_proto;
use std::collections::HashSet;

/// ConnectX-6 Dx with firmware that can go to any chain (ignore_flow_level).
pub static CX6DX: Profile = Profile {
    name: "mlx5-cx6dx",
    about: "NVIDIA ConnectX-6 Dx, mlx5_core, switchdev with subfunctions",
    channels: Limit::new(
        252,
        "Mellanox/scalablefunctions wiki, step by step guide: PF_TOTAL_SF=252",
    ),
    rules: Limit::new(4 << 20, "fs_ft_pool.c: FT_POOLS, the largest table"),
    masks: None,
    chain: Limit::new(
        crate::flow::MAX_CHAIN as u64,
        "lib/fs_chains.c: mlx5_chains_get_chain_range leaves it to tc",
    ),
    priority: Limit::new(
        u16::MAX as u64,
        "lib/fs_chains.c: mlx5_chains_get_prio_range leaves it to tc",
    ),
    no_switchdev: None,
    checks: CHECKS,
};

/// eswitch.h: MLX5_MAX_FLOW_FWD_VPORTS.
const MAX_OUTPUTS: usize = 32;
/// eswitch.h: MLX5_FS_VLAN_DEPTH.
const VLAN_DEPTH: usize = 2;

fn outputs(spec: &RuleSpec) -> impl Iterator<Item = VportId> {
    spec.actions.iter().filter_map(|action| match action {
        Action::Redirect(to) | Action::Mirror(to) => Some(*to),
        _ => None,
    })
}

fn vlan_action(action: &Action) -> bool {
    matches!(action, Action::VlanPush(_) | Action::VlanPop)
}

fn udp_tunnel(spec: &RuleSpec) -> Option<&crate::flow::Masked<TunnelKey>> {
    let gre = TunnelKey::number(TunnelKind::Gre);
    tunnel(&spec.matches).filter(|outer| outer.mask.kind == 0 || outer.value.kind != gre)
}

/// A field that the driver has no name for (en_tc.c: fields).
fn unknown_field(field: Field) -> bool {
    matches!(
        field,
        Field::Ipv6FlowLabel | Field::SctpSrc | Field::SctpDst
    )
}

/// Some, but not all, of the fields' bits that hardware writes at once: DSCP without ECN.
fn ecn(spec: &RuleSpec) -> bool {
    edits(spec).any(|edit| {
        let tos = matches!(edit.field, Field::Ipv4Tos | Field::Ipv6TrafficClass);
        tos && match edit.change {
            FieldChange::Set { mask, .. } => mask & 3 != 0,
            FieldChange::Add(_) => true,
        }
    })
}

fn set_and_add(spec: &RuleSpec) -> bool {
    let is_add = |change| matches!(change, FieldChange::Add(_));
    edits(spec)
        .any(|a| edits(spec).any(|b| a.field == b.field && is_add(a.change) != is_add(b.change)))
}

fn twice(spec: &RuleSpec) -> bool {
    let mut seen = HashSet::new();
    edits(spec).any(|edit| match edit.change {
        FieldChange::Set { mask, .. } => !seen.insert((edit.field, mask)),
        FieldChange::Add(_) => !seen.insert((edit.field, 0)),
    })
}

macro_rules! checks {
    ($($text:literal, $source:literal, $refuses:expr;)*) => {
        &[$(Check { text: $text, source: $source, refuses: $refuses }),*]
    };
}

const CHECKS: &[Check] = checks! {
    // What is matched, in the order of __parse_cls_flower.
    "Unsupported key", "en_tc.c: __parse_cls_flower, used_keys has no ARP and no PORTS_RANGE",
        |r| arp(&r.matches) || port_range(&r.matches);
    "UDP tunnel decap filter must include enc_dst_port condition",
        "en/tc_tun.c: mlx5e_tc_tun_parse_udp_ports",
        |r| udp_tunnel(r).is_some_and(|outer| outer.mask.dst_port == 0);
    "UDP tunnel decap filter must match enc_dst_port fully",
        "en/tc_tun.c: mlx5e_tc_tun_parse_udp_ports",
        |r| udp_tunnel(r).is_some_and(|outer| outer.mask.dst_port != u16::MAX);
    "Match on frag first/later is not supported", "en_tc.c: __parse_cls_flower",
        |r| first_frag(&r.matches);
    "Only UDP and TCP transports are supported for L4 matching", "en_tc.c: __parse_cls_flower",
        |r| ports_of_others(&r.matches);
    "Matching on MPLS is supported only for MPLS over UDP", "en_tc.c: __parse_cls_flower",
        |r| mpls(&r.matches);
    "matching on ct_state +rel isn't supported", "en/tc_ct.c: mlx5_tc_ct_match_add",
        |r| ct_on(&r.matches) & CtState::REL != 0;
    "matching on ct_state +inv isn't supported", "en/tc_ct.c: mlx5_tc_ct_match_add",
        |r| ct_on(&r.matches) & CtState::INV != 0;
    "matching on ct_state +new isn't supported", "en/tc_ct.c: mlx5_tc_ct_match_add",
        |r| ct_on(&r.matches) & CtState::NEW != 0;
    // Actions one by one.
    "action trap is supported as a sole action only", "en/tc/act/trap.c: tc_act_can_offload_trap",
        |r| has(r, |a| matches!(a, Action::Trap)) && r.actions.len() > 1;
    "can't duplicate output to same device", "en/tc/act/mirred.c: is_duplicated_output_device",
        |r| {
            let mut seen = HashSet::new();
            outputs(r).any(|to| !seen.insert(to))
        };
    "can't support more output ports, can't offload forwarding",
        "en/tc/act/mirred.c: tc_act_can_offload_mirred",
        |r| outputs(r).count() > MAX_OUTPUTS;
    "can't forward from a VF to itself", "en/tc/act/mirred.c: parse_mirred",
        |r| {
            let from = VportId(r.matches.value.in_port.into());
            let known = r.matches.mask.in_port != 0 && !from.is_uplink();
            known && outputs(r).any(|to| to == from)
        };
    "devices are both uplink, can't offload forwarding",
        "en/tc/act/mirred.c: verify_uplink_forwarding",
        |r| {
            let uplink = r.matches.mask.in_port != 0 && r.matches.value.in_port == 0;
            uplink && !r.matches.is_tunnel() && outputs(r).any(VportId::is_uplink)
        };
    "Total vlans used is greater than supported", "en/tc/act/vlan.c: parse_tc_vlan_action",
        |r| count(r, vlan_action) > VLAN_DEPTH;
    "VLAN rewrite action must have VLAN protocol match",
        "en/tc/act/vlan_mangle.c: mlx5e_tc_act_vlan_add_rewrite_action",
        |r| {
            let tagged = r.matches.mask.vlan & FlowKey::VLAN_PRESENT != 0;
            has(r, |a| matches!(a, Action::VlanModify(_))) && !tagged
        };
    "Changing VLAN prio is not supported",
        "en/tc/act/vlan_mangle.c: mlx5e_tc_act_vlan_add_rewrite_action",
        |r| {
            let matched = (r.matches.value.vlan & FlowKey::VLAN_PRIO) >> 13;
            has(r, |a| matches!(a, Action::VlanModify(to) if u16::from(to.prio.unwrap_or(0)) != matched))
        };
    "mpls is supported only through a bareudp device",
        "en/tc/act/mirred.c: tc_act_can_offload_mirred",
        |r| has(r, mpls_action);
    "TC csum action is only offloaded with pedit", "en/tc/act/csum.c: csum_offload_supported",
        |r| has(r, |a| matches!(a, Action::Csum(_))) && !has(r, modifies);
    "can't offload TC csum action for some header/s", "en/tc/act/csum.c: csum_offload_supported",
        |r| csums_beside(r, Csums::IPV4_HEADER.0 | Csums::TCP.0 | Csums::UDP.0);
    "Multiple CT actions are not supported", "en/tc/act/ct.c: tc_act_can_offload_ct",
        |r| tracked(r).count() > 1;
    "Sample action with CT NAT is not supported", "en/tc/act/sample.c: tc_act_can_offload_sample",
        |r| has(r, |a| matches!(a, Action::Sample(_))) && tracked(r).any(|ct| ct.nat.is_some());
    "Offload not supported when exceed action is not drop", "en_tc.c: mlx5e_policer_validate",
        |r| has(r, |a| matches!(a, Action::Police(p) if p.exceed != Control::Drop));
    "Offload not supported when conform action is not pipe or ok",
        "en/tc/act/police.c: tc_act_can_offload_police",
        |r| has(r, |a| matches!(a, Action::Police(p) if !matches!(p.conform, Control::Pipe | Control::Pass)));
    "Offload not supported when peakrate/avrate/overhead is configured",
        "en_tc.c: mlx5e_policer_validate",
        |r| has(r, |a| matches!(a, Action::Police(p) if p.meter.bytes.is_some_and(|b| b.peak.is_some())));
    "Decap with goto isn't supported", "en/tc/act/goto.c: tc_act_post_parse_goto",
        |r| {
            let decap = has(r, |a| matches!(a, Action::TunnelUnset));
            decap && has(r, |a| matches!(a, Action::Goto(_)))
        };
    // Fields that are rewritten, as offload_pedit_fields takes them.
    "curr_pmask and new mask same. Acting twice on same location",
        "en/tc/act/pedit.c: set_pedit_val", twice;
    "can't set and add to the same HW field", "en_tc.c: offload_pedit_fields", set_and_add;
    "rewrite of few sub-fields isn't supported", "en_tc.c: offload_pedit_fields",
        |r| edits(r).any(scattered);
    "attempt to offload an unsupported field", "en_tc.c: fields has no ECN, flow label, SCTP port",
        |r| ecn(r) || edits(r).any(|edit| unknown_field(edit.field));
    // The actions as a whole, as actions_match_supported takes them.
    "Rule must have at least one forward/drop action", "en_tc.c: actions_match_supported",
        |r| !has(r, |a| forwards(a) || matches!(a, Action::Drop));
    "Rule cannot support forward+drop action", "en_tc.c: actions_match_supported",
        |r| has(r, |a| matches!(a, Action::Drop)) && has(r, forwards);
    "Drop with modify header action is not supported", "en_tc.c: actions_match_supported",
        |r| has(r, |a| matches!(a, Action::Drop)) && has(r, modifies);
    "can't offload re-write of ipv4 address with action ct", "en_tc.c: is_action_keys_supported",
        |r| tracked(r).next().is_some() && edits(r).any(|e| matches!(e.field, Field::Ipv4Src | Field::Ipv4Dst));
    "can't offload re-write of ipv6 address with action ct", "en_tc.c: is_action_keys_supported",
        |r| tracked(r).next().is_some() && edits(r).any(|e| matches!(e.field, Field::Ipv6Src | Field::Ipv6Dst));
    "can't offload re-write of transport header ports with action ct",
        "en_tc.c: is_action_keys_supported",
        |r| tracked(r).next().is_some() && edits(r).any(|e| port_field(e.field));
    "can't offload tuple modification with ct matches and no ct(clear) action",
        "en_tc.c: modify_tuple_supported",
        |r| ct_match(&r.matches) && !clears_ct(r) && edits(r).any(|e| tuple_field(e.field));
    "can't offload re-write of non TCP/UDP", "en_tc.c: modify_header_match_supported",
        |r| {
            let known = matches!(proto(&r.matches), Some(ip_proto::TCP | ip_proto::UDP | ip_proto::ICMP));
            is_ip(&r.matches) && !known && edits(r).any(|e| ip_field_but_ttl(e.field))
        };
};
