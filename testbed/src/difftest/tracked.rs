//! Conversations, and rules that track them: `ct` with zones, marks, labels and translation, and
//! rules that ask what came of it.

use super::frame::{Body, Frame, Ip, L4, Part};
use super::rule::{Rule, port};
use super::wish::Wish;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Two chains behind the first, for what was tracked once or twice.
const CHAINS: u32 = 2;
/// Before them are those of other rules.
const BEFORE: u32 = 20;

/// The zone of conversations that are translated, and of no others: no two become the same, for
/// which a port would have to be drawn.
const TRANSLATED: u8 = 3;

/// Who talks, by the numbers of addresses and by ports.
#[derive(Clone, Copy, Debug)]
struct Talk {
    v6: bool,
    /// 6, 17, 132 or another: ICMP.
    proto: u8,
    /// Begins.
    a: (u8, u16),
    /// The other, whom packets to the last get to if destinations are translated.
    b: (u8, u16),
    /// What sources are translated to, or who `b` seems to be.
    face: u8,
}

impl Talk {
    fn frame(&self, wish: u64, first: bool) -> Frame {
        let mut wish = Wish(wish);
        let face = (self.face, self.b.1);
        let seen_a = (self.face, self.a.1);
        let (src, dst) = match wish.below(8) {
            _ if first => (self.a, [self.b, face][wish.below(2) as usize]),
            0..=2 => (self.a, self.b),
            3..=4 => (self.b, self.a),
            5 => (self.b, seen_a),
            6 => (self.a, face),
            // Somebody else.
            _ => ((self.a.0 ^ 1, self.a.1), self.b),
        };
        let flags = [0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14, 0][wish.below(8) as usize];
        let flags = if first { 0x02 } else { flags };
        let (ask, answer) = if self.v6 { (128, 129) } else { (8, 0) };
        let l4 = match self.proto {
            6 => L4::Tcp(src.1, dst.1, flags),
            17 => L4::Udp(src.1, dst.1, wish.seldom(6) && !self.v6),
            132 => L4::Sctp(src.1, dst.1),
            _ => L4::Icmp(if src.0 == self.a.0 { ask } else { answer }, 0),
        };
        let ip = Ip {
            v6: self.v6,
            ips: (src.0, dst.0),
            tos: 0,
            ttl: 64,
            options: false,
            part: Part::Whole,
            l4,
        };
        Frame {
            port: usize::from(src.0 == self.b.0),
            dst: 1,
            src: 0,
            tags: Vec::new(),
            body: Body::Ip(ip),
            len: 30 + wish.below(30) as usize,
            cut: None,
            unfinished: wish.seldom(5),
            outer: None,
        }
    }

    fn address(&self, number: u8) -> String {
        let ip = Ip {
            v6: self.v6,
            ips: (0, 0),
            tos: 0,
            ttl: 0,
            options: false,
            part: Part::Whole,
            l4: L4::Other(0),
        };
        ip.address(number).0
    }

    /// A `ct` action; `nat`: it translates packets of its rule, which is for one source and one
    /// destination only.
    fn track(&self, wish: &mut Wish, nat: Option<&'static str>) -> String {
        let mut text = "ct".to_owned();
        let commit = nat.is_some() || wish.seldom(3);
        if commit {
            text.push_str(" commit");
            if wish.seldom(6) {
                text.push_str(" force");
            }
        }
        let zone = match nat {
            Some(_) => TRANSLATED,
            None if !commit && wish.seldom(3) => TRANSLATED,
            None => 1 + wish.seldom(5) as u8,
        };
        text.push_str(&format!(" zone {zone}"));
        if commit && wish.yes() {
            let mask = ["0xff", "0xffffffff", "0x3"][wish.below(3) as usize];
            let mark = 1 + wish.below(3);
            text.push_str(&format!(" mark 0x{mark:x}/{mask}"));
        }
        if commit && wish.seldom(3) {
            let (value, mask) = label(wish.below(3));
            text.push_str(&format!(" label {value}/{mask}"));
        }
        match nat {
            Some(which) => {
                let address = match which {
                    "src" => self.face,
                    _ => self.b.0,
                };
                text.push_str(&format!(" nat {which} addr {}", self.address(address)));
            }
            // What was translated when its connection began.
            None if !commit && wish.yes() => text.push_str(" nat"),
            None => {}
        }
        text
    }

