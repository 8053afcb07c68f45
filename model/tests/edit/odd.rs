//! Packets that a tunnel's end drops, or does not take for tunnelled.

use crate::flat;
use crate::naive;
use crate::vectors::wrapped;
use chanio_model::DropReason;
use chanio_model::edit::tunnel::find;
use chanio_model::edit::*;
use chanio_model::offload::{Csum, Gso, GsoKind, Offload};

/// Where the outer UDP or GRE header begins in scapy's frames over IPv4.
const L4: usize = 34;

fn look(frame: &[u8]) -> Result<bool, DropReason> {
    let found = find(frame, frame.len() as u32, &TunnelPorts::default())?;
    Ok(found.is_some())
}

/// What is found after a byte was changed.
fn changed(name: &str, at: usize, to: u8) -> Result<bool, DropReason> {
    let mut frame = wrapped(name);
    frame[at] = to;
    look(&frame)
}

const MALFORMED: Result<bool, DropReason> = Err(DropReason::TunnelMalformed);

#[test]
fn wrong_outer_headers_are_told() {
    for name in ["vxlan", "vxlan_gpe", "geneve", "gretap", "gretap_checksum"] {
        assert_eq!(look(&wrapped(name)), Ok(true), "{name}");
    }
    let vxlan = L4 + 8;
    let cases = [
        ("the IPv4 checksum", changed("vxlan", 25, 0), MALFORMED),
        (
            "UDP shorter than its header",
            changed("vxlan", L4 + 5, 7),
            MALFORMED,
        ),
        (
            "UDP longer than the packet",
            changed("vxlan", L4 + 5, 0xff),
            MALFORMED,
        ),
        ("no VNI", changed("vxlan", vxlan, 0), MALFORMED),
        ("an unknown flag", changed("vxlan", vxlan, 0x0a), MALFORMED),
        (
            "a policy without its flag",
            changed("vxlan", vxlan + 3, 1),
            MALFORMED,
        ),
        ("a reserved byte", changed("vxlan", vxlan + 7, 1), MALFORMED),
        ("GPE without VNI", changed("vxlan_gpe", vxlan, 4), MALFORMED),
        (
            "GPE's management",
            changed("vxlan_gpe", vxlan, 0x0d),
            Ok(false),
        ),
        (
            "GPE's next version",
            changed("vxlan_gpe", vxlan, 0x1c),
            Ok(false),
        ),
        (
            "GPE with NSH inside",
            changed("vxlan_gpe", vxlan + 3, 4),
            Ok(false),
        ),
        (
            "Geneve's next version",
            changed("geneve", vxlan, 0x44),
            MALFORMED,
        ),
        (
            "options over the end",
            changed("geneve", vxlan, 63),
            MALFORMED,
        ),
        (
            "an option over the others",
            changed("geneve", vxlan + 11, 31),
            MALFORMED,
        ),
        (
            "Geneve with something else",
            changed("geneve", vxlan + 3, 0),
            Ok(false),
        ),
        ("GRE's routing", changed("gretap", L4, 0x60), Ok(false)),
        (
            "GRE's next version",
            changed("gretap", L4 + 1, 1),
            Ok(false),
        ),
        ("another port", changed("vxlan", L4 + 3, 0), Ok(false)),
    ];
    for (what, got, want) in cases {
        assert_eq!(got, want, "{what}");
    }
}

/// However a packet is cut: by its sender it is malformed, by how much is known it is too deep.
#[test]
fn cut_packets_are_told_from_short_heads() {
    for name in ["vxlan", "vxlan_gpe", "geneve", "gretap", "gre_ip"] {
        let frame = wrapped(name);
        let ports = TunnelPorts::default();
        let whole = find(&frame, frame.len() as u32, &ports).unwrap().unwrap();
        let needed = match whole.payload {
            Payload::Ethernet => whole.inner + 14,
            Payload::Ip => whole.inner + 1,
        };
        for len in L4..frame.len() {
            let got = find(&frame[..len], frame.len() as u32, &ports);
            let want = if len < needed {
                Err(DropReason::RewriteDepth)
            } else {
                Ok(Some(FoundTunnel {
                    options: whole.options,
                    ..whole
                }))
            };
            if whole.dst_port != 0 && len < L4 + 4 {
                // Without its ports nothing says that it is a tunnel.
                assert_eq!(got, Ok(None), "{name}, {len} bytes known");
                continue;
            }
            assert_eq!(got, want, "{name}, {len} bytes known");
            assert_eq!(look(&frame[..len]), MALFORMED, "{name}, {len} bytes");
        }
    }
}

