//! What an attribute can hold.

use super::{Attr, Writer};
use crate::{Error, Result};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Something that fills an attribute.
pub trait Value: Sized {
    /// Reads it.
    fn parse(attr: &Attr<'_>) -> Result<Self>;
    /// Appends its bytes.
    fn emit(&self, out: &mut Writer);
    /// The mask under which all of it counts.
    fn all_ones(&self) -> Self;
    /// Whether the attribute is marked as holding others (NLA_F_NESTED).
    fn is_nest(&self) -> bool {
        false
    }
}

/// A value and which bits of it count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Masked<T> {
    /// The wanted value.
    pub value: T,
    /// One for each bit that counts.
    pub mask: T,
}

impl<T: Value> Masked<T> {
    /// All of the value counts.
    pub fn exact(value: T) -> Self {
        Masked {
            mask: value.all_ones(),
            value,
        }
    }

    /// Both converted.
    pub fn map<U>(self, convert: impl Fn(T) -> U) -> Masked<U> {
        Masked {
            value: convert(self.value),
            mask: convert(self.mask),
        }
    }
}

/// A number that travels in network byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Be<T>(pub T);

/// An attribute that says yes by being there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Flag;

/// Some of 32 switches (linux/netlink.h, struct nla_bitfield32).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Bitfield32 {
    /// On or off.
    pub value: u32,
    /// Which ones are meant.
    pub selector: u32,
}

macro_rules! integers {
    ($($int:ty),+) => {$(
        impl Value for $int {
            fn parse(attr: &Attr<'_>) -> Result<Self> {
                attr.exactly().map(Self::from_ne_bytes)
            }
            fn emit(&self, out: &mut Writer) {
                out.bytes(&self.to_ne_bytes());
            }
            fn all_ones(&self) -> Self {
                !0
            }
        }

        impl Value for Be<$int> {
            fn parse(attr: &Attr<'_>) -> Result<Self> {
                attr.exactly().map(|bytes| Be(<$int>::from_be_bytes(bytes)))
            }
            fn emit(&self, out: &mut Writer) {
                out.bytes(&self.0.to_be_bytes());
            }
            fn all_ones(&self) -> Self {
                Be(!0)
            }
        }

        impl From<Be<$int>> for $int {
            fn from(be: Be<$int>) -> Self {
                be.0
            }
        }

        impl From<$int> for Be<$int> {
            fn from(host: $int) -> Self {
                Be(host)
            }
        }
    )+};
}
integers!(u8, u16, u32, u64, i32, i64);

impl<const N: usize> Value for [u8; N] {
    fn parse(attr: &Attr<'_>) -> Result<Self> {
        attr.exactly()
    }
    fn emit(&self, out: &mut Writer) {
        out.bytes(self);
    }
    fn all_ones(&self) -> Self {
        [0xff; N]
    }
}

impl Value for Ipv4Addr {
    fn parse(attr: &Attr<'_>) -> Result<Self> {
        attr.exactly::<4>().map(Self::from)
    }
    fn emit(&self, out: &mut Writer) {
        out.bytes(&self.octets());
    }
    fn all_ones(&self) -> Self {
        Self::BROADCAST
    }
}

impl Value for Ipv6Addr {
    fn parse(attr: &Attr<'_>) -> Result<Self> {
        attr.exactly::<16>().map(Self::from)
    }
    fn emit(&self, out: &mut Writer) {
        out.bytes(&self.octets());
    }
    fn all_ones(&self) -> Self {
        Self::from_bits(!0)
    }
}

/// Ends at the first NUL; one is written at its end, as the kernel's string attributes have it.
impl Value for String {
    fn parse(attr: &Attr<'_>) -> Result<Self> {
        let end = attr.value.iter().position(|byte| *byte == 0);
        let text = &attr.value[..end.unwrap_or(attr.value.len())];
        String::from_utf8(text.to_vec()).map_err(|_| Error::NotText {
            family: attr.set.prefix,
            attr: attr.set.name(attr.kind),
        })
    }
    fn emit(&self, out: &mut Writer) {
        out.bytes(self.as_bytes());
        out.bytes(&[0]);
    }
    fn all_ones(&self) -> Self {
        self.clone()
    }
}

impl Value for Vec<u8> {
    fn parse(attr: &Attr<'_>) -> Result<Self> {
        Ok(attr.value.to_vec())
    }
    fn emit(&self, out: &mut Writer) {
        out.bytes(self);
    }
    fn all_ones(&self) -> Self {
        vec![0xff; self.len()]
    }
}

impl Value for Flag {
    fn parse(_: &Attr<'_>) -> Result<Self> {
        Ok(Flag)
    }
    fn emit(&self, _: &mut Writer) {}
    fn all_ones(&self) -> Self {
        Flag
    }
}

impl Value for Bitfield32 {
    fn parse(attr: &Attr<'_>) -> Result<Self> {
        let [a, b, c, d, e, f, g, h] = attr.exactly()?;
        Ok(Bitfield32 {
            value: u32::from_ne_bytes([a, b, c, d]),
            selector: u32::from_ne_bytes([e, f, g, h]),
        })
    }
    fn emit(&self, out: &mut Writer) {
        out.bytes(&self.value.to_ne_bytes());
        out.bytes(&self.selector.to_ne_bytes());
    }
    fn all_ones(&self) -> Self {
        Bitfield32 {
            value: !0,
            selector: !0,
        }
    }
}
