//! A client that misbehaves harms its own channel, which says why, and no other.

mod common;

use chanio_emu::frontend::Client;
use chanio_emu::nic::Refused;
use chanio_emu::nic::spec::*;
use chanio_emu::ring::RingConfig;
use chanio_emu::vhost::features::INDIRECT_DESC;
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

    /// Let a fresh client of a fresh channel do `harm` to its transmit ring, see the channel
    /// stopped with `reason`, all others run on, and the channel usable by the next client.
    fn harm(&mut self, reason: &str, harm: impl Fn(&Client, RingConfig)) {
        let (info, driver) = self.bed.attached(spec("bad"), INDIRECT_DESC);
        let (config, _) = driver.transmit_ring();
        harm(&driver, config);
        driver.kick().unwrap();
        wait_for("the channel to be stopped", || {
            self.bed.nic.channel("bad").unwrap().state == ChannelState::Faulted
        });
        let fault = self.bed.nic.channel("bad").unwrap().fault.unwrap();
        assert!(fault.contains(reason), "`{fault}` does not say `{reason}`");
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

/// Write descriptor `index`.
fn descriptor(driver: &Client, at: u64, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
    let mut bytes = addr.to_le_bytes().to_vec();
    bytes.extend(len.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(next.to_le_bytes());
    driver
        .transmit_ring()
        .1
        .memory()
        .write(at + 16 * u64::from(index), &bytes)
        .unwrap();
}

/// Make the chain at `head` available, and nothing else.
fn available(driver: &Client, config: RingConfig, head: u16, index: u16) {
    let memory = driver.transmit_ring().1.memory();
    memory.write(config.avail + 4, &head.to_le_bytes()).unwrap();
    memory
        .write(config.avail + 2, &index.to_le_bytes())
        .unwrap();
}

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

#[test]
fn broken_rings_stop_their_channel_alone() {
    let mut scene = Scene::new();
    scene.harm("available index jumped", |driver, config| {
        available(driver, config, 0, 1000)
    });
    scene.harm("outside a table of 64", |driver, config| {
        available(driver, config, 64, 1)
    });
    scene.harm("is not mapped", |driver, config| {
        descriptor(driver, config.desc, 0, 0xdead_0000_0000, 64, 0, 0);
        available(driver, config, 0, 1);
    });
    scene.harm("is not mapped", |driver, config| {
        descriptor(driver, config.desc, 0, config.desc, u32::MAX, 0, 0);
        available(driver, config, 0, 1);
    });
    scene.harm("length 0", |driver, config| {
        descriptor(driver, config.desc, 0, config.desc, 0, 0, 0);
        available(driver, config, 0, 1);
    });
    scene.harm("loops", |driver, config| {
        descriptor(driver, config.desc, 0, config.desc, 1, NEXT, 0);
        available(driver, config, 0, 1);
    });
    scene.harm("follows a writable one", |driver, config| {
        descriptor(driver, config.desc, 0, config.desc, 64, NEXT | WRITE, 1);
        descriptor(driver, config.desc, 1, config.desc, 64, 0, 0);
        available(driver, config, 0, 1);
    });
    scene.harm("indirect table of 24 bytes", |driver, config| {
        descriptor(driver, config.desc, 0, config.desc, 24, INDIRECT, 0);
        available(driver, config, 0, 1);
    });
    scene.harm("is itself indirect", |driver, config| {
        descriptor(driver, config.desc, 0, config.desc, 16, INDIRECT, 0);
        available(driver, config, 0, 1);
    });
}

#[test]
fn truncated_memory_stops_its_channel_alone() {
    let mut scene = Scene::new();
    scene.harm("truncated", |driver, _| {
        driver.transmit_ring().1.file().set_len(0).unwrap();
    });
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
