//! What there is, read from the kernel each time.

use super::super::link::Link;
use super::super::ports::{Port, Ports, tunnel_device};
use super::super::wanted::no_channel;
use super::Veth;
use crate::DeviceError;
use chanio_model::{ChannelName, VportId};

/// The eswitch's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Legacy,
    Switchdev,
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Mode::Legacy => "legacy",
            Mode::Switchdev => "switchdev",
        }
    }
}

/// What the bridge's ifalias says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The number in the representors' names.
    pub(super) nic: u32,
    pub(super) mode: Mode,
}

impl Mark {
    pub(super) fn parse(alias: &str) -> Option<Self> {
        let words: Vec<_> = alias.split(' ').collect();
        let ["chanio", "nic", nic, mode] = words[..] else {
            return None;
        };
        let mode = match mode {
            "legacy" => Mode::Legacy,
            "switchdev" => Mode::Switchdev,
            _ => return None,
        };
        Some(Mark {
            nic: nic.parse().ok()?,
            mode,
        })
    }

    pub(super) fn text(self) -> String {
        format!("chanio nic {} {}", self.nic, self.mode.name())
    }
}

/// A representor's name: at most 15 characters, which leaves room for a number below 100 of the
/// NIC and seven digits of the channel's.
pub(super) fn representor(nic: u32, vport: VportId) -> String {
    format!("c{nic}pf0sf{}", vport.0)
}

/// The NIC's number and the vport in a representor's name.
fn parse_representor(name: &str) -> Option<(u32, VportId)> {
    let (nic, number) = name.strip_prefix('c')?.split_once("pf0sf")?;
    Some((nic.parse().ok()?, VportId(number.parse().ok()?)))
}

/// The bridge and all that belongs to it.
pub(super) struct State {
    pub(super) bridge: Option<Link>,
    /// As the bridge says, or as it would if there were one.
    pub(super) mark: Mark,
    /// In the order of their vports.
    pub(super) channels: Vec<Port>,
    /// Ports of the bridge that are no channels'.
    pub(super) uplinks: Vec<Link>,
    /// All netdevs.
    pub(super) links: Vec<Link>,
}

impl State {
    pub(super) fn mode(&self) -> Mode {
        self.mark.mode
    }

    pub(super) fn filters_vlans(&self) -> bool {
        let settings = self.bridge.as_ref().and_then(|link| link.bridge);
        settings.is_some_and(|settings| settings.vlan_filtering)
    }

    pub(super) fn channel(&self, name: &str) -> Option<&Port> {
        self.channels.iter().find(|channel| channel.name == name)
    }

    /// The channels of these names, or all if there are none.
    pub(super) fn pick(&self, names: &[String]) -> Result<Vec<&Port>, DeviceError> {
        if names.is_empty() {
            return Ok(self.channels.iter().collect());
        }
        let named = |name: &String| self.channel(name).ok_or_else(|| no_channel(name));
        names.iter().map(named).collect()
    }

    pub(super) fn uplinks_text(&self) -> String {
        match self.uplinks.is_empty() {
            true => "none".into(),
            false => {
                let names: Vec<_> = self.uplinks.iter().map(|link| &*link.name).collect();
                names.join(",")
            }
        }
    }

    /// The switch's ports. With several uplinks none of them is *the* wire.
    pub(super) fn into_ports(self) -> Ports {
        let mut ports = self.channels;
        if let [uplink] = &self.uplinks[..] {
            ports.insert(
                0,
                Port {
                    vport: VportId::UPLINK,
                    name: "uplink".into(),
                    link: uplink.clone(),
                },
            );
        }
        let tunnels = self
            .links
            .iter()
            .filter_map(|l| Some((tunnel_device(l)?, l.index)));
        Ports::new(ports, tunnels.collect())
    }
}

impl Veth {
    /// Looks.
    pub(super) fn state(&mut self) -> Result<State, DeviceError> {
        let links = self.route.links().map_err(|e| e.at("listing netdevs"))?;
        let bridge = links.iter().find(|link| link.name == self.bridge.as_str());
        if let Some(link) = bridge
            && !link.is("bridge")
        {
            return Err(DeviceError::Unreachable {
                address: self.address(),
                why: format!("netdev `{}` is not a bridge", self.bridge),
            });
        }
        let said = bridge.and_then(|link| Mark::parse(link.alias.as_deref()?));
        let mark = said.unwrap_or_else(|| Mark {
            nic: free_number(&links),
            mode: Mode::Legacy,
        });
        let mut channels = Vec::new();
        let mut uplinks = Vec::new();
        for link in &links {
            let ours = parse_representor(&link.name)
                .filter(|(nic, _)| said.is_some() && *nic == mark.nic && link.is("veth"));
            let name = link
                .alias
                .as_deref()
                .filter(|a| a.parse::<ChannelName>().is_ok());
            if let (Some((_, vport)), Some(name)) = (ours, name) {
                channels.push(Port {
                    vport,
                    name: name.to_owned(),
                    link: link.clone(),
                });
            } else if link.master.is_some() && link.master == bridge.map(|b| b.index) {
                uplinks.push(link.clone());
            }
        }
        channels.sort_by_key(|channel| channel.vport);
        Ok(State {
            bridge: bridge.cloned(),
            mark,
            channels,
            uplinks,
            links,
        })
    }
}

/// The lowest number that is in no representor's name and no bridge's mark.
fn free_number(links: &[Link]) -> u32 {
    let named = links.iter().filter_map(|link| number(&link.name));
    let marked = links
        .iter()
        .filter_map(|link| Some(Mark::parse(link.alias.as_deref()?)?.nic));
    let taken: Vec<_> = named.chain(marked).collect();
    (0..).find(|n| !taken.contains(n)).unwrap_or_default()
}

/// The N of a name that begins with `cNpf`: representors of channels and of wires.
fn number(name: &str) -> Option<u32> {
    name.strip_prefix('c')?.split_once("pf")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_says_what_it_is() {
        let mark = Mark {
            nic: 12,
            mode: Mode::Switchdev,
        };
        assert_eq!(mark.text(), "chanio nic 12 switchdev");
        assert_eq!(Mark::parse(&mark.text()), Some(mark));
        for other in [
            "",
            "chanio",
            "chanio nic 1",
            "chanio nic x legacy",
            "chanio nic 1 other",
        ] {
            assert_eq!(Mark::parse(other), None, "{other}");
        }
    }

    #[test]
    fn representors_are_told_by_their_names() {
        let vport = VportId(1023);
        assert_eq!(parse_representor(&representor(7, vport)), Some((7, vport)));
        assert!(representor(99, VportId(1023)).len() <= 15);
        for other in ["c0p0", "cpf0sf1", "c0pf0sf", "eth0", "c0pf0sf1x"] {
            assert_eq!(parse_representor(other), None, "{other}");
        }
        let link = |name: &str| Link {
            name: name.into(),
            ..Link::default()
        };
        assert_eq!(
            free_number(&[link("c0pf0sf1"), link("c1pf0sf3"), link("eth0")]),
            2
        );
    }
}
