//! The packet being rewritten.

use crate::DropReason;
use crate::offload::Offload;
use crate::wire::Layout;

/// Room in front of a packet's head, in bytes: an outer Ethernet header with two tags, IPv6, UDP
/// and Geneve with all the options it can have (330), and some tags.
pub const ROOM: usize = 384;
/// The longest head, in bytes; more is left in the source.
pub const HEAD_MAX: usize = 512;

/// A packet being rewritten: its first bytes, and how many follow unseen in the source. A worker
/// has one and loads it anew for each packet that is to be changed.
///
/// All operations leave checksums and lengths right. A packet for which one fails is lost.
#[derive(Clone, Debug)]
pub struct Packet {
    buf: [u8; ROOM + HEAD_MAX],
    start: usize,
    end: usize,
    /// Bytes of the source that the head stands for.
    taken: u32,
    /// Bytes of the source that follow.
    tail: u32,
    offload: Offload,
    /// The next outer IPv4 header's identification.
    ident: u16,
}

/// What became of a packet: `head`, then `tail` bytes of the source from `taken` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edited<'a> {
    /// The first bytes.
    pub head: &'a [u8],
    /// Bytes from the start of the source's frame that the head stands for.
    pub taken: u32,
    /// Bytes of the source's frame that follow the head; those behind them are dropped.
    pub tail: u32,
    /// What is still to be done to it.
    pub offload: Offload,
}

impl Edited<'_> {
    /// Length of the frame in bytes.
    pub fn len(&self) -> u32 {
        self.head.len() as u32 + self.tail
    }

    /// Never: a frame has an Ethernet header.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Packet {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Packet {
    /// Without a packet yet. Outer IPv4 headers are numbered from `ident` on; workers start far
    /// from each other, so that fragments of their packets are not taken for each other's.
    pub fn new(ident: u16) -> Self {
        Self {
            buf: [0; ROOM + HEAD_MAX],
            start: ROOM,
            end: ROOM,
            taken: 0,
            tail: 0,
            offload: Offload::default(),
            ident,
        }
    }

    /// Becomes a copy of another one, but keeps numbering outer headers by itself.
    pub(crate) fn copy_of(&mut self, other: &Packet) {
        let Packet {
            buf,
            start,
            end,
            taken,
            tail,
            offload,
            ident: _,
        } = other;
        (self.start, self.end) = (*start, *end);
        (self.taken, self.tail, self.offload) = (*taken, *tail, *offload);
        self.buf[*start..*end].copy_from_slice(&buf[*start..*end]);
    }

    /// Takes in the first bytes of a frame of `frame_len` bytes, and what is to be done to it.
    /// `Runt` if there is no whole Ethernet header with its tags.
    pub fn load(
        &mut self,
        head: &[u8],
        frame_len: u32,
        offload: Offload,
    ) -> Result<(), DropReason> {
        let len = head.len().min(frame_len as usize).min(HEAD_MAX);
        let head = &head[..len];
        Layout::of(head).ok_or(DropReason::Runt)?;
        self.buf[ROOM..ROOM + len].copy_from_slice(head);
        self.start = ROOM;
        self.end = ROOM + len;
        self.taken = len as u32;
        self.tail = frame_len - len as u32;
        self.offload = offload;
        Ok(())
    }

    /// The packet as it is now.
    #[inline]
    pub fn edited(&self) -> Edited<'_> {
        Edited {
            head: self.head(),
            taken: self.taken,
            tail: self.tail,
            offload: self.offload,
        }
    }

    /// Its first bytes as they are now.
    #[inline]
    pub fn head(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// Length of the frame as it is now, in bytes.
    #[inline]
    pub fn frame_len(&self) -> u32 {
        (self.end - self.start) as u32 + self.tail
    }

    /// What is still to be done to it.
    #[inline]
    pub fn offload(&self) -> Offload {
        self.offload
    }

    #[inline]
    pub(super) fn head_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.end]
    }

    #[inline]
    pub(super) fn offload_mut(&mut self) -> &mut Offload {
        &mut self.offload
    }

    /// The headers as they are now. A loaded packet always has them.
    #[inline]
    pub(super) fn layout(&self) -> Result<Layout, DropReason> {
        Layout::of(self.head()).ok_or(DropReason::Runt)
    }

    /// Bytes that follow the head unseen.
    #[inline]
    pub(super) fn tail(&self) -> u32 {
        self.tail
    }

    /// Bytes of room in front of the head.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.start
    }

    /// Makes room for `len` bytes at `at` in the head by moving what is in front of it. What they
    /// hold is for the caller to say; offsets in the offload move along.
    pub(super) fn insert(&mut self, at: usize, len: usize) -> Result<&mut [u8], DropReason> {
        let start = self.start.checked_sub(len);
        let start = start.ok_or(DropReason::RewriteRoom)?;
        self.buf.copy_within(self.start..self.start + at, start);
        self.start = start;
        self.offload = self.offload.shifted(len as i16);
        Ok(&mut self.buf[start + at..start + at + len])
    }

    /// Takes `len` bytes at `at` out of the head. The caller has made sure that they are there.
    pub(super) fn remove(&mut self, at: usize, len: usize) {
        self.buf
            .copy_within(self.start..self.start + at, self.start + len);
        self.start += len;
        self.offload = self.offload.shifted(-(len as i16));
    }

    /// Ends the frame after `len` bytes, if it is longer.
    pub(super) fn truncate(&mut self, len: u32) {
        let excess = self.frame_len().saturating_sub(len);
        let from_tail = excess.min(self.tail);
        self.tail -= from_tail;
        self.end -= (excess - from_tail) as usize;
    }

    /// The identification of the next outer IPv4 header, of which there will be `count`.
    pub(super) fn next_ident(&mut self, count: u16) -> u16 {
        let ident = self.ident;
        self.ident = ident.wrapping_add(count);
        ident
    }
}
