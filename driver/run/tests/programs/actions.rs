//! Every action as tc(8) sends it.

use crate::recorder::{ETH0, REP1, REP2, assert_same, request};
use chanio_netlink::attr::{Bitfield32, Masked};
use chanio_netlink::tc::action::{
    Action, Control, Csum, Ct, Gact, HW_STATS_DELAYED, HW_STATS_IMMEDIATE, Kind, Mirred,
    MirredWhat, Mpls, MplsLabel, MplsWhat, Pedit, PeditCommand, PeditHeader, PeditKey, Police,
    Random, Sample, Skbedit, TunnelKey, TunnelKeyWhat, TunnelMetadata, Vlan, VlanTag, VlanWhat,
};
use chanio_netlink::tc::flower::{FlowerRule, RuleFlags};
use chanio_netlink::tc::tunnel_options::{ErspanOption, GeneveOption, TunnelOptions, VxlanOption};
use chanio_netlink::tc::{At, Filter, FilterKind, INGRESS, NEW_FILTER};

const ADD: u16 = 0x605;

/// Runs `tc … flower WORDS`, and compares what it sends with a rule of our actions.
fn check(words: &str, actions: &[Action]) {
    let line = format!("tc filter add dev eth0 ingress prio 1 protocol ip flower {words}");
    let mut rule = FlowerRule {
        actions: actions.to_vec(),
        flags: Some(RuleFlags::default()),
        ..FlowerRule::default()
    };
    rule.key.eth.eth_type = Some(0x0800);
    let ours = Filter {
        at: At::Device {
            ifindex: ETH0,
            parent: INGRESS,
        },
        priority: 1,
        protocol: 0x0800,
        kind: Some(FilterKind::Flower(Box::new(rule))),
        ..Filter::default()
    };
    let theirs = request(&line);
    assert_same(&line, &theirs, &ours.message(NEW_FILTER, ADD).unwrap());
    assert_eq!(Filter::parse(&theirs.payload).unwrap(), ours, "{line}");
}

fn one(words: &str, kind: impl Into<Kind>, control: Control) {
    check(&format!("action {words}"), &[Action::new(kind, control)]);
}

#[test]
fn verdicts() {
    let verdict = |words: &str, control| one(words, Gact::default(), control);
    verdict("drop", Control::Shot);
    verdict("pass", Control::Ok);
    verdict("trap", Control::Trap);
    verdict("pipe", Control::Pipe);
    verdict("continue", Control::Unspec);
    verdict("reclassify", Control::Reclassify);
    verdict("goto chain 5", Control::GotoChain(5));
    verdict("jump 2", Control::Jump(2));
    let random = |kind, value, control| Gact {
        random: Some(Random {
            kind,
            value,
            control,
        }),
    };
    one(
        "gact drop random netrand pass 10",
        random(1, 10, Control::Ok),
        Control::Shot,
    );
    one(
        "gact pass random determ drop 3",
        random(2, 3, Control::Shot),
        Control::Ok,
    );
}

#[test]
fn what_all_actions_have() {
    let with = |words: &str, change: fn(&mut Action)| {
        let mut action = Action::new(Gact::default(), Control::Shot);
        change(&mut action);
        check(&format!("action drop {words}"), &[action]);
    };
    with("index 7", |a| a.generic.index = 7);
    with("cookie 0102", |a| a.common.cookie = Some(vec![1, 2]));
    let stats = |value| {
        Some(Bitfield32 {
            value,
            selector: value,
        })
    };
    let of = |value, words: &str| {
        let mut action = Action::new(Gact::default(), Control::Shot);
        action.common.hw_stats = stats(value);
        check(&format!("action drop {words}"), &[action]);
    };
    of(HW_STATS_IMMEDIATE, "hw_stats immediate");
    of(HW_STATS_DELAYED, "hw_stats delayed");
    of(0, "hw_stats disabled");
}

#[test]
fn sending_elsewhere() {
    let mirred = |what, ifindex| Mirred {
        what,
        ifindex,
        block: None,
    };
    let to = |words: &str, what, control| one(words, mirred(what, REP1), control);
    to(
        "mirred egress redirect dev rep1",
        MirredWhat::EgressRedirect,
        Control::Stolen,
    );
    to(
        "mirred egress mirror dev rep1",
        MirredWhat::EgressMirror,
        Control::Pipe,
    );
    to(
        "mirred ingress redirect dev rep1",
        MirredWhat::IngressRedirect,
        Control::Stolen,
    );
    to(
        "mirred ingress mirror dev rep1",
        MirredWhat::IngressMirror,
        Control::Pipe,
    );
    check(
        "action mirred egress mirror dev rep1 action mirred egress redirect dev rep2",
        &[
            Action::new(mirred(MirredWhat::EgressMirror, REP1), Control::Pipe),
            Action::new(mirred(MirredWhat::EgressRedirect, REP2), Control::Stolen),
        ],
    );
}

