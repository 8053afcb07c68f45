//! Open vSwitch over the kernel's datapath, which has tc do what it can (`hw-offload`), in software
//! alone and with hardware.

use crate::wire::{Wires, frame, station};
use crate::{SOON, handed_up, ip};
use chanio_emu::nic::spec::KernelRule;
use chanio_model::Mac;
use chanio_testbed::netns::isolate;
use chanio_testbed::nic::Bed;
use chanio_testbed::process::{run, wait_for};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What it takes beside the test itself.
pub const PROGRAMS: [&str; 6] = [
    "/usr/bin/ovsdb-tool",
    "/usr/sbin/ovsdb-server",
    "/usr/lib/openvswitch-switch/ovs-vswitchd",
    "/usr/bin/ovs-vsctl",
    "/usr/bin/ovs-appctl",
    "/usr/share/openvswitch/vswitch.ovsschema",
];

/// A running Open vSwitch with a bridge; it ends when this is dropped.
struct Ovs<'a> {
    dir: &'a Path,
}

impl<'a> Ovs<'a> {
    fn start(dir: &'a Path) -> Self {
        let ovs = Self { dir };
        ovs.run("ovsdb-tool create conf.db /bin/vswitch.ovsschema");
        ovs.run("ovsdb-server conf.db --remote=punix:db.sock --detach --pidfile --no-chdir");
        ovs.vsctl("--no-wait init");
        ovs.vsctl("--no-wait set Open_vSwitch . other_config:hw-offload=true");
        ovs.run("ovs-vswitchd --detach --pidfile --no-chdir");
        ovs.vsctl("add-br br0");
        ovs
    }

    fn run(&self, line: &str) -> String {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        let places = ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"];
        command.envs(places.map(|place| (place, self.dir)));
        run(command.args(words).current_dir(self.dir))
    }

    fn vsctl(&self, words: &str) -> String {
        let socket = self.dir.join("db.sock");
        self.run(&format!("ovs-vsctl --db=unix:{} {words}", socket.display()))
    }
}

impl Drop for Ovs<'_> {
    fn drop(&mut self) {
        self.vsctl("del-br br0");
        self.run("ovs-appctl -t ovs-vswitchd exit");
        self.run("ovs-appctl -t ovsdb-server exit");
    }
}

fn filters(bed: &Bed) -> Vec<KernelRule> {
    let mut rules = bed.nic.kernel_rules().unwrap();
    rules.retain(|rule| rule.kind == "flower");
    rules
}

/// What comes out of each frame: the second time Open vSwitch has told tc what to do with it.
fn with_ovs(offload: bool) -> Vec<Vec<(usize, Vec<u8>)>> {
    const PAUSE: Duration = Duration::from_millis(300);
    let (nic_dir, ovs_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bed = Bed::following(nic_dir.path(), offload);
    let mut wires = Wires::new(&bed, 3);
    let ovs = Ovs::start(ovs_dir.path());
    for (port, tag) in [(0, ""), (1, ""), (2, " tag=7")] {
        ip(&format!("link set {} up", wires.representor(port)));
        ovs.vsctl(&format!("add-port br0 {}{tag}", wires.representor(port)));
    }
    // Everybody is heard of; `c` is in a VLAN of its own, and `a` has a station there.
    let hello = |wires: &mut Wires, port: usize, tag| {
        let hello = frame(Mac::BROADCAST, station(port as u8), tag, 0);
        wires.send_all(port, &[hello], PAUSE)
    };
    let mut results = vec![
        hello(&mut wires, 0, None),
        hello(&mut wires, 1, None),
        hello(&mut wires, 2, None),
        hello(&mut wires, 0, Some(7)),
    ];
    let talks = [
        (0, 1, None),
        (1, 0, None),
        (0, 2, Some(7)),
        (2, 0, None),
        (1, 2, None),
    ];
    for (from, to, tag) in talks {
        let data = frame(station(to), station(from as u8), tag, 1);
        // The first of them is what Open vSwitch learns of.
        results.push(wires.send_all(from, std::slice::from_ref(&data), PAUSE));
        let vport = wires.channels[from].vport;
        if offload {
            let known = |bed: &Bed| {
                filters(bed)
                    .iter()
                    .any(|rule| rule.place == wires.representor(from))
            };
            wait_for("a filter of Open vSwitch's", SOON, || known(&bed));
            std::thread::sleep(PAUSE);
        }
        let before = handed_up(&bed, vport);
        for _ in 0..3 {
            results.push(wires.send_all(from, std::slice::from_ref(&data), PAUSE));
        }
        let slow = handed_up(&bed, vport) - before;
        println!("offload {offload}, {from} to {to}, tag {tag:?}: {slow} of 3 by the host");
        for rule in offload.then(|| filters(&bed)).into_iter().flatten() {
            println!(
                "{} prio {} in hardware {} of {}, {:?}, {} packets",
                rule.place, rule.priority, rule.in_hw, rule.ports, rule.why_not, rule.packets
            );
        }
        // Floods go to the bridge's own netdev, too, which is nothing that hardware has.
        let fast = offload && (from, to) != (1, 2);
        assert_eq!(slow, if fast { 0 } else { 3 });
    }
    drop(ovs);
    drop(bed);
    results
}

#[test]
#[ignore = "runs in a guest, whose kernel has Open vSwitch's datapath"]
fn open_vswitch_in_hardware_does_what_it_does_in_the_kernel() {
    isolate();
    let (slow, fast) = (with_ovs(false), with_ovs(true));
    for (n, (slow, fast)) in slow.iter().zip(&fast).enumerate() {
        assert_eq!(slow, fast, "frame {n}");
    }
}
