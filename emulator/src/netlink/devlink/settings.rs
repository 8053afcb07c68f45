//! Parameters, resources and health reporters.

use super::{Device, message};
use crate::netlink::played::Played;
use crate::netlink::refuse;
use crate::netlink::table::Kind;
use chanio_netlink::attr::{Flag, Raw};
use chanio_netlink::devlink::{
    Devlink, Param, ParamMode, ParamType, ParamValue, Reporter, ReporterState, Resource,
    ResourcePlain, command, devlink,
};
use chanio_netlink::kernel::Refusal;
use chanio_netlink::message::Message;

/// NLA_F_NESTED.
const NESTED: u16 = 0x8000;

/// A parameter of a driver.
struct Setting {
    driver: &'static str,
    name: &'static str,
    generic: bool,
    kind: ParamType,
    mode: ParamMode,
    /// Its value to begin with; empty for a flag that is off.
    initial: &'static [u8],
    check: fn(&[u8]) -> Result<(), &'static str>,
}

/// mellanox/mlx5/core/devlink.c: max_uc_list_devlink_param, mlx5_devlink_max_uc_list_validate
fn check_max_macs(value: &[u8]) -> Result<(), &'static str> {
    match value.try_into().map(u32::from_ne_bytes) {
        Ok(0) => Err("max_macs value must be greater than 0"),
        Ok(count) if !count.is_power_of_two() => {
            Err("Only power of 2 values are supported for max_macs")
        }
        Ok(1..=4096) => Ok(()),
        _ => Err("max_macs value is out of the supported range"),
    }
}

/// mellanox/mlx5/core/devlink.c: mlx5_devlink_fs_mode_validate
fn check_steering(value: &[u8]) -> Result<(), &'static str> {
    match value.strip_suffix(b"\0").unwrap_or(value) {
        b"dmfs" | b"smfs" => Ok(()),
        _ => Err("Bad parameter: supported values are [\"dmfs\", \"smfs\"]"),
    }
}

/// intel/ice/devlink/devlink.c: ice_devlink_local_fwd_validate
fn check_loopback(value: &[u8]) -> Result<(), &'static str> {
    match value.strip_suffix(b"\0").unwrap_or(value) {
        b"enabled" | b"disabled" | b"prioritized" => Ok(()),
        _ => Err("Error: Requested value is not supported."),
    }
}

fn any(_: &[u8]) -> Result<(), &'static str> {
    Ok(())
}

const SETTINGS: &[Setting] = &[
    Setting {
        driver: "mlx5_core",
        name: "flow_steering_mode",
        generic: false,
        kind: ParamType::String,
        mode: ParamMode::Runtime,
        initial: b"smfs\0",
        check: check_steering,
    },
    Setting {
        driver: "mlx5_core",
        name: "enable_roce",
        generic: true,
        kind: ParamType::Flag,
        mode: ParamMode::DriverInit,
        initial: b"\x01",
        check: any,
    },
    Setting {
        driver: "mlx5_core",
        name: "max_macs",
        generic: true,
        kind: ParamType::U32,
        mode: ParamMode::DriverInit,
        initial: &128u32.to_ne_bytes(),
        check: check_max_macs,
    },
    Setting {
        driver: "ice",
        name: "enable_roce",
        generic: true,
        kind: ParamType::Flag,
        mode: ParamMode::Runtime,
        initial: b"",
        check: any,
    },
    Setting {
        driver: "ice",
        name: "local_forwarding",
        generic: false,
        kind: ParamType::String,
        mode: ParamMode::Runtime,
        initial: b"enabled\0",
        check: check_loopback,
    },
];

/// mellanox/mlx5/core/health.c: mlx5_fw_reporters_create; intel/ice/ice_devlink_health has none
/// without a fault
const REPORTERS: [&str; 2] = ["fw", "fw_fatal"];