#[test]
fn tags() {
    let vlan = |words: &str, what, tag| one(words, Vlan { what, tag }, Control::Pipe);
    let none = VlanTag::default();
    vlan("vlan pop", VlanWhat::Pop, none.clone());
    vlan("vlan pop_eth", VlanWhat::PopEth, none.clone());
    let id = |id| VlanTag {
        id: Some(id),
        ..VlanTag::default()
    };
    vlan("vlan push id 5", VlanWhat::Push, id(5));
    vlan("vlan modify id 9", VlanWhat::Modify, id(9));
    let all = VlanTag {
        protocol: Some(0x88a8),
        priority: Some(3),
        ..id(5)
    };
    vlan(
        "vlan push id 5 protocol 802.1ad priority 3",
        VlanWhat::Push,
        all,
    );
    let (dst, src) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let eth = VlanTag {
        eth_dst: Some(dst),
        eth_src: Some(src),
        ..none
    };
    let words = "vlan push_eth dst_mac 02:00:00:00:00:01 src_mac 02:00:00:00:00:02";
    vlan(words, VlanWhat::PushEth, eth);
}

#[test]
fn labels() {
    let mpls = |words: &str, what, label| one(words, Mpls { what, label }, Control::Pipe);
    let none = MplsLabel::default;
    mpls("mpls dec_ttl", MplsWhat::DecTtl, none());
    mpls(
        "mpls pop protocol ip",
        MplsWhat::Pop,
        MplsLabel {
            protocol: Some(0x0800),
            ..none()
        },
    );
    mpls(
        "mpls modify label 5",
        MplsWhat::Modify,
        MplsLabel {
            label: Some(5),
            ..none()
        },
    );
    mpls(
        "mpls push label 5",
        MplsWhat::Push,
        MplsLabel {
            label: Some(5),
            ..none()
        },
    );
    mpls(
        "mpls mac_push label 5",
        MplsWhat::MacPush,
        MplsLabel {
            label: Some(5),
            ..none()
        },
    );
    let all = MplsLabel {
        label: Some(5),
        tc: Some(1),
        ttl: Some(2),
        bos: Some(1),
        ..none()
    };
    mpls("mpls push label 5 tc 1 ttl 2 bos 1", MplsWhat::Push, all);
}

#[test]
fn tunnels() {
    let set = |words: &str, change: fn(&mut TunnelMetadata)| {
        let mut metadata = TunnelMetadata {
            ipv4_src: Some("1.1.1.1".parse().unwrap()),
            ipv4_dst: Some("2.2.2.2".parse().unwrap()),
            key_id: Some(7),
            no_csum: Some(0),
            ..TunnelMetadata::default()
        };
        change(&mut metadata);
        let words = format!("tunnel_key set src_ip 1.1.1.1 dst_ip 2.2.2.2 id 7 {words}");
        one(
            &words,
            TunnelKey {
                what: TunnelKeyWhat::Set,
                metadata,
            },
            Control::Pipe,
        );
    };
    set("dst_port 4789", |m| m.dst_port = Some(4789));
    set("tos 1 ttl 64 nocsum", |m| {
        (m.tos, m.ttl, m.no_csum) = (Some(1), Some(64), Some(1))
    });
    set("geneve_opts 0102:80:11223344", |m| {
        let data = Some(vec![0x11, 0x22, 0x33, 0x44]);
        let option = GeneveOption {
            class: Some(0x0102),
            kind: Some(0x80),
            data,
        };
        m.options = Some(TunnelOptions {
            geneve: vec![option],
            ..TunnelOptions::default()
        });
    });
    set("vxlan_opts 5", |m| {
        let vxlan = Some(VxlanOption { gbp: Some(5) });
        m.options = Some(TunnelOptions {
            vxlan,
            ..TunnelOptions::default()
        });
    });
    set("erspan_opts 1:5:0:0", |m| {
        let option = ErspanOption {
            version: Some(1),
            index: Some(5),
            direction: Some(0),
            hardware_id: Some(0),
        };
        m.options = Some(TunnelOptions {
            erspan: Some(option),
            ..TunnelOptions::default()
        });
    });
    let metadata = TunnelMetadata {
        ipv6_src: Some("2001:db8::1".parse().unwrap()),
        ipv6_dst: Some("2001:db8::2".parse().unwrap()),
        key_id: Some(7),
        no_csum: Some(0),
        ..TunnelMetadata::default()
    };
    let words = "tunnel_key set src_ip 2001:db8::1 dst_ip 2001:db8::2 id 7";
    one(
        words,
        TunnelKey {
            what: TunnelKeyWhat::Set,
            metadata,
        },
        Control::Pipe,
    );
    let mut unset = TunnelKey::default();
    unset.metadata.no_csum = Some(0);
    one("tunnel_key unset", unset, Control::Pipe);
}

