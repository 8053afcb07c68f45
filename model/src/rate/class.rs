//! A leaf or node at work: who may send now, and what was sent.

use super::bucket::Bucket;
use super::scheduler::EPOCH;
use super::settings::Rates;
use crate::Nanos;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;

/// How long a leaf without credit waits at most before it asks again, where others' behaviour may
/// give it credit earlier than its own rate would.
const SHARED_PATIENCE: Nanos = 2 * EPOCH;
/// The same where only control can.
const OWN_PATIENCE: Nanos = 100 * EPOCH;
/// For how long at most a leaf that was refused counts as one that wants to send. It asks again far
/// sooner, unless its worker does not run or its packets are gone.
const LONGEST_WISH: Nanos = 50 * EPOCH;
/// For how long it goes on counting as that once it got leave: if it has more than it may send, it
/// is refused again by then, and if not, the others miss what it does not use.
const AFTERMATH: Nanos = EPOCH;

/// Leaves that send below a node with a ceiling and are not known to the scheduler yet.
pub(super) type Arrivals = Mutex<Vec<Arc<Class>>>;

/// A leaf or a node. Locks are taken from a leaf upwards.
#[derive(Debug)]
pub(super) struct Class(Mutex<ClassState>);

#[derive(Debug)]
pub(super) struct ClassState {
    /// As control has set them; the parent below is what counts.
    pub(super) rates: Rates,
    pub(super) parent: Option<Arc<Class>>,
    /// Filled at its ceiling.
    pub(super) ceiling: Bucket,
    /// Leaf below a node with a ceiling: filled at the rate that the scheduler has given it.
    pub(super) share: Bucket,
    /// Leaf: it is below such a node.
    pub(super) shared: bool,
    /// Leaf: the scheduler knows of it.
    pub(super) active: bool,
    /// Leaf: bytes sent since the scheduler last looked.
    pub(super) sent: u64,
    /// Leaf: the same over the last while, bytes per second.
    pub(super) usage: f64,
    /// Leaf: it was refused, and counts as waiting until then.
    pub(super) waits_until: Nanos,
    pub(super) asked_at: Nanos,
}

impl ClassState {
    fn has_ceiling(&self) -> bool {
        self.rates.tx_max != 0
    }
}

impl Class {
    pub(super) fn new(now: Nanos) -> Arc<Self> {
        Arc::new(Self(Mutex::new(ClassState {
            rates: Rates::default(),
            parent: None,
            ceiling: Bucket::new(0.0, now),
            share: Bucket::new(0.0, now),
            shared: false,
            active: false,
            sent: 0,
            usage: 0.0,
            waits_until: 0,
            asked_at: 0,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ClassState> {
        self.0.lock()
    }

    pub(super) fn set(&self, rates: &Rates, parent: Option<Arc<Class>>, now: Nanos) {
        let mut class = self.lock();
        class.ceiling.set_rate(rates.tx_max as f64, now);
        class.rates = rates.clone();
        class.parent = parent;
    }
}

/// Does something with each node above that has a ceiling, from the nearest up.
fn for_ceilings(leaf: &ClassState, mut with: impl FnMut(&mut ClassState)) {
    let mut above = leaf.parent.clone();
    while let Some(node) = above {
        let mut node = node.lock();
        if node.has_ceiling() {
            with(&mut node);
        }
        above = node.parent.clone();
    }
}

/// A channel's place in the tree. Workers share it.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub(super) class: Arc<Class>,
    pub(super) arrivals: Arc<Arrivals>,
}

impl Leaf {
    /// How many bytes may be sent now. One packet more than that is all right: it becomes debt.
    ///
    /// # Errors
    /// None, and when to ask again.
    pub fn ask(&self, now: Nanos) -> Result<u64, Nanos> {
        let mut leaf = self.class.lock();
        let mut shared = false;
        let (mut room, mut ready) = (f64::INFINITY, now);
        let mut look = |bucket: &mut Bucket| {
            let tokens = bucket.tokens(now);
            room = room.min(tokens);
            if tokens <= 0.0 {
                ready = ready.max(bucket.ready_at());
            }
        };
        for_ceilings(&leaf, |node| {
            shared = true;
            look(&mut node.ceiling);
        });
        self.share(&mut leaf, shared, now);
        if shared {
            look(&mut leaf.share);
        }
        if leaf.has_ceiling() {
            look(&mut leaf.ceiling);
        }
        if room > 0.0 {
            leaf.waits_until = leaf.waits_until.min(now + AFTERMATH);
            // Saturates where there is no limit.
            return Ok(room.ceil() as u64);
        }
        let ready = ready.max(now + 1);
        leaf.waits_until = now + LONGEST_WISH;
        let patience = if shared {
            SHARED_PATIENCE
        } else {
            OWN_PATIENCE
        };
        Err(ready.min(now + patience))
    }

    /// So many bytes were sent.
    pub fn charge(&self, bytes: u64) {
        let mut leaf = self.class.lock();
        leaf.sent += bytes;
        for_ceilings(&leaf, |node| node.ceiling.charge(bytes));
        if leaf.shared {
            leaf.share.charge(bytes);
        }
        if leaf.has_ceiling() {
            leaf.ceiling.charge(bytes);
        }
    }

    /// Whose rate it is, and that the scheduler knows.
    fn share(&self, leaf: &mut ClassState, shared: bool, now: Nanos) {
        leaf.asked_at = now;
        if leaf.shared != shared {
            leaf.shared = shared;
            leaf.share.set_rate(0.0, now);
        }
        if shared && !leaf.active {
            leaf.active = true;
            self.arrivals.lock().push(self.class.clone());
        }
    }
}
