//! One segment of a connection.

use super::segment::{Kind, Segment, before};
use super::state::{Step, TcpState, step};
use super::window::{End, Fit, knows};
use crate::Nanos;
use crate::ct::Direction;
use crate::ct::config::{TcpConfig, TcpTimeouts};
use crate::ct::verdict::Verdict;

/// What is known of a TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::ct) struct Tcp {
    pub state: TcpState,
    pub(super) ends: [End; 2],
    pub(super) last: Last,
}

/// The segment before this one, as far as later ones are held against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Last {
    direction: Direction,
    kind: Kind,
    seq: u32,
    ack: u32,
    end: u32,
    window: u16,
    /// How often the same ACK came again.
    repeated: u8,
    /// Window scale of a SYN that was let through unbelieved.
    scale: u8,
    /// What that SYN offered (bits of [`knows`]), and the two below.
    flags: u8,
}

/// In [`Last::flags`]: a SYN went to an end that waits for its last ACK, and may be answered by
/// an ACK that is not that one (RFC 5961 §4).
const CHALLENGE: u8 = 0x40;
/// In [`Last::flags`]: both ends sent a SYN first.
const SIMULTANEOUS: u8 = 0x80;

/// What the connection's entry says, and the settings.
pub(in crate::ct) struct Context<'a> {
    pub config: &'a TcpConfig,
    /// Not committed yet: this is its first segment.
    pub fresh: bool,
    pub seen_reply: bool,
    pub assured: bool,
    /// How long until the entry expires.
    pub remaining: Nanos,
}

impl Last {
    pub(super) fn count_repetition(
        &mut self,
        direction: Direction,
        (seq, end, ack): (u32, u32, u32),
        window: u16,
    ) {
        let now = (direction, seq, end, ack, window);
        if now == (self.direction, self.seq, self.end, self.ack, self.window) {
            self.repeated = self.repeated.wrapping_add(1);
        } else {
            (self.direction, self.seq, self.end, self.ack, self.window) = now;
            self.repeated = 0;
        }
    }

    fn is(&self, kind: Kind, direction: Direction) -> bool {
        self.kind == kind && self.direction == direction
    }
}

impl Tcp {
    /// The connection that a segment begins.
    fn begun_by(segment: &Segment, config: &TcpConfig) -> Option<Self> {
        let first = step(Direction::Original, segment.kind(), TcpState::None);
        let window = u32::from(segment.window).max(1);
        let mut tcp = Self::default();
        let sender = &mut tcp.ends[0];
        sender.end = segment.end;
        sender.max_end = segment.end;
        sender.max_window = window;
        match first {
            Step::To(TcpState::SynSent) => sender.take_options(segment),
            Step::To(_) if config.loose => {
                // Older than this table: its scaling is not known.
                sender.max_end = segment.end.wrapping_add(window);
                tcp.ends[0].flags = knows::SACK | knows::LIBERAL;
                tcp.ends[1].flags = knows::SACK | knows::LIBERAL;
            }
            _ => return None,
        }
        Some(tcp)
    }

    /// From now on, windows are not enforced.
    pub fn be_liberal(&mut self) {
        for end in &mut self.ends {
            end.flags |= knows::LIBERAL;
        }
    }

    /// Segments went by unseen.
    pub fn lose_track(&mut self) {
        for end in &mut self.ends {
            end.max_window = 0;
        }
    }

