//! The text form of a rule, in the words of tc-flower(8).
//!
//! ```text
//! prio 10 in_port web1 eth_type ipv4 dst_ip 10.0.0.0/8 ip_proto tcp dst_port 443
//!     action mirror uplink action redirect vport:7
//! ```
//!
//! Keys, in any order, each at most once. *X/M* is a value and the bits of it that count. Numbers
//! are decimal, or hexadecimal behind `0x`.
//!
//! | key | value |
//! |---|---|
//! | `chain` | 0, where packets begin and what is meant if none is given, to 268435455 |
//! | `prio` | 1 to 65535, 49152 if not given (tc's own first choice) |
//! | `in_port` | a port: `uplink`, `vport:N` or a name |
//! | `block` | 1 to 65535, a group of ports |
//! | `src_mac`, `dst_mac` | address, or address/mask |
//! | `eth_type` | behind all tags: `ipv4`, `ipv6`, `arp`, `rarp`, `mpls_uc`, `mpls_mc`, or a number |
//! | `vlan_id`, `cvlan_id` | 0 (a priority tag) to 4094, `any` (tagged), `none` (untagged) |
//! | `vlan_prio`, `cvlan_prio` | 0 to 7; means tagged |
//! | `vlan_tpid`, `cvlan_tpid` | `802.1q`, `802.1ad`; means tagged |
//! | `src_ip`, `dst_ip` | address, address/length or address/mask; sets `eth_type` |
//! | `ip_proto` | `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`, or a number |
//! | `ip_tos`, `ip_ttl` | 0 to 255, X/M |
//! | `ip_flags` | `frag`, `nofrag`, `firstfrag`, `nofirstfrag`, or two of them with `/` between |
//! | `arp_op` | `request`, `reply` |
//! | `arp_sip`, `arp_tip` | as `src_ip`; need `eth_type` arp or rarp |
//! | `arp_sha`, `arp_tha` | as `src_mac` |
//! | `mpls_label`, `mpls_tc`, `mpls_bos`, `mpls_ttl` | of the top entry, with `@N` behind of entry N (2 to 7) |
//! | `src_port`, `dst_port` | port, X/M, or `MIN-MAX`; need `ip_proto` tcp, udp or sctp |
//! | `tcp_flags` | 0 to 0xfff, X/M; needs `ip_proto` tcp |
//! | `type`, `code` | of ICMP, 0 to 255, X/M; need `ip_proto` icmp or icmpv6 |
//! | `enc_kind` | the packet is in a tunnel: `vxlan`, `vxlan-gpe`, `geneve`, `gre` |
//! | `enc_key_id` | VNI or GRE key |
//! | `enc_src_ip`, `enc_dst_ip` | as `src_ip`, of the outer header |
//! | `enc_src_port`, `enc_dst_port` | outer UDP port |
//! | `enc_tos`, `enc_ttl` | 0 to 255, X/M |
//! | `enc_flags` | `df`, `csum`, `oam`, `crit`, `key` or their opposites (`nodf` …), with `/` between |
//! | `geneve_opts` | `CLASS:TYPE:DATA`, hexadecimal, several with commas; a mask of the same form behind `/` |
//! | `vxlan_opts` | the group policy extension's 32 bits, X/M |
//! | `ct_state` | `+trk`, `-new` and so on: `new`, `est`, `rel`, `trk`, `inv`, `rpl` |
//! | `ct_zone`, `ct_mark` | a number, X/M |
//! | `ct_label` | up to 32 hexadecimal digits, the first byte first, X/M |
//! | `cookie` | a number |
//! | `idle_timeout` | seconds after which an unused rule goes; 0: never |
//!
//! and then up to 32 times `action` with one of
//!
//! | action | what it does |
//! |---|---|
//! | `drop`, `pass`, `trap` | lose it; give it to the host on the in-port's representor |
//! | `redirect PORT`, `mirror PORT` | send it, or a copy, out of a port |
//! | `goto chain N` | go on in another chain |
//! | `vlan push id N [protocol 802.1ad] [priority N]`, `vlan pop`, `vlan modify …` | tags; modify as push |
//! | `mpls push [protocol mpls_mc] label N [tc N] [ttl N] [bos N]`, `mpls pop protocol ETHERTYPE`, `mpls modify …`, `mpls dec_ttl` | labels |
//! | `pedit ex munge HEADER FIELD set VALUE [retain MASK]`, `… add N`, `… dec` | change fields, as many as there are `munge` |
//! | `csum NAMES` | compute checksums anew: ip4h, icmp, igmp, tcp, udp, udplite, sctp, with `/` between |
//! | `tunnel_key set kind KIND src_ip A dst_ip A [src_mac M] [dst_mac M] [id N] [dst_port N] [tos N\|inherit] [ttl N] [nofrag] [nocsum] [flow_label N] [geneve_opts …] [vxlan_opts N] [payload ip]` | send it in a tunnel from here on |
//! | `tunnel_key unset` | forget the tunnel it came in, and the one it was to travel in |
//! | `police rate R burst BYTES [peakrate R] [mtu N] [conform-exceed E/C]`, `police pkts_rate N pkts_burst N …` | `drop` what exceeds, `pipe` the rest; or `pass`, `goto:N` |
//! | `police index N …`, `police index N` | the same, of which rules with this index share one; rates come with the first |
//! | `ct [commit] [force] [zone N] [mark X/M] [label X/M] [nat [src\|dst addr A-A [port N-N]]]`, `ct clear` | connection tracking |
//! | `sample rate N group N to PORT` | send a copy of one in N |
//!
//! | file | what lives there |
//! |---|---|
//! | `reader`, `line` | reading and writing words |
//! | `parse`, `display` | a whole rule |
//! | `l2`, `l3`, `other`, `l4`, `tunnel`, `ct` | reading and writing one family of keys |
//! | `action` | reading and writing actions |

mod action;
mod ct;
mod display;
mod l2;
mod l3;
mod l4;
mod line;
mod other;
mod parse;
mod reader;
mod tunnel;

pub use action::KINDS as ACTIONS;
pub use line::NameOfPort;
pub use parse::KEYS;
pub use reader::{MAX_RULE_TEXT, PortNames, RuleTextError};

/// The name of a value.
fn name_of<T: Copy + PartialEq>(names: &[(&'static str, T)], value: T) -> Option<&'static str> {
    let mut found = names.iter().filter(|(_, v)| *v == value);
    found.next().map(|(name, _)| *name)
}

/// The value with a name.
fn value_of<T: Copy>(names: &[(&'static str, T)], name: &str) -> Option<T> {
    let mut found = names.iter().filter(|(n, _)| *n == name);
    found.next().map(|(_, value)| *value)
}
