//! Raising a call that a hostile peer cannot make block.
//!
//! write(2) on an eventfd blocks while its counter is full, unless O_NONBLOCK is set; the peer can
//! fill the counter and clear that flag, which belongs to the shared description, and so stop a
//! worker and with it everybody else's channels. Asking poll(2) first leaves a window that a
//! determined peer will hit.
//!
//! The kernel itself never blocks when *it* signals an eventfd, as it does when an asynchronous
//! request completes. So a call is raised by submitting one: a read of nothing from /dev/null with
//! the call as its completion eventfd (linux/aio_abi.h, IOCB_FLAG_RESFD). It completes during
//! io_submit(2), which also takes many at once: the calls of a whole burst are one system call,
//! where poll and write would be two for each.
//!
//! Where the kernel lacks AIO or a filter forbids it, poll and write with O_NONBLOCK remain, with
//! that window: a peer that clears O_NONBLOCK and fills the counter between the two stops the
//! worker until it drains the counter. [`Notifier::is_safe`] says which one is in use.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::event::Call;

/// Calls raised by one system call.
const BATCH: usize = 32;
/// Completions the context holds; they are thrown away before it is full.
const COMPLETIONS: usize = 256;

/// A control block of linux/aio_abi.h, little-endian layout.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buf: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

const IOCB_CMD_PREAD: u16 = 0;
const IOCB_FLAG_RESFD: u32 = 1;

/// A completion of linux/aio_abi.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct IoEvent {
    data: u64,
    obj: u64,
    res: i64,
    res2: i64,
}

/// Raises calls. One per worker.
#[derive(Debug)]
pub struct Notifier {
    null: File,
    /// The kernel's AIO context; `None` where there is none to be had.
    context: Option<libc::c_ulong>,
    /// Completions not thrown away yet.
    completed: usize,
}

impl Notifier {
    /// Opens /dev/null and sets up an AIO context if it can.
    ///
    /// # Errors
    /// If /dev/null cannot be opened.
    pub fn new() -> std::io::Result<Self> {
        let null = File::open("/dev/null")?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: io_setup only writes the context id, to a variable that is 0 as it must be.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_setup,
                COMPLETIONS as libc::c_long,
                &raw mut context,
            )
        };
        let context = match Errno::result(result) {
            Ok(_) => Some(context),
            Err(errno) => {
                tracing::warn!(%errno, "no AIO: a hostile peer may delay calls of its worker");
                None
            }
        };
        Ok(Notifier {
            null,
            context,
            completed: 0,
        })
    }

    /// Whether no peer can make a call block.
    pub fn is_safe(&self) -> bool {
        self.context.is_some()
    }

    /// Raises one call. A counter that is full stays full: the peer has calls enough.
    ///
    /// # Errors
    /// What the kernel answers; nothing a peer can cause.
    #[inline]
    pub fn notify(&mut self, call: &Call) -> Result<(), Errno> {
        self.notify_all(std::iter::once(call))
    }

    /// Raises each of `calls`, many at once.
    ///
    /// # Errors
    /// As [`Notifier::notify`], for the first that fails; the others are raised all the same,
    /// unless AIO itself refuses.
    pub fn notify_all<'c>(
        &mut self,
        calls: impl IntoIterator<Item = &'c Call>,
    ) -> Result<(), Errno> {
        let Some(context) = self.context else {
            let mut result = Ok(());
            for call in calls {
                result = result.and(poll_and_write(call));
            }
            return result;
        };
        let mut blocks = [Iocb::default(); BATCH];
        let mut n = 0;
        for call in calls {
            if n == BATCH {
                self.submit(context, &mut blocks)?;
                n = 0;
            }
            blocks[n] = Iocb {
                opcode: IOCB_CMD_PREAD,
                fd: self.null.as_raw_fd() as u32,
                flags: IOCB_FLAG_RESFD,
                resfd: call.as_fd().as_raw_fd() as u32,
                ..Iocb::default()
            };
            n += 1;
        }
        self.submit(context, &mut blocks[..n])
    }

    fn submit(&mut self, context: libc::c_ulong, blocks: &mut [Iocb]) -> Result<(), Errno> {
        let mut pointers = [std::ptr::null_mut(); BATCH];
        for (pointer, block) in pointers.iter_mut().zip(blocks.iter_mut()) {
            *pointer = std::ptr::from_mut(block);
        }
        let mut done = 0;
        while done < blocks.len() {
            if self.completed + blocks.len() > COMPLETIONS {
                self.discard(context)?;
            }
            let rest = &pointers[done..blocks.len()];
            // SAFETY: `rest` points at that many pointers to control blocks, all live and exclusive
            // here; each reads no bytes, so the kernel accesses no other memory of ours.
            let result =
                unsafe { libc::syscall(libc::SYS_io_submit, context, rest.len(), rest.as_ptr()) };
            let n = Errno::result(result)? as usize;
            if n == 0 {
                return Err(Errno::EAGAIN);
            }
            done += n;
            self.completed += n;
        }
        Ok(())
    }

    fn discard(&mut self, context: libc::c_ulong) -> Result<(), Errno> {
        let mut events = [IoEvent::default(); COMPLETIONS];
        let now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: room for as many events as are asked for; does not wait.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                context,
                0 as libc::c_long,
                COMPLETIONS as libc::c_long,
                events.as_mut_ptr(),
                &raw const now,
            )
        };
        Errno::result(result)?;
        self.completed = 0;
        Ok(())
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        if let Some(context) = self.context {
            // SAFETY: the context is ours and has no requests under way: they complete at once.
            unsafe { libc::syscall(libc::SYS_io_destroy, context) };
        }
    }
}

