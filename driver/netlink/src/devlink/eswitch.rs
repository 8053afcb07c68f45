//! The switch's modes.

use super::devlink;
use crate::attr::{numbers, record};

numbers! {
    /// enum devlink_eswitch_mode
    pub enum EswitchMode: u16 {
        /// MAC and VLAN forwarding, no representors.
        Legacy = 0,
        /// Rules and representors.
        Switchdev = 1,
    }
}
numbers! {
    /// enum devlink_eswitch_inline_mode: how much of a packet's head the driver must copy.
    pub enum InlineMode: u8 {
        /// Nothing.
        None = 0,
        /// Ethernet.
        Link = 1,
        /// As far as IP.
        Network = 2,
        /// As far as TCP or UDP.
        Transport = 3,
    }
}
numbers! {
    /// enum devlink_eswitch_encap_mode
    pub enum EncapMode: u8 {
        /// No tunnels in hardware.
        None = 0,
        /// Tunnels in hardware.
        Basic = 1,
    }
}

record! {
    /// The switch.
    pub struct Eswitch of devlink {
        /// How it forwards.
        mode: EswitchMode as u16 = ESWITCH_MODE;
        /// What drivers inline.
        inline_mode: InlineMode as u8 = ESWITCH_INLINE_MODE;
        /// Whether it has tunnels.
        encap_mode: EncapMode as u8 = ESWITCH_ENCAP_MODE;
    }
}
