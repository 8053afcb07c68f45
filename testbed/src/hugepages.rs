//! Memory that DPDK can share.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::path::{Path, PathBuf};
use std::time::Duration;

const COUNT: &str = "/proc/sys/vm/nr_hugepages";
const COMPACT: &str = "/proc/sys/vm/compact_memory";
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";
/// Of which the last must do.
const ATTEMPTS: usize = 20;

/// A hugetlbfs of 2 MiB pages on a folder of its own; the pages go back with it.
pub struct Hugepages {
    dir: PathBuf,
    before: u64,
}

impl Hugepages {
    /// Reserve `mib` MiB beyond what is there, mounted below `dir`.
    pub fn reserve(dir: &Path, mib: u64) -> Self {
        let read = || -> u64 {
            std::fs::read_to_string(COUNT)
                .expect(COUNT)
                .trim()
                .parse()
                .expect("a number")
        };
        let before = read();
        let wanted = before + mib / 2;
        // Memory that has been in use for long has few free pieces of that size until it is tidied.
        for attempt in 0..ATTEMPTS {
            std::fs::write(COUNT, wanted.to_string()).expect(COUNT);
            if read() == wanted {
                break;
            }
            if attempt >= ATTEMPTS / 2 {
                // What files have been read is all over it.
                std::fs::write(DROP_CACHES, "1").expect(DROP_CACHES);
            }
            std::fs::write(COMPACT, "1").expect(COMPACT);
            std::thread::sleep(Duration::from_millis(100));
        }
        let dir = dir.join("huge");
        std::fs::create_dir_all(&dir).expect("mount point");
        let kind = Some("hugetlbfs");
        mount(Some("none"), &dir, kind, MsFlags::empty(), None::<&str>).expect("hugetlbfs");
        let pages = Self { dir, before };
        assert_eq!(
            read(),
            wanted,
            "not enough memory for {mib} MiB of huge pages"
        );
        pages
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
        let _ = std::fs::write(COUNT, self.before.to_string());
    }
}
