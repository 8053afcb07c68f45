//! What leads from one configuration to another.

use super::items::own_address;
use super::{Config, ConfigError, FlowRule};
use crate::nic::spec::*;
use chanio_model::eswitch::ReceiveChange;
use chanio_model::profile::Profile;
use chanio_model::rate::{RateName, Rates};
use chanio_model::rss::RssChange;
use chanio_model::{ChannelName, Mac};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

/// Steps, in the order of the fields. What is not named is not touched.
#[derive(Debug, Default)]
pub struct Plan {
    /// Texts of rules to remove.
    pub delete_flows: Vec<String>,
    /// Static addresses to remove.
    pub delete_fdb: Vec<(u16, Mac)>,
    /// Channels to remove; those that are also in `add_channels` are made anew, because something
    /// changes that a running channel cannot change.
    pub delete_channels: Vec<ChannelName>,
    /// Changes of running channels, with what they become.
    pub set_channels: Vec<(ChannelSpec, ChannelChange)>,
    /// Channels to make.
    pub add_channels: Vec<ChannelSpec>,
    /// Settings of the eswitch; another mode removes all rules.
    pub eswitch: EswitchChange,
    /// Static addresses to add, and their ports.
    pub add_fdb: Vec<((u16, Mac), String)>,
    /// Rules to add.
    pub add_flows: Vec<FlowRule>,
    /// Rate objects that the file had, and those that it has; `None`: nothing to do.
    pub rates: Option<(BTreeSet<RateName>, BTreeMap<RateName, Rates>)>,
}

/// A one-line summary for the log.
impl Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deleted: BTreeSet<_> = self.delete_channels.iter().collect();
        let anew = self
            .add_channels
            .iter()
            .filter(|c| deleted.contains(&c.name));
        let anew = anew.count();
        write!(
            f,
            "channels: {} added, {} removed, {} made anew, {} changed; flows: {} added, {} \
             removed; addresses: {} added, {} removed",
            self.add_channels.len() - anew,
            deleted.len() - anew,
            anew,
            self.set_channels.len(),
            self.add_flows.len(),
            self.delete_flows.len(),
            self.add_fdb.len(),
            self.delete_fdb.len()
        )
    }
}

/// The steps from `current` to `new`.
///
/// # Errors
/// [`ConfigError::Fixed`] if they differ in something that is fixed for a NIC's lifetime.
pub fn plan(current: &Config, new: &Config) -> Result<Plan, ConfigError> {
    check_fixed(&current.nic, &new.nic)?;
    let mut plan = Plan::default();
    plan.channels(current, new);
    // Rules and addresses go with their channel.
    let gone: BTreeSet<_> = plan.delete_channels.iter().cloned().collect();

    let stays = |key: &(u16, Mac), port: &String, other: &BTreeMap<(u16, Mac), String>| {
        let goes = port
            .parse()
            .is_ok_and(|name: ChannelName| gone.contains(&name));
        other.get(key) == Some(port) && !goes
    };
    let left = current
        .fdb
        .iter()
        .filter(|(key, port)| !stays(key, port, &new.fdb));
    plan.delete_fdb = left.map(|(key, _)| *key).collect();
    let come = new
        .fdb
        .iter()
        .filter(|(key, port)| !stays(key, port, &current.fdb));
    plan.add_fdb = come.map(|(key, port)| (*key, port.clone())).collect();

    plan.eswitch = EswitchChange {
        mode: (current.mode != new.mode).then_some(new.mode),
        vepa: (current.vepa != new.vepa).then_some(new.vepa),
        ageing_secs: (current.nic.ageing_secs != new.nic.ageing_secs)
            .then_some(new.nic.ageing_secs),
        tunnel_ports: (current.tunnel_ports != new.tunnel_ports).then(|| new.tunnel_ports.clone()),
        uplink_block: (current.uplink_block != new.uplink_block).then_some(new.uplink_block),
    };
    let same_mode = current.mode == new.mode;
    let intact = |flow: &&FlowRule| same_mode && flow.ports.is_disjoint(&gone);
    let texts = |flows: &[FlowRule]| -> BTreeSet<String> {
        flows
            .iter()
            .filter(intact)
            .map(|f| f.text.clone())
            .collect()
    };
    let (before, after) = (texts(&current.flows), texts(&new.flows));
    let left = current.flows.iter().filter(|f| !after.contains(&f.text));
    plan.delete_flows = left.map(|f| f.text.clone()).collect();
    let come = new.flows.iter().filter(|f| !before.contains(&f.text));
    plan.add_flows = come.cloned().collect();
    // A channel that is made anew has lost its rates.
    let lost = |name: &RateName| gone.contains(name);
    if current.rates != new.rates || new.rates.keys().any(lost) {
        let before = current.rates.keys().cloned().collect();
        plan.rates = Some((before, new.rates.clone()));
    }
    Ok(plan)
}

