//! tc's filters that are rules of the switch, as a switchdev driver's offload has them
//! (net/sched/cls_api.c, cls_flower.c).
//!
//! A filter that may be in hardware and can be, is a rule of the switch and nothing else: what it
//! matches never gets to software. One that can't is the kernel's, unless it must not be in
//! software (skip_sw).

use super::installed::{Installed, Key, match_the_same};
use super::links::is_dump;
use crate::netlink::played::{Played, Role};
use crate::netlink::refuse;
use crate::nic::spec::RuleInfo;
use chanio_model::{RuleId, VportId};
use chanio_netlink::attr::Bitfield32;
use chanio_netlink::kernel::{Client, Refusal, Reply};
use chanio_netlink::message::{Message, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use chanio_netlink::tc::action::{
    Action, Basic, Control, HW_STATS_DELAYED, HW_STATS_IMMEDIATE, Queue, Stats, Times,
};
use chanio_netlink::tc::flower::RuleFlags;
use chanio_netlink::tc::model::{NotOffloaded, Surroundings, to_model};
use chanio_netlink::tc::{
    At, CLSACT, DEL_FILTER, Filter, FilterKind, GET_QDISC, Header, INGRESS, NEW_FILTER, Qdisc,
    TERSE,
};
use std::time::{Duration, Instant};

/// RTNLGRP_TC.
const GROUP: u32 = 4;
/// The ingress qdisc's own number, which is also clsact's: filters hang on it by that as well.
const QDISC: u32 = 0xffff_0000;
/// The first priority that is given to a filter without one (tcf_auto_prio).
const FIRST_AUTO: u16 = 0xc000;
/// Of a listing's times: USER_HZ.
const TICKS: u128 = 100;

/// The ports, for the conversion of filters into rules.
struct Ports<'a>(&'a Played);

impl Surroundings for Ports<'_> {
    fn vport(&self, ifindex: u32) -> Option<VportId> {
        match self.0.visible_role(ifindex)? {
            Role::Uplink => Some(VportId::UPLINK),
            Role::Other(vport) => Some(vport),
            Role::Representor(port) => self.0.functions.get(port).map(|f| f.vport),
            // A function's own netdev is not a port of the switch.
            Role::Function(_) => None,
        }
    }
    fn ifindex(&self, vport: VportId) -> Option<u32> {
        let ifindex = self.0.nic.netdev_of(vport)?;
        self.vport(ifindex).map(|_| ifindex)
    }
}

impl Played {
    /// The netdev whose received packets the filters are for, if it is a port of the switch.
    fn filtered_port(&self, filter: &Filter) -> Option<u32> {
        let At::Device { ifindex, parent } = filter.at else {
            return None;
        };
        let ifindex = ifindex.cast_unsigned();
        let ingress = [INGRESS, QDISC].contains(&parent);
        (ingress && Ports(self).vport(ifindex).is_some()).then_some(ifindex)
    }

    /// RTM_NEWTFILTER.
    pub(super) fn add_filter(
        &mut self,
        client: &Client,
        request: &Message,
    ) -> Result<Reply, Refusal> {
        let mut filter = Filter::parse(&request.payload)?;
        let flags = flags_of(&filter).unwrap_or_default();
        let Some(ifindex) = self
            .filtered_port(&filter)
            .filter(|_| !flags.has(RuleFlags::SKIP_HW) && flags_of(&filter).is_some())
        else {
            return self.route.ask(request, client.strict);
        };
        if flags.has(RuleFlags::SKIP_SW | RuleFlags::SKIP_HW) {
            return Err(Refusal::errno(libc::EINVAL));
        }
        self.check_qdisc(ifindex)?;
        let handle = filter.handle;
        let replaced = self.place(ifindex, &mut filter, request.flags)?;
        let installed = match self.put_in_switch(&filter, replaced) {
            Ok(rule) => rule,
            Err(refusal) if flags.has(RuleFlags::SKIP_SW) => return Err(refusal),
            Err(refusal) => {
                tracing::debug!(%refusal, "a filter that is in software only");
                filter.handle = handle;
                set_flags(&mut filter, RuleFlags(flags.0 | RuleFlags::SKIP_HW));
                let payload = filter.message(NEW_FILTER, request.flags)?.payload;
                let request = Message {
                    payload,
                    ..request.clone()
                };
                return self.route.ask(&request, client.strict);
            }
        };
        let key = (ifindex, filter.chain(), filter.priority, filter.handle);
        set_flags(&mut filter, RuleFlags(flags.0 | RuleFlags::IN_HW));
        let since = Instant::now();
        self.filters.insert(
            key,
            Installed {
                filter,
                rule: installed,
                since,
            },
        );
        let told = self.tell_filter(&key, NEW_FILTER, 0)?;
        self.tell_route(GROUP, told.clone());
        Ok(Reply::Answers(match request.flags & NLM_F_ECHO != 0 {
            true => vec![told],
            false => Vec::new(),
        }))
    }

