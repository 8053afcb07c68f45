//! The same as [`super::Conntrack`] with a list that is searched from end to end, for one thread,
//! and the property tests that hold the two against each other.

use super::conversation::{End, Ends, Rng, Said, Topic, conversation};
use super::entry::{Entry, status};
use super::nat::{Connections, Translator};
use super::packet::{Body, CtPacket};
use super::tracked::Info;
use super::verdict::Verdict;
use super::*;
use crate::flow::{CtKey, CtState};
use crate::{DropReason, Nanos};
use proptest::prelude::*;
use std::cell::RefCell;
use std::net::IpAddr;

/// Connections in the order of their commits.
#[derive(Default)]
struct List {
    entries: Vec<Entry>,
    config: CtConfig,
    commits: u64,
}

/// What a packet carries from action to action.
#[derive(Clone, Default)]
struct Carried {
    key: CtKey,
    /// The connection, and whether it is (still) this one of the list.
    entry: Option<(Entry, Info, Option<u64>)>,
}

struct Others<'a> {
    list: RefCell<&'a mut List>,
    now: Nanos,
}

impl Connections for Others<'_> {
    fn is_taken(&self, tuple: &Tuple, original: &Tuple) -> bool {
        let list = &mut *self.list.borrow_mut();
        let (entries, config) = (&mut list.entries, &list.config);
        entries.iter_mut().any(|entry| {
            entry.tuples.contains(tuple)
                && entry.tuples[0] != *original
                && !entry.is_over(self.now, config)
        })
    }

    fn translation_of(
        &self,
        tuple: &Tuple,
        suits: &dyn Fn(&[u8; 16], u16) -> bool,
    ) -> Option<([u8; 16], u16)> {
        let list = self.list.borrow();
        let found = list
            .entries
            .iter()
            .rev()
            .filter(|entry| entry.has(status::SRC_DONE));
        let mut found = found.filter_map(|entry| {
            let [original, reply] = &entry.tuples;
            let same = (original.zone, original.proto, original.version)
                == (tuple.zone, tuple.proto, tuple.version)
                && (original.src, original.src_port) == (tuple.src, tuple.src_port);
            let over = { *entry }.is_over(self.now, &list.config);
            let to = reply.inverted().filter(|_| same && !over)?;
            Some((to.src, to.src_port))
        });
        found.find(|(address, port)| suits(address, *port))
    }
}

impl List {
    /// Index and direction of the connection that a tuple belongs to, those that are over dropped.
    fn find(&mut self, tuple: &Tuple, now: Nanos) -> Option<(usize, Direction)> {
        let List {
            entries, config, ..
        } = self;
        entries.retain_mut(|e| !e.tuples.contains(tuple) || !e.is_over(now, config));
        let at = entries.iter().position(|e| e.tuples.contains(tuple))?;
        let reply = entries[at].tuples[1] == *tuple;
        Some((
            at,
            if reply {
                Direction::Reply
            } else {
                Direction::Original
            },
        ))
    }

    fn run(
        &mut self,
        action: &CtAction,
        carried: &mut Carried,
        packet: &CtPacket,
        now: Nanos,
    ) -> Result<NatRewrite, DropReason> {
        let none = NatRewrite::default();
        let CtAction::Track(spec) = action else {
            *carried = Carried::default();
            return Ok(none);
        };
        match &packet.body {
            Body::NotIp => return Err(DropReason::CtNotIp),
            Body::Fragment => {
                *carried = Carried::default();
                return Ok(none);
            }
            _ => {}
        }
        let mut known = carried
            .entry
            .take()
            .filter(|_| carried.key.zone == spec.zone);
        if let Some((_, info, id)) = &known
            && spec.force
            && info.direction() == Direction::Reply
        {
            self.entries.retain(|e| Some(e.id) != *id);
            known = None;
        }
        *carried = Carried {
            key: CtKey {
                zone: spec.zone,
                state: CtState::TRK | CtState::INV,
                ..CtKey::default()
            },
            entry: None,
        };
        if known.is_none() {
            known = match &packet.body {
                Body::Untrackable => None,
                Body::IcmpError(embedded) => self.related(embedded, packet, spec.zone, now),
                _ => self.track(packet, spec.zone, now)?,
            };
        }
        let Some((mut entry, info, mut id)) = known else {
            return Ok(none);
        };
        if let Some(id) = id {
            // What others did to it meanwhile counts.
            entry = *self
                .entries
                .iter()
                .find(|e| e.id == id)
                .expect("one thread");
        }
        let translator = Translator {
            others: Others {
                list: RefCell::new(self),
                now,
            },
        };
        let rewrite = translator.translate(&mut entry, info, spec, packet)?;
        if spec.commit {
            entry.mark_as(spec);
        }
        entry.enter_flow_table(info, now, &self.config);
        if spec.commit && !entry.has(status::COMMITTED) {
            let List {
                entries, config, ..
            } = self;
            let clashes = |e: &mut Entry| {
                e.tuples.contains(&entry.tuples[0]) || e.tuples.contains(&entry.tuples[1])
            };
            entries.retain_mut(|e| !clashes(e) || !e.is_over(now, config));
            if entries.iter_mut().any(clashes) {
                return Err(DropReason::CtClash);
            }
            self.commits += 1;
            entry.id = self.commits;
            entry.status |= status::COMMITTED;
            entry.expires += now;
            entry.enter_flow_table(info, now, &self.config);
            self.entries.push(entry);
            id = Some(entry.id);
        }
        if let Some(at) = self.entries.iter().position(|e| Some(e.id) == id) {
            self.entries[at] = entry;
        }
        carried.key.state = match info {
            Info::New => CtState::TRK | CtState::NEW,
            Info::Established => CtState::TRK | CtState::EST,
            Info::EstablishedReply => CtState::TRK | CtState::EST | CtState::RPL,
            Info::Related => CtState::TRK | CtState::REL,
            Info::RelatedReply => CtState::TRK | CtState::REL | CtState::RPL,
        };
        (carried.key.mark, carried.key.label) = (entry.mark, entry.label);
        carried.entry = Some((entry, info, id));
        Ok(rewrite)
    }

