//! Reading words.

use crate::eswitch::MAX_VPORTS;
use crate::flow::{Match, RuleError};
use crate::{Mac, VportId};
use std::net::IpAddr;
use std::str::SplitAsciiWhitespace;

/// Longest text that is read, in bytes; the longest that makes sense has some 2000.
pub const MAX_RULE_TEXT: usize = 8192;

/// Looks up a port's number by a name that is neither `uplink` nor `vport:N`.
pub type PortNames<'a> = &'a dyn Fn(&str) -> Option<VportId>;

/// Why a text is not a rule: the key, the offending value, what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleTextError {
    /// More than [`MAX_RULE_TEXT`].
    #[error("rule: {0} bytes of text, allowed are {MAX_RULE_TEXT}")]
    TooLong(usize),
    /// A word where a key should be.
    #[error("`{0}`: no such key; the keys are {keys}", keys = super::parse::KEYS)]
    UnknownKey(String),
    /// The same key again.
    #[error("{0}: given twice")]
    Duplicate(&'static str),
    /// The text ends behind a key.
    #[error("{0}: the value is missing")]
    NoValue(&'static str),
    /// A value that the key does not take.
    #[error("{key}: `{value}` is not {allowed}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What may be given.
        allowed: &'static str,
    },
    /// No port has this name.
    #[error("{key}: no port is called `{name}`; also known are `uplink` and `vport:N`")]
    UnknownPort {
        /// The key, or the action.
        key: &'static str,
        /// What was given.
        name: String,
    },
    /// Two keys ask for different things.
    #[error("{key}: `{value}` does not go with {with}")]
    Conflict {
        /// The later key.
        key: &'static str,
        /// Its value.
        value: String,
        /// The other one.
        with: &'static str,
    },
    /// Each part can be read, but not the whole.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

/// What reading a value yields.
pub(super) type Read<T> = Result<T, RuleTextError>;

const PORT: &str = "a port: `uplink`, `vport:N` with N from 1 to 65535, or a name";

/// The words that are left, and what was read so far.
pub(super) struct Reader<'a> {
    pub(super) words: SplitAsciiWhitespace<'a>,
    names: PortNames<'a>,
    /// The keys that were given.
    seen: Vec<&'static str>,
    pub(super) matches: Match,
    /// The address key that decided the EtherType, if one did.
    pub(super) ip_key: Option<&'static str>,
}

/// A value that the key does not take.
pub(super) fn bad<T>(key: &'static str, value: &str, allowed: &'static str) -> Read<T> {
    Err(RuleTextError::BadValue {
        key,
        value: value.to_owned(),
        allowed,
    })
}

/// A value that something given before excludes.
pub(super) fn conflict<T>(key: &'static str, value: &str, with: &'static str) -> Read<T> {
    Err(RuleTextError::Conflict {
        key,
        value: value.to_owned(),
        with,
    })
}

/// Decimal, or hexadecimal behind `0x`. No sign, which `parse` alone would take.
pub(super) fn number<T: TryFrom<u64>>(text: &str) -> Option<T> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None => (text, 10),
    };
    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
    let value = u64::from_str_radix(digits, radix).ok().filter(|_| plain)?;
    T::try_from(value).ok()
}

/// Value and mask, `full` if no mask is given. Bits outside the mask are cleared.
pub(super) fn masked_number(text: &str, full: u64) -> Option<(u64, u64)> {
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (number::<u64>(value)?, number::<u64>(mask)?),
        None => (number(text)?, full),
    };
    (value <= full && mask <= full).then_some((value & mask, mask))
}

