//! Which ICMP messages belong together (RFC 792, RFC 950, RFC 4443, RFC 4620).

use crate::wire::ip_proto;

/// What answers an ICMP query of this type, and what such an answer answers.
pub(super) fn answer_v4(icmp_type: u8) -> Option<u8> {
    Some(match icmp_type {
        ECHO => ECHO_REPLY,
        ECHO_REPLY => ECHO,
        13 => 14, // timestamp
        14 => 13,
        15 => 16, // information
        16 => 15,
        17 => 18, // address mask
        18 => 17,
        _ => return None,
    })
}

/// The same for ICMPv6.
pub(super) fn answer_v6(icmp_type: u8) -> Option<u8> {
    Some(match icmp_type {
        128 => 129, // echo
        129 => 128,
        139 => 140, // node information
        140 => 139,
        _ => return None,
    })
}

const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;
/// ICMP redirect.
pub(super) const REDIRECT: u8 = 5;
/// Neighbour discovery's redirect.
pub(super) const REDIRECT_V6: u8 = 137;

/// What tracking does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Tells of a packet that it carries.
    Error,
    /// Asks, answers, or is nothing that can be tracked: the tuple decides.
    Query,
    /// Neighbour discovery and multicast listeners (nf_conntrack_proto_icmpv6.c,
    /// `noct_valid_new`), and types that nobody knows.
    Untracked,
}

/// What kind of message a type is.
pub(super) fn message(proto: u8, icmp_type: u8) -> Message {
    match (proto, icmp_type) {
        (ip_proto::ICMP, 3 | 4 | REDIRECT | 11 | 12) => Message::Error,
        (ip_proto::ICMP, 0..=18) => Message::Query,
        (ip_proto::ICMP, _) => Message::Untracked,
        (_, 0..=127 | REDIRECT_V6) => Message::Error,
        (_, 130..=136 | 143) => Message::Untracked,
        _ => Message::Query,
    }
}

/// Whether a message of this type may begin a connection: it asks.
pub(super) fn may_begin(proto: u8, icmp_type: u8) -> bool {
    match proto {
        ip_proto::ICMP => matches!(icmp_type, ECHO | 13 | 15 | 17),
        _ => matches!(icmp_type, 128 | 139),
    }
}
