//! The memory of one client: the regions that its vhost-user messages describe (SET_MEM_TABLE,
//! ADD_MEM_REG, REM_MEM_REG), mapped, and the translation of guest addresses.
//!
//! A memory is immutable; a change makes another one that shares the untouched mappings. Whoever
//! holds an `Arc` of one can go on using its addresses until it lets go.

use std::fs::File;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use thiserror::Error;

use super::mapping::Mapping;

/// Most regions per client: what GET_MAX_MEM_SLOTS answers.
///
/// A SET_MEM_TABLE carries at most 8; the rest is for clients that hot-plug memory or share one
/// file per huge page. The kernel gives a process 65530 mappings (vm.max_map_count) for all of its
/// channels: at 32, one greedy client takes 1/2000 of them.
pub const MAX_MEM_SLOTS: usize = 32;

/// Most bytes per client, 1 TiB. Mapping costs address space (128 TiB in all) even where nothing is
/// ever touched, so a sparse file could otherwise shut out every other client.
pub const MAX_GUEST_BYTES: u64 = 1 << 40;

/// One region as vhost-user describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    /// Guest physical address of its first byte.
    pub gpa: u64,
    /// Bytes.
    pub size: u64,
    /// Address of its first byte in the client; only SET_VRING_ADDR speaks of these.
    pub uva: u64,
    /// Offset of its first byte in the file, bytes; any value, not only whole pages.
    pub mmap_offset: u64,
}

/// Why a region or a set of regions is refused.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// More regions than [`MAX_MEM_SLOTS`].
    #[error("{count} memory regions: at most {MAX_MEM_SLOTS} are supported")]
    TooManyRegions {
        /// Regions there would be.
        count: usize,
    },
    /// A region of no bytes.
    #[error("memory region at {gpa:#x} is empty")]
    Empty {
        /// Its guest physical address.
        gpa: u64,
    },
    /// A region runs past the end of an address space.
    #[error("memory region at {start:#x} with {size:#x} bytes runs past 2^64")]
    AddressOverflow {
        /// Guest physical or client address.
        start: u64,
        /// Bytes.
        size: u64,
    },
    /// Offset plus size runs past the end of any file.
    #[error("memory region at {gpa:#x}: file offset {offset:#x} plus {size:#x} bytes overflows")]
    FileRangeOverflow {
        /// Its guest physical address.
        gpa: u64,
        /// Offset in the file, bytes.
        offset: u64,
        /// Bytes.
        size: u64,
    },
    /// Two regions share guest addresses.
    #[error("memory regions at {first:#x} and {second:#x} overlap")]
    Overlap {
        /// Guest physical address of the lower.
        first: u64,
        /// Guest physical address of the higher.
        second: u64,
    },
    /// The client's regions together, or one alone, are larger than can be mapped.
    #[error("memory region at {gpa:#x} with {size:#x} bytes: at most {MAX_GUEST_BYTES:#x} in all")]
    TooLarge {
        /// Guest physical address of the region that is too much.
        gpa: u64,
        /// Its bytes.
        size: u64,
    },
    /// The file ends before the region does.
    #[error("memory region at {gpa:#x} needs a file of {needed} bytes, this one has {have}")]
    FileTooShort {
        /// Its guest physical address.
        gpa: u64,
        /// Offset plus size, bytes.
        needed: u64,
        /// The file's length, bytes.
        have: u64,
    },
    /// The descriptor is a socket, pipe, eventfd, device or directory.
    #[error("memory region at {gpa:#x}: not a regular file (mode {mode:#o})")]
    NotRegularFile {
        /// Its guest physical address.
        gpa: u64,
        /// `st_mode` of what was received.
        mode: u32,
    },
    /// The file does not live in memory: page faults in it may wait for somebody.
    #[error("memory region at {gpa:#x}: neither memfd, tmpfs nor hugetlbfs (type {magic:#x})")]
    NotMemoryFile {
        /// Its guest physical address.
        gpa: u64,
        /// `f_type` of the file system, statfs(2).
        magic: i64,
    },
    /// fstat or fstatfs failed.
    #[error("memory region at {gpa:#x}: cannot inspect its file: {errno}")]
    Stat {
        /// Its guest physical address.
        gpa: u64,
        /// What the kernel said.
        errno: Errno,
    },
    /// mmap failed: read-only descriptor, write seal, address space, vm.max_map_count.
    #[error("memory region at {gpa:#x}: cannot map {size:#x} bytes: {errno}")]
    Map {
        /// Its guest physical address.
        gpa: u64,
        /// Bytes.
        size: u64,
        /// What the kernel said.
        errno: Errno,
    },
    /// The SIGBUS handler could not be installed, so no mapping would be safe to touch.
    #[error("cannot install a SIGBUS handler: {errno}")]
    Sigbus {
        /// What the kernel said.
        errno: Errno,
    },
    /// All clients together have used up [`super::sigbus::MAX_MAPPINGS`].
    #[error("all {limit} guest memory mappings are in use")]
    TooManyMappings {
        /// Mappings this process keeps at most.
        limit: usize,
    },
    /// REM_MEM_REG of a region that is not there.
    #[error("no memory region at {gpa:#x} with {size:#x} bytes and client address {uva:#x}")]
    NoSuchRegion {
        /// Guest physical address asked for.
        gpa: u64,
        /// Bytes asked for.
        size: u64,
        /// Client address asked for.
        uva: u64,
    },
}

