//! Carrying a plan out, and taking it back when the NIC refuses a step.

use super::error::{ApplyError, StepError};
use super::plan::Plan;
use crate::nic::spec::*;
use crate::nic::{NicApi, PortNames};
use chanio_model::eswitch::ReceiveChange;
use chanio_model::flow::RuleSpec;
use chanio_model::rate::{RateName, Rates};
use chanio_model::rss::RssChange;
use chanio_model::{ChannelName, Mac, RuleId, VportId};
use std::collections::{BTreeMap, BTreeSet};

/// Carries a plan out. Nobody else may change the NIC meanwhile.
///
/// What was removed through the API before is not missed, and what was added through it stays,
/// but goes with a channel that is removed or made anew.
///
/// # Errors
/// Why a step cannot be done. The earlier ones have been undone: everything is as before, except
/// that drivers of channels that were removed and made again have lost their connection, and that
/// rules that were removed and added again have new ids and empty counters.
pub fn apply(nic: &dyn NicApi, plan: &Plan) -> Result<(), ApplyError> {
    let mut steps = Steps {
        nic,
        done: Vec::new(),
    };
    steps.all(plan).map_err(|why| match steps.undo() {
        Ok(()) => why.into(),
        Err(undo) => {
            let (why, undo) = (Box::new(why), Box::new(undo));
            ApplyError::NotUndone { why, undo }
        }
    })
}

/// How to take a step back.
enum Undo {
    DeleteChannels(Vec<ChannelName>),
    AddChannels(Vec<ChannelSpec>),
    SetChannel(ChannelName, ChannelChange),
    SetEswitch(EswitchChange),
    /// Texts, since channels that were made again may have other vports.
    AddFlows(Vec<String>),
    DeleteFlows(Vec<RuleId>),
    /// Those that are missing.
    AddFdb(Vec<((u16, Mac), String)>),
    DeleteFdb((u16, Mac)),
    Rates(Vec<(RateName, Rates)>),
}

/// All nodes, and the leaves of which anything was asked.
fn asked_rates(nic: &dyn NicApi) -> Vec<(RateName, Rates)> {
    let rates = nic.rates().into_iter();
    let asked = rates.filter(|info| info.is_node || info.rates != Rates::default());
    asked.map(|info| (info.name, info.rates)).collect()
}

struct Steps<'a> {
    nic: &'a dyn NicApi,
    done: Vec<Undo>,
}

