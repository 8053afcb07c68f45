//! Requests about the eswitch: mode, flow rules, addresses.

use super::channels::own_addresses;
use super::{Nic, Refused, State, check_range, mode_name, seconds, spec::*};
use crate::datapath::Change;
use chanio_model::eswitch::{self as model, FdbLimits, Mode};
use chanio_model::flow::{Action, Origin, Policers, Rule, RuleSpec, RuleTotals};
use chanio_model::{Mac, Nanos, RuleId, VportId};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Nic {
    /// The eswitch's settings.
    pub fn eswitch(&self) -> EswitchInfo {
        let state = self.state.lock();
        self.eswitch_info(&state)
    }

    fn eswitch_info(&self, state: &State) -> EswitchInfo {
        let info = self.datapath.with_config(|c| {
            let switch = &c.switch;
            (
                switch.mode(),
                switch.vepa(),
                switch.tunnel_ports().clone(),
                switch.uplink_block(),
            )
        });
        let (mode, vepa, tunnel_ports, uplink_block) = info;
        EswitchInfo {
            tunnel_ports,
            uplink_block,
            kernel_overruns: state.kernel.overruns(),
            mode,
            vepa,
            ageing_secs: state.ageing_secs,
            rules: state.rules.len(),
            fdb_entries: self.datapath.fdb().read().len(),
        }
    }

    /// Change settings. Another mode removes flow rules and learned addresses, as devlink's
    /// `eswitch set` does.
    pub fn set_eswitch(&self, change: EswitchChange) -> Result<EswitchInfo, Refused> {
        let mut state = self.open()?;
        if let Some(secs) = change.ageing_secs {
            check_range("ageing_secs", secs, 10..=1_000_000)?;
        }
        let mode_now = self.datapath.with_config(|c| c.switch.mode());
        let mode_after = change.mode.unwrap_or(mode_now);
        if change.vepa == Some(true) && mode_after != Mode::Legacy {
            return Err(Refused::WrongMode {
                what: "vepa",
                needed: "legacy",
                mode: mode_name(mode_after),
            });
        }
        if mode_after == Mode::Switchdev {
            self.config.profile.admit_switchdev()?;
        }
        let mut changes = Vec::new();
        if mode_after != mode_now {
            if !state.take_rules().is_empty() {
                changes.push(model::Change::RemoveRulesOf(Origin::Control));
            }
            let gone = state.kernel.clear().into_iter();
            changes.extend(gone.map(model::Change::RemoveRule));
            changes.push(model::Change::SetVepa(false));
            changes.push(model::Change::SetMode(mode_after));
        }
        if let Some(vepa) = change.vepa {
            changes.push(model::Change::SetVepa(vepa));
        }
        let other_tunnels = change.tunnel_ports.is_some();
        changes.extend(change.tunnel_ports.map(model::Change::SetTunnelPorts));
        changes.extend(change.uplink_block.map(model::Change::SetUplinkBlock));
        let changes: Vec<_> = changes.into_iter().map(Change::Switch).collect();
        self.datapath.apply(&changes);
        if mode_after != mode_now || other_tunnels {
            state.kernel.outdated();
        }
        if mode_after != mode_now {
            self.datapath.fdb().write().flush_learned();
        }
        if let Some(secs) = change.ageing_secs {
            state.ageing_secs = secs;
            let mut fdb = self.datapath.fdb().write();
            let limits = fdb.limits();
            fdb.set_limits(FdbLimits {
                ageing: seconds(secs),
                ..limits
            });
        }
        Ok(self.eswitch_info(&state))
    }

    /// Add flow rules, all or none; needs switchdev mode.
    pub fn add_rules(&self, specs: Vec<RuleSpec>) -> Result<Vec<RuleId>, Refused> {
        let mut state = self.open()?;
        self.check_rules(&specs, &state, false)?;
        let rules = self.make_rules(&mut state, specs)?;
        state.next_rule += rules.len() as u64;
        let mut ids = Vec::with_capacity(rules.len());
        let mut changes = Vec::with_capacity(rules.len());
        let now = self.datapath.now();
        for rule in rules {
            ids.push(rule.id());
            state.put_rule(rule.clone(), now);
            changes.push(Change::Switch(model::Change::AddRule(rule)));
        }
        self.datapath.apply(&changes);
        Ok(ids)
    }

    /// Add flow rules as [`Nic::add_rules`] does, but each in the place of the rule of its chain
    /// and priority that matches the same, if there is one: that one's id stays, and no packet
    /// meets neither or both.
    pub fn replace_rules(&self, specs: Vec<RuleSpec>) -> Result<Vec<RuleId>, Refused> {
        let mut state = self.open()?;
        self.check_rules(&specs, &state, true)?;
        // Nothing is refused from here on: these keep what the rules will share.
        let shares = |action: &Action| matches!(action, Action::Police(p) if p.index != 0);
        let sharing = specs.iter().filter(|spec| spec.actions.iter().any(shares));
        let held = self.make_rules(&mut state, sharing.cloned())?;
        let now = self.datapath.now();
        let mut ids = Vec::with_capacity(specs.len());
        for spec in specs {
            let same = self.datapath.with_config(|c| {
                let tables = c.switch.tables();
                tables
                    .find(spec.chain, spec.priority, &spec.matches)
                    .map(|rule| rule.id())
            });
            let id = same.unwrap_or(RuleId(state.next_rule));
            let rule = self.make_rule(&mut state, id, spec)?;
            state.put_rule(rule.clone(), now);
            let change = match same {
                Some(_) => model::Change::ReplaceRule(rule),
                None => {
                    state.next_rule += 1;
                    model::Change::AddRule(rule)
                }
            };
            self.datapath.apply(&[Change::Switch(change)]);
            ids.push(id);
        }
        held.iter().for_each(|rule| state.policers.release(rule));
        Ok(ids)
    }

    /// All of these, or none.
    fn make_rules(
        &self,
        state: &mut State,
        specs: impl IntoIterator<Item = RuleSpec>,
    ) -> Result<Vec<Arc<Rule>>, Refused> {
        let mut rules = Vec::new();
        for (id, spec) in (state.next_rule..).map(RuleId).zip(specs) {
            match self.make_rule(state, id, spec) {
                Ok(rule) => rules.push(rule),
                Err(refused) => {
                    rules.iter().for_each(|rule| state.policers.release(rule));
                    return Err(refused);
                }
            }
        }
        Ok(rules)
    }

    fn make_rule(
        &self,
        state: &mut State,
        id: RuleId,
        spec: RuleSpec,
    ) -> Result<Arc<Rule>, Refused> {
        let shards = self.config.workers;
        let rule = Rule::of(Origin::Control, id, spec, shards, &mut state.policers)?;
        Ok(Arc::new(rule))
    }

    /// Removes rules that were not used for as long as they ask for.
    pub(super) fn expire_rules(&self, now: Nanos) {
        let mut state = self.state.lock();
        let mut changes = Vec::new();
        let State {
            timed,
            rules,
            policers,
            ..
        } = &mut *state;
        timed.retain(|id, made| {
            let Some(rule) = rules.get(id) else {
                return false;
            };
            let timeout = seconds(rule.spec().idle_timeout);
            let used = rule.totals().last_used.max(*made);
            let idle = timeout != 0 && now.saturating_sub(used) >= timeout;
            if idle {
                policers.release(rule);
                rules.remove(id);
                changes.push(Change::Switch(model::Change::RemoveRule(*id)));
            }
            !idle && timeout != 0
        });
        if !changes.is_empty() {
            self.datapath.apply(&changes);
        }
    }

    fn check_rules(&self, specs: &[RuleSpec], state: &State, replace: bool) -> Result<(), Refused> {
        let mode = self.datapath.with_config(|c| c.switch.mode());
        if mode != Mode::Switchdev {
            return Err(Refused::WrongMode {
                what: "a flow rule",
                needed: "switchdev",
                mode: mode_name(mode),
            });
        }
        specs.iter().try_for_each(|spec| check_rule(spec, state))?;
        let profile = self.config.profile;
        specs.iter().try_for_each(|spec| profile.admit_rule(spec))?;
        self.datapath.with_config(|c| {
            let tables = c.switch.tables();
            let is_new = |spec: &&RuleSpec| {
                !replace
                    || tables
                        .find(spec.chain, spec.priority, &spec.matches)
                        .is_none()
            };
            let rules = tables.len() + specs.iter().filter(is_new).count();
            Ok(profile.admit_tables(rules, tables.masks_with(specs.iter()))?)
        })
    }

    /// Remove flow rules, all or none.
    pub fn del_rules(&self, ids: &[RuleId]) -> Result<(), Refused> {
        let mut state = self.open()?;
        if let Some(id) = ids.iter().find(|id| !state.rules.contains_key(id)) {
            return Err(Refused::NoRule(*id));
        }
        let mut changes = Vec::with_capacity(ids.len());
        for id in ids {
            if state.drop_rule(*id).is_some() {
                changes.push(Change::Switch(model::Change::RemoveRule(*id)));
            }
        }
        self.datapath.apply(&changes);
        Ok(())
    }

    /// Remove all flow rules; how many there were.
    pub fn flush_rules(&self) -> usize {
        let mut state = self.state.lock();
        let rules = state.take_rules();
        let remove = model::Change::RemoveRulesOf(Origin::Control);
        self.datapath.apply(&[Change::Switch(remove)]);
        // Freeing a million of them takes a while.
        drop(state);
        rules.len()
    }

    /// Flow rules in the order they were added.
    pub fn rules(&self) -> Vec<RuleInfo> {
        let now = self.datapath.now();
        let state = self.state.lock();
        state
            .rules
            .values()
            .map(|rule| rule_info(rule, now))
            .collect()
    }

    /// One of them.
    pub fn rule(&self, id: RuleId) -> Option<RuleInfo> {
        let now = self.datapath.now();
        let state = self.state.lock();
        state.rules.get(&id).map(|rule| rule_info(rule, now))
    }

    /// The address table, by VLAN and address.
    pub fn fdb(&self) -> Vec<FdbInfo> {
        let now = self.datapath.now();
        let mut list: Vec<_> = self
            .datapath
            .fdb()
            .read()
            .iter(now)
            .map(|e| FdbInfo {
                vid: e.vid,
                mac: e.mac,
                vport: e.vport,
                is_static: e.is_static,
                idle_ns: (!e.is_static).then_some(e.idle_ns),
            })
            .collect();
        list.sort_by_key(|e| (e.vid, e.mac));
        list
    }

    /// Add a static address. `vid` 0 is untagged.
    pub fn add_fdb(&self, vid: u16, mac: Mac, vport: VportId) -> Result<(), Refused> {
        let state = self.open()?;
        check_range("vid", vid, 0..=4094)?;
        if !mac.is_unicast() {
            return Err(not_unicast(mac));
        }
        if !vport.is_uplink() && !state.names.contains_key(&vport) {
            return Err(Refused::NoVport(vport));
        }
        let added = self.datapath.fdb().write().insert_static(vid, mac, vport);
        added.map_err(|conflict| {
            let owner = state
                .names
                .get(&conflict.vport)
                .map_or("uplink", |name| name.as_str());
            Refused::Invalid {
                field: "mac",
                value: mac.to_string(),
                allowed: format!("an address without a static entry; `{owner}` has this one"),
            }
        })
    }

    /// Remove a static address that [`Nic::add_fdb`] added.
    pub fn del_fdb(&self, vid: u16, mac: Mac) -> Result<(), Refused> {
        let state = self.open()?;
        let mut fdb = self.datapath.fdb().write();
        let owner = fdb
            .static_owner(vid, mac)
            .ok_or(Refused::NoFdbEntry { mac, vid })?;
        let of_channel = |e: &super::Entry| {
            own_addresses(&e.spec).any(|own| own == mac) && e.spec.vlan.map_or(0, |v| v.id()) == vid
        };
        if let Some(name) = state.names.get(&owner)
            && state.channels.get(name).is_some_and(of_channel)
        {
            return Err(Refused::Invalid {
                field: "mac",
                value: mac.to_string(),
                allowed: format!("an added entry; this one is channel `{name}`'s own address"),
            });
        }
        fdb.remove(vid, mac);
        Ok(())
    }

    /// Forget learned addresses; how many there were.
    pub fn flush_fdb(&self) -> usize {
        self.datapath.fdb().write().flush_learned()
    }

    /// The state, unless the NIC is going down.
    pub(super) fn open(&self) -> Result<parking_lot::MutexGuard<'_, State>, Refused> {
        let state = self.state.lock();
        if state.closing {
            Err(Refused::ShuttingDown)
        } else {
            Ok(state)
        }
    }
}

