//! Notifications that there was no room for (netlink(7), ENOBUFS), while the emulator did not run.

use crate::{SOON, bridge, ip};
use chanio_model::Mac;
use chanio_testbed::emulator::Emulator;
use chanio_testbed::netns::{Netns, isolate};
use chanio_testbed::process::{run, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// An address comes and goes so often: some 30 MB of notifications, as the kernel counts them. The
/// socket has room for 16.
const TIMES: usize = 20_000;

fn station(n: u16) -> Mac {
    let [high, low] = n.to_be_bytes();
    Mac([2, 0, 0, 1, high, low])
}

fn batch(dir: &Path, lines: impl Iterator<Item = String>) {
    let file = dir.join("batch");
    std::fs::write(&file, lines.collect::<String>()).unwrap();
    run(Command::new("bridge").arg("-batch").arg(&file));
}

/// The addresses that are listed as being in hardware.
fn listed(emu: &Emulator) -> BTreeSet<String> {
    let rules = emu.json("flow show --kernel");
    let in_hw = rules.as_array().unwrap().iter().filter(|rule| {
        rule["kind"] == "fdb" && rule["in_hw_count"] == 1 && rule["why_not"].is_null()
    });
    let address = |rule: &serde_json::Value| rule["rule"].as_str().unwrap()[..17].to_owned();
    in_hw.map(address).collect()
}

fn stations(all: impl Iterator<Item = u16>) -> BTreeSet<String> {
    all.map(|n| station(n).to_string()).collect()
}

#[test]
fn what_was_not_heard_of_is_read() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let emu = Emulator::start(dir.path(), "--queues 4 --workers 1 --offload");
    emu.chanio("eswitch set --mode switchdev");
    ip("link add br0 type bridge mcast_snooping 0");
    ip("link set br0 up");
    let _containers = ["red", "blue"].map(Netns::new);
    for name in ["red", "blue"] {
        emu.chanio(&format!("channel add {name} --attach tap:{name}:eth0"));
    }
    let channels = emu.json("channel show");
    let representors: Vec<_> = channels
        .as_array()
        .unwrap()
        .iter()
        .map(|channel| channel["representor"].as_str().unwrap().to_owned())
        .collect();
    for representor in &representors {
        ip(&format!("link set {representor} up master br0"));
    }
    let port = &representors[0];
    let line = |what: &str, n: u16| format!("fdb {what} {} dev {port} master static\n", station(n));
    wait_for("the ports to forward", SOON, || {
        bridge("link show").matches("state forwarding").count() == 2
    });
    batch(dir.path(), (0..100).map(|n| line("add", n)));
    wait_for("a hundred addresses", SOON, || {
        listed(&emu) == stations(0..100)
    });
    assert_eq!(emu.json("eswitch show")[0]["kernel_overruns"], 0);

    let pid = Pid::from_raw(emu.pid() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    let often = (0..TIMES).flat_map(|_| [line("add", 999), line("del", 999)]);
    let new = (100..150).map(|n| line("add", n));
    let gone = (0..50).map(|n| line("del", n));
    batch(dir.path(), often.chain(new).chain(gone));
    kill(pid, Signal::SIGCONT).unwrap();
    wait_for("what is there now", Duration::from_secs(10), || {
        listed(&emu) == stations(50..150)
    });
    let overruns = emu.json("eswitch show")[0]["kernel_overruns"]
        .as_u64()
        .unwrap();
    println!("notifications were lost {overruns} times");
    assert!(overruns > 0);
    let said = emu.output();
    let warning = "notifications of the kernel were lost, all is read anew";
    assert_eq!(said.matches(warning).count() as u64, overruns, "{said}");
    // And it is heard of what comes next.
    batch(dir.path(), (150..160).map(|n| line("add", n)));
    wait_for("ten more", SOON, || listed(&emu) == stations(50..160));
    assert_eq!(
        emu.json("eswitch show")[0]["kernel_overruns"].as_u64(),
        Some(overruns)
    );
    emu.stop();
    ip("link del br0");
}
