//! Ceilings and shares.

use super::{A, B, C, frame};
use crate::conform::bed::{Bed, wish};
use crate::conform::case::{
    Case, Ended, Need::Legacy, Setup::Bare, Stop, case, ensure, refused, same,
};
use crate::conform::report::{Bar, Measured};
use crate::conform::world::Place;
use chanio_model::rate::RateChange;
use std::time::{Duration, Instant};

const RATE: &str = "Documentation/networking/devlink/devlink-port.rst: rate object";

/// Bytes a second.
const CEILING: u64 = 4_000_000;
const MBIT: u64 = 125_000;
/// How often a rate is measured that was too low: on a busy machine everybody is slow at times.
const ATTEMPTS: usize = 3;
/// Until a bucket that was full at first is empty.
const SETTLE: Duration = Duration::from_millis(300);
const MEASURE: Duration = Duration::from_millis(1200);

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "rates.max",
            "a channel sends at its ceiling, within 5 % over a second",
            RATE,
            Bare,
            &[Legacy],
            max,
        ),
        case(
            "rates.share",
            "two channels that want more than their node has share it by weight, within 10 %",
            RATE,
            Bare,
            &[Legacy],
            share,
        ),
        case(
            "rates.lifted",
            "without a ceiling any more it is fast again",
            RATE,
            Bare,
            &[Legacy],
            lifted,
        ),
        case(
            "rates.listed",
            "rates and nodes are listed as they were set, and a node in use is not removed",
            "devlink-rate(8)",
            Bare,
            &[Legacy],
            listed,
        ),
    ]
}

fn three(bed: &mut Bed) -> Ended {
    bed.mode("legacy")?;
    bed.add(vec![wish("a"), wish("b"), wish("c")])?;
    Ok(())
}

fn ceiling(tx_max: u64) -> RateChange {
    RateChange {
        tx_max: Some(tx_max),
        ..RateChange::default()
    }
}

