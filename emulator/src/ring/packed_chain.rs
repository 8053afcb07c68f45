//! Lists of a packed ring's descriptors walked into host segments.

use super::chain::{Token, Walked, append, open_indirect};
use super::copy::Segment;
use super::fault::RingFault;
use super::layout::{DESC_F_WRITE, Desc};
use super::memory::GuestMemory;
use super::packed_layout::{Meta, PackedLayout, Position};

/// What a ring makes of indirect tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tables {
    /// VIRTIO_F_INDIRECT_DESC was not negotiated.
    Refused,
    /// WRITE tells which entries the device writes.
    AsMarked,
    /// The device only reads. DPDK's driver leaves WRITE set on some entries of what it sends: its
    /// tables are born with it, and it forgets the header and whatever else it does not reset.
    AllReadable,
}

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
    tables: Tables,
    at: Position,
    first: Meta,
    out: &mut Vec<Segment>,
) -> Result<(Walked, Token), RingFault> {
    let head = at.index();
    let mut list = Collector {
        mem,
        start: out.len(),
        out,
        head,
        walked: Walked::default(),
        writable_seen: false,
    };
    if first.is_indirect() {
        walk_indirect(&mut list, first.desc(layout.addr(head)), tables)?;
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
        list.take(meta.desc(layout.addr(at.index())), at.index())?;
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
        meta = layout.meta(at.index());
        if meta.is_indirect() {
            // A list has descriptors of one kind only (virtio 1.3 §2.8.5, §2.8.19).
            return Err(RingFault::IndirectWithNext { index: at.index() });
        }
        count += 1;
    }
}