fn check_fixed(now: &NicConfig, new: &NicConfig) -> Result<(), ConfigError> {
    fn same<T: PartialEq>(
        field: &'static str,
        now: &T,
        new: &T,
        show: impl Fn(&T) -> String,
    ) -> Result<(), ConfigError> {
        if now == new {
            return Ok(());
        }
        let (now, new) = (show(now), show(new));
        Err(ConfigError::Fixed { field, now, new })
    }
    same("queues", &now.queues, &new.queues, u32::to_string)?;
    same("workers", &now.workers, &new.workers, usize::to_string)?;
    same("representors", &now.representors, &new.representors, |m| {
        format!("{m:?}").to_lowercase()
    })?;
    same("uplink", &now.uplink, &new.uplink, UplinkSpec::to_string)?;
    same("nic_index", &now.nic_index, &new.nic_index, u32::to_string)?;
    let name = |profile: &&Profile| profile.name;
    same("profile", &name(&now.profile), &name(&new.profile), |n| {
        (*n).to_owned()
    })?;
    same("offload", &now.offload, &new.offload, bool::to_string)?;
    same("run_dir", &now.run_dir, &new.run_dir, |path| {
        path.display().to_string()
    })
}

impl Plan {
    fn channels(&mut self, current: &Config, new: &Config) {
        let owners: BTreeMap<_, _> = current
            .channels
            .values()
            .filter_map(|c| Some((own_address(c)?, &c.name)))
            .collect();
        for (name, spec) in &current.channels {
            match new.channels.get(name) {
                None => self.delete_channels.push(name.clone()),
                Some(wanted) if same(spec, wanted) => {}
                Some(wanted) => {
                    // Its new address may only come free when the owner takes another one, or
                    // they may want each other's.
                    let taken = own_address(wanted)
                        .and_then(|key| owners.get(&key))
                        .is_some_and(|owner| *owner != name);
                    match change(spec, wanted).filter(|_| !taken) {
                        Some(change) => self.set_channels.push((wanted.clone(), change)),
                        None => {
                            self.delete_channels.push(name.clone());
                            self.add_channels.push(wanted.clone());
                        }
                    }
                }
            }
        }
        let come = new
            .channels
            .iter()
            .filter(|(name, _)| !current.channels.contains_key(*name));
        self.add_channels.extend(come.map(|(_, spec)| spec.clone()));
    }
}

fn same(a: &ChannelSpec, b: &ChannelSpec) -> bool {
    a.attach == b.attach && change(a, b).is_some_and(|change| change == ChannelChange::default())
}

/// What a running channel must change; `None`: it must be made anew.
pub(super) fn change(from: &ChannelSpec, to: &ChannelSpec) -> Option<ChannelChange> {
    // An address that the NIC is to choose is chosen when a channel is made.
    let same_kind = from.queues == to.queues && from.attach == to.attach;
    if !same_kind || (from.mac.is_some() && to.mac.is_none()) {
        return None;
    }
    Some(ChannelChange {
        mac: to.mac.filter(|_| from.mac != to.mac),
        vlan: (from.vlan != to.vlan).then_some(to.vlan),
        mtu: (from.mtu != to.mtu).then_some(to.mtu),
        spoofchk: (from.spoofchk != to.spoofchk).then_some(to.spoofchk),
        trust: (from.trust != to.trust).then_some(to.trust),
        lro: (from.lro != to.lro).then_some(to.lro),
        link_up: (from.link_up != to.link_up).then_some(to.link_up),
        rss: (from.rss != to.rss).then(|| RssChange::to(to.rss.as_ref())),
        block: (from.block != to.block).then_some(to.block),
        receive: ReceiveChange::between(&from.receive, &to.receive),
        clear_fault: false,
    })
}
