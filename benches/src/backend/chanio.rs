//! chanio itself, by the programs that users run.

use super::{Backend, Program, mac};
use crate::bed::Bed;
use crate::machine::BACKEND_CPU;
use chanio_testbed::process::{Process, program, run};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A NIC with one worker and no channels, and its command line.
pub struct Emulator {
    process: Process,
    device: String,
}

impl Emulator {
    /// Starts it with its sockets below `dir`.
    pub fn start(bed: &Bed, dir: &Path) -> Self {
        let mut command = bed.command(&[BACKEND_CPU], program("chanio-emu"));
        command.args(["--workers", "1", "--representors", "off"]);
        command.args(["--queues", "20000", "--run-dir"]).arg(dir);
        let mut process = Process::start("chanio-emu", dir, &mut command);
        process.wait_output("ready", 0, Duration::from_secs(20), |t| {
            t.contains("ready ")
        });
        Self {
            process,
            device: format!("emu:{}", dir.display()),
        }
    }

    /// Runs `chanio` with `words`; what it printed.
    pub fn chanio<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> String {
        let mut command = Command::new(program("chanio"));
        run(command.args(["--device", &self.device]).args(words))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// What the switch does.
pub enum Switch<'a> {
    /// Learning and forwarding by address: legacy mode.
    Addresses,
    /// Flow rules, in the command line's words: switchdev mode. Channels are `p0`, `p1`, ….
    Rules(&'a [String]),
}

/// Channels that have their clients' addresses; more of them are idle and have any.
const WITH_ADDRESS: usize = 32;

/// A NIC with one worker and channels `p0`, `p1`, …, the first with the addresses of the client's
/// ports.
pub fn start(bed: &Bed, ports: usize, switch: &Switch<'_>) -> std::io::Result<Backend> {
    let dir = bed.run_dir()?;
    let emulator = Emulator::start(bed, &dir);
    for n in 0..ports.min(WITH_ADDRESS) {
        emulator.chanio(&["channel", "add", &format!("p{n}"), "--mac", &mac(n)]);
    }
    let others = ports.saturating_sub(WITH_ADDRESS);
    if others > 0 {
        emulator.chanio(&["channel", "add", "idle", "--count", &others.to_string()]);
    }
    if let Switch::Rules(rules) = switch {
        emulator.chanio(&["eswitch", "set", "--mode", "switchdev"]);
        let file = dir.join("rules");
        std::fs::write(&file, rules.join("\n") + "\n")?;
        emulator.chanio(&["flow", "add", "--file", &file.display().to_string()]);
    }
    let named = (0..ports.min(WITH_ADDRESS)).map(|n| format!("p{n}"));
    let names = named.chain((1..=others).map(|n| format!("idle{n}")));
    Ok(Backend {
        sockets: names
            .map(|name| dir.join(format!("channel/{name}.sock")))
            .collect(),
        programs: vec![Program::Process(emulator.process)],
    })
}

/// How many flow rules nothing has matched.
///
/// # Errors
/// The answer cannot be read.
pub fn idle_rules(backend: &Backend) -> Result<usize, String> {
    let run_dir = backend.sockets[0]
        .ancestors()
        .nth(2)
        .expect("RUN_DIR/channel/NAME.sock");
    let device = format!("emu:{}", run_dir.display());
    let mut command = Command::new(program("chanio"));
    let text = run(command.args(["--device", &device, "--json", "flow", "show"]));
    let rules: Vec<serde_json::Value> = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    Ok(rules.iter().filter(|rule| rule["packets"] == 0).count())
}