    /// There is something that filters can hang on.
    fn check_qdisc(&mut self, ifindex: u32) -> Result<(), Refusal> {
        let qdisc = Qdisc {
            header: Header {
                ifindex: ifindex.cast_signed(),
                parent: CLSACT,
                ..Header::default()
            },
            ..Qdisc::clsact(0)
        };
        let qdisc = Qdisc {
            more: Default::default(),
            ..qdisc
        };
        let request = qdisc.message(GET_QDISC, chanio_netlink::message::NLM_F_REQUEST)?;
        match self.route.ask(&request, false) {
            // It answers with the qdisc only to whoever wants an echo.
            Ok(_) => Ok(()),
            _ => Err(refuse::text(libc::EINVAL, "Parent Qdisc doesn't exists")),
        }
    }

    /// Gives a filter its priority and handle; the one that it replaces.
    fn place(&self, ifindex: u32, filter: &mut Filter, flags: u16) -> Result<Option<Key>, Refusal> {
        let create = flags & NLM_F_CREATE != 0;
        let needs_create = || {
            let words = "Need both RTM_NEWTFILTER and NLM_F_CREATE to create a new filter";
            refuse::text(libc::ENOENT, words)
        };
        let chain = filter.chain();
        if filter.priority == 0 {
            if !create {
                let words = "Invalid filter command with priority of zero";
                return Err(refuse::text(libc::ENOENT, words));
            }
            filter.priority = match self.filters.of(ifindex, chain).next() {
                Some((_, _, first, _)) if *first > 1 => first - 1,
                _ => FIRST_AUTO,
            };
        }
        let among = (ifindex, chain, filter.priority);
        if let Some((_, first)) = self.filters.among(among).next() {
            let kind = |filter: &Filter| filter.kind.as_ref().map(|k| k.name().to_owned());
            let other = &first.filter;
            if other.protocol != filter.protocol || kind(other) != kind(filter) {
                let words = "Specified filter kind does not match existing one";
                return Err(refuse::text(libc::EINVAL, words));
            }
        }
        let key = (ifindex, chain, filter.priority, filter.handle);
        if filter.handle != 0 && self.filters.get(&key).is_some() {
            if flags & NLM_F_EXCL != 0 {
                return Err(refuse::text(libc::EEXIST, "Filter already exists"));
            }
            return Ok(Some(key));
        }
        if !create {
            return Err(needs_create());
        }
        // cls_flower.c: fl_ht_insert_unique
        match self.filters.matching(among, filter) {
            Some(_) if flags & NLM_F_EXCL != 0 => Err(Refusal::errno(libc::EEXIST)),
            // `tc filter replace` without a handle means the one that matches the same.
            Some(handle) => {
                filter.handle = handle;
                Ok(Some((ifindex, chain, filter.priority, handle)))
            }
            None => {
                if filter.handle == 0 {
                    filter.handle = self.filters.free_handle(among);
                }
                Ok(None)
            }
        }
    }

