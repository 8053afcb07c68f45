//! Unmodified programs ask, somebody else answers: what they ask is what chanio-netlink asks for
//! the same.

mod actions;
mod basics;
mod devlink;
mod ethtool;
mod filters;
mod flower;
mod links;
mod recorder;
