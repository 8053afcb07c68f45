//! Ports, TCP flags, ICMP.

use super::line::Line;
use super::reader::{Read, Reader, bad, masked_number, number};
use crate::flow::{Match, PortRange};
use std::fmt;

/// Reads the key if it is one of these.
pub(super) fn read(reader: &mut Reader<'_>, word: &str) -> Read<bool> {
    match word {
        "src_port" => match read_port(reader, "src_port")? {
            Port::Masked(value, mask) => {
                (reader.matches.value.l4_src, reader.matches.mask.l4_src) = (value, mask);
            }
            Port::Range(range) => reader.matches.more_mut().src_ports = Some(range),
        },
        "dst_port" => match read_port(reader, "dst_port")? {
            Port::Masked(value, mask) => {
                (reader.matches.value.l4_dst, reader.matches.mask.l4_dst) = (value, mask);
            }
            Port::Range(range) => reader.matches.more_mut().dst_ports = Some(range),
        },
        "tcp_flags" => {
            let key = reader.once("tcp_flags")?;
            let (value, mask) = reader.masked(key, 0xfff, "a number from 0 to 0xfff, or X/MASK")?;
            (
                reader.matches.value.tcp_flags,
                reader.matches.mask.tcp_flags,
            ) = (value, mask);
        }
        "type" => read_icmp(reader, "type", 8)?,
        "code" => read_icmp(reader, "code", 0)?,
        _ => return Ok(false),
    }
    Ok(true)
}

enum Port {
    Masked(u16, u16),
    Range(PortRange),
}

fn read_port(reader: &mut Reader<'_>, key: &'static str) -> Read<Port> {
    const ALLOWED: &str = "a port from 0 to 65535, port/mask, or MIN-MAX with MIN below MAX";
    reader.once(key)?;
    let text = reader.value(key)?;
    let port = match text.split_once('-') {
        None => masked_number(text, 0xffff).map(|(v, m)| Port::Masked(v as u16, m as u16)),
        Some((min, max)) => match (number::<u16>(min), number::<u16>(max)) {
            (Some(min), Some(max)) if min < max => Some(Port::Range(PortRange { min, max })),
            _ => None,
        },
    };
    port.map_or_else(|| bad(key, text, ALLOWED), Ok)
}

/// Type and code are the two bytes of one field.
fn read_icmp(reader: &mut Reader<'_>, key: &'static str, shift: u32) -> Read<()> {
    reader.once(key)?;
    let (value, mask): (u16, u16) =
        reader.masked(key, 0xff, "a number from 0 to 255, or X/MASK")?;
    reader.matches.value.l4_src |= value << shift;
    reader.matches.mask.l4_src |= mask << shift;
    Ok(())
}

/// Writes these keys.
pub(super) fn write(line: &mut Line<'_, '_>, matches: &Match) -> fmt::Result {
    let (value, mask) = (&matches.value, &matches.mask);
    if matches.is_icmp() {
        let ((kind, code), (kind_mask, code_mask)) = (value.icmp(), mask.icmp());
        line.masked("type", kind, kind_mask, u8::MAX)?;
        line.masked("code", code, code_mask, u8::MAX)?;
    } else {
        let more = matches.more.as_ref();
        line.masked("src_port", value.l4_src, mask.l4_src, u16::MAX)?;
        write_range(line, "src_port", more.and_then(|m| m.src_ports))?;
        line.masked("dst_port", value.l4_dst, mask.l4_dst, u16::MAX)?;
        write_range(line, "dst_port", more.and_then(|m| m.dst_ports))?;
    }
    match mask.tcp_flags {
        0 => Ok(()),
        0xfff => line.put("tcp_flags", format_args!("0x{:x}", value.tcp_flags)),
        mask => line.put(
            "tcp_flags",
            format_args!("0x{:x}/0x{mask:x}", value.tcp_flags),
        ),
    }
}

fn write_range(line: &mut Line<'_, '_>, key: &str, range: Option<PortRange>) -> fmt::Result {
    match range {
        Some(PortRange { min, max }) => line.put(key, format_args!("{min}-{max}")),
        None => Ok(()),
    }
}
