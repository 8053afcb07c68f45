//! Notifications of the program's system calls (linux/seccomp.h, SECCOMP_IOCTL_NOTIF_*).

use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A system call that waits for us to say what it returns.
#[derive(Clone, Copy, Debug)]
pub struct Stopped {
    /// Names it.
    pub id: u64,
    /// The thread that makes it.
    pub thread: u32,
    /// Its number.
    pub call: libc::c_long,
    /// Its arguments.
    pub args: [u64; 6],
}

/// Where calls are told.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// From the descriptor that the filter came with.
    pub fn new(fd: OwnedFd) -> Self {
        Listener(fd)
    }

    /// To wait on.
    pub fn fd(&self) -> impl AsFd + '_ {
        self.0.as_fd()
    }

    /// The next call; none if the thread that made it is gone already.
    pub fn receive(&self) -> io::Result<Option<Stopped>> {
        // SAFETY: all zeroes is an empty notification, as the kernel wants it.
        let mut told: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one notification.
        match unsafe { self.ioctl(libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut told) } {
            Ok(_) => {}
            Err(Errno::ENOENT | Errno::EINTR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        let (call, args) = (told.data.nr.into(), told.data.args);
        Ok(Some(Stopped {
            id: told.id,
            thread: told.pid,
            call,
            args,
        }))
    }

    /// Whether the call still waits: what was read of the thread's memory was its own.
    pub fn waits(&self, stopped: &Stopped) -> bool {
        let mut id = stopped.id;
        // SAFETY: the kernel reads one number.
        unsafe { self.ioctl(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw mut id) }.is_ok()
    }

    /// The call returns this.
    pub fn finish(&self, stopped: &Stopped, result: Result<u64, Errno>) -> io::Result<()> {
        let (val, error) = match result {
            Ok(value) => (value.cast_signed(), 0),
            Err(errno) => (0, -(errno as i32)),
        };
        self.respond(libc::seccomp_notif_resp {
            id: stopped.id,
            val,
            error,
            flags: 0,
        })
    }

    /// The kernel carries the call out.
    pub fn resume(&self, stopped: &Stopped) -> io::Result<()> {
        let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        self.respond(libc::seccomp_notif_resp {
            id: stopped.id,
            val: 0,
            error: 0,
            flags,
        })
    }

    /// The call returns this file under this number in the program, or the lowest free one.
    pub fn finish_with_file(
        &self,
        stopped: &Stopped,
        file: &OwnedFd,
        number: Option<u32>,
        close_on_exec: bool,
    ) -> io::Result<()> {
        let set = number.map_or(0, |_| libc::SECCOMP_ADDFD_FLAG_SETFD);
        let mut add = libc::seccomp_notif_addfd {
            id: stopped.id,
            flags: (set | libc::SECCOMP_ADDFD_FLAG_SEND) as u32,
            srcfd: file.as_raw_fd().cast_unsigned(),
            newfd: number.unwrap_or(0),
            newfd_flags: if close_on_exec {
                libc::O_CLOEXEC as u32
            } else {
                0
            },
        };
        // SAFETY: the kernel reads one request.
        match unsafe { self.ioctl(libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw mut add) } {
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            // The program's limit on open files is lower than our numbers.
            Err(Errno::EBADF | Errno::EMFILE) => self.finish(stopped, Err(Errno::EMFILE)),
            Err(errno) => Err(errno.into()),
        }
    }

    fn respond(&self, mut response: libc::seccomp_notif_resp) -> io::Result<()> {
        // SAFETY: the kernel reads one response.
        match unsafe { self.ioctl(libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) } {
            // The thread was interrupted or killed meanwhile.
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// # Safety
    /// The request must be one that reads or writes a `T`.
    unsafe fn ioctl<T>(&self, request: libc::Ioctl, argument: *mut T) -> Result<i32, Errno> {
        // SAFETY: by the caller, and the argument is a live `T`.
        Errno::result(unsafe { libc::ioctl(self.0.as_raw_fd(), request, argument) })
    }
}
