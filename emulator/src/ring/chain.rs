//! Descriptor chains walked into host segments, and a burst of them.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::copy::{Readable, Segment, Writable};
use super::fault::RingFault;
use super::layout::{Desc, DescTable, prefetch};
use super::memory::GuestMemory;

/// Chains taken from a ring at once. DPDK's usual burst; 32 heads share one or two cache lines of
/// the available ring.
pub const BURST: usize = 32;

/// Most host segments in one chain, and in the receive buffers reserved for one frame.
///
/// Linux sends at most `MAX_SKB_FRAGS` + 2 of them: 19, or 47 with the largest value its
/// configuration allows. FreeBSD stops at 64. A 64 KiB frame in 512-byte pieces needs 128. The
/// rest is for buffers that are cut where two regions meet.
pub const MAX_SEGMENTS: usize = 128;

/// What a walk found; the segments themselves were appended to the caller's list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Walked {
    /// How many of the appended segments are device-readable; they come first.
    pub(super) readable: usize,
    /// Bytes in them.
    pub(super) readable_len: u32,
    /// Bytes in the device-writable rest.
    pub(super) writable_len: u32,
}

/// Walks the chain that starts at `head`, appending its segments to `out` in order.
///
/// Bounds: at most `table.len()` descriptors in the ring's own table, then at most one indirect
/// table with at most its own length of entries, and at most [`MAX_SEGMENTS`] segments. On a
/// fault `out` may hold part of the chain; the caller truncates.
#[inline]
pub(super) fn walk(
    mem: &GuestMemory,
    table: DescTable,
    indirect_allowed: bool,
    head: u16,
    out: &mut Vec<Segment>,
) -> Result<Walked, RingFault> {
    let start = out.len();
    let mut table = table;
    let mut walked = Walked::default();
    let mut total = 0u32;
    let mut writable_seen = false;
    let mut in_indirect = false;
    let mut index = head;
    let mut budget = table.len();
    loop {
        if index >= table.len() {
            return Err(RingFault::DescIndex {
                index,
                size: table.len(),
            });
        }
        if budget == 0 {
            return Err(RingFault::Loop {
                head,
                size: table.len(),
            });
        }
        budget -= 1;
        let desc = table.read(index);
        if desc.is_indirect() {
            if in_indirect {
                return Err(RingFault::NestedIndirect { index });
            }
            table = open_indirect(mem, desc, index, indirect_allowed)?;
            in_indirect = true;
            budget = table.len();
            index = 0;
            continue;
        }
        if desc.len == 0 {
            return Err(RingFault::ZeroLength {
                index,
                gpa: desc.addr,
            });
        }
        total = total
            .checked_add(desc.len)
            .ok_or(RingFault::LengthOverflow { head })?;
        // Neither sum can overflow where their total does not.
        if desc.is_writable() {
            writable_seen = true;
            walked.writable_len += desc.len;
        } else if writable_seen {
            return Err(RingFault::ReadableAfterWritable { index });
        } else {
            walked.readable_len += desc.len;
        }
        append(mem, desc, head, start, out)?;
        if !writable_seen {
            walked.readable = out.len() - start;
        }
        if !desc.has_next() {
            return Ok(walked);
        }
        index = desc.next;
    }
}

/// Checks a descriptor that refers to an indirect table and finds that table.
/// Its WRITE flag means nothing (virtio 1.3 §2.7.5.3.2).
#[cold]
fn open_indirect(
    mem: &GuestMemory,
    desc: Desc,
    index: u16,
    allowed: bool,
) -> Result<DescTable, RingFault> {
    if !allowed {
        return Err(RingFault::IndirectNotNegotiated { index });
    }
    if desc.has_next() {
        return Err(RingFault::IndirectWithNext { index });
    }
    let entries = desc.len / Desc::SIZE;
    if !desc.len.is_multiple_of(Desc::SIZE) || !(1..=32768).contains(&entries) {
        return Err(RingFault::IndirectBadLength { len: desc.len });
    }
    let fault = RingFault::OutOfMemory {
        gpa: desc.addr,
        len: desc.len,
    };
    // Drivers allocate an indirect table like any small object: it need not be aligned to 16.
    let ptr = mem
        .translate_exact(desc.addr, desc.len as usize, 1)
        .ok_or(fault)?;
    // SAFETY: `translate_exact` found `entries * 16` mapped bytes in one region of `mem`, which the
    // caller borrows for the walk during which alone the table is used.
    Ok(unsafe { DescTable::new(ptr, entries as u16) })
}