impl State {
    /// Adds a rule, or has it replace the one with its id.
    fn put_rule(&mut self, rule: Arc<Rule>, now: Nanos) {
        if rule.spec().idle_timeout != 0 {
            self.timed.insert(rule.id(), now);
        }
        if let Some(old) = self.rules.insert(rule.id(), rule) {
            self.policers.release(&old);
        }
    }

    /// Forgets a rule, if it is there.
    pub(super) fn drop_rule(&mut self, id: RuleId) -> Option<Arc<Rule>> {
        let rule = self.rules.remove(&id)?;
        self.policers.release(&rule);
        Some(rule)
    }

    /// Forgets all rules.
    fn take_rules(&mut self) -> BTreeMap<RuleId, Arc<Rule>> {
        self.policers = Policers::default();
        std::mem::take(&mut self.rules)
    }
}

/// A rule as it is at a time.
pub(super) fn rule_info(rule: &Rule, now: Nanos) -> RuleInfo {
    let idle = |t: RuleTotals| (t.packets > 0).then(|| now.saturating_sub(t.last_used));
    let totals = rule.totals();
    let action = |index| {
        let totals = rule.action_totals(index);
        ActionInfo {
            packets: totals.packets,
            bytes: totals.bytes,
            idle_ns: idle(totals),
        }
    };
    RuleInfo {
        id: rule.id(),
        spec: rule.spec().clone(),
        packets: totals.packets,
        bytes: totals.bytes,
        idle_ns: idle(totals),
        actions: (0..rule.spec().actions.len()).map(action).collect(),
    }
}

pub(super) fn not_unicast(mac: Mac) -> Refused {
    Refused::Invalid {
        field: "mac",
        value: mac.to_string(),
        allowed: "a unicast address other than 00:00:00:00:00:00".into(),
    }
}

fn check_rule(spec: &RuleSpec, state: &State) -> Result<(), Refused> {
    spec.check()?;
    let exists = |v: VportId| v.is_uplink() || state.names.contains_key(&v);
    match spec.ports().find(|port| !exists(*port)) {
        Some(vport) => Err(Refused::NoVport(vport)),
        None => Ok(()),
    }
}

/// Whether a rule names this vport, and so goes with it.
pub(super) fn rule_names(spec: &RuleSpec, vport: VportId) -> bool {
    spec.ports().any(|port| port == vport)
}
