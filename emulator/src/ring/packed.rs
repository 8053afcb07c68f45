//! The device side of a packed virtqueue (virtio 1.3 §2.8), in bursts: of all used descriptors of
//! a burst the first is shown last, with one barrier and at most one call.

use std::sync::Arc;

use super::chain::{BURST, Burst, Token, plain};
use super::fault::{RingError, RingFault, Table};
use super::layout::{DESC_F_WRITE, full_fence};
use super::memory::GuestMemory;
use super::packed_chain::{Tables, walk};
use super::packed_layout::{
    EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, Event, Meta, PackedLayout, Position,
};
use super::rx::{Ahead, Plain, RxScratch};
use super::split::{MAX_RING_SIZE, RingConfig};

/// Descriptors in a line of the cache.
const IN_A_LINE: u16 = 4;

/// One packed virtqueue as its device sees it. Owned by one worker at a time.
#[derive(Debug)]
pub struct PackedRing {
    layout: PackedLayout,
    next_avail: Position,
    /// Where the next used descriptor goes.
    next_used: Position,
    /// The used descriptor that shows all behind it, if `pushed` is not 0.
    first: (u16, Meta),
    /// Slots that used descriptors stand for which the driver cannot see.
    pushed: u32,
    /// Whether the driver was told at least once what this ring instance published.
    called: bool,
    /// What the driver was told last about kicks.
    kicks: Option<Event>,
    tables: Tables,
    config: RingConfig,
    mem: Arc<GuestMemory>,
}

// SAFETY: the pointers in `layout` lead into `mem`, which is `Send + Sync` and owned beside them.
// What they point at is shared with the driver anyway and only accessed by single atomic loads and
// stores.
unsafe impl Send for PackedRing {}

impl PackedRing {
    /// Takes up the ring that `config` describes in `mem`, with nothing popped that is not used.
    /// Writes nothing.
    ///
    /// # Errors
    /// [`RingError`] for a bad size, position, alignment, or a part that is not inside one region.
    pub fn new(mem: Arc<GuestMemory>, config: &RingConfig) -> Result<Self, RingError> {
        let layout = locate(&mem, config)?;
        let start = Position::from_raw(config.next_avail);
        if start.index() >= config.size {
            return Err(RingError::Position {
                index: start.index(),
                size: config.size,
            });
        }
        let nothing = Meta {
            len: 0,
            id: 0,
            flags: 0,
        };
        Ok(PackedRing {
            layout,
            next_avail: start,
            next_used: start,
            first: (0, nothing),
            pushed: 0,
            called: false,
            kicks: None,
            tables: match config {
                RingConfig {
                    indirect: false, ..
                } => Tables::Refused,
                RingConfig { transmit: true, .. } => Tables::AllReadable,
                _ => Tables::AsMarked,
            },
            config: *config,
            mem,
        })
    }

    /// Goes on in a new memory table at the same guest addresses and positions.
    ///
    /// # Errors
    /// [`RingError::Unmapped`] if a part is gone; the ring then still uses the old memory.
    pub fn remap(&mut self, mem: Arc<GuestMemory>) -> Result<(), RingError> {
        self.layout = locate(&mem, &self.config)?;
        self.mem = mem;
        Ok(())
    }

