//! Why the NIC refuses, in the kernel's terms.

use super::vendor::Vendor;
use crate::nic::Refused;
use chanio_model::profile;
use chanio_netlink::kernel::Refusal;

impl Vendor {
    /// A refusal of the driver, whose name its words begin with (NL_SET_ERR_MSG_MOD).
    pub fn refuse(&self, errno: i32, words: &str) -> Refusal {
        Refusal::text(errno, format!("{}: {words}", self.driver))
    }

    /// What the NIC refused.
    pub fn refusal(&self, refused: &Refused) -> Refusal {
        let errno = match refused {
            Refused::Invalid { .. }
            | Refused::Rule(_)
            | Refused::Rate(_)
            | Refused::Rss(_)
            | Refused::Receive(_) => libc::EINVAL,
            Refused::PoolExhausted { .. } | Refused::Profile(profile::Refusal::Limit { .. }) => {
                libc::ENOSPC
            }
            Refused::DuplicateName(_) => libc::EEXIST,
            Refused::DuplicateMac { .. } => libc::EADDRINUSE,
            Refused::NoChannel(_) | Refused::NoVport(_) | Refused::ShuttingDown => libc::ENODEV,
            Refused::NoRule(_) | Refused::NoFdbEntry { .. } => libc::ENOENT,
            Refused::WrongMode { .. } => libc::EOPNOTSUPP,
            Refused::Profile(profile::Refusal::Unsupported { text, .. }) => {
                return self.refuse(libc::EOPNOTSUPP, text);
            }
            Refused::Missing { .. } => libc::EPERM,
            Refused::Os { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
        };
        self.refuse(errno, &refused.to_string())
    }
}

/// A refusal of the kernel's own, in its words.
pub fn text(errno: i32, words: &str) -> Refusal {
    Refusal::text(errno, words)
}

/// EOPNOTSUPP.
pub fn unsupported() -> Refusal {
    Refusal::errno(libc::EOPNOTSUPP)
}
