//! Frames through a running NIC: what goes where, and who counts it.

mod common;

use chanio_emu::nic::spec::*;
use chanio_emu::vhost::features::{CSUM, EVENT_IDX, GUEST_CSUM, GUEST_TSO4, HOST_TSO4, MRG_RXBUF};
use chanio_model::flow::Action;
use chanio_model::{DropReason, Mac, Vlan, wire};
use common::*;

#[test]
fn a_rule_redirects_and_everybody_counts_the_same() {
    let bed = Bed::switchdev(1);
    let (a, mut a_driver) = bed.attached(spec("a"), EVENT_IDX);
    let (b, mut b_driver) = bed.attached(spec("b"), 0);
    let (c, mut c_driver) = bed.attached(spec("c"), 0);
    let id = bed.rule(
        10,
        from(a.vport),
        &[Action::Mirror(c.vport), Action::Redirect(b.vport)],
    );
    let sent: Vec<_> = (0..500)
        .map(|n| frame(b.mac, a.mac, &[n as u8; 46]))
        .collect();
    let mut got = Vec::new();
    for burst in sent.chunks(50) {
        for frame in burst {
            assert!(a_driver.send(frame).unwrap());
        }
        a_driver.flush().unwrap();
        wait_for("the device to take the burst", || {
            a_driver.in_flight().unwrap() == 0
        });
        got.extend(receive_all(&mut b_driver));
        receive_all(&mut c_driver);
    }
    assert_eq!(got, sent);
    let rule = bed.nic.rules().remove(0);
    assert_eq!((rule.id, rule.packets, rule.bytes), (id, 500, 500 * 60));
    assert_eq!(
        bed.stats(a.vport).tx,
        Count {
            packets: 500,
            bytes: 500 * 60
        }
    );
    assert_eq!(
        bed.stats(b.vport).rx,
        Count {
            packets: 500,
            bytes: 500 * 60
        }
    );
    assert_eq!(
        bed.stats(c.vport).rx,
        Count {
            packets: 500,
            bytes: 500 * 60
        }
    );

    bed.nic.del_rules(&[id]).unwrap();
    send(&mut a_driver, &sent[0]);
    assert_eq!(bed.drops(a.vport, DropReason::NoRepresentor), 1);
    bed.rule(1, from(a.vport), &[Action::Drop]);
    send(&mut a_driver, &sent[0]);
    assert_eq!(bed.drops(a.vport, DropReason::RuleDrop), 1);
}

#[test]
fn legacy_floods_learns_and_keeps_vlans_apart() {
    let bed = Bed::new(2);
    let (a, mut a_driver) = bed.attached(spec("a"), 0);
    let (b, mut b_driver) = bed.attached(spec("b"), 0);
    let red = ChannelSpec {
        vlan: Vlan::new(7),
        spoofchk: true,
        ..spec("red")
    };
    let (red, mut red_driver) = bed.attached(red, 0);
    let broadcast = frame(
        Mac::BROADCAST,
        a.mac,
        b"hello, everybody in the untagged VLAN.........",
    );
    send(&mut a_driver, &broadcast);
    assert_eq!(receive_all(&mut b_driver), [broadcast]);
    assert!(receive_all(&mut red_driver).is_empty());
    assert!(receive_all(&mut a_driver).is_empty());

    // A trunk hears VLAN 7 with its tag, and answers with one.
    let from_red = frame(Mac::BROADCAST, red.mac, &[1; 50]);
    send(&mut red_driver, &from_red);
    let heard = receive_all(&mut b_driver);
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0][12..16], [0x81, 0, 0, 7]);
    assert_eq!([&heard[0][..12], &heard[0][16..]].concat(), from_red);
    assert_eq!(receive_all(&mut a_driver), heard, "so does the other trunk");
    let mut answer = frame(red.mac, b.mac, &[2; 50]);
    answer.splice(12..12, [0x81, 0, 0, 7]);
    send(&mut b_driver, &answer);
    assert_eq!(
        receive_all(&mut red_driver),
        [frame(red.mac, b.mac, &[2; 50])]
    );
    assert!(
        receive_all(&mut a_driver).is_empty(),
        "known unicast is not flooded"
    );

    // Spoofing and tagging are not for a channel with a port VLAN.
    send(&mut red_driver, &frame(Mac::BROADCAST, b.mac, &[3; 50]));
    assert_eq!(bed.drops(red.vport, DropReason::SpoofedMac), 1);
    let mut tagged = frame(b.mac, red.mac, &[3; 50]);
    tagged.splice(12..12, [0x81, 0, 0, 9]);
    send(&mut red_driver, &tagged);
    assert_eq!(bed.drops(red.vport, DropReason::VlanNotAllowed), 1);

    // A station behind a channel is learned.
    let behind = Mac([2, 0, 0, 0, 0, 0x55]);
    send(&mut b_driver, &frame(a.mac, behind, &[4; 50]));
    receive_all(&mut a_driver);
    send(&mut a_driver, &frame(behind, a.mac, &[5; 50]));
    assert_eq!(receive_all(&mut b_driver).len(), 1);
    let learned = bed.nic.fdb().into_iter().find(|e| e.mac == behind).unwrap();
    assert_eq!((learned.vport, learned.is_static), (b.vport, false));
}

