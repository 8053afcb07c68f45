//! Which keys and actions a NIC claims: those of which its driver takes the plainest rule.

use super::Profile;
use crate::flow::RuleSpec;
use crate::flow::text::{ACTIONS, KEYS};

/// The plainest rule with each key, and all that drivers want beside it; of keys that some can only
/// say together with others, that form as well.
const KEY_SAMPLES: &[(&str, &str)] = &[
    ("chain", "chain 1 action redirect vport:2"),
    ("prio", "prio 7 action redirect vport:2"),
    ("in_port", "in_port vport:1 action redirect vport:2"),
    ("block", "block 1 action redirect vport:2"),
    ("src_mac", "src_mac 02:00:00:00:00:01"),
    ("dst_mac", "dst_mac 02:00:00:00:00:01"),
    ("eth_type", "eth_type 0x88b5"),
    ("vlan_id", "vlan_id 7"),
    ("vlan_id", "vlan_tpid 802.1q vlan_id 7"),
    ("vlan_prio", "vlan_id 7 vlan_prio 3"),
    ("vlan_prio", "vlan_tpid 802.1q vlan_id 7 vlan_prio 3"),
    ("vlan_tpid", "vlan_id 7 vlan_tpid 802.1ad"),
    ("cvlan_id", "vlan_id 7 cvlan_id 8"),
    (
        "cvlan_id",
        "vlan_tpid 802.1ad vlan_id 7 cvlan_tpid 802.1q cvlan_id 8",
    ),
    ("cvlan_prio", "vlan_id 7 cvlan_id 8 cvlan_prio 3"),
    (
        "cvlan_prio",
        "vlan_tpid 802.1ad vlan_id 7 cvlan_tpid 802.1q cvlan_id 8 cvlan_prio 3",
    ),
    ("cvlan_tpid", "vlan_tpid 802.1ad cvlan_tpid 802.1q"),
    ("src_ip", "src_ip 10.0.0.1"),
    ("dst_ip", "dst_ip 10.0.0.1"),
    ("ip_proto", "eth_type ipv4 ip_proto udp"),
    ("ip_tos", "eth_type ipv4 ip_tos 0x28"),
    ("ip_ttl", "eth_type ipv4 ip_ttl 9"),
    ("ip_flags", "eth_type ipv4 ip_flags frag"),
    ("arp_op", "eth_type arp arp_op request"),
    ("arp_sip", "eth_type arp arp_sip 10.0.0.1"),
    ("arp_tip", "eth_type arp arp_tip 10.0.0.1"),
    ("arp_sha", "eth_type arp arp_sha 02:00:00:00:00:01"),
    ("arp_tha", "eth_type arp arp_tha 02:00:00:00:00:01"),
    ("mpls_label", "eth_type mpls_uc mpls_label 16"),
    ("mpls_tc", "eth_type mpls_uc mpls_tc 5"),
    ("mpls_bos", "eth_type mpls_uc mpls_bos 0"),
    ("mpls_ttl", "eth_type mpls_uc mpls_ttl 9"),
    ("src_port", "eth_type ipv4 ip_proto udp src_port 53"),
    ("dst_port", "eth_type ipv4 ip_proto udp dst_port 53"),
    ("tcp_flags", "eth_type ipv4 ip_proto tcp tcp_flags 0x2/0x12"),
    ("type", "eth_type ipv4 ip_proto icmp type 8"),
    ("code", "eth_type ipv4 ip_proto icmp type 3 code 4"),
    ("enc_kind", "enc_kind vxlan enc_dst_port 4789"),
    ("enc_key_id", "enc_key_id 7 enc_dst_port 4789"),
    ("enc_src_ip", "enc_src_ip 10.0.0.1 enc_dst_port 4789"),
    ("enc_dst_ip", "enc_dst_ip 10.0.0.1 enc_dst_port 4789"),
    ("enc_src_port", "enc_src_port 4000 enc_dst_port 4789"),
    ("enc_dst_port", "enc_dst_port 4789"),
    ("enc_tos", "enc_tos 0x28 enc_dst_port 4789"),
    ("enc_ttl", "enc_ttl 9 enc_dst_port 4789"),
    ("enc_flags", "enc_flags df enc_dst_port 4789"),
    (
        "geneve_opts",
        "enc_key_id 7 enc_dst_port 6081 geneve_opts 0102:80:0a0b0c0d",
    ),
    ("vxlan_opts", "enc_key_id 7 enc_dst_port 4789 vxlan_opts 5"),
    ("ct_state", "eth_type ipv4 ip_proto udp ct_state +trk+est"),
    (
        "ct_zone",
        "eth_type ipv4 ip_proto udp ct_state +trk ct_zone 5",
    ),
    (
        "ct_mark",
        "eth_type ipv4 ip_proto udp ct_state +trk ct_mark 5",
    ),
    (
        "ct_label",
        "eth_type ipv4 ip_proto udp ct_state +trk ct_label 01",
    ),
    ("cookie", "cookie 5"),
    ("idle_timeout", "idle_timeout 5"),
    ("action", "action redirect vport:2"),
];

