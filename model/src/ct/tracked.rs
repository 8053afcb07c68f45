//! What tracking says of one packet.

use super::entry::Entry;
use super::store::Handle;
use super::{Direction, Tuple};

/// The bits of a state (uapi linux/pkt_cls.h, `TCA_FLOWER_KEY_CT_FLAGS_*`).
pub mod state {
    /// Begins a connection, or belongs to one that was not answered yet.
    pub const NEW: u16 = 0x01;
    /// Belongs to a connection that went both ways.
    pub const EST: u16 = 0x02;
    /// An ICMP error about a connection's packet.
    pub const REL: u16 = 0x04;
    /// Went through `ct`.
    pub const TRK: u16 = 0x08;
    /// Belongs to no connection and cannot begin one.
    pub const INV: u16 = 0x10;
    /// Against the direction in which its connection began.
    pub const RPL: u16 = 0x20;
}

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
        state::TRK
            | match self {
                Self::New => state::NEW,
                Self::Established => state::EST,
                Self::EstablishedReply => state::EST | state::RPL,
                Self::Related => state::REL,
                Self::RelatedReply => state::REL | state::RPL,
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
    state: u16,
    pub(super) zone: u16,
    mark: u32,
    label: [u8; 16],
    pub(super) connection: Connection,
    /// What [`Connection::Own`] is about.
    pub(super) own: Entry,
}

impl Default for Tracked {
    fn default() -> Self {
        Self {
            state: 0,
            zone: 0,
            mark: 0,
            label: [0; 16],
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
        self.state = 0;
        self.zone = 0;
        self.mark = 0;
        self.label = [0; 16];
        self.connection = Connection::None;
    }

    /// Bits of [`state`]; 0 before any `ct` action and behind `ct clear`.
    #[inline]
    pub fn state(&self) -> u16 {
        self.state
    }

    /// The zone it was tracked in.
    #[inline]
    pub fn zone(&self) -> u16 {
        self.zone
    }

    /// Its connection's mark.
    #[inline]
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// Its connection's label, the lowest byte first.
    #[inline]
    pub fn label(&self) -> &[u8; 16] {
        &self.label
    }

    /// It belongs to no connection.
    pub(super) fn invalid(&mut self, zone: u16) {
        self.reset();
        self.zone = zone;
        self.state = state::TRK | state::INV;
    }

    /// It belongs to this connection.
    pub(super) fn belongs(&mut self, zone: u16, info: Info, mark: u32, label: [u8; 16]) {
        self.zone = zone;
        self.state = info.bits();
        self.mark = mark;
        self.label = label;
    }
}
