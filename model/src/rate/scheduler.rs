//! The shares of those that send, computed anew every millisecond.

use super::class::{Arrivals, Class, ClassState, Leaf};
use super::divide::{Claim, divide};
use super::settings::Rates;
use super::tree::RateName;
use crate::Nanos;
use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often shares are computed while anybody sends that has to share.
pub const EPOCH: Nanos = 1_000_000;
/// A leaf that has not asked for so long is forgotten until it does.
const SILENCE: Nanos = 50 * EPOCH;
/// The time over which it is known what a leaf sends when it could send more, seconds.
const USAGE_TIME: f64 = 0.01;
/// What such a leaf can have, of what it sends: room to grow before it is refused.
const HEADROOM: f64 = 1.1;
/// What all who send less than they could have beside that, of a node's ceiling.
const NOVICES: f64 = 0.1;
/// What a ceiling saves on purpose, as time at its rate, seconds. More than that in its bucket, and
/// not everything was sent that could be: more is given. Less, and less. Those of nodes make up for
/// what some were given and did not use, those of leaves for when others needed their part of it.
const RESERVE: f64 = 0.005;
/// The time in which a difference from the reserve is made good, seconds.
const CORRECTION_TIME: f64 = 0.01;
/// What is given less or more for that, at most, of the ceiling.
const CORRECTION: (f64, f64) = (-0.1, 0.25);

/// What a leaf may have, or a node may divide, for its ceiling to be met over time.
fn corrected(state: &mut ClassState, now: Nanos) -> f64 {
    let max = match state.rates.tx_max {
        0 => return f64::INFINITY,
        max => max as f64,
    };
    let (less, more) = CORRECTION;
    let surplus = state.ceiling.tokens(now) - RESERVE * max;
    max + (surplus / CORRECTION_TIME).clamp(less * max, more * max)
}

/// What workers ask, and control changes.
#[derive(Debug)]
pub struct Scheduler {
    next: AtomicU64,
    arrivals: Arc<Arrivals>,
    classes: Mutex<BTreeMap<RateName, Arc<Class>>>,
    work: Mutex<Work>,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self {
            // Nothing is due while nobody shares.
            next: AtomicU64::new(0),
            arrivals: Arc::default(),
            classes: Mutex::default(),
            work: Mutex::default(),
        }
    }
}

impl Scheduler {
    /// Makes a leaf or node, or changes it. The parent is there already.
    pub fn set(&self, name: &RateName, rates: &Rates, now: Nanos) -> Leaf {
        let mut classes = self.classes.lock();
        let parent = rates
            .parent
            .as_ref()
            .and_then(|name| classes.get(name))
            .cloned();
        let class = classes
            .entry(name.clone())
            .or_insert_with(|| Class::new(now));
        class.set(rates, parent, now);
        Leaf {
            class: class.clone(),
            arrivals: self.arrivals.clone(),
        }
    }

    /// Forgets a leaf, or a node that nothing is below.
    pub fn remove(&self, name: &RateName) {
        self.classes.lock().remove(name);
    }

    /// Computes the shares if it is time to; workers call it again and again.
    pub fn tick(&self, now: Nanos) {
        if now < self.next.load(Ordering::Relaxed) {
            return;
        }
        // Another worker is at it.
        let Some(mut work) = self.work.try_lock() else {
            return;
        };
        if now < self.next.load(Ordering::Relaxed) {
            return;
        }
        work.run(&self.arrivals, now);
        self.next.store(now + EPOCH, Ordering::Relaxed);
    }
}

/// What one computation needs; the memory is used again for the next.
#[derive(Debug, Default)]
struct Work {
    last: Nanos,
    active: Vec<Arc<Class>>,
    /// Leaves, and the nodes above them, each parent before its children.
    entries: Vec<Entry>,
    /// Where nodes are among the entries, by the address of their class.
    nodes: HashMap<usize, u32, FxBuildHasher>,
    leaves: u32,
    members: Vec<u32>,
    claims: Vec<Claim>,
    order: Vec<u32>,
    grants: Vec<f64>,
    rest: Vec<f64>,
}

#[derive(Debug)]
struct Entry {
    class: Arc<Class>,
    /// What it sends while it could send more, bytes per second, infinite if it waits; `None`: a
    /// node.
    usage: Option<f64>,
    parent: Option<u32>,
    /// Children as a list: the first, and the next of the same parent.
    first: Option<u32>,
    next: Option<u32>,
    claim: Claim,
    /// What it may have now, as far as the own ceiling goes, bytes per second; infinite: it has
    /// none.
    max: f64,
    /// The lowest ceiling from here up.
    limit: f64,
    granted: f64,
}

