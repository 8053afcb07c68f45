//! Tests of what tracking does, one behaviour each.

use super::conversation::{End, packet};
use super::*;
use crate::flow::{CtKey, CtState};
use crate::wire::{eth_type, ip_proto};
use crate::{DropReason, Nanos};
use proptest::prelude::*;
use std::net::IpAddr;

const SECOND: Nanos = 1_000_000_000;

const NEW: u16 = CtState::TRK | CtState::NEW;
const EST: u16 = CtState::TRK | CtState::EST;
const REPLY: u16 = EST | CtState::RPL;
const INVALID: u16 = CtState::TRK | CtState::INV;

fn parse(ip: &[u8]) -> CtPacket {
    let eth_type = match ip.first().map_or(0, |byte| byte >> 4) {
        6 => eth_type::IPV6,
        _ => eth_type::IPV4,
    };
    CtPacket::parse(ip, ip.len() as u32, eth_type, 0)
}

fn udp(from: &End, to: &End) -> CtPacket {
    let mut l4 = Vec::new();
    l4.extend(from.port.to_be_bytes());
    l4.extend(to.port.to_be_bytes());
    l4.extend([0, 9, 0, 0, 7]);
    parse(&packet(from, to, ip_proto::UDP, &l4))
}

fn commit(zone: u16) -> CtSpec {
    CtSpec {
        zone,
        commit: true,
        ..CtSpec::default()
    }
}

fn table(max_entries: u32) -> Conntrack {
    Conntrack::new(CtConfig {
        max_entries,
        ..CtConfig::default()
    })
}

fn run(
    table: &Conntrack,
    spec: CtSpec,
    packet: &CtPacket,
    now: Nanos,
) -> Result<CtKey, DropReason> {
    let mut tracked = Tracked::new();
    table.run(&CtAction::Track(spec), &mut tracked, packet, now)?;
    Ok(*tracked.key())
}

fn state(table: &Conntrack, spec: CtSpec, packet: &CtPacket, now: Nanos) -> u16 {
    run(table, spec, packet, now).unwrap().state
}

fn ends(number: u16) -> (End, End) {
    let [high, low] = number.to_be_bytes();
    (
        End::v4([10, 1, high, low], 1000),
        End::v4([10, 2, 0, 1], 53),
    )
}

#[test]
fn zones_are_worlds_of_their_own() {
    let (table, (a, b)) = (table(100), ends(1));
    assert_eq!(state(&table, commit(1), &udp(&a, &b), 0), NEW);
    assert_eq!(state(&table, commit(1), &udp(&b, &a), 1), REPLY);
    assert_eq!(state(&table, commit(1), &udp(&a, &b), 2), EST);
    assert_eq!(state(&table, commit(2), &udp(&b, &a), 3), NEW);
    assert_eq!((table.len(), table.flush(Some(1)), table.len()), (2, 1, 1));
    assert_eq!(state(&table, commit(1), &udp(&b, &a), 4), NEW);
}

#[test]
fn what_is_not_committed_is_forgotten() {
    let (table, (a, b)) = (table(100), ends(1));
    let only = CtSpec::default();
    assert_eq!(state(&table, only, &udp(&a, &b), 0), NEW);
    assert_eq!(state(&table, only, &udp(&b, &a), 0), NEW);
    assert!(table.is_empty());
}

#[test]
fn a_mark_is_the_connection_s_and_clear_hides_it() {
    let (table, (a, b)) = (table(100), ends(1));
    let spec = CtSpec {
        mark: 0x12,
        mark_mask: 0xff,
        ..commit(0)
    };
    let key = run(&table, spec, &udp(&a, &b), 0).unwrap();
    assert_eq!((key.state, key.mark), (NEW, 0x12));
    let spec = CtSpec {
        mark: 0x3400,
        mark_mask: 0xff00,
        ..spec
    };
    assert_eq!(run(&table, spec, &udp(&b, &a), 0).unwrap().mark, 0x3412);
    let mut tracked = Tracked::new();
    let packet = udp(&a, &b);
    let look = CtAction::Track(CtSpec::default());
    table.run(&look, &mut tracked, &packet, 0).unwrap();
    assert_eq!(tracked.key().mark, 0x3412);
    table
        .run(&CtAction::Clear, &mut tracked, &packet, 0)
        .unwrap();
    assert_eq!(*tracked.key(), CtKey::default());
}

