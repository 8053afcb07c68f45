//! Whether a segment fits what both ends have said so far.
//!
//! Of each end this keeps how far it has sent, how far it may send, and the largest window it has
//! offered; a segment must overlap the window of its receiver and acknowledge nothing that was
//! not sent (Guido van Rooij, "Real Stateful TCP Packet Filtering in IP Filter", with the bounds
//! that nf_conntrack uses).

use super::segment::{Kind, Segment, after, before, flag};
use super::state::TcpState;
use super::track::Tcp;
use crate::ct::Direction;

/// What is known of one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// Behind the last byte it has sent.
    pub end: u32,
    /// Behind the last byte it may send.
    pub max_end: u32,
    /// The largest window it has offered, 0 before its first segment.
    pub max_window: u32,
    /// The most it has acknowledged, if `knows::ACK`.
    pub max_ack: u32,
    /// How far its windows are shifted.
    pub scale: u8,
    /// Bits of [`knows`].
    pub flags: u8,
}

/// Bits of [`End::flags`].
pub(super) mod knows {
    /// It offered window scaling.
    pub const SCALE: u8 = 0x01;
    /// It allows selective acknowledgements.
    pub const SACK: u8 = 0x02;
    /// It was the first to close.
    pub const CLOSED_FIRST: u8 = 0x04;
    /// Segments of it are not held against windows.
    pub const LIBERAL: u8 = 0x08;
    /// It has sent what was not acknowledged.
    pub const UNACKED: u8 = 0x10;
    /// `max_ack` is set.
    pub const ACK: u8 = 0x20;
}

/// Acknowledgements may lag this many bytes behind, or the largest window if that is more.
const ACK_LAG: u32 = 66_000;

/// Whether a segment fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Fits,
    /// Old or a little too far: to be let through, but it changes nothing.
    Ignore,
    Invalid,
}

impl End {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Takes the options of a SYN; one without any changes nothing.
    pub fn take_options(&mut self, segment: &Segment) {
        if !segment.options {
            return;
        }
        self.scale = segment.scale.unwrap_or(0);
        self.flags &= knows::LIBERAL;
        if segment.scale.is_some() {
            self.flags |= knows::SCALE;
        }
        if segment.sack_permitted {
            self.flags |= knows::SACK;
        }
    }

    /// Forgets all but whether to be liberal.
    pub fn reset(&mut self) {
        *self = Self {
            flags: self.flags & knows::LIBERAL,
            ..Self::default()
        };
    }
}

/// Begins anew with a SYN's numbers.
fn begin(ends: &mut [End; 2], segment: &Segment, direction: Direction) {
    let sender = &mut ends[direction.index()];
    sender.end = segment.end;
    sender.max_end = segment.end;
    sender.max_window = u32::from(segment.window).max(1);
    sender.take_options(segment);
    // RFC 7323 §2.2: windows are scaled if both ends offered it.
    let both = ends.iter().all(|end| end.has(knows::SCALE));
    if direction == Direction::Reply && !both {
        ends[0].scale = 0;
        ends[1].scale = 0;
    }
}

impl Tcp {
    /// Holds a segment against the windows and, if it fits, learns from it. `kind` is the
    /// segment's; the state is still the one before it.
    pub(super) fn in_window(
        &mut self,
        segment: &Segment,
        kind: Kind,
        direction: Direction,
        liberal: bool,
    ) -> Fit {
        let syn = segment.has(flag::SYN);
        let acks = segment.has(flag::ACK);
        let (from, to) = (direction.index(), direction.opposite().index());
        let selective = self.ends[to].has(knows::SACK);
        let mut ack = segment.ack;
        let mut sack = if selective { segment.sack } else { ack };
        let (mut seq, mut end) = (segment.seq, segment.end);

        if self.ends[from].max_window == 0 {
            if syn {
                begin(&mut self.ends, segment, direction);
                if !acks {
                    return Fit::Fits;
                }
            } else {
                self.pick_up(segment, direction, sack);
            }
        } else if syn
            && after(end, self.ends[from].end)
            && matches!(self.state, TcpState::SynSent | TcpState::SynRecv)
        {
            // Another SYN with higher numbers replaces the one before.
            begin(&mut self.ends, segment, direction);
            if direction == Direction::Reply && !acks {
                return Fit::Fits;
            }
        }
        let receiver_end = self.ends[to].end;
        // Without an acknowledgement, or a RST's of 0, as some stacks send it: as if all was.
        if !acks || (segment.has(flag::RST) && ack == 0) {
            (ack, sack) = (receiver_end, receiver_end);
        }
        if segment.has(flag::RST) && seq == 0 && self.state == TcpState::SynSent {
            // The answer to a SYN at a closed port.
            seq = self.ends[from].end;
            end = seq;
        }
        let fit = self.bounds(seq, end, sack, direction);
        if fit != Fit::Fits {
            return if liberal || self.ends[from].has(knows::LIBERAL) {
                Fit::Fits
            } else {
                fit
            };
        }
        self.learn(segment, kind, direction, (seq, end, ack, sack));
        Fit::Fits
    }

