//! The process: ready line, signals, exit codes, what it leaves behind.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

struct Emulator {
    child: Child,
    ready: String,
}

fn command(run_dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chanio-emu"));
    command
        .args(["--representors", "off", "--workers", "1", "--run-dir"])
        .arg(run_dir)
        .args(args);
    command.env_remove("NOTIFY_SOCKET").env("RUST_LOG", "warn");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Emulator {
    fn start(run_dir: &Path, args: &[&str]) -> Self {
        let mut child = command(run_dir, args)
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut ready)
            .unwrap();
        Self { child, ready }
    }

    fn signal(&self, signal: i32) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::try_from(signal).unwrap()).unwrap();
    }

    /// What else it said, and how it ended.
    fn wait(mut self) -> (ExitStatus, String) {
        let status = eventually(|| self.child.try_wait().unwrap());
        let mut rest = String::new();
        self.child
            .stdout
            .as_mut()
            .unwrap()
            .read_to_string(&mut rest)
            .unwrap();
        (status, rest)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn eventually<T>(mut f: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(done) = f() {
            return done;
        }
        assert!(start.elapsed() < PATIENCE, "took too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn socket(run_dir: &Path, channel: &str) -> PathBuf {
    run_dir.join("channel").join(format!("{channel}.sock"))
}

#[test]
fn it_says_ready_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().canonicalize().unwrap().join("run");
    let args = [
        "--queues",
        "100",
        "--channels",
        "40",
        "--queues-per-channel",
        "2",
    ];
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let emulator = Emulator::start(&run_dir, &args);
        let expected = format!(
            "ready run-dir={} queues=100 channels=40 representors=none uplink=none workers=1\n",
            run_dir.display()
        );
        assert_eq!(emulator.ready, expected);
        UnixStream::connect(run_dir.join("control.sock")).unwrap();
        for channel in 1..=40 {
            UnixStream::connect(socket(&run_dir, &format!("ch{channel}"))).unwrap();
        }
        emulator.signal(signal);
        let (status, rest) = emulator.wait();
        assert_eq!((status.code(), rest.as_str()), (Some(0), ""));
        let left: Vec<_> = fs::read_dir(&run_dir).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_run_dir_is_one_process_s_until_that_dies() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--queues", "4", "--channels", "1"];
    let first = Emulator::start(dir.path(), &args);
    let second = command(dir.path(), &args).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(
        said.contains("another chanio-emu uses it") && second.stdout.is_empty(),
        "{said}"
    );
    UnixStream::connect(socket(dir.path(), "ch1")).unwrap();

    first.signal(libc::SIGKILL);
    first.wait();
    assert!(socket(dir.path(), "ch1").exists());
    let third = Emulator::start(dir.path(), &args);
    assert!(third.ready.starts_with("ready "));
    UnixStream::connect(socket(dir.path(), "ch1")).unwrap();
}

#[test]
fn exit_codes_tell_usage_from_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.toml");
    fs::write(
        &file,
        "[nic]\nqueues = 4\n\n[[channel]]\nname = \"a\"\nmtu = 1\n",
    )
    .unwrap();
    let run_dir = dir.path().join("run");
    let bad = file.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 7] = [
        (&[], 2, "--queues"),
        (&["--queues", "x"], 2, "--queues"),
        (&["--queues", "0"], 2, "1 to 1000000"),
        (&["--queues", "1", "--uplink", "wifi"], 2, "wifi"),
        (
            &["--config", bad],
            2,
            "bad.toml:6: channel.mtu: 1 is not allowed, must be 68 to 9500",
        ),
        (&["--config", "/nowhere.toml"], 2, "/nowhere.toml: "),
        (
            &["--queues", "3", "--channels", "4"],
            1,
            "4 queue pairs asked for, 3 of 3 are free",
        ),
    ];
    for (args, code, text) in cases {
        let output = command(&run_dir, args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(text), "{args:?}: {said}");
        assert!(output.stdout.is_empty());
        assert!(!run_dir.join("control.sock").exists() && !run_dir.join("channel").exists());
    }
}

