//! What is to be in hardware, and why the rest is not.

use super::bridge_db::FdbKey;
use super::mirror::{Hook, Mirror, Place};
use super::tunnel::Tunnels;
use super::{bridge, tc};
use chanio_model::VportId;
use chanio_model::edit::TunnelPorts;
use chanio_model::flow::{FlowKey, Origin, RuleSpec};
use chanio_model::profile::Profile;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

/// A vport whose representor the kernel can put filters on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelPort {
    pub vport: VportId,
    /// The representor.
    pub ifindex: u32,
    /// Bytes of the longest L3 packet that the channel sends or takes; `None`: the uplink, which
    /// has no limit.
    pub mtu: Option<u16>,
}

/// What of the NIC a plan is made for.
#[derive(Clone, Debug)]
pub(crate) struct Basis {
    /// Counts changes of all that follows.
    pub epoch: u64,
    /// The eswitch has tables.
    pub switchdev: bool,
    pub ports: Vec<KernelPort>,
    pub profile: &'static Profile,
    /// Which UDP ports are tunnels' to the switch.
    pub tunnel_ports: TunnelPorts,
    /// Rules that control has asked for, and their distinct masks.
    pub rules: usize,
    pub masks: usize,
}

/// What a rule is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// A filter.
    Filter(Hook, Place),
    /// An address of a bridge's.
    Fdb(FdbKey),
}

/// Which of the rules that are there for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Does what the filter does on this port.
    Filter(VportId),
    /// Hands what the filter is for to the kernel, on this port.
    Cover(VportId),
    /// Leads what may be for the filter to its chain, at this port.
    Entry(VportId),
    /// Frames from the address.
    From(Form),
    /// Frames to the address that came from there.
    Back(Form),
    /// Frames to the address.
    To(Form),
}

/// How frames of a VLAN come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// However they do: the bridge does not look at tags.
    Any,
    /// With its tag.
    Tagged,
    /// Without one.
    Untagged,
}

/// A rule's identity over all plans.
pub(crate) type RuleKey = (Source, Part);

/// Rules with their identities.
pub(super) type Rules = Vec<(RuleKey, RuleSpec)>;

/// Something of the kernel's, and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub source: Source,
    /// The netdev, `block N`, or the bridge.
    pub place: String,
    /// `flower`, `matchall`, `fdb` or what else it is.
    pub kind: String,
    /// EtherType, 3 for all; 0 for an address.
    pub protocol: u16,
    /// What an address is listed as.
    pub text: Option<String>,
    /// On so many ports it is there to be in hardware.
    pub ports: u32,
    /// Why it is not in hardware, on the first port where it is not.
    pub why_not: Option<String>,
}

/// What is to be in hardware.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// In the order in which they were given.
    pub rules: Vec<(RuleKey, Origin, RuleSpec)>,
    pub listed: Vec<Listed>,
    /// The neighbours, by netdev, that rules send packets to.
    pub neighbours: Vec<(RuleKey, (u32, IpAddr))>,
    seen_masks: HashSet<(Origin, u32, FlowKey)>,
}

impl Plan {
    /// Adds rules, all or none.
    ///
    /// # Errors
    /// Why the NIC has no place for them.
    pub(super) fn add(
        &mut self,
        basis: &Basis,
        origin: Origin,
        rules: Rules,
    ) -> Result<(), String> {
        let mask = |spec: &RuleSpec| (origin, spec.chain, spec.matches.mask);
        let new: HashSet<_> = rules.iter().map(|(_, spec)| mask(spec)).collect();
        let more = new.difference(&self.seen_masks).count();
        let masks = basis.masks + self.seen_masks.len() + more;
        let count = basis.rules + self.rules.len() + rules.len();
        let admitted = basis.profile.admit_tables(count, masks);
        admitted.map_err(|refusal| refusal.to_string())?;
        self.seen_masks.extend(new);
        let rules = rules.into_iter().map(|(key, spec)| (key, origin, spec));
        self.rules.extend(rules);
        Ok(())
    }
}

/// Makes plans; keeps what has to stay the same from one to the next.
#[derive(Debug, Default)]
pub(super) struct Planner {
    /// The chains that bridges' addresses are looked up in.
    pub chains: bridge::Chains,
}

