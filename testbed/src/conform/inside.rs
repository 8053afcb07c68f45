//! Work done in another network namespace.

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io;
use std::path::Path;

/// Runs `work` on a thread that has moved to the network namespace at `path`. Sockets made there
/// stay there.
///
/// # Errors
/// There is no such namespace, or this process may not enter it.
///
/// # Panics
/// If `work` does.
pub fn inside<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let netns = File::open(path)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        });
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