#[test]
fn sighup_changes_what_the_file_changes_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (run_dir, file) = (dir.path().join("run"), dir.path().join("nic.toml"));
    let nic = "[nic]\nqueues = 8\n[eswitch]\nmode = \"switchdev\"\n";
    let channel =
        |name: &str, queues: u8| format!("[[channel]]\nname = \"{name}\"\nqueues = {queues}\n");
    let config = |channels: &[String]| {
        let text = format!("{nic}{}", channels.concat());
        fs::write(&file, text).unwrap();
    };
    config(&[channel("stays", 1), channel("grows", 1), channel("goes", 1)]);
    let emulator = Emulator::start(&run_dir, &["--config", file.to_str().unwrap()]);
    let inode = |name| fs::metadata(socket(&run_dir, name)).unwrap().ino();
    let stays = inode("stays");
    let open = UnixStream::connect(socket(&run_dir, "stays")).unwrap();
    let mut replaced = UnixStream::connect(socket(&run_dir, "grows")).unwrap();

    let flow = "[[flow]]\nrule = \"in_port stays action drop\"\n".to_owned();
    config(&[
        channel("stays", 1),
        channel("grows", 2),
        channel("comes", 1),
        flow,
    ]);
    emulator.signal(libc::SIGHUP);
    // Not by inode: a file system may give the new socket the number of the old one.
    replaced.set_read_timeout(Some(PATIENCE)).unwrap();
    match replaced.read(&mut [0]) {
        Ok(n) => assert_eq!(n, 0, "still the old channel"),
        // Nobody had accepted it yet.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    eventually(|| socket(&run_dir, "comes").exists().then_some(()));
    eventually(|| UnixStream::connect(socket(&run_dir, "grows")).ok());
    assert!(!socket(&run_dir, "goes").exists());
    assert_eq!(inode("stays"), stays);
    open.set_nonblocking(true).unwrap();
    let alive = (&open).read(&mut [0]).unwrap_err().kind();
    assert_eq!(alive, std::io::ErrorKind::WouldBlock);

    // Refused as a whole: more queues than there are, behind a channel that would fit.
    config(&[channel("stays", 1), channel("fits", 1), channel("not", 100)]);
    emulator.signal(libc::SIGHUP);
    // The next good one shows that the bad one is over.
    std::thread::sleep(Duration::from_millis(300));
    assert!(socket(&run_dir, "grows").exists() && !socket(&run_dir, "fits").exists());
    config(&[channel("stays", 1), channel("last", 1)]);
    emulator.signal(libc::SIGHUP);
    eventually(|| socket(&run_dir, "last").exists().then_some(()));
    assert!(!socket(&run_dir, "fits").exists() && !socket(&run_dir, "not").exists());
    assert_eq!(inode("stays"), stays);
    emulator.signal(libc::SIGTERM);
    assert_eq!(emulator.wait().0.code(), Some(0));
}

#[test]
fn a_service_manager_is_told_of_every_turn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut message = [0; 4096];
        let len = manager.recv(&mut message).unwrap();
        String::from_utf8(message[..len].to_vec()).unwrap()
    };
    let run_dir = dir.path().join("run");
    let mut command = command(&run_dir, &["--queues", "4", "--channels", "1"]);
    let emulator = Emulator {
        child: command.env("NOTIFY_SOCKET", &path).spawn().unwrap(),
        ready: String::new(),
    };
    assert_eq!(told().trim(), "READY=1");
    // Everything accepts by then.
    UnixStream::connect(socket(&run_dir, "ch1")).unwrap();
    emulator.signal(libc::SIGHUP);
    let reloading = told();
    assert!(
        reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(told().trim(), "READY=1");
    emulator.signal(libc::SIGTERM);
    assert_eq!(told().trim(), "STOPPING=1");
    assert_eq!(emulator.wait().0.code(), Some(0));
}
