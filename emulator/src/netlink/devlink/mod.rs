//! devlink's requests, as net/devlink and the driver's devlink_ops answer them.

mod device;
mod ports;
mod rates;
mod settings;

use super::played::{DEVLINK, Played};
use super::refuse;
use super::table::Function;
use chanio_netlink::devlink::{Devlink, Handle, command, devlink};
use chanio_netlink::kernel::{Refusal, Reply};
use chanio_netlink::message::{Message, NLM_F_DUMP};

/// The highest attribute that is known here.
pub const HIGHEST_ATTRIBUTE: u16 = devlink::HEALTH_REPORTER_BURST_PERIOD;

/// GENL_ADMIN_PERM with GENL_CMD_CAP_DO and GENL_CMD_CAP_DUMP.
const DO: u32 = 1 | 2;
const DUMP: u32 = 4;

/// What each command takes (CTRL_ATTR_OP_FLAGS).
pub const COMMANDS: &[(u16, u32)] = &[
    (command::GET, DO | DUMP),
    (command::PORT_GET, DO | DUMP),
    (command::PORT_SET, DO),
    (command::PORT_NEW, DO),
    (command::PORT_DEL, DO),
    (command::ESWITCH_GET, DO),
    (command::ESWITCH_SET, DO),
    (command::DPIPE_TABLE_GET, DO),
    (command::RESOURCE_DUMP, DO),
    (command::RELOAD, DO),
    (command::PARAM_GET, DO | DUMP),
    (command::PARAM_SET, DO),
    (command::INFO_GET, DO | DUMP),
    (command::HEALTH_REPORTER_GET, DO | DUMP),
    (command::RATE_GET, DO | DUMP),
    (command::RATE_SET, DO),
    (command::RATE_NEW, DO),
    (command::RATE_DEL, DO),
];

/// One of the devlink devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    /// The NIC's physical function.
    Pf,
    /// That of a subfunction's auxiliary device, by the subfunction's port.
    Sf(u32),
}

impl Played {
    /// Answers one request of the family.
    pub fn devlink_request(&mut self, request: &Message) -> Result<Reply, Refusal> {
        let asked = Devlink::parse(&request.payload)?;
        let number = u16::from(asked.header.command);
        if request.flags & NLM_F_DUMP == NLM_F_DUMP {
            return self.devlink_dump(number, &asked);
        }
        let device = self.device(&asked.handle)?;
        match (number, device) {
            (command::GET, _) => one(self.tell_device(device)?),
            (command::INFO_GET, _) => one(self.tell_info(device)?),
            (command::PORT_GET, _) => {
                let port = self.port_of(device, &asked)?;
                one(self.tell_port(device, port, command::PORT_NEW)?)
            }
            (command::PARAM_GET, _) => one(self.tell_param(device, &asked)?),
            (command::HEALTH_REPORTER_GET, _) => one(self.tell_reporter(device, &asked)?),
            // Listings, though they are not asked for as such (net/devlink/dpipe.c, resource.c).
            (command::DPIPE_TABLE_GET, _) => Ok(Reply::Dump(vec![self.tell_dpipe(device)?])),
            (command::RESOURCE_DUMP, _) => Ok(Reply::Dump(vec![self.tell_resources(device)?])),
            (command::ESWITCH_GET, Device::Pf) => one(self.tell_eswitch()?),
            (command::ESWITCH_SET, Device::Pf) => done(self.set_eswitch(&asked)?),
            (command::RELOAD, Device::Pf) => one(self.reload(&asked)?),
            (command::PORT_SET, Device::Pf) => done(self.set_port(&asked)?),
            (command::PORT_NEW, Device::Pf) => one(self.add_port(&asked)?),
            (command::PORT_DEL, Device::Pf) => done(self.del_port(&asked)?),
            (command::PARAM_SET, Device::Pf) => done(self.set_param(&asked)?),
            (command::RATE_GET, Device::Pf) => one(self.tell_rate_asked(&asked)?),
            (command::RATE_SET, Device::Pf) => done(self.set_rate(&asked)?),
            (command::RATE_NEW, Device::Pf) => done(self.add_rate(&asked)?),
            (command::RATE_DEL, Device::Pf) => done(self.del_rate(&asked)?),
            _ => Err(refuse::unsupported()),
        }
    }

    /// A listing, of one device if one is named.
    fn devlink_dump(&mut self, number: u16, asked: &Devlink) -> Result<Reply, Refusal> {
        let devices = match &asked.handle {
            Handle {
                bus: None,
                device: None,
            } => self.devices(),
            handle => vec![self.device(handle)?],
        };
        let mut all = Vec::new();
        for device in devices {
            match number {
                command::GET => all.push(self.tell_device(device)?),
                command::INFO_GET => all.push(self.tell_info(device)?),
                command::PORT_GET => {
                    for port in self.ports(device) {
                        all.push(self.tell_port(device, port, command::PORT_NEW)?);
                    }
                }
                command::PARAM_GET => all.extend(self.tell_params(device)?),
                command::HEALTH_REPORTER_GET => all.extend(self.tell_reporters(device)?),
                command::RATE_GET if device == Device::Pf => all.extend(self.tell_rates()?),
                // The driver has none of what is listed.
                _ => {}
            }
        }
        Ok(Reply::Dump(all))
    }

    fn devices(&self) -> Vec<Device> {
        let attached = self.functions.with_auxiliaries();
        let ports = attached.filter_map(|(_, f)| self.functions.port_of(f.kind));
        std::iter::once(Device::Pf)
            .chain(ports.map(Device::Sf))
            .collect()
    }

    /// The device of this name.
    fn device(&self, handle: &Handle) -> Result<Device, Refusal> {
        let (Some(bus), Some(name)) = (&handle.bus, &handle.device) else {
            return Err(Refusal::errno(libc::EINVAL));
        };
        if *handle == self.handle(Device::Pf) {
            return Ok(Device::Pf);
        }
        let found = match &**bus {
            "auxiliary" => self.auxiliary_named(name),
            _ => None,
        };
        found
            .and_then(|function| self.functions.port_of(function.kind))
            .map(Device::Sf)
            .ok_or_else(|| Refusal::errno(libc::ENODEV))
    }

    /// Its name.
    fn handle(&self, device: Device) -> Handle {
        match device {
            Device::Pf => Handle::new("pci", &self.config.slot.to_string()),
            Device::Sf(port) => {
                let function = self.functions.get(port);
                let number = function.and_then(Function::auxiliary).unwrap_or(0);
                Handle::new("auxiliary", &self.auxiliary_name(number))
            }
        }
    }

    /// A message of the family about a device.
    fn about(&self, device: Device, number: u16) -> Devlink {
        Devlink::new(number, self.handle(device))
    }
}

fn message(devlink: &Devlink) -> Result<Message, Refusal> {
    Ok(devlink.message(DEVLINK, 0)?)
}

fn one(message: Message) -> Result<Reply, Refusal> {
    Ok(Reply::Answers(vec![message]))
}

fn done((): ()) -> Result<Reply, Refusal> {
    Ok(Reply::Answers(Vec::new()))
}
