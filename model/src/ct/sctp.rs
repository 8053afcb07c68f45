//! SCTP associations as a middle box sees them, after nf_conntrack_proto_sctp.c of Linux 6.1
//! (RFC 9260 for chunks and verification tags).

use super::Direction;
use super::config::SctpTimeouts;
use super::verdict::Verdict;
use arrayvec::ArrayVec;

/// How many chunks of a packet are looked at.
const MAX_CHUNKS: usize = 8;
const HEADER_LEN: usize = 12;

/// Chunk types (RFC 9260 §3.2).
mod chunk {
    pub const DATA: u8 = 0;
    pub const INIT: u8 = 1;
    pub const INIT_ACK: u8 = 2;
    pub const HEARTBEAT: u8 = 4;
    pub const HEARTBEAT_ACK: u8 = 5;
    pub const ABORT: u8 = 6;
    pub const SHUTDOWN: u8 = 7;
    pub const SHUTDOWN_ACK: u8 = 8;
    pub const ERROR: u8 = 9;
    pub const COOKIE_ECHO: u8 = 10;
    pub const COOKIE_ACK: u8 = 11;
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// The chunk answers with its peer's tag: the sender has none of its own.
const REFLECTED: u8 = 1;

/// A packet's chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks {
    /// Verification tag.
    tag: u32,
    count: u8,
    chunks: [Chunk; MAX_CHUNKS],
    valid: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Chunk {
    kind: u8,
    flags: u8,
    /// Of INIT and INIT ACK, if it is there.
    init_tag: Option<u32>,
}

impl Chunks {
    /// The chunks of the packet at the start of `l4`, `on_wire` bytes long.
    pub fn parse(l4: &[u8], on_wire: usize) -> Self {
        let be32 = |at: usize| Some(u32::from_be_bytes(*l4.get(at..)?.first_chunk()?));
        let mut chunks = ArrayVec::<Chunk, MAX_CHUNKS>::new();
        let (mut at, mut valid, mut alone) = (HEADER_LEN, true, false);
        while at < on_wire && !chunks.is_full() {
            let Some([kind, flags, a, b]) = l4.get(at..).and_then(|rest| rest.first_chunk()) else {
                break;
            };
            alone |= matches!(
                *kind,
                chunk::INIT | chunk::INIT_ACK | chunk::SHUTDOWN_COMPLETE
            );
            let first = matches!(*kind, chunk::COOKIE_ACK | chunk::COOKIE_ECHO);
            let len = usize::from(u16::from_be_bytes([*a, *b]));
            valid &= len > 0 && (chunks.is_empty() || !(alone || first));
            if !valid {
                break;
            }
            chunks.push(Chunk {
                kind: *kind,
                flags: *flags,
                init_tag: matches!(*kind, chunk::INIT | chunk::INIT_ACK)
                    .then(|| be32(at + 16).and(be32(at + 4)))
                    .flatten(),
            });
            at += len.next_multiple_of(4);
        }
        let mut out = Self {
            tag: be32(4).unwrap_or(0),
            count: chunks.len() as u8,
            chunks: [Chunk::default(); MAX_CHUNKS],
            valid: valid && !chunks.is_empty(),
        };
        out.chunks[..chunks.len()].copy_from_slice(&chunks);
        out
    }

    fn iter(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks[..usize::from(self.count)].iter()
    }

    fn has_any(&self, kinds: &[u8]) -> bool {
        self.iter().any(|chunk| kinds.contains(&chunk.kind))
    }
}

/// An association's state, under nf_conntrack's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SctpState {
    /// Nothing seen.
    #[default]
    None,
    /// An INIT, or the end.
    Closed,
    /// An INIT ACK.
    CookieWait,
    /// A COOKIE ECHO.
    CookieEchoed,
    /// A COOKIE ACK.
    Established,
    /// A SHUTDOWN by who opened it.
    ShutdownSent,
    /// A SHUTDOWN by the other end.
    ShutdownRecd,
    /// An answer to either.
    ShutdownAckSent,
    /// A HEARTBEAT first: another path of an association.
    HeartbeatSent,
}

impl SctpState {
    /// The name that `conntrack -L` prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Closed => "CLOSED",
            Self::CookieWait => "COOKIE_WAIT",
            Self::CookieEchoed => "COOKIE_ECHOED",
            Self::Established => "ESTABLISHED",
            Self::ShutdownSent => "SHUTDOWN_SENT",
            Self::ShutdownRecd => "SHUTDOWN_RECD",
            Self::ShutdownAckSent => "SHUTDOWN_ACK_SENT",
            Self::HeartbeatSent => "HEARTBEAT_SENT",
        }
    }

    /// Near its end.
    pub(super) fn is_closing(self) -> bool {
        matches!(
            self,
            Self::ShutdownSent | Self::ShutdownRecd | Self::ShutdownAckSent
        )
    }
}

