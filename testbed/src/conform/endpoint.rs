//! Somebody who sends and receives frames, whole and as they are.

use super::inside::inside;
use chanio_emu::frontend::{Client, ClientOptions};
use chanio_emu::port::uplink::PacketPort;
use chanio_emu::port::{RECV_BUF_LEN, SendError};
use std::io::{self, IoSlice};
use std::path::Path;
use std::time::{Duration, Instant};

/// One end of a channel, of a representor, or of the wire.
pub trait Endpoint: Send {
    /// Sends a frame, from the destination address on, checksums finished, if there is room for
    /// it; whether there was.
    ///
    /// # Errors
    /// The system's, or the device's.
    fn offer(&mut self, frame: &[u8]) -> io::Result<bool>;
    /// The next frame that is there already.
    ///
    /// # Errors
    /// The system's, or the device's.
    fn receive(&mut self) -> io::Result<Option<Vec<u8>>>;

    /// Waits until what is on its way here has come.
    ///
    /// # Errors
    /// The system's.
    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Why nobody can be here at all.
    fn absent(&self) -> Option<&str> {
        None
    }

    /// As [`Endpoint::offer`], waiting for room.
    ///
    /// # Errors
    /// The same, and `TimedOut` where nothing is taken out of the queue.
    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let until = Instant::now() + STUCK;
        while !self.offer(frame)? {
            if Instant::now() > until {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "nothing is taken out of the transmit queue",
                ));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }
}

/// Bytes of virtio-net header in front of a frame.
const HEADER: usize = 12;
/// How long a full queue may stay full.
const STUCK: Duration = Duration::from_secs(2);

/// A netdev, through packet(7).
pub struct Netdev {
    socket: PacketPort,
    buffer: Vec<u8>,
}

impl Netdev {
    /// The netdev of this name in this process's network namespace.
    ///
    /// # Errors
    /// There is none, or CAP_NET_RAW is missing.
    pub fn open(name: &str) -> io::Result<Self> {
        let if_name = name.parse().map_err(io::Error::other)?;
        let socket = PacketPort::open(&if_name).map_err(io::Error::other)?;
        Ok(Self {
            socket,
            buffer: vec![0; RECV_BUF_LEN],
        })
    }

    /// The same in the network namespace at `path`.
    ///
    /// # Errors
    /// As [`Netdev::open`], and where that namespace cannot be entered.
    pub fn open_inside(path: &Path, name: &str) -> io::Result<Self> {
        inside(path, || Self::open(name))?
    }

    /// What it is reached by.
    pub(super) fn socket(&self) -> &PacketPort {
        &self.socket
    }
}

impl Endpoint for Netdev {
    fn offer(&mut self, frame: &[u8]) -> io::Result<bool> {
        let slices = [IoSlice::new(&[0; HEADER]), IoSlice::new(frame)];
        match self.socket.send(&slices) {
            Ok(()) => Ok(true),
            Err(SendError::Full) => Ok(false),
            Err(other) => Err(io::Error::other(other)),
        }
    }

    fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let len = self.socket.recv(&mut self.buffer)?;
        Ok(len.map(|len| finished(&self.buffer[..len])))
    }
}

/// A frame without its virtio-net header (virtio 1.3 §5.1.6), its checksum as the next piece of
/// hardware would finish it.
pub(super) fn finished(bytes: &[u8]) -> Vec<u8> {
    let (header, frame) = bytes.split_at(HEADER);
    let mut frame = frame.to_vec();
    let field = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let (start, offset) = (field(6), field(8));
    // NEEDS_CSUM; the field holds the pseudo-header's sum.
    if header[0] & 1 != 0 && frame.len() >= start + offset + 2 {
        let words = frame[start..].chunks(2);
        let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        let mut sum: u32 = words.map(word).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // 0 would mean that UDP has none (RFC 768).
        let sum = match !(sum as u16) {
            0 => 0xffff,
            sum => sum,
        };
        frame[start + offset..][..2].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// The end of a channel that has none for frames; why.
pub struct Nobody(pub String);

impl Endpoint for Nobody {
    fn offer(&mut self, _: &[u8]) -> io::Result<bool> {
        Err(io::Error::other(self.0.clone()))
    }

    fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn absent(&self) -> Option<&str> {
        Some(&self.0)
    }
}

/// A virtio driver at a vhost-user socket.
pub struct Driver(Client);

impl Driver {
    /// Attach to the channel that listens at `socket`.
    ///
    /// # Errors
    /// Nobody listens there, or the device refuses.
    pub fn attach(socket: &Path) -> io::Result<Self> {
        let options = ClientOptions {
            // The largest MTU, its header and tags.
            buffer_size: 10_240,
            ..ClientOptions::default()
        };
        Client::connect(socket, options)
            .map(Self)
            .map_err(io::Error::other)
    }
}

impl Endpoint for Driver {
    fn offer(&mut self, frame: &[u8]) -> io::Result<bool> {
        let taken = self.0.send(frame).map_err(io::Error::other)?;
        self.0.flush().map_err(io::Error::other)?;
        Ok(taken)
    }

    fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut frame = Vec::new();
        let got = self.0.receive(&mut frame).map_err(io::Error::other)?;
        Ok(got.then_some(frame))
    }
}
