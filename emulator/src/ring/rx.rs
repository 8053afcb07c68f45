//! Receive buffers reserved for one frame (virtio 1.3 §5.1.6.4): one chain, or with
//! VIRTIO_NET_F_MRG_RXBUF as many as the frame needs.

use arrayvec::ArrayVec;
use chanio_model::offload::VNET_HDR_LEN;

use super::chain::{BURST, MAX_SEGMENTS, Token, walk, walk_plain};
use super::copy::{Readable, Segment, Writable};
use super::fault::RingFault;
use super::layout::{prefetch, prefetch_for_writing};
use super::queue::Ring;
use super::split::SplitRing;

/// Most buffers one frame may be spread over. 64 KiB and its header in Linux's smallest mergeable
/// buffers, 1526 bytes, take 43.
pub const MAX_RX_BUFFERS: usize = 64;

/// Working space for reservations. Made once per worker; no allocation after that.
#[derive(Debug)]
pub struct RxScratch {
    segments: Vec<Segment>,
    used: ArrayVec<(Token, u32), MAX_RX_BUFFERS>,
    /// The next buffers of the ring being filled, as far as they are plain ones, ...
    ahead: Ahead,
    /// ... and how many bytes were put into each.
    put: [u32; BURST],
}

/// Buffers looked up before they are needed.
pub(super) type Ahead = ArrayVec<Plain, BURST>;

/// A receive buffer that is one descriptor inside one region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain {
    pub(super) token: Token,
    pub(super) segment: Segment,
}

// SAFETY: between reservations nothing reads the segments left behind, and during one the ring
// that owns their memory is borrowed beside them (`Reservation`, `Filling`).
unsafe impl Send for RxScratch {}

impl Default for RxScratch {
    fn default() -> Self {
        RxScratch {
            segments: Vec::with_capacity(2 * MAX_SEGMENTS),
            used: ArrayVec::new(),
            ahead: ArrayVec::new(),
            put: [0; BURST],
        }
    }
}

/// A ring being filled with the frames of one burst, until it is dropped.
#[derive(Debug)]
pub struct Filling<'r, 'f> {
    ring: &'r mut Ring,
    scratch: &'r mut RxScratch,
    /// How many frames there are in the burst.
    frames: usize,
    /// Where in `scratch.ahead` the ring's next buffer is, if it is there; ...
    settled: usize,
    /// ... and the next one after those that were put into but not yet taken off the ring.
    next: usize,
    /// What is still to be copied into each of them.
    fronts: [&'f [u8]; BURST],
}

/// Asks the cache for the front of a buffer: for writing, but for a line that has nothing but the
/// virtio-net header, which most often stays as it is ([`Filling::put`]).
#[inline]
fn prefetch_buffer(segment: Segment) {
    let header = segment.ptr.as_ptr();
    let data = header.wrapping_add(VNET_HDR_LEN);
    if header.addr() / 64 != data.addr() / 64 {
        prefetch(header);
    }
    prefetch_for_writing(data);
}

impl RxScratch {
    /// Where a walk appends.
    #[inline]
    pub(super) fn segments(&mut self) -> &mut Vec<Segment> {
        &mut self.segments
    }

    /// Counts a buffer as taken for `len` bytes.
    #[inline]
    pub(super) fn take(&mut self, buffer: Token, len: u32) {
        self.used.push((buffer, len));
    }
}

/// Outcome of [`Ring::reserve`]. Unless it is `Ready`, the ring is as before.
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
    ring: &'r mut Ring,
    scratch: &'r mut RxScratch,
    total: u32,
    /// Where the ring was before.
    start: u16,
}

impl Ring {
    /// Begins a burst of up to `frames` frames: looks up their buffers at once, so that one does
    /// not wait for the other's memory. Takes nothing yet.
    #[inline]
    pub fn fill<'r, 'f>(
        &'r mut self,
        scratch: &'r mut RxScratch,
        frames: usize,
    ) -> Filling<'r, 'f> {
        let mut filling = Filling {
            ring: self,
            scratch,
            frames: frames.min(BURST),
            settled: 0,
            next: 0,
            fronts: [&[]; BURST],
        };
        filling.look_ahead();
        filling
    }

