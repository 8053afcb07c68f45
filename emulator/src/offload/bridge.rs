//! What bridges know of addresses behind representors, as rules.
//!
//! As mlx5 has it (drivers/net/ethernet/mellanox/mlx5/core/esw/bridge.c), there are two steps. A
//! frame first has to come from an address that the bridge knows to be at its port, so that who is
//! new or has moved is seen by the bridge and learned; then one to a known address is sent there.
//! All others are the bridge's: broadcast, groups, unknown addresses, its own.

use super::bridge_db::{FdbEntry, FdbKey, PortVlan};
use super::link::{Bridge, FORWARDING, Link};
use super::mirror::Mirror;
use super::plan::{Basis, Form, KernelPort, Listed, Part, Plan, Ports, Rules, Source};
use chanio_model::edit::{VlanProto, VlanTag};
use chanio_model::flow::{Action, FlowKey, KeyFlags, MAX_CHAIN, Match, Origin, RuleSpec};
use chanio_model::{Mac, VportId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

const VLAN_8021Q: u16 = 0x8100;

/// Where the addresses of a VLAN of a bridge's are looked up, for frames that come in one form.
type Lookup = (u32, u16, Form);

/// The chains that addresses are looked up in; one that is in use keeps its number.
#[derive(Debug, Default)]
pub(super) struct Chains(BTreeMap<Lookup, u32>);

impl Chains {
    fn number(&mut self, lookup: Lookup) -> u32 {
        if let Some(number) = self.0.get(&lookup) {
            return *number;
        }
        let taken: BTreeSet<_> = self.0.values().copied().collect();
        // There are fewer bridges and VLANs than numbers.
        let number = (1..=MAX_CHAIN)
            .find(|n| !taken.contains(n))
            .unwrap_or(MAX_CHAIN);
        self.0.insert(lookup, number);
        number
    }
}

/// What is known of a bridge.
struct Known<'a> {
    name: &'a str,
    settings: Bridge,
    /// Why nothing of it is in hardware.
    why_not: Option<String>,
    /// VLANs that frames without a tag belong to at some port.
    pvids: BTreeSet<u16>,
    /// Bytes of the longest L3 packet that a channel at it sends.
    longest: u32,
}

impl<'a> Known<'a> {
    fn new(mirror: &'a Mirror, index: u32, ports: &Ports<'_>) -> Option<Self> {
        let link = mirror.links.get(&index)?;
        let settings = link.bridge?;
        let members = || mirror.links.iter().filter(|(_, l)| l.master == Some(index));
        let (mut pvids, mut longest) = (BTreeSet::new(), 0);
        for (member, _) in members() {
            let vlans = mirror.vlans.get(member).into_iter().flatten();
            pvids.extend(vlans.filter(|(_, v)| v.pvid).map(|(vid, _)| *vid));
            let mtu = ports.by_index(*member).and_then(|port| port.mtu);
            longest = longest.max(mtu.map_or(0, u32::from));
        }
        let has = |what: fn(&Link) -> bool| members().map(|(_, l)| l).find(|l| what(l));
        let proxy = has(|l| l.port.is_some_and(|p| p.proxies));
        let tunnel = has(|l| l.port.is_some_and(|p| p.tunnels));
        let name = &link.name;
        let why_not = if !link.up {
            Some(format!("{name} is down"))
        } else if link.promisc {
            Some(format!(
                "{name} is promiscuous: the host wants to see every frame"
            ))
        } else if settings.mst {
            Some(format!(
                "{name} has a state of its ports by VLAN (mst_enabled)"
            ))
        } else if settings.vlan_filtering && settings.vlan_protocol != VLAN_8021Q {
            Some(format!(
                "{name} filters by tags of another type than 802.1Q"
            ))
        } else if let Some(port) = proxy {
            Some(format!(
                "{} answers for others (neigh_suppress, proxy_arp)",
                port.name
            ))
        } else {
            tunnel.map(|port| format!("{} turns VLANs into tunnels (vlan_tunnel)", port.name))
        };
        Some(Self {
            name,
            settings,
            why_not,
            pvids,
            longest,
        })
    }
}

