//! Hash types, key and indirection table.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

/// Bytes of a key: enough for the longest input.
pub const KEY_LEN: usize = 40;
/// Entries of an indirection table at most.
pub const MAX_TABLE: usize = 512;

/// Why settings are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RssError {
    /// A key of a wrong length.
    #[error("key: {len} bytes, must be 1 to {KEY_LEN}")]
    KeyLength {
        /// Bytes.
        len: usize,
    },
    /// Not hex.
    #[error("key: `{text}` is not up to {KEY_LEN} hex bytes, with or without colons between them")]
    KeyText {
        /// As given, at most 100 characters of it.
        text: String,
    },
    /// An indirection table of a wrong length.
    #[error("table: {len} entries, must be a power of two from 1 to {MAX_TABLE}")]
    TableLength {
        /// Entries.
        len: usize,
    },
    /// A queue that the channel does not have.
    #[error("{field}: queue {queue}, the channel has {queues}, counted from 0")]
    Queue {
        /// Where it was named.
        field: &'static str,
        /// As given.
        queue: u16,
        /// Queue pairs of the channel.
        queues: u16,
    },
    /// Hash types that do not exist here.
    #[error("hash_types: {unknown:#x} are not supported, must be of {:#x}", HashTypes::ALL.bits())]
    HashTypes {
        /// The bits in question.
        unknown: u32,
    },
    /// Not the name of a hash type.
    #[error("hash_types: `{text}` is not one of {}", HashTypes::names())]
    HashTypeName {
        /// As given, at most 100 characters of it.
        text: String,
    },
}

/// What may be hashed: the bits of virtio 1.3 §5.1.6.4.3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashTypes(u32);

impl HashTypes {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// IPv4 addresses.
    pub const IP_V4: Self = Self(1);
    /// IPv4 addresses and TCP ports.
    pub const TCP_V4: Self = Self(1 << 1);
    /// IPv4 addresses and UDP ports.
    pub const UDP_V4: Self = Self(1 << 2);
    /// IPv6 addresses.
    pub const IP_V6: Self = Self(1 << 3);
    /// IPv6 addresses and TCP ports.
    pub const TCP_V6: Self = Self(1 << 4);
    /// IPv6 addresses and UDP ports.
    pub const UDP_V6: Self = Self(1 << 5);
    /// IPv6 home addresses.
    pub const IP_EX: Self = Self(1 << 6);
    /// IPv6 home addresses and TCP ports.
    pub const TCP_EX: Self = Self(1 << 7);
    /// IPv6 home addresses and UDP ports.
    pub const UDP_EX: Self = Self(1 << 8);
    /// All of these.
    pub const ALL: Self = Self(0x1ff);
    /// What a channel starts with: all without home addresses.
    pub const USUAL: Self = Self(0x3f);

    const NAMES: [(Self, &'static str); 9] = [
        (Self::IP_V4, "ip4"),
        (Self::TCP_V4, "tcp4"),
        (Self::UDP_V4, "udp4"),
        (Self::IP_V6, "ip6"),
        (Self::TCP_V6, "tcp6"),
        (Self::UDP_V6, "udp6"),
        (Self::IP_EX, "ip6-ex"),
        (Self::TCP_EX, "tcp6-ex"),
        (Self::UDP_EX, "udp6-ex"),
    ];

    /// As virtio has them.
    ///
    /// # Errors
    /// [`RssError::HashTypes`].
    pub fn from_bits(bits: u32) -> Result<Self, RssError> {
        match bits & !Self::ALL.0 {
            0 => Ok(Self(bits)),
            unknown => Err(RssError::HashTypes { unknown }),
        }
    }

    /// As virtio has them.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `types` are in it.
    #[inline]
    pub fn has(self, types: Self) -> bool {
        self.0 & types.0 == types.0
    }

    fn names() -> String {
        Self::NAMES.map(|(_, name)| name).join(", ")
    }
}

impl BitOr for HashTypes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Names with commas between them, `none` for nothing.
impl fmt::Display for HashTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Self::NAMES.iter().filter(|(bit, _)| self.has(*bit));
        let Some((_, first)) = names.next() else {
            return f.write_str("none");
        };
        f.write_str(first)?;
        names.try_for_each(|(_, name)| write!(f, ",{name}"))
    }
}

