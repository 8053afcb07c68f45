//! A client that misbehaves harms its own channel, which says why, and no other.

mod common;

use chanio_emu::frontend::Client;
use chanio_emu::frontend::misbehave::{self, Violation};
use chanio_emu::nic::Refused;
use chanio_emu::nic::spec::*;
use chanio_model::flow::Action;
use common::*;

/// Two channels that talk, and one that will do harm.
struct Scene {
    bed: Bed,
    good: Client,
    peer: Client,
    hello: Vec<u8>,
}

impl Scene {
    fn new() -> Self {
        let bed = Bed::switchdev(1);
        let (good, good_driver) = bed.attached(spec("good"), 0);
        let (peer, peer_driver) = bed.attached(spec("peer"), 0);
        bed.rule(1, from(good.vport), &[Action::Redirect(peer.vport)]);
        let hello = frame(peer.mac, good.mac, &[7; 60]);
        Self {
            bed,
            good: good_driver,
            peer: peer_driver,
            hello,
        }
    }

    fn others_run_on(&mut self) {
        for _ in 0..10 {
            send(&mut self.good, &self.hello);
            assert_eq!(receive_all(&mut self.peer).len(), 1);
        }
    }

    /// Let a fresh client of a fresh channel do harm, see the channel stopped with the reason, all
    /// others run on, and the channel usable by the next client.
    fn harm(&mut self, violation: &Violation) {
        let (info, driver) = self.bed.attached(spec("bad"), misbehave::FEATURES);
        (violation.harm)(&driver);
        wait_for(violation.what, || {
            self.bed.nic.channel("bad").unwrap().state == ChannelState::Faulted
        });
        let fault = self.bed.nic.channel("bad").unwrap().fault.unwrap();
        let says = violation.says;
        assert!(fault.contains(says), "`{fault}` does not say `{says}`");
        self.others_run_on();

        drop(driver);
        wait_for("the client to be gone", || {
            self.bed.nic.channel("bad").unwrap().state != ChannelState::Running
        });
        let mut next = self.bed.connect(&info, 0);
        send(&mut next, &self.hello);
        drop(next);
        self.bed.nic.del_channels(&[name("bad")]).unwrap();
        self.others_run_on();
    }
}

#[test]
fn whoever_breaks_the_rules_is_stopped_alone() {
    let mut scene = Scene::new();
    for violation in misbehave::IN_RINGS.iter().chain(&misbehave::IN_MESSAGES) {
        scene.harm(violation);
    }
}

#[test]
fn requests_that_are_refused_change_nothing() {
    let bed = Bed::new(1);
    bed.add(spec("web1"));
    let refused = |specs: Vec<ChannelSpec>| bed.nic.add_channels(specs).unwrap_err().to_string();
    let many = |n: usize, queues: u16| {
        (0..n)
            .map(|i| ChannelSpec {
                queues,
                ..spec(&format!("many{i}"))
            })
            .collect::<Vec<_>>()
    };
    let cases = [
        (
            refused(many(10, 100)),
            "1000 queue pairs asked for, 999 of 1000 are free",
        ),
        (
            refused(many(1, 0)),
            "queues: 0 is not allowed, must be 1 to",
        ),
        (
            refused(many(1, 128)),
            "queues: 128 is not allowed, must be 1 to 127",
        ),
        (
            refused(vec![spec("web2"), spec("web1")]),
            "a channel `web1` exists already",
        ),
        (
            refused(vec![spec("web2"), spec("web2")]),
            "a channel `web2` exists already",
        ),
        (
            refused(vec![ChannelSpec {
                mtu: 67,
                ..spec("web2")
            }]),
            "mtu: 67 is not allowed",
        ),
        (
            refused(vec![ChannelSpec {
                mac: "03:00:00:00:00:01".parse().ok(),
                ..spec("web2")
            }]),
            "mac: 03:00:00:00:00:01 is not allowed, must be a unicast address",
        ),
        (
            refused(vec![ChannelSpec {
                mac: Some(bed.nic.channels()[0].mac),
                ..spec("web2")
            }]),
            "already belongs to channel `web1`",
        ),
        (
            bed.nic
                .del_channels(&[name("web1"), name("nobody")])
                .unwrap_err()
                .to_string(),
            "nobody",
        ),
    ];
    for (said, wanted) in cases {
        assert!(said.contains(wanted), "`{said}` does not say `{wanted}`");
    }
    assert_eq!(bed.nic.channels().len(), 1);
    assert_eq!(bed.nic.info().queues_free, 999);
    assert!(matches!(
        bed.nic.add_rules(vec![]),
        Err(Refused::WrongMode { .. })
    ));
    let sockets: Vec<_> = std::fs::read_dir(bed.dir.path().join("channel"))
        .unwrap()
        .collect();
    assert_eq!(sockets.len(), 1);
    bed.nic.shutdown();
    assert!(!bed.dir.path().join("channel").exists());
    assert!(matches!(
        bed.nic.add_channels(vec![spec("late")]),
        Err(Refused::ShuttingDown)
    ));
}

#[test]
fn a_channel_that_sends_to_its_own_bad_receive_ring_is_stopped_alone() {
    let mut scene = Scene::new();
    let (info, mut driver) = scene.bed.attached(spec("bad"), 0);
    let to_itself = [Action::Redirect(info.vport)];
    scene.bed.rule(1, from(info.vport), &to_itself);
    let (ring, area) = driver.receive_ring();
    // The index of the available ring, more than a lap ahead.
    area.memory()
        .write(ring.avail + 2, &1000u16.to_le_bytes())
        .unwrap();
    assert!(driver.send(&scene.hello).unwrap());
    driver.flush().unwrap();
    wait_for("the channel to be stopped", || {
        scene.bed.nic.channel("bad").unwrap().state == ChannelState::Faulted
    });
    let fault = scene.bed.nic.channel("bad").unwrap().fault.unwrap();
    assert!(
        fault.starts_with("receive ring: available index jumped"),
        "{fault}"
    );
    scene.others_run_on();
}
