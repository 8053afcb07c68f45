//! Requests about rates.

use super::{Entry, Nic, Refused, State, spec::*};
use chanio_model::rate::{RateChange, RateError, RateName, Rates, Tree};

impl Nic {
    /// All nodes and the leaves of all channels, by name.
    pub fn rates(&self) -> Vec<RateInfo> {
        let state = self.state.lock();
        let plain = Rates::default();
        let leaves = state.channels.keys().map(|name| {
            let asked = state.rates.get(name);
            RateInfo {
                name: name.clone(),
                is_node: false,
                rates: asked.map_or(&plain, |object| &object.rates).clone(),
            }
        });
        let nodes = state.rates.objects().filter(|(_, object)| !object.is_leaf);
        let nodes = nodes.map(|(name, object)| RateInfo {
            name: name.clone(),
            is_node: true,
            rates: object.rates.clone(),
        });
        let mut list: Vec<_> = leaves.chain(nodes).collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// Make a node.
    pub fn add_rate(&self, name: &RateName, change: &RateChange) -> Result<RateInfo, Refused> {
        let mut state = self.open()?;
        if state.channels.contains_key(name) {
            return Err(RateError::Taken(name.clone()).into());
        }
        state.rates.add_node(name, change)?;
        Ok(self.follow_rate(&state, name))
    }

    /// Change a node, or the leaf of a channel.
    pub fn set_rate(&self, name: &RateName, change: &RateChange) -> Result<RateInfo, Refused> {
        let mut state = self.open()?;
        if state.channels.contains_key(name) {
            state.rates.set_leaf(name, change)?;
        } else {
            state.rates.set(name, change)?;
        }
        Ok(self.follow_rate(&state, name))
    }

    /// Remove a node that nothing is below.
    pub fn del_rate(&self, name: &RateName) -> Result<(), Refused> {
        let mut state = self.open()?;
        if state.channels.contains_key(name) {
            return Err(RateError::Leaf(name.clone()).into());
        }
        state.rates.del_node(name)?;
        self.datapath.scheduler().remove(name);
        Ok(())
    }

    /// Have these rates and no others; returns those of before.
    pub fn replace_rates(
        &self,
        rates: Vec<(RateName, Rates)>,
    ) -> Result<Vec<(RateName, Rates)>, Refused> {
        let mut state = self.open()?;
        let tree = build(&state, rates)?;
        let before = std::mem::replace(&mut state.rates, tree);
        let scheduler = self.datapath.scheduler();
        for (name, _) in before.objects() {
            if state.rates.get(name).is_none() {
                scheduler.remove(name);
                if let Some(entry) = state.channels.get(name) {
                    entry.port.limiter.set(None);
                }
            }
        }
        // Nodes before what is below them.
        let mut names: Vec<_> = state
            .rates
            .objects()
            .map(|(name, _)| name.clone())
            .collect();
        names.sort_by_cached_key(|name| depth(&state.rates, name));
        for name in names {
            self.follow_rate(&state, &name);
        }
        let rates = before.objects();
        Ok(rates
            .map(|(name, o)| (name.clone(), o.rates.clone()))
            .collect())
    }

    /// Tells the workers.
    fn follow_rate(&self, state: &State, name: &RateName) -> RateInfo {
        let object = state.rates.get(name).expect("just put there");
        let now = self.datapath.now();
        let leaf = self.datapath.scheduler().set(name, &object.rates, now);
        if let Some(Entry { port, .. }) = state.channels.get(name) {
            let limited = object.rates.tx_max != 0 || object.rates.parent.is_some();
            port.limiter.set(limited.then_some(leaf));
        }
        RateInfo {
            name: name.clone(),
            is_node: !object.is_leaf,
            rates: object.rates.clone(),
        }
    }
}

/// How many nodes are above.
fn depth(tree: &Tree, name: &RateName) -> usize {
    let above = |name: &RateName| tree.get(name)?.rates.parent.clone();
    std::iter::successors(above(name), above).count()
}

/// A tree of these objects. What is asked of each is checked when all nodes are there.
fn build(state: &State, rates: Vec<(RateName, Rates)>) -> Result<Tree, RateError> {
    let mut tree = Tree::default();
    let is_leaf = |name: &RateName| state.channels.contains_key(name);
    for (name, _) in rates.iter().filter(|(name, _)| !is_leaf(name)) {
        tree.add_node(name, &RateChange::default())?;
    }
    for (name, rates) in rates {
        let change = RateChange::to(&rates);
        if is_leaf(&name) {
            tree.set_leaf(&name, &change)?;
        } else {
            tree.set(&name, &change)?;
        }
    }
    Ok(tree)
}
