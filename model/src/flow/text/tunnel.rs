//! Outer headers.

use super::line::{Hex, Line};
use super::reader::{Read, Reader, bad, conflict, hex_bytes, masked_number};
use super::value_of;
use crate::edit::TunnelKind;
use crate::edit::tunnel::GENEVE_OPTIONS_MAX;
use crate::flow::tunnel_key::KINDS;
use crate::flow::{Masked, Match, TunnelFlags, TunnelKey};
use std::fmt::{self, Write as _};

const FLAGS: [(&str, u8); 5] = [
    ("df", TunnelFlags::DF),
    ("csum", TunnelFlags::CSUM),
    ("oam", TunnelFlags::OAM),
    ("crit", TunnelFlags::CRIT),
    ("key", TunnelFlags::KEY),
];

/// Reads the key if it is one of these.
pub(super) fn read(reader: &mut Reader<'_>, word: &str) -> Read<bool> {
    const BYTE: &str = "a number from 0 to 255, or X/MASK";
    const PORT: &str = "a port from 0 to 65535";
    match word {
        "enc_kind" => {
            let key = reader.once("enc_kind")?;
            let text = reader.value(key)?;
            let Some(kind) = KINDS.into_iter().find(|kind| kind.name() == text) else {
                return bad(key, text, "vxlan, vxlan-gpe, geneve or gre");
            };
            set_kind(reader, key, text, kind)?;
        }
        "enc_key_id" => {
            let key = reader.once("enc_key_id")?;
            let id = reader.number(key, "a number of at most 32 bits")?;
            let part = part(reader);
            (part.value.id, part.mask.id) = (id, u32::MAX);
        }
        "enc_src_ip" => {
            let (value, mask) = read_ip(reader, "enc_src_ip")?;
            let part = part(reader);
            (part.value.src, part.mask.src) = (value, mask);
        }
        "enc_dst_ip" => {
            let (value, mask) = read_ip(reader, "enc_dst_ip")?;
            let part = part(reader);
            (part.value.dst, part.mask.dst) = (value, mask);
        }
        "enc_src_port" => {
            let key = reader.once("enc_src_port")?;
            let port = reader.number(key, PORT)?;
            let part = part(reader);
            (part.value.src_port, part.mask.src_port) = (port, u16::MAX);
        }
        "enc_dst_port" => {
            let key = reader.once("enc_dst_port")?;
            let port = reader.number(key, PORT)?;
            let part = part(reader);
            (part.value.dst_port, part.mask.dst_port) = (port, u16::MAX);
        }
        "enc_tos" => {
            let key = reader.once("enc_tos")?;
            let (value, mask) = reader.masked(key, 0xff, BYTE)?;
            let part = part(reader);
            (part.value.tos, part.mask.tos) = (value, mask);
        }
        "enc_ttl" => {
            let key = reader.once("enc_ttl")?;
            let (value, mask) = reader.masked(key, 0xff, BYTE)?;
            let part = part(reader);
            (part.value.ttl, part.mask.ttl) = (value, mask);
        }
        "enc_flags" => read_flags(reader)?,
        "geneve_opts" => {
            let key = reader.once("geneve_opts")?;
            let text = reader.value(key)?;
            set_kind(reader, key, text, TunnelKind::Geneve)?;
            let Some((value, mask)) = geneve_options(text) else {
                let allowed = "CLASS:TYPE:DATA in hexadecimal (4, 2 and up to 248 digits, whole \
                               words), several with commas, a mask behind /, or none";
                return bad(key, text, allowed);
            };
            set_options(reader, &value, &mask);
        }
        "vxlan_opts" => {
            let key = reader.once("vxlan_opts")?;
            let text = reader.value(key)?;
            set_kind(reader, key, text, TunnelKind::Vxlan)?;
            let Some((value, mask)) = masked_number(text, u32::MAX.into()) else {
                return bad(key, text, "a number of at most 32 bits, or X/MASK");
            };
            let (value, mask) = ((value as u32).to_be_bytes(), (mask as u32).to_be_bytes());
            set_options(reader, &value, &mask);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn part<'r>(reader: &'r mut Reader<'_>) -> &'r mut Masked<TunnelKey> {
    reader.matches.more_mut().tunnel.get_or_insert_default()
}

fn set_kind(reader: &mut Reader<'_>, key: &'static str, text: &str, kind: TunnelKind) -> Read<()> {
    let part = part(reader);
    if part.mask.kind != 0 && part.value.kind != TunnelKey::number(kind) {
        return conflict(key, text, "another kind of tunnel");
    }
    (part.value.kind, part.mask.kind) = (TunnelKey::number(kind), u8::MAX);
    Ok(())
}

fn read_ip(reader: &mut Reader<'_>, key: &'static str) -> Read<([u8; 16], [u8; 16])> {
    reader.once(key)?;
    let range = reader.ip(key)?;
    let part = part(reader);
    let family = if range.v6 { TunnelFlags::IPV6 } else { 0 };
    if part.mask.flags & TunnelFlags::IPV6 != 0 && part.value.flags & TunnelFlags::IPV6 != family {
        return conflict(key, range.text, "the other address");
    }
    part.mask.flags |= TunnelFlags::IPV6;
    part.value.flags |= family;
    Ok((range.value, range.mask))
}

fn read_flags(reader: &mut Reader<'_>) -> Read<()> {
    let key = reader.once("enc_flags")?;
    let text = reader.value(key)?;
    let part = part(reader);
    for word in text.split('/') {
        let found = value_of(&FLAGS, word).map(|flag| (flag, true));
        let found = found.or_else(|| {
            let flag = value_of(&FLAGS, word.strip_prefix("no")?)?;
            Some((flag, false))
        });
        let Some((flag, set)) = found.filter(|(flag, _)| part.mask.flags & flag == 0) else {
            let allowed = "df, csum, oam, crit, key or their opposites (nodf …), with / between";
            return bad(key, text, allowed);
        };
        part.mask.flags |= flag;
        part.value.flags |= if set { flag } else { 0 };
    }
    Ok(())
}

fn set_options(reader: &mut Reader<'_>, value: &[u8], mask: &[u8]) {
    let part = part(reader);
    part.value.options_len = value.len() as u16;
    part.mask.options_len = u16::MAX;
    part.value.options[..value.len()].copy_from_slice(value);
    part.mask.options[..mask.len()].copy_from_slice(mask);
}

/// Options and their masks as on the wire (RFC 8926 §3.5): class, type, length in words, data.
fn geneve_options(text: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    if text == "none" {
        return Some((Vec::new(), Vec::new()));
    }
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (value, Some(mask)),
        None => (text, None),
    };
    let value = option_list(value)?;
    // The length counts wherever there is an option.
    let mut bits: Vec<u8> = Vec::new();
    let mut at = 0;
    while let Some(length) = value.get(at + 3) {
        let len = 4 + usize::from(*length) * 4;
        bits.extend([0xff, 0xff, 0xff, 0x1f]);
        bits.resize(at + len, 0xff);
        at += len;
    }
    if let Some(mask) = mask {
        let mask = option_list(mask)?;
        if mask.len() != bits.len() {
            return None;
        }
        let mut at = 0;
        while let Some(length) = value.get(at + 3) {
            if mask[at + 3] != *length {
                return None;
            }
            let len = 4 + usize::from(*length) * 4;
            bits[at..at + 3].copy_from_slice(&mask[at..at + 3]);
            bits[at + 4..at + len].copy_from_slice(&mask[at + 4..at + len]);
            at += len;
        }
    }
    let value = value.iter().zip(&bits).map(|(v, m)| v & m).collect();
    Some((value, bits))
}

/// `CLASS:TYPE:DATA` with commas between.
pub(super) fn option_list(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for option in text.split(',') {
        let mut parts = option.split(':').map(hex_bytes);
        let (class, kind, data) = (parts.next()??, parts.next()??, parts.next()??);
        let fits = class.len() == 2 && kind.len() == 1 && data.len() % 4 == 0 && data.len() <= 124;
        if !fits || parts.next().is_some() {
            return None;
        }
        bytes.extend(class);
        bytes.extend(kind);
        bytes.push((data.len() / 4) as u8);
        bytes.extend(data);
    }
    (bytes.len() <= GENEVE_OPTIONS_MAX).then_some(bytes)
}

/// Writes options as [`option_list`] reads them; `lengths` has the length bytes.
pub(super) fn option_text(options: &[u8], lengths: &[u8]) -> String {
    let mut text = String::new();
    let mut at = 0;
    while let Some([class @ .., kind, _]) = options.get(at..at + 4)
        && let Some(length) = lengths.get(at + 3)
    {
        let end = at + 4 + usize::from(length & 0x1f) * 4;
        let data = options.get(at + 4..end).unwrap_or_default();
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{}:{kind:02x}:{}", Hex(class), Hex(data));
        at = end;
    }
    text
}

/// Writes these keys.
pub(super) fn write(line: &mut Line<'_, '_>, matches: &Match) -> fmt::Result {
    let Some(Masked { value, mask }) = matches.tunnel() else {
        return Ok(());
    };
    let kind = value.tunnel_kind();
    let options = mask.options_len != 0;
    if let Some(kind) = kind
        && !options
    {
        line.put("enc_kind", kind.name())?;
    }
    if mask.id != 0 {
        line.put("enc_key_id", value.id)?;
    }
    let v6 = value.flags & TunnelFlags::IPV6 != 0;
    let family_only =
        mask.flags & TunnelFlags::IPV6 != 0 && (mask.src, mask.dst) == ([0; 16], [0; 16]);
    if family_only {
        line.put("enc_dst_ip", if v6 { "::/0" } else { "0.0.0.0/0" })?;
    }
    line.ip("enc_src_ip", &value.src, &mask.src, v6)?;
    line.ip("enc_dst_ip", &value.dst, &mask.dst, v6)?;
    line.masked("enc_src_port", value.src_port, mask.src_port, u16::MAX)?;
    line.masked("enc_dst_port", value.dst_port, mask.dst_port, u16::MAX)?;
    line.masked("enc_tos", value.tos, mask.tos, u8::MAX)?;
    line.masked("enc_ttl", value.ttl, mask.ttl, u8::MAX)?;
    let given = FLAGS.iter().filter(|(_, flag)| mask.flags & flag != 0);
    let names = given.map(|(name, flag)| {
        let not = if value.flags & flag == 0 { "no" } else { "" };
        format!("{not}{name}")
    });
    let names: Vec<_> = names.collect();
    if !names.is_empty() {
        line.put("enc_flags", names.join("/"))?;
    }
    if options {
        write_options(line, value, mask, kind)?;
    }
    Ok(())
}

fn write_options(
    line: &mut Line<'_, '_>,
    value: &TunnelKey,
    mask: &TunnelKey,
    kind: Option<TunnelKind>,
) -> fmt::Result {
    let options = value.options();
    let bits = &mask.options[..options.len()];
    if kind == Some(TunnelKind::Vxlan) {
        let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |b| u32::from_be_bytes(*b));
        return match (word(options), word(bits)) {
            (value, u32::MAX) => line.put("vxlan_opts", value),
            (value, mask) => line.put("vxlan_opts", format_args!("{value}/0x{mask:x}")),
        };
    }
    if options.is_empty() {
        return line.put("geneve_opts", "none");
    }
    let full = geneve_options(&option_text(options, options)).is_some_and(|(_, all)| all == bits);
    let text = option_text(options, options);
    if full {
        return line.put("geneve_opts", text);
    }
    line.put(
        "geneve_opts",
        format_args!("{text}/{}", option_text(bits, options)),
    )
}
