//! What the NIC model costs per packet: parsing, looking up, deciding.
#![allow(
    missing_docs,
    reason = "criterion's macros generate undocumented items"
)]

use chanio_model::eswitch::{Arriving, Change, Fdb, Meta, Mode, Outputs, Switch, VportConfig};
use chanio_model::flow::reference::LinearTables;
use chanio_model::flow::{FlowKey, Rule, RuleSpec, Seen, Tables};
use chanio_model::wire::{self, Parsed};
use chanio_model::{Mac, RuleId, Vlan, VportId};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;

fn mac(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([2, 0, a, b, c, d])
}

/// An UDP frame from station `src` to station `dst`, 10.x.x.x likewise.
fn udp_frame(src: u32, dst: u32) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(mac(dst).0);
    frame.extend(mac(src).0);
    frame.extend([8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0]);
    for n in [src, dst] {
        let [_, b, c, d] = n.to_be_bytes();
        frame.extend([10, b, c, d]);
    }
    frame.extend([4, 210, 0, 80, 0, 26, 0, 0]);
    frame.resize(60, 0);
    frame
}

fn parsed(src: u32, dst: u32) -> Parsed {
    wire::parse(&udp_frame(src, dst), 60, VportId(src)).expect("a good frame")
}

fn bench_parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let plain = udp_frame(1, 2);
    let mut tagged = plain.clone();
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    let mut v6 = plain[..12].to_vec();
    v6.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
    v6.resize(74, 1);
    for (name, frame) in [
        ("ipv4_udp", &plain),
        ("vlan_ipv4_udp", &tagged),
        ("ipv6_tcp", &v6),
    ] {
        group.bench_function(name, |b| {
            let len = frame.len() as u32;
            b.iter(|| wire::parse(black_box(frame), black_box(len), VportId(1)));
        });
    }
    group.finish();
}

/// `count` rules spread over `masks` masks, all of the same priority; rule n is for station n.
fn rules(count: u32, masks: u32) -> Vec<Arc<Rule>> {
    let one = |n: u32| {
        let [_, b, c, d] = n.to_be_bytes();
        let text = match n % masks {
            0 => format!("dst_mac {}", mac(n)),
            1 => format!("dst_ip 10.{b}.{c}.{d}"),
            2 => format!("dst_ip 10.{b}.{c}.{d} ip_proto udp"),
            3 => format!("dst_ip 10.{b}.{c}.{d} ip_proto udp dst_port 80"),
            4 => format!("src_ip 10.0.0.1 dst_ip 10.{b}.{c}.{d}"),
            5 => format!("in_port vport:1 dst_mac {}", mac(n)),
            6 => format!("vlan_id none dst_mac {}", mac(n)),
            _ => format!("eth_type ipv4 dst_mac {}", mac(n)),
        };
        let spec: RuleSpec = format!("prio 1 {text} action redirect vport:2")
            .parse()
            .expect("a rule");
        Arc::new(Rule::new(RuleId(u64::from(n)), spec, 1).expect("well formed"))
    };
    (2..2 + count).map(one).collect()
}

/// Packets that hit all over the table.
fn keys(count: u32) -> Vec<FlowKey> {
    (0..1024)
        .map(|i| parsed(1, 2 + i * 7919 % count).key)
        .collect()
}

/// A million rules in and out again, one at a time.
fn bench_changes(c: &mut Criterion) {
    const COUNT: u32 = 1_000_000;
    let mut group = c.benchmark_group("tables");
    group.sample_size(10);
    group.throughput(Throughput::Elements(COUNT.into()));
    let rules = rules(COUNT, 8);
    group.bench_function("insert_and_remove/1000000_rules_8_masks", |b| {
        b.iter(|| {
            let mut tables = Tables::default();
            rules
                .iter()
                .for_each(|rule| assert!(tables.insert(rule.clone())));
            rules
                .iter()
                .for_each(|rule| assert!(tables.remove(rule.id()).is_some()));
            assert!(tables.is_empty());
        });
    });
    group.finish();
}

fn bench_tables(c: &mut Criterion) {
    let mut group = c.benchmark_group("tables");
    for masks in [1, 8] {
        for count in [1, 100, 1_000, 10_000, 1_000_000] {
            let mut tables = Tables::default();
            let mut linear = LinearTables::default();
            for rule in rules(count, masks) {
                if count <= 100 {
                    linear.insert(rule.clone());
                }
                tables.insert(rule);
            }
            let keys = keys(count);
            let id = format!("{count}_rules_{masks}_masks");
            group.bench_function(BenchmarkId::new("hit", &id), |b| {
                let mut i = 0;
                b.iter(|| {
                    i += 1;
                    tables
                        .lookup(0, Seen::plain(&keys[i % 1024]))
                        .map(|r| r.id())
                });
            });
            let miss = parsed(1, 9_999_999).key;
            group.bench_function(BenchmarkId::new("miss", &id), |b| {
                b.iter(|| tables.lookup(0, Seen::plain(black_box(&miss))).is_none());
            });
            if count <= 100 {
                group.bench_function(BenchmarkId::new("linear_hit", &id), |b| {
                    let mut i = 0;
                    b.iter(|| {
                        i += 1;
                        linear
                            .lookup(0, Seen::plain(&keys[i % 1024]))
                            .map(|r| r.id())
                    });
                });
            }
        }
    }
    group.bench_function("insert_remove/10000_rules_8_masks", |b| {
        let mut tables = Tables::default();
        rules(10_000, 8)
            .into_iter()
            .for_each(|rule| assert!(tables.insert(rule)));
        b.iter(|| {
            let rule = tables.remove(RuleId(5000)).expect("it is there");
            tables.insert(rule)
        });
    });
    group.finish();
}

