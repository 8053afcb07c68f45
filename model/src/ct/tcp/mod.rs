//! TCP connections as a middle box sees them, after nf_conntrack_proto_tcp.c of Linux 6.1.
//!
//! | file | what lives there |
//! |---|---|
//! | `segment` | one segment's header and the options that matter |
//! | `state` | which state follows on which segment |
//! | `window` | whether a segment fits what both ends have said so far |
//! | `track` | one segment: the three put together |

mod segment;
mod state;
mod track;
mod window;

pub(super) use segment::Segment;
#[cfg(any(test, feature = "testing"))]
pub(super) use segment::flag;
pub use state::TcpState;
pub(super) use track::{Context, Tcp};