/// The state after a chunk; `None` if it must not come there.
fn step(direction: Direction, kind: u8, state: SctpState) -> Option<SctpState> {
    use SctpState::*;
    let changes = matches!(
        kind,
        chunk::INIT..=chunk::INIT_ACK | chunk::HEARTBEAT..=chunk::COOKIE_ACK
            | chunk::SHUTDOWN_COMPLETE
    );
    if !changes {
        return Some(state);
    }
    // Before there is anything, and when there was only a heartbeat.
    match (direction, state, kind) {
        (Direction::Reply, None, _) => return Option::None,
        (Direction::Reply, HeartbeatSent, chunk::HEARTBEAT) => return Some(HeartbeatSent),
        (Direction::Reply, HeartbeatSent, chunk::HEARTBEAT_ACK) => return Some(Established),
        (Direction::Reply, HeartbeatSent, _) => return Option::None,
        (_, HeartbeatSent, chunk::INIT) => return Some(CookieWait),
        (_, HeartbeatSent, chunk::HEARTBEAT_ACK) => return Some(HeartbeatSent),
        (_, None | HeartbeatSent, chunk::SHUTDOWN_ACK) => return Some(ShutdownAckSent),
        (_, None | HeartbeatSent, chunk::HEARTBEAT) => return Some(HeartbeatSent),
        (_, None | HeartbeatSent, _) => return Some(Closed),
        _ => {}
    }
    Some(match (kind, direction, state) {
        (chunk::INIT, Direction::Original, ShutdownSent | ShutdownRecd) => Closed,
        (chunk::INIT_ACK, Direction::Reply, Closed) => CookieWait,
        (chunk::ABORT, _, _) => Closed,
        (chunk::SHUTDOWN, Direction::Original, Established) => ShutdownSent,
        (chunk::SHUTDOWN, Direction::Reply, Established) => ShutdownRecd,
        (chunk::SHUTDOWN_ACK, _, ShutdownSent | ShutdownRecd) => ShutdownAckSent,
        // It may say that the cookie is stale.
        (chunk::ERROR, Direction::Reply, CookieEchoed) => Closed,
        (chunk::COOKIE_ECHO, _, CookieWait) => CookieEchoed,
        (chunk::COOKIE_ACK, _, CookieEchoed) => Established,
        (chunk::SHUTDOWN_COMPLETE, _, ShutdownAckSent) => Closed,
        _ => state,
    })
}

/// What is known of an association.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sctp {
    pub state: SctpState,
    /// The tag that packets of each direction must carry.
    tags: [u32; 2],
    /// Each end has sent an INIT.
    inits: [bool; 2],
    /// A heartbeat of this direction had another tag.
    odd_heartbeat: Option<Direction>,
}

impl Sctp {
    /// The association that a packet begins.
    fn begun_by(packet: &Chunks) -> Option<Self> {
        if packet.has_any(&[chunk::ABORT, chunk::SHUTDOWN_COMPLETE, chunk::COOKIE_ACK]) {
            return None;
        }
        let mut sctp = Self::default();
        for part in packet.iter() {
            let state = step(Direction::Original, part.kind, SctpState::None);
            if state.is_none_or(|state| state == SctpState::None) {
                return None;
            }
            match part.kind {
                chunk::INIT if packet.tag != 0 => return None,
                chunk::INIT => sctp.tags[1] = part.init_tag?,
                chunk::HEARTBEAT => sctp.tags[0] = packet.tag,
                // RFC 9260 §8.4: out of the blue; its answer carries the same tag.
                chunk::SHUTDOWN_ACK => sctp.tags[1] = packet.tag,
                _ => {}
            }
        }
        Some(sctp)
    }