fn key(header: PeditHeader, offset: u32, keep: [u8; 4], value: [u8; 4]) -> PeditKey {
    PeditKey {
        header,
        offset,
        keep,
        value,
        ..PeditKey::default()
    }
}

#[test]
fn rewriting() {
    let all = [0; 4];
    let pedit = |words: &str, keys: &[PeditKey]| {
        let options = Pedit {
            keys: keys.to_vec(),
            ..Pedit::default()
        };
        one(&format!("pedit ex munge {words}"), options, Control::Ok);
    };
    use PeditHeader::{Eth, Ip4, Ip6, Tcp, Udp};
    pedit(
        "eth dst set 02:03:04:05:06:07",
        &[
            key(Eth, 0, all, [2, 3, 4, 5]),
            key(Eth, 4, [0, 0, 255, 255], [6, 7, 0, 0]),
        ],
    );
    pedit(
        "eth src set 02:03:04:05:06:07",
        &[
            key(Eth, 4, [255, 255, 0, 0], [0, 0, 2, 3]),
            key(Eth, 8, all, [4, 5, 6, 7]),
        ],
    );
    pedit("ip src set 1.2.3.4", &[key(Ip4, 12, all, [1, 2, 3, 4])]);
    pedit("ip dst set 1.2.3.4", &[key(Ip4, 16, all, [1, 2, 3, 4])]);
    pedit(
        "ip ttl set 5",
        &[key(Ip4, 8, [0, 255, 255, 255], [5, 0, 0, 0])],
    );
    let add = PeditKey {
        command: PeditCommand::Add,
        ..key(Ip4, 8, [0, 255, 255, 255], [255, 0, 0, 0])
    };
    pedit("ip ttl add 255", &[add]);
    pedit(
        "ip tos set 0x10",
        &[key(Ip4, 0, [255, 0, 255, 255], [0, 0x10, 0, 0])],
    );
    pedit(
        "ip6 src set 2001:db8::1",
        &[
            key(Ip6, 8, all, [0x20, 0x01, 0x0d, 0xb8]),
            key(Ip6, 12, all, all),
            key(Ip6, 16, all, all),
            key(Ip6, 20, all, [0, 0, 0, 1]),
        ],
    );
    pedit(
        "ip6 hoplimit set 5",
        &[key(Ip6, 4, [255, 255, 255, 0], [0, 0, 0, 5])],
    );
    pedit(
        "tcp dport set 80",
        &[key(Tcp, 0, [255, 255, 0, 0], [0, 0, 0, 80])],
    );
    pedit(
        "udp sport set 53",
        &[key(Udp, 0, [0, 0, 255, 255], [0, 53, 0, 0])],
    );
    let ttl = key(PeditHeader::Network, 8, [0, 255, 255, 255], [5, 0, 0, 0]);
    let plain = Pedit {
        plain: true,
        keys: vec![ttl],
        ..Pedit::default()
    };
    one("pedit munge ip ttl set 5", plain, Control::Ok);
}

#[test]
fn checksums() {
    one("csum ip4h", Csum { update: Csum::IPV4 }, Control::Ok);
    let most = Csum::IPV4 | Csum::TCP | Csum::UDP | Csum::ICMP | Csum::SCTP;
    let all = Csum {
        update: most | Csum::IGMP | Csum::UDPLITE,
    };
    one(
        "csum ip and tcp and udp and icmp and sctp and igmp and udplite",
        all,
        Control::Ok,
    );
}

