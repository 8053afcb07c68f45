//! Filters that are rules of the switch, found without looking at the others.

use chanio_model::RuleId;
use chanio_netlink::attr::Writer;
use chanio_netlink::tc::{Filter, FilterKind};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// Where a filter is: netdev, chain, priority, handle.
pub type Key = (u32, u32, u16, u32);

/// Where filters are among which no two match the same: netdev, chain, priority.
pub type Among = (u32, u32, u16);

/// A filter and the rule that it is.
#[derive(Debug)]
pub struct Installed {
    pub filter: Filter,
    pub rule: RuleId,
    pub since: Instant,
}

/// Those that are rules of the switch.
#[derive(Debug, Default)]
pub struct Filters {
    by_key: BTreeMap<Key, Installed>,
    /// Handles by what they match.
    by_match: HashMap<(Among, Vec<u8>), u32>,
}

impl Filters {
    /// The switch has forgotten all of its rules.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// A netdev has gone, and its filters with it; the rules that they were.
    pub fn forget(&mut self, ifindex: u32) -> Vec<RuleId> {
        let keys = self.on(ifindex);
        self.remove(&keys)
    }

    /// Those of a netdev.
    pub fn on(&self, ifindex: u32) -> Vec<Key> {
        let of_it = (ifindex, 0, 0, 0)..=(ifindex, u32::MAX, u16::MAX, u32::MAX);
        self.by_key.range(of_it).map(|(key, _)| *key).collect()
    }

    /// Those of a netdev's chain.
    pub fn of(&self, ifindex: u32, chain: u32) -> impl Iterator<Item = &Key> {
        let of_it = (ifindex, chain, 0, 0)..=(ifindex, chain, u16::MAX, u32::MAX);
        self.by_key.range(of_it).map(|(key, _)| key)
    }

    /// Those of one priority, the highest handle last.
    pub fn among(
        &self,
        (ifindex, chain, priority): Among,
    ) -> impl DoubleEndedIterator<Item = (&Key, &Installed)> {
        let from = (ifindex, chain, priority, 0);
        self.by_key
            .range(from..=(ifindex, chain, priority, u32::MAX))
    }

    /// One.
    pub fn get(&self, key: &Key) -> Option<&Installed> {
        self.by_key.get(key)
    }

    /// The handle of the one there that matches the same.
    pub fn matching(&self, among: Among, filter: &Filter) -> Option<u32> {
        self.by_match.get(&(among, bytes_of(filter))).copied()
    }

    /// A handle that none there has.
    pub fn free_handle(&self, among: Among) -> u32 {
        let last = self.among(among).next_back();
        let next = last.map_or(Some(1), |(key, _)| key.3.checked_add(1));
        // Only whoever chose the highest handle there is gets here.
        let taken = |handle: u32| self.get(&(among.0, among.1, among.2, handle)).is_some();
        next.or_else(|| (1..).find(|handle| !taken(*handle)))
            .unwrap_or(1)
    }

    /// Puts one there, in the place of the one with its key.
    pub fn insert(&mut self, key: Key, installed: Installed) {
        let among = (key.0, key.1, key.2);
        self.remove(&[key]);
        self.by_match
            .insert((among, bytes_of(&installed.filter)), key.3);
        self.by_key.insert(key, installed);
    }

    /// Takes some out; the rules that they were.
    pub fn remove(&mut self, keys: &[Key]) -> Vec<RuleId> {
        let mut rules = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(installed) = self.by_key.remove(key) else {
                continue;
            };
            let among = (key.0, key.1, key.2);
            self.by_match.remove(&(among, bytes_of(&installed.filter)));
            rules.push(installed.rule);
        }
        rules
    }
}

/// What counts for two filters to match the same, as it travels.
fn bytes_of(filter: &Filter) -> Vec<u8> {
    let mut out = Writer::new();
    if let Some(FilterKind::Flower(rule)) = &filter.kind {
        rule.key.write(&mut out);
    }
    // It came in a message, and fits into one.
    out.finish().unwrap_or_default()
}

/// Whether two filters match the same.
pub fn match_the_same(one: &Filter, other: &Filter) -> bool {
    bytes_of(one) == bytes_of(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chanio_netlink::tc::flower::{EthKey, FlowerKey, FlowerRule};

    fn filter(eth_type: u16) -> Installed {
        let rule = FlowerRule {
            key: FlowerKey {
                eth: EthKey {
                    eth_type: Some(eth_type),
                    ..EthKey::default()
                },
                ..FlowerKey::default()
            },
            ..FlowerRule::default()
        };
        Installed {
            filter: Filter {
                kind: Some(FilterKind::Flower(Box::new(rule))),
                ..Filter::default()
            },
            rule: RuleId(eth_type.into()),
            since: Instant::now(),
        }
    }

    #[test]
    fn a_filter_is_found_by_what_it_matches_while_it_is_there() {
        let mut all = Filters::default();
        let among = (7, 0, 1);
        assert_eq!(all.free_handle(among), 1);
        all.insert((7, 0, 1, 1), filter(0x800));
        all.insert((7, 0, 1, 2), filter(0x806));
        assert_eq!(all.free_handle(among), 3);
        assert_eq!(all.matching(among, &filter(0x806).filter), Some(2));
        assert_eq!(all.matching((7, 0, 2), &filter(0x806).filter), None);
        // Another in its place.
        all.insert((7, 0, 1, 2), filter(0x86dd));
        assert_eq!(all.matching(among, &filter(0x806).filter), None);
        assert_eq!(all.matching(among, &filter(0x86dd).filter), Some(2));
        assert_eq!(all.forget(7), [RuleId(0x800), RuleId(0x86dd)]);
        assert_eq!(all.matching(among, &filter(0x800).filter), None);
        all.insert((7, 0, 1, u32::MAX), filter(0x800));
        assert_eq!(all.free_handle(among), 1);
    }
}
