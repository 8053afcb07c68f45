//! Connection tracking held against the kernel's: the same conversations through tc's `ct` in a
//! guest and through the model, and for every packet the same state and the same bytes.
//!
//! `CHANIO_CT_SEED` repeats a run, `CHANIO_CT_ROUNDS` makes it longer.

use chanio_model::ct::conversation::{End, Ends, Rng, Said, Topic, conversation};
use chanio_model::ct::{
    Conntrack, CtAction, CtConfig, CtNat, CtPacket, CtSpec, NatRange, NatRewrite, Tracked,
};
use chanio_model::edit::Packet;
use chanio_model::flow::CtState;
use chanio_model::offload::Offload;
use chanio_testbed::difftest::kernel::Kernel;
use chanio_testbed::difftest::protocol::{Order, Report, Sent, from_hex, to_hex};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

/// Where packets of each state leave; the rest of the ports are for those with the mark.
const STATES: [(&str, u16); 6] = [
    ("+trk+new", CtState::TRK | CtState::NEW),
    ("+trk+est-rpl", CtState::TRK | CtState::EST),
    ("+trk+est+rpl", CtState::TRK | CtState::EST | CtState::RPL),
    ("+trk+rel-rpl", CtState::TRK | CtState::REL),
    ("+trk+rel+rpl", CtState::TRK | CtState::REL | CtState::RPL),
    ("+trk+inv", CtState::TRK | CtState::INV),
];
const SECOND: u64 = 1_000_000_000;
const MARK: u32 = 5;
const LABEL: u8 = 0x42;

/// What the rules do with a packet.
#[derive(Clone, Debug)]
struct Policy {
    name: &'static str,
    /// Every packet.
    first: CtSpec,
    /// Then those that begin a connection.
    on_new: Option<CtSpec>,
    /// How the ends see each other.
    translation: Translation,
}

#[derive(Clone, Copy, Debug)]
enum Translation {
    None,
    Source,
    Destination,
}

