//! Moving bytes between guest segments and local memory, or from guest to guest.
//!
//! A guest may rewrite its buffers during a copy, so what arrives is some mixture of what was
//! there: untrusted bytes, to be checked *after* the copy, on the local side. For the same reason
//! no reference (`&[u8]`) to guest memory is ever made; there are only pointers and lengths.

use std::marker::PhantomData;
use std::ptr::NonNull;

use chanio_model::offload::VNET_HDR_LEN;

/// Contiguous host memory behind one descriptor, or behind the part of it inside one region.
///
/// Invariant, kept by `chain::walk`, which alone makes them: `ptr..ptr+len` lies inside one
/// mapping of the `GuestMemory` that the owner of the segment list keeps alive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) ptr: NonNull<u8>,
    pub(super) len: u32,
}

/// Copies `n` bytes. Up to 256, as packets' heads are, without a call: a few wide moves that may
/// overlap each other cost less than finding out how to copy.
///
/// # Safety
/// `n` bytes at `src` can be read and `n` at `dst` written, and the two do not overlap. Another
/// process may write to either meanwhile.
#[inline(always)]
unsafe fn copy_bytes(src: *const u8, dst: *mut u8, n: usize) {
    /// Copies `W` bytes at the start and `W` at the end, of `n >= W`.
    ///
    /// # Safety
    /// As for [`copy_bytes`].
    #[inline(always)]
    unsafe fn ends<const W: usize>(src: *const u8, dst: *mut u8, n: usize) {
        // SAFETY: `W <= n`, so both pieces lie inside the ranges; alignment 1.
        unsafe {
            let first = src.cast::<[u8; W]>().read();
            let last = src.add(n - W).cast::<[u8; W]>().read();
            dst.cast::<[u8; W]>().write(first);
            dst.add(n - W).cast::<[u8; W]>().write(last);
        }
    }
    // SAFETY: each arm has `W <= n`.
    unsafe {
        match n {
            0 => {}
            1..2 => ends::<1>(src, dst, n),
            2..4 => ends::<2>(src, dst, n),
            4..8 => ends::<4>(src, dst, n),
            8..16 => ends::<8>(src, dst, n),
            16..32 => ends::<16>(src, dst, n),
            32..64 => ends::<32>(src, dst, n),
            // Not twice.
            64 => dst.cast::<[u8; 64]>().write(src.cast::<[u8; 64]>().read()),
            65..128 => ends::<64>(src, dst, n),
            128..=256 => ends::<128>(src, dst, n),
            _ => src.copy_to_nonoverlapping(dst, n),
        }
    }
}