/// All of these send to B as fast as they may, and `wanted` bytes a second each at most; bytes a
/// second that each could send.
fn rates(bed: &mut Bed, from: &[Place], wanted: u64) -> Ended<Vec<f64>> {
    const LEN: usize = 1400;
    let b = bed.world.ports[1].mac;
    let started = Instant::now();
    let (mut offered, mut first) = (0, None);
    loop {
        let elapsed = started.elapsed();
        if first.is_none() && elapsed >= SETTLE {
            first = Some((Instant::now(), sent(bed, from)?));
        }
        if let Some((since, before)) = &first
            && since.elapsed() >= MEASURE
        {
            let (after, time) = (sent(bed, from)?, since.elapsed().as_secs_f64());
            let pairs = after.iter().zip(before);
            return Ok(pairs
                .map(|(now, then)| (now - then) as f64 / time)
                .collect());
        }
        let due = (elapsed.as_secs_f64() * wanted as f64 / LEN as f64) as u64;
        // A sender that was away for long does not make up for all of it at once.
        offered = due.saturating_sub(64).max(offered);
        while offered < due {
            for place in from {
                let src = match place {
                    Place::Own(n) => bed.world.ports[*n].mac,
                    _ => [0; 6],
                };
                // A full queue is the point.
                let _ = bed.world.end(*place)?.offer(&frame(b, src, LEN));
            }
            offered += 1;
        }
        // Not all that is on its way: who waited for that would send as fast as the slowest does.
        bed.world.poll()?;
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// The same, measured again as long as it is not enough.
fn best(
    bed: &mut Bed,
    from: &[Place],
    wanted: u64,
    enough: impl Fn(&[f64]) -> bool,
) -> Ended<Vec<f64>> {
    let mut got = rates(bed, from, wanted)?;
    for _ in 1..ATTEMPTS {
        if enough(&got) {
            break;
        }
        got = rates(bed, from, wanted)?;
    }
    Ok(got)
}

/// Bytes that each has sent.
fn sent(bed: &mut Bed, from: &[Place]) -> Ended<Vec<u64>> {
    let stats = bed.nic.stats(&[], false)?;
    let of = |place: &Place| {
        let name = match place {
            Place::Own(n) => &bed.world.ports[*n].name,
            _ => "uplink",
        };
        let vport = stats.iter().find(|vport| vport.name == name);
        vport.map_or(0, |vport| vport.tx_bytes)
    };
    Ok(from.iter().map(of).collect())
}

fn plot(bed: &mut Bed, title: &str, bars: &[(&str, f64, f64)]) {
    let bar = |(label, value, expected): &(&str, f64, f64)| Bar {
        label: (*label).into(),
        value: value / 1e6,
        expected: expected / 1e6,
    };
    bed.measured.push(Measured {
        title: title.into(),
        unit: "MB/s".into(),
        bars: bars.iter().map(bar).collect(),
    });
}

/// Within so many percent.
fn near(what: &str, got: f64, expected: f64, percent: f64) -> Ended {
    let off = (got / expected - 1.0) * 100.0;
    ensure(off.abs() <= percent, || {
        format!("{what}: {got:.0} instead of {expected:.0} bytes a second, {off:+.1} %")
    })
}

/// What `a` sends with a ceiling that it tries to go beyond, and the ceiling: where this machine is
/// too slow for the one that is wanted, one that it does reach.
fn limited(bed: &mut Bed, wanted: u64) -> Ended<(f64, u64)> {
    let with = |bed: &mut Bed, limit: u64| -> Ended<f64> {
        bed.nic.set_rate("a", ceiling(reached(limit)?))?;
        let enough = |got: &[f64]| got[0] >= 0.95 * limit as f64;
        Ok(best(bed, &[A], 3 * limit, enough)?[0])
    };
    let got = with(bed, wanted)?;
    if got >= 0.95 * wanted as f64 {
        return Ok((got, wanted));
    }
    bed.nic.set_rate("a", ceiling(0))?;
    let possible = rates(bed, &[A], 3 * wanted)?[0];
    // Whole Mbit/s, as some devices have them.
    let limit = ((possible / 4.0) as u64).min(wanted) / MBIT * MBIT;
    Ok((with(bed, limit)?, limit))
}

/// A ceiling, unless it is none.
fn reached(limit: u64) -> Ended<u64> {
    let why = "this machine sends too little to see a ceiling";
    match limit {
        0 => Err(Stop::Error(why.into())),
        limit => Ok(limit),
    }
}

fn max(bed: &mut Bed) -> Ended {
    three(bed)?;
    let (got, ceiling) = limited(bed, CEILING)?;
    let expected = ceiling as f64;
    plot(bed, "A channel with a ceiling", &[("a", got, expected)]);
    near("a", got, expected, 5.0)
}

fn share(bed: &mut Bed) -> Ended {
    three(bed)?;
    bed.nic.add_rate("node", ceiling(CEILING))?;
    for (channel, tx_weight) in [("a", 3), ("c", 1)] {
        let node = "node".parse();
        let node = node.map_err(|e| Stop::Error(format!("{e}")))?;
        let change = RateChange {
            tx_weight: Some(tx_weight),
            parent: Some(Some(node)),
            ..RateChange::default()
        };
        bed.nic.set_rate(channel, change)?;
    }
    let (mut got, mut limit) = (shared(bed, CEILING)?, CEILING);
    if !is_share(&got, limit) {
        // As of a single ceiling: one that each of them alone could fill.
        let possible = got[0].min(got[1]);
        limit = reached((possible / 2.0) as u64 / MBIT * MBIT)?;
        got = shared(bed, limit)?;
    }
    let expected = [0.75, 0.25].map(|share| share * limit as f64);
    let bars = [
        ("a (weight 3)", got[0], expected[0]),
        ("c (weight 1)", got[1], expected[1]),
    ];
    plot(bed, "Two channels below a node", &bars);
    near("a", got[0], expected[0], 10.0)?;
    near("c", got[1], expected[1], 10.0)?;
    remove_node(bed)
}

/// What A and C send below the node with this ceiling.
fn shared(bed: &mut Bed, limit: u64) -> Ended<Vec<f64>> {
    bed.nic.set_rate("node", ceiling(limit))?;
    best(bed, &[A, C], 2 * limit, |got| is_share(got, limit))
}

/// Whether each has its share, but for a tenth.
fn is_share(got: &[f64], limit: u64) -> bool {
    got[0] >= 0.675 * limit as f64 && got[1] >= 0.225 * limit as f64
}

fn remove_node(bed: &mut Bed) -> Ended {
    for channel in ["a", "c"] {
        let alone = RateChange {
            parent: Some(None),
            ..RateChange::default()
        };
        bed.nic.set_rate(channel, alone)?;
    }
    bed.nic.del_rate("node")?;
    Ok(())
}

/// What `a` sends once its ceiling is gone.
fn without(bed: &mut Bed, slow: f64, limit: u64) -> Ended<f64> {
    bed.nic.set_rate("a", ceiling(0))?;
    Ok(best(bed, &[A], 4 * limit, |got| got[0] > 2.0 * slow)?[0])
}

fn lifted(bed: &mut Bed) -> Ended {
    three(bed)?;
    let (mut slow, mut limit) = limited(bed, CEILING / 4)?;
    let mut fast = without(bed, slow, limit)?;
    if fast <= 2.0 * slow {
        // Perhaps this machine is too slow to tell.
        (slow, limit) = limited(bed, (fast / 4.0) as u64 / MBIT * MBIT)?;
        fast = without(bed, slow, limit)?;
    }
    near("a", slow, limit as f64, 8.0)?;
    plot(
        bed,
        "A ceiling lifted",
        &[
            ("with", slow, limit as f64),
            ("without", fast, 4.0 * limit as f64),
        ],
    );
    ensure(fast > 2.0 * slow, || {
        format!("{fast:.0} bytes a second without a ceiling, {slow:.0} with one")
    })?;
    let sent = frame(bed.world.ports[1].mac, bed.world.ports[0].mac, 60);
    std::thread::sleep(Duration::from_millis(20));
    bed.world.drain()?;
    bed.world.exchange(A, &sent, &[(B, sent.clone())])
}

fn listed(bed: &mut Bed) -> Ended {
    bed.add(vec![wish("a"), wish("b")])?;
    bed.nic.add_rate("node", ceiling(CEILING))?;
    let node = "node".parse();
    let node = node.map_err(|e| Stop::Error(format!("{e}")))?;
    let change = RateChange {
        tx_share: Some(1_000_000),
        parent: Some(Some(node)),
        ..ceiling(2_000_000)
    };
    bed.nic.set_rate("a", change)?;
    let listed = bed.nic.rates(&["a".into(), "node".into()])?;
    let shown = |name: &str| {
        let rate = listed.iter().find(|rate| rate.name == name);
        rate.map(|r| (r.kind, r.tx_share, r.tx_max, r.parent.clone()))
    };
    let parent = Some("node".to_owned());
    same(
        "a",
        shown("a"),
        Some(("leaf", 1_000_000, 2_000_000, parent)),
    )?;
    same("node", shown("node"), Some(("node", 0, CEILING, None)))?;
    refused("removing a node in use", bed.nic.del_rate("node"))?;
    let alone = RateChange {
        parent: Some(None),
        ..RateChange::default()
    };
    bed.nic.set_rate("a", alone)?;
    bed.nic.del_rate("node")?;
    Ok(())
}