#[test]
fn connections() {
    let ct = |words: &str, options: Ct| one(&format!("ct {words}"), options, Control::Pipe);
    let act = |action| Ct {
        action: Some(action),
        ..Ct::default()
    };
    ct("", act(0));
    ct(
        "zone 5",
        Ct {
            zone: Some(5),
            ..act(0)
        },
    );
    ct("commit", act(Ct::COMMIT));
    ct(
        "commit force zone 1",
        Ct {
            zone: Some(1),
            ..act(Ct::COMMIT | Ct::FORCE)
        },
    );
    ct("clear", act(Ct::CLEAR));
    let mark = Some(Masked {
        value: 1,
        mask: 0xff,
    });
    ct(
        "commit mark 1/0xff",
        Ct {
            mark,
            ..act(Ct::COMMIT)
        },
    );
    ct("nat pipe", act(Ct::NAT));
    let (first, last) = ("1.1.1.1".parse().unwrap(), "1.1.1.9".parse().unwrap());
    let source = Ct {
        nat_ipv4_min: Some(first),
        nat_ipv4_max: Some(first),
        ..act(Ct::COMMIT | Ct::NAT | Ct::NAT_SRC)
    };
    ct("commit nat src addr 1.1.1.1 pipe", source);
    let destination = Ct {
        nat_ipv4_min: Some(first),
        nat_ipv4_max: Some(last),
        nat_port_min: Some(80),
        nat_port_max: Some(90),
        ..act(Ct::COMMIT | Ct::NAT | Ct::NAT_DST)
    };
    ct(
        "commit nat dst addr 1.1.1.1-1.1.1.9 port 80-90",
        destination,
    );
    let six = "2001:db8::1".parse().unwrap();
    let source6 = Ct {
        nat_ipv6_min: Some(six),
        nat_ipv6_max: Some(six),
        ..act(Ct::COMMIT | Ct::NAT | Ct::NAT_SRC)
    };
    ct("commit nat src addr 2001:db8::1 pipe", source6);
    check(
        "action ct zone 3 pipe action goto chain 1",
        &[
            Action::new(
                Ct {
                    zone: Some(3),
                    ..act(0)
                },
                Control::Pipe,
            ),
            Action::new(Gact::default(), Control::GotoChain(1)),
        ],
    );
}

#[test]
fn metadata() {
    let sample = Sample {
        rate: Some(10),
        group: Some(4),
        truncate: None,
    };
    one("sample rate 10 group 4", sample.clone(), Control::Pipe);
    let cut = Sample {
        truncate: Some(128),
        ..sample
    };
    one("sample rate 10 group 4 trunc 128", cut, Control::Pipe);
    let edit = |words: &str, options| one(&format!("skbedit {words}"), options, Control::Pipe);
    let none = Skbedit::default;
    edit(
        "priority 1:2",
        Skbedit {
            priority: Some(0x0001_0002),
            ..none()
        },
    );
    edit(
        "mark 5",
        Skbedit {
            mark: Some(5),
            ..none()
        },
    );
    edit(
        "mark 5/0xff",
        Skbedit {
            mark: Some(5),
            mask: Some(0xff),
            ..none()
        },
    );
    edit(
        "queue_mapping 3",
        Skbedit {
            queue_mapping: Some(3),
            ..none()
        },
    );
    edit(
        "ptype host",
        Skbedit {
            packet_type: Some(0),
            ..none()
        },
    );
    edit(
        "inheritdsfield",
        Skbedit {
            flags: Some(0x20),
            ..none()
        },
    );
}
/// tc's time in which so many bytes come at so many a second: whole microseconds, 15.625 ticks each.
fn ticks(bytes: u64, rate: u64) -> u32 {
    (bytes * 1_000_000 / rate * 1000 / 64) as u32
}

#[test]
fn policing() {
    let police = |words: &str, change: &dyn Fn(&mut Police), exceed| {
        let mut police = Police::default();
        change(&mut police);
        one(&format!("police {words}"), police, exceed);
    };
    let mbit = 125_000;
    let plain = |p: &mut Police| {
        p.set_rate(mbit, None);
        p.burst = ticks(10_240, mbit);
    };
    police("rate 1mbit burst 10k", &plain, Control::Reclassify);
    let pipe = |p: &mut Police| {
        plain(p);
        p.more.result = Some(Control::Pipe.into());
    };
    police(
        "rate 1mbit burst 10k conform-exceed drop/pipe",
        &pipe,
        Control::Shot,
    );
    let fast = |p: &mut Police| {
        p.set_rate(12_500_000_000, None);
        p.burst = ticks(1 << 20, 12_500_000_000);
    };
    police("rate 100gbit burst 1m", &fast, Control::Reclassify);
    let peak = |p: &mut Police| {
        p.mtu = 2000;
        p.set_rate(mbit, Some(2 * mbit));
        p.burst = ticks(10_240, mbit);
    };
    police(
        "rate 1mbit burst 10k mtu 2000 peakrate 2mbit",
        &peak,
        Control::Reclassify,
    );
    let packets = |p: &mut Police| {
        p.more.packet_rate = Some(1000);
        p.more.packet_burst = Some(ticks(100, 1000).into());
    };
    police(
        "pkts_rate 1000 pkts_burst 100",
        &packets,
        Control::Reclassify,
    );
}
