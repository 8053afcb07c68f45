//! tc's filters on representors, in hardware as far as the result is what the kernel alone would
//! have given.
//!
//! A packet that no rule decides about goes to the representor, where the kernel treats it from the
//! first filter on. So two things have to hold:
//!
//! - Nothing was done to it yet. A rule that rewrites or copies a packet is in hardware only if the
//!   packet then certainly ends there, dropped or sent (see [`super::effect`]).
//! - No filter overtakes another. In the place of a filter that is only in software a rule hands
//!   what the filter is for to the kernel. (Vendors' drivers have no such rule: what is in hardware
//!   goes first there, whatever its priority; drivers/net/ethernet/mellanox/mlx5/core/en_tc.c,
//!   mlx5e_configure_flower, looks at each filter alone.)

use super::effect::Effects;
use super::mirror::{Hook, Mirror, Place, Seen};
use super::plan::{Basis, KernelPort, Listed, Part, Plan, Ports, Source};
use chanio_model::VportId;
use chanio_model::flow::{Action, Control, FlowKey, Match, Origin, RuleSpec, TunnelKey};
use chanio_netlink::tc::action::Kind;
use chanio_netlink::tc::model::{
    NextHop, NotOffloaded, Surroundings, TunnelDevice, to_match, to_model,
};
use chanio_netlink::tc::{At, Filter, FilterKind, INGRESS};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// ETH_P_ALL and the tags' types: filters for these see packets of any type.
const ALL_AND_TAGS: [u16; 3] = [3, 0x8100, 0x88a8];
/// The lowest EtherType; what is below stands for kinds of frames without one.
const ETHER_TYPES: u16 = 0x600;

/// A filter on one port.
pub(super) struct Item {
    pub place: Place,
    pub fate: Fate,
}

/// Where a filter is.
pub(super) enum Fate {
    /// In hardware.
    In(RuleSpec),
    /// Only in software.
    Out {
        /// Why.
        why: String,
        /// All that it could be for, and maybe more; `None`: nothing on this port.
        cover: Option<Match>,
    },
}

impl Fate {
    fn out(why: impl Into<String>, cover: Match) -> Self {
        let (why, cover) = (why.into(), Some(cover));
        Fate::Out { why, cover }
    }
}

/// What became of a filter on all of its ports.
#[derive(Default)]
struct Outcome {
    ports: u32,
    why_not: Option<String>,
}

type Outcomes = BTreeMap<(Hook, Place), Outcome>;

/// Adds the rules of all filters; returns the ports where a filter that is only in software takes
/// everything that those in hardware leave.
pub(super) fn plan(
    mirror: &Mirror,
    ports: &Ports<'_>,
    basis: &Basis,
    plan: &mut Plan,
) -> BTreeSet<VportId> {
    let mut members: BTreeMap<Hook, Vec<&KernelPort>> = BTreeMap::new();
    for port in ports.list {
        let ingress = mirror.qdiscs.get(&port.ifindex).and_then(|q| q.ingress);
        let hook = ingress.map(|block| block.map_or(Hook::Ingress(port.ifindex), Hook::Block));
        members
            .entry(hook.unwrap_or(Hook::Ingress(port.ifindex)))
            .or_default()
            .push(port);
    }
    let meters = meters(mirror);
    let (mut shut, mut outcomes) = (BTreeSet::new(), Outcomes::new());
    for (hook, members) in &members {
        let Some(filters) = mirror.filters.get(hook) else {
            continue;
        };
        // A meter for all ports of a block has to see all of their packets.
        let bound = mirror
            .qdiscs
            .values()
            .filter(|q| q.ingress.flatten().map(Hook::Block) == Some(*hook));
        let apart = members.len() < bound.count()
            || members.len() > 1 && members.iter().any(|p| ports.no_entry(p.vport).is_some());
        for port in members {
            let job = Job {
                hook: *hook,
                port,
                tunnel: None,
                apart,
                meters: &meters,
                bridged: mirror
                    .links
                    .get(&port.ifindex)
                    .is_some_and(|l| l.port.is_some()),
                ports,
                basis,
            };
            if job.place_all(filters, plan, &mut outcomes) {
                shut.insert(port.vport);
            }
        }
    }
    for (uplink, index) in ports.tunnels.with_filters() {
        let hook = Hook::Ingress(index);
        let job = Job {
            hook,
            port: uplink,
            tunnel: Some(index),
            apart: false,
            meters: &meters,
            bridged: false,
            ports,
            basis,
        };
        if let Some(filters) = mirror.filters.get(&hook) {
            job.place_all(filters, plan, &mut outcomes);
        }
    }
    for port in ports.list {
        let hook = Hook::Egress(port.ifindex);
        for place in mirror
            .filters
            .get(&hook)
            .into_iter()
            .flat_map(BTreeMap::keys)
        {
            let why_not = Some(NotOffloaded::Egress.to_string());
            outcomes.insert((hook, *place), Outcome { ports: 1, why_not });
        }
    }
    for ((hook, place), outcome) in outcomes {
        let seen = mirror.filters.get(&hook).and_then(|f| f.get(&place));
        plan.listed
            .extend(seen.map(|seen| listed(mirror, hook, place, seen, outcome)));
    }
    shut
}

