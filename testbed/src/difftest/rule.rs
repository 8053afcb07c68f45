//! Rules in the switch's text form, made for frames of the same small world.

use super::act::{Depth, action, in_and_out_of_tunnels};
use super::frame::{Body, Frame, Ip, L4, MACS, Part, frame};
use super::tunnel;
use super::wish::Wish;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// A rule, in parts that can be left out.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its chain.
    pub chain: u32,
    /// Its priority.
    pub prio: u16,
    /// Keys with their values.
    pub keys: Vec<String>,
    /// Actions without the word `action`.
    pub actions: Vec<String>,
    /// The case is none without it.
    pub kept: bool,
}

impl Rule {
    /// The text form.
    pub fn text(&self) -> String {
        let mut text = format!("chain {} prio {}", self.chain, self.prio);
        for key in &self.keys {
            text.push_str(&format!(" {key}"));
        }
        for action in &self.actions {
            text.push_str(&format!(" action {action}"));
        }
        text
    }

    /// Whether it changes headers.
    pub fn rewrites(&self) -> bool {
        let rewrites = |action: &String| {
            let word = action.split(' ').next();
            matches!(
                word,
                Some("pedit" | "mpls" | "vlan" | "csum" | "tunnel_key")
            )
        };
        self.actions.iter().any(rewrites)
    }

    /// Whether an action relies on what this key says, or the way in which tc is told the rule.
    pub fn needs(&self, key: &str) -> bool {
        let told = ["eth_type", "vlan_", "cvlan_", "ip_proto", "ip_flags"];
        let in_tunnel = ["in_port", "enc_k", "enc_dst_ip"];
        let any = |words: &[&str]| words.iter().any(|word| key.starts_with(word));
        self.rewrites() && any(&told) || self.is_for_tunnels() && any(&in_tunnel)
    }

    /// Whether it is for what is inside tunnels.
    pub fn is_for_tunnels(&self) -> bool {
        is_tunnel_chain(self.chain) || self.keys.iter().any(|key| key.starts_with("enc_"))
    }
}

/// Keys that this frame has, those that `wish` wants; at least down to `depth`.
fn keys_of(frame: &Frame, wish: [u64; 2], depth: Depth) -> Vec<String> {
    let mut keys = Vec::new();
    let (mut wish, mut more) = (Wish(wish[0]), Wish(wish[1]));
    if wish.yes() {
        keys.push(format!("in_port {}", port(frame.port)));
    }
    if wish.seldom(4) {
        keys.push(format!("dst_mac {}", mac(MACS[frame.dst], &mut more)));
    }
    if wish.seldom(4) {
        keys.push(format!("src_mac {}", mac(MACS[frame.src], &mut more)));
    }
    // tc asks for the protocol first; without one a rule is for all frames.
    if wish.seldom(4) && depth == Depth::Any {
        return keys;
    }
    tag_keys(frame, &mut wish, &mut keys);
    if wish.seldom(8) && !frame.tags.is_empty() && depth == Depth::Any {
        // What is behind the tags does not count.
        keys.retain(|key| key != "cvlan_id none");
        return keys;
    }
    let eth_type = match frame.eth_type() {
        0x0800 => "ipv4".to_owned(),
        0x86dd => "ipv6".to_owned(),
        0x0806 => "arp".to_owned(),
        0x8847 => "mpls_uc".to_owned(),
        other => format!("0x{other:04x}"),
    };
    keys.push(format!("eth_type {eth_type}"));
    match &frame.body {
        Body::Ip(ip) => ip_keys(ip, [&mut wish, &mut more], &mut keys, depth),
        Body::Arp { op, ips, macs } => {
            if wish.yes() && (1..=2).contains(op) {
                keys.push(format!(
                    "arp_op {}",
                    if *op == 1 { "request" } else { "reply" }
                ));
            }
            for (ip, sip, sha, mac_of) in [
                (ips.0, "arp_sip", "arp_sha", macs.0),
                (ips.1, "arp_tip", "arp_tha", macs.1),
            ] {
                if wish.seldom(3) {
                    keys.push(format!("{sip} 10.{}.0.{}", ip / 4 % 4, ip % 4));
                }
                if wish.seldom(3) {
                    keys.push(format!("{sha} {}", mac(MACS[mac_of], &mut more)));
                }
            }
        }
        Body::Mpls(entries) => {
            if let Some(entry) = entries.first() {
                let fields = [
                    ("mpls_label", entry >> 12),
                    ("mpls_tc", entry >> 9 & 7),
                    ("mpls_bos", entry >> 8 & 1),
                    ("mpls_ttl", entry & 255),
                ];
                for (name, value) in fields {
                    if wish.seldom(3) {
                        keys.push(format!("{name} {value}"));
                    }
                }
            }
        }
        Body::Other(_) => {}
    }
    keys
}