#[inline(never)]
fn walk_indirect(list: &mut Collector<'_>, desc: Desc, tables: Tables) -> Result<(), RingFault> {
    let table = open_indirect(list.mem, desc, list.head, tables != Tables::Refused)?;
    let meaningful = match tables {
        Tables::AllReadable => 0,
        Tables::AsMarked | Tables::Refused => DESC_F_WRITE,
    };
    for index in 0..table.len() {
        let mut desc = Meta::indirect_entry(table.read(index));
        desc.flags &= meaningful;
        list.take(desc, index)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::ring::driver::{DriverQueue, QueueOptions, SharedArea};
    use crate::ring::{BURST, Burst, MAX_SEGMENTS, PackedRing, RingConfig, RingFault};

    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    const INDIRECT: u16 = 4;
    const AVAIL: u16 = 1 << 7;
    const USED: u16 = 1 << 15;
    const DATA: u64 = 0x10000;
    const TABLE: u64 = 0x8000;
    const END: u64 = 0x40000;
    const SIZE: u16 = 6;

    /// A descriptor: address, length, id, flags.
    type Raw = (u64, u32, u16, u16);

    /// What a hostile driver's ring of 6 gives that is served from slot `start` of the first lap
    /// on: readable and writable bytes, segments, id and descriptors.
    fn pop_with(
        start: u16,
        ring: &[Raw],
        table: &[Raw],
        change: impl FnOnce(&mut RingConfig),
    ) -> Result<(u32, u32, u16, u16), RingFault> {
        let area = SharedArea::new(0, END).unwrap();
        let mem = area.memory();
        let queue = DriverQueue::with(Arc::clone(mem), 0, QueueOptions::packed(SIZE)).unwrap();
        let mut config = RingConfig {
            next_avail: start | 1 << 15,
            ..queue.config()
        };
        change(&mut config);
        for (base, descs) in [(0, ring), (TABLE, table)] {
            for (i, &(addr, len, id, flags)) in descs.iter().enumerate() {
                let at = base + 16 * i as u64;
                mem.write(at, &addr.to_le_bytes()).unwrap();
                mem.write(at + 8, &len.to_le_bytes()).unwrap();
                mem.write(at + 12, &id.to_le_bytes()).unwrap();
                mem.write(at + 14, &flags.to_le_bytes()).unwrap();
            }
        }
        let mut ring = PackedRing::new(Arc::clone(mem), &config).unwrap();
        let mut burst = Burst::default();
        let popped = ring.pop_burst(&mut burst, 1);
        assert_eq!(burst.len(), usize::from(popped.is_ok()));
        if popped.is_err() {
            assert_eq!(ring.next_avail(), config.next_avail);
        }
        popped?;
        let chain = burst.get(0).unwrap();
        let token = chain.token();
        Ok((
            chain.readable().len(),
            chain.writable().len(),
            token.id,
            token.count,
        ))
    }

    fn pop_at(start: u16, ring: &[Raw], table: &[Raw]) -> Result<(u32, u32, u16, u16), RingFault> {
        pop_with(start, ring, table, |_| {})
    }

    fn pop(ring: &[Raw]) -> Result<(u32, u32, u16, u16), RingFault> {
        pop_at(0, ring, &[])
    }

    fn pop_table(len: u32, table: &[Raw]) -> Result<(u32, u32, u16, u16), RingFault> {
        pop_at(0, &[(TABLE, len, 9, INDIRECT | AVAIL)], table)
    }

    #[test]
    fn the_last_descriptor_of_a_list_names_it() {
        assert_eq!(pop(&[(DATA, 10, 0xffff, AVAIL)]), Ok((10, 0, 0xffff, 1)));
        let mixed = [
            (DATA, 10, 1, NEXT | AVAIL),
            (DATA, 5, 2, NEXT | WRITE | AVAIL),
            (DATA, 20, 3, WRITE | AVAIL),
        ];
        assert_eq!(pop(&mixed), Ok((10, 25, 3, 3)));
    }

    #[test]
    fn a_list_goes_on_in_the_next_lap() {
        let mut ring = [(0, 0, 0, 0); SIZE as usize];
        ring[5] = (DATA, 1, 1, NEXT | AVAIL);
        ring[0] = (DATA, 2, 2, NEXT | USED);
        ring[1] = (DATA, 4, 3, USED);
        assert_eq!(pop_at(5, &ring, &[]), Ok((7, 0, 3, 3)));
        let all = [(DATA, 1, 4, NEXT | AVAIL); SIZE as usize - 1];
        let full: Vec<_> = all.into_iter().chain([(DATA, 1, 5, AVAIL)]).collect();
        assert_eq!(pop(&full), Ok((6, 0, 5, 6)), "as long as the ring");
    }

    #[test]
    fn a_list_without_end_is_a_fault() {
        let endless = [(DATA, 1, 0, NEXT | AVAIL); SIZE as usize];
        let fault = |head| RingFault::Loop { head, size: SIZE };
        assert_eq!(pop(&endless), Err(fault(0)));
        assert_eq!(pop_at(4, &endless, &[]), Err(fault(4)));
    }

    #[test]
    fn a_table_is_read_to_its_end_and_for_its_direction_only() {
        let noise = NEXT | INDIRECT | AVAIL | USED;
        let table = [
            (DATA, 10, 7, 0),
            (DATA, 20, 8, noise),
            (DATA, 30, 6, WRITE),
            (DATA, 40, 5, WRITE | noise),
        ];
        assert_eq!(pop_table(64, &table), Ok((30, 70, 9, 1)));
        assert_eq!(pop_table(16, &table), Ok((10, 0, 9, 1)));
        // Longer than the ring.
        assert_eq!(
            pop_table(32 * 16, &[(DATA, 1, 0, 0); 32]),
            Ok((32, 0, 9, 1))
        );
        let own = [(TABLE, 32, 9, INDIRECT | WRITE | AVAIL)];
        assert_eq!(pop_at(0, &own, &table), Ok((30, 0, 9, 1)));
    }

    #[test]
    fn marks_in_tables_mean_nothing_where_the_driver_sends() {
        let table = [(DATA, 12, 0, WRITE), (DATA, 60, 0, 0), (DATA, 70, 0, WRITE)];
        let sent = |table| {
            let ring = [(TABLE, 48, 9, INDIRECT | AVAIL)];
            pop_with(0, &ring, table, |config| config.transmit = true)
        };
        assert_eq!(sent(&table), Ok((142, 0, 9, 1)));
        let fault = RingFault::ReadableAfterWritable { index: 1 };
        assert_eq!(pop_table(48, &table), Err(fault));
    }

    #[test]
    fn bad_tables() {
        for len in [0, 1, 15, 17, 32768 * 16 + 16, u32::MAX] {
            let fault = RingFault::IndirectBadLength { len };
            assert_eq!(pop_table(len, &[]), Err(fault));
        }
        let own = [(TABLE, 16, 0, INDIRECT | NEXT | AVAIL)];
        let fault = Err(RingFault::IndirectWithNext { index: 0 });
        assert_eq!(pop(&own), fault);
        let behind = [(DATA, 1, 0, NEXT | AVAIL), (TABLE, 16, 0, INDIRECT | AVAIL)];
        let fault = Err(RingFault::IndirectWithNext { index: 1 });
        assert_eq!(pop(&behind), fault);
        let own = [(TABLE, 16, 0, INDIRECT | AVAIL)];
        let fault = Err(RingFault::IndirectNotNegotiated { index: 0 });
        assert_eq!(
            pop_with(0, &own, &[(DATA, 1, 0, 0)], |config| config.indirect =
                false),
            fault
        );
        let (gpa, len) = (END - 8, 16);
        let fault = Err(RingFault::OutOfMemory { gpa, len });
        assert_eq!(pop(&[(gpa, len, 0, INDIRECT | AVAIL)]), fault);
    }

    #[test]
    fn bad_buffers() {
        let zero = RingFault::ZeroLength {
            index: 0,
            gpa: DATA,
        };
        assert_eq!(pop(&[(DATA, 0, 0, AVAIL)]), Err(zero));
        for (gpa, len) in [(END, 1), (END - 1, 2), (u64::MAX, 1), (0, u32::MAX)] {
            let fault = RingFault::OutOfMemory { gpa, len };
            assert_eq!(pop(&[(gpa, len, 0, AVAIL)]), Err(fault));
        }
        let order = [(DATA, 1, 0, NEXT | WRITE | AVAIL), (DATA, 1, 0, AVAIL)];
        let fault = RingFault::ReadableAfterWritable { index: 1 };
        assert_eq!(pop(&order), Err(fault));
        let n = MAX_SEGMENTS as u32 + 1;
        let table = vec![(DATA, 1, 0, 0); n as usize];
        let fault = RingFault::TooLong {
            head: 0,
            limit: MAX_SEGMENTS,
        };
        assert_eq!(pop_table(16 * n, &table), Err(fault));
    }

    #[test]
    fn more_bytes_than_32_bits_count() {
        // A sparse region of 2 GiB, named twice.
        let size = 1 << 31;
        let area = SharedArea::new(0, size).unwrap();
        let options = QueueOptions::packed(SIZE);
        let mut queue = DriverQueue::with(Arc::clone(area.memory()), 0, options).unwrap();
        let half = (0, size as u32);
        queue.add_out(&[half, (0, size as u32 - 1)]).unwrap();
        queue.add_out(&[half, half]).unwrap();
        queue.publish();
        let mut ring = PackedRing::new(Arc::clone(area.memory()), &queue.config()).unwrap();
        let mut burst = Burst::default();
        let fault = RingFault::LengthOverflow { head: 2 };
        assert_eq!(ring.pop_burst(&mut burst, BURST), Err(fault));
        assert_eq!(burst.len(), 1, "the good one before is kept");
        assert_eq!(burst.get(0).unwrap().readable().len(), u32::MAX);
    }
}