/// Likewise for actions; of those that have several forms, each.
const ACTION_SAMPLES: &[(&str, &str)] = &[
    ("drop", "action drop"),
    ("pass", "action pass"),
    ("trap", "action trap"),
    ("redirect", "action redirect vport:2"),
    ("mirror", "action mirror vport:2 action redirect vport:3"),
    ("goto", "action goto chain 1"),
    ("vlan", "action vlan push id 7 action redirect vport:2"),
    (
        "mpls",
        "eth_type ipv4 action mpls push label 7 action redirect vport:2",
    ),
    (
        "pedit",
        "eth_type ipv4 ip_proto udp action pedit ex munge ip ttl set 9 action redirect vport:2",
    ),
    (
        "csum",
        "eth_type ipv4 ip_proto udp action pedit ex munge ip ttl set 9 action csum ip4h/udp \
         action redirect vport:2",
    ),
    (
        "tunnel_key",
        "action tunnel_key set kind vxlan src_ip 10.0.0.1 dst_ip 10.0.0.2 id 7 \
         action redirect vport:2",
    ),
    (
        "tunnel_key",
        "enc_key_id 7 enc_dst_port 4789 action tunnel_key unset action redirect vport:2",
    ),
    (
        "police",
        "action police pkts_rate 10 pkts_burst 10 conform-exceed drop/pipe \
         action redirect vport:2",
    ),
    (
        "ct",
        "eth_type ipv4 ip_proto udp ct_state -trk action ct commit zone 5 action goto chain 1",
    ),
    (
        "sample",
        "action sample rate 9 group 1 to vport:2 action redirect vport:3",
    ),
];

impl Profile {
    /// The keys of rules that this kind of NIC offloads, in the order of [`KEYS`]; none where it
    /// has no mode in which there are rules.
    pub fn keys(&self) -> Vec<&'static str> {
        self.keys_that(|_| true)
    }

    /// The actions that it offloads, in the order of [`ACTIONS`].
    pub fn actions(&self) -> Vec<&'static str> {
        self.actions_that(|_| true)
    }

    /// The keys of which whoever is between the caller and the NIC, too, `passes` the plainest
    /// rule.
    pub fn keys_that(&self, passes: impl Fn(&RuleSpec) -> bool) -> Vec<&'static str> {
        self.claimed(KEYS, KEY_SAMPLES, &passes)
    }

    /// Likewise the actions.
    pub fn actions_that(&self, passes: impl Fn(&RuleSpec) -> bool) -> Vec<&'static str> {
        self.claimed(ACTIONS, ACTION_SAMPLES, &passes)
    }

    fn claimed(
        &self,
        names: &'static str,
        samples: &[(&str, &str)],
        passes: &dyn Fn(&RuleSpec) -> bool,
    ) -> Vec<&'static str> {
        let takes = |text: &str| self.sample(text).is_some_and(|spec| passes(&spec));
        let claims = |name: &&str| {
            let mut samples = samples.iter().filter(|(of, _)| of == name);
            self.no_switchdev.is_none() && samples.any(|(_, text)| takes(text))
        };
        names.split(", ").filter(claims).collect()
    }

    /// This rule, with an action if it has none; `None`: it is refused.
    fn sample(&self, text: &str) -> Option<RuleSpec> {
        let text = match text.contains("action") {
            true => text.to_owned(),
            false => format!("{text} action redirect vport:2"),
        };
        let spec: RuleSpec = text.parse().ok()?;
        self.admit_rule(&spec).is_ok().then_some(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ALL, GENERIC, by_name};
    use super::*;

    #[test]
    fn the_generic_nic_claims_all_there_is() {
        assert_eq!(GENERIC.keys(), KEYS.split(", ").collect::<Vec<_>>());
        assert_eq!(GENERIC.actions(), ACTIONS.split(", ").collect::<Vec<_>>());
    }

    #[test]
    fn others_claim_what_their_drivers_take() {
        let mlx5 = by_name("mlx5-cx6dx").unwrap();
        assert!(mlx5.keys().contains(&"enc_key_id") && !mlx5.keys().contains(&"arp_op"));
        assert!(mlx5.actions().contains(&"csum") && !mlx5.actions().contains(&"mpls"));
        let ice = by_name("intel-e810").unwrap();
        assert_eq!(ice.actions(), ["drop", "redirect"]);
        assert!(!ice.keys().contains(&"chain") && ice.keys().contains(&"enc_key_id"));
        let tagged = |spec: &RuleSpec| spec.matches.mask.vlan != 0;
        let keys = mlx5.keys_that(tagged);
        assert!(keys.contains(&"vlan_id") && !keys.contains(&"enc_key_id"));
        for profile in ALL.iter().filter(|profile| profile.no_switchdev.is_some()) {
            assert!(profile.keys().is_empty() && profile.actions().is_empty());
        }
    }
}
