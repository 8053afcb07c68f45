//! Which state of a connection follows on which segment.

use super::segment::Kind;
use crate::ct::Direction;

/// A connection's state, under nf_conntrack's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum TcpState {
    /// Nothing seen.
    #[default]
    None,
    /// A SYN.
    SynSent,
    /// A SYN and an answer to it.
    SynRecv,
    /// An ACK of that.
    Established,
    /// A FIN.
    FinWait,
    /// An ACK after a FIN.
    CloseWait,
    /// FINs of both ends.
    LastAck,
    /// An ACK after that.
    TimeWait,
    /// A RST.
    Close,
    /// SYNs of both ends.
    SynSent2,
}

impl TcpState {
    /// How many there are.
    pub const COUNT: usize = 10;

    /// The name that `conntrack -L` prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::SynSent2 => "SYN_SENT2",
        }
    }

    /// Near its end: may be dropped when room is needed.
    pub(in crate::ct) fn is_closing(self) -> bool {
        use TcpState::*;
        matches!(self, FinWait | CloseWait | LastAck | TimeWait | Close)
    }
}

/// What a segment does to a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    To(TcpState),
    /// Let through without believing it: the ends may be in another state than this one, and
    /// their answer will tell.
    Ignore,
    Invalid,
}

/// The state after a segment in some direction.
pub(super) fn step(direction: Direction, kind: Kind, state: TcpState) -> Step {
    use Direction::{Original, Reply};
    use Step::{Ignore, Invalid, To};
    use TcpState::*;
    match (kind, direction) {
        (Kind::Bare, _) => Invalid,
        (Kind::Rst, _) if state == None => Invalid,
        (Kind::Rst, _) => To(Close),
        (Kind::Syn, Original) => match state {
            // RFC 9293 §3.6.1: a SYN may open a connection anew that is over.
            None | SynSent | TimeWait | Close => To(SynSent),
            SynSent2 => To(SynSent2),
            _ => Ignore,
        },
        (Kind::Syn, Reply) => match state {
            // Both ends open it.
            SynSent | SynSent2 => To(SynSent2),
            // Anew, by the other end.
            TimeWait => To(SynSent),
            _ => Invalid,
        },
        (Kind::SynAck, Original) => match state {
            SynSent2 | SynRecv => To(SynRecv),
            _ => Invalid,
        },
        (Kind::SynAck, Reply) => match state {
            None => Invalid,
            SynSent | SynSent2 => To(SynRecv),
            _ => Ignore,
        },
        (Kind::Fin, _) => match state {
            None | SynSent | SynSent2 => Invalid,
            SynRecv | Established => To(FinWait),
            FinWait | CloseWait | LastAck => To(LastAck),
            TimeWait | Close => To(state),
        },
        (Kind::Ack, _) => match (state, direction) {
            // Without a SYN: one that is older than this table.
            (None, Original) => To(Established),
            (None, Reply) | (SynSent | SynSent2, Original) => Invalid,
            (SynSent | SynSent2, Reply) => Ignore,
            (SynRecv, Original) => To(Established),
            (SynRecv | Established | Close, _) => To(state),
            (FinWait | CloseWait, _) => To(CloseWait),
            (LastAck | TimeWait, _) => To(TimeWait),
        },
    }
}
