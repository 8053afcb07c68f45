//! The second look at a packet in a tunnel: what is inside.

use crate::VportId;
use crate::edit::tunnel::{FoundTunnel, TunnelPorts, find};
use crate::edit::{Payload, TunnelKind};
use crate::flow::{FlowKey, KeyFlags, TunnelFlags, TunnelKey};
use crate::wire::{self, ETH_HEADER_LEN, HEAD_LEN, ip_proto};
use std::net::IpAddr;

/// What is in a tunnel, and the headers around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct InnerView {
    pub(super) flow: FlowKey,
    pub(super) tunnel: TunnelKey,
}

/// Whether a packet may be in a tunnel, by what is known of it already.
#[inline]
pub(super) fn may_be_tunnel(key: &FlowKey, ports: &TunnelPorts) -> bool {
    key.flags & KeyFlags::FRAG == 0
        && match key.ip_proto {
            ip_proto::UDP => ports.get(key.l4_dst).is_some(),
            ip_proto::GRE => true,
            _ => false,
        }
}

/// Looks inside. `None` if there is no tunnel, or one whose headers are malformed or too long to
/// be seen: such a packet is what its outer headers say, and nothing more.
pub(super) fn look_inside(
    head: &[u8],
    frame_len: u32,
    outer: &FlowKey,
    ports: &TunnelPorts,
) -> Option<InnerView> {
    let found = find(head, frame_len, ports).ok()??;
    let inside = head.get(found.inner..)?;
    let len = (found.end as u32).saturating_sub(found.inner as u32);
    let mut flow = match found.payload {
        Payload::Ethernet => wire::parse(inside, len, VportId::UPLINK).ok()?.key,
        Payload::Ip => bare(inside, len, found.payload_type)?,
    };
    (flow.in_port, flow.block) = (outer.in_port, outer.block);
    let tunnel = tunnel_key(&found);
    Some(InnerView { flow, tunnel })
}

/// The key of an IP packet without Ethernet header: as if it had one of zeros, which is what it
/// gets when it is taken out of the tunnel.
fn bare(packet: &[u8], len: u32, eth_type: u16) -> Option<FlowKey> {
    let mut frame = [0; ETH_HEADER_LEN + HEAD_LEN];
    frame[12..14].copy_from_slice(&eth_type.to_be_bytes());
    let known = packet.len().min(HEAD_LEN).min(len as usize);
    frame[ETH_HEADER_LEN..ETH_HEADER_LEN + known].copy_from_slice(&packet[..known]);
    let head = &frame[..ETH_HEADER_LEN + known];
    let parsed = wire::parse(head, len + ETH_HEADER_LEN as u32, VportId::UPLINK);
    parsed.ok().map(|parsed| parsed.key)
}

fn tunnel_key(found: &FoundTunnel<'_>) -> TunnelKey {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let mut key = TunnelKey {
        src: spread(found.src),
        dst: spread(found.dst),
        id: found.key.unwrap_or(0),
        src_port: found.src_port,
        dst_port: found.dst_port,
        tos: found.tos,
        ttl: found.ttl,
        kind: TunnelKey::number(found.kind),
        flags: flag(found.dst.is_ipv6(), TunnelFlags::IPV6)
            | flag(found.df, TunnelFlags::DF)
            | flag(found.csum, TunnelFlags::CSUM)
            | flag(found.oam, TunnelFlags::OAM)
            | flag(found.critical, TunnelFlags::CRIT)
            | flag(
                found.kind == TunnelKind::Gre && found.key.is_some(),
                TunnelFlags::KEY,
            ),
        ..TunnelKey::default()
    };
    let gbp = found.gbp.map(u32::to_be_bytes);
    let options = gbp.as_ref().map_or(found.options, |gbp| &gbp[..]);
    let len = options.len().min(key.options.len());
    key.options[..len].copy_from_slice(&options[..len]);
    key.options_len = len as u16;
    // The reserved bits of an option's length count for nobody.
    let mut at = 3;
    while found.gbp.is_none()
        && let Some(length) = key.options[..len].get_mut(at)
    {
        *length &= 0x1f;
        at += 4 + usize::from(*length) * 4;
    }
    key
}

fn spread(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}
