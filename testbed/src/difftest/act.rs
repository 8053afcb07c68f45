//! What random rules do with the packets that they are made for.

use super::carried::Outer;
use super::frame::{Body, Frame, L4, Part, Tag};
use super::rule::port;
use super::tunnel;
use super::wish::Wish;

/// How much of a packet a rule must know, for its actions to write to headers that are there: tc
/// writes anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Depth {
    /// Nothing.
    Any,
    /// What is behind the tags.
    Network,
    /// The protocol, and that it is no fragment.
    Transport,
}

/// An action that goes on, for packets like `frame`, and what it needs to know of them. `frame`
/// becomes what the action makes of it.
pub(super) fn action(ports: usize, frame: &mut Frame, wish: u64) -> (String, Depth) {
    let mut wish = Wish(wish);
    // With a second tag, what tc takes for the network header is that tag.
    let deep = frame.tags.len() > 1;
    // act_mpls leaves the EtherType of what comes from such a netdev.
    let bare = frame.outer.as_ref().is_some_and(Outer::is_bare);
    match wish.below(14) {
        0..=3 => (
            format!("mirror {}", port(wish.below(ports as u64) as usize)),
            Depth::Any,
        ),
        4 => {
            let (words, tag) = tag_words(&mut wish);
            frame.tags.insert(0, tag);
            (format!("vlan push {words}"), Depth::Any)
        }
        5 => {
            frame.tags.drain(..1.min(frame.tags.len()));
            ("vlan pop".to_owned(), Depth::Network)
        }
        6 => (
            format!("vlan modify {}", tag_words(&mut wish).0),
            Depth::Network,
        ),
        7 if !deep && !bare => (mpls(frame, &mut wish), Depth::Network),
        7..=9 => pedit(frame, &mut wish),
        // By then tc no longer counts a tag that is there.
        10 if frame.tags.is_empty() && wish.seldom(3) => (shared_police(&mut wish), Depth::Network),
        10 => (police(&mut wish), Depth::Any),
        // What is behind the last label was never a packet.
        11 if !deep && !matches!(frame.body, Body::Other(0x0800)) => {
            ("csum ip4h/icmp/tcp/udp/sctp".to_owned(), Depth::Network)
        }
        12 if !deep => {
            let tagged = !frame.tags.is_empty();
            (tunnel::set(tagged, |n| wish.below(n)), Depth::Network)
        }
        _ => {
            let to = port(wish.below(ports as u64) as usize);
            (
                format!("sample rate 1 group {} to {to}", 1 + wish.below(9)),
                Depth::Any,
            )
        }
    }
}

fn tag_words(wish: &mut Wish) -> (String, Tag) {
    let tag = Tag {
        id: [5, 6, 0, 4094][wish.below(4) as usize],
        ad: wish.yes(),
        prio: wish.below(8) as u8,
        dei: false,
    };
    let mut words = format!("id {}", tag.id);
    if tag.ad {
        words.push_str(" protocol 802.1ad");
    }
    if wish.yes() {
        words.push_str(&format!(" priority {}", tag.prio));
    }
    (words, tag)
}

/// Rates that take nothing more once some bytes were taken, so that time does not matter, from all
/// rules with the same index together. An index always means the same.
fn shared_police(wish: &mut Wish) -> String {
    let which = wish.below(3);
    let then = ["drop/pipe", "pipe/drop", "drop/pass"][which as usize];
    let (index, burst) = (1 + which, 70 + 90 * which);
    format!("police index {index} rate 1bps burst {burst} conform-exceed {then}")
}

/// Rates that take all or nothing, so that time does not matter.
fn police(wish: &mut Wish) -> String {
    let limit = [
        "rate 1gbit burst 1000000",
        "rate 8kbit burst 1",
        "rate 1gbit burst 1000000 mtu 300",
        "pkts_rate 1000000 pkts_burst 1000000",
    ];
    let then = [
        "drop/pipe",
        "pipe/drop",
        "drop/pass",
        "pass/pipe",
        "pipe/pipe",
    ];
    format!(
        "police {} conform-exceed {}",
        limit[wish.below(4) as usize],
        then[wish.below(5) as usize]
    )
}

