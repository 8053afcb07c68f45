//! Guests whose frames go to netdevs straight from their memory.

mod common;
#[allow(dead_code)]
#[path = "ports/netns.rs"]
mod netns;

use chanio_emu::frontend::HEADER;
use chanio_emu::nic::spec::*;
use chanio_emu::port::{RECV_BUF_LEN, Uplink};
use chanio_emu::vhost::features::{CSUM, HOST_TSO4};
use chanio_model::Mac;
use chanio_model::flow::{Action, Match};
use common::*;
use netns::Netns;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 0xaa]), Mac([2, 0, 0, 0, 0, 0xbb])];

/// A channel whose netdev is in `netns`, and a socket that sees what the netdev receives.
fn container(bed: &Bed, netns: &Netns, channel: &str, mtu: u16) -> (ChannelInfo, Uplink) {
    let info = bed.add(ChannelSpec {
        attach: Attach::Tap {
            netns: netns.path().to_owned(),
            ifname: None,
            addresses: Vec::new(),
        },
        mtu,
        ..spec(channel)
    });
    let sees: UplinkSpec = "packet:eth0".parse().unwrap();
    (info, netns.run(move || Uplink::open(&sees).unwrap()))
}

fn to(mac: Mac) -> Match {
    let mut matches = Match::default();
    (matches.value.eth_dst, matches.mask.eth_dst) = (mac, Mac([0xff; 6]));
    matches
}

/// What came, without what the container's own kernel has to say.
fn seen(port: &Uplink, from: Mac) -> Vec<Vec<u8>> {
    let mut buf = vec![0; RECV_BUF_LEN];
    let mut all = Vec::new();
    while let Some(len) = port.recv(&mut buf).unwrap() {
        if buf[HEADER + 6..][..6] == from.0 {
            assert_eq!(buf[..10], [0; 10], "nothing left to be done");
            all.push(buf[HEADER..len].to_vec());
        }
    }
    all
}

#[test]
fn what_was_decided_on_is_what_arrives() {
    let (Some(one), Some(two)) = (Netns::new(), Netns::new()) else {
        return;
    };
    let bed = Bed::switchdev(1);
    let (bad, mut sender) = bed.attached(spec("bad"), CSUM | HOST_TSO4);
    let receivers = [
        container(&bed, &one, "one", 1500),
        container(&bed, &two, "two", 1500),
    ];
    for (mac, (info, _)) in MACS.into_iter().zip(&receivers) {
        bed.rule(1, to(mac), &[Action::Redirect(info.vport)]);
    }
    const LEN: usize = 1400;
    let frames = MACS.map(|mac| frame(mac, bad.mac, &[7; LEN]));
    let memory = Arc::clone(sender.transmit_ring().1.memory());
    let buffers = sender.transmit_buffers();
    let stop = AtomicBool::new(false);
    let mut got = [0; 2];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The address, and what it would be lost for: a checksum where there is none to be.
            for n in 0usize.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let at = buffers[n / 2 % buffers.len()];
                let face = &frames[n % 2][..60];
                memory.write(at + HEADER as u64, face).unwrap();
                memory.write(at, &[u8::from(n.is_multiple_of(16))]).unwrap();
            }
        });
        let until = Instant::now() + Duration::from_secs(20);
        let mut sent = 0;
        while got.iter().any(|n| *n < 300) {
            if Instant::now() > until {
                stop.store(true, Ordering::Relaxed);
                panic!("the race does not take place: {got:?}");
            }
            while sender.send(&frames[sent % 2]).unwrap() {
                sent += 1;
            }
            sender.flush().unwrap();
            for (which, (_, port)) in receivers.iter().enumerate() {
                for frame in seen(port, bad.mac) {
                    let right = frame[..6] == MACS[which].0 && frame.len() == 14 + LEN;
                    if !right {
                        stop.store(true, Ordering::Relaxed);
                    }
                    assert!(right, "receiver {which} got {:02x?}", &frame[..14]);
                    got[which] += 1;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let state = bed.nic.channel("bad").unwrap().state;
    assert_eq!(state, ChannelState::Running, "rewriting is no fault");
}

#[test]
fn memory_that_is_gone_stops_its_channel_and_no_other() {
    let Some(netns) = Netns::new() else { return };
    let bed = Bed::switchdev(1);
    let long_frames = |name| ChannelSpec {
        mtu: 9000,
        ..spec(name)
    };
    let (bad, mut hostile) = bed.attached(long_frames("bad"), CSUM);
    let (good, mut decent) = bed.attached(long_frames("good"), CSUM);
    let (info, port) = container(&bed, &netns, "box", 9000);
    bed.rule(1, to(MACS[0]), &[Action::Redirect(info.vport)]);
    let long = frame(MACS[0], bad.mac, &[7; 8000]);
    let mut sent = 0;
    while hostile.send(&long).unwrap() {
        sent += 1;
    }
    // Of the frame in the last buffer the head is there, the rest is not.
    let last = *hostile.transmit_buffers().iter().max().unwrap();
    let area = hostile.transmit_ring().1;
    let cut = (last - area.spec().gpa + 1000).next_multiple_of(4096);
    area.file().set_len(cut).unwrap();
    hostile.flush().unwrap();
    wait_for("the channel to be stopped", || {
        bed.nic.channel("bad").unwrap().state != ChannelState::Running
    });
    let state = bed.nic.channel("bad").unwrap();
    let fault = state.fault.unwrap_or_default();
    assert!(fault.contains("truncated"), "{fault}");
    assert_eq!(bed.stats(bad.vport).tx.packets, sent, "all were taken");
    seen(&port, bad.mac);
    send(&mut decent, &frame(MACS[0], good.mac, &[8; 8000]));
    let mut came = Vec::new();
    wait_for("the other one's frame", || {
        came.extend(seen(&port, good.mac));
        !came.is_empty()
    });
    assert_eq!(came[0].len(), 8014);
}
