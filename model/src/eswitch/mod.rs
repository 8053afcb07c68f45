//! The switch: what becomes of one packet.
//!
//! | file | what lives there |
//! |---|---|
//! | `config` | modes, a vport's settings, the driver's receive filter |
//! | `receive` | what a channel receives, as control sets it |
//! | `change` | what can change about a switch |
//! | `ports` | the vports and who is reached by a flood |
//! | `fdb` | learned and static addresses of legacy mode |
//! | `output` | what goes in beside the key, and what comes out |
//! | `switch` | the configuration; where each packet enters |
//! | `bridge` | legacy mode |
//! | `walk`, `act` | switchdev mode: from chain to chain, from action to action |
//! | `view` | what is inside a tunnel |
//! | `heads` | the first bytes of rewritten packets |
//! | `probe` | watching a packet on its way |
//! | `cache`, `cached` | decisions kept for the next packet of a flow |

mod act;
mod bridge;
mod cache;
mod cached;
mod change;
mod config;
mod fdb;
mod heads;
mod output;
mod ports;
mod probe;
mod receive;
mod switch;
mod view;
mod walk;

pub use cache::{FlowCache, Slot};
pub use change::{Change, ChangeError, MAX_VPORTS};
pub use config::{Mode, RxFilter, RxMode, VlanSet, VportConfig};
pub use fdb::{Fdb, FdbEntry, FdbLimits, LearnOutcome, StaticConflict};
pub use heads::{HeadId, Heads};
pub use output::{Arriving, Dest, Meta, Output, Outputs, VlanOp};
pub use probe::{NoProbe, Probe};
pub use receive::{MAX_ADDRESSES, Receive, ReceiveChange, ReceiveError, VlanSetError};
pub use switch::Switch;
pub use walk::MAX_JUMPS;
