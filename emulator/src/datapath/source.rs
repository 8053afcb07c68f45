//! Where packets come from, as a number that fits an epoll event.

use chanio_model::VportId;

/// One thing that a worker takes packets from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The transmit ring or TAP queue of a pair.
    Queue(VportId, u16),
    /// The host's side of a representor.
    Representor(VportId),
    /// The wire.
    Uplink,
}

impl Source {
    /// As the data of an epoll event: kind in the top byte, pair in the next three, vport below.
    pub fn token(self) -> u64 {
        let pack = |kind: u64, pair: u16, vport: VportId| {
            kind << 56 | u64::from(pair) << 32 | u64::from(vport.0)
        };
        match self {
            Source::Queue(vport, pair) => pack(1, pair, vport),
            Source::Representor(vport) => pack(2, 0, vport),
            Source::Uplink => pack(3, 0, VportId::UPLINK),
        }
    }

    /// `None` for numbers that are no source.
    pub fn from_token(token: u64) -> Option<Self> {
        let vport = VportId(token as u32);
        match token >> 56 {
            1 => Some(Source::Queue(vport, (token >> 32) as u16)),
            2 => Some(Source::Representor(vport)),
            3 => Some(Source::Uplink),
            _ => None,
        }
    }

    /// Which of `workers` serves it, to begin with. Pairs of one channel go to different workers.
    pub fn worker(self, workers: usize) -> usize {
        let spread = match self {
            Source::Queue(vport, pair) => vport.index() + usize::from(pair),
            Source::Representor(vport) => vport.index(),
            Source::Uplink => 0,
        };
        spread % workers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip() {
        for source in [
            Source::Queue(VportId(u32::MAX), 255),
            Source::Queue(VportId(1), 0),
            Source::Representor(VportId(10_000)),
            Source::Uplink,
        ] {
            assert_eq!(Source::from_token(source.token()), Some(source));
        }
        assert_eq!(Source::from_token(super::super::waker::WAKE), None);
    }
}
