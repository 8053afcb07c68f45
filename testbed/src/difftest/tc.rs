//! A rule's text form as a line for `tc -batch`.

use super::rule::is_tunnel_chain;
use super::tunnel;
use std::collections::BTreeMap;

/// Why a rule cannot be said in tc's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TcError {
    /// A key or an action that this does not know.
    #[error("`{0}`: no words for it in tc")]
    Unknown(String),
    /// A value that does not read as what it should be.
    #[error("{0}: `{1}` cannot be read")]
    Value(&'static str, String),
    /// tc names the EtherTypes of a frame from the outside inwards, so the text must, too.
    #[error("{0}: tc needs to know about {1}")]
    Missing(&'static str, &'static str),
}

/// A rule for tc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcRule {
    /// `filter add …`.
    pub line: String,
    /// For each action of the rule, which of tc's actions (from 0) does what it does: one action
    /// can take several of tc's.
    pub actions: Vec<usize>,
}

/// The keys of a rule whose words stay as they are.
const SAME: [&str; 16] = [
    "src_mac",
    "dst_mac",
    "src_ip",
    "dst_ip",
    "ip_proto",
    "ip_flags",
    "arp_op",
    "arp_sip",
    "arp_tip",
    "arp_sha",
    "arp_tha",
    "mpls_label",
    "mpls_tc",
    "mpls_bos",
    "mpls_ttl",
    "ct_state",
];

/// Translates `text`, for shared block 1 of ports that are called p0 (the uplink), p1, …, or if it
/// is for what is in tunnels, for shared block 2 of their netdevs.
pub fn rule(text: &str) -> Result<TcRule, TcError> {
    let mut parts = text.split(" action ");
    let Keys { text: keys, bare } = keys(parts.next().unwrap_or_default())?;
    let mut line = String::new();
    let mut tc_actions = 0;
    if bare {
        // What comes out of such a tunnel has no Ethernet header yet.
        line.push_str(&format!(" action {PUSH_ETH} pipe"));
        tc_actions += 1;
    }
    let mut actions = Vec::new();
    // The netdev of the tunnel that packets are sent in.
    let mut tunnel = None;
    for part in parts {
        let words = action(part, &mut tunnel)?;
        actions.push(tc_actions);
        tc_actions += words.len();
        words
            .iter()
            .for_each(|words| line.push_str(&format!(" action {words}")));
    }
    Ok(TcRule {
        line: format!("{keys}{line}"),
        actions,
    })
}

/// The words in front of the actions.
struct Keys {
    text: String,
    /// It takes IP packets without Ethernet header.
    bare: bool,
}

/// What does to an IP packet what the switch does when it takes one out of its tunnel.
const PUSH_ETH: &str = "vlan push_eth dst_mac 00:00:00:00:00:00 src_mac 00:00:00:00:00:00";

fn keys(text: &str) -> Result<Keys, TcError> {
    let words: Vec<_> = text.split_ascii_whitespace().collect();
    let given: BTreeMap<_, _> = words
        .chunks(2)
        .map(|pair| (pair[0], pair[1..].concat()))
        .collect();
    let get = |key: &str| given.get(key).map(String::as_str);
    let (protocol, mut flower) = protocol(get)?;
    let chain = get("chain").unwrap_or("0");
    let in_tunnel =
        given.keys().any(|key| key.starts_with("enc_")) || chain.parse().is_ok_and(is_tunnel_chain);
    for pair in words.chunks(2) {
        let (key, value) = (pair[0], pair[1..].concat());
        match key {
            "chain" | "prio" | "eth_type" | "vlan_id" | "vlan_prio" | "vlan_tpid" | "cvlan_id"
            | "cvlan_prio" | "cvlan_tpid" => {}
            // It follows from the netdev.
            "in_port" if in_tunnel => {}
            "enc_kind" => {
                let v6 = get("enc_dst_ip").is_some_and(|address| address.contains(':'));
                let netdev = tunnel::netdev(&value, v6);
                let netdev = netdev.ok_or_else(|| TcError::Value("enc_kind", value.clone()))?;
                // Bare packets come from the only netdev that has them.
                flower.push_str(&format!(" indev {netdev}"));
            }
            "enc_src_ip" | "enc_dst_ip" | "enc_key_id" | "enc_dst_port" | "geneve_opts"
            | "vxlan_opts" | "ct_zone" | "ct_mark" | "ct_label" => {
                flower.push_str(&format!(" {key} {value}"));
            }
            "enc_tos" => flower.push_str(&format!(" {key} {}", number("enc_tos", &value, 16)?)),
            "enc_ttl" => flower.push_str(&format!(" {key} {}", number("enc_ttl", &value, 16)?)),
            "in_port" => flower.push_str(&format!(" indev {}", port(&value)?)),
            "ip_tos" => flower.push_str(&format!(" {key} {}", number("ip_tos", &value, 16)?)),
            "ip_ttl" => flower.push_str(&format!(" {key} {}", number("ip_ttl", &value, 16)?)),
            "ip_proto" if value.starts_with(|c: char| c.is_ascii_digit()) => {
                flower.push_str(&format!(" {key} {}", number("ip_proto", &value, 16)?));
            }
            "tcp_flags" => flower.push_str(&format!(" {key} {}", number("tcp_flags", &value, 16)?)),
            "type" => flower.push_str(&format!(" {key} {}", number("type", &value, 10)?)),
            "code" => flower.push_str(&format!(" {key} {}", number("code", &value, 10)?)),
            "src_port" | "dst_port" => flower.push_str(&format!(" {key} {value}")),
            key if SAME.contains(&key) => flower.push_str(&format!(" {key} {value}")),
            _ => return Err(TcError::Unknown(key.to_owned())),
        }
    }
    let text = format!(
        "filter add block {} protocol {protocol} chain {chain} prio {} flower{flower}",
        if in_tunnel { 2 } else { 1 },
        get("prio").unwrap_or("49152"),
    );
    let bare = get("enc_kind") == Some("vxlan-gpe") && chain == "0";
    Ok(Keys { text, bare })
}

