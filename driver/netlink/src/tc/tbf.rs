//! tbf: a rate, with packets kept back that come faster (linux/pkt_sched.h, TCA_TBF_*).

use crate::attr::{Attr, Table, Writer, attributes};
use crate::{Error, Result};

attributes! {
    /// TCA_TBF_*
    pub mod tbf = "TCA_TBF_" { UNSPEC, PARMS, RTAB, PTAB, RATE64, PRATE64, BURST, PBURST, PAD }
}

/// Words of struct tc_tbf_qopt: two of struct tc_ratespec, then limit, buffer and mtu.
const RATE_WORDS: usize = 3;
const WORDS: usize = 2 * RATE_WORDS + 3;
/// TC_LINKLAYER_ETHERNET: says that no rate table comes with the options.
const ETHERNET: u8 = 1;

/// A rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tbf {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that may be sent at once; the kernel keeps it as a time, and does not tell it.
    pub burst: u32,
    /// Bytes that may wait.
    pub limit: u32,
}

impl Tbf {
    /// TCA_KIND.
    pub const KIND: &'static str = "tbf";

    /// The qdisc's options.
    pub fn options(&self) -> Vec<u8> {
        let narrow = u32::try_from(self.rate).unwrap_or(u32::MAX);
        let mut out = Writer::new();
        out.attr(tbf::PARMS, |out| {
            // struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate.
            out.bytes(&[0, ETHERNET, 0, 0, 0, 0, 0, 0]);
            out.bytes(&narrow.to_ne_bytes());
            out.bytes(&[0; 4 * RATE_WORDS]);
            out.bytes(&self.limit.to_ne_bytes());
            // buffer, mtu: TCA_TBF_BURST says it in bytes.
            out.bytes(&[0; 8]);
        });
        out.put(tbf::BURST, &self.burst);
        if self.rate > u64::from(narrow) {
            out.put(tbf::RATE64, &self.rate);
        }
        // Far below the length that does not fit.
        out.finish().unwrap_or_default()
    }

    /// Reads the qdisc's options.
    pub fn parse(options: &[u8]) -> Result<Self> {
        let table = Table::new(&tbf::ALL, options)?;
        let parms: Attr<'_> = table.attr(tbf::PARMS).ok_or(Error::Missing {
            family: "TCA_TBF_",
            attr: "PARMS",
        })?;
        let (words, _) = parms.at_least::<{ 4 * WORDS }>()?.as_chunks();
        let word = |i: usize| u32::from_ne_bytes(words[i]);
        let rate = table.get(tbf::RATE64)?;
        Ok(Tbf {
            rate: rate.unwrap_or_else(|| word(RATE_WORDS - 1).into()),
            burst: table.get(tbf::BURST)?.unwrap_or(0),
            limit: word(2 * RATE_WORDS),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_as_it_was_written() {
        for rate in [1, 125_000_000, 1 << 40] {
            let tbf = Tbf {
                rate,
                burst: 66_000,
                limit: 1_000_000,
            };
            assert_eq!(Tbf::parse(&tbf.options()).unwrap(), tbf);
        }
        assert!(Tbf::parse(&[]).is_err());
        assert!(Tbf::parse(&[8, 0, 1, 0, 0, 0, 0, 0]).is_err());
    }
}
