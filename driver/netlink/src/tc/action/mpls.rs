//! mpls: push, pop or rewrite a label (linux/tc_act/tc_mpls.h).

use super::Generic;
use super::kind::{Options, word};
use crate::attr::{Attr, AttrSet, Be, Table, Writer, attributes, record};
use crate::{Error, Result};

attributes! {
    /// TCA_MPLS_*
    pub mod mpls = "TCA_MPLS_" { UNSPEC, TM, PARMS, PAD, PROTO, LABEL, TC, TTL, BOS }
}

/// TCA_MPLS_ACT_*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub enum MplsWhat {
    /// Take the outer one off.
    #[default]
    Pop = 1,
    /// Put one on, behind the Ethernet header.
    Push = 2,
    /// Rewrite the outer one.
    Modify = 3,
    /// Count its time to live down.
    DecTtl = 4,
    /// Put one on, before the Ethernet header.
    MacPush = 5,
}

record! {
    /// The new label.
    pub struct MplsLabel of mpls {
        /// The packet's new Ethernet type.
        protocol: u16 as Be<u16> = PROTO;
        /// 20 bits.
        label: u32 = LABEL;
        /// The traffic class, 3 bits.
        tc: u8 = TC;
        /// The time to live, not 0.
        ttl: u8 = TTL;
        /// Bottom of stack.
        bos: u8 = BOS;
    }
}

/// What is done to the label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Mpls {
    /// Which of them.
    pub what: MplsWhat,
    /// With which values.
    pub label: MplsLabel,
}

impl Options for Mpls {
    const NAME: &'static str = "mpls";
    const SET: &'static AttrSet = &mpls::ALL;
    const PARMS: u16 = mpls::PARMS;
    const TM: u16 = mpls::TM;

    fn read_options(table: &Table<'_>, parms: &Attr<'_>, tail: &[u8]) -> Result<Self> {
        let what = match word(parms, tail, 0)? {
            1 => MplsWhat::Pop,
            2 => MplsWhat::Push,
            3 => MplsWhat::Modify,
            4 => MplsWhat::DecTtl,
            5 => MplsWhat::MacPush,
            other => {
                return Err(Error::Value {
                    what: "tc_mpls.m_action",
                    got: other.into(),
                    allowed: "1 to 5",
                });
            }
        };
        Ok(Mpls {
            what,
            label: MplsLabel::read(table)?,
        })
    }

    fn write_options(&self, generic: &Generic, out: &mut Writer) {
        out.attr(mpls::PARMS, |out| {
            generic.emit(out);
            out.bytes(&(self.what as u32).to_ne_bytes());
        });
        self.label.write(out);
    }
}