/// The tags themselves always count: tc's protocol tells them apart.
fn tag_keys(frame: &Frame, wish: &mut Wish, keys: &mut Vec<String>) {
    for (n, prefix) in ["", "c"].into_iter().enumerate() {
        let Some(tag) = frame.tags.get(n) else {
            keys.push(format!("{prefix}vlan_id none"));
            return;
        };
        let tpid = if tag.ad { "802.1ad" } else { "802.1q" };
        keys.push(format!("{prefix}vlan_tpid {tpid}"));
        if wish.yes() {
            keys.push(format!("{prefix}vlan_id {}", tag.id));
        }
        if wish.seldom(4) {
            keys.push(format!("{prefix}vlan_prio {}", tag.prio));
        }
    }
}

fn ip_keys(ip: &Ip, [wish, more]: [&mut Wish; 2], keys: &mut Vec<String>, depth: Depth) {
    for (name, number) in [("src_ip", ip.ips.0), ("dst_ip", ip.ips.1)] {
        if !wish.seldom(3) {
            continue;
        }
        let (address, width) = (ip.address(number).0, if ip.v6 { 128 } else { 32 });
        keys.push(match more.below(6) {
            0 => format!("{name} {address}/{}", width / 2),
            1 => format!("{name} {address}/{}", width - 1),
            // tc reads prefixes, no other masks.
            _ => format!("{name} {address}"),
        });
    }
    if wish.seldom(6) {
        keys.push(format!("ip_tos 0x{:x}{}", ip.tos, mask(more, 0xff)));
    }
    if wish.seldom(6) {
        keys.push(format!("ip_ttl 0x{:x}{}", ip.ttl, mask(more, 0xff)));
    }
    if wish.seldom(5) || depth == Depth::Transport {
        keys.push(match ip.part {
            Part::Whole => "ip_flags nofrag".to_owned(),
            Part::First => [
                "ip_flags frag",
                "ip_flags firstfrag",
                "ip_flags frag/firstfrag",
            ][more.below(3) as usize]
                .to_owned(),
            Part::Later => {
                ["ip_flags frag", "ip_flags nofirstfrag"][more.below(2) as usize].to_owned()
            }
        });
    }
    if !wish.yes() && depth != Depth::Transport {
        return;
    }
    let proto = match ip.proto() {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    };
    keys.push(format!("ip_proto {proto}"));
    match ip.l4 {
        L4::Tcp(src, dst, flags) => {
            port_keys(src, dst, wish, more, keys);
            if wish.seldom(3) {
                keys.push(format!("tcp_flags 0x{flags:x}{}", mask(more, 0xfff)));
            }
        }
        L4::Udp(src, dst, _) | L4::Sctp(src, dst) => port_keys(src, dst, wish, more, keys),
        L4::Icmp(kind, code) => {
            if wish.yes() {
                keys.push(format!("type {kind}{}", mask(more, 0xff)));
            }
            if wish.yes() {
                keys.push(format!("code {code}{}", mask(more, 0xff)));
            }
        }
        L4::Other(_) => {}
    }
}

fn port_keys(src: u16, dst: u16, wish: &mut Wish, more: &mut Wish, keys: &mut Vec<String>) {
    // tc has masks or a range for both ports, not one of each.
    let range = more.seldom(3);
    for (name, value) in [("src_port", src), ("dst_port", dst)] {
        if wish.seldom(3) {
            continue;
        }
        keys.push(if range {
            let below = more.below(3) as u16;
            // tc takes no range from 0.
            let min = value.saturating_sub(below).max(1);
            format!("{name} {min}-{}", value.saturating_add(1).max(2))
        } else {
            format!("{name} {value}{}", mask(more, 0xffff))
        });
    }
}

/// Mostly none, so that all bits count.
fn mask(more: &mut Wish, all: u64) -> String {
    match more.below(4) {
        0 => format!("/0x{:x}", more.below(all) + 1),
        _ => String::new(),
    }
}

fn mac(mac: [u8; 6], more: &mut Wish) -> String {
    let text = |mac: [u8; 6]| mac.map(|b| format!("{b:02x}")).join(":");
    match more.below(5) {
        0 => format!("{}/{}", text(mac), text([0xff, 0xff, 0xff, 0, 0, 0])),
        1 => format!("{}/{}", text(mac), text([1, 0, 0, 0, 0, 0xfe])),
        _ => text(mac),
    }
}

/// A port as the text form calls it.
pub(super) fn port(number: usize) -> String {
    match number {
        0 => "uplink".to_owned(),
        n => format!("vport:{n}"),
    }
}

/// How many chains there are for packets of one kind, beside 0, in which packets begin.
const CHAINS: u32 = 3;
/// The chains of what was in tunnels are behind this one: in tc those are the chains of another
/// block, that of the tunnels' netdevs.
const TUNNEL_CHAINS: u32 = 10;

/// Whether only what was in a tunnel comes to this chain.
pub fn is_tunnel_chain(chain: u32) -> bool {
    (TUNNEL_CHAINS + 1..=TUNNEL_CHAINS + CHAINS + 1).contains(&chain)
}

