//! Names and numbers of the NIC, parsed at the edge and right by construction.

use std::fmt;
use std::str::FromStr;

/// Time in nanoseconds since an arbitrary start; the model never reads a clock.
pub type Nanos = u64;

/// The eswitch's side of the uplink (0) or of the channel with subfunction number N (N >= 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VportId(pub u32);

impl VportId {
    /// The wire.
    pub const UPLINK: VportId = VportId(0);

    /// Whether this is the uplink.
    pub fn is_uplink(self) -> bool {
        self == Self::UPLINK
    }

    /// Position in tables indexed by vport.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for VportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_uplink() {
            f.write_str("uplink")
        } else {
            write!(f, "{}", self.0)
        }
    }
}

/// The identity of a flow rule, given when it is added and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u64);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a piece of text is not the value it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// Not six hex bytes separated by colons.
    #[error("mac: `{0}` is not six hex bytes separated by colons, as 02:00:00:00:00:01")]
    Mac(String),
    /// Not 1 to 4094.
    #[error("vlan: `{0}` is not a number from 1 to 4094")]
    Vlan(String),
    /// Not an allowed channel name.
    #[error(
        "name: `{0}` must have 1 to 63 characters out of a-z A-Z 0-9 . _ - and start with a letter or digit"
    )]
    Name(String),
}

/// An Ethernet address, in the order of the wire.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, bytemuck::Pod, bytemuck::Zeroable,
)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Group bit set (IEEE 802.3: the first bit on the wire); true for broadcast as well.
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// 00:00:00:00:00:00
    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }

    /// The address as a number: its first byte on the wire is the highest of the lower 48 bits.
    #[inline]
    pub fn to_bits(self) -> u64 {
        // Two and four bytes, as the addresses of a flow key lie in its words: a load across two
        // words that were just stored would have to wait for both.
        let [a, b, c, d, e, f] = self.0;
        let (high, low) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]));
        u64::from(high) << 32 | u64::from(low)
    }

    /// Usable as a station's own address: neither group nor zero.
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && !self.is_zero()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let err = || ParseIdError::Mac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(err)?;
            let hex = part.len() <= 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16)
                .ok()
                .filter(|_| hex)
                .ok_or_else(err)?;
        }
        if parts.next().is_some() {
            Err(err())
        } else {
            Ok(Mac(bytes))
        }
    }
}

/// A VLAN identifier, 1 to 4094 (IEEE 802.1Q keeps 0 and 4095).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vlan(u16);

impl Vlan {
    /// `None` outside 1 to 4094.
    pub fn new(id: u16) -> Option<Self> {
        (1..=4094).contains(&id).then_some(Self(id))
    }

    /// 1 to 4094.
    pub fn id(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Vlan {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = text.parse().ok().and_then(Vlan::new);
        id.ok_or_else(|| ParseIdError::Vlan(text.to_owned()))
    }
}

/// A channel's name: 1 to 63 characters out of `a-z A-Z 0-9 . _ -`, the first a letter or digit,
/// so that it can be a file name and an ifalias.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelName(Box<str>);

impl ChannelName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ChannelName {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ok = (1..=63).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if ok {
            Ok(Self(text.into()))
        } else {
            Err(ParseIdError::Name(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_text_round_trips_and_refuses_what_is_not_one() {
        let mac: Mac = "02:00:00:00:00:0a".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:00:00:00:0a");
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "02:00:00:00:00:0g",
            "+2:0:0:0:0:0",
        ] {
            assert_eq!(bad.parse::<Mac>(), Err(ParseIdError::Mac(bad.into())));
        }
    }

    #[test]
    fn vlan_is_1_to_4094() {
        assert_eq!("1".parse(), Ok(Vlan(1)));
        assert_eq!("4094".parse(), Ok(Vlan(4094)));
        for bad in ["0", "4095", "65536", "-1", "x", ""] {
            assert!(bad.parse::<Vlan>().is_err(), "{bad}");
        }
    }

    #[test]
    fn channel_names_are_safe_as_file_names() {
        assert!("web-1.blue_x".parse::<ChannelName>().is_ok());
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "-x",
            "a b",
            "é",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<ChannelName>().is_err(), "{bad}");
        }
    }
}
