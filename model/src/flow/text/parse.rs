//! Reading a whole rule.

use super::reader::{MAX_RULE_TEXT, Read, Reader};
use super::{PortNames, RuleTextError, action, ct, l2, l3, l4, other, tunnel};
use crate::flow::{Action, MAX_ACTIONS, Match, RuleError, RuleSpec};
use crate::wire::{eth_type, ip_proto};
use std::str::FromStr;

/// All keys of the text form, as a list with commas between.
pub const KEYS: &str = "chain, prio, in_port, block, src_mac, dst_mac, eth_type, vlan_id, \
     vlan_prio, vlan_tpid, cvlan_id, cvlan_prio, cvlan_tpid, src_ip, dst_ip, ip_proto, ip_tos, \
     ip_ttl, ip_flags, arp_op, arp_sip, arp_tip, arp_sha, arp_tha, mpls_label, mpls_tc, mpls_bos, \
     mpls_ttl, src_port, dst_port, tcp_flags, type, code, enc_kind, enc_key_id, enc_src_ip, \
     enc_dst_ip, enc_src_port, enc_dst_port, enc_tos, enc_ttl, enc_flags, geneve_opts, vxlan_opts, \
     ct_state, ct_zone, ct_mark, ct_label, cookie, idle_timeout, action";

/// What a chain's number may be.
pub(super) const CHAIN: &str = "a number from 0 to 268435455";

/// The families of keys.
const FAMILIES: [fn(&mut Reader<'_>, &str) -> Read<bool>; 6] = [
    l2::read,
    l3::read,
    other::read,
    l4::read,
    tunnel::read,
    ct::read,
];

impl RuleSpec {
    /// Reads the text form; `names` finds the ports that are called by name.
    pub fn parse(text: &str, names: PortNames<'_>) -> Result<Self, RuleTextError> {
        if text.len() > MAX_RULE_TEXT {
            return Err(RuleTextError::TooLong(text.len()));
        }
        let mut reader = Reader::new(text, names);
        let mut spec = RuleSpec::default();
        let mut actions = Vec::new();
        while let Some(word) = reader.words.next() {
            key(&mut reader, word, &mut spec, &mut actions)?;
        }
        check_needs(&reader)?;
        spec.matches = reader.matches;
        spec.matches.normalize();
        spec.actions = actions.into();
        spec.check()?;
        Ok(spec)
    }
}

impl FromStr for RuleSpec {
    type Err = RuleTextError;

    /// As [`RuleSpec::parse`], where no port has a name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, &|_| None)
    }
}

fn key(
    reader: &mut Reader<'_>,
    word: &str,
    spec: &mut RuleSpec,
    actions: &mut Vec<Action>,
) -> Read<()> {
    match word {
        "chain" => {
            let key = reader.once("chain")?;
            spec.chain = reader.number(key, CHAIN)?;
        }
        "prio" => {
            let key = reader.once("prio")?;
            spec.priority = reader.number(key, "a number from 1 to 65535")?;
        }
        "cookie" => {
            let key = reader.once("cookie")?;
            spec.cookie = reader.number(key, "a number of at most 64 bits")?;
        }
        "idle_timeout" => {
            let key = reader.once("idle_timeout")?;
            spec.idle_timeout = reader.number(key, "seconds from 0 to 4294967295")?;
        }
        "action" => {
            let action = action::read(reader)?;
            if actions.last().is_some_and(Action::is_final) {
                return Err(RuleError::AfterFinalAction.into());
            }
            actions.push(action);
            if actions.len() > MAX_ACTIONS {
                return Err(RuleError::TooManyActions(actions.len()).into());
            }
        }
        _ => {
            for read in FAMILIES {
                if read(reader, word)? {
                    return Ok(());
                }
            }
            return Err(RuleTextError::UnknownKey(word.to_owned()));
        }
    }
    Ok(())
}

