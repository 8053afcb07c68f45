//! Network namespaces of containers.

use crate::DeviceError;
use chanio_emu::port::netns;
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// An open network namespace.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: OwnedFd,
}

impl Netns {
    /// A name as in `ip netns`, or an absolute path such as /proc/PID/ns/net.
    ///
    /// # Errors
    /// There is none, or it may not be opened.
    pub fn open(name: &str) -> Result<Self, DeviceError> {
        let refused = |e: chanio_emu::nic::Refused| DeviceError::Refused {
            reason: e.to_string(),
        };
        Ok(Netns {
            name: name.to_owned(),
            file: netns::open(name).map_err(refused)?,
        })
    }

    /// A new one without a name, which ends with what is returned.
    ///
    /// # Errors
    /// CAP_SYS_ADMIN is missing.
    pub fn scratch() -> Result<Self, DeviceError> {
        // Threads are in namespaces: one goes there, and leaves what it has opened.
        let make = || -> std::io::Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        };
        let refused = |error: std::io::Error| DeviceError::Refused {
            reason: format!("making a network namespace: {error}"),
        };
        let thread = std::thread::Builder::new().spawn(make).map_err(refused)?;
        let died = |_| Err(std::io::Error::other("the thread panicked"));
        Ok(Netns {
            name: "scratch".into(),
            file: thread.join().unwrap_or_else(died).map_err(refused)?,
        })
    }

    /// As it was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespaces that `ip netns` knows, in order.
    pub fn names() -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(netns::NETNS_DIR) else {
            return Vec::new();
        };
        let names = entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
