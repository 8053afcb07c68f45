//! Plans, out of messages as the kernel sends them.

mod bridge;
mod property;
mod recorded;
mod tc;
mod tunnel;

use super::mirror::{Effect, Hook, Mirror};
use super::plan::{Basis, KernelPort, Part, Plan, Planner, Source};
use super::way;
use chanio_model::VportId;
use chanio_model::edit::TunnelKind;
use chanio_model::flow::RuleSpec;
use chanio_model::profile::GENERIC;
use chanio_netlink::tc::flower::RuleFlags;
use chanio_netlink::tc::model::{Surroundings, from_model};
use chanio_netlink::tc::{Filter, FilterKind, NEW_FILTER, NEW_QDISC, Qdisc};

/// Ports `p0` to `p4` have netdevs 10 to 14; a VXLAN's is 20.
struct Around;

impl Surroundings for Around {
    fn vport(&self, ifindex: u32) -> Option<VportId> {
        (10..=14).contains(&ifindex).then(|| VportId(ifindex - 10))
    }
    fn ifindex(&self, vport: VportId) -> Option<u32> {
        Some(vport.0 + 10)
    }
    fn tunnel_device(&self, kind: TunnelKind) -> Option<u32> {
        (kind == TunnelKind::Vxlan).then_some(20)
    }
}

pub fn names(name: &str) -> Option<VportId> {
    name.strip_prefix('p')?.parse().ok().map(VportId)
}

/// tc's `protocol ip` is for packets without a tag, and so on; the switch wants to be told.
const SHORT: [(&str, &str); 5] = [
    ("udp4", "vlan_id none eth_type ipv4 ip_proto udp"),
    ("tcp4", "vlan_id none eth_type ipv4 ip_proto tcp"),
    ("ip4", "vlan_id none eth_type ipv4"),
    ("arp", "vlan_id none eth_type arp"),
    ("vlan5", "vlan_id 5 vlan_tpid 802.1q"),
];

pub fn spec(text: &str) -> RuleSpec {
    let long = |word| {
        SHORT
            .iter()
            .find(|(short, _)| *short == word)
            .map(|(_, long)| *long)
    };
    let words: Vec<_> = text
        .split(' ')
        .map(|word| long(word).unwrap_or(word))
        .collect();
    RuleSpec::parse(&words.join(" "), &names).unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// An attribute.
pub fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The body of a link message.
pub fn link(family: u8, index: u32, up: bool, attributes: &[Vec<u8>]) -> Vec<u8> {
    let flags: u32 = if up { 0x1_0001 } else { 0 };
    let mut body = vec![family, 0, 1, 0];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend([0; 4]);
    body.extend(attributes.concat());
    body
}

/// The kernel and the NIC of a test.
pub struct World {
    pub mirror: Mirror,
    pub basis: Basis,
    pub planner: Planner,
}

impl World {
    /// Four ports that are up, each with a clsact qdisc.
    pub fn new() -> Self {
        let port = |n| KernelPort {
            vport: VportId(n),
            ifindex: n + 10,
            mtu: Some(1500),
        };
        let mut world = Self {
            mirror: Mirror::default(),
            basis: Basis {
                epoch: 0,
                switchdev: true,
                ports: (1..=4).map(port).collect(),
                profile: &GENERIC,
                tunnel_ports: Default::default(),
                rules: 0,
                masks: 0,
            },
            planner: Planner::default(),
        };
        for n in 1..=4 {
            world.port(n, true, &[]);
            let qdisc = Qdisc::clsact(n as i32 + 10);
            let message = qdisc.message(NEW_QDISC, 0).unwrap();
            world.note(NEW_QDISC, &message.payload);
        }
        world
    }

    pub fn note(&mut self, kind: u16, body: &[u8]) -> Effect {
        self.mirror.note(kind, body)
    }

    pub fn port(&mut self, n: u32, up: bool, more: &[Vec<u8>]) -> Effect {
        let mut attributes = vec![
            nla(3, format!("p{n}\0").as_bytes()),
            nla(4, &1500u32.to_ne_bytes()),
        ];
        attributes.extend(more.iter().cloned());
        self.note(libc::RTM_NEWLINK, &link(0, n + 10, up, &attributes))
    }

    /// A filter that does what a rule says, with this number.
    pub fn filter(&mut self, handle: u32, text: &str, flags: u32) -> Effect {
        let filter = filter(handle, text, flags);
        let message = filter.message(NEW_FILTER, 0).unwrap();
        self.note(NEW_FILTER, &message.payload)
    }

    pub fn plan(&mut self) -> Plan {
        self.planner.plan(&self.mirror, &self.basis)
    }
}

pub fn filter(handle: u32, text: &str, flags: u32) -> Filter {
    let mut filter = from_model(&spec(text), &Around).unwrap_or_else(|e| panic!("{text}: {e}"));
    filter.handle = handle;
    if let Some(FilterKind::Flower(rule)) = &mut filter.kind {
        rule.flags = Some(RuleFlags(flags));
    }
    filter
}

impl Plan {
    /// The rules in the order of precedence, those that only hand over in brackets.
    pub fn texts(&self) -> Vec<String> {
        let mut rules: Vec<_> = self.rules.iter().collect();
        rules.sort_by_key(|(_, origin, spec)| (*origin, spec.chain, spec.priority));
        let name = |vport: VportId| Some(format!("p{vport}"));
        let text = |spec: &RuleSpec| spec.with_names(&name).to_string();
        let one = |(key, _, spec): &&(super::RuleKey, _, RuleSpec)| match key.1 {
            Part::Cover(_) => format!("[{}]", text(spec)),
            _ => text(spec),
        };
        rules.iter().map(one).collect()
    }

    /// Why the filter with this number is not in hardware.
    pub fn why_not(&self, handle: u32) -> Option<&str> {
        let mut all = self.listed.iter();
        let found = all.find(|listed| {
            matches!(listed.source, Source::Filter(Hook::Ingress(_) | Hook::Block(_), place)
                if place.handle == handle)
        });
        found
            .unwrap_or_else(|| panic!("no filter {handle}"))
            .why_not
            .as_deref()
    }
}
