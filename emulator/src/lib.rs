//! A multi-queue NIC with an embedded switch, in software.
//!
//! | module | what lives there |
//! |---|---|
//! | [`nic`] | the NIC as control sees it: channels, eswitch, rules; every request ends here |
//! | [`control`] | the control API |
//! | [`config`] | the config file, and changing to another one |
//! | [`daemon`] | the process: start, ready, signals |
//! | [`datapath`] | the path of a packet and the threads that walk it |
//! | [`capture`] | frames shown to whoever asks |
//! | `offload` | what the kernel's tc and bridges do with representors, done in hardware |
//! | [`port`] | what stands behind a vport: channel, representor, uplink; the netdevs they need |
//! | [`netlink`] | the kernel, played: devlink, rtnetlink and sysfs as a NIC's driver has them |
//! | [`vhost`] | vhost-user sessions: one event loop for all sockets |
//! | [`ring`] | guest memory and split virtqueues |

pub mod capture;
pub mod config;
pub mod control;
pub mod daemon;
pub mod datapath;
pub mod frontend;
pub mod netlink;
pub mod nic;
mod offload;
pub mod port;
pub mod ring;
pub mod vhost;
