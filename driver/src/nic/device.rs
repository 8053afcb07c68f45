//! The device, what it can do, and its eswitch.

use chanio_model::edit::TunnelPorts;
use serde::Serialize;
use std::collections::BTreeMap;

/// A device and what it can do.
#[derive(Clone, Debug, Serialize)]
pub struct NicInfo {
    /// Its address.
    pub device: String,
    /// Version of what runs it.
    pub version: String,
    /// Queue pairs; `None`: there is no common pool.
    pub queues: Option<u32>,
    /// Queue pairs that no channel has; `None`: there is no common pool.
    pub queues_free: Option<u32>,
    /// Channels that exist.
    pub channels: u32,
    /// Forwarding threads; `None`: the device's own affair.
    pub workers: Option<u32>,
    /// The wire.
    pub uplink: String,
    /// The kind of NIC that an emulator is like; of others, the driver.
    pub profile: String,
    /// What it can do.
    pub capabilities: Capabilities,
}

/// What a device can do.
#[derive(Clone, Debug, Serialize)]
pub struct Capabilities {
    /// Most channels.
    pub max_channels: u32,
    /// Ways to attach a channel.
    pub attach: Vec<&'static str>,
    /// Eswitch modes.
    pub modes: Vec<&'static str>,
    /// Whether channels have representors.
    pub representors: bool,
    /// Why they have none.
    pub no_representors: Option<String>,
    /// Keys of flow rules.
    pub match_keys: Vec<&'static str>,
    /// Actions of flow rules.
    pub actions: Vec<&'static str>,
    /// What it cannot do, and why.
    pub cannot: BTreeMap<&'static str, String>,
}

/// The eswitch's settings.
#[derive(Clone, Debug, Serialize)]
pub struct Eswitch {
    /// `legacy` or `switchdev`.
    pub mode: &'static str,
    /// Frames between channels go over the wire.
    pub vepa: bool,
    /// Seconds that a learned address lives without traffic.
    pub ageing_secs: u32,
    /// Flow rules.
    pub flows: u64,
    /// Addresses, learned and static.
    pub fdb_entries: u64,
    /// Which UDP ports are tunnels'; `null`: the device does not tell.
    pub tunnel_ports: Option<String>,
    /// The group of ports that the uplink shares its rules with; `null`: none.
    pub uplink_block: Option<u32>,
    /// How often notifications of the kernel were lost, so that everything was read anew; `null`:
    /// the device does not follow the kernel in its switch.
    pub kernel_overruns: Option<u64>,
}

/// Settings to change; `None` leaves one as it is.
#[derive(Clone, Debug, Default)]
pub struct EswitchChange {
    /// Switchdev (`true`) or legacy.
    pub switchdev: Option<bool>,
    /// See [`Eswitch::vepa`].
    pub vepa: Option<bool>,
    /// 10 to 1,000,000.
    pub ageing_secs: Option<u32>,
    /// Which UDP ports are tunnels'.
    pub tunnel_ports: Option<TunnelPorts>,
    /// The group of ports that the uplink shares its rules with; 0: none.
    pub uplink_block: Option<u16>,
}
