//! Conversations for tests: what two ends say to each other, right or wrong, as a box between
//! them sees it. All of it follows from a seed.
//!
//! | file | what lives there |
//! |---|---|
//! | `frame` | frames with right lengths and checksums |
//! | `tcp` | TCP: from well-behaved to absurd |
//! | `sctp` | SCTP, likewise |
//! | `datagrams` | UDP, ICMP, ICMP errors, other protocols |

mod datagrams;
mod frame;
mod sctp;
mod tcp;

use crate::wire::ip_proto;
pub use frame::{End, packet};

/// A source of choices (splitmix64).
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below this one, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.any() % limit
    }

    /// True so often in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these, each as often as its weight says.
    pub fn weighted<T: Copy>(&mut self, choices: &[(u64, T)]) -> T {
        let mut at = self.below(choices.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in choices {
            if at < *weight {
                return *choice;
            }
            at -= weight;
        }
        choices[0].1
    }
}

/// Who talks, and how each end appears to the other.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Who begins.
    pub a: End,
    /// The other.
    pub b: End,
    /// What `b` sends to in order to reach `a`: translated, maybe.
    pub a_seen_by_b: End,
    /// What `a` sends to in order to reach `b`.
    pub b_seen_by_a: End,
}

impl Ends {
    /// Without translation.
    pub fn plain(a: End, b: End) -> Self {
        Self {
            a,
            b,
            a_seen_by_b: a,
            b_seen_by_a: b,
        }
    }

    /// Whether an end appears as another than it is.
    fn translated(&self) -> bool {
        (self.a, self.b) != (self.a_seen_by_b, self.b_seen_by_a)
    }

    /// Source and destination of a packet.
    fn of(&self, from_a: bool) -> (End, End) {
        if from_a {
            (self.a, self.b_seen_by_a)
        } else {
            (self.b, self.a_seen_by_b)
        }
    }

    /// The same as its receiver sees it.
    fn received(&self, from_a: bool) -> (End, End) {
        if from_a {
            (self.a_seen_by_b, self.b)
        } else {
            (self.b_seen_by_a, self.a)
        }
    }
}

/// A frame of a conversation.
#[derive(Clone, Debug)]
pub struct Said {
    /// From the end that began.
    pub from_a: bool,
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
    /// What it is, for messages.
    pub what: String,
}

/// What a conversation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// TCP.
    Tcp,
    /// SCTP.
    Sctp,
    /// UDP, and ICMP errors about it.
    Udp,
    /// The same with UDP-Lite.
    UdpLite,
    /// Ping and its like.
    Icmp,
    /// Protocols without ports.
    Other,
}

/// A conversation of about so many frames.
pub fn conversation(rng: &mut Rng, ends: &Ends, topic: Topic, frames: usize) -> Vec<Said> {
    match topic {
        Topic::Tcp => tcp::conversation(rng, ends, frames),
        Topic::Sctp => sctp::conversation(rng, ends, frames),
        Topic::Udp => datagrams::udp(rng, ends, ip_proto::UDP, frames),
        Topic::UdpLite => datagrams::udp(rng, ends, ip_proto::UDPLITE, frames),
        Topic::Icmp => datagrams::icmp(rng, ends, frames),
        Topic::Other => datagrams::other(rng, ends, frames),
    }
}
