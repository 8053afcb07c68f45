//! DPDK's testpmd as a client: virtio-user ports on channels' sockets.

use crate::hugepages::Hugepages;
use crate::process::Process;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A testpmd at its prompt.
pub struct Testpmd {
    process: Process,
}

/// What a port counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub rx: u64,
    /// Packets sent.
    pub tx: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets received in a second, since the statistics were asked for before.
    pub rx_rate: u64,
    /// Packets sent in a second, likewise.
    pub tx_rate: u64,
}

const PROMPT: &str = "testpmd> ";
const PATIENCE: Duration = Duration::from_secs(60);

/// How a testpmd is to be started.
pub struct Launch<'a> {
    /// Its name among the processes of this test.
    pub name: &'a str,
    /// Where its output goes.
    pub dir: &'a Path,
    /// The cpu that its threads are on.
    pub cpu: usize,
    /// Hugepages of its own, MiB.
    pub memory: u32,
    /// What else is for DPDK itself, such as `--vdev=…`.
    pub eal: Vec<String>,
    /// What is for testpmd, such as `--rxd=1024`.
    pub arguments: Vec<String>,
    /// A program and its arguments that is to run it; empty: none.
    pub wrapper: Vec<String>,
}

impl Testpmd {
    /// One virtio-user port for each socket, on one forwarding core; `options` go behind each
    /// `net_virtio_user` (`,mrg_rxbuf=0`, `,server=1`).
    pub fn start(
        name: &str,
        dir: &Path,
        pages: &Hugepages,
        sockets: &[&Path],
        options: &str,
    ) -> Self {
        let mut eal = vec!["--single-file-segments".into(), "--iova-mode=va".into()];
        eal.push(format!("--huge-dir={}", pages.dir().display()));
        for (port, socket) in sockets.iter().enumerate() {
            eal.push(format!(
                "--vdev=net_virtio_user{port},path={},queues=1,queue_size=256{options}",
                socket.display()
            ));
        }
        Self::launch(Launch {
            name,
            dir,
            cpu: 1,
            memory: 128,
            eal,
            arguments: vec!["--total-num-mbufs=8192".into(), "--no-lsc-interrupt".into()],
            wrapper: Vec::new(),
        })
    }

    /// As `how` says, up to its prompt.
    pub fn launch(how: Launch<'_>) -> Self {
        // Line by line, or what it prints comes after its prompts.
        let mut words: Vec<String> = how.wrapper;
        words.extend(["stdbuf", "-oL", "dpdk-testpmd"].map(String::from));
        words.push(format!("--lcores=(0,1)@{}", how.cpu));
        let prefix = format!("chanio-{}-{}", std::process::id(), how.name);
        words.extend([format!("--file-prefix={prefix}"), "--no-pci".into()]);
        words.extend([
            "--no-telemetry".into(),
            format!("--socket-mem={}", how.memory),
        ]);
        words.extend(how.eal);
        words.extend(["--", "-i", "--nb-cores=1"].map(String::from));
        words.extend(how.arguments);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let mut process = Process::start(how.name, how.dir, &mut command);
        process.wait_output("the prompt", 0, PATIENCE, |text| text.contains(PROMPT));
        Self { process }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Give a command and wait until it is done; what it printed.
    pub fn command(&mut self, line: &str) -> String {
        let from = self.process.said();
        self.process.say(line);
        // Prompts come at odd moments; the answer to this comes when `line` is done.
        self.process.say("no-such-command");
        self.process.wait_output(line, from, PATIENCE, |text| {
            text.contains("Command not found")
        })
    }

    /// Counters of the ports, in their order.
    pub fn stats(&mut self) -> Vec<PortStats> {
        let text = self.command("show port stats all");
        assert!(
            text.contains("NIC statistics for port"),
            "no statistics:\n{}",
            self.process.output()
        );
        let mut ports: Vec<PortStats> = Vec::new();
        for line in text.lines() {
            if line.contains("NIC statistics for port") {
                ports.push(PortStats::default());
            }
            let Some(port) = ports.last_mut() else {
                continue;
            };
            let number = |key: &str| -> Option<u64> {
                let rest = &line[line.find(key)? + key.len()..];
                rest.split_whitespace().next()?.parse().ok()
            };
            for (key, field) in [
                ("RX-packets:", &mut port.rx),
                ("TX-packets:", &mut port.tx),
                ("RX-bytes:", &mut port.rx_bytes),
                ("TX-bytes:", &mut port.tx_bytes),
                ("Rx-pps:", &mut port.rx_rate),
                ("Tx-pps:", &mut port.tx_rate),
            ] {
                *field = number(key).unwrap_or(*field);
            }
        }
        ports
    }

    /// Forward in `mode` for `time`, then stop.
    pub fn forward(&mut self, mode: &str, start: &str, time: Duration) {
        self.command(&format!("set fwd {mode}"));
        self.command(start);
        std::thread::sleep(time);
        self.command("stop");
    }

    /// Take what is left in the receive rings.
    pub fn drain(&mut self) {
        self.forward("rxonly", "start", Duration::from_millis(500));
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.process.kill();
    }
}