impl Steps<'_> {
    fn all(&mut self, plan: &Plan) -> Result<(), StepError> {
        let before: BTreeMap<_, _> = self
            .nic
            .channels()
            .into_iter()
            .map(|c| (c.spec.name.clone(), c))
            .collect();
        let gone = plan
            .delete_channels
            .iter()
            .filter_map(|name| before.get(name));
        let gone: Vec<_> = gone.collect();
        if plan.rates.is_some() || !gone.is_empty() {
            // The last thing to come back, when the channels are there again.
            self.done.push(Undo::Rates(asked_rates(self.nic)));
        }

        self.delete_flows(plan, &gone)?;
        self.delete_fdb(plan, &gone)?;
        if !gone.is_empty() {
            let names: Vec<_> = gone.iter().map(|c| c.spec.name.clone()).collect();
            self.nic.del_channels(&names)?;
            let specs = gone.iter().map(|c| c.spec.clone()).collect();
            self.done.push(Undo::AddChannels(specs));
        }
        let mut added = plan.add_channels.clone();
        for (spec, change) in &plan.set_channels {
            match before.get(&spec.name) {
                Some(old) => self.set_channel(&old.spec, change)?,
                None => added.push(spec.clone()),
            }
        }
        if !added.is_empty() {
            let names = added.iter().map(|c| c.name.clone()).collect();
            self.nic.add_channels(added)?;
            self.done.push(Undo::DeleteChannels(names));
        }
        self.set_eswitch(plan.eswitch.clone())?;
        self.add_fdb(&plan.add_fdb)?;
        let texts: Vec<_> = plan.add_flows.iter().map(|f| f.text.clone()).collect();
        let ids = self.add_flows(&texts)?;
        self.done.push(Undo::DeleteFlows(ids));
        if let Some((before, after)) = &plan.rates {
            let mut rates = asked_rates(self.nic);
            rates.retain(|(name, _)| !before.contains(name) && !after.contains_key(name));
            rates.extend(
                after
                    .iter()
                    .map(|(name, rates)| (name.clone(), rates.clone())),
            );
            self.nic.replace_rates(rates)?;
        }
        Ok(())
    }

    /// The plan's, and all others that would go without a word, so that they can come back.
    fn delete_flows(&mut self, plan: &Plan, gone: &[&ChannelInfo]) -> Result<(), StepError> {
        let names = PortNames::of(self.nic);
        let vports: BTreeSet<_> = gone.iter().map(|c| c.vport).collect();
        let new_mode = plan
            .eswitch
            .mode
            .is_some_and(|mode| mode != self.nic.eswitch().mode);
        let mut asked = BTreeMap::<&str, usize>::new();
        for text in &plan.delete_flows {
            *asked.entry(text).or_default() += 1;
        }
        let (mut ids, mut texts) = (Vec::new(), Vec::new());
        for rule in self.nic.rules() {
            let text = names.rule(&rule.spec);
            let asked = match asked.get_mut(text.as_str()) {
                Some(left @ 1..) => {
                    *left -= 1;
                    true
                }
                _ => false,
            };
            if asked || new_mode || names_any(&rule.spec, &vports) {
                ids.push(rule.id);
                texts.push(text);
            }
        }
        if !ids.is_empty() {
            self.nic.del_rules(&ids)?;
            self.done.push(Undo::AddFlows(texts));
        }
        Ok(())
    }

    /// The plan's; others that channels take with them are only remembered.
    fn delete_fdb(&mut self, plan: &Plan, gone: &[&ChannelInfo]) -> Result<(), StepError> {
        if plan.delete_fdb.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let names = PortNames::of(self.nic);
        let vports: BTreeSet<_> = gone.iter().map(|c| c.vport).collect();
        let own = |c: &&ChannelInfo| Some((c.spec.vlan.map_or(0, |v| v.id()), c.spec.mac?));
        let own: BTreeSet<_> = gone.iter().filter_map(own).collect();
        let asked: BTreeSet<_> = plan.delete_fdb.iter().copied().collect();
        let mut lost = Vec::new();
        for entry in self.nic.fdb().into_iter().filter(|e| e.is_static) {
            let key = (entry.vid, entry.mac);
            let item = (key, names.name(entry.vport));
            if asked.contains(&key) {
                self.nic.del_fdb(entry.vid, entry.mac)?;
                self.done.push(Undo::AddFdb(vec![item]));
            } else if vports.contains(&entry.vport) && !own.contains(&key) {
                lost.push(item);
            }
        }
        self.done.push(Undo::AddFdb(lost));
        Ok(())
    }

    fn set_channel(&mut self, old: &ChannelSpec, change: &ChannelChange) -> Result<(), StepError> {
        self.nic.set_channel(&old.name, change.clone())?;
        let back = ChannelChange {
            mac: old.mac,
            vlan: Some(old.vlan),
            mtu: Some(old.mtu),
            spoofchk: Some(old.spoofchk),
            trust: Some(old.trust),
            lro: Some(old.lro),
            link_up: Some(old.link_up),
            rss: Some(RssChange::to(old.rss.as_ref())),
            block: Some(old.block),
            receive: ReceiveChange {
                add: change.receive.del.clone(),
                del: change.receive.add.clone(),
                promisc: Some(old.receive.promisc),
                allmulti: Some(old.receive.allmulti),
                vlans: Some(old.receive.vlans.clone()),
            },
            clear_fault: false,
        };
        self.done.push(Undo::SetChannel(old.name.clone(), back));
        Ok(())
    }

    fn set_eswitch(&mut self, change: EswitchChange) -> Result<(), StepError> {
        let EswitchChange {
            mode,
            vepa,
            ageing_secs,
            tunnel_ports,
            uplink_block,
        } = &change;
        let nothing = mode.is_none()
            && vepa.is_none()
            && ageing_secs.is_none()
            && tunnel_ports.is_none()
            && uplink_block.is_none();
        if nothing {
            return Ok(());
        }
        let old = self.nic.eswitch();
        self.nic.set_eswitch(change)?;
        self.done.push(Undo::SetEswitch(EswitchChange {
            mode: Some(old.mode),
            vepa: Some(old.vepa),
            ageing_secs: Some(old.ageing_secs),
            tunnel_ports: Some(old.tunnel_ports),
            uplink_block: Some(old.uplink_block),
        }));
        Ok(())
    }

    fn add_fdb(&mut self, items: &[((u16, Mac), String)]) -> Result<(), StepError> {
        if items.is_empty() {
            return Ok(());
        }
        let fdb = self.nic.fdb().into_iter().filter(|e| e.is_static);
        let there: BTreeMap<_, _> = fdb.map(|e| ((e.vid, e.mac), e.vport)).collect();
        for (key, port) in items {
            let vport = self.nic.vport_by_name(port);
            let vport = vport.ok_or_else(|| StepError::NoPort(port.clone()))?;
            if there.get(key) == Some(&vport) {
                continue;
            }
            self.nic.add_fdb(key.0, key.1, vport)?;
            self.done.push(Undo::DeleteFdb(*key));
        }
        Ok(())
    }

    fn add_flows(&self, texts: &[String]) -> Result<Vec<RuleId>, StepError> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let names = |name: &str| self.nic.vport_by_name(name);
        let parse = |text: &String| {
            let spec = RuleSpec::parse(text, &names);
            spec.map_err(|source| StepError::Rule {
                text: text.clone(),
                source,
            })
        };
        let specs: Result<Vec<_>, _> = texts.iter().map(parse).collect();
        Ok(self.nic.add_rules(specs?)?)
    }

    /// Takes all steps back, the last one first, as far as possible; the first failure.
    fn undo(&mut self) -> Result<(), StepError> {
        let mut result = Ok(());
        for step in std::mem::take(&mut self.done).into_iter().rev() {
            let undone = match step {
                Undo::DeleteChannels(names) => self.nic.del_channels(&names).map_err(Into::into),
                Undo::AddChannels(specs) => {
                    self.nic.add_channels(specs).map(drop).map_err(Into::into)
                }
                Undo::SetChannel(name, change) => self
                    .nic
                    .set_channel(&name, change)
                    .map(drop)
                    .map_err(Into::into),
                Undo::SetEswitch(change) => {
                    self.nic.set_eswitch(change).map(drop).map_err(Into::into)
                }
                Undo::AddFlows(texts) => self.add_flows(&texts).map(drop),
                Undo::DeleteFlows(ids) => self.nic.del_rules(&ids).map_err(Into::into),
                Undo::AddFdb(items) => self.add_fdb(&items),
                Undo::DeleteFdb((vid, mac)) => self.nic.del_fdb(vid, mac).map_err(Into::into),
                Undo::Rates(rates) => self.nic.replace_rates(rates).map(drop).map_err(Into::into),
            };
            if let Err(error) = undone {
                tracing::error!(%error, "undoing a change of configuration");
                result = result.and(Err(error));
            }
        }
        result
    }
}

fn names_any(spec: &RuleSpec, vports: &BTreeSet<VportId>) -> bool {
    spec.ports().any(|port| vports.contains(&port))
}
