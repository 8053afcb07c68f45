//! What rules do to packets, byte for byte, against an interpreter that keeps frames as byte
//! vectors and asks every rule in turn.
#![allow(dead_code)]

#[path = "../edit/frames.rs"]
mod frames;
mod interpreter;
#[path = "../edit/naive.rs"]
mod naive;
#[path = "../edit/ops.rs"]
mod ops;

use chanio_model::edit::*;
use chanio_model::eswitch::{
    Arriving, Change, Dest, Fdb, FlowCache, Meta, Mode, Output, Outputs, Switch, VportConfig,
};
use chanio_model::flow::{Action, FlowKey, Match, Rule, RuleSpec, TunnelFlags, TunnelKey};
use chanio_model::wire::{self, HEAD_LEN};
use chanio_model::{DropReason, RuleId, Vlan, VportId};
use frames::spec as frame_spec;
use interpreter::{Interpreter, TAGGED_PORT, VID};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::sync::Arc;

/// A switch in switchdev mode with ports 1 to 4, the last one in a VLAN of its own.
fn switch(rules: &[Arc<Rule>]) -> Switch {
    let mut switch = Switch::default();
    let ports = ops::ports();
    let mut changes = vec![
        Change::SetMode(Mode::Switchdev),
        Change::SetTunnelPorts(ports),
    ];
    for id in 1..=4 {
        let config = VportConfig {
            port_vlan: (VportId(id) == TAGGED_PORT).then(|| Vlan::new(VID).unwrap()),
            mtu: u16::MAX,
            ..VportConfig::default()
        };
        changes.push(Change::AddVport(VportId(id), Arc::new(config)));
    }
    changes.extend(rules.iter().cloned().map(Change::AddRule));
    for change in &changes {
        switch.apply(change).unwrap();
    }
    switch
}

/// A copy as it is delivered.
fn delivered(output: &Output, out: &Outputs, frame: &[u8]) -> (Dest, Vec<u8>) {
    let bytes = out.heads.whole(output, frame);
    (output.dest, bytes.expect("a copy of this frame"))
}

/// Equal, or the other zero where a checksum may be.
fn same(a: &[u8], b: &[u8]) -> bool {
    let zero = |bytes: &[u8], i: usize| {
        let at = |i: usize| {
            bytes
                .get(i..i + 2)
                .is_some_and(|b| b == [0, 0] || b == [255, 255])
        };
        at(i) || i > 0 && at(i - 1)
    };
    a.len() == b.len() && (0..a.len()).all(|i| a[i] == b[i] || zero(a, i) && zero(b, i))
}

/// Random parts of a key, such that the match is well formed.
fn match_of(key: &FlowKey, parts: u16) -> Match {
    let has = |bit: u16| parts & 1 << bit != 0;
    let mut mask = FlowKey::default();
    if has(0) {
        mask.in_port = u16::MAX;
    }
    if has(1) {
        mask.eth_dst = chanio_model::Mac([0xff; 6]);
    }
    if has(2) {
        mask.vlan = if key.vlan == 0 {
            0x1fff
        } else {
            [0x1fff, 0xffff, 0x1000][usize::from(parts) % 3]
        };
    }
    // No rule can ask for VLAN 4095.
    let asks = |tag: u16| tag & 0xfff != 0xfff;
    if !asks(key.vlan) {
        mask.vlan &= 0x1000;
    }
    if has(2) && key.vlan != 0 && has(3) && asks(key.cvlan) {
        mask.cvlan = 0x1fff;
    }
    let ip = matches!(key.eth_type, 0x0800 | 0x86dd);
    if has(4) {
        mask.eth_type = u16::MAX;
        if ip {
            let bytes = if key.eth_type == 0x0800 { 4 } else { 16 };
            if has(5) {
                mask.ip_src[..bytes].fill(0xff);
            }
            if has(6) {
                mask.ip_ttl = 0xff;
            }
            if has(7) {
                mask.ip_tos = 0xfc;
            }
            if has(8) {
                mask.ip_proto = 0xff;
                if has(9) && matches!(key.ip_proto, 6 | 17 | 132) {
                    mask.l4_dst = u16::MAX;
                }
            }
        }
    }
    Match {
        value: key.masked(&mask),
        mask,
        more: None,
    }
}

