//! Trace and capture tell what happened.

use super::{A, B, REP_A, STRANGER, done, frame};
use crate::conform::bed::Bed;
use crate::conform::case::{
    Case, Ended, Failure,
    Need::{Representors, Switchdev},
    Setup::World,
    Stop, case, ensure, same,
};
use chanio::nic::{CaptureFilter, TraceStep};
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "seeing.trace",
            "a trace says where a frame comes out, and the frame does",
            "ovs-vswitchd(8): ofproto/trace",
            World,
            &[Switchdev, Representors],
            trace,
        ),
        case(
            "seeing.capture",
            "a capture shows a lost frame whole, with the reason and the rule",
            "Documentation/networking/devlink/devlink-trap.rst: drops with their reason",
            World,
            &[Switchdev],
            capture,
        ),
    ]
}

/// Where a trace says that copies go, and what is lost.
fn verdict(steps: &[TraceStep]) -> Vec<(String, bool)> {
    let end = |step: &TraceStep| match step {
        TraceStep::Output {
            port, representor, ..
        } => Some((port.clone(), *representor)),
        TraceStep::Lost { reason, .. } => Some((format!("lost: {reason}"), false)),
        _ => None,
    };
    steps.iter().filter_map(end).collect()
}

fn trace(bed: &mut Bed) -> Ended {
    let ids = bed.rules(&[
        "prio 1 in_port {a} dst_mac 02:c0:00:00:00:0b action redirect {b}",
        "prio 2 in_port {a} dst_mac 02:c0:00:00:00:0c action drop",
    ])?;
    let (a, b, c) = (
        bed.world.ports[0].mac,
        bed.world.ports[1].mac,
        bed.world.ports[2].mac,
    );
    let taken = frame(b, a, 60);
    let told = bed.nic.trace("a", false, taken.clone())?;
    same(
        "a trace of what rule 1 takes",
        verdict(&told),
        vec![("b".into(), false)],
    )?;
    bed.world.exchange(A, &taken, &[(B, taken.clone())])?;
    let missed = frame(STRANGER, a, 60);
    let told = bed.nic.trace("a", false, missed.clone())?;
    same(
        "a trace of what no rule takes",
        verdict(&told),
        vec![("a".into(), true)],
    )?;
    bed.world.exchange(A, &missed, &[(REP_A, missed.clone())])?;
    let told = bed.nic.trace("a", false, frame(c, a, 60))?;
    let end = verdict(&told);
    ensure(end.len() == 1 && end[0].0.starts_with("lost:"), || {
        format!("a trace of what rule 2 drops says {end:?}")
    })?;
    let told = bed.nic.trace("a", true, missed.clone())?;
    same(
        "a trace of what the host sends",
        verdict(&told),
        vec![("a".into(), false)],
    )?;
    bed.world.exchange(REP_A, &missed, &[(A, missed.clone())])?;
    bed.world.quiet()?;
    same(
        "packets counted: traces are none",
        bed.counted(&ids)?,
        vec![1, 0],
    )
}

fn capture(bed: &mut Bed) -> Ended {
    let ids = bed.rules(&["in_port {a} action drop"])?;
    let sent = frame(bed.world.ports[1].mac, bed.world.ports[0].mac, 333);
    let mut other = bed.another()?;
    let seen = Mutex::new(None);
    let what = CaptureFilter {
        ports: vec!["a".into()],
        points: vec!["drop".into()],
        duration: Some(Duration::from_secs(3)),
        ..CaptureFilter::default()
    };
    let world = &mut bed.world;
    std::thread::scope(|scope| {
        // It sends until it is seen: when a capture has begun is told by nothing but its frames.
        let sending = scope.spawn(|| -> Ended {
            let until = Instant::now() + Duration::from_secs(3);
            while Instant::now() < until && seen.lock().is_ok_and(|seen| seen.is_none()) {
                world.send(A, &sent)?;
                std::thread::sleep(Duration::from_millis(20));
            }
            done()
        });
        let captured = other.capture(what, &mut |frame| {
            if let Ok(mut seen) = seen.lock() {
                *seen = Some(frame);
            }
            false
        });
        let sent = sending.join();
        captured?;
        sent.unwrap_or_else(|_| Err(Stop::Error("the sender panicked".into())))
    })?;
    let seen = seen.into_inner().ok().flatten();
    let seen = seen.ok_or_else(|| Stop::Failed(Failure::new("nothing was captured in 3 s")))?;
    same("the frame", seen.data, sent)?;
    same(
        "where it was lost",
        (seen.port.as_str(), seen.point.as_str()),
        ("a", "drop"),
    )?;
    same("the rule", seen.rule, Some(ids[0]))?;
    ensure(seen.reason.is_some(), || "no reason is given".into())
}