/// How many filters have the police action of each index; what is told of one that others share is
/// out of date when there is a new one, so it is counted, too.
fn meters(mirror: &Mirror) -> HashMap<u32, u32> {
    let mut meters: HashMap<u32, u32> = HashMap::new();
    let filters = mirror.filters.values().flat_map(BTreeMap::values);
    for filter in filters.filter_map(|seen| seen.filter.as_ref().ok()) {
        let actions = match &filter.kind {
            Some(FilterKind::Flower(rule)) => &rule.actions,
            Some(FilterKind::Matchall(rule)) => &rule.actions,
            _ => continue,
        };
        for action in actions {
            if let Kind::Police(_) = action.kind {
                let users = meters.entry(action.generic.index).or_default();
                *users = (*users + 1).max(action.generic.binds.cast_unsigned());
            }
        }
    }
    meters.remove(&0);
    meters
}

fn listed(mirror: &Mirror, hook: Hook, place: Place, seen: &Seen, outcome: Outcome) -> Listed {
    let name = |index| {
        mirror
            .links
            .get(&index)
            .map_or(String::new(), |l| l.name.clone())
    };
    let kind = seen.filter.as_ref().ok().and_then(|f| f.kind.as_ref());
    Listed {
        source: Source::Filter(hook, place),
        place: match hook {
            Hook::Ingress(index) => name(index),
            Hook::Egress(index) => format!("{} egress", name(index)),
            Hook::Block(block) => format!("block {block}"),
        },
        kind: kind.map_or("?", FilterKind::name).to_owned(),
        protocol: seen.protocol,
        text: None,
        ports: outcome.ports,
        why_not: outcome.why_not,
    }
}

/// The filters of one port.
struct Job<'a> {
    hook: Hook,
    port: &'a KernelPort,
    /// The filters are those of this tunnel's netdev, for what has come in at the port in such a
    /// tunnel.
    tunnel: Option<u32>,
    /// Other ports have the same filters, and are not in hardware.
    apart: bool,
    /// How many filters have each police action.
    meters: &'a HashMap<u32, u32>,
    /// It is a port of a bridge.
    bridged: bool,
    ports: &'a Ports<'a>,
    basis: &'a Basis,
}

