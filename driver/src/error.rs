//! Why a device did not do what it was asked.

/// A request that was not carried out; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The device says no, in its own words.
    #[error("{reason}")]
    Refused {
        /// Field, value, and what would be allowed.
        reason: String,
    },
    /// This kind of device, or this build, cannot do that.
    #[error("{what} is not supported: {why}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Why not.
        why: String,
    },
    /// The device does not answer.
    #[error("{address}: {why}")]
    Unreachable {
        /// The device.
        address: String,
        /// What went wrong.
        why: String,
    },
    /// Not a device's address.
    #[error("device: `{0}` is none of emu:DIR, pci/DDDD:BB:DD.F, netdevsim/NAME, veth:NAME")]
    Address(String),
}
