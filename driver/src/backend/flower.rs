//! Flow rules as tc flower filters on the ingress of ports. Nothing is kept beside what the kernel
//! has: a rule's id stands behind the caller's cookie in the cookie of its first action.

use super::ports::Ports;
use super::software;
use super::undo::all_or_nothing;
use crate::DeviceError;
use crate::nic::{Flow, FlowAction};
use crate::transport::{Session, TransportError};
use chanio_model::flow::{Action, RuleSpec};
use chanio_netlink::message::{Message, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REPLACE};
use chanio_netlink::tc::action as tc_action;
use chanio_netlink::tc::flower::{FlowerRule, RuleFlags};
use chanio_netlink::tc::model::{NotOffloaded, Surroundings, from_model, to_model};
use chanio_netlink::tc::{
    At, CLSACT, DEL_FILTER, DEL_QDISC, Filter, FilterKind, GET_FILTER, GET_QDISC, INGRESS,
    NEW_FILTER, NEW_QDISC, Qdisc,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where rules are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// By the kernel.
    Software,
    /// By the NIC.
    Hardware,
}

/// Bytes of an Ethernet header.
const ETHERNET_HEADER: u64 = 14;
/// Clock ticks a second in what the kernel tells (USER_HZ).
const USER_HZ: u64 = 100;
/// 2026-01-01T00:00:00Z, in milliseconds since 1970: ids count from there.
const EPOCH_MS: u64 = 1_767_225_600_000;
/// Bytes of a cookie: the caller's, then the id.
const COOKIE: usize = 16;
/// What the kernel says of a kind of filter that it does not have (net/sched/cls_api.c).
const NO_CLASSIFIER: &str = "TC classifier not found";

/// The rules of a switch.
pub(super) struct Rules<'a> {
    pub(super) session: &'a mut Session,
    pub(super) ports: &'a Ports,
    pub(super) place: Place,
}

/// A rule as the kernel has it.
struct Found {
    id: u64,
    filter: Filter,
    spec: RuleSpec,
}

