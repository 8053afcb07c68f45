//! The netlink messages that NIC drivers are driven with: devlink, ethtool, and tc's flower,
//! matchall and actions, each as a plain struct that parses from and emits to the kernel's bytes.
//!
//! What is here is what `netlink-packet-route` and its sisters lack; links, addresses and
//! neighbours are theirs. A family of messages is a list of attribute numbers ([`attr::AttrSet`],
//! named as in its uapi header) and structs declared field by field beside the attribute that
//! carries it, so that parsing and emitting cannot disagree. Nothing here does I/O.

mod anything;
pub mod attr;
pub mod devlink;
mod error;
pub mod ethtool;
pub mod genl;
pub mod kernel;
pub mod message;
pub mod played;
pub mod route;
pub mod tc;

pub use anything::parse_anything;
pub use error::{Error, Result};

#[cfg(test)]
mod round_trip;
