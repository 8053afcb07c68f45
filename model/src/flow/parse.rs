//! Reading a rule's text form.

use super::rule::{FULL_MAC, FULL_VLAN, RuleError};
use super::text::{DEFAULT_PRIORITY, ETH_TYPES, IP_PROTOS, value_of};
use super::{Action, Actions, FlowKey, MAX_ACTIONS, Match, RuleSpec};
use crate::eswitch::MAX_VPORTS;
use crate::wire::eth_type;
use crate::{Mac, VportId};
use std::net::IpAddr;
use std::str::{FromStr, SplitAsciiWhitespace};

/// Longest text that is read, in bytes; the longest that makes sense has some 600.
pub const MAX_RULE_TEXT: usize = 4096;

/// Looks up a port's number by a name that is neither `uplink` nor `vport:N`.
pub type PortNames<'a> = &'a dyn Fn(&str) -> Option<VportId>;

/// Why a text is not a rule: the key, the offending value, what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleTextError {
    /// More than [`MAX_RULE_TEXT`].
    #[error("rule: {0} bytes of text, allowed are {MAX_RULE_TEXT}")]
    TooLong(usize),
    /// A word where a key should be.
    #[error("`{0}`: no such key; the keys are {KEYS}")]
    UnknownKey(String),
    /// The same key again.
    #[error("{0}: given twice")]
    Duplicate(&'static str),
    /// The text ends behind a key.
    #[error("{0}: the value is missing")]
    NoValue(&'static str),
    /// A value that the key does not take.
    #[error("{key}: `{value}` is not {allowed}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What may be given.
        allowed: &'static str,
    },
    /// No port has this name.
    #[error("{key}: no port is called `{name}`; also known are `uplink` and `vport:N`")]
    UnknownPort {
        /// The key, or the action.
        key: &'static str,
        /// What was given.
        name: String,
    },
    /// Two keys ask for different things.
    #[error("{key}: `{value}` does not go with {with}")]
    Conflict {
        /// The later key.
        key: &'static str,
        /// Its value.
        value: String,
        /// The other one.
        with: &'static str,
    },
    /// More than [`MAX_ACTIONS`].
    #[error("action: more than {MAX_ACTIONS}")]
    TooManyActions,
    /// Each part can be read, but not the whole.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

const KEYS: &str = "prio, in_port, src_mac, dst_mac, eth_type, vlan_id, vlan_prio, src_ip, \
                    dst_ip, ip_proto, src_port, dst_port, cookie, action";
const PORT: &str = "a port: `uplink`, `vport:N` with N from 1 to 65535, or a name";

impl RuleSpec {
    /// Reads the text form; `names` finds the ports that are called by name.
    pub fn parse(text: &str, names: PortNames<'_>) -> Result<Self, RuleTextError> {
        if text.len() > MAX_RULE_TEXT {
            return Err(RuleTextError::TooLong(text.len()));
        }
        let mut reader = Reader {
            words: text.split_ascii_whitespace(),
            names,
            seen: 0,
            matches: Match::default(),
            ip_key: None,
        };
        let mut spec = RuleSpec {
            priority: DEFAULT_PRIORITY,
            matches: Match::default(),
            actions: Actions::new(),
            cookie: 0,
        };
        while let Some(word) = reader.words.next() {
            reader.key(word, &mut spec)?;
        }
        spec.matches = reader.matches;
        spec.check()?;
        Ok(spec)
    }
}

impl FromStr for RuleSpec {
    type Err = RuleTextError;

    /// As [`RuleSpec::parse`], where no port has a name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, &|_| None)
    }
}

struct Reader<'a> {
    words: SplitAsciiWhitespace<'a>,
    names: PortNames<'a>,
    /// One bit per key that was given.
    seen: u32,
    matches: Match,
    /// The address key that decided the EtherType, if one did.
    ip_key: Option<&'static str>,
}

fn bad<T>(key: &'static str, value: &str, allowed: &'static str) -> Result<T, RuleTextError> {
    let value = value.to_owned();
    Err(RuleTextError::BadValue {
        key,
        value,
        allowed,
    })
}

/// Decimal, or hexadecimal behind `0x`. No sign, which `parse` alone would take.
fn number<T: TryFrom<u64>>(text: &str) -> Option<T> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None => (text, 10),
    };
    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
    let value = u64::from_str_radix(digits, radix).ok().filter(|_| plain)?;
    T::try_from(value).ok()
}

