//! Every well-formed rule can be written as text and read back, and no text is too strange.
#![allow(dead_code)]

mod common;
#[path = "edit/naive.rs"]
mod naive;
#[path = "edit/ops.rs"]
mod ops;

use chanio_model::VportId;
use chanio_model::ct::{CtAction, CtNat, CtSpec, NatRange};
use chanio_model::edit::*;
use chanio_model::flow::{
    Action, Control, CtKey, FlowKey, KeyFlags, Match, Police, PortRange, RuleSpec, RuleTextError,
    Sample,
};
use chanio_model::meter::{ByteRate, MeterSpec, PacketRate};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use std::net::{IpAddr, Ipv4Addr};

fn field_edit() -> impl Strategy<Value = FieldEdit> {
    (select(Field::ALL), any::<(u128, u128, u8)>()).prop_map(|(field, (value, mask, n))| {
        let full = u128::MAX >> (128 - field.bits());
        let change = match (field.bits(), n % 3) {
            (8, 0) => FieldChange::Add(n),
            (_, 1) => FieldChange::Set {
                value: value & full,
                mask: full,
            },
            _ => FieldChange::Set {
                value: value & mask & full,
                mask: mask & full,
            },
        };
        FieldEdit { field, change }
    })
}

fn control() -> impl Strategy<Value = Control> {
    prop_oneof![
        Just(Control::Pipe),
        Just(Control::Drop),
        Just(Control::Pass),
        (0u32..9).prop_map(Control::Goto),
    ]
}

fn police() -> impl Strategy<Value = Action> {
    let peak = of(1u64..1 << 40);
    let bytes = (1u64..1 << 40, 1u32.., peak).prop_map(|(rate, burst, more)| MeterSpec {
        bytes: Some(ByteRate {
            rate,
            burst,
            peak: more.map(|more| rate + more),
        }),
        ..MeterSpec::default()
    });
    let packets = (1u64..1 << 40, 1u32..).prop_map(|(rate, burst)| MeterSpec {
        packets: Some(PacketRate { rate, burst }),
        ..MeterSpec::default()
    });
    let meter = (prop_oneof![bytes, packets], of(1u32..)).prop_map(|(mut meter, mtu)| {
        meter.mtu = mtu;
        meter
    });
    let index = prop_oneof![2 => Just(0), 1 => any::<u32>()];
    let whole = (index, meter, control(), control());
    let whole = whole.prop_map(|(index, meter, exceed, conform)| Police {
        index,
        meter,
        exceed,
        conform,
    });
    let reference = (1u32..).prop_map(|index| Police {
        index,
        meter: MeterSpec::default(),
        exceed: Control::Drop,
        conform: Control::Pipe,
    });
    let police = prop_oneof![4 => whole, 1 => reference];
    police.prop_map(|police| Action::Police(Box::new(police)))
}

fn ct() -> impl Strategy<Value = Action> {
    let range =
        (any::<(u32, u8)>(), of((any::<u16>(), any::<u8>()))).prop_map(|((ip, n), ports)| {
            let min = ip.min(u32::MAX - 255);
            let end = |ip: u32| IpAddr::V4(Ipv4Addr::from(ip));
            let ports = ports.map(|(port, n)| (port, port.saturating_add(n.into())));
            NatRange::new(end(min), end(min + u32::from(n)), ports).unwrap()
        });
    let nat = prop_oneof![
        Just(CtNat::Existing),
        range.clone().prop_map(CtNat::Src),
        range.prop_map(CtNat::Dst),
    ];
    let marks = (
        any::<(u32, u32)>(),
        any::<([u8; 16], [u8; 16])>(),
        any::<bool>(),
    );
    (any::<u16>(), any::<bool>(), marks, of(nat)).prop_map(|(zone, commit, marks, nat)| {
        let mut spec = CtSpec {
            zone,
            commit,
            nat,
            ..CtSpec::default()
        };
        let ((mark, mark_mask), (label, label_mask), force) = marks;
        if commit {
            spec.force = force;
            (spec.mark, spec.mark_mask) = (mark & mark_mask, mark_mask);
            spec.label_mask = label_mask;
            spec.label = label;
            spec.label
                .iter_mut()
                .zip(label_mask)
                .for_each(|(v, m)| *v &= m);
        }
        Action::Ct(Box::new(if zone == 0 && !commit {
            CtAction::Clear
        } else {
            CtAction::Track(spec)
        }))
    })
}

