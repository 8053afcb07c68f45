//! What a kind of NIC can do: how many channels and rules, and which rules its driver refuses, in
//! that driver's words. Every entry says where it is written.
//!
//! | file | what lives there |
//! |---|---|
//! | `asks` | what a rule asks for, in the terms drivers check it by |
//! | `claims` | which keys and actions a NIC says that it has |
//! | `mlx5`, `ice`, `i40e` | the NICs of one driver |

mod asks;
mod claims;
mod i40e;
mod ice;
mod mlx5;

use crate::flow::RuleSpec;

/// A number that a NIC does not go beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The most.
    pub most: u64,
    /// Where that is written.
    pub source: &'static str,
}

impl Limit {
    const fn new(most: u64, source: &'static str) -> Self {
        Self { most, source }
    }
}

/// One reason for which a driver refuses a rule.
#[derive(Debug)]
pub struct Check {
    /// What the driver says.
    pub text: &'static str,
    /// Where it says so.
    pub source: &'static str,
    refuses: fn(&RuleSpec) -> bool,
}

/// What a kind of NIC can do.
#[derive(Debug)]
pub struct Profile {
    /// As it is asked for.
    pub name: &'static str,
    /// The NIC and its driver.
    pub about: &'static str,
    /// Channels.
    pub channels: Limit,
    /// Flow rules.
    pub rules: Limit,
    /// Distinct masks of flow rules.
    pub masks: Option<Limit>,
    /// The highest chain.
    pub chain: Limit,
    /// The largest priority number.
    pub priority: Limit,
    /// Why there is no switchdev mode.
    pub no_switchdev: Option<(&'static str, &'static str)>,
    /// The rules it refuses.
    pub checks: &'static [Check],
}

/// Why a NIC of this kind would not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// In the words of its driver.
    #[error("{text} (profile {profile}: {source_text})")]
    Unsupported {
        /// The profile.
        profile: &'static str,
        /// What the driver says.
        text: &'static str,
        /// Where it says so.
        source_text: &'static str,
    },
    /// It is full.
    #[error("{what}: {asked} is beyond the {} that there can be (profile {profile}: {})", .limit.most, .limit.source)]
    Limit {
        /// The profile.
        profile: &'static str,
        /// What of.
        what: &'static str,
        /// The number there would be.
        asked: u64,
        /// The most.
        limit: Limit,
    },
}

const OWN: &str = "chanio's own";

/// A NIC without a vendor: everything that the switch knows.
pub static GENERIC: Profile = Profile {
    name: "generic",
    about: "everything that the switch knows",
    channels: Limit::new(crate::eswitch::MAX_VPORTS as u64 - 1, OWN),
    rules: Limit::new(16 << 20, OWN),
    masks: None,
    chain: Limit::new(
        crate::flow::MAX_CHAIN as u64,
        "uapi linux/pkt_cls.h: TC_ACT_EXT_VAL_MASK",
    ),
    priority: Limit::new(u16::MAX as u64, "tc: TC_H_MAJ of tcm_info"),
    no_switchdev: None,
    checks: &[],
};

/// All profiles.
pub static ALL: [&Profile; 4] = [&GENERIC, &mlx5::CX6DX, &ice::E810, &i40e::X710];

/// The profile of this name.
pub fn by_name(name: &str) -> Option<&'static Profile> {
    ALL.into_iter().find(|profile| profile.name == name)
}

impl Profile {
    fn within(&self, what: &'static str, asked: u64, limit: Limit) -> Result<(), Refusal> {
        if asked <= limit.most {
            return Ok(());
        }
        Err(Refusal::Limit {
            profile: self.name,
            what,
            asked,
            limit,
        })
    }

    /// Whether there can be so many channels.
    ///
    /// # Errors
    /// [`Refusal::Limit`].
    pub fn admit_channels(&self, count: usize) -> Result<(), Refusal> {
        self.within("channels", count as u64, self.channels)
    }

    /// Whether there is a switchdev mode.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`].
    pub fn admit_switchdev(&self) -> Result<(), Refusal> {
        self.no_switchdev
            .map_or(Ok(()), |(text, source)| Err(self.unsupported(text, source)))
    }

    /// Whether there can be such a rule.
    ///
    /// # Errors
    /// The first reason against it.
    pub fn admit_rule(&self, spec: &RuleSpec) -> Result<(), Refusal> {
        self.within("chain", spec.chain.into(), self.chain)?;
        self.within("prio", spec.priority.into(), self.priority)?;
        match self.checks.iter().find(|check| (check.refuses)(spec)) {
            Some(check) => Err(self.unsupported(check.text, check.source)),
            None => Ok(()),
        }
    }

    /// Whether there can be so many rules, with so many distinct masks.
    ///
    /// # Errors
    /// [`Refusal::Limit`].
    pub fn admit_tables(&self, rules: usize, masks: usize) -> Result<(), Refusal> {
        self.within("rules", rules as u64, self.rules)?;
        self.masks
            .map_or(Ok(()), |limit| self.within("masks", masks as u64, limit))
    }

    fn unsupported(&self, text: &'static str, source: &'static str) -> Refusal {
        Refusal::Unsupported {
            profile: self.name,
            text,
            source_text: source,
        }
    }
}

#[cfg(test)]
mod tests;
