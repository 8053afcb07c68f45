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
}

const PROMPT: &str = "testpmd> ";
const PATIENCE: Duration = Duration::from_secs(60);

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
        // Line by line, or what it prints comes after its prompts.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "dpdk-testpmd"]);
        command.args(["--lcores", "(0,1)@1", "--file-prefix"]);
        command.arg(format!("chanio-{}-{name}", std::process::id()));
        command.args([
            "--single-file-segments",
            "--iova-mode=va",
            "--no-pci",
            "--no-telemetry",
        ]);
        command
            .arg("--huge-dir")
            .arg(pages.dir())
            .args(["--socket-mem", "128"]);
        for (port, socket) in sockets.iter().enumerate() {
            command.arg("--vdev").arg(format!(
                "net_virtio_user{port},path={},queues=1,queue_size=256{options}",
                socket.display()
            ));
        }
        command.args([
            "--",
            "-i",
            "--nb-cores=1",
            "--total-num-mbufs=8192",
            "--no-lsc-interrupt",
        ]);
        let mut process = Process::start(name, dir, &mut command);
        process.wait_output("the prompt", 0, PATIENCE, |text| text.contains(PROMPT));
        Self { process }
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
