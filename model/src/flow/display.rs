//! A rule as text; reading it back gives the same rule.

use super::rule::{FULL_MAC, FULL_VLAN};
use super::text::{ETH_TYPES, IP_PROTOS, name_of};
use super::{Action, FlowKey, Match, RuleSpec};
use crate::wire::eth_type;
use crate::{Mac, VportId};
use std::fmt::{self, Display, Formatter};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A port as the text form writes it.
struct Port(VportId);

impl Display for Port {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_uplink() {
            f.write_str("uplink")
        } else {
            write!(f, "vport:{}", self.0.0)
        }
    }
}

impl Display for Action {
    /// Without the leading `action`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Action::Drop => f.write_str("drop"),
            Action::Pass => f.write_str("pass"),
            Action::Redirect(vport) => write!(f, "redirect {}", Port(*vport)),
            Action::Mirror(vport) => write!(f, "mirror {}", Port(*vport)),
        }
    }
}

impl Display for Match {
    /// The keys, separated by spaces; nothing at all if every packet is meant.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut line = Line { f, space: "" };
        let (value, mask) = (&self.value, &self.mask);
        if mask.in_port != 0 {
            line.put("in_port", Port(VportId(value.in_port)))?;
        }
        line.mac("src_mac", value.eth_src, mask.eth_src)?;
        line.mac("dst_mac", value.eth_dst, mask.eth_dst)?;
        if mask.eth_type != 0 {
            match name_of(&ETH_TYPES, value.eth_type) {
                Some(name) => line.put("eth_type", name)?,
                None => line.put("eth_type", format_args!("0x{:04x}", value.eth_type))?,
            }
        }
        match (mask.vlan, value.vlan) {
            (0, _) => {}
            (FULL_VLAN, 0) => line.put("vlan_id", "none")?,
            (FULL_VLAN, vlan) => line.put("vlan_id", vlan & 0xfff)?,
            (_, FlowKey::VLAN_PRESENT) if mask.vlan_prio != 0 => {}
            _ => line.put("vlan_id", "any")?,
        }
        if mask.vlan_prio != 0 {
            line.put("vlan_prio", value.vlan_prio)?;
        }
        let v6 = value.eth_type == eth_type::IPV6;
        line.ip("src_ip", value.ip_src, mask.ip_src, v6)?;
        line.ip("dst_ip", value.ip_dst, mask.ip_dst, v6)?;
        if mask.ip_proto != 0 {
            match name_of(&IP_PROTOS, value.ip_proto) {
                Some(name) => line.put("ip_proto", name)?,
                None => line.put("ip_proto", value.ip_proto)?,
            }
        }
        line.port("src_port", value.l4_src, mask.l4_src)?;
        line.port("dst_port", value.l4_dst, mask.l4_dst)
    }
}

impl Display for RuleSpec {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "prio {}", self.priority)?;
        if self.matches != Match::default() {
            write!(f, " {}", self.matches)?;
        }
        if self.cookie != 0 {
            write!(f, " cookie 0x{:x}", self.cookie)?;
        }
        self.actions
            .iter()
            .try_for_each(|action| write!(f, " action {action}"))
    }
}

struct Line<'a, 'b> {
    f: &'a mut Formatter<'b>,
    space: &'static str,
}

impl Line<'_, '_> {
    fn put(&mut self, key: &str, value: impl Display) -> fmt::Result {
        let space = std::mem::replace(&mut self.space, " ");
        write!(self.f, "{space}{key} {value}")
    }

    fn mac(&mut self, key: &str, value: Mac, mask: Mac) -> fmt::Result {
        match mask {
            FULL_MAC => self.put(key, value),
            _ if mask.is_zero() => Ok(()),
            _ => self.put(key, format_args!("{value}/{mask}")),
        }
    }

    fn port(&mut self, key: &str, value: u16, mask: u16) -> fmt::Result {
        match mask {
            0 => Ok(()),
            u16::MAX => self.put(key, value),
            _ => self.put(key, format_args!("{value}/0x{mask:x}")),
        }
    }

    fn ip(&mut self, key: &str, value: [u8; 16], mask: [u8; 16], v6: bool) -> fmt::Result {
        if mask == [0; 16] {
            return Ok(());
        }
        let bits = u128::from_be_bytes(mask);
        let (ones, width) = (bits.leading_ones(), if v6 { 128 } else { 32 });
        let is_prefix = bits.count_ones() == ones;
        if is_prefix && ones == width {
            self.put(key, Ip(value, v6))
        } else if is_prefix {
            self.put(key, format_args!("{}/{ones}", Ip(value, v6)))
        } else {
            self.put(key, format_args!("{}/{}", Ip(value, v6), Ip(mask, v6)))
        }
    }
}

/// An address in a key, and whether it is IPv6.
struct Ip([u8; 16], bool);

impl Display for Ip {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Ip(bytes, v6) = self;
        let [a, b, c, d, ..] = *bytes;
        if *v6 {
            Ipv6Addr::from(*bytes).fmt(f)
        } else {
            Ipv4Addr::new(a, b, c, d).fmt(f)
        }
    }
}