/// Bytes in hexadecimal, two digits each.
pub(super) fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let digit = |b: &u8| char::from(*b).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some((digit(high)? * 16 + digit(low)?) as u8),
        _ => None,
    };
    pairs.map(byte).collect()
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, names: PortNames<'a>) -> Self {
        Self {
            words: text.split_ascii_whitespace(),
            names,
            seen: Vec::new(),
            matches: Match::default(),
            ip_key: None,
        }
    }

    /// The key, the first time.
    pub(super) fn once(&mut self, key: &'static str) -> Read<&'static str> {
        if self.has(key) {
            return Err(RuleTextError::Duplicate(key));
        }
        self.seen.push(key);
        Ok(key)
    }

    /// Whether the key was given.
    pub(super) fn has(&self, key: &str) -> bool {
        self.seen.contains(&key)
    }

    /// A key with this beginning that was given.
    pub(super) fn find(&self, prefix: &str) -> Option<&'static str> {
        let mut found = self.seen.iter().filter(|key| key.starts_with(prefix));
        found.next().copied()
    }

    /// The next word.
    pub(super) fn value(&mut self, key: &'static str) -> Read<&'a str> {
        self.words.next().ok_or(RuleTextError::NoValue(key))
    }

    /// The next word, if it is this one.
    pub(super) fn accept(&mut self, word: &str) -> bool {
        let mut ahead = self.words.clone();
        let found = ahead.next() == Some(word);
        if found {
            self.words = ahead;
        }
        found
    }

    pub(super) fn number<T: TryFrom<u64>>(
        &mut self,
        key: &'static str,
        allowed: &'static str,
    ) -> Read<T> {
        let value = self.value(key)?;
        number(value).map_or_else(|| bad(key, value, allowed), Ok)
    }

    /// A number of at most `full`, maybe with a mask.
    pub(super) fn masked<T: TryFrom<u64>>(
        &mut self,
        key: &'static str,
        full: u64,
        allowed: &'static str,
    ) -> Read<(T, T)> {
        let text = self.value(key)?;
        let pair = masked_number(text, full)
            .and_then(|(value, mask)| Some((T::try_from(value).ok()?, T::try_from(mask).ok()?)));
        pair.map_or_else(|| bad(key, text, allowed), Ok)
    }

    pub(super) fn port(&mut self, key: &'static str) -> Read<VportId> {
        let name = self.value(key)?;
        if name == "uplink" {
            return Ok(VportId::UPLINK);
        }
        if let Some(id) = name.strip_prefix("vport:") {
            let id = number(id).filter(|id| (1..MAX_VPORTS).contains(id));
            return id.map_or_else(|| bad(key, name, PORT), |id| Ok(VportId(id)));
        }
        (self.names)(name).ok_or_else(|| RuleTextError::UnknownPort {
            key,
            name: name.to_owned(),
        })
    }

    /// An address, maybe with a mask.
    pub(super) fn mac(&mut self, key: &'static str) -> Read<(Mac, Mac)> {
        let text = self.value(key)?;
        let (value, mask) = match text.split_once('/') {
            Some((value, mask)) => (value.parse().ok(), mask.parse().ok()),
            None => (text.parse().ok(), Some(Mac([0xff; 6]))),
        };
        let (Some(Mac(mut value)), Some(mask)) = (value, mask) else {
            let allowed = "an address as 02:00:00:00:00:01, or address/mask";
            return bad(key, text, allowed);
        };
        value.iter_mut().zip(mask.0).for_each(|(v, m)| *v &= m);
        Ok((Mac(value), mask))
    }

    /// An address, maybe with a length or a mask.
    pub(super) fn ip(&mut self, key: &'static str) -> Read<IpRange<'a>> {
        const ALLOWED: &str = "an IPv4 or IPv6 address, address/length or address/mask";
        let text = self.value(key)?;
        ip_range(text).map_or_else(|| bad(key, text, ALLOWED), Ok)
    }
}

/// An address and the bits of it that count.
#[derive(Clone, Copy)]
pub(super) struct IpRange<'a> {
    pub(super) text: &'a str,
    pub(super) value: [u8; 16],
    pub(super) mask: [u8; 16],
    pub(super) v6: bool,
}

fn ip_range(text: &str) -> Option<IpRange<'_>> {
    let (address, mask) = match text.split_once('/') {
        Some((address, mask)) => (address, Some(mask)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let mask = match mask {
        None => prefix_mask(width),
        Some(mask) => match number::<u32>(mask) {
            Some(len) if len <= width => prefix_mask(len),
            Some(_) => return None,
            None => {
                let mask: IpAddr = mask.parse().ok()?;
                (mask.is_ipv4() == address.is_ipv4()).then(|| spread(mask))?
            }
        },
    };
    let mut value = spread(address);
    value.iter_mut().zip(mask).for_each(|(v, m)| *v &= m);
    Some(IpRange {
        text,
        value,
        mask,
        v6: address.is_ipv6(),
    })
}

/// The first `len` bits set.
fn prefix_mask(len: u32) -> [u8; 16] {
    let clear = 128 - len;
    u128::MAX.checked_shl(clear).unwrap_or(0).to_be_bytes()
}

/// An address as keys have it.
pub(super) fn spread(address: IpAddr) -> [u8; 16] {
    let mut out = [0; 16];
    match address {
        IpAddr::V4(v4) => out[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => out = v6.octets(),
    }
    out
}