fn policies(zone: u16) -> Vec<Policy> {
    let plain = CtSpec {
        zone,
        ..CtSpec::default()
    };
    let marked = CtSpec {
        commit: true,
        mark: MARK,
        mark_mask: 0xff,
        label: [LABEL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        label_mask: [0xff; 16],
        ..plain
    };
    let range = |ip: [u8; 4]| NatRange::new(IpAddr::from(ip), IpAddr::from(ip), None).unwrap();
    let restore = CtSpec {
        nat: Some(CtNat::Existing),
        ..plain
    };
    let nat = |nat| CtSpec {
        nat: Some(nat),
        ..marked
    };
    vec![
        Policy {
            name: "commit what is new",
            first: plain,
            on_new: Some(marked),
            translation: Translation::None,
        },
        Policy {
            name: "commit all at once",
            first: marked,
            on_new: None,
            translation: Translation::None,
        },
        Policy {
            name: "commit nothing",
            first: plain,
            on_new: None,
            translation: Translation::None,
        },
        Policy {
            name: "translate sources",
            first: restore,
            on_new: Some(nat(CtNat::Src(range(OUTSIDE)))),
            translation: Translation::Source,
        },
        Policy {
            name: "translate destinations",
            first: restore,
            on_new: Some(nat(CtNat::Dst(range(SERVER)))),
            translation: Translation::Destination,
        },
    ]
}

/// What sources are translated to.
const OUTSIDE: [u8; 4] = [10, 9, 9, 9];
/// What destinations are translated to.
const SERVER: [u8; 4] = [10, 8, 8, 8];

/// The action in tc's words.
fn words(spec: &CtSpec) -> String {
    let mut out = format!("action ct zone {}", spec.zone);
    if spec.commit {
        out.push_str(" commit");
    }
    if spec.mark_mask != 0 {
        write!(out, " mark {}/{:#x}", spec.mark, spec.mark_mask).unwrap();
    }
    if spec.label_mask != [0; 16] {
        write!(
            out,
            " label {}/{}",
            to_hex(&spec.label),
            to_hex(&spec.label_mask)
        )
        .unwrap();
    }
    match spec.nat {
        None => {}
        Some(CtNat::Existing) => out.push_str(" nat"),
        Some(CtNat::Src(range)) => write!(out, " nat src addr {}", range.addresses().0).unwrap(),
        Some(CtNat::Dst(range)) => write!(out, " nat dst addr {}", range.addresses().0).unwrap(),
    }
    out
}

fn rules(policy: &Policy) -> Vec<String> {
    let add = "filter add block 1 protocol all";
    let mut out = Vec::new();
    for (prio, proto) in [(1, "ip"), (2, "ipv6")] {
        let first = words(&policy.first);
        out.push(format!(
            "filter add block 1 protocol {proto} prio {prio} flower {first} pipe action goto chain 1"
        ));
    }
    for (i, (state, _)) in STATES.iter().enumerate() {
        let to = i + 1;
        let marked = format!(
            "ct_mark {MARK:#x}/0xff ct_label {LABEL:02x}{} action mirred egress redirect dev p{}",
            "0".repeat(30),
            to + STATES.len(),
        );
        let commit = match (i, &policy.on_new) {
            (0, Some(spec)) => format!("{} pipe", words(spec)),
            _ => String::new(),
        };
        let prio = 2 * i + 1;
        out.push(format!(
            "{add} chain 1 prio {prio} flower ct_state {state} {marked}"
        ));
        out.push(format!(
            "{add} chain 1 prio {} flower ct_state {state} {commit} action mirred egress redirect dev p{to}",
            prio + 1
        ));
    }
    out
}

/// What became of a packet: the port it left by and its bytes, or nothing.
type Outcome = Option<(usize, Vec<u8>)>;

fn model(table: &Conntrack, policy: &Policy, frame: &[u8], now: u64) -> Outcome {
    let mut packet = Packet::new(0);
    let mut tracked = Tracked::new();
    packet
        .load(frame, frame.len() as u32, Offload::default())
        .unwrap();
    let run = |spec: &CtSpec, packet: &mut Packet, tracked: &mut Tracked| {
        let eth_type = u16::from_be_bytes([frame[12], frame[13]]);
        let seen = CtPacket::parse(packet.head(), packet.frame_len(), eth_type, 14);
        let rewrite = table
            .run(&CtAction::Track(*spec), tracked, &seen, now)
            .ok()?;
        (rewrite == NatRewrite::default() || packet.nat(&rewrite).is_ok()).then_some(())
    };
    run(&policy.first, &mut packet, &mut tracked)?;
    let key = *tracked.key();
    let state = STATES.iter().position(|(_, state)| *state == key.state);
    let mut port = 1 + state.unwrap_or_else(|| panic!("{key:?}"));
    let mut label = [0; 16];
    label[0] = LABEL;
    if key.mark & 0xff == MARK && key.label == label {
        port += STATES.len();
    } else if let (1, Some(spec)) = (port, &policy.on_new) {
        run(spec, &mut packet, &mut tracked)?;
    }
    let edited = packet.edited();
    let mut bytes = edited.head.to_vec();
    bytes.extend(&frame[edited.taken as usize..]);
    bytes.truncate(unpadded(&bytes));
    Some((port, bytes))
}

/// How long the frame is without padding. The kernel cuts that off a packet that it tracks; a NIC
/// sends it on (docs/ct.md).
fn unpadded(frame: &[u8]) -> usize {
    let be = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let len = match frame[14] >> 4 {
        4 => be(16),
        _ => 40 + be(18),
    };
    frame.len().min(14 + len)
}

fn kernel(report: &Report, which: usize) -> Outcome {
    let got = &report.frames[which];
    assert!(got.len() <= 1, "more than one: {got:?}");
    let got = got.first()?;
    let bytes = from_hex(&got.hex).expect("hex");
    let port = got.netdev.strip_prefix('p').and_then(|n| n.parse().ok());
    Some((port.unwrap_or(0), bytes[12..].to_vec()))
}

/// How two outcomes of a packet compare.
#[derive(Debug, PartialEq, Eq)]
enum Compared {
    Same,
    /// For a reason that docs/ct.md gives.
    Meant(&'static str),
    Different,
}

fn compare(sent: &[u8], kernel: &Outcome, model: &Outcome) -> Compared {
    if kernel == model {
        return Compared::Same;
    }
    let (Some((kernel_port, by_kernel)), Some((model_port, by_model))) = (kernel, model) else {
        return Compared::Different;
    };
    let l4 = if sent[14] >> 4 == 4 { 34 } else { 54 };
    let proto = if l4 == 34 { sent[23] } else { sent[20] };
    // Without source port and checksum.
    let checksum = match proto {
        6 => 16..18,
        132 => 8..12,
        _ => 6..8,
    };
    let masked = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        for range in [0..2, checksum.clone()] {
            if let Some(number) = frame.get_mut(l4 + range.start..l4 + range.end) {
                number.fill(0);
            }
        }
        frame
    };
    let moved = |frame: &[u8]| frame.get(l4..l4 + 2) != sent.get(l4..l4 + 2);
    let drawn = kernel_port == model_port
        && matches!(proto, 6 | 17 | 132)
        && moved(by_kernel)
        && moved(by_model)
        && masked(by_kernel) == masked(by_model);
    if drawn {
        return Compared::Meant("another free port");
    }
    Compared::Different
}

/// A few conversations under one policy, interleaved.
struct Case {
    policy: Policy,
    said: Vec<Said>,
}

fn ends(number: u32, v6: bool, translation: Translation) -> Ends {
    let [_, _, high, low] = number.to_be_bytes();
    let end = |net: u8, port| {
        let last = [10, net, high, low];
        if v6 {
            End::v6(last, port)
        } else {
            End::v4(last, port)
        }
    };
    // Ports of their own: what is translated to one address stays apart.
    let (a, b) = (
        end(1, 2000 + number as u16),
        end(2, 1024 + (number % 3) as u16),
    );
    let plain = Ends::plain(a, b);
    match translation {
        Translation::None => plain,
        Translation::Source => Ends {
            a_seen_by_b: End::v4(OUTSIDE, a.port),
            ..plain
        },
        Translation::Destination => Ends {
            b: End::v4(SERVER, b.port),
            ..plain
        },
    }
}

fn case(rng: &mut Rng, policy: Policy, number: &mut u32) -> Case {
    let mut talks = Vec::new();
    for _ in 0..6 {
        *number += 1;
        let v6 = rng.percent(30) && matches!(policy.translation, Translation::None);
        let ends = ends(*number, v6, policy.translation);
        let topics = [
            (6, Topic::Tcp),
            (4, Topic::Sctp),
            (2, Topic::Udp),
            (2, Topic::Icmp),
            (1, Topic::Other),
        ];
        let topic = rng.weighted(&topics);
        let frames = 10 + rng.below(40) as usize;
        talks.push(conversation(rng, &ends, topic, frames).into_iter());
    }
    let mut said = Vec::new();
    while !talks.is_empty() {
        let which = rng.below(talks.len() as u64) as usize;
        match talks[which].next() {
            Some(next) => said.push(next),
            None => drop(talks.swap_remove(which)),
        }
    }
    Case { policy, said }
}

fn order(case: &Case) -> Order {
    let header = "0".repeat(24);
    let sent = |said: &Said| Sent {
        port: 0,
        hex: format!("{header}{}", to_hex(&said.frame)),
        put_aside: false,
    };
    Order {
        setup: rules(&case.policy),
        frames: case.said.iter().map(sent).collect(),
        show: vec![],
        cleanup: ["filter del block 1 chain 1", "filter del block 1"]
            .map(String::from)
            .into(),
    }
}

/// 1 if it is IPv6.
fn v6(said: &Said) -> usize {
    usize::from(said.frame[14] >> 4 == 6)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect(name))
}

