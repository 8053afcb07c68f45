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

    /// Whether it has this very region: address, size and client address.
    pub fn has_region(&self, spec: &RegionSpec) -> bool {
        let RegionSpec { gpa, size, uva, .. } = *spec;
        self.regions
            .iter()
            .any(|r| r.gpa == gpa && r.len == size && r.uva == uva)
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

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    const PAGE: u64 = 4096;

    fn memfd(size: u64) -> File {
        let file = File::from(memfd_create("test", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(size).unwrap();
        file
    }

    fn spec(gpa: u64, size: u64, mmap_offset: u64) -> RegionSpec {
        RegionSpec {
            gpa,
            size,
            uva: gpa + 0x7000_0000_0000,
            mmap_offset,
        }
    }

    #[test]
    fn translates_up_to_the_end_of_a_region_and_on_in_the_next() {
        let file = memfd(4 * PAGE);
        let mem = GuestMemory::new(vec![
            (spec(0x2000, PAGE, 2 * PAGE), file.try_clone().unwrap()),
            (spec(0x1000, PAGE, 0), file),
        ])
        .unwrap();
        assert_eq!(mem.region_count(), 2);
        let (low, n) = mem.translate(0x1ff0, 0x20).unwrap();
        assert_eq!(n, 0x10);
        let (_, n) = mem.translate(0x2000, 0x10).unwrap();
        assert_eq!(n, 0x10);
        assert_eq!(mem.translate(0x1ff0, 4).unwrap(), (low, 4));
        assert!(mem.translate(0xfff, 1).is_none());
        assert!(mem.translate(0x3000, 1).is_none());
        assert!(mem.translate(u64::MAX, usize::MAX).is_none());
        assert!(mem.translate(0x1000, 0).is_none());
        assert!(mem.translate_exact(0x1ff0, 0x10, 16).is_some());
        assert!(
            mem.translate_exact(0x1ff0, 0x11, 1).is_none(),
            "crosses into the next region"
        );
        assert!(mem.translate_exact(0x1ff8, 8, 16).is_none(), "misaligned");

        let sent: Vec<u8> = (0..64).collect();
        let mut got = vec![0; 64];
        mem.write(0x1fe0, &sent).unwrap();
        mem.read(0x1fe0, &mut got).unwrap();
        assert_eq!(got, sent);
        assert!(mem.read(0x2ff0, &mut got).is_none());
    }

    #[test]
    fn maps_an_offset_inside_a_page() {
        let file = memfd(3 * PAGE);
        std::os::unix::fs::FileExt::write_all_at(&file, b"here", 0xa00).unwrap();
        let whole = GuestMemory::new(vec![(spec(0, 3 * PAGE, 0), file.try_clone().unwrap())]);
        let part = GuestMemory::new(vec![(spec(0x50_0000, PAGE, 0xa00), file)]).unwrap();
        let mut got = [0; 4];
        part.read(0x50_0000, &mut got).unwrap();
        assert_eq!(&got, b"here");
        part.write(0x50_0000 + PAGE - 4, b"last").unwrap();
        whole.unwrap().read(0xa00 + PAGE - 4, &mut got).unwrap();
        assert_eq!(&got, b"last");
        assert!(part.translate(0x50_0000 + PAGE, 1).is_none());
    }

    #[test]
    fn finds_client_addresses() {
        let mem = GuestMemory::new(vec![(spec(0x1000, PAGE, 0), memfd(PAGE))]).unwrap();
        assert_eq!(mem.uva_to_gpa(0x7000_0000_1abc), Some(0x1abc));
        assert_eq!(mem.uva_to_gpa(0x7000_0000_2000), None);
        assert_eq!(mem.uva_to_gpa(0x7000_0000_0fff), None);
    }

    #[test]
    fn refuses_bad_regions() {
        let new = |spec, file| GuestMemory::new(vec![(spec, file)]).unwrap_err();
        assert!(matches!(
            new(spec(0, 0, 0), memfd(PAGE)),
            MemoryError::Empty { gpa: 0 }
        ));
        let short = new(spec(0, 2 * PAGE, PAGE), memfd(2 * PAGE));
        assert!(matches!(
            short,
            MemoryError::FileTooShort {
                needed: 0x3000,
                have: 0x2000,
                ..
            }
        ));
        let high = RegionSpec {
            gpa: u64::MAX - 100,
            size: PAGE,
            uva: 0,
            mmap_offset: 0,
        };
        assert!(matches!(
            new(high, memfd(PAGE)),
            MemoryError::AddressOverflow { .. }
        ));
        let high = RegionSpec {
            gpa: 0,
            size: PAGE,
            uva: u64::MAX - 100,
            mmap_offset: 0,
        };
        assert!(matches!(
            new(high, memfd(PAGE)),
            MemoryError::AddressOverflow { .. }
        ));
        let far = new(spec(0, PAGE, u64::MAX - 10), memfd(PAGE));
        assert!(matches!(far, MemoryError::FileRangeOverflow { .. }));
        let huge = new(spec(0, MAX_GUEST_BYTES + 1, 0), memfd(PAGE));
        assert!(matches!(huge, MemoryError::TooLarge { .. }));
    }

    #[test]
    fn refuses_what_is_not_memory() {
        let new = |file| GuestMemory::new(vec![(spec(0, PAGE, 0), file)]).unwrap_err();
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = File::from(std::os::fd::OwnedFd::from(socket));
        assert!(matches!(new(socket), MemoryError::NotRegularFile { .. }));
        let (pipe, _writer) = nix::unistd::pipe().unwrap();
        assert!(matches!(
            new(pipe.into()),
            MemoryError::NotRegularFile { .. }
        ));
        let zero = File::options()
            .read(true)
            .write(true)
            .open("/dev/zero")
            .unwrap();
        assert!(matches!(new(zero), MemoryError::NotRegularFile { .. }));
        let event = nix::sys::eventfd::EventFd::new().unwrap();
        let event = File::from(std::os::fd::OwnedFd::from(event));
        let refused = new(event);
        assert!(
            matches!(
                refused,
                MemoryError::NotRegularFile { .. } | MemoryError::NotMemoryFile { .. }
            ),
            "{refused}"
        );
        let proc = File::open("/proc/self/status").unwrap();
        assert!(matches!(new(proc), MemoryError::NotMemoryFile { .. }));
    }

    #[test]
    fn refuses_a_read_only_descriptor() {
        use std::os::fd::AsRawFd;
        let file = memfd(PAGE);
        let read_only = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        let refused = GuestMemory::new(vec![(spec(0, PAGE, 0), read_only)]).unwrap_err();
        assert!(
            matches!(
                refused,
                MemoryError::Map {
                    errno: Errno::EACCES,
                    ..
                }
            ),
            "{refused}"
        );
    }

    #[test]
    fn refuses_overlap_on_either_side() {
        let base = GuestMemory::new(vec![(spec(0x10000, 4 * PAGE, 0), memfd(4 * PAGE))]).unwrap();
        let file = memfd(8 * PAGE);
        for (gpa, pages) in [
            (0xf000, 2),
            (0x13000, 1),
            (0x10000, 4),
            (0x11000, 1),
            (0xf000, 8),
        ] {
            let refused = base
                .with_region(&spec(gpa, pages * PAGE, 0), &file)
                .unwrap_err();
            assert!(
                matches!(refused, MemoryError::Overlap { .. }),
                "{gpa:#x}: {refused}"
            );
        }
        for gpa in [0xf000, 0x14000] {
            assert!(
                base.with_region(&spec(gpa, PAGE, 0), &file).is_ok(),
                "{gpa:#x}"
            );
        }
    }

    #[test]
    fn changes_share_the_untouched_mappings() {
        let first = spec(0x1000, PAGE, 0);
        let second = spec(0x8000, PAGE, 0);
        let base = GuestMemory::new(vec![(first, memfd(PAGE))]).unwrap();
        let both = base.with_region(&second, &memfd(PAGE)).unwrap();
        assert_eq!(both.translate(0x1000, 1), base.translate(0x1000, 1));
        let back = both.without_region(&first).unwrap();
        assert!(back.translate(0x1000, 1).is_none());
        assert_eq!(back.translate(0x8000, 1), both.translate(0x8000, 1));
        drop((base, both));
        back.write(0x8000, b"still mapped").unwrap();
        let missing = back
            .without_region(&RegionSpec { uva: 1, ..second })
            .unwrap_err();
        assert!(matches!(
            missing,
            MemoryError::NoSuchRegion {
                gpa: 0x8000,
                uva: 1,
                ..
            }
        ));
    }

    #[test]
    fn counts_regions() {
        let file = memfd(PAGE);
        let region = |i: usize| spec(0x10000 * i as u64, PAGE, 0);
        let some = |n| {
            (0..n)
                .map(|i| (region(i), file.try_clone().unwrap()))
                .collect()
        };
        let full = GuestMemory::new(some(MAX_MEM_SLOTS)).unwrap();
        let refused = full.with_region(&region(MAX_MEM_SLOTS), &file).unwrap_err();
        assert!(matches!(refused, MemoryError::TooManyRegions { count: 33 }));
        let refused = GuestMemory::new(some(MAX_MEM_SLOTS + 1)).unwrap_err();
        assert!(matches!(refused, MemoryError::TooManyRegions { count: 33 }));
    }

    /// Needs huge pages set aside, which a test cannot count on; then it also tries an offset in
    /// the middle of one.
    #[test]
    fn maps_hugetlbfs_where_there_is_any() {
        let huge = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_HUGETLB;
        let Ok(fd) = memfd_create("huge", huge) else {
            return;
        };
        let file = File::from(fd);
        let page = 2 << 20;
        if file.set_len(2 * page).is_err() {
            return;
        }
        let mapped = GuestMemory::new(vec![(spec(0, page, 0xa0000), file.try_clone().unwrap())]);
        match mapped {
            // A reservation is refused at mmap already where there are no huge pages.
            Err(MemoryError::Map {
                errno: Errno::ENOMEM,
                ..
            }) => {}
            mapped => {
                let mem = mapped.unwrap();
                let free = std::fs::read_to_string(
                    "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
                );
                if free.is_ok_and(|n| n.trim().parse::<u64>().unwrap_or(0) >= 2) {
                    mem.write(page - 1, b"x").unwrap();
                }
            }
        }
    }
}