fn labels() -> impl Strategy<Value = Action> {
    let fields = (0u32..1 << 20, 0u8..8, any::<u8>(), of(any::<bool>()));
    (0u8..4, fields).prop_map(|(kind, (label, tc, ttl, bos))| match kind {
        0 => Action::MplsDecTtl,
        1 => Action::MplsPop(label as u16),
        2 => Action::MplsPush(MplsPush {
            proto: 0x8847 + u16::from(tc & 1),
            label,
            tc,
            ttl,
            bos,
        }),
        _ => Action::MplsModify(MplsModify {
            label: (ttl & 1 != 0).then_some(label),
            tc: (ttl & 2 != 0).then_some(tc),
            ttl: (tc & 1 != 0).then_some(ttl),
            bos,
        }),
    })
}

/// Every kind of action that does not end a list.
fn action() -> impl Strategy<Value = Action> {
    let proto = || select(&[VlanProto::Dot1Q, VlanProto::Dot1Ad][..]);
    let push = (proto(), 0u16..4095, 0u8..8);
    let modify = (proto(), 0u16..4095, of(0u8..8));
    prop_oneof![
        push.prop_map(|(proto, vid, prio)| Action::VlanPush(VlanTag { proto, vid, prio })),
        modify.prop_map(|(proto, vid, prio)| Action::VlanModify(VlanModify { proto, vid, prio })),
        Just(Action::VlanPop),
        vec(field_edit(), 1..4).prop_map(|edits| Action::Pedit(edits.into())),
        (1u8..128).prop_map(|bits| Action::Csum(Csums(bits))),
        ops::tunnel().prop_map(|set| Action::TunnelSet(Box::new(set))),
        Just(Action::TunnelUnset),
        labels(),
        police(),
        ct(),
        (1u32.., any::<u32>(), 0u32..9).prop_map(|(rate, group, to)| {
            Action::Sample(Sample {
                rate,
                group,
                to: VportId(to),
            })
        }),
    ]
}

