//! Filters, and chains with their templates: RTM_*TFILTER and RTM_*CHAIN.

use super::flower::FlowerRule;
use super::header::{At, Header, tca};
use super::matchall::MatchallRule;
use crate::Result;
use crate::attr::{Bitfield32, Raw, Table, Writer, record};
use crate::message::Message;

/// Of [`FilterMore::dump_flags`]: a listing with names and counters only
/// (TCA_DUMP_FLAGS_TERSE).
pub const TERSE: u32 = 1 << 0;

/// What kind of filter it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub enum FilterKind {
    /// Match on fields.
    Flower(Box<FlowerRule>),
    /// Match everything.
    Matchall(Box<MatchallRule>),
    /// Only the name: in requests to delete or list.
    Named(String),
    /// One that is not known here.
    #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(skip))]
    Other {
        /// Its name.
        name: String,
        /// All of its options.
        options: Vec<u8>,
    },
}

impl FilterKind {
    /// TCA_KIND.
    pub fn name(&self) -> &str {
        match self {
            FilterKind::Flower(_) => "flower",
            FilterKind::Matchall(_) => "matchall",
            FilterKind::Named(name) | FilterKind::Other { name, .. } => name,
        }
    }

    fn read(table: &Table<'_>) -> Result<Option<Self>> {
        let Some(name) = table.get::<String>(tca::KIND)? else {
            return Ok(None);
        };
        let Some(options) = table.attr(tca::OPTIONS) else {
            return Ok(Some(FilterKind::Named(name)));
        };
        Ok(Some(match name.as_str() {
            "flower" => FilterKind::Flower(Box::new(FlowerRule::parse(&options)?)),
            "matchall" => FilterKind::Matchall(Box::new(MatchallRule::parse(&options)?)),
            _ => FilterKind::Other {
                name,
                options: options.value.to_vec(),
            },
        }))
    }

    fn write(&self, out: &mut Writer) {
        out.put(tca::KIND, &self.name().to_owned());
        match self {
            FilterKind::Flower(rule) => out.attr(tca::OPTIONS, |out| rule.write(out)),
            FilterKind::Matchall(rule) => out.attr(tca::OPTIONS, |out| rule.write(out)),
            FilterKind::Named(_) => {}
            FilterKind::Other { options, .. } => out.attr(tca::OPTIONS, |out| out.bytes(options)),
        }
    }
}

record! {
    /// What else is said of a filter.
    pub struct FilterMore of tca {
        /// Its chain; 0 where none is given.
        chain: u32 = CHAIN;
        /// How much a listing tells.
        dump_flags: Bitfield32 = DUMP_FLAGS;
        /// Why it is not in hardware, told in notifications of rules that ask for it.
        warning: String = EXT_WARN_MSG;
    }
}

/// A filter, or a request about some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Filter {
    /// Where it hangs.
    pub at: At,
    /// Its number among those of its priority; 0 lets the kernel choose.
    pub handle: u32,
    /// The lowest goes first; 0 lets the kernel choose.
    pub priority: u16,
    /// The Ethernet type it looks at; 3 (ETH_P_ALL) for all.
    pub protocol: u16,
    /// What it matches and does.
    pub kind: Option<FilterKind>,
    /// Its chain and more.
    pub more: FilterMore,
    /// Attributes that are not known here.
    #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(default))]
    pub unknown: Vec<Raw>,
}

impl Filter {
    /// Reads the payload of such a message.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let (header, attributes) = Header::parse(payload)?;
        let table = Table::new(&tca::ALL, attributes)?;
        let [high, low, big0, big1] = header.info.to_be_bytes();
        Ok(Filter {
            at: header.into(),
            handle: header.handle,
            priority: u16::from_be_bytes([high, low]),
            // The lower half holds the two bytes as they stand in the packet.
            protocol: u16::from_be(u16::from_be_bytes([big0, big1])),
            kind: FilterKind::read(&table)?,
            more: FilterMore::read(&table)?,
            unknown: table.rest(),
        })
    }

    /// The chain it is in.
    pub fn chain(&self) -> u32 {
        self.more.chain.unwrap_or_default()
    }

    /// A message about it: `kind` is one of RTM_*TFILTER and RTM_*CHAIN.
    pub fn message(&self, kind: u16, flags: u16) -> Result<Message> {
        let info = u32::from(self.priority) << 16 | u32::from(self.protocol.to_be());
        let header = Header {
            handle: self.handle,
            info,
            ..self.at.header()
        };
        Message::new(kind, flags, |out| {
            header.emit(out);
            if let Some(kind) = &self.kind {
                kind.write(out);
            }
            self.more.write(out);
            out.put_raw(&self.unknown);
        })
    }
}
