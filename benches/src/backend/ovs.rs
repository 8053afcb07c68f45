//! Open vSwitch with DPDK, its own database and one polling thread.

use super::{Backend, Program};
use crate::bed::Bed;
use crate::machine::BACKEND_CPU;
use chanio_testbed::process::{Process, run};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const VSWITCHD: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const PATIENCE: Duration = Duration::from_secs(60);

/// How a switch is to be.
pub struct Setup<'a> {
    /// vhost-user ports, OpenFlow ports 1, 2, ….
    pub ports: usize,
    /// OpenFlow rules.
    pub flows: &'a [String],
}

/// A bridge that learns addresses.
pub fn normal(bed: &Bed, ports: usize) -> std::io::Result<Backend> {
    let flows = ["actions=NORMAL".to_owned()];
    let setup = Setup {
        ports,
        flows: &flows,
    };
    start(bed, &setup)
}

/// A bridge with ports.
pub fn start(bed: &Bed, setup: &Setup<'_>) -> std::io::Result<Backend> {
    let dir = bed.run_dir()?;
    let db = dir.join("conf.db");
    run(Command::new("ovsdb-tool")
        .arg("create")
        .arg(&db)
        .arg(SCHEMA));
    let remote = format!("unix:{}", dir.join("db.sock").display());
    let mut command = bed.command(&[BACKEND_CPU], "ovsdb-server");
    own_folders(&mut command, &dir)
        .arg(&db)
        .arg(format!("--remote=p{remote}"))
        .arg(file("--unixctl", &dir, "ovsdb.ctl"));
    let database = Process::start("ovsdb", &dir, &mut command);
    crate::wait_until(PATIENCE, || dir.join("db.sock").exists());
    let vsctl = |words: &[String]| {
        let mut command = Command::new("ovs-vsctl");
        own_folders(&mut command, &dir);
        run(command
            .arg(format!("--db={remote}"))
            .arg("--timeout=300")
            .args(words))
    };
    let words = |text: &str| -> Vec<String> { text.split(' ').map(String::from).collect() };
    vsctl(&words("--no-wait init"));
    let mut set = words("--no-wait set Open_vSwitch .");
    let mask = 1 << BACKEND_CPU;
    set.extend([
        "other_config:dpdk-init=true".to_owned(),
        format!("other_config:pmd-cpu-mask={mask:x}"),
        format!("other_config:dpdk-lcore-mask={mask:x}"),
        "other_config:dpdk-extra=--in-memory --no-pci --no-telemetry -m 512".to_owned(),
    ]);
    vsctl(&set);

    let mut command = bed.command(&[BACKEND_CPU], VSWITCHD);
    own_folders(&mut command, &dir)
        .arg(&remote)
        .arg(file("--unixctl", &dir, "vswitchd.ctl"))
        .arg(file("--log-file", &dir, "vswitchd-all.log"));
    let switch = Process::start("vswitchd", &dir, &mut command);
    let mut transaction =
        words("add-br br0 -- set bridge br0 datapath_type=netdev fail-mode=secure");
    for n in 0..setup.ports {
        transaction.extend(words(&format!(
            "-- add-port br0 p{n} -- set Interface p{n} type=dpdkvhostuser ofport_request={}",
            n + 1
        )));
    }
    // Returns when the switch has done it.
    vsctl(&transaction);

    let flows = dir.join("flows");
    std::fs::write(&flows, setup.flows.join("\n") + "\n")?;
    let mut command = Command::new("ovs-ofctl");
    command.args(["--timeout=60", "-O", "OpenFlow13", "add-flows"]);
    run(own_folders(&mut command, &dir)
        .arg(dir.join("br0.mgmt"))
        .arg(&flows));
    let sockets: Vec<PathBuf> = (0..setup.ports)
        .map(|n| dir.join(format!("p{n}")))
        .collect();
    crate::wait_until(PATIENCE, || sockets.iter().all(|s| s.exists()));
    Ok(Backend {
        programs: vec![Program::Process(switch), Program::Process(database)],
        sockets,
    })
}

/// Adds a TAP with this name that the polling thread drives.
pub fn add_tap(backend: &Backend, name: &str) {
    let dir = backend.sockets[0].parent().expect("RUN_DIR/NAME");
    let mut command = Command::new("ovs-vsctl");
    command.arg(format!("--db=unix:{}", dir.join("db.sock").display()));
    let device = format!("options:dpdk-devargs=net_tap0,iface={name}");
    command.args(["--timeout=60", "add-port", "br0", "t0"]);
    command.args(["--", "set", "Interface", "t0", "type=dpdk", &device]);
    // The switch has a transmit queue for its main thread and one for the polling one; a TAP has
    // as many of both kinds.
    command.arg("options:n_rxq=2");
    run(own_folders(&mut command, dir));
    crate::wait_until(PATIENCE, || Path::new("/sys/class/net").join(name).exists());
}

/// How many OpenFlow rules with action output nothing has matched.
///
/// # Errors
/// None.
pub fn idle_rules(backend: &Backend) -> Result<usize, String> {
    let dir = backend.sockets[0].parent().expect("RUN_DIR/NAME");
    let mut command = Command::new("ovs-ofctl");
    command.args(["--timeout=60", "-O", "OpenFlow13", "dump-flows"]);
    let text = run(own_folders(&mut command, dir).arg(dir.join("br0.mgmt")));
    let idle = |line: &&str| line.contains("n_packets=0,") && line.contains("output");
    Ok(text.lines().filter(idle).count())
}

fn file(option: &str, dir: &Path, name: &str) -> String {
    format!("{option}={}", dir.join(name).display())
}

fn own_folders<'a>(command: &'a mut Command, dir: &Path) -> &'a mut Command {
    for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(name, dir);
    }
    command
}
