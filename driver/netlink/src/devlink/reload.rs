//! Starting a device anew.

use super::devlink;
use crate::attr::{Bitfield32, numbers, record};

numbers! {
    /// enum devlink_reload_action
    pub enum ReloadAction: u8 {
        /// The driver takes everything down and up again.
        DriverReinit = 1,
        /// New firmware runs.
        FirmwareActivate = 2,
    }
}

record! {
    /// A reload.
    pub struct Reload of devlink {
        /// What is wanted.
        action: ReloadAction as u8 = RELOAD_ACTION;
        /// What was done.
        performed: Bitfield32 = RELOAD_ACTIONS_PERFORMED;
        /// What must not happen: DEVLINK_RELOAD_LIMIT_*.
        limits: Bitfield32 = RELOAD_LIMITS;
        /// Move the device to the namespace behind this descriptor.
        netns_fd: u32 = NETNS_FD;
        /// Move the device to this process's namespace.
        netns_pid: u32 = NETNS_PID;
        /// Move the device to the namespace of this number.
        netns_id: u32 = NETNS_ID;
        /// 1: the last reload failed.
        failed: u8 = RELOAD_FAILED;
    }
}
