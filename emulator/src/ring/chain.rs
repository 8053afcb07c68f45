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

/// The one segment of a chain that is a single descriptor inside one region, as most are, and
/// whether the device may write it. `None`: the chain is something else, or not valid.
#[inline(always)]
pub(super) fn walk_plain(
    mem: &GuestMemory,
    table: DescTable,
    head: u16,
) -> Option<(Segment, bool)> {
    if head >= table.len() {
        return None;
    }
    plain(mem, table.read(head))
}

/// The segment behind a descriptor that is alone and inside one region, and whether the device may
/// write it.
#[inline(always)]
pub(super) fn plain(mem: &GuestMemory, desc: Desc) -> Option<(Segment, bool)> {
    if desc.has_next() || desc.is_indirect() || desc.len == 0 {
        return None;
    }
    let ptr = mem.translate_exact(desc.addr, desc.len as usize, 1)?;
    let len = desc.len;
    Some((Segment { ptr, len }, desc.is_writable()))
}

/// Walks the chain that starts at `head`, appending its segments to `out` in order.
///
/// Bounds: at most `table.len()` descriptors in the ring's own table, then at most one indirect
/// table with at most its own length of entries, and at most [`MAX_SEGMENTS`] segments. On a
/// fault `out` may hold part of the chain; the caller truncates.
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
pub(super) fn open_indirect(
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
pub(super) fn append(
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
    count: u16,
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

    /// What drivers wrote in all of them, bytes.
    #[inline]
    pub(super) fn readable_len(&self) -> u64 {
        let lens = self
            .chains
            .iter()
            .map(|chain| u64::from(chain.readable_len));
        lens.sum()
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
        self.clear();
        self.mem = Some(Arc::clone(mem));
    }

    /// Adds a chain of the memory given to [`Burst::begin`], which `walk` appends.
    #[inline]
    pub(super) fn add(
        &mut self,
        walk: impl FnOnce(&mut Vec<Segment>) -> Result<(Walked, Token), RingFault>,
    ) -> Result<Token, RingFault> {
        let first = self.segments.len();
        match walk(&mut self.segments) {
            Ok((walked, token)) => {
                // BURST * MAX_SEGMENTS = 4096 segments at most: positions fit in 16 bits.
                self.chains.push(ChainMeta {
                    head: token.id,
                    count: token.count,
                    first: first as u16,
                    split: (first + walked.readable) as u16,
                    end: self.segments.len() as u16,
                    readable_len: walked.readable_len,
                    writable_len: walked.writable_len,
                });
                Ok(token)
            }
            Err(fault) => {
                self.segments.truncate(first);
                Err(fault)
            }
        }
    }

    /// Asks the cache for the first two lines of each chain: its headers are read next.
    #[inline]
    pub(super) fn prefetch(&self) {
        for meta in &self.chains {
            let first = self.segments[usize::from(meta.first)].ptr.as_ptr();
            prefetch(first);
            prefetch(first.wrapping_add(64));
        }
    }

    /// Adds a chain of one segment in the memory given to [`Burst::begin`].
    #[inline(always)]
    pub(super) fn add_plain(&mut self, token: Token, segment: Segment, writable: bool) {
        let first = self.segments.len();
        let (readable_len, writable_len) = if writable {
            (0, segment.len)
        } else {
            (segment.len, 0)
        };
        self.segments.push(segment);
        self.chains.push(ChainMeta {
            head: token.id,
            count: token.count,
            first: first as u16,
            split: (first + usize::from(!writable)) as u16,
            end: (first + 1) as u16,
            readable_len,
            writable_len,
        });
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
        let token = Token { id: head, count: 1 };
        if let Some((segment, writable)) = walk_plain(mem, table, head) {
            self.add_plain(token, segment, writable);
            return Ok(());
        }
        self.add(|out| Ok((walk(mem, table, indirect, head, out)?, token)))?;
        Ok(())
    }
}

/// What a ring needs to know of a chain to complete it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What names the chain to its driver: the head's index, in a packed ring the buffer id.
    pub id: u16,
    /// Descriptors it takes in a packed ring.
    pub count: u16,
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

    /// What completes it.
    #[inline]
    pub fn token(&self) -> Token {
        Token {
            id: self.meta.head,
            count: self.meta.count,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::driver::{DriverQueue, SharedArea};
    use crate::ring::memory::RegionSpec;
    use crate::ring::split::{RingConfig, SplitRing};

    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    const INDIRECT: u16 = 4;
    const DATA: u64 = 0x10000;
    const TABLE: u64 = 0x8000;
    const END: u64 = 0x40000;

    /// What a hostile driver's ring gives: descriptors `(addr, len, flags, next)` in the ring's
    /// table of 8, others in memory at `TABLE`, and one head.
    fn pop(
        own: &[(u64, u32, u16, u16)],
        indirect: &[(u64, u32, u16, u16)],
        head: u16,
    ) -> Result<(u32, u32, usize), RingFault> {
        pop_from(own, indirect, head, true)
    }

    fn pop_from(
        own: &[(u64, u32, u16, u16)],
        indirect: &[(u64, u32, u16, u16)],
        head: u16,
        negotiated: bool,
    ) -> Result<(u32, u32, usize), RingFault> {
        let area = SharedArea::new(0, END).unwrap();
        let mem = area.memory();
        let queue = DriverQueue::new(Arc::clone(mem), 0, 8, false, 0).unwrap();
        let config = RingConfig {
            indirect: negotiated,
            ..queue.config()
        };
        for (base, descs) in [(config.desc, own), (TABLE, indirect)] {
            for (i, &(addr, len, flags, next)) in descs.iter().enumerate() {
                let bytes = Desc {
                    addr,
                    len,
                    flags,
                    next,
                }
                .to_bytes();
                mem.write(base + 16 * i as u64, &bytes).unwrap();
            }
        }
        mem.write(config.avail + 4, &head.to_le_bytes()).unwrap();
        mem.write(config.avail + 2, &1u16.to_le_bytes()).unwrap();
        let mut ring = SplitRing::new(Arc::clone(mem), &config).unwrap();
        let mut burst = Burst::default();
        let popped = ring.pop_burst(&mut burst, BURST);
        assert_eq!(burst.len(), usize::from(popped.is_ok()));
        assert_eq!(ring.next_avail(), u16::from(popped.is_ok()));
        popped?;
        let chain = burst.get(0).unwrap();
        assert_eq!(chain.head(), head);
        Ok((
            chain.readable().len(),
            chain.writable().len(),
            chain.segments.len(),
        ))
    }

    #[test]
    fn good_chains() {
        assert_eq!(pop(&[(DATA, 10, 0, 0)], &[], 0), Ok((10, 0, 1)));
        assert_eq!(pop(&[(DATA, 10, WRITE, 0)], &[], 0), Ok((0, 10, 1)));
        let mixed = [
            (DATA, 10, NEXT, 2),
            (0, 0, 0, 0),
            (DATA, 20, NEXT | WRITE, 1),
        ];
        assert_eq!(
            pop(&[mixed[0], (DATA, 5, WRITE, 0), mixed[2]], &[], 0),
            Ok((10, 25, 3))
        );
        let all: Vec<_> = (1..=8)
            .map(|i| (DATA, 1, if i < 8 { NEXT } else { 0 }, i))
            .collect();
        assert_eq!(pop(&all, &[], 0), Ok((8, 0, 8)), "as long as the ring");
        assert_eq!(
            pop(&[(END - 4, 4, 0, 0)], &[], 0),
            Ok((4, 0, 1)),
            "the last bytes"
        );
    }

    #[test]
    fn good_indirect_chains() {
        let table = [(DATA, 10, NEXT, 1), (DATA, 20, WRITE, 0)];
        assert_eq!(pop(&[(TABLE, 32, INDIRECT, 0)], &table, 0), Ok((10, 20, 2)));
        // Its own WRITE flag is to be ignored, and it may stand behind direct descriptors.
        let own = [(DATA, 1, NEXT, 1), (TABLE, 32, INDIRECT | WRITE, 0)];
        assert_eq!(pop(&own, &table, 0), Ok((11, 20, 3)));
        // Longer than the ring, as Linux's may be.
        let long: Vec<_> = (1..=40)
            .map(|i| (DATA, 1, if i < 40 { NEXT } else { 0 }, i))
            .collect();
        assert_eq!(pop(&[(TABLE, 640, INDIRECT, 0)], &long, 0), Ok((40, 0, 40)));
    }

    #[test]
    fn bad_indices() {
        let size = 8;
        assert_eq!(
            pop(&[], &[], 8),
            Err(RingFault::DescIndex { index: 8, size })
        );
        assert_eq!(
            pop(&[], &[], 0xffff),
            Err(RingFault::DescIndex {
                index: 0xffff,
                size
            })
        );
        let out = [(DATA, 1, NEXT, 9)];
        assert_eq!(
            pop(&out, &[], 0),
            Err(RingFault::DescIndex { index: 9, size })
        );
        let own = [(TABLE, 32, INDIRECT, 0)];
        let fault = RingFault::DescIndex { index: 2, size: 2 };
        assert_eq!(
            pop(&own, &[(DATA, 1, NEXT, 2)], 0),
            Err(fault),
            "outside the indirect table"
        );
    }

    #[test]
    fn loops() {
        let fault = Err(RingFault::Loop { head: 0, size: 8 });
        assert_eq!(pop(&[(DATA, 1, NEXT, 0)], &[], 0), fault);
        let two = [(DATA, 1, NEXT, 1), (DATA, 1, NEXT, 0)];
        assert_eq!(pop(&two, &[], 0), fault);
        let fault = Err(RingFault::Loop { head: 0, size: 2 });
        assert_eq!(pop(&[(TABLE, 32, INDIRECT, 0)], &two, 0), fault);
    }

    #[test]
    fn too_many_segments() {
        let n = MAX_SEGMENTS as u16;
        let chain = |n: u16| -> Vec<_> {
            (1..=n)
                .map(|i| (DATA, 1, if i < n { NEXT } else { 0 }, i))
                .collect()
        };
        let own = |n: u16| [(TABLE, 16 * u32::from(n), INDIRECT, 0)];
        assert_eq!(
            pop(&own(n), &chain(n), 0),
            Ok((u32::from(n), 0, MAX_SEGMENTS))
        );
        let fault = RingFault::TooLong {
            head: 0,
            limit: MAX_SEGMENTS,
        };
        assert_eq!(pop(&own(n + 1), &chain(n + 1), 0), Err(fault));
    }

    #[test]
    fn bad_buffers() {
        let zero = RingFault::ZeroLength {
            index: 0,
            gpa: DATA,
        };
        assert_eq!(pop(&[(DATA, 0, 0, 0)], &[], 0), Err(zero));
        for (gpa, len) in [
            (END, 1),
            (END - 1, 2),
            (u64::MAX, 1),
            (0, u32::MAX),
            (u64::MAX - 4, 9),
        ] {
            let fault = RingFault::OutOfMemory { gpa, len };
            assert_eq!(pop(&[(gpa, len, 0, 0)], &[], 0), Err(fault));
        }
        let order = [(DATA, 1, NEXT | WRITE, 1), (DATA, 1, 0, 0)];
        assert_eq!(
            pop(&order, &[], 0),
            Err(RingFault::ReadableAfterWritable { index: 1 })
        );
    }

    #[test]
    fn bad_indirect_tables() {
        let table = [(DATA, 10, 0, 0)];
        let one = |len, flags| pop(&[(TABLE, len, flags, 0)], &table, 0);
        assert_eq!(
            one(32, INDIRECT | NEXT),
            Err(RingFault::IndirectWithNext { index: 0 })
        );
        for len in [0, 1, 15, 17, 32768 * 16 + 16, u32::MAX] {
            assert_eq!(
                one(len, INDIRECT),
                Err(RingFault::IndirectBadLength { len })
            );
        }
        let nested = [(TABLE, 16, INDIRECT, 0)];
        let fault = Err(RingFault::NestedIndirect { index: 0 });
        assert_eq!(pop(&nested, &nested, 0), fault);
        let fault = Err(RingFault::IndirectNotNegotiated { index: 0 });
        assert_eq!(pop_from(&nested, &table, 0, false), fault);
        let outside = RingFault::OutOfMemory {
            gpa: END - 8,
            len: 16,
        };
        assert_eq!(pop(&[(END - 8, 16, INDIRECT, 0)], &[], 0), Err(outside));
    }

    #[test]
    fn more_bytes_than_32_bits_count() {
        // A sparse region of 2 GiB, named three times.
        let size = 1 << 31;
        let area = SharedArea::new(0, size).unwrap();
        let mem = area.memory();
        let mut queue = DriverQueue::new(Arc::clone(mem), 0, 8, false, 0).unwrap();
        let half = (0, size as u32);
        queue.add_out(&[half, (0, size as u32 - 1)]).unwrap();
        queue.add_out(&[half, half]).unwrap();
        queue.publish();
        let mut ring = SplitRing::new(Arc::clone(mem), &queue.config()).unwrap();
        let mut burst = Burst::default();
        let fault = RingFault::LengthOverflow { head: 2 };
        assert_eq!(ring.pop_burst(&mut burst, BURST), Err(fault));
        assert_eq!(burst.len(), 1, "the good one before is kept");
        assert_eq!(burst.get(0).unwrap().readable().len(), u32::MAX);
    }

    #[test]
    fn a_buffer_goes_on_in_the_next_region() {
        let area = SharedArea::new(0, 0x20000).unwrap();
        let more = SharedArea::new(0x20000, 0x1000).unwrap();
        let spec = RegionSpec {
            mmap_offset: 0,
            ..more.spec()
        };
        let mem = area.memory().with_region(&spec, more.file()).unwrap();
        let mut queue = DriverQueue::new(Arc::clone(&mem), 0, 8, false, 0).unwrap();
        queue.add_out(&[(0x1fff0, 0x20)]).unwrap();
        queue.publish();
        mem.write(0x1fff0, &[0xab; 0x20]).unwrap();
        let mut ring = SplitRing::new(mem, &queue.config()).unwrap();
        let mut burst = Burst::default();
        assert_eq!(ring.pop_burst(&mut burst, BURST), Ok(1));
        let chain = burst.get(0).unwrap();
        assert_eq!(chain.segments.len(), 2);
        let mut got = [0; 0x20];
        assert_eq!(chain.readable().copy_out(0, &mut got), 0x20);
        assert_eq!(got, [0xab; 0x20]);
    }
}
