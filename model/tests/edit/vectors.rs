//! What scapy makes of the same operations; `vectors.py` wrote `vectors.txt`.

use crate::flat;
use crate::ops::Op;
use chanio_model::Mac;
use chanio_model::ct::{NatEnd, NatRewrite};
use chanio_model::edit::tunnel::{GeneveOption, TunnelPorts, find};
use chanio_model::edit::*;
use chanio_model::offload::Offload;
use std::net::{IpAddr, Ipv6Addr};

/// Identification of the first outer IPv4 header.
const IDENT: u16 = 0x1234;

fn number(ip: &str) -> u128 {
    match ip.parse().unwrap() {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn set(field: Field, value: u128) -> Op {
    Op::Edit(FieldEdit::set(field, value))
}

fn end(ip: &str, port: u16) -> Option<NatEnd> {
    let mut address = [0; 16];
    match ip.parse().unwrap() {
        IpAddr::V4(ip) => address[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => address = ip.octets(),
    }
    Some(NatEnd { address, port })
}

fn nat(src: Option<NatEnd>, dst: Option<NatEnd>) -> Op {
    Op::Nat(NatRewrite { src, dst })
}

fn tunnel(kind: TunnelKind, change: impl FnOnce(&mut TunnelSet)) -> Op {
    let mut set = TunnelSet {
        kind,
        eth_src: Mac([2, 0xaa, 0, 0, 0, 1]),
        eth_dst: Mac([2, 0xaa, 0, 0, 0, 2]),
        src: [172, 16, 0, 1].into(),
        dst: [172, 16, 0, 2].into(),
        key: Some(42),
        dst_port: kind.default_port(),
        df: true,
        ttl: 64,
        ..TunnelSet::default()
    };
    change(&mut set);
    set.check().unwrap();
    Op::TunnelSet(Box::new(set))
}

fn over_ip6(set: &mut TunnelSet) {
    set.src = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1).into();
    set.dst = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2).into();
}

fn options() -> GeneveOptions {
    let mut options = GeneveOptions::new();
    let list: [(u16, u8, &[u8]); 2] = [(0x102, 0x80, &[1, 2, 3, 4, 5, 6, 7, 8]), (0xffff, 1, &[])];
    for (class, kind, data) in list {
        assert!(GeneveOption { class, kind, data }.append_to(&mut options));
    }
    options
}

fn case(name: &str) -> Op {
    use TunnelKind::*;
    let tag = |proto, vid, prio| Op::VlanPush(VlanTag { proto, vid, prio });
    match name {
        "vlan_push" => tag(VlanProto::Dot1Q, 100, 5),
        "vlan_push_ad" => tag(VlanProto::Dot1Ad, 100, 5),
        "vlan_pop" => Op::VlanPop,
        "vlan_modify" => Op::VlanModify(VlanModify {
            vid: 7,
            ..VlanModify::default()
        }),
        "ip_dst" | "ip_dst_behind_tags" => set(Field::Ipv4Dst, number("192.168.77.88")),
        "ttl_dec" => Op::Edit(FieldEdit {
            field: Field::Ipv4Ttl,
            change: FieldChange::Add(255),
        }),
        "ip6_src" | "ip6_src_behind_options" => set(Field::Ipv6Src, number("2001:db8::1:2")),
        "ip6_traffic_class" => set(Field::Ipv6TrafficClass, 0xb8),
        "tcp_dport" => set(Field::TcpDst, 8080),
        "udp_sport" | "udp_sport_no_checksum" => set(Field::UdpSrc, 1053),
        "sctp_sport" => set(Field::SctpSrc, 3868),
        "nat_src" | "nat_ping" => nat(end("198.51.100.1", 4000), None),
        "nat_ping6" => nat(end("fd00::77", 4000), None),
        "nat_error" => nat(None, end("10.0.0.1", 1000)),
        "nat_error6" => nat(None, end("fd00::1", 1000)),
        "mpls_push" => Op::MplsPush(MplsPush {
            proto: 0x8847,
            label: 0x12345,
            tc: 3,
            ttl: 9,
            bos: None,
        }),
        "vxlan" => tunnel(Vxlan, |_| ()),
        "vxlan_no_checksum" => tunnel(Vxlan, |set| (set.csum, set.df) = (false, false)),
        "vxlan_gbp" => tunnel(Vxlan, |set| set.gbp = Some(0x0008_0099)),
        "vxlan_over_ip6" => tunnel(Vxlan, |set| {
            over_ip6(set);
            set.flow_label = 0x12345;
        }),
        "vxlan_gpe" => tunnel(VxlanGpe, |_| ()),
        "vxlan_gpe_ip" => tunnel(VxlanGpe, |set| set.payload = Payload::Ip),
        "vxlan_ecn" => tunnel(Vxlan, |set| set.tos = Some(0x4b)),
        "geneve" => tunnel(Geneve, |set| {
            set.key = Some(5);
            set.options = options();
        }),
        "gretap" => tunnel(Gre, |set| (set.key, set.csum) = (Some(0xdead_beef), false)),
        "gretap_checksum" => tunnel(Gre, |set| {
            over_ip6(set);
            set.key = None;
        }),
        "gre_ip" => tunnel(Gre, |set| {
            (set.payload, set.key, set.csum) = (Payload::Ip, Some(7), false);
        }),
        _ => panic!("vectors.txt has {name}, which nobody here knows"),
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// Each case by name, with the frame before and after.
fn vectors() -> impl Iterator<Item = (&'static str, Vec<u8>, Vec<u8>)> {
    include_str!("vectors.txt").lines().map(|line| {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap();
        (word(), bytes(word()), bytes(word()))
    })
}

/// A frame before it was wrapped.
pub fn plain(name: &str) -> Vec<u8> {
    if name == "arp" {
        return [&[2; 12][..], &[8, 6], &[0; 28]].concat();
    }
    vectors().find(|(n, ..)| *n == name).unwrap().1
}

/// A frame that scapy wrapped.
pub fn wrapped(name: &str) -> Vec<u8> {
    vectors().find(|(n, ..)| *n == name).unwrap().2
}

#[test]
fn equals_what_scapy_builds() {
    let mut seen = 0;
    for (name, before, after) in vectors() {
        let mut packet = Packet::new(IDENT);
        packet
            .load(&before, before.len() as u32, Offload::default())
            .unwrap();
        case(name).on(&mut packet).unwrap();
        let got = flat(&packet, &before);
        assert_eq!(got, after, "{name}:\n got {got:02x?}\nwant {after:02x?}");
        seen += 1;
    }
    assert!(seen >= 31, "{seen}");
}

/// What scapy put into a tunnel comes out again, and its headers say what was asked for.
#[test]
fn unwraps_what_scapy_wraps() {
    let mut seen = 0;
    for (name, before, after) in vectors() {
        let Op::TunnelSet(set) = case(name) else {
            continue;
        };
        let ports = TunnelPorts::default();
        let found = find(&after, after.len() as u32, &ports).unwrap().unwrap();
        assert_eq!(
            (found.kind, found.payload),
            (set.kind, set.payload),
            "{name}"
        );
        assert_eq!((found.src, found.dst), (set.src, set.dst), "{name}");
        assert_eq!((found.key, found.gbp), (set.key, set.gbp), "{name}");
        assert_eq!(found.options, &set.options[..], "{name}");
        assert_eq!((found.dst_port, found.ttl), (set.dst_port, 64), "{name}");
        assert_eq!(found.df, set.df && set.src.is_ipv4(), "{name}");
        assert_eq!(found.csum, set.csum, "{name}");

        let mut packet = Packet::new(0);
        // With padding behind, which must go.
        let padded = [&after[..], &[0xee; 9]].concat();
        packet
            .load(&padded, padded.len() as u32, Offload::default())
            .unwrap();
        assert_eq!(packet.tunnel_unset(&ports), Ok(true));
        let got = flat(&packet, &padded);
        match set.payload {
            Payload::Ethernet => assert_eq!(got, before, "{name}"),
            Payload::Ip => {
                assert_eq!(got[..12], [0; 12], "{name}");
                assert_eq!(got[12..], before[12..], "{name}");
            }
        }
        seen += 1;
    }
    assert_eq!(seen, 11);
}