impl Job<'_> {
    /// Whether all that is left to the kernel includes everything that no rule decides about.
    fn place_all(
        &self,
        filters: &BTreeMap<Place, Seen>,
        plan: &mut Plan,
        outcomes: &mut Outcomes,
    ) -> bool {
        let mut note = |place: Place, why_not: Option<String>| {
            let outcome = outcomes.entry((self.hook, place)).or_default();
            outcome.ports += 1;
            if outcome.why_not.is_none() {
                outcome.why_not = why_not;
            }
        };
        let no_entry = match self.tunnel {
            Some(index) => self.ports.tunnels.no_entry(index),
            None => self.ports.no_entry(self.port.vport).map(str::to_owned),
        };
        if let Some(why) = no_entry {
            filters
                .keys()
                .for_each(|place| note(*place, Some(why.clone())));
            return true;
        }
        let mut sorted: Vec<_> = filters.iter().collect();
        sorted.sort_by_key(|(place, seen)| (place.chain, place.priority, seen.order));
        let mut items: Vec<_> = sorted
            .into_iter()
            .map(|(place, seen)| Item {
                place: *place,
                fate: self.fate(seen),
            })
            .collect();
        Effects::settle(&mut items);
        // Chain 0 leads to the others, so they are there first.
        let first = items.partition_point(|item| item.place.chain == 0);
        let (first, others) = items.split_at(first);
        let mut chains: Vec<_> = others
            .chunk_by(|a, b| a.place.chain == b.place.chain)
            .collect();
        chains.push(first);
        let from = plan.rules.len();
        let mut shut = false;
        for (at, chain) in chains.iter().enumerate() {
            let last = at + 1 == chains.len();
            match self.place_chain(chain, last, plan, &mut note) {
                Ok(is_shut) => shut = is_shut,
                Err(why) => {
                    // Without all of a chain those that lead there are not to be.
                    plan.rules.truncate(from);
                    for item in chains[at..].iter().copied().flatten() {
                        note(item.place, Some(why.clone()));
                    }
                    return true;
                }
            }
        }
        shut
    }

    /// Adds a chain's rules; whether everything that they leave is for the kernel.
    ///
    /// # Errors
    /// Why there is no place for all of them; of the first chain, those that have one are there.
    fn place_chain(
        &self,
        chain: &[Item],
        is_first: bool,
        plan: &mut Plan,
        note: &mut impl FnMut(Place, Option<String>),
    ) -> Result<bool, String> {
        let mut closed_by: Option<String> = None;
        // Covers that are needed only if something comes behind them.
        let mut covers = Vec::new();
        // What cannot be handed to the kernel as it came: once it has left its tunnel.
        let mut left = Vec::new();
        // The host's addresses whose packets are led to the chain of a tunnel's netdev.
        let mut entered = BTreeSet::new();
        for item in chain {
            let source = Source::Filter(self.hook, item.place);
            if let Some(why) = &closed_by {
                note(item.place, Some(why.clone()));
                continue;
            }
            match &item.fate {
                Fate::In(spec) if left.iter().any(|(m, _)| !apart(m, &spec.matches)) => {
                    let behind = left.iter().find(|(m, _)| !apart(m, &spec.matches));
                    let place = behind.map_or(item.place, |(_, place)| *place);
                    note(item.place, Some(behind_software(place)));
                    left.push((spec.matches.clone(), item.place));
                }
                Fate::In(spec) => {
                    let key = (source, Part::Filter(self.port.vport));
                    let neighbour = self.ports.tunnels.neighbour(spec);
                    plan.neighbours.extend(neighbour.map(|to| (key, to)));
                    let mut rules = std::mem::take(&mut covers);
                    let mut spec = spec.clone();
                    if let Some(index) = self.tunnel.filter(|_| is_first) {
                        let entry = self.ports.tunnels.enter(index, &mut spec);
                        let entry =
                            entry.filter(|entry| entered.insert(entry.matches.value.ip_dst));
                        let entry_key = (source, Part::Entry(self.port.vport));
                        rules.extend(entry.map(|entry| (entry_key, entry)));
                    }
                    rules.push((key, spec));
                    match plan.add(self.basis, Origin::Tc, rules) {
                        Ok(()) => note(item.place, None),
                        Err(why) if is_first => {
                            note(item.place, Some(why.clone()));
                            closed_by = Some(why);
                        }
                        Err(why) => return Err(why),
                    }
                }
                Fate::Out { why, cover } => {
                    note(item.place, Some(why.clone()));
                    match cover {
                        None => {}
                        Some(cover) if self.tunnel.is_some() => {
                            left.push((cover.clone(), item.place));
                        }
                        Some(all) if takes_all(all) => {
                            closed_by = Some(behind_software(item.place));
                        }
                        Some(cover) => {
                            let spec = RuleSpec {
                                chain: item.place.chain,
                                priority: item.place.priority,
                                matches: cover.clone(),
                                actions: [Action::Pass].into(),
                                ..RuleSpec::default()
                            };
                            covers.push(((source, Part::Cover(self.port.vport)), spec));
                        }
                    }
                }
            }
        }
        if closed_by.is_none() && is_first && self.bridged && !covers.is_empty() {
            return Ok(plan.add(self.basis, Origin::Tc, covers).is_err());
        }
        Ok(closed_by.is_some())
    }

    fn fate(&self, seen: &Seen) -> Fate {
        let filter = match &seen.filter {
            Ok(filter) => self.on_port(filter),
            Err(why) => return Fate::out(why.clone(), self.by_protocol(seen.protocol)),
        };
        let around = Around(self.ports);
        let mut matches = to_match(&filter, &around);
        if let (Some(index), Ok(matches)) = (self.tunnel, &mut matches) {
            if let Err(why) = self.ports.tunnels.outside(index, filter.chain(), matches) {
                return Fate::out(why, matches.clone());
            }
        } else if matches.as_ref().is_ok_and(Match::is_tunnel) {
            // The kernel sees outer headers only behind a tunnel's netdev.
            return Fate::Out {
                why: "match on enc_*: what a representor receives was in no tunnel".to_owned(),
                cover: None,
            };
        }
        let cover = || {
            let exact = matches.clone().ok();
            exact.unwrap_or_else(|| self.by_protocol(seen.protocol))
        };
        match to_model(&filter, &around) {
            Ok(mut spec) => {
                spec.matches = cover();
                match self.objection(&spec) {
                    None => Fate::In(spec),
                    Some(why) => Fate::out(why, cover()),
                }
            }
            Err(why) => Fate::out(self.in_words(&why), cover()),
        }
    }

    /// Of tunnels it is known more exactly.
    fn in_words(&self, why: &NotOffloaded) -> String {
        let tunnels = &self.ports.tunnels;
        let known = match why {
            NotOffloaded::Device(index) => tunnels.no_device(*index),
            NotOffloaded::Unreachable(to) => tunnels.unreachable(*to),
            _ => None,
        };
        known.unwrap_or_else(|| why.to_string())
    }

    /// The filter as it would be on this port alone.
    fn on_port<'f>(&self, filter: &'f Filter) -> Cow<'f, Filter> {
        let at = At::Device {
            ifindex: self.tunnel.unwrap_or(self.port.ifindex).cast_signed(),
            parent: INGRESS,
        };
        if filter.at == at {
            return Cow::Borrowed(filter);
        }
        let filter = filter.clone();
        Cow::Owned(Filter { at, ..filter })
    }

    /// Everything of this port that a filter for a protocol could be for.
    fn by_protocol(&self, protocol: u16) -> Match {
        let mut matches = Match::default();
        let (value, mask) = (&mut matches.value, &mut matches.mask);
        (value.in_port, mask.in_port) = (self.port.vport.0 as u16, u16::MAX);
        if !ALL_AND_TAGS.contains(&protocol) && protocol >= ETHER_TYPES {
            (value.eth_type, mask.eth_type) = (protocol, u16::MAX);
        }
        matches
    }

    /// What speaks against a rule, whatever the others are.
    fn objection(&self, spec: &RuleSpec) -> Option<String> {
        for action in &spec.actions {
            match action {
                Action::Ct(_) => {
                    return Some("action ct: the kernel has the connections".to_owned());
                }
                Action::Police(_) if self.apart => {
                    let why =
                        "action police: a port of the block that is not in hardware shares it";
                    return Some(why.to_owned());
                }
                Action::Police(p) if self.meters.get(&p.index).is_some_and(|n| *n > 1) => {
                    let why = format!("action police: others share index {}", p.index);
                    return Some(why);
                }
                Action::Goto(0) => return Some(BACK_TO_FIRST.to_owned()),
                Action::Police(police)
                    if [police.exceed, police.conform].contains(&Control::Goto(0)) =>
                {
                    return Some(BACK_TO_FIRST.to_owned());
                }
                _ => {}
            }
            let blocked = action.target().and_then(|to| self.ports.no_exit(to));
            if let Some(why) = blocked {
                return Some(why.to_owned());
            }
        }
        if let Some(why) = self.ports.tunnels.too_long(self.port, spec) {
            return Some(why);
        }
        self.basis
            .profile
            .admit_rule(spec)
            .err()
            .map(|why| why.to_string())
    }
}