/// Keys that the common generator does not have.
fn more_keys() -> impl Strategy<Value = Match> {
    let ct = (
        any::<(u16, u16)>(),
        any::<(u16, u16)>(),
        any::<(u32, u32)>(),
    );
    let ranges = (of((0u16..100, 1u16..100)), of((0u16..100, 1u16..100)));
    (any::<[u8; 8]>(), any::<[u8; 20]>(), ct, ranges).prop_map(|(kinds, bytes, ct, ranges)| {
        let mut matches = Match::default();
        let Match { value, mask, .. } = &mut matches;
        let set = |key: &mut FlowKey, full: &mut FlowKey, n: u16| {
            (key.eth_type, full.eth_type) = (n, u16::MAX);
        };
        match kinds[0] % 4 {
            0 => {
                set(value, mask, 0x0806);
                value.ip_src[..10].copy_from_slice(&bytes[..10]);
                mask.ip_src[..10].copy_from_slice(&bytes[10..]);
                if kinds[1] & 1 != 0 {
                    (value.ip_proto, mask.ip_proto) = (1 + (kinds[1] >> 1) % 2, 0xff);
                }
            }
            1 => {
                set(value, mask, 0x8847);
                for depth in 0..3 {
                    let whole = [0xffff_f000, 0xe00, 0x100, 0xff];
                    let bits = whole
                        .into_iter()
                        .zip(kinds)
                        .filter(|(_, k)| k >> depth & 1 != 0);
                    mask.set_mpls(depth, bits.map(|(bits, _)| bits).sum());
                    let at = depth * 4;
                    let word = bytes[at..at + 4].first_chunk().unwrap();
                    value.set_mpls(depth, u32::from_be_bytes(*word));
                }
            }
            2 => {
                set(value, mask, 0x86dd);
                (value.ip_proto, mask.ip_proto) = (58, 0xff);
                (value.l4_src, mask.l4_src) = (ct.0.0, ct.0.1);
            }
            _ => {
                set(value, mask, 0x0800);
                (value.ip_proto, mask.ip_proto) = (6, 0xff);
                (value.tcp_flags, mask.tcp_flags) = (ct.0.0, ct.0.1 & 0xfff);
                (value.ip_tos, mask.ip_tos) = (kinds[2], kinds[3]);
                (value.ip_ttl, mask.ip_ttl) = (kinds[4], kinds[5]);
            }
        }
        mask.flags = kinds[6] & (KeyFlags::FRAG | KeyFlags::FIRST_FRAG);
        value.flags = kinds[7];
        if kinds[7] & 16 != 0 {
            (value.vlan, mask.vlan) = (0x1007, 0x1fff);
            (value.cvlan, mask.cvlan) = (0xb009, 0xffff);
            mask.flags |= KeyFlags::VLAN_AD | KeyFlags::CVLAN_AD;
        }
        *value = value.masked(mask);
        let tcp = kinds[0] % 4 == 3;
        let more = matches.more_mut();
        let range = |(min, n)| PortRange { min, max: min + n };
        if tcp {
            (more.src_ports, more.dst_ports) = (ranges.0.map(range), ranges.1.map(range));
        }
        let key = |zone: (u16, u16), mark: (u32, u32)| {
            let mask = CtKey {
                zone: zone.1,
                mark: mark.1,
                state: 0x0b,
                ..CtKey::default()
            };
            let value = CtKey {
                zone: zone.0 & zone.1,
                mark: mark.0 & mark.1,
                state: 0x0a,
                ..mask
            };
            (value, mask)
        };
        if kinds[5] & 1 != 0 {
            (more.ct.value, more.ct.mask) = key(ct.1, ct.2);
        }
        matches.normalize();
        matches
    })
}

fn assert_round_trip(spec: RuleSpec) -> Result<(), TestCaseError> {
    prop_assert_eq!(spec.check(), Ok(()));
    let text = spec.to_string();
    prop_assert_eq!(text.parse::<RuleSpec>(), Ok(spec), "{}", text);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn reading_what_was_written(spec in common::spec(6)) {
        assert_round_trip(spec)?;
    }

    #[test]
    fn every_key_and_action(
        matches in more_keys(),
        actions in vec(action(), 1..6),
        idle_timeout in any::<u32>(),
    ) {
        let actions = actions.into();
        assert_round_trip(RuleSpec { matches, actions, idle_timeout, ..RuleSpec::default() })?;
    }

    #[test]
    fn words_in_any_order_are_read_or_refused(
        words in proptest::collection::vec(
            prop::sample::select(&[
                "prio", "in_port", "src_mac", "eth_type", "vlan_id", "vlan_prio", "src_ip",
                "dst_ip", "ip_proto", "src_port", "cookie", "action", "drop", "redirect", "uplink",
                "vport:7", "ipv4", "ipv6", "tcp", "10", "0x10", "none", "any", "10.0.0.1/8",
                "::/0", "1/1", "/", "0x", "-1", "99999999999999999999", "é", "chain", "arp",
                "arp_sip", "mpls_label@2", "mpls_uc", "type", "icmp", "enc_kind", "geneve",
                "geneve_opts", "0102:80:", "ct_state", "+trk", "ct", "zone", "commit", "vlan",
                "push", "pop", "id", "pedit", "munge", "ip", "ttl", "set", "dec", "police", "rate",
                "1mbit", "burst", "tunnel_key", "sample", "to", "goto", "mpls", "csum", "tcp/udp",
            ][..]),
            0..30,
        ),
    ) {
        if let Ok(spec) = words.join(" ").parse::<RuleSpec>() {
            assert_round_trip(spec)?;
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let result: Result<RuleSpec, RuleTextError> = text.parse();
        if let Err(error) = result {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
