//! All rules of a chain that look at the same bits.

use super::Rank;
use crate::flow::{CtKey, FlowKey, Match, Rule, Seen, TunnelKey};
use crate::hash::HashKey;
use arrayvec::ArrayVec;
use hashbrown::HashTable;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a match looks at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mask {
    pub(super) flow: FlowKey,
    ct: CtKey,
    tunnel: Option<Box<TunnelKey>>,
    /// Also at ranges of ports, which each rule of a bucket has to be asked about.
    ranged: bool,
}

impl Mask {
    pub(super) fn of(matches: &Match) -> Self {
        let more = matches.more.as_ref();
        Self {
            flow: matches.mask,
            ct: more.map_or(CtKey::default(), |more| more.ct.mask),
            tunnel: matches.tunnel().map(|tunnel| Box::new(tunnel.mask)),
            ranged: more.is_some_and(|more| more.has_ranges()),
        }
    }

    /// The bits of the packet's own headers that it looks at, ranges included.
    pub(super) fn flow_bits(&self) -> FlowKey {
        let mut bits = self.flow;
        if self.ranged {
            (bits.l4_src, bits.l4_dst) = (u16::MAX, u16::MAX);
        }
        bits
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.tunnel.is_some()
    }

    pub(super) fn is_tracked(&self) -> bool {
        self.ct != CtKey::default()
    }
}

/// The rules that want the same value under the same mask.
#[derive(Clone, Debug)]
struct Bucket {
    value: FlowKey,
    /// The one that wins, or among ranges the first to be asked.
    best: Arc<Rule>,
    /// The others, by rank; most buckets have none.
    #[expect(
        clippy::box_collection,
        reason = "8 bytes instead of 24 in each of a million"
    )]
    hidden: Option<Box<Vec<Arc<Rule>>>>,
}

/// The words of a mask that are not zero, with their positions.
type Words<const N: usize> = ArrayVec<(u8, u64), N>;

fn words<const N: usize>(mask: &[u64; N]) -> Words<N> {
    let numbered = (0u8..).zip(*mask);
    numbered.filter(|(_, word)| *word != 0).collect()
}

#[derive(Clone, Debug)]
pub(super) struct Subtable {
    flow: Words<{ FlowKey::WORDS }>,
    ct: Words<{ CtKey::WORDS }>,
    tunnel: Option<Box<Words<{ TunnelKey::WORDS }>>>,
    ranged: bool,
    buckets: HashTable<Bucket>,
    ranks: BTreeSet<Rank>,
}

impl Subtable {
    pub(super) fn new(mask: &Mask) -> Self {
        let tunnel = mask.tunnel.as_ref();
        Self {
            flow: words(mask.flow.words()),
            ct: words(mask.ct.words()),
            tunnel: tunnel.map(|mask| Box::new(words(mask.words()))),
            ranged: mask.ranged,
            buckets: HashTable::new(),
            ranks: BTreeSet::new(),
        }
    }

    /// The rank of its best rule.
    pub(super) fn first(&self) -> Option<Rank> {
        self.ranks.first().copied()
    }

    /// Its rule for a packet.
    #[inline]
    pub(super) fn lookup(&self, hash: &HashKey, seen: Seen<'_>) -> Option<&Arc<Rule>> {
        if self.ct.is_empty() && self.tunnel.is_none() && !self.ranged {
            let at = hash.hash(seen_words(&self.flow, seen.flow.words()));
            let bucket = self.buckets.find(at, |b| {
                agree(&self.flow, b.value.words(), seen.flow.words())
            })?;
            return Some(&bucket.best);
        }
        self.lookup_rare(hash, seen)
    }

    /// The same for what few rules ask for.
    #[inline(never)]
    fn lookup_rare(&self, hash: &HashKey, seen: Seen<'_>) -> Option<&Arc<Rule>> {
        let empty = TunnelKey::default();
        let (flow, tunnel) = match (&self.tunnel, seen.inner) {
            (None, _) => (seen.flow, &empty),
            (Some(_), Some(inner)) => (inner.flow, inner.tunnel),
            (Some(_), None) => return None,
        };
        let at = self.hash(hash, flow, seen.ct, tunnel);
        let bucket = self.buckets.find(at, |b| {
            agree(&self.flow, b.value.words(), flow.words()) && {
                let (ct, wanted) = rare(&b.best.spec().matches);
                agree(&self.ct, ct.words(), seen.ct.words())
                    && self.tunnel.as_ref().is_none_or(|mask| {
                        wanted.is_some_and(|want| agree(mask, want.words(), tunnel.words()))
                    })
            }
        })?;
        let in_ranges = |rule: &&Arc<Rule>| {
            let more = rule.spec().matches.more.as_ref();
            more.is_none_or(|more| more.in_ranges(flow))
        };
        bucket.rules().find(in_ranges)
    }

