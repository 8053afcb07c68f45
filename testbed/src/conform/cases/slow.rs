//! What no rule takes goes to the host, and what the host sends comes out of the channel.

use super::{A, B, BROADCAST, REP_A, REP_B, STRANGER, frame, tagged};
use crate::conform::bed::Bed;
use crate::conform::case::{
    Case, Ended,
    Need::{Representors, Switchdev, Wire},
    Setup::World,
    Stop, case, same,
};
use crate::conform::world::{MARK, Place};
use crate::process::run;
use chanio::DeviceError;
use std::process::Command;

const REP: &str = "Documentation/networking/representors.rst: what is a representor, slow path";

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "slow.to_host",
            "what a channel sends comes out of its representor, and of no other",
            REP,
            World,
            &[Switchdev, Representors],
            to_host,
        ),
        case(
            "slow.from_host",
            "what the host sends on a representor comes out of its channel, and of no other",
            REP,
            World,
            &[Switchdev, Representors],
            from_host,
        ),
        case(
            "slow.random",
            "a hundred frames of any length and kind pass both ways as they are",
            REP,
            World,
            &[Switchdev, Representors],
            random,
        ),
        case(
            "slow.bridge",
            "two channels talk through a bridge of the host's over their representors",
            "Documentation/networking/representors.rst: representors are ordinary netdevs",
            World,
            &[Switchdev, Representors],
            bridge,
        ),
        case(
            "hairpin.channel",
            "a rule may send a frame back to the channel it came from",
            "Documentation/networking/representors.rst: as if redirected on the representor",
            World,
            &[Switchdev],
            hairpin,
        ),
        case(
            "hairpin.bridge",
            "a bridge port in hairpin mode reflects a frame to its channel",
            "bridge(8): hairpin on",
            World,
            &[Switchdev, Representors],
            hairpin_bridge,
        ),
        case(
            "wire.both_ways",
            "rules join a channel to the wire in both directions",
            "Documentation/networking/representors.rst: uplink representor",
            World,
            &[Switchdev, Wire],
            wire,
        ),
    ]
}

/// Frames that a switch might be tempted to treat in some way of its own.
fn odd(bed: &Bed, src: [u8; 6]) -> Vec<Vec<u8>> {
    let b = bed.world.ports[1].mac;
    let plain = frame(b, src, 60);
    vec![
        plain.clone(),
        frame(BROADCAST, src, 60),
        frame([0x33, 0x33, 0, 0, 0, 1], src, 90),
        frame(STRANGER, src, 60),
        tagged(7, &plain),
        tagged(0, &plain),
        tagged(9, &tagged(7, &plain)),
        frame(b, src, 1514),
        frame(b, src, 28),
    ]
}

fn to_host(bed: &mut Bed) -> Ended {
    for sent in odd(bed, bed.world.ports[0].mac) {
        bed.world.exchange(A, &sent, &[(REP_A, sent.clone())])?;
    }
    let sent = frame(BROADCAST, bed.world.ports[1].mac, 60);
    bed.world.exchange(B, &sent, &[(REP_B, sent.clone())])?;
    bed.world.quiet()
}

fn from_host(bed: &mut Bed) -> Ended {
    for sent in odd(bed, STRANGER) {
        bed.world.exchange(REP_A, &sent, &[(A, sent.clone())])?;
    }
    bed.world.quiet()
}

fn random(bed: &mut Bed) -> Ended {
    for n in 0..100 {
        let mut sent = vec![0; 12];
        sent.iter_mut()
            .for_each(|byte| *byte = bed.random.word() as u8);
        // A source is a station.
        sent[6] &= 0xfe;
        for _ in 0..bed.random.below(3) {
            let tpid = [[0x81, 0], [0x88, 0xa8]][bed.random.below(2) as usize];
            sent.extend(tpid);
            sent.extend((bed.random.word() as u16 & 0xefff).to_be_bytes());
        }
        let types = [0x0800u16, 0x86dd, 0x0806, 0x8847, 0x88cc, 0x88b5, 0x9000];
        sent.extend(types[bed.random.below(types.len() as u32) as usize].to_be_bytes());
        sent.extend(MARK);
        let len = bed.random.below(1514 - sent.len() as u32);
        sent.extend((0..len).map(|_| bed.random.word() as u8));
        let (from, to) = if n % 2 == 0 { (A, REP_A) } else { (REP_A, A) };
        bed.world.exchange(from, &sent, &[(to, sent.clone())])?;
    }
    bed.world.quiet()
}