impl<'a> Reader<'a> {
    fn key(&mut self, word: &str, spec: &mut RuleSpec) -> Result<(), RuleTextError> {
        match word {
            "prio" => {
                let key = self.once(0, "prio")?;
                spec.priority = self.number(key, "a number from 1 to 65535")?;
            }
            "cookie" => {
                let key = self.once(1, "cookie")?;
                spec.cookie = self.number(key, "a number of at most 64 bits")?;
            }
            "in_port" => {
                let key = self.once(2, "in_port")?;
                self.matches.value.in_port = self.port(key)?.0;
                self.matches.mask.in_port = u32::MAX;
            }
            "src_mac" => {
                let key = self.once(3, "src_mac")?;
                (self.matches.value.eth_src, self.matches.mask.eth_src) = self.mac(key)?;
            }
            "dst_mac" => {
                let key = self.once(4, "dst_mac")?;
                (self.matches.value.eth_dst, self.matches.mask.eth_dst) = self.mac(key)?;
            }
            "eth_type" => self.eth_type()?,
            "vlan_id" => self.vlan_id()?,
            "vlan_prio" => self.vlan_prio()?,
            "src_ip" => {
                let key = self.once(8, "src_ip")?;
                (self.matches.value.ip_src, self.matches.mask.ip_src) = self.ip(key)?;
            }
            "dst_ip" => {
                let key = self.once(9, "dst_ip")?;
                (self.matches.value.ip_dst, self.matches.mask.ip_dst) = self.ip(key)?;
            }
            "ip_proto" => {
                let key = self.once(10, "ip_proto")?;
                let value = self.value(key)?;
                let found = value_of(&IP_PROTOS, value).or_else(|| number(value));
                self.matches.mask.ip_proto = u8::MAX;
                self.matches.value.ip_proto = match found {
                    Some(proto) => proto,
                    None => {
                        let allowed = "tcp, udp, sctp, icmp, icmpv6 or a number from 0 to 255";
                        return bad(key, value, allowed);
                    }
                };
            }
            "src_port" => {
                let key = self.once(11, "src_port")?;
                (self.matches.value.l4_src, self.matches.mask.l4_src) = self.l4_port(key)?;
            }
            "dst_port" => {
                let key = self.once(12, "dst_port")?;
                (self.matches.value.l4_dst, self.matches.mask.l4_dst) = self.l4_port(key)?;
            }
            "action" => {
                let action = self.action()?;
                if spec.actions.last().is_some_and(|a| a.is_final()) {
                    return Err(RuleError::AfterFinalAction.into());
                }
                let pushed = spec.actions.try_push(action);
                pushed.map_err(|_| RuleTextError::TooManyActions)?;
            }
            _ => return Err(RuleTextError::UnknownKey(word.to_owned())),
        }
        Ok(())
    }

