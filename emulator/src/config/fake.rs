//! A NIC in memory, with the rules of the real one that matter to plans, for tests.

use crate::capture::{Capture, Filter};
use crate::datapath::Step;
use crate::nic::spec::*;
use crate::nic::{NicApi, PortNames, Refused};
use chanio_model::ct::CtEntry;
use chanio_model::eswitch::Mode;
use chanio_model::flow::RuleSpec;
use chanio_model::rate::{RateChange, RateName, Rates};
use chanio_model::{ChannelName, Mac, RuleId, VportId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone)]
struct State {
    channels: BTreeMap<ChannelName, (VportId, ChannelSpec)>,
    rules: BTreeMap<RuleId, RuleSpec>,
    fdb: BTreeMap<(u16, Mac), VportId>,
    eswitch: (Mode, bool, u32),
    next: u64,
    queues: u32,
    rates: BTreeMap<RateName, Rates>,
    /// Changes that are still carried out; the one after them is refused.
    left: Option<u32>,
}

pub struct Fake(Mutex<State>);

/// What can be seen of it, with ports by name, in an order that does not depend on history.
#[derive(Debug, PartialEq)]
pub struct Seen {
    pub channels: Vec<String>,
    pub rules: BTreeSet<String>,
    pub fdb: BTreeMap<(u16, Mac), String>,
    pub eswitch: (Mode, bool, u32),
    pub rates: BTreeMap<RateName, Rates>,
}

fn own(vport: VportId, spec: &ChannelSpec) -> (u16, Mac) {
    let [_, _, c, d] = vport.0.to_be_bytes();
    let mac = spec.mac.unwrap_or(Mac([2, 0xca, 0, 0, c, d]));
    (spec.vlan.map_or(0, |v| v.id()), mac)
}

fn mentions(spec: &RuleSpec, vport: VportId) -> bool {
    spec.ports().any(|port| port == vport)
}

