//! A flower rule: match, actions, flags.

use super::FlowerKey;
use super::attributes::flower;
use crate::Result;
use crate::attr::{Attr, Raw, Table, Writer};
use crate::tc::action::{self, Action};

/// TCA_CLS_FLAGS_*: where a rule is, or must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct RuleFlags(pub u32);

impl RuleFlags {
    /// Not in hardware.
    pub const SKIP_HW: u32 = 1 << 0;
    /// Not in software.
    pub const SKIP_SW: u32 = 1 << 1;
    /// Told by the kernel: it is in hardware.
    pub const IN_HW: u32 = 1 << 2;
    /// Told by the kernel: it is not.
    pub const NOT_IN_HW: u32 = 1 << 3;
    /// Say why it could not be put in hardware.
    pub const VERBOSE: u32 = 1 << 4;

    /// Whether all of these are set.
    pub fn has(self, flags: u32) -> bool {
        self.0 & flags == flags
    }
}

/// Traffic classes 0 to 15 are the minor numbers from TC_H_MIN_PRIORITY on (linux/pkt_sched.h)
/// of the clsact qdisc's major number.
const HW_TC_FIRST: u32 = 0xffe0;
const HW_TC_COUNT: u32 = 16;

/// The class that stands for a hardware traffic class; none above 15.
pub fn class_of_hw_tc(hw_tc: u32) -> Option<u32> {
    (hw_tc < HW_TC_COUNT).then_some(0xffff_0000 | (HW_TC_FIRST + hw_tc))
}

/// The hardware traffic class that a class stands for.
pub fn hw_tc_of_class(class: u32) -> Option<u32> {
    (class & 0xffff)
        .checked_sub(HW_TC_FIRST)
        .filter(|hw_tc| *hw_tc < HW_TC_COUNT)
}

/// A flower rule, or with no actions the template of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct FlowerRule {
    /// What it matches.
    pub key: FlowerKey,
    /// What is done, in order.
    #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(with = few))]
    pub actions: Vec<Action>,
    /// The class a packet gets; see [`class_of_hw_tc`].
    pub class: Option<u32>,
    /// Where it is, or must be.
    pub flags: Option<RuleFlags>,
    /// How many devices have it in hardware.
    pub in_hw_count: Option<u32>,
    /// Attributes that are not known here: a match that nobody here can carry out.
    #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(default))]
    pub unknown: Vec<Raw>,
}

impl FlowerRule {
    /// Reads TCA_OPTIONS of a filter of kind `flower`.
    pub fn parse(options: &Attr<'_>) -> Result<Self> {
        Self::read(&options.nest(&flower::ALL)?)
    }

    /// Reads the attributes of such a filter.
    pub fn read(table: &Table<'_>) -> Result<Self> {
        let actions = table
            .attr(flower::ACT)
            .map(|attr| action::parse_list(&attr))
            .transpose()?;
        Ok(FlowerRule {
            key: FlowerKey::read(table)?,
            actions: actions.unwrap_or_default(),
            class: table.get(flower::CLASSID)?,
            flags: table.get(flower::FLAGS)?.map(RuleFlags),
            in_hw_count: table.get(flower::IN_HW_COUNT)?,
            unknown: table.rest(),
        })
    }

    /// Appends the attributes of such a filter.
    pub fn write(&self, out: &mut Writer) {
        out.put_some(flower::CLASSID, &self.class);
        self.key.write(out);
        if !self.actions.is_empty() {
            out.attr(flower::ACT, |out| action::write_list(&self.actions, out));
        }
        out.put_some(flower::FLAGS, &self.flags.map(|flags| flags.0));
        out.put_some(flower::IN_HW_COUNT, &self.in_hw_count);
        out.put_raw(&self.unknown);
    }

    /// The flags, none where none are given.
    pub fn flags(&self) -> RuleFlags {
        self.flags.unwrap_or_default()
    }
}

#[cfg(any(test, feature = "arbitrary"))]
pub(crate) fn few(bytes: &mut arbitrary::Unstructured<'_>) -> arbitrary::Result<Vec<Action>> {
    let count = bytes.int_in_range(0..=action::MAX_ACTIONS)?;
    (0..count).map(|_| bytes.arbitrary()).collect()
}
