//! Named leaves and nodes, and what must hold among them. Control's side only: workers see what
//! [`super::Scheduler`] makes of it.

use super::settings::{MAX_PRIORITY, MAX_WEIGHT, RateChange, Rates};
use super::text::RateText;
pub use crate::ChannelName as RateName;
use std::collections::BTreeMap;

/// Nodes above one another, at most.
pub const MAX_DEPTH: usize = 8;

/// Why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Neither a node nor a channel.
    #[error("name: no rate object `{0}`")]
    Unknown(RateName),
    /// A node or a channel has the name.
    #[error("name: `{0}` is taken")]
    Taken(RateName),
    /// A channel's leaf comes and goes with the channel.
    #[error("name: `{0}` is a channel's leaf, not a node")]
    Leaf(RateName),
    /// Not a node.
    #[error("parent: `{0}` is not a node; nodes are made with `rate add`")]
    Parent(RateName),
    /// A node would be its own ancestor.
    #[error("parent: `{parent}` is below `{name}` or is that node itself")]
    Cycle {
        /// The node to be moved.
        name: RateName,
        /// Where to.
        parent: RateName,
    },
    /// Too many levels.
    #[error("parent: {depth} levels of nodes, at most {MAX_DEPTH}")]
    Depth {
        /// As there would be.
        depth: usize,
    },
    /// Something is below it.
    #[error("name: node `{name}` is the parent of `{child}`")]
    Children {
        /// The node to be removed.
        name: RateName,
        /// One of those below.
        child: RateName,
    },
    /// More guaranteed than allowed.
    #[error("tx_share: {} is above the object's tx_max, {}", RateText(*.share), RateText(*.max))]
    ShareAboveMax {
        /// Bytes per second.
        share: u64,
        /// Bytes per second.
        max: u64,
    },
    /// More guaranteed than there is.
    #[error(
        "tx_share: those below node `{node}` would be guaranteed {}, its tx_max is {}",
        RateText(*.shares),
        RateText(*.max)
    )]
    Shares {
        /// Whose rate it is.
        node: RateName,
        /// Bytes per second, together.
        shares: u64,
        /// Bytes per second.
        max: u64,
    },
    /// Out of range.
    #[error("tx_priority: {0} is not 0 to {MAX_PRIORITY}")]
    Priority(u32),
    /// Out of range.
    #[error("tx_weight: {0} is not 1 to {MAX_WEIGHT}")]
    Weight(u32),
}

/// A leaf or a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateObject {
    /// A channel's; otherwise a node.
    pub is_leaf: bool,
    /// As asked for.
    pub rates: Rates,
}

/// All leaves that anything was asked of, and all nodes.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    objects: BTreeMap<RateName, RateObject>,
}

impl Tree {
    /// One of them.
    pub fn get(&self, name: &RateName) -> Option<&RateObject> {
        self.objects.get(name)
    }

    /// All, by name.
    pub fn objects(&self) -> impl Iterator<Item = (&RateName, &RateObject)> {
        self.objects.iter()
    }

    /// Makes a node.
    ///
    /// # Errors
    /// [`RateError::Taken`], and as [`Tree::set`].
    pub fn add_node(&mut self, name: &RateName, change: &RateChange) -> Result<(), RateError> {
        if self.objects.contains_key(name) {
            return Err(RateError::Taken(name.clone()));
        }
        self.put(name, false, change.apply(&Rates::default()))
    }

    /// Changes a node.
    ///
    /// # Errors
    /// See [`RateError`]; nothing has changed.
    pub fn set(&mut self, name: &RateName, change: &RateChange) -> Result<(), RateError> {
        let object = self.objects.get(name);
        let object = object.ok_or_else(|| RateError::Unknown(name.clone()))?;
        self.put(name, object.is_leaf, change.apply(&object.rates))
    }

    /// Changes the leaf of a channel, which the caller knows to exist.
    ///
    /// # Errors
    /// [`RateError::Taken`] if a node has the name, and as [`Tree::set`].
    pub fn set_leaf(&mut self, name: &RateName, change: &RateChange) -> Result<(), RateError> {
        let before = match self.objects.get(name) {
            Some(object) if !object.is_leaf => return Err(RateError::Taken(name.clone())),
            Some(object) => object.rates.clone(),
            None => Rates::default(),
        };
        self.put(name, true, change.apply(&before))
    }