/// Appends the one or more segments of a descriptor.
#[inline]
fn append(
    mem: &GuestMemory,
    desc: Desc,
    head: u16,
    start: usize,
    out: &mut Vec<Segment>,
) -> Result<(), RingFault> {
    let mut gpa = desc.addr;
    let mut left = desc.len as usize;
    loop {
        if out.len() - start == MAX_SEGMENTS {
            return Err(RingFault::TooLong {
                head,
                limit: MAX_SEGMENTS,
            });
        }
        let Some((ptr, n)) = mem.translate(gpa, left) else {
            return Err(RingFault::OutOfMemory {
                gpa: desc.addr,
                len: desc.len,
            });
        };
        out.push(Segment { ptr, len: n as u32 });
        left -= n;
        if left == 0 {
            return Ok(());
        }
        // Cannot overflow: regions end at or below 2^64 - 1, and `gpa + n` is such an end.
        gpa += n as u64;
    }
}

#[derive(Clone, Copy, Debug)]
struct ChainMeta {
    head: u16,
    first: u16,
    split: u16,
    end: u16,
    readable_len: u32,
    writable_len: u32,
}

/// Up to [`BURST`] chains of one ring, with everything needed to read and complete them.
///
/// Keeps the guest memory mapped until [`Burst::clear`] or the next pop. Made once per worker;
/// no allocation after that.
#[derive(Debug)]
pub struct Burst {
    mem: Option<Arc<GuestMemory>>,
    segments: Vec<Segment>,
    chains: ArrayVec<ChainMeta, BURST>,
}

// SAFETY: the segments point into `mem`, which is `Send + Sync` and kept alive beside them; all
// accesses through the pointers are raw copies that tolerate concurrent writers.
unsafe impl Send for Burst {}

impl Default for Burst {
    fn default() -> Self {
        Burst {
            mem: None,
            segments: Vec::with_capacity(BURST * MAX_SEGMENTS),
            chains: ArrayVec::new(),
        }
    }
}

impl Burst {
    /// Chains held.
    #[inline]
    pub fn len(&self) -> usize {
        self.chains.len()
    }

    /// Whether it holds no chain.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// The chain at position `i`, in the order the driver made them available; `None` past the end.
    #[inline]
    pub fn get(&self, i: usize) -> Option<Chain<'_>> {
        let meta = *self.chains.get(i)?;
        Some(Chain {
            meta,
            segments: &self.segments[usize::from(meta.first)..usize::from(meta.end)],
        })
    }

    /// The chains in the order the driver made them available.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Chain<'_>> {
        self.chains.iter().map(|&meta| Chain {
            meta,
            segments: &self.segments[usize::from(meta.first)..usize::from(meta.end)],
        })
    }

    /// Forgets the chains and lets go of the guest memory. Does not complete them.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.chains.clear();
        self.mem = None;
    }

    /// Empties the burst for chains of `mem`.
    #[inline]
    pub(super) fn begin(&mut self, mem: &Arc<GuestMemory>) {
        self.segments.clear();
        self.chains.clear();
        if !self.mem.as_ref().is_some_and(|held| Arc::ptr_eq(held, mem)) {
            self.mem = Some(Arc::clone(mem));
        }
    }

    /// Asks the cache for the first line of each chain: its headers are read next.
    #[inline]
    pub(super) fn prefetch(&self) {
        for meta in &self.chains {
            prefetch(self.segments[usize::from(meta.first)].ptr.as_ptr());
        }
    }

    /// Walks one more chain of the memory given to [`Burst::begin`] into the burst.
    #[inline]
    pub(super) fn walk(
        &mut self,
        mem: &GuestMemory,
        table: DescTable,
        indirect: bool,
        head: u16,
    ) -> Result<(), RingFault> {
        let first = self.segments.len();
        match walk(mem, table, indirect, head, &mut self.segments) {
            Ok(walked) => {
                // BURST * MAX_SEGMENTS = 4096 segments at most: positions fit in 16 bits.
                self.chains.push(ChainMeta {
                    head,
                    first: first as u16,
                    split: (first + walked.readable) as u16,
                    end: self.segments.len() as u16,
                    readable_len: walked.readable_len,
                    writable_len: walked.writable_len,
                });
                Ok(())
            }
            Err(fault) => {
                self.segments.truncate(first);
                Err(fault)
            }
        }
    }
}

/// One chain of a [`Burst`].
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a> {
    meta: ChainMeta,
    segments: &'a [Segment],
}

impl<'a> Chain<'a> {
    /// The head's descriptor index: what goes into the used ring.
    #[inline]
    pub fn head(&self) -> u16 {
        self.meta.head
    }

    /// What the driver wrote for the device.
    #[inline]
    pub fn readable(&self) -> Readable<'a> {
        let end = usize::from(self.meta.split - self.meta.first);
        Readable::new(&self.segments[..end], self.meta.readable_len)
    }

    /// Where the device may write.
    #[inline]
    pub fn writable(&self) -> Writable<'a> {
        let start = usize::from(self.meta.split - self.meta.first);
        Writable::new(&self.segments[start..], self.meta.writable_len)
    }
}
