//! What every run needs: a folder, hugepages, and the words that put a program on its cpu.

use chanio_testbed::hugepages::Hugepages;
use std::cell::Cell;
use std::path::PathBuf;
use std::process::Command;

/// For the largest backend and its client, MiB.
const HUGEPAGES: u64 = 2048;

/// Where the runs take place.
pub struct Bed {
    // Unmounted before its folder goes.
    _pages: Hugepages,
    dir: tempfile::TempDir,
    nice: i32,
    runs: Cell<u32>,
}

impl Bed {
    /// In a folder of its own; programs get `nice`.
    ///
    /// # Errors
    /// No folder.
    pub fn new(nice: i32) -> std::io::Result<Self> {
        // Paths of sockets have 107 bytes at most.
        let dir = tempfile::Builder::new()
            .prefix("chanio-compare-")
            .tempdir()?;
        Ok(Self {
            _pages: Hugepages::reserve(dir.path(), HUGEPAGES),
            dir,
            nice,
            runs: Cell::new(0),
        })
    }

    /// A new folder for a run.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn run_dir(&self) -> std::io::Result<PathBuf> {
        self.runs.set(self.runs.get() + 1);
        let dir = self.dir.path().join(format!("r{}", self.runs.get()));
        std::fs::create_dir(&dir)?;
        Ok(dir)
    }

    /// What stands in front of a program: it stays on `cpus` and ends with this process.
    pub fn wrapper(&self, cpus: &[usize]) -> Vec<String> {
        let mut words = vec!["setpriv", "--pdeathsig", "KILL", "setsid"];
        let nice = self.nice.to_string();
        let cpus: Vec<_> = cpus.iter().map(usize::to_string).collect();
        let cpus = cpus.join(",");
        if self.nice != 0 {
            // Where sessions are scheduled as groups, niceness counts only within one.
            let script = "echo $0 > /proc/self/autogroup; exec nice -n $0 \"$@\"";
            words.extend(["sh", "-c", script, &nice]);
        }
        words.extend(["taskset", "-c", &cpus]);
        words.into_iter().map(String::from).collect()
    }

    /// A program on `cpus`.
    pub fn command(&self, cpus: &[usize], program: impl AsRef<std::ffi::OsStr>) -> Command {
        let words = self.wrapper(cpus);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(program);
        command
    }
}
