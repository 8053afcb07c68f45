//! Connection tracking and address translation: what tc's `ct` action does (act_ct.c,
//! nf_conntrack, nf_nat of Linux 6.1), as a table that workers share. docs/ct.md tells how it
//! differs from the kernel.
//!
//! | file | what lives there |
//! |---|---|
//! | [`action`](CtAction) | what rules ask for, and what is to be rewritten |
//! | [`packet`](CtPacket) | what tracking sees of a packet |
//! | [`tracked`](Tracked) | what it says of one |
//! | `tuple` | who sends to whom |
//! | `config` | limits and timeouts |
//! | `tcp`, `sctp`, `icmp` | what belongs to a connection, by protocol |
//! | `entry` | one connection |
//! | `nat` | what a connection is translated to |
//! | [`listing`](CtEntry) | looking at connections |
//! | `store` | where connections are kept |
//! | [`conntrack`](Conntrack) | one packet through it all |

mod action;
#[cfg(test)]
mod behaviour;
mod config;
mod conntrack;
#[cfg(any(test, feature = "testing"))]
pub mod conversation;
mod entry;
mod icmp;
mod listing;
mod nat;
mod packet;
#[cfg(test)]
mod reference;
mod sctp;
mod store;
mod tcp;
mod tracked;
mod tuple;
mod verdict;

pub use action::{CtAction, CtNat, CtSpec, NatEnd, NatRange, NatRangeError, NatRewrite};
pub use config::{CtConfig, SctpTimeouts, TcpConfig, TcpTimeouts};
pub use conntrack::Conntrack;
pub use entry::CtCounters;
pub use listing::CtEntry;
pub use packet::CtPacket;
pub use sctp::SctpState;
pub use tcp::TcpState;
pub use tracked::Tracked;
pub use tuple::Tuple;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// As the first packet of its connection.
    #[default]
    Original,
    /// Against it.
    Reply,
}

impl Direction {
    #[inline]
    fn index(self) -> usize {
        self as usize
    }

    #[inline]
    fn opposite(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}
