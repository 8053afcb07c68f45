//! The switch: what becomes of one packet.
//!
//! | file | what lives there |
//! |---|---|
//! | `config` | modes, a vport's settings, the driver's receive filter |
//! | `change` | what can change about a switch |
//! | `ports` | the vports and who is reached by a flood |
//! | `fdb` | learned and static addresses of legacy mode |
//! | `output` | what goes in beside the key, and what comes out |
//! | `switch` | the decision |
//! | `cache` | decisions kept for the next packet of a flow |

mod cache;
mod change;
mod config;
mod fdb;
mod output;
mod ports;
mod switch;

pub use cache::{FlowCache, Slot};
pub use change::{Change, ChangeError, MAX_VPORTS};
pub use config::{Mode, RxFilter, RxMode, VlanSet, VportConfig};
pub use fdb::{Fdb, FdbEntry, FdbLimits, LearnOutcome, StaticConflict};
pub use output::{Dest, Meta, Output, Outputs, VlanOp};
pub use switch::{MAX_JUMPS, Switch};
