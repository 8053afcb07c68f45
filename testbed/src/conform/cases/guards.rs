//! What a channel may send and receive: addresses, VLAN, length, link.

use super::{A, B, BROADCAST, REP_A, STRANGER, done, frame, tagged};
use crate::conform::bed::{Bed, wish};
use crate::conform::case::{
    Case, Ended,
    Need::{Legacy, Representors, Switchdev, Wire},
    Setup::Bare,
    case, same,
};
use crate::conform::world::Place;
use chanio::nic::{ChannelChange, ChannelSpec};

const VF: &str = "ip-link(8): ip link set … vf";

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "guards.spoof",
            "with spoof checking a channel sends from its own address only",
            "ip-link(8): vf NUM spoofchk on",
            Bare,
            &[Legacy],
            spoof,
        ),
        case(
            "guards.spoof_switchdev",
            "also towards its representor",
            "ip-link(8): vf NUM spoofchk on; Documentation/networking/representors.rst",
            Bare,
            &[Switchdev, Representors],
            spoof_switchdev,
        ),
        case(
            "guards.vlan_isolates",
            "channels of one port VLAN see each other untagged, and nobody else",
            "ip-link(8): vf NUM vlan VLANID",
            Bare,
            &[Legacy],
            vlan_isolates,
        ),
        case(
            "guards.vlan_refuses_tags",
            "a channel with a port VLAN sends no tags of its own",
            "ip-link(8): vf NUM vlan VLANID; drivers/net/ethernet/intel: VST mode",
            Bare,
            &[Legacy],
            vlan_refuses_tags,
        ),
        case(
            "guards.vlan_on_the_wire",
            "on the wire the port VLAN is a tag, which comes off on the way back",
            "ip-link(8): vf NUM vlan VLANID",
            Bare,
            &[Legacy, Wire],
            vlan_on_the_wire,
        ),
        case(
            "guards.mtu",
            "a frame of exactly the receiver's MTU passes, one byte more is lost and counted",
            "ip-link(8): mtu; virtio 1.3 §5.1.4: mtu",
            Bare,
            &[Legacy],
            mtu,
        ),
        case(
            "guards.link",
            "a channel whose link is down receives nothing, and everything again once it is up",
            "ip-link(8): vf NUM state disable",
            Bare,
            &[Legacy],
            link,
        ),
        case(
            "guards.address_change",
            "a new address takes the place of the old one",
            VF,
            Bare,
            &[Legacy],
            address_change,
        ),
    ]
}

/// How much was lost in all.
fn lost(bed: &mut Bed) -> u64 {
    let drops = bed.drops();
    drops.values().flat_map(|of| of.values()).sum()
}

/// Whether losses are told at all is the device's affair; that what it tells is right is not.
fn one_more_lost(bed: &mut Bed, before: u64) -> Ended {
    match bed.tells_losses() {
        true => same("packets lost", lost(bed) - before, 1),
        false => done(),
    }
}

fn set(bed: &mut Bed, name: &str, change: ChannelChange) -> Ended {
    bed.nic.set_channel(name, change)?;
    done()
}

fn spoof(bed: &mut Bed) -> Ended {
    bed.mode("legacy")?;
    let checked = ChannelSpec {
        spoofchk: true,
        ..wish("a")
    };
    let made = bed.add_if_possible(vec![checked, wish("b")])?;
    same("spoof checking", made[0].spoofchk, true)?;
    let (a, b) = (bed.world.ports[0].mac, bed.world.ports[1].mac);
    let own = frame(b, a, 60);
    bed.world.exchange(A, &own, &[(B, own.clone())])?;
    let before = lost(bed);
    let forged = frame(b, STRANGER, 60);
    bed.world.send(A, &forged)?;
    bed.world.quiet()?;
    one_more_lost(bed, before)?;
    let off = ChannelChange {
        spoofchk: Some(false),
        ..ChannelChange::default()
    };
    set(bed, "a", off)?;
    bed.world.exchange(A, &forged, &[(B, forged.clone())])?;
    bed.world.quiet()
}

fn spoof_switchdev(bed: &mut Bed) -> Ended {
    bed.mode("switchdev")?;
    let checked = ChannelSpec {
        spoofchk: true,
        ..wish("a")
    };
    bed.add_if_possible(vec![checked])?;
    let own = frame(STRANGER, bed.world.ports[0].mac, 60);
    bed.world.exchange(A, &own, &[(REP_A, own.clone())])?;
    let before = lost(bed);
    bed.world.send(A, &frame(BROADCAST, STRANGER, 60))?;
    bed.world.quiet()?;
    one_more_lost(bed, before)
}

fn in_vlan(name: &str, vlan: u16) -> ChannelSpec {
    ChannelSpec { vlan, ..wish(name) }
}

