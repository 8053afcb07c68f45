//! A pure model of a multi-queue NIC with an embedded switch.
//!
//! Everything here is a function of its arguments: no I/O, no clock (time is an argument in
//! nanoseconds), no threads and no allocation per packet. The emulator drives it; property tests
//! hold each fast path against a simple reference.
//!
//! | module | what lives there |
//! |---|---|
//! | [`ids`] | names and numbers that are right by construction: MAC, VLAN, vport, channel name |
//! | [`drop_reason`] | one entry per way to lose a packet |
//! | [`wire`] | header views, the parser that makes a [`flow::FlowKey`], checksums |
//! | [`offload`] | the virtio-net header; checksum and segmentation in software |
//! | [`flow`] | match, action and rule types; the tables and their linear reference |
//! | [`ct`] | connection tracking and NAT |
//! | [`meter`] | tc's police: byte and packet rates |
//! | [`edit`] | rewriting a packet: tags, fields, checksums, tunnels, translated addresses |
//! | [`profile`] | what kinds of NIC can do, and the rules they refuse |
//! | [`rate`] | how fast channels may send: ceilings, shares and weights in a tree |
//! | [`rss`] | receive-side scaling: the Toeplitz hash, hash types, the indirection table |
//! | [`eswitch`] | the switch: legacy FDB, switchdev tables, what to do with one packet |

pub mod ct;
pub mod drop_reason;
pub mod edit;
pub mod eswitch;
pub mod flow;
mod hash;
pub mod ids;
pub mod meter;
pub mod offload;
pub mod profile;
pub mod rate;
pub mod rss;
pub mod steer;
#[cfg(test)]
mod testing;
pub mod wire;

pub use drop_reason::DropReason;
pub use ids::{ChannelName, Mac, Nanos, RuleId, Vlan, VportId};
