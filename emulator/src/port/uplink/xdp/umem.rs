//! The memory that a socket and the kernel pass frames in, and the rings in which they tell each
//! other where (kernel: Documentation/networking/af_xdp.rst): all unsafe code of that.

use crate::ring::BURST;
use arrayvec::ArrayVec;
use chanio_model::offload::VNET_HDR_LEN;
use libc::{c_int, c_void};
use nix::errno::Errno;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// `XDP_PACKET_HEADROOM`: what the kernel leaves free in front of a received frame.
pub(super) const KERNEL_HEADROOM: u32 = 256;
/// `TX_BATCH_SIZE` (net/xdp/xsk.c): frames that a call to send takes at most.
const SENT_BY_ONE_CALL: u32 = 32;
/// What we want free in front of a frame, besides: for its virtio-net header.
pub(super) const HEADROOM: u32 = 16;

/// A mapping of ours, gone when this is.
#[derive(Debug)]
struct Mapping {
    at: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes: of the socket's from `offset` on, or zeros of our own.
    fn new(socket: Option<BorrowedFd<'_>>, offset: i64, len: usize) -> Result<Self, Errno> {
        let (flags, fd) = match socket {
            Some(fd) => (libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping where the kernel finds room touches no memory of ours.
        let at = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd, offset) };
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let at = NonNull::new(at.cast()).ok_or(Errno::ENOMEM)?;
        Ok(Self { at, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is a mapping of ours of this length, and whoever has a pointer into it keeps
        // this alive.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
    }
}

// SAFETY: memory that is not bound to a thread; who may touch which part is for its users to say.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// Memory for frames, cut into chunks of one size, each of which belongs to the kernel or to us.
#[derive(Clone, Debug)]
pub(super) struct Umem {
    mapping: Arc<Mapping>,
    chunk: u32,
}

impl Umem {
    /// `count` chunks of `chunk` bytes, made known to the socket.
    pub(super) fn new(socket: BorrowedFd<'_>, count: u32, chunk: u32) -> Result<Self, Errno> {
        let mapping = Mapping::new(None, 0, count as usize * chunk as usize)?;
        let registration = libc::xdp_umem_reg_v1 {
            addr: mapping.at.addr().get() as u64,
            len: mapping.len as u64,
            chunk_size: chunk,
            headroom: HEADROOM,
        };
        set_option(socket, libc::XDP_UMEM_REG, &registration)?;
        let mapping = Arc::new(mapping);
        Ok(Self { mapping, chunk })
    }

    /// `len` bytes at `at`, if they are there.
    fn find(&self, at: u64, len: usize) -> Option<NonNull<u8>> {
        let at = usize::try_from(at).ok()?;
        let end = at.checked_add(len)?;
        // SAFETY: inside the mapping.
        (end <= self.mapping.len).then(|| unsafe { self.mapping.at.add(at) })
    }
}

/// The longest frame that a chunk of so many bytes has room for where it is received, bytes.
pub(super) const fn longest(chunk: u32) -> usize {
    (chunk - KERNEL_HEADROOM - HEADROOM) as usize
}

/// One of a socket's four rings. Its entries are plain numbers: any bytes are an entry.
#[derive(Debug)]
struct Ring<T> {
    _mapping: Mapping,
    /// Free running. We store one of the two, the kernel the other.
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    mask: u32,
}

// SAFETY: the pointers lead into the mapping beside them; one thread at a time has it.
unsafe impl<T> Send for Ring<T> {}

/// Which of a socket's rings.
#[derive(Clone, Copy)]
enum Kind {
    Rx,
    Tx,
    Fill,
    Completion,
}

impl<T: Copy> Ring<T> {
    /// Makes the socket's ring of this kind, of `size` entries, a power of two.
    fn new(socket: BorrowedFd<'_>, kind: Kind, size: u32) -> Result<Self, Errno> {
        let (option, offset) = match kind {
            Kind::Rx => (libc::XDP_RX_RING, libc::XDP_PGOFF_RX_RING as u64),
            Kind::Tx => (libc::XDP_TX_RING, libc::XDP_PGOFF_TX_RING as u64),
            Kind::Fill => (libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_PGOFF_FILL_RING),
            Kind::Completion => (
                libc::XDP_UMEM_COMPLETION_RING,
                libc::XDP_UMEM_PGOFF_COMPLETION_RING,
            ),
        };
        set_option(socket, option, &(size as c_int))?;
        // SAFETY: all zero is such a struct of numbers.
        let mut offsets: libc::xdp_mmap_offsets = unsafe { mem::zeroed() };
        get_option(socket, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
        let at = match kind {
            Kind::Rx => offsets.rx,
            Kind::Tx => offsets.tx,
            Kind::Fill => offsets.fr,
            Kind::Completion => offsets.cr,
        };
        let len = at.desc as usize + size as usize * mem::size_of::<T>();
        let mapping = Mapping::new(Some(socket), offset as i64, len)?;
        let inside = |offset: u64| {
            let within = (offset as usize)
                .checked_add(4)
                .is_some_and(|end| end <= len);
            // SAFETY: inside the mapping, as was just looked at.
            within
                .then(|| unsafe { mapping.at.add(offset as usize) })
                .ok_or(Errno::EINVAL)
        };
        Ok(Self {
            producer: inside(at.producer)?.cast(),
            consumer: inside(at.consumer)?.cast(),
            flags: inside(at.flags)?.cast(),
            entries: inside(at.desc)?.cast(),
            mask: size - 1,
            _mapping: mapping,
        })
    }

    fn load(&self, of: NonNull<AtomicU32>, order: Ordering) -> u32 {
        // SAFETY: an aligned word of the mapping that this owns, touched only by atomics, here and
        // in the kernel.
        unsafe { of.as_ref() }.load(order)
    }

    fn store(&self, to: NonNull<AtomicU32>, value: u32) {
        // SAFETY: as in `load`. Release: entries are read or written before.
        unsafe { to.as_ref() }.store(value, Ordering::Release);
    }

    fn entry(&self, at: u32) -> NonNull<T> {
        // SAFETY: `mask` keeps it inside the entries of the mapping.
        unsafe { self.entries.add((at & self.mask) as usize) }
    }

    /// Entries that the kernel has put in, at most `max`; given back at once.
    fn take(&mut self, max: usize, mut each: impl FnMut(T)) -> usize {
        let ours = self.load(self.consumer, Ordering::Relaxed);
        let n = self
            .load(self.producer, Ordering::Acquire)
            .wrapping_sub(ours);
        let n = n.min(max as u32);
        for i in 0..n {
            // SAFETY: the kernel has put it in before it moved the producer, and writes it again
            // only after we have moved the consumer.
            each(unsafe { self.entry(ours.wrapping_add(i)).read() });
        }
        if n > 0 {
            self.store(self.consumer, ours.wrapping_add(n));
        }
        n as usize
    }

    /// How many entries there is room for.
    fn room(&self) -> u32 {
        let ours = self.load(self.producer, Ordering::Relaxed);
        let theirs = self.load(self.consumer, Ordering::Acquire);
        (self.mask + 1).saturating_sub(ours.wrapping_sub(theirs))
    }

    /// Puts entries in as far as there is room, shown to the kernel all at once.
    fn put(&mut self, entries: impl Iterator<Item = T>) -> usize {
        let ours = self.load(self.producer, Ordering::Relaxed);
        let mut n = 0;
        for entry in entries.take(self.room() as usize) {
            // SAFETY: there is room, so the kernel does not read it before the producer moves.
            unsafe { self.entry(ours.wrapping_add(n)).write(entry) };
            n += 1;
        }
        self.store(self.producer, ours.wrapping_add(n));
        n as usize
    }

    /// The kernel wants a call to go on.
    fn needs_wakeup(&self) -> bool {
        let flags = self.load(self.flags, Ordering::Relaxed);
        flags & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// A chunk with a received frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    at: u64,
    len: u32,
}

/// Chunks that are ours.
pub(super) type Chunks = ArrayVec<Received, BURST>;

/// The receiving half of a socket.
#[derive(Debug)]
pub(super) struct RxHalf {
    umem: Umem,
    rx: Ring<libc::xdp_desc>,
    fill: Ring<u64>,
}

impl RxHalf {
    /// With the first `chunks` chunks, a power of two, for frames to come.
    pub(super) fn new(socket: BorrowedFd<'_>, umem: Umem, chunks: u32) -> Result<Self, Errno> {
        let mut fill = Ring::new(socket, Kind::Fill, chunks)?;
        let rx = Ring::new(socket, Kind::Rx, chunks)?;
        fill.put((0..chunks).map(|i| u64::from(i) * u64::from(umem.chunk)));
        Ok(Self { umem, rx, fill })
    }

    /// Takes up to `max` frames; they are ours until they are given back.
    pub(super) fn take(&mut self, max: usize) -> Chunks {
        let mut chunks = Chunks::new();
        self.rx.take(max.min(BURST), |desc| {
            chunks.push(Received {
                at: desc.addr,
                len: desc.len,
            });
        });
        chunks
    }

    /// The frames in these chunks, each behind an empty virtio-net header; without those of which
    /// the kernel says that they are where there is nothing.
    pub(super) fn frames(&mut self, chunks: &Chunks) -> ArrayVec<&[u8], BURST> {
        let mut frames = ArrayVec::new();
        for chunk in chunks {
            let len = chunk.len as usize + VNET_HDR_LEN;
            let start = chunk.at.checked_sub(VNET_HDR_LEN as u64);
            let Some(bytes) = start.and_then(|start| self.umem.find(start, len)) else {
                tracing::error!(?chunk, "AF_XDP: no such place");
                continue;
            };
            // SAFETY: mapped, initialised (it was zeros to begin with), and ours alone until the
            // chunk is given back, for which this has to be borrowed again. Chunks are distinct,
            // and headroom of ours is in front of each frame.
            frames.push(unsafe {
                bytes.as_ptr().write_bytes(0, VNET_HDR_LEN);
                std::slice::from_raw_parts(bytes.as_ptr(), len)
            });
        }
        frames
    }

    /// Gives chunks back for other frames; wakes the kernel if it waits for some.
    pub(super) fn give_back(&mut self, socket: BorrowedFd<'_>, chunks: &Chunks) {
        // Never more than there were to begin with, so there is room.
        self.fill.put(chunks.iter().map(|chunk| chunk.at));
        if !chunks.is_empty() && self.fill.needs_wakeup() {
            // SAFETY: nothing is received into no bytes.
            unsafe { libc::recv(socket.as_raw_fd(), ptr::null_mut(), 0, libc::MSG_DONTWAIT) };
        }
    }
}

/// The sending half of a socket.
#[derive(Debug)]
pub(super) struct TxHalf {
    umem: Umem,
    tx: Ring<libc::xdp_desc>,
    completion: Ring<u64>,
    /// Chunks that are ours.
    free: Vec<u64>,
    /// Put into the ring, not yet shown to the kernel.
    pending: ArrayVec<libc::xdp_desc, BURST>,
}

// SAFETY: `xdp_desc` is three numbers; the rest is Send by itself.
unsafe impl Send for TxHalf {}

impl TxHalf {
    /// With the `chunks` chunks, a power of two, from number `first` on for frames to be sent.
    pub(super) fn new(
        socket: BorrowedFd<'_>,
        umem: Umem,
        (first, chunks): (u32, u32),
    ) -> Result<Self, Errno> {
        let completion = Ring::new(socket, Kind::Completion, chunks)?;
        let tx = Ring::new(socket, Kind::Tx, chunks)?;
        let free = (first..first + chunks).map(|i| u64::from(i) * u64::from(umem.chunk));
        Ok(Self {
            free: free.collect(),
            umem,
            tx,
            completion,
            pending: ArrayVec::new(),
        })
    }

    /// Takes back the chunks that were sent.
    fn reclaim(&mut self) {
        let (completion, free) = (&mut self.completion, &mut self.free);
        completion.take(usize::MAX, |at| free.push(at));
    }

    /// Puts one frame of `len` bytes, written by `write`, into the ring; false if there is no room.
    /// `len` is at most [`longest`]. It goes out with [`TxHalf::flush`].
    pub(super) fn put(
        &mut self,
        socket: BorrowedFd<'_>,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<bool, Errno> {
        if self.pending.is_full() {
            self.flush(socket)?;
        }
        if self.free.is_empty() {
            self.reclaim();
        }
        let Some(at) = self.free.pop() else {
            return Ok(false);
        };
        let Some(bytes) = self.umem.find(at, len) else {
            self.free.push(at);
            return Ok(false);
        };
        // SAFETY: mapped, initialised, and in a chunk that is ours until the kernel is shown it:
        // `at` is where one begins, and `len` is no longer than it.
        write(unsafe { std::slice::from_raw_parts_mut(bytes.as_ptr(), len) });
        self.pending.push(libc::xdp_desc {
            addr: at,
            len: len as u32,
            options: 0,
        });
        Ok(true)
    }

    /// Shows the kernel what was put, and has it sent.
    ///
    /// # Errors
    /// ENETDOWN and the like: what was put waits in the ring.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        // There are no more chunks than entries, so there is room.
        self.tx.put(self.pending.drain(..));
        let waiting = self.tx.mask + 1 - self.tx.room();
        for _ in 0..=waiting.div_ceil(SENT_BY_ONE_CALL) {
            if waiting == 0 || !self.tx.needs_wakeup() {
                break;
            }
            let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
            // SAFETY: no bytes and no address are passed.
            let sent = unsafe { libc::sendto(fd, ptr::null(), 0, flags, ptr::null(), 0) };
            match Errno::result(sent) {
                Ok(_) => break,
                // More than one call sends, no room in the netdev's queue, or completions that wait
                // for us.
                Err(Errno::EAGAIN | Errno::EINTR | Errno::EBUSY | Errno::ENOBUFS) => self.reclaim(),
                Err(errno) => return Err(errno),
            }
        }
        self.reclaim();
        Ok(())
    }
}

/// Sets a socket option at level SOL_XDP.
fn set_option<T: Copy>(fd: BorrowedFd<'_>, option: c_int, value: &T) -> Result<(), Errno> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes at the pointer, which are the `T` that we borrow.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            option,
            (&raw const *value).cast::<c_void>(),
            len,
        )
    };
    Errno::result(done).map(drop)
}

/// What the socket could not receive.
pub(super) fn statistics(socket: BorrowedFd<'_>) -> Result<libc::xdp_statistics, Errno> {
    // SAFETY: all zero is such a struct of numbers.
    let mut statistics: libc::xdp_statistics = unsafe { mem::zeroed() };
    get_option(socket, libc::XDP_STATISTICS, &mut statistics)?;
    Ok(statistics)
}

/// Whether the netdev itself writes to and reads from our memory.
pub(super) fn is_zero_copy(socket: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut options = libc::xdp_options { flags: 0 };
    get_option(socket, libc::XDP_OPTIONS, &mut options)?;
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// Opens a socket.
pub(super) fn open() -> Result<OwnedFd, Errno> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: numbers only.
    let fd = Errno::result(unsafe { libc::socket(libc::AF_XDP, kind, 0) })?;
    // SAFETY: the kernel has just opened it for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Joins the socket, whose rings are made, to a queue of the netdev.
pub(super) fn bind(socket: BorrowedFd<'_>, ifindex: u32, queue: u32) -> Result<(), Errno> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: libc::XDP_USE_NEED_WAKEUP,
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    let len = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes at the pointer, which are the whole of `address`.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    Errno::result(bound).map(drop)
}

/// Reads a socket option at level SOL_XDP. `T` is a struct of numbers, of which older kernels fill
/// in less.
fn get_option<T: Copy>(fd: BorrowedFd<'_>, option: c_int, value: &mut T) -> Result<(), Errno> {
    let mut len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes at the pointer, which are the `T` that we
    // borrow, and any numbers make one; and the length to `len`.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            option,
            (&raw mut *value).cast::<c_void>(),
            &raw mut len,
        )
    };
    Errno::result(done).map(drop)
}
