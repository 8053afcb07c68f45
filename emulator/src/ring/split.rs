//! The device side of a split virtqueue (virtio 1.3 §2.7), in bursts: one load of the available
//! index, one store of the used index, one barrier and at most one call for many chains.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::chain::{BURST, Burst};
use super::fault::{RingError, RingFault, Table};
use super::index::Index;
use super::layout::{
    AVAIL_F_NO_INTERRUPT, Layout, USED_F_NO_NOTIFY, full_fence, need_event, prefetch,
};
use super::memory::GuestMemory;

/// Largest ring (virtio 1.3 §2.7, §2.8).
pub const MAX_RING_SIZE: u16 = 32768;

/// Where a ring is and how it is driven, as vhost-user sets it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Entries: at most [`MAX_RING_SIZE`], and a power of two in a split ring (SET_VRING_NUM).
    pub size: u16,
    /// Guest physical address of the descriptor table or ring, aligned to 16.
    pub desc: u64,
    /// Guest physical address of the available ring, aligned to 2, or the driver's event area,
    /// aligned to 4.
    pub avail: u64,
    /// Guest physical address of the used ring or the device's event area, aligned to 4.
    pub used: u64,
    /// First available entry to serve (SET_VRING_BASE): free running in a split ring; in a packed
    /// one a slot in 15 bits and the wrap counter in the one above.
    pub next_avail: u16,
    /// VIRTIO_F_EVENT_IDX was negotiated.
    pub event_idx: bool,
    /// VIRTIO_F_INDIRECT_DESC was negotiated.
    pub indirect: bool,
    /// The driver sends on it, and its buffers are only read.
    pub transmit: bool,
    /// VIRTIO_F_RING_PACKED was negotiated.
    pub packed: bool,
    /// VIRTIO_F_IN_ORDER was negotiated.
    pub in_order: bool,
}

/// One split virtqueue as its device sees it. Owned by one worker at a time.
#[derive(Debug)]
pub struct SplitRing {
    layout: Layout,
    /// The available index last read; `next_avail` to here may be popped.
    avail_seen: Index,
    next_avail: Index,
    /// Used elements before this index are written, ...
    used_written: Index,
    /// ... and before this one the driver can see them.
    used_published: Index,
    /// Whether the driver was told at least once what this ring instance published.
    called: bool,
    config: RingConfig,
    mem: Arc<GuestMemory>,
}

// SAFETY: the pointers in `layout` lead into `mem`, which is `Send + Sync` and owned beside them.
// What they point at is shared with the driver anyway and only accessed by single volatile or
// atomic loads and stores.
unsafe impl Send for SplitRing {}

impl SplitRing {
    /// Takes up the ring that `config` describes in `mem`.
    ///
    /// The used index is taken from the ring itself, as the kernel's vhost does: it stays right
    /// across a device that went away. Writes nothing.
    ///
    /// # Errors
    /// [`RingError`] for a bad size, alignment, or a table that is not inside one region.
    pub fn new(mem: Arc<GuestMemory>, config: &RingConfig) -> Result<Self, RingError> {
        let layout = locate(&mem, config)?;
        let used = u16::from_le(layout.used_idx().load(Ordering::Relaxed));
        Ok(SplitRing {
            layout,
            avail_seen: Index::new(config.next_avail),
            next_avail: Index::new(config.next_avail),
            used_written: Index::new(used),
            used_published: Index::new(used),
            called: false,
            config: *config,
            mem,
        })
    }

    /// Goes on in a new memory table at the same guest addresses and indices.
    ///
    /// # Errors
    /// [`RingError::Unmapped`] if a table is gone; the ring then still uses the old memory.
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

    /// Entries.
    #[inline]
    pub fn size(&self) -> u16 {
        self.layout.size()
    }

    /// Index of the first available entry not popped, free running: what GET_VRING_BASE returns.
    #[inline]
    pub fn next_avail(&self) -> u16 {
        self.next_avail.get()
    }

    /// The used index the driver can see, free running.
    #[inline]
    pub fn used_idx(&self) -> u16 {
        self.used_published.get()
    }

