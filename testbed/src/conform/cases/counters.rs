//! Exact counts everywhere.

use super::{A, B, C, REP_A, done, frame};
use crate::conform::bed::{Bed, within};
use crate::conform::case::{
    Case, Ended, Failure,
    Need::{Representors, Switchdev},
    Setup::World,
    Stop, case, ensure, same,
};
use crate::conform::world::Place;
use chanio::DeviceError;
use chanio::nic::VportStats;
use std::time::Duration;

const STATS: &str = "Documentation/networking/representors.rst: statistics; docs/json.md";

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "counters.channel",
            "a channel counts every packet and byte that it sent and received",
            STATS,
            World,
            &[Switchdev],
            channel,
        ),
        case(
            "counters.representor",
            "a representor counts what passed it, as the host's own netdev does",
            STATS,
            World,
            &[Switchdev, Representors],
            representor,
        ),
        case(
            "counters.rule",
            "a rule and each of its actions count packets and bytes",
            "uapi linux/gen_stats.h: TCA_STATS_BASIC_HW; docs/json.md",
            World,
            &[Switchdev],
            rule,
        ),
        case(
            "counters.drops",
            "what a rule drops is counted once, under a reason that is explained",
            "docs/json.md: drops; Documentation/networking/devlink/devlink-trap.rst",
            World,
            &[Switchdev],
            drops,
        ),
        case(
            "counters.conserved",
            "of three thousand frames in a burst each arrives or is counted as lost",
            "chanio_model::DropReason: every lost packet under exactly one",
            World,
            &[Switchdev],
            conserved,
        ),
    ]
}

fn stats(bed: &mut Bed, name: &str) -> Ended<VportStats> {
    let mut list = bed.nic.stats(&[name.to_owned()], false)?;
    match list.len() {
        1 => Ok(list.remove(0)),
        n => Err(Stop::Failed(Failure::new(format!(
            "{n} entries for {name}"
        )))),
    }
}

fn lost(stats: &VportStats) -> u64 {
    stats.drops.values().sum()
}

fn channel(bed: &mut Bed) -> Ended {
    bed.rules(&["in_port {a} action redirect {b}"])?;
    let (before_a, before_b) = (stats(bed, "a")?, stats(bed, "b")?);
    let mut bytes = 0;
    for len in [60, 61, 128, 1000, 1514] {
        let sent = frame(bed.world.ports[1].mac, bed.world.ports[0].mac, len);
        bytes += len as u64;
        bed.world.exchange(A, &sent, &[(B, sent.clone())])?;
    }
    let (a, b) = (stats(bed, "a")?, stats(bed, "b")?);
    let sent = (
        a.tx_packets - before_a.tx_packets,
        a.tx_bytes - before_a.tx_bytes,
    );
    let got = (
        b.rx_packets - before_b.rx_packets,
        b.rx_bytes - before_b.rx_bytes,
    );
    same("packets and bytes that a sent", sent, (5, bytes))?;
    same("packets and bytes that b received", got, (5, bytes))
}

/// What the host's own netdev says: rx packets and bytes, tx packets and bytes.
fn host_counts(netdev: &str) -> Ended<[u64; 4]> {
    let mut counts = [0; 4];
    let files = ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"];
    for (count, file) in counts.iter_mut().zip(files) {
        let path = format!("/sys/class/net/{netdev}/statistics/{file}");
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|e| Stop::Error(format!("{path}: {e}")))?;
        *count = text.trim().parse().unwrap_or(0);
    }
    Ok(counts)
}

fn representor(bed: &mut Bed) -> Ended {
    let netdev = bed.world.ports[0].representor.clone().unwrap_or_default();
    let of_nic = |bed: &mut Bed| -> Ended<[u64; 4]> {
        let rep = stats(bed, "a")?.representor;
        let missing = || Stop::Failed(Failure::new("no counters of a's representor"));
        let rep = rep.ok_or_else(missing)?;
        Ok([rep.rx_packets, rep.rx_bytes, rep.tx_packets, rep.tx_bytes])
    };
    let before = (of_nic(bed)?, host_counts(&netdev)?);
    for len in [60, 300, 1514] {
        let sent = frame(bed.world.ports[1].mac, bed.world.ports[0].mac, len);
        bed.world.exchange(A, &sent, &[(REP_A, sent.clone())])?;
        if len > 60 {
            bed.world.exchange(REP_A, &sent, &[(A, sent.clone())])?;
        }
    }
    let passed = |after: [u64; 4], before: [u64; 4]| {
        let mut diff = [0; 4];
        for n in 0..4 {
            diff[n] = after[n] - before[n];
        }
        diff
    };
    let expected = [3, 60 + 300 + 1514, 2, 300 + 1514];
    let nic = passed(of_nic(bed)?, before.0);
    same("rx and tx packets and bytes by the device", nic, expected)?;
    let host = passed(host_counts(&netdev)?, before.1);
    same("rx and tx packets and bytes by ip -s link", host, expected)
}

