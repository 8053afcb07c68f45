//! What becomes of a packet and of its connection.

use crate::Nanos;

/// What a protocol's tracker says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It belongs to the connection.
    Accept {
        /// How long the connection may be silent from now on, if that changes.
        timeout: Option<Nanos>,
        /// It is a real connection now: not to be dropped for others.
        assured: bool,
    },
    /// It belongs to no connection. The connection's timeout, if given, is lowered to that.
    Invalid { at_most: Option<Nanos> },
    /// The connection is over and the packet opens a new one.
    Reopen,
    /// It belongs to the connection, which ends with it.
    Kill,
}

impl Verdict {
    /// Accepted, and nothing changes.
    pub const AS_IT_WAS: Self = Self::Accept {
        timeout: None,
        assured: false,
    };
    /// Nothing but that.
    pub const INVALID: Self = Self::Invalid { at_most: None };

    /// Accepted; so long until it expires.
    pub fn lasts(timeout: Nanos) -> Self {
        Self::Accept {
            timeout: Some(timeout),
            assured: false,
        }
    }
}