    /// A rule for one direction of the conversation that translates it when it is new.
    fn translator(&self, n: u16, wish: &mut Wish, chain: u32) -> Rule {
        let which = ["src", "dst"][wish.below(2) as usize];
        let dst = if which == "src" { self.b.0 } else { self.face };
        let mut keys = self.network();
        keys.push(format!("src_ip {}", self.address(self.a.0)));
        keys.push(format!("dst_ip {}", self.address(dst)));
        keys.push("ct_state +trk+new".to_owned());
        let mut actions = vec![self.track(wish, Some(which))];
        actions.push(last(wish, chain));
        rule(chain, n, keys, actions)
    }

    fn network(&self) -> Vec<String> {
        let eth_type = if self.v6 { "ipv6" } else { "ipv4" };
        ["vlan_id none".to_owned(), format!("eth_type {eth_type}")].into()
    }

    fn rule(&self, n: u16, wish: u64, chain: u32) -> Rule {
        let mut wish = Wish(wish);
        if chain > 0 && wish.seldom(4) {
            return self.translator(n, &mut wish, BEFORE + chain);
        }
        let mut keys = self.network();
        if chain == 0 {
            if wish.seldom(3) {
                keys.push(format!("in_port {}", port(wish.below(2) as usize)));
            }
        } else {
            keys.extend(asks(&mut wish));
        }
        let chain = if chain == 0 { 0 } else { BEFORE + chain };
        let mut actions = Vec::new();
        if wish.seldom(8) {
            actions.push("ct clear".to_owned());
        }
        if chain == 0 || wish.seldom(3) {
            actions.push(self.track(&mut wish, None));
        }
        if wish.seldom(3) {
            actions.push(format!("mirror {}", port(wish.below(4) as usize)));
        }
        actions.push(match chain {
            0 => format!("goto chain {}", BEFORE + 1 + wish.seldom(5) as u32),
            _ => last(&mut wish, chain),
        });
        rule(chain, n, keys, actions)
    }
}

fn rule(chain: u32, n: u16, keys: Vec<String>, actions: Vec<String>) -> Rule {
    Rule {
        chain,
        prio: 30_000 + n,
        keys,
        actions,
        kept: false,
    }
}

fn last(wish: &mut Wish, chain: u32) -> String {
    match wish.below(6) {
        0 => "pass".to_owned(),
        1 => format!("goto chain {}", chain + 1),
        n => format!("redirect {}", port(n as usize - 2)),
    }
}

/// A label and its mask.
fn label(which: u64) -> (String, String) {
    let zeros = "0".repeat(28);
    match which {
        0 => (format!("42{zeros}01"), "f".repeat(32)),
        1 => (format!("42{zeros}00"), format!("ff{zeros}00")),
        _ => (format!("00{zeros}07"), format!("00{zeros}0f")),
    }
}

/// Keys about what came of tracking.
fn asks(wish: &mut Wish) -> Vec<String> {
    const STATES: [&str; 10] = [
        "+trk+new", "+trk+est", "+trk-new", "+est-rpl", "+trk+rpl", "-trk", "+trk+inv", "-rpl",
        "+trk-est", "+trk",
    ];
    let mut keys = Vec::new();
    if !wish.seldom(4) {
        keys.push(format!("ct_state {}", STATES[wish.below(10) as usize]));
    }
    if wish.seldom(3) {
        let mask = ["0xff", "0xffffffff", "0x2"][wish.below(3) as usize];
        keys.push(format!("ct_mark 0x{:x}/{mask}", wish.below(4)));
    }
    if wish.seldom(4) {
        keys.push(format!("ct_zone {}", 1 + wish.seldom(4) as u8));
    }
    if wish.seldom(4) {
        let (value, mask) = label(wish.below(3));
        keys.push(format!("ct_label {value}/{mask}"));
    }
    keys
}

/// Frames of a conversation, and rules that track it.
pub fn tracked() -> impl Strategy<Value = (Vec<Rule>, Vec<Frame>)> {
    let proto = select(&[6u8, 6, 17, 17, 1, 132][..]);
    let ports = || 1024u16..60_000;
    let talk = (any::<bool>(), proto, ports(), ports(), 0u8..4);
    let talk = talk.prop_map(|(v6, proto, from, to, net)| Talk {
        v6,
        proto,
        a: (net * 4, from),
        b: (net * 4 + 2, to),
        face: net * 4 + 3,
    });
    let parts = (talk, vec(any::<u64>(), 2..9), vec(any::<u64>(), 4..10));
    parts.prop_map(|(talk, frames, rules)| {
        let frames = frames.iter().enumerate();
        let frames = frames.map(|(n, wish)| talk.frame(*wish, n == 0));
        let rules = rules.iter().zip(0u16..).map(|(wish, n)| {
            // Some for each chain.
            let chain = u32::from(n) % (CHAINS + 1);
            talk.rule(n, *wish, chain)
        });
        (rules.collect(), frames.collect())
    })
}
