//! The fast tables find what asking every rule in turn finds, after any history.

mod common;

use chanio_model::RuleId;
use chanio_model::flow::reference::LinearTables;
use chanio_model::flow::{FlowKey, Rule, RuleSpec, Seen, Tables};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Step {
    Add(RuleId, Box<RuleSpec>),
    Remove(RuleId),
}

fn step() -> impl Strategy<Value = Step> {
    let id = || (0u64..60).prop_map(RuleId);
    prop_oneof![
        3 => (id(), common::spec(4)).prop_map(|(id, spec)| Step::Add(id, Box::new(spec))),
        1 => id().prop_map(Step::Remove),
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
                Step::Add(id, spec) => {
                    let rule = Arc::new(Rule::new(id, *spec, 1).unwrap());
                    let added = fast.insert(rule.clone());
                    prop_assert_eq!(added, slow.insert(rule));
                    added
                }
                Step::Remove(id) => {
                    let removed = fast.remove(id);
                    prop_assert_eq!(found(removed.as_ref()), found(slow.remove(id).as_ref()));
                    removed.is_some()
                }
            };
            prop_assert_eq!(fast.generation() != generation, changed);
        }
        let mut hits = 0;
        for key in &keys {
            for chain in 0..4 {
                let want = found(slow.lookup(chain, Seen::plain(key)));
                prop_assert_eq!(found(fast.lookup(chain, Seen::plain(key))), want);
                hits += usize::from(want.is_some());
            }
        }
        prop_assert!(hits > 0 || fast.len() < 20, "the test must not look at misses only");
        let masks: std::collections::HashSet<(u32, FlowKey)> =
            fast.iter().map(|r| (r.spec().chain, r.spec().matches.mask)).collect();
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
