//! The eswitch held against the kernel: the same rules and the same packets through tc flower in a
//! guest, and through the model.
//!
//! | file | what lives there |
//! |---|---|
//! | [`protocol`] | orders and reports, between this machine and the guest |
//! | [`agent`], [`tc_shell`] | the program in the guest |
//! | [`kernel`] | a guest that takes orders |

pub mod agent;
pub mod kernel;
pub mod protocol;
pub mod tc_shell;
