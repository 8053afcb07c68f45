//! UDP, ICMP and protocols without ports.

use super::frame::{ethernet, packet, udp as datagram};
use super::{Ends, Rng, Said};
use crate::wire::ip_proto::{GRE, ICMP, ICMPV6, UDP};

fn said(from_a: bool, packet: &[u8], what: impl Into<String>) -> Said {
    Said {
        from_a,
        frame: ethernet(packet),
        what: format!("{} {}", if from_a { "a" } else { "b" }, what.into()),
    }
}

/// An ICMP error from the receiver of a packet that `ends` exchange.
fn complaint(rng: &mut Rng, ends: &Ends, about_a: bool, proto: u8, l4: &[u8]) -> Said {
    let (src, dst) = ends.received(about_a);
    let mut embedded = packet(&src, &dst, proto, l4);
    embedded.truncate(rng.weighted(&[(4, 100), (1, 28), (1, 48), (1, 30)]));
    let (_, mut to) = ends.of(!about_a);
    if rng.percent(10) {
        // To somebody else.
        to.address[3] ^= 1;
        to.address[15] ^= u8::from(to.version == 6);
    }
    let mut from = ends.of(!about_a).0;
    if rng.percent(30) {
        // By a router.
        from.address[2] ^= 0x55;
    }
    let v4 = from.version == 4;
    let (icmp, kind) = if v4 {
        (
            ICMP,
            rng.weighted(&[
                (6, [3, 3]),
                (2, [11, 0]),
                (1, [4, 0]),
                (1, [12, 0]),
                (1, [5, 1]),
            ]),
        )
    } else {
        (
            ICMPV6,
            rng.weighted(&[(6, [1, 4]), (2, [3, 0]), (1, [2, 0]), (1, [4, 0])]),
        )
    };
    let mut message = vec![kind[0], kind[1], 0, 0, 0, 0, 0, 0];
    message.extend(embedded);
    let what = format!(
        "complains by ICMP type {} of {} bytes",
        kind[0],
        message.len()
    );
    said(!about_a, &packet(&from, &to, icmp, &message), what)
}

/// UDP or UDP-Lite, with ICMP errors.
pub(super) fn udp(rng: &mut Rng, ends: &Ends, proto: u8, frames: usize) -> Vec<Said> {
    let mut out = Vec::new();
    let mut from_a = true;
    for _ in 0..frames {
        let (src, dst) = ends.of(from_a);
        let payload = rng.weighted(&[(4, 30), (2, 1400), (1, 0)]);
        let mut l4 = datagram(src.port, dst.port, payload);
        let kind = rng.below(20);
        match kind {
            0 => l4[4..6].copy_from_slice(&(9 + payload as u16).to_be_bytes()),
            1 => l4[4..6].copy_from_slice(&7u16.to_be_bytes()),
            2 => l4.truncate(5),
            3 => l4[4..6].copy_from_slice(&8u16.to_be_bytes()),
            _ => {}
        }
        let mut bytes = packet(&src, &dst, proto, &l4);
        if kind == 4 && proto == UDP {
            // No checksum.
            let header = bytes.len() - l4.len();
            bytes[header + 6..header + 8].fill(0);
        }
        // To UDP-Lite the length says what the checksum is over.
        if kind != 3 || proto == UDP {
            out.push(said(
                from_a,
                &bytes,
                format!("datagram {kind} of {payload}"),
            ));
        }
        if rng.percent(15) {
            out.push(complaint(rng, ends, from_a, proto, &l4));
        }
        from_a = if rng.percent(50) { !from_a } else { from_a };
    }
    out
}

/// Queries, answers to them or to nothing, errors about them.
pub(super) fn icmp(rng: &mut Rng, ends: &Ends, frames: usize) -> Vec<Said> {
    let v4 = ends.a.version == 4;
    let proto = if v4 { ICMP } else { ICMPV6 };
    let (ask, answer) = if v4 {
        rng.weighted(&[
            (6, (8, 0)),
            (1, (13, 14)),
            (1, (15, 16)),
            (1, (17, 18)),
            (1, (0, 8)),
        ])
    } else {
        rng.weighted(&[(6, (128, 129)), (1, (139, 140)), (1, (129, 128))])
    };
    let mut out = Vec::new();
    for i in 0..frames {
        let from_a = if i == 0 {
            rng.percent(95)
        } else {
            rng.percent(50)
        };
        let (src, dst) = ends.of(from_a);
        let kind = match rng.below(10) {
            0 if v4 => rng.weighted(&[(1, 9), (1, 10), (1, 30), (1, 255), (1, 1)]),
            0 => rng.weighted(&[(1, 135), (1, 133), (1, 143), (1, 160), (1, 255), (1, 200)]),
            1 => {
                if from_a {
                    answer
                } else {
                    ask
                }
            }
            _ => {
                if from_a {
                    ask
                } else {
                    answer
                }
            }
        };
        // The code is part of what belongs together.
        let code = u8::from(rng.percent(5));
        let id = if from_a { src.port } else { dst.port };
        let mut l4 = vec![kind, code, 0, 0];
        l4.extend(id.to_be_bytes());
        l4.extend([0, i as u8, 1, 2, 3]);
        if rng.percent(3) {
            l4.truncate(rng.weighted(&[(1, 4), (1, 7), (1, 8)]));
        }
        let bytes = packet(&src, &dst, proto, &l4);
        out.push(said(
            from_a,
            &bytes,
            format!("ICMP type {kind}, {} bytes", l4.len()),
        ));
        if rng.percent(10) {
            out.push(complaint(rng, ends, from_a, proto, &l4));
        }
    }
    out
}

/// Protocols that are told apart by addresses only, and GRE of both kinds.
pub(super) fn other(rng: &mut Rng, ends: &Ends, frames: usize) -> Vec<Said> {
    let proto = rng.weighted(&[(2, 50), (1, 255), (3, GRE), (1, 2)]);
    let mut out = Vec::new();
    for _ in 0..frames {
        let from_a = rng.percent(60);
        let (src, dst) = ends.of(from_a);
        let mut l4 = vec![0; 16];
        if proto == GRE {
            let kind = rng.weighted(&[
                (3, [0, 0, 0x65, 0x58]),
                (2, [0x20, 1, 0x88, 0x0b]),
                (1, [0, 1, 8, 0]),
            ]);
            l4[..4].copy_from_slice(&kind);
            l4[7] = src.port as u8;
            if rng.percent(5) && !ends.translated() {
                l4.truncate(rng.weighted(&[(1, 3), (1, 4), (1, 7)]));
            }
        }
        let bytes = packet(&src, &dst, proto, &l4);
        out.push(said(
            from_a,
            &bytes,
            format!("protocol {proto} {:?}", &l4[..l4.len().min(4)]),
        ));
        if rng.percent(10) {
            out.push(complaint(rng, ends, from_a, proto, &l4));
        }
    }
    out
}
