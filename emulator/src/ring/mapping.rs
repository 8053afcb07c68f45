//! One region of a client's memory, mapped: which files are accepted and where it lands.
//!
//! The mapping is made here rather than by vm-memory because its regions keep the file open, one
//! descriptor per region where there may be tens of thousands of channels, and because the SIGBUS
//! registration has to end exactly before the mapping does.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{HUGETLBFS_MAGIC, TMPFS_MAGIC, fstatfs};

use super::memory::{MemoryError, RegionSpec};
use super::sigbus;

/// The mapped bytes of one region. Unmapped on drop.
#[derive(Debug)]
pub(super) struct Mapping {
    /// Start and length as mapped: whole pages of the file.
    base: NonNull<u8>,
    mapped: usize,
    /// Where in it the region starts.
    delta: usize,
    /// Ends before the mapping does: fields drop after `Drop::drop`, which takes it first.
    registration: Option<sigbus::Registration>,
}

// SAFETY: the mapping is shared memory that is only reached through raw pointers, by accesses that
// tolerate concurrent writers; the value itself is immutable until it is dropped.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps what `spec` says of `file`, shared and writable. The file may be closed afterwards.
    /// `poisoned` is set if the file turns out to be shorter later.
    pub(super) fn new(
        spec: &RegionSpec,
        file: &File,
        poisoned: &Arc<AtomicBool>,
    ) -> Result<Self, MemoryError> {
        let RegionSpec {
            gpa,
            size,
            mmap_offset,
            ..
        } = *spec;
        let page = page_size(gpa, file)?;
        let needed = mmap_offset
            .checked_add(size)
            .ok_or(MemoryError::FileRangeOverflow {
                gpa,
                offset: mmap_offset,
                size,
            })?;
        let have = fstat(file)
            .map_err(|errno| MemoryError::Stat { gpa, errno })?
            .st_size as u64;
        if needed > have {
            return Err(MemoryError::FileTooShort { gpa, needed, have });
        }
        // mmap takes offsets in whole pages (huge ones on hugetlbfs). A region may start anywhere:
        // QEMU splits hugepage-backed RAM at 640 KiB. Map from the page it starts in, no further,
        // up to the end of its last page.
        let delta = mmap_offset % page;
        let offset = mmap_offset - delta;
        let mapped = (delta + size).next_multiple_of(page);
        let too_large = MemoryError::TooLarge { gpa, size };
        let length = usize::try_from(mapped)
            .ok()
            .and_then(NonZeroUsize::new)
            .ok_or(too_large)?;
        let offset = i64::try_from(offset).map_err(|_| MemoryError::TooLarge { gpa, size })?;

        sigbus::install().map_err(|errno| MemoryError::Sigbus { errno })?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing existing.
        let base = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE,
                file,
                offset,
            )
        }
        .map_err(|errno| MemoryError::Map { gpa, size, errno })?;
        let mut mapping = Mapping {
            base: base.cast(),
            mapped: length.get(),
            delta: delta as usize,
            registration: None,
        };
        // A core dump of the emulator is no place for its guests' memory. Best effort.
        // SAFETY: the range is the mapping just made; the advice changes no contents.
        let _ = unsafe { madvise(base, length.get(), MmapAdvise::MADV_DONTDUMP) };
        let limit = sigbus::MAX_MAPPINGS;
        let registration = sigbus::register(mapping.base, mapping.mapped, poisoned)
            .ok_or(MemoryError::TooManyMappings { limit })?;
        mapping.registration = Some(registration);
        Ok(mapping)
    }

    /// First byte of the region.
    pub(super) fn start(&self) -> NonNull<u8> {
        // SAFETY: `delta` is less than a page and so less than `mapped`.
        unsafe { self.base.add(self.delta) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // First the registration: another mapping may land at this address right after.
        self.registration = None;
        // SAFETY: exactly the range that `new` mapped. Whoever holds pointers into it holds an
        // `Arc` of the memory that owns this mapping, so there are none left.
        if let Err(errno) = unsafe { munmap(self.base.cast(), self.mapped) } {
            tracing::error!(%errno, bytes = self.mapped, "guest memory stays mapped");
        }
    }
}

/// Page size of a file that may be mapped, bytes.
///
/// Only memory files are accepted: tmpfs (which memfd is) and hugetlbfs. A page fault in any other
/// file waits for whoever serves it; a client could hand over one from a FUSE mount of its own and
/// stop a worker for as long as it likes.
fn page_size(gpa: u64, file: &File) -> Result<u64, MemoryError> {
    let stat = fstat(file).map_err(|errno| MemoryError::Stat { gpa, errno })?;
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    if kind != SFlag::S_IFREG {
        return Err(MemoryError::NotRegularFile {
            gpa,
            mode: stat.st_mode,
        });
    }
    let fs = fstatfs(file.as_fd()).map_err(|errno| MemoryError::Stat { gpa, errno })?;
    match fs.filesystem_type() {
        TMPFS_MAGIC => Ok(base_page_size()),
        HUGETLBFS_MAGIC => match u64::try_from(fs.block_size()) {
            Ok(page) if page.is_power_of_two() => Ok(page),
            _ => Err(MemoryError::NotMemoryFile {
                gpa,
                magic: HUGETLBFS_MAGIC.0,
            }),
        },
        other => Err(MemoryError::NotMemoryFile {
            gpa,
            magic: other.0,
        }),
    }
}

fn base_page_size() -> u64 {
    // SAFETY: sysconf only reads; the name is valid.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}
