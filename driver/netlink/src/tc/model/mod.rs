//! tc's filters as the switch's rules, and back: what a switchdev driver's offload does.
//!
//! A filter that the switch cannot carry out exactly is refused, never approximated.

mod act;
mod act_back;
mod key;
mod key_back;
mod pedit;

use super::action::Action;
use super::flower::RuleFlags;
use super::header::{At, EGRESS};
use super::{Filter, FilterKind};
use chanio_model::edit::TunnelKind;
use chanio_model::flow::{Match, RuleError, RuleSpec};
use chanio_model::{Mac, VportId};
use std::net::IpAddr;

/// Why a filter is not one for the switch, or a rule not one for tc.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOffloaded {
    /// It asks not to be.
    #[error("skip_hw: the filter asks not to be in hardware")]
    SkipHw,
    /// A kind of filter that has no rules.
    #[error("filter kind {0} is not supported, supported are flower and matchall")]
    Kind(String),
    /// Not on what a port receives.
    #[error("only filters on ingress are supported")]
    Egress,
    /// A device that is none of the switch's.
    #[error("device with index {0} is not a port of this switch")]
    Device(u32),
    /// A match that cannot be carried out.
    #[error("match on {0} is not supported")]
    Key(String),
    /// A match of some bits where only all are possible.
    #[error("match on {0}: only exact matches are supported")]
    Partial(&'static str),
    /// An action that cannot be carried out.
    #[error("action {0} is not supported")]
    Action(String),
    /// Encapsulation without a way to the other end.
    #[error("no route or neighbour to tunnel endpoint {0}")]
    Unreachable(IpAddr),
    /// Encapsulation without a device that does it.
    #[error("tunnel_key set: no redirect to a tunnel device follows")]
    NoTunnelDevice,
    /// The rule matches no port to hang the filter on.
    #[error("the rule names neither in_port nor block: a filter hangs on one of them")]
    NoPort,
    /// The rule is not well formed.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

/// A device that packets are encapsulated by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelDevice {
    /// Its protocol.
    pub kind: TunnelKind,
    /// The UDP port that it sends to when a rule does not say.
    pub dst_port: u16,
}

/// The way to the other end of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Out of which port.
    pub vport: VportId,
    /// Our MAC there.
    pub eth_src: Mac,
    /// The next hop's MAC.
    pub eth_dst: Mac,
}

/// What there is around the switch.
pub trait Surroundings {
    /// The port whose netdev this is.
    fn vport(&self, ifindex: u32) -> Option<VportId>;
    /// The netdev of a port.
    fn ifindex(&self, vport: VportId) -> Option<u32>;
    /// A tunnel device's protocol.
    fn tunnel(&self, ifindex: u32) -> Option<TunnelDevice> {
        let _ = ifindex;
        None
    }
    /// A tunnel device of this protocol.
    fn tunnel_device(&self, kind: TunnelKind) -> Option<u32> {
        let _ = kind;
        None
    }
    /// The way from our end of a tunnel to the other.
    fn next_hop(&self, from: IpAddr, to: IpAddr) -> Option<NextHop> {
        let _ = (from, to);
        None
    }
    /// Where samples of a psample group go.
    fn sample_port(&self, group: u32) -> Option<VportId> {
        let _ = group;
        None
    }
}

/// The rule that does in the switch what the filter does in the kernel.
pub fn to_model(filter: &Filter, around: &dyn Surroundings) -> Result<RuleSpec, NotOffloaded> {
    let (actions, flags) = match &filter.kind {
        Some(FilterKind::Flower(rule)) => (&rule.actions, rule.flags),
        Some(FilterKind::Matchall(rule)) => (&rule.actions, rule.flags),
        other => return Err(other_kind(other.as_ref())),
    };
    if flags.is_some_and(|flags| flags.has(RuleFlags::SKIP_HW)) {
        return Err(NotOffloaded::SkipHw);
    }
    let spec = RuleSpec {
        chain: filter.chain(),
        priority: filter.priority,
        matches: to_match(filter, around)?,
        actions: act::read(actions, around)?,
        cookie: cookie(actions),
        idle_timeout: 0,
    };
    spec.check()?;
    Ok(spec)
}

fn other_kind(kind: Option<&FilterKind>) -> NotOffloaded {
    NotOffloaded::Kind(kind.map_or("none", FilterKind::name).to_owned())
}

/// The packets that the filter is for, whatever it does with them and wherever it wants to be.
pub fn to_match(filter: &Filter, around: &dyn Surroundings) -> Result<Match, NotOffloaded> {
    let (key, unknown) = match &filter.kind {
        Some(FilterKind::Flower(rule)) => (Some(&rule.key), &rule.unknown),
        Some(FilterKind::Matchall(rule)) => (None, &rule.unknown),
        other => return Err(other_kind(other.as_ref())),
    };
    if let Some(attr) = unknown.first() {
        return Err(NotOffloaded::Key(format!("attribute {}", attr.kind)));
    }
    let mut matches = Match::default();
    if let Some(key) = key {
        key::read(key, filter.protocol, &mut matches)?;
    } else if filter.protocol != ETH_P_ALL {
        return Err(NotOffloaded::Key(format!(
            "protocol {:#06x} with matchall",
            filter.protocol
        )));
    }
    match filter.at {
        At::Device { parent: EGRESS, .. } => return Err(NotOffloaded::Egress),
        At::Device { ifindex, .. } => {
            let ifindex = ifindex.cast_unsigned();
            if let Some(vport) = around.vport(ifindex) {
                (matches.value.in_port, matches.mask.in_port) = (vport.0 as u16, u16::MAX);
            } else if let Some(device) = around.tunnel(ifindex) {
                key::came_through(device.kind, &mut matches)?;
            } else {
                return Err(NotOffloaded::Device(ifindex));
            }
        }
        At::Block(block) => {
            let block = u16::try_from(block)
                .map_err(|_| NotOffloaded::Key(format!("block {block}, allowed are 1 to 65535")))?;
            (matches.value.block, matches.mask.block) = (block, u16::MAX);
        }
    }
    matches.normalize();
    matches.check()?;
    Ok(matches)
}

/// ETH_P_ALL: filters for every packet.
const ETH_P_ALL: u16 = 3;

/// The first action's cookie, as far as 64 bits hold it: OVS writes all zeroes behind its own.
fn cookie(actions: &[Action]) -> u64 {
    let bytes = actions
        .first()
        .and_then(|action| action.common.cookie.as_deref());
    bytes
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// The filter that does in the kernel what the rule does in the switch, for hardware only.
pub fn from_model(spec: &RuleSpec, around: &dyn Surroundings) -> Result<Filter, NotOffloaded> {
    if spec.idle_timeout != 0 {
        return Err(NotOffloaded::Action("idle_timeout".to_owned()));
    }
    let mut filter = key_back::filter(&spec.matches, around)?;
    filter.priority = spec.priority;
    filter.more.chain = (spec.chain != 0).then_some(spec.chain);
    let mut actions = act_back::write(&spec.actions, around)?;
    if let (Some(first), true) = (actions.first_mut(), spec.cookie != 0) {
        first.common.cookie = Some(spec.cookie.to_ne_bytes().to_vec());
    }
    if let Some(FilterKind::Flower(rule)) = &mut filter.kind {
        rule.actions = actions;
        rule.flags = Some(RuleFlags(RuleFlags::SKIP_SW));
    }
    Ok(filter)
}

#[cfg(test)]
mod tests;
