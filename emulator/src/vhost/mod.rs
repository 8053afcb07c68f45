//! vhost-user sessions: the protocol between a channel and the VM, DPDK program or container that
//! drives it.

mod device;

pub use device::{Device, RingIndex, RingStart};