/// The protocol of the filter, and flower's own words for tags.
fn protocol<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<(String, String), TcError> {
    for key in ["src_ip", "dst_ip", "ip_proto"] {
        if get(key).is_some() && get("eth_type").is_none() {
            return Err(TcError::Missing(key, "eth_type"));
        }
    }
    let eth_type = get("eth_type").map(|name| match name {
        "ipv4" => "ip".to_owned(),
        other => other.to_owned(),
    });
    let tagged = |id: &str, prio: &str, tpid: &str| {
        get(prio).is_some() || get(tpid).is_some() || get(id).is_some_and(|id| id != "none")
    };
    let mut flower = String::new();
    let mut put = |key: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| *value != "any") {
            flower.push_str(&format!(" {key} {value}"));
        }
    };
    if !tagged("vlan_id", "vlan_prio", "vlan_tpid") {
        if tagged("cvlan_id", "cvlan_prio", "cvlan_tpid") {
            return Err(TcError::Missing("cvlan_id", "vlan_tpid"));
        }
        if eth_type.is_some() != get("vlan_id").is_some() {
            return Err(TcError::Missing(
                "eth_type",
                "both the tags and what is behind them",
            ));
        }
        return Ok((eth_type.unwrap_or("all".to_owned()), flower));
    }
    let outer = get("vlan_tpid").ok_or(TcError::Missing("vlan_id", "vlan_tpid"))?;
    put("vlan_id", get("vlan_id"));
    put("vlan_prio", get("vlan_prio"));
    if tagged("cvlan_id", "cvlan_prio", "cvlan_tpid") {
        let inner = get("cvlan_tpid").ok_or(TcError::Missing("cvlan_id", "cvlan_tpid"))?;
        put("vlan_ethtype", Some(inner));
        put("cvlan_id", get("cvlan_id"));
        put("cvlan_prio", get("cvlan_prio"));
        put("cvlan_ethtype", eth_type.as_deref());
    } else {
        if eth_type.is_some() != get("cvlan_id").is_some() {
            return Err(TcError::Missing(
                "eth_type",
                "both the tags and what is behind them",
            ));
        }
        put("vlan_ethtype", eth_type.as_deref());
    }
    Ok((outer.to_owned(), flower))
}

/// A value, maybe with a mask, in the base that tc reads it in.
fn number(key: &'static str, text: &str, base: u8) -> Result<String, TcError> {
    let bad = || TcError::Value(key, text.to_owned());
    let read = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    let parts = text.split('/').map(|part| {
        let value = read(part).map_err(|_| bad())?;
        Ok(if base == 16 {
            format!("0x{value:x}")
        } else {
            value.to_string()
        })
    });
    let parts: Result<Vec<_>, TcError> = parts.collect();
    Ok(parts?.join("/"))
}

fn port(name: &str) -> Result<String, TcError> {
    match name.strip_prefix("vport:") {
        Some(number) => Ok(format!("p{number}")),
        None if name == "uplink" => Ok("p0".to_owned()),
        None => Err(TcError::Value("port", name.to_owned())),
    }
}

