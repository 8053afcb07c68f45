//! The driver's side of a split virtqueue (virtio 1.3 §2.7), over memory shared with a device.
//!
//! For an in-process virtio-net driver, for tests and for benches; it does what a guest's driver
//! does and trusts its device only as far as memory safety does not depend on it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::sys::memfd::{MFdFlags, memfd_create};
use thiserror::Error;

use super::fault::{RingError, Table};
use super::layout::{
    AVAIL_F_NO_INTERRUPT, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, Desc, Layout,
    USED_F_NO_NOTIFY, full_fence, need_event,
};
use super::memory::{GuestMemory, MemoryError, RegionSpec};
use super::split::{MAX_RING_SIZE, RingConfig};

/// Memory that a driver shares with its device: one region over a memfd, or over a part of one.
#[derive(Debug)]
pub struct SharedArea {
    file: Arc<File>,
    spec: RegionSpec,
    mem: Arc<GuestMemory>,
}

/// Why a driver's queue or its memory cannot be set up, or does not work.
#[derive(Debug, Error)]
pub enum DriverError {
    /// No memfd of that size.
    #[error("cannot make {size} bytes of shared memory: {error}")]
    Memfd {
        /// Bytes.
        size: u64,
        /// What the kernel said.
        error: io::Error,
    },
    /// It cannot be mapped.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The tables cannot be laid out there.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The device used a chain that it was not given.
    #[error("device used head {id}, which is not in flight")]
    BadUsed {
        /// The id in the used element.
        id: u32,
    },
}

impl SharedArea {
    /// `size` zero bytes at guest physical (and client) address `gpa`.
    ///
    /// # Errors
    /// [`DriverError::Memfd`], [`DriverError::Memory`].
    pub fn new(gpa: u64, size: u64) -> Result<Self, DriverError> {
        let file = Arc::new(memfd(size)?);
        Self::part(&file, gpa, size, 0)
    }

    /// `count` areas as [`SharedArea::new`] makes them, for as many devices, out of one memfd:
    /// together they cost one descriptor. `size` is a multiple of the page size.
    ///
    /// # Errors
    /// As [`SharedArea::new`].
    pub fn many(gpa: u64, size: u64, count: usize) -> Result<Vec<Self>, DriverError> {
        let file = Arc::new(memfd(size * count as u64)?);
        (0..count as u64)
            .map(|i| Self::part(&file, gpa, size, i * size))
            .collect()
    }

    fn part(file: &Arc<File>, gpa: u64, size: u64, mmap_offset: u64) -> Result<Self, DriverError> {
        let spec = RegionSpec {
            gpa,
            size,
            uva: gpa,
            mmap_offset,
        };
        let copy = file
            .try_clone()
            .map_err(|error| DriverError::Memfd { size, error })?;
        let mem = GuestMemory::new(vec![(spec, copy)])?;
        let file = Arc::clone(file);
        Ok(SharedArea { file, spec, mem })
    }

    /// The memfd, to be passed to the device.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The region, to be described to the device.
    pub fn spec(&self) -> RegionSpec {
        self.spec
    }

    /// The driver's own mapping.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.mem
    }
}

fn memfd(size: u64) -> Result<File, DriverError> {
    let make = || -> io::Result<File> {
        let fd: OwnedFd = memfd_create("chanio-driver", MFdFlags::MFD_CLOEXEC)?;
        let file = File::from(fd);
        file.set_len(size)?;
        Ok(file)
    };
    make().map_err(|error| DriverError::Memfd { size, error })
}

/// A buffer of a chain: guest physical address and bytes.
pub type Buffer = (u64, u32);

/// A split virtqueue as its driver sees it.
#[derive(Debug)]
pub struct DriverQueue {
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
}

// SAFETY: as for `SplitRing`: the pointers lead into `mem`, owned beside them, and what is there is
// shared with the device by single volatile or atomic accesses.
unsafe impl Send for DriverQueue {}

impl DriverQueue {
    /// Bytes of guest memory for the tables of a queue of `size` entries.
    pub fn bytes(size: u16) -> u64 {
        let (desc, avail, used) = Layout::sizes(size);
        (desc.next_multiple_of(16) + avail.next_multiple_of(16) + used.next_multiple_of(16)) as u64
    }

