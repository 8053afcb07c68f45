//! The forwarding database of legacy mode: which vport an address is behind, per VLAN.
//!
//! Look-ups and refreshes take `&self`, so workers share the table; learning takes `&mut self`
//! and is rare. What is learned comes from the guests, so it is bounded: in total, and per
//! channel so that none can take the others' share.

use crate::hash::HashKey;
use crate::{Mac, Nanos, VportId};
use hashbrown::HashTable;
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How much is learned and for how long it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbLimits {
    /// Learned entries in all.
    pub total: usize,
    /// Learned entries of one channel; the uplink has only the total.
    pub per_channel: usize,
    /// A learned entry that was not seen for this long is gone.
    pub ageing: Nanos,
}

impl Default for FdbLimits {
    /// 65,536 in all, 1,024 per channel, 300 s (the default of IEEE 802.1Q and of Linux bridges).
    fn default() -> Self {
        Self {
            total: 65_536,
            per_channel: 1024,
            ageing: 300_000_000_000,
        }
    }
}

/// What [`Fdb::learn`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LearnOutcome {
    /// Not known before (or aged out): now it is.
    New,
    /// Known there already: seen again.
    Refreshed,
    /// Known elsewhere: now here.
    Moved,
    /// A static entry holds the address; nothing changed.
    Static,
    /// The total or the channel's share is used up; nothing changed.
    LimitReached,
    /// A multicast or zero address is nobody's; nothing changed.
    NotAStation,
}

/// A static entry for the address exists at another vport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fdb: {mac} vlan {vid} is already a static entry of vport {vport}")]
pub struct StaticConflict {
    /// VLAN id, 0 untagged.
    pub vid: u16,
    /// The address.
    pub mac: Mac,
    /// Who has it.
    pub vport: VportId,
}

/// One entry, for listings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// VLAN id, 0 untagged.
    pub vid: u16,
    /// The address.
    pub mac: Mac,
    /// Where it is.
    pub vport: VportId,
    /// Set by hand or by the channel's configuration: never ages or moves.
    pub is_static: bool,
    /// Time since it was last seen, give or take 1/64 of the ageing time; 0 for a static entry.
    pub idle_ns: Nanos,
}

#[derive(Debug)]
struct Entry {
    /// VLAN id in the upper 16 bits, address in the lower 48.
    key: u64,
    seen: AtomicU64,
    vport: VportId,
    is_static: bool,
}

#[inline]
fn pack(vid: u16, mac: Mac) -> u64 {
    u64::from(vid & 0xfff) << 48 | mac.to_bits()
}

fn unpack(key: u64) -> (u16, Mac) {
    let [v, w, a, b, c, d, e, f] = key.to_be_bytes();
    (u16::from_be_bytes([v, w]), Mac([a, b, c, d, e, f]))
}

/// The table.
#[derive(Debug)]
pub struct Fdb {
    table: HashTable<Entry>,
    hash: HashKey,
    limits: FdbLimits,
    learned: usize,
    learned_by: FxHashMap<VportId, usize>,
}

impl Default for Fdb {
    fn default() -> Self {
        Self::new(FdbLimits::default())
    }
}

impl Fdb {
    /// An empty table.
    pub fn new(limits: FdbLimits) -> Self {
        Self {
            table: HashTable::new(),
            hash: HashKey::random(),
            limits,
            learned: 0,
            learned_by: FxHashMap::default(),
        }
    }

    /// The limits in force.
    pub fn limits(&self) -> FdbLimits {
        self.limits
    }

    /// New limits; entries beyond them stay until they age or are removed.
    pub fn set_limits(&mut self, limits: FdbLimits) {
        self.limits = limits;
    }

    /// Number of entries, learned and static.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Number of learned entries of one vport.
    pub fn learned_by(&self, vport: VportId) -> usize {
        self.learned_by.get(&vport).copied().unwrap_or(0)
    }

    #[inline]
    fn find(&self, key: u64) -> Option<&Entry> {
        self.table.find(self.hash.one(key), |e| e.key == key)
    }

    #[inline]
    fn is_current(&self, entry: &Entry, now: Nanos) -> bool {
        entry.is_static || now.saturating_sub(entry.seen.load(Relaxed)) < self.limits.ageing
    }

