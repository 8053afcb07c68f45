//! The driver's side of a virtqueue, split or packed, over memory shared with a device.
//!
//! For an in-process virtio-net driver, for tests and for benches; it does what a guest's driver
//! does and trusts its device only as far as memory safety does not depend on it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::memfd::{MFdFlags, memfd_create};
use thiserror::Error;

use super::fault::RingError;
use super::layout::{DESC_F_NEXT, DESC_F_WRITE, Desc, Layout};
use super::memory::{GuestMemory, MemoryError, RegionSpec};
use super::packed_driver::PackedDriver;
use super::split::RingConfig;
use super::split_driver::SplitDriver;

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

/// What a queue is like.
#[derive(Clone, Copy, Debug)]
pub struct QueueOptions {
    /// Entries: a power of two up to 32768, in a packed queue any number up to that.
    pub size: u16,
    /// Packed (virtio 1.3 §2.8), not split (§2.7).
    pub packed: bool,
    /// Kicks and calls are asked for by index.
    pub event_idx: bool,
    /// The device completes chains in order, and may complete several by the last.
    pub in_order: bool,
    /// Where indices start, for tests: free running; in a packed queue a slot, and above it the
    /// wrap counter, which is 1 in a new queue.
    pub start: u16,
}

impl QueueOptions {
    /// A new split queue without more.
    pub fn split(size: u16) -> Self {
        QueueOptions {
            size,
            packed: false,
            event_idx: false,
            in_order: false,
            start: 0,
        }
    }

    /// A new packed queue without more.
    pub fn packed(size: u16) -> Self {
        QueueOptions {
            packed: true,
            start: 1 << 15,
            ..Self::split(size)
        }
    }
}

/// A virtqueue as its driver sees it.
#[derive(Debug)]
pub struct DriverQueue(Inner);

#[derive(Debug)]
enum Inner {
    Split(SplitDriver),
    Packed(PackedDriver),
}

/// The same of either.
macro_rules! either {
    ($of:expr, $queue:ident => $do:expr) => {
        match $of {
            Inner::Split($queue) => $do,
            Inner::Packed($queue) => $do,
        }
    };
}

impl DriverQueue {
    /// Bytes of guest memory for a queue of `size` entries, of either layout.
    pub fn bytes(size: u16) -> u64 {
        let (desc, avail, used) = Layout::sizes(size);
        let split =
            desc.next_multiple_of(16) + avail.next_multiple_of(16) + used.next_multiple_of(16);
        PackedDriver::bytes(size).max(split as u64)
    }

    /// Lays out an empty split queue at guest address `base` (a multiple of 16), indices starting
    /// at `start`: 0 but for tests.
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
        let options = QueueOptions {
            event_idx,
            start,
            ..QueueOptions::split(size)
        };
        Self::with(mem, base, options)
    }

    /// Lays out an empty queue at guest address `base` (a multiple of 16).
    ///
    /// # Errors
    /// [`DriverError::Ring`] for a bad size, start, alignment or address.
    pub fn with(
        mem: Arc<GuestMemory>,
        base: u64,
        options: QueueOptions,
    ) -> Result<Self, DriverError> {
        Ok(DriverQueue(if options.packed {
            Inner::Packed(PackedDriver::new(mem, base, options)?)
        } else {
            Inner::Split(SplitDriver::new(mem, base, options)?)
        }))
    }

    /// Where the device finds the queue.
    pub fn config(&self) -> RingConfig {
        either!(&self.0, queue => queue.config())
    }

    /// Descriptors not in flight.
    pub fn free(&self) -> u16 {
        either!(&self.0, queue => queue.free())
    }

    /// Adds a chain of buffers for the device to read; returns what names it. As
    /// [`DriverQueue::add`].
    pub fn add_out(&mut self, buffers: &[Buffer]) -> Option<u16> {
        self.add(buffers, &[])
    }

    /// Adds a chain of buffers for the device to write; returns what names it. As
    /// [`DriverQueue::add`].
    pub fn add_in(&mut self, buffers: &[Buffer]) -> Option<u16> {
        self.add(&[], buffers)
    }

    /// Adds a chain of `out` buffers, which the device reads, then `into`, which it writes. Returns
    /// what names it, below the queue's size: the head's index, in a packed queue the buffer id;
    /// `None` if both are empty or descriptors are short, and nothing is added. The device sees it
    /// after [`DriverQueue::publish`].
    pub fn add(&mut self, out: &[Buffer], into: &[Buffer]) -> Option<u16> {
        either!(&mut self.0, queue => queue.add(out, into))
    }

    /// As [`DriverQueue::add`], through an indirect table of 16 bytes per buffer at guest address
    /// `table`. Also `None` if the table is not in mapped memory.
    pub fn add_indirect(&mut self, table: u64, out: &[Buffer], into: &[Buffer]) -> Option<u16> {
        either!(&mut self.0, queue => queue.add_indirect(table, out, into))
    }

    /// Makes the chains added visible to the device; returns whether it wants a kick.
    pub fn publish(&mut self) -> bool {
        either!(&mut self.0, queue => queue.publish())
    }

    /// The next chain the device is done with: what names it, and the bytes the device wrote (0
    /// for one that was completed by a later one). `None` if there is none now.
    ///
    /// # Errors
    /// [`DriverError::BadUsed`].
    pub fn poll_used(&mut self) -> Result<Option<(u16, u32)>, DriverError> {
        either!(&mut self.0, queue => queue.poll_used())
    }

    /// Asks the device to call at the next used chain; returns whether there are some already, so
    /// that a call may not come.
    pub fn enable_calls(&mut self) -> bool {
        either!(&mut self.0, queue => queue.enable_calls())
    }

    /// Tells the device that the driver polls. A split queue with EVENT_IDX puts the event just
    /// behind, where the index passes it last.
    pub fn disable_calls(&mut self) {
        either!(&mut self.0, queue => queue.disable_calls());
    }
}

/// Chains in flight with a device that completes them in order, perhaps only by the last of a
/// batch (virtio 1.3 §2.7.9, §2.8.8).
#[derive(Debug, Default)]
pub(super) struct InOrder {
    in_flight: VecDeque<u16>,
    /// The last chain of a batch under way, and what was written to it.
    batch: Option<(u16, u32)>,
}

impl InOrder {
    pub(super) fn push(&mut self, id: u16) {
        self.in_flight.push_back(id);
    }

    /// The next chain of the batch under way.
    pub(super) fn skipped(&mut self) -> Option<(u16, u32)> {
        let (last, len) = self.batch?;
        let id = self.in_flight.pop_front()?;
        if id == last {
            self.batch = None;
            return Some((id, len));
        }
        Some((id, 0))
    }

    /// The device has completed all up to `last`: the first of them.
    pub(super) fn batch(&mut self, last: u16, len: u32) -> Result<(u16, u32), DriverError> {
        if !self.in_flight.contains(&last) {
            return Err(DriverError::BadUsed {
                id: u32::from(last),
            });
        }
        self.batch = Some((last, len));
        Ok(self.skipped().expect("it is in flight"))
    }
}

/// Descriptors for the buffers in order, NEXT set on all but the last, `next` not filled in.
pub(super) fn descriptors<'b>(
    out: &'b [Buffer],
    into: &'b [Buffer],
) -> impl Iterator<Item = Desc> + use<'b> {
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
