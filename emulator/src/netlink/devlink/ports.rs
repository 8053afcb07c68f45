//! Ports and the functions behind them.

use super::{Device, message};
use crate::netlink::played::Played;
use crate::netlink::refuse;
use crate::netlink::table::{Function, Kind};
use chanio_model::Mac;
use chanio_netlink::attr::Bitfield32;
use chanio_netlink::devlink::{
    self as messages, Devlink, Flavour, FunctionState, OperationalState, Port, PortType,
    capability, command,
};
use chanio_netlink::kernel::Refusal;
use chanio_netlink::message::Message;
use nix::net::if_::if_indextoname;

/// mellanox/mlx5/core/sf/sf.h has no more event queues to give (max_num_eqs_24b).
const MAX_IO_EQS: u32 = 0x00ff_ffff;

impl Played {
    /// The ports that a device has now.
    pub(super) fn ports(&self, device: Device) -> Vec<u32> {
        match device {
            // mellanox/mlx5/core/en/devlink.c: a subfunction's own port has index 1, as
            // Documentation/networking/device_drivers/ethernet/mellanox/mlx5/switchdev.rst shows it
            Device::Sf(_) => vec![1],
            Device::Pf => {
                let functions = self.functions.iter();
                let mut ports: Vec<u32> = functions
                    .filter_map(|(port, f)| self.has_port(f).then_some(port))
                    .collect();
                ports.push(self.vendor.uplink_port);
                ports.sort_unstable();
                ports
            }
        }
    }

    /// Virtual functions have ports for their representors only.
    fn has_port(&self, function: &Function) -> bool {
        match function.kind {
            Kind::Sf(_) => true,
            Kind::Vf(_) => self.switchdev(),
            Kind::Macvlan { .. } => false,
        }
    }

    pub(super) fn port_of(&self, device: Device, asked: &Devlink) -> Result<u32, Refusal> {
        let index = asked
            .port
            .index
            .ok_or_else(|| Refusal::errno(libc::EINVAL))?;
        let there = match device {
            Device::Sf(_) => index == 1,
            Device::Pf if index == self.vendor.uplink_port => true,
            Device::Pf => self.functions.get(index).is_some_and(|f| self.has_port(f)),
        };
        match there {
            true => Ok(index),
            false => Err(Refusal::errno(libc::ENODEV)),
        }
    }

    pub(super) fn tell_port(
        &self,
        device: Device,
        port: u32,
        number: u16,
    ) -> Result<Message, Refusal> {
        let mut about = self.about(device, number);
        about.port = match device {
            Device::Sf(function) => self.own_port(function)?,
            Device::Pf if port == self.vendor.uplink_port => Port {
                flavour: Some(Flavour::Physical),
                number: Some(0),
                splittable: Some(0),
                ..self.netdev_port(self.uplink())
            },
            Device::Pf => self.function_port(self.function(port)?),
        };
        about.port.index = Some(port);
        message(&about)
    }

    /// A port with this netdev.
    fn netdev_port(&self, ifindex: Option<u32>) -> Port {
        // It may have been renamed since it was made.
        let name = ifindex.and_then(|index| if_indextoname(index).ok());
        let name = name.and_then(|name| name.into_string().ok());
        Port {
            kind: Some(PortType::Eth),
            netdev_ifindex: name.as_ref().and(ifindex),
            netdev_name: name,
            ..Port::default()
        }
    }

    /// The port that a subfunction's own device has.
    fn own_port(&self, function: u32) -> Result<Port, Refusal> {
        let ifindex = self.function(function)?.ifindex();
        Ok(Port {
            flavour: Some(Flavour::Virtual),
            number: Some(0),
            splittable: Some(0),
            ..self.netdev_port(ifindex)
        })
    }

