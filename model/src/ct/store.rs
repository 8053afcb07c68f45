//! Where connections are kept: slots of their own, found by the tuples of both directions.
//!
//! Locks: the index is in shards; a packet looks its tuple up under a shard's read lock, lets go
//! of that and locks the slot. Commit and removal hold the shards of both tuples and then the
//! slot; a table of sources is locked before a slot, never behind one. A slot that was emptied in
//! between is told by its generation.

use super::entry::{Entry, status};
use super::{Direction, Tuple};
use crate::hash::HashKey;
use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockWriteGuard};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const SHARDS: usize = 64;
type Chunk = Box<[Mutex<Slot>]>;
/// How many slots are made at once.
const CHUNK: usize = 1024;

/// A slot, as long as the same connection is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handle {
    slot: u32,
    generation: u32,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    entry: Option<Entry>,
}

/// One direction of a connection.
#[derive(Debug)]
struct IndexEntry {
    tuple: Tuple,
    handle: Handle,
    direction: Direction,
}

/// Where a connection's source is translated to.
#[derive(Debug)]
struct Source {
    /// Of the original direction, its destination left out.
    from: Tuple,
    to: ([u8; 16], u16),
    id: u64,
    handle: Handle,
}

/// Slots not in use.
#[derive(Debug, Default)]
struct Free {
    emptied: Vec<u32>,
    /// From here on they were never used.
    fresh: u32,
}

/// Why a connection cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InsertError {
    Full,
    /// This one has one of its tuples.
    Clash(Handle),
}

/// The shards of a connection's tuples, locked; `None`: both are in one.
struct Shards<'a> {
    original: RwLockWriteGuard<'a, HashTable<IndexEntry>>,
    reply: Option<RwLockWriteGuard<'a, HashTable<IndexEntry>>>,
}

