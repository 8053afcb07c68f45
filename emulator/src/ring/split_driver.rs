//! The driver's side of a split virtqueue (virtio 1.3 §2.7).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::driver::{Buffer, DriverError, InOrder, QueueOptions, descriptors};
use super::fault::{RingError, Table};
use super::layout::{
    AVAIL_F_NO_INTERRUPT, DESC_F_INDIRECT, Desc, Layout, USED_F_NO_NOTIFY, full_fence, need_event,
};
use super::memory::GuestMemory;
use super::split::{MAX_RING_SIZE, RingConfig};

/// A split virtqueue as its driver sees it.
#[derive(Debug)]
pub(super) struct SplitDriver {
    layout: Layout,
    mem: Arc<GuestMemory>,
    config: RingConfig,
    /// For each descriptor the one behind it, in its chain or in the list of free ones.
    next: Box<[u16]>,
    free_head: u16,
    free: u16,
    /// Descriptors of the chain in flight at each head, and its last one; 0 of them if none.
    chains: Box<[(u16, u16)]>,
    avail_written: u16,
    avail_published: u16,
    used_seen: u16,
    /// What is in flight, oldest first, if the device keeps to that order.
    in_order: Option<InOrder>,
}

// SAFETY: as for `SplitRing`: the pointers lead into `mem`, owned beside them, and what is there is
// shared with the device by single volatile or atomic accesses.
unsafe impl Send for SplitDriver {}

impl SplitDriver {
    /// Lays out an empty queue at guest address `base`.
    pub(super) fn new(
        mem: Arc<GuestMemory>,
        base: u64,
        options: QueueOptions,
    ) -> Result<Self, DriverError> {
        let QueueOptions {
            size,
            event_idx,
            in_order,
            start,
            ..
        } = options;
        if !size.is_power_of_two() || size > MAX_RING_SIZE {
            return Err(RingError::Size {
                size: u32::from(size),
            }
            .into());
        }
        let (desc_len, avail_len, used_len) = Layout::sizes(size);
        let avail_at = desc_len;
        let used_at = avail_at + avail_len.next_multiple_of(16);
        let len = used_at + used_len;
        let unmapped = RingError::Unmapped {
            table: Table::Desc,
            gpa: base,
            len,
        };
        let host = mem.translate_exact(base, len, 16).ok_or(unmapped)?;
        // SAFETY: the three tables lie one behind the other in `len` mapped bytes that start at a
        // multiple of 16, each at its own multiple of 16; `mem` is kept beside the layout.
        let layout = unsafe { Layout::new(host, host.add(avail_at), host.add(used_at), size) };
        layout.avail_flags().store(0, Ordering::Relaxed);
        layout.used_flags().store(0, Ordering::Relaxed);
        layout.avail_idx().store(start.to_le(), Ordering::Relaxed);
        layout.used_idx().store(start.to_le(), Ordering::Relaxed);
        layout.used_event().store(start.to_le(), Ordering::Relaxed);
        layout.avail_event().store(start.to_le(), Ordering::Relaxed);
        let config = RingConfig {
            size,
            desc: base,
            avail: base + avail_at as u64,
            used: base + used_at as u64,
            next_avail: start,
            event_idx,
            indirect: true,
            transmit: false,
            packed: false,
            in_order,
        };
        Ok(SplitDriver {
            layout,
            mem,
            config,
            // The last one leads to the first: in order, descriptors are taken round and round.
            next: (1..=size).map(|next| next % size).collect(),
            free_head: 0,
            free: size,
            chains: vec![(0, 0); usize::from(size)].into(),
            avail_written: start,
            avail_published: start,
            used_seen: start,
            in_order: in_order.then(InOrder::default),
        })
    }

    /// Where the device finds the queue.
    pub(super) fn config(&self) -> RingConfig {
        self.config
    }

    /// Descriptors not in flight.
    pub(super) fn free(&self) -> u16 {
        self.free
    }

    /// Adds a chain of `out` buffers, which the device reads, then `into`, which it writes. Returns
    /// its head index; `None` if both are empty or descriptors are short, and nothing is added.
    /// The device sees it after [`SplitDriver::publish`].
    pub(super) fn add(&mut self, out: &[Buffer], into: &[Buffer]) -> Option<u16> {
        let count = out.len() + into.len();
        if count == 0 || count > usize::from(self.free) {
            return None;
        }
        let (mut index, mut last) = (self.free_head, 0);
        for desc in descriptors(out, into) {
            let next = self.next[usize::from(index)];
            self.layout.write_desc(index, Desc { next, ..desc });
            (last, index) = (index, next);
        }
        Some(self.make_available(count as u16, last))
    }

