//! What many flow rules cost: adding and removing them by the API, and their memory; beside Open
//! vSwitch's bundles and `tc -batch` in a guest, which is emulated, so that only its growth with the
//! number of rules says something.

use crate::emulator::Emulator;
use chanio_testbed::guest::{BOOT, Guest, image};
use chanio_testbed::netns::isolate;
use chanio_testbed::process::{Process, run};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Rules, each for another flow; by all of these keys, so that both have one mask.
fn flow(n: u32) -> ([u8; 3], u32) {
    let [_, b, c, d] = (n / 16).to_be_bytes();
    ([b, c, d], 1000 + n % 16)
}

pub fn run_all(counts: &[u32]) {
    println!("flow rules, added and removed, a second, and bytes of memory for each");
    for count in counts {
        emulator(*count);
    }
    let root = chanio_testbed::can_run();
    if root {
        // The image may have to be downloaded, and there is no network behind this. Open vSwitch's
        // bridges are netdevs that outlive it.
        image();
        isolate();
    }
    for count in counts {
        if !ovs(*count) {
            println!("  ovs-ofctl --bundle      not installed, or not root");
            break;
        }
    }
    if root {
        // Emulation makes it a hundred times slower.
        let few: Vec<_> = counts.iter().map(|count| (*count / 100).max(100)).collect();
        tc(&few);
    }
}

fn told(who: &str, count: u32, added: f64, removed: f64, memory: Option<u64>) {
    let rate = |seconds: f64| f64::from(count) / seconds.max(1e-9);
    let memory = memory.map_or("-".into(), |bytes| (bytes / u64::from(count)).to_string());
    println!(
        "  {who:<22} {count:>8} rules: {:>9.0} added/s {:>9.0} removed/s {memory:>6} bytes",
        rate(added),
        rate(removed),
    );
}

fn emulator(count: u32) {
    let emulator = Emulator::start(16, "off", 1);
    emulator.chanio("eswitch set --mode switchdev");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("rules");
    let line = |n| {
        let ([b, c, d], port) = flow(n);
        format!("dst_ip 10.{b}.{c}.{d} ip_proto udp dst_port {port} action drop\n")
    };
    std::fs::write(&file, (0..count).map(line).collect::<String>()).expect("a file");
    // What the first request takes for itself is not the rules'.
    emulator.chanio("flow add prio 1 in_port uplink action drop");
    emulator.chanio("flow flush");
    let before = emulator.memory().rss;
    let added = emulator.chanio(&format!("--json flow add --file {}", file.display()));
    let memory = (emulator.memory().rss - before) * 1024;
    let removed = emulator.chanio("flow flush");
    emulator.stop();
    told(
        "chanio flow add --file",
        count,
        added,
        removed,
        Some(memory),
    );
}

/// Open vSwitch's userspace datapath; false if it cannot be run.
fn ovs(count: u32) -> bool {
    let schema = Path::new("/usr/share/openvswitch/vswitch.ovsschema");
    if !schema.exists() || !chanio_testbed::can_run() {
        return false;
    }
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let command = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(name, dir.path());
        }
        command.args(words);
        command
    };
    let at = |name: &str| dir.path().join(name).display().to_string();
    run(command("ovsdb-tool", &["create", &at("conf.db")]).arg(schema));
    let remote = format!("unix:{}", at("db.sock"));
    let mut database = command("ovsdb-server", &[&at("conf.db")]);
    database.arg(format!("--remote=p{remote}"));
    database.arg(format!("--unixctl={}", at("ovsdb.ctl")));
    let _database = Process::start("ovsdb", dir.path(), &mut database);
    wait(|| dir.path().join("db.sock").exists());
    let db = format!("--db={remote}");
    run(&mut command("ovs-vsctl", &[&db, "--no-wait", "init"]));
    let mut switch = command("ovs-vswitchd", &[&remote]);
    switch.arg(format!("--unixctl={}", at("vswitchd.ctl")));
    let switch = Process::start("vswitchd", dir.path(), &mut switch);
    let bridge = "--timeout=60 add-br br0 -- set bridge br0 datapath_type=netdev fail-mode=secure";
    run(command("ovs-vsctl", &[&db]).args(bridge.split(' ')));
    let line = |n| {
        let ([b, c, d], port) = flow(n);
        format!("udp,nw_dst=10.{b}.{c}.{d},tp_dst={port},actions=drop\n")
    };
    std::fs::write(at("flows"), (0..count).map(line).collect::<String>()).expect("a file");
    let management = at("br0.mgmt");
    let ofctl = |words: &[&str]| {
        let started = Instant::now();
        let mut ofctl = command("ovs-ofctl", &["-O", "OpenFlow14", "--bundle"]);
        run(ofctl.args(words));
        started.elapsed().as_secs_f64()
    };
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", switch.pid()));
        let status = status.expect("a running switch");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        number.expect("VmRSS") * 1024
    };
    let before = resident();
    let added = ofctl(&["add-flows", &management, &at("flows")]);
    let memory = resident().saturating_sub(before);
    let removed = ofctl(&["del-flows", &management]);
    told("ovs-ofctl --bundle", count, added, removed, Some(memory));
    true
}

fn wait(mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "waited in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// tc flower in software, in a guest.
fn tc(counts: &[u32]) {
    let mut script = String::from(
        "load sch_ingress cls_flower act_gact veth\n\
         ip link add v0 type veth peer name v1\n\
         tc qdisc add dev v0 clsact\n\
         now() { read up idle < /proc/uptime; echo $up; }\n",
    );
    for count in counts {
        script.push_str(&format!(
            "seq 0 {} | awk '{{ n = int($1 / 16); printf \"filter add dev v0 ingress protocol ip \
             prio 1 handle %d flower ip_proto udp dst_ip 10.%d.%d.%d dst_port %d action drop\\n\", \
             $1 + 1, int(n / 65536), int(n / 256) % 256, n % 256, 1000 + $1 % 16 }}' > /tmp/rules\n\
             a=$(now); tc -batch /tmp/rules; b=$(now); tc filter del dev v0 ingress; c=$(now)\n\
             echo \"guest: {count} $a $b $c end\"\n",
            count - 1
        ));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut guest = Guest::new(dir.path(), &script).boot();
    let last = format!("guest: {} ", counts.last().copied().unwrap_or_default());
    guest.wait_output("tc", 0, 5 * BOOT, |text| {
        text.lines()
            .any(|line| line.contains(&last) && line.contains(" end"))
    });
    let text = guest.output();
    for count in counts {
        let told_by = format!("guest: {count} ");
        let line = text.lines().find_map(|line| line.split_once(&told_by));
        let times: Vec<f64> = line
            .map(|(_, rest)| {
                rest.split(' ')
                    .filter_map(|word| word.parse().ok())
                    .collect()
            })
            .unwrap_or_default();
        if let [a, b, c] = times[..] {
            told("tc -batch (emulated)", *count, b - a, c - b, None);
        }
    }
    guest.wait(Duration::from_secs(30));
}
