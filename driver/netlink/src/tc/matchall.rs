//! matchall: every packet (linux/pkt_cls.h, TCA_MATCHALL_*).

use super::action::{self, Action};
use super::flower::RuleFlags;
use crate::Result;
use crate::attr::{Attr, Raw, Writer, attributes};

attributes! {
    /// TCA_MATCHALL_*
    pub mod matchall = "TCA_MATCHALL_" { UNSPEC, CLASSID, ACT, FLAGS, PCNT, PAD }
}

/// A rule for every packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct MatchallRule {
    /// What is done, in order.
    #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(with = super::flower::few))]
    pub actions: Vec<Action>,
    /// The class a packet gets.
    pub class: Option<u32>,
    /// Where it is, or must be.
    pub flags: Option<RuleFlags>,
    /// Packets in software.
    pub hits: Option<u64>,
    /// Attributes that are not known here.
    #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(default))]
    pub unknown: Vec<Raw>,
}

impl MatchallRule {
    /// Reads TCA_OPTIONS of a filter of kind `matchall`.
    pub fn parse(options: &Attr<'_>) -> Result<Self> {
        let table = options.nest(&matchall::ALL)?;
        let actions = table
            .attr(matchall::ACT)
            .map(|attr| action::parse_list(&attr))
            .transpose()?;
        Ok(MatchallRule {
            actions: actions.unwrap_or_default(),
            class: table.get(matchall::CLASSID)?,
            flags: table.get(matchall::FLAGS)?.map(RuleFlags),
            hits: table.get(matchall::PCNT)?,
            unknown: table.rest(),
        })
    }

    /// Appends the attributes of such a filter.
    pub fn write(&self, out: &mut Writer) {
        out.put_some(matchall::CLASSID, &self.class);
        if !self.actions.is_empty() {
            out.attr(matchall::ACT, |out| action::write_list(&self.actions, out));
        }
        out.put_some(matchall::FLAGS, &self.flags.map(|flags| flags.0));
        out.put_some(matchall::PCNT, &self.hits);
        out.put_raw(&self.unknown);
    }
}
