//! TCP between a container, or a guest, and a container.

use super::{Case, Contender, Metric};
use crate::backend::chanio::Emulator;
use crate::backend::{Backend, mac, ovs};
use crate::bed::Bed;
use crate::machine::{BACKEND_CPU, CLIENT_CPU};
use crate::rig::{Rig, Trouble};
use chanio_testbed::guest::{BOOT, Guest};
use chanio_testbed::netns::Netns;
use chanio_testbed::process::{Process, run};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const BOTH: [usize; 2] = [BACKEND_CPU, CLIENT_CPU];
const SERVER: &str = "10.9.0.1";
const CLIENT: &str = "10.9.0.2";

const RATE: Metric = Metric {
    name: "",
    unit: "Gbit/s",
    higher_is_better: true,
};

pub fn cases() -> Vec<Case> {
    let netns = Case::new(
        "iperf-netns",
        "one TCP stream of iperf3 from a container to another, MTU 1500; the scheduler places \
         iperf3 on both cpus"
            .into(),
        &[RATE],
        vec![
            Contender::new("chanio", chanio_containers),
            Contender::new("veth and bridge", bridge),
        ],
    );
    let guest = Case::new(
        "iperf-guest",
        "one TCP stream of iperf3 from a guest under QEMU's emulation (no KVM: it is what takes \
         most of the time) to a container, MTU 1500"
            .into(),
        &[RATE],
        vec![
            Contender::new("chanio", chanio_guest),
            Contender::new("OVS-DPDK NORMAL", ovs_guest),
        ],
    );
    [netns, guest]
        .into_iter()
        .map(|case| Case {
            contended: true,
            guest: case.name == "iperf-guest",
            ..case
        })
        .collect()
}

/// A container with an iperf3 server, and what puts programs in their place.
struct Side {
    dir: PathBuf,
    server: Netns,
    prefix: Vec<String>,
}

impl Side {
    fn new(bed: &Bed) -> std::io::Result<Self> {
        Ok(Self {
            dir: bed.run_dir()?,
            server: Netns::new("server"),
            prefix: bed.wrapper(&BOTH),
        })
    }

    fn iperf(&self, netns: &Netns, words: &[&str]) -> Command {
        let mut command = Command::new(&self.prefix[0]);
        command.args(&self.prefix[1..]);
        command
            .args(["ip", "netns", "exec", netns.name(), "iperf3"])
            .args(words);
        command
    }

    /// Lets `client` send for some time; what the server received, Gbit/s. What `client` gives is
    /// dropped after that.
    fn measure<T>(
        &self,
        patience: Duration,
        client: impl FnOnce() -> T,
    ) -> Result<Vec<f64>, Trouble> {
        let mut command = self.iperf(&self.server, &["-s", "-1", "-J"]);
        let mut server = Process::start("iperf3", &self.dir, &mut command);
        // With -J it says nothing before its end.
        let listens = || {
            !self
                .server
                .run(&["ss", "-Hltn", "sport = :5201"])
                .is_empty()
        };
        crate::wait_until(Duration::from_secs(20), listens);
        let _client = client();
        let status = server.wait(patience);
        let text = server.output();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        match json["end"]["sum_received"]["bits_per_second"].as_f64() {
            Some(rate) if status.success() && rate > 0.0 => Ok(vec![rate / 1e9]),
            _ => Err(Trouble::Failed(format!("iperf3: {status}: {text}"))),
        }
    }
}

/// Two containers and what is between them.
struct Containers {
    client: Netns,
    side: Side,
    between: Between,
}

enum Between {
    Chanio(Emulator),
    Bridge,
}

/// A NIC whose channels are the containers' netdevs.
fn chanio_containers(bed: &Bed) -> Result<Containers, Trouble> {
    let (side, client) = (Side::new(bed)?, Netns::new("client"));
    let emulator = Emulator::start(bed, &side.dir);
    add_container(&emulator, "server", SERVER);
    add_container(&emulator, "client", CLIENT);
    Ok(Containers {
        client,
        side,
        between: Between::Chanio(emulator),
    })
}

/// A channel that is `eth0` of the network namespace of its name.
fn add_container(emulator: &Emulator, name: &str, address: &str) {
    let (attach, address) = (format!("tap:{name}"), format!("{address}/24"));
    emulator.chanio(&[
        "channel",
        "add",
        name,
        "--attach",
        &attach,
        "--address",
        &address,
    ]);
}

fn ip(words: &str) {
    run(Command::new("ip").args(words.split(' ')));
}