impl Rules<'_> {
    /// Adds rules in their text form, all or none; their ids.
    pub(super) fn add(&mut self, texts: &[String], replace: bool) -> Result<Vec<u64>, DeviceError> {
        let names = |name: &str| self.ports.named(name).map(|port| port.vport);
        let specs = texts.iter().map(|text| {
            let spec = RuleSpec::parse(text, &names);
            spec.map_err(|e| refused(e.to_string()))
        });
        let specs = specs.collect::<Result<Vec<_>, _>>()?;
        let known = self.found()?;
        let first = known
            .iter()
            .map(|rule| rule.id + 1)
            .max()
            .unwrap_or(0)
            .max(now());
        let mut ids = Vec::new();
        let mut orders = Vec::new();
        for (id, spec) in (first..).zip(specs) {
            let same = |rule: &&Found| {
                rule.spec.chain == spec.chain
                    && rule.spec.priority == spec.priority
                    && rule.spec.matches == spec.matches
            };
            let old = known.iter().filter(|_| replace).find(same);
            orders.push((self.filter(&spec, id)?, old.map(|rule| rule.filter.clone())));
            ids.push(id);
        }
        all_or_nothing(self, |rules, undo| {
            for (mut filter, old) in orders {
                if let Some(index) = rules.hang(filter.at)? {
                    undo.push("removing clsact", move |rules: &mut Self| {
                        rules.remove_clsact(index)
                    });
                }
                let flags = match &old {
                    Some(old) => {
                        filter.handle = old.handle;
                        NLM_F_CREATE | NLM_F_REPLACE
                    }
                    None => NLM_F_CREATE | NLM_F_EXCL,
                };
                let handle = rules.put(&filter, flags | NLM_F_ECHO)?;
                undo.push("removing a rule", move |rules: &mut Self| {
                    match (old, handle) {
                        (Some(old), _) => rules.put(&clean(old), NLM_F_CREATE | NLM_F_REPLACE),
                        (None, Some(handle)) => {
                            return rules.remove(&Filter { handle, ..filter });
                        }
                        (None, None) => return rules.remove_by_id(&filter),
                    }
                    .map(drop)
                });
            }
            Ok(())
        })?;
        Ok(ids)
    }

    /// Removes rules, all or none.
    pub(super) fn del(&mut self, ids: &[u64]) -> Result<(), DeviceError> {
        let known = self.found()?;
        let there: BTreeSet<u64> = known.iter().map(|rule| rule.id).collect();
        let wanted: BTreeSet<u64> = ids.iter().copied().collect();
        if let Some(id) = wanted.difference(&there).next() {
            return Err(refused(format!("id: no flow rule {id}")));
        }
        let gone = known.into_iter().filter(|rule| wanted.contains(&rule.id));
        all_or_nothing(self, |rules, undo| {
            for rule in gone {
                rules.remove(&rule.filter)?;
                undo.push("adding a rule again", move |rules: &mut Self| {
                    let put = rules.put(&clean(rule.filter), NLM_F_CREATE | NLM_F_EXCL);
                    put.map(drop)
                });
            }
            Ok(())
        })
    }

    /// Removes all rules; how many.
    pub(super) fn flush(&mut self) -> Result<u64, DeviceError> {
        let ids: Vec<u64> = self.found()?.iter().map(|rule| rule.id).collect();
        self.del(&ids)?;
        Ok(ids.len() as u64)
    }

    /// The rules that name a port.
    pub(super) fn naming(&mut self, names: &BTreeSet<&str>) -> Result<Vec<u64>, DeviceError> {
        let ports = self.ports;
        let named = |vport| ports.name(vport).is_some_and(|name| names.contains(&*name));
        let naming = self.found()?.into_iter().filter(|rule| {
            let sends = rule.spec.actions.iter().any(|action| match action {
                Action::Redirect(to) | Action::Mirror(to) => named(*to),
                _ => false,
            });
            sends || rule.spec.matches.in_port().is_some_and(named)
        });
        Ok(naming.map(|rule| rule.id).collect())
    }

    /// All rules, in the order they were added.
    pub(super) fn list(&mut self) -> Result<Vec<Flow>, DeviceError> {
        let mut found = self.found()?;
        found.sort_by_key(|rule| rule.id);
        Ok(found.iter().map(|rule| self.tell(rule)).collect())
    }

    fn tell(&self, rule: &Found) -> Flow {
        let names = |vport| self.ports.name(vport);
        let spec = &rule.spec;
        let Some(FilterKind::Flower(flower)) = &rule.filter.kind else {
            unreachable!("found() keeps flower filters only")
        };
        let texts: Vec<_> = spec
            .actions
            .iter()
            .map(|a| a.with_names(&names).to_string())
            .collect();
        // One action of a rule can be several of tc's: then these are told, by their kinds.
        let asked = || flower.actions.iter().filter(|a| software::asked_for(a));
        let one_to_one = texts.len() == asked().count();
        let seen = asked().enumerate().map(|(place, action)| {
            let (packets, mut bytes) = counted(action);
            if self.place == Place::Software {
                // At ingress the kernel has taken the header off before tc counts.
                bytes += packets * ETHERNET_HEADER;
            }
            FlowAction {
                action: match one_to_one {
                    true => texts[place].clone(),
                    false => action.kind.name().to_owned(),
                },
                packets,
                bytes,
                idle_ns: idle(action),
            }
        });
        let action_stats: Vec<_> = seen.collect();
        let first = action_stats.first();
        let matches = spec.matches.with_names(&names).to_string();
        Flow {
            id: rule.id,
            rule: spec.with_names(&names).to_string(),
            priority: spec.priority.into(),
            cookie: spec.cookie,
            matches: pairs(&matches),
            actions: texts,
            packets: first.map_or(0, |seen| seen.packets),
            bytes: first.map_or(0, |seen| seen.bytes),
            idle_ns: first.and_then(|seen| seen.idle_ns),
            chain: spec.chain,
            action_stats,
        }
    }

    /// The filter for a rule, with its id.
    fn filter(&self, spec: &RuleSpec, id: u64) -> Result<Filter, DeviceError> {
        if self.place == Place::Software {
            software::check(spec, self.ports)?;
        }
        let mut filter = from_model(spec, self.ports).map_err(not_for_tc)?;
        let Some(FilterKind::Flower(flower)) = &mut filter.kind else {
            unreachable!("from_model makes flower filters")
        };
        if self.place == Place::Software {
            software::complete(&mut flower.actions);
            flower.flags = Some(RuleFlags(RuleFlags::SKIP_HW));
        }
        let first = flower.actions.first_mut().ok_or_else(|| {
            refused("action: none, a rule that is put into tc needs at least one".into())
        })?;
        let mut cookie = spec.cookie.to_ne_bytes().to_vec();
        cookie.extend(id.to_ne_bytes());
        first.common.cookie = Some(cookie);
        Ok(filter)
    }

    /// All of our rules on the switch's ports.
    fn found(&mut self) -> Result<Vec<Found>, DeviceError> {
        let (mut places, mut blocks) = (Vec::new(), BTreeSet::new());
        for qdisc in qdiscs(self.session)? {
            let index = qdisc.header.ifindex;
            let on_port = self.ports.of_netdev(index.cast_unsigned()).is_some();
            let tunnel = self.ports.tunnel(index.cast_unsigned()).is_some();
            if qdisc.header.parent != CLSACT || !(on_port || tunnel) {
                continue;
            }
            let at = match qdisc.more.ingress_block {
                Some(block) if block != 0 => {
                    if !blocks.insert(block) {
                        continue;
                    }
                    At::Block(block)
                }
                _ => At::Device {
                    ifindex: index,
                    parent: INGRESS,
                },
            };
            places.push(at);
        }
        let mut found = Vec::new();
        for at in places {
            let asked = Filter {
                at,
                ..Filter::default()
            };
            let asked = made(asked.message(GET_FILTER, 0))?;
            let filters = self
                .session
                .dump(asked)
                .map_err(|e| e.at("listing filters"))?;
            for message in filters {
                let filter = Filter::parse(&message.payload);
                let filter = filter.map_err(|e| TransportError::from(e).at("listing filters"))?;
                found.extend(self.read(filter));
            }
        }
        Ok(found)
    }

    /// One of our rules; others' filters are none.
    fn read(&self, filter: Filter) -> Option<Found> {
        let Some(FilterKind::Flower(flower)) = &filter.kind else {
            return None;
        };
        let cookie = flower.actions.first()?.common.cookie.as_deref()?;
        let (_, id) = cookie.split_first_chunk::<8>()?;
        let id = u64::from_ne_bytes(id.try_into().ok()?);
        if cookie.len() != COOKIE || id == 0 {
            return None;
        }
        // What it is put where does not say what it does.
        let mut plain = filter.clone();
        if let Some(FilterKind::Flower(flower)) = &mut plain.kind {
            flower.flags = None;
            flower.actions.retain(software::asked_for);
        }
        let spec = to_model(&plain, self.ports).ok()?;
        Some(Found { id, filter, spec })
    }

    /// Makes the qdisc that filters hang on; the netdev's index if there was none.
    fn hang(&mut self, at: At) -> Result<Option<i32>, DeviceError> {
        let At::Device { ifindex, .. } = at else {
            // A block is there as long as a port has it.
            return Ok(None);
        };
        let clsact = made(Qdisc::clsact(ifindex).message(NEW_QDISC, NLM_F_CREATE | NLM_F_EXCL))?;
        match self.session.request(clsact) {
            Ok(_) => Ok(Some(ifindex)),
            Err(error) if error.is(libc::EEXIST) => Ok(None),
            Err(error) if error.is(libc::ENOENT) => Err(DeviceError::Unsupported {
                what: "flow rules".into(),
                why: "this kernel has no clsact qdisc (CONFIG_NET_SCH_INGRESS)".into(),
            }),
            Err(error) => Err(error.at("adding qdisc clsact")),
        }
    }

    fn remove_clsact(&mut self, ifindex: i32) -> Result<(), DeviceError> {
        let clsact = made(Qdisc::clsact(ifindex).message(DEL_QDISC, 0))?;
        let done = self.session.request(clsact);
        done.map(drop).map_err(|e| e.at("removing qdisc clsact"))
    }

    /// Puts a filter there; with NLM_F_ECHO its handle, as far as the kernel tells it.
    fn put(&mut self, filter: &Filter, flags: u16) -> Result<Option<u32>, DeviceError> {
        let asked = made(filter.message(NEW_FILTER, flags))?;
        match self.session.request(asked) {
            Ok(told) => {
                let told = told.iter().filter(|message| message.kind == NEW_FILTER);
                let mut filters = told.filter_map(|told| Filter::parse(&told.payload).ok());
                Ok(filters.next().map(|told| told.handle).filter(|h| *h != 0))
            }
            Err(error) if is_missing_classifier(&error) => Err(no_flower()),
            Err(error) => Err(error.at("adding the rule")),
        }
    }

    fn remove(&mut self, filter: &Filter) -> Result<(), DeviceError> {
        let named = Filter {
            kind: Some(FilterKind::Named("flower".into())),
            ..filter.clone()
        };
        let asked = made(named.message(DEL_FILTER, 0))?;
        let done = self.session.request(asked);
        done.map(drop).map_err(|e| e.at("removing a rule"))
    }

    /// Removes a rule that was just added, whose handle the kernel has not told.
    fn remove_by_id(&mut self, added: &Filter) -> Result<(), DeviceError> {
        let cookie = |filter: &Filter| match &filter.kind {
            Some(FilterKind::Flower(flower)) => flower.actions.first()?.common.cookie.clone(),
            _ => None,
        };
        let known = self.found()?;
        match known
            .iter()
            .find(|rule| cookie(&rule.filter) == cookie(added))
        {
            Some(rule) => self.remove(&rule.filter),
            None => Ok(()),
        }
    }
}