    /// Reserves `total` bytes, virtio-net header included, in the next receive buffers: in one, or
    /// if `mergeable` in as many as needed, of which all but the last are filled.
    ///
    /// # Errors
    /// A [`RingFault`]: of the walk, or [`RingFault::NotWritable`] for a buffer with a readable
    /// part.
    pub fn reserve<'r>(
        &'r mut self,
        scratch: &'r mut RxScratch,
        total: u32,
        mergeable: bool,
    ) -> Result<Reserve<'r>, RingFault> {
        scratch.segments.clear();
        scratch.used.clear();
        let start = self.next_avail();
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
                    start,
                }));
            }
            if !mergeable || scratch.used.is_full() {
                break Ok(Reserve::TooSmall { capacity: have });
            }
        };
        self.rewind(start);
        outcome
    }

    fn take_buffer(
        &mut self,
        scratch: &mut RxScratch,
        want: u32,
    ) -> Result<Option<u32>, RingFault> {
        match self {
            Ring::Split(ring) => ring.take_buffer(scratch, want),
            Ring::Packed(ring) => ring.take_buffer(scratch, want),
        }
    }

    /// Takes these next buffers, which were looked up ahead and put into.
    #[inline]
    fn take_plain(&mut self, taken: &[Plain], lens: &[u32]) {
        match self {
            Ring::Split(ring) => {
                for (plain, len) in taken.iter().zip(lens) {
                    ring.push_used(plain.token.id, *len);
                }
                ring.advance(taken.len() as u16);
            }
            Ring::Packed(ring) => {
                for (plain, len) in taken.iter().zip(lens) {
                    ring.push_used(plain.token, *len);
                }
                ring.skip(taken.len() as u16);
            }
        }
    }
}

impl SplitRing {
    /// Asks the cache for the descriptors of the next `n` buffers, and where they will be used.
    #[inline]
    fn prefetch_next(&self, n: usize) {
        self.prefetch_used(n as u16);
        let table = self.layout().desc;
        for i in 0..self.known().min(n) {
            table.prefetch(self.avail_head(i as u16));
        }
    }

    #[inline]
    fn look_ahead(&mut self, wanted: usize, ahead: &mut Ahead) {
        // What is wrong with a ring is found, and said, when the buffer is taken.
        let n = self.at_least(wanted).unwrap_or(0).min(wanted);
        let table = self.layout().desc;
        let mut heads = [0; BURST];
        for (i, head) in heads[..n].iter_mut().enumerate() {
            *head = self.avail_head(i as u16);
            table.prefetch(*head);
        }
        for &head in &heads[..n] {
            let Some((segment, true)) = walk_plain(self.memory(), table, head) else {
                return;
            };
            ahead.push(Plain {
                token: Token { id: head, count: 1 },
                segment,
            });
        }
    }

    /// Takes the next buffer for at most `want` more bytes; returns how many of them it holds.
    #[inline]
    fn take_buffer(
        &mut self,
        scratch: &mut RxScratch,
        want: u32,
    ) -> Result<Option<u32>, RingFault> {
        if self.at_least(1)? == 0 {
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
        scratch.used.push((Token { id: head, count: 1 }, len));
        self.advance(1);
        Ok(Some(len))
    }
}

impl<'f> Filling<'_, 'f> {
    /// Puts a frame into the next buffer, as reserving, filling and committing would, if that is a
    /// plain one with room for it: `front`, and the bytes of `tail` from an offset on. False, and
    /// nothing done, if it is not: [`Filling::reserve`] then.
    #[inline(always)]
    pub fn put(&mut self, front: &'f [u8], tail: Option<(Readable<'_>, usize)>) -> bool {
        if self.scratch.ahead.is_empty() {
            // As after a frame that was spread over several.
            self.look_ahead();
        }
        let Some(plain) = self.scratch.ahead.get(self.next) else {
            return false;
        };
        let behind = tail.map_or(0, |(source, offset)| {
            (source.len() as usize).saturating_sub(offset)
        });
        let total = front.len() + behind;
        if (plain.segment.len as usize) < total {
            return false;
        }
        if let Some((source, offset)) = tail {
            let segment = [plain.segment];
            let into = Writable::new(&segment, total as u32);
            into.copy_from(front.len(), source, offset, behind);
        }
        self.fronts[self.next] = front;
        self.scratch.put[self.next] = total as u32;
        self.next += 1;
        true
    }

    /// [`Ring::reserve`] in the course of this burst.
    ///
    /// # Errors
    /// As there.
    pub fn reserve(&mut self, total: u32, mergeable: bool) -> Result<Reserve<'_>, RingFault> {
        self.settle();
        // What it takes is nobody else's any more.
        self.scratch.ahead.clear();
        (self.settled, self.next) = (0, 0);
        self.ring.reserve(self.scratch, total, mergeable)
    }

    /// Finds the buffers for the frames to come, and asks the cache for them.
    #[inline]
    fn look_ahead(&mut self) {
        let ahead = &mut self.scratch.ahead;
        ahead.clear();
        (self.settled, self.next) = (0, 0);
        match self.ring {
            Ring::Split(ring) => ring.look_ahead(self.frames, ahead),
            Ring::Packed(ring) => ring.look_ahead(self.frames, ahead),
        }
        for plain in ahead {
            prefetch_buffer(plain.segment);
        }
    }

    /// Copies what was put, and takes its buffers off the ring.
    ///
    /// All at once, with nothing between the copies: a line that the other side has read has to be
    /// taken back from its cache before it can be written, and a processor does that for several
    /// lines at a time only as far as the stores that wait for it fit in its queue.
    #[inline]
    fn settle(&mut self) {
        let range = self.settled..self.next;
        let ahead = &self.scratch.ahead[range.clone()];
        let put = &self.scratch.put[range.clone()];
        let mut same = [0; BURST];
        for ((plain, front), same) in ahead.iter().zip(&self.fronts[range.clone()]).zip(&mut same) {
            // The header is the same for nearly all frames, and drivers leave it in the buffer.
            // Where it has a line to itself, what is not written need not be taken from the other
            // side's cache, nor by it from ours: half of the lines of a small frame.
            *same = Writable::new(&[plain.segment], plain.segment.len).starts_like(front);
        }
        for ((plain, front), same) in ahead.iter().zip(&self.fronts[range]).zip(&same) {
            Writable::new(&[plain.segment], plain.segment.len).copy_in(*same, &front[*same..]);
        }
        self.ring.take_plain(ahead, put);
        self.settled = self.next;
    }
}

