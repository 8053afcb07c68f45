//! Transparent offload: what ordinary `tc`, `bridge` or Open vSwitch put on representors is done in
//! hardware, as with a switchdev driver, where the result is what the kernel alone would have given.
//!
//! A thread listens to the kernel (`listen`), keeps a picture of it (`mirror`, out of messages that
//! `link`, `bridge_db` and `way` read), and whenever that or the NIC has changed, makes a plan
//! (`plan`) of the rules that are to be there: for filters `tc`, `tunnel` and `effect`, for addresses
//! of bridges `bridge`. The NIC takes over the difference (`nic::kernel`). Plans are pure and made from
//! scratch, so that what they say depends on the kernel's state alone, not on how it came about.
//!
//! docs/offload.md says what is offloaded and what is not.

mod bridge;
mod bridge_db;
mod effect;
mod link;
mod listen;
mod mirror;
mod plan;
mod tc;
#[cfg(test)]
mod tests;
mod tunnel;
mod way;

pub use listen::Offload;
pub(crate) use plan::{Basis, KernelPort, Listed, Part, Plan, RuleKey, Source};