    fn put_in_switch(&self, filter: &Filter, replaced: Option<Key>) -> Result<RuleId, Refusal> {
        let mut hardware = filter.clone();
        if let At::Device { parent, .. } = &mut hardware.at {
            *parent = INGRESS;
        }
        let spec = to_model(&hardware, &Ports(self)).map_err(|not| {
            let errno = match not {
                NotOffloaded::Rule(_) => libc::EINVAL,
                _ => libc::EOPNOTSUPP,
            };
            self.vendor.refuse(errno, &not.to_string())
        })?;
        let refusal = |refused| self.vendor.refusal(&refused);
        let old = replaced.and_then(|key| self.filters.get(&key));
        let ids = match old {
            // One that matches something else goes first; if the new one is refused, it stays.
            Some(old) if !match_the_same(&old.filter, filter) => {
                let ids = self.nic.add_rules(vec![spec]).map_err(refusal)?;
                self.nic.del_rules(&[old.rule]).map_err(refusal)?;
                ids
            }
            Some(_) => self.nic.replace_rules(vec![spec]).map_err(refusal)?,
            None => self.nic.add_rules(vec![spec]).map_err(refusal)?,
        };
        ids.first()
            .copied()
            .ok_or_else(|| Refusal::errno(libc::EIO))
    }

    /// RTM_DELTFILTER.
    pub(super) fn del_filter(
        &mut self,
        client: &Client,
        request: &Message,
    ) -> Result<Reply, Refusal> {
        let filter = Filter::parse(&request.payload)?;
        let Some(ifindex) = self.filtered_port(&filter) else {
            return self.route.ask(request, client.strict);
        };
        let chain = filter.chain();
        let flush = filter.priority == 0;
        let keys: Vec<Key> = match (filter.priority, filter.handle) {
            (0, 0) => self.filters.of(ifindex, chain).copied().collect(),
            (0, _) => Vec::new(),
            (priority, 0) => {
                let all = self.filters.among((ifindex, chain, priority));
                all.map(|(key, _)| *key).collect()
            }
            (priority, handle) => {
                let key = (ifindex, chain, priority, handle);
                self.filters.get(&key).map(|_| key).into_iter().collect()
            }
        };
        let in_kernel = match keys.is_empty() || flush {
            true => Some(self.route.ask(request, client.strict)),
            false => None,
        };
        let mut told = Vec::with_capacity(keys.len());
        for key in &keys {
            told.push(self.tell_filter(key, DEL_FILTER, 0)?);
        }
        let rules = self.filters.remove(&keys);
        // One that went with a port that it named is gone already.
        for rule in rules {
            let _ = self.nic.del_rules(&[rule]);
        }
        for message in told {
            self.tell_route(GROUP, message);
        }
        match in_kernel {
            Some(reply) if keys.is_empty() => reply,
            _ => Ok(Reply::Answers(Vec::new())),
        }
    }

    /// RTM_GETTFILTER.
    pub(super) fn get_filter(
        &mut self,
        client: &Client,
        request: &Message,
    ) -> Result<Reply, Refusal> {
        let asked = Filter::parse(&request.payload)?;
        let Some(ifindex) = self.filtered_port(&asked) else {
            return self.route.ask(request, client.strict);
        };
        let flags = asked.more.dump_flags.map_or(0, |f| f.value & f.selector);
        if !is_dump(request) {
            let key = (ifindex, asked.chain(), asked.priority, asked.handle);
            return match self.filters.get(&key).is_some() {
                true => Ok(Reply::Answers(vec![
                    self.tell_filter(&key, NEW_FILTER, flags)?,
                ])),
                false => self.route.ask(request, client.strict),
            };
        }
        // What the kernel has of its own, if it has any classifier at all.
        let mut all = match self.route.ask(request, client.strict) {
            Ok(Reply::Dump(messages)) => messages,
            _ => Vec::new(),
        };
        let mut gone = Vec::new();
        let keys = self.filters.on(ifindex).into_iter();
        for key in keys
            .filter(|key| asked.more.chain.is_none_or(|chain| chain == key.1))
            .filter(|key| asked.priority == 0 || asked.priority == key.2)
        {
            let rule = self.filters.get(&key).map(|installed| installed.rule);
            match rule.and_then(|id| self.nic.rule(id)) {
                Some(rule) => all.push(self.filter_message(&key, NEW_FILTER, flags, &rule)?),
                // It went with a port that it named.
                None => gone.push(key),
            }
        }
        self.filters.remove(&gone);
        Ok(Reply::Dump(all))
    }

    /// RTM_DELQDISC: with what they hang on, filters go.
    pub(super) fn del_qdisc(
        &mut self,
        client: &Client,
        request: &Message,
    ) -> Result<Reply, Refusal> {
        let qdisc = Qdisc::parse(&request.payload)?;
        let reply = self.route.ask(request, client.strict)?;
        let Header {
            ifindex, parent, ..
        } = qdisc.header;
        if parent == CLSACT {
            for rule in self.filters.forget(ifindex.cast_unsigned()) {
                let _ = self.nic.del_rules(&[rule]);
            }
        }
        Ok(reply)
    }

