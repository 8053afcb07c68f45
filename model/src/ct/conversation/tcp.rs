//! TCP conversations: ends that mostly do what they should, and now and then anything.

use super::frame::{ethernet, packet};
use super::{Ends, Rng, Said};
use crate::ct::tcp::flag::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG};
use crate::wire::ip_proto;

/// What an end has said and heard.
#[derive(Clone, Debug)]
struct Peer {
    /// Number of the next new byte.
    next: u32,
    /// What it acknowledges.
    heard: u32,
    window: u16,
    scale: Option<u8>,
    sack: bool,
    /// Begin, length and flags of what it has sent.
    sent: Vec<(u32, usize, u8)>,
}

impl Peer {
    fn new(rng: &mut Rng) -> Self {
        // Near the wrap now and then.
        let next = match rng.percent(20) {
            true => u32::MAX - rng.below(3000) as u32,
            false => rng.any() as u32,
        };
        Self {
            next,
            heard: 0,
            window: rng.weighted(&[
                (1, 1),
                (2, 300),
                (4, 5840),
                (4, 29200),
                (4, 64240),
                (2, 65535),
            ]),
            scale: rng.percent(70).then(|| rng.below(16) as u8),
            sack: rng.percent(70),
            sent: Vec::new(),
        }
    }
}

/// One segment to be sent.
#[derive(Clone, Debug, Default)]
struct Segment {
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    options: Vec<u8>,
    len: usize,
}

struct Talk<'a> {
    rng: &'a mut Rng,
    ends: &'a Ends,
    /// The end that began is the first.
    peers: [Peer; 2],
    said: Vec<Said>,
    /// How often in a hundred a frame is lost before it comes here.
    loss: u64,
}

/// A conversation of about so many frames.
pub(super) fn conversation(rng: &mut Rng, ends: &Ends, frames: usize) -> Vec<Said> {
    let loss = rng.weighted(&[(5, 0), (3, 3), (1, 20)]);
    let odd = rng.weighted(&[(3, 0), (3, 10), (2, 50), (1, 90)]);
    let mut talk = Talk {
        peers: [Peer::new(rng), Peer::new(rng)],
        rng,
        ends,
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
        talk.close(odd);
        if talk.rng.percent(40) {
            break;
        }
        // Again, from the same ports.
        if talk.rng.percent(80) {
            talk.peers = [Peer::new(talk.rng), Peer::new(talk.rng)];
        }
    }
    talk.said
}

