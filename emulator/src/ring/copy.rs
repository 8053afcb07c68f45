//! Moving bytes between guest segments and local memory, or from guest to guest.
//!
//! A guest may rewrite its buffers during a copy, so what arrives is some mixture of what was
//! there: untrusted bytes, to be checked *after* the copy, on the local side. For the same reason
//! no reference (`&[u8]`) to guest memory is ever made; there are only pointers and lengths.

use std::marker::PhantomData;
use std::ptr::NonNull;

/// Contiguous host memory behind one descriptor, or behind the part of it inside one region.
///
/// Invariant, kept by `chain::walk`, which alone makes them: `ptr..ptr+len` lies inside one
/// mapping of the `GuestMemory` that the owner of the segment list keeps alive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) ptr: NonNull<u8>,
    pub(super) len: u32,
}

/// The bytes from `skip` on, at most `left`, of a segment list, piece by piece.
#[derive(Clone)]
struct Pieces<'a> {
    segments: std::slice::Iter<'a, Segment>,
    skip: usize,
    left: usize,
}

impl Iterator for Pieces<'_> {
    type Item = (NonNull<u8>, usize);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        loop {
            let segment = self.segments.next()?;
            let len = segment.len as usize;
            if self.skip >= len {
                self.skip -= len;
                continue;
            }
            // SAFETY: `skip < len`, so the pointer stays inside the segment's mapping (the
            // invariant of `Segment`).
            let ptr = unsafe { segment.ptr.add(self.skip) };
            let n = (len - self.skip).min(self.left);
            self.skip = 0;
            self.left -= n;
            return Some((ptr, n));
        }
    }
}

/// The part of `offset..offset + len` that lies within the first `total` bytes of `segments`.
#[inline]
fn pieces(segments: &[Segment], total: u32, offset: usize, len: usize) -> Pieces<'_> {
    let left = len.min((total as usize).saturating_sub(offset));
    Pieces {
        segments: segments.iter(),
        skip: offset,
        left,
    }
}

/// The device-readable part of a chain: what a driver sends.
///
/// Borrowed from whatever keeps the guest memory mapped (a [`super::Burst`]).
#[derive(Clone, Copy, Debug)]
pub struct Readable<'a> {
    segments: &'a [Segment],
    len: u32,
}

impl<'a> Readable<'a> {
    pub(super) fn new(segments: &'a [Segment], len: u32) -> Self {
        Readable { segments, len }
    }

    /// Bytes in all segments.
    #[inline]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is nothing to read.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies from byte `offset` on into `dst`; returns the bytes copied, fewer than `dst.len()`
    /// only where the segments end first.
    #[inline]
    pub fn copy_out(&self, offset: usize, dst: &mut [u8]) -> usize {
        let mut done = 0;
        for (ptr, n) in pieces(self.segments, self.len, offset, dst.len()) {
            // SAFETY: `ptr..ptr+n` is mapped guest memory for as long as `self` is borrowed
            // (`Segment`'s invariant) and `done + n <= dst.len()` because the pieces together are
            // at most `dst.len()` long. `dst` is a live `&mut`, so it cannot be guest memory and
            // the ranges do not overlap. The guest may write concurrently: the bytes are plain
            // data whatever they are.
            unsafe {
                ptr.as_ptr()
                    .copy_to_nonoverlapping(dst.as_mut_ptr().add(done), n)
            };
            done += n;
        }
        done
    }

    /// The bytes `offset..offset + len` as pointers and lengths in order, for a vectored write.
    /// The kernel answers EFAULT for memory whose file was truncated. Valid while `self` is.
    pub fn pieces(&self, offset: usize, len: usize) -> impl Iterator<Item = (*const u8, usize)> {
        pieces(self.segments, self.len, offset, len).map(|(ptr, n)| (ptr.as_ptr().cast_const(), n))
    }
}

/// The device-writable part of a chain or of several: where a device delivers.
#[derive(Clone, Copy, Debug)]
pub struct Writable<'a> {
    segments: &'a [Segment],
    len: u32,
    // Guest memory is written through this view from one thread at a time.
    _not_sync: PhantomData<std::cell::Cell<u8>>,
}

impl<'a> Writable<'a> {
    pub(super) fn new(segments: &'a [Segment], len: u32) -> Self {
        Writable {
            segments,
            len,
            _not_sync: PhantomData,
        }
    }

    /// Bytes in all segments.
    #[inline]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no room.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies `src` to byte `offset` on; returns the bytes copied, fewer than `src.len()` only
    /// where the segments end first.
    #[inline]
    pub fn copy_in(&self, offset: usize, src: &[u8]) -> usize {
        let mut done = 0;
        for (ptr, n) in pieces(self.segments, self.len, offset, src.len()) {
            // SAFETY: as in `Readable::copy_out`, with the directions exchanged; nothing on this
            // side holds a reference into guest memory, so writing to it invalidates none.
            unsafe {
                ptr.as_ptr()
                    .copy_from_nonoverlapping(src.as_ptr().add(done), n)
            };
            done += n;
        }
        done
    }

    /// The only copy of a payload: `len` bytes from `src` at `src_offset` to `self` at `offset`.
    /// Returns the bytes copied, fewer than `len` only where either side ends first.
    ///
    /// The two may be the same guest memory (a channel that hears itself, or two that share a
    /// file), even overlapping; then the overlapping bytes are unspecified.
    #[inline]
    pub fn copy_from(
        &self,
        offset: usize,
        src: Readable<'_>,
        src_offset: usize,
        len: usize,
    ) -> usize {
        let mut from = pieces(src.segments, src.len, src_offset, len);
        let mut to = pieces(self.segments, self.len, offset, len);
        let (mut src_left, mut dst_left) = (0, 0);
        let (mut src_ptr, mut dst_ptr) = (NonNull::dangling(), NonNull::dangling());
        let mut done = 0;
        loop {
            if src_left == 0 {
                let Some((ptr, n)) = from.next() else { break };
                (src_ptr, src_left) = (ptr, n);
            }
            if dst_left == 0 {
                let Some((ptr, n)) = to.next() else { break };
                (dst_ptr, dst_left) = (ptr, n);
            }
            let n = src_left.min(dst_left);
            // SAFETY: both ranges are mapped guest memory of at least `n` bytes (`Segment`'s
            // invariant; each pointer advances with its own count of bytes left). A guest chooses
            // where they are, so they may overlap: hence a move, not a non-overlapping copy.
            unsafe {
                src_ptr.as_ptr().copy_to(dst_ptr.as_ptr(), n);
                src_ptr = src_ptr.add(n);
                dst_ptr = dst_ptr.add(n);
            }
            src_left -= n;
            dst_left -= n;
            done += n;
        }
        done
    }

    /// The bytes `offset..offset + len` as pointers and lengths in order, for a vectored read.
    /// The kernel answers EFAULT for memory whose file was truncated. Valid while `self` is.
    pub fn pieces(&self, offset: usize, len: usize) -> impl Iterator<Item = (*mut u8, usize)> {
        pieces(self.segments, self.len, offset, len).map(|(ptr, n)| (ptr.as_ptr(), n))
    }
}