    /// net/devlink/port.c: devlink_nl_port_attrs_put, devlink_nl_port_function_attrs_put
    fn function_port(&self, function: &Function) -> Port {
        let mut port = Port {
            controller: Some(0),
            pf: Some(0),
            external: Some(0),
            splittable: Some(0),
            ..self.netdev_port(Some(function.representor))
        };
        let mut behind = messages::Function {
            hw_addr: Some(function.hw_addr.unwrap_or_default().0.to_vec()),
            ..messages::Function::default()
        };
        match function.kind {
            Kind::Sf(number) => {
                (port.flavour, port.sf) = (Some(Flavour::PciSf), Some(number));
                behind.state = Some(match function.is_active() {
                    true => FunctionState::Active,
                    false => FunctionState::Inactive,
                });
                behind.operational_state = Some(match function.auxiliary() {
                    Some(_) => OperationalState::Attached,
                    None => OperationalState::Detached,
                });
            }
            Kind::Vf(number) => {
                (port.flavour, port.vf) = (Some(Flavour::PciVf), Some(number));
            }
            Kind::Macvlan { .. } => {}
        }
        if self.vendor.capabilities {
            let mut caps = Bitfield32 {
                value: if function.roce { capability::ROCE } else { 0 },
                selector: capability::ROCE,
            };
            if let Kind::Vf(_) = function.kind {
                caps.selector |= capability::MIGRATABLE;
                if function.migratable {
                    caps.value |= capability::MIGRATABLE;
                }
            }
            behind.capabilities = Some(caps);
            behind.max_io_eqs = Some(function.max_io_eqs);
        }
        port.function = Some(behind);
        port
    }

    /// The driver's port_new: mellanox/mlx5/core/sf/devlink.c, mlx5_devlink_sf_port_new;
    /// intel/ice/devlink/devlink_port.c, ice_devlink_port_new
    pub(super) fn add_port(&mut self, asked: &Devlink) -> Result<Message, Refusal> {
        if self.vendor.sf_device.is_none() {
            return Err(refuse::unsupported());
        }
        let (Some(flavour), Some(pf)) = (asked.port.flavour, asked.port.pf) else {
            // net/devlink/port.c: devlink_nl_port_new_doit
            let words = "Port flavour or PCI PF are not specified";
            return Err(refuse::text(libc::EINVAL, words));
        };
        let words = &self.vendor.words;
        let refuse = |errno, words| Err(self.vendor.refuse(errno, words));
        if flavour != Flavour::PciSf {
            return refuse(libc::EOPNOTSUPP, words.only_sf);
        }
        if asked.port.index.is_some() {
            return refuse(libc::EOPNOTSUPP, words.no_index);
        }
        if asked.port.controller.is_some_and(|number| number != 0) {
            return refuse(libc::EOPNOTSUPP, words.no_controller);
        }
        if pf != 0 {
            let (words, errno) = words.wrong_pf;
            return refuse(errno, words);
        }
        let number = match asked.port.sf {
            Some(number) => number,
            // ice gives numbers itself.
            None if self.vendor.driver == "ice" => self.free_sf_number(),
            None => {
                let words = "User must provide unique sfnum. Driver does not support auto \
                             assignment";
                return refuse(libc::EOPNOTSUPP, words);
            }
        };
        if !self.switchdev() {
            return refuse(libc::EOPNOTSUPP, words.sf_needs_switchdev);
        }
        let port = self.add_sf(number)?;
        let told = self.tell_port(Device::Pf, port, command::PORT_NEW)?;
        self.tell_devlink(told.clone());
        Ok(told)
    }

    fn free_sf_number(&self) -> u32 {
        let taken = |number: &u32| self.functions.port_of(Kind::Sf(*number)).is_some();
        (0..).find(|number| !taken(number)).unwrap_or(0)
    }

    pub(super) fn del_port(&mut self, asked: &Devlink) -> Result<(), Refusal> {
        let port = self.port_of(Device::Pf, asked)?;
        match self.functions.get(port).map(|f| f.kind) {
            Some(Kind::Sf(_)) => self.remove_port(port),
            // net/devlink/port.c: devlink_nl_port_del_doit, of a port without port_del
            _ => Err(refuse::unsupported()),
        }
    }

    /// Removes a subfunction and tells that its port is gone.
    pub(super) fn remove_port(&mut self, port: u32) -> Result<(), Refusal> {
        let told = self.tell_port(Device::Pf, port, command::PORT_DEL)?;
        self.del_sf(port)?;
        self.tell_devlink(told);
        Ok(())
    }

    /// Tells that the ports of virtual functions have come or gone.
    pub fn tell_vf_ports(&mut self, number: u16) -> Result<(), Refusal> {
        let ports: Vec<u32> = self.vfs().map(|(port, _)| port).collect();
        for port in ports {
            let told = self.tell_port(Device::Pf, port, number)?;
            self.tell_devlink(told);
        }
        Ok(())
    }