    /// A filter's message, with its rule's counters.
    fn tell_filter(&self, key: &Key, kind: u16, flags: u32) -> Result<Message, Refusal> {
        let installed = self.filters.get(key);
        let installed = installed.ok_or_else(|| Refusal::errno(libc::ENOENT))?;
        match self.nic.rule(installed.rule) {
            Some(rule) => self.filter_message(key, kind, flags, &rule),
            None => Ok(installed.filter.message(kind, 0)?),
        }
    }

    fn filter_message(
        &self,
        key: &Key,
        kind: u16,
        flags: u32,
        rule: &RuleInfo,
    ) -> Result<Message, Refusal> {
        let installed = self.filters.get(key);
        let installed = installed.ok_or_else(|| Refusal::errno(libc::ENOENT))?;
        let mut filter = installed.filter.clone();
        filter.more.dump_flags = None;
        let age = installed.since.elapsed();
        let driver = self.vendor.driver;
        match &mut filter.kind {
            Some(FilterKind::Flower(flower)) => {
                flower.in_hw_count = Some(1);
                count(&mut flower.actions, rule, age, driver);
                if flags & TERSE != 0 {
                    flower.key = Default::default();
                }
            }
            Some(FilterKind::Matchall(all)) => count(&mut all.actions, rule, age, driver),
            _ => {}
        }
        Ok(filter.message(kind, 0)?)
    }
}

/// The flags of a filter that can be a rule; none of other kinds.
fn flags_of(filter: &Filter) -> Option<RuleFlags> {
    match &filter.kind {
        Some(FilterKind::Flower(rule)) => Some(rule.flags()),
        Some(FilterKind::Matchall(rule)) => Some(rule.flags.unwrap_or_default()),
        _ => None,
    }
}

fn set_flags(filter: &mut Filter, flags: RuleFlags) {
    match &mut filter.kind {
        Some(FilterKind::Flower(rule)) => rule.flags = Some(flags),
        Some(FilterKind::Matchall(rule)) => rule.flags = Some(flags),
        _ => {}
    }
}

fn ticks(time: Duration) -> u64 {
    (time.as_millis() * TICKS / 1000) as u64
}

/// Puts counters and times into a rule's actions.
fn count(actions: &mut [Action], rule: &RuleInfo, age: Duration, driver: &str) {
    // Where one action of tc's is several of the switch's, or none, they have the rule's counters.
    let each = rule.actions.len() == actions.len();
    for (place, action) in (1u32..).zip(actions.iter_mut()) {
        let counted = rule.actions.get(place as usize - 1).filter(|_| each);
        let (packets, bytes, idle) = match counted {
            Some(counted) => (counted.packets, counted.bytes, counted.idle_ns),
            None => (rule.packets, rule.bytes, rule.idle_ns),
        };
        let basic = Basic {
            bytes,
            packets: packets as u32,
        };
        let dropped = match action.generic.control {
            Control::Shot => packets as u32,
            _ => 0,
        };
        action.stats = Some(Stats {
            basic: Some(basic),
            basic_hw: Some(basic),
            queue: Some(Queue {
                drops: dropped,
                ..Queue::default()
            }),
            ..Stats::default()
        });
        let used = idle.map_or(age, Duration::from_nanos);
        action.times = Some(Times {
            install: ticks(age),
            last_use: ticks(used),
            expires: 0,
            first_use: idle.map_or(0, |_| ticks(age)),
        });
        // mellanox/mlx5/core/en_tc.c reads its counters from time to time; ice has them read by
        // whoever asks.
        let kind = match driver {
            "mlx5_core" => HW_STATS_DELAYED,
            _ => HW_STATS_IMMEDIATE,
        };
        action.common.used_hw_stats = Some(Bitfield32 {
            value: kind,
            selector: HW_STATS_DELAYED | HW_STATS_IMMEDIATE,
        });
        action.generic.refs = 1;
        action.generic.binds = 1;
        if action.generic.index == 0 {
            action.generic.index = place;
        }
    }
}