    /// How many chains are waiting, by a fresh look at the available index.
    ///
    /// # Errors
    /// [`RingFault::AvailJump`] if that is more than the ring can hold,
    /// [`RingFault::MemoryTruncated`].
    #[inline]
    pub fn available(&mut self) -> Result<u16, RingFault> {
        self.check_memory()?;
        // Acquire: the entries and descriptors behind this index are read after it.
        let idx = u16::from_le(self.layout.avail_idx().load(Ordering::Acquire));
        let waiting = idx.wrapping_sub(self.next_avail());
        if waiting > self.size() {
            return Err(RingFault::AvailJump {
                idx,
                next: self.next_avail(),
                size: self.size(),
            });
        }
        self.avail_seen = Index::new(idx);
        Ok(waiting)
    }

    /// Replaces what `burst` holds by up to `max` (and at most [`BURST`]) next chains; returns how
    /// many.
    ///
    /// # Errors
    /// A [`RingFault`]; then `burst` holds the good chains before the bad one, already popped.
    pub fn pop_burst(&mut self, burst: &mut Burst, max: usize) -> Result<usize, RingFault> {
        self.pop(burst, max, u64::MAX)
    }

    /// The same, but no more behind the chain with which they have `bytes` that the driver wrote.
    ///
    /// # Errors
    /// As [`SplitRing::pop_burst`].
    pub fn pop_bytes(&mut self, burst: &mut Burst, bytes: u64) -> Result<usize, RingFault> {
        self.pop(burst, BURST, bytes)
    }

    #[inline]
    fn pop(&mut self, burst: &mut Burst, max: usize, bytes: u64) -> Result<usize, RingFault> {
        burst.clear();
        let n = usize::from(self.available()?).min(max).min(BURST);
        if n == 0 {
            return Ok(0);
        }
        burst.begin(&self.mem);
        let mut heads = [0u16; BURST];
        for (i, head) in heads[..n].iter_mut().enumerate() {
            *head = self.avail_head(i as u16);
            self.layout.desc.prefetch(*head);
        }
        for &head in &heads[..n] {
            burst.walk(&self.mem, self.layout.desc, self.config.indirect, head)?;
            self.next_avail.advance(1);
            if bytes < u64::MAX && burst.readable_len() >= bytes {
                break;
            }
        }
        burst.prefetch();
        let n = burst.len();
        self.prefetch_used(if self.config.in_order { 1 } else { n as u16 });
        Ok(n)
    }

    /// Takes back what was popped since [`SplitRing::next_avail`] gave `position`: those chains
    /// will be popped again. They must not have been pushed as used.
    #[inline]
    pub fn rewind(&mut self, position: u16) {
        self.next_avail = Index::new(position);
    }

    /// Writes a used element for the chain `head` into which `len` bytes were written (0 for one
    /// that was only read). The driver sees it after [`SplitRing::publish`].
    #[inline]
    pub fn push_used(&mut self, head: u16, len: u32) {
        self.layout.write_used(self.used_written.get(), head, len);
        self.used_written.advance(1);
    }

    /// Completes all chains of a burst, which were only read. With IN_ORDER one used element does
    /// for all of them (virtio 1.3 §2.7.9).
    #[inline]
    pub fn push_read(&mut self, burst: &Burst) {
        if !self.config.in_order {
            for chain in burst.iter() {
                self.push_used(chain.head(), 0);
            }
        } else if let Some(last) = burst.len().checked_sub(1).and_then(|last| burst.get(last)) {
            self.layout
                .write_used(self.used_written.get(), last.head(), 0);
            self.used_written.advance(burst.len() as u16);
        }
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
        let (old, new) = (self.used_published.get(), self.used_written.get());
        if old == new {
            return false;
        }
        // Release: the used elements, and the payload before them, are visible first.
        self.layout.used_idx().store(new.to_le(), Ordering::Release);
        true
    }

    /// The other half: see [`super::Ring::wants_call`].
    #[inline]
    pub fn wants_call(&mut self) -> bool {
        let (old, new) = (self.used_published.get(), self.used_written.get());
        if old == new {
            return false;
        }
        self.used_published = self.used_written;
        let wanted = if self.config.event_idx {
            let event = u16::from_le(self.layout.used_event().load(Ordering::Relaxed));
            need_event(event, new, old) || !self.called
        } else {
            let flags = u16::from_le(self.layout.avail_flags().load(Ordering::Relaxed));
            flags & AVAIL_F_NO_INTERRUPT == 0
        };
        self.called = true;
        wanted
    }

