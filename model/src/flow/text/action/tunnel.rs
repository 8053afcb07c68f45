//! Tunnels put around packets.

use super::super::line::Line;
use super::super::reader::{Read, Reader, bad, number};
use super::super::tunnel::{option_list, option_text};
use crate::edit::{Payload, TunnelKind, TunnelSet};
use crate::flow::Action;
use crate::flow::tunnel_key::KINDS;
use std::fmt;
use std::net::IpAddr;

/// Reads what follows `tunnel_key`.
pub(super) fn read(reader: &mut Reader<'_>) -> Read<Action> {
    match reader.value("tunnel_key")? {
        "unset" => Ok(Action::TunnelUnset),
        "set" => Ok(Action::TunnelSet(Box::new(read_set(reader)?))),
        other => bad("tunnel_key", other, "set or unset"),
    }
}

fn read_set(reader: &mut Reader<'_>) -> Read<TunnelSet> {
    let mut set = TunnelSet::default();
    let (mut port, mut src, mut dst) = (None, None, None);
    loop {
        if reader.accept("kind") {
            let text = reader.value("tunnel_key kind")?;
            let Some(kind) = KINDS.into_iter().find(|kind| kind.name() == text) else {
                return bad("tunnel_key kind", text, "vxlan, vxlan-gpe, geneve or gre");
            };
            set.kind = kind;
        } else if reader.accept("payload") {
            set.payload = match reader.value("tunnel_key payload")? {
                "eth" => Payload::Ethernet,
                "ip" => Payload::Ip,
                other => return bad("tunnel_key payload", other, "eth or ip"),
            };
        } else if reader.accept("src_ip") {
            src = Some(address(reader, "tunnel_key src_ip")?);
        } else if reader.accept("dst_ip") {
            dst = Some(address(reader, "tunnel_key dst_ip")?);
        } else if reader.accept("src_mac") {
            set.eth_src = mac(reader, "tunnel_key src_mac")?;
        } else if reader.accept("dst_mac") {
            set.eth_dst = mac(reader, "tunnel_key dst_mac")?;
        } else if reader.accept("id") {
            set.key = Some(reader.number("tunnel_key id", "a number of at most 32 bits")?);
        } else if reader.accept("dst_port") {
            port = Some(reader.number("tunnel_key dst_port", "a port from 1 to 65535")?);
        } else if reader.accept("tos") {
            let text = reader.value("tunnel_key tos")?;
            set.tos = match (text, number(text)) {
                ("inherit", _) => None,
                (_, Some(tos)) => Some(tos),
                _ => return bad("tunnel_key tos", text, "a number from 0 to 255 or inherit"),
            };
        } else if reader.accept("ttl") {
            set.ttl = reader.number("tunnel_key ttl", "a number from 0 to 255")?;
        } else if reader.accept("nofrag") {
            set.df = true;
        } else if reader.accept("csum") {
            set.csum = true;
        } else if reader.accept("nocsum") {
            set.csum = false;
        } else if reader.accept("flow_label") {
            set.flow_label = reader.number("tunnel_key flow_label", "a number to 0xfffff")?;
        } else if reader.accept("vxlan_opts") {
            let allowed = "a number of at most 32 bits";
            set.gbp = Some(reader.number("tunnel_key vxlan_opts", allowed)?);
        } else if reader.accept("geneve_opts") {
            let text = reader.value("tunnel_key geneve_opts")?;
            let options = option_list(text).and_then(|bytes| bytes.as_slice().try_into().ok());
            let Some(options) = options else {
                let allowed = "CLASS:TYPE:DATA in hexadecimal, several with commas";
                return bad("tunnel_key geneve_opts", text, allowed);
            };
            set.options = options;
        } else {
            break;
        }
    }
    set.dst_port = port.unwrap_or(set.kind.default_port());
    match (src, dst) {
        (Some(src), Some(dst)) => (set.src, set.dst) = (src, dst),
        (None, _) => return bad("tunnel_key src_ip", "", "an address"),
        (_, None) => return bad("tunnel_key dst_ip", "", "an address"),
    }
    Ok(set)
}

fn address(reader: &mut Reader<'_>, key: &'static str) -> Read<IpAddr> {
    let text = reader.value(key)?;
    text.parse()
        .map_or_else(|_| bad(key, text, "an IPv4 or IPv6 address"), Ok)
}

fn mac(reader: &mut Reader<'_>, key: &'static str) -> Read<crate::Mac> {
    let text = reader.value(key)?;
    text.parse()
        .map_or_else(|_| bad(key, text, "an address as 02:00:00:00:00:01"), Ok)
}

pub(super) fn write(line: &mut Line<'_, '_>, set: &TunnelSet) -> fmt::Result {
    line.put("tunnel_key set kind", set.kind.name())?;
    if set.payload == Payload::Ip {
        line.word("payload ip")?;
    }
    line.put("src_ip", set.src)?;
    line.put("dst_ip", set.dst)?;
    if !set.eth_src.is_zero() {
        line.put("src_mac", set.eth_src)?;
    }
    if !set.eth_dst.is_zero() {
        line.put("dst_mac", set.eth_dst)?;
    }
    set.key.map_or(Ok(()), |key| line.put("id", key))?;
    if set.dst_port != set.kind.default_port() {
        line.put("dst_port", set.dst_port)?;
    }
    match set.tos {
        None => line.word("tos inherit")?,
        Some(0) => {}
        Some(tos) => line.put("tos", tos)?,
    }
    if set.ttl != 0 {
        line.put("ttl", set.ttl)?;
    }
    if set.df {
        line.word("nofrag")?;
    }
    if !set.csum {
        line.word("nocsum")?;
    }
    if set.flow_label != 0 {
        line.put("flow_label", set.flow_label)?;
    }
    set.gbp.map_or(Ok(()), |gbp| line.put("vxlan_opts", gbp))?;
    if set.kind == TunnelKind::Geneve && !set.options.is_empty() {
        line.put("geneve_opts", option_text(&set.options, &set.options))?;
    }
    Ok(())
}
