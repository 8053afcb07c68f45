//! A rule in the tables, with its counters.

use super::policers::Policer;
use super::{Action, Origin, Policers, RuleError, RuleSpec};
use crate::{Nanos, RuleId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Order of precedence in a chain, the smallest wins: whose, priority, age.
pub type Rank = (Origin, u16, RuleId);

/// One worker's counters of one rule, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct RuleCounter {
    packets: AtomicU64,
    bytes: AtomicU64,
    last_used: AtomicU64,
}

impl RuleCounter {
    /// Counts a packet of `len` bytes. Each counter has one writer, so a plain load and store do.
    #[inline]
    fn add(&self, len: u32, now: Nanos) {
        let add = |counter: &AtomicU64, n| {
            counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
        };
        add(&self.packets, 1);
        add(&self.bytes, u64::from(len));
        self.last_used.store(now, Relaxed);
    }
}

/// What a rule has seen, over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleTotals {
    /// Packets.
    pub packets: u64,
    /// Bytes, Ethernet headers included.
    pub bytes: u64,
    /// When the last one came; 0: never.
    pub last_used: Nanos,
}

/// A rule in the tables.
#[derive(Debug)]
pub struct Rule {
    id: RuleId,
    origin: Origin,
    spec: RuleSpec,
    counters: Box<[RuleCounter]>,
    /// One after the other for each action, one per worker; none if every packet that takes the
    /// rule gets to its last action.
    by_action: Box<[RuleCounter]>,
    /// Of the police actions, in order.
    policers: Box<[Arc<Policer>]>,
}

impl Rule {
    /// A rule to be counted by `shards` workers, that shares no meter with another. Refused if the
    /// specification is not [well formed](RuleSpec::check).
    pub fn new(id: RuleId, spec: RuleSpec, shards: usize) -> Result<Self, RuleError> {
        let own = &mut Policers::default();
        Self::of(Origin::Control, id, spec, shards, own)
    }

    /// The same of anybody's, but police actions with an index are those of other rules made with
    /// `policers`, where the rule is to be [released](Policers::release) in the end.
    pub fn of(
        origin: Origin,
        id: RuleId,
        spec: RuleSpec,
        shards: usize,
        policers: &mut Policers,
    ) -> Result<Self, RuleError> {
        spec.check()?;
        let counters = |n| {
            std::iter::repeat_with(RuleCounter::default)
                .take(n)
                .collect()
        };
        let policers = policers.take(&spec.actions)?;
        let counted = if spec.actions.iter().any(Action::may_stop) {
            spec.actions.len()
        } else {
            0
        };
        Ok(Self {
            id,
            origin,
            spec,
            counters: counters(shards),
            by_action: counters(counted * shards),
            policers,
        })
    }

    /// Its police actions, in order.
    pub(super) fn policers(&self) -> impl Iterator<Item = &Arc<Policer>> {
        self.policers.iter()
    }

    /// The police action that is the `nth` of its rule.
    pub(crate) fn policer(&self, nth: usize) -> Option<&Policer> {
        self.policers.get(nth).map(Arc::as_ref)
    }

    /// Its identity.
    pub fn id(&self) -> RuleId {
        self.id
    }

    /// What was asked for.
    pub fn spec(&self) -> &RuleSpec {
        &self.spec
    }

    /// Whose it is.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The chain of the tables that it is in.
    pub fn chain(&self) -> u32 {
        self.origin.chain(self.spec.chain)
    }

    /// The order of precedence: the smallest rank wins.
    #[inline]
    pub fn rank(&self) -> Rank {
        (self.origin, self.spec.priority, self.id)
    }

    /// Counts a packet of `len` bytes for worker `shard`; only that worker may call this.
    #[inline]
    pub fn count(&self, shard: usize, len: u32, now: Nanos) {
        if let Some(counter) = self.counters.get(shard) {
            counter.add(len, now);
        }
    }

    /// Counts a packet at one of its actions, as [`Rule::count`] does for the rule.
    #[inline]
    pub(crate) fn count_action(&self, action: usize, shard: usize, len: u32, now: Nanos) {
        let shards = self.counters.len();
        if !self.by_action.is_empty()
            && shard < shards
            && let Some(counter) = self.by_action.get(action * shards + shard)
        {
            counter.add(len, now);
        }
    }

    /// The sum over all workers.
    pub fn totals(&self) -> RuleTotals {
        sum(&self.counters)
    }

    /// What has got to an action (0 is the first), over all workers.
    pub fn action_totals(&self, action: usize) -> RuleTotals {
        let shards = self.counters.len();
        match self.by_action.get(action * shards..(action + 1) * shards) {
            Some(counters) if !self.by_action.is_empty() => sum(counters),
            _ => self.totals(),
        }
    }
}

fn sum(counters: &[RuleCounter]) -> RuleTotals {
    let mut totals = RuleTotals::default();
    for counter in counters {
        totals.packets += counter.packets.load(Relaxed);
        totals.bytes += counter.bytes.load(Relaxed);
        totals.last_used = totals.last_used.max(counter.last_used.load(Relaxed));
    }
    totals
}
