//! The NIC as control sees it. Every request, from the CLI, the API or the config file, ends in a
//! method of [`Nic`](spec) that either does all of it or refuses with a reason and changes nothing.

pub mod error;
pub mod spec;

pub use error::Refused;
