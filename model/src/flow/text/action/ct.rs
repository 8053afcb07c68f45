//! Connection tracking and address translation.

use super::super::ct::{read_label, write_label};
use super::super::line::Line;
use super::super::reader::{Read, Reader, bad, number};
use crate::ct::{CtAction, CtNat, CtSpec, NatRange};
use crate::flow::Action;
use std::fmt;
use std::net::IpAddr;

/// Reads what follows `ct`.
pub(super) fn read(reader: &mut Reader<'_>) -> Read<Action> {
    if reader.accept("clear") {
        return Ok(Action::Ct(Box::new(CtAction::Clear)));
    }
    let mut spec = CtSpec::default();
    loop {
        if reader.accept("zone") {
            spec.zone = reader.number("ct zone", "a number from 0 to 65535")?;
        } else if reader.accept("commit") {
            spec.commit = true;
        } else if reader.accept("force") {
            spec.force = true;
        } else if reader.accept("mark") {
            let allowed = "a number of at most 32 bits, or X/MASK";
            (spec.mark, spec.mark_mask) = reader.masked("ct mark", u32::MAX.into(), allowed)?;
        } else if reader.accept("label") {
            (spec.label, spec.label_mask) = read_label(reader, "ct label")?;
        } else if reader.accept("nat") {
            spec.nat = Some(read_nat(reader)?);
        } else {
            return Ok(Action::Ct(Box::new(CtAction::Track(spec))));
        }
    }
}

fn read_nat(reader: &mut Reader<'_>) -> Read<CtNat> {
    let dst = match (reader.accept("src"), reader.accept("dst")) {
        (false, false) => return Ok(CtNat::Existing),
        (_, dst) => dst,
    };
    const ADDRESS: &str = "ADDRESS or FIRST-LAST, of one kind of IP, the lower one first";
    const PORT: &str = "PORT or FIRST-LAST, the lower one first";
    if !reader.accept("addr") {
        return bad("ct nat addr", "", ADDRESS);
    }
    let text = reader.value("ct nat addr")?;
    let addresses = ends(text, |end| end.parse::<IpAddr>().ok());
    let Some((min, max)) = addresses else {
        return bad("ct nat addr", text, ADDRESS);
    };
    let ports = if reader.accept("port") {
        let text = reader.value("ct nat port")?;
        match ends(text, number::<u16>).filter(|(min, max)| min <= max) {
            Some(ports) => Some(ports),
            None => return bad("ct nat port", text, PORT),
        }
    } else {
        None
    };
    let Ok(range) = NatRange::new(min, max, ports) else {
        return bad("ct nat addr", text, ADDRESS);
    };
    Ok(if dst {
        CtNat::Dst(range)
    } else {
        CtNat::Src(range)
    })
}

/// Both ends of a range, or one thing twice.
fn ends<T: Copy>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<(T, T)> {
    match text.split_once('-') {
        Some((first, last)) => read(first).zip(read(last)),
        None => read(text).map(|one| (one, one)),
    }
}

pub(super) fn write(line: &mut Line<'_, '_>, ct: &CtAction) -> fmt::Result {
    let CtAction::Track(spec) = ct else {
        return line.word("ct clear");
    };
    line.word("ct")?;
    if spec.commit {
        line.word("commit")?;
    }
    if spec.force {
        line.word("force")?;
    }
    if spec.zone != 0 {
        line.put("zone", spec.zone)?;
    }
    line.masked("mark", spec.mark, spec.mark_mask, u32::MAX)?;
    write_label(line, "label", &spec.label, &spec.label_mask)?;
    let (word, range) = match spec.nat {
        None => return Ok(()),
        Some(CtNat::Existing) => return line.word("nat"),
        Some(CtNat::Src(range)) => ("nat src", range),
        Some(CtNat::Dst(range)) => ("nat dst", range),
    };
    line.word(word)?;
    match range.addresses() {
        (min, max) if min == max => line.put("addr", min)?,
        (min, max) => line.put("addr", format_args!("{min}-{max}"))?,
    }
    match range.ports() {
        None => Ok(()),
        Some((min, max)) if min == max => line.put("port", min),
        Some((min, max)) => line.put("port", format_args!("{min}-{max}")),
    }
}