/// `base` is in front of the chains that it can go on in.
fn last_action(ports: usize, chain: u32, base: u32) -> BoxedStrategy<Option<String>> {
    let send = (0..ports).prop_map(|n| Some(format!("redirect {}", port(n))));
    let plain = select(&["drop", "pass", "trap"][..]).prop_map(|word| Some(word.to_owned()));
    // Only onwards, so that every packet comes to an end.
    let next = chain.max(base) + 1..=base + CHAINS + 1;
    let goto = next.prop_map(|n| Some(format!("goto chain {n}")));
    prop_oneof![4 => send, 2 => plain, 3 => goto, 1 => Just(None)].boxed()
}

/// Rules for what is in tunnels have numbers above those of all others: tc asks them when those
/// that look at outer headers are done.
const TUNNEL_PRIO: u16 = 20_000;

/// Leaves one police of each index. Of a filter that makes the same one twice, the second waits in
/// the kernel for the first, and the first for the filter (tcf_idr_check_alloc, v6.1).
fn once_by_index(actions: &mut Vec<String>) {
    let mut seen = Vec::new();
    actions.retain(|action| {
        let again = seen.contains(action);
        if action.starts_with("police index ") {
            seen.push(action.clone());
        }
        !again
    });
}

/// A rule, most likely for one of `frames`, or if `others`, maybe for any; `number` makes its priority
/// one that no other rule of the case has.
pub fn rule(
    ports: usize,
    number: u16,
    frames: Vec<Frame>,
    others: bool,
) -> impl Strategy<Value = Rule> {
    let template = if others {
        prop_oneof![4 => select(frames), 1 => frame(ports)].boxed()
    } else {
        select(frames).boxed()
    };
    (prop::bool::weighted(0.6), 1..=CHAINS, template)
        .prop_flat_map(move |(first, chain, template)| {
            let base = if template.outer.is_some() {
                TUNNEL_CHAINS
            } else {
                0
            };
            let chain = if first { 0 } else { base + chain };
            let actions = (vec(any::<u64>(), 0..5), last_action(ports, chain, base));
            (
                Just(chain),
                1u16..64,
                Just(template),
                any::<[u64; 3]>(),
                actions,
            )
        })
        .prop_map(move |(chain, prio, template, wish, (actions, last))| {
            let mut now = template.clone();
            let actions = actions
                .into_iter()
                .map(|wish| action(ports, &mut now, wish));
            let (actions, depths): (Vec<_>, Vec<_>) = actions.unzip();
            let mut actions = in_and_out_of_tunnels(actions);
            once_by_index(&mut actions);
            let mut depth = depths.into_iter().max().unwrap_or(Depth::Any);
            let mut bare = Wish(wish[2] >> 32);
            if now.tags.is_empty() && matches!(now.body, Body::Ip(_)) && bare.seldom(8) {
                actions.push(tunnel::set_bare(|n| bare.below(n)));
                actions.push("redirect uplink".to_owned());
                depth = depth.max(Depth::Network);
            } else {
                actions.extend(last);
            }
            if actions.is_empty() {
                actions.push("pass".to_owned());
            }
            let mut keys = keys_of(&template, [wish[0], wish[1]], depth);
            let mut prio = prio * 64 + number;
            if let Some(outer) = &template.outer {
                keys.retain(|key| !key.starts_with("in_port"));
                if outer.is_bare() {
                    keys.retain(|key| !key.contains("_mac "));
                }
                keys.push("in_port uplink".to_owned());
                let mut wish = Wish(wish[2]);
                let mut more = Wish(wish.below(1 << 32));
                // What has lost its outer headers is for such rules, too.
                if chain == 0 || !wish.seldom(4) {
                    keys.extend(outer.keys(&mut wish, &mut more));
                }
                prio += TUNNEL_PRIO;
            } else if !others && !keys.iter().any(|key| key.starts_with("in_port")) {
                keys.push(format!("in_port {}", port(template.port)));
            }
            Rule {
                chain,
                prio,
                keys,
                actions,
                kept: false,
            }
        })
}

/// The last rule for each kind of tunnel: in tc, what no rule is for is taken out of its tunnel by
/// the time it gets to the host.
pub fn whole_tunnels(frames: &[Frame]) -> Vec<Rule> {
    // GRE's netdevs are of one family each.
    let kinds = [
        ("vxlan", None),
        ("geneve", None),
        ("vxlan-gpe", None),
        ("gre", Some(false)),
        ("gre", Some(true)),
    ];
    let kinds = kinds.into_iter().zip(65_000..);
    let met = kinds.filter(|((kind, v6), _)| {
        let mut outers = frames.iter().filter_map(|frame| frame.outer.as_ref());
        outers.any(|outer| outer.kind == *kind && v6.is_none_or(|v6| v6 == outer.v6))
    });
    let rule = |((kind, v6), prio): ((&str, Option<bool>), u16)| {
        let mut keys = vec!["in_port uplink".to_owned(), format!("enc_kind {kind}")];
        keys.extend(v6.map(tunnel::to_near));
        Rule {
            chain: 0,
            prio,
            keys,
            actions: vec!["pass".to_owned()],
            kept: true,
        }
    };
    met.map(rule).collect()
}