    /// As [`SplitDriver::add`], through an indirect table of 16 bytes per buffer at guest address
    /// `table`. Also `None` if the table is not in mapped memory.
    pub(super) fn add_indirect(
        &mut self,
        table: u64,
        out: &[Buffer],
        into: &[Buffer],
    ) -> Option<u16> {
        let count = out.len() + into.len();
        if count == 0 || self.free == 0 {
            return None;
        }
        for (i, desc) in descriptors(out, into).enumerate() {
            let desc = Desc {
                next: if desc.has_next() { i as u16 + 1 } else { 0 },
                ..desc
            };
            self.mem.write(table + 16 * i as u64, &desc.to_bytes())?;
        }
        let len = 16 * count as u32;
        let desc = Desc {
            addr: table,
            len,
            flags: DESC_F_INDIRECT,
            next: 0,
        };
        self.layout.write_desc(self.free_head, desc);
        Some(self.make_available(1, self.free_head))
    }

    /// Offers the first `count` free descriptors, up to `last`, as a chain.
    fn make_available(&mut self, count: u16, last: u16) -> u16 {
        let head = self.free_head;
        self.free_head = self.next[usize::from(last)];
        self.free -= count;
        self.chains[usize::from(head)] = (count, last);
        if let Some(in_order) = &mut self.in_order {
            in_order.push(head);
        }
        self.layout
            .avail_entry(self.avail_written)
            .store(head.to_le(), Ordering::Relaxed);
        self.avail_written = self.avail_written.wrapping_add(1);
        head
    }

    /// Makes the chains added visible to the device; returns whether it wants a kick.
    pub(super) fn publish(&mut self) -> bool {
        let (old, new) = (self.avail_published, self.avail_written);
        if old == new {
            return false;
        }
        // Release: entries, descriptors and payload first.
        self.layout
            .avail_idx()
            .store(new.to_le(), Ordering::Release);
        self.avail_published = new;
        full_fence();
        if self.config.event_idx {
            let event = u16::from_le(self.layout.avail_event().load(Ordering::Relaxed));
            need_event(event, new, old)
        } else {
            let flags = u16::from_le(self.layout.used_flags().load(Ordering::Relaxed));
            flags & USED_F_NO_NOTIFY == 0
        }
    }

    /// The next chain the device is done with: its head and the bytes it wrote.
    pub(super) fn poll_used(&mut self) -> Result<Option<(u16, u32)>, DriverError> {
        if let Some((head, len)) = self.in_order.as_mut().and_then(InOrder::skipped) {
            self.complete(head);
            return Ok(Some((head, len)));
        }
        if !self.has_used() {
            return Ok(None);
        }
        let (id, len) = self.layout.read_used(self.used_seen);
        let in_flight = |&head: &u16| self.chains.get(usize::from(head)).is_some_and(|c| c.0 > 0);
        let last = u16::try_from(id)
            .ok()
            .filter(in_flight)
            .ok_or(DriverError::BadUsed { id })?;
        let (head, len) = match &mut self.in_order {
            Some(in_order) => in_order.batch(last, len)?,
            None => (last, len),
        };
        self.complete(head);
        Ok(Some((head, len)))
    }

    /// Takes back the descriptors of a chain.
    fn complete(&mut self, head: u16) {
        let (count, last) = std::mem::take(&mut self.chains[usize::from(head)]);
        if self.in_order.is_none() {
            self.next[usize::from(last)] = self.free_head;
            self.free_head = head;
        }
        self.free += count;
        self.used_seen = self.used_seen.wrapping_add(1);
    }

    fn has_used(&self) -> bool {
        u16::from_le(self.layout.used_idx().load(Ordering::Acquire)) != self.used_seen
    }

    /// Asks the device to call at the next used chain; returns whether there are some already, so
    /// that a call may not come.
    pub(super) fn enable_calls(&mut self) -> bool {
        if self.config.event_idx {
            self.layout
                .used_event()
                .store(self.used_seen.to_le(), Ordering::Relaxed);
        } else {
            self.layout.avail_flags().store(0, Ordering::Relaxed);
        }
        full_fence();
        self.has_used()
    }

    /// Tells the device that the driver polls. With EVENT_IDX the event is put just behind, where
    /// the index passes it last.
    pub(super) fn disable_calls(&mut self) {
        if self.config.event_idx {
            let behind = self.used_seen.wrapping_sub(1);
            self.layout
                .used_event()
                .store(behind.to_le(), Ordering::Relaxed);
        } else {
            self.layout
                .avail_flags()
                .store(AVAIL_F_NO_INTERRUPT.to_le(), Ordering::Relaxed);
        }
    }
}