    /// The key, the first time.
    fn once(&mut self, bit: u32, key: &'static str) -> Result<&'static str, RuleTextError> {
        if self.seen & 1 << bit != 0 {
            return Err(RuleTextError::Duplicate(key));
        }
        self.seen |= 1 << bit;
        Ok(key)
    }

    fn value(&mut self, key: &'static str) -> Result<&'a str, RuleTextError> {
        self.words.next().ok_or(RuleTextError::NoValue(key))
    }

    fn number<T: TryFrom<u64>>(
        &mut self,
        key: &'static str,
        allowed: &'static str,
    ) -> Result<T, RuleTextError> {
        let value = self.value(key)?;
        number(value).map_or_else(|| bad(key, value, allowed), Ok)
    }

    fn port(&mut self, key: &'static str) -> Result<VportId, RuleTextError> {
        let name = self.value(key)?;
        if name == "uplink" {
            return Ok(VportId::UPLINK);
        }
        if let Some(id) = name.strip_prefix("vport:") {
            let id = number(id).filter(|id| (1..MAX_VPORTS).contains(id));
            return id.map_or_else(|| bad(key, name, PORT), |id| Ok(VportId(id)));
        }
        (self.names)(name).ok_or_else(|| RuleTextError::UnknownPort {
            key,
            name: name.to_owned(),
        })
    }

    fn action(&mut self) -> Result<Action, RuleTextError> {
        match self.value("action")? {
            "drop" => Ok(Action::Drop),
            "pass" => Ok(Action::Pass),
            "redirect" => Ok(Action::Redirect(self.port("redirect")?)),
            "mirror" => Ok(Action::Mirror(self.port("mirror")?)),
            other => bad("action", other, "drop, pass, redirect PORT or mirror PORT"),
        }
    }

    fn mac(&mut self, key: &'static str) -> Result<(Mac, Mac), RuleTextError> {
        let text = self.value(key)?;
        let (value, mask) = match text.split_once('/') {
            Some((value, mask)) => (value.parse().ok(), mask.parse().ok()),
            None => (text.parse().ok(), Some(FULL_MAC)),
        };
        let (Some(Mac(mut value)), Some(mask)) = (value, mask) else {
            return bad(
                key,
                text,
                "an address as 02:00:00:00:00:01, or address/mask",
            );
        };
        value.iter_mut().zip(mask.0).for_each(|(v, m)| *v &= m);
        Ok((Mac(value), mask))
    }

    fn eth_type(&mut self) -> Result<(), RuleTextError> {
        let key = self.once(5, "eth_type")?;
        let text = self.value(key)?;
        let Some(value) = value_of(&ETH_TYPES, text).or_else(|| number(text)) else {
            return bad(key, text, "ipv4, ipv6, arp or a number from 0 to 0xffff");
        };
        if let Some(with) = self.ip_key
            && self.matches.value.eth_type != value
        {
            let value = text.to_owned();
            return Err(RuleTextError::Conflict { key, value, with });
        }
        self.matches.value.eth_type = value;
        self.matches.mask.eth_type = u16::MAX;
        Ok(())
    }

    fn vlan_id(&mut self) -> Result<(), RuleTextError> {
        let key = self.once(6, "vlan_id")?;
        let text = self.value(key)?;
        let (value, mask) = match text {
            "none" => (0, FULL_VLAN),
            "any" => (FlowKey::VLAN_PRESENT, FlowKey::VLAN_PRESENT),
            _ => match number::<u16>(text).filter(|vid| *vid <= 4094) {
                Some(vid) => (FlowKey::VLAN_PRESENT | vid, FULL_VLAN),
                None => return bad(key, text, "a number from 0 to 4094, any or none"),
            },
        };
        if value == 0 && self.matches.mask.vlan_prio != 0 {
            let (value, with) = (text.to_owned(), "vlan_prio");
            return Err(RuleTextError::Conflict { key, value, with });
        }
        (self.matches.value.vlan, self.matches.mask.vlan) = (value, mask);
        Ok(())
    }

    fn vlan_prio(&mut self) -> Result<(), RuleTextError> {
        let key = self.once(7, "vlan_prio")?;
        let text = self.value(key)?;
        let Some(prio) = number::<u8>(text).filter(|prio| *prio <= 7) else {
            return bad(key, text, "a number from 0 to 7");
        };
        let Match { value, mask } = &mut self.matches;
        match (mask.vlan, value.vlan) {
            // A priority is part of a tag.
            (0, _) => (value.vlan, mask.vlan) = (FlowKey::VLAN_PRESENT, FlowKey::VLAN_PRESENT),
            (_, 0) => {
                let (value, with) = (text.to_owned(), "vlan_id none");
                return Err(RuleTextError::Conflict { key, value, with });
            }
            _ => {}
        }
        (value.vlan_prio, mask.vlan_prio) = (prio, 7);
        Ok(())
    }

    fn ip(&mut self, key: &'static str) -> Result<([u8; 16], [u8; 16]), RuleTextError> {
        const ALLOWED: &str = "an IPv4 or IPv6 address, address/length or address/mask";
        let text = self.value(key)?;
        let (address, mask) = text.split_once('/').unwrap_or((text, ""));
        let slash = address.len() != text.len();
        let Ok(address) = address.parse::<IpAddr>() else {
            return bad(key, text, ALLOWED);
        };
        let (width, family) = match address {
            IpAddr::V4(_) => (32, eth_type::IPV4),
            IpAddr::V6(_) => (128, eth_type::IPV6),
        };
        let mask = if !slash {
            Some(prefix_mask(width))
        } else if let Some(len) = number::<u32>(mask) {
            Some(len).filter(|len| *len <= width).map(prefix_mask)
        } else {
            let mask = mask.parse::<IpAddr>().ok();
            mask.filter(|m| m.is_ipv4() == address.is_ipv4())
                .map(spread)
        };
        let Some(mask) = mask else {
            return bad(key, text, ALLOWED);
        };
        if self.matches.mask.eth_type != 0 && self.matches.value.eth_type != family {
            return Err(RuleTextError::Conflict {
                key,
                value: text.to_owned(),
                with: self.ip_key.unwrap_or("eth_type"),
            });
        }
        self.matches.value.eth_type = family;
        self.matches.mask.eth_type = u16::MAX;
        self.ip_key.get_or_insert(key);
        let mut value = spread(address);
        value.iter_mut().zip(mask).for_each(|(v, m)| *v &= m);
        Ok((value, mask))
    }

    fn l4_port(&mut self, key: &'static str) -> Result<(u16, u16), RuleTextError> {
        let text = self.value(key)?;
        let (value, mask) = match text.split_once('/') {
            Some((value, mask)) => (number::<u16>(value), number(mask)),
            None => (number(text), Some(u16::MAX)),
        };
        match (value, mask) {
            (Some(value), Some(mask)) => Ok((value & mask, mask)),
            _ => bad(key, text, "a port from 0 to 65535, or port/mask"),
        }
    }
}

/// The first `len` bits set.
fn prefix_mask(len: u32) -> [u8; 16] {
    let clear = 128 - len;
    u128::MAX.checked_shl(clear).unwrap_or(0).to_be_bytes()
}

/// An address as [`FlowKey`] has it.
fn spread(address: IpAddr) -> [u8; 16] {
    let mut out = [0; 16];
    match address {
        IpAddr::V4(v4) => out[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => out = v6.octets(),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str) -> Option<VportId> {
        match name {
            "web1" => Some(VportId(1)),
            "web2" => Some(VportId(2)),
            _ => None,
        }
    }

    fn read(text: &str) -> Result<RuleSpec, RuleTextError> {
        RuleSpec::parse(text, &names)
    }

    #[test]
    fn everything_at_once() {
        let spec = read(
            "prio 10 in_port web1 src_mac 02:00:00:00:00:01/ff:ff:00:00:00:00 \
             dst_mac 02:00:00:00:00:02 eth_type ipv4 vlan_id 10 vlan_prio 3 src_ip 10.1.2.3/8 \
             dst_ip 10.0.0.1 ip_proto tcp src_port 80 dst_port 0x1bb/0xff00 cookie 0x1f \
             action mirror uplink action redirect web2",
        );
        let text = "prio 10 in_port vport:1 src_mac 02:00:00:00:00:00/ff:ff:00:00:00:00 \
                    dst_mac 02:00:00:00:00:02 eth_type ipv4 vlan_id 10 vlan_prio 3 \
                    src_ip 10.0.0.0/8 dst_ip 10.0.0.1 ip_proto tcp src_port 80 \
                    dst_port 256/0xff00 cookie 0x1f action mirror uplink \
                    action redirect vport:2";
        assert_eq!(spec.unwrap().to_string(), text);
    }

    #[test]
    fn short_forms() {
        for (text, canonical) in [
            ("action drop", "prio 49152 action drop"),
            (
                "dst_ip fe80::/10 action pass",
                "prio 49152 eth_type ipv6 dst_ip fe80::/10 action pass",
            ),
            (
                "eth_type 0x806 action drop",
                "prio 49152 eth_type arp action drop",
            ),
            (
                "eth_type 0x88cc action drop",
                "prio 49152 eth_type 0x88cc action drop",
            ),
            (
                "vlan_prio 0 action drop",
                "prio 49152 vlan_prio 0 action drop",
            ),
            (
                "vlan_id none action drop",
                "prio 49152 vlan_id none action drop",
            ),
            (
                "vlan_id any action drop",
                "prio 49152 vlan_id any action drop",
            ),
            ("vlan_id 0 action drop", "prio 49152 vlan_id 0 action drop"),
            (
                "src_ip 1.2.3.4/255.0.255.0 action drop",
                "prio 49152 eth_type ipv4 src_ip 1.0.3.0/255.0.255.0 action drop",
            ),
            (
                "src_ip 1.2.3.4/0 action drop",
                "prio 49152 eth_type ipv4 action drop",
            ),
            ("action drop prio 1", "prio 1 action drop"),
        ] {
            let spec = read(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(spec.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(spec));
        }
    }

    #[test]
    fn errors_name_key_value_and_what_is_allowed() {
        for (text, message) in [
            ("", "action: the last one must be drop, pass or redirect"),
            (
                "prio 0 action drop",
                "prio: 0 is not a priority, allowed are 1 to 65535",
            ),
            (
                "prio 65536 action drop",
                "prio: `65536` is not a number from 1 to 65535",
            ),
            (
                "prio +1 action drop",
                "prio: `+1` is not a number from 1 to 65535",
            ),
            ("prio", "prio: the value is missing"),
            ("prio 1 prio 2 action drop", "prio: given twice"),
            (
                "in_port web9 action drop",
                "in_port: no port is called `web9`; also known are `uplink` and `vport:N`",
            ),
            (
                "in_port vport:65536 action drop",
                "in_port: `vport:65536` is not a port: `uplink`, `vport:N` with N from 1 to 65535, or a name",
            ),
            (
                "src_mac 02:00 action drop",
                "src_mac: `02:00` is not an address as 02:00:00:00:00:01, or address/mask",
            ),
            (
                "eth_type ip action drop",
                "eth_type: `ip` is not ipv4, ipv6, arp or a number from 0 to 0xffff",
            ),
            (
                "vlan_id 4095 action drop",
                "vlan_id: `4095` is not a number from 0 to 4094, any or none",
            ),
            (
                "vlan_prio 8 action drop",
                "vlan_prio: `8` is not a number from 0 to 7",
            ),
            (
                "vlan_id none vlan_prio 1 action drop",
                "vlan_prio: `1` does not go with vlan_id none",
            ),
            (
                "vlan_prio 1 vlan_id none action drop",
                "vlan_id: `none` does not go with vlan_prio",
            ),
            (
                "src_ip 10.0.0.0/33 action drop",
                "src_ip: `10.0.0.0/33` is not an IPv4 or IPv6 address, address/length or address/mask",
            ),
            (
                "src_ip 10.0.0.0/ action drop",
                "src_ip: `10.0.0.0/` is not an IPv4 or IPv6 address, address/length or address/mask",
            ),
            (
                "src_ip 10.0.0.1 dst_ip ::1 action drop",
                "dst_ip: `::1` does not go with src_ip",
            ),
            (
                "eth_type arp src_ip 10.0.0.1 action drop",
                "src_ip: `10.0.0.1` does not go with eth_type",
            ),
            (
                "src_ip 10.0.0.1 eth_type arp action drop",
                "eth_type: `arp` does not go with src_ip",
            ),
            (
                "ip_proto tcp action drop",
                "ip_proto: needs eth_type ipv4 or ipv6",
            ),
            (
                "eth_type ipv4 ip_proto tcpp action drop",
                "ip_proto: `tcpp` is not tcp, udp, sctp, icmp, icmpv6 or a number from 0 to 255",
            ),
            (
                "eth_type ipv4 dst_port 80 action drop",
                "dst_port: needs ip_proto tcp, udp or sctp",
            ),
            (
                "eth_type ipv4 ip_proto icmp src_port 80 action drop",
                "src_port: needs ip_proto tcp, udp or sctp",
            ),
            (
                "eth_type ipv4 ip_proto tcp dst_port 65536 action drop",
                "dst_port: `65536` is not a port from 0 to 65535, or port/mask",
            ),
            (
                "action mirror uplink",
                "action: the last one must be drop, pass or redirect",
            ),
            (
                "action drop action mirror uplink",
                "action: nothing can follow drop, pass or redirect",
            ),
            (
                "action reject",
                "action: `reject` is not drop, pass, redirect PORT or mirror PORT",
            ),
            ("action", "action: the value is missing"),
            ("action redirect", "redirect: the value is missing"),
            (
                "action redirect web3",
                "redirect: no port is called `web3`; also known are `uplink` and `vport:N`",
            ),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), message, "{text}");
        }
        let unknown = read("dport 80 action drop").unwrap_err().to_string();
        assert!(unknown.starts_with("`dport`: no such key; the keys are prio, in_port,"));
        assert_eq!(
            read(&"action mirror uplink ".repeat(9)),
            Err(RuleTextError::TooManyActions)
        );
        assert_eq!(read(&" ".repeat(5000)), Err(RuleTextError::TooLong(5000)));
    }
}
