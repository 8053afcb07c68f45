//! Which matches are well formed: everything that the text form can say, and nothing else.
//!
//! Each field that counts must be one that the rest of the match makes sure exists in the packet,
//! as in tc (net/sched/cls_flower.c, `fl_set_key`).

use super::rule::RuleError;
use super::{CtState, FlowKey, KeyFlags, Masked, Match, More, PortRange, TunnelFlags, TunnelKey};
use crate::edit::TunnelKind;
use crate::edit::tunnel::geneve_options;
use crate::eswitch::MAX_VPORTS;
use crate::wire::{eth_type, ip_proto};

/// Presence and id in [`FlowKey::vlan`].
pub(super) const FULL_VLAN: u16 = FlowKey::VLAN_PRESENT | FlowKey::VLAN_ID;
/// Presence and priority in [`FlowKey::vlan`].
pub(super) const PRIO_VLAN: u16 = FlowKey::VLAN_PRESENT | FlowKey::VLAN_PRIO;

/// All bits or none.
fn whole<T: PartialEq + Default>(name: &'static str, mask: T, full: T) -> Result<(), RuleError> {
    if mask == T::default() || mask == full {
        Ok(())
    } else {
        Err(RuleError::Partial(name))
    }
}

fn needs(ok: bool, field: &'static str, needs: &'static str) -> Result<(), RuleError> {
    if ok {
        Ok(())
    } else {
        Err(RuleError::Needs { field, needs })
    }
}

fn within<T: bytemuck::Pod>(part: &Masked<T>) -> Result<(), RuleError> {
    let value = bytemuck::bytes_of(&part.value).iter();
    let mut bits = value.zip(bytemuck::bytes_of(&part.mask));
    if bits.all(|(value, mask)| value & mask == *value) {
        Ok(())
    } else {
        Err(RuleError::ValueOutsideMask)
    }
}

impl Match {
    /// Whether it is well formed.
    pub fn check(&self) -> Result<(), RuleError> {
        let (value, mask) = (&self.value, &self.mask);
        if value.masked(mask) != *value {
            return Err(RuleError::ValueOutsideMask);
        }
        whole("in_port", mask.in_port, u16::MAX)?;
        whole("block", mask.block, u16::MAX)?;
        whole("eth_type", mask.eth_type, u16::MAX)?;
        whole("ip_proto", mask.ip_proto, u8::MAX)?;
        if mask.block != 0 && value.block == 0 {
            return Err(RuleError::Range("block"));
        }
        const { assert!(MAX_VPORTS <= 1 << 16) };
        self.check_tags()?;
        self.check_network()?;
        self.check_transport()?;
        match &self.more {
            Some(more) if more.is_empty() => Err(RuleError::EmptyPart),
            Some(more) => more.check(self),
            None => Ok(()),
        }
    }

    fn check_tags(&self) -> Result<(), RuleError> {
        let (value, mask) = (&self.value, &self.mask);
        if mask.flags & !KeyFlags::ALL != 0 {
            return Err(RuleError::Range("ip_flags"));
        }
        let outer = check_tag(["vlan_id", "vlan_prio"], value.vlan, mask.vlan)?;
        let inner = check_tag(["cvlan_id", "cvlan_prio"], value.cvlan, mask.cvlan)?;
        needs(
            outer || mask.flags & KeyFlags::VLAN_AD == 0,
            "vlan_tpid",
            "a VLAN tag",
        )?;
        needs(
            inner || mask.flags & KeyFlags::CVLAN_AD == 0,
            "cvlan_tpid",
            "an inner VLAN tag",
        )?;
        needs(mask.cvlan == 0 || outer, "cvlan_id", "a VLAN tag")
    }

    /// The EtherType that packets are sure to have.
    fn eth_type(&self) -> Option<u16> {
        (self.mask.eth_type != 0).then_some(self.value.eth_type)
    }

