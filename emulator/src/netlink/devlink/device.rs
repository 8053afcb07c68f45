//! What the device is, its switch's modes, and reloading it.

use super::{Device, message};
use crate::netlink::played::Played;
use crate::netlink::refuse;
use crate::netlink::table::Kind;
use crate::nic::spec::EswitchChange;
use chanio_model::eswitch::Mode;
use chanio_netlink::attr::{Bitfield32, Raw};
use chanio_netlink::devlink::{
    Devlink, EncapMode, EswitchMode, InlineMode, ReloadAction, Version, command, devlink,
};
use chanio_netlink::kernel::Refusal;
use chanio_netlink::message::Message;

/// NLA_F_NESTED.
const NESTED: u16 = 0x8000;

impl Played {
    pub(super) fn tell_device(&self, device: Device) -> Result<Message, Refusal> {
        let mut about = self.about(device, command::NEW);
        about.reload.failed = Some(0);
        about.unknown = vec![Raw {
            kind: devlink::DEV_STATS | NESTED,
            value: Vec::new(),
        }];
        message(&about)
    }

    pub(super) fn tell_info(&self, device: Device) -> Result<Message, Refusal> {
        let mut about = self.about(device, command::INFO_GET);
        about.info.driver = Some(match device {
            Device::Pf => self.vendor.driver.to_owned(),
            Device::Sf(_) => format!("{}.sf", self.vendor.driver),
        });
        if device == Device::Pf {
            let versions = |list: &[(&str, &str)]| -> Vec<Version> {
                let version = |(name, value): &(&str, &str)| Version {
                    name: Some((*name).to_owned()),
                    value: Some((*value).to_owned()),
                };
                list.iter().map(version).collect()
            };
            let id = self.switch_id().map(|byte| format!("{byte:02x}"));
            about.info.serial_number = Some(id.join("-"));
            about.info.fixed = versions(self.vendor.fixed);
            about.info.running = versions(self.vendor.running);
            about.info.stored = versions(self.vendor.running);
        }
        message(&about)
    }

    pub(super) fn tell_eswitch(&self) -> Result<Message, Refusal> {
        if !self.vendor.eswitch {
            return Err(refuse::unsupported());
        }
        let mut about = self.about(Device::Pf, command::ESWITCH_GET);
        about.eswitch.mode = Some(match self.nic.eswitch().mode {
            Mode::Legacy => EswitchMode::Legacy,
            Mode::Switchdev => EswitchMode::Switchdev,
        });
        if self.vendor.inline_and_encap {
            about.eswitch.inline_mode = Some(InlineMode::None);
            about.eswitch.encap_mode = Some(self.encap);
        }
        message(&about)
    }

    /// net/devlink/dev.c: devlink_nl_eswitch_set_doit goes through mode, inline mode and
    /// encapsulation in that order.
    pub(super) fn set_eswitch(&mut self, asked: &Devlink) -> Result<(), Refusal> {
        if !self.vendor.eswitch {
            return Err(refuse::unsupported());
        }
        if let Some(mode) = asked.eswitch.mode {
            self.set_mode(match mode {
                EswitchMode::Legacy => Mode::Legacy,
                EswitchMode::Switchdev => Mode::Switchdev,
                EswitchMode::Other(_) => return Err(Refusal::errno(libc::EINVAL)),
            })?;
        }
        if let Some(inline) = asked.eswitch.inline_mode {
            if !self.vendor.inline_and_encap {
                return Err(refuse::unsupported());
            }
            // mellanox/mlx5/core/eswitch_offloads.c: mlx5_devlink_eswitch_inline_mode_set, of a
            // NIC that needs no inlining
            if inline != InlineMode::None {
                let words = "Inline mode can't be set";
                return Err(self.vendor.refuse(libc::EOPNOTSUPP, words));
            }
        }
        if let Some(encap) = asked.eswitch.encap_mode {
            self.set_encap(encap)?;
        }
        Ok(())
    }

