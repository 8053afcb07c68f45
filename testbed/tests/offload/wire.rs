//! Channels with a driver each, and what comes out of them.

use chanio_emu::frontend::{Client, ClientOptions};
use chanio_emu::nic::spec::ChannelInfo;
use chanio_model::Mac;
use chanio_testbed::nic::{Bed, channel};
use std::time::{Duration, Instant};

/// What is on a port when nothing has come for so long.
const QUIET: Duration = Duration::from_millis(40);

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
        let client = &mut self.clients[port];
        for frame in frames {
            assert!(client.send(frame).unwrap(), "the ring is full");
        }
        client.flush().unwrap();
        let (mut got, mut quiet) = (Vec::new(), Instant::now());
        while quiet.elapsed() < silence {
            for (port, client) in self.clients.iter_mut().enumerate() {
                let mut frame = Vec::new();
                while client.receive(&mut frame).unwrap() {
                    got.push((port, std::mem::take(&mut frame)));
                    quiet = Instant::now();
                }
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        got.sort();
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