    /// The first segment from an end that is no SYN: the connection is older than this table.
    fn pick_up(&mut self, segment: &Segment, direction: Direction, sack: u32) {
        let [sender, receiver] = self.ends_of(direction);
        sender.end = segment.end;
        let window = u32::from(segment.window) << sender.scale;
        sender.max_window = window.max(1);
        sender.max_end = sender.end.wrapping_add(sender.max_window);
        if receiver.max_window == 0 {
            // Nothing seen of the other end: believe what this one acknowledges.
            receiver.end = sack;
            receiver.max_end = sack;
        } else if sack == receiver.end.wrapping_add(1) {
            // The answer to a keep-alive, most likely.
            receiver.end = sack;
        }
    }

    /// Sender's and receiver's end of a direction.
    fn ends_of(&mut self, direction: Direction) -> [&mut End; 2] {
        let [original, reply] = &mut self.ends;
        match direction {
            Direction::Original => [original, reply],
            Direction::Reply => [reply, original],
        }
    }

    fn bounds(&mut self, seq: u32, end: u32, sack: u32, direction: Direction) -> Fit {
        let [sender, receiver] = self.ends_of(direction);
        let oldest = sender.end.wrapping_sub(receiver.max_window).wrapping_sub(1);
        let lag = sender.max_window.max(ACK_LAG);
        let oldest_ack = receiver.end.wrapping_sub(lag).wrapping_sub(1);
        let ack_sent = before(sack, receiver.end.wrapping_add(1));
        if !before(seq, sender.max_end.wrapping_add(1)) {
            let over = end.wrapping_sub(sender.max_end).wrapping_add(1);
            let near = receiver.max_window != 0
                && after(end, oldest)
                && over <= receiver.max_window
                && after(sack, oldest_ack)
                && ack_sent;
            if near {
                // Some stacks send more than they may. If the peer takes it, it will acknowledge
                // it, and that must not be invalid then.
                sender.end = end;
                sender.flags |= knows::UNACKED;
                return Fit::Ignore;
            }
            return Fit::Invalid;
        }
        if !ack_sent {
            return Fit::Invalid;
        }
        let in_window = receiver.max_window == 0 || after(end, oldest);
        if !in_window || !after(sack, oldest_ack) {
            return Fit::Ignore;
        }
        Fit::Fits
    }

    fn learn(
        &mut self,
        segment: &Segment,
        kind: Kind,
        direction: Direction,
        (seq, end, ack, sack): (u32, u32, u32, u32),
    ) {
        let [sender, receiver] = self.ends_of(direction);
        let mut window = u32::from(segment.window);
        if !segment.has(flag::SYN) {
            window <<= sender.scale;
        }
        let offered = window.wrapping_add(sack.wrapping_sub(ack));
        sender.max_window = sender.max_window.max(offered);
        if after(end, sender.end) {
            sender.end = end;
            sender.flags |= knows::UNACKED;
        }
        if segment.has(flag::ACK) && (!sender.has(knows::ACK) || after(ack, sender.max_ack)) {
            sender.max_ack = ack;
            sender.flags |= knows::ACK;
        }
        if receiver.max_window != 0 && after(end, sender.max_end) {
            let more = end.wrapping_sub(sender.max_end);
            receiver.max_window = receiver.max_window.wrapping_add(more);
        }
        let may_send = sack.wrapping_add(window);
        if after(may_send, receiver.max_end.wrapping_sub(1)) {
            // A closed window may be probed with one byte.
            receiver.max_end = may_send.wrapping_add((window == 0) as u32);
        }
        if ack == receiver.end {
            receiver.flags &= !knows::UNACKED;
        }
        if kind == Kind::Ack {
            self.last
                .count_repetition(direction, (seq, end, ack), segment.window);
        }
    }
}
