//! A device's files under /sys.

use crate::DeviceError;
use crate::transport::{Transport, TransportError};
use std::path::{Path, PathBuf};

/// A bus whose devices this drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bus {
    Pci,
    Netdevsim,
}

impl Bus {
    /// As devlink has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Bus::Pci => "pci",
            Bus::Netdevsim => "netdevsim",
        }
    }
}

/// A device.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) bus: Bus,
    /// Its name there.
    pub(super) name: String,
}

impl Device {
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from("/sys/bus")
            .join(self.bus.name())
            .join("devices")
            .join(&self.name)
    }

    /// As `--device` has it.
    pub(super) fn address(&self) -> String {
        format!("{}/{}", self.bus.name(), self.name)
    }

    /// The driver that has it.
    pub(super) fn driver(&self, transport: &dyn Transport) -> Result<String, DeviceError> {
        if self.bus == Bus::Netdevsim {
            let there = transport.list(&self.path());
            return there
                .map(|_| "netdevsim".into())
                .map_err(|e| self.unreachable(e));
        }
        let driver = transport.link_target(&self.path().join("driver"));
        let driver = driver.map_err(|e| self.unreachable(e))?;
        let name = driver.file_name().and_then(|name| name.to_str());
        Ok(name.unwrap_or_default().to_owned())
    }

    fn unreachable(&self, error: std::io::Error) -> DeviceError {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!(
                    "no such device, or no driver has it ({})",
                    self.path().display()
                )
            }
            _ => error.to_string(),
        };
        DeviceError::Unreachable {
            address: self.address(),
            why,
        }
    }

    /// The number in a file; none where there is no such file.
    pub(super) fn number(
        &self,
        transport: &dyn Transport,
        file: &str,
    ) -> Result<Option<u32>, DeviceError> {
        read_number(transport, &self.path().join(file))
    }

    /// Writes a number into a file.
    pub(super) fn set_number(
        &self,
        transport: &dyn Transport,
        file: &str,
        number: u32,
    ) -> Result<(), DeviceError> {
        let path = self.path().join(file);
        let step = format!("writing {number} to {}", path.display());
        let written = transport.write(&path, number.to_string().as_bytes());
        written.map_err(|e| TransportError::from(e).at(&step))
    }

    /// The device of a virtual function.
    pub(super) fn vf(&self, transport: &dyn Transport, number: u16) -> Result<Device, DeviceError> {
        let path = self.path().join(format!("virtfn{number}"));
        let target = transport.link_target(&path);
        let step = format!("following {}", path.display());
        let target = target.map_err(|e| TransportError::from(e).at(&step))?;
        let name = target
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        Ok(Device {
            bus: self.bus,
            name: name.to_owned(),
        })
    }

    /// The names of its netdevs in this namespace; none where it has no driver.
    pub(super) fn netdevs(&self, transport: &dyn Transport) -> Result<Vec<String>, DeviceError> {
        netdevs(transport, &self.path())
    }
}

/// The names of the netdevs of a device.
pub(super) fn netdevs(
    transport: &dyn Transport,
    device: &Path,
) -> Result<Vec<String>, DeviceError> {
    let path = device.join("net");
    match transport.list(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        names => {
            let step = format!("listing {}", path.display());
            names.map_err(|e| TransportError::from(e).at(&step))
        }
    }
}

/// The number in a file; none where there is no such file.
pub(super) fn read_number(
    transport: &dyn Transport,
    path: &Path,
) -> Result<Option<u32>, DeviceError> {
    let step = format!("reading {}", path.display());
    let content = match transport.read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        content => content.map_err(|e| TransportError::from(e).at(&step))?,
    };
    let text = String::from_utf8_lossy(&content);
    let number = text.trim().parse();
    number.map(Some).map_err(|_| DeviceError::Refused {
        reason: format!("{step}: `{}` is no number", text.trim()),
    })
}