    /// Notes that a current entry was seen. Most packets only read: a store for each would pull
    /// the cache line from worker to worker.
    #[inline]
    fn touch(&self, entry: &Entry, now: Nanos) {
        if now.saturating_sub(entry.seen.load(Relaxed)) > self.limits.ageing / 64 {
            entry.seen.store(now, Relaxed);
        }
    }

    /// Where the address is, if that is known and has not aged out.
    #[inline]
    pub fn lookup(&self, vid: u16, mac: Mac, now: Nanos) -> Option<VportId> {
        let entry = self.find(pack(vid, mac))?;
        self.is_current(entry, now).then_some(entry.vport)
    }

    /// Who has the address by a static entry.
    pub fn static_owner(&self, vid: u16, mac: Mac) -> Option<VportId> {
        self.find(pack(vid, mac))
            .filter(|e| e.is_static)
            .map(|e| e.vport)
    }

    /// Whether [`Fdb::learn`] would change where a packet to `mac` goes. The cheap question asked
    /// of every packet; a current entry is marked as seen on the way.
    #[inline]
    pub fn needs_learning(&self, vid: u16, mac: Mac, vport: VportId, now: Nanos) -> bool {
        match self.find(pack(vid, mac)) {
            Some(entry) if entry.is_static => false,
            Some(entry) if entry.vport == vport && self.is_current(entry, now) => {
                self.touch(entry, now);
                false
            }
            // An entry that only moves or comes back takes no more room in the total.
            Some(entry) => entry.vport == vport || self.has_share(vport),
            // Full: do not send every packet of a flood of sources to the slow path.
            None => mac.is_unicast() && self.learned < self.limits.total && self.has_share(vport),
        }
    }

    fn has_share(&self, vport: VportId) -> bool {
        vport.is_uplink() || self.learned_by(vport) < self.limits.per_channel
    }

    /// Notes that a packet from `mac` came in on `vport`.
    pub fn learn(&mut self, vid: u16, mac: Mac, vport: VportId, now: Nanos) -> LearnOutcome {
        if !mac.is_unicast() {
            return LearnOutcome::NotAStation;
        }
        let (key, has_share) = (pack(vid, mac), self.has_share(vport));
        let (ageing, hash) = (self.limits.ageing, self.hash);
        if let Some(entry) = self.table.find_mut(hash.one(key), |e| e.key == key) {
            if entry.is_static {
                return LearnOutcome::Static;
            }
            let current = now.saturating_sub(*entry.seen.get_mut()) < ageing;
            if entry.vport != vport {
                if !has_share {
                    return LearnOutcome::LimitReached;
                }
                let before = std::mem::replace(&mut entry.vport, vport);
                *entry.seen.get_mut() = now;
                self.forget_learned(before);
                self.count_learned(vport);
                return if current {
                    LearnOutcome::Moved
                } else {
                    LearnOutcome::New
                };
            }
            *entry.seen.get_mut() = now;
            return if current {
                LearnOutcome::Refreshed
            } else {
                LearnOutcome::New
            };
        }
        if self.learned >= self.limits.total || !has_share {
            return LearnOutcome::LimitReached;
        }
        self.insert(Entry {
            key,
            seen: AtomicU64::new(now),
            vport,
            is_static: false,
        });
        self.count_learned(vport);
        LearnOutcome::New
    }

    /// Adds a static entry; a learned one for the address gives way. Not an error if the same
    /// entry is there already.
    pub fn insert_static(
        &mut self,
        vid: u16,
        mac: Mac,
        vport: VportId,
    ) -> Result<(), StaticConflict> {
        let key = pack(vid, mac);
        if let Some(entry) = self.find(key)
            && entry.is_static
        {
            return if entry.vport == vport {
                Ok(())
            } else {
                let vport = entry.vport;
                Err(StaticConflict { vid, mac, vport })
            };
        }
        self.remove(vid, mac);
        self.insert(Entry {
            key,
            seen: AtomicU64::new(0),
            vport,
            is_static: true,
        });
        Ok(())
    }

