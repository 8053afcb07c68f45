//! The table of connections, and one packet through it.

use super::entry::{Entry, status};
use super::nat::{Connections, Translator};
use super::packet::{Body, CtPacket, Embedded};
use super::store::{Handle, InsertError, Store};
use super::tracked::{Connection, Info};
use super::verdict::Verdict;
use super::{CtAction, CtConfig, CtSpec, Direction, NatRewrite, Tracked, Tuple};
use crate::wire::ip_proto;
use crate::{DropReason, Nanos};
use std::sync::atomic::{AtomicBool, Ordering};

/// How many slots are searched for one that may go when the table is full.
const EVICTION_RANGE: u32 = 128;
/// How often a look-up is repeated because what it found was over or gone.
const TRIES: usize = 4;

/// The connections of a NIC. Workers share it by reference.
///
/// Time never goes back; different workers' clocks may differ a little.
#[derive(Debug)]
pub struct Conntrack {
    pub(super) config: CtConfig,
    pub(super) store: Store,
    /// It was full and is not much emptier yet.
    pressed: AtomicBool,
}

/// One action on one packet.
struct Work<'a> {
    spec: &'a CtSpec,
    packet: &'a CtPacket,
    now: Nanos,
    /// Change nothing.
    dry: bool,
    /// The connection that would be forgotten by now, if something was changed.
    gone: Option<Handle>,
}

impl Work<'_> {
    /// Does something with a connection, or with a copy of it.
    #[inline]
    fn on<R>(&self, entry: &mut Entry, work: impl FnOnce(&mut Entry) -> R) -> R {
        if self.dry {
            work(&mut entry.clone())
        } else {
            work(entry)
        }
    }
}

/// The other connections, to a new one.
struct Others<'a> {
    table: &'a Conntrack,
    work: &'a Work<'a>,
}

impl Others<'_> {
    /// The original tuple of the connection that packets with this tuple belong to.
    fn holder(&self, tuple: &Tuple) -> Option<Tuple> {
        let (handle, _) = self.table.store.find(tuple)?;
        self.lives(handle)
    }

    /// The original tuple of a connection that is not over.
    fn lives(&self, handle: Handle) -> Option<Tuple> {
        let Conntrack { store, config, .. } = self.table;
        if self.work.gone == Some(handle) {
            return None;
        }
        let lives =
            |entry: &mut Entry| (!entry.is_over(self.work.now, config)).then_some(entry.tuples[0]);
        store.with(handle, lives).flatten()
    }
}

impl Connections for Others<'_> {
    fn is_taken(&self, tuple: &Tuple, original: &Tuple) -> bool {
        self.holder(tuple).is_some_and(|holder| holder != *original)
    }

    fn translation_of(
        &self,
        tuple: &Tuple,
        suits: &dyn Fn(&[u8; 16], u16) -> bool,
    ) -> Option<([u8; 16], u16)> {
        let store = &self.table.store;
        store.translation_of(tuple, |handle, address, port| {
            suits(address, port) && self.lives(handle).is_some()
        })
    }
}

/// What became of a packet of a known connection.
enum Met {
    /// It belongs to it.
    Belongs(Info, Result<NatRewrite, DropReason>),
    /// It was its last.
    Last(Info, Box<Entry>),
    /// It belongs to no connection.
    Invalid,
    /// The connection is over; the packet may begin another one.
    Over,
}

impl Conntrack {
    /// No connections yet.
    pub fn new(config: CtConfig) -> Self {
        Self {
            store: Store::new(config.max_entries),
            config,
            pressed: AtomicBool::new(false),
        }
    }

    /// The settings.
    pub fn config(&self) -> &CtConfig {
        &self.config
    }