    /// Asks the driver to kick when it makes the next chain available; returns whether chains are
    /// waiting already, so that a kick may not come and the caller must not go to sleep.
    ///
    /// # Errors
    /// As [`SplitRing::available`].
    pub fn enable_kicks(&mut self) -> Result<bool, RingFault> {
        if self.config.event_idx {
            let event = self.next_avail().to_le();
            self.layout.avail_event().store(event, Ordering::Relaxed);
        } else {
            self.layout.used_flags().store(0, Ordering::Relaxed);
        }
        // As in `publish`, with the roles exchanged.
        full_fence();
        Ok(self.available()? > 0)
    }

    /// Tells the driver that the ring is polled. With EVENT_IDX there is nothing to write: once
    /// passed, the event does not fire again for 2^16 chains.
    #[inline]
    pub fn disable_kicks(&mut self) {
        if !self.config.event_idx {
            self.layout
                .used_flags()
                .store(USED_F_NO_NOTIFY.to_le(), Ordering::Relaxed);
        }
    }

    /// Asks the cache for what the next pop reads first.
    #[inline]
    pub fn prefetch(&self) {
        prefetch(self.layout.avail_idx().as_ptr().cast_const().cast());
    }

    /// Asks the cache for the next `n` used elements, to be written: the driver has read them a lap
    /// ago, and each line would have to be taken back while all later stores wait.
    #[inline]
    pub(super) fn prefetch_used(&self, n: u16) {
        self.layout.prefetch_used(self.used_written.get(), n);
    }

    /// How many chains may be popped as far as is known without looking at the shared index.
    #[inline]
    pub(super) fn known(&self) -> usize {
        usize::from(self.avail_seen.get().wrapping_sub(self.next_avail()))
    }

    /// How many chains may be popped, looking at the shared index only if fewer than `wanted` are
    /// known of.
    #[inline]
    pub(super) fn at_least(&mut self, wanted: usize) -> Result<usize, RingFault> {
        let known = self.known();
        if known >= wanted {
            return self.check_memory().map(|()| known);
        }
        Ok(usize::from(self.available()?))
    }