fn behind_software(place: Place) -> String {
    let Place {
        chain, priority, ..
    } = place;
    format!("behind the filter of chain {chain}, prio {priority}, which is only in software")
}

/// Whether no packet is for both, as far as their keys tell.
fn apart(a: &Match, b: &Match) -> bool {
    let both = b.mask.masked(&a.mask);
    let inside = a.value.masked(&both) != b.value.masked(&both);
    let outside = a.tunnel().zip(b.tunnel()).is_some_and(|(a, b)| {
        let words = (a.value.words().iter().zip(b.value.words()))
            .zip(a.mask.words().iter().zip(b.mask.words()));
        words
            .into_iter()
            .any(|((a, b), (in_a, in_b))| (a ^ b) & in_a & in_b != 0)
    });
    inside || outside
}

const BACK_TO_FIRST: &str = "action goto chain 0: others' rules are there, too";

/// Whether a match is for everything that comes in at its port, or out of its tunnel's netdev.
pub(super) fn takes_all(matches: &Match) -> bool {
    let mask = FlowKey {
        in_port: 0,
        ..matches.mask
    };
    let mut more = matches.more.clone().unwrap_or_default();
    if let Some(tunnel) = more.tunnel.take() {
        // Whose netdev it is.
        let mut mask = tunnel.mask;
        (mask.kind, mask.dst_port) = (0, 0);
        if mask != TunnelKey::default() {
            return false;
        }
    }
    mask == FlowKey::default() && more.is_empty()
}

struct Around<'a>(&'a Ports<'a>);

impl Surroundings for Around<'_> {
    fn vport(&self, ifindex: u32) -> Option<VportId> {
        self.0.by_index(ifindex).map(|port| port.vport)
    }

    fn ifindex(&self, vport: VportId) -> Option<u32> {
        let mut ports = self.0.list.iter();
        ports
            .find(|port| port.vport == vport)
            .map(|port| port.ifindex)
    }

    fn tunnel(&self, ifindex: u32) -> Option<TunnelDevice> {
        self.0.tunnels.device(ifindex)
    }

    fn next_hop(&self, from: IpAddr, to: IpAddr) -> Option<NextHop> {
        self.0.tunnels.hop((from, to)).ok()
    }
}