    /// The guest memory this ring works in.
    #[inline]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.mem
    }

    /// Slots.
    #[inline]
    pub fn size(&self) -> u16 {
        self.layout.size()
    }

    /// Where the next pop begins: the slot in 15 bits, the wrap counter in the one above.
    #[inline]
    pub fn next_avail(&self) -> u16 {
        self.next_avail.raw()
    }

    /// Where the next used descriptor goes, in the same form.
    #[inline]
    pub fn next_used(&self) -> u16 {
        self.next_used.raw()
    }

    /// Takes back what was popped since [`PackedRing::next_avail`] gave `position`: those lists
    /// will be popped again. They must not have been pushed as used.
    #[inline]
    pub fn rewind(&mut self, position: u16) {
        let position = Position::from_raw(position);
        assert!(
            position.index() < self.size(),
            "it was a position of this ring"
        );
        self.next_avail = position;
    }

    /// Replaces what `burst` holds by up to `max` (and at most [`BURST`]) next lists; returns how
    /// many.
    ///
    /// # Errors
    /// A [`RingFault`]; then `burst` holds the good lists before the bad one, already popped.
    pub fn pop_burst(&mut self, burst: &mut Burst, max: usize) -> Result<usize, RingFault> {
        self.pop(burst, max, u64::MAX)
    }

    /// The same, but no more behind the list with which they have `bytes` that the driver wrote.
    ///
    /// # Errors
    /// As [`PackedRing::pop_burst`].
    pub fn pop_bytes(&mut self, burst: &mut Burst, bytes: u64) -> Result<usize, RingFault> {
        self.pop(burst, BURST, bytes)
    }

    #[inline]
    fn pop(&mut self, burst: &mut Burst, max: usize, bytes: u64) -> Result<usize, RingFault> {
        burst.clear();
        if !self.has_next()? {
            return Ok(0);
        }
        burst.begin(&self.mem);
        let max = max.min(BURST);
        for n in 0..max {
            let at = self.next_avail;
            let first = self.layout.meta(at.index());
            let enough = n > 0 && bytes < u64::MAX && burst.readable_len() >= bytes;
            if enough || !first.is_available(at) {
                burst.prefetch();
                return Ok(n);
            }
            if n == 0 {
                self.prefetch_lists(max);
            }
            let (mem, layout, tables) = (&self.mem, &self.layout, self.tables);
            if let Some((segment, writable)) = plain(mem, first.desc(layout.addr(at.index()))) {
                let token = Token {
                    id: first.id,
                    count: 1,
                };
                burst.add_plain(token, segment, writable);
                self.next_avail.advance(1, self.layout.size());
                continue;
            }
            let token = burst.add(|out| walk(mem, layout, tables, at, first, out))?;
            self.next_avail.advance(token.count, self.layout.size());
        }
        burst.prefetch();
        Ok(max)
    }

    /// Asks the cache for the descriptors of `n` lists, of which the first is there: drivers add
    /// many at a time. In order, only the first will be written.
    #[inline]
    fn prefetch_lists(&self, n: usize) {
        let (mut at, size) = (self.next_avail, self.layout.size());
        for line in 0..n.div_ceil(IN_A_LINE.into()) {
            if line > 0 && self.config.in_order {
                self.layout.prefetch(at.index());
            } else {
                self.layout.prefetch_for_writing(at.index());
            }
            at.advance(IN_A_LINE.min(size), size);
        }
    }

    /// Writes a used descriptor for a list into which `len` bytes were written (0 for one that was
    /// only read). The driver sees it after [`PackedRing::publish`].
    #[inline]
    pub fn push_used(&mut self, list: Token, len: u32) {
        let at = self.next_used;
        let written = if len > 0 { DESC_F_WRITE } else { 0 };
        let meta = Meta {
            len,
            id: list.id,
            flags: at.used_flags() | written,
        };
        if self.pushed == 0 {
            self.first = (at.index(), meta);
        } else {
            // The driver does not look here before it has seen the first.
            self.layout.set_meta(at.index(), meta);
        }
        self.pushed = self.pushed.saturating_add(u32::from(list.count));
        self.next_used.advance(list.count, self.layout.size());
    }

    /// Completes all lists of a burst, which were only read. With IN_ORDER one used descriptor
    /// does for all of them (virtio 1.3 §2.8.8).
    #[inline]
    pub fn push_read(&mut self, burst: &Burst) {
        if !self.config.in_order {
            for list in burst.iter() {
                self.push_used(list.token(), 0);
            }
            return;
        }
        let Some(last) = burst.len().checked_sub(1).and_then(|last| burst.get(last)) else {
            return;
        };
        let slots: u32 = burst.iter().map(|l| u32::from(l.token().count)).sum();
        let batch = Token {
            id: last.token().id,
            // More than a lap only if the driver rewrites the ring while it is read.
            count: slots.min(u32::from(self.size())) as u16,
        };
        self.push_used(batch, 0);
    }

    /// Makes everything pushed visible to the driver; returns whether it wants a call.
    #[inline]
    pub fn publish(&mut self) -> bool {
        self.show() && {
            full_fence();
            self.wants_call()
        }
    }

    /// The first half of that: see [`super::Ring::show`].
    #[inline]
    pub fn show(&mut self) -> bool {
        if self.pushed == 0 {
            return false;
        }
        let (index, meta) = self.first;
        self.layout.show(index, meta);
        true
    }

    /// The other half: see [`super::Ring::wants_call`].
    #[inline]
    pub fn wants_call(&mut self) -> bool {
        if self.pushed == 0 {
            return false;
        }
        let event = self.layout.driver_event();
        let (size, event_idx) = (self.size(), self.config.event_idx);
        let due = event.is_due(self.next_used, self.pushed, size, event_idx);
        let wanted = due || !self.called && event.flags & 3 != EVENT_DISABLE;
        self.pushed = 0;
        self.called = true;
        wanted
    }

    /// Asks the driver to kick when it makes the next list available; returns whether some are
    /// waiting already, so that a kick may not come and the caller must not go to sleep.
    ///
    /// # Errors
    /// [`RingFault::MemoryTruncated`].
    pub fn enable_kicks(&mut self) -> Result<bool, RingFault> {
        let flags = if self.config.event_idx {
            EVENT_DESC
        } else {
            EVENT_ENABLE
        };
        self.ask(Event {
            at: self.next_avail,
            flags,
        });
        // As in `publish`, with the roles exchanged.
        full_fence();
        self.has_next()
    }

    /// Tells the driver that the ring is polled.
    #[inline]
    pub fn disable_kicks(&mut self) {
        self.ask(Event {
            at: Position::from_raw(0),
            flags: EVENT_DISABLE,
        });
    }

    /// The driver reads this for every burst: it is written only when it changes.
    #[inline]
    fn ask(&mut self, event: Event) {
        if self.kicks != Some(event) {
            self.layout.set_device_event(event);
            self.kicks = Some(event);
        }
    }

    /// Asks the cache for what the next pop reads first.
    #[inline]
    pub fn prefetch(&self) {
        self.layout.prefetch(self.next_avail.index());
    }

    /// Whether a list may be popped.
    ///
    /// # Errors
    /// [`RingFault::MemoryTruncated`].
    #[inline]
    pub fn has_next(&self) -> Result<bool, RingFault> {
        self.check_memory()?;
        let at = self.next_avail;
        Ok(self.layout.meta(at.index()).is_available(at))
    }

    /// Looks at the next buffers, as far as they are plain ones.
    #[inline]
    pub(super) fn look_ahead(&self, wanted: usize, ahead: &mut Ahead) {
        // What is wrong with a ring is found, and said, when the buffer is taken.
        let wanted = self.check_memory().map_or(0, |()| wanted);
        let mut at = self.next_avail;
        while ahead.len() < wanted {
            let first = self.layout.meta(at.index());
            if !first.is_available(at) {
                return;
            }
            let desc = first.desc(self.layout.addr(at.index()));
            let Some((segment, true)) = plain(&self.mem, desc) else {
                return;
            };
            ahead.push(Plain {
                token: Token {
                    id: first.id,
                    count: 1,
                },
                segment,
            });
            at.advance(1, self.layout.size());
        }
    }

    /// Asks the cache for the descriptors of the next `n` buffers.
    #[inline]
    pub(super) fn prefetch_next(&self, n: usize) {
        let mut at = self.next_avail;
        let size = self.layout.size();
        for _ in 0..n.div_ceil(IN_A_LINE.into()) {
            // They will be written, too, as used ones.
            self.layout.prefetch_for_writing(at.index());
            at.advance(IN_A_LINE.min(size), size);
        }
    }

    /// Goes past `n` buffers that were looked at.
    #[inline]
    pub(super) fn skip(&mut self, n: u16) {
        self.next_avail.advance(n, self.layout.size());
    }

    /// Takes the next buffer for at most `want` more bytes; returns how many of them it holds.
    #[inline]
    pub(super) fn take_buffer(
        &mut self,
        scratch: &mut RxScratch,
        want: u32,
    ) -> Result<Option<u32>, RingFault> {
        self.check_memory()?;
        let at = self.next_avail;
        let first = self.layout.meta(at.index());
        if !first.is_available(at) {
            return Ok(None);
        }
        let (mem, layout, tables) = (&self.mem, &self.layout, self.tables);
        let (walked, token) = walk(mem, layout, tables, at, first, scratch.segments())?;
        if walked.readable != 0 {
            return Err(RingFault::NotWritable {
                head: at.index(),
                len: walked.readable_len,
            });
        }
        let len = walked.writable_len.min(want);
        scratch.take(token, len);
        self.next_avail.advance(token.count, self.layout.size());
        Ok(Some(len))
    }

    #[inline]
    fn check_memory(&self) -> Result<(), RingFault> {
        if self.mem.poisoned() {
            Err(RingFault::MemoryTruncated)
        } else {
            Ok(())
        }
    }
}