impl FromStr for HashTypes {
    type Err = RssError;

    fn from_str(text: &str) -> Result<Self, RssError> {
        let none = text == "none";
        let mut words = text.split(',').filter(|_| !none);
        words.try_fold(Self::NONE, |types, word| {
            let known = Self::NAMES.iter().find(|(_, name)| *name == word);
            known.map(|(bit, _)| types | *bit).ok_or_else(|| {
                let text = word.chars().take(100).collect();
                RssError::HashTypeName { text }
            })
        })
    }
}

/// A key. One that is shorter than [`KEY_LEN`] is filled up with zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RssKey([u8; KEY_LEN]);

impl RssKey {
    /// The key of Microsoft's verification suite.
    pub const MICROSOFT: Self = Self([
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f,
        0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
        0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ]);

    /// 1 to [`KEY_LEN`] bytes.
    ///
    /// # Errors
    /// [`RssError::KeyLength`].
    pub fn new(bytes: &[u8]) -> Result<Self, RssError> {
        let mut key = [0; KEY_LEN];
        match key.get_mut(..bytes.len()) {
            Some(front) if !bytes.is_empty() => front.copy_from_slice(bytes),
            _ => return Err(RssError::KeyLength { len: bytes.len() }),
        }
        Ok(Self(key))
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl Default for RssKey {
    /// Zeros, by which every packet has hash 0.
    fn default() -> Self {
        Self([0; KEY_LEN])
    }
}

/// Hex bytes with colons between them, as ethtool shows a key.
impl fmt::Display for RssKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = &self.0;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

impl fmt::Debug for RssKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RssKey({self})")
    }
}

impl FromStr for RssKey {
    type Err = RssError;

    fn from_str(text: &str) -> Result<Self, RssError> {
        let wrong = || RssError::KeyText {
            text: text.chars().take(100).collect(),
        };
        let hex: Vec<u8> = match text.contains(':') {
            true if text.split(':').all(|byte| byte.len() == 2) => text.replace(':', ""),
            true => return Err(wrong()),
            false => text.to_owned(),
        }
        .into_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|d| d as u8);
        let (pairs, rest) = hex.as_chunks::<2>();
        let bytes: Option<Vec<u8>> = pairs
            .iter()
            .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
            .collect();
        match bytes {
            Some(bytes) if rest.is_empty() => Self::new(&bytes),
            _ => Err(wrong()),
        }
    }
}

/// How a channel spreads what it receives; checked against the number of its queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RssSettings {
    types: HashTypes,
    key: RssKey,
    /// A power of two of queue pairs, counted from 0.
    table: Box<[u16]>,
    unclassified: u16,
}

impl RssSettings {
    /// For a channel with `queues` queue pairs.
    ///
    /// # Errors
    /// [`RssError::TableLength`], [`RssError::Queue`].
    pub fn new(
        types: HashTypes,
        key: RssKey,
        table: Vec<u16>,
        unclassified: u16,
        queues: u16,
    ) -> Result<Self, RssError> {
        let len = table.len();
        if !len.is_power_of_two() || len > MAX_TABLE {
            return Err(RssError::TableLength { len });
        }
        let named = table.iter().map(|queue| ("table", *queue));
        let mut named = named.chain([("unclassified", unclassified)]);
        if let Some((field, queue)) = named.find(|(_, queue)| *queue >= queues) {
            return Err(RssError::Queue {
                field,
                queue,
                queues,
            });
        }
        Ok(Self {
            types,
            key,
            table: table.into(),
            unclassified,
        })
    }

