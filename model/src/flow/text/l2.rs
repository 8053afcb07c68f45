//! Ports, addresses, EtherType, tags.

use super::line::{Line, Port};
use super::reader::{Read, Reader, bad, conflict, number};
use super::{name_of, value_of};
use crate::VportId;
use crate::flow::check::{FULL_VLAN, PRIO_VLAN};
use crate::flow::{FlowKey, KeyFlags, Match};
use crate::wire;
use std::fmt;

/// Named EtherTypes.
const ETH_TYPES: [(&str, u16); 6] = [
    ("ipv4", wire::eth_type::IPV4),
    ("ipv6", wire::eth_type::IPV6),
    ("arp", wire::eth_type::ARP),
    ("rarp", wire::eth_type::RARP),
    ("mpls_uc", wire::eth_type::MPLS_UC),
    ("mpls_mc", wire::eth_type::MPLS_MC),
];

/// Kinds of tag, with whether they set a tag's flag.
pub(super) const TPIDS: [(&str, bool); 2] = [("802.1q", false), ("802.1ad", true)];

/// What belongs to one of the two tags.
struct Tag {
    id: &'static str,
    prio: &'static str,
    tpid: &'static str,
    none: &'static str,
    flag: u8,
    field: fn(&mut FlowKey) -> &mut u16,
}

const OUTER: Tag = Tag {
    id: "vlan_id",
    prio: "vlan_prio",
    tpid: "vlan_tpid",
    none: "vlan_id none",
    flag: KeyFlags::VLAN_AD,
    field: |key| &mut key.vlan,
};
const INNER: Tag = Tag {
    id: "cvlan_id",
    prio: "cvlan_prio",
    tpid: "cvlan_tpid",
    none: "cvlan_id none",
    flag: KeyFlags::CVLAN_AD,
    field: |key| &mut key.cvlan,
};

/// The EtherType with this name or number.
pub(super) fn eth_type(text: &str) -> Option<u16> {
    value_of(&ETH_TYPES, text).or_else(|| number(text))
}

/// An EtherType as it is written.
pub(super) struct EthType(pub(super) u16);

impl fmt::Display for EthType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match name_of(&ETH_TYPES, self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:04x}", self.0),
        }
    }
}

