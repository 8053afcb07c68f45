//! A kernel's own TCP at both ends, with whatever offloads it uses.

use crate::conform::bed::{Bed, wish};
use crate::conform::case::{
    Case, Ended, Failure, Need::Netns, Setup::Bare, Stop, case, ensure, same,
};
use crate::conform::inside::inside;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

const OFFLOAD: &str = "Documentation/networking/segmentation-offloads.rst, checksum-offloads.rst";

/// Bytes in each direction.
const BYTES: usize = 8 << 20;
const WAIT: Duration = Duration::from_secs(20);

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "stack.tcp",
            "eight megabytes of TCP each way arrive as they were, without a bad checksum",
            OFFLOAD,
            Bare,
            &[Netns],
            |bed| tcp(bed, &[]),
        ),
        case(
            "stack.tcp_plain",
            "the same with the sender's offloads switched off",
            OFFLOAD,
            Bare,
            &[Netns],
            |bed| tcp(bed, &["tso", "gso", "tx"]),
        ),
        case(
            "stack.segmentation",
            "segments longer than the MTU pass whole from channel to channel",
            "virtio 1.3 §5.1.6.2.2; Documentation/networking/segmentation-offloads.rst",
            Bare,
            &[Netns],
            segmentation,
        ),
        case(
            "stack.udp",
            "datagrams of every length up to the MTU arrive, without a bad checksum",
            OFFLOAD,
            Bare,
            &[Netns],
            udp,
        ),
    ]
}

/// Two network namespaces whose stacks talk to each other.
struct Pair {
    paths: [PathBuf; 2],
    /// Bad packets that they had met before.
    bad: [BTreeMap<String, u64>; 2],
}

/// Two channels with addresses, joined by rules where the device has such, else by its switch.
fn joined(bed: &mut Bed) -> Ended<Pair> {
    let rules = bed.info.capabilities.actions.contains(&"redirect");
    bed.mode(if rules { "switchdev" } else { "legacy" })?;
    bed.add(vec![wish("a"), wish("b")])?;
    if rules {
        bed.rules(&[
            "in_port {a} action redirect {b}",
            "in_port {b} action redirect {a}",
        ])?;
    }
    for (name, last) in [("a", 1), ("b", 2)] {
        let address = format!("10.77.0.{last}/24");
        bed.netns(name)
            .run(&["ip", "addr", "add", &address, "dev", "eth0"]);
    }
    let paths = [bed.netns("a").path(), bed.netns("b").path()];
    Ok(Pair {
        bad: [bad_packets(&paths[0])?, bad_packets(&paths[1])?],
        paths,
    })
}

const ADDRESS: ([u8; 4], u16) = ([10, 77, 0, 2], 7077);

/// Byte `at` of what is sent, different each way.
fn content(way: u8) -> Vec<u8> {
    let byte = |at: usize| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[1] ^ way;
    (0..BYTES).map(byte).collect()
}

/// Sends one content and reads the other at the same time.
fn talk(mut stream: TcpStream, way: u8) -> std::io::Result<bool> {
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    let mut out = stream.try_clone()?;
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || out.write_all(&content(way)));
        let mut got = vec![0; BYTES];
        stream.read_exact(&mut got)?;
        let sent = sending.join();
        sent.unwrap_or_else(|_| Err(std::io::Error::other("the sender panicked")))?;
        Ok(got == content(!way))
    })
}

fn transfer(pair: &Pair) -> Ended {
    let paths = &pair.paths;
    let to = SocketAddr::from(ADDRESS);
    let listener = inside(&paths[1], || TcpListener::bind(to))??;
    let same_bytes = std::thread::scope(|scope| -> std::io::Result<[bool; 2]> {
        let server = scope.spawn(|| talk(listener.accept()?.0, 0));
        let stream = inside(&paths[0], || TcpStream::connect_timeout(&to, WAIT))??;
        let client = talk(stream, !0);
        let server = server.join();
        let server = server.unwrap_or_else(|_| Err(std::io::Error::other("the server panicked")));
        Ok([client?, server?])
    });
    let same_bytes =
        same_bytes.map_err(|e| Stop::Failed(Failure::new(format!("the transfer ended: {e}"))))?;
    same("the bytes are those sent, each way", same_bytes, [true; 2])
}

/// Counters of the namespace's own stack that tell of bad packets.
fn bad_packets(netns: &Path) -> Ended<BTreeMap<String, u64>> {
    let read = || std::fs::read_to_string("/proc/thread-self/net/snmp");
    let text = inside(netns, read)??;
    let mut bad = BTreeMap::new();
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let group = names.split(':').next().unwrap_or_default();
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            if matches!(name, "InCsumErrors" | "InHdrErrors" | "InErrs" | "InErrors") {
                bad.insert(format!("{group} {name}"), value.parse().unwrap_or(0));
            }
        }
    }
    Ok(bad)
}

fn nothing_bad(pair: &Pair) -> Ended {
    for (path, before) in pair.paths.iter().zip(&pair.bad) {
        let bad = bad_packets(path)?;
        ensure(bad.len() >= 5, || format!("snmp counters: {bad:?}"))?;
        same("bad packets that a receiver's stack met", &bad, before)?;
    }
    Ok(())
}

/// Whether ethtool could switch these off on both netdevs.
fn switch_off(bed: &mut Bed, features: &[&str]) -> Ended {
    for name in ["a", "b"] {
        for feature in features {
            let words = ["ethtool", "-K", "eth0", feature, "off"];
            let out = bed.netns(name).command(&words).output()?;
            if !out.status.success() {
                let said = String::from_utf8_lossy(&out.stderr);
                return Err(Stop::NotSupported(format!("ethtool: {}", said.trim())));
            }
        }
    }
    Ok(())
}

fn tcp(bed: &mut Bed, off: &[&str]) -> Ended {
    let pair = joined(bed)?;
    switch_off(bed, off)?;
    transfer(&pair)?;
    nothing_bad(&pair)
}

fn segmentation(bed: &mut Bed) -> Ended {
    let pair = joined(bed)?;
    transfer(&pair)?;
    let stats = bed.nic.stats(&["a".into()], false)?;
    let mean = stats[0].tx_bytes / stats[0].tx_packets.max(1);
    if mean <= 1514 {
        return Err(Stop::NotSupported(format!(
            "frames of {mean} bytes on average: every segment is a frame of its own"
        )));
    }
    nothing_bad(&pair)
}

fn udp(bed: &mut Bed) -> Ended {
    let pair = joined(bed)?;
    let to = SocketAddr::from(ADDRESS);
    let server = inside(&pair.paths[1], || UdpSocket::bind(to))??;
    server.set_read_timeout(Some(Duration::from_secs(3)))?;
    let client = inside(&pair.paths[0], || UdpSocket::bind("10.77.0.1:0"))??;
    let mut got = [0; 2000];
    for len in (0..1472).step_by(23).chain([1472]) {
        let data: Vec<u8> = (0..len).map(|n| (n * 7) as u8).collect();
        client.send_to(&data, to)?;
        let came = server.recv(&mut got);
        let came = came.map_err(|e| Failure::new(format!("{len} bytes do not arrive: {e}")));
        let came = came.map_err(Stop::Failed)?;
        same("the datagram", &got[..came], &data[..])?;
    }
    nothing_bad(&pair)
}