    fn related(
        &mut self,
        embedded: &super::packet::Embedded,
        packet: &CtPacket,
        zone: u16,
        now: Nanos,
    ) -> Option<(Entry, Info, Option<u64>)> {
        let sent = Tuple {
            zone,
            ..embedded.tuple
        };
        let (at, direction) = self.find(&sent.inverted()?, now)?;
        let entry = self.entries[at];
        let right = entry.tuples[direction.index()].dst == packet.tuple.dst;
        right.then_some((entry, Info::related(direction), Some(entry.id)))
    }

    #[allow(clippy::type_complexity)]
    fn track(
        &mut self,
        packet: &CtPacket,
        zone: u16,
        now: Nanos,
    ) -> Result<Option<(Entry, Info, Option<u64>)>, DropReason> {
        let tuple = Tuple {
            zone,
            ..packet.tuple
        };
        if let Some((at, direction)) = self.find(&tuple, now) {
            let entry = &mut self.entries[at];
            let info = entry.info(direction);
            match entry.receive(packet, direction, now, &self.config) {
                Verdict::Accept { .. } => return Ok(Some((*entry, info, Some(entry.id)))),
                Verdict::Invalid { .. } => return Ok(None),
                Verdict::Kill => return Ok(Some((self.entries.remove(at), info, None))),
                Verdict::Reopen => {
                    self.entries.remove(at);
                }
            }
        }
        let Some(reply) = tuple.inverted() else {
            return Ok(None);
        };
        let mut entry = Entry::new(tuple, reply);
        let verdict = entry.receive(packet, Direction::Original, now, &self.config);
        let accepted = matches!(verdict, Verdict::Accept { .. });
        Ok(accepted.then_some((entry, Info::New, None)))
    }
}

/// Conversations, interleaved, with time passing, through the same actions.
struct Play {
    rng: Rng,
    table: Conntrack,
    list: List,
    now: Nanos,
}

fn parse(frame: &[u8]) -> CtPacket {
    let eth_type = u16::from_be_bytes([frame[12], frame[13]]);
    let head = &frame[..frame.len().min(192)];
    CtPacket::parse(head, frame.len() as u32, eth_type, 14)
}

impl Play {
    fn new(seed: u64) -> Self {
        let config = CtConfig {
            max_entries: 4096,
            ..CtConfig::default()
        };
        Self {
            rng: Rng(seed),
            table: Conntrack::new(config.clone()),
            list: List {
                config,
                ..List::default()
            },
            now: 1_000_000_000,
        }
    }

    /// Few addresses and ports, so that conversations get into each other's way.
    fn ends(&mut self) -> Ends {
        let rng = &mut self.rng;
        let v6 = rng.percent(30);
        let mut end = |net: u8, ports: u64| {
            let last = [10, 0, net, 1 + rng.below(3) as u8];
            let port = 1000 + rng.below(ports) as u16 * 100;
            if v6 {
                End::v6(last, port)
            } else {
                End::v4(last, port)
            }
        };
        Ends::plain(end(1, 4), end(2, 2))
    }

    fn range(&mut self, version: u8) -> NatRange {
        let rng = &mut self.rng;
        let first = 1 + rng.below(3) as u8;
        let last = first + rng.below(3) as u8;
        let ip = |n: u8| match version {
            4 => IpAddr::from([10, 0, 3, n]),
            _ => {
                let mut octets = End::v6([10, 0, 3, n], 0).address;
                octets[0] = 0xfd;
                IpAddr::from(octets)
            }
        };
        let low = 1000 + rng.below(300) as u16;
        let size = rng.weighted(&[(1, 0), (2, 3), (2, 300)]);
        let ports = rng.percent(50).then_some((low, low + size));
        NatRange::new(ip(first), ip(last), ports).unwrap()
    }

