//! What of the kernel's filters and addresses is in hardware.

use super::eswitch::{rule_info, rule_names};
use super::{Nic, Refused, State, spec::*};
use crate::datapath::Change;
use crate::offload::{Basis, KernelPort, Listed, Part, Plan, RuleKey, Source};
use chanio_model::eswitch::{self as model, Mode};
use chanio_model::flow::{Policers, Rule, RuleTotals};
use chanio_model::{Nanos, RuleId, VportId};
use nix::sys::eventfd::EventFd;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// The rules that are there for the kernel.
pub(super) struct KernelRules {
    /// Wakes whoever makes plans; `None`: nobody does.
    planner: Option<Arc<EventFd>>,
    /// Counts changes of what plans are made for.
    epoch: u64,
    rules: BTreeMap<RuleKey, Arc<Rule>>,
    /// Meters that they share.
    policers: Policers,
    listed: Vec<Listed>,
    /// How often notifications of the kernel were lost.
    overruns: u64,
}

impl KernelRules {
    pub fn new(planner: Option<Arc<EventFd>>) -> Self {
        Self {
            planner,
            epoch: 0,
            rules: BTreeMap::new(),
            policers: Policers::default(),
            listed: Vec::new(),
            overruns: 0,
        }
    }

    /// How often notifications were lost; `None`: nobody listens.
    pub fn overruns(&self) -> Option<u64> {
        self.planner.is_some().then_some(self.overruns)
    }

    /// Ports, their settings or the mode have changed: plans made before are void.
    pub fn outdated(&mut self) {
        self.epoch += 1;
        if let Some(planner) = &self.planner {
            // It fails only when so many wake-ups are pending that one more changes nothing.
            let _ = planner.write(1);
        }
    }

    /// Gives up the rules that name one of these vports.
    pub fn forget(&mut self, vports: &[VportId]) -> Vec<RuleId> {
        let named = |rule: &Rule| vports.iter().any(|v| rule_names(rule.spec(), *v));
        let mut gone = Vec::new();
        let policers = &mut self.policers;
        self.rules.retain(|_, rule| {
            let goes = named(rule);
            if goes {
                policers.release(rule);
            }
            gone.extend(goes.then_some(rule.id()));
            !goes
        });
        gone
    }

    /// Gives up all.
    pub fn clear(&mut self) -> Vec<RuleId> {
        self.policers = Policers::default();
        let rules = std::mem::take(&mut self.rules);
        rules.values().map(|rule| rule.id()).collect()
    }

    /// The rules that are there for one thing.
    fn of(&self, source: Source) -> impl Iterator<Item = (Part, &Arc<Rule>)> {
        let from = (source, Part::Filter(VportId(0)));
        let range = self
            .rules
            .range(from..)
            .take_while(move |(key, _)| key.0 == source);
        range.map(|(key, rule)| (key.1, rule))
    }
}

impl Nic {
    /// What plans are to be made for now.
    pub(crate) fn offload_basis(&self) -> Basis {
        let state = self.state.lock();
        let port = |port: &Arc<crate::port::Port>| {
            let representor = port.representor.as_ref()?;
            let entry = port
                .channel
                .as_ref()
                .and_then(|name| state.channels.get(name));
            Some(KernelPort {
                vport: port.id,
                ifindex: representor.ifindex,
                mtu: entry.map(|entry| entry.spec.mtu),
            })
        };
        let specs = state.rules.values().map(|rule| rule.spec());
        let masks: HashSet<_> = specs.map(|spec| (spec.chain, spec.matches.mask)).collect();
        Basis {
            epoch: state.kernel.epoch,
            switchdev: self.datapath.with_config(|c| c.switch.mode()) == Mode::Switchdev,
            ports: state.ports().filter_map(port).collect(),
            profile: self.config.profile,
            tunnel_ports: self
                .datapath
                .with_config(|c| c.switch.tunnel_ports().clone()),
            rules: state.rules.len(),
            masks: masks.len(),
        }
    }

