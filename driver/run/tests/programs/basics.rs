//! A program does not notice who answers.

use crate::recorder::{DEVLINK, record};
use chanio_netlink::devlink::{Devlink, Flavour, Handle, Port, command};
use chanio_netlink::kernel::{Client, Kernel, Refusal, Reply};
use chanio_netlink::message::Message;
use std::process::{Command, Stdio};

#[test]
fn a_device_that_is_not_there_is_told() {
    let (requests, output) = record("tc filter add dev nowhere ingress flower action drop");
    assert!(!output.status.success());
    assert!(requests.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("nowhere"));
}

#[test]
fn ip_lists_the_links_that_are_played() {
    let (_, output) = record("ip -o link show");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    assert!(
        told.contains("10: eth0") && told.contains("13: vxlan0"),
        "{told}"
    );
    assert!(!told.contains("lo:"), "{told}");
}

/// A device with many ports, and no more to be had.
struct Full(crate::recorder::Recorder);

impl Kernel for Full {
    fn plays(&self, protocol: i32) -> bool {
        self.0.plays(protocol)
    }

    fn request(&mut self, client: &Client, request: &Message) -> Result<Reply, Refusal> {
        if request.kind != DEVLINK {
            return self.0.request(client, request);
        }
        let asked = Devlink::parse(&request.payload)?;
        if asked.header.command == command::PORT_NEW as u8 {
            return Err(Refusal::text(28, "all subfunctions are in use"));
        }
        let port = |index| {
            let mut port = Devlink::new(command::PORT_NEW, Handle::new("pci", "0000:03:00.0"));
            port.port = Port {
                index: Some(index),
                netdev_name: Some(format!("eth{index}")),
                flavour: Some(Flavour::PciSf),
                pf: Some(0),
                sf: Some(index),
                ..Port::default()
            };
            port.message(DEVLINK, 0)
        };
        Ok(Reply::Dump((0..2000).map(port).collect::<Result<_, _>>()?))
    }
}

fn devlink(arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new("devlink");
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let running = chanio_run::spawn(command, Full(Default::default())).unwrap();
    running.wait_with_output().unwrap().0
}

#[test]
fn a_long_listing_arrives_whole() {
    let output = devlink(&["port", "show"]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        told.lines()
            .filter(|line| line.contains("flavour pcisf"))
            .count(),
        2000
    );
    assert!(
        told.contains("pci/0000:03:00.0/1999") && told.contains("sfnum 1999"),
        "{told}"
    );
}

#[test]
fn a_refusal_arrives_in_its_words() {
    let port = [
        "port",
        "add",
        "pci/0000:03:00.0",
        "flavour",
        "pcisf",
        "pfnum",
        "0",
        "sfnum",
        "1",
    ];
    let output = devlink(&port);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(told.contains("all subfunctions are in use"), "{told}");
    assert!(told.contains("No space left on device"), "{told}");
}

#[test]
fn python_reads_and_writes_its_socket_as_it_likes() {
    let script = r"
import socket, struct
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
s.bind((0, 1))
assert s.getsockname()[0] != 0
d = s.dup()
d.send(struct.pack('IHHII16x', 32, 18, 0x301, 7, 0))
s.settimeout(5)
data, sender = s.recvfrom(65536)
assert sender == (0, 0), sender
length, kind, flags, sequence, port = struct.unpack('IHHII', data[:16])
assert (kind, sequence, port) == (16, 7, s.getsockname()[0])
s.setblocking(False)
try:
    while True:
        s.recv(65536)
except BlockingIOError:
    pass
s.settimeout(0.05)
try:
    s.recv(1)
    raise SystemExit('something came')
except TimeoutError:
    pass
for i in range(300):
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()
print('well')
";
    let mut command = Command::new("python3");
    command
        .args(["-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let running = chanio_run::spawn(command, crate::recorder::Recorder::default()).unwrap();
    let (output, _) = running.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        told.trim(),
        "well",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
