//! A guest that rewrites what it has sent, while it is forwarded: what was decided on is what
//! arrives.

mod common;

use chanio_emu::frontend::HEADER;
use chanio_emu::nic::spec::*;
use chanio_emu::ring::GuestMemory;
use chanio_emu::vhost::features::{CSUM, HOST_TSO4, RING_PACKED};
use chanio_model::Mac;
use chanio_model::flow::{Action, Match};
use common::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 0xaa]), Mac([2, 0, 0, 0, 0, 0xbb])];

/// How long it goes on at least; then until both addresses have arrived often enough to say that
/// the race took place.
const LASTS: Duration = Duration::from_millis(800);
const PATIENCE: Duration = Duration::from_secs(30);
const ENOUGH: [u64; 2] = [200, 200];

/// What is sent as, or rewritten to, one or the other: header, addresses, and a mark behind them
/// that no rule looks at.
fn face(which: usize, src: Mac) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    if which == 1 {
        // Asks for a checksum where there is none to be: lost if the header goes with the frame.
        bytes[0] = 1;
        bytes[6..8].copy_from_slice(&60_000u16.to_le_bytes());
    }
    bytes.extend(frame(MACS[which], src, &[]));
    bytes
}

/// Rewrites the fronts of all of a driver's transmit buffers, as fast as it can, until `stop`.
fn rewrite(memory: &GuestMemory, buffers: &[u64], faces: &[Vec<u8>; 2], stop: &AtomicBool) {
    let mut n = 0usize;
    while !stop.load(Ordering::Relaxed) {
        for at in buffers {
            n += 1;
            // The address alone, most of the time: those frames are good, whichever it is.
            let (from, face) = match n % 8 {
                0 => (0, &faces[n / 8 % 2]),
                _ => (HEADER, &faces[n % 2]),
            };
            memory.write(at + from as u64, &face[from..]).unwrap();
        }
    }
}

fn to(mac: Mac) -> Match {
    let mut matches = Match::default();
    (matches.value.eth_dst, matches.mask.eth_dst) = (mac, Mac([0xff; 6]));
    matches
}

/// Rules send each address to a receiver of its own; nothing else goes anywhere.
fn each_receiver_gets_its_address(features: u64, len: usize) {
    let bed = Bed::switchdev(1);
    let (bad, mut sender) = bed.attached(spec("bad"), CSUM | HOST_TSO4 | features);
    let mut receivers = ["one", "two"].map(|name| bed.attached(spec(name), features));
    let mut rules = Vec::new();
    for (mac, (info, _)) in MACS.into_iter().zip(&receivers) {
        rules.push(bed.rule(1, to(mac), &[Action::Redirect(info.vport)]));
    }
    let whole = |which: usize| frame(MACS[which], bad.mac, &vec![7; len]);
    let faces = [0, 1].map(|which| face(which, bad.mac));
    let (memory, buffers) = {
        let (_, area) = sender.transmit_ring();
        (Arc::clone(area.memory()), sender.transmit_buffers())
    };
    let stop = AtomicBool::new(false);
    let mut got = [0; 2];
    std::thread::scope(|scope| {
        scope.spawn(|| rewrite(&memory, &buffers, &faces, &stop));
        let started = Instant::now();
        let mut received = Vec::new();
        let mut sent = 0usize;
        while started.elapsed() < LASTS || got[0] < ENOUGH[0] || got[1] < ENOUGH[1] {
            if started.elapsed() > PATIENCE {
                stop.store(true, Ordering::Relaxed);
                panic!("the race does not take place: {got:?}");
            }
            while sender.send(&whole(sent % 2)).unwrap() {
                sent += 1;
            }
            sender.flush().unwrap();
            for (which, (_, client)) in receivers.iter_mut().enumerate() {
                while client.receive(&mut received).unwrap() {
                    if received[..6] != MACS[which].0 {
                        stop.store(true, Ordering::Relaxed);
                        panic!("receiver {which} got a frame to {:02x?}", &received[..6]);
                    }
                    assert_eq!(
                        client.last_header()[..10],
                        [0; 10],
                        "nothing left to be done"
                    );
                    assert_eq!(received.len(), 14 + len);
                    got[which] += 1;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    wait_for("the device to take all", || {
        sender.in_flight().unwrap() == 0
    });
    for (which, (info, client)) in receivers.iter_mut().enumerate() {
        got[which] += receive_all(client).len() as u64;
        let stats = bed.stats(info.vport);
        let no_buffers = bed.drops(info.vport, chanio_model::DropReason::NoBuffers);
        assert_eq!(stats.rx.packets, got[which], "as many as were counted");
        let rule = bed.nic.rules().into_iter().find(|r| r.id == rules[which]);
        assert_eq!(rule.unwrap().packets, got[which] + no_buffers);
    }
    let state = bed.nic.channel("bad").unwrap().state;
    assert_eq!(state, ChannelState::Running, "rewriting is no fault");
}

#[test]
fn a_short_frame() {
    each_receiver_gets_its_address(0, 46);
}

#[test]
fn a_short_frame_in_packed_rings() {
    each_receiver_gets_its_address(RING_PACKED, 46);
}

#[test]
fn a_frame_with_a_tail_that_is_copied_from_guest_to_guest() {
    each_receiver_gets_its_address(0, 1400);
}
