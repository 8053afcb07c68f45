//! What tunnel_key set says about the outer headers.

use super::geneve::{GENEVE_OPTIONS_MAX, GeneveOptions, geneve_options};
use super::port;
use crate::Mac;
use std::net::{IpAddr, Ipv4Addr};

/// The protocol of a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TunnelKind {
    /// RFC 7348; also with a group policy (draft-smith-vxlan-group-policy).
    #[default]
    Vxlan,
    /// draft-ietf-nvo3-vxlan-gpe.
    VxlanGpe,
    /// RFC 8926.
    Geneve,
    /// RFC 2784 and 2890; with Ethernet inside what Linux calls gretap.
    Gre,
}

impl TunnelKind {
    /// As tc and ip-link call it.
    pub fn name(self) -> &'static str {
        match self {
            TunnelKind::Vxlan => "vxlan",
            TunnelKind::VxlanGpe => "vxlan-gpe",
            TunnelKind::Geneve => "geneve",
            TunnelKind::Gre => "gre",
        }
    }

    /// The UDP port of this kind; 0 for GRE.
    pub fn default_port(self) -> u16 {
        match self {
            TunnelKind::Vxlan => port::VXLAN,
            TunnelKind::VxlanGpe => port::VXLAN_GPE,
            TunnelKind::Geneve => port::GENEVE,
            TunnelKind::Gre => 0,
        }
    }
}

/// What travels in a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Payload {
    /// The whole frame.
    #[default]
    Ethernet,
    /// The IP packet alone; the frame's Ethernet header and tags are left behind. Not for VXLAN,
    /// which cannot say so.
    Ip,
}

/// The outer headers that a packet gets, all of them: what the kernel takes from its tunnel
/// device, its routes and its neighbours is given here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TunnelSet {
    /// Which protocol.
    pub kind: TunnelKind,
    /// What of the frame goes inside.
    pub payload: Payload,
    /// Outer destination MAC: the next hop's.
    pub eth_dst: Mac,
    /// Outer source MAC.
    pub eth_src: Mac,
    /// Outer source address.
    pub src: IpAddr,
    /// Outer destination address, of the same IP version.
    pub dst: IpAddr,
    /// The tunnel's key: the VNI (24 bits; `None` is 0), or GRE's key (`None`: without one).
    pub key: Option<u32>,
    /// UDP destination port; not used by GRE.
    pub dst_port: u16,
    /// DSCP of the outer header in the upper 6 bits; `None`: the inner packet's. The lower 2 bits
    /// always come from the inner packet (RFC 6040).
    pub tos: Option<u8>,
    /// Outer TTL or hop limit. 0, as in Linux: 64 over UDP, the inner packet's in GRE.
    pub ttl: u8,
    /// Outer IPv4: don't fragment.
    pub df: bool,
    /// With an outer UDP checksum, or GRE's.
    pub csum: bool,
    /// Outer IPv6 flow label, 20 bits.
    pub flow_label: u32,
    /// VXLAN group policy: `None` without one, else the extension's 32 bits as Linux has them
    /// (the policy's id in the lower 16, don't-learn 0x400000, applied 0x080000).
    pub gbp: Option<u32>,
    /// Geneve options as on the wire.
    pub options: GeneveOptions,
}

impl Default for TunnelSet {
    fn default() -> Self {
        Self {
            kind: TunnelKind::Vxlan,
            payload: Payload::Ethernet,
            eth_dst: Mac::default(),
            eth_src: Mac::default(),
            src: Ipv4Addr::UNSPECIFIED.into(),
            dst: Ipv4Addr::UNSPECIFIED.into(),
            key: None,
            dst_port: port::VXLAN,
            tos: Some(0),
            ttl: 0,
            df: false,
            csum: true,
            flow_label: 0,
            gbp: None,
            options: GeneveOptions::new(),
        }
    }
}

/// Bits of [`TunnelSet::gbp`] that exist (Linux: `VXLAN_GBP_MASK`).
pub(super) const GBP_MASK: u32 = 0x0048_ffff;

/// Why outer headers are not ones that can be made. Fields are named as in tc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TunnelSetError {
    /// One packet has one IP version.
    #[error("tunnel_key: src_ip {src} and dst_ip {dst} must both be IPv4 or both IPv6")]
    Versions {
        /// As given.
        src: IpAddr,
        /// As given.
        dst: IpAddr,
    },
    /// Nobody has that address.
    #[error("tunnel_key: {0} {1} is not an address to send from or to")]
    Address(&'static str, IpAddr),
    /// Longer than 24 bits.
    #[error("tunnel_key: id {0} is out of range, allowed are 0 to 16777215")]
    Key(u32),
    /// No UDP port.
    #[error("tunnel_key: dst_port 0 is out of range, allowed are 1 to 65535")]
    Port,
    /// Longer than 20 bits.
    #[error("tunnel_key: flow label {0} is out of range, allowed are 0 to 1048575")]
    FlowLabel(u32),
    /// Bits that the extension does not have.
    #[error("tunnel_key: vxlan_opts {0:#x} has bits outside {GBP_MASK:#x}")]
    Gbp(u32),
    /// Not as RFC 8926 §3.5 has options.
    #[error(
        "tunnel_key: geneve_opts must be whole options of at most {GENEVE_OPTIONS_MAX} bytes together"
    )]
    Options,
    /// A field of another kind of tunnel.
    #[error("tunnel_key: {field} is not for {kind}", kind = .kind.name())]
    NotForKind {
        /// The field.
        field: &'static str,
        /// The kind.
        kind: TunnelKind,
    },
}

impl TunnelSet {
    /// Whether these are headers that can be made.
    pub fn check(&self) -> Result<(), TunnelSetError> {
        let Self { kind, src, dst, .. } = *self;
        let not_for = |field| Err(TunnelSetError::NotForKind { field, kind });
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(TunnelSetError::Versions { src, dst });
        }
        if src.is_multicast() {
            return Err(TunnelSetError::Address("src_ip", src));
        }
        if dst.is_unspecified() {
            return Err(TunnelSetError::Address("dst_ip", dst));
        }
        match (kind, self.key) {
            (TunnelKind::Gre, _) | (_, None) => {}
            (_, Some(key)) if key >> 24 != 0 => return Err(TunnelSetError::Key(key)),
            _ => {}
        }
        if kind != TunnelKind::Gre && self.dst_port == 0 {
            return Err(TunnelSetError::Port);
        }
        if self.flow_label >> 20 != 0 {
            return Err(TunnelSetError::FlowLabel(self.flow_label));
        }
        if let Some(gbp) = self.gbp {
            if kind != TunnelKind::Vxlan {
                return not_for("vxlan_opts");
            }
            if gbp & !GBP_MASK != 0 {
                return Err(TunnelSetError::Gbp(gbp));
            }
        }
        if !self.options.is_empty() {
            if kind != TunnelKind::Geneve {
                return not_for("geneve_opts");
            }
            if geneve_options(&self.options).any(|option| option.is_none()) {
                return Err(TunnelSetError::Options);
            }
        }
        if kind == TunnelKind::Vxlan && self.payload == Payload::Ip {
            return not_for("a bare IP packet");
        }
        Ok(())
    }
}
