//! Every key of flower as tc(8) sends it.

use crate::recorder::{ETH0, assert_same, request};
use chanio_netlink::attr::{Masked, Value};
use chanio_netlink::tc::action::{Action, Control, Gact};
use chanio_netlink::tc::flower::{CtKey, FlowerKey, FlowerRule, IpKey, MplsLse, RuleFlags};
use chanio_netlink::tc::tunnel_options::{
    ErspanOption, GeneveOption, GtpOption, TunnelOptions, VxlanOption,
};
use chanio_netlink::tc::{At, Filter, FilterKind, INGRESS, NEW_FILTER};

/// NLM_F_REQUEST, ACK, EXCL and CREATE: `add`.
const ADD: u16 = 0x605;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn exact<T: Value>(value: T) -> Option<Masked<T>> {
    Some(Masked::exact(value))
}

fn masked<T>(value: T, mask: T) -> Option<Masked<T>> {
    Some(Masked { value, mask })
}

fn ip4(text: &str) -> std::net::Ipv4Addr {
    text.parse().unwrap()
}

fn ip6(text: &str) -> std::net::Ipv6Addr {
    text.parse().unwrap()
}

/// Runs `tc … flower WORDS action drop`, and compares what it sends with our rule.
fn check_rule(protocol: &str, number: u16, words: &str, make: impl Fn(&mut FlowerRule)) {
    let line = format!(
        "tc filter add dev eth0 ingress prio 1 protocol {protocol} flower {words} action drop"
    );
    let mut rule = FlowerRule {
        actions: vec![Action::new(Gact::default(), Control::Shot)],
        flags: Some(RuleFlags::default()),
        ..FlowerRule::default()
    };
    // tc tells the type that the filter is for once more as a key, unless it is for all.
    rule.key.eth.eth_type = (number != 3).then_some(number);
    make(&mut rule);
    let ours = Filter {
        at: At::Device {
            ifindex: ETH0,
            parent: INGRESS,
        },
        priority: 1,
        protocol: number,
        kind: Some(FilterKind::Flower(Box::new(rule))),
        ..Filter::default()
    };
    let theirs = request(&line);
    assert_same(&line, &theirs, &ours.message(NEW_FILTER, ADD).unwrap());
    assert_eq!(Filter::parse(&theirs.payload).unwrap(), ours, "{line}");
}

type Case<'a> = (&'a str, fn(&mut FlowerKey));