    /// Does what a `ct` action says to a packet: `tracked` is what earlier actions made of it,
    /// and tells afterwards what rules see. What is returned is to be rewritten in the packet
    /// (nothing, mostly); an error drops it. `packet` is the packet as it is at this action, so
    /// parsed again after a rewrite.
    pub fn run(
        &self,
        action: &CtAction,
        tracked: &mut Tracked,
        packet: &CtPacket,
        now: Nanos,
    ) -> Result<NatRewrite, DropReason> {
        self.act(action, tracked, packet, now, false)
    }

    /// What [`Conntrack::run`] would do now, leaving all connections as they are: for tracing.
    /// What a first action would commit, a second one does not find.
    pub fn preview(
        &self,
        action: &CtAction,
        tracked: &mut Tracked,
        packet: &CtPacket,
        now: Nanos,
    ) -> Result<NatRewrite, DropReason> {
        self.act(action, tracked, packet, now, true)
    }

    fn act(
        &self,
        action: &CtAction,
        tracked: &mut Tracked,
        packet: &CtPacket,
        now: Nanos,
        dry: bool,
    ) -> Result<NatRewrite, DropReason> {
        let CtAction::Track(spec) = action else {
            tracked.reset();
            return Ok(NatRewrite::default());
        };
        let mut work = Work {
            spec,
            packet,
            now,
            dry,
            gone: None,
        };
        match &packet.body {
            Body::NotIp => return Err(DropReason::CtNotIp),
            Body::Fragment => {
                tracked.reset();
                return Ok(NatRewrite::default());
            }
            _ => {}
        }
        if let Some(known) = self.known(&mut work, tracked) {
            return known;
        }
        tracked.reset();
        match &packet.body {
            Body::Untrackable => {
                tracked.invalid(spec.zone);
                Ok(NatRewrite::default())
            }
            Body::IcmpError(embedded) => self.error(&work, embedded, tracked),
            _ => self.packet(&mut work, tracked),
        }
    }

    /// A packet whose connection an earlier action of the same zone has found.
    fn known(
        &self,
        work: &mut Work<'_>,
        tracked: &mut Tracked,
    ) -> Option<Result<NatRewrite, DropReason>> {
        let info = match tracked.connection {
            Connection::None => return None,
            Connection::Shared(_, info) | Connection::Own(info) => info,
        };
        if tracked.key().zone != work.spec.zone {
            return None;
        }
        if work.spec.force && info.direction() == Direction::Reply {
            if let Connection::Shared(handle, _) = tracked.connection {
                if work.dry {
                    work.gone = Some(handle);
                } else {
                    self.store.remove(handle);
                }
            }
            return None;
        }
        match tracked.connection {
            Connection::Own(info) => Some(self.finish_own(work, info, tracked)),
            Connection::Shared(handle, info) => {
                let done = self.store.with(handle, |entry| {
                    work.on(entry, |entry| self.finish(work, entry, info, tracked))
                });
                // Another worker may have forgotten it meanwhile.
                if done.is_some() {
                    tracked.connection = Connection::Shared(handle, info);
                }
                done
            }
            Connection::None => None,
        }
    }

    /// An ICMP error: it is related to the connection of the packet that it carries.
    fn error(
        &self,
        work: &Work<'_>,
        embedded: &Embedded,
        tracked: &mut Tracked,
    ) -> Result<NatRewrite, DropReason> {
        tracked.invalid(work.spec.zone);
        let sent = Tuple {
            zone: work.spec.zone,
            ..embedded.tuple
        };
        // It was sent the other way than the connection's packets that look like its answer.
        let found = sent.inverted().and_then(|tuple| self.store.find(&tuple));
        let Some((handle, direction)) = found.filter(|(handle, _)| work.gone != Some(*handle))
        else {
            return Ok(NatRewrite::default());
        };
        let info = Info::related(direction);
        let done = self.store.with(handle, |entry| {
            let to = entry.tuples[direction.index()].dst;
            // Whoever sent the packet must be told, nobody else.
            if entry.is_over(work.now, &self.config) || work.packet.tuple.dst != to {
                return None;
            }
            Some(work.on(entry, |entry| self.finish(work, entry, info, tracked)))
        });
        match done.flatten() {
            Some(done) => {
                tracked.connection = Connection::Shared(handle, info);
                done
            }
            None => Ok(NatRewrite::default()),
        }
    }

