//! Memory for the frames that a burst receives.

use super::{Netdev, ROOM, Uring};
use crate::port::RECV_BUF_LEN;
use crate::ring::BURST;
use arrayvec::ArrayVec;
use std::io;
use std::ops::Range;

/// Frames of more bytes are long: a few of them fill a processor's cache.
const LONG: usize = 4096;

/// Frames to look at before more than a few are asked for at a time.
const FEW: usize = 4;

/// Where long frames go, one behind the other, so that they do not push each other out of the
/// cache; and small ones too, as long as nobody knows that they are.
const TIGHT: usize = FEW * ROOM;

/// The worker's memory for a burst from a netdev; nothing is allocated once it is made.
pub struct Inbox {
    /// A room for each frame of a burst. Only what is used of it takes memory.
    buffer: Vec<u8>,
    places: ArrayVec<Range<usize>, BURST>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            buffer: vec![0; BURST * ROOM],
            places: ArrayVec::new(),
        }
    }
}

impl Inbox {
    /// Replaces what is held by up to `at_most` frames of the netdev; returns whether those were
    /// all there are. It may be fewer although there are more.
    ///
    /// As many frames are asked for at once as have come already: where few come, no more than a
    /// few are asked for in vain. Without `uring`, TAPs are read frame by frame.
    ///
    /// # Errors
    /// The netdev's. The frames before it are held.
    pub fn fill(
        &mut self,
        from: Netdev<'_>,
        at_most: usize,
        mut uring: Option<&mut Uring>,
    ) -> io::Result<bool> {
        self.places.clear();
        let at_most = at_most.min(BURST);
        let (mut at, mut longest) = (0, 0);
        loop {
            let have = self.places.len();
            let many = have >= FEW && longest <= LONG;
            let (n, end) = match many {
                true => (have, self.buffer.len()),
                false => (from.at_first(), TIGHT),
            };
            let n = n.min(at_most - have).min(end.saturating_sub(at) / ROOM);
            if n == 0 {
                return Ok(false);
            }
            let rooms = &mut self.buffer[at..end];
            let (places, start) = (&mut self.places, at);
            let drained = from.recv(rooms, n, uring.as_deref_mut(), |place| {
                longest = longest.max(place.len());
                at = (start + place.end).next_multiple_of(64);
                places.push(start + place.start..start + place.end);
            })?;
            if drained {
                return Ok(true);
            }
        }
    }

    /// What is held: of each frame the 12-byte virtio-net header and the frame.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let frame = |place: &Range<usize>| &self.buffer[place.clone()];
        self.places.iter().map(frame)
    }

    /// Bytes of each frame with its header.
    pub fn lengths(&self) -> impl ExactSizeIterator<Item = usize> + Clone {
        self.places.iter().map(ExactSizeIterator::len)
    }
}

const _: () = assert!(RECV_BUF_LEN <= ROOM && LONG < ROOM);
