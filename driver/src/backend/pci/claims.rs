//! Which keys and actions of rules a NIC claims: those that its driver offloads
//! (`chanio_model::profile`, each with the driver's source) and tc can say.

use super::super::ports::Ports;
use super::Pci;
use chanio_model::VportId;
use chanio_model::flow::{FlowKey, RuleSpec};
use chanio_model::profile::{self, Profile};
use chanio_netlink::devlink::Info;
use chanio_netlink::tc::model::{Surroundings, TunnelDevice, from_model};

/// What an emulator's NIC without a vendor calls its board (devlink's `board.id`): it plays
/// mlx5_core without that driver's limits.
const WITHOUT_VENDOR: &str = "chanio-generic";

/// The switch's ports, and those that sample rules name.
struct Samples<'a>(&'a Ports);

impl Surroundings for Samples<'_> {
    fn vport(&self, ifindex: u32) -> Option<VportId> {
        Some(VportId(ifindex))
    }
    fn ifindex(&self, vport: VportId) -> Option<u32> {
        Some(vport.0)
    }
    fn tunnel(&self, ifindex: u32) -> Option<TunnelDevice> {
        self.0.tunnel(ifindex)
    }
    fn tunnel_device(&self, kind: chanio_model::edit::TunnelKind) -> Option<u32> {
        self.0.tunnel_device(kind)
    }
}

impl Pci {
    /// What is known of the NIC's driver; none where nothing is offloaded.
    fn offloads(&self, info: &Info) -> Option<&'static Profile> {
        let mut fixed = info.fixed.iter();
        let name = match &*self.driver {
            "mlx5_core" if fixed.any(|v| v.value.as_deref() == Some(WITHOUT_VENDOR)) => "generic",
            "mlx5_core" => "mlx5-cx6dx",
            "ice" => "intel-e810",
            "i40e" => "intel-x710",
            "netdevsim" => return None,
            // What others refuse, they say when they are asked.
            _ => "generic",
        };
        profile::by_name(name)
    }

    /// The keys and the actions.
    pub(super) fn claims(
        &self,
        info: &Info,
        ports: &Ports,
    ) -> (Vec<&'static str>, Vec<&'static str>) {
        let said = |spec: &RuleSpec| {
            let mut spec = spec.clone();
            let matches = &mut spec.matches;
            if matches.mask.in_port == 0 && matches.mask.block == 0 {
                (matches.value.in_port, matches.mask.in_port) = (1, u16::MAX);
            }
            let mut untagged = spec.clone();
            untagged.matches.mask.vlan |= FlowKey::VLAN_PRESENT | FlowKey::VLAN_ID;
            [spec, untagged]
                .iter()
                .any(|spec| from_model(spec, &Samples(ports)).is_ok())
        };
        match self.offloads(info) {
            Some(profile) => (profile.keys_that(said), profile.actions_that(said)),
            None => (Vec::new(), Vec::new()),
        }
    }
}
