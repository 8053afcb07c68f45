//! The meters of rules: each police action has its own, or shares one by its index.
//!
//! As in tc, an index names the whole action: its rates, its bucket, and what follows
//! (net/sched/act_police.c, `tcf_police_init`). Where tc overlooks parameters that come with an
//! index in use, they have to be the same here.

use super::{Action, Police, Rule, RuleError};
use crate::meter::Meter;
use rustc_hash::FxBuildHasher;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// A police action at work.
#[derive(Debug)]
pub(crate) struct Policer {
    pub(crate) police: Police,
    pub(crate) meter: Meter,
}

impl Policer {
    fn new(police: Police) -> Result<Arc<Self>, RuleError> {
        let meter = Meter::new(police.meter, 0)?;
        Ok(Arc::new(Self { police, meter }))
    }
}

/// The police actions of a switch that have an index, each with how many actions of rules it is.
///
/// A worker may still know a rule that is gone, so whoever removes rules says so here.
#[derive(Debug, Default)]
pub struct Policers(HashMap<u32, (Arc<Policer>, usize), FxBuildHasher>);

impl Policers {
    /// The rule is gone, or was never used: it has its share in no police action any more.
    pub fn release(&mut self, rule: &Rule) {
        rule.policers().for_each(|policer| self.put_back(policer));
    }

    /// One for each of a rule's police actions; made if there is none.
    ///
    /// # Errors
    /// [`RuleError::NoPolice`], [`RuleError::PoliceTaken`], [`RuleError::Meter`].
    pub(super) fn take(&mut self, actions: &[Action]) -> Result<Box<[Arc<Policer>]>, RuleError> {
        let mut taken = Vec::new();
        for police in actions.iter().filter_map(Action::police) {
            match self.get(*police) {
                Ok(policer) => taken.push(policer),
                Err(error) => {
                    taken.iter().for_each(|policer| self.put_back(policer));
                    return Err(error);
                }
            }
        }
        Ok(taken.into())
    }

    fn get(&mut self, police: Police) -> Result<Arc<Policer>, RuleError> {
        let index = police.index;
        if index == 0 {
            return Policer::new(police);
        }
        match self.0.entry(index) {
            Entry::Occupied(mut known) => {
                let (policer, users) = known.get_mut();
                if !police.is_reference() && policer.police != police {
                    return Err(RuleError::PoliceTaken(index));
                }
                *users += 1;
                Ok(policer.clone())
            }
            Entry::Vacant(_) if police.is_reference() => Err(RuleError::NoPolice(index)),
            Entry::Vacant(free) => Ok(free.insert((Policer::new(police)?, 1)).0.clone()),
        }
    }

    fn put_back(&mut self, policer: &Arc<Policer>) {
        if let Entry::Occupied(mut known) = self.0.entry(policer.police.index)
            && Arc::ptr_eq(&known.get().0, policer)
        {
            known.get_mut().1 -= 1;
            if known.get().1 == 0 {
                known.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RuleId;
    use crate::flow::Origin;

    fn rule(policers: &mut Policers, actions: &str) -> Result<Rule, RuleError> {
        let spec = actions.parse().unwrap();
        Rule::of(Origin::Control, RuleId(1), spec, 1, policers)
    }

    #[test]
    fn an_index_names_one_bucket_for_as_long_as_a_rule_has_it() {
        let mut policers = Policers::default();
        let full = "action police index 7 rate 1000bps burst 100";
        let reference = "action police index 7";
        let none = rule(&mut policers, reference).unwrap_err();
        assert_eq!(
            none.to_string(),
            "police index: no rule has 7, so its rates have to be given"
        );
        let first = rule(&mut policers, full).unwrap();
        let second = rule(&mut policers, reference).unwrap();
        let twice = format!("{full} {reference}");
        let third = rule(&mut policers, &twice).unwrap();
        let conforms = |rule: &Rule| rule.policer(0).unwrap().meter.conforms(60, 60, 0);
        assert!(conforms(&first));
        assert!(!conforms(&second) && !conforms(&third), "100 bytes in all");
        for other in [
            "action police index 7 rate 1001bps burst 100",
            "action police index 7 rate 1000bps burst 100 conform-exceed drop/pass",
        ] {
            assert_eq!(
                rule(&mut policers, other).unwrap_err(),
                RuleError::PoliceTaken(7)
            );
        }
        policers.release(&first);
        policers.release(&third);
        // One that cannot be made takes no part in what comes before.
        let half = "action police index 7 action police index 8";
        assert_eq!(
            rule(&mut policers, half).unwrap_err(),
            RuleError::NoPolice(8)
        );
        let fourth = rule(&mut policers, full).unwrap();
        assert!(!conforms(&fourth), "still the same");
        policers.release(&fourth);
        policers.release(&second);
        assert!(rule(&mut policers, reference).is_err());
        let other = rule(&mut policers, "action police index 7 rate 1bps burst 1");
        assert!(other.is_ok(), "free again");
    }

    #[test]
    fn without_an_index_each_has_its_own() {
        let mut policers = Policers::default();
        let own = "action police rate 1000bps burst 100";
        let (a, b) = (rule(&mut policers, own), rule(&mut policers, own));
        for rule in [a.unwrap(), b.unwrap()] {
            assert!(rule.policer(0).unwrap().meter.conforms(60, 60, 0));
            policers.release(&rule);
        }
    }
}
