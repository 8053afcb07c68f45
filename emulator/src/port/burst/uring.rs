//! io_uring(7), used as one system call for the frames of a burst: nothing is in flight when a
//! method returns.
//!
//! All operations are asked for with RWF_NOWAIT, so the kernel does them one after the other while
//! they are submitted, in order, and none waits (a non-blocking descriptor alone is not enough: its
//! reads would be armed to wait for more). TAPs understand that since Linux 6.4.

use super::{Gathering, Outcomes};
use crate::ring::BURST;
use arrayvec::ArrayVec;
use io_uring::{IoUring, opcode, squeue, types};
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// A ring for the use of one thread.
pub struct Uring {
    ring: IoUring,
    /// By the position of what was submitted.
    results: [i32; BURST],
    /// The kernel no longer takes what we submit.
    broken: Option<Errno>,
}

impl Uring {
    /// A ring that TAPs can be read and written with.
    ///
    /// # Errors
    /// Why that cannot be, for people.
    pub fn open() -> Result<Self, String> {
        let ring = IoUring::new(BURST as u32).map_err(|err| match err.raw_os_error() {
            Some(libc::ENOSYS) => "the kernel has no io_uring (CONFIG_IO_URING)".to_owned(),
            Some(libc::EPERM | libc::EACCES) => format!(
                "io_uring is not allowed here: kernel.io_uring_disabled, or a container's seccomp \
                 filter ({err})"
            ),
            Some(libc::ENOMEM) => format!("no memory for io_uring: RLIMIT_MEMLOCK ({err})"),
            _ => format!("io_uring_setup: {err}"),
        })?;
        let mut uring = Self {
            ring,
            results: [0; BURST],
            broken: None,
        };
        let mut options = File::options();
        let options = options.read(true).write(true);
        let Ok(tun) = options.custom_flags(libc::O_NONBLOCK).open("/dev/net/tun") else {
            // There will be no TAP; whoever asks for one is told why.
            return Ok(uring);
        };
        // Without a netdev behind it, and only that is wrong with it (drivers/net/tun.c,
        // tun_chr_read_iter).
        let mut room = [0; 64];
        match uring.read_each(tun.as_fd(), &mut room, (1, 64)).next() {
            Some(Err(Errno::EBADFD)) => Ok(uring),
            Some(Err(Errno::EOPNOTSUPP)) => {
                Err("TAPs take no RWF_NOWAIT (before Linux 6.4)".to_owned())
            }
            other => Err(format!("reading no TAP gave {other:?}, not EBADFD")),
        }
    }

    /// Writes each frame; `sent` gets what became of it.
    pub(super) fn write_each(
        &mut self,
        fd: BorrowedFd<'_>,
        frames: &Gathering<'_, '_>,
        sent: &mut Outcomes,
    ) {
        let fd = types::Fd(fd.as_raw_fd());
        let entries = frames.iter().map(|pieces| {
            opcode::Writev::new(fd, pieces.as_ptr(), pieces.len() as u32)
                .rw_flags(libc::RWF_NOWAIT)
                .build()
        });
        // SAFETY: the lists of pieces, and all that they lead to, can be read while `frames` is
        // borrowed (`Gathering`); `fd` is open as long. Memory whose file was truncated makes the
        // operation fail with EFAULT.
        let n = unsafe { self.run(entries) };
        sent.extend(
            self.results[..n]
                .iter()
                .map(|result| outcome(*result).map(drop)),
        );
    }

    /// Reads up to `n` times, each into the next `stride` bytes of `rooms`; what came of each.
    pub(super) fn read_each(
        &mut self,
        fd: BorrowedFd<'_>,
        rooms: &mut [u8],
        (n, stride): (usize, usize),
    ) -> impl Iterator<Item = Result<usize, Errno>> + use<> {
        let fd = types::Fd(fd.as_raw_fd());
        let entries = rooms.chunks_exact_mut(stride).take(n).map(|room| {
            opcode::Read::new(fd, room.as_mut_ptr(), room.len() as u32)
                .rw_flags(libc::RWF_NOWAIT)
                .build()
        });
        // SAFETY: the entries refer to parts of `rooms`, which we hold mutably and which do not
        // overlap; `fd` is open while it is borrowed.
        let n = unsafe { self.run(entries) };
        let results: ArrayVec<i32, BURST> = self.results[..n].iter().copied().collect();
        results.into_iter().map(outcome)
    }

    /// Only while it [works](Uring::works). Submits these, at most [`BURST`], and waits until all of them are done; returns how many
    /// there were.
    ///
    /// # Safety
    /// What they refer to is valid for the kernel's use until this returns.
    unsafe fn run(&mut self, entries: impl Iterator<Item = squeue::Entry>) -> usize {
        let mut n = 0;
        let mut queue = self.ring.submission();
        for entry in entries.take(BURST) {
            // SAFETY: valid until this returns, says the caller, and this returns only when nothing
            // is in flight.
            let pushed = unsafe { queue.push(&entry.user_data(n as u64)) };
            pushed.expect("the queue was empty and has room for a burst");
            n += 1;
        }
        drop(queue);
        self.results[..n].fill(-libc::EIO);
        let mut left = n;
        while left > 0 {
            let failed = self.ring.submit_and_wait(left).err();
            for done in self.ring.completion() {
                self.results[done.user_data() as usize] = done.result();
                left -= 1;
            }
            let errno = failed.and_then(|error| error.raw_os_error());
            if let Some(errno) =
                errno.filter(|e| ![libc::EINTR, libc::EAGAIN, libc::EBUSY].contains(e))
            {
                // What the kernel has taken will be done; the rest it has never seen.
                let untouched = self.ring.submission().len();
                if left <= untouched {
                    self.broken = Some(Errno::from_raw(errno));
                    break;
                }
            }
        }
        n
    }

    /// Whether it can be used: nothing may be submitted once the kernel has refused to go on.
    pub(super) fn works(&self) -> bool {
        self.broken.is_none()
    }
}

fn outcome(result: i32) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::from_raw(-result))
}
