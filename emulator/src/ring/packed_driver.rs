//! The driver's side of a packed virtqueue (virtio 1.3 §2.8).

use std::sync::Arc;

use super::driver::{Buffer, DriverError, InOrder, QueueOptions, descriptors};
use super::fault::{RingError, Table};
use super::layout::{DESC_F_INDIRECT, full_fence};
use super::memory::GuestMemory;
use super::packed_layout::{
    EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, Event, Meta, PackedLayout, Position,
};
use super::split::{MAX_RING_SIZE, RingConfig};

/// A packed virtqueue as its driver sees it.
#[derive(Debug)]
pub(super) struct PackedDriver {
    layout: PackedLayout,
    mem: Arc<GuestMemory>,
    config: RingConfig,
    next_avail: Position,
    next_used: Position,
    /// Slots not in flight.
    free: u16,
    /// Buffer ids not in flight.
    ids: Vec<u16>,
    /// Slots of the list in flight with each id; 0 if none.
    slots: Box<[u16]>,
    /// The descriptor that shows all behind it, if `added` is not 0.
    first: (u16, Meta),
    /// Slots filled that the device cannot see.
    added: u32,
    /// What is in flight, oldest first, if the device keeps to that order.
    in_order: Option<InOrder>,
}

// SAFETY: as for `PackedRing`: the pointers lead into `mem`, owned beside them, and what is there
// is shared with the device by single atomic accesses.
unsafe impl Send for PackedDriver {}

/// Keeps what device and driver write in different lines.
const LINE: usize = 64;