/// All qdiscs of the namespace.
pub(super) fn qdiscs(session: &mut Session) -> Result<Vec<Qdisc>, DeviceError> {
    let asked = made(Qdisc::default().message(GET_QDISC, 0))?;
    let told = session.dump(asked).map_err(|e| e.at("listing qdiscs"))?;
    let parsed = told.iter().map(|message| Qdisc::parse(&message.payload));
    let parsed: Result<Vec<_>, _> = parsed.collect();
    parsed.map_err(|e| TransportError::from(e).at("listing qdiscs"))
}

/// The qdisc that filters hang on, in a block; 0: in none.
pub(super) fn clsact_in(ifindex: i32, block: u16) -> Qdisc {
    let mut clsact = Qdisc::clsact(ifindex);
    clsact.more.ingress_block = (block != 0).then_some(block.into());
    clsact
}

/// How many filters there are, whosever.
pub(super) fn filters_at(session: &mut Session, at: At) -> Result<usize, DeviceError> {
    let asked = Filter {
        at,
        ..Filter::default()
    };
    let told = session.dump(made(asked.message(GET_FILTER, 0))?);
    let told = told.map_err(|e| e.at("listing filters"))?;
    // A dump also tells of each priority, with handle 0 (net/sched/cls_api.c: tcf_chain_dump).
    let mut count = 0;
    for message in told {
        let filter = Filter::parse(&message.payload);
        let filter = filter.map_err(|e| TransportError::from(e).at("listing filters"))?;
        count += usize::from(filter.handle != 0);
    }
    Ok(count)
}

