//! Deletion under traffic, resets, modes, persistence.

use super::{A, B, C, REP_A, done, frame};
use crate::conform::bed::{Bed, wish};
use crate::conform::case::{
    Case, Ended,
    Need::{Legacy, Representors, Switchdev},
    Setup::{Bare, World},
    Stop, case, ensure, same,
};
use crate::conform::endpoint::Endpoint;
use crate::conform::world::MARK;
use chanio::nic::{ChannelChange, ChannelSpec};
use chanio_model::rate::RateChange;
use std::collections::BTreeSet;
use std::time::Duration;

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "change.rule_under_traffic",
            "while a rule comes and goes every frame comes out once, here or there",
            "Documentation/networking/representors.rst: hardware and slow path give the same",
            World,
            &[Switchdev, Representors],
            rule_under_traffic,
        ),
        case(
            "change.channel_under_traffic",
            "a channel deleted while others send to it takes its rules with it and nothing else",
            "Documentation/networking/devlink/devlink-port.rst: port del",
            Bare,
            &[Switchdev],
            channel_under_traffic,
        ),
        case(
            "change.driver_reset",
            "a driver that goes and comes back has its channel as before",
            "virtio 1.3 §2.1.1: device reset; vhost-user: GET_VRING_BASE",
            Bare,
            &[Legacy],
            driver_reset,
        ),
        case(
            "change.modes",
            "channels outlive changes of mode, rules and learned addresses do not",
            "Documentation/networking/devlink/devlink-eswitch-attr.rst",
            Bare,
            &[Switchdev, Legacy],
            modes,
        ),
        case(
            "change.persistence",
            "all that was set is there for whoever opens the device next",
            "chanio::device::open",
            Bare,
            &[],
            persistence,
        ),
    ]
}

/// A frame that says which it is.
fn numbered(dst: [u8; 6], src: [u8; 6], n: u32) -> Vec<u8> {
    let mut sent = frame(dst, src, 100);
    let at = 14 + MARK.len();
    sent[at..at + 4].copy_from_slice(&n.to_be_bytes());
    sent
}

fn number(frame: &[u8]) -> u32 {
    let at = 14 + MARK.len();
    let bytes = frame.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(u32::MAX, |b| u32::from_be_bytes(*b))
}