#[test]
fn a_full_table_refuses_what_begins_and_drops_what_never_got_far() {
    let table = table(3);
    for n in 0..3 {
        let (a, b) = ends(n);
        assert_eq!(state(&table, commit(0), &udp(&a, &b), 0), NEW);
        state(&table, commit(0), &udp(&b, &a), 1);
        // A stream that goes both ways for more than two seconds is assured.
        state(&table, commit(0), &udp(&a, &b), 3 * SECOND);
    }
    let (a, b) = ends(9);
    let before = DropReason::CtFull;
    assert_eq!(
        run(&table, commit(0), &udp(&a, &b), 4 * SECOND),
        Err(before)
    );
    let (c, d) = ends(1);
    assert_eq!(
        state(&table, commit(0), &udp(&c, &d), 4 * SECOND),
        EST,
        "what is there goes on"
    );
    assert_eq!(table.flush(None), 3);
    for n in 0..3 {
        let (a, b) = ends(n);
        state(&table, commit(0), &udp(&a, &b), 4 * SECOND);
    }
    let (a, b) = ends(9);
    assert_eq!(
        state(&table, commit(0), &udp(&a, &b), 5 * SECOND),
        NEW,
        "one unanswered goes"
    );
    assert_eq!(table.len(), 3);
    assert_eq!(state(&table, commit(0), &udp(&b, &a), 5 * SECOND), REPLY);
}

#[test]
fn connections_expire_by_themselves_and_when_swept() {
    let table = table(100);
    let other = |n: u16| {
        let (a, b) = ends(n);
        parse(&packet(&a, &b, 99, &[0; 8]))
    };
    for n in 0..10 {
        state(&table, commit(0), &other(n), u64::from(n) * SECOND);
    }
    // Other protocols last for ten minutes.
    assert_eq!(table.expire(604 * SECOND, 3), 3);
    assert_eq!(table.expire(604 * SECOND, 100), 2);
    assert_eq!(table.len(), 5);
    let mut left = Vec::new();
    table.visit(604 * SECOND, |entry| left.push(entry.expires_in / SECOND));
    left.sort_unstable();
    assert_eq!(left, [1, 2, 3, 4, 5]);
    assert_eq!(
        state(&table, commit(0), &other(7), 607 * SECOND),
        NEW,
        "over, and begun again"
    );
    assert_eq!(
        state(&table, commit(0), &other(8), 607 * SECOND),
        NEW,
        "goes on"
    );
    let mut counted = Vec::new();
    table.visit(607 * SECOND, |entry| {
        counted.push(entry.counters[0].packets)
    });
    counted.sort_unstable();
    assert_eq!(counted, [1, 1, 2]);
}

#[test]
fn fragments_and_what_is_not_ip() {
    let (table, (a, b)) = (table(10), ends(1));
    let mut first = packet(&a, &b, ip_proto::UDP, &[0; 40]);
    first[6] = 0x20;
    let mut later = first.clone();
    (later[6], later[7]) = (0, 5);
    for fragment in [first, later] {
        assert_eq!(
            run(&table, commit(3), &parse(&fragment), 0),
            Ok(CtKey::default())
        );
    }
    let arp = CtPacket::parse(&[0; 60], 60, eth_type::ARP, 14);
    assert_eq!(run(&table, commit(3), &arp, 0), Err(DropReason::CtNotIp));
    let cut = CtPacket::parse(&[0x45; 19], 19, eth_type::IPV4, 0);
    assert_eq!(state(&table, commit(3), &cut, 0), INVALID);
}

