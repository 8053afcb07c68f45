//! What vports are called, to print rules and addresses with.

use super::NicApi;
use chanio_model::flow::{Action, FlowKey, Match, RuleSpec};
use chanio_model::{ChannelName, VportId};
use std::collections::HashMap;

/// Names of vports at one time.
pub struct PortNames(HashMap<VportId, ChannelName>);

impl PortNames {
    /// The names there are now.
    pub fn of(nic: &dyn NicApi) -> Self {
        let channels = nic.channels().into_iter();
        Self(channels.map(|c| (c.vport, c.spec.name)).collect())
    }

    /// A channel's name, `uplink`, or `vport:N` where nothing is known of it.
    pub fn name(&self, vport: VportId) -> String {
        match self.0.get(&vport) {
            _ if vport.is_uplink() => "uplink".to_owned(),
            Some(name) => name.to_string(),
            None => format!("vport:{vport}"),
        }
    }

    /// An action's text.
    pub fn action(&self, action: &Action) -> String {
        let name = |vport| self.0.get(&vport).map(ChannelName::to_string);
        action.with_names(&name).to_string()
    }

    /// A packet's headers, as a match would ask for them.
    pub fn headers(&self, key: &FlowKey) -> String {
        let name = |vport| self.0.get(&vport).map(ChannelName::to_string);
        Match::exact(key).with_names(&name).to_string()
    }

    /// A rule's text.
    pub fn rule(&self, spec: &RuleSpec) -> String {
        let name = |vport| self.0.get(&vport).map(ChannelName::to_string);
        spec.with_names(&name).to_string()
    }
}
