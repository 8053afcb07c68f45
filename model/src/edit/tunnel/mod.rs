//! Tunnels: what is put around a packet, and what is found around one.
//!
//! | file | what lives there |
//! |---|---|
//! | `set` | what tunnel_key set says about the outer headers |
//! | `encap` | putting them on |
//! | `found` | recognizing and verifying them |
//! | `ports_text` | tunnels' UDP ports as text |
//! | `decap` | taking them off |
//! | `ecn` | congestion marks between the two headers |
//! | `geneve` | Geneve options |
//! | `entropy` | the UDP source port |

mod decap;
mod ecn;
mod encap;
mod entropy;
mod found;
mod geneve;
mod ports_text;
mod set;

pub use found::{FoundTunnel, TunnelPorts, find};
pub use geneve::{GENEVE_OPTIONS_MAX, GeneveOption, GeneveOptions, geneve_options};
pub use ports_text::TunnelPortsError;
pub use set::{Payload, TunnelKind, TunnelSet, TunnelSetError};

/// GRE header without its optional words.
const GRE_LEN: usize = 4;
/// VXLAN, VXLAN-GPE, and Geneve without options.
const VXLAN_LEN: usize = 8;
/// UDP destination ports (IANA).
pub mod port {
    /// VXLAN (RFC 7348).
    pub const VXLAN: u16 = 4789;
    /// VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe).
    pub const VXLAN_GPE: u16 = 4790;
    /// Geneve (RFC 8926).
    pub const GENEVE: u16 = 6081;
}

/// An Ethernet frame inside GRE or Geneve (IEEE: transparent Ethernet bridging).
const ETH_TYPE_TEB: u16 = 0x6558;

/// Next protocols of VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe §3.2).
mod gpe {
    pub(super) const IPV4: u8 = 1;
    pub(super) const IPV6: u8 = 2;
    pub(super) const ETHERNET: u8 = 3;
}

/// Bits of the first byte of VXLAN's header (RFC 7348 §5; draft-smith-vxlan-group-policy;
/// draft-ietf-nvo3-vxlan-gpe §3.1).
mod vxlan_flags {
    pub(super) const VNI: u8 = 0x08;
    pub(super) const GBP: u8 = 0x80;
    /// GPE: there is a next protocol.
    pub(super) const NEXT: u8 = 0x04;
    /// GPE: the version, 0.
    pub(super) const VERSION: u8 = 0x30;
    /// GPE: operations and management.
    pub(super) const OAM: u8 = 0x01;
}

/// Bits of GRE's first 16 (RFC 2784, RFC 2890).
mod gre_flags {
    pub(super) const CSUM: u16 = 0x8000;
    pub(super) const ROUTING: u16 = 0x4000;
    pub(super) const KEY: u16 = 0x2000;
    pub(super) const SEQUENCE: u16 = 0x1000;
    pub(super) const VERSION: u16 = 0x0007;
}