/// RFC 9260 §5.1 and §9.2, and a tag that is not the association's.
#[test]
fn an_association_from_init_to_shutdown() {
    let (table, (a, b)) = (table(10), ends(1));
    let sctp = |from_a: bool, tag: u32, kind: u8, init_tag: u32| {
        let (from, to) = if from_a { (&a, &b) } else { (&b, &a) };
        let mut l4 = Vec::new();
        l4.extend(from.port.to_be_bytes());
        l4.extend(to.port.to_be_bytes());
        l4.extend(tag.to_be_bytes());
        l4.extend([0, 0, 0, 0, kind, 0, 0, 20]);
        l4.extend(init_tag.to_be_bytes());
        l4.extend([0; 12]);
        parse(&packet(from, to, ip_proto::SCTP, &l4))
    };
    let (ta, tb) = (0xaaaa, 0xbbbb);
    let steps: [(bool, u32, u8, u16, &str); 14] = [
        (true, tb, 0, INVALID, "NONE"),
        (true, 0, 1, NEW, "CLOSED"),
        (false, ta, 2, REPLY, "COOKIE_WAIT"),
        (true, tb, 10, EST, "COOKIE_ECHOED"),
        (true, 7, 0, INVALID, "COOKIE_ECHOED"),
        (false, ta, 11, REPLY, "ESTABLISHED"),
        (true, tb, 0, EST, "ESTABLISHED"),
        (false, tb, 0, INVALID, "ESTABLISHED"),
        (false, ta, 3, REPLY, "ESTABLISHED"),
        (true, tb, 4, EST, "ESTABLISHED"),
        (false, ta, 7, REPLY, "SHUTDOWN_RECD"),
        (true, tb, 8, EST, "SHUTDOWN_ACK_SENT"),
        (false, ta, 14, REPLY, "CLOSED"),
        (true, 0, 1, EST, "CLOSED"),
    ];
    for (i, (from_a, tag, kind, want, name)) in steps.into_iter().enumerate() {
        let packet = sctp(from_a, tag, kind, if from_a { ta } else { tb });
        assert_eq!(
            state(&table, commit(0), &packet, i as u64),
            want,
            "step {i}"
        );
        let mut seen = None;
        table.visit(i as u64, |entry| seen = entry.state);
        assert_eq!(seen.unwrap_or("NONE"), name, "step {i}");
    }
}

/// Workers that track, commit, translate, sweep and flush at once: nothing is lost or stuck.
#[test]
fn workers_share_it() {
    let table = table(5000);
    let range = NatRange::new(
        IpAddr::from([10, 9, 0, 1]),
        IpAddr::from([10, 9, 0, 1]),
        Some((1000, 40000)),
    );
    let spec = CtSpec {
        nat: Some(CtNat::Src(range.unwrap())),
        ..commit(0)
    };
    std::thread::scope(|scope| {
        for worker in 0..4u16 {
            let table = &table;
            scope.spawn(move || {
                for i in 0..4000u16 {
                    // Two workers each meet in the same connections.
                    let (a, b) = ends(worker / 2 * 5000 + i % 2500);
                    let now = u64::from(i) * 1000;
                    match run(table, spec, &udp(&a, &b), now) {
                        Ok(key) => assert!(key.state == NEW || key.state == EST, "{key:?}"),
                        Err(reason) => assert!(
                            matches!(reason, DropReason::CtClash | DropReason::CtFull),
                            "{reason:?}"
                        ),
                    }
                    if i % 512 == 0 {
                        table.expire(now, 100);
                        table.visit(now, |_| {});
                    }
                }
            });
        }
    });
    let mut tuples = std::collections::HashSet::new();
    let mut count = 0;
    table.visit(0, |entry| {
        count += 1;
        assert!(
            tuples.insert(entry.original) && tuples.insert(entry.reply),
            "{entry:?}"
        );
    });
    assert_eq!(count, table.len());
    assert_eq!((table.flush(None), table.len()), (count, 0));
    table.visit(0, |entry| panic!("{entry:?}"));
}

fn end(net: u8, v6: bool, number: u16, port: u16) -> End {
    let [high, low] = number.to_be_bytes();
    let last = [10, net, high, low];
    if v6 {
        End::v6(last, port)
    } else {
        End::v4(last, port)
    }
}