    /// net/devlink/port.c: devlink_nl_port_set_doit
    pub(super) fn set_port(&mut self, asked: &Devlink) -> Result<(), Refusal> {
        let port = self.port_of(Device::Pf, asked)?;
        if asked.port.kind.is_some_and(|kind| kind != PortType::Eth) {
            return Err(refuse::unsupported());
        }
        if let Some(function) = &asked.port.function {
            self.check_function(port, function)?;
            self.set_function(port, function)?;
            let told = self.tell_port(Device::Pf, port, command::PORT_NEW)?;
            self.tell_devlink(told);
        }
        Ok(())
    }

    /// All that speaks against it, before anything is done.
    fn check_function(&self, port: u32, asked: &messages::Function) -> Result<(), Refusal> {
        let no = |words: &str| Err(refuse::text(libc::EOPNOTSUPP, words));
        let Some(function) = self.functions.get(port) else {
            return no("Port doesn't support function attributes");
        };
        let is_vf = matches!(function.kind, Kind::Vf(_));
        if let Some(address) = &asked.hw_addr {
            let Some(mac) = <[u8; 6]>::try_from(address.as_slice()).ok().map(Mac) else {
                let words = "Address must be 6 bytes for Ethernet device";
                return Err(refuse::text(libc::EINVAL, words));
            };
            if mac.is_multicast() {
                let words = "Non-unicast hardware address unsupported";
                return Err(refuse::text(libc::EINVAL, words));
            }
            if self.vendor.driver == "ice" {
                // intel/ice/devlink/devlink_port.c: ice_devlink_port_fn_hw_addr_set
                if function.auxiliary().is_some() {
                    let words = "Ethernet address can be change only in detached state";
                    return Err(self.vendor.refuse(libc::EBUSY, words));
                }
                if mac.is_zero() {
                    let words = "Invalid ethernet address";
                    return Err(self.vendor.refuse(libc::EADDRNOTAVAIL, words));
                }
            }
        }
        if is_vf && asked.state.is_some() {
            return no("Function does not support state setting");
        }
        let selected = asked.capabilities.map_or(0, |caps| caps.selector);
        if selected & capability::ROCE != 0 && !self.vendor.capabilities {
            return no("Port doesn't support RoCE function attribute");
        }
        let migrates = self.vendor.capabilities && is_vf;
        if selected & capability::MIGRATABLE != 0 && !migrates {
            return no("Port doesn't support migratable function attribute");
        }
        if selected & capability::IPSEC_CRYPTO != 0 {
            return no("Port doesn't support ipsec_crypto function attribute");
        }
        if selected & capability::IPSEC_PACKET != 0 {
            return no("Port doesn't support ipsec_packet function attribute");
        }
        if let Some(count) = asked.max_io_eqs {
            if !self.vendor.capabilities {
                return no("Function does not support max_io_eqs setting");
            }
            if count == 0 || count > MAX_IO_EQS {
                return Err(refuse::text(libc::EINVAL, "max_io_eqs: 1 to 16777215"));
            }
        }
        Ok(())
    }

    fn set_function(&mut self, port: u32, asked: &messages::Function) -> Result<(), Refusal> {
        if let Some(mac) = asked.hw_addr.as_deref().and_then(|a| a.try_into().ok()) {
            // All zeroes: the driver chooses one, as it has.
            if !Mac(mac).is_zero() {
                self.set_hw_addr(port, Mac(mac))?;
            }
        }
        if let Some(function) = self.functions.get_mut(port) {
            if let Some(caps) = asked.capabilities {
                if caps.selector & capability::ROCE != 0 {
                    function.roce = caps.value & capability::ROCE != 0;
                }
                if caps.selector & capability::MIGRATABLE != 0 {
                    function.migratable = caps.value & capability::MIGRATABLE != 0;
                }
            }
            function.max_io_eqs = asked.max_io_eqs.unwrap_or(function.max_io_eqs);
        }
        match asked.state {
            None => Ok(()),
            Some(FunctionState::Active) => self.activate(port),
            Some(FunctionState::Inactive) => self.deactivate(port),
            Some(FunctionState::Other(_)) => Err(Refusal::errno(libc::EINVAL)),
        }
    }
}