/// The first segment's pointer at `offset`, if all of `offset..offset + len` lies in it.
#[inline(always)]
fn within_first(segments: &[Segment], offset: usize, len: usize) -> Option<NonNull<u8>> {
    let first = segments.first()?;
    if offset + len > first.len as usize {
        return None;
    }
    // SAFETY: `offset` is inside the segment, or at its end with nothing to copy.
    Some(unsafe { first.ptr.add(offset) })
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
    #[inline(always)]
    pub fn copy_out(&self, offset: usize, dst: &mut [u8]) -> usize {
        if let Some(src) = within_first(self.segments, offset, dst.len()) {
            // SAFETY: as below, in one piece.
            unsafe { copy_bytes(src.as_ptr(), dst.as_mut_ptr(), dst.len()) };
            return dst.len();
        }
        self.copy_out_pieces(offset, dst)
    }

    fn copy_out_pieces(&self, offset: usize, dst: &mut [u8]) -> usize {
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

    /// How many bytes of a virtio-net header at the start are as in `src` already: all 12, or 0.
    /// Whatever else may write there meanwhile, the driver gets what one of the two wrote.
    #[inline(always)]
    pub fn starts_like(&self, src: &[u8]) -> usize {
        let Some(wanted) = src.first_chunk::<VNET_HDR_LEN>() else {
            return 0;
        };
        let Some(at) = within_first(self.segments, 0, VNET_HDR_LEN) else {
            return 0;
        };
        // SAFETY: the segment has so many bytes (`Segment`'s invariant); alignment 1.
        let found = unsafe { at.cast::<[u8; VNET_HDR_LEN]>().read() };
        if found == *wanted { VNET_HDR_LEN } else { 0 }
    }

    /// Copies `src` to byte `offset` on; returns the bytes copied, fewer than `src.len()` only
    /// where the segments end first.
    #[inline(always)]
    pub fn copy_in(&self, offset: usize, src: &[u8]) -> usize {
        if offset + src.len() <= self.len as usize
            && let Some(dst) = within_first(self.segments, offset, src.len())
        {
            // SAFETY: as below, in one piece.
            unsafe { copy_bytes(src.as_ptr(), dst.as_ptr(), src.len()) };
            return src.len();
        }
        self.copy_in_pieces(offset, src)
    }

    fn copy_in_pieces(&self, offset: usize, src: &[u8]) -> usize {
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
        if offset + len <= self.len as usize
            && let Some(src) = within_first(src.segments, src_offset, len)
            && let Some(dst) = within_first(self.segments, offset, len)
        {
            // SAFETY: as below, in one piece.
            unsafe { src.as_ptr().copy_to(dst.as_ptr(), len) };
            return len;
        }
        self.copy_from_pieces(offset, src, src_offset, len)
    }

    fn copy_from_pieces(
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Cuts `bytes` into segments of the given lengths, as far as they go.
    fn cut(bytes: &mut [u8], lens: &[usize]) -> (Vec<Segment>, u32) {
        let base = NonNull::from(&mut *bytes).cast::<u8>();
        let mut at = 0;
        let mut segments = Vec::new();
        for &len in lens {
            let len = len.min(bytes.len() - at);
            if len > 0 {
                // SAFETY: `at + len <= bytes.len()`.
                let ptr = unsafe { base.add(at) };
                segments.push(Segment {
                    ptr,
                    len: len as u32,
                });
                at += len;
            }
        }
        (segments, at as u32)
    }

    proptest! {
        #[test]
        fn copies_like_one_slice(
            src_lens in prop::collection::vec(1usize..40, 1..8),
            dst_lens in prop::collection::vec(1usize..40, 1..8),
            src_offset in 0usize..100,
            dst_offset in 0usize..100,
            len in 0usize..200,
        ) {
            let mut src: Vec<u8> = (0..100).collect();
            let mut dst = vec![0xff; 100];
            let (src_segments, src_len) = cut(&mut src, &src_lens);
            let (dst_segments, dst_len) = cut(&mut dst, &dst_lens);
            let readable = Readable::new(&src_segments, src_len);
            let writable = Writable::new(&dst_segments, dst_len);

            let can_read = len.min((src_len as usize).saturating_sub(src_offset));
            let can_write = len.min((dst_len as usize).saturating_sub(dst_offset));
            let n = can_read.min(can_write);

            let mut out = vec![0; len];
            prop_assert_eq!(readable.copy_out(src_offset, &mut out), can_read);
            let numbers: Vec<u8> = (src_offset..src_offset + can_read).map(|i| i as u8).collect();
            prop_assert_eq!(&out[..can_read], &numbers[..]);
            let pieces: usize = readable.pieces(src_offset, len).map(|p| p.1).sum();
            prop_assert_eq!(pieces, can_read);

            prop_assert_eq!(writable.copy_from(dst_offset, readable, src_offset, len), n);
            let mut expected = vec![0xff; 100];
            expected[dst_offset..dst_offset + n].copy_from_slice(&numbers[..n]);
            prop_assert_eq!(&dst, &expected);

            let (dst_segments, dst_len) = cut(&mut dst, &dst_lens);
            let writable = Writable::new(&dst_segments, dst_len);
            prop_assert_eq!(writable.copy_in(dst_offset, &vec![9; len]), can_write);
            expected[dst_offset..dst_offset + can_write].fill(9);
            prop_assert_eq!(&dst, &expected);
        }
    }
}