/// `count` channels with one address each, known to the FDB.
fn switch(mode: Mode, count: u32, port_vlan: Option<Vlan>) -> (Switch, Fdb) {
    let (mut switch, mut fdb) = (Switch::default(), Fdb::default());
    let mut apply = |change| switch.apply(&change).expect("a good change");
    apply(Change::SetMode(mode));
    apply(Change::SetUplink(true));
    for n in 1..=count {
        let config = VportConfig {
            macs: vec![mac(n)],
            spoofchk: true,
            port_vlan,
            ..VportConfig::default()
        };
        apply(Change::AddVport(VportId(n), Arc::new(config)));
        let vid = port_vlan.map_or(0, Vlan::id);
        fdb.insert_static(vid, mac(n), VportId(n))
            .expect("a free address");
    }
    (switch, fdb)
}

fn bench_fdb(c: &mut Criterion) {
    let mut group = c.benchmark_group("fdb");
    for count in [10, 10_000] {
        let (_, fdb) = switch(Mode::Legacy, count, None);
        group.bench_function(BenchmarkId::new("lookup", count), |b| {
            let mut n = 0;
            b.iter(|| {
                n = (n + 7919) % count;
                fdb.lookup(0, mac(n + 1), 1)
            });
        });
        group.bench_function(BenchmarkId::new("needs_learning", count), |b| {
            let mut n = 0;
            b.iter(|| {
                n = (n + 7919) % count;
                fdb.needs_learning(0, mac(n + 1), VportId(n + 1), 1)
            });
        });
    }
    group.finish();
}

fn arriving<'a>(parsed: &'a Parsed, head: &'a [u8]) -> Arriving<'a> {
    Arriving {
        key: &parsed.key,
        meta: Meta::new(60, parsed, None, 1, 0),
        head,
        offload: None,
    }
}

fn bench_switch(c: &mut Criterion) {
    let mut group = c.benchmark_group("switch");
    let mut out = Outputs::default();
    for count in [10, 10_000] {
        for (name, vlan) in [
            ("legacy_unicast", None),
            ("legacy_unicast_port_vlan", Vlan::new(5)),
        ] {
            let (switch, fdb) = switch(Mode::Legacy, count, vlan);
            let frames: Vec<_> = (0..64)
                .map(|i| udp_frame(1, 2 + i * 157 % (count - 1)))
                .collect();
            group.bench_function(BenchmarkId::new(format!("parse_and_{name}"), count), |b| {
                let mut i = 0;
                b.iter(|| {
                    i += 1;
                    let frame = &frames[i % 64];
                    let parsed = wire::parse(frame, 60, VportId(1))?;
                    switch.from_vport(&fdb, arriving(&parsed, frame), &mut out)
                });
                assert_eq!(out.list.len(), 1);
            });
        }
        let (switch, fdb) = switch(Mode::Legacy, count, None);
        let mut flood = parsed(1, 2);
        flood.key.eth_dst = Mac::BROADCAST;
        group.bench_function(BenchmarkId::new("legacy_broadcast", count), |b| {
            b.iter(|| switch.from_vport(&fdb, arriving(&flood, &[]), &mut out));
            assert_eq!(out.list.len(), count as usize);
        });
    }
    for (count, masks) in [(0, 1), (1_000, 1), (1_000, 8)] {
        let (mut switch, fdb) = switch(Mode::Switchdev, 10, None);
        for rule in rules(count, masks) {
            switch.apply(&Change::AddRule(rule)).expect("a new rule");
        }
        let frames: Vec<_> = (0..64)
            .map(|i| udp_frame(1, 2 + i * 157 % count.max(1)))
            .collect();
        let id = format!("{count}_rules_{masks}_masks");
        group.bench_function(BenchmarkId::new("parse_and_switchdev", id), |b| {
            let mut i = 0;
            b.iter(|| {
                i += 1;
                let frame = &frames[i % 64];
                let parsed = wire::parse(frame, 60, VportId(1))?;
                switch.from_vport(&fdb, arriving(&parsed, frame), &mut out)
            });
            assert_eq!((out.list.len(), out.missed.is_some()), (1, count == 0));
        });
    }
    group.finish();
}

criterion_group!(
    model,
    bench_parse,
    bench_tables,
    bench_changes,
    bench_fdb,
    bench_switch
);
criterion_main!(model);