/// Adds the rules of all addresses behind representors. `shut`: ports whose filters leave nothing.
pub(super) fn plan(
    mirror: &Mirror,
    ports: &Ports<'_>,
    shut: &BTreeSet<VportId>,
    basis: &Basis,
    chains: &mut Chains,
    plan: &mut Plan,
) {
    let mut bridges: HashMap<u32, Option<Known<'_>>> = HashMap::new();
    let mut used = BTreeSet::new();
    for (key, entry) in &mirror.fdb {
        let Some(port) = ports.by_index(entry.port).filter(|_| !entry.local) else {
            continue;
        };
        let bridge = bridges.entry(key.bridge);
        let bridge = bridge.or_insert_with(|| Known::new(mirror, key.bridge, ports));
        let (Some(bridge), Some(link)) = (bridge, mirror.links.get(&entry.port)) else {
            continue;
        };
        let address = Address {
            key: *key,
            entry: *entry,
            port,
            link,
            bridge,
            ports,
            vlan: mirror
                .vlans
                .get(&entry.port)
                .and_then(|vlans| vlans.get(&key.vid))
                .copied(),
        };
        let rules = address.rules(shut.contains(&port.vport), chains, &mut used);
        let why_not = match rules {
            Ok(rules) => plan.add(basis, Origin::Bridge, rules).err(),
            Err(why) => Some(why),
        };
        plan.listed.push(Listed {
            source: Source::Fdb(*key),
            place: bridge.name.to_owned(),
            kind: "fdb".to_owned(),
            protocol: 0,
            text: Some(address.text()),
            ports: 1,
            why_not,
        });
    }
    chains.0.retain(|lookup, _| used.contains(lookup));
}

/// An address and all that matters about it.
struct Address<'a> {
    key: FdbKey,
    entry: FdbEntry,
    port: &'a KernelPort,
    link: &'a Link,
    bridge: &'a Known<'a>,
    ports: &'a Ports<'a>,
    /// Its port's part in its VLAN.
    vlan: Option<PortVlan>,
}

