//! One driver layer for container channels: the same calls whatever NIC is underneath.
//!
//! | module | what lives there |
//! |---|---|
//! | [`nic`] | trait [`Nic`]: what can be asked of a device, and the plain data it answers with |
//! | [`device`] | addresses of devices, finding and opening them |
//! | [`emulator`] | the backend for `chanio-emu`, over its control socket |
//! | [`pcapng`] | captured frames as a file |
//! | [`trace`] | packets to be traced |
//! | [`demo`] | a whole NIC with traffic in one process |

pub mod demo;
pub mod device;
pub mod emulator;
pub mod error;
pub mod nic;
pub mod pcapng;
pub mod trace;

pub use device::DeviceAddress;
pub use error::DeviceError;
pub use nic::Nic;
