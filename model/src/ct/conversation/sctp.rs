//! SCTP associations: ends that mostly do what they should, and now and then anything.

use super::frame::{ethernet, packet};
use super::{Ends, Rng, Said};
use crate::wire::ip_proto;

/// Chunk types (RFC 9260 §3.2).
mod kind {
    pub const DATA: u8 = 0;
    pub const INIT: u8 = 1;
    pub const INIT_ACK: u8 = 2;
    pub const SACK: u8 = 3;
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

/// The tag is the receiver's own, as it has none of the sender's (RFC 9260 §8.4).
const REFLECTED: u8 = 1;

struct Talk<'a> {
    rng: &'a mut Rng,
    ends: &'a Ends,
    /// What others have to put into packets to each end; the end that began is the first.
    tags: [u32; 2],
    said: Vec<Said>,
    /// How often in a hundred a frame is lost before it comes here.
    loss: u64,
}

/// An association of about so many frames, maybe several from the same ports.
pub(super) fn conversation(rng: &mut Rng, ends: &Ends, frames: usize) -> Vec<Said> {
    let loss = rng.weighted(&[(5, 0), (3, 3), (1, 20)]);
    let odd = rng.weighted(&[(3, 0), (3, 10), (2, 50), (1, 90)]);
    let tags = [rng.any() as u32, rng.any() as u32];
    let mut talk = Talk {
        rng,
        ends,
        tags,
        said: Vec::new(),
        loss,
    };
    while talk.said.len() < frames {
        talk.open();
        for _ in 0..talk.rng.below(frames as u64 / 2 + 1) {
            if talk.rng.percent(odd) {
                talk.odd();
            } else {
                talk.usual();
            }
        }
        talk.close();
        if talk.rng.percent(40) {
            break;
        }
        // Again, from the same ports.
        if talk.rng.percent(80) {
            talk.tags = [talk.rng.any() as u32, talk.rng.any() as u32];
        }
    }
    talk.said
}

