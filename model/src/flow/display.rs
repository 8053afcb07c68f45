//! A rule as text; reading it back gives the same rule.

use super::rule::{FULL_MAC, FULL_VLAN};
use super::text::{ETH_TYPES, IP_PROTOS, name_of};
use super::{Action, FlowKey, Match, RuleSpec};
use crate::wire::eth_type;
use crate::{Mac, VportId};
use std::fmt::{self, Display, Formatter};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Looks up a port's name by its number; the uplink is never asked for.
pub type NameOfPort<'a> = &'a dyn Fn(VportId) -> Option<String>;

/// A rule, or a part of one, that calls ports by their names; see [`RuleSpec::with_names`].
struct Named<'a, T> {
    value: &'a T,
    names: NameOfPort<'a>,
}

/// A port as the text form writes it.
struct Port<'a>(VportId, NameOfPort<'a>);

impl Display for Port<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Port(vport, names) = self;
        if vport.is_uplink() {
            return f.write_str("uplink");
        }
        match names(*vport) {
            Some(name) => f.write_str(&name),
            None => write!(f, "vport:{}", vport.0),
        }
    }
}

impl Display for Named<'_, Action> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.value {
            Action::Drop => f.write_str("drop"),
            Action::Pass => f.write_str("pass"),
            Action::Redirect(vport) => write!(f, "redirect {}", Port(*vport, self.names)),
            Action::Mirror(vport) => write!(f, "mirror {}", Port(*vport, self.names)),
        }
    }
}

impl Display for Action {
    /// Without the leading `action`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Named {
            value: self,
            names: &|_| None,
        }
        .fmt(f)
    }
}

impl Display for Match {
    /// The keys, separated by spaces; nothing at all if every packet is meant.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Named {
            value: self,
            names: &|_| None,
        }
        .fmt(f)
    }
}

impl Display for Named<'_, Match> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut line = Line { f, space: "" };
        let (value, mask) = (&self.value.value, &self.value.mask);
        if mask.in_port != 0 {
            line.put("in_port", Port(VportId(value.in_port), self.names))?;
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

impl RuleSpec {
    /// The text form with ports by name; `names` must give names that reading the text back finds
    /// again. A port without one is written as `vport:N`.
    pub fn with_names<'a>(&'a self, names: NameOfPort<'a>) -> impl Display + 'a {
        Named { value: self, names }
    }
}

impl Display for RuleSpec {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.with_names(&|_| None).fmt(f)
    }
}

impl Display for Named<'_, RuleSpec> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (rule, names) = (self.value, self.names);
        write!(f, "prio {}", rule.priority)?;
        if rule.matches != Match::default() {
            let value = &rule.matches;
            write!(f, " {}", Named { value, names })?;
        }
        if rule.cookie != 0 {
            write!(f, " cookie 0x{:x}", rule.cookie)?;
        }
        let mut actions = rule.actions.iter();
        actions.try_for_each(|value| write!(f, " action {}", Named { value, names }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_called_by_name_where_they_have_one() {
        let names = |v: VportId| (v.0 == 7).then(|| "web1".to_owned());
        let ports = |name: &str| (name == "web1").then_some(VportId(7));
        let text = "prio 10 in_port web1 dst_mac 02:00:00:00:00:01 cookie 0x5 \
                    action mirror vport:9 action redirect uplink";
        let spec = RuleSpec::parse(text, &ports).unwrap();
        assert_eq!(spec.with_names(&names).to_string(), text);
        let numbered = spec.to_string();
        assert!(numbered.contains("in_port vport:7 "), "{numbered}");
    }
}