impl Talk<'_> {
    fn put(&mut self, from: usize, segment: &Segment, what: &str) {
        if self.rng.percent(self.loss) {
            return;
        }
        let (src, dst) = self.ends.of(from == 0);
        let mut l4 = Vec::new();
        l4.extend(src.port.to_be_bytes());
        l4.extend(dst.port.to_be_bytes());
        l4.extend(segment.seq.to_be_bytes());
        l4.extend(segment.ack.to_be_bytes());
        l4.extend([(5 + segment.options.len() / 4) as u8 * 16, segment.flags]);
        l4.extend(segment.window.to_be_bytes());
        l4.extend([0, 0, 0, 0]);
        l4.extend(&segment.options);
        l4.extend((0..segment.len).map(|i| i as u8));
        let mut bytes = packet(&src, &dst, ip_proto::TCP, &l4);
        if self.rng.percent(1) {
            // Padding behind it is not part of it.
            bytes.extend([0; 9]);
        }
        let Segment {
            seq,
            ack,
            flags,
            window,
            len,
            ..
        } = segment;
        self.said.push(Said {
            from_a: from == 0,
            frame: ethernet(&bytes),
            what: format!(
                "{what}: {} flags {flags:#x} seq {seq} ack {ack} len {len} win {window}",
                if from == 0 { "a" } else { "b" },
            ),
        });
    }

    /// What `from` would send next: with these flags and so many bytes.
    fn next(&mut self, from: usize, flags: u8, len: usize) -> Segment {
        let peer = &self.peers[from];
        let mut options = Vec::new();
        if flags & SYN != 0 {
            options.extend([2, 4, 5, 180]);
            if peer.sack {
                options.extend([1, 1, 4, 2]);
            }
            if let Some(scale) = peer.scale {
                options.extend([1, 3, 3, scale]);
            }
            if self.rng.percent(10) {
                options.clear();
            }
        } else if self.rng.percent(30) {
            options.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        }
        Segment {
            seq: peer.next,
            ack: if flags & ACK != 0 { peer.heard } else { 0 },
            flags,
            window: peer.window,
            options,
            len,
        }
    }

    /// Sends that, and the other end hears it.
    fn say(&mut self, from: usize, flags: u8, len: usize, what: &str) {
        let segment = self.next(from, flags, len);
        let counted = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let end = segment.seq.wrapping_add(len as u32 + counted);
        let peer = &mut self.peers[from];
        peer.sent.push((segment.seq, len, flags));
        peer.next = end;
        self.peers[1 - from].heard = end;
        self.put(from, &segment, what);
    }

    fn again(&mut self, from: usize) {
        let sent = &self.peers[from].sent;
        if sent.is_empty() {
            return self.usual();
        }
        let back = (self.rng.below(3) + 1).min(sent.len() as u64) as usize;
        let (seq, len, flags) = sent[sent.len() - back];
        let segment = Segment {
            seq,
            ..self.next(from, flags, len)
        };
        self.put(from, &segment, "again");
    }

    fn side(&mut self) -> usize {
        self.rng.below(2) as usize
    }

    fn open(&mut self) {
        match self.rng.below(100) {
            0..70 => {
                let from = usize::from(self.rng.percent(5));
                self.say(from, SYN | self.extra(ECE | CWR), 0, "open");
                if self.rng.percent(15) {
                    self.again(from);
                }
                self.say(1 - from, SYN | ACK, 0, "open");
                if self.rng.percent(10) {
                    self.again(1 - from);
                }
                self.say(from, ACK, 0, "open");
            }
            70..78 => {
                self.say(0, SYN, 0, "both open");
                self.say(1, SYN, 0, "both open");
                for from in [0, 1] {
                    let first = self.peers[from].sent[self.peers[from].sent.len() - 1].0;
                    let kind = if self.rng.percent(70) { SYN | ACK } else { ACK };
                    let mut answer = self.next(from, kind, 0);
                    if kind & SYN != 0 {
                        answer.seq = first;
                    }
                    self.put(from, &answer, "both open");
                }
            }
            78..88 => {} // In the middle of it.
            88..94 => {
                self.say(0, SYN, 0, "open");
                let mut refusal = self.next(1, RST | ACK, 0);
                if self.rng.percent(70) {
                    refusal.seq = 0;
                }
                self.put(1, &refusal, "refused");
            }
            _ => {
                self.say(0, SYN, 0, "open");
                let mut challenge = self.next(1, ACK, 0);
                challenge.ack = self.rng.any() as u32;
                self.put(1, &challenge, "challenged");
                let reset = Segment {
                    seq: challenge.ack,
                    ..self.next(0, RST, 0)
                };
                self.put(0, &reset, "reset");
                self.again(0);
                self.say(1, SYN | ACK, 0, "open");
                self.say(0, ACK, 0, "open");
            }
        }
    }

    fn extra(&self, flags: u8) -> u8 {
        // No choice of its own: the last byte of what was said so far.
        if self.said.len() % 7 == 3 { flags } else { 0 }
    }

    fn usual(&mut self) {
        let from = self.side();
        match self.rng.below(10) {
            0..5 => {
                let len = self.rng.weighted(&[(3, 1), (3, 100), (6, 1448), (1, 0)]);
                let push = if self.rng.percent(50) { PSH } else { 0 };
                self.say(from, ACK | push, len, "data");
                if self.rng.percent(60) {
                    self.say(1 - from, ACK, 0, "ack");
                }
            }
            5..8 => self.say(from, ACK, 0, "ack"),
            8 => self.again(from),
            _ => {
                let flags = ACK | self.rng.weighted(&[(1, URG), (1, ECE), (1, CWR | PSH)]);
                self.say(from, flags, 10, "data");
            }
        }
    }

    /// Something that is wrong, or at least rare.
    fn odd(&mut self) {
        let from = self.side();
        let mut segment = self.next(from, ACK, 0);
        let other = &self.peers[1 - from];
        let window = u32::from(other.window) << other.scale.unwrap_or(0).min(14);
        let nearby = |rng: &mut Rng| (rng.below(5) as u32).wrapping_sub(2);
        let what = match self.rng.below(24) {
            0 => {
                segment.seq = segment.seq.wrapping_add(self.rng.any() as u32);
                "anywhere"
            }
            1 => {
                segment.seq = segment
                    .seq
                    .wrapping_add(window)
                    .wrapping_add(nearby(self.rng));
                "at the window's end"
            }
            2 => {
                segment.seq = segment.seq.wrapping_add(window.saturating_sub(500));
                segment.len = 1000;
                "across the window's end"
            }
            3 => {
                segment.seq = segment
                    .seq
                    .wrapping_sub(window)
                    .wrapping_add(nearby(self.rng));
                segment.len = self.rng.below(3) as usize;
                "before the window"
            }
            4 => {
                segment.ack = segment.ack.wrapping_add(1 + self.rng.below(3000) as u32);
                "acknowledges too much"
            }
            5 => {
                let back = self
                    .rng
                    .weighted(&[(1, 100), (1, 65_990), (1, 66_010), (1, 1 << 30)]);
                segment.ack = segment.ack.wrapping_sub(back);
                "acknowledges late"
            }
            6 => {
                segment.window = 0;
                "closed window"
            }
            7 => {
                for _ in 0..self.rng.below(5) {
                    self.put(from, &segment, "the same ack");
                }
                "the same ack"
            }
            8 => {
                let edge = segment.ack.wrapping_add(self.rng.below(3000) as u32);
                segment.options = vec![1, 1, 5, 10];
                segment.options.extend(edge.to_be_bytes());
                segment.options.extend(edge.wrapping_add(100).to_be_bytes());
                "selective ack"
            }
            9 => {
                segment = self.next(from, SYN, 0);
                if self.rng.percent(50) {
                    segment.seq = self.rng.any() as u32;
                }
                let answered = self.rng.percent(60).then(|| self.rng.below(4));
                self.put(from, &segment, "syn");
                match answered {
                    Some(0) => {
                        let mut answer = self.next(1 - from, SYN | ACK, 0);
                        answer.ack = segment.seq.wrapping_add(1);
                        self.put(1 - from, &answer, "answers the syn");
                    }
                    Some(1) => {
                        let mut answer = self.next(1 - from, RST | ACK, 0);
                        answer.seq = 0;
                        answer.ack = segment.seq.wrapping_add(1);
                        self.put(1 - from, &answer, "refuses the syn");
                    }
                    Some(_) => {
                        let answer = self.next(1 - from, ACK, 0);
                        self.put(1 - from, &answer, "challenges the syn");
                        if self.rng.percent(50) {
                            segment = Segment {
                                seq: answer.ack,
                                ..self.next(from, RST, 0)
                            };
                            self.put(from, &segment, "reset to the challenge");
                        }
                    }
                    None => {}
                }
                return;
            }
            10 => {
                segment = self.next(from, SYN | ACK, 0);
                if self.rng.percent(50) {
                    segment.seq = segment.seq.wrapping_sub(1);
                }
                "syn/ack"
            }
            11 => {
                segment = self.next(from, RST, 0);
                "reset"
            }
            12 => {
                segment = self.next(from, RST | ACK, 0);
                segment.seq = segment.seq.wrapping_add(nearby(self.rng));
                "reset nearby"
            }
            13 => {
                segment.flags = RST;
                segment.seq = self
                    .rng
                    .weighted(&[(1, 0), (1, segment.seq.wrapping_sub(5000))]);
                segment.ack = 0;
                "reset elsewhere"
            }
            14 => {
                segment.flags = RST | ACK;
                segment.ack = 0;
                "reset without acknowledgement"
            }
            15 => {
                segment.flags = FIN | ACK;
                segment.seq = segment.seq.wrapping_add(self.rng.any() as u32 >> 8);
                "fin elsewhere"
            }
            16 => {
                segment.flags = self.rng.any() as u8;
                "any flags"
            }
            17 => {
                segment.flags =
                    self.rng
                        .weighted(&[(1, 0), (1, PSH), (1, FIN), (1, FIN | PSH | URG)]);
                "bare"
            }
            18 => {
                segment.seq = segment.seq.wrapping_sub(1);
                segment.len = self.rng.below(2) as usize;
                self.put(from, &segment, "keep-alive");
                if self.rng.percent(70) {
                    let answer = self.next(1 - from, ACK, 0);
                    self.put(1 - from, &answer, "answers it");
                }
                return;
            }
            19 => {
                segment.options = vec![3, 0, 1, 1, 5, 200, 7, 7];
                "silly options"
            }
            20 => {
                segment.len = 60_000;
                "long"
            }
            21 => {
                self.peers[from].window = self.rng.any() as u16;
                "another window"
            }
            22 => {
                self.cut(from);
                return;
            }
            _ => {
                segment = self.next(from, SYN | PSH | ECE, 10);
                "syn with data"
            }
        };
        self.put(from, &segment, what);
    }

    /// A header that ends too early, or says so.
    fn cut(&mut self, from: usize) {
        let (src, dst) = self.ends.of(from == 0);
        let mut l4 = vec![0; 24];
        l4[..2].copy_from_slice(&src.port.to_be_bytes());
        l4[2..4].copy_from_slice(&dst.port.to_be_bytes());
        l4[4..8].copy_from_slice(&self.peers[from].next.to_be_bytes());
        l4[8..12].copy_from_slice(&self.peers[from].heard.to_be_bytes());
        (l4[12], l4[13]) = (self.rng.weighted(&[(1, 0x40), (1, 0x70), (1, 0xf0)]), ACK);
        l4.truncate(self.rng.weighted(&[(2, 24), (1, 19), (1, 8), (1, 3)]));
        self.said.push(Said {
            from_a: from == 0,
            frame: ethernet(&packet(&src, &dst, ip_proto::TCP, &l4)),
            what: format!(
                "cut to {} bytes, offset {:#x}",
                l4.len(),
                l4.get(12).unwrap_or(&0)
            ),
        });
    }

    fn close(&mut self, odd: u64) {
        let from = self.side();
        match self.rng.below(10) {
            0..7 => {
                self.say(from, FIN | ACK, 0, "close");
                if self.rng.percent(10) {
                    self.again(from);
                }
                if self.rng.percent(80) {
                    self.say(1 - from, ACK, 0, "close");
                }
                for _ in 0..self.rng.weighted(&[(3, 0u64), (1, 1), (1, 5)]) {
                    self.say(1 - from, ACK | PSH, 500, "half closed");
                    self.say(from, ACK, 0, "half closed");
                }
                if self.rng.percent(odd) {
                    self.odd();
                }
                self.say(1 - from, FIN | ACK, 0, "close");
                if self.rng.percent(10) {
                    self.again(1 - from);
                }
                self.say(from, ACK, 0, "close");
                if self.rng.percent(15) {
                    self.again(1 - from);
                    self.say(from, ACK, 0, "close");
                }
            }
            7 => {
                self.say(0, FIN | ACK, 0, "both close");
                let mut answer = self.next(1, FIN | ACK, 0);
                answer.ack = answer.ack.wrapping_sub(1);
                self.put(1, &answer, "both close");
                self.peers[1].next = self.peers[1].next.wrapping_add(1);
                self.peers[0].heard = self.peers[1].next;
                self.say(0, ACK, 0, "both close");
                self.say(1, ACK, 0, "both close");
            }
            8 => {
                self.say(from, RST | ACK, 0, "abort");
                if self.rng.percent(30) {
                    self.say(1 - from, RST, 0, "abort");
                }
            }
            _ => {}
        }
    }
}