    /// Any other packet.
    fn packet(&self, work: &mut Work<'_>, tracked: &mut Tracked) -> Result<NatRewrite, DropReason> {
        let tuple = Tuple {
            zone: work.spec.zone,
            ..work.packet.tuple
        };
        for _ in 0..TRIES {
            let Some((handle, direction)) = self.store.find(&tuple) else {
                break;
            };
            if work.gone == Some(handle) {
                break;
            }
            let met = self.store.with(handle, |entry| {
                work.on(entry, |entry| self.meet(work, entry, direction, tracked))
            });
            match met {
                // Forgotten in this moment.
                None => {}
                Some(Met::Belongs(info, done)) => {
                    tracked.connection = Connection::Shared(handle, info);
                    return done;
                }
                Some(Met::Invalid) => {
                    tracked.invalid(work.spec.zone);
                    return Ok(NatRewrite::default());
                }
                Some(Met::Last(info, entry)) => {
                    if work.dry {
                        work.gone = Some(handle);
                    } else {
                        self.store.remove(handle);
                    }
                    tracked.own = *entry;
                    return self.finish_own(work, info, tracked);
                }
                Some(Met::Over) if work.dry => {
                    work.gone = Some(handle);
                    break;
                }
                Some(Met::Over) => {
                    self.store.remove(handle);
                }
            }
        }
        self.begin(work, tuple, tracked)
    }

    fn meet(
        &self,
        work: &Work<'_>,
        entry: &mut Entry,
        direction: Direction,
        tracked: &mut Tracked,
    ) -> Met {
        if entry.is_over(work.now, &self.config) {
            return Met::Over;
        }
        let info = entry.info(direction);
        match entry.receive(work.packet, direction, work.now, &self.config) {
            Verdict::Accept { .. } => Met::Belongs(info, self.finish(work, entry, info, tracked)),
            Verdict::Invalid { .. } => Met::Invalid,
            Verdict::Reopen => Met::Over,
            Verdict::Kill => Met::Last(info, Box::new(*entry)),
        }
    }

    /// A packet that begins a connection.
    fn begin(
        &self,
        work: &Work<'_>,
        tuple: Tuple,
        tracked: &mut Tracked,
    ) -> Result<NatRewrite, DropReason> {
        tracked.invalid(work.spec.zone);
        let Some(reply) = tuple.inverted() else {
            return Ok(NatRewrite::default());
        };
        if self.store.is_full() && !self.make_room(&tuple, work) {
            return Err(DropReason::CtFull);
        }
        tracked.own = Entry::new(tuple, reply);
        let verdict = tracked
            .own
            .receive(work.packet, Direction::Original, work.now, &self.config);
        match verdict {
            Verdict::Accept { .. } => self.finish_own(work, Info::New, tracked),
            _ => Ok(NatRewrite::default()),
        }
    }

    /// Drops a connection that is over or never became one, if there is one nearby.
    fn make_room(&self, tuple: &Tuple, work: &Work<'_>) -> bool {
        let mut any = false;
        let evicted = self.store.evict(tuple, EVICTION_RANGE, |entry| {
            let goes = entry.is_over(work.now, &self.config) || !entry.has(status::ASSURED);
            any |= goes;
            goes && !work.dry
        });
        if work.dry {
            return any;
        }
        if !evicted {
            self.pressed.store(true, Ordering::Relaxed);
        }
        evicted
    }

