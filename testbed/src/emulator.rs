//! The two programs, as users run them: `chanio-emu` beside the test, and `chanio` on it.

use crate::process::{Process, program, run};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A running `chanio-emu`.
pub struct Emulator {
    process: Process,
    run_dir: PathBuf,
    /// What it said when everything accepted.
    pub ready: String,
}

impl Emulator {
    /// Start it with `options` in `dir/run`, up to its ready line.
    pub fn start(dir: &Path, options: &str) -> Self {
        Self::start_under("", dir, options)
    }

    /// The same with a program and its arguments that is to run it; empty: none.
    pub fn start_under(wrapper: &str, dir: &Path, options: &str) -> Self {
        let run_dir = dir.join("run");
        let mut command = emulator_command(wrapper, &run_dir, options);
        let mut process = Process::start("chanio-emu", dir, &mut command);
        let text = process.wait_output("ready", 0, Duration::from_secs(30), |t| {
            t.lines().any(|l| l.starts_with("ready run-dir="))
        });
        let ready = text.lines().find(|l| l.starts_with("ready "));
        let ready = ready.unwrap_or_default().to_owned();
        Self {
            process,
            run_dir,
            ready,
        }
    }

    /// Where its sockets are.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// The socket of a vhost-user channel.
    pub fn socket(&self, channel: &str) -> PathBuf {
        self.run_dir.join("channel").join(format!("{channel}.sock"))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Everything that it has said.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Have it read its file again.
    pub fn reload(&self) {
        let pid = nix::unistd::Pid::from_raw(self.process.pid() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).expect("a running process");
    }

    /// The command line on this NIC.
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(program("chanio"));
        let device = format!("emu:{}", self.run_dir.display());
        command.args(["--device", &device]);
        command.args(words.split_whitespace());
        command
    }

    /// What a command that succeeds prints.
    pub fn chanio(&self, words: &str) -> String {
        run(&mut self.command(words))
    }

    /// The same with `--json`.
    pub fn json(&self, words: &str) -> Value {
        let text = self.chanio(&format!("--json {words}"));
        serde_json::from_str(&text).expect("JSON")
    }

    /// Exit code and reason of a command that does not.
    pub fn refused(&self, words: &str) -> (i32, String) {
        let out = self.command(words).output().expect("chanio");
        assert!(
            !out.status.success() && out.stdout.is_empty(),
            "{words}: {out:?}"
        );
        let why = String::from_utf8_lossy(&out.stderr).into_owned();
        (out.status.code().unwrap_or(-1), why)
    }

    /// SIGTERM: it ends well, without complaint, and its folder is empty.
    pub fn stop(mut self) {
        let status = self.process.terminate();
        let said = self.process.output();
        assert!(
            status.success() && !said.contains("ERROR"),
            "{status}: {said}"
        );
        let left: Vec<_> = std::fs::read_dir(&self.run_dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// `chanio-emu` with its sockets in `run_dir`.
pub fn emulator_command(wrapper: &str, run_dir: &Path, options: &str) -> Command {
    let emulator = program("chanio-emu");
    let mut words = wrapper.split_whitespace();
    let mut command = match words.next() {
        None => Command::new(emulator),
        Some(first) => {
            let mut command = Command::new(first);
            command.args(words).arg(emulator);
            command
        }
    };
    command.args(options.split_whitespace());
    command.arg("--run-dir").arg(run_dir);
    command
}
