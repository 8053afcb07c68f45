//! The switch against a naive one that keeps everything in lists and works on tags instead of net
//! effects: legacy mode as a learning bridge, switchdev as rules asked in turn.

mod common;
mod naive;

use chanio_model::eswitch::{
    Arriving, Change, Fdb, FdbLimits, FlowCache, LearnOutcome, Meta, Mode, Outputs, RxFilter,
    RxMode, Switch, VlanSet, VportConfig,
};
use chanio_model::flow::{FlowKey, Origin, Rule, RuleSpec};
use chanio_model::{Mac, RuleId, Vlan, VportId};
use naive::{AGEING, Naive, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use std::sync::Arc;

/// Channels are 1 to 5; 6 never exists.
const PORTS: u32 = 6;

#[derive(Clone, Debug)]
enum Step {
    Add(VportId, VportConfig),
    Set(VportId, VportConfig),
    Remove(VportId),
    Mode(Mode),
    Vepa(bool),
    Uplink(bool),
    AddRule(RuleId, RuleSpec),
    RemoveRule(RuleId),
    RemoveRulesOf(Origin),
    Static(u16, Mac, VportId),
    /// Key, l3 length, time since the last one.
    Packet(FlowKey, u32, u64),
    /// The same on a representor.
    Host(VportId, FlowKey, u32),
}

fn config() -> impl Strategy<Value = VportConfig> {
    let macs = || subsequence(&common::MACS[..4], 0..3);
    let groups = subsequence(&common::MACS[5..6], 0..=1);
    let vlans = proptest::option::of(subsequence(vec![5u16, 6], 0..=2));
    let filter = (any::<(bool, bool, bool)>(), macs(), groups, vlans).prop_map(
        |((promisc, alluni, allmulti), unicast, multicast, vids)| RxFilter {
            promisc,
            alluni,
            allmulti,
            unicast,
            multicast,
            vlans: vids.map(|vids| {
                let mut set = VlanSet::EMPTY;
                vids.iter().for_each(|vid| set.insert(*vid));
                Box::new(set)
            }),
        },
    );
    let rx_mode = prop_oneof![2 => Just(RxMode::All), 1 => filter.prop_map(RxMode::Filtered)];
    let vlan = select(&[0u16, 0, 5, 5, 6][..]);
    let flags = (prop::bool::weighted(0.3), prop::bool::weighted(0.9));
    (macs(), vlan, flags, select(&[1000u16, 1500][..]), rx_mode).prop_map(
        |(macs, vlan, (spoofchk, link_up), mtu, rx_mode)| VportConfig {
            macs,
            port_vlan: Vlan::new(vlan),
            block: 0,
            spoofchk,
            trust: false,
            link_up,
            mtu,
            rx_mode,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let port = || (1..PORTS).prop_map(VportId);
    let rule = || (0u64..12).prop_map(RuleId);
    let mode = prop_oneof![Just(Mode::Legacy), Just(Mode::Switchdev)];
    let len = || select(&[100u32, 1200, 1600][..]);
    prop_oneof![
        4 => (port(), config()).prop_map(|(id, config)| Step::Add(id, config)),
        1 => (port(), config()).prop_map(|(id, config)| Step::Set(id, config)),
        1 => port().prop_map(Step::Remove),
        1 => mode.prop_map(Step::Mode),
        1 => any::<bool>().prop_map(Step::Vepa),
        1 => prop::bool::weighted(0.8).prop_map(Step::Uplink),
        2 => (rule(), common::spec(PORTS)).prop_map(|(id, spec)| Step::AddRule(id, spec)),
        1 => rule().prop_map(Step::RemoveRule),
        1 => select(&[Origin::Control, Origin::Tc][..]).prop_map(Step::RemoveRulesOf),
        1 => (select(&[0u16, 5][..]), select(&common::MACS[..4]), port())
            .prop_map(|(vid, mac, id)| Step::Static(vid, mac, id)),
        20 => (common::key(PORTS + 1), len(), 0u64..15)
            .prop_map(|(key, len, dt)| Step::Packet(key, len, dt)),
        2 => ((0..=PORTS).prop_map(VportId), common::key(PORTS), len())
            .prop_map(|(id, key, len)| Step::Host(id, key, len)),
    ]
}

fn change(step: &Step) -> Option<Change> {
    Some(match step.clone() {
        Step::Add(id, config) => Change::AddVport(id, Arc::new(config)),
        Step::Set(id, config) => Change::SetVport(id, Arc::new(config)),
        Step::Remove(id) => Change::RemoveVport(id),
        Step::Mode(mode) => Change::SetMode(mode),
        Step::Vepa(vepa) => Change::SetVepa(vepa),
        Step::Uplink(present) => Change::SetUplink(present),
        Step::AddRule(id, spec) => Change::AddRule(Arc::new(Rule::new(id, spec, 1).unwrap())),
        Step::RemoveRule(id) => Change::RemoveRule(id),
        Step::RemoveRulesOf(origin) => Change::RemoveRulesOf(origin),
        Step::Static(..) | Step::Packet(..) | Step::Host(..) => return None,
    })
}

fn meta(l3_len: u32, now: u64) -> Meta {
    Meta {
        len: l3_len + 14,
        l3_len,
        now,
        shard: 0,
    }
}

/// A packet that no rule rewrites: its bytes do not matter.
fn arriving(key: &FlowKey, l3_len: u32, now: u64) -> Arriving<'_> {
    Arriving {
        key,
        meta: meta(l3_len, now),
        head: &[],
        offload: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn same_verdicts_as_the_naive_switch(steps in vec(step(), 1..200)) {
        let limits = FdbLimits { ageing: AGEING, ..FdbLimits::default() };
        let (mut active, mut fdb, mut naive) = (Switch::default(), Fdb::new(limits), Naive::default());
        let mut standby = active.clone();
        let (mut out, mut again) = (Outputs::default(), Outputs::default());
        let mut cache = FlowCache::default();
        let mut now = 1000;
        for step in &steps {
            if let Some(change) = change(step) {
                let applied = active.apply(&change);
                prop_assert_eq!(applied.is_ok(), naive.apply(&change), "{:?}", step);
                // Rules of its own, so that counters can be compared.
                let twin = crate::change(step).unwrap();
                prop_assert_eq!(applied, standby.apply(&twin));
                continue;
            }
            match step {
                Step::Static(vid, mac, id) => {
                    let inserted = fdb.insert_static(*vid, *mac, *id).is_ok();
                    prop_assert_eq!(inserted, naive.insert_static(*vid, *mac, *id));
                }
                Step::Packet(key, l3_len, dt) => {
                    now += dt;
                    let packet = arriving(key, *l3_len, now);
                    active.begin_burst(&mut cache);
                    let slot = active.slot(&cache, key);
                    // The second time the answer may come out of the cache.
                    for _ in 0..2 {
                        let same = standby.from_vport(&fdb, packet, &mut again);
                        let result =
                            active.from_vport_cached(&mut cache, slot, &fdb, packet, &mut out);
                        prop_assert_eq!((result, out.missed), (same, again.missed));
                        prop_assert_eq!((&out.list, &out.lost), (&again.list, &again.lost));
                        prop_assert_eq!(out.learn, again.learn);
                    }
                    let result = standby.from_vport(&fdb, packet, &mut out);
                    prop_assert_eq!(active.from_vport(&fdb, packet, &mut again), result);
                    let got = Verdict::of(key, result, &out);
                    if let Some((vid, mac)) = out.learn {
                        let outcome = fdb.learn(vid, mac, key.vport(), now);
                        prop_assert!(matches!(outcome, LearnOutcome::New | LearnOutcome::Moved));
                    }
                    let want = naive.channel_sent(key, *l3_len, now);
                    prop_assert_eq!(got, want, "{:?} in {:#?}", key, naive);
                }
                Step::Host(id, key, l3_len) => {
                    let result = active.from_representor(*id, key, meta(*l3_len, now), &mut out);
                    let want = naive.host_sent(*id, key, *l3_len);
                    prop_assert_eq!(Verdict::of(key, result, &out), want);
                }
                _ => {}
            }
        }
        let totals = |switch: &Switch| -> Vec<_> {
            switch.tables().iter().map(|rule| (rule.id(), rule.totals())).collect()
        };
        prop_assert_eq!(totals(&active), totals(&standby));
        let mut table: Vec<_> = fdb.iter(now).map(|e| (e.vid, e.mac, e.vport, e.is_static)).collect();
        table.sort();
        prop_assert_eq!(table, naive.table(now));
    }
}
