//! What a NIC is made of, from the config file and the command line; and how to get from one
//! configuration to another while it runs.
//!
//! | file | what lives there |
//! |---|---|
//! | `file` | the tables of the TOML file |
//! | `source` | where in the file something is |
//! | `items` | channels, flow rules and addresses of the file |
//! | `read` | the file and the command line as a [`Config`] |
//! | `plan` | from one configuration to the steps that lead to another |
//! | `apply` | the steps, and how to take them back |
//! | `error` | refusals |

mod apply;
mod error;
#[cfg(test)]
mod fake;
mod file;
mod items;
mod plan;
mod read;
mod source;
#[cfg(test)]
mod tests;

pub use apply::apply;
pub use error::{ApplyError, ConfigError, Place, StepError};
pub use plan::{Plan, plan};
pub use read::{Overrides, ProfileName};

use crate::nic::spec::{ChannelSpec, NicConfig};
use chanio_model::edit::TunnelPorts;
use chanio_model::eswitch::Mode;
use chanio_model::rate::{RateName, Rates};
use chanio_model::{ChannelName, Mac};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that is configured, checked in itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the NIC is made with. Only `ageing_secs` can change while it runs.
    pub nic: NicConfig,
    /// Mode of the eswitch.
    pub mode: Mode,
    /// Frames between channels go over the wire; legacy mode only.
    pub vepa: bool,
    /// Which UDP ports are tunnels'.
    pub tunnel_ports: TunnelPorts,
    /// The group of ports that the uplink shares its rules with; 0: none.
    pub uplink_block: u16,
    /// Channels by name.
    pub channels: BTreeMap<ChannelName, ChannelSpec>,
    /// Flow rules, in the order they are added.
    pub flows: Vec<FlowRule>,
    /// Static addresses: VLAN (0: untagged) and address, and the port's name.
    pub fdb: BTreeMap<(u16, Mac), String>,
    /// Rates of channels, and rate nodes, by name.
    pub rates: BTreeMap<RateName, Rates>,
}

/// A flow rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRule {
    /// Its text in the one form that [`RuleSpec::with_names`] writes, so that equal rules have
    /// equal texts.
    ///
    /// [`RuleSpec::with_names`]: chanio_model::flow::RuleSpec::with_names
    pub text: String,
    /// Channels that it names.
    pub ports: BTreeSet<ChannelName>,
}

impl Config {
    /// A NIC with nothing in it, as [`Nic::start`](crate::nic::Nic::start) makes it.
    pub fn empty(nic: NicConfig) -> Self {
        Self {
            nic,
            mode: Mode::Legacy,
            vepa: false,
            tunnel_ports: TunnelPorts::default(),
            uplink_block: 0,
            channels: BTreeMap::new(),
            flows: Vec::new(),
            fdb: BTreeMap::new(),
            rates: BTreeMap::new(),
        }
    }
}