fn rule_under_traffic(bed: &mut Bed) -> Ended {
    const ROUNDS: u32 = 60;
    const EACH: u32 = 25;
    let (a, b) = (bed.world.ports[0].mac, bed.world.ports[1].mac);
    let (mut seen, mut places) = (BTreeSet::new(), BTreeSet::new());
    let mut twice = 0;
    let mut take = |bed: &mut Bed| -> Ended<usize> {
        let came = bed.world.poll()?;
        for (place, frame) in &came {
            twice += usize::from(!seen.insert(number(frame)));
            places.insert(*place);
        }
        Ok(came.len())
    };
    let (mut sent, mut got, mut id) = (0, 0, None);
    for _ in 0..ROUNDS {
        for _ in 0..EACH {
            bed.world.end(A)?.send(&numbered(b, a, sent))?;
            sent += 1;
        }
        // While those are on their way.
        id = match id {
            None => bed.rules(&["in_port {a} action redirect {b}"])?.pop(),
            Some(id) => {
                bed.nic.del_flows(&[id])?;
                None
            }
        };
        got += take(bed)?;
    }
    for _ in 0..300 {
        if got >= sent as usize {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        got += take(bed)?;
    }
    same("frames that came out", got, sent as usize)?;
    same("frames that came out twice", twice, 0)?;
    same("where", places, [REP_A, B].into_iter().collect())
}

fn channel_under_traffic(bed: &mut Bed) -> Ended {
    bed.mode("switchdev")?;
    let a = ChannelSpec {
        mac: Some("02:c0:00:00:00:0a".into()),
        ..wish("a")
    };
    bed.add(vec![a, wish("c"), wish("b")])?;
    let src = bed.world.ports[0].mac;
    let to = |bed: &Bed, n: usize| frame(bed.world.ports[n].mac, src, 100);
    for _ in 0..5 {
        let kept = bed.rules(&[
            "prio 1 in_port {a} src_mac 02:c0:00:00:00:0a action redirect {b}",
            "prio 2 in_port {a} action redirect {c}",
        ])?;
        let sent = to(bed, 2);
        for _ in 0..200 {
            bed.world.end(A)?.send(&sent)?;
        }
        bed.del("b")?;
        let left: Vec<_> = bed.nic.flows()?.iter().map(|flow| flow.id).collect();
        same("rules left", left, vec![kept[1]])?;
        // What was under way to it may have gone by the rule that is left.
        std::thread::sleep(Duration::from_millis(10));
        bed.world.drain()?;
        bed.world.exchange(A, &sent, &[(B, sent.clone())])?;
        bed.nic.flush_flows()?;
        bed.add(vec![wish("b")])?;
    }
    bed.rules(&["in_port {a} action redirect {b}"])?;
    let sent = to(bed, 2);
    bed.world.exchange(A, &sent, &[(C, sent.clone())])?;
    bed.world.quiet()
}

/// The end of a channel whose driver has gone.
struct Nobody;

impl Endpoint for Nobody {
    fn offer(&mut self, _: &[u8]) -> std::io::Result<bool> {
        Ok(false)
    }

    fn receive(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

fn driver_reset(bed: &mut Bed) -> Ended {
    bed.mode("legacy")?;
    bed.add(vec![wish("a"), wish("b")])?;
    let (a, b) = (bed.world.ports[0].mac, bed.world.ports[1].mac);
    for n in 0..5 {
        let (there, back) = (numbered(b, a, n), numbered(a, b, n));
        bed.world.exchange(A, &there, &[(B, there.clone())])?;
        bed.world.exchange(B, &back, &[(A, back.clone())])?;
        let channel = bed.nic.channels(&["b".into()])?.remove(0);
        bed.world.ports[1].own = Box::new(Nobody);
        if channel.socket.is_none() {
            let flap = "ip link set eth0 down; ip link set eth0 up";
            let flapped = bed.run_at("b", &["sh", "-c", flap])?;
            flapped.map_err(Stop::Error)?;
        } else {
            bed.world.send(A, &there)?;
            bed.world.quiet()?;
        }
        bed.world.ports[1].own = bed.own_end(&channel)?;
    }
    bed.world.quiet()
}

fn modes(bed: &mut Bed) -> Ended {
    bed.mode("legacy")?;
    bed.add(vec![wish("a"), wish("b")])?;
    let (a, b) = (bed.world.ports[0].mac, bed.world.ports[1].mac);
    let sent = frame(b, a, 100);
    for _ in 0..4 {
        bed.mode("switchdev")?;
        same("mode", bed.nic.eswitch()?.mode, "switchdev")?;
        same("rules", bed.nic.eswitch()?.flows, 0)?;
        bed.rules(&["in_port {a} action redirect {b}"])?;
        bed.world.exchange(A, &sent, &[(B, sent.clone())])?;
        bed.mode("legacy")?;
        same("mode", bed.nic.eswitch()?.mode, "legacy")?;
        same("rules", bed.nic.flows()?.len(), 0)?;
        same("channels", bed.nic.channels(&[])?.len(), 2)?;
        bed.world.exchange(A, &sent, &[(B, sent.clone())])?;
        bed.world.quiet()?;
    }
    done()
}

fn persistence(bed: &mut Bed) -> Ended {
    let spec = ChannelSpec {
        mac: Some("02:c0:00:00:00:55".into()),
        mtu: 2000,
        ..wish("a")
    };
    bed.add(vec![spec, wish("b")])?;
    let change = ChannelChange {
        mtu: Some(1600),
        ..ChannelChange::default()
    };
    bed.nic.set_channel("a", change)?;
    // Where there are no rates, there is nothing to be kept of them.
    let rate = RateChange {
        tx_max: Some(1_000_000),
        ..RateChange::default()
    };
    let rated = bed.nic.set_rate("a", rate).is_ok();
    let mut other = bed.another()?;
    let all = |nic: &mut dyn chanio::Nic| -> Ended<[String; 3]> {
        let channels = format!("{:?}", nic.channels(&[])?);
        let eswitch = format!("{:?}", nic.eswitch()?);
        let rates = match rated {
            true => format!("{:?}", nic.rates(&["a".into()])?),
            false => String::new(),
        };
        Ok([channels, eswitch, rates])
    };
    let (here, there) = (all(&mut *bed.nic)?, all(&mut *other)?);
    same("channels, eswitch and rates", there, here)?;
    let mtu = other.channels(&["a".into()])?[0].mtu;
    ensure(mtu == 1600, || format!("MTU {mtu} instead of 1600"))?;
    // The other one can take over.
    bed.nic = other;
    bed.world.ports.retain(|port| port.name != "b");
    bed.nic.del_channels(&["b".into()])?;
    let mut third = bed.another()?;
    same("channels", third.channels(&[])?.len(), 1)?;
    done()
}