    /// Has the rules of a plan and no others of the kernel's, all at once; false, and nothing done,
    /// if what the plan was made for is no more.
    pub(crate) fn offload(&self, epoch: u64, plan: Plan) -> bool {
        let Ok(mut state) = self.open() else {
            return true;
        };
        if state.kernel.epoch != epoch {
            return false;
        }
        let State {
            kernel, next_rule, ..
        } = &mut *state;
        let before = std::mem::take(&mut kernel.rules);
        let mut wanted = BTreeMap::new();
        let mut order = Vec::with_capacity(plan.rules.len());
        for (key, origin, spec) in plan.rules {
            order.push(key);
            wanted.insert(key, (origin, spec));
        }
        // What goes or changes gives back its meters first, as what comes may want the same.
        let mut changes = Vec::new();
        let mut old_ids = BTreeMap::new();
        for (key, rule) in before {
            match wanted.get(&key) {
                Some((origin, spec)) if (rule.origin(), rule.spec()) == (*origin, spec) => {
                    kernel.rules.insert(key, rule);
                    continue;
                }
                Some(_) => {
                    old_ids.insert(key, rule.id());
                }
                None => changes.push(model::Change::RemoveRule(rule.id())),
            }
            kernel.policers.release(&rule);
        }
        for key in order {
            let Some((origin, spec)) = wanted.remove(&key) else {
                continue;
            };
            if kernel.rules.contains_key(&key) {
                continue;
            }
            let old = old_ids.remove(&key);
            let id = old.unwrap_or(RuleId(*next_rule));
            let workers = self.config.workers;
            let rule = match Rule::of(origin, id, spec, workers, &mut kernel.policers) {
                Ok(rule) => Arc::new(rule),
                Err(error) => {
                    // Plans hold rules only that can be made.
                    tracing::error!(%error, ?key, "a rule of the kernel's");
                    changes.extend(old.map(model::Change::RemoveRule));
                    continue;
                }
            };
            changes.push(match old {
                Some(_) => model::Change::ReplaceRule(rule.clone()),
                None => {
                    *next_rule += 1;
                    model::Change::AddRule(rule.clone())
                }
            });
            kernel.rules.insert(key, rule);
        }
        kernel.listed = plan.listed;
        let changes: Vec<_> = changes.into_iter().map(Change::Switch).collect();
        if !changes.is_empty() {
            self.datapath.apply(&changes);
        }
        true
    }

    /// Notifications of the kernel were lost; returns how often by now.
    pub(crate) fn offload_overrun(&self) -> u64 {
        let kernel = &mut self.state.lock().kernel;
        kernel.overruns += 1;
        kernel.overruns
    }

    /// When each of these last took a packet, nanoseconds since the NIC started; 0: never, or it is
    /// not there.
    pub(crate) fn last_used(&self, keys: &[RuleKey]) -> Vec<Nanos> {
        let state = self.state.lock();
        let used = |key| {
            state
                .kernel
                .rules
                .get(key)
                .map_or(0, |rule| rule.totals().last_used)
        };
        keys.iter().map(used).collect()
    }

    /// The filters and addresses of the kernel that could be in hardware, and which are.
    ///
    /// # Errors
    /// [`Refused::Missing`] if the NIC does not follow the kernel.
    pub fn kernel_rules(&self) -> Result<Vec<KernelRule>, Refused> {
        let now = self.datapath.now();
        let state = self.state.lock();
        if state.kernel.planner.is_none() {
            return Err(Refused::Missing {
                what: "kernel".to_owned(),
                why: "this NIC does not follow the kernel; start chanio-emu with --offload".into(),
            });
        }
        let info = |listed: &Listed| {
            let mut rule = KernelRule {
                place: listed.place.clone(),
                kind: listed.kind.clone(),
                chain: 0,
                priority: 0,
                handle: 0,
                protocol: listed.protocol,
                text: listed.text.clone(),
                spec: None,
                ports: listed.ports,
                in_hw: 0,
                why_not: listed.why_not.clone(),
                ids: Vec::new(),
                packets: 0,
                bytes: 0,
                idle_ns: None,
            };
            if let Source::Filter(_, place) = listed.source {
                (rule.chain, rule.priority, rule.handle) =
                    (place.chain, place.priority, place.handle);
            }
            let mut totals = RuleTotals::default();
            for (part, installed) in state.kernel.of(listed.source) {
                rule.ids.push(installed.id());
                match part {
                    Part::Filter(_) => {
                        rule.in_hw += 1;
                        rule.spec.get_or_insert_with(|| installed.spec().clone());
                    }
                    Part::To(_) => rule.in_hw = 1,
                    Part::Cover(_) | Part::Entry(_) | Part::From(_) | Part::Back(_) => continue,
                }
                let more = installed.totals();
                totals.packets += more.packets;
                totals.bytes += more.bytes;
                totals.last_used = totals.last_used.max(more.last_used);
            }
            (rule.packets, rule.bytes) = (totals.packets, totals.bytes);
            rule.idle_ns = (totals.packets > 0).then(|| now.saturating_sub(totals.last_used));
            rule
        };
        Ok(state.kernel.listed.iter().map(info).collect())
    }

    /// The rules that are there for the kernel, by id.
    pub fn offloaded_rules(&self) -> Vec<RuleInfo> {
        let now = self.datapath.now();
        let state = self.state.lock();
        let rules = state.kernel.rules.values();
        let mut list: Vec<_> = rules.map(|rule| rule_info(rule, now)).collect();
        list.sort_by_key(|info| info.id);
        list
    }
}
