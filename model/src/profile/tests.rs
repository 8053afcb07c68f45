use super::*;
use crate::VportId;

/// What a profile says of a rule, or `ok`.
fn says(profile: &str, rule: &str) -> String {
    let names = |name: &str| match name {
        "web1" => Some(VportId(1)),
        "web2" => Some(VportId(2)),
        _ => None,
    };
    let spec = RuleSpec::parse(rule, &names).unwrap_or_else(|e| panic!("{rule}: {e}"));
    let admitted = by_name(profile).unwrap().admit_rule(&spec);
    match admitted {
        Ok(()) => "ok".into(),
        Err(Refusal::Unsupported { text, .. }) => text.into(),
        Err(Refusal::Limit { what, .. }) => what.into(),
    }
}

#[test]
fn mlx5_refuses_in_its_driver_s_words() {
    let told = |rule: &str| says("mlx5-cx6dx", rule);
    for ok in [
        "in_port web1 action redirect web2",
        "in_port web1 src_ip 10.0.0.1 ip_proto tcp dst_port 80 action mirror uplink action redirect web2",
        "in_port web1 action vlan push id 5 action redirect uplink",
        "in_port web1 dst_ip 10.0.0.1 ip_proto udp action pedit ex munge ip dst set 10.0.0.2 action csum ip4h/udp action redirect web2",
        "eth_type ipv4 ct_state -trk action ct zone 1 action goto chain 1",
        "chain 1 eth_type ipv4 ct_state +trk+est action redirect web2",
        "enc_kind vxlan enc_dst_port 4789 enc_key_id 7 action tunnel_key unset action redirect web1",
        "action drop",
        "action trap",
    ] {
        assert_eq!(told(ok), "ok", "{ok}");
    }
    for (rule, text) in [
        ("eth_type arp arp_op request action drop", "Unsupported key"),
        (
            "eth_type ipv4 ip_proto udp dst_port 10-20 action drop",
            "Unsupported key",
        ),
        (
            "eth_type ipv4 ip_flags firstfrag action drop",
            "Match on frag first/later is not supported",
        ),
        (
            "eth_type ipv4 ip_proto sctp dst_port 9 action drop",
            "Only UDP and TCP transports are supported for L4 matching",
        ),
        (
            "enc_kind vxlan enc_key_id 7 action tunnel_key unset action redirect web1",
            "UDP tunnel decap filter must include enc_dst_port condition",
        ),
        (
            "eth_type ipv4 ct_state +trk+new action drop",
            "matching on ct_state +new isn't supported",
        ),
        (
            "action mirror web2 action trap",
            "action trap is supported as a sole action only",
        ),
        (
            "action mirror web2 action redirect web2",
            "can't duplicate output to same device",
        ),
        (
            "in_port web1 action redirect web1",
            "can't forward from a VF to itself",
        ),
        (
            "in_port uplink action redirect uplink",
            "devices are both uplink, can't offload forwarding",
        ),
        (
            "action vlan push id 1 action vlan push id 2 action vlan push id 3 action redirect web2",
            "Total vlans used is greater than supported",
        ),
        (
            "action vlan modify id 5 action redirect web2",
            "VLAN rewrite action must have VLAN protocol match",
        ),
        (
            "action csum ip4h action redirect web2",
            "TC csum action is only offloaded with pedit",
        ),
        (
            "action mirror web2 action drop",
            "Rule cannot support forward+drop action",
        ),
        (
            "action vlan push id 5",
            "Rule must have at least one forward/drop action",
        ),
        (
            "dst_ip 10.0.0.1 ip_proto sctp action pedit ex munge ip dst set 10.0.0.2 action redirect web2",
            "can't offload re-write of non TCP/UDP",
        ),
    ] {
        assert_eq!(told(rule), text, "{rule}");
    }
}

#[test]
fn e810_takes_drop_and_redirect_by_few_keys() {
    let told = |rule: &str| says("intel-e810", rule);
    assert_eq!(
        told("in_port web1 dst_ip 10.0.0.0/8 action redirect web2"),
        "ok"
    );
    assert_eq!(told("vlan_id 5 action drop"), "ok");
    for (rule, text) in [
        (
            "eth_type ipv4 ip_proto tcp tcp_flags 2/2 action drop",
            "Unsupported key used",
        ),
        (
            "action mirror web2 action redirect web1",
            "Unsupported action in switchdev mode",
        ),
        ("action pass", "Unsupported action in switchdev mode"),
        (
            "vlan_id 5 cvlan_id 6 action drop",
            "Double VLAN mode is not enabled",
        ),
        ("dst_ip ::1 action drop", "Bad IPv6, addr is LOOPBACK"),
        ("chain 1 action drop", "chain"),
    ] {
        assert_eq!(told(rule), text, "{rule}");
    }
}

#[test]
fn numbers_end_somewhere() {
    let e810 = by_name("intel-e810").unwrap();
    assert_eq!(e810.admit_tables(65_536, 54), Ok(()));
    let refused = e810.admit_tables(10, 55).unwrap_err().to_string();
    assert!(
        refused.starts_with("masks: 55 is beyond the 54"),
        "{refused}"
    );
    let x710 = by_name("intel-x710").unwrap();
    assert!(x710.admit_switchdev().is_err());
    assert!(x710.admit_tables(1, 1).is_err());
    assert!(x710.admit_channels(128).is_ok());
    assert!(x710.admit_channels(129).is_err());
    assert!(GENERIC.admit_channels(10_000).is_ok() && GENERIC.admit_switchdev().is_ok());
    assert!(by_name("no-such").is_none());
}

#[test]
fn every_entry_says_where_it_is_written() {
    for profile in ALL {
        let limits = [
            profile.channels,
            profile.rules,
            profile.chain,
            profile.priority,
        ];
        assert!(limits.iter().all(|limit| !limit.source.is_empty()));
        for check in profile.checks {
            assert!(
                !check.text.is_empty() && check.source.contains(".c: "),
                "{check:?}"
            );
        }
    }
}