fn vlan_isolates(bed: &mut Bed) -> Ended {
    bed.mode("legacy")?;
    let made = bed.add_if_possible(vec![in_vlan("a", 7), in_vlan("b", 7), in_vlan("c", 8)])?;
    same("port VLAN", made[0].vlan, Some(7))?;
    let (a, b, c) = (
        bed.world.ports[0].mac,
        bed.world.ports[1].mac,
        bed.world.ports[2].mac,
    );
    for sent in [frame(b, a, 60), frame(BROADCAST, a, 60)] {
        bed.world.exchange(A, &sent, &[(B, sent.clone())])?;
    }
    bed.world.send(A, &frame(c, a, 60))?;
    // An address of another VLAN is nobody's: at most the own VLAN sees it.
    let came: Vec<Place> = {
        std::thread::sleep(std::time::Duration::from_millis(20));
        bed.world
            .poll()?
            .into_iter()
            .map(|(place, _)| place)
            .collect()
    };
    same(
        "others that saw it",
        came.iter().filter(|at| **at != B).count(),
        0,
    )
}

fn vlan_refuses_tags(bed: &mut Bed) -> Ended {
    bed.mode("legacy")?;
    bed.add_if_possible(vec![in_vlan("a", 7), in_vlan("b", 7)])?;
    let own = frame(bed.world.ports[1].mac, bed.world.ports[0].mac, 60);
    let before = lost(bed);
    bed.world.send(A, &tagged(7, &own))?;
    bed.world.quiet()?;
    one_more_lost(bed, before)?;
    bed.world.exchange(A, &own, &[(B, own.clone())])
}

fn vlan_on_the_wire(bed: &mut Bed) -> Ended {
    bed.mode("legacy")?;
    bed.open_wire()?;
    bed.add_if_possible(vec![in_vlan("a", 7)])?;
    let a = bed.world.ports[0].mac;
    let sent = frame(STRANGER, a, 100);
    bed.world
        .exchange(A, &sent, &[(Place::Wire, tagged(7, &sent))])?;
    let back = frame(a, STRANGER, 100);
    bed.world
        .exchange(Place::Wire, &tagged(7, &back), &[(A, back.clone())])?;
    for other in [tagged(8, &back), back] {
        bed.world.send(Place::Wire, &other)?;
    }
    bed.world.quiet()
}

fn mtu(bed: &mut Bed) -> Ended {
    bed.mode("legacy")?;
    let large = |name| ChannelSpec {
        mtu: 9000,
        ..wish(name)
    };
    let made = bed.add(vec![large("a"), wish("b")])?;
    same("MTUs", (made[0].mtu, made[1].mtu), (9000, 1500))?;
    let (a, b) = (bed.world.ports[0].mac, bed.world.ports[1].mac);
    let fits = frame(b, a, 1514);
    bed.world.exchange(A, &fits, &[(B, fits.clone())])?;
    let before = lost(bed);
    bed.world.send(A, &frame(b, a, 1515))?;
    bed.world.quiet()?;
    one_more_lost(bed, before)?;
    let larger = ChannelChange {
        mtu: Some(9000),
        ..ChannelChange::default()
    };
    set(bed, "b", larger)?;
    let jumbo = frame(b, a, 9014);
    bed.world.exchange(A, &jumbo, &[(B, jumbo.clone())])
}

fn link(bed: &mut Bed) -> Ended {
    bed.mode("legacy")?;
    bed.add(vec![wish("a"), wish("b")])?;
    let sent = frame(bed.world.ports[1].mac, bed.world.ports[0].mac, 60);
    let state = |up| ChannelChange {
        link_up: Some(up),
        ..ChannelChange::default()
    };
    for _ in 0..2 {
        bed.world.exchange(A, &sent, &[(B, sent.clone())])?;
        set(bed, "b", state(false))?;
        same("link", bed.nic.channels(&["b".into()])?[0].link, "down")?;
        let before = lost(bed);
        bed.world.send(A, &sent)?;
        bed.world.quiet()?;
        one_more_lost(bed, before)?;
        set(bed, "b", state(true))?;
    }
    bed.world.exchange(A, &sent, &[(B, sent.clone())])
}

fn address_change(bed: &mut Bed) -> Ended {
    bed.mode("legacy")?;
    bed.add(vec![wish("a"), wish("b"), wish("c")])?;
    let (a, old) = (bed.world.ports[0].mac, bed.world.ports[1].mac);
    let before = frame(old, a, 60);
    bed.world.exchange(A, &before, &[(B, before.clone())])?;
    let change = ChannelChange {
        mac: Some("02:c0:00:00:00:77".into()),
        ..ChannelChange::default()
    };
    let now = bed.nic.set_channel("b", change)?;
    same("its address", now.mac.as_str(), "02:c0:00:00:00:77")?;
    let after = frame(STRANGER, a, 60);
    bed.world.exchange(A, &after, &[(B, after.clone())])?;
    bed.world.quiet()
}