    fn check_network(&self) -> Result<(), RuleError> {
        let mask = &self.mask;
        let ip = matches!(self.eth_type(), Some(eth_type::IPV4 | eth_type::IPV6));
        let arp = matches!(self.eth_type(), Some(eth_type::ARP | eth_type::RARP));
        // How many bytes of an address field have a meaning.
        let (meaning, names) = match self.eth_type() {
            Some(eth_type::IPV4) => (4, ["src_ip", "dst_ip"]),
            Some(eth_type::IPV6) => (16, ["src_ip", "dst_ip"]),
            Some(eth_type::ARP | eth_type::RARP) => (10, ["arp_sip", "arp_tip"]),
            Some(eth_type::MPLS_UC | eth_type::MPLS_MC) => (16, ["mpls_label", "mpls_label"]),
            _ => (0, ["src_ip", "dst_ip"]),
        };
        for (name, bytes) in names.into_iter().zip([&mask.ip_src, &mask.ip_dst]) {
            let unmet = if meaning == 4 {
                "eth_type ipv6"
            } else {
                "eth_type ipv4 or ipv6"
            };
            needs(bytes[meaning..].iter().all(|b| *b == 0), name, unmet)?;
        }
        if names[0] == "mpls_label" {
            needs(
                mask.ip_dst[12..] == [0; 4],
                "mpls_label",
                "a depth of at most 7",
            )?;
        }
        needs(
            mask.ip_proto == 0 || ip || arp,
            "ip_proto",
            "eth_type ipv4 or ipv6",
        )?;
        needs(mask.ip_tos == 0 || ip, "ip_tos", "eth_type ipv4 or ipv6")?;
        needs(mask.ip_ttl == 0 || ip, "ip_ttl", "eth_type ipv4 or ipv6")
    }

    fn check_transport(&self) -> Result<(), RuleError> {
        let mask = &self.mask;
        let ip = matches!(self.eth_type(), Some(eth_type::IPV4 | eth_type::IPV6));
        let proto = (mask.ip_proto != 0 && ip).then_some(self.value.ip_proto);
        let ported = proto.is_some_and(ip_proto::has_ports);
        let icmp = self.is_icmp();
        needs(
            mask.l4_src == 0 || ported || icmp,
            "src_port",
            "ip_proto tcp, udp or sctp",
        )?;
        needs(
            mask.l4_dst == 0 || ported,
            "dst_port",
            "ip_proto tcp, udp or sctp",
        )?;
        if mask.tcp_flags > 0xfff {
            return Err(RuleError::Range("tcp_flags"));
        }
        needs(
            mask.tcp_flags == 0 || proto == Some(ip_proto::TCP),
            "tcp_flags",
            "ip_proto tcp",
        )
    }

    /// Whether packets are sure to be ICMP, or ICMPv6 over IPv6.
    pub(super) fn is_icmp(&self) -> bool {
        self.mask.ip_proto != 0
            && matches!(
                (self.eth_type(), self.value.ip_proto),
                (Some(eth_type::IPV4), ip_proto::ICMP) | (Some(eth_type::IPV6), ip_proto::ICMPV6)
            )
    }
}

