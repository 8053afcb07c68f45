//! The switch's ports: which vport has which name and netdev.

use super::link::Link;
use crate::nic::Representor;
use chanio_model::VportId;
use chanio_model::edit::TunnelKind;
use chanio_netlink::tc::model::{Surroundings, TunnelDevice};
use std::collections::HashMap;

/// A port of the switch.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) vport: VportId,
    /// The channel's, or `uplink`.
    pub(super) name: String,
    /// The representor, or the wire's netdev.
    pub(super) link: Link,
}

impl Port {
    /// As the commands tell it.
    pub(super) fn representor(&self) -> Representor {
        let channel = (!self.vport.is_uplink()).then(|| self.name.clone());
        representor(&self.link, self.vport, channel)
    }
}

/// A representor, and the channel that it is of, if any.
pub(super) fn representor(link: &Link, vport: VportId, channel: Option<String>) -> Representor {
    Representor {
        name: link.name.clone(),
        vport: vport.0,
        channel,
        up: link.up,
        carrier: link.carrier,
        mtu: link.mtu,
    }
}

/// All ports, and the tunnel devices beside them. Each is found without looking at the others.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports {
    ports: Vec<Port>,
    tunnels: Vec<(TunnelDevice, u32)>,
    by_name: HashMap<String, usize>,
    by_netdev: HashMap<u32, usize>,
    by_vport: HashMap<VportId, usize>,
}

impl Ports {
    /// These; of several with one name the first is called so.
    pub(super) fn new(ports: Vec<Port>, tunnels: Vec<(TunnelDevice, u32)>) -> Self {
        let mut all = Ports {
            tunnels,
            ..Ports::default()
        };
        for (place, port) in ports.iter().enumerate().rev() {
            all.by_name.insert(port.name.clone(), place);
            all.by_netdev.insert(port.link.index, place);
            all.by_vport.insert(port.vport, place);
        }
        all.ports = ports;
        all
    }

    /// All, in their order.
    pub(super) fn all(&self) -> &[Port] {
        &self.ports
    }

    pub(super) fn named(&self, name: &str) -> Option<&Port> {
        self.by_name.get(name).map(|place| &self.ports[*place])
    }

    pub(super) fn of_netdev(&self, index: u32) -> Option<&Port> {
        self.by_netdev.get(&index).map(|place| &self.ports[*place])
    }

    pub(super) fn of_vport(&self, vport: VportId) -> Option<&Port> {
        self.by_vport.get(&vport).map(|place| &self.ports[*place])
    }

    /// Whether this machine has netdevs for tunnels.
    pub(super) fn has_tunnels(&self) -> bool {
        !self.tunnels.is_empty()
    }

    pub(super) fn name(&self, vport: VportId) -> Option<String> {
        self.of_vport(vport).map(|port| port.name.clone())
    }
}

/// The protocol of a tunnel's netdev, and the UDP port that it sends to when nothing else is said:
/// IANA's (RFC 7348, RFC 8926), which is what the kernel chooses as well.
pub(super) fn tunnel_device(link: &Link) -> Option<TunnelDevice> {
    let (kind, dst_port) = match link.kind.as_deref()? {
        "vxlan" => (TunnelKind::Vxlan, 4789),
        "geneve" => (TunnelKind::Geneve, 6081),
        "gretap" | "ip6gretap" => (TunnelKind::Gre, 0),
        _ => return None,
    };
    Some(TunnelDevice { kind, dst_port })
}

impl Surroundings for Ports {
    fn vport(&self, ifindex: u32) -> Option<VportId> {
        self.of_netdev(ifindex).map(|port| port.vport)
    }

    fn ifindex(&self, vport: VportId) -> Option<u32> {
        self.of_vport(vport).map(|port| port.link.index)
    }

    fn tunnel(&self, ifindex: u32) -> Option<TunnelDevice> {
        let tunnel = self.tunnels.iter().find(|(_, index)| *index == ifindex);
        tunnel.map(|(device, _)| *device)
    }

    fn tunnel_device(&self, kind: TunnelKind) -> Option<u32> {
        let tunnel = self.tunnels.iter().find(|(device, _)| device.kind == kind);
        tunnel.map(|(_, index)| *index)
    }
}