impl PackedDriver {
    /// Bytes of guest memory for a queue of `size` entries.
    pub(super) fn bytes(size: u16) -> u64 {
        (PackedLayout::ring_bytes(size).next_multiple_of(LINE) + 2 * LINE) as u64
    }

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
        if !(1..=MAX_RING_SIZE).contains(&size) {
            let size = u32::from(size);
            return Err(RingError::PackedSize { size }.into());
        }
        let start_at = Position::from_raw(start);
        if start_at.index() >= size {
            let index = start_at.index();
            return Err(RingError::Position { index, size }.into());
        }
        let driver_at = PackedLayout::ring_bytes(size).next_multiple_of(LINE);
        let device_at = driver_at + LINE;
        let len = device_at + PackedLayout::EVENT_BYTES;
        let unmapped = RingError::Unmapped {
            table: Table::Desc,
            gpa: base,
            len,
        };
        let host = mem.translate_exact(base, len, 16).ok_or(unmapped)?;
        // SAFETY: ring and areas lie one behind the other in `len` mapped bytes that start at a
        // multiple of 16, each at its own multiple of 16; `mem` is kept beside the layout.
        let layout =
            unsafe { PackedLayout::new(host, host.add(driver_at), host.add(device_at), size) };
        let enable = Event {
            at: Position::from_raw(0),
            flags: EVENT_ENABLE,
        };
        layout.set_driver_event(enable);
        layout.set_device_event(enable);
        // As the laps before `start` have left it: all used.
        let mut at = start_at;
        for _ in 0..size {
            let flags = at.other_lap().used_flags();
            let (len, id) = (0, 0);
            layout.set_meta(at.index(), Meta { len, id, flags });
            at.advance(1, size);
        }
        let config = RingConfig {
            size,
            desc: base,
            avail: base + driver_at as u64,
            used: base + device_at as u64,
            next_avail: start,
            event_idx,
            indirect: true,
            transmit: false,
            packed: true,
            in_order,
        };
        let nothing = Meta {
            len: 0,
            id: 0,
            flags: 0,
        };
        Ok(PackedDriver {
            layout,
            mem,
            config,
            next_avail: start_at,
            next_used: start_at,
            free: size,
            ids: (0..size).rev().collect(),
            slots: vec![0; usize::from(size)].into(),
            first: (0, nothing),
            added: 0,
            in_order: in_order.then(InOrder::default),
        })
    }

    pub(super) fn config(&self) -> RingConfig {
        self.config
    }

    pub(super) fn free(&self) -> u16 {
        self.free
    }

    pub(super) fn add(&mut self, out: &[Buffer], into: &[Buffer]) -> Option<u16> {
        let count = out.len() + into.len();
        if count == 0 || count > usize::from(self.free) {
            return None;
        }
        let id = self.take_id(count as u16)?;
        for desc in descriptors(out, into) {
            self.write(desc.addr, desc.len, desc.flags, id);
        }
        Some(id)
    }

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
            let entry = Meta::indirect_entry_for(desc);
            self.mem.write(table + 16 * i as u64, &entry.to_bytes())?;
        }
        let id = self.take_id(1)?;
        self.write(table, 16 * count as u32, DESC_F_INDIRECT, id);
        Some(id)
    }

    /// An id for a list of `count` descriptors, of which there are enough.
    fn take_id(&mut self, count: u16) -> Option<u16> {
        let id = self.ids.pop()?;
        self.slots[usize::from(id)] = count;
        self.free -= count;
        if let Some(in_order) = &mut self.in_order {
            in_order.push(id);
        }
        Some(id)
    }

    /// Fills the next slot; the device sees the first since the last publish last.
    fn write(&mut self, addr: u64, len: u32, flags: u16, id: u16) {
        let at = self.next_avail;
        let flags = flags | at.avail_flags();
        let meta = Meta { len, id, flags };
        self.layout.set_addr(at.index(), addr);
        if self.added == 0 {
            self.first = (at.index(), meta);
        } else {
            self.layout.set_meta(at.index(), meta);
        }
        self.added += 1;
        self.next_avail.advance(1, self.config.size);
    }

    pub(super) fn publish(&mut self) -> bool {
        if self.added == 0 {
            return false;
        }
        let (index, meta) = self.first;
        self.layout.show(index, meta);
        full_fence();
        let moved = std::mem::take(&mut self.added);
        let event = self.layout.device_event();
        event.is_due(
            self.next_avail,
            moved,
            self.config.size,
            self.config.event_idx,
        )
    }

    pub(super) fn poll_used(&mut self) -> Result<Option<(u16, u32)>, DriverError> {
        if let Some((id, len)) = self.in_order.as_mut().and_then(InOrder::skipped) {
            self.complete(id);
            return Ok(Some((id, len)));
        }
        let meta = self.layout.meta(self.next_used.index());
        if !meta.is_used(self.next_used) {
            return Ok(None);
        }
        if self.slots.get(usize::from(meta.id)).is_none_or(|&n| n == 0) {
            let id = u32::from(meta.id);
            return Err(DriverError::BadUsed { id });
        }
        // virtio 1.3 §2.8.4: the length means something only with WRITE.
        let len = if meta.is_writable() { meta.len } else { 0 };
        let (id, len) = match &mut self.in_order {
            Some(in_order) => in_order.batch(meta.id, len)?,
            None => (meta.id, len),
        };
        self.complete(id);
        Ok(Some((id, len)))
    }

    /// Takes back the slots of a list.
    fn complete(&mut self, id: u16) {
        let count = std::mem::take(&mut self.slots[usize::from(id)]);
        self.ids.push(id);
        self.free += count;
        self.next_used.advance(count, self.config.size);
    }

    pub(super) fn enable_calls(&mut self) -> bool {
        let flags = if self.config.event_idx {
            EVENT_DESC
        } else {
            EVENT_ENABLE
        };
        let at = self.next_used;
        self.layout.set_driver_event(Event { at, flags });
        full_fence();
        self.layout.meta(at.index()).is_used(at)
    }

    pub(super) fn disable_calls(&mut self) {
        self.layout.set_driver_event(Event {
            at: Position::from_raw(0),
            flags: EVENT_DISABLE,
        });
    }
}