impl Played {
    fn settings(&self, device: Device) -> impl Iterator<Item = &'static Setting> {
        let driver = self.vendor.driver;
        SETTINGS
            .iter()
            .filter(move |s| device == Device::Pf && s.driver == driver)
    }

    fn setting(&self, device: Device, asked: &Devlink) -> Result<&'static Setting, Refusal> {
        let name = asked.setting.name.as_deref();
        self.settings(device)
            .find(|setting| Some(setting.name) == name)
            .ok_or_else(|| Refusal::errno(libc::EINVAL))
    }

    pub(super) fn tell_params(&self, device: Device) -> Result<Vec<Message>, Refusal> {
        let settings = self.settings(device);
        settings
            .map(|setting| self.tell_setting(setting, command::PARAM_GET))
            .collect()
    }

    pub(super) fn tell_param(&self, device: Device, asked: &Devlink) -> Result<Message, Refusal> {
        self.tell_setting(self.setting(device, asked)?, command::PARAM_GET)
    }

    fn tell_setting(&self, setting: &Setting, number: u16) -> Result<Message, Refusal> {
        let mut about = self.about(Device::Pf, number);
        let value = self.params.get(setting.name);
        let value = value.map_or(setting.initial, Vec::as_slice);
        let is_flag = setting.kind == ParamType::Flag;
        // A flag is on by being there, whatever it holds.
        let data = match (is_flag, value.is_empty()) {
            (true, true) => None,
            (true, false) => Some(Vec::new()),
            (false, _) => Some(value.to_vec()),
        };
        about.param = Some(Param {
            name: Some(setting.name.to_owned()),
            generic: setting.generic.then_some(Flag),
            kind: Some(setting.kind),
            values: vec![ParamValue {
                data,
                mode: Some(setting.mode),
            }],
        });
        message(&about)
    }

    /// net/devlink/param.c: devlink_nl_cmd_param_set_doit
    pub(super) fn set_param(&mut self, asked: &Devlink) -> Result<(), Refusal> {
        let setting = self.setting(Device::Pf, asked)?;
        if asked.setting.kind != Some(setting.kind) {
            return Err(Refusal::errno(libc::EINVAL));
        }
        if asked.setting.mode != Some(setting.mode) {
            return Err(refuse::unsupported());
        }
        let value = match (setting.kind, &asked.setting.data) {
            (ParamType::Flag, data) => data.as_ref().map_or(Vec::new(), |_| vec![1]),
            (_, Some(data)) => data.clone(),
            (_, None) => return Err(Refusal::errno(libc::EINVAL)),
        };
        (setting.check)(&value).map_err(|words| self.vendor.refuse(libc::EINVAL, words))?;
        self.params.insert(setting.name, value);
        let told = self.tell_setting(setting, command::PARAM_NEW)?;
        self.tell_devlink(told);
        Ok(())
    }

    pub(super) fn tell_reporters(&self, device: Device) -> Result<Vec<Message>, Refusal> {
        if self.vendor.driver != "mlx5_core" || device != Device::Pf {
            return Ok(Vec::new());
        }
        let all = REPORTERS.iter();
        all.map(|name| self.tell_one_reporter(name)).collect()
    }

    pub(super) fn tell_reporter(
        &self,
        device: Device,
        asked: &Devlink,
    ) -> Result<Message, Refusal> {
        let name = asked.reporter_name.as_deref();
        let known = self.vendor.driver == "mlx5_core" && device == Device::Pf;
        let found = REPORTERS
            .iter()
            .find(|reporter| known && Some(**reporter) == name);
        self.tell_one_reporter(found.ok_or_else(|| Refusal::errno(libc::EINVAL))?)
    }

    fn tell_one_reporter(&self, name: &str) -> Result<Message, Refusal> {
        let mut about = self.about(Device::Pf, command::HEALTH_REPORTER_GET);
        about.reporter = Some(Reporter {
            name: Some(name.to_owned()),
            state: Some(ReporterState::Healthy),
            errors: Some(0),
            recoveries: Some(0),
            auto_dump: Some(1),
            ..Reporter::default()
        });
        message(&about)
    }

    /// devlink(8) asks for tables before it shows resources.
    pub(super) fn tell_dpipe(&self, device: Device) -> Result<Message, Refusal> {
        let mut about = self.about(device, command::DPIPE_TABLE_GET);
        about.unknown = vec![Raw {
            kind: devlink::DPIPE_TABLES | NESTED,
            value: Vec::new(),
        }];
        message(&about)
    }

    /// mellanox/mlx5/core/sf/hw_table.c: mlx5_sf_hw_table_res_register
    pub(super) fn tell_resources(&self, device: Device) -> Result<Message, Refusal> {
        if self.vendor.driver != "mlx5_core" || device != Device::Pf {
            return Err(refuse::unsupported());
        }
        let most = self.nic.info().profile.channels.most;
        let sfs = self.functions.iter();
        let sfs = sfs.filter(|(_, f)| matches!(f.kind, Kind::Sf(_))).count();
        let mut about = self.about(device, command::RESOURCE_DUMP);
        about.resources = vec![Resource {
            plain: ResourcePlain {
                name: Some("max_local_SFs".to_owned()),
                id: Some(1),
                size: Some(most),
                size_valid: Some(1),
                size_min: Some(0),
                size_max: Some(most),
                size_granularity: Some(1),
                unit: Some(0),
                occupied: Some(sfs as u64),
                ..ResourcePlain::default()
            },
            parts: Vec::new(),
        }];
        message(&about)
    }
}