fn mpls(frame: &mut Frame, wish: &mut Wish) -> String {
    let fields = (wish.below(1 << 20), wish.below(8), 1 + wish.below(200));
    let label = format!("label {} tc {} ttl {}", fields.0, fields.1, fields.2);
    let (text, body) = match (&frame.body, wish.below(4)) {
        (Body::Mpls(_), 0) => return format!("mpls modify {label}"),
        (Body::Mpls(_), 1) => return "mpls dec_ttl".to_owned(),
        (Body::Mpls(entries), 2) if entries.len() > 1 => (
            "mpls pop protocol mpls_uc".to_owned(),
            Body::Mpls(entries[1..].to_vec()),
        ),
        (Body::Mpls(_), 2) => ("mpls pop protocol ipv4".to_owned(), Body::Other(0x0800)),
        (Body::Mpls(entries), _) => {
            let more = [&[0][..], entries].concat();
            (
                format!("mpls push protocol mpls_uc {label}"),
                Body::Mpls(more),
            )
        }
        _ => (
            format!("mpls push protocol mpls_uc {label}"),
            Body::Mpls(vec![0]),
        ),
    };
    frame.body = body;
    text
}

fn pedit(frame: &Frame, wish: &mut Wish) -> (String, Depth) {
    let mut depth = Depth::Any;
    let mut text = "pedit ex".to_owned();
    for _ in 0..=wish.below(3) {
        let (munge, needs) = munge(frame, wish);
        depth = depth.max(needs);
        text.push_str(&format!(" munge {munge}"));
    }
    (text, depth)
}

fn munge(frame: &Frame, wish: &mut Wish) -> (String, Depth) {
    let eth = |wish: &mut Wish| {
        let field = ["src", "dst"][wish.below(2) as usize];
        let mac = [2, 0, 0, 0, 0x20, wish.below(256) as u8];
        let mac = mac.map(|b| format!("{b:02x}")).join(":");
        (format!("eth {field} set {mac}"), Depth::Any)
    };
    let ip = match &frame.body {
        Body::Ip(ip) if frame.tags.len() < 2 => ip,
        _ => return eth(wish),
    };
    let header = if ip.v6 { "ip6" } else { "ip" };
    let end = |wish: &mut Wish| ["src", "dst"][wish.below(2) as usize];
    match wish.below(6) {
        0 => eth(wish),
        1 => {
            let (end, address) = (end(wish), ip.address(wish.below(16) as u8).0);
            (format!("{header} {end} set {address}"), Depth::Network)
        }
        2 => {
            let field = if ip.v6 { "hoplimit" } else { "ttl" };
            let change = match wish.below(3) {
                0 => format!("set {}", wish.below(256)),
                1 => "add 255".to_owned(),
                _ => format!("add {}", wish.below(256)),
            };
            (format!("{header} {field} {change}"), Depth::Network)
        }
        3 => {
            let field = if ip.v6 { "traffic_class" } else { "tos" };
            let retain = ["", " retain 0xfc"][wish.below(2) as usize];
            let value = wish.below(256) & if retain.is_empty() { 0xff } else { 0xfc };
            (
                format!("{header} {field} set 0x{value:x}{retain}"),
                Depth::Network,
            )
        }
        _ => {
            let l4 = match (&ip.l4, ip.part) {
                (L4::Tcp(..), Part::Whole) => "tcp",
                (L4::Udp(..), Part::Whole) => "udp",
                _ => return eth(wish),
            };
            let end = ["sport", "dport"][wish.below(2) as usize];
            (
                format!("{l4} {end} set {}", wish.below(0x10000)),
                Depth::Transport,
            )
        }
    }
}

/// Behind each action that sends in a tunnel the sending, which is out of the uplink, where the
/// guest's tunnels go, and the end of the tunnel.
pub(super) fn in_and_out_of_tunnels(actions: Vec<String>) -> Vec<String> {
    let all = actions.into_iter().map(|action| {
        if action.starts_with("tunnel_key set") {
            let rest = ["mirror uplink", "tunnel_key unset"].map(str::to_owned);
            [vec![action], rest.to_vec()].concat()
        } else {
            vec![action]
        }
    });
    all.flatten().collect()
}