    /// Removes a node.
    ///
    /// # Errors
    /// [`RateError::Unknown`], [`RateError::Leaf`], [`RateError::Children`].
    pub fn del_node(&mut self, name: &RateName) -> Result<(), RateError> {
        match self.objects.get(name) {
            None => return Err(RateError::Unknown(name.clone())),
            Some(object) if object.is_leaf => return Err(RateError::Leaf(name.clone())),
            Some(_) => {}
        }
        if let Some((child, _)) = self.children(name).next() {
            return Err(RateError::Children {
                name: name.clone(),
                child: child.clone(),
            });
        }
        self.objects.remove(name);
        Ok(())
    }

    /// The channel is gone.
    pub fn remove_leaf(&mut self, name: &RateName) {
        if self.objects.get(name).is_some_and(|object| object.is_leaf) {
            self.objects.remove(name);
        }
    }

    fn children(&self, name: &RateName) -> impl Iterator<Item = (&RateName, &RateObject)> {
        let is_child = move |o: &RateObject| o.rates.parent.as_ref() == Some(name);
        self.objects.iter().filter(move |(_, o)| is_child(o))
    }

    fn put(&mut self, name: &RateName, is_leaf: bool, rates: Rates) -> Result<(), RateError> {
        if rates.tx_priority > MAX_PRIORITY {
            return Err(RateError::Priority(rates.tx_priority));
        }
        if !(1..=MAX_WEIGHT).contains(&rates.tx_weight) {
            return Err(RateError::Weight(rates.tx_weight));
        }
        let (share, max) = (rates.tx_share, rates.tx_max);
        if max != 0 && share > max {
            return Err(RateError::ShareAboveMax { share, max });
        }
        if let Some(parent) = &rates.parent {
            self.check_parent(name, is_leaf, parent)?;
            let above = &self.objects[parent].rates;
            self.check_shares(parent, above.tx_max, Some((name, share)))?;
        }
        if !is_leaf {
            self.check_shares(name, max, None)?;
        }
        self.objects
            .insert(name.clone(), RateObject { is_leaf, rates });
        Ok(())
    }

    fn check_parent(
        &self,
        name: &RateName,
        is_leaf: bool,
        parent: &RateName,
    ) -> Result<(), RateError> {
        let mut depth = if is_leaf { 0 } else { self.height(name) };
        let mut at = Some(parent);
        while let Some(node) = at {
            if node == name {
                return Err(RateError::Cycle {
                    name: name.clone(),
                    parent: parent.clone(),
                });
            }
            match self.objects.get(node) {
                Some(object) if !object.is_leaf => at = object.rates.parent.as_ref(),
                _ => return Err(RateError::Parent(node.clone())),
            }
            depth += 1;
            if depth > MAX_DEPTH {
                return Err(RateError::Depth { depth });
            }
        }
        Ok(())
    }

    /// Levels of nodes from this one down, itself included. What is in the tree is never deeper
    /// than [`MAX_DEPTH`].
    fn height(&self, name: &RateName) -> usize {
        let nodes = self.children(name).filter(|(_, o)| !o.is_leaf);
        1 + nodes
            .map(|(child, _)| self.height(child))
            .max()
            .unwrap_or(0)
    }

