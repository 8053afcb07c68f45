//! What tracking says of one packet.

use super::entry::Entry;
use super::store::Handle;
use super::{Direction, Tuple};
use crate::flow::{CtKey, CtState};

/// How a packet stands to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Info {
    New,
    Established,
    EstablishedReply,
    Related,
    RelatedReply,
}

impl Info {
    pub fn direction(self) -> Direction {
        match self {
            Self::EstablishedReply | Self::RelatedReply => Direction::Reply,
            _ => Direction::Original,
        }
    }

    /// An ICMP error about a connection.
    pub fn related(direction: Direction) -> Self {
        match direction {
            Direction::Original => Self::Related,
            Direction::Reply => Self::RelatedReply,
        }
    }

    fn bits(self) -> u16 {
        CtState::TRK
            | match self {
                Self::New => CtState::NEW,
                Self::Established => CtState::EST,
                Self::EstablishedReply => CtState::EST | CtState::RPL,
                Self::Related => CtState::REL,
                Self::RelatedReply => CtState::REL | CtState::RPL,
            }
    }
}

/// Which connection a packet belongs to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Connection {
    #[default]
    None,
    /// One in the table.
    Shared(Handle, Info),
    /// One that is this packet's alone: not committed, or gone since.
    Own(Info),
}

/// What tracking says of one packet; what rules behind a `ct` action match. The executor keeps one
/// per packet under way, or one per worker that it resets.
#[derive(Clone, Debug)]
pub struct Tracked {
    key: CtKey,
    pub(super) connection: Connection,
    /// What [`Connection::Own`] is about.
    pub(super) own: Entry,
}

impl Default for Tracked {
    fn default() -> Self {
        Self {
            key: CtKey::default(),
            connection: Connection::None,
            own: Entry::new(Tuple::default(), Tuple::default()),
        }
    }
}

impl Tracked {
    /// A packet that met no `ct` action yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes it that of another packet.
    #[inline]
    pub fn reset(&mut self) {
        self.key = CtKey::default();
        self.connection = Connection::None;
    }

    /// What rules match; all zero before any `ct` action and behind `ct clear`.
    #[inline]
    pub fn key(&self) -> &CtKey {
        &self.key
    }

    /// It belongs to no connection.
    pub(super) fn invalid(&mut self, zone: u16) {
        self.reset();
        self.key.zone = zone;
        self.key.state = CtState::TRK | CtState::INV;
    }

    /// It belongs to this connection.
    pub(super) fn belongs(&mut self, zone: u16, info: Info, mark: u32, label: [u8; 16]) {
        self.key = CtKey {
            label,
            mark,
            state: info.bits(),
            zone,
        };
    }
}