    /// Removes the entry, learned or static, and returns where the address was.
    pub fn remove(&mut self, vid: u16, mac: Mac) -> Option<VportId> {
        let key = pack(vid, mac);
        let found = self.table.find_entry(self.hash.one(key), |e| e.key == key);
        let (entry, _) = found.ok()?.remove();
        if !entry.is_static {
            self.forget_learned(entry.vport);
        }
        Some(entry.vport)
    }

    /// Removes all entries of a vport, static ones too if asked, and returns how many. Takes time
    /// in proportion to the table.
    pub fn flush_vport(&mut self, vport: VportId, with_static: bool) -> usize {
        if !with_static && self.learned_by(vport) == 0 {
            return 0;
        }
        self.remove_if(|e| e.vport == vport && (with_static || !e.is_static))
    }

    /// Removes all entries, static ones too, of several vports in one pass.
    pub fn flush_vports(&mut self, vports: &[VportId]) -> usize {
        let vports: rustc_hash::FxHashSet<_> = vports.iter().collect();
        self.remove_if(|e| vports.contains(&e.vport))
    }

    /// Removes every learned entry and returns how many.
    pub fn flush_learned(&mut self) -> usize {
        self.remove_if(|e| !e.is_static)
    }

    /// Removes the learned entries that have aged out and returns how many. Takes time in
    /// proportion to the table; entries are not used past their age even if this is never called.
    pub fn age(&mut self, now: Nanos) -> usize {
        let ageing = self.limits.ageing;
        self.remove_if(|e| !e.is_static && now.saturating_sub(e.seen.load(Relaxed)) >= ageing)
    }

    /// All entries that are current, in no particular order.
    pub fn iter(&self, now: Nanos) -> impl Iterator<Item = FdbEntry> {
        let current = self.table.iter().filter(move |e| self.is_current(e, now));
        current.map(move |e| {
            let (vid, mac) = unpack(e.key);
            let idle = now.saturating_sub(e.seen.load(Relaxed));
            FdbEntry {
                vid,
                mac,
                vport: e.vport,
                is_static: e.is_static,
                idle_ns: if e.is_static { 0 } else { idle },
            }
        })
    }

    fn insert(&mut self, entry: Entry) {
        let hash = self.hash;
        let of = |e: &Entry| hash.one(e.key);
        self.table.insert_unique(of(&entry), entry, of);
    }

    fn remove_if(&mut self, gone: impl Fn(&Entry) -> bool) -> usize {
        let before = self.table.len();
        let mut learned_gone = Vec::new();
        self.table.retain(|e| {
            let gone = gone(e);
            if gone && !e.is_static {
                learned_gone.push(e.vport);
            }
            !gone
        });
        for vport in learned_gone {
            self.forget_learned(vport);
        }
        before - self.table.len()
    }

    fn count_learned(&mut self, vport: VportId) {
        self.learned += 1;
        *self.learned_by.entry(vport).or_default() += 1;
    }

