//! Network namespaces of containers.

use crate::nic::Refused;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where `ip netns` keeps its names.
pub const NETNS_DIR: &str = "/run/netns";

/// Opens a namespace: a name as in `ip netns`, or an absolute path such as /proc/PID/ns/net.
///
/// # Errors
/// [`Refused::Invalid`]: there is none. [`Refused::Missing`]: no permission.
pub fn open(netns: &str) -> Result<OwnedFd, Refused> {
    let invalid = |allowed: String| Refused::Invalid {
        field: "attach",
        value: format!("netns `{netns}`"),
        allowed,
    };
    let path: PathBuf = if netns.starts_with('/') {
        netns.into()
    } else if netns.is_empty() || netns.contains('/') || netns == "." || netns == ".." {
        return Err(invalid(
            "a name as in `ip netns`, or an absolute path".into(),
        ));
    } else {
        Path::new(NETNS_DIR).join(netns)
    };
    // Non-blocking, so that a FIFO in the way cannot hold us up.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path);
    file.map(OwnedFd::from).map_err(|err| match err.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => invalid(format!(
            "a network namespace that exists ({} does not)",
            path.display()
        )),
        io::ErrorKind::PermissionDenied => Refused::Missing {
            what: format!("netns `{netns}`"),
            why: format!(
                "no permission to open {}: CAP_SYS_PTRACE or root",
                path.display()
            ),
        },
        _ => Refused::os(format!("opening {}", path.display()), err),
    })
}

pub(super) fn no_entry(netns: &str) -> Refused {
    Refused::Missing {
        what: format!("netns `{netns}`"),
        why: "CAP_SYS_ADMIN and CAP_NET_ADMIN, here and in its owner's user namespace".into(),
    }
}

/// Whether the calling thread is in this namespace: there is one file for each.
pub(super) fn is_here(netns: BorrowedFd<'_>) -> bool {
    let here = nix::sys::stat::stat("/proc/thread-self/ns/net");
    let there = nix::sys::stat::fstat(netns);
    matches!((here, there), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// Runs `work` in the namespace: here, if this is it, and otherwise on a thread of its own that has
/// entered it; threads, not processes, are in namespaces, and this one ends here.
///
/// # Errors
/// Those of `work`, and [`Refused::Invalid`] or [`Refused::Missing`] for what cannot be entered.
pub fn inside<T: Send>(
    netns: BorrowedFd<'_>,
    name: &str,
    work: impl FnOnce() -> Result<T, Refused> + Send,
) -> Result<T, Refused> {
    if is_here(netns) {
        return work();
    }
    let enter_and_work = || {
        setns(netns, CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
            Errno::EINVAL => Refused::Invalid {
                field: "attach",
                value: format!("netns `{name}`"),
                allowed: "a network namespace".into(),
            },
            Errno::EPERM => no_entry(name),
            errno => Refused::os(format!("entering netns `{name}`"), errno),
        })?;
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into());
        let thread = thread
            .spawn_scoped(scope, enter_and_work)
            .map_err(|e| Refused::os("starting a thread", e))?;
        let died = || {
            Refused::os(
                "working in a netns",
                io::Error::other("the thread panicked"),
            )
        };
        thread.join().unwrap_or_else(|_| Err(died()))
    })
}
