//! Rules through tc's form and back; filters that are no rules.

use super::*;
use crate::message::Message;
use crate::tc::action::{Control, Gact, Random, Skbedit};
use crate::tc::{INGRESS, NEW_FILTER};
use chanio_model::flow::RuleSpec;

/// Ports 1 to 4 have netdevs 11 to 14; vxlan0 is 20, geneve0 is 21.
struct Around;

impl Surroundings for Around {
    fn vport(&self, ifindex: u32) -> Option<VportId> {
        (11..=14).contains(&ifindex).then(|| VportId(ifindex - 10))
    }
    fn ifindex(&self, vport: VportId) -> Option<u32> {
        (1..=4).contains(&vport.0).then(|| vport.0 + 10)
    }
    fn tunnel(&self, ifindex: u32) -> Option<TunnelDevice> {
        match ifindex {
            20 => Some(TunnelDevice {
                kind: TunnelKind::Vxlan,
                dst_port: 4789,
            }),
            21 => Some(TunnelDevice {
                kind: TunnelKind::Geneve,
                dst_port: 6081,
            }),
            _ => None,
        }
    }
    fn tunnel_device(&self, kind: TunnelKind) -> Option<u32> {
        match kind {
            TunnelKind::Vxlan => Some(20),
            TunnelKind::Geneve => Some(21),
            _ => None,
        }
    }
    fn next_hop(&self, _from: IpAddr, to: IpAddr) -> Option<NextHop> {
        let hop = NextHop {
            vport: VportId(4),
            eth_src: Mac([2; 6]),
            eth_dst: Mac([4; 6]),
        };
        (to != IpAddr::from([9, 9, 9, 9])).then_some(hop)
    }
    fn sample_port(&self, group: u32) -> Option<VportId> {
        (group == 7).then_some(VportId(3))
    }
}

fn ports(name: &str) -> Option<VportId> {
    name.strip_prefix('p')?.parse().ok().map(VportId)
}