    fn action(&mut self, version: u8) -> CtAction {
        if self.rng.percent(3) {
            return CtAction::Clear;
        }
        let fits = self.rng.percent(97);
        let range = self.range(if fits { version } else { 10 - version });
        let nat = self.rng.weighted(&[
            (4, None),
            (3, Some(CtNat::Existing)),
            (3, Some(CtNat::Src(range))),
            (2, Some(CtNat::Dst(range))),
        ]);
        let mut label_mask = [0; 16];
        label_mask[self.rng.below(16) as usize] =
            self.rng.weighted(&[(2, 0), (1, 0xff), (1, 0x0f)]);
        CtAction::Track(CtSpec {
            zone: self.rng.weighted(&[(6, 1), (2, 2), (1, 0)]),
            commit: self.rng.percent(60),
            force: self.rng.percent(5),
            mark: self.rng.below(16) as u32,
            mark_mask: self.rng.weighted(&[(2, 0), (1, u32::MAX), (1, 0xff)]),
            label: label_mask,
            label_mask,
            nat,
        })
    }

    fn pass(&mut self) {
        let gaps = [
            (60, 1_000_000),
            (8, 900_000_000),
            (4, 11_000_000_000),
            (3, 31_000_000_000),
            (2, 130_000_000_000),
            (1, 700_000_000_000),
        ];
        self.now += self.rng.weighted(&gaps);
        if self.rng.percent(10) {
            self.table.expire(self.now, 1 + self.rng.below(50) as u32);
        }
    }

    /// One frame through one to three actions. A translated packet goes on as it was: the
    /// addresses that count are those that came.
    fn frame(&mut self, said: &Said) -> Result<(), TestCaseError> {
        let packet = parse(&said.frame);
        let version = 4 + u8::from(said.frame[12] == 0x86) * 2;
        let (mut tracked, mut carried) = (Tracked::new(), Carried::default());
        for _ in 0..self.rng.weighted(&[(3, 1), (2, 2), (1, 3)]) {
            let action = self.action(version);
            let mut ahead = tracked.clone();
            let forecast = self.table.preview(&action, &mut ahead, &packet, self.now);
            let got = self.table.run(&action, &mut tracked, &packet, self.now);
            let want = self.list.run(&action, &mut carried, &packet, self.now);
            prop_assert_eq!(got, want, "{:?} of {}", action, said.what);
            if got != Err(DropReason::CtClash) {
                prop_assert_eq!(forecast, got, "{:?} of {}", action, said.what);
            }
            if got.is_err() {
                break;
            }
            let key = tracked.key();
            prop_assert_eq!(key, &carried.key, "{:?} of {}", action, said.what);
            prop_assert_eq!(ahead.key(), key, "{:?} of {}", action, said.what);
        }
        Ok(())
    }

    fn same_connections(&mut self) -> Result<(), TestCaseError> {
        let mut seen = Vec::new();
        self.table.visit(self.now, |entry| {
            seen.push((
                entry.original,
                entry.reply,
                entry.counters,
                entry.expires_in,
                entry.state,
            ));
        });
        let List {
            entries, config, ..
        } = &mut self.list;
        entries.retain_mut(|e| !e.is_over(self.now, config));
        prop_assert_eq!(seen.len(), entries.len());
        for entry in entries {
            let until = match entry.has(status::FLOW_TABLE) {
                true => entry.flow_until,
                false => entry.expires,
            };
            let found = seen.iter().find(|seen| seen.0 == entry.tuples[0]);
            let found = found.map(|seen| (seen.1, seen.2, seen.3));
            let want = (entry.tuples[1], entry.counters, until - self.now);
            prop_assert_eq!(found, Some(want));
        }
        Ok(())
    }

    /// No two connections have packets that look alike.
    fn all_distinct(&self) -> Result<(), TestCaseError> {
        let mut tuples = std::collections::HashSet::new();
        let mut entries = Vec::new();
        self.table.visit(self.now, |entry| entries.push(entry));
        for entry in entries {
            prop_assert!(tuples.insert(entry.original), "{:?}", entry);
            let itself = entry.original == entry.reply;
            prop_assert!(itself || tuples.insert(entry.reply), "{:?}", entry);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn same_as_the_list(seed in any::<u64>()) {
        let mut play = Play::new(seed);
        let mut talks = Vec::new();
        for _ in 0..play.rng.below(8) + 1 {
            let ends = play.ends();
            let topics = [(4, Topic::Tcp), (2, Topic::Udp), (1, Topic::UdpLite), (2, Topic::Icmp), (1, Topic::Other)];
            let topic = play.rng.weighted(&topics);
            let frames = 5 + play.rng.below(40) as usize;
            talks.push(conversation(&mut play.rng, &ends, topic, frames).into_iter());
        }
        while !talks.is_empty() {
            let which = play.rng.below(talks.len() as u64) as usize;
            match talks[which].next() {
                Some(said) => play.frame(&said)?,
                None => drop(talks.swap_remove(which)),
            }
            play.pass();
        }
        play.same_connections()?;
        play.all_distinct()?;
    }
}