impl Address<'_> {
    fn text(&self) -> String {
        let FdbKey { vid, mac, .. } = self.key;
        let vlan = if vid == 0 {
            String::new()
        } else {
            format!(" vlan {vid}")
        };
        format!("{mac}{vlan} dev {}", self.link.name)
    }

    fn rules(
        &self,
        shut: bool,
        chains: &mut Chains,
        used: &mut BTreeSet<Lookup>,
    ) -> Result<Rules, String> {
        self.objection(shut)?;
        let source = Source::Fdb(self.key);
        let mut rules = Vec::new();
        for form in self.forms() {
            let lookup = (self.key.bridge, self.key.vid, form);
            used.insert(lookup);
            let chain = chains.number(lookup);
            if form != Form::Untagged || self.vlan.is_some_and(|vlan| vlan.pvid) {
                let spec = rule(0, 1, self.from(form), [Action::Goto(chain)]);
                rules.push(((source, Part::From(form)), spec));
            }
            let mut back = self.to();
            (back.value.in_port, back.mask.in_port) = (self.in_port(), u16::MAX);
            rules.push((
                (source, Part::Back(form)),
                rule(chain, 1, back, [Action::Pass]),
            ));
            let send = Action::Redirect(self.port.vport);
            let untagged = self.vlan.is_some_and(|vlan| vlan.untagged);
            let spec = match (form, untagged) {
                (Form::Tagged, true) => rule(chain, 2, self.to(), [Action::VlanPop, send]),
                (Form::Untagged, false) => {
                    let push = Action::VlanPush(VlanTag {
                        proto: VlanProto::Dot1Q,
                        vid: self.key.vid,
                        prio: 0,
                    });
                    rule(chain, 2, self.to(), [push, send])
                }
                _ => rule(chain, 2, self.to(), [send]),
            };
            rules.push(((source, Part::To(form)), spec));
        }
        Ok(rules)
    }

    /// The forms in which frames of its VLAN may come.
    fn forms(&self) -> Vec<Form> {
        if !self.bridge.settings.vlan_filtering {
            return vec![Form::Any];
        }
        let mut forms = vec![Form::Tagged];
        if self.bridge.pvids.contains(&self.key.vid) {
            forms.push(Form::Untagged);
        }
        forms
    }

    /// Why it is not in hardware.
    fn objection(&self, shut: bool) -> Result<(), String> {
        let name = &self.link.name;
        if let Some(why) = &self.bridge.why_not {
            return Err(why.clone());
        }
        let vport = self.port.vport;
        if let Some(why) = self.ports.no_entry(vport).or(self.ports.no_exit(vport)) {
            return Err(why.to_owned());
        }
        if shut {
            return Err(format!("{name} has filters that are only in software"));
        }
        let settings = self
            .link
            .port
            .filter(|_| self.link.master == Some(self.key.bridge));
        let settings =
            settings.ok_or_else(|| format!("{name} is no port of {}", self.bridge.name))?;
        if settings.state != FORWARDING {
            return Err(format!("{name} is not in state forwarding"));
        }
        if settings.isolated {
            return Err(format!("{name} is isolated from other ports"));
        }
        if self.entry.locked {
            return Err("the address is locked".to_owned());
        }
        let longest = self.port.mtu.map_or(self.bridge.longest, u32::from);
        if self.link.mtu < longest {
            return Err(format!(
                "mtu: {name} takes {} bytes, packets may have {longest}",
                self.link.mtu
            ));
        }
        if !self.key.mac.is_unicast() {
            return Err("the address is a group's".to_owned());
        }
        match (self.bridge.settings.vlan_filtering, self.key.vid) {
            (false, 0) => Ok(()),
            (false, _) => Err(format!("{} does not look at VLANs", self.bridge.name)),
            (true, 0) => Err(format!(
                "{} looks at VLANs, the address is of none",
                self.bridge.name
            )),
            (true, vid) => match self.vlan {
                Some(vlan) if vlan.forwarding => Ok(()),
                Some(_) => Err(format!("{name} is not in state forwarding in VLAN {vid}")),
                None => Err(format!("{name} is not in VLAN {vid}")),
            },
        }
    }

    fn in_port(&self) -> u16 {
        self.port.vport.0 as u16
    }

    /// Frames from the address at its port.
    fn from(&self, form: Form) -> Match {
        let mut matches = Match::default();
        let (value, mask) = (&mut matches.value, &mut matches.mask);
        (value.in_port, mask.in_port) = (self.in_port(), u16::MAX);
        (value.eth_src, mask.eth_src) = (self.key.mac, Mac::BROADCAST);
        let tag = FlowKey::VLAN_PRESENT | FlowKey::VLAN_ID;
        match form {
            Form::Any => {}
            Form::Untagged => mask.vlan = tag,
            Form::Tagged => {
                (value.vlan, mask.vlan) = (FlowKey::VLAN_PRESENT | self.key.vid, tag);
                mask.flags = KeyFlags::VLAN_AD;
            }
        }
        matches
    }

    /// Frames to the address.
    fn to(&self) -> Match {
        let mut matches = Match::default();
        matches.value.eth_dst = self.key.mac;
        matches.mask.eth_dst = Mac::BROADCAST;
        matches
    }
}

fn rule<const N: usize>(
    chain: u32,
    priority: u16,
    matches: Match,
    actions: [Action; N],
) -> RuleSpec {
    RuleSpec {
        chain,
        priority,
        matches,
        actions: actions.into(),
        ..RuleSpec::default()
    }
}