impl Planner {
    /// What of the kernel's belongs into hardware now.
    pub fn plan(&mut self, mirror: &Mirror, basis: &Basis) -> Plan {
        let mut plan = Plan::default();
        let ports = Ports::new(mirror, basis);
        let shut = tc::plan(mirror, &ports, basis, &mut plan);
        bridge::plan(mirror, &ports, &shut, basis, &mut self.chains, &mut plan);
        plan.seen_masks = HashSet::new();
        plan
    }
}

/// The ports by number and by netdev, and what speaks against their being in hardware.
pub(super) struct Ports<'a> {
    pub list: &'a [KernelPort],
    pub tunnels: Tunnels<'a>,
    by_index: HashMap<u32, &'a KernelPort>,
    /// Why nothing that comes in there is to be treated in hardware.
    no_entry: BTreeMap<VportId, String>,
    /// Why nothing is to be sent there in hardware.
    no_exit: BTreeMap<VportId, String>,
}

impl<'a> Ports<'a> {
    fn new(mirror: &'a Mirror, basis: &'a Basis) -> Self {
        let mut ports = Self {
            list: &basis.ports,
            tunnels: Tunnels::new(mirror, basis),
            by_index: basis.ports.iter().map(|p| (p.ifindex, p)).collect(),
            no_entry: BTreeMap::new(),
            no_exit: BTreeMap::new(),
        };
        for port in &basis.ports {
            if let Some(why) = no_entry(mirror, basis, port.ifindex) {
                ports.no_entry.insert(port.vport, why);
            }
            if let Some(why) = no_exit(mirror, port.ifindex) {
                ports.no_exit.insert(port.vport, why);
            }
        }
        ports
    }

    pub fn by_index(&self, ifindex: u32) -> Option<&'a KernelPort> {
        self.by_index.get(&ifindex).copied()
    }

    pub fn no_entry(&self, vport: VportId) -> Option<&str> {
        self.no_entry.get(&vport).map(String::as_str)
    }

    pub fn no_exit(&self, vport: VportId) -> Option<&str> {
        self.no_exit.get(&vport).map(String::as_str)
    }
}

/// Why nothing that comes in at a port is to be treated in hardware.
pub(super) fn no_entry(mirror: &Mirror, basis: &Basis, ifindex: u32) -> Option<String> {
    if !basis.switchdev {
        return Some("the eswitch is in legacy mode".to_owned());
    }
    let Some(link) = mirror.links.get(&ifindex) else {
        return Some("the representor is not in this network namespace".to_owned());
    };
    if !link.up {
        return Some(format!("{} is down", link.name));
    }
    link.xdp
        .then(|| format!("an XDP program looks at what {} receives", link.name))
}

/// Root qdiscs that send what they get, in its order and as fast as they can.
const PLAIN_QDISCS: [&str; 8] = [
    "noqueue",
    "mq",
    "fq_codel",
    "fq",
    "pfifo_fast",
    "pfifo",
    "bfifo",
    "sfq",
];

/// Why nothing is to be sent out of a netdev in hardware.
pub(super) fn no_exit(mirror: &Mirror, ifindex: u32) -> Option<String> {
    let Some(link) = mirror.links.get(&ifindex) else {
        return Some("the representor is not in this network namespace".to_owned());
    };
    let name = &link.name;
    if !link.up {
        return Some(format!("{name} is down"));
    }
    let hangs_on = |hook| mirror.filters.get(&hook).is_some_and(|f| !f.is_empty());
    let qdiscs = mirror.qdiscs.get(&ifindex);
    let block = qdiscs.and_then(|q| q.egress_block).map(Hook::Block);
    if hangs_on(Hook::Egress(ifindex)) || block.is_some_and(hangs_on) {
        return Some(format!("filters look at what {name} sends"));
    }
    let root = qdiscs.and_then(|q| q.root.as_deref());
    let shaping = root.filter(|kind| !PLAIN_QDISCS.contains(kind));
    shaping.map(|kind| format!("qdisc {kind} treats what {name} sends"))
}