/// Whether a filter was refused because the kernel does not know its kind.
pub(super) fn is_missing_classifier(error: &TransportError) -> bool {
    let TransportError::Refused { told, .. } = error else {
        return false;
    };
    error.is(libc::ENOENT)
        && told
            .message
            .as_deref()
            .is_some_and(|m| m.contains(NO_CLASSIFIER))
}

/// Why there are no rules where the kernel has no flower.
pub(super) const NO_FLOWER: &str = "this kernel has no cls_flower (CONFIG_NET_CLS_FLOWER)";

fn no_flower() -> DeviceError {
    DeviceError::Unsupported {
        what: "flow rules".into(),
        why: NO_FLOWER.into(),
    }
}

/// A filter as it was asked for, from how the kernel tells it.
fn clean(mut filter: Filter) -> Filter {
    if let Some(FilterKind::Flower(flower)) = &mut filter.kind {
        let FlowerRule {
            flags,
            in_hw_count,
            actions,
            ..
        } = &mut **flower;
        let asked = RuleFlags::SKIP_HW | RuleFlags::SKIP_SW | RuleFlags::VERBOSE;
        *flags = flags.map(|flags| RuleFlags(flags.0 & asked));
        *in_hw_count = None;
        for action in actions {
            // A new action of its own, not a further use of the one that goes.
            action.generic.index = 0;
            (action.generic.refs, action.generic.binds) = (0, 0);
            (action.times, action.stats) = (None, None);
            action.common.used_hw_stats = None;
            action.common.in_hw_count = None;
        }
    }
    filter
}

fn counted(action: &tc_action::Action) -> (u64, u64) {
    let stats = action.stats.as_ref();
    let bytes = stats
        .and_then(|stats| stats.basic)
        .map_or(0, |basic| basic.bytes);
    (stats.map_or(0, |stats| stats.packets()), bytes)
}

fn idle(action: &tc_action::Action) -> Option<u64> {
    let (packets, _) = counted(action);
    let times = action.times.filter(|_| packets > 0)?;
    Some(times.last_use.saturating_mul(1_000_000_000 / USER_HZ))
}

/// Keys and values of a match's text.
fn pairs(text: &str) -> BTreeMap<String, String> {
    let mut words = text.split_whitespace();
    let mut pairs = BTreeMap::new();
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        pairs.insert(key.to_owned(), value.to_owned());
    }
    pairs
}

/// What tc cannot say, and what is wrong with the rule.
fn not_for_tc(why: NotOffloaded) -> DeviceError {
    match why {
        NotOffloaded::Key(_)
        | NotOffloaded::Partial(_)
        | NotOffloaded::Action(_)
        | NotOffloaded::NoTunnelDevice => DeviceError::Unsupported {
            what: "the rule as a filter of tc".into(),
            why: why.to_string(),
        },
        _ => refused(why.to_string()),
    }
}

fn made(message: chanio_netlink::Result<Message>) -> Result<Message, DeviceError> {
    message.map_err(|e| refused(e.to_string()))
}

fn refused(reason: String) -> DeviceError {
    DeviceError::Refused { reason }
}

/// Milliseconds since [`EPOCH_MS`]: ids that nobody has had before, without keeping a count.
fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    millis.saturating_sub(EPOCH_MS).max(1)
}
