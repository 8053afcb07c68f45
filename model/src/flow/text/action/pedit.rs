//! Fields changed, checksums computed anew.

use super::super::line::Line;
use super::super::reader::{Read, Reader, bad, number};
use super::super::value_of;
use crate::Mac;
use crate::edit::{Csums, Field, FieldChange, FieldEdit};
use crate::flow::Action;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

const FIELD: &str = "a field: eth, ip, ip6, tcp, udp or sctp and then its name in tc-pedit(8)";
const VALUE: &str = "a value that fits the field";

/// Reads what follows `pedit`.
pub(super) fn read(reader: &mut Reader<'_>) -> Read<Action> {
    let _ = reader.accept("ex");
    let mut edits = Vec::new();
    while reader.accept("munge") {
        let (header, name) = (reader.value("pedit")?, reader.value("pedit")?);
        let full = format!("{header} {name}");
        let Some(field) = Field::ALL.iter().find(|field| field.name() == full) else {
            return bad("pedit", &full, FIELD);
        };
        edits.push(FieldEdit {
            field: *field,
            change: read_change(reader, *field)?,
        });
    }
    if edits.is_empty() {
        return bad("pedit", "", "munge and a field, at least once");
    }
    Ok(Action::Pedit(edits.into()))
}

fn read_change(reader: &mut Reader<'_>, field: Field) -> Read<FieldChange> {
    match reader.value("pedit")? {
        "dec" => Ok(FieldChange::Add(255)),
        "add" => Ok(FieldChange::Add(
            reader.number("pedit", "a number from 0 to 255")?,
        )),
        "set" => {
            let text = reader.value("pedit")?;
            let full = u128::MAX >> (128 - field.bits());
            let Some(value) = value_in(field, text).filter(|value| *value <= full) else {
                return bad("pedit", text, VALUE);
            };
            let mask = if reader.accept("retain") {
                let text = reader.value("pedit")?;
                match wide_number(text).filter(|mask| *mask <= full) {
                    Some(mask) => mask,
                    None => return bad("pedit", text, "a mask that fits the field"),
                }
            } else {
                full
            };
            let value = value & mask;
            Ok(FieldChange::Set { value, mask })
        }
        other => bad("pedit", other, "set VALUE [retain MASK], add N or dec"),
    }
}

fn value_in(field: Field, text: &str) -> Option<u128> {
    match field {
        Field::EthDst | Field::EthSrc => {
            let Mac([a, b, c, d, e, f]) = text.parse().ok()?;
            Some(u128::from(u64::from_be_bytes([0, 0, a, b, c, d, e, f])))
        }
        Field::Ipv4Src | Field::Ipv4Dst => {
            let address: Ipv4Addr = text.parse().ok()?;
            Some(u128::from(u32::from(address)))
        }
        Field::Ipv6Src | Field::Ipv6Dst => text.parse::<Ipv6Addr>().ok().map(u128::from),
        _ => number::<u64>(text).map(u128::from),
    }
}

/// As [`number`], of up to 128 bits.
fn wide_number(text: &str) -> Option<u128> {
    match text.strip_prefix("0x") {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            u128::from_str_radix(hex, 16).ok()
        }
        _ => number::<u64>(text).map(u128::from),
    }
}

pub(super) fn write(line: &mut Line<'_, '_>, edits: &[FieldEdit]) -> fmt::Result {
    line.word("pedit ex")?;
    for edit in edits {
        line.put("munge", edit.field.name())?;
        match edit.change {
            FieldChange::Add(n) => line.put("add", n)?,
            FieldChange::Set { value, mask } => {
                write_value(line, edit.field, value)?;
                if mask != u128::MAX >> (128 - edit.field.bits()) {
                    line.put("retain", format_args!("0x{mask:x}"))?;
                }
            }
        }
    }
    Ok(())
}

fn write_value(line: &mut Line<'_, '_>, field: Field, value: u128) -> fmt::Result {
    match field {
        Field::EthDst | Field::EthSrc => {
            let [_, _, mac @ ..] = (value as u64).to_be_bytes();
            line.put("set", Mac(mac))
        }
        Field::Ipv4Src | Field::Ipv4Dst => line.put("set", Ipv4Addr::from(value as u32)),
        Field::Ipv6Src | Field::Ipv6Dst => line.put("set", Ipv6Addr::from(value)),
        _ => line.put("set", value),
    }
}

/// Reads what follows `csum`.
pub(super) fn read_csum(reader: &mut Reader<'_>) -> Read<Action> {
    let text = reader.value("csum")?;
    let mut which = Csums::default();
    for name in text.split('/') {
        let Some(one) = value_of(&Csums::NAMES, name) else {
            let allowed = "ip4h, icmp, igmp, tcp, udp, udplite, sctp, or several with / between";
            return bad("csum", text, allowed);
        };
        which = which | one;
    }
    Ok(Action::Csum(which))
}

pub(super) fn write_csum(line: &mut Line<'_, '_>, which: Csums) -> fmt::Result {
    let given = Csums::NAMES.iter().filter(|(_, one)| which.contains(*one));
    let names: Vec<_> = given.map(|(name, _)| *name).collect();
    line.put("csum", names.join("/"))
}