/// One tag: absent, any, or with id or priority or both; whether it is there for sure.
fn check_tag(names: [&'static str; 2], value: u16, mask: u16) -> Result<bool, RuleError> {
    let present = value & FlowKey::VLAN_PRESENT != 0;
    whole(names[0], mask & FlowKey::VLAN_ID, FlowKey::VLAN_ID)?;
    whole(names[1], mask & FlowKey::VLAN_PRIO, FlowKey::VLAN_PRIO)?;
    let id = mask & FlowKey::VLAN_ID != 0;
    if id && value & FlowKey::VLAN_ID == 4095 {
        return Err(RuleError::Range(names[0]));
    }
    needs(
        mask & FlowKey::VLAN_PRIO == 0 || present,
        names[1],
        "a VLAN tag",
    )?;
    // Absence is said by all bits of presence and id, none of them set.
    if mask != 0 && !present && (mask != FULL_VLAN || value != 0) {
        return Err(RuleError::Partial(names[0]));
    }
    Ok(present)
}

impl More {
    fn check(&self, whole_match: &Match) -> Result<(), RuleError> {
        within(&self.ct)?;
        self.check_ct()?;
        if let Some(tunnel) = &self.tunnel {
            within(tunnel)?;
            check_tunnel(tunnel)?;
        }
        let mask = &whole_match.mask;
        let ported = mask.ip_proto != 0 && ip_proto::has_ports(whole_match.value.ip_proto);
        let ranges = [
            ("src_port", self.src_ports, mask.l4_src),
            ("dst_port", self.dst_ports, mask.l4_dst),
        ];
        for (name, range, bits) in ranges {
            let Some(PortRange { min, max }) = range else {
                continue;
            };
            needs(ported, name, "ip_proto tcp, udp or sctp")?;
            if min >= max || bits != 0 {
                return Err(RuleError::Range(name));
            }
        }
        Ok(())
    }

    /// Combinations that the kernel refuses (`fl_validate_ct_state`).
    fn check_ct(&self) -> Result<(), RuleError> {
        let (state, mask) = (self.ct.value.state, self.ct.mask.state);
        if mask & !CtState::ALL != 0 {
            return Err(RuleError::Range("ct_state"));
        }
        needs(state == 0 || state & CtState::TRK != 0, "ct_state", "+trk")?;
        let both = |bits: u16| state & bits == bits;
        let odd = both(CtState::NEW | CtState::EST)
            || both(CtState::NEW | CtState::RPL)
            || (both(CtState::INV) && state & !(CtState::TRK | CtState::INV) != 0);
        if odd { Err(RuleError::CtState) } else { Ok(()) }
    }
}

fn check_tunnel(tunnel: &Masked<TunnelKey>) -> Result<(), RuleError> {
    let Masked { value, mask } = tunnel;
    if mask.flags & !TunnelFlags::ALL != 0 {
        return Err(RuleError::Range("enc_flags"));
    }
    let v6 = value.flags & TunnelFlags::IPV6 != 0;
    for (name, bytes) in [("enc_src_ip", &mask.src), ("enc_dst_ip", &mask.dst)] {
        let family = mask.flags & TunnelFlags::IPV6 != 0;
        let fits = *bytes == [0; 16] || (family && (v6 || bytes[4..] == [0; 12]));
        needs(fits, name, "an address family")?;
    }
    whole("enc_key_id", mask.id, u32::MAX)?;
    whole("enc_src_port", mask.src_port, u16::MAX)?;
    whole("enc_dst_port", mask.dst_port, u16::MAX)?;
    whole("enc_kind", mask.kind, u8::MAX)?;
    whole("options", mask.options_len, u16::MAX)?;
    let kind = value.tunnel_kind();
    if mask.kind != 0 && kind.is_none() {
        return Err(RuleError::Range("enc_kind"));
    }
    if mask.reserved != [0; 6] {
        return Err(RuleError::Partial("reserved"));
    }
    check_options(tunnel, kind)?;
    if *mask == TunnelKey::default() {
        return Err(RuleError::EmptyPart);
    }
    Ok(())
}

/// Options are matched as a list: how long it is, and in it any bits.
fn check_options(tunnel: &Masked<TunnelKey>, kind: Option<TunnelKind>) -> Result<(), RuleError> {
    let Masked { value, mask } = tunnel;
    let len = usize::from(value.options_len);
    if mask.options_len == 0 {
        let none = mask.options.iter().all(|b| *b == 0);
        return needs(none, "options", "a length");
    }
    let fits = match kind {
        Some(TunnelKind::Geneve) => are_options(value, mask),
        Some(TunnelKind::Vxlan) => len == 4,
        _ => {
            return Err(RuleError::Needs {
                field: "options",
                needs: "enc_kind geneve or vxlan",
            });
        }
    };
    let beyond = mask.options.get(len..);
    if fits && beyond.is_some_and(|rest| rest.iter().all(|b| *b == 0)) {
        Ok(())
    } else {
        Err(RuleError::Range("options"))
    }
}

/// Whether the bytes are a list of Geneve options, and each one's length counts.
fn are_options(value: &TunnelKey, mask: &TunnelKey) -> bool {
    let mut at = 0;
    geneve_options(value.options()).all(|option| {
        let Some(option) = option else { return false };
        let length_counts = mask.options.get(at + 3) == Some(&0x1f);
        at += 4 + option.data.len();
        length_counts
    })
}
