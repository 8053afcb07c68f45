//! Where the headers of a frame are.

use super::ethernet::{ETH_HEADER_LEN, VLAN_TAG_LEN, be16, is_vlan};
use super::ipv6::{IPV6_HEADER_LEN, Ipv6};
use super::{eth_type, ip_proto, ipv4::Ipv4};

/// VLAN tags that are passed over on the way to the network header.
const MAX_TAGS: usize = 8;

/// Which IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// From the first four bits of a header.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            4 => Some(IpVersion::V4),
            6 => Some(IpVersion::V6),
            _ => None,
        }
    }

    /// What announces it on Ethernet.
    pub fn eth_type(self) -> u16 {
        match self {
            IpVersion::V4 => eth_type::IPV4,
            IpVersion::V6 => eth_type::IPV6,
        }
    }
}

/// An IP packet inside a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpLayout {
    /// Which IP.
    pub version: IpVersion,
    /// The transport protocol; see [`super::ipv6::Upper::proto`].
    pub proto: u8,
    /// Where the packet ends by its own length, in bytes from the start of the frame. Not checked
    /// against the frame's length.
    pub end: usize,
    /// Part of a fragmented packet.
    pub fragment: bool,
    /// The transport header.
    pub l4: Transport,
}

/// What follows an IP header and its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// The transport header begins here, in bytes from the start of the frame.
    At(usize),
    /// None: a later fragment.
    Later,
    /// The headers in front of it reach beyond the bytes that are known, or are too many.
    Unknown,
}

/// Where the headers of a frame are, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where the network header begins, behind all VLAN tags.
    pub l3: usize,
    /// EtherType behind all VLAN tags.
    pub eth_type: u16,
    /// The IP packet there, if its header is wholly known.
    pub ip: Option<IpLayout>,
}

impl Layout {
    /// Looks at the first bytes of a frame. `None` if its Ethernet header or its tags are cut off.
    pub fn of(head: &[u8]) -> Option<Self> {
        let mut l3 = ETH_HEADER_LEN;
        let mut eth_type = be16(head, l3 - 2)?;
        for _ in 0..MAX_TAGS {
            if !is_vlan(eth_type) {
                break;
            }
            l3 += VLAN_TAG_LEN;
            eth_type = be16(head, l3 - 2)?;
        }
        let ip = ip_at(head, l3, eth_type);
        Some(Self { l3, eth_type, ip })
    }

    /// Protocol and offset of the transport header, if there is one.
    pub fn transport(&self) -> Option<(u8, usize)> {
        let ip = self.ip?;
        match ip.l4 {
            Transport::At(at) => Some((ip.proto, at)),
            Transport::Later | Transport::Unknown => None,
        }
    }
}

/// The IP packet of this EtherType that begins at `l3`.
pub(crate) fn ip_at(head: &[u8], l3: usize, eth_type: u16) -> Option<IpLayout> {
    let bytes = head.get(l3..)?;
    match eth_type {
        eth_type::IPV4 => {
            let ip = Ipv4::parse(bytes)?;
            let l4 = if ip.is_later_fragment() {
                Transport::Later
            } else {
                Transport::At(l3 + ip.header_len())
            };
            Some(IpLayout {
                version: IpVersion::V4,
                proto: ip.proto(),
                end: l3 + usize::from(be16(bytes, 2)?),
                fragment: ip.is_fragment(),
                l4,
            })
        }
        eth_type::IPV6 => {
            let upper = Ipv6::parse(bytes)?.upper();
            let l4 = match (upper.reached, upper.later) {
                (true, _) => Transport::At(l3 + upper.offset),
                (false, true) => Transport::Later,
                (false, false) => Transport::Unknown,
            };
            Some(IpLayout {
                version: IpVersion::V6,
                proto: upper.proto,
                end: l3 + IPV6_HEADER_LEN + usize::from(be16(bytes, 4)?),
                fragment: upper.fragment,
                l4,
            })
        }
        _ => None,
    }
}

/// Where a transport protocol keeps its checksum, from the start of its header, and whether that
/// sum takes in the IP addresses. `None` where there is no Internet checksum (SCTP has a CRC).
pub(crate) fn checksum_field(version: IpVersion, proto: u8) -> Option<(usize, bool)> {
    match (proto, version) {
        (ip_proto::TCP, _) => Some((16, true)),
        (ip_proto::UDP | ip_proto::UDPLITE | ip_proto::DCCP, _) => Some((6, true)),
        (ip_proto::ICMPV6, IpVersion::V6) => Some((2, true)),
        (ip_proto::ICMP, IpVersion::V4) => Some((2, false)),
        _ => None,
    }
}
