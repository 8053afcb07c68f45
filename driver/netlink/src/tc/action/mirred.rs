//! mirred: send the packet, or a copy, elsewhere (linux/tc_act/tc_mirred.h).

use super::Generic;
use super::kind::{Options, word};
use crate::attr::{Attr, AttrSet, Table, Writer, attributes};
use crate::{Error, Result};

attributes! {
    /// TCA_MIRRED_*
    pub mod mirred = "TCA_MIRRED_" { UNSPEC, TM, PARMS, PAD, BLOCKID }
}

/// What goes where (TCA_EGRESS_*, TCA_INGRESS_*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub enum MirredWhat {
    /// The packet, out of the device.
    #[default]
    EgressRedirect = 1,
    /// A copy, out of the device.
    EgressMirror = 2,
    /// The packet, as if the device had received it.
    IngressRedirect = 3,
    /// A copy, as if the device had received it.
    IngressMirror = 4,
}

/// Where packets are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Mirred {
    /// What goes.
    pub what: MirredWhat,
    /// To which device; 0 with a block.
    pub ifindex: u32,
    /// To all devices of a shared block but the one it came from.
    pub block: Option<u32>,
}

impl Options for Mirred {
    const NAME: &'static str = "mirred";
    const SET: &'static AttrSet = &mirred::ALL;
    const PARMS: u16 = mirred::PARMS;
    const TM: u16 = mirred::TM;

    fn read_options(table: &Table<'_>, parms: &Attr<'_>, tail: &[u8]) -> Result<Self> {
        let what = match word(parms, tail, 0)? {
            1 => MirredWhat::EgressRedirect,
            2 => MirredWhat::EgressMirror,
            3 => MirredWhat::IngressRedirect,
            4 => MirredWhat::IngressMirror,
            other => {
                return Err(Error::Value {
                    what: "tc_mirred.eaction",
                    got: other.into(),
                    allowed: "1 to 4",
                });
            }
        };
        let ifindex = word(parms, tail, 1)?;
        Ok(Mirred {
            what,
            ifindex,
            block: table.get(mirred::BLOCKID)?,
        })
    }

    fn write_options(&self, generic: &Generic, out: &mut Writer) {
        out.attr(mirred::PARMS, |out| {
            generic.emit(out);
            out.bytes(&(self.what as u32).to_ne_bytes());
            out.bytes(&self.ifindex.to_ne_bytes());
        });
        out.put_some(mirred::BLOCKID, &self.block);
    }
}
