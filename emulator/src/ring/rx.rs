//! Receive buffers reserved for one frame (virtio 1.3 §5.1.6.4): one chain, or with
//! VIRTIO_NET_F_MRG_RXBUF as many as the frame needs.

use arrayvec::ArrayVec;

use super::chain::{MAX_SEGMENTS, walk};
use super::copy::{Segment, Writable};
use super::fault::RingFault;
use super::split::SplitRing;

/// Most buffers one frame may be spread over. 64 KiB and its header in Linux's smallest mergeable
/// buffers, 1526 bytes, take 43.
pub const MAX_RX_BUFFERS: usize = 64;

/// Working space for reservations. Made once per worker; no allocation after that.
#[derive(Debug)]
pub struct RxScratch {
    segments: Vec<Segment>,
    used: ArrayVec<(u16, u32), MAX_RX_BUFFERS>,
}

// SAFETY: between reservations nothing reads the segments left behind, and during one the ring
// that owns their memory is borrowed beside them (`Reservation`).
unsafe impl Send for RxScratch {}

impl Default for RxScratch {
    fn default() -> Self {
        RxScratch {
            segments: Vec::with_capacity(2 * MAX_SEGMENTS),
            used: ArrayVec::new(),
        }
    }
}

/// Outcome of [`SplitRing::reserve`]. Unless it is `Ready`, the ring is as before.
#[derive(Debug)]
pub enum Reserve<'r> {
    /// Room for exactly the bytes asked for.
    Ready(Reservation<'r>),
    /// The driver has not made enough buffers available (yet).
    NoBuffers,
    /// The frame does not fit what the driver posts: the next buffer alone, if not mergeable; or
    /// the most buffers and segments a frame may take. The buffers stay where they are, because
    /// the next, smaller frame may fit; drop this frame.
    TooSmall {
        /// Bytes there would have been.
        capacity: u32,
    },
}

/// Buffers for one frame, taken from a ring but not yet used. Dropping it gives them back.
#[derive(Debug)]
pub struct Reservation<'r> {
    ring: &'r mut SplitRing,
    scratch: &'r mut RxScratch,
    total: u32,
}

impl SplitRing {
    /// Reserves `total` bytes, virtio-net header included, in the next receive buffers: in one, or
    /// if `mergeable` in as many as needed, of which all but the last are filled.
    ///
    /// # Errors
    /// A [`RingFault`]: of the walk, or [`RingFault::NotWritable`] for a buffer with a readable
    /// part.
    #[inline]
    pub fn reserve<'r>(
        &'r mut self,
        scratch: &'r mut RxScratch,
        total: u32,
        mergeable: bool,
    ) -> Result<Reserve<'r>, RingFault> {
        scratch.segments.clear();
        scratch.used.clear();
        let mut have = 0u32;
        let outcome = loop {
            match self.take_buffer(scratch, total - have) {
                Ok(Some(len)) => have += len,
                Ok(None) => break Ok(Reserve::NoBuffers),
                Err(fault) => break Err(fault),
            }
            if scratch.segments.len() > MAX_SEGMENTS {
                break Ok(Reserve::TooSmall { capacity: have });
            }
            if have >= total {
                return Ok(Reserve::Ready(Reservation {
                    ring: self,
                    scratch,
                    total,
                }));
            }
            if !mergeable || scratch.used.is_full() {
                break Ok(Reserve::TooSmall { capacity: have });
            }
        };
        self.unpop(scratch.used.len() as u16);
        outcome
    }

    /// Takes the next buffer for at most `want` more bytes; returns how many of them it holds.
    #[inline]
    fn take_buffer(
        &mut self,
        scratch: &mut RxScratch,
        want: u32,
    ) -> Result<Option<u32>, RingFault> {
        if !self.has_next()? {
            return Ok(None);
        }
        let head = self.avail_head(0);
        let table = self.layout().desc;
        let walked = walk(
            self.memory(),
            table,
            self.indirect(),
            head,
            &mut scratch.segments,
        )?;
        if walked.readable != 0 {
            return Err(RingFault::NotWritable {
                head,
                len: walked.readable_len,
            });
        }
        let len = walked.writable_len.min(want);
        scratch.used.push((head, len));
        self.advance();
        Ok(Some(len))
    }
}

impl<'r> Reservation<'r> {
    /// Buffers taken: `num_buffers` of the virtio-net header, at least 1.
    #[inline]
    pub fn num_buffers(&self) -> u16 {
        self.scratch.used.len() as u16
    }

    /// The reserved bytes.
    #[inline]
    pub fn writable(&self) -> Writable<'_> {
        Writable::new(&self.scratch.segments, self.total)
    }

    /// Hands the buffers to the driver: pushes a used element for each. [`SplitRing::publish`]
    /// makes them visible.
    #[inline]
    pub fn commit(self) {
        for (head, len) in self.scratch.used.drain(..) {
            self.ring.push_used(head, len);
        }
        // Nothing is left in `used` for the drop to give back.
    }
}

impl Drop for Reservation<'_> {
    #[inline]
    fn drop(&mut self) {
        self.ring.unpop(self.scratch.used.len() as u16);
    }
}
