//! The law: hardware and kernel together give what the kernel alone would have given.

use super::*;
use chanio_model::edit::Edited;
use chanio_model::eswitch::{
    Arriving, Change, Dest, Fdb, FdbLimits, Meta, Mode, Outputs, Switch, VportConfig,
};
use chanio_model::flow::{Origin, Policers, Rule};
use chanio_model::{RuleId, wire};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::sync::Arc;

const MATCHES: [&str; 7] = [
    "",
    "ip4",
    "udp4",
    "udp4 dst_port 7",
    "tcp4",
    "dst_mac 02:00:00:00:00:02",
    "vlan5",
];
const BEFORE: [&str; 5] = [
    "",
    "",
    "action mirror p3",
    "action vlan push id 5",
    "action pedit ex munge eth dst set 02:00:00:00:00:02",
];
const LAST: [&str; 9] = [
    "action drop",
    "action pass",
    "action redirect p2",
    "action redirect p3",
    "action goto chain 1",
    "action goto chain 2",
    "action goto chain 1",
    "action goto chain 2",
    "",
];

/// Text and flags.
fn rule() -> impl Strategy<Value = (String, u32)> {
    let flags = prop_oneof![4 => Just(0), 1 => Just(RuleFlags::SKIP_HW)];
    (
        0u32..3,
        1u16..6,
        select(&MATCHES),
        select(&BEFORE),
        select(&LAST),
        flags,
    )
        .prop_map(|(chain, prio, matches, before, last, flags)| {
            let last = if before.is_empty() && last.is_empty() {
                "action drop"
            } else {
                last
            };
            let chain = if chain == 0 {
                String::new()
            } else {
                format!("chain {chain} ")
            };
            (
                format!("{chain}prio {prio} in_port p1 {matches} {before} {last}"),
                flags,
            )
        })
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let to = select(&[2u8, 9]);
    (any::<bool>(), to, select(&[17u8, 6, 1]), select(&[7u16, 8])).prop_map(
        |(tagged, to, proto, port)| {
            let mut frame = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, 1];
            if tagged {
                frame.extend([0x81, 0, 0, 5]);
            }
            frame.extend([8, 0, 0x45, 0, 0, 60, 0, 0, 0, 0, 64, proto, 0, 0]);
            frame.extend([10, 0, 0, 1, 10, 0, 0, 2, 0, 9]);
            frame.extend(port.to_be_bytes());
            frame.extend([0, 40, 0, 0]);
            frame.resize(frame.len() + 32, 0x55);
            frame
        },
    )
}

fn switch(rules: Vec<(Origin, RuleSpec)>) -> Switch {
    let mut switch = Switch::default();
    let mut changes = vec![Change::SetMode(Mode::Switchdev)];
    let config = Arc::new(VportConfig::default());
    changes.extend((1..=4).map(|n| Change::AddVport(VportId(n), config.clone())));
    for (id, (origin, spec)) in (1..).zip(rules) {
        let rule = Rule::of(origin, RuleId(id), spec, 1, &mut Policers::default()).unwrap();
        changes.push(Change::AddRule(Arc::new(rule)));
    }
    changes
        .iter()
        .for_each(|change| switch.apply(change).unwrap());
    switch
}

/// Where copies of a frame go, in order.
fn run(switch: &Switch, frame: &[u8]) -> Vec<(Dest, Vec<u8>)> {
    let (fdb, len) = (Fdb::new(FdbLimits::default()), frame.len() as u32);
    let parsed = wire::parse(frame, len, VportId(1)).unwrap();
    let packet = Arriving {
        key: &parsed.key,
        meta: Meta::new(len, &parsed, None, 1, 0),
        head: &frame[..frame.len().min(wire::HEAD_LEN)],
        offload: None,
    };
    let mut out = Outputs::for_worker(0);
    out.begin_burst();
    if switch.from_vport(&fdb, packet, &mut out).is_err() {
        return Vec::new();
    }
    let copy = |output: &chanio_model::eswitch::Output| {
        let bytes = match out.heads.get(output.head) {
            None => frame.to_vec(),
            Some(Edited {
                head, taken, tail, ..
            }) => [head, &frame[taken as usize..][..tail as usize]].concat(),
        };
        (output.dest, bytes)
    };
    out.list.iter().map(copy).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn with_the_kernel_it_is_as_without_hardware(
        rules in vec(rule(), 1..12),
        frames in vec(frame(), 8),
    ) {
        let mut world = World::new();
        let mut alone = Vec::new();
        for (handle, (text, flags)) in (1..).zip(&rules) {
            world.filter(handle, text, *flags);
            alone.push((Origin::Tc, spec(text)));
        }
        let plan = world.plan();
        let alone = switch(alone);
        let hardware = switch(plan.rules.iter().map(|(_, o, s)| (*o, s.clone())).collect());
        for frame in &frames {
            let mut together = Vec::new();
            for (dest, bytes) in run(&hardware, frame) {
                match dest {
                    Dest::Vport(_) => together.push((dest, bytes)),
                    // Whatever gets there the kernel treats from the start.
                    Dest::Representor(_) => together.extend(run(&alone, &bytes)),
                }
            }
            prop_assert_eq!(together, run(&alone, frame), "{:?}\n{:#?}", rules, plan.texts());
        }
        // What is said to be in hardware is there, and nothing else.
        for listed in &plan.listed {
            let there = plan.rules.iter().any(|(key, ..)| {
                key.0 == listed.source && matches!(key.1, Part::Filter(_))
            });
            prop_assert_eq!(there, listed.why_not.is_none());
        }
    }
}