impl Shards<'_> {
    fn of(&mut self, direction: Direction) -> &mut HashTable<IndexEntry> {
        match (direction, &mut self.reply) {
            (Direction::Reply, Some(reply)) => reply,
            _ => &mut self.original,
        }
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Store {
    key: HashKey,
    shards: Box<[RwLock<HashTable<IndexEntry>>]>,
    sources: Box<[Mutex<HashTable<Source>>]>,
    chunks: Box<[OnceLock<Chunk>]>,
    free: Mutex<Free>,
    max: u32,
    count: AtomicU32,
    next_id: AtomicU64,
    /// Where the search for expired ones goes on.
    sweep: AtomicU32,
}

impl Store {
    /// Room for so many.
    pub fn new(max: u32) -> Self {
        let chunks = (max as usize).div_ceil(CHUNK);
        Self {
            key: HashKey::random(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            sources: (0..SHARDS).map(|_| Mutex::default()).collect(),
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
            free: Mutex::default(),
            max,
            count: AtomicU32::new(0),
            next_id: AtomicU64::new(1),
            sweep: AtomicU32::new(0),
        }
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_full(&self) -> bool {
        self.len() >= self.max
    }

    fn hash(&self, tuple: &Tuple) -> u64 {
        self.key.hash(tuple.words())
    }

    /// Which shard; the table within takes other bits.
    fn shard(hash: u64) -> usize {
        (hash >> 32) as usize % SHARDS
    }

    fn slot(&self, index: u32) -> Option<MutexGuard<'_, Slot>> {
        let chunk = self.chunks.get(index as usize / CHUNK)?.get()?;
        Some(chunk[index as usize % CHUNK].lock())
    }

    /// The connection that packets with this tuple belong to, and their direction. It may be over.
    #[inline]
    pub fn find(&self, tuple: &Tuple) -> Option<(Handle, Direction)> {
        let hash = self.hash(tuple);
        let table = self.shards[Self::shard(hash)].read();
        let found = table.find(hash, |entry| entry.tuple == *tuple)?;
        Some((found.handle, found.direction))
    }

    /// Does something with a connection; `None` if it is gone.
    #[inline]
    pub fn with<R>(&self, handle: Handle, work: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let mut slot = self.slot(handle.slot)?;
        if slot.generation != handle.generation {
            return None;
        }
        slot.entry.as_mut().map(work)
    }

    /// Locks the shards of both tuples, in the order that everybody keeps.
    fn lock_both(&self, hashes: [u64; 2]) -> Shards<'_> {
        let [original, reply] = hashes.map(Self::shard);
        let lock = |index: usize| self.shards[index].write();
        let (first, second) = if original == reply {
            (lock(original), None)
        } else if original < reply {
            let first = lock(original);
            (first, Some(lock(reply)))
        } else {
            let second = lock(reply);
            (lock(original), Some(second))
        };
        Shards {
            original: first,
            reply: second,
        }
    }

    /// Which of a connection's tuples are looked up: one of an end with itself looks the same
    /// both ways, and all its packets count as replies.
    fn indexed(tuples: &[Tuple; 2]) -> &'static [Direction] {
        if tuples[0] == tuples[1] {
            &[Direction::Reply]
        } else {
            &[Direction::Original, Direction::Reply]
        }
    }

    /// Keeps a connection.
    pub fn insert(&self, mut entry: Entry) -> Result<Handle, InsertError> {
        let tuples = entry.tuples;
        let hashes = tuples.each_ref().map(|tuple| self.hash(tuple));
        let mut shards = self.lock_both(hashes);
        for direction in Self::indexed(&tuples) {
            let i = direction.index();
            let found = shards
                .of(*direction)
                .find(hashes[i], |e| e.tuple == tuples[i]);
            if let Some(other) = found {
                return Err(InsertError::Clash(other.handle));
            }
        }
        let slot = self.take_slot().ok_or(InsertError::Full)?;
        entry.id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let handle = self.fill(slot, entry);
        for direction in Self::indexed(&tuples) {
            let i = direction.index();
            let new = IndexEntry {
                tuple: tuples[i],
                handle,
                direction: *direction,
            };
            let table = shards.of(*direction);
            table.insert_unique(hashes[i], new, |entry| self.hash(&entry.tuple));
        }
        drop(shards);
        self.remember_source(&entry, handle);
        Ok(handle)
    }

    fn fill(&self, slot: u32, entry: Entry) -> Handle {
        let chunk = self.chunks[slot as usize / CHUNK].get_or_init(|| {
            let empty = || Slot {
                generation: 0,
                entry: None,
            };
            (0..CHUNK).map(|_| Mutex::new(empty())).collect()
        });
        let mut inner = chunk[slot as usize % CHUNK].lock();
        inner.entry = Some(entry);
        Handle {
            slot,
            generation: inner.generation,
        }
    }

    fn take_slot(&self) -> Option<u32> {
        let mut free = self.free.lock();
        let slot = match free.emptied.pop() {
            Some(slot) => slot,
            None if free.fresh < self.max => {
                free.fresh += 1;
                free.fresh - 1
            }
            None => return None,
        };
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(slot)
    }

    /// Forgets a connection; whether it was still there.
    pub fn remove(&self, handle: Handle) -> bool {
        let Some(tuples) = self.with(handle, |entry| entry.tuples) else {
            return false;
        };
        let hashes = tuples.each_ref().map(|tuple| self.hash(tuple));
        let mut shards = self.lock_both(hashes);
        let entry = {
            let Some(mut slot) = self.slot(handle.slot) else {
                return false;
            };
            if slot.generation != handle.generation {
                return false;
            }
            let Some(entry) = slot.entry.take() else {
                return false;
            };
            slot.generation = slot.generation.wrapping_add(1);
            entry
        };
        for direction in Self::indexed(&tuples) {
            let table = shards.of(*direction);
            let is_it = |e: &IndexEntry| e.handle == handle && e.direction == *direction;
            if let Ok(found) = table.find_entry(hashes[direction.index()], is_it) {
                found.remove();
            }
        }
        drop(shards);
        self.forget_source(&entry, handle);
        self.free.lock().emptied.push(handle.slot);
        self.count.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// The source of a tuple alone.
    fn source_of(tuple: &Tuple) -> Tuple {
        Tuple {
            dst: [0; 16],
            dst_port: 0,
            ..*tuple
        }
    }

    fn remember_source(&self, entry: &Entry, handle: Handle) {
        if !entry.has(status::SRC_DONE) {
            return;
        }
        let Some(translated) = entry.tuples[1].inverted() else {
            return;
        };
        let source = Source {
            from: Self::source_of(&entry.tuples[0]),
            to: (translated.src, translated.src_port),
            id: entry.id,
            handle,
        };
        let hash = self.hash(&source.from);
        let mut table = self.sources[Self::shard(hash)].lock();
        table.insert_unique(hash, source, |source| self.hash(&source.from));
    }

    fn forget_source(&self, entry: &Entry, handle: Handle) {
        if !entry.has(status::SRC_DONE) {
            return;
        }
        let hash = self.hash(&Self::source_of(&entry.tuples[0]));
        let mut table = self.sources[Self::shard(hash)].lock();
        if let Ok(found) = table.find_entry(hash, |source| source.handle == handle) {
            found.remove();
        }
    }

    /// What another connection of the same source is translated to: the newest that suits.
    pub fn translation_of(
        &self,
        tuple: &Tuple,
        suits: impl Fn(Handle, &[u8; 16], u16) -> bool,
    ) -> Option<([u8; 16], u16)> {
        let from = Self::source_of(tuple);
        let hash = self.hash(&from);
        let table = self.sources[Self::shard(hash)].lock();
        let same = table.iter_hash(hash).filter(|source| source.from == from);
        let suitable = same.filter(|source| suits(source.handle, &source.to.0, source.to.1));
        let newest = suitable.max_by_key(|source| source.id);
        newest.map(|source| source.to)
    }

    /// Looks at `budget` slots and forgets those that `done` picks; how many those were.
    pub fn sweep(&self, budget: u32, done: impl FnMut(&mut Entry) -> bool) -> u32 {
        let used = self.free.lock().fresh;
        let start = self.sweep.fetch_add(budget, Ordering::Relaxed);
        self.sweep_from(start, budget.min(used), used, u32::MAX, done)
    }

    /// Looks at up to `budget` slots behind an arbitrary one and forgets the first that `done`
    /// picks; whether there was one.
    pub fn evict(&self, near: &Tuple, budget: u32, done: impl FnMut(&mut Entry) -> bool) -> bool {
        let used = self.free.lock().fresh;
        let start = (self.hash(near) >> 32) as u32;
        self.sweep_from(start, budget.min(used), used, 1, done) > 0
    }

    fn sweep_from(
        &self,
        start: u32,
        budget: u32,
        used: u32,
        most: u32,
        mut done: impl FnMut(&mut Entry) -> bool,
    ) -> u32 {
        let mut gone = 0;
        for i in 0..budget {
            if gone >= most {
                break;
            }
            let index = (u64::from(start) + u64::from(i)) % u64::from(used);
            if let Some(handle) = self.pick(index as u32, &mut done) {
                gone += u32::from(self.remove(handle));
            }
        }
        gone
    }

    fn pick(&self, index: u32, done: &mut impl FnMut(&mut Entry) -> bool) -> Option<Handle> {
        let mut slot = self.slot(index)?;
        let generation = slot.generation;
        let picked = done(slot.entry.as_mut()?);
        picked.then_some(Handle {
            slot: index,
            generation,
        })
    }

    /// Visits all connections that stay as long as that takes, in the order of their slots.
    pub fn for_each(&self, mut visit: impl FnMut(&mut Entry)) {
        let used = self.free.lock().fresh;
        for index in 0..used {
            if let Some(mut slot) = self.slot(index)
                && let Some(entry) = &mut slot.entry
            {
                visit(entry);
            }
        }
    }
}