    fn hash(&self, hash: &HashKey, flow: &FlowKey, ct: &CtKey, tunnel: &TunnelKey) -> u64 {
        let flow = seen_words(&self.flow, flow.words());
        let ct = seen_words(&self.ct, ct.words());
        let masks = self.tunnel.as_ref().map_or(&[][..], |mask| &mask[..]);
        hash.hash(flow.chain(ct).chain(seen_words(masks, tunnel.words())))
    }

    /// The hash of the value that a match wants.
    fn hash_of(&self, hash: &HashKey, matches: &Match) -> u64 {
        let (ct, tunnel) = rare(matches);
        let none = TunnelKey::default();
        self.hash(hash, &matches.value, ct, tunnel.unwrap_or(&none))
    }

    pub(super) fn insert(&mut self, hash: &HashKey, rule: Arc<Rule>) {
        self.ranks.insert(rule.rank());
        let at = self.hash_of(hash, &rule.spec().matches);
        let same = |b: &Bucket| same_value(&b.best.spec().matches, &rule.spec().matches);
        if let Some(bucket) = self.buckets.find_mut(at, same) {
            bucket.insert(rule);
            return;
        }
        let mut buckets = std::mem::take(&mut self.buckets);
        let bucket = Bucket {
            value: rule.spec().matches.value,
            best: rule,
            hidden: None,
        };
        let rehash = |b: &Bucket| self.hash_of(hash, &b.best.spec().matches);
        buckets.insert_unique(at, bucket, rehash);
        self.buckets = buckets;
    }

    pub(super) fn remove(&mut self, hash: &HashKey, rule: &Rule) {
        self.ranks.remove(&rule.rank());
        let at = self.hash_of(hash, &rule.spec().matches);
        let same = |b: &Bucket| same_value(&b.best.spec().matches, &rule.spec().matches);
        if let Ok(mut found) = self.buckets.find_entry(at, same)
            && found.get_mut().remove(rule)
        {
            found.remove();
        }
    }

    /// Every rule that wants this, the best first.
    pub(super) fn wanting(
        &self,
        hash: &HashKey,
        matches: &Match,
    ) -> impl Iterator<Item = &Arc<Rule>> {
        let at = self.hash_of(hash, matches);
        let same = |b: &Bucket| same_value(&b.best.spec().matches, matches);
        let bucket = self.buckets.find(at, same);
        bucket.into_iter().flat_map(Bucket::rules)
    }
}

impl Bucket {
    fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        std::iter::once(&self.best).chain(self.hidden.iter().flat_map(|rules| rules.iter()))
    }

    fn insert(&mut self, mut rule: Arc<Rule>) {
        if rule.rank() < self.best.rank() {
            std::mem::swap(&mut rule, &mut self.best);
        }
        let hidden = self.hidden.get_or_insert_default();
        let place = hidden.partition_point(|r| r.rank() < rule.rank());
        hidden.insert(place, rule);
    }

    /// Whether nothing is left.
    fn remove(&mut self, rule: &Rule) -> bool {
        let Some(hidden) = &mut self.hidden else {
            return self.best.id() == rule.id();
        };
        if self.best.id() == rule.id() {
            self.best = hidden.remove(0);
        } else {
            let place = hidden.partition_point(|r| r.rank() < rule.rank());
            hidden.remove(place);
        }
        self.hidden.take_if(|hidden| hidden.is_empty());
        false
    }
}

/// The values of the rarer parts of a match.
fn rare(matches: &Match) -> (&CtKey, Option<&TunnelKey>) {
    static ANY: CtKey = CtKey {
        label: [0; 16],
        mark: 0,
        state: 0,
        zone: 0,
    };
    let ct = matches.more.as_ref().map_or(&ANY, |more| &more.ct.value);
    (ct, matches.tunnel().map(|tunnel| &tunnel.value))
}

/// Whether two matches of one mask want the same, ranges apart.
fn same_value(a: &Match, b: &Match) -> bool {
    a.value == b.value && rare(a) == rare(b)
}

/// The words that a mask looks at.
#[inline]
fn seen_words<'a, const N: usize>(
    masks: &'a [(u8, u64)],
    words: &'a [u64; N],
) -> impl Iterator<Item = u64> + 'a {
    masks
        .iter()
        .map(|&(i, mask)| words[usize::from(i) % N] & mask)
}

/// Whether `seen` under the mask is `value`.
#[inline]
fn agree<const N: usize>(masks: &[(u8, u64)], value: &[u64; N], seen: &[u64; N]) -> bool {
    masks.iter().all(|&(i, mask)| {
        let i = usize::from(i) % N;
        seen[i] & mask == value[i]
    })
}