    /// Lays out an empty queue at guest address `base` (a multiple of 16), indices starting at
    /// `start`: 0 but for tests.
    ///
    /// # Errors
    /// [`DriverError::Ring`] for a bad size, alignment or address.
    pub fn new(
        mem: Arc<GuestMemory>,
        base: u64,
        size: u16,
        event_idx: bool,
        start: u16,
    ) -> Result<Self, DriverError> {
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
        };
        Ok(DriverQueue {
            layout,
            mem,
            config,
            next: (1..=size).collect(),
            free_head: 0,
            free: size,
            chains: vec![(0, 0); usize::from(size)].into(),
            avail_written: start,
            avail_published: start,
            used_seen: start,
        })
    }

    /// Where the device finds the queue.
    pub fn config(&self) -> RingConfig {
        self.config
    }

    /// Descriptors not in flight.
    pub fn free(&self) -> u16 {
        self.free
    }

    /// Adds a chain of buffers for the device to read; returns its head. As [`DriverQueue::add`].
    pub fn add_out(&mut self, buffers: &[Buffer]) -> Option<u16> {
        self.add(buffers, &[])
    }

    /// Adds a chain of buffers for the device to write; returns its head. As [`DriverQueue::add`].
    pub fn add_in(&mut self, buffers: &[Buffer]) -> Option<u16> {
        self.add(&[], buffers)
    }

    /// Adds a chain of `out` buffers, which the device reads, then `into`, which it writes. Returns
    /// its head index; `None` if both are empty or descriptors are short, and nothing is added.
    /// The device sees it after [`DriverQueue::publish`].
    pub fn add(&mut self, out: &[Buffer], into: &[Buffer]) -> Option<u16> {
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

    /// As [`DriverQueue::add`], through an indirect table of 16 bytes per buffer at guest address
    /// `table`. Also `None` if the table is not in mapped memory.
    pub fn add_indirect(&mut self, table: u64, out: &[Buffer], into: &[Buffer]) -> Option<u16> {
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
        self.layout
            .avail_entry(self.avail_written)
            .store(head.to_le(), Ordering::Relaxed);
        self.avail_written = self.avail_written.wrapping_add(1);
        head
    }

    /// Makes the chains added visible to the device; returns whether it wants a kick.
    pub fn publish(&mut self) -> bool {
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

    /// The next chain the device is done with: its head and the bytes it wrote. `None` if there is
    /// none now.
    ///
    /// # Errors
    /// [`DriverError::BadUsed`].
    pub fn poll_used(&mut self) -> Result<Option<(u16, u32)>, DriverError> {
        if !self.has_used() {
            return Ok(None);
        }
        let (id, len) = self.layout.read_used(self.used_seen);
        let in_flight = |&head: &u16| self.chains.get(usize::from(head)).is_some_and(|c| c.0 > 0);
        let head = u16::try_from(id)
            .ok()
            .filter(in_flight)
            .ok_or(DriverError::BadUsed { id })?;
        let (count, last) = std::mem::take(&mut self.chains[usize::from(head)]);
        self.next[usize::from(last)] = self.free_head;
        self.free_head = head;
        self.free += count;
        self.used_seen = self.used_seen.wrapping_add(1);
        Ok(Some((head, len)))
    }

    fn has_used(&self) -> bool {
        u16::from_le(self.layout.used_idx().load(Ordering::Acquire)) != self.used_seen
    }

    /// Asks the device to call at the next used chain; returns whether there are some already, so
    /// that a call may not come.
    pub fn enable_calls(&mut self) -> bool {
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
    pub fn disable_calls(&mut self) {
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

/// Descriptors for the buffers in order, NEXT set on all but the last, `next` not filled in.
fn descriptors<'b>(out: &'b [Buffer], into: &'b [Buffer]) -> impl Iterator<Item = Desc> + use<'b> {
    let last = out.len() + into.len() - 1;
    let buffers = out
        .iter()
        .map(|b| (b, 0))
        .chain(into.iter().map(|b| (b, DESC_F_WRITE)));
    buffers
        .enumerate()
        .map(move |(i, (&(addr, len), direction))| {
            let flags = direction | if i == last { 0 } else { DESC_F_NEXT };
            Desc {
                addr,
                len,
                flags,
                next: 0,
            }
        })
}