/// A chunk with its length put in, and padded.
fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, flags];
    out.extend((4 + value.len() as u16).to_be_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// The value of INIT and INIT ACK: tag, window, streams, first number.
fn init(tag: u32) -> Vec<u8> {
    let mut value = tag.to_be_bytes().to_vec();
    value.extend([0, 1, 0, 0, 0, 10, 0, 10]);
    value.extend(tag.to_be_bytes());
    value
}

/// A chunk as this end would send it: 12 bytes of value where it does not matter what they are.
fn plain(kind: u8) -> Vec<u8> {
    match kind {
        kind::COOKIE_ACK | kind::SHUTDOWN_ACK | kind::SHUTDOWN_COMPLETE | kind::ABORT => {
            chunk(kind, 0, &[])
        }
        kind::SHUTDOWN => chunk(kind, 0, &[0; 4]),
        _ => chunk(kind, 3, &[7; 12]),
    }
}

impl Talk<'_> {
    fn side(&mut self) -> usize {
        self.rng.below(2) as usize
    }

    /// A packet from end `from` with this tag and these chunks.
    fn put(&mut self, from: usize, tag: u32, chunks: &[u8], what: &str) {
        if self.rng.percent(self.loss) {
            return;
        }
        let (src, dst) = self.ends.of(from == 0);
        let mut l4 = Vec::new();
        l4.extend(src.port.to_be_bytes());
        l4.extend(dst.port.to_be_bytes());
        l4.extend(tag.to_be_bytes());
        l4.extend([0; 4]);
        l4.extend(chunks);
        // RFC 9260 §6.8, in its own byte order.
        let crc = crc32c::crc32c(&l4);
        l4[8..12].copy_from_slice(&crc.to_le_bytes());
        let bytes = packet(&src, &dst, ip_proto::SCTP, &l4);
        let end = if from == 0 { "a" } else { "b" };
        self.said.push(Said {
            from_a: from == 0,
            frame: ethernet(&bytes),
            what: format!("{end} SCTP {what}, tag {tag:#x}"),
        });
    }

    /// A chunk with the tag that it has to have.
    fn say(&mut self, from: usize, kind: u8) {
        let tag = self.tags[1 - from];
        self.put(from, tag, &plain(kind), &format!("chunk {kind}"));
    }

    fn say_init(&mut self, from: usize, kind: u8) {
        let tag = match kind {
            kind::INIT => 0,
            _ => self.tags[1 - from],
        };
        let init = init(self.tags[from]);
        self.put(from, tag, &chunk(kind, 0, &init), &format!("chunk {kind}"));
    }

    fn open(&mut self) {
        match self.rng.below(100) {
            0..70 => self.handshake(0),
            70..76 => {
                // Both at once.
                self.say_init(0, kind::INIT);
                self.say_init(1, kind::INIT);
                self.say_init(0, kind::INIT_ACK);
                self.say_init(1, kind::INIT_ACK);
                let first = self.side();
                self.say(first, kind::COOKIE_ECHO);
                self.say(1 - first, kind::COOKIE_ACK);
            }
            // Another path: heartbeats are what this one sees first.
            76..84 => {
                self.say(0, kind::HEARTBEAT);
                if self.rng.percent(80) {
                    self.say(1, kind::HEARTBEAT_ACK);
                }
            }
            84..88 => {
                // The cookie is stale, and it begins anew.
                self.say_init(0, kind::INIT);
                self.say_init(1, kind::INIT_ACK);
                self.say(0, kind::COOKIE_ECHO);
                self.say(1, kind::ERROR);
                self.handshake(0);
            }
            88..92 => {
                self.say_init(0, kind::INIT);
                let tag = self.tags[0];
                self.put(1, tag, &chunk(kind::ABORT, REFLECTED, &[]), "refuses");
            }
            92..96 => {
                // The first is lost on its way, or comes twice.
                self.say_init(0, kind::INIT);
                self.say_init(0, kind::INIT);
                self.handshake(0);
            }
            _ => {} // In the middle of it.
        }
    }

    fn handshake(&mut self, from: usize) {
        self.say_init(from, kind::INIT);
        self.say_init(1 - from, kind::INIT_ACK);
        self.say(from, kind::COOKIE_ECHO);
        self.say(1 - from, kind::COOKIE_ACK);
    }

    fn usual(&mut self) {
        let from = self.side();
        match self.rng.below(6) {
            0..3 => {
                self.say(from, kind::DATA);
                self.say(1 - from, kind::SACK);
            }
            3 => {
                let tag = self.tags[1 - from];
                let both = [plain(kind::SACK), plain(kind::DATA)].concat();
                self.put(from, tag, &both, "two chunks");
            }
            _ => {
                self.say(from, kind::HEARTBEAT);
                self.say(1 - from, kind::HEARTBEAT_ACK);
            }
        }
    }

    fn odd(&mut self) {
        let from = self.side();
        let any = self.rng.below(16) as u8;
        let tag = self.tags[1 - from];
        let wrong = self.rng.any() as u32;
        match self.rng.below(12) {
            0 => self.say(from, any),
            1 => self.put(from, wrong, &plain(any), &format!("wrong tag, chunk {any}")),
            2 => {
                let other = self.rng.below(16) as u8;
                let both = [plain(any), plain(other)].concat();
                self.put(from, tag, &both, &format!("chunks {any} and {other}"));
            }
            3 => self.say_init(from, kind::INIT),
            4 => self.say_init(from, kind::INIT_ACK),
            5 => {
                // From a path of its own.
                self.put(from, wrong, &plain(kind::HEARTBEAT), "heartbeat elsewhere");
                if self.rng.percent(70) {
                    self.tags[1 - from] = wrong;
                    let tag = self.rng.weighted(&[(3, self.tags[from]), (1, wrong)]);
                    self.put(1 - from, tag, &plain(kind::HEARTBEAT_ACK), "answers it");
                }
            }
            6 => {
                let flags = self.rng.below(2) as u8;
                let tag = self.rng.weighted(&[(1, tag), (1, self.tags[from])]);
                let end = self
                    .rng
                    .weighted(&[(1, kind::ABORT), (1, kind::SHUTDOWN_COMPLETE)]);
                let what = format!("chunk {end}, flags {flags}");
                self.put(from, tag, &chunk(end, flags, &[]), &what);
            }
            7 => {
                let mut broken = plain(any);
                broken[2..4].fill(0);
                self.put(from, tag, &broken, &format!("chunk {any} of no length"));
            }
            8 => {
                let mut short = chunk(any, 0, &init(wrong));
                short.truncate(self.rng.below(20) as usize);
                let what = format!("{} bytes of chunk {any}", short.len());
                self.put(from, tag, &short, &what);
            }
            9 => {
                let both = [chunk(kind::INIT, 0, &init(tag)), plain(kind::DATA)].concat();
                self.put(from, 0, &both, "INIT and more");
            }
            10 => {
                // As many chunks as are looked at, and one after them.
                let many = plain(kind::SACK).repeat(6);
                let many = [many, plain(any)].concat();
                self.put(from, tag, &many, &format!("six chunks and {any}"));
            }
            _ => {
                let both = [plain(kind::COOKIE_ECHO), plain(kind::DATA)].concat();
                self.put(from, tag, &both, "COOKIE ECHO with data");
            }
        }
    }

    fn close(&mut self) {
        let from = self.side();
        match self.rng.below(10) {
            0..6 => {
                for (end, kind) in [
                    (from, kind::SHUTDOWN),
                    (1 - from, kind::SHUTDOWN_ACK),
                    (from, kind::SHUTDOWN_COMPLETE),
                ] {
                    self.say(end, kind);
                }
            }
            6 => {
                // Both at once.
                for kind in [kind::SHUTDOWN, kind::SHUTDOWN_ACK] {
                    self.say(from, kind);
                    self.say(1 - from, kind);
                }
                self.say(from, kind::SHUTDOWN_COMPLETE);
            }
            7..9 => self.say(from, kind::ABORT),
            _ => {}
        }
    }
}