    /// Translation, marks and the flow table, for a connection in the table.
    fn finish(
        &self,
        work: &Work<'_>,
        entry: &mut Entry,
        info: Info,
        tracked: &mut Tracked,
    ) -> Result<NatRewrite, DropReason> {
        let rewrite = self.translate(work, entry, info)?;
        if work.spec.commit {
            entry.mark_as(work.spec);
        }
        entry.enter_flow_table(info, work.now, &self.config);
        tracked.belongs(work.spec.zone, info, entry.mark, entry.label);
        Ok(rewrite)
    }

    fn translate(
        &self,
        work: &Work<'_>,
        entry: &mut Entry,
        info: Info,
    ) -> Result<NatRewrite, DropReason> {
        let others = Others { table: self, work };
        let translator = Translator { others };
        translator.translate(entry, info, work.spec, work.packet)
    }

    /// The same for one that only this packet knows; it may be committed.
    fn finish_own(
        &self,
        work: &Work<'_>,
        info: Info,
        tracked: &mut Tracked,
    ) -> Result<NatRewrite, DropReason> {
        tracked.connection = Connection::Own(info);
        let mut entry = tracked.own;
        let done = self.finish(work, &mut entry, info, tracked);
        tracked.own = entry;
        let rewrite = done?;
        if !work.spec.commit || entry.has(status::COMMITTED) {
            return Ok(rewrite);
        }
        if work.dry {
            let others = Others { table: self, work };
            let free = entry
                .tuples
                .iter()
                .all(|tuple| others.holder(tuple).is_none());
            return if free {
                Ok(rewrite)
            } else {
                Err(DropReason::CtClash)
            };
        }
        entry.status |= status::COMMITTED;
        entry.expires = work.now.saturating_add(entry.expires);
        entry.enter_flow_table(info, work.now, &self.config);
        for _ in 0..TRIES {
            let other = match self.store.insert(entry) {
                Ok(handle) => {
                    tracked.connection = Connection::Shared(handle, info);
                    return Ok(rewrite);
                }
                Err(InsertError::Full) => return Err(DropReason::CtFull),
                Err(InsertError::Clash(other)) => other,
            };
            let is_over = |entry: &mut Entry| entry.is_over(work.now, &self.config);
            match self.store.with(other, is_over) {
                Some(false) if self.join(work, &entry, other, info, tracked) => return Ok(rewrite),
                Some(false) => break,
                Some(true) => {
                    self.store.remove(other);
                }
                None => {}
            }
        }
        Err(DropReason::CtClash)
    }

    /// Another packet of the same connection was faster: with protocols that do not mind, this
    /// one joins it (nf_conntrack_core.c, `__nf_ct_resolve_clash`).
    fn join(
        &self,
        work: &Work<'_>,
        entry: &Entry,
        other: Handle,
        info: Info,
        tracked: &mut Tracked,
    ) -> bool {
        use ip_proto::{GRE, UDP, UDPLITE};
        if !matches!(entry.tuples[0].proto, UDP | UDPLITE | GRE) {
            return false;
        }
        let joined = self.store.with(other, |winner| {
            let same = winner.tuples == entry.tuples || !winner.has(status::NAT_DONE);
            if same {
                tracked.belongs(work.spec.zone, info, winner.mark, winner.label);
            }
            same
        });
        if joined == Some(true) {
            tracked.connection = Connection::Shared(other, info);
        }
        joined == Some(true)
    }

    /// Forgets connections that are over, looking at no more than `budget` slots (at least 1);
    /// repeated calls see all. Returns how many it forgot. When the table was full and nothing
    /// could go, connections near their end go, too, until it is at 95 % (nf_conntrack_core.c,
    /// `gc_worker`).
    pub fn expire(&self, now: Nanos, budget: u32) -> u32 {
        let limit = u64::from(self.config.max_entries) * 95 / 100;
        if u64::from(self.store.len()) < limit {
            self.pressed.store(false, Ordering::Relaxed);
        }
        let pressed = self.pressed.load(Ordering::Relaxed);
        self.store.sweep(budget, |entry| {
            entry.is_over(now, &self.config) || (pressed && entry.may_go())
        })
    }
}