fn check(protocol: &str, number: u16, cases: &[Case<'_>]) {
    for (words, make) in cases {
        check_rule(protocol, number, words, |rule| make(&mut rule.key));
    }
}

#[test]
fn ethernet() {
    check(
        "all",
        3,
        &[
            ("dst_mac 02:00:00:00:00:01", |k| k.eth.dst = exact(MAC)),
            ("src_mac 02:00:00:00:00:01", |k| k.eth.src = exact(MAC)),
            ("dst_mac 01:00:00:00:00:00/01:00:00:00:00:00", |k| {
                k.eth.dst = masked([1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]);
            }),
            ("src_mac 02:00:00:00:00:00/24", |k| {
                k.eth.src = masked([2, 0, 0, 0, 0, 0], [255, 255, 255, 0, 0, 0]);
            }),
            ("indev eth0", |k| k.eth.indev = Some("eth0".into())),
            ("num_of_vlans 1", |k| k.eth.num_of_vlans = Some(1)),
        ],
    );
}

#[test]
fn tags() {
    check(
        "802.1q",
        0x8100,
        &[
            ("vlan_id 100", |k| k.vlan.id = Some(100)),
            ("vlan_prio 5", |k| k.vlan.priority = Some(5)),
            ("vlan_id 7 vlan_ethtype ipv4 src_ip 10.0.0.1", |k| {
                k.vlan.id = Some(7);
                k.vlan.eth_type = Some(0x0800);
                k.ip.v4_src = exact(ip4("10.0.0.1"));
            }),
        ],
    );
    check(
        "802.1ad",
        0x88a8,
        &[(
            "vlan_id 7 vlan_ethtype 802.1q cvlan_id 9 cvlan_prio 3 cvlan_ethtype ipv6",
            |k| {
                (k.vlan.id, k.vlan.eth_type) = (Some(7), Some(0x8100));
                (k.cvlan.id, k.cvlan.priority) = (Some(9), Some(3));
                k.cvlan.eth_type = Some(0x86dd);
            },
        )],
    );
}

#[test]
fn ipv4() {
    check(
        "ip",
        0x0800,
        &[
            ("src_ip 10.0.0.1", |k| k.ip.v4_src = exact(ip4("10.0.0.1"))),
            ("dst_ip 10.1.0.0/16", |k| {
                k.ip.v4_dst = masked(ip4("10.1.0.0"), ip4("255.255.0.0"))
            }),
            ("src_ip 10.0.0.0/8 dst_ip 1.2.3.4", |k| {
                k.ip.v4_src = masked(ip4("10.0.0.0"), ip4("255.0.0.0"));
                k.ip.v4_dst = exact(ip4("1.2.3.4"));
            }),
            ("ip_proto tcp", |k| k.ip.proto = Some(6)),
            ("ip_proto udp", |k| k.ip.proto = Some(17)),
            ("ip_proto sctp", |k| k.ip.proto = Some(132)),
            ("ip_proto icmp", |k| k.ip.proto = Some(1)),
            ("ip_proto 2f", |k| k.ip.proto = Some(47)),
            ("ip_tos 0x10", |k| k.ip.tos = exact(0x10)),
            ("ip_tos 0x10/0xfc", |k| k.ip.tos = masked(0x10, 0xfc)),
            ("ip_ttl 64", |k| k.ip.ttl = exact(64)),
            ("ip_ttl 64/0xf0", |k| k.ip.ttl = masked(64, 0xf0)),
            ("ip_flags frag", |k| {
                k.ip.flags = masked(IpKey::FRAGMENT, IpKey::FRAGMENT)
            }),
            ("ip_flags nofrag", |k| {
                k.ip.flags = masked(0, IpKey::FRAGMENT)
            }),
            ("ip_flags firstfrag", |k| {
                k.ip.flags = masked(IpKey::FIRST_FRAGMENT, IpKey::FIRST_FRAGMENT);
            }),
            ("ip_flags frag/nofirstfrag", |k| {
                k.ip.flags = masked(IpKey::FRAGMENT, IpKey::FRAGMENT | IpKey::FIRST_FRAGMENT);
            }),
        ],
    );
}

#[test]
fn transport() {
    check(
        "ip",
        0x0800,
        &[
            ("ip_proto tcp src_port 80", |k| {
                k.ip.proto = Some(6);
                k.tcp.src = exact(80);
            }),
            ("ip_proto tcp dst_port 80/0xfff0", |k| {
                k.ip.proto = Some(6);
                k.tcp.dst = masked(80, 0xfff0);
            }),
            ("ip_proto udp src_port 53 dst_port 54", |k| {
                k.ip.proto = Some(17);
                (k.udp.src, k.udp.dst) = (exact(53), exact(54));
            }),
            ("ip_proto sctp dst_port 99", |k| {
                k.ip.proto = Some(132);
                k.sctp.dst = exact(99);
            }),
            ("ip_proto tcp dst_port 80-90", |k| {
                k.ip.proto = Some(6);
                (k.ranges.dst_min, k.ranges.dst_max) = (Some(80), Some(90));
            }),
            ("ip_proto udp src_port 1000-2000 dst_port 1-9", |k| {
                k.ip.proto = Some(17);
                (k.ranges.src_min, k.ranges.src_max) = (Some(1000), Some(2000));
                (k.ranges.dst_min, k.ranges.dst_max) = (Some(1), Some(9));
            }),
            ("ip_proto tcp tcp_flags 0x2", |k| {
                k.ip.proto = Some(6);
                k.tcp.flags = masked(2, 0xfff);
            }),
            ("ip_proto tcp tcp_flags 0x2/0x17", |k| {
                k.ip.proto = Some(6);
                k.tcp.flags = masked(2, 0x17);
            }),
            ("ip_proto icmp type 8", |k| {
                k.ip.proto = Some(1);
                k.icmpv4.kind = exact(8);
            }),
            ("ip_proto icmp type 3 code 4", |k| {
                k.ip.proto = Some(1);
                (k.icmpv4.kind, k.icmpv4.code) = (exact(3), exact(4));
            }),
        ],
    );
}

#[test]
fn ipv6() {
    check(
        "ipv6",
        0x86dd,
        &[
            ("src_ip 2001:db8::1", |k| {
                k.ip.v6_src = exact(ip6("2001:db8::1"))
            }),
            ("dst_ip 2001:db8::/32", |k| {
                k.ip.v6_dst = masked(ip6("2001:db8::"), ip6("ffff:ffff::"))
            }),
            ("ip_tos 0xb8 ip_ttl 1", |k| {
                (k.ip.tos, k.ip.ttl) = (exact(0xb8), exact(1))
            }),
            ("ip_proto tcp dst_port 443", |k| {
                k.ip.proto = Some(6);
                k.tcp.dst = exact(443);
            }),
            ("ip_proto icmpv6 type 128 code 0", |k| {
                k.ip.proto = Some(58);
                (k.icmpv6.kind, k.icmpv6.code) = (exact(128), exact(0));
            }),
        ],
    );
}

#[test]
fn arp() {
    check(
        "arp",
        0x0806,
        &[
            ("arp_sip 10.0.0.1", |k| k.arp.sip = exact(ip4("10.0.0.1"))),
            ("arp_tip 10.0.0.0/24", |k| {
                k.arp.tip = masked(ip4("10.0.0.0"), ip4("255.255.255.0"))
            }),
            ("arp_op request", |k| k.arp.op = exact(1)),
            ("arp_op reply", |k| k.arp.op = exact(2)),
            ("arp_sha 02:00:00:00:00:01", |k| k.arp.sha = exact(MAC)),
            ("arp_tha 02:00:00:00:00:00/24", |k| {
                k.arp.tha = masked([2, 0, 0, 0, 0, 0], [255, 255, 255, 0, 0, 0]);
            }),
        ],
    );
}

#[test]
fn mpls() {
    check(
        "mpls_uc",
        0x8847,
        &[
            ("mpls_label 100", |k| k.mpls.first.label = Some(100)),
            ("mpls_tc 3", |k| k.mpls.first.tc = Some(3)),
            ("mpls_bos 1", |k| k.mpls.first.bos = Some(1)),
            ("mpls_ttl 9", |k| k.mpls.first.ttl = Some(9)),
            (
                "mpls lse depth 1 label 5 tc 1 bos 0 ttl 3 lse depth 2 label 6",
                |k| {
                    let first = MplsLse {
                        depth: Some(1),
                        label: Some(5),
                        tc: Some(1),
                        bos: Some(0),
                        ttl: Some(3),
                    };
                    let second = MplsLse {
                        depth: Some(2),
                        label: Some(6),
                        ..MplsLse::default()
                    };
                    k.mpls.lses = vec![first, second];
                },
            ),
        ],
    );
}

#[test]
fn tunnels() {
    check(
        "ip",
        0x0800,
        &[
            ("enc_key_id 100", |k| k.enc.key_id = Some(100)),
            ("enc_src_ip 1.1.1.1 enc_dst_ip 2.2.2.0/24", |k| {
                k.enc.v4_src = exact(ip4("1.1.1.1"));
                k.enc.v4_dst = masked(ip4("2.2.2.0"), ip4("255.255.255.0"));
            }),
            ("enc_src_ip 2001:db8::1", |k| {
                k.enc.v6_src = exact(ip6("2001:db8::1"))
            }),
            ("enc_dst_ip 2001:db8::/32", |k| {
                k.enc.v6_dst = masked(ip6("2001:db8::"), ip6("ffff:ffff::"));
            }),
            ("enc_dst_port 4789", |k| k.enc.dst_port = exact(4789)),
            ("enc_tos 0x10/0xfc", |k| k.enc.tos = masked(0x10, 0xfc)),
            ("enc_ttl 3", |k| k.enc.ttl = exact(3)),
        ],
    );
}

fn geneve(class: u16, kind: u8, data: &[u8]) -> GeneveOption {
    GeneveOption {
        class: Some(class),
        kind: Some(kind),
        data: Some(data.to_vec()),
    }
}

#[test]
fn tunnel_options() {
    check(
        "ip",
        0x0800,
        &[
            ("geneve_opts 0102:80:1122334421314151", |k| {
                let data = [0x11, 0x22, 0x33, 0x44, 0x21, 0x31, 0x41, 0x51];
                let geneve = vec![geneve(0x0102, 0x80, &data)];
                k.enc.options = exact(TunnelOptions {
                    geneve,
                    ..TunnelOptions::default()
                });
            }),
            ("geneve_opts 0102:80:11223344/ffff:ff:ffff0000", |k| {
                let of = |option| TunnelOptions {
                    geneve: vec![option],
                    ..TunnelOptions::default()
                };
                let value = geneve(0x0102, 0x80, &[0x11, 0x22, 0x33, 0x44]);
                k.enc.options = masked(of(value), of(geneve(0xffff, 0xff, &[0xff, 0xff, 0, 0])));
            }),
            ("geneve_opts 1:2:11223344,3:4:55667788", |k| {
                let first = geneve(1, 2, &[0x11, 0x22, 0x33, 0x44]);
                let geneve = vec![first, geneve(3, 4, &[0x55, 0x66, 0x77, 0x88])];
                k.enc.options = exact(TunnelOptions {
                    geneve,
                    ..TunnelOptions::default()
                });
            }),
            ("vxlan_opts 64", |k| {
                let vxlan = Some(VxlanOption { gbp: Some(64) });
                k.enc.options = exact(TunnelOptions {
                    vxlan,
                    ..TunnelOptions::default()
                });
            }),
            ("vxlan_opts 64/0xff", |k| {
                let of = |gbp| TunnelOptions {
                    vxlan: Some(VxlanOption { gbp: Some(gbp) }),
                    ..TunnelOptions::default()
                };
                k.enc.options = masked(of(64), of(0xff));
            }),
            ("erspan_opts 1:5:0:0", |k| {
                let erspan = Some(ErspanOption {
                    version: Some(1),
                    index: Some(5),
                    direction: Some(0),
                    hardware_id: Some(0),
                });
                let value = TunnelOptions {
                    erspan,
                    ..TunnelOptions::default()
                };
                k.enc.options = exact(value);
            }),
            ("gtp_opts 1:9", |k| {
                let gtp = Some(GtpOption {
                    pdu_type: Some(1),
                    qfi: Some(9),
                });
                k.enc.options = exact(TunnelOptions {
                    gtp,
                    ..TunnelOptions::default()
                });
            }),
        ],
    );
}

#[test]
fn connections() {
    check(
        "ip",
        0x0800,
        &[
            ("ct_state +trk", |k| {
                k.ct.state = masked(CtKey::TRACKED, CtKey::TRACKED)
            }),
            ("ct_state +trk+est", |k| {
                let bits = CtKey::TRACKED | CtKey::ESTABLISHED;
                k.ct.state = masked(bits, bits);
            }),
            ("ct_state +trk+new-rpl", |k| {
                let bits = CtKey::TRACKED | CtKey::NEW;
                k.ct.state = masked(bits, bits | CtKey::REPLY);
            }),
            ("ct_state +trk+rel-inv", |k| {
                let bits = CtKey::TRACKED | CtKey::RELATED;
                k.ct.state = masked(bits, bits | CtKey::INVALID);
            }),
            ("ct_state -trk", |k| k.ct.state = masked(0, CtKey::TRACKED)),
            ("ct_zone 5", |k| k.ct.zone = exact(5)),
            ("ct_zone 5/0xff", |k| k.ct.zone = masked(5, 0xff)),
            ("ct_mark 1", |k| k.ct.mark = exact(1)),
            ("ct_mark 1/0xf", |k| k.ct.mark = masked(1, 0xf)),
            ("ct_label 0102030405060708090a0b0c0d0e0f10", |k| {
                k.ct.labels = exact([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
            }),
        ],
    );
}

#[test]
fn sessions() {
    check(
        "ppp_ses",
        0x8864,
        &[("pppoe_sid 5 ppp_proto ip", |k| {
            (k.other.pppoe_sid, k.other.ppp_proto) = (Some(5), Some(0x21));
        })],
    );
}

#[test]
fn where_a_rule_is() {
    let flags = |bits: u32| move |rule: &mut FlowerRule| rule.flags = Some(RuleFlags(bits));
    check_rule("ip", 0x0800, "skip_sw", flags(RuleFlags::SKIP_SW));
    check_rule("ip", 0x0800, "skip_hw", flags(RuleFlags::SKIP_HW));
    check_rule("ip", 0x0800, "verbose", flags(RuleFlags::VERBOSE));
    check_rule("ip", 0x0800, "classid 1:1", |rule| {
        rule.class = Some(0x0001_0001)
    });
    check_rule("ip", 0x0800, "hw_tc 3", |rule| {
        rule.class = chanio_netlink::tc::flower::class_of_hw_tc(3);
    });
}
