//! The emulator as a process, and what the kernel says about it.

use chanio_testbed::process::{Process, run};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where sockets are: on a disk, making one is a matter of the file system.
const DIR: &str = "/dev/shm";

/// A running emulator.
pub struct Emulator {
    process: Process,
    _dir: tempfile::TempDir,
    run_dir: PathBuf,
}

/// Kilobytes of memory.
pub struct Memory {
    /// Resident in all.
    pub rss: u64,
    /// Its own; the rest belongs to files, such as its drivers' memory.
    pub anonymous: u64,
}

impl Emulator {
    pub fn start(queues: u32, representors: &str, workers: u32) -> Self {
        let dir = tempfile::tempdir_in(DIR).expect("a directory in memory");
        let run_dir = dir.path().join("run");
        let mut command = Command::new(program("chanio-emu"));
        command
            .args(["--queues", &queues.to_string()])
            .args(["--representors", representors])
            .args(["--workers", &workers.to_string()])
            .arg("--run-dir")
            .arg(&run_dir);
        let mut process = Process::start("chanio-emu", dir.path(), &mut command);
        let patience = Duration::from_secs(20);
        process.wait_output("ready", 0, patience, |text| text.contains("ready run-dir="));
        Self {
            process,
            _dir: dir,
            run_dir,
        }
    }

    /// `chanio` to its end; seconds.
    pub fn chanio(&self, words: &str) -> f64 {
        let started = Instant::now();
        let mut command = Command::new(program("chanio"));
        command
            .arg("--device")
            .arg(format!("emu:{}", self.run_dir.display()));
        run(command.args(words.split_whitespace()));
        started.elapsed().as_secs_f64()
    }

    /// The socket of channel `ch<i>`.
    pub fn socket(&self, i: usize) -> PathBuf {
        self.run_dir.join("channel").join(format!("ch{i}.sock"))
    }

    pub fn stop(mut self) {
        assert!(self.process.terminate().success(), "{}", self.log());
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.process.output()
    }

    pub fn memory(&self) -> Memory {
        Memory {
            rss: self.status("VmRSS:"),
            anonymous: self.status("RssAnon:"),
        }
    }

    pub fn threads(&self) -> u64 {
        self.status("Threads:")
    }

    fn status(&self, field: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|n| n.parse().ok()).expect(field)
    }

    /// Seconds of processor time so far.
    pub fn cpu(&self) -> f64 {
        let stat = self.proc("stat");
        // Behind the name in parentheses, which may have anything in it.
        let (_, fields) = stat.rsplit_once(')').expect("a name in stat");
        let field = |i: usize| -> f64 {
            let field = fields.split_whitespace().nth(i);
            field.and_then(|f| f.parse().ok()).expect("a number")
        };
        // utime and stime are fields 14 and 15 of proc(5), the state after the name is 3; in
        // hundredths of a second on every machine there is.
        (field(11) + field(12)) / 100.0
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.process.pid());
        std::fs::read_to_string(path).expect("a running emulator")
    }
}

/// A program of this workspace, built beside this one.
fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("own path");
    let path = own.parent().unwrap_or(Path::new(".")).join(name);
    assert!(
        path.exists(),
        "{} is missing: cargo build --release --workspace --bins",
        path.display()
    );
    path
}
