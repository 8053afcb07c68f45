//! Sets of named switches.

use super::attributes::{bit, bits, bitset};
use crate::Result;
use crate::attr::{Attr, Flag, Raw, Value, Writer, record};

record! {
    /// One switch.
    pub struct Bit of bit {
        /// Its number.
        index: u32 = INDEX;
        /// Its name.
        name: String = NAME;
        /// It is on; in a set without a mask all that are there are.
        value: Flag = VALUE;
    }
}

record! {
    /// The plain part of a set.
    struct Plain of bitset {
        /// All switches are meant, those that are not there being off.
        no_mask: Flag = NOMASK;
        /// How many there are.
        size: u32 = SIZE;
        /// Which are on, a bit each, where they are not told one by one.
        value: Vec<u8> = VALUE;
        /// Which are meant, a bit each.
        mask: Vec<u8> = MASK;
    }
}

/// A set of switches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Bitset {
    /// All switches are meant, those that are not there being off.
    pub no_mask: bool,
    /// How many there are.
    pub size: Option<u32>,
    /// Those that are told one by one.
    #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(with = few))]
    pub bits: Vec<Bit>,
    /// Which are on, a bit each in words, where they are not told one by one.
    pub value: Option<Vec<u8>>,
    /// Which are meant, a bit each in words.
    pub mask: Option<Vec<u8>>,
    /// Attributes that are not known here.
    #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(default))]
    pub unknown: Vec<Raw>,
}

impl Bitset {
    /// These switches on or off, by their names.
    pub fn named(switches: &[(&str, bool)]) -> Self {
        let bit = |(name, on): &(&str, bool)| Bit {
            name: Some((*name).to_owned()),
            value: on.then_some(Flag),
            ..Bit::default()
        };
        Bitset {
            bits: switches.iter().map(bit).collect(),
            ..Self::default()
        }
    }
}

impl Value for Bitset {
    fn parse(attr: &Attr<'_>) -> Result<Self> {
        let table = attr.nest(&bitset::ALL)?;
        let Plain {
            no_mask,
            size,
            value,
            mask,
        } = Plain::read(&table)?;
        let told = match table.attr(bitset::BITS) {
            Some(list) => {
                let list = list.nest(&bits::ALL)?;
                let all = list.all(bits::BIT);
                all.map(|attr| Bit::read(&attr.nest(&bit::ALL)?))
                    .collect::<Result<_>>()?
            }
            None => Vec::new(),
        };
        Ok(Bitset {
            no_mask: no_mask.is_some(),
            size,
            bits: told,
            value,
            mask,
            unknown: table.rest(),
        })
    }
    fn emit(&self, out: &mut Writer) {
        let plain = Plain {
            no_mask: self.no_mask.then_some(Flag),
            size: self.size,
            value: self.value.clone(),
            mask: self.mask.clone(),
        };
        plain.write(out);
        if !self.bits.is_empty() {
            out.nest(bitset::BITS, |out| {
                for one in &self.bits {
                    out.nest(bits::BIT, |out| one.write(out));
                }
            });
        }
        out.put_raw(&self.unknown);
    }
    fn all_ones(&self) -> Self {
        self.clone()
    }
    fn is_nest(&self) -> bool {
        true
    }
}

#[cfg(any(test, feature = "arbitrary"))]
fn few(bytes: &mut arbitrary::Unstructured<'_>) -> arbitrary::Result<Vec<Bit>> {
    let count = bytes.int_in_range(0..=4)?;
    (0..count).map(|_| bytes.arbitrary()).collect()
}
