//! What frames look like: header views, the parser that makes a [`crate::flow::FlowKey`], checksums.
//!
//! | file | what lives there |
//! |---|---|
//! | `arp` | ARP for IPv4 over Ethernet |
//! | `ethernet` | Ethernet and VLAN headers, pushing and popping tags |
//! | [`ipv4`], [`ipv6`] | IP headers |
//! | [`l4`] | TCP and UDP headers |
//! | `layout` | where the headers are, for those who rewrite them |
//! | [`checksum`] | the Internet checksum |

mod arp;
pub mod checksum;
mod ethernet;
pub mod ipv4;
pub mod ipv6;
pub mod l4;
mod layout;
mod parse;

pub(crate) use ethernet::be16;
pub use ethernet::{ETH_HEADER_LEN, VLAN_TAG_LEN, is_vlan, vlan_pop, vlan_push, vlan_set_vid};
pub use layout::{IpLayout, IpVersion, Layout, Transport};
pub(crate) use layout::{checksum_field, ip_at};
pub use parse::{HEAD_LEN, Parsed, parse};

/// EtherTypes (IEEE registration authority).
pub mod eth_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// Reverse ARP.
    pub const RARP: u16 = 0x8035;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// An 802.1Q customer tag.
    pub const VLAN: u16 = 0x8100;
    /// MPLS.
    pub const MPLS_UC: u16 = 0x8847;
    /// MPLS with labels given upstream (RFC 5332).
    pub const MPLS_MC: u16 = 0x8848;
    /// An 802.1ad service tag.
    pub const QINQ: u16 = 0x88a8;
}

/// IP protocol numbers (IANA).
pub mod ip_proto {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// GRE.
    pub const GRE: u8 = 47;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// UDP-Lite.
    pub const UDPLITE: u8 = 136;

    /// Whether its header begins with a source and a destination port.
    #[inline]
    pub fn has_ports(proto: u8) -> bool {
        matches!(proto, TCP | UDP | SCTP)
    }
}
