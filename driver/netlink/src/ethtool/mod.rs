//! ethtool's requests about channels, rings, coalescing and features (linux/ethtool_netlink.h,
//! generic family `ethtool`).

mod attributes;
mod bit_set;
mod body;

pub use attributes::{bit, bits, bitset, channels, coalesce, command, features, header, rings};
pub use bit_set::{Bit, Bitset};
pub use body::{Channels, Coalesce, Features, Nothing, Rings};

use crate::Result;
use crate::attr::{AttrSet, Raw, Table, Writer, record};
use crate::genl;
use crate::message::Message;

/// The family's name.
pub const FAMILY: &str = "ethtool";
/// The family's version.
pub const VERSION: u8 = 1;
/// The group that is told of every change.
pub const MONITOR_GROUP: &str = "monitor";
/// Of [`Header::flags`]: bitsets without names (ETHTOOL_FLAG_COMPACT_BITSETS).
pub const COMPACT_BITSETS: u32 = 1 << 0;
/// Of [`Header::flags`]: no answer to a change (ETHTOOL_FLAG_OMIT_REPLY).
pub const OMIT_REPLY: u32 = 1 << 1;

/// Every message's header, whatever it is about (ETHTOOL_A_*_HEADER).
const HEADER: u16 = 1;

record! {
    /// Which netdev, and how to answer.
    pub struct Header of header {
        /// Its index.
        index: u32 = DEV_INDEX;
        /// Its name.
        name: String = DEV_NAME;
        /// ETHTOOL_FLAG_*.
        flags: u32 = FLAGS;
    }
}

impl Header {
    /// The netdev of this name.
    pub fn named(name: &str) -> Self {
        Header {
            name: Some(name.to_owned()),
            ..Self::default()
        }
    }
}

/// What a message is about.
pub trait Body: Default {
    /// Its attributes.
    fn set() -> &'static AttrSet;
    /// Reads it.
    fn read(table: &Table<'_>) -> Result<Self>;
    /// Appends its attributes.
    fn write(&self, out: &mut Writer);
}

/// A message of the family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Ethtool<B> {
    /// Of [`command`].
    pub command: u8,
    /// Which netdev.
    pub header: Header,
    /// What of it.
    pub body: B,
    /// Attributes that are not known here.
    #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(default))]
    pub unknown: Vec<Raw>,
}

impl<B: Body> Ethtool<B> {
    /// A request with this command about the netdev of this name.
    pub fn new(command: u8, name: &str) -> Self {
        Ethtool {
            command,
            header: Header::named(name),
            ..Self::default()
        }
    }

    /// Reads the payload of a message of the family.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let (genl, attributes) = genl::Header::parse(payload)?;
        let table = Table::new(B::set(), attributes)?;
        let header = match table.attr(HEADER) {
            Some(attr) => Header::read(&attr.nest(&header::ALL)?)?,
            None => Header::default(),
        };
        Ok(Ethtool {
            command: genl.command,
            header,
            body: B::read(&table)?,
            unknown: table.rest(),
        })
    }

    /// A message of the family, whose number the controller tells.
    pub fn message(&self, family: u16, flags: u16) -> Result<Message> {
        Message::new(family, flags, |out| {
            let genl = genl::Header {
                command: self.command,
                version: VERSION,
            };
            genl.emit(out);
            out.nest(HEADER, |out| self.header.write(out));
            self.body.write(out);
            out.put_raw(&self.unknown);
        })
    }
}
