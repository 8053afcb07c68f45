//! sample: one packet in so many to user space (linux/tc_act/tc_sample.h).

use super::Generic;
use super::kind::Options;
use crate::Result;
use crate::attr::{Attr, AttrSet, Table, Writer, attributes, record};

attributes! {
    /// TCA_SAMPLE_*
    pub mod sample = "TCA_SAMPLE_" { UNSPEC, TM, PARMS, RATE, TRUNC_SIZE, PSAMPLE_GROUP, PAD }
}

record! {
    /// What is sampled.
    pub struct Sample of sample {
        /// One in so many packets.
        rate: u32 = RATE;
        /// Of each at most so many bytes.
        truncate: u32 = TRUNC_SIZE;
        /// For which listeners.
        group: u32 = PSAMPLE_GROUP;
    }
}

impl Options for Sample {
    const NAME: &'static str = "sample";
    const SET: &'static AttrSet = &sample::ALL;
    const PARMS: u16 = sample::PARMS;
    const TM: u16 = sample::TM;

    fn read_options(table: &Table<'_>, _: &Attr<'_>, _: &[u8]) -> Result<Self> {
        Sample::read(table)
    }

    fn write_options(&self, generic: &Generic, out: &mut Writer) {
        out.attr(sample::PARMS, |out| generic.emit(out));
        Sample::write(self, out);
    }
}
