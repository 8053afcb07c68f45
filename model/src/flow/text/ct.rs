//! What connection tracking said.

use super::line::{Hex, Line};
use super::reader::{Read, Reader, bad, hex_bytes};
use super::value_of;
use crate::flow::{CtState, Match};
use std::fmt;

const STATES: [(&str, u16); 6] = [
    ("new", CtState::NEW),
    ("est", CtState::EST),
    ("rel", CtState::REL),
    ("trk", CtState::TRK),
    ("inv", CtState::INV),
    ("rpl", CtState::RPL),
];

/// Reads the key if it is one of these.
pub(super) fn read(reader: &mut Reader<'_>, word: &str) -> Read<bool> {
    match word {
        "ct_state" => {
            let key = reader.once("ct_state")?;
            let text = reader.value(key)?;
            let Some((value, mask)) = states(text) else {
                let allowed = "each of new, est, rel, trk, inv and rpl at most once with + or - \
                               before it, as +trk-new";
                return bad(key, text, allowed);
            };
            let ct = &mut reader.matches.more_mut().ct;
            (ct.value.state, ct.mask.state) = (value, mask);
        }
        "ct_zone" => {
            let key = reader.once("ct_zone")?;
            let allowed = "a number from 0 to 65535, or X/MASK";
            let (value, mask) = reader.masked(key, 0xffff, allowed)?;
            let ct = &mut reader.matches.more_mut().ct;
            (ct.value.zone, ct.mask.zone) = (value, mask);
        }
        "ct_mark" => {
            let key = reader.once("ct_mark")?;
            let allowed = "a number of at most 32 bits, or X/MASK";
            let (value, mask) = reader.masked(key, u32::MAX.into(), allowed)?;
            let ct = &mut reader.matches.more_mut().ct;
            (ct.value.mark, ct.mask.mark) = (value, mask);
        }
        "ct_label" => {
            let key = reader.once("ct_label")?;
            let (value, mask) = read_label(reader, key)?;
            let ct = &mut reader.matches.more_mut().ct;
            (ct.value.label, ct.mask.label) = (value, mask);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Which bits are to be set, and which count.
fn states(text: &str) -> Option<(u16, u16)> {
    let (mut value, mut mask) = (0, 0);
    let mut rest = text;
    while !rest.is_empty() {
        let set = match rest.as_bytes()[0] {
            b'+' => true,
            b'-' => false,
            _ => return None,
        };
        rest = &rest[1..];
        let end = rest.find(['+', '-']).unwrap_or(rest.len());
        let bit = value_of(&STATES, &rest[..end]).filter(|bit| mask & bit == 0)?;
        mask |= bit;
        value |= if set { bit } else { 0 };
        rest = &rest[end..];
    }
    (mask != 0).then_some((value, mask))
}

/// A label and the bits of it that count; digits left out at the end are zero.
pub(super) fn read_label(reader: &mut Reader<'_>, key: &'static str) -> Read<([u8; 16], [u8; 16])> {
    let text = reader.value(key)?;
    let label = |text: &str| {
        let bytes = hex_bytes(text).filter(|bytes| (1..=16).contains(&bytes.len()))?;
        let mut label = [0; 16];
        label[..bytes.len()].copy_from_slice(&bytes);
        Some(label)
    };
    let pair = match text.split_once('/') {
        Some((value, mask)) => label(value).zip(label(mask)),
        None => label(text).map(|value| (value, [0xff; 16])),
    };
    let Some((mut value, mask)) = pair else {
        return bad(
            key,
            text,
            "up to 32 hexadecimal digits, two for each byte, or X/MASK",
        );
    };
    value.iter_mut().zip(mask).for_each(|(v, m)| *v &= m);
    Ok((value, mask))
}

/// Writes a label with its mask.
pub(super) fn write_label(
    line: &mut Line<'_, '_>,
    key: &str,
    value: &[u8; 16],
    mask: &[u8; 16],
) -> fmt::Result {
    match *mask {
        [0xff, ..] if mask.iter().all(|b| *b == 0xff) => line.put(key, Hex(value)),
        _ if *mask == [0; 16] => Ok(()),
        _ => line.put(key, format_args!("{}/{}", Hex(value), Hex(mask))),
    }
}

/// Writes these keys.
pub(super) fn write(line: &mut Line<'_, '_>, matches: &Match) -> fmt::Result {
    let Some(more) = &matches.more else {
        return Ok(());
    };
    let (value, mask) = (&more.ct.value, &more.ct.mask);
    if mask.state != 0 {
        let given = STATES.iter().filter(|(_, bit)| mask.state & bit != 0);
        let text: String = given
            .map(|(name, bit)| {
                let sign = if value.state & bit != 0 { '+' } else { '-' };
                format!("{sign}{name}")
            })
            .collect();
        line.put("ct_state", text)?;
    }
    line.masked("ct_zone", value.zone, mask.zone, u16::MAX)?;
    line.masked("ct_mark", value.mark, mask.mark, u32::MAX)?;
    write_label(line, "ct_label", &value.label, &mask.label)
}
