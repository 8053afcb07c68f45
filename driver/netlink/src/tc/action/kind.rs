//! Which action it is, and the one way through all of them.

use super::{
    Csum, Ct, Gact, Generic, Mirred, Mpls, Pedit, Police, Sample, Skbedit, Times, TunnelKey, Vlan,
};
use crate::Result;
use crate::attr::{Attr, AttrSet, Raw, Table, Value, Writer};

/// How one kind of action fills TCA_ACT_OPTIONS: an attribute with a struct that begins with
/// [`Generic`], one with the times, and its own.
pub(super) trait Options: Sized {
    /// TCA_ACT_KIND.
    const NAME: &'static str;
    /// Its attributes.
    const SET: &'static AttrSet;
    /// The number of the attribute with the struct.
    const PARMS: u16;
    /// The number of the attribute with the times.
    const TM: u16;

    /// The attribute with the struct, which of them it is aside.
    fn parms(table: &Table<'_>) -> Result<Vec<u8>> {
        table.need(Self::PARMS)
    }

    /// Where [`Generic`] is in the struct and what is behind it.
    fn generic<'a>(attr: &'a Attr<'_>) -> Result<(Generic, &'a [u8])> {
        let generic = Generic::parse(attr.at_least()?);
        Ok((generic, &attr.value[Generic::SIZE..]))
    }

    /// Reads the rest of the struct and the other attributes.
    fn read_options(table: &Table<'_>, parms: &Attr<'_>, tail: &[u8]) -> Result<Self>;

    /// Appends all but the times.
    fn write_options(&self, generic: &Generic, out: &mut Writer);
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident,)+) => {
        /// What an action does.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
        pub enum Kind {
            $($(#[$doc])* $kind($kind),)+
            /// One that is not known here; its [`Generic`] stays in the options.
            #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(skip))]
            Other {
                /// Its name.
                name: String,
                /// All of its options.
                options: Vec<u8>,
            },
        }

        $(
            impl From<$kind> for Kind {
                fn from(options: $kind) -> Self {
                    Kind::$kind(options)
                }
            }
        )+

        impl Kind {
            /// TCA_ACT_KIND.
            pub fn name(&self) -> &str {
                match self {
                    $(Kind::$kind(_) => $kind::NAME,)+
                    Kind::Other { name, .. } => name,
                }
            }

            pub(super) fn parse(name: &str, attr: &Attr<'_>) -> Result<Parsed> {
                match name {
                    $($kind::NAME => parse::<$kind>(attr),)+
                    _ => Ok((Generic::default(), None, Kind::other(name, attr.value), Vec::new())),
                }
            }

            /// One that is only referred to.
            pub(super) fn by_name(name: &str) -> Self {
                match name {
                    $($kind::NAME => Kind::$kind($kind::default()),)+
                    _ => Kind::other(name, &[]),
                }
            }

            pub(super) fn write_options(&self, generic: &Generic, times: Option<&Times>, out: &mut Writer) {
                match self {
                    $(Kind::$kind(options) => {
                        options.write_options(generic, out);
                        if let Some(times) = times {
                            out.put($kind::TM, times);
                        }
                    })+
                    Kind::Other { options, .. } => out.bytes(options),
                }
            }
        }
    };
}

kinds! {
    /// Only a verdict: drop, pass, trap, goto chain.
    Gact,
    /// Send it, or a copy, out of a device or into one.
    Mirred,
    /// Push, pop or rewrite a VLAN tag or the Ethernet header.
    Vlan,
    /// Attach tunnel metadata or take it off.
    TunnelKey,
    /// Measure it against a token bucket.
    Police,
    /// Rewrite bytes of a header.
    Pedit,
    /// Put checksums right.
    Csum,
    /// Track its connection, translate its addresses.
    Ct,
    /// Send one in so many to user space.
    Sample,
    /// Set the packet's metadata.
    Skbedit,
    /// Push, pop or rewrite an MPLS label.
    Mpls,
}

impl Default for Kind {
    fn default() -> Self {
        Kind::Gact(Gact::default())
    }
}

impl Kind {
    fn other(name: &str, options: &[u8]) -> Self {
        Kind::Other {
            name: name.to_owned(),
            options: options.to_vec(),
        }
    }
}

type Parsed = (Generic, Option<Times>, Kind, Vec<Raw>);

fn parse<T: Options + Into<Kind>>(attr: &Attr<'_>) -> Result<Parsed> {
    let table = attr.nest(T::SET)?;
    let value = T::parms(&table)?;
    let parms = Attr {
        set: T::SET,
        kind: T::PARMS,
        value: &value,
    };
    let (generic, tail) = T::generic(&parms)?;
    let options = T::read_options(&table, &parms, tail)?;
    let times = table
        .attr(T::TM)
        .map(|attr| Times::parse(&attr))
        .transpose()?;
    Ok((generic, times, options.into(), table.rest()))
}

/// The native-order word at this index of the struct's tail.
pub(super) fn word(parms: &Attr<'_>, tail: &[u8], index: usize) -> Result<u32> {
    let (words, _) = tail.as_chunks::<4>();
    let word = words.get(index).copied();
    word.map(u32::from_ne_bytes)
        .ok_or_else(|| parms.size(parms.value.len() - tail.len() + 4 * (index + 1)))
}