/// One action as those of tc that do the same.
fn action(text: &str, tunnel: &mut Option<&'static str>) -> Result<Vec<String>, TcError> {
    let words: Vec<_> = text.split_ascii_whitespace().collect();
    let port = |to: &str| match (*tunnel, to) {
        // Tunnels are netdevs that send out of the uplink.
        (Some(netdev), "uplink") => Ok(netdev.to_owned()),
        (Some(_), _) => Err(TcError::Unknown(format!("a tunnel out of {to}"))),
        (None, _) => port(to),
    };
    let mirror = |to: &str| Ok(format!("mirred egress mirror dev {}", port(to)?));
    Ok(match words[..] {
        ["drop" | "pass" | "trap"] => vec![text.to_owned()],
        // Its netdev takes no Ethernet header.
        ["redirect", to] if *tunnel == Some("tgpe") => vec![
            "vlan pop_eth pipe".to_owned(),
            format!("mirred egress redirect dev {}", port(to)?),
        ],
        ["redirect", to] => vec![format!("mirred egress redirect dev {}", port(to)?)],
        ["mirror", to] => vec![mirror(to)?],
        ["goto", "chain", _] => vec![text.to_owned()],
        ["vlan", ..] => vec![format!("{text} pipe")],
        ["mpls", ..] => vec![format!(
            "{} pipe",
            text.replace("protocol ipv4", "protocol ip")
        )],
        // The kernel leaves checksums wrong until it is told, the switch never does.
        // Ethernet addresses are in none.
        ["pedit", ..]
            if !["munge ip", "munge tcp", "munge udp", "munge sctp"]
                .iter()
                .any(|munge| text.contains(munge)) =>
        {
            vec![format!("{text} pipe")]
        }
        ["pedit", ..] => vec![format!("{text} pipe"), format!("csum {CHECKSUMS} pipe")],
        ["csum", names] => vec![format!("csum {} pipe", names.replace('/', " and "))],
        ["ct", "clear"] => vec!["ct clear pipe".to_owned()],
        ["ct", ..] => vec![format!("{text} pipe")],
        // It counts what is behind the Ethernet header, unless it is told of that.
        ["police", "index", ..] => vec![format!("{text} overhead 14")],
        // tc ends the list where nothing is said about those that conform.
        ["police", ..] => vec![text.to_owned()],
        // What is sampled goes to psample, and is not seen on a port.
        ["sample", ref sample @ .., "to", to] => {
            vec![format!("sample {} pipe", sample.join(" ")), mirror(to)?]
        }
        ["tunnel_key", "unset"] => {
            *tunnel = None;
            vec![format!("{text} pipe")]
        }
        ["tunnel_key", "set", "kind", kind, ..] => {
            let netdev = tunnel::netdev(kind, text.contains("src_ip 2001:"));
            let netdev = netdev.ok_or_else(|| TcError::Unknown(text.to_owned()))?;
            *tunnel = Some(netdev);
            vec![tunnel::set_for_tc(&words[2..])]
        }
        _ => return Err(TcError::Unknown(text.to_owned())),
    })
}

/// What follows a change of a header.
const CHECKSUMS: &str = "ip4h and icmp and tcp and udp and sctp";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_rules_in_the_words_of_tc() {
        for (text, line) in [
            (
                "prio 7 action drop",
                "protocol all chain 0 prio 7 flower action drop",
            ),
            (
                "chain 2 prio 7 in_port uplink vlan_tpid 802.1ad vlan_id 5 vlan_prio 1 cvlan_tpid \
                 802.1q cvlan_id 6 eth_type ipv4 dst_ip 10.0.0.0/8 ip_tos 16 action mirror vport:3 \
                 action goto chain 3",
                "protocol 802.1ad chain 2 prio 7 flower vlan_id 5 vlan_prio 1 vlan_ethtype 802.1q \
                 cvlan_id 6 cvlan_ethtype ip indev p0 dst_ip 10.0.0.0/8 ip_tos 0x10 \
                 action mirred egress mirror dev p3 action goto chain 3",
            ),
            (
                "prio 7 vlan_id none eth_type arp action pass",
                "protocol arp chain 0 prio 7 flower action pass",
            ),
        ] {
            let got = rule(text).map(|rule| rule.line);
            assert_eq!(got, Ok(format!("filter add block 1 {line}")));
        }
        assert!(
            rule("prio 7 eth_type arp action pass").is_err(),
            "with tags or without?"
        );
    }
}