#[test]
fn the_same_state_and_bytes_as_the_kernel_for_every_packet() {
    if !chanio_testbed::can_run() {
        return;
    }
    let seed = number("CHANIO_CT_SEED").unwrap_or_else(|| {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
        since.expect("a clock").as_nanos() as u64
    });
    println!("CHANIO_CT_SEED={seed}");
    let mut rng = Rng(seed);
    let mut cases = Vec::new();
    let mut conversations = 0;
    for round in 0..number("CHANIO_CT_ROUNDS").unwrap_or(8) {
        for (i, policy) in policies(0).into_iter().enumerate() {
            let zone = 1 + round as u16 * 8 + i as u16;
            let mut policy = policy;
            policy.first.zone = zone;
            policy
                .on_new
                .as_mut()
                .map(|spec| spec.zone = zone)
                .unwrap_or_default();
            cases.push(case(&mut rng, policy, &mut conversations));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut guest = Kernel::boot(dir.path(), 1 + 2 * STATES.len());
    let orders: Vec<_> = cases.iter().map(order).collect();
    let started = std::time::Instant::now();
    let reports = guest.run(&orders);
    let took = started.elapsed();

    let (mut packets, mut seen, mut meant) = (0, BTreeMap::new(), BTreeMap::new());
    let mut wrong = String::new();
    for (case, report) in cases.iter().zip(&reports) {
        assert_eq!(report.refused, "", "{}", case.policy.name);
        let table = Conntrack::new(CtConfig::default());
        let slow = Conntrack::new(CtConfig::default());
        for (i, said) in case.said.iter().enumerate() {
            let want = kernel(report, i);
            let got = model(&table, &case.policy, &said.frame, SECOND + i as u64);
            let late = (i as u64 + 1) * 2 * SECOND + SECOND / 10;
            let slowly = model(&slow, &case.policy, &said.frame, late);
            packets += 1;
            *seen
                .entry(want.as_ref().map(|(port, _)| *port))
                .or_insert(0) += 1;
            let mut compared = compare(&said.frame, &want, &got);
            // Datagrams that go both ways for two seconds are a stream, and pass by the flow
            // table even if they are malformed. Whether they are over, the guest's clock knows.
            if compared == Compared::Different
                && said.frame[23 - 3 * v6(said)] == 17
                && compare(&said.frame, &want, &slowly) == Compared::Same
            {
                compared = Compared::Meant("a stream by the guest's clock");
            }
            if let Compared::Meant(reason) = compared {
                *meant.entry(reason).or_insert(0) += 1;
            }
            if compared == Compared::Different && wrong.len() < 20_000 {
                let port = |outcome: &Outcome| outcome.as_ref().map(|(port, _)| *port);
                writeln!(
                    wrong,
                    "{}: packet {i}, {}: kernel {:?}, model {:?}\n  {}\n  kernel {}\n  model  {}",
                    case.policy.name,
                    said.what,
                    port(&want),
                    port(&got),
                    to_hex(&said.frame),
                    want.map_or(String::new(), |(_, bytes)| to_hex(&bytes)),
                    got.map_or(String::new(), |(_, bytes)| to_hex(&bytes)),
                )
                .unwrap();
            }
        }
    }
    println!(
        "{packets} packets of {conversations} conversations in {took:?}; by port {seen:?}; different on purpose: {meant:?}"
    );
    assert!(wrong.is_empty(), "CHANIO_CT_SEED={seed}\n{wrong}");
    // All kinds of outcome were there.
    for port in 1..=STATES.len() {
        let times = seen.get(&Some(port)).unwrap_or(&0) + seen.get(&Some(port + 6)).unwrap_or(&0);
        assert!(times > 0, "no packet was {}", STATES[port - 1].0);
    }
}
