//! skbedit: the packet's metadata (linux/tc_act/tc_skbedit.h).

use super::Generic;
use super::kind::Options;
use crate::Result;
use crate::attr::{Attr, AttrSet, Table, Writer, attributes, record};

attributes! {
    /// TCA_SKBEDIT_*
    pub mod skbedit = "TCA_SKBEDIT_" {
        UNSPEC, TM, PARMS, PRIORITY, QUEUE_MAPPING, MARK, PAD, PTYPE, MASK, FLAGS,
        QUEUE_MAPPING_MAX,
    }
}

record! {
    /// What is set.
    pub struct Skbedit of skbedit {
        /// The packet's priority.
        priority: u32 = PRIORITY;
        /// Its queue.
        queue_mapping: u16 = QUEUE_MAPPING;
        /// Its mark.
        mark: u32 = MARK;
        /// Whose it is: PACKET_HOST and its sisters.
        packet_type: u16 = PTYPE;
        /// Which bits of the mark.
        mask: u32 = MASK;
        /// SKBEDIT_F_*.
        flags: u64 = FLAGS;
        /// The last of several queues.
        queue_mapping_max: u16 = QUEUE_MAPPING_MAX;
    }
}

impl Options for Skbedit {
    const NAME: &'static str = "skbedit";
    const SET: &'static AttrSet = &skbedit::ALL;
    const PARMS: u16 = skbedit::PARMS;
    const TM: u16 = skbedit::TM;

    fn read_options(table: &Table<'_>, _: &Attr<'_>, _: &[u8]) -> Result<Self> {
        Skbedit::read(table)
    }

    fn write_options(&self, generic: &Generic, out: &mut Writer) {
        out.attr(skbedit::PARMS, |out| generic.emit(out));
        Skbedit::write(self, out);
    }
}
