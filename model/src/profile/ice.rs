//! Intel E810, driver ice, in switchdev mode. Paths are below drivers/net/ethernet/intel/ice of
//! Linux 6.1.

use super::asks::*;
use super::{Check, Limit, Profile};
use crate::flow::{Action, Match};
use crate::wire::eth_type;

/// E810.
pub static E810: Profile = Profile {
    name: "intel-e810",
    about: "Intel E810, ice, switchdev",
    channels: Limit::new(767, "ice_adminq_cmd.h: ICE_MAX_VSI, less the PF's own"),
    rules: Limit::new(
        65_536,
        "ice_adminq_cmd.h: the index of a rule (ice_sw_rule_lkup_rx_tx) has 16 bits",
    ),
    masks: Some(Limit::new(
        54,
        "ice_adminq_cmd.h: ICE_MAX_NUM_RECIPES (64), less ice_switch.h: ICE_SW_LKUP_LAST (10)",
    )),
    chain: Limit::new(
        0,
        "ice_main.c: ice_setup_tc_cls_flower refuses a chain_index",
    ),
    priority: Limit::new(u16::MAX as u64, "tc's"),
    no_switchdev: None,
    checks: CHECKS,
};

fn used_keys(m: &Match) -> bool {
    let tcp_flags = m.mask.tcp_flags != 0;
    tcp_flags || icmp(m) || arp(m) || mpls(m) || ct_match(m) || port_range(m)
}

const LOOPBACK: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn v6(m: &Match) -> impl Iterator<Item = [u8; 16]> {
    let is_v6 = eth_type_of(m) == Some(eth_type::IPV6);
    let pairs = [
        (m.value.ip_src, m.mask.ip_src),
        (m.value.ip_dst, m.mask.ip_dst),
    ];
    let asked =
        move |(value, mask): ([u8; 16], [u8; 16])| (is_v6 && mask != [0; 16]).then_some(value);
    pairs.into_iter().filter_map(asked)
}

const CHECKS: &[Check] = &[
    Check {
        text: "Unsupported key used",
        source: "ice_tc_lib.c: ice_parse_cls_flower, used_keys",
        refuses: |r| used_keys(&r.matches),
    },
    Check {
        text: "Bad VLAN mask",
        source: "ice_tc_lib.c: ice_parse_cls_flower",
        refuses: |r| partial_vid(r.matches.mask.vlan),
    },
    Check {
        text: "Double VLAN mode is not enabled",
        source: "ice_tc_lib.c: ice_parse_cls_flower; ice_vlan_mode.c: off unless the package has it",
        refuses: |r| r.matches.mask.cvlan != 0,
    },
    Check {
        text: "Bad IPv6, addr is LOOPBACK",
        source: "ice_tc_lib.c: ice_tc_set_ipv6",
        refuses: |r| v6(&r.matches).any(|address| address == LOOPBACK),
    },
    Check {
        text: "Bad src/dest IPv6, addr is any",
        source: "ice_tc_lib.c: ice_tc_set_ipv6",
        refuses: |r| {
            let given: Vec<_> = v6(&r.matches).collect();
            given.len() == 2 && given.iter().all(|address| *address == [0; 16])
        },
    },
    Check {
        text: "Only UDP and TCP transport are supported",
        source: "ice_tc_lib.c: ice_parse_cls_flower",
        refuses: |r| ports_of_others(&r.matches),
    },
    Check {
        text: "Unsupported action in switchdev mode",
        source: "ice_tc_lib.c: ice_eswitch_tc_parse_action",
        refuses: |r| has(r, |a| !matches!(a, Action::Drop | Action::Redirect(_))),
    },
];