/// A bridge of the host's over these netdevs, until it is dropped.
struct Bridge(&'static str);

impl Bridge {
    fn over(bed: &Bed, ports: &[usize]) -> Self {
        let bridge = Self("cnfbr0");
        ip(&format!(
            "link add {} type bridge mcast_snooping 0",
            bridge.0
        ));
        let quiet = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", bridge.0);
        let _ = std::fs::write(quiet, "1");
        for port in ports {
            if let Some(netdev) = &bed.world.ports[*port].representor {
                ip(&format!("link set {netdev} master {}", bridge.0));
            }
        }
        ip(&format!("link set {} up", bridge.0));
        bridge
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", self.0]).status();
    }
}

fn ip(words: &str) {
    run(Command::new("ip").args(words.split_whitespace()));
}

fn bridge(bed: &mut Bed) -> Ended {
    let (a, b) = (bed.world.ports[0].mac, bed.world.ports[1].mac);
    let bridge = Bridge::over(bed, &[0, 1]);
    for (from, to, sent) in [
        (A, B, frame(BROADCAST, a, 60)),
        (B, A, frame(a, b, 200)),
        (A, B, frame(b, a, 1514)),
    ] {
        let (out, back) = if from == A {
            (REP_A, REP_B)
        } else {
            (REP_B, REP_A)
        };
        // The host sees it come in on one; what its own bridge sends it does not see as coming.
        let _ = back;
        bed.world
            .exchange(from, &sent, &[(out, sent.clone()), (to, sent.clone())])?;
    }
    bed.world.quiet()?;
    drop(bridge);
    Ok(())
}

fn hairpin(bed: &mut Bed) -> Ended {
    match bed.rules(&["in_port {a} action redirect {a}"]) {
        Ok(_) => {}
        Err(DeviceError::Refused { reason }) => return Err(Stop::NotSupported(reason)),
        Err(error) => return Err(error.into()),
    }
    let sent = frame(bed.world.ports[1].mac, bed.world.ports[0].mac, 60);
    bed.world.exchange(A, &sent, &[(A, sent.clone())])?;
    bed.world.quiet()
}

fn hairpin_bridge(bed: &mut Bed) -> Ended {
    let a = bed.world.ports[0].mac;
    let bridge = Bridge::over(bed, &[0]);
    if let Some(netdev) = &bed.world.ports[0].representor {
        run(Command::new("bridge").args(["link", "set", "dev", netdev, "hairpin", "on"]));
    }
    let sent = frame(BROADCAST, a, 60);
    bed.world
        .exchange(A, &sent, &[(REP_A, sent.clone()), (A, sent.clone())])?;
    bed.world.quiet()?;
    drop(bridge);
    Ok(())
}

fn wire(bed: &mut Bed) -> Ended {
    bed.open_wire()?;
    let ids = bed.rules(&[
        "in_port {a} action redirect uplink",
        "in_port uplink dst_mac 02:c0:00:00:00:0a action redirect {a}",
    ])?;
    let a = bed.world.ports[0].mac;
    let out = tagged(7, &frame(STRANGER, a, 200));
    bed.world.exchange(A, &out, &[(Place::Wire, out.clone())])?;
    let back = frame(a, STRANGER, 1514);
    bed.world
        .exchange(Place::Wire, &back, &[(A, back.clone())])?;
    bed.world.quiet()?;
    same("packets of both rules", bed.counted(&ids)?, vec![1, 1])
}
