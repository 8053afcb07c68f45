//! TCP segments that come to a channel in one burst, joined for a driver that takes large packets.

mod common;

use chanio_emu::frontend::Client;
use chanio_emu::nic::spec::*;
use chanio_emu::vhost::features::{GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, MRG_RXBUF};
use chanio_model::flow::Action;
use chanio_model::offload::{Segmenter, VnetHdr, flags, gso_type};
use chanio_model::{VportId, wire};
use common::*;

const TAKES_LARGE: u64 = MRG_RXBUF | GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6;
const SIZE: usize = 1000;

/// A segment of a connection of this port, from so many bytes on; `last` pushes.
fn segment(port: u16, from: usize, len: usize, last: bool) -> Vec<u8> {
    let mut frame = vec![2, 9, 9, 9, 9, 2, 2, 9, 9, 9, 9, 1, 8, 0, 0x45, 0];
    frame.extend((40 + len as u16).to_be_bytes());
    frame.extend(((from / SIZE) as u16).to_be_bytes());
    frame.extend([0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = wire::checksum::internet(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let mut tcp = [port.to_be_bytes(), 80u16.to_be_bytes()].concat();
    tcp.extend((from as u32).to_be_bytes());
    tcp.extend([
        0,
        0,
        0,
        9,
        0x50,
        if last { 0x18 } else { 0x10 },
        4,
        0,
        0,
        0,
        0,
        0,
    ]);
    tcp.extend((from..from + len).map(|i| (i * 7 + usize::from(port)) as u8));
    let pseudo = wire::checksum::pseudo_v4(&[10, 0, 0, 1], &[10, 0, 0, 2], 6, tcp.len() as u32);
    let sum = pseudo.bytes(&tcp).finish();
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    frame.extend(tcp);
    frame
}

/// What a driver received, each frame with its header, once the NIC has taken all from the sender.
fn receive(sender: &mut Client, client: &mut Client) -> Vec<(VnetHdr, Vec<u8>)> {
    wait_for("the device to take the frames", || {
        sender.in_flight().unwrap() == 0
    });
    let mut got = Vec::new();
    let mut quiet = std::time::Instant::now();
    while quiet.elapsed() < std::time::Duration::from_millis(50) {
        let mut frame = Vec::new();
        if client.receive(&mut frame).unwrap() {
            got.push((VnetHdr::read(&client.last_header()), frame));
            quiet = std::time::Instant::now();
        }
    }
    got
}

/// Two channels, with a rule from the first to the second.
fn bed(lro: bool, takes: u64) -> (Bed, Client, VportId, Client) {
    let bed = Bed::switchdev(1);
    let (a, sender) = bed.attached(spec("a"), 0);
    let receiver = ChannelSpec { lro, ..spec("b") };
    let (b, receiver) = bed.attached(receiver, takes);
    bed.rule(1, from(a.vport), &[Action::Redirect(b.vport)]);
    (bed, sender, b.vport, receiver)
}

/// Sends all of them in one burst.
fn burst(sender: &mut Client, frames: &[Vec<u8>]) {
    for frame in frames {
        assert!(sender.send(frame).unwrap());
    }
    sender.flush().unwrap();
}

/// Sends them until they come in fewer packets than this, how often that was, and those: a busy
/// machine's worker may take them one by one.
fn joined(
    sender: &mut Client,
    frames: &[Vec<u8>],
    receiver: &mut Client,
    fewer_than: usize,
) -> (u64, Vec<(VnetHdr, Vec<u8>)>) {
    for tries in 1..50 {
        burst(sender, frames);
        let got = receive(sender, receiver);
        if got.len() < fewer_than {
            return (tries, got);
        }
    }
    panic!("nothing is joined");
}

#[test]
fn a_burst_of_two_connections_is_two_packets_that_can_be_cut_again() {
    let (bed, mut sender, b, mut receiver) = bed(true, TAKES_LARGE);
    let mut frames = Vec::new();
    for n in 0..8 {
        for port in [1000, 2000] {
            frames.push(segment(
                port,
                n * SIZE,
                if n == 7 { 300 } else { SIZE },
                n == 7,
            ));
        }
    }
    // A wrong checksum is for the receiver to see.
    let mut wrong = segment(3000, 0, SIZE, false);
    wrong[60] ^= 1;
    frames.push(wrong.clone());
    frames.push(segment(3000, SIZE, SIZE, false));
    let (tries, got) = joined(&mut sender, &frames, &mut receiver, 8);
    let mut cut = Vec::new();
    for (header, packet) in &got {
        if header.gso_type == gso_type::NONE {
            cut.push(packet.clone());
            continue;
        }
        assert_eq!(header.gso_type, gso_type::TCPV4);
        assert_eq!(header.flags & flags::NEEDS_CSUM, flags::NEEDS_CSUM);
        assert_eq!((header.gso_size, header.hdr_len), (SIZE as u16, 54));
        let head = &packet[..packet.len().min(wire::HEAD_LEN)];
        let parsed = wire::parse(head, packet.len() as u32, VportId(1)).unwrap();
        let offload = header.check(&parsed, head, packet.len() as u32).unwrap();
        let segments = Segmenter::new(packet, &offload).unwrap();
        for n in 0..segments.count() {
            let mut out = vec![0; segments.max_len()];
            let len = segments.write(n, &mut out).unwrap();
            out.truncate(len);
            cut.push(out);
        }
    }
    assert!(cut.contains(&wrong), "not joined, not mended");
    cut.sort();
    let mut sent = frames.clone();
    sent.sort();
    assert!(cut == sent, "cut again they are what was sent");
    // They count as they came.
    let stats = bed.stats(b).rx;
    let bytes: usize = frames.iter().map(Vec::len).sum();
    let want = (tries * 18, tries * bytes as u64);
    assert_eq!((stats.packets, stats.bytes), want);
}

#[test]
fn nothing_is_joined_unless_asked_for_and_taken() {
    let frames: Vec<_> = (0..6)
        .map(|n| segment(1000, n * SIZE, SIZE, false))
        .collect();
    for (lro, takes) in [
        (false, TAKES_LARGE),
        (true, MRG_RXBUF),
        (true, TAKES_LARGE & !MRG_RXBUF),
        (true, MRG_RXBUF | GUEST_CSUM | GUEST_TSO6),
    ] {
        let (_bed, mut sender, _, mut receiver) = bed(lro, takes);
        burst(&mut sender, &frames);
        let got: Vec<_> = receive(&mut sender, &mut receiver)
            .into_iter()
            .map(|(_, f)| f)
            .collect();
        assert!(got == frames, "{lro} {takes:#x}: {} frames", got.len());
    }
}

#[test]
fn it_is_switched_while_it_runs_and_refused_for_netdevs() {
    let (bed, mut sender, _, mut receiver) = bed(false, TAKES_LARGE);
    let frames: Vec<_> = (0..6)
        .map(|n| segment(1000, n * SIZE, SIZE, false))
        .collect();
    let set = |lro| {
        let change = ChannelChange {
            lro: Some(lro),
            ..ChannelChange::default()
        };
        bed.nic.set_channel(&name("b"), change).unwrap()
    };
    assert!(set(true).spec.lro);
    joined(&mut sender, &frames, &mut receiver, 6);
    assert!(!set(false).spec.lro);
    burst(&mut sender, &frames);
    assert_eq!(receive(&mut sender, &mut receiver).len(), 6);
    let netdev = ChannelSpec {
        lro: true,
        attach: Attach::tap("pod", "", Vec::new()).unwrap(),
        ..spec("pod")
    };
    let refused = bed.nic.add_channels(vec![netdev]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "lro: on is not allowed, must be off with attach tap: its netdev has the kernel's GRO"
    );
}
