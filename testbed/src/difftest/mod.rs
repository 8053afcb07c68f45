//! The eswitch held against the kernel: the same rules and the same packets through tc flower in a
//! guest, and through the model.
//!
//! | file | what lives there |
//! |---|---|
//! | [`frame`], [`rule`], [`case`] | random frames and rules out of one small world |
//! | `act` | what random rules do |
//! | [`carried`] | frames in tunnels, and keys for their outer headers |
//! | [`tunnel`] | what rules with tunnels need |
//! | [`tracked`] | conversations, and rules that track them |
//! | [`wish`] | random decisions |
//! | [`tc`] | a rule in tc's words |
//! | [`eswitch`], [`kernel_case`] | a case through either side |
//! | [`compare`] | whether both did the same, and where they are meant not to |
//! | [`explore`] | many cases, and the smallest that differs |
//! | [`protocol`] | orders and reports, between this machine and the guest |
//! | [`agent`], [`tc_shell`] | the program in the guest |
//! | [`running`] | a case through a running NIC |
//! | [`kernel`] | a guest that takes orders |

mod act;
pub mod agent;
pub mod carried;
pub mod case;
pub mod compare;
pub mod eswitch;
pub mod explore;
pub mod frame;
pub mod kernel;
pub mod kernel_case;
pub mod protocol;
pub mod rule;
pub mod running;
pub mod tc;
pub mod tc_shell;
pub mod tracked;
pub mod tunnel;
pub mod wish;