#[test]
fn a_congestion_mark_that_cannot_be_passed_on_loses_the_packet() {
    let mut frame = wrapped("vxlan");
    frame[15] |= 3;
    naive::checksums(&mut frame, true);
    let mut packet = Packet::new(0);
    let len = frame.len() as u32;
    packet.load(&frame, len, Offload::default()).unwrap();
    let ports = TunnelPorts::default();
    assert_eq!(packet.tunnel_unset(&ports), Err(DropReason::TunnelEcn));
    let mut frame = wrapped("vxlan_ecn");
    frame[15] |= 3;
    naive::checksums(&mut frame, true);
    packet.load(&frame, len, Offload::default()).unwrap();
    assert_eq!(packet.tunnel_unset(&ports), Ok(true));
    let inside = flat(&packet, &frame);
    assert_eq!(inside[15], 0xbb, "congestion experienced");
    let mut right = inside.clone();
    naive::checksums(&mut right, true);
    assert_eq!(inside, right);
}

/// A driver's UDP segmentation of tunnelled packets: each segment would have to be looked at.
#[test]
fn tunnelled_packets_still_to_be_cut_are_not_unwrapped() {
    let frame = wrapped("vxlan");
    let len = frame.len() as u32;
    let offload = Offload {
        csum: Some(Csum {
            start: L4 as u16,
            offset: 6,
        }),
        gso: Some(Gso {
            kind: GsoKind::Udp4,
            size: 40,
            hdr_len: L4 as u16 + 8,
            ecn: false,
        }),
        ..Offload::default()
    };
    let mut packet = Packet::new(0);
    packet.load(&frame, len, offload).unwrap();
    let ports = TunnelPorts::default();
    assert_eq!(packet.tunnel_unset(&ports), Err(DropReason::TunnelGso));
    // Only its outer checksum left to be finished: gone with the outer headers.
    let csum = Offload {
        gso: None,
        ..offload
    };
    packet.load(&frame, len, csum).unwrap();
    assert_eq!(packet.tunnel_unset(&ports), Ok(true));
    assert_eq!(packet.offload(), Offload::default());
}

/// The end of what the headers can say, and of the room there is.
#[test]
fn what_does_not_fit_is_refused() {
    let set = TunnelSet {
        dst: [10, 0, 0, 1].into(),
        ..TunnelSet::default()
    };
    let frame = crate::vectors::plain("vxlan");
    let mut packet = Packet::new(0);
    // 65,535 less IPv4, UDP and VXLAN headers.
    for (len, want) in [(65_499, Ok(())), (65_500, Err(DropReason::RewriteLength))] {
        packet.load(&frame, len, Offload::default()).unwrap();
        assert_eq!(packet.tunnel_set(&set), want, "{len}");
    }
    packet
        .load(&frame, frame.len() as u32, Offload::default())
        .unwrap();
    let results: Vec<_> = (0..9).map(|_| packet.tunnel_set(&set)).collect();
    // 384 bytes of room, 50 each.
    assert_eq!(results[..7], [Ok(()); 7]);
    assert_eq!(results[7..], [Err(DropReason::RewriteRoom); 2]);
    let arp = crate::vectors::plain("arp");
    let bare = TunnelSet {
        kind: TunnelKind::Gre,
        payload: Payload::Ip,
        ..set
    };
    packet
        .load(&arp, arp.len() as u32, Offload::default())
        .unwrap();
    assert_eq!(packet.tunnel_set(&bare), Err(DropReason::TunnelPayload));
}

#[test]
fn checksums_of_cut_off_packets_are_refused() {
    let frame = crate::vectors::plain("vxlan");
    let mut packet = Packet::new(0);
    let csum = |packet: &mut Packet, len: usize| {
        packet
            .load(&frame[..len], len as u32, Offload::default())
            .unwrap();
        packet.csum(Csums::TCP | Csums::IPV4_HEADER)
    };
    assert_eq!(csum(&mut packet, frame.len()), Ok(()));
    for len in 14..frame.len() {
        let got = csum(&mut packet, len);
        assert_eq!(got, Err(DropReason::CsumCutOff), "{len}");
    }
}
