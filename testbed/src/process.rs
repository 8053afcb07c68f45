//! A program that runs beside the test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A running program with its output in a file; dropping it kills it.
pub struct Process {
    child: Child,
    log: PathBuf,
    name: String,
}

impl Process {
    /// Start `command` with both outputs in `dir/name.log` and its input open.
    pub fn start(name: &str, dir: &Path, command: &mut Command) -> Self {
        let log = dir.join(format!("{name}.log"));
        let out = std::fs::File::create(&log).expect("log file");
        let err = out.try_clone().expect("log file");
        let child = command
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|e| panic!("{name} ({command:?}): {e}; testbed/setup.sh installs it"));
        Self {
            child,
            log,
            name: name.to_owned(),
        }
    }

    /// All it has said.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Wait until `found` says yes to what it has said from byte `from` on; that text.
    pub fn wait_output(
        &mut self,
        what: &str,
        from: usize,
        timeout: Duration,
        found: impl Fn(&str) -> bool,
    ) -> String {
        let until = Instant::now() + timeout;
        loop {
            let text = self.output();
            let new = text.get(from..).unwrap_or_default();
            if found(new) {
                return new.to_owned();
            }
            let ended = self.child.try_wait().expect("own child");
            assert!(
                ended.is_none() && Instant::now() < until,
                "{}: waited in vain for {what} ({ended:?}):\n{text}",
                self.name
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Write a line to its input.
    pub fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        writeln!(stdin, "{line}")
            .and_then(|()| stdin.flush())
            .unwrap_or_else(|e| {
                panic!(
                    "{}: saying `{line}`: {e}\n{}",
                    self.name,
                    std::fs::read_to_string(&self.log).unwrap_or_default()
                )
            });
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How much it has said, bytes.
    pub fn said(&self) -> usize {
        self.output().len()
    }

    /// Ask it to end (SIGTERM) and wait until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        self.wait(Duration::from_secs(20))
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Wait for its end.
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let until = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait().expect("own child") {
                return status;
            }
            assert!(
                Instant::now() < until,
                "{} does not end:\n{}",
                self.name,
                self.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Wait until something is so, looking every few milliseconds.
#[track_caller]
pub fn wait_for(what: &str, timeout: Duration, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + timeout;
    while !done() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A program of this workspace, built beside the one that runs.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("own path");
    // Tests are one folder deeper.
    let mut places = own.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    let found = places.find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is missing: cargo build --workspace --bins"))
}

/// Run a program to its end and give what it printed; panics with both outputs when it fails.
pub fn run(command: &mut Command) -> String {
    let out = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        out.status.success(),
        "{command:?} failed ({}):\n{}{}",
        out.status,
        text(&out.stdout),
        text(&out.stderr)
    );
    text(&out.stdout)
}
