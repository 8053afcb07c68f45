//! Rules that choose a queue (`ethtool -N … flow-type`, ETHTOOL_*RXCLSRL*), of virtual functions
//! whose driver is iavf below ice, which lets them have some (intel/ice/ice_virtchnl.c:
//! VIRTCHNL_VF_OFFLOAD_FDIR_PF). What iavf takes: intel/iavf/iavf_ethtool.c,
//! iavf_add_fdir_fltr_info, and iavf_fdir.c, iavf_validate_fdir_fltr_masks.

use super::Netdev;
use super::ioctl::{put, word};
use crate::netlink::played::{Played, Role};
use crate::netlink::table::Kind;
use chanio_model::ChannelName;
use chanio_model::flow::RuleSpec;
use chanio_model::steer::{QueueChoice, QueueRule, QueueRules};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

// struct ethtool_rxnfc: `data`, the rule, how many there are, and where they are.
const DATA: usize = 8;
const RULE: Range<usize> = 16..184;
const COUNT: usize = 184;
const LOCATIONS: usize = 188;

// struct ethtool_rx_flow_spec.
const VALUES: Range<usize> = 4..56;
const EXTRA: Range<usize> = 56..76;
const MASKS: Range<usize> = 76..128;
const EXTRA_MASKS: Range<usize> = 128..148;
const COOKIE: usize = 152;
const LOCATION: usize = 160;

/// FLOW_EXT and FLOW_MAC_EXT.
const FLOW_EXT: u32 = 1 << 31;
const FLOW_MAC_EXT: u32 = 1 << 30;
/// RX_CLS_FLOW_DISC.
const DISCARD: u64 = u64::MAX;
/// IAVF_MAX_FDIR_FILTERS.
const MOST: usize = 128;

/// The rules of a function as they were given, by their locations.
pub type Given = BTreeMap<u32, Vec<u8>>;

/// A rule as it was given, taken apart.
struct Spec<'a>(&'a [u8]);

