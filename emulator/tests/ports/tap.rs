//! TAPs: the kernel's stack on one side, us on the other.

use crate::netns::{Netns, cannot_run, have};
use crate::relay::Relay;
use chanio_emu::nic::Refused;
use chanio_emu::port::{IfName, RECV_BUF_LEN, SendError, Tap, probe};
use chanio_model::offload::gso_type;
use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

pub fn tap(netns: &Netns, name: &str) -> Tap {
    let name: IfName = name.parse().unwrap();
    netns.run(move || Tap::create(&name).unwrap())
}

/// Sends `len` bytes of a pattern over TCP and compares what arrives.
pub fn tcp_transfer(from: &Netns, to: &Netns, listen: SocketAddr, len: usize) {
    let byte = |i: usize| (i.wrapping_mul(2_654_435_761) >> 13) as u8;
    let listener = to.run(move || TcpListener::bind(listen).unwrap());
    let received = to.start(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    let sent = from.start(move || {
        let mut stream = TcpStream::connect_timeout(&listen, Duration::from_secs(10)).unwrap();
        stream
            .write_all(&(0..len).map(byte).collect::<Vec<_>>())
            .unwrap();
    });
    sent();
    let all = received();
    assert_eq!(all.len(), len);
    assert!(
        all.iter().enumerate().all(|(i, b)| *b == byte(i)),
        "the bytes that were sent"
    );
}

#[test]
fn ping_and_whole_tcp_segment_trains_pass_between_two_taps() {
    let (Some(left), Some(right)) = (Netns::new(), Netns::new()) else {
        return;
    };
    let (a, b) = (tap(&left, "t0"), tap(&right, "t0"));
    assert!(a.offloads().tso4 && a.offloads().csum, "{:?}", a.offloads());
    for (netns, host) in [(&left, 1), (&right, 2)] {
        netns.ip(&format!("addr add 10.9.0.{host}/24 dev t0"));
        netns.ip(&format!("addr add fd00:9::{host}/64 dev t0 nodad"));
        netns.ip("link set t0 up");
    }
    let relay = Relay::start(a, b);
    if have("ping") {
        left.tool("ping", "-c 2 -i 0.1 -W 2 10.9.0.2");
        right.tool("ping", "-c 2 -i 0.1 -W 2 fd00:9::1");
    }
    tcp_transfer(&left, &right, "10.9.0.2:5001".parse().unwrap(), 20 << 20);
    let seen = relay.stop();
    assert!(seen.longest > 20_000, "{seen:?}");
    assert_eq!(seen.gso_type & !gso_type::ECN, gso_type::TCPV4, "{seen:?}");
    assert_eq!(seen.lost, 0, "{seen:?}");
    // Without segmentation there would be 20 MiB / 1448.
    assert!(seen.frames < 10_000, "{seen:?}");
}

#[test]
fn a_tap_that_is_down_or_gone_says_so() {
    let Some(netns) = Netns::new() else { return };
    let tap = tap(&netns, "t0");
    let mut buf = vec![0; RECV_BUF_LEN];
    let frame = [0; 12 + 60];
    let send = |tap: &Tap| tap.send(&[IoSlice::new(&frame)]);
    assert_eq!(tap.recv(&mut buf).unwrap(), None);
    assert!(matches!(send(&tap), Err(SendError::Down)));
    netns.ip("link set t0 up");
    send(&tap).unwrap();
    let mut bad = frame;
    bad[0] = 1;
    bad[6] = 0xff;
    assert!(matches!(
        tap.send(&[IoSlice::new(&bad)]),
        Err(SendError::BadHeader)
    ));
    tap.set_carrier(false).unwrap();
    assert!(netns.ip("link show t0").contains("NO-CARRIER"));
    netns.ip("link set t0 down");
    netns.ip("link set t0 name renamed");
    assert_eq!(tap.name().unwrap(), "renamed");
    netns.ip("link del renamed");
    assert!(matches!(send(&tap), Err(SendError::Down)));
    assert_eq!(
        tap.recv(&mut buf).unwrap_err().raw_os_error(),
        Some(libc::EBADFD)
    );
}

#[test]
fn names_are_never_stolen_and_queues_are_bounded() {
    let Some(netns) = Netns::new() else { return };
    netns.ip("link add v0 type veth peer name v1");
    let _kept = tap(&netns, "t0");
    netns.run(|| {
        for name in ["v0", "t0", "lo"] {
            let err = Tap::create(&name.parse().unwrap()).unwrap_err();
            assert!(
                matches!(&err, Refused::Invalid { value, .. } if value == name),
                "{err}"
            );
        }
        for queues in [0, 257] {
            let err = Tap::create_unnamed(queues).unwrap_err();
            assert!(err.to_string().contains("1 to 256"), "{err}");
        }
        assert_eq!(Tap::create_unnamed(256).unwrap().len(), 256);
    });
    assert_eq!(netns.netdevs().len(), 3, "closing the queues took it away");
}

#[test]
fn probe_says_what_is_missing() {
    const CHILD: &str = "CHANIO_TEST_PROBE_CHILD";
    if std::env::var_os(CHILD).is_some() {
        println!("probe: {:?}", probe());
        return;
    }
    if !nix::unistd::getuid().is_root() {
        return cannot_run("not root");
    }
    assert_eq!(probe(), Ok(()));
    // The same test as somebody without privilege.
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "tap::probe_says_what_is_missing", "--nocapture"]);
    match child.env(CHILD, "1").uid(65_534).gid(65_534).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                text.contains("CAP_NET_ADMIN") || text.contains("no permission"),
                "{text}"
            );
        }
        Err(err) => cannot_run(&format!("nobody may not run this test's binary: {err}")),
    }
}
