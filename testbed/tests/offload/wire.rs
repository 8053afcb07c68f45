//! Channels with a driver each, and what comes out of them.

use chanio_emu::frontend::{Client, ClientOptions};
use chanio_emu::nic::spec::ChannelInfo;
use chanio_model::Mac;
use chanio_testbed::nic::{Bed, channel};
use std::time::{Duration, Instant};

/// What is on a port when nothing has come for so long.
const QUIET: Duration = Duration::from_millis(40);

/// The payload of the first marker.
const FIRST_MARKER: u8 = 0xe0;

/// A broadcast that comes after all that was sent before it.
pub struct Marker {
    /// Its tag.
    pub tag: Option<u16>,
    /// The ports that it gets to.
    pub reaches: &'static [usize],
}

/// Channels `a`, `b` and so on, each with a driver.
pub struct Wires {
    pub channels: Vec<ChannelInfo>,
    clients: Vec<Client>,
}

impl Wires {
    pub fn new(bed: &Bed, count: usize) -> Self {
        let names = ["a", "b", "c", "d"];
        let channels = bed.add(names[..count].iter().map(|name| channel(name)).collect());
        let connect = |info: &ChannelInfo| {
            let options = ClientOptions {
                queue_size: 64,
                ..ClientOptions::default()
            };
            Client::connect(info.socket.as_deref().expect("a socket"), options).expect("a driver")
        };
        let clients = channels.iter().map(connect).collect();
        Self { channels, clients }
    }

    pub fn representor(&self, port: usize) -> &str {
        self.channels[port]
            .representor
            .as_deref()
            .expect("a representor")
    }

    /// Sends a frame from a port; what comes out of which port of it.
    pub fn send(&mut self, port: usize, frame: &[u8]) -> Vec<(usize, Vec<u8>)> {
        self.send_all(port, &[frame.to_vec()], QUIET)
    }

    /// Sends frames from a port; what comes out until nothing has for so long.
    pub fn send_all(
        &mut self,
        port: usize,
        frames: &[Vec<u8>],
        silence: Duration,
    ) -> Vec<(usize, Vec<u8>)> {
        self.put(port, frames);
        let (mut got, mut quiet) = (Vec::new(), Instant::now());
        while quiet.elapsed() < silence {
            let more = self.take();
            if !more.is_empty() {
                quiet = Instant::now();
            }
            got.extend(more);
            std::thread::sleep(Duration::from_micros(200));
        }
        got.sort();
        got
    }

    /// Sends a frame from a port, and behind it markers that go the longest way, through the bridge,
    /// to every port that the frame could get to; what came before they all did.
    pub fn send_marked(
        &mut self,
        port: usize,
        frame: &[u8],
        markers: &[Marker],
    ) -> Vec<(usize, Vec<u8>)> {
        let marker = |(n, marker): (u8, &Marker)| {
            self::frame(
                Mac::BROADCAST,
                station(port as u8),
                marker.tag,
                FIRST_MARKER + n,
            )
        };
        let mut frames = vec![frame.to_vec()];
        frames.extend((0..).zip(markers).map(marker));
        self.put(port, &frames);
        let mut missing: Vec<(usize, u8)> = (FIRST_MARKER..)
            .zip(markers)
            .flat_map(|(n, marker)| marker.reaches.iter().map(move |port| (*port, n)))
            .collect();
        let (mut got, end) = (Vec::new(), Instant::now() + Duration::from_secs(10));
        while !missing.is_empty() {
            assert!(Instant::now() < end, "from {port}, missing are {missing:?}");
            for (at, frame) in self.take() {
                let last = frame.last().copied().unwrap_or_default();
                match missing.iter().position(|m| *m == (at, last)) {
                    Some(found) => {
                        missing.swap_remove(found);
                    }
                    None => got.push((at, frame)),
                }
            }
        }
        got.sort();
        got
    }

    fn put(&mut self, port: usize, frames: &[Vec<u8>]) {
        let client = &mut self.clients[port];
        for frame in frames {
            assert!(client.send(frame).unwrap(), "the ring is full");
        }
        client.flush().unwrap();
    }

    /// What has come out of all ports.
    fn take(&mut self) -> Vec<(usize, Vec<u8>)> {
        let mut got = Vec::new();
        for (port, client) in self.clients.iter_mut().enumerate() {
            let mut frame = Vec::new();
            while client.receive(&mut frame).unwrap() {
                got.push((port, std::mem::take(&mut frame)));
            }
        }
        got
    }
}

/// The address of a station.
pub fn station(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

/// A frame that nothing parses, with a tag (TCI) or none.
pub fn frame(dst: Mac, src: Mac, tag: Option<u16>, payload: u8) -> Vec<u8> {
    let mut frame = [dst.0, src.0].concat();
    if let Some(tci) = tag {
        frame.extend([0x81, 0]);
        frame.extend(tci.to_be_bytes());
    }
    frame.extend([0x88, 0xb5]);
    frame.extend([payload; 50]);
    frame
}