/// Keys of headers that share a place in the key: each needs its own header asked for.
fn check_needs(reader: &Reader<'_>) -> Read<()> {
    let Match { value, mask, .. } = &reader.matches;
    let eth = (mask.eth_type != 0).then_some(value.eth_type);
    let ip = matches!(eth, Some(eth_type::IPV4 | eth_type::IPV6));
    let arp = matches!(eth, Some(eth_type::ARP | eth_type::RARP));
    let mpls = matches!(eth, Some(eth_type::MPLS_UC | eth_type::MPLS_MC));
    let proto = (mask.ip_proto != 0 && ip).then_some(value.ip_proto);
    let families: [(&[&'static str], bool, &'static str); 5] = [
        (
            &["ip_proto", "ip_tos", "ip_ttl"],
            ip,
            "eth_type ipv4 or ipv6",
        ),
        (
            &["arp_op", "arp_sip", "arp_tip", "arp_sha", "arp_tha"],
            arp,
            "eth_type arp or rarp",
        ),
        (
            &["src_port", "dst_port"],
            proto.is_some_and(ip_proto::has_ports),
            "ip_proto tcp, udp or sctp",
        ),
        (&["tcp_flags"], proto == Some(ip_proto::TCP), "ip_proto tcp"),
        (
            &["type", "code"],
            reader.matches.is_icmp(),
            "ip_proto icmp, or icmpv6 over ipv6",
        ),
    ];
    for (keys, met, needs) in families {
        if let Some(field) = keys.iter().find(|key| !met && reader.has(key)) {
            return Err(RuleError::Needs { field, needs }.into());
        }
    }
    if let Some(field) = reader.find("mpls_").filter(|_| !mpls) {
        let needs = "eth_type mpls_uc or mpls_mc";
        return Err(RuleError::Needs { field, needs }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VportId;

    fn names(name: &str) -> Option<VportId> {
        match name {
            "web1" => Some(VportId(1)),
            "web2" => Some(VportId(2)),
            _ => None,
        }
    }

    fn read(text: &str) -> Result<RuleSpec, RuleTextError> {
        RuleSpec::parse(text, &names)
    }

    #[test]
    fn everything_at_once() {
        let spec = read(
            "prio 10 in_port web1 src_mac 02:00:00:00:00:01/ff:ff:00:00:00:00 \
             dst_mac 02:00:00:00:00:02 eth_type ipv4 vlan_id 10 vlan_prio 3 src_ip 10.1.2.3/8 \
             dst_ip 10.0.0.1 ip_proto tcp src_port 80 dst_port 0x1bb/0xff00 cookie 0x1f \
             action mirror uplink action redirect web2",
        );
        let text = "prio 10 in_port vport:1 src_mac 02:00:00:00:00:00/ff:ff:00:00:00:00 \
                    dst_mac 02:00:00:00:00:02 eth_type ipv4 vlan_id 10 vlan_prio 3 \
                    src_ip 10.0.0.0/8 dst_ip 10.0.0.1 ip_proto tcp src_port 80 \
                    dst_port 256/0xff00 cookie 0x1f action mirror uplink \
                    action redirect vport:2";
        assert_eq!(spec.unwrap().to_string(), text);
    }

    #[test]
    fn short_forms() {
        for (text, canonical) in [
            ("action drop", "prio 49152 action drop"),
            (
                "dst_ip fe80::/10 action pass",
                "prio 49152 eth_type ipv6 dst_ip fe80::/10 action pass",
            ),
            (
                "eth_type 0x806 action drop",
                "prio 49152 eth_type arp action drop",
            ),
            (
                "eth_type 0x88cc action drop",
                "prio 49152 eth_type 0x88cc action drop",
            ),
            (
                "vlan_prio 0 action drop",
                "prio 49152 vlan_prio 0 action drop",
            ),
            (
                "vlan_id none action drop",
                "prio 49152 vlan_id none action drop",
            ),
            (
                "vlan_id any action drop",
                "prio 49152 vlan_id any action drop",
            ),
            ("vlan_id 0 action drop", "prio 49152 vlan_id 0 action drop"),
            (
                "src_ip 1.2.3.4/255.0.255.0 action drop",
                "prio 49152 eth_type ipv4 src_ip 1.0.3.0/255.0.255.0 action drop",
            ),
            (
                "src_ip 1.2.3.4/0 action drop",
                "prio 49152 eth_type ipv4 action drop",
            ),
            ("action drop prio 1", "prio 1 action drop"),
            ("action mirror uplink", "prio 49152 action mirror uplink"),
            (
                "chain 3 prio 1 idle_timeout 9 action goto 4",
                "chain 3 prio 1 idle_timeout 9 action goto chain 4",
            ),
            (
                "vlan_tpid 802.1ad cvlan_id 5 cvlan_prio 1 vlan_id 7 action trap",
                "prio 49152 vlan_id 7 vlan_tpid 802.1ad cvlan_id 5 cvlan_prio 1 action trap",
            ),
            (
                "eth_type arp arp_op reply arp_sip 10.0.0.0/8 arp_tha 2:0:0:0:0:1 action drop",
                "prio 49152 eth_type arp arp_op reply arp_sip 10.0.0.0/8 \
                 arp_tha 02:00:00:00:00:01 action drop",
            ),
            (
                "eth_type mpls_uc mpls_label 16 mpls_bos 1 mpls_ttl@2 7 action drop",
                "prio 49152 eth_type mpls_uc mpls_label 16 mpls_bos 1 mpls_ttl@2 7 action drop",
            ),
            (
                "eth_type ipv6 ip_proto icmpv6 type 135 code 1/1 ip_ttl 255 ip_tos 0xb8/0xfc \
                 ip_flags nofrag action pass",
                "prio 49152 eth_type ipv6 ip_proto icmpv6 ip_tos 184/0xfc ip_ttl 255 \
                 ip_flags nofrag type 135 code 1/0x1 action pass",
            ),
            (
                "eth_type ipv4 ip_proto tcp dst_port 10-20 tcp_flags 0x2/0x12 action drop",
                "prio 49152 eth_type ipv4 ip_proto tcp dst_port 10-20 tcp_flags 0x2/0x12 \
                 action drop",
            ),
            (
                "enc_key_id 7 enc_dst_ip 1.2.3.4 enc_dst_port 4789 vxlan_opts 5 enc_flags nodf \
                 action pass",
                "prio 49152 enc_key_id 7 enc_dst_ip 1.2.3.4 enc_dst_port 4789 enc_flags nodf \
                 vxlan_opts 5 action pass",
            ),
            (
                "geneve_opts 0102:80:00880022/ffff:00:ffffffff enc_src_ip 2001::/16 action drop",
                "prio 49152 enc_src_ip 2001::/16 \
                 geneve_opts 0102:00:00880022/ffff:00:ffffffff action drop",
            ),
            (
                "ct_state +trk-new ct_zone 5 ct_mark 1/1 ct_label 01/0f action drop",
                "prio 49152 ct_state -new+trk ct_zone 5 ct_mark 1/0x1 \
                 ct_label 01000000000000000000000000000000/0f000000000000000000000000000000 \
                 action drop",
            ),
            (
                "action vlan push id 7 priority 3 protocol 802.1ad action vlan modify id 1 \
                 action vlan pop",
                "prio 49152 action vlan push id 7 protocol 802.1ad priority 3 \
                 action vlan modify id 1 action vlan pop",
            ),
            (
                "action pedit ex munge ip ttl dec munge eth dst set 02:00:00:00:00:01 \
                 munge ip src set 10.0.0.1 retain 0xff action csum tcp/ip4h",
                "prio 49152 action pedit ex munge ip ttl add 255 munge eth dst \
                 set 02:00:00:00:00:01 munge ip src set 0.0.0.1 retain 0xff action csum ip4h/tcp",
            ),
            (
                "action tunnel_key set src_ip 1.0.0.1 dst_ip 1.0.0.2 id 7 nocsum tos inherit \
                 dst_mac 02:00:00:00:00:01 action tunnel_key unset",
                "prio 49152 action tunnel_key set kind vxlan src_ip 1.0.0.1 dst_ip 1.0.0.2 \
                 dst_mac 02:00:00:00:00:01 id 7 tos inherit nocsum action tunnel_key unset",
            ),
            (
                "action tunnel_key set kind geneve src_ip fe80::1 dst_ip fe80::2 \
                 geneve_opts 0102:80:00000001,0102:81:",
                "prio 49152 action tunnel_key set kind geneve src_ip fe80::1 dst_ip fe80::2 \
                 geneve_opts 0102:80:00000001,0102:81:",
            ),
            (
                "action police rate 8kbit burst 2000 action police pkts_rate 5 pkts_burst 1 \
                 conform-exceed goto:3/pass",
                "prio 49152 action police rate 1000bps burst 2000 conform-exceed drop/pipe \
                 action police pkts_rate 5 pkts_burst 1 conform-exceed goto:3/pass",
            ),
            (
                "action police index 3 rate 8kbit burst 2000 action police index 3",
                "prio 49152 action police index 3 rate 1000bps burst 2000 \
                 conform-exceed drop/pipe action police index 3",
            ),
            (
                "action ct zone 5 commit mark 1/1 nat src addr 10.0.0.1-10.0.0.9 port 5-6 \
                 action ct nat action ct clear action goto chain 1",
                "prio 49152 action ct commit zone 5 mark 1/0x1 nat src addr 10.0.0.1-10.0.0.9 \
                 port 5-6 action ct nat action ct clear action goto chain 1",
            ),
            (
                "action sample rate 9 to web2 action mpls push label 5 action mpls dec_ttl \
                 action mpls modify tc 1 bos 0 action mpls pop protocol ipv4",
                "prio 49152 action sample rate 9 group 0 to vport:2 \
                 action mpls push protocol mpls_uc label 5 tc 0 ttl 255 action mpls dec_ttl \
                 action mpls modify tc 1 bos 0 action mpls pop protocol ipv4",
            ),
        ] {
            let spec = read(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(spec.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(spec));
        }
    }

    #[test]
    fn errors_name_key_value_and_what_is_allowed() {
        for (text, message) in [
            ("", "action: there is none, at least one is needed"),
            (
                "prio 0 action drop",
                "prio: 0 is not a priority, allowed are 1 to 65535",
            ),
            (
                "prio 65536 action drop",
                "prio: `65536` is not a number from 1 to 65535",
            ),
            (
                "prio +1 action drop",
                "prio: `+1` is not a number from 1 to 65535",
            ),
            ("prio", "prio: the value is missing"),
            ("prio 1 prio 2 action drop", "prio: given twice"),
            (
                "in_port web9 action drop",
                "in_port: no port is called `web9`; also known are `uplink` and `vport:N`",
            ),
            (
                "in_port vport:65536 action drop",
                "in_port: `vport:65536` is not a port: `uplink`, `vport:N` with N from 1 to 65535, or a name",
            ),
            (
                "src_mac 02:00 action drop",
                "src_mac: `02:00` is not an address as 02:00:00:00:00:01, or address/mask",
            ),
            (
                "eth_type ip action drop",
                "eth_type: `ip` is not ipv4, ipv6, arp, rarp, mpls_uc, mpls_mc or a number from 0 to 0xffff",
            ),
            (
                "vlan_id 4095 action drop",
                "vlan_id: `4095` is not a number from 0 to 4094, any or none",
            ),
            (
                "vlan_prio 8 action drop",
                "vlan_prio: `8` is not a number from 0 to 7",
            ),
            (
                "vlan_id none vlan_prio 1 action drop",
                "vlan_prio: `1` does not go with vlan_id none",
            ),
            (
                "vlan_prio 1 vlan_id none action drop",
                "vlan_id: `none` does not go with vlan_prio",
            ),
            (
                "src_ip 10.0.0.0/33 action drop",
                "src_ip: `10.0.0.0/33` is not an IPv4 or IPv6 address, address/length or address/mask",
            ),
            (
                "src_ip 10.0.0.0/ action drop",
                "src_ip: `10.0.0.0/` is not an IPv4 or IPv6 address, address/length or address/mask",
            ),
            (
                "src_ip 10.0.0.1 dst_ip ::1 action drop",
                "dst_ip: `::1` does not go with src_ip",
            ),
            (
                "eth_type arp src_ip 10.0.0.1 action drop",
                "src_ip: `10.0.0.1` does not go with eth_type",
            ),
            (
                "src_ip 10.0.0.1 eth_type arp action drop",
                "eth_type: `arp` does not go with src_ip",
            ),
            (
                "ip_proto tcp action drop",
                "ip_proto: needs eth_type ipv4 or ipv6",
            ),
            (
                "eth_type ipv4 ip_proto tcpp action drop",
                "ip_proto: `tcpp` is not tcp, udp, sctp, icmp, icmpv6 or a number from 0 to 255",
            ),
            (
                "eth_type ipv4 dst_port 80 action drop",
                "dst_port: needs ip_proto tcp, udp or sctp",
            ),
            (
                "eth_type ipv4 ip_proto icmp src_port 80 action drop",
                "src_port: needs ip_proto tcp, udp or sctp",
            ),
            (
                "eth_type ipv4 ip_proto tcp dst_port 65536 action drop",
                "dst_port: `65536` is not a port from 0 to 65535, port/mask, or MIN-MAX with MIN below MAX",
            ),
            (
                "action drop action mirror uplink",
                "action: nothing can follow drop, pass, trap, redirect or goto",
            ),
            (
                "action reject",
                "action: `reject` is not drop, pass, trap, redirect PORT, mirror PORT, goto chain N, vlan, mpls, pedit, csum, tunnel_key, police, ct or sample",
            ),
            ("action", "action: the value is missing"),
            ("action redirect", "redirect: the value is missing"),
            (
                "action redirect web3",
                "redirect: no port is called `web3`; also known are `uplink` and `vport:N`",
            ),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), message, "{text}");
        }
        let unknown = read("dport 80 action drop").unwrap_err().to_string();
        assert!(unknown.starts_with("`dport`: no such key; the keys are chain, prio, in_port,"));
        assert_eq!(
            read(&"action mirror uplink ".repeat(33)),
            Err(RuleError::TooManyActions(33).into())
        );
        assert_eq!(read(&" ".repeat(9000)), Err(RuleTextError::TooLong(9000)));
    }
}