fn poll_and_write(call: &Call) -> Result<(), Errno> {
    let flags = OFlag::from_bits_retain(fcntl(call, FcntlArg::F_GETFL)?);
    if !flags.contains(OFlag::O_NONBLOCK) {
        fcntl(call, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    }
    let mut fds = [PollFd::new(call.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut fds, PollTimeout::ZERO)? == 0 {
        return Ok(());
    }
    match nix::unistd::write(call, &1u64.to_ne_bytes()) {
        Ok(_) | Err(Errno::EAGAIN) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    use nix::sys::eventfd;

    use crate::ring::event::EventFd;

    fn pair() -> (eventfd::EventFd, Call) {
        let client = eventfd::EventFd::new().unwrap();
        let ours = client.as_fd().try_clone_to_owned().unwrap();
        (client, Call::new(EventFd::new(ours).unwrap()))
    }

    #[test]
    fn calls_arrive() {
        let mut notifier = Notifier::new().unwrap();
        let (client, call) = pair();
        // More than the context holds completions.
        for _ in 0..3 * COMPLETIONS {
            notifier.notify(&call).unwrap();
        }
        assert_eq!(client.read().unwrap(), 3 * COMPLETIONS as u64);
    }

    #[test]
    fn batches_of_any_size_reach_everybody() {
        let mut notifier = Notifier::new().unwrap();
        let pairs: Vec<_> = (0..100).map(|_| pair()).collect();
        for n in [0, 1, BATCH, BATCH + 1, 100] {
            notifier
                .notify_all(pairs[..n].iter().map(|p| &p.1))
                .unwrap();
        }
        for (i, (client, _)) in pairs.iter().enumerate() {
            let expected = [1, BATCH, BATCH + 1, 100]
                .iter()
                .filter(|&&n| i < n)
                .count();
            assert_eq!(client.read().unwrap(), expected as u64, "eventfd {i}");
        }
    }

    #[test]
    fn works_without_aio() {
        let mut notifier = Notifier::new().unwrap();
        let aio = notifier.context.take();
        let (client, call) = pair();
        notifier.notify(&call).unwrap();
        assert_eq!(client.read().unwrap(), 1);
        client.write(u64::MAX - 1).unwrap();
        notifier.notify(&call).unwrap();
        notifier.context = aio;
    }

    /// The peer's attack: a full counter on a blocking description.
    #[test]
    fn a_full_blocking_counter_does_not_stop_it() {
        let (done, wait) = mpsc::channel();
        std::thread::spawn(move || {
            let mut notifier = Notifier::new().unwrap();
            if !notifier.is_safe() {
                return done.send(()).unwrap();
            }
            let (client, call) = pair();
            client.write(u64::MAX - 1).unwrap();
            let flags = fcntl(&client, FcntlArg::F_GETFL).unwrap();
            assert_eq!(flags & libc::O_NONBLOCK, 0);
            for _ in 0..2 * COMPLETIONS {
                notifier.notify(&call).unwrap();
            }
            done.send(()).unwrap();
        });
        wait.recv_timeout(Duration::from_secs(20))
            .expect("the notifier is stuck");
    }
}