/// Reads the key if it is one of these.
pub(super) fn read(reader: &mut Reader<'_>, word: &str) -> Read<bool> {
    match word {
        "in_port" => {
            let key = reader.once("in_port")?;
            reader.matches.value.in_port = reader.port(key)?.0 as u16;
            reader.matches.mask.in_port = u16::MAX;
        }
        "block" => {
            let key = reader.once("block")?;
            let text = reader.value(key)?;
            let Some(block) = number(text).filter(|block| *block > 0) else {
                return bad(key, text, "a number from 1 to 65535");
            };
            (reader.matches.value.block, reader.matches.mask.block) = (block, u16::MAX);
        }
        "src_mac" => {
            let key = reader.once("src_mac")?;
            let (value, mask) = reader.mac(key)?;
            (reader.matches.value.eth_src, reader.matches.mask.eth_src) = (value, mask);
        }
        "dst_mac" => {
            let key = reader.once("dst_mac")?;
            let (value, mask) = reader.mac(key)?;
            (reader.matches.value.eth_dst, reader.matches.mask.eth_dst) = (value, mask);
        }
        "eth_type" => read_eth_type(reader)?,
        "vlan_id" => read_id(reader, &OUTER)?,
        "vlan_prio" => read_prio(reader, &OUTER)?,
        "vlan_tpid" => read_tpid(reader, &OUTER)?,
        "cvlan_id" => read_id(reader, &INNER)?,
        "cvlan_prio" => read_prio(reader, &INNER)?,
        "cvlan_tpid" => read_tpid(reader, &INNER)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn read_eth_type(reader: &mut Reader<'_>) -> Read<()> {
    let key = reader.once("eth_type")?;
    let text = reader.value(key)?;
    let Some(value) = eth_type(text) else {
        let allowed = "ipv4, ipv6, arp, rarp, mpls_uc, mpls_mc or a number from 0 to 0xffff";
        return bad(key, text, allowed);
    };
    if let Some(with) = reader.ip_key
        && reader.matches.value.eth_type != value
    {
        return conflict(key, text, with);
    }
    reader.matches.value.eth_type = value;
    reader.matches.mask.eth_type = u16::MAX;
    Ok(())
}

fn read_id(reader: &mut Reader<'_>, tag: &Tag) -> Read<()> {
    let key = reader.once(tag.id)?;
    let text = reader.value(key)?;
    let (value, mask) = match text {
        "none" => (0, FULL_VLAN),
        "any" => (FlowKey::VLAN_PRESENT, FlowKey::VLAN_PRESENT),
        _ => match number::<u16>(text).filter(|vid| *vid <= 4094) {
            Some(vid) => (FlowKey::VLAN_PRESENT | vid, FULL_VLAN),
            None => return bad(key, text, "a number from 0 to 4094, any or none"),
        },
    };
    if value == 0 && (reader.has(tag.prio) || reader.has(tag.tpid)) {
        let with = if reader.has(tag.prio) {
            tag.prio
        } else {
            tag.tpid
        };
        return conflict(key, text, with);
    }
    add(reader, tag, value, mask);
    Ok(())
}

fn read_prio(reader: &mut Reader<'_>, tag: &Tag) -> Read<()> {
    let key = reader.once(tag.prio)?;
    let text = reader.value(key)?;
    let Some(prio) = number::<u16>(text).filter(|prio| *prio <= 7) else {
        return bad(key, text, "a number from 0 to 7");
    };
    tagged(reader, tag, key, text)?;
    add(reader, tag, FlowKey::VLAN_PRESENT | prio << 13, PRIO_VLAN);
    Ok(())
}

fn read_tpid(reader: &mut Reader<'_>, tag: &Tag) -> Read<()> {
    let key = reader.once(tag.tpid)?;
    let text = reader.value(key)?;
    let Some(ad) = value_of(&TPIDS, text) else {
        return bad(key, text, "802.1q or 802.1ad");
    };
    tagged(reader, tag, key, text)?;
    add(reader, tag, FlowKey::VLAN_PRESENT, FlowKey::VLAN_PRESENT);
    reader.matches.mask.flags |= tag.flag;
    if ad {
        reader.matches.value.flags |= tag.flag;
    }
    Ok(())
}

/// What a tag has is in no packet without one.
fn tagged(reader: &mut Reader<'_>, tag: &Tag, key: &'static str, text: &str) -> Read<()> {
    let Match { value, mask, .. } = &mut reader.matches;
    if *(tag.field)(mask) != 0 && *(tag.field)(value) == 0 {
        return conflict(key, text, tag.none);
    }
    Ok(())
}

fn add(reader: &mut Reader<'_>, tag: &Tag, value: u16, mask: u16) {
    *(tag.field)(&mut reader.matches.value) |= value;
    *(tag.field)(&mut reader.matches.mask) |= mask;
}

/// Writes these keys.
pub(super) fn write(line: &mut Line<'_, '_>, matches: &Match) -> fmt::Result {
    let (value, mask) = (&matches.value, &matches.mask);
    if mask.in_port != 0 {
        let names = line.names;
        line.put("in_port", Port(VportId(value.in_port.into()), names))?;
    }
    if mask.block != 0 {
        line.put("block", value.block)?;
    }
    line.mac("src_mac", value.eth_src, mask.eth_src)?;
    line.mac("dst_mac", value.eth_dst, mask.eth_dst)?;
    if mask.eth_type != 0 {
        line.put("eth_type", EthType(value.eth_type))?;
    }
    write_tag(
        line,
        &OUTER,
        (value.vlan, mask.vlan),
        (value.flags, mask.flags),
    )?;
    write_tag(
        line,
        &INNER,
        (value.cvlan, mask.cvlan),
        (value.flags, mask.flags),
    )
}

fn write_tag(
    line: &mut Line<'_, '_>,
    tag: &Tag,
    (value, mask): (u16, u16),
    (flags, flags_mask): (u8, u8),
) -> fmt::Result {
    let (prio, tpid) = (mask & FlowKey::VLAN_PRIO != 0, flags_mask & tag.flag != 0);
    if mask != 0 && value == 0 {
        line.put(tag.id, "none")?;
    } else if mask & FlowKey::VLAN_ID != 0 {
        line.put(tag.id, value & FlowKey::VLAN_ID)?;
    } else if mask != 0 && !prio && !tpid {
        line.put(tag.id, "any")?;
    }
    if prio {
        line.put(tag.prio, value >> 13)?;
    }
    if tpid && let Some(name) = name_of(&TPIDS, flags & tag.flag != 0) {
        line.put(tag.tpid, name)?;
    }
    Ok(())
}
