//! Which packets a rule is for.

use super::{CtKey, FlowKey, KeyFlags, TunnelKey};
use crate::wire::{eth_type, ip_proto};
use crate::{Mac, VportId};
use bytemuck::Pod;

/// A value and the bits of it that count; zero wherever the mask is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Masked<T> {
    /// Wanted bits.
    pub value: T,
    /// Bits that count.
    pub mask: T,
}

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// The lowest.
    pub min: u16,
    /// The highest.
    pub max: u16,
}

impl PortRange {
    /// Whether the port is one of them.
    #[inline]
    pub fn contains(self, port: u16) -> bool {
        (self.min..=self.max).contains(&port)
    }
}

/// Which packets a rule is for: those that agree with every part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Wanted bits of the packet's headers; zero wherever the mask is zero.
    pub value: FlowKey,
    /// Bits that count.
    pub mask: FlowKey,
    /// What few rules ask for; `None` rather than nothing at all.
    pub more: Option<Box<More>>,
}

/// The parts of a [`Match`] that few rules have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct More {
    /// What connection tracking said.
    pub ct: Masked<CtKey>,
    /// The outer headers. A rule with this part is for the inner packet of a tunnelled one, and
    /// takes it out of the tunnel.
    pub tunnel: Option<Box<Masked<TunnelKey>>>,
    /// Source ports.
    pub src_ports: Option<PortRange>,
    /// Destination ports.
    pub dst_ports: Option<PortRange>,
}

impl More {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it asks for ports out of a range, which no mask can say.
    pub fn has_ranges(&self) -> bool {
        self.src_ports.is_some() || self.dst_ports.is_some()
    }
}

/// All that a look-up knows of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its headers.
    pub flow: &'a FlowKey,
    /// What connection tracking said.
    pub ct: &'a CtKey,
    /// What is in the tunnel, if it is a tunnelled packet, or was taken out of one.
    pub inner: Option<Inner<'a>>,
}

/// A packet in a tunnel, or taken out of one.
#[derive(Clone, Copy, Debug)]
pub struct Inner<'a> {
    /// Its headers.
    pub flow: &'a FlowKey,
    /// The headers around it.
    pub tunnel: &'a TunnelKey,
}

/// Nothing was tracked.
static UNTRACKED: CtKey = CtKey {
    label: [0; 16],
    mark: 0,
    state: 0,
    zone: 0,
};

impl<'a> Seen<'a> {
    /// A packet that was neither tracked nor tunnelled.
    #[inline]
    pub fn plain(flow: &'a FlowKey) -> Self {
        Self {
            flow,
            ct: &UNTRACKED,
            inner: None,
        }
    }
}

impl Match {
    /// The narrowest match for packets with these headers: all that there is of them in the
    /// packet.
    pub fn exact(key: &FlowKey) -> Self {
        let mut mask = FlowKey {
            eth_dst: Mac::BROADCAST,
            eth_src: Mac::BROADCAST,
            in_port: u16::MAX,
            eth_type: u16::MAX,
            ..FlowKey::default()
        };
        if key.block != 0 {
            mask.block = u16::MAX;
        }
        for (tag, mask) in [(key.vlan, &mut mask.vlan), (key.cvlan, &mut mask.cvlan)] {
            if tag & FlowKey::VLAN_PRESENT != 0 {
                *mask = u16::MAX;
            }
        }
        let address = match key.eth_type {
            eth_type::IPV4 => 4,
            eth_type::IPV6 => 16,
            eth_type::ARP | eth_type::RARP => 10,
            _ => 0,
        };
        mask.ip_src[..address].fill(0xff);
        mask.ip_dst[..address].fill(0xff);
        match key.eth_type {
            eth_type::IPV4 | eth_type::IPV6 => {
                (mask.ip_proto, mask.ip_tos, mask.ip_ttl) = (u8::MAX, u8::MAX, u8::MAX);
                mask.flags = key.flags & (KeyFlags::FRAG | KeyFlags::FIRST_FRAG);
                if mask.flags == 0 {
                    exact_transport(key.ip_proto, &mut mask);
                }
            }
            eth_type::ARP | eth_type::RARP => mask.ip_proto = u8::MAX,
            _ => {}
        }
        Self {
            value: key.masked(&mask),
            mask,
            more: None,
        }
    }

    /// All packets that come in on `vport`.
    pub fn from_port(vport: VportId) -> Self {
        let mut matches = Self::default();
        (matches.value.in_port, matches.mask.in_port) = (vport.0 as u16, u16::MAX);
        matches
    }

    /// The vport that packets must come in on.
    pub fn in_port(&self) -> Option<VportId> {
        (self.mask.in_port != 0).then(|| self.value.vport())
    }

    /// The rarer parts, to be written to.
    pub fn more_mut(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Drops the rarer parts if they ask for nothing, so that equal matches are equal.
    pub fn normalize(&mut self) {
        self.more.take_if(|more| more.is_empty());
    }

    /// The outer headers it asks for.
    pub fn tunnel(&self) -> Option<&Masked<TunnelKey>> {
        self.more.as_ref()?.tunnel.as_deref()
    }

    /// Whether it is for packets in a tunnel.
    pub fn is_tunnel(&self) -> bool {
        self.tunnel().is_some()
    }

    /// Whether the packet is meant. A match that asks for outer headers is about the inner ones,
    /// too.
    pub fn covers(&self, seen: Seen<'_>) -> bool {
        let flow = match (self.tunnel(), seen.inner) {
            (None, _) => seen.flow,
            (Some(want), Some(inner)) if want.covers(inner.tunnel) => inner.flow,
            (Some(_), _) => return false,
        };
        let more = self.more.as_ref();
        flow.masked(&self.mask) == self.value
            && more.is_none_or(|more| more.ct.covers(seen.ct) && more.in_ranges(flow))
    }
}

/// Adds what a transport header of this protocol holds.
fn exact_transport(proto: u8, mask: &mut FlowKey) {
    match proto {
        ip_proto::ICMP | ip_proto::ICMPV6 => mask.l4_src = u16::MAX,
        _ if ip_proto::has_ports(proto) => (mask.l4_src, mask.l4_dst) = (u16::MAX, u16::MAX),
        _ => {}
    }
    if proto == ip_proto::TCP {
        mask.tcp_flags = 0xfff;
    }
}

impl<T: Pod> Masked<T> {
    /// Whether `seen` agrees.
    pub fn covers(&self, seen: &T) -> bool {
        let bytes = bytemuck::bytes_of(seen).iter();
        let wanted = bytemuck::bytes_of(&self.value).iter();
        let mut wanted = bytes.zip(wanted).zip(bytemuck::bytes_of(&self.mask));
        wanted.all(|((seen, value), mask)| seen & mask == *value)
    }
}

impl More {
    /// Whether the packet's ports are in the ranges asked for.
    #[inline]
    pub fn in_ranges(&self, flow: &FlowKey) -> bool {
        self.src_ports
            .is_none_or(|range| range.contains(flow.l4_src))
            && self
                .dst_ports
                .is_none_or(|range| range.contains(flow.l4_dst))
    }
}
