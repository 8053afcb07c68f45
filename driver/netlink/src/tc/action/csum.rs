//! csum: put checksums right (linux/tc_act/tc_csum.h).

use super::Generic;
use super::kind::{Options, word};
use crate::Result;
use crate::attr::{Attr, AttrSet, Table, Writer, attributes};

attributes! {
    /// TCA_CSUM_*
    pub mod csum = "TCA_CSUM_" { UNSPEC, PARMS, TM, PAD }
}

/// Which checksums are recomputed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Csum {
    /// Of [`Csum::IPV4`] and its sisters.
    pub update: u32,
}

impl Csum {
    /// The IPv4 header's.
    pub const IPV4: u32 = 1;
    /// ICMP's.
    pub const ICMP: u32 = 2;
    /// IGMP's.
    pub const IGMP: u32 = 4;
    /// TCP's.
    pub const TCP: u32 = 8;
    /// UDP's.
    pub const UDP: u32 = 16;
    /// UDP-Lite's.
    pub const UDPLITE: u32 = 32;
    /// SCTP's CRC.
    pub const SCTP: u32 = 64;
}

impl Options for Csum {
    const NAME: &'static str = "csum";
    const SET: &'static AttrSet = &csum::ALL;
    const PARMS: u16 = csum::PARMS;
    const TM: u16 = csum::TM;

    fn read_options(_: &Table<'_>, parms: &Attr<'_>, tail: &[u8]) -> Result<Self> {
        Ok(Csum {
            update: word(parms, tail, 0)?,
        })
    }

    fn write_options(&self, generic: &Generic, out: &mut Writer) {
        out.attr(csum::PARMS, |out| {
            generic.emit(out);
            out.bytes(&self.update.to_ne_bytes());
        });
    }
}
