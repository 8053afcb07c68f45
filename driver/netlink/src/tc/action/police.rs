//! police: a token bucket (linux/pkt_cls.h, struct tc_police and TCA_POLICE_*).

use super::kind::{Options, word};
use super::{Control, Generic};
use crate::Result;
use crate::attr::{Attr, AttrSet, Table, Writer, attributes, record};

attributes! {
    /// TCA_POLICE_*
    pub mod police = "TCA_POLICE_" {
        UNSPEC, TBF, RATE, PEAKRATE, AVRATE, RESULT, TM, PAD, RATE64, PEAKRATE64, PKTRATE64,
        PKTBURST64,
    }
}

/// A rate (linux/pkt_sched.h, struct tc_ratespec).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Rate {
    /// How sizes are shifted to find their place in the rate table.
    pub cell_log: u8,
    /// TC_LINKLAYER_*.
    pub link_layer: u8,
    /// Bytes that each packet costs beside its own.
    pub overhead: u16,
    /// As above, in cells.
    pub cell_align: i16,
    /// No packet costs less.
    pub mpu: u16,
    /// Bytes per second; all ones where it has more than 32 bits.
    pub rate: u32,
}

impl Rate {
    fn parse(words: [u32; 3]) -> Self {
        let [a, b, rate] = words;
        let [cell_log, link_layer, overhead @ ..] = a.to_ne_bytes();
        let [align0, align1, mpu @ ..] = b.to_ne_bytes();
        Rate {
            cell_log,
            link_layer,
            overhead: u16::from_ne_bytes(overhead),
            cell_align: i16::from_ne_bytes([align0, align1]),
            mpu: u16::from_ne_bytes(mpu),
            rate,
        }
    }

    fn emit(&self, out: &mut Writer) {
        out.bytes(&[self.cell_log, self.link_layer]);
        out.bytes(&self.overhead.to_ne_bytes());
        out.bytes(&self.cell_align.to_ne_bytes());
        out.bytes(&self.mpu.to_ne_bytes());
        out.bytes(&self.rate.to_ne_bytes());
    }
}

record! {
    /// The attributes beside the struct.
    pub struct PoliceMore of police {
        /// The rate table, times for sizes; kernels since 3.8 compute their own.
        table: Vec<u8> = RATE;
        /// The same of the peak rate.
        peak_table: Vec<u8> = PEAKRATE;
        /// A rate measured over time that must not be exceeded.
        average_rate: u32 = AVRATE;
        /// TC_ACT_*: what follows when the bucket had enough.
        result: i32 = RESULT;
        /// Bytes per second, where 32 bits are too few.
        rate64: u64 = RATE64;
        /// Bytes per second, where 32 bits are too few.
        peak_rate64: u64 = PEAKRATE64;
        /// Packets per second.
        packet_rate: u64 = PKTRATE64;
        /// How many packets at once, as a time in scheduler ticks.
        packet_burst: u64 = PKTBURST64;
    }
}

/// A token bucket. [`Generic::control`] is what follows when it had too little.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Police {
    /// Unused.
    pub limit: u32,
    /// The bucket's size, as a time in scheduler ticks at the rate.
    pub burst: u32,
    /// Packets above it are too big; 0 for no limit.
    pub mtu: u32,
    /// How fast it fills.
    pub rate: Rate,
    /// How fast it may be emptied.
    pub peak_rate: Rate,
    /// The rest.
    pub more: PoliceMore,
}

impl Police {
    /// What follows when the bucket had enough.
    pub fn conform(&self) -> Control {
        self.more.result.map_or(Control::Ok, Control::from)
    }

    /// Bytes per second.
    pub fn bytes_per_second(&self) -> u64 {
        self.more.rate64.unwrap_or(self.rate.rate.into())
    }
}

/// Words of the struct before the two rates, and of all of it.
const HEAD: usize = 5;
const WORDS: usize = HEAD + 6 + 3;

impl Options for Police {
    const NAME: &'static str = "police";
    const SET: &'static AttrSet = &police::ALL;
    const PARMS: u16 = police::TBF;
    const TM: u16 = police::TM;

    /// Its struct keeps the same fields, but apart.
    fn generic<'a>(attr: &'a Attr<'_>) -> Result<(Generic, &'a [u8])> {
        let bytes: &[u8; 4 * WORDS] = attr.at_least()?;
        let (words, _) = bytes.as_chunks();
        let generic = Generic {
            index: u32::from_ne_bytes(words[0]),
            control: i32::from_ne_bytes(words[1]).into(),
            refs: i32::from_ne_bytes(words[WORDS - 3]),
            binds: i32::from_ne_bytes(words[WORDS - 2]),
            capab: u32::from_ne_bytes(words[WORDS - 1]),
        };
        Ok((generic, attr.value))
    }

    fn read_options(table: &Table<'_>, parms: &Attr<'_>, all: &[u8]) -> Result<Self> {
        let at = |index| word(parms, all, index);
        let rate = |first| Ok(Rate::parse([at(first)?, at(first + 1)?, at(first + 2)?]));
        Ok(Police {
            limit: at(2)?,
            burst: at(3)?,
            mtu: at(4)?,
            rate: rate(HEAD)?,
            peak_rate: rate(HEAD + 3)?,
            more: PoliceMore::read(table)?,
        })
    }

    fn write_options(&self, generic: &Generic, out: &mut Writer) {
        out.attr(police::TBF, |out| {
            out.bytes(&generic.index.to_ne_bytes());
            out.bytes(&i32::from(generic.control).to_ne_bytes());
            for word in [self.limit, self.burst, self.mtu] {
                out.bytes(&word.to_ne_bytes());
            }
            self.rate.emit(out);
            self.peak_rate.emit(out);
            out.bytes(&generic.refs.to_ne_bytes());
            out.bytes(&generic.binds.to_ne_bytes());
            out.bytes(&generic.capab.to_ne_bytes());
        });
        self.more.write(out);
    }
}