    /// The head index `ahead` entries past the next one; anything, until checked.
    #[inline]
    pub(super) fn avail_head(&self, ahead: u16) -> u16 {
        let entry = self
            .layout
            .avail_entry(self.next_avail().wrapping_add(ahead));
        u16::from_le(entry.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn advance(&mut self, n: u16) {
        self.next_avail.advance(n);
    }

    #[inline]
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    #[inline]
    pub(super) fn indirect(&self) -> bool {
        self.config.indirect
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

/// Finds the three tables in guest memory.
fn locate(mem: &GuestMemory, config: &RingConfig) -> Result<Layout, RingError> {
    let size = config.size;
    if !size.is_power_of_two() || size > MAX_RING_SIZE {
        return Err(RingError::Size {
            size: u32::from(size),
        });
    }
    let (desc_len, avail_len, used_len) = Layout::sizes(size);
    let find = |table, gpa: u64, len, align: u64| {
        if !gpa.is_multiple_of(align) {
            return Err(RingError::Misaligned { table, gpa, align });
        }
        // The host address must be aligned too: a region need not start on a page of its file.
        mem.translate_exact(gpa, len, align as usize)
            .ok_or(RingError::Unmapped { table, gpa, len })
    };
    let desc = find(Table::Desc, config.desc, desc_len, 16)?;
    let avail = find(Table::Avail, config.avail, avail_len, 2)?;
    let used = find(Table::Used, config.used, used_len, 4)?;
    // SAFETY: `find` returned mapped ranges of those lengths and alignments, `size` is a power of
    // two, and the `SplitRing` that owns the layout owns an `Arc` of the memory.
    Ok(unsafe { Layout::new(desc, avail, used, size) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::driver::{DriverQueue, SharedArea};

    fn pair(size: u16, event_idx: bool, start: u16) -> (SharedArea, DriverQueue, SplitRing) {
        let area = SharedArea::new(0, 0x200000).unwrap();
        let mem = area.memory();
        let queue = DriverQueue::new(Arc::clone(mem), 0x1000, size, event_idx, start).unwrap();
        let ring = SplitRing::new(Arc::clone(mem), &queue.config()).unwrap();
        (area, queue, ring)
    }

    #[test]
    fn chains_go_round_many_times() {
        for event_idx in [false, true] {
            let (area, mut queue, mut ring) = pair(64, event_idx, 0xfff0);
            let mut burst = Burst::default();
            let mut sent = 0u32;
            for round in 0..3000u32 {
                let n = round % 20;
                for i in 0..n {
                    let at = 0x10000 + u64::from(i) * 64;
                    area.memory().write(at, &(sent + i).to_le_bytes()).unwrap();
                    queue.add_out(&[(at, 2), (at + 2, 2)]).unwrap();
                }
                queue.publish();
                assert_eq!(ring.available(), Ok(n as u16));
                assert_eq!(ring.pop_burst(&mut burst, BURST), Ok(n as usize));
                for (i, chain) in burst.iter().enumerate() {
                    let mut number = [0; 4];
                    assert_eq!(chain.readable().copy_out(0, &mut number), 4);
                    assert_eq!(u32::from_le_bytes(number), sent + i as u32);
                    ring.push_used(chain.head(), i as u32);
                }
                assert!(queue.poll_used().unwrap().is_none(), "not published yet");
                ring.publish();
                for i in 0..n {
                    assert_eq!(queue.poll_used().unwrap().map(|u| u.1), Some(i));
                }
                assert!(queue.poll_used().unwrap().is_none());
                assert_eq!(queue.free(), 64);
                sent += n;
            }
        }
    }

    #[test]
    fn a_full_ring_is_served_in_bursts() {
        let (_area, mut queue, mut ring) = pair(64, false, 0xffff);
        while queue.add_out(&[(0, 1)]).is_some() {}
        queue.publish();
        let mut burst = Burst::default();
        assert_eq!(ring.available(), Ok(64));
        assert_eq!(ring.pop_burst(&mut burst, 10), Ok(10));
        let before = ring.next_avail();
        assert_eq!(ring.pop_burst(&mut burst, 1000), Ok(BURST));
        let third: Vec<u16> = burst.iter().map(|c| c.head()).collect();
        ring.rewind(before);
        assert_eq!(ring.pop_burst(&mut burst, BURST), Ok(BURST));
        assert_eq!(burst.iter().map(|c| c.head()).collect::<Vec<_>>(), third);
        assert_eq!(ring.pop_burst(&mut burst, BURST), Ok(22));
        assert_eq!(ring.pop_burst(&mut burst, BURST), Ok(0));
        assert!(burst.is_empty());
    }

    #[test]
    fn a_jump_of_the_available_index_is_a_fault() {
        let (area, queue, mut ring) = pair(64, false, 0xffe0);
        let at = queue.config().avail + 2;
        let set = |idx: u16| area.memory().write(at, &idx.to_le_bytes()).unwrap();
        set(0xffe0u16.wrapping_add(64));
        assert_eq!(ring.available(), Ok(64));
        set(0xffe0u16.wrapping_add(65));
        let fault = RingFault::AvailJump {
            idx: 0x21,
            next: 0xffe0,
            size: 64,
        };
        assert_eq!(ring.available(), Err(fault));
        set(0xffdf);
        let fault = RingFault::AvailJump {
            idx: 0xffdf,
            next: 0xffe0,
            size: 64,
        };
        assert_eq!(ring.pop_burst(&mut Burst::default(), 1), Err(fault));
        assert_eq!(ring.enable_kicks(), Err(fault));
    }

    #[test]
    fn truncated_memory_is_a_fault() {
        let (area, mut queue, mut ring) = pair(64, false, 0);
        queue.add_out(&[(0x100000, 64)]).unwrap();
        queue.publish();
        let mut burst = Burst::default();
        assert_eq!(ring.pop_burst(&mut burst, BURST), Ok(1));
        area.file().set_len(0).unwrap();
        let mut bytes = [1; 64];
        assert_eq!(burst.get(0).unwrap().readable().copy_out(0, &mut bytes), 64);
        assert_eq!(bytes, [0; 64]);
        assert_eq!(
            ring.pop_burst(&mut burst, BURST),
            Err(RingFault::MemoryTruncated)
        );
        assert!(burst.is_empty());
    }

    #[test]
    fn calls_follow_the_no_interrupt_flag() {
        let (_area, mut queue, mut ring) = pair(8, false, 0);
        assert!(!ring.publish(), "nothing pushed");
        ring.push_used(0, 0);
        assert!(ring.publish());
        queue.disable_calls();
        ring.push_used(0, 0);
        assert!(!ring.publish());
        assert!(queue.enable_calls(), "two are waiting");
        ring.push_used(0, 0);
        assert!(ring.publish());
    }

    #[test]
    fn calls_follow_the_used_event_across_the_wrap() {
        let (area, queue, mut ring) = pair(8, true, 0xfff8);
        let at = queue.config().avail + 4 + 2 * 8;
        let want = |event: u16| area.memory().write(at, &event.to_le_bytes()).unwrap();
        want(0x1000);
        ring.push_used(0, 0);
        assert!(ring.publish(), "the first is always announced");
        let mut publish = |n| {
            (0..n).for_each(|_| ring.push_used(0, 0));
            (ring.publish(), ring.used_idx())
        };
        want(0xfffb);
        assert_eq!(publish(2), (false, 0xfffb));
        assert_eq!(publish(1), (true, 0xfffc));
        assert_eq!(publish(1), (false, 0xfffd), "once only");
        want(1);
        assert_eq!(publish(4), (false, 1));
        assert_eq!(publish(3), (true, 4), "passed in the middle of a burst");
    }

    #[test]
    fn kicks_are_asked_for_and_declined() {
        for event_idx in [false, true] {
            let (_area, mut queue, mut ring) = pair(8, event_idx, 0xffff);
            assert_eq!(ring.enable_kicks(), Ok(false));
            queue.add_out(&[(0, 1)]).unwrap();
            assert!(queue.publish(), "the ring slept");
            assert_eq!(ring.enable_kicks(), Ok(true), "a chain is waiting");
            ring.disable_kicks();
            let mut burst = Burst::default();
            assert_eq!(ring.pop_burst(&mut burst, BURST), Ok(1));
            queue.add_out(&[(0, 1)]).unwrap();
            // With EVENT_IDX the event set at index 0xffff was passed already.
            assert!(!queue.publish());
            assert_eq!(ring.pop_burst(&mut burst, BURST), Ok(1));
            assert_eq!(ring.enable_kicks(), Ok(false));
            queue.add_out(&[(0, 1)]).unwrap();
            assert!(queue.publish());
        }
    }

    #[test]
    fn bad_places_are_refused() {
        let (area, queue, _ring) = pair(8, true, 0);
        let good = queue.config();
        let refused = |config| SplitRing::new(Arc::clone(area.memory()), &config).unwrap_err();
        for size in [0, 3, 65, 32769] {
            let error = refused(RingConfig { size, ..good });
            assert_eq!(
                error,
                RingError::Size {
                    size: u32::from(size)
                }
            );
        }
        let error = refused(RingConfig {
            desc: 0x1008,
            ..good
        });
        assert_eq!(
            error,
            RingError::Misaligned {
                table: Table::Desc,
                gpa: 0x1008,
                align: 16
            }
        );
        let error = refused(RingConfig {
            avail: 0x1001,
            ..good
        });
        assert_eq!(
            error,
            RingError::Misaligned {
                table: Table::Avail,
                gpa: 0x1001,
                align: 2
            }
        );
        let error = refused(RingConfig {
            used: 0x1002,
            ..good
        });
        assert_eq!(
            error,
            RingError::Misaligned {
                table: Table::Used,
                gpa: 0x1002,
                align: 4
            }
        );
        let gpa = 0x200000 - 64;
        let error = refused(RingConfig { used: gpa, ..good });
        assert_eq!(
            error,
            RingError::Unmapped {
                table: Table::Used,
                gpa,
                len: 70
            }
        );
        let error = refused(RingConfig { desc: !15, ..good });
        assert_eq!(
            error,
            RingError::Unmapped {
                table: Table::Desc,
                gpa: !15,
                len: 128
            }
        );
    }

    #[test]
    fn goes_on_in_new_memory() {
        let (area, mut queue, mut ring) = pair(8, false, 0);
        let mut burst = Burst::default();
        queue.add_out(&[(0, 1)]).unwrap();
        queue.publish();
        assert_eq!(ring.pop_burst(&mut burst, BURST), Ok(1));
        ring.push_used(burst.get(0).unwrap().head(), 0);
        ring.publish();
        let file = area.file().try_clone().unwrap();
        let again = GuestMemory::new(vec![(area.spec(), file)]).unwrap();
        ring.remap(again).unwrap();
        assert!(queue.poll_used().unwrap().is_some());
        queue.add_out(&[(0, 1)]).unwrap();
        queue.publish();
        assert_eq!(ring.pop_burst(&mut burst, BURST), Ok(1));
        assert_eq!(ring.next_avail(), 2);
        let empty = GuestMemory::new(vec![]).unwrap();
        assert!(matches!(ring.remap(empty), Err(RingError::Unmapped { .. })));
    }
}
