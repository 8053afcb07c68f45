//! MPLS label stack entries: the first one by itself, or any by their depth.

use super::attributes::flower;
use crate::Result;
use crate::attr::{AttrSet, Table, Writer, attributes, record};

attributes! {
    /// TCA_FLOWER_KEY_MPLS_OPTS_*
    pub mod opts = "TCA_FLOWER_KEY_MPLS_OPTS_" { UNSPEC, LSE }
}
attributes! {
    /// TCA_FLOWER_KEY_MPLS_OPT_LSE_*
    pub mod lse = "TCA_FLOWER_KEY_MPLS_OPT_LSE_" { UNSPEC, DEPTH, TTL, BOS, TC, LABEL }
}

record! {
    /// The first entry.
    pub struct MplsFirst of flower {
        /// 20 bits.
        label: u32 = KEY_MPLS_LABEL;
        /// The traffic class, 3 bits.
        tc: u8 = KEY_MPLS_TC;
        /// Bottom of stack.
        bos: u8 = KEY_MPLS_BOS;
        /// Time to live.
        ttl: u8 = KEY_MPLS_TTL;
    }
}
record! {
    /// An entry by its depth.
    pub struct MplsLse of lse {
        /// 1 for the first, to 7.
        depth: u8 = DEPTH;
        /// Time to live.
        ttl: u8 = TTL;
        /// Bottom of stack.
        bos: u8 = BOS;
        /// The traffic class, 3 bits.
        tc: u8 = TC;
        /// 20 bits.
        label: u32 = LABEL;
    }
}

/// What is matched of the label stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct MplsKey {
    /// The first entry.
    pub first: MplsFirst,
    /// Entries by depth.
    pub lses: Vec<MplsLse>,
}

impl MplsKey {
    pub(super) fn read(table: &Table<'_>) -> Result<Self> {
        let first = MplsFirst::read(table)?;
        let lses = match table.attr(flower::KEY_MPLS_OPTS) {
            Some(attr) => entries(&attr.nest(&opts::ALL)?)?,
            None => Vec::new(),
        };
        Ok(MplsKey { first, lses })
    }

    pub(super) fn write(&self, out: &mut Writer) {
        self.first.write(out);
        if self.lses.is_empty() {
            return;
        }
        out.nest(flower::KEY_MPLS_OPTS, |out| {
            for entry in &self.lses {
                out.nest(opts::LSE, |out| entry.write(out));
            }
        });
    }
}

fn entries(table: &Table<'_>) -> Result<Vec<MplsLse>> {
    let set: &'static AttrSet = &lse::ALL;
    table
        .all(opts::LSE)
        .map(|attr| MplsLse::read(&attr.nest(set)?))
        .collect()
}
