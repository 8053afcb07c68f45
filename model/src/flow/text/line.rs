//! Writing words.

use crate::{Mac, VportId};
use std::fmt::{self, Display, Formatter, LowerHex};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Looks up a port's name by its number; the uplink is never asked for.
pub type NameOfPort<'a> = &'a dyn Fn(VportId) -> Option<String>;

/// A port as the text form writes it.
pub(super) struct Port<'a>(pub(super) VportId, pub(super) NameOfPort<'a>);

impl Display for Port<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Port(vport, names) = self;
        if vport.is_uplink() {
            return f.write_str("uplink");
        }
        match names(*vport) {
            Some(name) => f.write_str(&name),
            None => write!(f, "vport:{}", vport.0),
        }
    }
}

/// Keys and values with single spaces between.
pub(super) struct Line<'a, 'b> {
    pub(super) f: &'a mut Formatter<'b>,
    pub(super) names: NameOfPort<'a>,
    space: &'static str,
}

impl<'a, 'b> Line<'a, 'b> {
    pub(super) fn new(f: &'a mut Formatter<'b>, names: NameOfPort<'a>) -> Self {
        let space = "";
        Self { f, names, space }
    }

    /// One word.
    pub(super) fn word(&mut self, word: impl Display) -> fmt::Result {
        let space = std::mem::replace(&mut self.space, " ");
        write!(self.f, "{space}{word}")
    }

    /// A key and its value.
    pub(super) fn put(&mut self, key: impl Display, value: impl Display) -> fmt::Result {
        self.word(key)?;
        self.word(value)
    }

    pub(super) fn mac(&mut self, key: &str, value: Mac, mask: Mac) -> fmt::Result {
        match mask {
            Mac([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => self.put(key, value),
            _ if mask.is_zero() => Ok(()),
            _ => self.put(key, format_args!("{value}/{mask}")),
        }
    }

    /// A number, with its mask in hexadecimal if that is not `full`.
    pub(super) fn masked<T>(&mut self, key: impl Display, value: T, mask: T, full: T) -> fmt::Result
    where
        T: Display + LowerHex + PartialEq + Default,
    {
        if mask == T::default() {
            Ok(())
        } else if mask == full {
            self.put(key, value)
        } else {
            self.put(key, format_args!("{value}/0x{mask:x}"))
        }
    }

    pub(super) fn ip(
        &mut self,
        key: &str,
        value: &[u8; 16],
        mask: &[u8; 16],
        v6: bool,
    ) -> fmt::Result {
        if *mask == [0; 16] {
            return Ok(());
        }
        let bits = u128::from_be_bytes(*mask);
        let (ones, width) = (bits.leading_ones(), if v6 { 128 } else { 32 });
        let is_prefix = bits.count_ones() == ones;
        if is_prefix && ones == width {
            self.put(key, Ip(value, v6))
        } else if is_prefix {
            self.put(key, format_args!("{}/{ones}", Ip(value, v6)))
        } else {
            self.put(key, format_args!("{}/{}", Ip(value, v6), Ip(mask, v6)))
        }
    }
}

/// An address in a key, and whether it is IPv6.
pub(super) struct Ip<'a>(pub(super) &'a [u8; 16], pub(super) bool);

impl Display for Ip<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Ip(bytes, v6) = self;
        let [a, b, c, d, ..] = **bytes;
        if *v6 {
            Ipv6Addr::from(**bytes).fmt(f)
        } else {
            Ipv4Addr::new(a, b, c, d).fmt(f)
        }
    }
}

/// Bytes in hexadecimal.
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
