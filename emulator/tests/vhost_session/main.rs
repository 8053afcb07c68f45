//! vhost-user sessions as their clients see them: real sockets, the `vhost` crate's frontend, and
//! clients that break the rules.

mod control;
mod fixture;
mod hostile;
mod many;
mod negotiation;
mod packed;
mod rings;
mod sockets;
