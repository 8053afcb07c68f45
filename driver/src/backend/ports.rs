//! The switch's ports: which vport has which name and netdev.

use super::link::Link;
use crate::nic::Representor;
use chanio_model::VportId;
use chanio_model::edit::TunnelKind;
use chanio_netlink::tc::model::{Surroundings, TunnelDevice};

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

/// All ports, and the tunnel devices beside them.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports {
    pub(super) ports: Vec<Port>,
    pub(super) tunnels: Vec<(TunnelDevice, u32)>,
}

impl Ports {
    pub(super) fn named(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.name == name)
    }

    pub(super) fn of_netdev(&self, index: u32) -> Option<&Port> {
        self.ports.iter().find(|port| port.link.index == index)
    }

    /// Whether this machine has netdevs for tunnels.
    pub(super) fn has_tunnels(&self) -> bool {
        !self.tunnels.is_empty()
    }

    pub(super) fn name(&self, vport: VportId) -> Option<String> {
        let port = self.ports.iter().find(|port| port.vport == vport);
        port.map(|port| port.name.clone())
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
        let port = self.ports.iter().find(|port| port.vport == vport);
        port.map(|port| port.link.index)
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