fn rule(bed: &mut Bed) -> Ended {
    // With a copy there are two actions to count.
    let (ids, places) = match bed.rules(&["in_port {a} action mirror {c} action redirect {b}"]) {
        Ok(ids) => (ids, vec![C, B]),
        Err(DeviceError::Refused { .. }) => {
            (bed.rules(&["in_port {a} action redirect {b}"])?, vec![B])
        }
        Err(error) => return Err(error.into()),
    };
    let mut bytes = 0;
    for len in [60, 1000, 1514] {
        let sent = frame(bed.world.ports[1].mac, bed.world.ports[0].mac, len);
        bytes += len as u64;
        let out: Vec<_> = places.iter().map(|place| (*place, sent.clone())).collect();
        bed.world.exchange(A, &sent, &out)?;
    }
    let flows = bed.nic.flows()?;
    let flow = flows.iter().find(|flow| flow.id == ids[0]);
    let flow = flow.ok_or_else(|| Stop::Failed(Failure::new("the rule is not listed")))?;
    same(
        "packets and bytes of the rule",
        (flow.packets, flow.bytes),
        (3, bytes),
    )?;
    let actions: Vec<_> = flow
        .action_stats
        .iter()
        .map(|a| (a.packets, a.bytes))
        .collect();
    same(
        "packets and bytes of its actions",
        actions,
        vec![(3, bytes); places.len()],
    )?;
    ensure(flow.idle_ns.is_some_and(|ns| ns < 10_000_000_000), || {
        format!("used moments ago, it says {:?} ns", flow.idle_ns)
    })
}

/// Only some devices say of every lost packet why.
fn losses_are_told(bed: &Bed) -> Ended {
    match bed.tells_losses() {
        true => done(),
        false => Err(Stop::NotSupported(
            "it does not say of every lost packet why".into(),
        )),
    }
}

fn drops(bed: &mut Bed) -> Ended {
    losses_are_told(bed)?;
    bed.rules(&["in_port {a} action drop"])?;
    let before = stats(bed, "a")?;
    let sent = frame(bed.world.ports[1].mac, bed.world.ports[0].mac, 60);
    for _ in 0..5 {
        bed.world.send(A, &sent)?;
    }
    bed.world.quiet()?;
    within(Duration::from_secs(2), "five frames to be counted", || {
        let now = bed.nic.stats(&["a".into()], false)?;
        Ok(now[0].tx_packets - before.tx_packets >= 5)
    })?;
    let now = stats(bed, "a")?;
    same("packets lost", lost(&now) - lost(&before), 5)?;
    for reason in now.drops.keys() {
        let text = now.explanations.get(reason).map_or("", String::as_str);
        ensure(!text.is_empty(), || format!("{reason} is not explained"))?;
    }
    done()
}

fn conserved(bed: &mut Bed) -> Ended {
    const SENT: u64 = 3000;
    losses_are_told(bed)?;
    bed.rules(&["in_port {a} action redirect {b}"])?;
    let lost_so_far =
        |bed: &mut Bed| Ok::<_, Stop>(lost(&stats(bed, "a")?) + lost(&stats(bed, "b")?));
    let (tx, rx, gone) = (
        stats(bed, "a")?.tx_packets,
        stats(bed, "b")?.rx_packets,
        lost_so_far(bed)?,
    );
    let sent = frame(bed.world.ports[1].mac, bed.world.ports[0].mac, 200);
    let mut arrived = 0;
    for n in 0..SENT {
        bed.world.end(A)?.send(&sent)?;
        if n % 64 == 0 {
            arrived += bed.world.poll()?.len() as u64;
        }
    }
    let mut quiet = 0;
    while quiet < 20 {
        let more = bed.world.poll()?;
        ensure(
            more.iter().all(|(place, _)| *place == Place::Own(1)),
            || "frames come out elsewhere, too".into(),
        )?;
        arrived += more.len() as u64;
        quiet = if more.is_empty() { quiet + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(2));
    }
    let tx = stats(bed, "a")?.tx_packets - tx;
    let rx = stats(bed, "b")?.rx_packets - rx;
    let gone = lost_so_far(bed)? - gone;
    same("frames that b received and those it counts", arrived, rx)?;
    same("received and lost against what a sent", rx + gone, tx)?;
    ensure(tx <= SENT && tx > 0, || format!("a sent {tx} of {SENT}"))
}
