//! gact: only a verdict (linux/tc_act/tc_gact.h).

use super::kind::Options;
use super::{Control, Generic};
use crate::Result;
use crate::attr::{Attr, AttrSet, Table, Value, Writer, attributes};

attributes! {
    /// TCA_GACT_*
    pub mod gact = "TCA_GACT_" { UNSPEC, TM, PARMS, PROB, PAD }
}

/// A verdict, perhaps not for every packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Gact {
    /// For one in some packets another verdict.
    pub random: Option<Random>,
}

/// struct tc_gact_p.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Random {
    /// PGACT_*: 1 by chance, 2 by count.
    pub kind: u16,
    /// One in so many packets.
    pub value: u16,
    /// Their verdict.
    pub control: Control,
}

impl Value for Random {
    fn parse(attr: &Attr<'_>) -> Result<Self> {
        let [a, b, c, d, e, f, g, h] = *attr.at_least()?;
        Ok(Random {
            kind: u16::from_ne_bytes([a, b]),
            value: u16::from_ne_bytes([c, d]),
            control: i32::from_ne_bytes([e, f, g, h]).into(),
        })
    }
    fn emit(&self, out: &mut Writer) {
        out.bytes(&self.kind.to_ne_bytes());
        out.bytes(&self.value.to_ne_bytes());
        out.bytes(&i32::from(self.control).to_ne_bytes());
    }
    fn all_ones(&self) -> Self {
        Random {
            kind: !0,
            value: !0,
            control: self.control,
        }
    }
}

impl Options for Gact {
    const NAME: &'static str = "gact";
    const SET: &'static AttrSet = &gact::ALL;
    const PARMS: u16 = gact::PARMS;
    const TM: u16 = gact::TM;

    fn read_options(table: &Table<'_>, _: &Attr<'_>, _: &[u8]) -> Result<Self> {
        Ok(Gact {
            random: table.get(gact::PROB)?,
        })
    }

    fn write_options(&self, generic: &Generic, out: &mut Writer) {
        out.attr(gact::PARMS, |out| generic.emit(out));
        out.put_some(gact::PROB, &self.random);
    }
}
