//! AF_PACKET uplinks, on one end of a veth pair.

use crate::netns::{Netns, eventually, have};
use crate::relay::Relay;
use crate::tap::{tap, tcp_transfer};
use chanio_emu::nic::spec::UplinkSpec;
use chanio_emu::port::{RECV_BUF_LEN, SendError, Uplink};
use chanio_model::DropReason;
use chanio_model::offload::{VnetHdr, gso_type};
use std::io::{BufRead, BufReader, IoSlice};
use std::process::{Command, Stdio};

fn open(netns: &Netns, netdev: &str) -> Uplink {
    let spec: UplinkSpec = format!("packet:{netdev}").parse().unwrap();
    netns.run(move || Uplink::open(&spec).unwrap())
}

/// A pair `wire` (in the first namespace) and `far` (in the second), up.
fn veth() -> Option<(Netns, Netns)> {
    let (near, far) = (Netns::new()?, Netns::new()?);
    near.ip(&format!(
        "link add wire type veth peer name far netns {}",
        tid_of(&far)
    ));
    near.ip("link set wire up");
    far.ip("link set far up");
    // Until the kernel has noticed the carrier, it drops what is sent.
    for (netns, netdev) in [(&near, "wire"), (&far, "far")] {
        let show = format!("link show {netdev}");
        eventually("carrier", || netns.ip(&show).contains("state UP"));
    }
    Some((near, far))
}

/// `ip` takes a process or thread id for a namespace.
fn tid_of(netns: &Netns) -> &str {
    netns.path().split('/').nth(4).unwrap()
}

fn frame(tags: &[[u8; 4]], payload: u8) -> Vec<u8> {
    let mut frame = [[0xff; 6], [2, 0, 0, 0, 0, 9]].concat();
    frame.extend(tags.iter().flatten());
    frame.extend([0x88, 0xb5]);
    frame.extend([payload; 60]);
    frame
}

fn send(port: &Uplink, frame: &[u8]) -> Result<(), SendError> {
    // The header in two pieces, the second with the beginning of the frame.
    let whole = [&[0; 12], frame].concat();
    port.send(&[
        IoSlice::new(&whole[..7]),
        IoSlice::new(&whole[7..20]),
        IoSlice::new(&whole[20..]),
    ])
}

/// The next frame of our kind.
fn recv(port: &Uplink) -> Vec<u8> {
    let mut buf = vec![0; RECV_BUF_LEN];
    let mut found = None;
    eventually("a frame", || {
        while let Some(len) = port.recv(&mut buf).unwrap() {
            if buf[18..24] == [2, 0, 0, 0, 0, 9] {
                assert_eq!(buf[..12], [0; 12]);
                found = Some(buf[12..len].to_vec());
                return true;
            }
        }
        false
    });
    found.unwrap()
}

#[test]
fn vlan_tags_come_and_go_with_the_frame() {
    let Some((near, far)) = veth() else { return };
    let (near_port, far_port) = (open(&near, "wire"), open(&far, "far"));
    const VLAN_42: [u8; 4] = [0x81, 0, 0x60, 42];
    const SERVICE_7: [u8; 4] = [0x88, 0xa8, 0, 7];
    for tags in [
        &[][..],
        &[VLAN_42],
        &[SERVICE_7, VLAN_42],
        &[[0x81, 0, 0x20, 0]],
    ] {
        let sent = frame(tags, 5);
        send(&near_port, &sent).unwrap();
        assert_eq!(recv(&far_port), sent, "{tags:x?}");
        send(&far_port, &sent).unwrap();
        assert_eq!(recv(&near_port), sent, "{tags:x?}");
    }
    // What was sent is not received again.
    let mut buf = vec![0; RECV_BUF_LEN];
    send(&near_port, &frame(&[], 1)).unwrap();
    recv(&far_port);
    while let Some(len) = near_port.recv(&mut buf).unwrap() {
        assert_ne!(buf[18..24], [2, 0, 0, 0, 0, 9], "{:x?}", &buf[..len]);
    }
}

