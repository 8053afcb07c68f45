//! The words of the text form of a rule, shared by reading and writing it.
//!
//! ```text
//! prio 10 in_port web1 eth_type ipv4 dst_ip 10.0.0.0/8 ip_proto tcp dst_port 443
//!     action mirror uplink action redirect vport:7
//! ```
//!
//! Keys, in any order, each at most once:
//!
//! | key | value |
//! |---|---|
//! | `prio` | 1 to 65535, 49152 if not given (tc's own first choice) |
//! | `in_port` | a port: `uplink`, `vport:N` or a name |
//! | `src_mac`, `dst_mac` | address, or address/mask |
//! | `eth_type` | `ipv4`, `ipv6`, `arp`, or a number |
//! | `vlan_id` | 0 (a priority tag) to 4094, `any` (tagged), `none` (untagged) |
//! | `vlan_prio` | 0 to 7; means tagged |
//! | `src_ip`, `dst_ip` | address, address/length or address/mask; sets `eth_type` |
//! | `ip_proto` | `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`, or a number |
//! | `src_port`, `dst_port` | port, or port/mask; needs `ip_proto` tcp, udp or sctp |
//! | `cookie` | a number |
//!
//! and then `action` with `drop`, `pass`, `redirect PORT` or `mirror PORT`, up to eight times.
//! Numbers are decimal, or hexadecimal behind `0x`.

use crate::wire::{eth_type, ip_proto};

/// Named EtherTypes.
pub(super) const ETH_TYPES: [(&str, u16); 3] = [
    ("ipv4", eth_type::IPV4),
    ("ipv6", eth_type::IPV6),
    ("arp", eth_type::ARP),
];

/// Named IP protocols.
pub(super) const IP_PROTOS: [(&str, u8); 5] = [
    ("tcp", ip_proto::TCP),
    ("udp", ip_proto::UDP),
    ("sctp", ip_proto::SCTP),
    ("icmp", ip_proto::ICMP),
    ("icmpv6", ip_proto::ICMPV6),
];

/// The priority of a rule that does not name one.
pub(super) const DEFAULT_PRIORITY: u16 = 49152;

pub(super) fn name_of<T: Copy + PartialEq>(
    names: &[(&'static str, T)],
    value: T,
) -> Option<&'static str> {
    names
        .iter()
        .find(|(_, v)| *v == value)
        .map(|(name, _)| *name)
}

pub(super) fn value_of<T: Copy>(names: &[(&'static str, T)], name: &str) -> Option<T> {
    names
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, value)| *value)
}