    /// mellanox/mlx5/core/eswitch_offloads.c: mlx5_devlink_eswitch_encap_mode_set
    fn set_encap(&mut self, encap: EncapMode) -> Result<(), Refusal> {
        if !self.vendor.inline_and_encap {
            return Err(refuse::unsupported());
        }
        match encap {
            EncapMode::Other(_) => return Err(Refusal::errno(libc::EINVAL)),
            same if same == self.encap => {}
            _ if self.nic.eswitch().rules > 0 => {
                let words = "Can't set encapsulation when flows are configured";
                return Err(self.vendor.refuse(libc::EOPNOTSUPP, words));
            }
            other => self.encap = other,
        }
        Ok(())
    }

    fn set_mode(&mut self, mode: Mode) -> Result<(), Refusal> {
        if self.nic.eswitch().mode == mode {
            return Ok(());
        }
        // intel/ice/ice_eswitch.c: ice_eswitch_mode_set
        if self.vendor.driver == "ice" && self.vfs().next().is_some() {
            let words = "Changing eswitch mode is allowed only if there is no VFs created";
            return Err(self.vendor.refuse(libc::EOPNOTSUPP, words));
        }
        // mellanox/mlx5/core/esw/qos.c: nodes go with the switch; net/devlink/rate.c:
        // devlink_rate_nodes_check
        if self.rate_nodes().next().is_some() {
            return Err(refuse::text(libc::EBUSY, "Rate node(s) exists."));
        }
        if mode == Mode::Legacy {
            // mellanox/mlx5/core/sf/devlink.c: mlx5_sf_esw_event
            let functions = self.functions.iter();
            let sfs = functions.filter(|(_, f)| matches!(f.kind, Kind::Sf(_)));
            let sfs: Vec<u32> = sfs.map(|(port, _)| port).collect();
            for port in sfs {
                self.remove_port(port)?;
            }
            self.tell_vf_ports(command::PORT_DEL)?;
        }
        let change = EswitchChange {
            mode: Some(mode),
            ..EswitchChange::default()
        };
        self.nic
            .set_eswitch(change)
            .map_err(|refused| self.vendor.refusal(&refused))?;
        self.filters.clear();
        if mode == Mode::Switchdev {
            self.tell_vf_ports(command::PORT_NEW)?;
        }
        Ok(())
    }

    /// mellanox/mlx5/core/devlink.c: mlx5_devlink_reload_down; intel/ice/devlink/devlink.c:
    /// ice_devlink_reload_down
    pub(super) fn reload(&mut self, asked: &Devlink) -> Result<Message, Refusal> {
        if !self.vendor.eswitch {
            return Err(refuse::unsupported());
        }
        let reload = &asked.reload;
        if reload
            .netns_fd
            .or(reload.netns_pid)
            .or(reload.netns_id)
            .is_some()
        {
            let words = "Changing namespace is not supported by the emulator";
            return Err(refuse::text(libc::EOPNOTSUPP, words));
        }
        match reload.action.unwrap_or(ReloadAction::DriverReinit) {
            ReloadAction::DriverReinit => {}
            ReloadAction::FirmwareActivate => {
                let words = "FW activate requires reboot";
                return Err(self.vendor.refuse(libc::EINVAL, words));
            }
            ReloadAction::Other(_) => return Err(Refusal::errno(libc::EINVAL)),
        }
        if self.vendor.driver == "ice" {
            if self.switchdev() {
                let words = "Go to legacy mode before doing reinit";
                return Err(self.vendor.refuse(libc::EOPNOTSUPP, words));
            }
            if self.vfs().next().is_some() {
                let words = "Remove all VFs before doing reinit";
                return Err(self.vendor.refuse(libc::EOPNOTSUPP, words));
            }
        } else if self
            .functions
            .iter()
            .any(|(_, f)| matches!(f.kind, Kind::Sf(_)))
        {
            let words = "reload is unsupported when SFs are allocated";
            return Err(self.vendor.refuse(libc::EOPNOTSUPP, words));
        }
        self.set_mode(Mode::Legacy)?;
        let mut about = self.about(Device::Pf, command::RELOAD);
        let action = 1 << u8::from(ReloadAction::DriverReinit);
        about.reload.performed = Some(Bitfield32 {
            value: action,
            selector: action,
        });
        message(&about)
    }
}