    /// What is guaranteed below a node, with one child's share as it is to be.
    fn check_shares(
        &self,
        node: &RateName,
        max: u64,
        new: Option<(&RateName, u64)>,
    ) -> Result<(), RateError> {
        let others = self
            .children(node)
            .filter(|(child, _)| new.is_none_or(|(n, _)| n != *child));
        let others = others.map(|(_, object)| object.rates.tx_share);
        let shares = others.chain(new.map(|(_, share)| share));
        let shares = shares.fold(0u64, u64::saturating_add);
        if max != 0 && shares > max {
            let node = node.clone();
            return Err(RateError::Shares { node, shares, max });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RateName {
        text.parse().unwrap()
    }

    fn under(parent: &str) -> RateChange {
        RateChange {
            parent: Some(Some(name(parent))),
            ..RateChange::default()
        }
    }

    fn share(tx_share: u64) -> RateChange {
        RateChange {
            tx_share: Some(tx_share),
            ..RateChange::default()
        }
    }

    fn max(tx_max: u64) -> RateChange {
        RateChange {
            tx_max: Some(tx_max),
            ..RateChange::default()
        }
    }

    #[test]
    fn parents_are_nodes_without_circles_and_not_too_deep() {
        let mut tree = Tree::default();
        tree.set_leaf(&name("web"), &max(5)).unwrap();
        let parent = RateError::Parent(name("web"));
        assert_eq!(tree.add_node(&name("a"), &under("web")), Err(parent));
        assert_eq!(
            tree.set_leaf(&name("web"), &under("none")),
            Err(RateError::Parent(name("none")))
        );
        tree.add_node(&name("a"), &RateChange::default()).unwrap();
        tree.add_node(&name("b"), &under("a")).unwrap();
        for (node, parent) in [("a", "a"), ("a", "b")] {
            let refused = tree.set(&name(node), &under(parent));
            assert!(
                matches!(refused, Err(RateError::Cycle { .. })),
                "{refused:?}"
            );
        }
        let mut last = name("b");
        for n in 3..=MAX_DEPTH {
            let next = name(&format!("n{n}"));
            tree.add_node(&next, &under(last.as_str())).unwrap();
            last = next;
        }
        tree.set_leaf(&name("web"), &under(last.as_str())).unwrap();
        let refused = tree.add_node(&name("deep"), &under(last.as_str()));
        assert_eq!(refused, Err(RateError::Depth { depth: 9 }));
        tree.add_node(&name("top"), &RateChange::default()).unwrap();
        let refused = tree.set(&name("a"), &under("top"));
        assert_eq!(refused, Err(RateError::Depth { depth: 9 }));
        assert_eq!(
            tree.add_node(&name("web"), &max(1)),
            Err(RateError::Taken(name("web")))
        );
        assert_eq!(
            tree.set_leaf(&name("a"), &max(1)),
            Err(RateError::Taken(name("a")))
        );
    }

    #[test]
    fn no_more_is_guaranteed_than_there_is() {
        let mut tree = Tree::default();
        tree.add_node(&name("a"), &max(100)).unwrap();
        for (leaf, guaranteed) in [("w1", 60), ("w2", 40)] {
            tree.set_leaf(&name(leaf), &under("a")).unwrap();
            tree.set_leaf(&name(leaf), &share(guaranteed)).unwrap();
        }
        let refused = tree.set_leaf(&name("w2"), &share(41)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "tx_share: those below node `a` would be guaranteed 808bit, its tx_max is 800bit"
        );
        let refused = tree.set(&name("a"), &max(99));
        assert!(matches!(
            refused,
            Err(RateError::Shares { shares: 100, .. })
        ));
        assert_eq!(tree.get(&name("w2")).unwrap().rates.tx_share, 40);
        let refused = tree.set_leaf(&name("w1"), &max(59));
        assert_eq!(
            refused,
            Err(RateError::ShareAboveMax { share: 60, max: 59 })
        );
        assert!(
            tree.set(&name("a"), &max(0)).is_ok(),
            "no ceiling, nothing to divide"
        );
    }

    #[test]
    fn nodes_go_when_nothing_is_below() {
        let mut tree = Tree::default();
        tree.add_node(&name("a"), &RateChange::default()).unwrap();
        tree.set_leaf(&name("w1"), &under("a")).unwrap();
        let refused = tree.del_node(&name("a"));
        assert!(matches!(refused, Err(RateError::Children { .. })));
        assert_eq!(tree.del_node(&name("w1")), Err(RateError::Leaf(name("w1"))));
        tree.remove_leaf(&name("w1"));
        tree.del_node(&name("a")).unwrap();
        assert_eq!(
            tree.del_node(&name("a")),
            Err(RateError::Unknown(name("a")))
        );
        for wrong in [0, MAX_WEIGHT + 1] {
            let change = RateChange {
                tx_weight: Some(wrong),
                ..RateChange::default()
            };
            assert_eq!(
                tree.set_leaf(&name("w1"), &change),
                Err(RateError::Weight(wrong))
            );
        }
    }
}
