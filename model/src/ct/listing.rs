//! Looking at the connections and forgetting them by hand.

use super::entry::{CtCounters, Entry, Protocol, status};
use super::{Conntrack, Tuple};
use crate::Nanos;

/// A connection, as `chanio ct show` lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtEntry {
    /// No other connection ever had it.
    pub id: u64,
    /// What packets look like that go as the first one, before translation; with the zone.
    pub original: Tuple,
    /// What the answers look like, before translation.
    pub reply: Tuple,
    /// The state of TCP and SCTP, by nf_conntrack's names.
    pub state: Option<&'static str>,
    /// The other end has answered.
    pub seen_reply: bool,
    /// Not to be dropped for others.
    pub assured: bool,
    /// In the flow table: packets that end nothing pass without being looked at.
    pub offloaded: bool,
    /// How long it may be silent from now on, in nanoseconds. In the flow table: until it leaves
    /// that.
    pub expires_in: Nanos,
    /// Its mark.
    pub mark: u32,
    /// Its label, the lowest byte first.
    pub label: [u8; 16],
    /// Of each direction: original, reply.
    pub counters: [CtCounters; 2],
}

impl CtEntry {
    fn new(entry: &Entry, now: Nanos) -> Self {
        let offloaded = entry.has(status::FLOW_TABLE);
        let until = if offloaded {
            entry.flow_until
        } else {
            entry.expires
        };
        Self {
            id: entry.id,
            original: entry.tuples[0],
            reply: entry.tuples[1],
            state: match &entry.protocol {
                Protocol::Tcp(tcp) => Some(tcp.state.name()),
                Protocol::Sctp(sctp) => Some(sctp.state.name()),
                Protocol::Udp { .. } | Protocol::Other => None,
            },
            seen_reply: entry.has(status::SEEN_REPLY),
            assured: entry.has(status::ASSURED),
            offloaded,
            expires_in: until.saturating_sub(now),
            mark: entry.mark,
            label: entry.label,
            counters: entry.counters,
        }
    }
}

impl Conntrack {
    /// How many connections there are, those included that are over and were not forgotten yet.
    pub fn len(&self) -> u32 {
        self.store.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shows each connection that is not over. Workers go on meanwhile: one that comes or goes
    /// may be shown or not. `show` must not use the table: the connection is locked.
    pub fn visit(&self, now: Nanos, mut show: impl FnMut(CtEntry)) {
        self.store.for_each(|entry| {
            if !entry.is_over(now, &self.config) {
                show(CtEntry::new(entry, now));
            }
        });
    }

    /// Forgets the connections of a zone, or all; how many those were.
    pub fn flush(&self, zone: Option<u16>) -> u32 {
        let of_zone = |entry: &mut Entry| zone.is_none_or(|zone| entry.tuples[0].zone == zone);
        self.store.sweep(u32::MAX, of_zone)
    }
}