fn step() -> impl Strategy<Value = Action> {
    let proto = || select(&[VlanProto::Dot1Q, VlanProto::Dot1Ad][..]);
    let push = (proto(), select(&[5u16, 6, 0][..]), 0u8..8);
    let modify = (
        proto(),
        select(&[5u16, 6][..]),
        proptest::option::of(0u8..8),
    );
    let edit = (select(Field::ALL), any::<u128>()).prop_map(|(field, value)| {
        let mask = u128::MAX >> (128 - field.bits());
        match (field.bits(), value % 3) {
            (8, 0) => FieldEdit {
                field,
                change: FieldChange::Add((value >> 8) as u8),
            },
            _ => FieldEdit::set(field, value & mask),
        }
    });
    prop_oneof![
        4 => (0u32..5).prop_map(|port| Action::Mirror(VportId(port))),
        2 => push.prop_map(|(proto, vid, prio)| Action::VlanPush(VlanTag { proto, vid, prio })),
        2 => Just(Action::VlanPop),
        1 => modify.prop_map(|(proto, vid, prio)| Action::VlanModify(VlanModify { proto, vid, prio })),
        4 => vec(edit, 1..3).prop_map(|edits| Action::Pedit(edits.into())),
        1 => ops::tunnel().prop_map(|set| Action::TunnelSet(Box::new(set))),
        1 => Just(Action::TunnelUnset),
    ]
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let last = prop_oneof![
        1 => Just(None),
        1 => Just(Some(Action::Drop)),
        1 => Just(Some(Action::Pass)),
        3 => (0u32..6).prop_map(|port| Some(Action::Redirect(VportId(port)))),
        3 => (0u32..4).prop_map(|chain| Some(Action::Goto(chain))),
    ];
    (vec(step(), 0..5), last).prop_map(|(mut list, last)| {
        list.extend(last);
        if list.is_empty() {
            list.push(Action::Trap);
        }
        list
    })
}