/// Finds the three parts in guest memory.
fn locate(mem: &GuestMemory, config: &RingConfig) -> Result<PackedLayout, RingError> {
    let size = config.size;
    if !(1..=MAX_RING_SIZE).contains(&size) {
        return Err(RingError::PackedSize {
            size: u32::from(size),
        });
    }
    let find = |table, gpa: u64, len, align: u64| {
        if !gpa.is_multiple_of(align) {
            return Err(RingError::Misaligned { table, gpa, align });
        }
        // The host address must be aligned too: a region need not start on a page of its file.
        mem.translate_exact(gpa, len, align as usize)
            .ok_or(RingError::Unmapped { table, gpa, len })
    };
    let area = PackedLayout::EVENT_BYTES;
    let desc = find(Table::Desc, config.desc, PackedLayout::ring_bytes(size), 16)?;
    let driver = find(Table::DriverArea, config.avail, area, 4)?;
    let device = find(Table::DeviceArea, config.used, area, 4)?;
    // SAFETY: `find` returned mapped ranges of those lengths and alignments, and the `PackedRing`
    // that owns the layout owns an `Arc` of the memory.
    Ok(unsafe { PackedLayout::new(desc, driver, device, size) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::driver::{DriverQueue, QueueOptions, SharedArea};

    const WRAP: u16 = 1 << 15;

    fn pair(options: QueueOptions) -> (SharedArea, DriverQueue, PackedRing) {
        let area = SharedArea::new(0, 0x200000).unwrap();
        let queue = DriverQueue::with(Arc::clone(area.memory()), 0x1000, options).unwrap();
        let ring = PackedRing::new(Arc::clone(area.memory()), &queue.config()).unwrap();
        (area, queue, ring)
    }

    fn list(count: u16) -> Token {
        Token { id: 0, count }
    }

    #[test]
    fn the_largest_ring_is_served_all_round() {
        let (_area, mut queue, mut ring) = pair(QueueOptions::packed(32768));
        let mut burst = Burst::default();
        for lap in 0..3u16 {
            while queue.add_out(&[(0x180000, 1)]).is_some() {}
            queue.publish();
            for _ in 0..32768 / BURST {
                assert_eq!(ring.pop_burst(&mut burst, BURST), Ok(BURST));
                ring.push_read(&burst);
                ring.publish();
            }
            assert_eq!(ring.pop_burst(&mut burst, BURST), Ok(0));
            while queue.poll_used().unwrap().is_some() {}
            assert_eq!(queue.free(), 32768);
            assert_eq!(ring.next_avail(), if lap % 2 == 0 { 0 } else { WRAP });
            assert_eq!(ring.next_used(), ring.next_avail());
        }
    }

    #[test]
    fn a_batch_in_order_is_one_used_descriptor() {
        let options = QueueOptions {
            in_order: true,
            start: 6 | WRAP,
            ..QueueOptions::packed(8)
        };
        let (area, mut queue, mut ring) = pair(options);
        let names: Vec<_> = (0..3)
            .map(|_| queue.add_out(&[(0x180000, 1), (0x180000, 2)]).unwrap())
            .collect();
        queue.publish();
        let mut burst = Burst::default();
        assert_eq!(ring.pop_burst(&mut burst, BURST), Ok(3));
        ring.push_read(&burst);
        ring.publish();
        assert_eq!(ring.next_used(), 4);
        let flags = |slot: u64| {
            let mut bytes = [0; 4];
            let at = queue.config().desc + 16 * slot + 12;
            area.memory().read(at, &mut bytes).unwrap();
            (
                u16::from_le_bytes([bytes[0], bytes[1]]),
                u16::from_le_bytes([bytes[2], bytes[3]]),
            )
        };
        assert_eq!(flags(6), (names[2], 0x8080), "used, the last one's id");
        assert_eq!(flags(0).1 & 0x8080, 0x8000, "still as made available");
        for name in names {
            assert_eq!(queue.poll_used().unwrap(), Some((name, 0)));
        }
        assert_eq!(queue.poll_used().unwrap(), None);
    }

    #[test]
    fn calls_follow_the_drivers_area() {
        for event_idx in [false, true] {
            let options = QueueOptions {
                event_idx,
                start: 6 | WRAP,
                ..QueueOptions::packed(8)
            };
            let (area, queue, mut ring) = pair(options);
            let ask = |at: u16, flags: u16| {
                let word = u32::from(at) | u32::from(flags) << 16;
                let at = queue.config().avail;
                area.memory().write(at, &word.to_le_bytes()).unwrap();
            };
            let mut publish = |slots| {
                ring.push_used(list(slots), 0);
                ring.publish()
            };
            ask(0, EVENT_DISABLE);
            assert!(!publish(1));
            ask(0, EVENT_ENABLE);
            assert!(publish(1));
            // Slot 1 of the lap that has just begun.
            ask(1, EVENT_DESC);
            assert_eq!(publish(1), !event_idx);
            assert!(publish(1), "passed");
            assert_eq!(publish(3), !event_idx, "once only");
            ask(1 | WRAP, EVENT_DESC);
            assert!(publish(5), "passed in the middle of a list, a lap on");
        }
    }

    #[test]
    fn the_first_call_is_made_unless_nobody_wants_any() {
        let options = QueueOptions {
            event_idx: true,
            ..QueueOptions::packed(8)
        };
        let (area, queue, mut ring) = pair(options);
        let ask = |word: u32| {
            let at = queue.config().avail;
            area.memory().write(at, &word.to_le_bytes()).unwrap();
        };
        ask(2 << 16 | 0x8005);
        assert!(!ring.publish(), "nothing pushed");
        ring.push_used(list(1), 0);
        assert!(
            ring.publish(),
            "what came before may not have been announced"
        );
        ring.push_used(list(1), 0);
        assert!(!ring.publish());
        // An event outside the ring is the driver's loss alone.
        ask(2 << 16 | 0xffff);
        ring.push_used(list(1), 0);
        ring.publish();
    }

    #[test]
    fn kicks_are_asked_for_and_declined() {
        for event_idx in [false, true] {
            let options = QueueOptions {
                event_idx,
                start: 7 | WRAP,
                ..QueueOptions::packed(8)
            };
            let (_area, mut queue, mut ring) = pair(options);
            let mut burst = Burst::default();
            for _ in 0..20 {
                assert_eq!(ring.enable_kicks(), Ok(false));
                queue.add_out(&[(0, 1)]).unwrap();
                assert!(queue.publish(), "the ring slept");
                assert_eq!(ring.enable_kicks(), Ok(true), "a list is waiting");
                ring.disable_kicks();
                queue.add_out(&[(0, 1)]).unwrap();
                assert!(!queue.publish());
                assert_eq!(ring.pop_burst(&mut burst, BURST), Ok(2));
                ring.push_read(&burst);
                ring.publish();
                while queue.poll_used().unwrap().is_some() {}
            }
        }
    }

    #[test]
    fn bad_places_are_refused() {
        let (area, queue, _ring) = pair(QueueOptions::packed(8));
        let good = queue.config();
        let refused = |config| PackedRing::new(Arc::clone(area.memory()), &config).unwrap_err();
        for size in [0, 32769] {
            let error = refused(RingConfig { size, ..good });
            let size = u32::from(size);
            assert_eq!(error, RingError::PackedSize { size });
        }
        let next_avail = 8;
        let error = refused(RingConfig { next_avail, ..good });
        assert_eq!(error, RingError::Position { index: 8, size: 8 });
        let misaligned = |table, gpa, align| RingError::Misaligned { table, gpa, align };
        let error = refused(RingConfig {
            desc: 0x1008,
            ..good
        });
        assert_eq!(error, misaligned(Table::Desc, 0x1008, 16));
        let error = refused(RingConfig {
            avail: 0x1002,
            ..good
        });
        assert_eq!(error, misaligned(Table::DriverArea, 0x1002, 4));
        let gpa = 0x200000;
        let error = refused(RingConfig { used: gpa, ..good });
        let unmapped = RingError::Unmapped {
            table: Table::DeviceArea,
            gpa,
            len: 4,
        };
        assert_eq!(error, unmapped);
        for size in [1, 3, 8] {
            let config = RingConfig { size, ..good };
            PackedRing::new(Arc::clone(area.memory()), &config).unwrap();
        }
    }

    #[test]
    fn truncated_memory_is_a_fault() {
        let (area, mut queue, mut ring) = pair(QueueOptions::packed(64));
        queue.add_out(&[(0x100000, 64)]).unwrap();
        queue.publish();
        let mut burst = Burst::default();
        assert_eq!(ring.pop_burst(&mut burst, BURST), Ok(1));
        area.file().set_len(0).unwrap();
        let mut bytes = [1; 64];
        assert_eq!(burst.get(0).unwrap().readable().copy_out(0, &mut bytes), 64);
        let fault = Err(RingFault::MemoryTruncated);
        assert_eq!(ring.pop_burst(&mut burst, BURST), fault);
        assert_eq!(ring.has_next(), Err(RingFault::MemoryTruncated));
    }
}