fn rule(text: &str) -> RuleSpec {
    RuleSpec::parse(text, &ports).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// As text, as a filter, as bytes, as a filter, and back.
fn there_and_back(text: &str) {
    let spec = rule(text);
    let filter = from_model(&spec, &Around).unwrap_or_else(|error| panic!("{text}: {error}"));
    let bytes = filter.message(NEW_FILTER, 0).unwrap().to_bytes();
    let (message, _) = Message::parse(&bytes).unwrap();
    let read = Filter::parse(&message.payload).unwrap();
    assert_eq!(read, filter, "{text}");
    assert_eq!(
        to_model(&read, &Around).as_ref(),
        Ok(&spec),
        "{text}: {filter:?}"
    );
}

const UNTAGGED: &str = "in_port p1 vlan_id none";

#[test]
fn matches_come_back() {
    for words in [
        "",
        "eth_type ipv4",
        "eth_type ipv4 src_ip 10.0.0.0/8 dst_ip 1.2.3.4",
        "eth_type ipv6 src_ip 2001:db8::/32 ip_tos 0x10/0xfc ip_ttl 3",
        "eth_type ipv4 ip_proto tcp src_port 80 dst_port 80/0xfff0",
        "eth_type ipv4 ip_proto tcp tcp_flags 0x2/0x17",
        "eth_type ipv4 ip_proto udp dst_port 10-20",
        "eth_type ipv4 ip_flags frag",
        "eth_type ipv4 ip_proto icmp type 8 code 0",
        "eth_type ipv6 ip_proto icmpv6 type 128",
        "eth_type arp arp_sip 10.0.0.1 arp_op request",
        "eth_type mpls_uc mpls_label 5",
        "eth_type ipv4 ct_state +trk+est ct_zone 5 ct_mark 1/0xf",
        "src_mac 02:00:00:00:00:01 dst_mac 01:00:00:00:00:00/01:00:00:00:00:00",
    ] {
        there_and_back(&format!("{UNTAGGED} {words} action drop"));
    }
    for words in [
        "in_port p1",
        "in_port p1 dst_mac 02:00:00:00:00:01",
        "block 5",
        "chain 3 prio 9 in_port p2 vlan_id 7 vlan_tpid 802.1q cvlan_id none eth_type ipv4",
        "in_port p2 vlan_id 7 vlan_tpid 802.1ad cvlan_id 9 cvlan_prio 3 cvlan_tpid 802.1q \
         eth_type ipv6",
    ] {
        there_and_back(&format!("{words} action drop"));
    }
}

#[test]
fn tunnel_matches_come_back() {
    for words in [
        "enc_key_id 5 enc_src_ip 1.1.1.1 enc_dst_ip 2.2.2.0/24 enc_dst_port 4789 enc_kind vxlan",
        "enc_dst_ip 2001:db8::1 enc_tos 0x10/0xfc enc_ttl 9 enc_kind geneve",
        "enc_key_id 5 geneve_opts 0102:80:11223344,0001:02:55667788",
        "enc_key_id 5 geneve_opts 0102:80:11223344/ffff:ff:ffff0000",
        "enc_key_id 5 vxlan_opts 64/0xff",
    ] {
        there_and_back(&format!(
            "vlan_id none {words} eth_type ipv4 action redirect p2"
        ));
    }
}

/// A filter for a type behind a tag, as the kernel tells of it.
#[test]
fn the_kernel_names_the_innermost_type() {
    let text =
        "in_port p1 vlan_id 7 vlan_tpid 802.1q cvlan_id none eth_type ipv4 action redirect p2";
    let wanted = rule(text);
    let mut filter = from_model(&wanted, &Around).unwrap();
    let Some(FilterKind::Flower(flower)) = &mut filter.kind else {
        panic!("{filter:?}");
    };
    assert_eq!(filter.protocol, 0x8100);
    assert_eq!(flower.key.vlan.eth_type, Some(0x0800));
    for told in [0x8100, 0x0800] {
        let Some(FilterKind::Flower(flower)) = &mut filter.kind else {
            panic!("{filter:?}");
        };
        flower.key.eth.eth_type = Some(told);
        let matches = to_match(&filter, &Around).unwrap();
        assert_eq!(matches, wanted.matches, "{told:#06x}");
    }
}

#[test]
fn actions_come_back() {
    let mac = "02:00:00:00:00:01";
    for words in [
        "action pass".to_owned(),
        "action trap".into(),
        "action goto chain 5".into(),
        "action redirect p2".into(),
        "action mirror p2 action vlan push id 5 priority 3 action redirect p3".into(),
        "action vlan pop action redirect p3".into(),
        "action vlan modify id 9 action redirect p3".into(),
        "action mpls push label 5 tc 1 ttl 2 action redirect p3".into(),
        format!("action pedit ex munge eth dst set {mac} action redirect p2"),
        format!("action pedit ex munge eth src set {mac} action redirect p2"),
        "action pedit ex munge ip src set 1.2.3.4 action csum ip4h/tcp action redirect p2".into(),
        "action pedit ex munge ip ttl add 255 action csum ip4h action redirect p2".into(),
        "action pedit ex munge ip6 dst set 2001:db8::1 action redirect p2".into(),
        "action pedit ex munge ip6 traffic_class set 0x10 action redirect p2".into(),
        "action pedit ex munge tcp dport set 80 action redirect p2".into(),
        "action ct clear action redirect p2".into(),
        "action ct zone 3 action goto chain 1".into(),
        "action ct commit zone 3 mark 1/0xff nat src addr 1.1.1.1-1.1.1.9 port 80-90 \
         action redirect p2"
            .into(),
        "action tunnel_key set kind vxlan src_ip 1.1.1.1 dst_ip 2.2.2.2 src_mac 02:02:02:02:02:02 \
         dst_mac 04:04:04:04:04:04 id 7 dst_port 4789 vxlan_opts 5 action redirect p4"
            .into(),
        "action tunnel_key set kind geneve src_ip 2001:db8::1 dst_ip 2001:db8::2 \
         src_mac 02:02:02:02:02:02 dst_mac 04:04:04:04:04:04 id 7 dst_port 6081 tos 16 ttl 9 \
         geneve_opts 0102:80:11223344 action redirect p4"
            .into(),
        "action tunnel_key unset action redirect p2".into(),
        "action police rate 1mbit burst 10000 mtu 1500 conform-exceed drop/pipe action redirect p2"
            .into(),
        "action police rate 100gbit burst 1000000 conform-exceed drop/pass".into(),
        "action police pkts_rate 1000 pkts_burst 100 conform-exceed goto:4/pipe".into(),
        "action police index 9 rate 1mbit burst 10000 action redirect p2".into(),
        "action police index 9".into(),
        "action sample rate 10 group 7 to p3 action redirect p2".into(),
    ] {
        there_and_back(&format!("in_port p1 {words}"));
    }
}

#[test]
fn what_a_filter_cannot_say_is_refused() {
    let refused = |text: &str| from_model(&rule(text), &Around).unwrap_err().to_string();
    assert_eq!(
        refused("vlan_id 7 in_port p1 action drop"),
        "match on a VLAN tag without vlan_tpid: a filter is for one protocol, it is not supported"
    );
    assert_eq!(refused("action drop"), NotOffloaded::NoPort.to_string());
    assert_eq!(
        refused("in_port p1 action sample rate 2 group 7 to p2"),
        "action sample group 7 to this port is not supported"
    );
    assert_eq!(
        refused("in_port p9 action drop"),
        NotOffloaded::Device(9).to_string()
    );
}

/// A filter on port 1's netdev with this one action.
fn with(action: Action) -> Filter {
    let mut filter = from_model(&rule("in_port p1 action drop"), &Around).unwrap();
    if let Some(FilterKind::Flower(rule)) = &mut filter.kind {
        rule.actions = vec![action];
    }
    filter
}

#[test]
fn what_the_switch_cannot_do_is_refused() {
    let refused = |filter: &Filter| to_model(filter, &Around).unwrap_err().to_string();
    let mut far = with(Action::new(Gact::default(), Control::Shot));
    far.at = At::Device {
        ifindex: 99,
        parent: INGRESS,
    };
    assert_eq!(
        refused(&far),
        "device with index 99 is not a port of this switch"
    );
    far.at = At::Device {
        ifindex: 11,
        parent: EGRESS,
    };
    assert_eq!(refused(&far), "only filters on ingress are supported");
    let edit = with(Action::new(Skbedit::default(), Control::Pipe));
    assert_eq!(refused(&edit), "action skbedit is not supported");
    let random = Random {
        kind: 1,
        value: 10,
        control: Control::Ok,
    };
    let random = with(Action::new(
        Gact {
            random: Some(random),
        },
        Control::Shot,
    ));
    assert_eq!(refused(&random), "action gact random is not supported");
    let again = with(Action::new(Gact::default(), Control::Reclassify));
    assert_eq!(
        refused(&again),
        "action verdict Reclassify is not supported"
    );
    let mut hash = with(Action::new(Gact::default(), Control::Shot));
    if let Some(FilterKind::Flower(rule)) = &mut hash.kind {
        rule.key.other.l2_miss = Some(1);
    }
    assert_eq!(refused(&hash), "match on l2_miss is not supported");
    let mut software = with(Action::new(Gact::default(), Control::Shot));
    if let Some(FilterKind::Flower(rule)) = &mut software.kind {
        rule.flags = Some(RuleFlags(RuleFlags::SKIP_HW));
    }
    assert_eq!(to_model(&software, &Around), Err(NotOffloaded::SkipHw));
    let mut unknown = with(Action::new(Gact::default(), Control::Shot));
    if let Some(FilterKind::Flower(rule)) = &mut unknown.kind {
        rule.unknown = vec![crate::attr::Raw {
            kind: 300,
            value: vec![1],
        }];
    }
    assert_eq!(refused(&unknown), "match on attribute 300 is not supported");
}