fn key_of(frame: &[u8], in_port: VportId) -> FlowKey {
    let head = &frame[..frame.len().min(HEAD_LEN)];
    wire::parse(head, frame.len() as u32, in_port).unwrap().key
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn same_bytes_and_counters_as_the_interpreter(
        frames in vec((frame_spec(), 1u32..5), 1..4),
        rules in vec((0u32..4, 1u16..4, any::<Index>(), any::<(u16, u16)>(), actions()), 1..8),
    ) {
        let frames: Vec<_> =
            frames.iter().map(|(spec, port)| (spec.build(), VportId(*port))).collect();
        let rules: Vec<_> = (1..).zip(rules).map(|(id, (chain, priority, of, parts, actions))| {
            let (frame, port) = of.get(&frames);
            let spec = RuleSpec {
                chain,
                priority,
                matches: match_of(&key_of(frame, *port), parts.0 & parts.1),
                actions: actions.into(),
                ..RuleSpec::default()
            };
            Arc::new(Rule::new(RuleId(id), spec, 1).unwrap())
        }).collect();
        let switch = switch(&rules);
        let mut interpreter = Interpreter::new(&rules);
        let (fdb, mut cache) = (Fdb::default(), FlowCache::default());
        let mut out = Outputs::default();
        for (frame, port) in &frames {
            let head = &frame[..frame.len().min(HEAD_LEN)];
            let parsed = wire::parse(head, frame.len() as u32, *port).unwrap();
            let meta = Meta::new(frame.len() as u32, &parsed, None, 7, 0);
            let packet = Arriving { key: &parsed.key, meta, head, offload: None };
            // The second and third time rules may come out of the cache.
            for round in 0..3 {
                switch.begin_burst(&mut cache);
                out.begin_burst();
                let slot = switch.slot(&cache, &parsed.key);
                let result = match round {
                    0 => switch.from_vport(&fdb, packet, &mut out),
                    _ => switch.from_vport_cached(&mut cache, slot, &fdb, packet, &mut out),
                };
                let lost = out.lost.iter().map(|(_, reason)| *reason).chain(result.err());
                let beyond = |r: DropReason| matches!(
                    r,
                    DropReason::RewriteRoom | DropReason::RewriteDepth | DropReason::RewriteLength
                );
                if lost.clone().any(beyond) {
                    // What a head can hold is for the tests of single edits.
                    return Ok(());
                }
                let want = interpreter.run(frame, *port);
                if want.deep {
                    // Nobody finds IP behind so many tags, be they pushed by rules.
                    return Ok(());
                }
                prop_assert_eq!(result.err(), want.error);
                prop_assert_eq!(&out.lost, &want.lost);
                prop_assert_eq!(out.list.len(), want.copies.len());
                for (output, copy) in out.list.iter().zip(&want.copies) {
                    let (dest, bytes) = delivered(output, &out, frame);
                    let wanted = copy.bytes(&bytes);
                    prop_assert_eq!(dest, copy.dest);
                    prop_assert!(same(&bytes, &wanted), "{:02x?}\n{:02x?}", bytes, wanted);
                }
            }
        }
        for rule in &rules {
            for (action, _) in rule.spec().actions.iter().enumerate() {
                let totals = rule.action_totals(action);
                let counted = (totals.packets, totals.bytes);
                prop_assert_eq!(counted, interpreter.counted(rule.id(), action), "{}", rule.spec());
            }
        }
    }

    /// A rule for what is in a tunnel takes the packet out of it, unless a better one is for the
    /// outer headers.
    #[test]
    fn tunnels_are_left(
        inner in frame_spec(),
        set in ops::tunnel(),
        prio in 1u16..4,
        wrong: bool,
        then_chain: bool,
    ) {
        let inside = inner.build();
        prop_assume!(set.payload == Payload::Ethernet);
        let mut frame = inside.clone();
        naive::tunnel_set(&mut frame, &set, 40_000, 1);
        let tunnel = tunnel_key(&set);
        let mut matches = match_of(&key_of(&inside, VportId(0)), 0b110_0010_0010);
        let mut mask = TunnelKey { id: u32::MAX, kind: u8::MAX, dst: [0xff; 16], ..TunnelKey::default() };
        mask.flags = TunnelFlags::IPV6;
        if set.dst.is_ipv4() {
            mask.dst[4..].fill(0);
        }
        if set.kind == TunnelKind::Geneve {
            mask.options_len = u16::MAX;
            mask.options[..set.options.len()].copy_from_slice(&[0xff; 252][..set.options.len()]);
            let mut at = 3;
            while at < set.options.len() {
                mask.options[at] = 0x1f;
                at += 4 + usize::from(set.options[at] & 0x1f) * 4;
            }
        }
        let mut value = masked(&tunnel, &mask);
        if wrong {
            value.id ^= 1;
        }
        let part = matches.more_mut().tunnel.get_or_insert_default();
        (part.value, part.mask) = (value, mask);
        // Another look at what is inside, with what was around it.
        let second = matches.clone();
        let last = if then_chain { Action::Goto(1) } else { Action::Redirect(VportId(2)) };
        let specs = [
            (0, 2, matches, last),
            (0, prio, Match::default(), Action::Redirect(VportId(3))),
            (1, 1, second, Action::Redirect(VportId(2))),
        ];
        let rules: Vec<_> = (1..).zip(specs).map(|(id, (chain, priority, matches, action))| {
            let actions = [action].into();
            let spec = RuleSpec { chain, priority, matches, actions, ..RuleSpec::default() };
            let text = spec.to_string();
            prop_assert_eq!(text.parse::<RuleSpec>(), Ok(spec.clone()), "{}", text);
            Ok(Arc::new(Rule::new(RuleId(id), spec, 1).unwrap()))
        }).collect::<Result<_, TestCaseError>>()?;
        let switch = switch(&rules);
        let head = &frame[..frame.len().min(HEAD_LEN + 330)];
        let parsed = wire::parse(head, frame.len() as u32, VportId::UPLINK).unwrap();
        let meta = Meta::new(frame.len() as u32, &parsed, None, 7, 0);
        let packet = Arriving { key: &parsed.key, meta, head, offload: None };
        let mut out = Outputs::default();
        let result = switch.from_vport(&Fdb::default(), packet, &mut out);
        if wrong || prio < 2 {
            let output = *out.list.first().unwrap();
            prop_assert_eq!(delivered(&output, &out, &frame), (Dest::Vport(VportId(3)), frame));
            return Ok(());
        }
        let mut want = frame.clone();
        if !naive::tunnel_unset(&mut want, &set) {
            prop_assert!(result.is_err());
            return Ok(());
        }
        prop_assert_eq!(result, Ok(()));
        let (dest, bytes) = delivered(&out.list[0], &out, &frame);
        prop_assert_eq!(dest, Dest::Vport(VportId(2)));
        prop_assert!(same(&bytes, &want), "{:02x?}\n{:02x?}", bytes, want);
        prop_assert_eq!(rules[0].totals().bytes, want.len() as u64);
    }
}

fn tunnel_key(set: &TunnelSet) -> TunnelKey {
    let mut key = TunnelKey {
        kind: TunnelKey::number(set.kind),
        id: set.key.unwrap_or(0),
        options_len: set.options.len() as u16,
        ..TunnelKey::default()
    };
    key.options[..set.options.len()].copy_from_slice(&set.options);
    match set.dst {
        std::net::IpAddr::V4(v4) => key.dst[..4].copy_from_slice(&v4.octets()),
        std::net::IpAddr::V6(v6) => {
            key.dst = v6.octets();
            key.flags = TunnelFlags::IPV6;
        }
    }
    key
}

fn masked(key: &TunnelKey, mask: &TunnelKey) -> TunnelKey {
    let mut words = *key.words();
    words
        .iter_mut()
        .zip(mask.words())
        .for_each(|(word, mask)| *word &= mask);
    let mut out = TunnelKey::default();
    bytes_of(&mut out).copy_from_slice(&words.map(u64::to_ne_bytes).concat());
    out
}

fn bytes_of(key: &mut TunnelKey) -> &mut [u8] {
    bytemuck::bytes_of_mut(key)
}
