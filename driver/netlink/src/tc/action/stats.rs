//! An action's counters (linux/gen_stats.h, TCA_STATS_*).

use crate::Result;
use crate::attr::{Attr, Raw, Value, Writer, attributes, record};

attributes! {
    /// TCA_STATS_*
    pub mod stats = "TCA_STATS_" {
        UNSPEC, BASIC, RATE_EST, QUEUE, APP, RATE_EST64, PAD, BASIC_HW, PKT64,
    }
}

/// Packets and bytes (struct gnet_stats_basic).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Basic {
    /// Bytes.
    pub bytes: u64,
    /// Packets, modulo 2³²: [`Stats::packets`] has all of them.
    pub packets: u32,
}

impl Value for Basic {
    fn parse(attr: &Attr<'_>) -> Result<Self> {
        // The struct is padded to 16 bytes where a u64 is aligned to 8.
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *attr.at_least()?;
        Ok(Basic {
            bytes: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            packets: u32::from_ne_bytes([i, j, k, l]),
        })
    }
    fn emit(&self, out: &mut Writer) {
        out.bytes(&self.bytes.to_ne_bytes());
        out.bytes(&self.packets.to_ne_bytes());
        out.bytes(&[0; 4]);
    }
    fn all_ones(&self) -> Self {
        Basic {
            bytes: !0,
            packets: !0,
        }
    }
}

/// What a queue, or an action that drops, counts (struct gnet_stats_queue).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Queue {
    /// Packets in it.
    pub length: u32,
    /// Bytes in it.
    pub backlog: u32,
    /// Packets lost.
    pub drops: u32,
    /// Packets put back.
    pub requeues: u32,
    /// Packets over a limit.
    pub overlimits: u32,
}

impl Value for Queue {
    fn parse(attr: &Attr<'_>) -> Result<Self> {
        let (words, _) = attr.at_least::<20>()?.as_chunks();
        let word = |i: usize| u32::from_ne_bytes(words[i]);
        Ok(Queue {
            length: word(0),
            backlog: word(1),
            drops: word(2),
            requeues: word(3),
            overlimits: word(4),
        })
    }
    fn emit(&self, out: &mut Writer) {
        for word in [
            self.length,
            self.backlog,
            self.drops,
            self.requeues,
            self.overlimits,
        ] {
            out.bytes(&word.to_ne_bytes());
        }
    }
    fn all_ones(&self) -> Self {
        Queue {
            length: !0,
            backlog: !0,
            drops: !0,
            requeues: !0,
            overlimits: !0,
        }
    }
}

record! {
    /// The counters with a number here.
    struct Known of stats {
        /// All packets.
        basic: Basic = BASIC;
        /// Those in hardware.
        basic_hw: Basic = BASIC_HW;
        /// Drops and overlimits.
        queue: Queue = QUEUE;
        /// All packets, where 32 bits are too few.
        packets64: u64 = PKT64;
    }
}

/// An action's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Stats {
    /// Packets and bytes in software and hardware together.
    pub basic: Option<Basic>,
    /// Those that hardware handled.
    pub basic_hw: Option<Basic>,
    /// Drops and overlimits.
    pub queue: Option<Queue>,
    /// All packets, where [`Basic::packets`] has too few bits.
    pub packets64: Option<u64>,
    /// Counters of a kind that is not known here.
    #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(default))]
    pub unknown: Vec<Raw>,
}

impl Stats {
    pub(super) fn parse(attr: &Attr<'_>) -> Result<Self> {
        let table = attr.nest(&stats::ALL)?;
        let Known {
            basic,
            basic_hw,
            queue,
            packets64,
        } = Known::read(&table)?;
        Ok(Stats {
            basic,
            basic_hw,
            queue,
            packets64,
            unknown: table.rest(),
        })
    }

    pub(super) fn write(&self, out: &mut Writer) {
        let Stats {
            basic,
            basic_hw,
            queue,
            packets64,
            unknown,
        } = self;
        let known = Known {
            basic: *basic,
            basic_hw: *basic_hw,
            queue: *queue,
            packets64: *packets64,
        };
        known.write(out);
        out.put_raw(unknown);
    }

    /// Packets in all.
    pub fn packets(&self) -> u64 {
        self.packets64
            .unwrap_or_else(|| self.basic.unwrap_or_default().packets.into())
    }
}
