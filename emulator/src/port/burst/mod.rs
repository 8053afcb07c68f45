//! The frames of a burst to and from a netdev, with as few system calls as the kernel allows.
//!
//! | file | what lives there |
//! |---|---|
//! | `gather` | frames to be sent, as lists of pieces of memory |
//! | `inbox` | memory for frames that are received |
//! | `uring` | io_uring(7), for TAPs: they have no call for many frames |
//! | `plain` | one frame at a time, where there is no io_uring |
//!
//! Packet sockets have `sendmmsg(2)` and `recvmmsg(2)`: see `uplink/packet_sys.rs`.

mod gather;
mod inbox;
mod plain;
mod uring;

pub use gather::{Gathering, Pieces};
pub use inbox::Inbox;
pub use uring::Uring;

use super::uplink::PacketPort;
use super::{RECV_BUF_LEN, SendError, Tap, Uplink};
use crate::ring::BURST;
use arrayvec::ArrayVec;
use chanio_model::offload::{RxOffloads, VNET_HDR_LEN};
use nix::errno::Errno;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::AsFd;

/// What became of each frame of a burst, in order.
pub type Outcomes = ArrayVec<Result<(), Errno>, BURST>;

/// Bytes from one frame's room to the next: a frame's longest and what it takes to begin each in a
/// line of the cache. No multiple of a page, so that small frames do not fight for the same sets.
const ROOM: usize = RECV_BUF_LEN.next_multiple_of(64);

/// Something whose frames go through the kernel.
#[derive(Clone, Copy)]
pub enum Netdev<'a> {
    /// One queue of a TAP.
    Tap(&'a Tap),
    /// A packet socket.
    Packet(&'a PacketPort),
    /// What takes and gives one frame at a time.
    Single(&'a Uplink),
}

impl<'a> From<&'a Uplink> for Netdev<'a> {
    fn from(uplink: &'a Uplink) -> Self {
        match uplink {
            Uplink::Tap(tap) => Netdev::Tap(tap),
            Uplink::Packet(port) => Netdev::Packet(port),
            other => Netdev::Single(other),
        }
    }
}

impl Netdev<'_> {
    /// What sent frames may leave to be done.
    pub fn offloads(&self) -> RxOffloads {
        match self {
            Netdev::Tap(tap) => tap.offloads(),
            Netdev::Packet(port) => port.offloads(),
            Netdev::Single(uplink) => uplink.offloads(),
        }
    }

    /// Whether [`Netdev::send_all`] may be used.
    pub fn gathers(&self) -> bool {
        !matches!(self, Netdev::Single(_))
    }

    /// Makes a virtio-net header what the netdev wants in front of a frame: of its bytes so many.
    pub fn adapt(&self, header: &mut [u8; VNET_HDR_LEN]) -> usize {
        match self {
            Netdev::Packet(port) => port.adapt(header),
            _ => VNET_HDR_LEN,
        }
    }

    /// Sends one frame: the slices together are a 12-byte virtio-net header and the frame.
    ///
    /// # Errors
    /// See [`SendError`]; nothing was sent.
    pub fn send(&self, frame: &[IoSlice<'_>]) -> Result<(), SendError> {
        match self {
            Netdev::Tap(tap) => tap.send(frame),
            Netdev::Packet(port) => port.send(frame),
            Netdev::Single(uplink) => uplink.send(frame),
        }
    }

    /// Sends all frames in order, each begun by what [`Netdev::adapt`] left of its header, and puts
    /// into `sent` what became of each. EFAULT: its memory is no longer there.
    pub fn send_all(
        &self,
        frames: &Gathering<'_, '_>,
        uring: Option<&mut Uring>,
        sent: &mut Outcomes,
    ) {
        sent.clear();
        match (self, uring.filter(|uring| uring.works())) {
            // For a single frame the ring costs more than the call.
            (Netdev::Tap(tap), Some(uring)) if frames.len() > 1 => {
                uring.write_each(tap.as_fd(), frames, sent);
            }
            (Netdev::Tap(tap), _) => plain::write_each(tap.as_fd(), frames, sent),
            (Netdev::Packet(port), _) => port.send_all(frames, sent),
            (Netdev::Single(_), _) => sent.extend(frames.iter().map(|_| Err(Errno::ENOTSUP))),
        }
    }

    /// How many frames to ask for before it is known that there are many.
    fn at_first(&self) -> usize {
        match self {
            // Stops by itself where there are fewer.
            Netdev::Packet(_) => 4,
            _ => 1,
        }
    }

    /// Receives up to `n` frames, each into a room of [`ROOM`] bytes, and tells where in `rooms` they
    /// are, their 12-byte virtio-net headers in front; returns whether nothing is left.
    fn recv(
        &self,
        rooms: &mut [u8],
        n: usize,
        uring: Option<&mut Uring>,
        mut got: impl FnMut(Range<usize>),
    ) -> io::Result<bool> {
        match (self, uring.filter(|uring| uring.works())) {
            (Netdev::Packet(port), _) => port.recv_each(rooms, (n, ROOM), got),
            (Netdev::Tap(tap), Some(uring)) if n > 1 => {
                let mut drained = false;
                for (i, result) in uring.read_each(tap.as_fd(), rooms, (n, ROOM)).enumerate() {
                    let at = i * ROOM;
                    match result {
                        Ok(len) => {
                            Tap::complete_header(&mut rooms[at..at + ROOM]);
                            got(at..at + len);
                        }
                        // What came after it has its own event.
                        Err(Errno::EAGAIN) => drained = true,
                        Err(errno) => return Err(errno.into()),
                    }
                }
                Ok(drained)
            }
            (Netdev::Tap(tap), _) => Self::recv_one(rooms, |room| tap.recv(room), got),
            (Netdev::Single(uplink), _) => {
                Self::recv_one(rooms, |room| uplink.recv(room), &mut got)
            }
        }
    }

    fn recv_one(
        rooms: &mut [u8],
        recv: impl Fn(&mut [u8]) -> io::Result<Option<usize>>,
        mut got: impl FnMut(Range<usize>),
    ) -> io::Result<bool> {
        let room = &mut rooms[..RECV_BUF_LEN];
        let len = recv(room)?;
        if let Some(len) = len {
            got(0..len.min(RECV_BUF_LEN));
        }
        Ok(len.is_none())
    }
}
