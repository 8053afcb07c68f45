//! Where and with what a comparison was made.

use serde::Serialize;
use std::fs;
use std::process::Command;

/// The machine and the programs.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// Day, UTC.
    pub date: String,
    /// As /proc/cpuinfo has it.
    pub cpu: String,
    /// How many.
    pub cpus: usize,
    /// MiB.
    pub memory: u64,
    /// Release.
    pub kernel: String,
    /// Commit of this tree, with `-dirty` when it was changed.
    pub commit: String,
    /// Debian packages of the peers, with their versions.
    pub packages: Vec<(String, String)>,
}

const PACKAGES: [&str; 6] = [
    "dpdk-dev",
    "librte-net-vhost23",
    "openvswitch-switch-dpdk",
    "qemu-system-x86",
    "iperf3",
    "iproute2",
];

fn line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    text.ok()
        .filter(|t| !t.is_empty())
        .unwrap_or_else(|| "unknown".into())
}

fn value_in(file: &str, key: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let found = text
        .lines()
        .find_map(|l| l.strip_prefix(key)?.split_once(':'));
    found.map_or_else(|| "unknown".into(), |(_, value)| value.trim().to_owned())
}

impl Facts {
    /// Of here and now.
    pub fn gather() -> Self {
        let version = |name: &&str| {
            let version = line("dpkg-query", &["-W", "-f=${Version}", name]);
            (name.to_string(), version)
        };
        let repository = env!("CARGO_MANIFEST_DIR");
        let memory = value_in("/proc/meminfo", "MemTotal");
        let kib = memory.split(' ').next().and_then(|n| n.parse::<u64>().ok());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            date: line("date", &["-u", "+%F"]),
            cpu: value_in("/proc/cpuinfo", "model name"),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory: kib.unwrap_or(0) / 1024,
            kernel: kernel.trim().to_owned(),
            commit: line(
                "git",
                &["-C", repository, "describe", "--always", "--dirty"],
            ),
            packages: PACKAGES.iter().map(version).collect(),
        }
    }
}