fn translated(from: &End, to: Option<NatEnd>) -> End {
    to.map_or(*from, |to| End {
        address: to.address,
        port: to.port,
        ..*from
    })
}

proptest! {
    /// What the other end answers comes back to who asked, and nobody else gets it.
    #[test]
    fn translations_invert(
        v6 in any::<bool>(),
        destination in any::<bool>(),
        ports in proptest::option::of((1u16..60000, 0u16..400)),
        spread in 0u16..5,
        talks in proptest::collection::vec((0u16..6, 1u16..2000, 0u16..3), 1..60),
    ) {
        let table = table(1000);
        let (low, high) = (end(7, v6, 1, 0), end(7, v6, 1 + spread, 0));
        let address = |end: &End| Tuple { src: end.address, version: end.version, ..Tuple::default() }.src_ip();
        let ports = ports.map(|(low, size)| (low, low + size));
        let range = NatRange::new(address(&low), address(&high), ports).unwrap();
        let nat = if destination { CtNat::Dst(range) } else { CtNat::Src(range) };
        let ask = CtAction::Track(CtSpec { nat: Some(nat), ..commit(0) });
        let answer = CtAction::Track(CtSpec { nat: Some(CtNat::Existing), ..CtSpec::default() });
        let mut outside = std::collections::HashMap::new();
        for (number, port, server) in talks {
            let (a, b) = (end(1, v6, number, port), end(2, v6, server, 80));
            let mut tracked = Tracked::new();
            let rewrite = match table.run(&ask, &mut tracked, &udp(&a, &b), 0) {
                Ok(rewrite) => rewrite,
                // Few addresses and no choice of ports: they are used up.
                Err(DropReason::CtClash | DropReason::CtNatExhausted) => continue,
                Err(other) => return Err(TestCaseError::fail(other.name())),
            };
            let (sent_from, sent_to) = (translated(&a, rewrite.src), translated(&b, rewrite.dst));
            let moved = if destination { &sent_to } else { &sent_from };
            prop_assert!((low.address..=high.address).contains(&moved.address));
            if let Some((low, high)) = ports {
                prop_assert!((low..=high).contains(&moved.port), "{}", moved.port);
            }
            let known = outside.insert((sent_from.address, sent_from.port, sent_to.address, sent_to.port), (a, b));
            prop_assert!(known.is_none_or(|known| known == (a, b)));
            let mut tracked = Tracked::new();
            let back = table.run(&answer, &mut tracked, &udp(&sent_to, &sent_from), 0).unwrap();
            prop_assert_eq!(tracked.key().state, REPLY);
            prop_assert_eq!(translated(&sent_to, back.src), b);
            prop_assert_eq!(translated(&sent_from, back.dst), a);
        }
    }

    /// Any bytes, any lengths, through any protocol.
    #[test]
    fn any_bytes_are_tracked_within_bounds(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        v6 in any::<bool>(),
        proto in prop_oneof![Just(1u8), Just(6), Just(17), Just(47), Just(58), Just(132), Just(136), any::<u8>()],
        kind in any::<u8>(),
        len in 0u32..400,
        offset in 0usize..30,
    ) {
        let mut bytes = bytes;
        let (start, proto_at, l4, eth_type) = match v6 {
            true => (0x60, 6, 40, eth_type::IPV6),
            false => (0x45, 9, 20, eth_type::IPV4),
        };
        if let Some(ip) = bytes.get_mut(offset..) && ip.len() > l4 {
            ip[0] = start;
            ip[proto_at] = proto;
            ip[6 + usize::from(v6)] &= if v6 { 0xff } else { 0x40 };
            ip[7] &= if v6 { 0xff } else { 0 };
            ip[l4] = kind % 20;
        }
        let packet = CtPacket::parse(&bytes, len, eth_type, offset);
        let table = table(10);
        for _ in 0..3 {
            let spec = CtSpec { nat: Some(CtNat::Existing), ..commit(0) };
            let key = run(&table, spec, &packet, 0);
            prop_assert!(key.is_ok_and(|key| key.state & CtState::REL == 0));
        }
    }
}
