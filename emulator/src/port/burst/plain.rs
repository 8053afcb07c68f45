//! One frame, one system call.

use super::{Gathering, Outcomes};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Writes each frame by itself.
pub(super) fn write_each(fd: BorrowedFd<'_>, frames: &Gathering<'_, '_>, sent: &mut Outcomes) {
    sent.extend(frames.iter().map(|pieces| {
        // SAFETY: every piece can be read while `frames` is borrowed (`Gathering`), and there are so
        // many. Memory whose file was truncated makes the call fail with EFAULT.
        let written =
            unsafe { libc::writev(fd.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int) };
        Errno::result(written).map(drop)
    }));
}
