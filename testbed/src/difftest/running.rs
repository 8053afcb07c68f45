//! A case through a running NIC: drivers on its channels' rings, netdevs for its representors, a
//! wire to another netdev.

use super::case::{Case, Outcome, PORTS, Seen};
use super::compare::settle_all;
use super::kernel_case::apart;
use crate::nic::{Bed, channel};
use crate::process::run;
use chanio_emu::frontend::{Client, ClientOptions};
use chanio_emu::nic::spec::*;
use chanio_emu::port::uplink::PacketPort;
use chanio_emu::port::{IfName, RECV_BUF_LEN};
use chanio_emu::vhost::features::{CSUM, EVENT_IDX};
use chanio_model::eswitch::Mode;
use chanio_model::flow::RuleSpec;
use chanio_model::offload::{Csum, VNET_HDR_LEN, VnetHdr, finish_checksum, flags};
use chanio_model::{RuleId, VportId};
use std::io::IoSlice;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long what is expected may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long is waited for what is not.
const QUIET: Duration = Duration::from_millis(2);

/// A NIC with as many ports as cases have.
pub struct Running {
    bed: Bed,
    /// Of the channels, from port 1 on.
    drivers: Vec<Client>,
    /// The other end of the uplink's cable.
    wire: PacketPort,
    /// The host's side of each port.
    representors: Vec<PacketPort>,
    buffer: Vec<u8>,
    cases: u32,
}

/// A netdev's frames; what is sent to it, it receives.
fn open(netdev: &str) -> PacketPort {
    let name: IfName = netdev.parse().expect("a netdev's name");
    PacketPort::open(&name).expect(netdev)
}

fn ip(words: &str) {
    run(Command::new("ip").args(words.split_whitespace()));
}

impl Running {
    /// Start it, in a namespace that is the test's own; its files go to `dir`.
    pub fn start(dir: &Path) -> Self {
        ip("link add wire0 mtu 9000 type veth peer name wire1 mtu 9000");
        ip("link set wire0 up");
        ip("link set wire1 up");
        let uplink = UplinkSpec::Packet("wire0".into());
        let bed = Bed::with_uplink(dir, RepresentorMode::Tap, uplink);
        let mode = EswitchChange {
            mode: Some(Mode::Switchdev),
            ..EswitchChange::default()
        };
        bed.nic.set_eswitch(mode).expect("switchdev");
        let specs = (1..PORTS).map(|n| ChannelSpec {
            mtu: 9000,
            ..channel(&format!("p{n}"))
        });
        let channels = bed.add(specs.collect());
        let options = ClientOptions {
            features: EVENT_IDX | CSUM,
            buffer_size: 16_384,
            ..ClientOptions::default()
        };
        let driver = |info: &ChannelInfo| {
            let socket = info.socket.as_deref().expect("a socket");
            Client::connect(socket, options).expect("a driver")
        };
        let drivers = channels.iter().map(driver).collect();
        let netdevs = channels.iter().map(|info| info.representor.clone());
        let netdevs = std::iter::once("c0p0".to_owned()).chain(netdevs.flatten());
        let representors = netdevs.map(|netdev| {
            ip(&format!("link set {netdev} up"));
            open(&netdev)
        });
        let representors: Vec<_> = representors.collect();
        assert_eq!(representors.len(), PORTS, "a representor for each port");
        Self {
            bed,
            drivers,
            wire: open("wire1"),
            representors,
            buffer: vec![0; RECV_BUF_LEN],
            cases: 0,
        }
    }

    /// Run a case; `expected` frames of it are waited for.
    pub fn run(&mut self, case: &Case, expected: &Outcome) -> Outcome {
        let mut outcome = Outcome::default();
        let mut rules = Vec::new();
        self.cases += 1;
        for rule in &case.rules {
            let name = (rule.chain, rule.prio);
            let text = apart(&rule.text(), self.cases);
            let spec = RuleSpec::parse(&text, &|name| self.bed.nic.vport_by_name(name));
            let added = spec.map_err(|e| e.to_string());
            let added = added.and_then(|spec| {
                self.bed
                    .nic
                    .add_rules(vec![spec])
                    .map_err(|e| e.to_string())
            });
            match added {
                Ok(ids) => rules.push((name, ids[0])),
                Err(reason) => drop(outcome.refused.insert(name, reason)),
            }
        }
        for (n, frame) in case.frames.iter().enumerate() {
            self.send(frame.port, &frame.header(), &frame.bytes());
            let wanted = expected.frames.get(n).map_or(0, Vec::len);
            outcome.frames.push(self.collect(wanted));
        }
        let infos = self.bed.nic.rules();
        let seen = |id: RuleId| {
            let info = infos.iter().find(|info| info.id == id);
            let actions = info.map(|info| &info.actions[..]).unwrap_or_default();
            let seen = actions.iter().map(|action| Seen {
                packets: action.packets,
                bytes: action.bytes,
            });
            seen.collect()
        };
        outcome.seen = rules.iter().map(|(name, id)| (*name, seen(*id))).collect();
        self.bed.nic.flush_rules();
        outcome
    }

