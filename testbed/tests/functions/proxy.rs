//! Somebody between programs and the emulator that plays the kernel, who writes down what they ask.

use chanio_netlink::message::Message;
use chanio_netlink::played::{Request, SOCKET_NAME};
use chanio_testbed::process::wait_for;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

/// A process of its own, since programs look in which network namespace the one is that answers:
/// passes packets on with their descriptors, and first writes what is asked to a file, in hex.
const SCRIPT: &str = r#"
import os, socket, sys, threading
real, mine, log = sys.argv[1], sys.argv[2], open(sys.argv[3], "a")
kind = (socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener = socket.socket(*kind)
listener.bind(mine)
listener.listen(64)
def passed(source, sink, write):
    while True:
        data, files, _, _ = socket.recv_fds(source, 1 << 20, 8)
        if not data:
            return sink.shutdown(socket.SHUT_RDWR)
        if write:
            log.write(data.hex() + "\n")
            log.flush()
        socket.send_fds(sink, [data], files)
        for file in files:
            os.close(file)
while True:
    client, _ = listener.accept()
    server = socket.socket(*kind)
    server.connect(real)
    for way in (client, server, True), (server, client, False):
        threading.Thread(target=passed, args=way, daemon=True).start()
"#;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Netlink(Message),
    Ethtool(Vec<u8>),
}

/// A socket in a directory of its own, and what came by.
pub struct Proxy {
    dir: tempfile::TempDir,
    process: Child,
    seen: usize,
}

fn bytes(line: &str) -> Vec<u8> {
    let digits = line
        .as_bytes()
        .chunks(2)
        .map(|two| str::from_utf8(two).unwrap());
    digits
        .map(|two| u8::from_str_radix(two, 16).unwrap())
        .collect()
}

fn understood(line: &str) -> Vec<Asked> {
    match Request::parse(&bytes(line)).unwrap() {
        Request::Datagram(datagram) => {
            let mut asked = Vec::new();
            let mut rest = &*datagram;
            // Some send all of their buffer, of which the message is the beginning.
            while let Ok((message, length)) = Message::parse(rest) {
                asked.push(Asked::Netlink(message));
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
            }
            asked
        }
        Request::Ethtool { command, .. } => vec![Asked::Ethtool(command)],
        _ => Vec::new(),
    }
}

impl Proxy {
    /// In front of the emulator with this run directory.
    pub fn before(run_dir: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mine = dir.path().join(SOCKET_NAME);
        let mut command = Command::new("python3");
        command.args(["-c", SCRIPT]);
        command.arg(run_dir.join(SOCKET_NAME)).arg(&mine);
        let process = command.arg(dir.path().join("log")).spawn().unwrap();
        wait_for("the proxy", Duration::from_secs(10), || mine.exists());
        let seen = 0;
        Proxy { dir, process, seen }
    }

    /// Where it is, in the place of the emulator's run directory.
    pub fn run_dir(&self) -> &Path {
        self.dir.path()
    }

    /// What was asked since it was last asked for.
    pub fn asked(&mut self) -> Vec<Asked> {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap();
        let new = &log[self.seen..];
        self.seen = log.len();
        new.lines().flat_map(understood).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