    /// Takes one segment.
    pub fn receive(
        &mut self,
        segment: &Segment,
        direction: Direction,
        context: &Context<'_>,
    ) -> Verdict {
        if !segment.valid {
            return Verdict::INVALID;
        }
        if context.fresh {
            let Some(tcp) = Self::begun_by(segment, context.config) else {
                return Verdict::INVALID;
            };
            *self = tcp;
        }
        let kind = segment.kind();
        let mut old = self.state;
        let mut new = match step(direction, kind, old) {
            Step::Invalid => return Verdict::INVALID,
            Step::Ignore => match self.unbelieved(segment, kind, direction) {
                Some(verdict) => return verdict,
                None => {
                    old = TcpState::SynSent;
                    TcpState::SynRecv
                }
            },
            Step::To(TcpState::SynSent) if old >= TcpState::TimeWait => {
                let closed = self.ends.iter().any(|end| end.has(knows::CLOSED_FIRST));
                if closed || self.last.is(Kind::Rst, direction) {
                    return Verdict::Reopen;
                }
                match self.unbelieved(segment, kind, direction) {
                    Some(verdict) => return verdict,
                    None => {
                        old = TcpState::SynSent;
                        TcpState::SynRecv
                    }
                }
            }
            Step::To(state) => state,
        };
        let mut checked = true;
        match new {
            TcpState::TimeWait
                if old == TcpState::LastAck
                    && kind == Kind::Ack
                    && self.last.is(Kind::Syn, direction.opposite())
                    && self.last.flags & CHALLENGE != 0 =>
            {
                // Answers the SYN, not the FIN.
                self.last.flags &= !CHALLENGE;
                return Verdict::AS_IT_WAS;
            }
            TcpState::SynSent2 => self.last.flags |= SIMULTANEOUS,
            TcpState::SynRecv
                if direction == Direction::Reply
                    && kind == Kind::Ack
                    && self.last.flags & SIMULTANEOUS != 0 =>
            {
                new = TcpState::Established;
            }
            TcpState::Close if kind == Kind::Rst => {
                match self.reset(segment, direction, context, old) {
                    Reset::Invalid => return Verdict::INVALID,
                    Reset::Close => {}
                    Reset::CloseUnchecked => checked = false,
                    Reset::Stay => new = old,
                    Reset::StayUnchecked => {
                        new = old;
                        checked = false;
                    }
                }
            }
            _ => {}
        }
        if checked {
            match self.in_window(segment, kind, direction, context.config.liberal) {
                Fit::Fits => {}
                Fit::Ignore => return Verdict::AS_IT_WAS,
                Fit::Invalid => return self.out_of_window(kind, direction, context),
            }
        }
        self.last.kind = kind;
        self.last.direction = direction;
        self.state = new;
        if old != new && new == TcpState::FinWait {
            self.ends[direction.index()].flags |= knows::CLOSED_FIRST;
        }
        self.aftermath(kind, old, new, context)
    }

    /// A segment that is not believed, but may turn out to be right. `None`: it has just done so,
    /// a SYN/ACK answers a SYN that was not believed, and the connection is as if the SYN had
    /// been.
    fn unbelieved(
        &mut self,
        segment: &Segment,
        kind: Kind,
        direction: Direction,
    ) -> Option<Verdict> {
        let last = &mut self.last;
        if kind == Kind::SynAck
            && last.is(Kind::Syn, direction.opposite())
            && segment.ack == last.end
        {
            last.flags &= !CHALLENGE;
            self.ends[last.direction.index()] = End {
                end: last.end,
                max_end: last.end,
                max_window: u32::from(last.window).max(1),
                scale: last.scale,
                flags: last.flags,
                ..self.ends[last.direction.index()]
            };
            self.ends[direction.index()].reset();
            return None;
        }
        last.kind = kind;
        last.direction = direction;
        last.seq = segment.seq;
        last.end = segment.end;
        last.window = segment.window;
        if kind == Kind::Syn && direction == Direction::Original {
            let mut offered = End::default();
            offered.take_options(segment);
            last.flags = offered.flags;
            last.scale = if offered.has(knows::SCALE) {
                offered.scale
            } else {
                0
            };
            if self.state == TcpState::LastAck {
                last.flags |= CHALLENGE;
            }
        }
        if self.state == TcpState::SynSent && kind == Kind::Ack && direction == Direction::Reply {
            last.ack = segment.ack;
        }
        Some(Verdict::AS_IT_WAS)
    }