impl State {
    fn change(&mut self) -> Result<(), Refused> {
        match &mut self.left {
            Some(0) => {
                self.left = None;
                Err(Refused::os("told to", std::io::Error::other("refuse")))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn claim(&mut self, key: (u16, Mac), vport: VportId) -> Result<(), Refused> {
        let owner = self.fdb.insert(key, vport);
        match owner {
            Some(_) => Err(Refused::Invalid {
                field: "mac",
                value: key.1.to_string(),
                allowed: "a free one".into(),
            }),
            None => Ok(()),
        }
    }

    fn known(&self, vport: VportId) -> Result<(), Refused> {
        let known = vport.is_uplink() || self.channels.values().any(|(v, _)| *v == vport);
        known.then_some(()).ok_or(Refused::NoVport(vport))
    }
}

impl Fake {
    pub fn new(queues: u32) -> Self {
        Self(Mutex::new(State {
            channels: BTreeMap::new(),
            rules: BTreeMap::new(),
            fdb: BTreeMap::new(),
            eswitch: (Mode::Legacy, false, 300),
            next: 1,
            queues,
            rates: BTreeMap::new(),
            left: None,
        }))
    }

    /// Have a change refused after so many.
    pub fn refuse_after(&self, changes: u32) {
        self.0.lock().left = Some(changes);
    }

    /// Whether that has not happened yet; and it will not any more.
    pub fn was_spared(&self) -> bool {
        self.0.lock().left.take().is_some()
    }

    pub fn seen(&self) -> Seen {
        let names = PortNames::of(self);
        let state = self.0.lock();
        let own: BTreeSet<_> = state
            .channels
            .values()
            .map(|(v, spec)| own(*v, spec))
            .collect();
        let channel = |(_, spec): &(VportId, ChannelSpec)| format!("{spec:?}");
        let added = state.fdb.iter().filter(|(key, _)| !own.contains(key));
        Seen {
            channels: state.channels.values().map(channel).collect(),
            rules: state.rules.values().map(|spec| names.rule(spec)).collect(),
            fdb: added
                .map(|(key, vport)| (*key, names.name(*vport)))
                .collect(),
            eswitch: state.eswitch,
            rates: state.rates.clone(),
        }
    }

    /// All or nothing, as the real one.
    fn atomically<T>(
        &self,
        f: impl FnOnce(&mut State) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let mut state = self.0.lock();
        state.change()?;
        let mut next = state.clone();
        let done = f(&mut next)?;
        *state = next;
        Ok(done)
    }
}

fn info(vport: VportId, spec: &ChannelSpec) -> ChannelInfo {
    let mac = own(vport, spec).1;
    ChannelInfo {
        spec: ChannelSpec {
            mac: Some(mac),
            ..spec.clone()
        },
        mac,
        vport,
        representor: None,
        socket: None,
        state: ChannelState::Disconnected,
        fault: None,
        features: 0,
        active_queues: 0,
        rss: spec.rss.clone(),
    }
}

impl NicApi for Fake {
    fn trace(&self, _: VportId, _: bool, _: &[u8]) -> Vec<Step> {
        unreachable!("no plan asks for it")
    }

    fn capture(&self, _: Filter) -> Capture {
        unreachable!("no plan asks for it")
    }

    fn kernel_rules(&self) -> Result<Vec<KernelRule>, Refused> {
        unreachable!("no plan asks for it")
    }

    fn offloaded_rules(&self) -> Vec<RuleInfo> {
        unreachable!("no plan asks for it")
    }

    fn connections(&self, _: Option<u16>) -> Vec<CtEntry> {
        unreachable!("no plan asks for it")
    }

    fn flush_connections(&self, _: Option<u16>) -> u32 {
        unreachable!("no plan asks for it")
    }

    fn info(&self) -> NicInfo {
        unreachable!("no plan asks for it")
    }

    fn eswitch(&self) -> EswitchInfo {
        let state = self.0.lock();
        let (mode, vepa, ageing_secs) = state.eswitch;
        EswitchInfo {
            mode,
            vepa,
            ageing_secs,
            tunnel_ports: Default::default(),
            uplink_block: 0,
            kernel_overruns: None,
            rules: state.rules.len(),
            fdb_entries: state.fdb.len(),
        }
    }

    fn set_eswitch(&self, change: EswitchChange) -> Result<EswitchInfo, Refused> {
        self.atomically(|state| {
            let (mode, vepa, secs) = state.eswitch;
            let new_mode = change.mode.unwrap_or(mode);
            let kept = vepa && new_mode == mode;
            let new_vepa = change.vepa.unwrap_or(kept);
            if new_vepa && new_mode != Mode::Legacy {
                return Err(Refused::WrongMode {
                    what: "vepa",
                    needed: "legacy",
                    mode: "switchdev",
                });
            }
            if new_mode != mode {
                state.rules.clear();
            }
            state.eswitch = (new_mode, new_vepa, change.ageing_secs.unwrap_or(secs));
            Ok(())
        })?;
        Ok(self.eswitch())
    }

    fn add_channels(&self, specs: Vec<ChannelSpec>) -> Result<Vec<ChannelInfo>, Refused> {
        self.atomically(|state| {
            let mut infos = Vec::new();
            for spec in specs {
                if state.channels.contains_key(&spec.name) {
                    return Err(Refused::DuplicateName(spec.name));
                }
                let taken: BTreeSet<_> = state.channels.values().map(|(v, _)| v.0).collect();
                let vport = VportId((1..).find(|v| !taken.contains(v)).unwrap());
                state.claim(own(vport, &spec), vport)?;
                infos.push(info(vport, &spec));
                state.channels.insert(spec.name.clone(), (vport, spec));
            }
            let used: u32 = state
                .channels
                .values()
                .map(|(_, s)| u32::from(s.queues))
                .sum();
            if used > state.queues {
                return Err(Refused::PoolExhausted {
                    asked: used.into(),
                    free: 0,
                    pool: state.queues.into(),
                });
            }
            Ok(infos)
        })
    }

    fn del_channels(&self, names: &[ChannelName]) -> Result<(), Refused> {
        self.atomically(|state| {
            for name in names {
                let gone = state.channels.remove(name);
                let (vport, _) = gone.ok_or_else(|| Refused::NoChannel(name.to_string()))?;
                state.rules.retain(|_, spec| !mentions(spec, vport));
                state.fdb.retain(|_, v| *v != vport);
                state.rates.remove(name);
            }
            Ok(())
        })
    }

    fn set_channel(&self, name: &ChannelName, c: ChannelChange) -> Result<ChannelInfo, Refused> {
        self.atomically(|state| {
            let found = state.channels.get_mut(name);
            let (vport, spec) = found.ok_or_else(|| Refused::NoChannel(name.to_string()))?;
            let (vport, old) = (*vport, own(*vport, spec));
            spec.mac = c.mac.or(spec.mac);
            spec.vlan = c.vlan.unwrap_or(spec.vlan);
            spec.mtu = c.mtu.unwrap_or(spec.mtu);
            spec.spoofchk = c.spoofchk.unwrap_or(spec.spoofchk);
            spec.trust = c.trust.unwrap_or(spec.trust);
            spec.lro = c.lro.unwrap_or(spec.lro);
            spec.link_up = c.link_up.unwrap_or(spec.link_up);
            spec.block = c.block.unwrap_or(spec.block);
            spec.receive = c.receive.apply(&spec.receive, spec.mac)?;
            if let Some(change) = &c.rss {
                spec.rss = change.apply(spec.rss.as_ref(), spec.queues)?;
            }
            let (new, info) = (own(vport, spec), info(vport, spec));
            if new != old {
                state.fdb.remove(&old);
                state.claim(new, vport)?;
            }
            Ok(info)
        })
    }

    fn channels(&self) -> Vec<ChannelInfo> {
        self.0
            .lock()
            .channels
            .values()
            .map(|(vport, spec)| info(*vport, spec))
            .collect()
    }

    fn channel(&self, name: &str) -> Result<ChannelInfo, Refused> {
        let mut list = self.channels().into_iter();
        list.find(|c| c.spec.name.as_str() == name)
            .ok_or_else(|| Refused::NoChannel(name.into()))
    }

    fn representors(&self) -> Vec<RepresentorInfo> {
        Vec::new()
    }

    fn add_rules(&self, specs: Vec<RuleSpec>) -> Result<Vec<RuleId>, Refused> {
        self.atomically(|state| {
            if state.eswitch.0 != Mode::Switchdev {
                return Err(Refused::WrongMode {
                    what: "a flow rule",
                    needed: "switchdev",
                    mode: "legacy",
                });
            }
            let mut ids = Vec::new();
            for spec in specs {
                spec.ports().try_for_each(|port| state.known(port))?;
                ids.push(RuleId(state.next));
                state.rules.insert(RuleId(state.next), spec);
                state.next += 1;
            }
            Ok(ids)
        })
    }

    fn replace_rules(&self, specs: Vec<RuleSpec>) -> Result<Vec<RuleId>, Refused> {
        let place = |spec: &RuleSpec| (spec.chain, spec.priority, spec.matches.clone());
        let ids = self.add_rules(specs)?;
        self.atomically(|state| {
            let one = |id: &RuleId| {
                let spec = state.rules[id].clone();
                let mut older = state.rules.iter().filter(|(old, _)| *old < id);
                let same = older.find(|(_, old)| place(old) == place(&spec));
                let Some((&old, _)) = same else { return *id };
                state.rules.remove(id);
                state.rules.insert(old, spec);
                old
            };
            Ok(ids.iter().map(one).collect())
        })
    }

    fn del_rules(&self, ids: &[RuleId]) -> Result<(), Refused> {
        self.atomically(|state| {
            let gone = ids.iter().find(|id| state.rules.remove(id).is_none());
            gone.map_or(Ok(()), |id| Err(Refused::NoRule(*id)))
        })
    }

    fn flush_rules(&self) -> usize {
        std::mem::take(&mut self.0.lock().rules).len()
    }

    fn rules(&self) -> Vec<RuleInfo> {
        let info = |(id, spec): (&RuleId, &RuleSpec)| RuleInfo {
            id: *id,
            spec: spec.clone(),
            packets: 0,
            bytes: 0,
            idle_ns: None,
            actions: Vec::new(),
        };
        self.0.lock().rules.iter().map(info).collect()
    }

    fn fdb(&self) -> Vec<FdbInfo> {
        let info = |(key, vport): (&(u16, Mac), &VportId)| FdbInfo {
            vid: key.0,
            mac: key.1,
            vport: *vport,
            is_static: true,
            idle_ns: None,
        };
        self.0.lock().fdb.iter().map(info).collect()
    }

    fn add_fdb(&self, vid: u16, mac: Mac, vport: VportId) -> Result<(), Refused> {
        self.atomically(|state| {
            state.known(vport)?;
            state.claim((vid, mac), vport)
        })
    }

    fn del_fdb(&self, vid: u16, mac: Mac) -> Result<(), Refused> {
        let gone = |state: &mut State| state.fdb.remove(&(vid, mac));
        self.atomically(|state| {
            gone(state)
                .map(drop)
                .ok_or(Refused::NoFdbEntry { mac, vid })
        })
    }

    fn flush_fdb(&self) -> usize {
        0
    }

    fn rates(&self) -> Vec<RateInfo> {
        let state = self.0.lock();
        let info = |(name, rates): (&RateName, &Rates)| RateInfo {
            name: name.clone(),
            is_node: !state.channels.contains_key(name),
            rates: rates.clone(),
        };
        state.rates.iter().map(info).collect()
    }

    fn add_rate(&self, _: &RateName, _: &RateChange) -> Result<RateInfo, Refused> {
        unreachable!("a plan replaces them")
    }

    fn set_rate(&self, _: &RateName, _: &RateChange) -> Result<RateInfo, Refused> {
        unreachable!("a plan replaces them")
    }

    fn del_rate(&self, _: &RateName) -> Result<(), Refused> {
        unreachable!("a plan replaces them")
    }

    fn replace_rates(
        &self,
        rates: Vec<(RateName, Rates)>,
    ) -> Result<Vec<(RateName, Rates)>, Refused> {
        self.atomically(|state| {
            let rates = rates.into_iter().collect();
            Ok(std::mem::replace(&mut state.rates, rates)
                .into_iter()
                .collect())
        })
    }

    fn stats(&self) -> Vec<VportStats> {
        Vec::new()
    }

    fn vport_by_name(&self, name: &str) -> Option<VportId> {
        if name == "uplink" {
            return Some(VportId::UPLINK);
        }
        self.channel(name).ok().map(|c| c.vport)
    }
}