impl Spec<'_> {
    fn location(&self) -> Result<u32, Errno> {
        word(self.0, LOCATION)
    }

    fn cookie(&self) -> Result<u64, Errno> {
        let (low, high) = (word(self.0, COOKIE)?, word(self.0, COOKIE + 4)?);
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    /// The bytes of a field, if it is asked for; a mask that is not all ones is refused.
    fn field<const N: usize>(&self, at: usize) -> Result<Option<[u8; N]>, Errno> {
        let bytes = |range: Range<usize>| {
            let bytes = self.0.get(range)?.get(at..)?;
            bytes.first_chunk::<N>().copied()
        };
        let (value, mask) = (bytes(VALUES).ok_or(Errno::EFAULT)?, bytes(MASKS));
        match mask.ok_or(Errno::EFAULT)? {
            mask if mask == [0; N] => Ok(None),
            mask if mask == [0xff; N] => Ok(Some(value)),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// What it matches, in the words of a flow rule.
    fn text(&self) -> Result<String, Errno> {
        let flow_type = word(self.0, 0)?;
        if flow_type & FLOW_MAC_EXT != 0 {
            return Err(Errno::EINVAL);
        }
        // User-defined words are offsets into the packet, which the emulator's switch has not.
        if flow_type & FLOW_EXT != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let zero = |range: Range<usize>| self.0[range].iter().all(|byte| *byte == 0);
        if !zero(EXTRA) || !zero(EXTRA_MASKS) {
            return Err(Errno::EINVAL);
        }
        let mut text = String::new();
        // A String takes all.
        let mut say = |words: std::fmt::Arguments<'_>| {
            let _ = write!(text, "{words} ");
        };
        match flow_type {
            1..=3 | 0x0d => {
                say(format_args!("eth_type ipv4"));
                for (at, name) in [(0, "src_ip"), (4, "dst_ip")] {
                    if let Some(address) = self.field::<4>(at)? {
                        say(format_args!("{name} {}", Ipv4Addr::from(address)));
                    }
                }
            }
            5..=7 | 0x0e => {
                say(format_args!("eth_type ipv6"));
                for (at, name) in [(0, "src_ip"), (16, "dst_ip")] {
                    if let Some(address) = self.field::<16>(at)? {
                        say(format_args!("{name} {}", Ipv6Addr::from(address)));
                    }
                }
            }
            0x12 => {
                // struct ethhdr: the driver looks at its protocol alone.
                match self.field::<2>(12)?.map(u16::from_be_bytes) {
                    Some(0x0800 | 0x86dd) => return Err(Errno::EOPNOTSUPP),
                    Some(kind) => say(format_args!("eth_type {kind:#06x}")),
                    None => {}
                }
                return Ok(text);
            }
            // AH and ESP: the emulator's switch does not look at their SPI.
            4 | 8..=12 => return Err(Errno::EOPNOTSUPP),
            _ => return Err(Errno::EINVAL),
        }
        let behind = if matches!(flow_type, 1..=3 | 0x0d) {
            8
        } else {
            32
        };
        match flow_type {
            0x0d | 0x0e => {
                // The first four bytes of whatever is in the packet.
                if self.field::<4>(behind)?.is_some() {
                    return Err(Errno::EOPNOTSUPP);
                }
                // struct ethtool_usrip4_spec has a version between.
                let proto = if flow_type == 0x0d {
                    behind + 6
                } else {
                    behind + 5
                };
                if let Some([proto]) = self.field::<1>(proto)? {
                    say(format_args!("ip_proto {proto}"));
                }
            }
            _ => {
                let proto = match flow_type {
                    1 | 5 => "tcp",
                    2 | 6 => "udp",
                    _ => "sctp",
                };
                say(format_args!("ip_proto {proto}"));
                for (at, name) in [(behind, "src_port"), (behind + 2, "dst_port")] {
                    if let Some(port) = self.field::<2>(at)? {
                        say(format_args!("{name} {}", u16::from_be_bytes(port)));
                    }
                }
            }
        }
        if let Some([tos]) = self.field::<1>(behind + 4)? {
            say(format_args!("ip_tos {tos}"));
        }
        Ok(text)
    }

    /// As the port has it.
    fn rule(&self, queues: u16) -> Result<QueueRule, Errno> {
        let choice = match self.cookie()? {
            DISCARD => QueueChoice::Drop,
            queue if queue < u64::from(queues) => QueueChoice::Queue(queue as u16),
            _ => return Err(Errno::EINVAL),
        };
        let text = format!("{}action drop", self.text()?);
        let spec: RuleSpec = text.parse().map_err(|error| {
            tracing::debug!(%error, text, "a rule that chooses a queue");
            Errno::EINVAL
        })?;
        Ok(QueueRule {
            matches: spec.matches,
            choice,
        })
    }
}

impl Played {
    /// The function's channel, if it can have such rules.
    fn ntuple_channel(&self, netdev: &Netdev) -> Result<(u32, ChannelName), Errno> {
        let Role::Function(port) = netdev.role else {
            return Err(Errno::EOPNOTSUPP);
        };
        let function = self.functions.get(port).ok_or(Errno::ENODEV)?;
        match (self.vendor.driver, function.kind) {
            ("ice", Kind::Vf(_)) => Ok((port, function.channel.clone())),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn given(&self, port: u32) -> Option<&Given> {
        self.functions.get(port).map(|function| &function.ntuple)
    }

    /// ETHTOOL_GRXCLSRLCNT
    pub(super) fn count_rules(&self, netdev: &Netdev, data: &mut [u8]) -> Result<(), Errno> {
        let (port, _) = self.ntuple_channel(netdev)?;
        let count = self.given(port).map_or(0, Given::len) as u32;
        put(data, COUNT, &count.to_ne_bytes())?;
        put(data, DATA, &(MOST as u64).to_ne_bytes())
    }

    /// ETHTOOL_GRXCLSRLALL
    pub(super) fn list_rules(&self, netdev: &Netdev, data: &mut [u8]) -> Result<(), Errno> {
        let (port, _) = self.ntuple_channel(netdev)?;
        let room = word(data, COUNT)? as usize;
        let locations: Vec<u32> = self
            .given(port)
            .into_iter()
            .flatten()
            .map(|r| *r.0)
            .collect();
        if locations.len() > room {
            return Err(Errno::EMSGSIZE);
        }
        put(data, DATA, &(MOST as u64).to_ne_bytes())?;
        put(data, COUNT, &(locations.len() as u32).to_ne_bytes())?;
        for (place, location) in locations.iter().enumerate() {
            put(data, LOCATIONS + 4 * place, &location.to_ne_bytes())?;
        }
        Ok(())
    }

    /// ETHTOOL_GRXCLSRULE
    pub(super) fn tell_rule(&self, netdev: &Netdev, data: &mut [u8]) -> Result<(), Errno> {
        let (port, _) = self.ntuple_channel(netdev)?;
        let location = word(data, RULE.start + LOCATION)?;
        let rule = self.given(port).and_then(|given| given.get(&location));
        put(data, RULE.start, rule.ok_or(Errno::EINVAL)?)
    }

    /// ETHTOOL_SRXCLSRLINS
    pub(super) fn add_rule(&mut self, netdev: &Netdev, data: &[u8]) -> Result<(), Errno> {
        let (port, channel) = self.ntuple_channel(netdev)?;
        let bytes = data.get(RULE).ok_or(Errno::EFAULT)?;
        let spec = Spec(bytes);
        let rule = spec.rule(netdev.used)?;
        let location = spec.location()?;
        let given = self.given(port).ok_or(Errno::ENODEV)?;
        let same = |other: &Vec<u8>| {
            let other = Spec(other).rule(u16::MAX);
            other.is_ok_and(|other| other.matches == rule.matches)
        };
        if given.contains_key(&location) || given.values().any(same) {
            return Err(Errno::EEXIST);
        }
        if given.len() >= MOST {
            return Err(Errno::ENOSPC);
        }
        let mut given = given.clone();
        given.insert(location, bytes.to_vec());
        self.use_rules(port, &channel, given)
    }

    /// ETHTOOL_SRXCLSRLDEL (iavf_fdir_del_fltr: where there are none, that is no error)
    pub(super) fn del_rule(&mut self, netdev: &Netdev, data: &[u8]) -> Result<(), Errno> {
        let (port, channel) = self.ntuple_channel(netdev)?;
        let location = word(data, RULE.start + LOCATION)?;
        let mut given = self.given(port).ok_or(Errno::ENODEV)?.clone();
        match given.remove(&location) {
            Some(_) => self.use_rules(port, &channel, given),
            None if given.is_empty() => Ok(()),
            None => Err(Errno::EINVAL),
        }
    }

    /// Has the function's port go by these.
    fn use_rules(&mut self, port: u32, channel: &ChannelName, given: Given) -> Result<(), Errno> {
        let rules = given.values().map(|bytes| Spec(bytes).rule(u16::MAX));
        let rules = QueueRules::new(rules.collect::<Result<_, _>>()?);
        let set = self.nic.set_queue_rules(channel, rules);
        set.map_err(|refused| Errno::from_raw(self.vendor.refusal(&refused).errno))?;
        if let Some(function) = self.functions.get_mut(port) {
            function.ntuple = given;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule of this type with these fields: where, and how many bytes of ones the mask has.
    fn spec(flow_type: u32, fields: &[(usize, &[u8])], cookie: u64) -> Vec<u8> {
        let mut bytes = vec![0; RULE.len()];
        bytes[..4].copy_from_slice(&flow_type.to_ne_bytes());
        for (at, value) in fields {
            bytes[VALUES.start + at..][..value.len()].copy_from_slice(value);
            bytes[MASKS.start + at..][..value.len()].fill(0xff);
        }
        bytes[COOKIE..COOKIE + 8].copy_from_slice(&cookie.to_ne_bytes());
        bytes
    }

    #[test]
    fn rules_are_read_as_they_are_meant() {
        let text = |bytes: &[u8]| Spec(bytes).text();
        let tcp4 = spec(1, &[(0, &[10, 0, 0, 1]), (10, &[0, 80])], 1);
        assert_eq!(
            text(&tcp4).unwrap(),
            "eth_type ipv4 src_ip 10.0.0.1 ip_proto tcp dst_port 80 "
        );
        let udp6 = spec(6, &[(32, &[0x10, 0]), (36, &[0x28])], 1);
        assert_eq!(
            text(&udp6).unwrap(),
            "eth_type ipv6 ip_proto udp src_port 4096 ip_tos 40 "
        );
        assert_eq!(Spec(&udp6).rule(2).unwrap().matches.value.ip_tos, 40);
        let ip4 = spec(0x0d, &[(14, &[47])], 1);
        assert_eq!(text(&ip4).unwrap(), "eth_type ipv4 ip_proto 47 ");
        let ether = spec(0x12, &[(12, &[0x88, 0xb5])], DISCARD);
        assert_eq!(text(&ether).unwrap(), "eth_type 0x88b5 ");
        let rule = Spec(&ether).rule(1).unwrap();
        assert_eq!(rule.choice, QueueChoice::Drop);
        assert_eq!(Spec(&tcp4).rule(2).unwrap().choice, QueueChoice::Queue(1));
    }

    #[test]
    fn what_the_driver_or_the_emulator_cannot_do_is_refused() {
        let why = |bytes: &[u8]| Spec(bytes).rule(1).unwrap_err();
        let mut partial = spec(1, &[(0, &[10, 0, 0, 0])], 0);
        partial[MASKS.start + 3] = 0;
        assert_eq!(why(&partial), Errno::EOPNOTSUPP);
        assert_eq!(why(&spec(1, &[], 1)), Errno::EINVAL);
        assert_eq!(why(&spec(1 | FLOW_MAC_EXT, &[], 0)), Errno::EINVAL);
        assert_eq!(why(&spec(1 | FLOW_EXT, &[], 0)), Errno::EOPNOTSUPP);
        assert_eq!(why(&spec(4, &[], 0)), Errno::EOPNOTSUPP);
        assert_eq!(
            why(&spec(0x0d, &[(8, &[1, 2, 3, 4])], 0)),
            Errno::EOPNOTSUPP
        );
        assert_eq!(why(&spec(0x12, &[(12, &[8, 0])], 0)), Errno::EOPNOTSUPP);
        assert_eq!(why(&spec(0x33, &[], 0)), Errno::EINVAL);
        assert_eq!(why(&[0; 10]), Errno::EFAULT);
    }
}
