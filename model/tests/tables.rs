//! The fast tables find what asking every rule in turn finds, after any history.

mod common;

use chanio_model::RuleId;
use chanio_model::flow::reference::LinearTables;
use chanio_model::flow::{
    CtKey, FlowKey, Inner, Masked, Match, More, Origin, Policers, PortRange, Rule, RuleSpec, Seen,
    Tables, TunnelKey,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Step {
    Add(RuleId, Origin, Box<RuleSpec>),
    Remove(RuleId),
    RemoveAllOf(Origin),
}

const ORIGINS: [Origin; 3] = [Origin::Control, Origin::Tc, Origin::Bridge];

fn step() -> impl Strategy<Value = Step> {
    let id = || (0u64..60).prop_map(RuleId);
    prop_oneof![
        30 => (id(), select(&ORIGINS), common::spec(4))
            .prop_map(|(id, origin, spec)| Step::Add(id, origin, Box::new(spec))),
        10 => id().prop_map(Step::Remove),
        1 => select(&ORIGINS).prop_map(Step::RemoveAllOf),
    ]
}

fn found(rule: Option<&Arc<Rule>>) -> Option<RuleId> {
    rule.map(|r| r.id())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn same_rule_as_the_linear_reference(
        steps in vec(step(), 1..150),
        keys in vec(common::key(4), 40),
    ) {
        let (mut fast, mut slow) = (Tables::default(), LinearTables::default());
        for step in steps {
            let generation = fast.generation();
            let changed = match step {
                Step::Add(id, origin, spec) => {
                    let rule = Arc::new(Rule::of(origin, id, *spec, 1, &mut Policers::default()).unwrap());
                    let added = fast.insert(rule.clone());
                    prop_assert_eq!(added, slow.insert(rule));
                    added
                }
                Step::Remove(id) => {
                    let removed = fast.remove(id);
                    prop_assert_eq!(found(removed.as_ref()), found(slow.remove(id).as_ref()));
                    removed.is_some()
                }
                Step::RemoveAllOf(origin) => {
                    let gone = fast.remove_all_of(origin);
                    prop_assert_eq!(gone, slow.remove_all_of(origin));
                    gone > 0
                }
            };
            prop_assert_eq!(fast.generation() != generation, changed);
        }
        let mut hits = 0;
        for key in &keys {
            for (chain, origin) in (0..4).flat_map(|chain| ORIGINS.map(|origin| (chain, origin))) {
                let chain = origin.chain(chain);
                let want = found(slow.lookup(chain, Seen::plain(key)));
                prop_assert_eq!(found(fast.lookup(chain, Seen::plain(key))), want);
                hits += usize::from(want.is_some());
            }
        }
        prop_assert!(hits > 0 || fast.len() < 20, "the test must not look at misses only");
        let masks: std::collections::HashSet<(u32, FlowKey)> =
            fast.iter().map(|r| (r.chain(), r.spec().matches.mask)).collect();
        prop_assert_eq!(fast.masks(), masks.len());
    }

    /// The order in which rules came, and rules that came and went, leave no trace.
    #[test]
    fn history_does_not_matter(
        specs in vec(common::spec(4), 1..60),
        passing in vec(common::spec(4), 0..30),
        order in any::<prop::sample::Index>(),
        keys in vec(common::key(4), 40),
    ) {
        let rules: Vec<_> = (0..)
            .zip(specs)
            .map(|(id, spec)| Arc::new(Rule::new(RuleId(id), spec, 1).unwrap()))
            .collect();
        let mut plain = Tables::default();
        rules.iter().for_each(|r| assert!(plain.insert(r.clone())));

        let mut other = Tables::default();
        let mut turned = rules.clone();
        turned.rotate_left(order.index(rules.len()));
        turned.reverse();
        for (n, spec) in (1000..).zip(passing) {
            assert!(other.insert(Arc::new(Rule::new(RuleId(n), spec, 1).unwrap())));
        }
        turned.iter().for_each(|r| assert!(other.insert(r.clone())));
        for id in 1000..1030 {
            other.remove(RuleId(id));
        }
        prop_assert_eq!(plain.masks(), other.masks());
        for key in &keys {
            prop_assert_eq!(found(plain.lookup(0, Seen::plain(key))), found(other.lookup(0, Seen::plain(key))));
        }
        for rule in &rules {
            prop_assert!(other.remove(rule.id()).is_some());
        }
        prop_assert_eq!((other.len(), other.masks()), (0, 0));
    }
}

/// What few rules ask for, out of a small world.
fn more() -> impl Strategy<Value = Option<Box<More>>> {
    let tunnel = (0u32..3, 0u8..3, any::<[bool; 3]>()).prop_map(|(id, kind, has)| {
        let mut mask = TunnelKey {
            kind: 0xff,
            ..TunnelKey::default()
        };
        mask.id = if has[0] { u32::MAX } else { 0 };
        mask.tos = if has[1] { 0xf0 } else { 0 };
        let value = TunnelKey {
            kind: 1 + kind,
            id: id & mask.id,
            ..TunnelKey::default()
        };
        Box::new(Masked { value, mask })
    });
    let range = || proptest::option::of((0u16..3, 1u16..3));
    (
        0u16..3,
        any::<bool>(),
        proptest::option::of(tunnel),
        range(),
        range(),
    )
        .prop_map(|(zone, ct, tunnel, src, dst)| {
            let mut more = More {
                tunnel,
                ..More::default()
            };
            if ct {
                more.ct.mask.zone = u16::MAX;
                more.ct.value.zone = zone;
            }
            let range = |(min, n)| PortRange { min, max: min + n };
            (more.src_ports, more.dst_ports) = (src.map(range), dst.map(range));
            (!more.is_empty()).then(|| Box::new(more))
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The same of rules that ask for ranges, outer headers, connections.
    #[test]
    fn same_rule_whatever_is_asked_for(
        rules in vec((common::spec(4), more()), 1..60),
        gone in vec(any::<prop::sample::Index>(), 0..20),
        packets in vec((common::key(4), common::key(4), 0u16..3, 0u32..3, 0u8..4), 40),
    ) {
        let (mut fast, mut slow) = (Tables::default(), LinearTables::default());
        for (id, (mut spec, more)) in (0..).zip(rules) {
            let matches = &mut spec.matches;
            let Match { value, mask, .. } = matches;
            let ported = mask.ip_proto != 0 && value.ip_proto != 1;
            matches.more = more;
            if let Some(more) = &mut matches.more {
                if !ported || matches.mask.l4_src != 0 {
                    more.src_ports = None;
                }
                if !ported || matches.mask.l4_dst != 0 {
                    more.dst_ports = None;
                }
            }
            matches.normalize();
            let rule = Arc::new(Rule::new(RuleId(id), spec, 1).unwrap());
            prop_assert!(fast.insert(rule.clone()) && slow.insert(rule));
        }
        let count = fast.len();
        for index in gone {
            let id = RuleId(index.index(count) as u64);
            prop_assert_eq!(found(fast.remove(id).as_ref()), found(slow.remove(id).as_ref()));
        }
        for (outer, inner, zone, id, kind) in &packets {
            let ct = CtKey { zone: *zone, ..CtKey::default() };
            let tunnel = TunnelKey { kind: *kind, id: *id, ..TunnelKey::default() };
            let inner = (*kind > 0).then_some(Inner { flow: inner, tunnel: &tunnel });
            let seen = Seen { flow: outer, ct: &ct, inner };
            for chain in 0..4 {
                let want = found(slow.lookup(chain, seen));
                prop_assert_eq!(found(fast.lookup(chain, seen)), want);
            }
        }
        for rule in fast.iter() {
            let spec = rule.spec();
            let same = slow.find(spec.chain, spec.priority, &spec.matches);
            let fast = fast.find(spec.chain, spec.priority, &spec.matches);
            prop_assert_eq!(found(fast), found(same));
        }
    }
}

#[test]
fn counters_are_summed_over_workers() {
    let rule = Rule::new(RuleId(1), "action drop".parse().unwrap(), 2).unwrap();
    rule.count(0, 60, 5);
    rule.count(1, 1500, 9);
    rule.count(1, 40, 7);
    rule.count(2, 1, 1);
    let totals = rule.totals();
    assert_eq!(
        (totals.packets, totals.bytes, totals.last_used),
        (3, 1600, 7)
    );
}
