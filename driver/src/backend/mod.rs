//! Backends for devices that are driven through the kernel, or through an emulator that plays it.
//! None keeps state beside the kernel's: a channel's name is the ifalias of its representor.
//!
//! | module | device |
//! |---|---|
//! | [`pci`] | NICs by devlink, tc and /sys; netdevsim |
//! | [`veth`] | veth pairs and a bridge, where there is no hardware |
//!
//! What they share: `wanted` checks what was asked for, `undo` undoes what was done when a step
//! fails, `route` and `link` are rtnetlink, `container` is netdevs in other namespaces, `flower`
//! flow rules, `software` what they need where the kernel carries them out, `ports` the ports that
//! they name, and `ethtool`, `features` and `rss` settings of netdevs.

mod container;
mod devlink;
mod discover;
mod ethtool;
mod features;
mod flower;
mod link;
pub mod pci;
mod ports;
mod route;
mod rss;
mod software;
mod stats;
mod sysfs;
mod undo;
pub mod veth;
mod wanted;

pub(crate) use discover::discover;
