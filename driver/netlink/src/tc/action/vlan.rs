//! vlan: push, pop or rewrite a tag or the Ethernet header (linux/tc_act/tc_vlan.h).

use super::Generic;
use super::kind::{Options, word};
use crate::attr::{Attr, AttrSet, Be, Table, Writer, attributes, record};
use crate::{Error, Result};

attributes! {
    /// TCA_VLAN_*
    pub mod vlan = "TCA_VLAN_" {
        UNSPEC, TM, PARMS, PUSH_VLAN_ID, PUSH_VLAN_PROTOCOL, PAD, PUSH_VLAN_PRIORITY, PUSH_ETH_DST,
        PUSH_ETH_SRC,
    }
}

/// TCA_VLAN_ACT_*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub enum VlanWhat {
    /// Take the outer tag off.
    #[default]
    Pop = 1,
    /// Put one on.
    Push = 2,
    /// Rewrite the outer one.
    Modify = 3,
    /// Take the Ethernet header off.
    PopEth = 4,
    /// Put one on.
    PushEth = 5,
}

record! {
    /// The new tag or header.
    pub struct VlanTag of vlan {
        /// 0 to 4095.
        id: u16 = PUSH_VLAN_ID;
        /// 0x8100 or 0x88a8.
        protocol: u16 as Be<u16> = PUSH_VLAN_PROTOCOL;
        /// 0 to 7.
        priority: u8 = PUSH_VLAN_PRIORITY;
        /// Of a new header.
        eth_dst: [u8; 6] = PUSH_ETH_DST;
        /// Of a new header.
        eth_src: [u8; 6] = PUSH_ETH_SRC;
    }
}

/// What is done to the tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Vlan {
    /// Which of them.
    pub what: VlanWhat,
    /// With which values.
    pub tag: VlanTag,
}

impl Options for Vlan {
    const NAME: &'static str = "vlan";
    const SET: &'static AttrSet = &vlan::ALL;
    const PARMS: u16 = vlan::PARMS;
    const TM: u16 = vlan::TM;

    fn read_options(table: &Table<'_>, parms: &Attr<'_>, tail: &[u8]) -> Result<Self> {
        let what = match word(parms, tail, 0)? {
            1 => VlanWhat::Pop,
            2 => VlanWhat::Push,
            3 => VlanWhat::Modify,
            4 => VlanWhat::PopEth,
            5 => VlanWhat::PushEth,
            other => {
                return Err(Error::Value {
                    what: "tc_vlan.v_action",
                    got: other.into(),
                    allowed: "1 to 5",
                });
            }
        };
        Ok(Vlan {
            what,
            tag: VlanTag::read(table)?,
        })
    }

    fn write_options(&self, generic: &Generic, out: &mut Writer) {
        out.attr(vlan::PARMS, |out| {
            generic.emit(out);
            out.bytes(&(self.what as u32).to_ne_bytes());
        });
        self.tag.write(out);
    }
}
