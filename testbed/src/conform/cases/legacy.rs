//! Legacy mode: a switch by addresses.

use super::{A, B, BROADCAST, C, REP_A, STRANGER, done, frame};
use crate::conform::bed::{Bed, wish};
use crate::conform::case::{
    Case, Ended,
    Need::{Legacy, Representors},
    Setup::Bare,
    Stop, case, ensure, refused, same,
};
use crate::conform::world::Place;
use std::time::{Duration, Instant};

const VEB: &str = "IEEE 802.1Qbg: VEB; devlink-eswitch, mode legacy";

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "legacy.unicast",
            "a frame to a channel's address comes out of that channel alone",
            VEB,
            Bare,
            &[Legacy],
            unicast,
        ),
        case(
            "legacy.broadcast",
            "a broadcast comes out of every other channel, not of its own",
            VEB,
            Bare,
            &[Legacy],
            broadcast,
        ),
        case(
            "legacy.static_address",
            "an address added to a channel leads there, until it is removed",
            "bridge(8): fdb add … self",
            Bare,
            &[Legacy],
            static_address,
        ),
        case(
            "legacy.learning",
            "a source that was seen leads to where it was seen, as long as nobody moves",
            "IEEE 802.1Q §8.7",
            Bare,
            &[Legacy],
            learning,
        ),
        case(
            "legacy.representors_count_only",
            "what the host sends on a representor goes nowhere",
            "Documentation/networking/devlink/devlink-eswitch-attr.rst: legacy",
            Bare,
            &[Legacy, Representors],
            representors_count_only,
        ),
        case(
            "legacy.no_rules",
            "rules are refused, saying which mode they need",
            "Documentation/networking/representors.rst: switchdev mode",
            Bare,
            &[Legacy],
            no_rules,
        ),
    ]
}

fn three(bed: &mut Bed) -> Ended {
    bed.mode("legacy")?;
    bed.add(vec![wish("a"), wish("b"), wish("c")])?;
    done()
}

fn unicast(bed: &mut Bed) -> Ended {
    three(bed)?;
    let macs: Vec<_> = bed.world.ports.iter().map(|port| port.mac).collect();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let sent = frame(macs[to], macs[from], 100);
        let out = (Place::Own(to), sent.clone());
        bed.world.exchange(Place::Own(from), &sent, &[out])?;
    }
    bed.world.quiet()
}

fn broadcast(bed: &mut Bed) -> Ended {
    three(bed)?;
    for dst in [BROADCAST, [0x33, 0x33, 0, 0, 0, 1]] {
        let sent = frame(dst, bed.world.ports[0].mac, 60);
        let out = [(B, sent.clone()), (C, sent.clone())];
        bed.world.exchange(A, &sent, &out)?;
    }
    bed.world.quiet()
}

fn static_address(bed: &mut Bed) -> Ended {
    three(bed)?;
    let text = "02:c0:00:00:00:77";
    bed.nic.add_fdb(0, text, "b")?;
    let listed = bed.nic.fdb()?;
    let found = listed.iter().find(|e| e.mac == text);
    let shown = found.map(|e| (e.port.as_str(), e.vlan, e.is_static));
    same("the entry", shown, Some(("b", 0, true)))?;
    let sent = frame(STRANGER, bed.world.ports[0].mac, 60);
    bed.world.exchange(A, &sent, &[(B, sent.clone())])?;
    bed.world.quiet()?;
    bed.nic.del_fdb(0, text)?;
    refused("removing it again", bed.nic.del_fdb(0, text))?;
    let listed = bed.nic.fdb()?;
    ensure(!listed.iter().any(|e| e.mac == text && e.is_static), || {
        "the entry is still listed".into()
    })
}

fn learning(bed: &mut Bed) -> Ended {
    three(bed)?;
    let b = bed.world.ports[1].mac;
    let hello = frame(b, STRANGER, 60);
    bed.world.exchange(A, &hello, &[(B, hello.clone())])?;
    bed.world.quiet()?;
    let back = frame(STRANGER, b, 60);
    bed.world.send(B, &back)?;
    let mut came = Vec::new();
    let until = Instant::now() + Duration::from_millis(100);
    while Instant::now() < until {
        came.extend(bed.world.poll()?.into_iter().map(|(place, _)| place));
        std::thread::sleep(Duration::from_millis(1));
    }
    came.sort();
    match came.as_slice() {
        [place] if *place == A => done(),
        [] => Err(Stop::NotSupported(
            "the switch knows the addresses of its channels only".into(),
        )),
        _ => same("where it comes out", came, vec![A]),
    }
}

fn representors_count_only(bed: &mut Bed) -> Ended {
    three(bed)?;
    if bed.world.ports.iter().any(|port| port.host.is_none()) {
        return Err(Stop::NotSupported(
            "channels have no representors in legacy mode".into(),
        ));
    }
    let to_b = frame(bed.world.ports[1].mac, STRANGER, 60);
    let to_a = frame(bed.world.ports[0].mac, STRANGER, 60);
    for sent in [to_a, to_b, frame(BROADCAST, STRANGER, 60)] {
        bed.world.send(REP_A, &sent)?;
    }
    std::thread::sleep(Duration::from_millis(20));
    let came = bed.world.poll()?;
    if !came.is_empty() && came.iter().all(|(place, _)| *place == A) {
        return Err(Stop::NotSupported(
            "a representor is the other end of its channel's cable in this mode, too".into(),
        ));
    }
    same("frames that come out", came.len(), 0)
}

fn no_rules(bed: &mut Bed) -> Ended {
    three(bed)?;
    let why = refused("a rule", bed.rules(&["in_port {a} action redirect {b}"]))?;
    ensure(why.contains("switchdev"), || {
        format!("`{why}` does not name the mode")
    })?;
    same("rules", bed.nic.flows()?.len(), 0)
}