    /// Sends a frame and waits until the NIC has taken it.
    fn send(&mut self, port: usize, header: &[u8; VNET_HDR_LEN], bytes: &[u8]) {
        let Some(driver) = port.checked_sub(1).map(|n| &mut self.drivers[n]) else {
            let frame = [IoSlice::new(header), IoSlice::new(bytes)];
            let taken = || self.bed.stats(VportId::UPLINK).tx.packets;
            let before = taken();
            self.wire.send(&frame).expect("the wire takes it");
            return patiently(|| taken() > before);
        };
        assert!(driver.send_with(header, bytes).expect("a ring"), "full");
        driver.flush().expect("a ring");
        patiently(|| driver.in_flight().expect("a ring") == 0);
    }

    /// What comes out, by netdev: at least `wanted` frames if they come at all, and all that come
    /// without a pause.
    fn collect(&mut self, wanted: usize) -> Vec<(String, Vec<u8>)> {
        let mut got = Vec::new();
        let begun = Instant::now();
        let mut last = begun;
        while (got.len() < wanted && begun.elapsed() < PATIENCE) || last.elapsed() < QUIET {
            let before = got.len();
            for (n, driver) in self.drivers.iter_mut().enumerate() {
                let mut frame = Vec::new();
                while driver.receive(&mut frame).expect("a ring") {
                    got.push((format!("p{}", n + 1), std::mem::take(&mut frame)));
                }
            }
            let representors = self.representors.iter().enumerate();
            let netdevs = representors.map(|(n, netdev)| (format!("r{n}"), netdev));
            for (name, netdev) in netdevs.chain([("p0".to_owned(), &self.wire)]) {
                while let Some(len) = netdev.recv(&mut self.buffer).expect("a netdev") {
                    got.push((name.clone(), finished(&self.buffer[..len])));
                }
            }
            if got.len() > before {
                last = Instant::now();
            }
        }
        got.sort_by(|a, b| a.0.cmp(&b.0));
        got
    }
}

fn patiently(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "the NIC does not take a frame");
        std::thread::yield_now();
    }
}

/// A frame that came with a virtio-net header, as the wire would have it.
fn finished(bytes: &[u8]) -> Vec<u8> {
    let header = VnetHdr::read(bytes);
    let mut frame = bytes[VNET_HDR_LEN..].to_vec();
    if header.flags & flags::NEEDS_CSUM != 0 {
        let csum = Csum {
            start: header.csum_start,
            offset: header.csum_offset,
        };
        assert!(finish_checksum(&mut frame, csum), "a field in the frame");
    }
    frame
}

/// Where the running NIC has done something else than the model; `None` if nowhere. The counters of
/// shared police are each rule's own here.
pub fn difference(case: &Case, model: &Outcome, running: &Outcome) -> Option<String> {
    if model.refused != running.refused {
        return Some(format!(
            "refused by the model {:?}, by the NIC {:?}",
            model.refused, running.refused
        ));
    }
    for (n, (ours, theirs)) in model.frames.iter().zip(&running.frames).enumerate() {
        if settle_all(ours) != settle_all(theirs) {
            return Some(format!(
                "frame {n} {:?}\nby the model {ours:x?}\nby the NIC {theirs:x?}",
                case.frames[n]
            ));
        }
    }
    let packets = |seen: &Vec<Seen>| seen.iter().map(|seen| seen.packets).collect::<Vec<_>>();
    for rule in &case.rules {
        let name = (rule.chain, rule.prio);
        let shares = |action: &String| action.starts_with("police index");
        let (ours, theirs) = (model.seen.get(&name), running.seen.get(&name));
        let (ours, theirs) = (ours.map(packets), theirs.map(packets));
        if ours != theirs && !rule.actions.iter().any(shares) {
            return Some(format!(
                "packets of rule {}: {ours:?} by the model, {theirs:?} by the NIC",
                rule.text()
            ));
        }
    }
    None
}
