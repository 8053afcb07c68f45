//! Two network namespaces whose stacks talk to each other, with whatever offloads they use.

use super::case::{Ended, Failure, Stop, same};
use super::inside::inside;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The second one's address, which the first one reaches; the first one's is 10.77.0.1.
const ADDRESS: ([u8; 4], u16) = ([10, 77, 0, 2], 7077);
/// Bytes in each direction.
const BYTES: usize = 8 << 20;
const WAIT: Duration = Duration::from_secs(20);

/// Counters of bad packets, of each stack.
pub type Counted = [BTreeMap<String, u64>; 2];

/// What they are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Talk {
    /// Nothing: only how many bad packets each has met.
    Nothing,
    /// Eight megabytes of TCP each way at the same time.
    Tcp,
    /// Datagrams of every length.
    Udp,
}

impl Talk {
    /// Has it done in the namespaces at these paths; then how many bad packets each has met.
    ///
    /// # Errors
    /// Something else arrives than was sent.
    pub fn perform(self, paths: &[PathBuf; 2]) -> Ended<Counted> {
        match self {
            Talk::Nothing => {}
            Talk::Tcp => transfer(paths)?,
            Talk::Udp => udp(paths)?,
        }
        Ok([bad_packets(&paths[0])?, bad_packets(&paths[1])?])
    }
}

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

fn transfer(paths: &[PathBuf; 2]) -> Ended {
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

fn udp(paths: &[PathBuf; 2]) -> Ended {
    let to = SocketAddr::from(ADDRESS);
    let server = inside(&paths[1], || UdpSocket::bind(to))??;
    server.set_read_timeout(Some(Duration::from_secs(3)))?;
    let client = inside(&paths[0], || UdpSocket::bind("10.77.0.1:0"))??;
    let mut got = [0; 2000];
    for len in (0..1472).step_by(23).chain([1472]) {
        let data: Vec<u8> = (0..len).map(|n| (n * 7) as u8).collect();
        client.send_to(&data, to)?;
        let came = server.recv(&mut got);
        let came = came.map_err(|e| Failure::new(format!("{len} bytes do not arrive: {e}")));
        let came = came.map_err(Stop::Failed)?;
        same("the datagram", &got[..came], &data[..])?;
    }
    Ok(())
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
