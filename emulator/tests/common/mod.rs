//! A NIC without netdevs and drivers for its channels, in one process.
#![allow(dead_code)] // each test binary uses its own part

use chanio_emu::frontend::{Client, ClientOptions};
use chanio_emu::nic::Nic;
use chanio_emu::nic::spec::*;
use chanio_model::eswitch::Mode;
use chanio_model::flow::{Action, Match, RuleSpec};
use chanio_model::{ChannelName, DropReason, Mac, RuleId, VportId};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub struct Bed {
    pub nic: Arc<Nic>,
    pub dir: TempDir,
}

pub fn name(text: &str) -> ChannelName {
    text.parse().unwrap()
}

pub fn spec(text: &str) -> ChannelSpec {
    ChannelSpec::new(name(text))
}

impl Bed {
    pub fn new(workers: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nic = Nic::start(NicConfig {
            queues: 1000,
            run_dir: dir.path().to_owned(),
            workers,
            representors: RepresentorMode::Off,
            uplink: UplinkSpec::None,
            nic_index: 0,
            ageing_secs: 300,
            profile: &chanio_model::profile::GENERIC,
            offload: false,
        })
        .unwrap();
        Self { nic, dir }
    }

    pub fn switchdev(workers: usize) -> Self {
        let bed = Self::new(workers);
        let change = EswitchChange {
            mode: Some(Mode::Switchdev),
            ..Default::default()
        };
        bed.nic.set_eswitch(change).unwrap();
        bed
    }

    pub fn add(&self, spec: ChannelSpec) -> ChannelInfo {
        self.nic.add_channels(vec![spec]).unwrap().remove(0)
    }

    /// A channel with a driver.
    pub fn attached(&self, spec: ChannelSpec, features: u64) -> (ChannelInfo, Client) {
        let info = self.add(spec);
        let client = self.connect(&info, features);
        (info, client)
    }

    pub fn connect(&self, info: &ChannelInfo, features: u64) -> Client {
        let options = ClientOptions {
            features,
            buffer_size: 70_000,
            queue_size: 64,
            ..ClientOptions::default()
        };
        Client::connect(info.socket.as_deref().unwrap(), options).unwrap()
    }

    pub fn rule(&self, priority: u16, matches: Match, actions: &[Action]) -> RuleId {
        let actions = actions.iter().cloned().collect();
        let spec = RuleSpec {
            priority,
            matches,
            actions,
            ..RuleSpec::default()
        };
        self.nic.add_rules(vec![spec]).unwrap().remove(0)
    }

    pub fn stats(&self, vport: VportId) -> VportStats {
        self.nic
            .stats()
            .into_iter()
            .find(|s| s.vport == vport)
            .unwrap()
    }

    pub fn drops(&self, vport: VportId, reason: DropReason) -> u64 {
        self.stats(vport)
            .drops
            .iter()
            .find(|d| d.0 == reason)
            .map_or(0, |d| d.1)
    }
}

/// Everything that comes within a short while after the last one.
pub fn receive_all(client: &mut Client) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut quiet = Instant::now();
    while quiet.elapsed() < Duration::from_millis(30) {
        let mut frame = Vec::new();
        if client.receive(&mut frame).unwrap() {
            frames.push(frame);
            quiet = Instant::now();
        }
    }
    frames
}

/// Send and wait until the device is done with it.
pub fn send(client: &mut Client, frame: &[u8]) {
    send_with(client, &[0; 12], frame);
}

pub fn send_with(client: &mut Client, header: &[u8; 12], frame: &[u8]) {
    assert!(client.send_with(header, frame).unwrap(), "ring full");
    client.flush().unwrap();
    wait_for("the device to take the frame", || {
        client.in_flight().unwrap() == 0
    });
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// An Ethernet frame with a payload that nothing parses.
pub fn frame(dst: Mac, src: Mac, payload: &[u8]) -> Vec<u8> {
    let mut frame = dst.0.to_vec();
    frame.extend(src.0);
    frame.extend([0x88, 0xb5]);
    frame.extend(payload);
    frame
}

pub fn from(vport: VportId) -> Match {
    Match::from_port(vport)
}