#[test]
fn tcpdump_on_the_far_side_sees_the_tag() {
    let Some((near, far)) = veth() else { return };
    if !have("tcpdump") {
        return;
    }
    let mut tcpdump = far.run(|| {
        let mut command = Command::new("tcpdump");
        command.args(["-i", "far", "-e", "-n", "-l", "-c", "1", "vlan", "42"]);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let mut says = BufReader::new(tcpdump.stderr.take().unwrap()).lines();
    assert!(says.any(|line| line.unwrap().contains("listening on")));
    let port = open(&near, "wire");
    send(&port, &frame(&[[0x81, 0, 0x60, 42]], 5)).unwrap();
    let mut shown = BufReader::new(tcpdump.stdout.take().unwrap()).lines();
    let line = shown.next().unwrap().unwrap();
    let rest: Vec<_> = says.map_while(Result::ok).collect();
    assert!(tcpdump.wait().unwrap().success(), "{rest:?}");
    assert!(
        line.contains("vlan 42, p 3") && line.contains("02:00:00:00:00:09"),
        "{line}"
    );
}

#[test]
fn whole_tcp_segment_trains_pass_both_ways() {
    let Some((near, far)) = veth() else { return };
    let Some(host) = Netns::new() else { return };
    let port = open(&near, "wire");
    assert!(port.offloads().tso6 && port.offloads().csum);
    let tap = tap(&host, "t0");
    host.ip("addr add 10.8.0.1/24 dev t0");
    host.ip("link set t0 up");
    far.ip("addr add 10.8.0.2/24 dev far");
    let relay = Relay::start(tap, port);
    tcp_transfer(&host, &far, "10.8.0.2:5001".parse().unwrap(), 10 << 20);
    tcp_transfer(&far, &host, "10.8.0.1:5001".parse().unwrap(), 10 << 20);
    let seen = relay.stop();
    assert!(seen.longest > 20_000, "{seen:?}");
    assert_eq!(seen.gso_type & !gso_type::ECN, gso_type::TCPV4, "{seen:?}");
}

#[test]
fn a_tagged_frame_to_be_segmented_has_its_offsets_moved() {
    let Some((near, far)) = veth() else { return };
    let (near_port, far_port) = (open(&near, "wire"), open(&far, "far"));
    // Ethernet, 802.1Q, IPv4, TCP, 3000 bytes: only the checksum of the pseudo-header is missing,
    // which nobody looks at on the way.
    let mut sent = frame(&[[0x81, 0, 0, 42]], 0)[..16].to_vec();
    sent.extend([8, 0, 0x45, 0, 0x0b, 0xe0, 0, 1, 0, 0, 64, 6, 0x5b, 0x07]);
    sent.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    sent.extend([
        0, 80, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    sent.extend([7; 3000]);
    let hdr = VnetHdr {
        flags: 1,
        gso_type: gso_type::TCPV4,
        hdr_len: 58,
        gso_size: 1000,
        csum_start: 38,
        csum_offset: 16,
        num_buffers: 0,
    };
    let mut header = [0; 12];
    hdr.write(&mut header);
    near_port
        .send(&[IoSlice::new(&header), IoSlice::new(&sent)])
        .unwrap();
    let mut buf = vec![0; RECV_BUF_LEN];
    let mut found = None;
    eventually("the frame", || {
        while let Some(len) = far_port.recv(&mut buf).unwrap() {
            if buf[18..24] == [2, 0, 0, 0, 0, 9] {
                found = Some(len);
                return true;
            }
        }
        false
    });
    let got = VnetHdr::read(&buf);
    assert_eq!(buf[12..found.unwrap()], sent);
    assert_eq!((got.csum_start, got.csum_offset), (38, 16), "{got:?}");
    assert_eq!(
        (got.gso_type, got.gso_size),
        (gso_type::TCPV4, 1000),
        "{got:?}"
    );
    assert!(got.hdr_len >= 58, "{got:?}");
}

#[test]
fn a_wire_that_is_down_gone_or_too_narrow_says_so() {
    let Some((near, _far)) = veth() else { return };
    let port = open(&near, "wire");
    let long = [&frame(&[], 0)[..], &[0; 1600]].concat();
    assert!(matches!(send(&port, &long), Err(SendError::TooBig)));
    near.ip("link set wire down");
    assert!(matches!(send(&port, &frame(&[], 1)), Err(SendError::Down)));
    let mut buf = vec![0; RECV_BUF_LEN];
    while port.recv(&mut buf).unwrap().is_some() {}
    near.ip("link set wire up");
    eventually("sending again", || send(&port, &frame(&[], 1)).is_ok());
    near.ip("link del wire");
    assert!(matches!(send(&port, &frame(&[], 1)), Err(SendError::Down)));
    assert!(matches!(
        port.send(&[IoSlice::new(&[0; 11])]),
        Err(SendError::BadHeader)
    ));
    near.run(|| {
        let why = |spec: &str| {
            Uplink::open(&spec.parse().unwrap())
                .unwrap_err()
                .to_string()
        };
        assert!(why("packet:wire").contains("packet:wire is not allowed, must be a netdev that"));
    });
}

#[test]
fn what_comes_faster_than_it_is_taken_is_counted() {
    let Some((near, far)) = veth() else { return };
    // Nobody else is to send there.
    far.run(|| std::fs::write("/proc/sys/net/ipv6/conf/far/disable_ipv6", "1"))
        .unwrap();
    let (near_port, far_port) = (open(&near, "wire"), open(&far, "far"));
    let long = [&frame(&[], 0)[..], &[0; 1300]].concat();
    let sent: u64 = 30_000;
    for _ in 0..sent {
        // The far side's own queue may be full for a moment.
        while send(&far_port, &long).is_err() {}
    }
    let mut buf = vec![0; RECV_BUF_LEN];
    let mut taken = 0;
    while let Some(len) = near_port.recv(&mut buf).unwrap() {
        taken += u64::from(len == 12 + long.len());
    }
    let lost = near_port.lost();
    assert!(
        matches!(lost[..], [(DropReason::UplinkOverrun, n)] if n > 0 && n + taken == sent),
        "{lost:?} and {taken} of {sent}"
    );
    assert_eq!(near_port.lost(), lost, "asking changes nothing");
}