impl Entry {
    fn new(class: &Arc<Class>, state: &mut ClassState, parent: Option<u32>, now: Nanos) -> Self {
        let max = match state.rates.tx_max {
            0 => f64::INFINITY,
            max => max as f64,
        };
        let rates = &state.rates;
        let claim = Claim {
            share: rates.tx_share as f64,
            want: 0.0,
            weight: f64::from(rates.tx_weight),
            priority: rates.tx_priority,
        };
        Self {
            class: class.clone(),
            usage: None,
            parent,
            first: None,
            next: None,
            claim,
            max: corrected(state, now),
            limit: max,
            granted: f64::INFINITY,
        }
    }
}

impl Work {
    fn run(&mut self, arrivals: &Arrivals, now: Nanos) {
        let passed = now.saturating_sub(std::mem::replace(&mut self.last, now));
        self.active.append(&mut arrivals.lock());
        self.collect(passed as f64 / 1e9, now);
        self.claim();
        for node in 0..self.entries.len() {
            self.divide(node);
        }
        for entry in self.entries.drain(..) {
            if entry.usage.is_some() {
                let mut leaf = entry.class.lock();
                if leaf.shared {
                    leaf.share.set_rate(entry.granted, now);
                }
            }
        }
    }

    /// Makes the entries of all that send and of the nodes above them.
    fn collect(&mut self, passed: f64, now: Nanos) {
        self.entries.clear();
        self.nodes.clear();
        self.leaves = 0;
        let mut at = 0;
        while let Some(class) = self.active.get(at).cloned() {
            let mut leaf = class.lock();
            let waits = now <= leaf.waits_until;
            if !leaf.shared || !waits && now.saturating_sub(leaf.asked_at) > SILENCE {
                leaf.active = false;
                self.active.swap_remove(at);
                continue;
            }
            let sent = std::mem::take(&mut leaf.sent) as f64;
            let old = USAGE_TIME / (USAGE_TIME + passed);
            if passed > 0.0 {
                leaf.usage = leaf.usage * old + sent / passed * (1.0 - old);
            }
            let above = leaf.parent.clone();
            let parent = above.map(|node| self.node(&node, now));
            let mut entry = Entry::new(&class, &mut leaf, parent, now);
            entry.usage = Some(if waits { f64::INFINITY } else { leaf.usage });
            drop(leaf);
            self.entries.push(entry);
            self.leaves += 1;
            at += 1;
        }
    }

    /// The entry of a node, made behind those of its ancestors.
    fn node(&mut self, class: &Arc<Class>, now: Nanos) -> u32 {
        let address = Arc::as_ptr(class).addr();
        if let Some(known) = self.nodes.get(&address) {
            return *known;
        }
        let mut node = class.lock();
        let parent = node.parent.clone().map(|above| self.node(&above, now));
        let mut entry = Entry::new(class, &mut node, parent, now);
        if let Some(parent) = parent {
            entry.limit = entry.limit.min(self.entries[parent as usize].limit);
        }
        let index = self.entries.len() as u32;
        self.entries.push(entry);
        self.nodes.insert(address, index);
        index
    }

    /// What each asks for, from the leaves up.
    fn claim(&mut self) {
        for at in (0..self.entries.len()).rev() {
            let entry = &self.entries[at];
            let parent = entry.parent;
            let mut want = entry.claim.want;
            if let Some(usage) = entry.usage {
                let limit = parent.map_or(entry.limit, |p| self.entries[p as usize].limit);
                want = usage * HEADROOM + NOVICES * limit / f64::from(self.leaves);
            }
            let entry = &mut self.entries[at];
            entry.claim.want = want.min(entry.max);
            let want = entry.claim.want;
            if let Some(parent) = parent {
                let parent = &mut self.entries[parent as usize];
                parent.claim.want += want;
                let next = parent.first.replace(at as u32);
                self.entries[at].next = next;
            }
        }
    }

    /// Gives those below a node what it has: first what they ask for, then the rest, so that who
    /// begins to send more can.
    fn divide(&mut self, node: usize) {
        let Self {
            entries,
            members,
            claims,
            order,
            grants,
            rest,
            ..
        } = self;
        members.clear();
        claims.clear();
        let mut child = entries[node].first;
        while let Some(at) = child {
            members.push(at);
            claims.push(entries[at as usize].claim);
            child = entries[at as usize].next;
        }
        let capacity = entries[node].granted.min(entries[node].max);
        if members.is_empty() || capacity.is_infinite() {
            return;
        }
        divide(capacity, claims, order, grants);
        let left = capacity - grants.iter().sum::<f64>();
        rest.clear();
        if left > 0.0 {
            for ((claim, at), granted) in claims.iter_mut().zip(&*members).zip(&*grants) {
                claim.share = 0.0;
                claim.want = entries[*at as usize].max - granted;
            }
            divide(left, claims, order, rest);
        }
        rest.resize(members.len(), 0.0);
        for ((at, granted), more) in members.iter().zip(&*grants).zip(&*rest) {
            entries[*at as usize].granted = granted + more;
        }
    }
}
