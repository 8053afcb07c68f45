//! One driver layer for container channels: the same calls whatever NIC is underneath.
//!
//! | module | what lives there |
//! |---|---|
//! | [`nic`] | trait [`Nic`]: what can be asked of a device, and the plain data it answers with |
//! | [`device`] | addresses of devices, finding and opening them |
//! | [`feature`] | what not every device can do |
//! | [`transport`] | the way to the kernel, or to whoever plays it |
//! | [`backend`] | the backends that drive a device through the kernel |
//! | [`emulator`] | the backend for `chanio-emu`, over its control socket |
//! | [`pcapng`] | captured frames as a file |
//! | [`trace`] | packets to be traced |
//! | [`demo`] | a whole NIC with traffic in one process |

pub mod backend;
pub mod demo;
pub mod device;
pub mod emulator;
pub mod error;
pub mod feature;
pub mod nic;
pub mod pcapng;
pub mod trace;
pub mod transport;

pub use device::DeviceAddress;
pub use error::DeviceError;
pub use feature::Feature;
pub use nic::Nic;
