//! Meters.

use super::super::line::Line;
use super::super::reader::{Read, Reader, bad, number};
use crate::flow::{Action, Control, Police};
use crate::meter::{ByteRate, MeterSpec, PacketRate};
use std::fmt;

const RATE: &str =
    "a rate: a number and bit, kbit, mbit or gbit (a second), or bps (bytes a second)";
const INDEX: &str = "a number from 1 to 4294967295";
const BURST: &str = "a number of bytes of at most 32 bits";

/// Units of a rate: a number of them is multiplied by the first and divided by the second to be
/// bytes a second.
const UNITS: [(&str, u64, u64); 5] = [
    ("kbit", 125, 1),
    ("mbit", 125_000, 1),
    ("gbit", 125_000_000, 1),
    ("bit", 1, 8),
    ("bps", 1, 1),
];

/// Reads what follows `police`.
pub(super) fn read(reader: &mut Reader<'_>) -> Read<Action> {
    let (mut rate, mut burst, mut peak, mut mtu) = (None, None, None, None);
    let (mut packet_rate, mut packet_burst) = (None, None);
    let mut index = 0;
    let (mut exceed, mut conform) = (Control::Drop, Control::Pipe);
    loop {
        if reader.accept("index") {
            index = reader.number("police index", INDEX)?;
            if index == 0 {
                return bad("police index", "0", INDEX);
            }
        } else if reader.accept("rate") {
            rate = Some(read_rate(reader, "police rate")?);
        } else if reader.accept("burst") {
            burst = Some(reader.number("police burst", BURST)?);
        } else if reader.accept("peakrate") {
            peak = Some(read_rate(reader, "police peakrate")?);
        } else if reader.accept("mtu") {
            mtu = Some(reader.number("police mtu", BURST)?);
        } else if reader.accept("pkts_rate") {
            packet_rate = Some(reader.number("police pkts_rate", "packets a second")?);
        } else if reader.accept("pkts_burst") {
            packet_burst = Some(reader.number("police pkts_burst", "a number of packets")?);
        } else if reader.accept("conform-exceed") {
            let text = reader.value("police conform-exceed")?;
            let (first, second) = text.split_once('/').unwrap_or((text, "pipe"));
            let (Some(first), Some(second)) = (control(first), control(second)) else {
                let allowed = "EXCEED or EXCEED/CONFORM, each drop, pass, pipe or goto:CHAIN";
                return bad("police conform-exceed", text, allowed);
            };
            (exceed, conform) = (first, second);
        } else {
            break;
        }
    }
    let bytes = match (rate, burst) {
        (Some(rate), Some(burst)) => Some(ByteRate { rate, burst, peak }),
        (None, None) if peak.is_none() => None,
        (None, _) => return bad("police rate", "", RATE),
        (_, None) => return bad("police burst", "", BURST),
    };
    let packets = match (packet_rate, packet_burst) {
        (Some(rate), Some(burst)) => Some(PacketRate { rate, burst }),
        (None, None) => None,
        _ => {
            return bad(
                "police",
                "pkts_rate or pkts_burst",
                "both or none of the two",
            );
        }
    };
    Ok(Action::Police(Box::new(Police {
        index,
        meter: MeterSpec {
            bytes,
            packets,
            mtu,
        },
        exceed,
        conform,
    })))
}

fn read_rate(reader: &mut Reader<'_>, key: &'static str) -> Read<u64> {
    let text = reader.value(key)?;
    let found = UNITS.iter().find_map(|(unit, times, over)| {
        let n = number::<u64>(text.strip_suffix(unit)?)?;
        n.checked_mul(*times).map(|n| n / over)
    });
    found.map_or_else(|| bad(key, text, RATE), Ok)
}

fn control(text: &str) -> Option<Control> {
    match text {
        "drop" => Some(Control::Drop),
        "pass" | "ok" => Some(Control::Pass),
        "pipe" => Some(Control::Pipe),
        _ => number(text.strip_prefix("goto:")?).map(Control::Goto),
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Control::Drop => f.write_str("drop"),
            Control::Pass => f.write_str("pass"),
            Control::Pipe => f.write_str("pipe"),
            Control::Goto(chain) => write!(f, "goto:{chain}"),
        }
    }
}

pub(super) fn write(line: &mut Line<'_, '_>, police: &Police) -> fmt::Result {
    line.word("police")?;
    if police.index != 0 {
        line.put("index", police.index)?;
    }
    if police.is_reference() {
        return Ok(());
    }
    let MeterSpec {
        bytes,
        packets,
        mtu,
    } = &police.meter;
    if let Some(ByteRate { rate, burst, peak }) = bytes {
        line.put("rate", format_args!("{rate}bps"))?;
        line.put("burst", burst)?;
        if let Some(peak) = peak {
            line.put("peakrate", format_args!("{peak}bps"))?;
        }
    }
    if let Some(PacketRate { rate, burst }) = packets {
        line.put("pkts_rate", rate)?;
        line.put("pkts_burst", burst)?;
    }
    mtu.map_or(Ok(()), |mtu| line.put("mtu", mtu))?;
    line.put(
        "conform-exceed",
        format_args!("{}/{}", police.exceed, police.conform),
    )
}
