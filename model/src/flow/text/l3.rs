//! IPv4 and IPv6.

use super::line::Line;
use super::reader::{Read, Reader, bad, conflict, number};
use super::{name_of, value_of};
use crate::flow::{KeyFlags, Match};
use crate::wire::{eth_type, ip_proto};
use std::fmt;

/// Named IP protocols.
const IP_PROTOS: [(&str, u8); 5] = [
    ("tcp", ip_proto::TCP),
    ("udp", ip_proto::UDP),
    ("sctp", ip_proto::SCTP),
    ("icmp", ip_proto::ICMP),
    ("icmpv6", ip_proto::ICMPV6),
];

/// Named flags: which, and whether it is to be set.
const IP_FLAGS: [(&str, (u8, bool)); 4] = [
    ("frag", (KeyFlags::FRAG, true)),
    ("nofrag", (KeyFlags::FRAG, false)),
    ("firstfrag", (KeyFlags::FIRST_FRAG, true)),
    ("nofirstfrag", (KeyFlags::FIRST_FRAG, false)),
];

/// Reads the key if it is one of these.
pub(super) fn read(reader: &mut Reader<'_>, word: &str) -> Read<bool> {
    match word {
        "src_ip" => {
            let (value, mask) = read_ip(reader, "src_ip")?;
            (reader.matches.value.ip_src, reader.matches.mask.ip_src) = (value, mask);
        }
        "dst_ip" => {
            let (value, mask) = read_ip(reader, "dst_ip")?;
            (reader.matches.value.ip_dst, reader.matches.mask.ip_dst) = (value, mask);
        }
        "ip_proto" => {
            let key = reader.once("ip_proto")?;
            let text = reader.value(key)?;
            let Some(proto) = value_of(&IP_PROTOS, text).or_else(|| number(text)) else {
                let allowed = "tcp, udp, sctp, icmp, icmpv6 or a number from 0 to 255";
                return bad(key, text, allowed);
            };
            (reader.matches.value.ip_proto, reader.matches.mask.ip_proto) = (proto, u8::MAX);
        }
        "ip_tos" => {
            let key = reader.once("ip_tos")?;
            let (value, mask) = reader.masked(key, 0xff, "a number from 0 to 255, or X/MASK")?;
            (reader.matches.value.ip_tos, reader.matches.mask.ip_tos) = (value, mask);
        }
        "ip_ttl" => {
            let key = reader.once("ip_ttl")?;
            let (value, mask) = reader.masked(key, 0xff, "a number from 0 to 255, or X/MASK")?;
            (reader.matches.value.ip_ttl, reader.matches.mask.ip_ttl) = (value, mask);
        }
        "ip_flags" => read_flags(reader)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// An address also says which kind of IP it is.
fn read_ip(reader: &mut Reader<'_>, key: &'static str) -> Read<([u8; 16], [u8; 16])> {
    reader.once(key)?;
    let range = reader.ip(key)?;
    let family = if range.v6 {
        eth_type::IPV6
    } else {
        eth_type::IPV4
    };
    let Match { value, mask, .. } = &mut reader.matches;
    if mask.eth_type != 0 && value.eth_type != family {
        return conflict(key, range.text, reader.ip_key.unwrap_or("eth_type"));
    }
    (value.eth_type, mask.eth_type) = (family, u16::MAX);
    reader.ip_key.get_or_insert(key);
    Ok((range.value, range.mask))
}

fn read_flags(reader: &mut Reader<'_>) -> Read<()> {
    const ALLOWED: &str = "frag, nofrag, firstfrag, nofirstfrag, or two of them with / between";
    let key = reader.once("ip_flags")?;
    let text = reader.value(key)?;
    let Match { value, mask, .. } = &mut reader.matches;
    for name in text.split('/') {
        let Some((flag, set)) = value_of(&IP_FLAGS, name).filter(|(f, _)| mask.flags & f == 0)
        else {
            return bad(key, text, ALLOWED);
        };
        mask.flags |= flag;
        value.flags |= if set { flag } else { 0 };
    }
    Ok(())
}

/// Writes these keys.
pub(super) fn write(line: &mut Line<'_, '_>, matches: &Match) -> fmt::Result {
    let (value, mask) = (&matches.value, &matches.mask);
    let v6 = value.eth_type == eth_type::IPV6;
    if v6 || value.eth_type == eth_type::IPV4 {
        line.ip("src_ip", &value.ip_src, &mask.ip_src, v6)?;
        line.ip("dst_ip", &value.ip_dst, &mask.ip_dst, v6)?;
        if mask.ip_proto != 0 {
            match name_of(&IP_PROTOS, value.ip_proto) {
                Some(name) => line.put("ip_proto", name)?,
                None => line.put("ip_proto", value.ip_proto)?,
            }
        }
    }
    line.masked("ip_tos", value.ip_tos, mask.ip_tos, u8::MAX)?;
    line.masked("ip_ttl", value.ip_ttl, mask.ip_ttl, u8::MAX)?;
    let given = |flag: u8| (mask.flags & flag != 0).then_some((flag, value.flags & flag != 0));
    let names = [KeyFlags::FRAG, KeyFlags::FIRST_FRAG].map(given);
    let names: Vec<_> = names.into_iter().flatten().collect();
    if names.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = names
        .into_iter()
        .filter_map(|n| name_of(&IP_FLAGS, n))
        .collect();
    line.put("ip_flags", names.join("/"))
}