    /// For a hash that nothing is spread by.
    pub fn only_hash(types: HashTypes, key: RssKey) -> Self {
        Self {
            types,
            key,
            table: [0].into(),
            unclassified: 0,
        }
    }

    /// All queues in turn, by a table of 128 entries, or as many as there are queues if that is
    /// more.
    pub fn even(key: RssKey, queues: u16) -> Self {
        let queues = queues.max(1);
        let len = usize::from(queues)
            .next_power_of_two()
            .clamp(128, MAX_TABLE);
        Self {
            types: HashTypes::USUAL,
            key,
            table: (0..len).map(|i| (i % usize::from(queues)) as u16).collect(),
            unclassified: 0,
        }
    }

    /// What is hashed.
    pub fn types(&self) -> HashTypes {
        self.types
    }

    /// By which key.
    pub fn key(&self) -> &RssKey {
        &self.key
    }

    /// Queue pairs by the low bits of the hash.
    pub fn table(&self) -> &[u16] {
        &self.table
    }

    /// The queue pair for packets of which nothing is hashed.
    pub fn unclassified(&self) -> u16 {
        self.unclassified
    }

    /// The table's entry for a hash.
    #[inline]
    pub(super) fn entry(&self, hash: u32) -> u16 {
        // Its length is a power of two.
        self.table[hash as usize & (self.table.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: RssKey = RssKey::MICROSOFT;

    #[test]
    fn tables_are_powers_of_two_of_queues_that_exist() {
        let new = |table: Vec<u16>, unclassified| {
            RssSettings::new(HashTypes::ALL, KEY, table, unclassified, 4)
        };
        assert!(new(vec![3], 3).is_ok());
        assert!(new(vec![0; MAX_TABLE], 0).is_ok());
        for len in [0, 3, 1024] {
            assert_eq!(new(vec![0; len], 0), Err(RssError::TableLength { len }));
        }
        let queue = |field, queue| {
            Err(RssError::Queue {
                field,
                queue,
                queues: 4,
            })
        };
        assert_eq!(new(vec![0, 4], 0), queue("table", 4));
        assert_eq!(new(vec![0, 1], u16::MAX), queue("unclassified", u16::MAX));
    }

    #[test]
    fn an_even_table_names_every_queue() {
        for queues in [1, 2, 3, 127, 200, 256] {
            let settings = RssSettings::even(KEY, queues);
            let table = settings.table().to_vec();
            assert!((0..queues).all(|queue| table.contains(&queue)), "{queues}");
            assert!(RssSettings::new(settings.types(), KEY, table, 0, queues).is_ok());
        }
    }

    #[test]
    fn keys_have_1_to_40_bytes() {
        assert!(RssKey::new(&[]).is_err() && RssKey::new(&[0; 41]).is_err());
        assert_eq!(RssKey::new(&[7]).unwrap().bytes()[..2], [7, 0]);
        assert_eq!("6d5A".parse(), RssKey::new(&[0x6d, 0x5a]));
        assert_eq!("6d:5a".parse(), RssKey::new(&[0x6d, 0x5a]));
        for text in ["", "6", "6d:5", "6d:5a:", "6d5", "xy", "6d 5a", "+6"] {
            assert!(text.parse::<RssKey>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn texts_are_read_as_written(bytes: [u8; KEY_LEN], bits in 0u32..0x200) {
            let key = RssKey::new(&bytes).unwrap();
            prop_assert_eq!(key.to_string().parse(), Ok(key));
            let types = HashTypes::from_bits(bits).unwrap();
            prop_assert_eq!(types.to_string().parse(), Ok(types));
        }
    }

    #[test]
    fn unknown_types_are_refused() {
        let unknown = 0x200;
        let refused = Err(RssError::HashTypes { unknown });
        assert_eq!(HashTypes::from_bits(0x201), refused);
        let error = "tcp4,sctp".parse::<HashTypes>().unwrap_err().to_string();
        assert!(error.contains("`sctp` is not one of ip4, tcp4"), "{error}");
    }
}