    /// What a RST means that would close the connection.
    fn reset(
        &self,
        segment: &Segment,
        direction: Direction,
        context: &Context<'_>,
        old: TcpState,
    ) -> Reset {
        // The numbers may be an earlier connection's; it ends soon anyway.
        if self.state.is_closing() {
            return Reset::CloseUnchecked;
        }
        let established = self.state == TcpState::Established && context.assured;
        let last = &self.last;
        let peer = &self.ends[direction.opposite().index()];
        let (mut close, mut stay) = (Reset::Close, Reset::CloseUnchecked);
        if peer.has(knows::ACK) && last.kind != Kind::Syn {
            // Most likely the answer to a SYN that was let through.
            if segment.seq == 0 && !established {
                return Reset::Close;
            }
            if before(segment.seq, peer.max_ack) && !context.config.ignore_invalid_rst {
                return Reset::Invalid;
            }
            // RFC 5961 §3: exactly what the peer expects, or directly behind the data before it.
            let train = last.is(Kind::Ack, direction) && segment.seq == last.end;
            if !established || segment.seq == peer.max_ack || train {
                return Reset::Close;
            }
            // Anything else is answered by an ACK; if the peer agrees it sends another RST.
            (close, stay) = (Reset::Stay, Reset::StayUnchecked);
        }
        let to_syn = context.seen_reply && last.is(Kind::Syn, direction.opposite());
        let to_ack = !context.assured && last.kind == Kind::Ack;
        if (to_syn || to_ack) && segment.ack == last.end {
            // Answers a segment that was let through unbelieved.
            return stay;
        }
        if old == TcpState::SynSent
            && last.is(Kind::Ack, Direction::Reply)
            && segment.seq == last.ack
        {
            // Answers an ACK that answered a SYN.
            return stay;
        }
        close
    }

    /// A RST or FIN that does not fit, and another from the other end: the ends are done, this
    /// table has lost them.
    fn out_of_window(
        &mut self,
        kind: Kind,
        direction: Direction,
        context: &Context<'_>,
    ) -> Verdict {
        const SHORT: Nanos = 120_000_000_000;
        if !context.assured || !matches!(kind, Kind::Rst | Kind::Fin) {
            return Verdict::INVALID;
        }
        let other = self.last.direction != direction;
        if other && matches!(self.last.kind, Kind::Fin | Kind::Rst) {
            let at_most = context.config.timeouts.unacknowledged;
            let long = context.remaining >= SHORT && context.remaining > at_most;
            return Verdict::Invalid {
                at_most: long.then_some(at_most),
            };
        }
        self.last.kind = kind;
        self.last.direction = direction;
        Verdict::INVALID
    }

    fn aftermath(
        &self,
        kind: Kind,
        old: TcpState,
        new: TcpState,
        context: &Context<'_>,
    ) -> Verdict {
        let timeouts = &context.config.timeouts;
        let mut timeout = self.timeout(kind, new, context.config);
        let mut assured = false;
        if !context.seen_reply {
            if kind == Kind::Rst {
                return Verdict::Kill;
            }
            // A SYN again: whoever reuses the port must not keep the entry for ever.
            if kind == Kind::Syn && old == TcpState::SynSent {
                return Verdict::AS_IT_WAS;
            }
            if new == TcpState::Established {
                timeout = timeout.min(timeouts.unacknowledged);
            }
        } else {
            let opened = matches!(old, TcpState::SynRecv | TcpState::Established);
            assured = opened && new == TcpState::Established;
        }
        Verdict::Accept {
            timeout: Some(timeout),
            assured,
        }
    }

    fn timeout(&self, kind: Kind, new: TcpState, config: &TcpConfig) -> Nanos {
        let timeouts: &TcpTimeouts = &config.timeouts;
        let usual = timeouts.of(new);
        let unacked = self.ends.iter().any(|end| end.has(knows::UNACKED));
        if self.last.repeated >= config.max_retrans && usual > timeouts.retransmitting {
            timeouts.retransmitting
        } else if kind == Kind::Rst {
            timeouts.of(TcpState::Close)
        } else if unacked && usual > timeouts.unacknowledged {
            timeouts.unacknowledged
        } else if self.last.window == 0 && usual > timeouts.retransmitting {
            timeouts.retransmitting
        } else {
            usual
        }
    }
}

/// What a RST does.
enum Reset {
    Invalid,
    /// Closes, if it fits the windows.
    Close,
    CloseUnchecked,
    /// Changes no state, if it fits the windows.
    Stay,
    StayUnchecked,
}