impl Drop for Filling<'_, '_> {
    /// Ends the burst, and asks the cache for the descriptors of the buffers that the next one will
    /// fill. Drivers post them long before, so that they can be fetched while other rings are
    /// served.
    #[inline]
    fn drop(&mut self) {
        self.settle();
        let n = self.scratch.ahead.len();
        match self.ring {
            Ring::Split(ring) => ring.prefetch_next(n),
            Ring::Packed(ring) => ring.prefetch_next(n),
        }
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

    /// Hands the buffers to the driver: pushes a used element for each. [`Ring::publish`]
    /// makes them visible.
    #[inline]
    pub fn commit(self) {
        for (chain, len) in self.scratch.used.drain(..) {
            self.ring.push_used(chain, len);
        }
        std::mem::forget(self);
    }
}

impl Drop for Reservation<'_> {
    #[inline]
    fn drop(&mut self) {
        self.ring.rewind(self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::driver::{DriverQueue, SharedArea};
    use std::sync::Arc;

    const DATA: u64 = 0x10000;

    fn pair(buffers: &[u32]) -> (SharedArea, DriverQueue, Ring) {
        let area = SharedArea::new(0, 0x100000).unwrap();
        let mem = area.memory();
        let mut queue = DriverQueue::new(Arc::clone(mem), 0, 256, false, 0).unwrap();
        let mut at = DATA;
        for &len in buffers {
            queue.add_in(&[(at, len)]).unwrap();
            at += u64::from(len);
        }
        queue.publish();
        let ring = Ring::new(Arc::clone(mem), &queue.config()).unwrap();
        (area, queue, ring)
    }

    fn used(queue: &mut DriverQueue) -> Vec<u32> {
        std::iter::from_fn(|| queue.poll_used().unwrap().map(|u| u.1)).collect()
    }

    /// The capacity of a `TooSmall`.
    fn too_small(outcome: Result<Reserve<'_>, RingFault>) -> Option<u32> {
        match outcome {
            Ok(Reserve::TooSmall { capacity }) => Some(capacity),
            _ => None,
        }
    }

    #[test]
    fn one_buffer_one_frame() {
        let (area, mut queue, mut ring) = pair(&[100, 100]);
        let mut scratch = RxScratch::default();
        let Ok(Reserve::Ready(room)) = ring.reserve(&mut scratch, 76, true) else {
            panic!()
        };
        assert_eq!(room.num_buffers(), 1);
        assert_eq!(room.writable().len(), 76);
        assert_eq!(room.writable().copy_in(0, &[1; 12]), 12);
        assert_eq!(
            room.writable().copy_in(12, &[2; 80]),
            64,
            "no further than was reserved"
        );
        room.commit();
        assert!(ring.publish());
        assert_eq!(used(&mut queue), [76]);
        let mut got = [0; 77];
        area.memory().read(DATA, &mut got).unwrap();
        assert_eq!((got[11], got[12], got[75], got[76]), (1, 2, 2, 0));
        assert_eq!(ring.next_avail(), 1);
    }

    #[test]
    fn a_large_frame_is_spread_over_mergeable_buffers() {
        let total = 65562;
        let (area, mut queue, mut ring) = pair(&[1526; 50]);
        let mut scratch = RxScratch::default();
        let Ok(Reserve::Ready(room)) = ring.reserve(&mut scratch, total, true) else {
            panic!()
        };
        assert_eq!(room.num_buffers(), 43);
        let bytes: Vec<u8> = (0..total).map(|i| (i % 251) as u8).collect();
        assert_eq!(room.writable().copy_in(0, &bytes[..12]), 12);
        assert_eq!(room.writable().copy_in(12, &bytes[12..]), bytes.len() - 12);
        room.commit();
        ring.publish();
        let mut expected = vec![1526; 42];
        expected.push(total - 42 * 1526);
        assert_eq!(used(&mut queue), expected);
        let mut got = vec![0; bytes.len()];
        area.memory().read(DATA, &mut got).unwrap();
        assert!(got == bytes);
    }

    #[test]
    fn nothing_is_taken_where_buffers_run_out() {
        let (_area, _queue, mut ring) = pair(&[100, 100]);
        let mut scratch = RxScratch::default();
        assert!(matches!(
            ring.reserve(&mut scratch, 201, true),
            Ok(Reserve::NoBuffers)
        ));
        assert_eq!(ring.next_avail(), 0);
        assert!(matches!(
            ring.reserve(&mut scratch, 200, true),
            Ok(Reserve::Ready(_))
        ));
        assert_eq!(ring.next_avail(), 0, "dropped, not committed");
        let (_area, _queue, mut ring) = pair(&[]);
        assert!(matches!(
            ring.reserve(&mut scratch, 1, false),
            Ok(Reserve::NoBuffers)
        ));
    }

    #[test]
    fn a_buffer_too_small_stays_where_it_is() {
        let (_area, _queue, mut ring) = pair(&[100, 1000]);
        let mut scratch = RxScratch::default();
        assert_eq!(too_small(ring.reserve(&mut scratch, 101, false)), Some(100));
        assert_eq!(ring.next_avail(), 0);
        assert!(matches!(
            ring.reserve(&mut scratch, 100, false),
            Ok(Reserve::Ready(_))
        ));
    }

    #[test]
    fn a_frame_in_too_many_buffers_is_too_large() {
        let (_area, _queue, mut ring) = pair(&[10; 200]);
        let mut scratch = RxScratch::default();
        let most = 10 * MAX_RX_BUFFERS as u32;
        assert!(matches!(
            ring.reserve(&mut scratch, most, true),
            Ok(Reserve::Ready(_))
        ));
        assert_eq!(
            too_small(ring.reserve(&mut scratch, most + 1, true)),
            Some(most)
        );
        assert_eq!(ring.next_avail(), 0);
    }

    #[test]
    fn a_frame_in_too_many_segments_is_too_large() {
        let area = SharedArea::new(0, 0x100000).unwrap();
        let mem = area.memory();
        let mut queue = DriverQueue::new(Arc::clone(mem), 0, 256, false, 0).unwrap();
        for _ in 0..4 {
            queue.add_in(&[(DATA, 10); 50]).unwrap();
        }
        queue.publish();
        let mut ring = Ring::new(Arc::clone(mem), &queue.config()).unwrap();
        let mut scratch = RxScratch::default();
        assert!(matches!(
            ring.reserve(&mut scratch, 1000, true),
            Ok(Reserve::Ready(_))
        ));
        assert!(too_small(ring.reserve(&mut scratch, 1001, true)).is_some());
        assert_eq!(ring.next_avail(), 0);
    }

    #[test]
    fn a_readable_buffer_is_a_fault_and_nothing_is_taken() {
        let area = SharedArea::new(0, 0x100000).unwrap();
        let mem = area.memory();
        let mut queue = DriverQueue::new(Arc::clone(mem), 0, 8, false, 0).unwrap();
        queue.add_in(&[(DATA, 10)]).unwrap();
        let head = queue.add(&[(DATA, 7)], &[(DATA, 100)]).unwrap();
        queue.publish();
        let mut ring = Ring::new(Arc::clone(mem), &queue.config()).unwrap();
        let mut scratch = RxScratch::default();
        let fault = ring.reserve(&mut scratch, 50, true).unwrap_err();
        assert_eq!(fault, RingFault::NotWritable { head, len: 7 });
        assert_eq!(ring.next_avail(), 0);
    }
}