    /// Takes one packet; `fresh`: the first.
    pub fn receive(
        &mut self,
        packet: &Chunks,
        direction: Direction,
        fresh: bool,
        timeouts: &SctpTimeouts,
    ) -> Verdict {
        /// These have rules of their own for the tag, below.
        const OWN_RULES: [u8; 7] = [
            chunk::INIT,
            chunk::SHUTDOWN_COMPLETE,
            chunk::COOKIE_ECHO,
            chunk::ABORT,
            chunk::SHUTDOWN_ACK,
            chunk::HEARTBEAT,
            chunk::HEARTBEAT_ACK,
        ];
        if !packet.valid {
            return Verdict::INVALID;
        }
        if fresh {
            let Some(sctp) = Self::begun_by(packet) else {
                return Verdict::INVALID;
            };
            *self = sctp;
        }
        if !packet.has_any(&OWN_RULES) && packet.tag != self.tags[direction.index()] {
            return Verdict::INVALID;
        }
        let (mut quiet, mut assured) = (false, false);
        for part in packet.iter() {
            let before = self.state;
            match self.check_tag(part, packet, direction, quiet) {
                Tag::Right => {}
                Tag::Skip => {
                    quiet = true;
                    continue;
                }
                Tag::Wrong => return Verdict::INVALID,
            }
            let Some(state) = step(direction, part.kind, before) else {
                return Verdict::INVALID;
            };
            match part.kind {
                chunk::INIT => {
                    let Some(tag) = part.init_tag else {
                        return Verdict::INVALID;
                    };
                    self.init(tag, direction, before);
                    // An INIT again does not keep the entry alive.
                    quiet |= !fresh && (before, state) == (SctpState::Closed, SctpState::Closed);
                }
                chunk::INIT_ACK if !self.init_ack(part.init_tag, direction) => {
                    return Verdict::INVALID;
                }
                _ => {}
            }
            self.state = state;
            assured |= before != state && state == SctpState::Established;
        }
        Verdict::Accept {
            timeout: (!quiet).then(|| timeouts.of(self.state)),
            assured,
        }
    }

    /// RFC 9260 §8.5.1: the tags of chunks that begin or end an association, and of heartbeats,
    /// which may come from a path whose tags this table has not seen.
    fn check_tag(
        &mut self,
        part: &Chunk,
        packet: &Chunks,
        direction: Direction,
        quiet: bool,
    ) -> Tag {
        let (own, peer) = (direction.index(), direction.opposite().index());
        let tag = packet.tag;
        let right = match part.kind {
            chunk::INIT => tag == 0,
            chunk::ABORT | chunk::SHUTDOWN_COMPLETE if part.flags & REFLECTED != 0 => {
                tag == self.tags[peer]
            }
            chunk::ABORT | chunk::SHUTDOWN_COMPLETE | chunk::COOKIE_ECHO => tag == self.tags[own],
            chunk::COOKIE_ACK => {
                self.inits = [false; 2];
                true
            }
            chunk::HEARTBEAT | chunk::HEARTBEAT_ACK if self.tags[own] == 0 => {
                self.tags[own] = tag;
                true
            }
            chunk::HEARTBEAT | chunk::HEARTBEAT_ACK if tag == self.tags[own] => {
                self.odd_heartbeat = None;
                true
            }
            chunk::HEARTBEAT | chunk::HEARTBEAT_ACK if quiet || packet.has_any(&[chunk::DATA]) => {
                false
            }
            chunk::HEARTBEAT => {
                self.odd_heartbeat = Some(direction);
                return Tag::Skip;
            }
            chunk::HEARTBEAT_ACK if self.odd_heartbeat == Some(direction.opposite()) => {
                // The other end agrees: the association goes on with new tags.
                self.odd_heartbeat = None;
                self.tags[own] = tag;
                self.tags[peer] = 0;
                true
            }
            chunk::HEARTBEAT_ACK => false,
            _ => true,
        };
        if right { Tag::Right } else { Tag::Wrong }
    }

    fn init(&mut self, tag: u32, direction: Direction, before: SctpState) {
        let (own, peer) = (direction.index(), direction.opposite().index());
        // One that repeats the tag is the same again.
        if before == SctpState::None || self.tags[peer] != tag {
            if self.inits == [true; 2] {
                self.inits[peer] = false;
            }
            self.inits[own] = true;
        }
        self.tags[peer] = tag;
    }

    fn init_ack(&mut self, tag: Option<u32>, direction: Direction) -> bool {
        let (own, peer) = (direction.index(), direction.opposite().index());
        let known = self.tags[peer];
        let Some(tag) = tag else {
            return false;
        };
        let unasked = !self.inits[peer] && known != 0 && known != tag;
        let collision = self.inits[own] && self.inits[peer] && known != tag;
        if unasked || collision {
            return false;
        }
        self.tags[peer] = tag;
        true
    }
}

enum Tag {
    Right,
    Wrong,
    /// Let through; the chunk changes nothing.
    Skip,
}
