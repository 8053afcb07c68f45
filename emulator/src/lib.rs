//! A multi-queue NIC with an embedded switch, in software.
//!
//! | module | what lives there |
//! |---|---|
//! | [`nic`] | the NIC as control sees it: channels, eswitch, rules; every request ends here |
//! | [`vhost`] | vhost-user sessions: one event loop for all sockets |
//! | [`port`] | what stands behind a vport: channel, representor, uplink; the netdevs they need |
//! | [`ring`] | guest memory and virtqueues, device side: the only hot unsafe code |

pub mod nic;
pub mod port;
pub mod ring;
pub mod vhost;
