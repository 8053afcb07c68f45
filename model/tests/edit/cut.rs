//! A frame that is rewritten and then cut gives the segments that cutting it first and rewriting
//! each would give.

use crate::frames::{Network, Spec, Transport, spec};
use crate::naive;
use crate::ops::{Op, is_inside, op};
use crate::same;
use chanio_model::edit::*;
use chanio_model::offload::{Csum, Gso, GsoKind, Offload, RxOffloads, Segmenter};
use proptest::prelude::*;

/// A frame to be cut, as a driver gives it.
fn gso(spec: &Spec, size: u16) -> Option<(Vec<u8>, Offload)> {
    let mut frame = spec.build();
    let at = naive::find(&frame);
    let (kind, l4_len, field) = match (&spec.transport, at.v4) {
        (Transport::Tcp { options }, true) => (GsoKind::Tcp4, 20 + options * 4, 16),
        (Transport::Tcp { options }, false) => (GsoKind::Tcp6, 20 + options * 4, 16),
        (Transport::Udp { .. }, true) => (GsoKind::Udp4, 8, 6),
        (Transport::Udp { .. }, false) => (GsoKind::Udp6, 8, 6),
        _ => return None,
    };
    let partial = naive::partial(&frame)?;
    let hdr_len = at.l4 + l4_len;
    if at.fragment || frame.len() <= hdr_len + usize::from(size) {
        return None;
    }
    frame[at.l4 + field..][..2].copy_from_slice(&partial.to_be_bytes());
    let offload = Offload {
        csum: Some(Csum {
            start: at.l4 as u16,
            offset: field as u16,
        }),
        gso: Some(Gso {
            kind,
            size,
            hdr_len: hdr_len as u16,
            ecn: false,
        }),
        ..Offload::default()
    };
    Some((frame, offload))
}

fn cut(frame: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    let cut = Segmenter::new(frame, offload).unwrap();
    let write = |n| {
        let mut out = vec![0; cut.max_len()];
        let len = cut.write(n, &mut out).unwrap();
        out.truncate(len);
        out
    };
    (0..cut.count()).map(write).collect()
}

/// What each operation does to one segment. False if it cannot be told here.
fn on_segment(
    op: &Op,
    segment: &mut Vec<u8>,
    n: u16,
    got: &[u8],
    sets: &mut Vec<TunnelSet>,
) -> bool {
    match op {
        Op::VlanPush(tag) => naive::vlan_push(segment, *tag),
        Op::VlanPop => naive::vlan_pop(segment),
        Op::VlanModify(to) => naive::vlan_modify(segment, *to),
        Op::Edit(edit) => naive::edit(segment, edit),
        Op::Nat(rewrite) => naive::nat(segment, rewrite),
        Op::Csum => {}
        Op::TunnelSet(set) => {
            let at = naive::find(got);
            let ident = naive::be16(got, at.l3 + 4).wrapping_add(n);
            naive::tunnel_set(segment, set, naive::be16(got, at.l4), ident);
            sets.push((**set).clone());
        }
        Op::TunnelUnset => match sets.pop() {
            Some(set) => return naive::tunnel_unset(segment, &set),
            None => return false,
        },
        Op::MplsPush(_) | Op::MplsPop => return false,
    }
    true
}

fn large() -> impl Strategy<Value = Spec> {
    let transport = prop_oneof![
        2 => (0usize..=10).prop_map(|options| Transport::Tcp { options }),
        1 => Just(Transport::Udp { none: false }),
    ];
    (spec(), transport, 300usize..3000).prop_map(|(spec, transport, len)| {
        let network = match spec.network {
            Network::V6 {
                class,
                hops,
                options,
                ..
            } => Network::V6 {
                class,
                hops,
                options,
                fragment: None,
            },
            Network::V4 {
                tos, ttl, options, ..
            } => Network::V4 {
                tos,
                ttl,
                options,
                fragment: (false, 0),
            },
            Network::Other(_) => Network::V4 {
                tos: 1,
                ttl: 2,
                options: 0,
                fragment: (false, 0),
            },
        };
        let payload = (0..len).map(|i| (i * 7 + i / 256) as u8).collect();
        Spec {
            network,
            transport,
            payload,
            padding: 0,
            ..spec
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn cutting_last_is_cutting_first(
        spec in large(),
        size in 100u16..1000,
        ops in proptest::collection::vec(op(), 1..6),
    ) {
        let Some((source, offload)) = gso(&spec, size) else {
            return Ok(());
        };
        let mut packet = Packet::new(9);
        packet.load(&source[..192], source.len() as u32, offload).unwrap();
        let mut want = cut(&source, &offload);
        let mut sets = vec![vec![]; want.len()];
        for op in &ops {
            let inside = sets[0].last().is_some_and(|set| is_inside(&want[0], set));
            if matches!(op, Op::TunnelUnset) && !inside {
                continue;
            }
            if let Err(reason) = op.on(&mut packet) {
                let known = matches!(
                    (op, reason.name()),
                    (Op::TunnelSet(_), "rewrite_room")
                        | (Op::TunnelUnset, "tunnel_ecn" | "rewrite_depth" | "tunnel_malformed")
                        | (Op::VlanPush(_), "rewrite_room")
                        | (Op::MplsPush(_), "mpls_invalid")
                );
                prop_assert!(known, "{op:?}: {reason:?}");
                return Ok(());
            }
            let got = packet.head().to_vec();
            for (n, segment) in want.iter_mut().enumerate() {
                if !on_segment(op, segment, n as u16, &got, &mut sets[n]) {
                    return Ok(());
                }
            }
        }
        let offload = packet.offload();
        prop_assert_eq!(offload.outer_len() != 0, !sets[0].is_empty());
        prop_assert_eq!(offload.fits(RxOffloads::ALL), sets[0].is_empty());
        let whole = {
            let edited = packet.edited();
            let (from, len) = (edited.taken as usize, edited.tail as usize);
            [edited.head, &source[from..from + len]].concat()
        };
        let got = cut(&whole, &offload);
        prop_assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(&want) {
            prop_assert!(same(got, want), "\n got {got:02x?}\nwant {want:02x?}");
        }
    }
}
