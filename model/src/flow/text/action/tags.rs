//! Tags and labels put on, taken off, changed.

use super::super::l2::{EthType, TPIDS, eth_type};
use super::super::line::Line;
use super::super::reader::{Read, Reader, bad, number};
use super::super::{name_of, value_of};
use crate::edit::{MplsModify, MplsPush, VlanModify, VlanProto, VlanTag};
use crate::flow::Action;
use crate::wire;
use std::fmt;

const VID: &str = "a number from 0 to 4094";
const PRIO: &str = "a number from 0 to 7";

/// Reads what follows `vlan`.
pub(super) fn read_vlan(reader: &mut Reader<'_>) -> Read<Action> {
    let modify = match reader.value("vlan")? {
        "pop" => return Ok(Action::VlanPop),
        "push" => false,
        "modify" => true,
        other => return bad("vlan", other, "push, pop or modify"),
    };
    let (mut vid, mut prio, mut proto) = (None, None, VlanProto::Dot1Q);
    loop {
        if reader.accept("id") {
            vid = Some(small(reader, "vlan id", 4094, VID)?);
        } else if reader.accept("priority") {
            prio = Some(small(reader, "vlan priority", 7, PRIO)? as u8);
        } else if reader.accept("protocol") {
            let text = reader.value("vlan protocol")?;
            proto = match value_of(&TPIDS, text) {
                Some(false) => VlanProto::Dot1Q,
                Some(true) => VlanProto::Dot1Ad,
                None => return bad("vlan protocol", text, "802.1q or 802.1ad"),
            };
        } else {
            break;
        }
    }
    let Some(vid) = vid else {
        return bad("vlan id", "", VID);
    };
    Ok(if modify {
        Action::VlanModify(VlanModify { proto, vid, prio })
    } else {
        let prio = prio.unwrap_or(0);
        Action::VlanPush(VlanTag { proto, vid, prio })
    })
}

/// A number of at most `max`.
fn small(reader: &mut Reader<'_>, key: &'static str, max: u16, allowed: &'static str) -> Read<u16> {
    let text = reader.value(key)?;
    let found = number::<u16>(text).filter(|n| *n <= max);
    found.map_or_else(|| bad(key, text, allowed), Ok)
}

pub(super) fn write_push(line: &mut Line<'_, '_>, tag: &VlanTag) -> fmt::Result {
    line.put("vlan push id", tag.vid)?;
    write_proto(line, tag.proto)?;
    if tag.prio != 0 {
        line.put("priority", tag.prio)?;
    }
    Ok(())
}

pub(super) fn write_modify(line: &mut Line<'_, '_>, to: &VlanModify) -> fmt::Result {
    line.put("vlan modify id", to.vid)?;
    write_proto(line, to.proto)?;
    to.prio.map_or(Ok(()), |prio| line.put("priority", prio))
}

fn write_proto(line: &mut Line<'_, '_>, proto: VlanProto) -> fmt::Result {
    match name_of(&TPIDS, proto == VlanProto::Dot1Ad) {
        Some(name) if proto != VlanProto::default() => line.put("protocol", name),
        _ => Ok(()),
    }
}

/// The fields of a label that were given.
#[derive(Default)]
struct Label {
    proto: Option<u16>,
    to: MplsModify,
}

/// Reads what follows `mpls`.
pub(super) fn read_mpls(reader: &mut Reader<'_>) -> Read<Action> {
    const PROTO: &str = "mpls_uc or mpls_mc";
    match reader.value("mpls")? {
        "dec_ttl" => Ok(Action::MplsDecTtl),
        "pop" => match read_label(reader)? {
            Label {
                proto: Some(proto),
                to,
            } if to == MplsModify::default() => Ok(Action::MplsPop(proto)),
            _ => bad("mpls pop", "", "protocol ETHERTYPE and nothing else"),
        },
        "push" => {
            let Label { proto, to } = read_label(reader)?;
            let Some(label) = to.label else {
                return bad("mpls label", "", "a number from 0 to 1048575");
            };
            let proto = proto.unwrap_or(wire::eth_type::MPLS_UC);
            if !matches!(proto, wire::eth_type::MPLS_UC | wire::eth_type::MPLS_MC) {
                return bad("mpls protocol", &EthType(proto).to_string(), PROTO);
            }
            Ok(Action::MplsPush(MplsPush {
                proto,
                label,
                tc: to.tc.unwrap_or(0),
                ttl: to.ttl.unwrap_or(255),
                bos: to.bos,
            }))
        }
        "modify" => match read_label(reader)? {
            Label { proto: None, to } => Ok(Action::MplsModify(to)),
            _ => bad("mpls modify", "protocol", "label, tc, ttl or bos"),
        },
        other => bad("mpls", other, "push, pop, modify or dec_ttl"),
    }
}

fn read_label(reader: &mut Reader<'_>) -> Read<Label> {
    let mut label = Label::default();
    loop {
        if reader.accept("protocol") {
            let text = reader.value("mpls protocol")?;
            let Some(proto) = eth_type(text) else {
                return bad("mpls protocol", text, "an EtherType");
            };
            label.proto = Some(proto);
        } else if reader.accept("label") {
            let text = reader.value("mpls label")?;
            let Some(n) = number::<u32>(text).filter(|n| *n <= 0xf_ffff) else {
                return bad("mpls label", text, "a number from 0 to 1048575");
            };
            label.to.label = Some(n);
        } else if reader.accept("tc") {
            label.to.tc = Some(small(reader, "mpls tc", 7, PRIO)? as u8);
        } else if reader.accept("ttl") {
            label.to.ttl = Some(reader.number("mpls ttl", "a number from 0 to 255")?);
        } else if reader.accept("bos") {
            label.to.bos = Some(small(reader, "mpls bos", 1, "0 or 1")? == 1);
        } else {
            return Ok(label);
        }
    }
}

pub(super) fn write_label(line: &mut Line<'_, '_>, push: &MplsPush) -> fmt::Result {
    line.put("mpls push protocol", EthType(push.proto))?;
    write_fields(
        line,
        &MplsModify {
            label: Some(push.label),
            tc: Some(push.tc),
            ttl: Some(push.ttl),
            bos: push.bos,
        },
    )
}

pub(super) fn write_relabel(line: &mut Line<'_, '_>, to: &MplsModify) -> fmt::Result {
    line.word("mpls modify")?;
    write_fields(line, to)
}

fn write_fields(line: &mut Line<'_, '_>, to: &MplsModify) -> fmt::Result {
    to.label.map_or(Ok(()), |n| line.put("label", n))?;
    to.tc.map_or(Ok(()), |n| line.put("tc", n))?;
    to.ttl.map_or(Ok(()), |n| line.put("ttl", n))?;
    to.bos.map_or(Ok(()), |n| line.put("bos", u8::from(n)))
}