fn bridge(bed: &Bed) -> Result<Containers, Trouble> {
    let containers = Containers {
        side: Side::new(bed)?,
        client: Netns::new("client"),
        between: Between::Bridge,
    };
    ip("link add bridge0 type bridge");
    ip("link set bridge0 up");
    for (name, address) in [("server", SERVER), ("client", CLIENT)] {
        ip(&format!(
            "link add v-{name} type veth peer name eth0 netns {name}"
        ));
        ip(&format!("link set v-{name} master bridge0 up"));
        ip(&format!("-n {name} addr add {address}/24 dev eth0"));
        ip(&format!("-n {name} link set eth0 up"));
    }
    Ok(containers)
}

impl Rig for Containers {
    fn processes(&self) -> Vec<u32> {
        match &self.between {
            Between::Chanio(emulator) => vec![emulator.pid()],
            Between::Bridge => Vec::new(),
        }
    }

    fn window(&mut self, time: Duration) -> Result<Vec<f64>, Trouble> {
        let seconds = seconds(time);
        self.side.measure(time + Duration::from_secs(20), || {
            let words = ["-c", SERVER, "-J", "-t", &seconds];
            let mut command = self.side.iperf(&self.client, &words);
            Process::start("iperf3-client", &self.side.dir, &mut command)
        })
    }
}

/// As iperf3 takes it: whole seconds, of which 0 would be no end.
fn seconds(time: Duration) -> String {
    time.as_secs_f64().round().max(1.0).to_string()
}

impl Drop for Containers {
    fn drop(&mut self) {
        if matches!(self.between, Between::Bridge) {
            // A namespace's netdevs go some time after it, these at once.
            for name in ["v-server", "v-client", "bridge0"] {
                let _ = Command::new("ip").args(["link", "del", name]).status();
            }
        }
    }
}

/// A guest, a container, and the switch between them.
struct GuestAndContainer {
    guest: Process,
    side: Side,
    switch: Switch,
}

enum Switch {
    Chanio(Emulator),
    Ovs(Backend),
}

/// Sends for as many seconds as each line of its console says. The prompt tells when it reads.
const SCRIPT: &str = "
ip link set eth0 up
ip addr add 10.9.0.2/24 dev eth0
ping -c 3 10.9.0.1
while true; do
    echo 'guest: waits'
    read seconds < /dev/console
    iperf3 -c 10.9.0.1 -t $seconds
done
";

fn boot(bed: &Bed, side: &Side, socket: &Path) -> Result<Process, Trouble> {
    let mac = mac(1)
        .parse()
        .map_err(|e| Trouble::Failed(format!("{e}")))?;
    let guest = Guest {
        net: Some((socket, mac, 1)),
        ..Guest::new(&side.dir, SCRIPT)
    };
    let mut guest = guest.boot_under(&bed.wrapper(&BOTH));
    guest.wait_output("the guest", 0, BOOT, |t| t.contains("guest: waits"));
    Ok(guest)
}

fn chanio_guest(bed: &Bed) -> Result<GuestAndContainer, Trouble> {
    let side = Side::new(bed)?;
    let emulator = Emulator::start(bed, &side.dir);
    add_container(&emulator, "server", SERVER);
    emulator.chanio(&["channel", "add", "vm", "--mac", &mac(1)]);
    Ok(GuestAndContainer {
        guest: boot(bed, &side, &side.dir.join("channel/vm.sock"))?,
        side,
        switch: Switch::Chanio(emulator),
    })
}

fn ovs_guest(bed: &Bed) -> Result<GuestAndContainer, Trouble> {
    let side = Side::new(bed)?;
    let backend = ovs::normal(bed, 1)?;
    // A TAP that the polling thread drives, as the vhost port.
    ovs::add_tap(&backend, "ovstap0");
    ip("link set ovstap0 netns server name eth0");
    ip(&format!("-n server addr add {SERVER}/24 dev eth0"));
    ip("-n server link set eth0 up");
    Ok(GuestAndContainer {
        guest: boot(bed, &side, &backend.sockets[0])?,
        side,
        switch: Switch::Ovs(backend),
    })
}

impl Rig for GuestAndContainer {
    fn processes(&self) -> Vec<u32> {
        let switch = match &self.switch {
            Switch::Chanio(emulator) => emulator.pid(),
            Switch::Ovs(backend) => backend.pid(),
        };
        vec![switch, self.guest.pid()]
    }

    fn window(&mut self, time: Duration) -> Result<Vec<f64>, Trouble> {
        let from = self.guest.said();
        let seconds = seconds(time);
        let rate = self.side.measure(time + Duration::from_secs(30), || {
            self.guest.say(&seconds);
        })?;
        let waits = |text: &str| text.contains("guest: waits");
        self.guest
            .wait_output("the guest", from, Duration::from_secs(30), waits);
        Ok(rate)
    }
}
