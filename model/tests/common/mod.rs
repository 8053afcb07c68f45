//! Random rules and packets out of small worlds, so that they meet.
#![allow(dead_code)]

use chanio_model::flow::{Action, Actions, FlowKey, Match, RuleSpec};
use chanio_model::{Mac, VportId};
use proptest::prelude::*;
use proptest::sample::select;

/// Station addresses, and two groups.
pub const MACS: [Mac; 7] = [
    Mac([2, 0, 0, 0, 0, 1]),
    Mac([2, 0, 0, 0, 0, 2]),
    Mac([2, 0, 0, 0, 0, 3]),
    Mac([2, 0, 0, 0, 0, 4]),
    Mac([0, 0, 0, 0, 0, 0]),
    Mac([1, 0, 0x5e, 0, 0, 1]),
    Mac::BROADCAST,
];

fn address() -> impl Strategy<Value = [u8; 16]> {
    (0u8..3, 0u8..3).prop_map(|(a, b)| [10, a, 0, b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// A packet as a parser could have seen it; `ports` is how many vports there are, the uplink
/// included.
pub fn key(ports: u32) -> impl Strategy<Value = FlowKey> {
    let l2 = (0..ports as u16, select(&MACS[..]), select(&MACS[..]));
    let vlan = select(&[0u16, 0, 0x1000, 0x1005, 0x1006][..]);
    let l3 = (0u8..4, address(), address(), select(&[6u8, 17, 1][..]));
    (l2, vlan, 0u16..8, l3, 1u16..4, 1u16..4).prop_map(
        |((in_port, eth_src, eth_dst), vlan, prio, (kind, ip_src, ip_dst, proto), sport, dport)| {
            let mut key = FlowKey {
                eth_dst,
                eth_src,
                in_port,
                vlan: if vlan == 0 { 0 } else { vlan | prio << 13 },
                eth_type: [0x0800, 0x86dd, 0x0806, 0x88cc][usize::from(kind)],
                ..FlowKey::default()
            };
            if kind < 2 {
                (key.ip_src, key.ip_dst, key.ip_proto) = (ip_src, ip_dst, proto);
                if proto != 1 {
                    (key.l4_src, key.l4_dst) = (sport, dport);
                }
            }
            key
        },
    )
}

/// A well-formed match that covers `key`, with each part of the mask there or not.
fn match_for(key: FlowKey, parts: u16, lens: (u8, u8), odd_mask: [u8; 6]) -> Match {
    let has = |bit: u16| parts & 1 << bit != 0;
    let mut mask = FlowKey::default();
    if has(0) {
        mask.in_port = u16::MAX;
    }
    if has(1) {
        mask.eth_src = Mac(if has(10) { odd_mask } else { [0xff; 6] });
    }
    if has(2) {
        mask.eth_dst = Mac([0xff; 6]);
    }
    if has(3) {
        mask.vlan = 0x1fff;
        if key.vlan != 0 && has(11) {
            mask.vlan = 0x1000;
        }
        if key.vlan != 0 && has(12) {
            mask.vlan |= 0xf000;
        }
    }
    let ip = key.eth_type == 0x0800 || key.eth_type == 0x86dd;
    if has(4) {
        mask.eth_type = u16::MAX;
    }
    if has(4) && ip {
        let width = if key.eth_type == 0x0800 { 32 } else { 128 };
        let prefix = |len: u8| {
            let clear = 128 - u32::from(len) % (width + 1);
            u128::MAX.checked_shl(clear).unwrap_or(0).to_be_bytes()
        };
        if has(5) {
            mask.ip_src = prefix(lens.0);
            if has(13) {
                mask.ip_src[1] = odd_mask[0];
            }
        }
        if has(6) {
            mask.ip_dst = prefix(lens.1);
        }
        if has(7) {
            mask.ip_proto = 0xff;
            if key.ip_proto != 1 {
                mask.l4_src = if has(8) { 0xffff } else { 0 };
                mask.l4_dst = match (has(9), has(14)) {
                    (false, _) => 0,
                    (true, false) => 0xffff,
                    (true, true) => u16::from_be_bytes([odd_mask[1], odd_mask[2]]),
                };
            }
        }
    }
    Match {
        value: key.masked(&mask),
        mask,
        more: None,
    }
}

pub fn actions(ports: u32) -> impl Strategy<Value = Actions> {
    // One port more than there are: a target that does not exist.
    let mirror = (0..=ports).prop_map(|v| Action::Mirror(VportId(v)));
    let last = prop_oneof![
        Just(Action::Drop),
        Just(Action::Pass),
        Just(Action::Trap),
        (0u32..4).prop_map(Action::Goto),
        (0..=ports).prop_map(|v| Action::Redirect(VportId(v))),
    ];
    let mirrors = prop_oneof![
        3 => Just(Vec::new()).boxed(),
        1 => proptest::collection::vec(mirror, 1..8).boxed(),
    ];
    // One list in six just ends.
    (mirrors, last, 0..6).prop_map(|(mirrors, last, end)| {
        let last = (end > 0 || mirrors.is_empty()).then_some(last);
        mirrors.into_iter().chain(last).collect()
    })
}

/// A well-formed rule.
pub fn spec(ports: u32) -> impl Strategy<Value = RuleSpec> {
    let parts = (any::<u16>(), any::<u16>()).prop_map(|(a, b)| a & b);
    let shape = (parts, any::<(u8, u8)>(), any::<[u8; 6]>());
    let place = (select(&[0u32, 0, 0, 1, 2, 3][..]), 1u16..6);
    (place, key(ports), shape, actions(ports), any::<u64>()).prop_map(
        |((chain, priority), key, (parts, lens, odd), actions, cookie)| RuleSpec {
            chain,
            priority,
            matches: match_for(key, parts, lens, odd),
            actions,
            cookie: cookie % 3,
            ..RuleSpec::default()
        },
    )
}