/// An IPv4/TCP frame of `payload` bytes with the pseudo-header's sum in the checksum field, as a
/// driver with CSUM and HOST_TSO4 leaves it; and the header that says so.
fn tso(dst: Mac, src: Mac, payload: usize) -> ([u8; 12], Vec<u8>) {
    let total = 40 + payload as u16;
    let mut ip = vec![0x45, 0];
    ip.extend(total.to_be_bytes());
    ip.extend([0, 9, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = wire::checksum::internet(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut tcp = vec![
        0x10, 0, 0x20, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0,
    ];
    let pseudo =
        wire::checksum::pseudo_v4(&[10, 0, 0, 1], &[10, 0, 0, 2], 6, 20 + payload as u32).partial();
    tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
    let mut frame = dst.0.to_vec();
    frame.extend(src.0);
    frame.extend([8, 0]);
    frame.extend(ip);
    frame.extend(tcp);
    frame.extend((0..payload).map(|n| n as u8));
    let mut header = [0; 12];
    header[0] = 1; // NEEDS_CSUM
    header[1] = 1; // TCPv4
    header[2..4].copy_from_slice(&54u16.to_le_bytes());
    header[4..6].copy_from_slice(&1448u16.to_le_bytes());
    header[6..8].copy_from_slice(&34u16.to_le_bytes());
    header[8..10].copy_from_slice(&16u16.to_le_bytes());
    (header, frame)
}

#[test]
fn segmentation_is_passed_on_or_done_here() {
    let bed = Bed::switchdev(1);
    let (a, mut a_driver) = bed.attached(spec("a"), CSUM | HOST_TSO4);
    let (b, mut able) = bed.attached(spec("able"), GUEST_CSUM | GUEST_TSO4 | MRG_RXBUF);
    let (c, mut plain) = bed.attached(spec("plain"), 0);
    bed.rule(
        1,
        from(a.vport),
        &[Action::Mirror(b.vport), Action::Redirect(c.vport)],
    );
    let (header, frame) = tso(c.mac, a.mac, 60_000);
    send_with(&mut a_driver, &header, &frame);

    assert_eq!(
        receive_all(&mut able),
        std::slice::from_ref(&frame),
        "whole"
    );
    assert_eq!(able.last_header()[..2], [1, 1], "and still to be segmented");

    let segments = receive_all(&mut plain);
    assert_eq!(segments.len(), 60_000usize.div_ceil(1448));
    let mut payload: Vec<u8> = Vec::new();
    for segment in &segments {
        assert!(segment.len() <= 1514);
        assert_eq!(
            wire::checksum::internet(&segment[14..34]),
            0,
            "IPv4 checksum"
        );
        let l4 = &segment[34..];
        let pseudo = wire::checksum::pseudo_v4(&[10, 0, 0, 1], &[10, 0, 0, 2], 6, l4.len() as u32);
        assert_eq!(pseudo.bytes(l4).finish(), 0, "TCP checksum");
        let seq = u32::from_be_bytes(l4[4..8].try_into().unwrap());
        assert_eq!(seq as usize, 1 + payload.len());
        payload.extend(&l4[20..]);
    }
    assert_eq!(payload, frame[54..]);
    // Each end counts what it has: one frame, or its segments.
    let counted = |c: &ChannelInfo| bed.stats(c.vport).rx;
    let bytes: usize = segments.iter().map(Vec::len).sum();
    let whole = Count {
        packets: 1,
        bytes: frame.len() as u64,
    };
    assert_eq!(counted(&b), whole);
    let cut = Count {
        packets: segments.len() as u64,
        bytes: bytes as u64,
    };
    assert_eq!(counted(&c), cut);
    assert_eq!(plain.last_header()[..2], [0, 0]);
}

#[test]
fn a_driver_may_come_back_and_others_do_not_notice() {
    let bed = Bed::switchdev(1);
    let (a, mut a_driver) = bed.attached(spec("a"), 0);
    let (b, mut b_driver) = bed.attached(spec("b"), 0);
    let (c, mut c_driver) = bed.attached(spec("c"), 0);
    bed.rule(1, from(a.vport), &[Action::Redirect(b.vport)]);
    bed.rule(1, from(c.vport), &[Action::Redirect(a.vport)]);
    for round in 0..10u8 {
        let hello = frame(b.mac, a.mac, &[round; 60]);
        send(&mut a_driver, &hello);
        assert_eq!(receive_all(&mut b_driver), std::slice::from_ref(&hello));
        drop(c_driver);
        wait_for("the channel to be free", || {
            bed.nic.channel("c").unwrap().state == ChannelState::Disconnected
        });
        send(&mut a_driver, &hello);
        assert_eq!(receive_all(&mut b_driver), [hello]);
        c_driver = bed.connect(&c, 0);
        let hello = frame(a.mac, c.mac, &[round; 60]);
        send(&mut c_driver, &hello);
        assert_eq!(receive_all(&mut a_driver), [hello]);
    }
    assert!(bed.stats(b.vport).drops.is_empty());
}

#[test]
fn what_cannot_be_delivered_is_counted_at_the_receiver() {
    let bed = Bed::switchdev(1);
    let (a, mut a_driver) = bed.attached(spec("a"), 0);
    let b = bed.add(spec("b"));
    bed.rule(1, from(a.vport), &[Action::Redirect(b.vport)]);
    let hello = frame(b.mac, a.mac, &[0; 60]);
    send(&mut a_driver, &hello);
    assert_eq!(bed.drops(b.vport, DropReason::NotConnected), 1);
    let b_driver = bed.connect(&b, 0);
    for _ in 0..100 {
        send(&mut a_driver, &hello);
    }
    assert_eq!(
        bed.stats(b.vport).rx.packets,
        64,
        "as many as it has buffers"
    );
    assert_eq!(bed.drops(b.vport, DropReason::NoBuffers), 36);
    let change = ChannelChange {
        link_up: Some(false),
        ..Default::default()
    };
    bed.nic.set_channel(&name("b"), change).unwrap();
    send(&mut a_driver, &hello);
    assert_eq!(bed.drops(b.vport, DropReason::LinkDown), 1);
    drop(b_driver);
}