#[derive(Clone, Debug)]
struct Region {
    gpa: u64,
    len: u64,
    host: NonNull<u8>,
    uva: u64,
    /// Keeps `host..host + len` mapped.
    _mapping: Arc<Mapping>,
}

impl Region {
    fn map(spec: &RegionSpec, file: &File, poison: &Arc<AtomicBool>) -> Result<Self, MemoryError> {
        let RegionSpec { gpa, size, uva, .. } = *spec;
        if size == 0 {
            return Err(MemoryError::Empty { gpa });
        }
        for start in [gpa, uva] {
            if start.checked_add(size).is_none() {
                return Err(MemoryError::AddressOverflow { start, size });
            }
        }
        if size > MAX_GUEST_BYTES {
            return Err(MemoryError::TooLarge { gpa, size });
        }
        let mapping = Arc::new(Mapping::new(spec, file, poison)?);
        Ok(Region {
            gpa,
            len: size,
            host: mapping.start(),
            uva,
            _mapping: mapping,
        })
    }
}

/// The mapped regions of one client, by ascending guest physical address.
#[derive(Debug)]
pub struct GuestMemory {
    regions: Vec<Region>,
    poison: Arc<AtomicBool>,
}

// SAFETY: `host` points into the mapping kept beside it, shared memory for which `Mapping` itself
// promises Send and Sync.
unsafe impl Send for GuestMemory {}
// SAFETY: as above.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// Maps a whole table of regions (SET_MEM_TABLE). The files may be closed afterwards.
    ///
    /// # Errors
    /// [`MemoryError`] for the first region that cannot be mapped or overlaps another.
    pub fn new(regions: Vec<(RegionSpec, File)>) -> Result<Arc<Self>, MemoryError> {
        let count = regions.len();
        if count > MAX_MEM_SLOTS {
            return Err(MemoryError::TooManyRegions { count });
        }
        let mut memory = GuestMemory {
            regions: Vec::with_capacity(count),
            poison: Arc::default(),
        };
        for (spec, file) in &regions {
            memory.insert(spec, file)?;
        }
        Ok(Arc::new(memory))
    }

    /// This memory and one region more (ADD_MEM_REG).
    ///
    /// # Errors
    /// [`MemoryError`] as for [`GuestMemory::new`].
    pub fn with_region(&self, spec: &RegionSpec, file: &File) -> Result<Arc<Self>, MemoryError> {
        let mut memory = GuestMemory {
            regions: self.regions.clone(),
            poison: Arc::clone(&self.poison),
        };
        memory.insert(spec, file)?;
        Ok(Arc::new(memory))
    }

    /// This memory without one region (REM_MEM_REG), which is found by address, size and client
    /// address; `mmap_offset` does not matter.
    ///
    /// # Errors
    /// [`MemoryError::NoSuchRegion`].
    pub fn without_region(&self, spec: &RegionSpec) -> Result<Arc<Self>, MemoryError> {
        let RegionSpec { gpa, size, uva, .. } = *spec;
        let is_it = |r: &Region| r.gpa == gpa && r.len == size && r.uva == uva;
        let mut regions = self.regions.clone();
        let at = regions.iter().position(is_it);
        regions.remove(at.ok_or(MemoryError::NoSuchRegion { gpa, size, uva })?);
        Ok(Arc::new(GuestMemory {
            regions,
            poison: Arc::clone(&self.poison),
        }))
    }

    fn insert(&mut self, spec: &RegionSpec, file: &File) -> Result<(), MemoryError> {
        let RegionSpec { gpa, size, .. } = *spec;
        if self.regions.len() == MAX_MEM_SLOTS {
            return Err(MemoryError::TooManyRegions {
                count: MAX_MEM_SLOTS + 1,
            });
        }
        let total: u64 = self.regions.iter().map(|r| r.len).sum();
        if size > MAX_GUEST_BYTES - total {
            return Err(MemoryError::TooLarge { gpa, size });
        }
        let end = gpa
            .checked_add(size)
            .ok_or(MemoryError::AddressOverflow { start: gpa, size })?;
        let at = self.regions.partition_point(|r| r.gpa < gpa);
        if let Some(above) = self.regions.get(at).filter(|r| r.gpa < end) {
            return Err(MemoryError::Overlap {
                first: gpa,
                second: above.gpa,
            });
        }
        if let Some(below) = self.regions[..at].last().filter(|r| r.gpa + r.len > gpa) {
            return Err(MemoryError::Overlap {
                first: below.gpa,
                second: gpa,
            });
        }
        self.regions
            .insert(at, Region::map(spec, file, &self.poison)?);
        Ok(())
    }

    /// The longest mapped prefix of `len` bytes at guest address `gpa`: where, and how many bytes
    /// (at least one). `None` if not even the first byte is mapped, or `len` is 0. A buffer may go
    /// on in the next region: ask again for the rest.
    ///
    /// The pointer is valid for as long as this memory lives.
    #[inline]
    pub fn translate(&self, gpa: u64, len: usize) -> Option<(NonNull<u8>, usize)> {
        for region in &self.regions {
            let offset = gpa.wrapping_sub(region.gpa);
            if offset < region.len {
                let n = (region.len - offset).min(len as u64) as usize;
                // SAFETY: `offset < len` of the region, all of which is mapped at `host`
                // (`Mapping`), so the result stays inside that mapping.
                let ptr = unsafe { region.host.add(offset as usize) };
                return (n > 0).then_some((ptr, n));
            }
        }
        None
    }

    /// All `len` bytes at guest address `gpa`, if they are in one region and start at a host
    /// address that is a multiple of `align` (a power of two).
    #[inline]
    pub fn translate_exact(&self, gpa: u64, len: usize, align: usize) -> Option<NonNull<u8>> {
        let (ptr, n) = self.translate(gpa, len)?;
        (n == len && ptr.addr().get() & (align - 1) == 0).then_some(ptr)
    }

    /// The guest physical address of an address in the client, as SET_VRING_ADDR gives them.
    pub fn uva_to_gpa(&self, uva: u64) -> Option<u64> {
        self.regions.iter().find_map(|r| {
            let offset = uva.wrapping_sub(r.uva);
            (offset < r.len).then(|| r.gpa + offset)
        })
    }

    /// Whether the client shortened a file of this memory, or of one that this one was made from
    /// by adding and removing regions. One relaxed load.
    #[inline]
    pub fn poisoned(&self) -> bool {
        self.poison.load(Ordering::Relaxed)
    }

    /// Regions.
    pub fn region_count(&self) -> usize {
        self.regions.len()
    }

    /// Copies the bytes at `gpa` out, across regions. `None` if some are not mapped. Not for the
    /// packet path.
    pub fn read(&self, gpa: u64, dst: &mut [u8]) -> Option<()> {
        let mut done = 0;
        while done < dst.len() {
            let at = gpa.checked_add(done as u64)?;
            let (ptr, n) = self.translate(at, dst.len() - done)?;
            // SAFETY: `n` mapped bytes at `ptr` while `self` lives; `done + n <= dst.len()`; local
            // memory does not overlap a guest's.
            unsafe {
                ptr.as_ptr()
                    .copy_to_nonoverlapping(dst.as_mut_ptr().add(done), n)
            };
            done += n;
        }
        Some(())
    }

    /// Copies `src` to `gpa`, across regions. `None` if some of it is not mapped; the part before
    /// may be written. Not for the packet path.
    pub fn write(&self, gpa: u64, src: &[u8]) -> Option<()> {
        let mut done = 0;
        while done < src.len() {
            let at = gpa.checked_add(done as u64)?;
            let (ptr, n) = self.translate(at, src.len() - done)?;
            // SAFETY: as in `read`, with the directions exchanged.
            unsafe {
                ptr.as_ptr()
                    .copy_from_nonoverlapping(src.as_ptr().add(done), n)
            };
            done += n;
        }
        Some(())
    }
}