    fn forget_learned(&mut self, vport: VportId) {
        self.learned -= 1;
        if let Some(count) = self.learned_by.get_mut(&vport) {
            *count -= 1;
            if *count == 0 {
                self.learned_by.remove(&vport);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LearnOutcome::*;

    const SECOND: Nanos = 1_000_000_000;
    const A: VportId = VportId(1);
    const B: VportId = VportId(2);

    fn mac(n: u32) -> Mac {
        let [a, b, c, d] = n.to_be_bytes();
        Mac([2, 0, a, b, c, d])
    }

    #[test]
    fn learns_refreshes_moves_and_ages() {
        let mut fdb = Fdb::default();
        assert!(fdb.needs_learning(5, mac(1), A, 0));
        assert_eq!(fdb.learn(5, mac(1), A, 0), New);
        assert!(!fdb.needs_learning(5, mac(1), A, SECOND));
        assert_eq!(fdb.lookup(5, mac(1), SECOND), Some(A));
        assert_eq!(fdb.lookup(6, mac(1), SECOND), None, "another VLAN");
        assert_eq!(fdb.learn(5, mac(1), A, SECOND), Refreshed);
        assert!(fdb.needs_learning(5, mac(1), B, SECOND));
        assert_eq!(fdb.learn(5, mac(1), B, SECOND), Moved);
        assert_eq!((fdb.learned_by(A), fdb.learned_by(B)), (0, 1));
        assert_eq!(fdb.lookup(5, mac(1), 300 * SECOND), Some(B));
        assert_eq!(fdb.lookup(5, mac(1), 301 * SECOND), None, "300 s idle");
        assert_eq!(fdb.iter(301 * SECOND).count(), 0);
        assert_eq!(fdb.age(301 * SECOND), 1);
        assert_eq!((fdb.len(), fdb.learned_by(B)), (0, 0));
    }

    #[test]
    fn traffic_keeps_an_entry_alive_through_shared_references() {
        let mut fdb = Fdb::default();
        fdb.learn(0, mac(1), A, 0);
        let shared = &fdb;
        for t in 0..20 {
            assert!(!shared.needs_learning(0, mac(1), A, t * 100 * SECOND));
        }
        assert_eq!(fdb.age(2000 * SECOND), 0);
        let entry = fdb.iter(1901 * SECOND).next().unwrap();
        assert_eq!((entry.vid, entry.mac, entry.vport), (0, mac(1), A));
        assert!(!entry.is_static);
        assert_eq!(entry.idle_ns, SECOND);
    }

    #[test]
    fn static_entries_neither_move_nor_age_nor_give_way() {
        let mut fdb = Fdb::default();
        assert_eq!(fdb.learn(0, mac(1), B, 0), New);
        assert_eq!(fdb.insert_static(0, mac(1), A), Ok(()));
        assert_eq!(fdb.learned_by(B), 0);
        assert_eq!(fdb.insert_static(0, mac(1), A), Ok(()));
        let conflict = StaticConflict {
            vid: 0,
            mac: mac(1),
            vport: A,
        };
        assert_eq!(fdb.insert_static(0, mac(1), B), Err(conflict));
        assert!(!fdb.needs_learning(0, mac(1), B, 0));
        assert_eq!(fdb.learn(0, mac(1), B, 0), Static);
        assert_eq!(fdb.age(u64::MAX), 0);
        assert_eq!(fdb.lookup(0, mac(1), u64::MAX), Some(A));
        assert_eq!(fdb.flush_vport(A, false), 0);
        assert_eq!(fdb.remove(0, mac(1)), Some(A));
        assert_eq!(fdb.remove(0, mac(1)), None);
    }

    #[test]
    fn one_channel_cannot_fill_the_table_and_the_total_holds() {
        let mut fdb = Fdb::new(FdbLimits {
            total: 30,
            per_channel: 10,
            ageing: 100,
        });
        let learned = (0..1000).filter(|n| fdb.learn(0, mac(*n), A, 0) == New);
        assert_eq!(learned.count(), 10);
        assert_eq!(fdb.learn(0, mac(2000), A, 0), LimitReached);
        assert!(
            !fdb.needs_learning(0, mac(2000), A, 0),
            "no slow path when full"
        );
        assert_eq!(fdb.learn(0, mac(2000), B, 0), New);
        assert_eq!(fdb.learn(0, mac(2000), A, 0), LimitReached, "nor by moving");
        for n in 5000..6000 {
            fdb.learn(0, mac(n), VportId::UPLINK, 0);
        }
        assert_eq!(fdb.learned_by(VportId::UPLINK), 19);
        assert_eq!(fdb.len(), 30);
        assert_eq!(fdb.learn(0, mac(7000), VportId(3), 0), LimitReached);
        // An aged-out entry keeps its place until age(), and may come back.
        assert!(fdb.needs_learning(0, mac(0), A, 200));
        assert_eq!(fdb.learn(0, mac(0), A, 200), New);
        assert_eq!(fdb.age(200), 29);
        assert_eq!(fdb.learn(0, mac(7000), VportId(3), 200), New);
        assert_eq!(fdb.flush_vport(A, false), 1);
        assert_eq!(fdb.flush_learned(), 1);
        assert!(fdb.is_empty());
    }

    #[test]
    fn group_and_zero_addresses_are_nobodys() {
        let mut fdb = Fdb::default();
        for bad in [Mac::BROADCAST, Mac([1, 0, 0, 0, 0, 0]), Mac::default()] {
            assert!(!fdb.needs_learning(0, bad, A, 0));
            assert_eq!(fdb.learn(0, bad, A, 0), NotAStation);
        }
    }
}
