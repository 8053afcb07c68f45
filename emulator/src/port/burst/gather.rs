//! Frames as the kernel takes them: lists of pieces of memory, some of it guests'.

use crate::ring::{BURST, MAX_SEGMENTS, Readable};
use arrayvec::ArrayVec;
use std::marker::PhantomData;

/// Most pieces of one frame: its header, three of its head, and the guest's.
const PIECES_OF_ONE: usize = 4 + MAX_SEGMENTS;

/// Room for the pieces of a burst. Most frames have two or three.
const PIECES: usize = 8 * PIECES_OF_ONE;

/// Room for lists of pieces. Made once per worker; no allocation after that.
#[derive(Debug)]
pub struct Pieces {
    all: Vec<libc::iovec>,
    /// Where each frame's pieces end.
    ends: ArrayVec<usize, BURST>,
}

// SAFETY: what the pointers lead to is looked at only through a `Gathering`, which borrows this and
// begins without any.
unsafe impl Send for Pieces {}

impl Default for Pieces {
    fn default() -> Self {
        Self {
            all: Vec::with_capacity(PIECES),
            ends: ArrayVec::new(),
        }
    }
}

impl Pieces {
    /// Begins a burst of frames that live for `'f`.
    pub fn begin<'f>(&mut self) -> Gathering<'_, 'f> {
        self.all.clear();
        self.ends.clear();
        Gathering {
            pieces: self,
            frames: PhantomData,
        }
    }
}

/// The frames of a burst, as lists of pieces of memory that is there for `'f`.
///
/// The memory of a guest may be written, or its file truncated, at any time: the kernel copies it
/// once, and answers EFAULT for what is gone.
#[derive(Debug)]
pub struct Gathering<'p, 'f> {
    pieces: &'p mut Pieces,
    frames: PhantomData<&'f [u8]>,
}

impl<'f> Gathering<'_, 'f> {
    /// Whether there is room for one more frame.
    pub fn has_room(&self) -> bool {
        !self.pieces.ends.is_full() && self.pieces.all.len() + PIECES_OF_ONE <= PIECES
    }

    /// Adds a piece to the frame. The caller ends it before there are more than
    /// `PIECES_OF_ONE`.
    pub fn slice(&mut self, piece: &'f [u8]) {
        if !piece.is_empty() {
            self.pieces.all.push(libc::iovec {
                iov_base: piece.as_ptr().cast_mut().cast(),
                iov_len: piece.len(),
            });
        }
    }

    /// Adds the bytes `offset..offset + len` of a guest's chain to the frame.
    pub fn guest(&mut self, source: Readable<'f>, offset: usize, len: usize) {
        let pieces = source.pieces(offset, len).map(|(ptr, len)| libc::iovec {
            iov_base: ptr.cast_mut().cast(),
            iov_len: len,
        });
        self.pieces.all.extend(pieces);
    }

    /// Ends the frame.
    pub fn end_frame(&mut self) {
        self.pieces.ends.push(self.pieces.all.len());
    }

    /// Frames ended.
    pub fn len(&self) -> usize {
        self.pieces.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pieces.ends.is_empty()
    }

    /// Each frame's pieces. All of them can be read for as long as this is borrowed.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[libc::iovec]> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// The pieces of one frame.
    pub fn get(&self, i: usize) -> &[libc::iovec] {
        let ends = &self.pieces.ends;
        let start = i.checked_sub(1).map_or(0, |before| ends[before]);
        &self.pieces.all[start..ends[i]]
    }
}
