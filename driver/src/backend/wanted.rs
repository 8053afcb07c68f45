//! What a channel should be like, checked as far as that does not depend on the device.

use crate::feature::refuse;
use crate::nic::ChannelSpec;
use crate::transport::Netns;
use crate::{DeviceError, Feature, Nic};
use chanio_emu::nic::spec::Attach;
use chanio_emu::port::{IfName, IfNameError};
use chanio_model::eswitch::ReceiveChange;
use chanio_model::ids::ParseIdError;
use chanio_model::rss::RssChange;
use chanio_model::{ChannelName, Mac};
use ipnet::IpNet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// The netdev in a container when no name is given.
const DEFAULT_IFNAME: &str = "eth0";
/// The largest VLAN id; 4095 is reserved (IEEE 802.1Q).
const MAX_VLAN: u16 = 4094;
/// The smallest MTU that IPv4 can live with (RFC 791).
const MIN_MTU: u16 = 68;

/// A channel.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) name: ChannelName,
    pub(super) queues: u16,
    pub(super) mac: Mac,
    pub(super) vlan: u16,
    pub(super) mtu: u32,
    pub(super) spoofchk: bool,
    pub(super) trust: bool,
    pub(super) link_up: bool,
    /// The group of ports that it shares its rules with; 0: none.
    pub(super) block: u16,
    pub(super) roce: Option<bool>,
    pub(super) rss: Option<RssChange>,
    /// Where its netdev goes, on devices that have some.
    pub(super) inside: Option<Place>,
}

/// Where a channel's netdev goes.
#[derive(Debug)]
pub(super) struct Place {
    /// As `ip netns` has it, or a path. Opened when it is needed, so that thousands of channels
    /// do not need thousands of files at once.
    pub(super) netns: String,
    pub(super) ifname: IfName,
    pub(super) addresses: Vec<IpNet>,
}

impl Wanted {
    /// Where its netdev goes.
    pub(super) fn place(&self) -> Result<&Place, DeviceError> {
        self.inside.as_ref().ok_or_else(|| {
            invalid(
                "attach",
                "`none`",
                "`tap:NETNS[:IF]`: the channel has a netdev",
            )
        })
    }
}

/// The error for a value that a field cannot have.
pub(super) fn invalid(
    field: &str,
    value: impl std::fmt::Display,
    allowed: impl std::fmt::Display,
) -> DeviceError {
    DeviceError::Refused {
        reason: format!("{field}: {value} is not allowed, must be {allowed}"),
    }
}

/// The error for a name that no channel has.
pub(super) fn no_channel(name: &str) -> DeviceError {
    DeviceError::Refused {
        reason: format!("name: no channel `{name}`"),
    }
}

/// The error for text that does not say what it should.
fn unreadable(why: impl ToString) -> DeviceError {
    DeviceError::Refused {
        reason: why.to_string(),
    }
}

pub(super) fn check_mac(text: &str) -> Result<Mac, DeviceError> {
    let mac: Mac = text.parse().map_err(|e: ParseIdError| unreadable(e))?;
    match mac.is_unicast() {
        true => Ok(mac),
        false => Err(invalid("mac", mac, "a unicast address")),
    }
}

pub(super) fn check_vlan(vlan: u16) -> Result<(), DeviceError> {
    match vlan {
        0..=MAX_VLAN => Ok(()),
        _ => Err(invalid("vlan", vlan, "0 (none) to 4094")),
    }
}

pub(super) fn check_mtu(mtu: u16) -> Result<(), DeviceError> {
    match mtu {
        MIN_MTU.. => Ok(()),
        _ => Err(invalid("mtu", mtu, "68 to 65535")),
    }
}

/// Checks what was asked for against what the device can do.
pub(super) fn check<N: Nic>(nic: &N, spec: ChannelSpec) -> Result<Wanted, DeviceError> {
    let name: ChannelName = spec.name.parse().map_err(|e: ParseIdError| unreadable(e))?;
    if spec.name == "uplink" {
        return Err(invalid("name", "`uplink`", "another: it is the wire's"));
    }
    check_vlan(spec.vlan)?;
    check_mtu(spec.mtu)?;
    let needs = [
        (Feature::Netns, matches!(spec.attach, Attach::Tap { .. })),
        (Feature::Queues, spec.queues > 1),
        (Feature::Function, spec.function.is_some()),
        (Feature::Roce, spec.roce.is_some()),
        (Feature::PortVlan, spec.vlan != 0),
        (Feature::Spoofchk, spec.spoofchk),
        (Feature::LinkState, !spec.link_up),
        (Feature::Rss, spec.rss.is_some()),
        (Feature::Lro, spec.lro),
        (Feature::Block, spec.block != 0),
        (Feature::Receive, spec.receive != ReceiveChange::default()),
    ];
    for (feature, needed) in needs {
        if needed && nic.why_not(feature).is_some() {
            return Err(refuse(nic, feature));
        }
    }
    if !(1..=256).contains(&spec.queues) {
        return Err(invalid("queues", spec.queues, "1 to 256"));
    }
    let inside = match spec.attach {
        Attach::Nothing => None,
        Attach::Tap {
            netns,
            ifname,
            addresses,
        } => {
            // There is one.
            Netns::open(&netns)?;
            Some(Place {
                ifname: ifname
                    .as_deref()
                    .unwrap_or(DEFAULT_IFNAME)
                    .parse()
                    .map_err(|e: IfNameError| unreadable(format!("attach: {e}")))?,
                netns,
                addresses,
            })
        }
        Attach::VhostUser | Attach::VhostUserClient { .. } => {
            return Err(refuse(nic, Feature::VhostUser));
        }
    };
    let mac = spec.mac.as_deref().map(check_mac).transpose()?;
    Ok(Wanted {
        name,
        queues: spec.queues,
        mac: mac.unwrap_or_else(random_mac),
        vlan: spec.vlan,
        mtu: spec.mtu.into(),
        spoofchk: spec.spoofchk,
        trust: spec.trust,
        link_up: spec.link_up,
        block: spec.block,
        roce: spec.roce,
        rss: spec.rss,
        inside,
    })
}

/// Names that are asked for twice, or that are taken.
pub(super) fn check_names<'a>(
    wanted: &[Wanted],
    taken: impl Iterator<Item = &'a str>,
) -> Result<(), DeviceError> {
    let mut known: std::collections::HashSet<&str> = taken.collect();
    for channel in wanted {
        let name = channel.name.as_str();
        if !known.insert(name) {
            return Err(DeviceError::Refused {
                reason: format!("name: a channel `{name}` exists already"),
            });
        }
    }
    Ok(())
}

/// A locally administered unicast address.
fn random_mac() -> Mac {
    // Each state is seeded by the system's randomness.
    let random = RandomState::new().build_hasher().finish().to_ne_bytes();
    let [first, b, c, d, e, f, ..] = random;
    Mac([first & 0xfc | 2, b, c, d, e, f])
}
