//! Lists of a packed ring's descriptors walked into host segments.

use super::chain::{Token, Walked, append, open_indirect};
use super::copy::Segment;
use super::fault::RingFault;
use super::layout::Desc;
use super::memory::GuestMemory;
use super::packed_layout::{Meta, PackedLayout, Position};

/// Collects the segments of one list and checks what has to be true of it.
struct Collector<'a> {
    mem: &'a GuestMemory,
    out: &'a mut Vec<Segment>,
    start: usize,
    /// The slot of the first descriptor, for faults.
    head: u16,
    walked: Walked,
    writable_seen: bool,
}

impl Collector<'_> {
    #[inline]
    fn take(&mut self, desc: Desc, index: u16) -> Result<(), RingFault> {
        if desc.len == 0 {
            return Err(RingFault::ZeroLength {
                index,
                gpa: desc.addr,
            });
        }
        let total = self.walked.readable_len + self.walked.writable_len;
        if total.checked_add(desc.len).is_none() {
            return Err(RingFault::LengthOverflow { head: self.head });
        }
        if desc.is_writable() {
            self.writable_seen = true;
            self.walked.writable_len += desc.len;
        } else if self.writable_seen {
            return Err(RingFault::ReadableAfterWritable { index });
        } else {
            self.walked.readable_len += desc.len;
        }
        append(self.mem, desc, self.head, self.start, self.out)?;
        if !self.writable_seen {
            self.walked.readable = self.out.len() - self.start;
        }
        Ok(())
    }
}

/// Walks the list whose first descriptor, `first`, is available at `at`, appending its segments to
/// `out` in order.
///
/// Bounds: at most as many descriptors as the ring has slots, or one indirect table with at most
/// its own length of entries, and at most [`super::MAX_SEGMENTS`] segments. On a fault `out` may
/// hold part of the list; the caller truncates.
#[inline]
pub(super) fn walk(
    mem: &GuestMemory,
    layout: &PackedLayout,
    indirect_allowed: bool,
    at: Position,
    first: Meta,
    out: &mut Vec<Segment>,
) -> Result<(Walked, Token), RingFault> {
    let head = at.index;
    let mut list = Collector {
        mem,
        start: out.len(),
        out,
        head,
        walked: Walked::default(),
        writable_seen: false,
    };
    if first.is_indirect() {
        walk_indirect(&mut list, first.desc(layout.addr(head)), indirect_allowed)?;
        return Ok((
            list.walked,
            Token {
                id: first.id,
                count: 1,
            },
        ));
    }
    let mut at = at;
    let mut meta = first;
    let mut count = 1;
    loop {
        list.take(meta.desc(layout.addr(at.index)), at.index)?;
        if !meta.has_next() {
            // The id of the last one counts (virtio 1.3 §2.8.6).
            return Ok((list.walked, Token { id: meta.id, count }));
        }
        if count == layout.size() {
            return Err(RingFault::Loop {
                head,
                size: layout.size(),
            });
        }
        at.advance(1, layout.size());
        // The driver shows the first descriptor last: those behind it are there already.
        meta = layout.meta(at.index);
        if meta.is_indirect() {
            // A list has descriptors of one kind only (virtio 1.3 §2.8.5, §2.8.19).
            return Err(RingFault::IndirectWithNext { index: at.index });
        }
        count += 1;
    }
}

#[cold]
fn walk_indirect(list: &mut Collector<'_>, desc: Desc, allowed: bool) -> Result<(), RingFault> {
    let table = open_indirect(list.mem, desc, list.head, allowed)?;
    for index in 0..table.len() {
        list.take(Meta::indirect_entry(table.read(index)), index)?;
    }
    Ok(())
}
