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

/// A packet's length in a rate table's steps: how far sizes are shifted so that the greatest, this
/// one, is among 256 (tc_calc_rtable of tc). tc takes 2047 where no MTU is given.
const TABLE_MTU: u32 = 2047;
const LINK_LAYER_ETHERNET: u8 = 1;

impl Police {
    /// Sets rate and peak rate in bytes per second, with the tables that the kernel still wants to
    /// see. The MTU comes first: the tables' steps depend on it.
    pub fn set_rate(&mut self, rate: u64, peak: Option<u64>) {
        let mtu = if self.mtu == 0 { TABLE_MTU } else { self.mtu };
        (self.rate, self.more.rate64, self.more.table) = rate_and_table(rate, mtu);
        if let Some(peak) = peak {
            (self.peak_rate, self.more.peak_rate64, self.more.peak_table) =
                rate_and_table(peak, mtu);
        }
    }
}

fn rate_and_table(rate: u64, mtu: u32) -> (Rate, Option<u64>, Option<Vec<u8>>) {
    let mut cell_log = 0;
    while mtu >> cell_log > 255 {
        cell_log += 1;
    }
    let spec = Rate {
        cell_log,
        link_layer: LINK_LAYER_ETHERNET,
        cell_align: -1,
        rate: u32::try_from(rate).unwrap_or(u32::MAX),
        ..Rate::default()
    };
    let sizes = (1..=256u64).map(|size| size << cell_log);
    let table = sizes.flat_map(|size| transmit_ticks(size, rate).to_ne_bytes());
    (
        spec,
        (rate > u64::from(u32::MAX)).then_some(rate),
        Some(table.collect()),
    )
}

/// How long so many bytes take, in ticks of 64 ns: computed as tc does, whole microseconds first
/// and in floating point, because the table must be the same to the last bit.
fn transmit_ticks(size: u64, rate: u64) -> u32 {
    let micros = (1e6 * (size as f64 / rate.max(1) as f64)) as u32;
    (f64::from(micros) * (1000.0 / 64.0)) as u32
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
