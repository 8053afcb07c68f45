//! devlink: a NIC's switch, ports, rates and settings (linux/devlink.h, generic family
//! `devlink`): one file per kind of object.

mod attributes;
mod eswitch;
mod health;
mod info;
mod param;
mod port;
mod rate;
mod reload;
mod resource;
mod trap;

pub use attributes::{command, devlink, function};
pub use eswitch::{EncapMode, Eswitch, EswitchMode, InlineMode};
pub use health::{Reporter, ReporterState};
pub use info::{Info, Version};
pub use param::{Param, ParamMode, ParamSetting, ParamType, ParamValue};
pub use port::{Flavour, Function, FunctionState, OperationalState, Port, PortType, capability};
pub use rate::{Rate, RateType};
pub use reload::{Reload, ReloadAction};
pub use resource::{Resource, ResourcePlain};
pub use trap::{Trap, TrapAction, TrapStats, TrapType};

use crate::Result;
use crate::attr::{Raw, Table, record};
use crate::genl::Header;
use crate::message::Message;

/// The family's name.
pub const FAMILY: &str = "devlink";
/// The family's version.
pub const VERSION: u8 = 1;
/// The group that is told of every change.
pub const CONFIG_GROUP: &str = "config";

record! {
    /// Which device: `pci` and `0000:03:00.0`.
    pub struct Handle of devlink {
        /// The bus.
        bus: String = BUS_NAME;
        /// Its name there.
        device: String = DEV_NAME;
    }
}

impl Handle {
    /// The device of this bus and name.
    pub fn new(bus: &str, device: &str) -> Self {
        Handle {
            bus: Some(bus.to_owned()),
            device: Some(device.to_owned()),
        }
    }
}

/// A message of the family: the command says which of the groups count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Devlink {
    /// The command, of [`command`], and the family's version.
    pub header: Header,
    /// The device.
    pub handle: Handle,
    /// A port.
    pub port: Port,
    /// The switch.
    pub eswitch: Eswitch,
    /// A rate limit.
    pub rate: Rate,
    /// What the device is.
    pub info: Info,
    /// A setting, as it is told.
    pub param: Option<Param>,
    /// A setting, as it is asked for or changed.
    pub setting: ParamSetting,
    /// A reload.
    pub reload: Reload,
    /// A way for packets to leave the device's pipeline.
    pub trap: Trap,
    /// A health reporter.
    pub reporter: Option<Reporter>,
    /// The name of the health reporter that is asked for.
    pub reporter_name: Option<String>,
    /// What the device has a limited number of.
    pub resources: Vec<Resource>,
    /// Attributes that are not known here.
    #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(default))]
    pub unknown: Vec<Raw>,
}

impl Devlink {
    /// A request with this command about this device.
    pub fn new(command: u16, handle: Handle) -> Self {
        // Commands fit a byte. The version stays 0, as devlink(8) sends it; the kernel does not look.
        let header = Header {
            command: command as u8,
            version: 0,
        };
        Devlink {
            header,
            handle,
            ..Self::default()
        }
    }

    /// Reads the payload of a message of the family.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let (header, attributes) = Header::parse(payload)?;
        let table = Table::new(&devlink::ALL, attributes)?;
        let reporter = table.attr(devlink::HEALTH_REPORTER);
        Ok(Devlink {
            header,
            handle: Handle::read(&table)?,
            port: Port::read(&table)?,
            eswitch: Eswitch::read(&table)?,
            rate: Rate::read(&table)?,
            info: Info::read(&table)?,
            param: Param::read(&table)?,
            setting: ParamSetting::read(&table)?,
            reload: Reload::read(&table)?,
            trap: Trap::read(&table)?,
            reporter: reporter
                .map(|a| Reporter::read(&a.nest(&devlink::ALL)?))
                .transpose()?,
            reporter_name: table.get(devlink::HEALTH_REPORTER_NAME)?,
            resources: resource::read_list(&table)?,
            unknown: table.rest(),
        })
    }

    /// A message of the family, whose number the controller tells.
    pub fn message(&self, family: u16, flags: u16) -> Result<Message> {
        Message::new(family, flags, |out| {
            self.header.emit(out);
            self.handle.write(out);
            self.port.write(out);
            self.eswitch.write(out);
            self.rate.write(out);
            self.info.write(out);
            if let Some(param) = &self.param {
                param.write(out);
            }
            self.setting.write(out);
            self.reload.write(out);
            self.trap.write(out);
            if let Some(reporter) = &self.reporter {
                out.nest(devlink::HEALTH_REPORTER, |out| reporter.write(out));
            }
            out.put_some(devlink::HEALTH_REPORTER_NAME, &self.reporter_name);
            resource::write_list(&self.resources, out);
            out.put_raw(&self.unknown);
        })
    }
}
