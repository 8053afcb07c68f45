//! Network namespaces: one that the test lives in, so that it disturbs nobody, and named ones for
//! containers.

use crate::process::{Process, run};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Move this process into a network and a mount namespace of its own, in which it may make
/// netdevs, `ip netns` names and mounts that nobody else sees and that end with it. To be called
/// first thing in a test, before there are other threads that matter.
pub fn isolate() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces of our own");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    // sysfs shows the netdevs of the namespace it was mounted in.
    let _ = umount2("/sys", MntFlags::MNT_DETACH);
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).expect("own /sys");
    std::fs::create_dir_all("/run/netns").expect("/run/netns");
    mount(
        Some("tmpfs"),
        "/run/netns",
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .expect("own netns names");
    run(Command::new("ip").args(["link", "set", "lo", "up"]));
    quiet("default");
    quiet("all");
}

/// Keep IPv6 from sending on its own, so that counters can be exact.
fn quiet(which: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
    let _ = std::fs::write(path, "1");
}

/// A named network namespace inside [`isolate`]'s.
pub struct Netns {
    name: String,
}

impl Netns {
    /// Make it, with lo up and IPv6 quiet.
    pub fn new(name: &str) -> Self {
        run(Command::new("ip").args(["netns", "add", name]));
        let netns = Self {
            name: name.to_owned(),
        };
        netns.run(&["ip", "link", "set", "lo", "up"]);
        let off = "for c in default all; do echo 1 > /proc/sys/net/ipv6/conf/$c/disable_ipv6; done";
        netns.run(&["sh", "-c", off]);
        netns
    }

    /// Its name, as `ip netns` has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run inside.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(args);
        command
    }

    /// Start an iperf3 server inside; its files go to `dir`.
    pub fn iperf3_server(&self, dir: &Path) -> Process {
        let mut command = self.command(&["iperf3", "-s", "--forceflush"]);
        let mut server = Process::start("iperf3", dir, &mut command);
        server.wait_output("iperf3", 0, Duration::from_secs(10), |text| {
            text.contains("listening")
        });
        server
    }

    /// Run a program inside to its end.
    pub fn run(&self, args: &[&str]) -> String {
        run(&mut self.command(args))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// Counters of a netdev in this namespace as `ip -s link` shows them: (rx packets, rx bytes, tx
/// packets, tx bytes).
pub fn ip_counters(netdev: &str) -> (u64, u64, u64, u64) {
    let text = run(Command::new("ip").args(["-j", "-s", "link", "show", netdev]));
    let json: serde_json::Value = serde_json::from_str(&text).expect("ip -j");
    let stats = &json[0]["stats64"];
    let get = |way: &str, what: &str| stats[way][what].as_u64().expect("a counter");
    (
        get("rx", "packets"),
        get("rx", "bytes"),
        get("tx", "packets"),
        get("tx", "bytes"),
    )
}

/// All netdevs, addresses, bridges' entries and qdiscs, here and in containers: what a change that
/// failed could leave behind.
pub fn netdev_state(containers: &[&Netns]) -> String {
    // The operational state follows a little later than what it is made of, and a netdev that was
    // up once keeps the qdisc that every netdev gets.
    let shell = r#"(ip -j link; ip -j addr; bridge -j fdb) |
        sed 's/"operstate":"[A-Z]*",//g; s/"qdisc":"[a-z_]*",//g'
        tc qdisc | grep -v "qdisc \(noqueue\|pfifo_fast\|mq\|noop\) " || true"#;
    let mut all = run(Command::new("sh").args(["-c", shell]));
    for netns in containers {
        all += &netns.run(&["sh", "-c", shell]);
    }
    all
}
