//! ARP and MPLS.

use super::line::Line;
use super::reader::{Read, Reader, bad, conflict};
use super::{name_of, value_of};
use crate::flow::{FlowKey, MPLS_MAX, Match};
use crate::wire::eth_type;
use std::fmt;

const OPERATIONS: [(&str, u8); 2] = [("request", 1), ("reply", 2)];

/// The fields of a label stack entry (RFC 3032 §2.1): name, lowest bit, highest value. The names
/// of deeper ones have the depth behind them.
struct Field {
    names: [&'static str; MPLS_MAX],
    shift: u32,
    max: u32,
}

macro_rules! field {
    ($name:literal, $shift:literal, $max:literal) => {
        Field {
            names: [
                $name,
                concat!($name, "@2"),
                concat!($name, "@3"),
                concat!($name, "@4"),
                concat!($name, "@5"),
                concat!($name, "@6"),
                concat!($name, "@7"),
            ],
            shift: $shift,
            max: $max,
        }
    };
}

const FIELDS: [Field; 4] = [
    field!("mpls_label", 12, 0xfffff),
    field!("mpls_tc", 9, 7),
    field!("mpls_bos", 8, 1),
    field!("mpls_ttl", 0, 255),
];

/// Reads the key if it is one of these.
pub(super) fn read(reader: &mut Reader<'_>, word: &str) -> Read<bool> {
    match word {
        "arp_op" => {
            let key = reader.once("arp_op")?;
            let text = reader.value(key)?;
            let Some(op) = value_of(&OPERATIONS, text) else {
                return bad(key, text, "request or reply");
            };
            if reader.has("ip_proto") {
                return conflict(key, text, "ip_proto");
            }
            (reader.matches.value.ip_proto, reader.matches.mask.ip_proto) = (op, u8::MAX);
        }
        "arp_sip" => read_ip(reader, "arp_sip", |key| &mut key.ip_src)?,
        "arp_tip" => read_ip(reader, "arp_tip", |key| &mut key.ip_dst)?,
        "arp_sha" => read_mac(reader, "arp_sha", |key| &mut key.ip_src)?,
        "arp_tha" => read_mac(reader, "arp_tha", |key| &mut key.ip_dst)?,
        _ => return read_mpls(reader, word),
    }
    Ok(true)
}

fn read_ip(
    reader: &mut Reader<'_>,
    key: &'static str,
    field: fn(&mut FlowKey) -> &mut [u8; 16],
) -> Read<()> {
    reader.once(key)?;
    if let Some(with) = reader.ip_key {
        return conflict(key, "", with);
    }
    let range = reader.ip(key)?;
    if range.v6 {
        return bad(
            key,
            range.text,
            "an IPv4 address, address/length or address/mask",
        );
    }
    let Match { value, mask, .. } = &mut reader.matches;
    field(value)[..4].copy_from_slice(&range.value[..4]);
    field(mask)[..4].copy_from_slice(&range.mask[..4]);
    Ok(())
}

fn read_mac(
    reader: &mut Reader<'_>,
    key: &'static str,
    field: fn(&mut FlowKey) -> &mut [u8; 16],
) -> Read<()> {
    reader.once(key)?;
    if let Some(with) = reader.ip_key {
        return conflict(key, "", with);
    }
    let (address, bits) = reader.mac(key)?;
    let Match { value, mask, .. } = &mut reader.matches;
    field(value)[4..10].copy_from_slice(&address.0);
    field(mask)[4..10].copy_from_slice(&bits.0);
    Ok(())
}

fn read_mpls(reader: &mut Reader<'_>, word: &str) -> Read<bool> {
    for field in &FIELDS {
        let Some(depth) = field.names.iter().position(|name| *name == word) else {
            continue;
        };
        let key = reader.once(field.names[depth])?;
        let allowed = match field.max {
            0xfffff => "a number from 0 to 1048575",
            7 => "a number from 0 to 7",
            1 => "0 or 1",
            _ => "a number from 0 to 255",
        };
        let text = reader.value(key)?;
        let Some(number) = super::reader::number::<u32>(text).filter(|n| *n <= field.max) else {
            return bad(key, text, allowed);
        };
        if let Some(with) = reader.ip_key {
            return conflict(key, text, with);
        }
        let Match { value, mask, .. } = &mut reader.matches;
        value.set_mpls(depth, value.mpls(depth) | number << field.shift);
        mask.set_mpls(depth, mask.mpls(depth) | field.max << field.shift);
        return Ok(true);
    }
    Ok(false)
}

/// Writes these keys.
pub(super) fn write(line: &mut Line<'_, '_>, matches: &Match) -> fmt::Result {
    match matches.value.eth_type {
        eth_type::ARP | eth_type::RARP => write_arp(line, &matches.value, &matches.mask),
        eth_type::MPLS_UC | eth_type::MPLS_MC => write_mpls(line, &matches.value, &matches.mask),
        _ => Ok(()),
    }
}

fn write_arp(line: &mut Line<'_, '_>, value: &FlowKey, mask: &FlowKey) -> fmt::Result {
    if mask.ip_proto != 0 {
        match name_of(&OPERATIONS, value.ip_proto) {
            Some(name) => line.put("arp_op", name)?,
            None => line.put("arp_op", value.ip_proto)?,
        }
    }
    let wide = |[a, b, c, d]: [u8; 4]| [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let sides = [
        ("arp_sip", "arp_sha", value.arp_sender(), mask.arp_sender()),
        ("arp_tip", "arp_tha", value.arp_target(), mask.arp_target()),
    ];
    for (ip_key, mac_key, (ip, mac), (ip_mask, mac_mask)) in sides {
        line.ip(ip_key, &wide(ip), &wide(ip_mask), false)?;
        line.mac(mac_key, mac, mac_mask)?;
    }
    Ok(())
}

fn write_mpls(line: &mut Line<'_, '_>, value: &FlowKey, mask: &FlowKey) -> fmt::Result {
    for depth in 0..MPLS_MAX {
        for field in &FIELDS {
            if mask.mpls(depth) >> field.shift & field.max != 0 {
                let number = value.mpls(depth) >> field.shift & field.max;
                line.put(field.names[depth], number)?;
            }
        }
    }
    Ok(())
}
