//! Where a device is, and how to get at it.

use crate::emulator::Emulator;
use crate::{DeviceError, Nic};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The address of a device, in the form that the kernel's tools use where they have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceAddress {
    /// `emu:DIR`: the emulator with this run directory.
    Emulator(PathBuf),
    /// `pci/0000:03:00.0`, as devlink has it.
    Pci(String),
    /// `netdevsim/netdevsim10`, as devlink has it.
    Netdevsim(String),
    /// `veth:NAME`: veth pairs and this bridge.
    Veth(String),
}

impl fmt::Display for DeviceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceAddress::Emulator(dir) => write!(f, "emu:{}", dir.display()),
            DeviceAddress::Pci(slot) => write!(f, "pci/{slot}"),
            DeviceAddress::Netdevsim(name) => write!(f, "netdevsim/{name}"),
            DeviceAddress::Veth(name) => write!(f, "veth:{name}"),
        }
    }
}

/// DDDD:BB:DD.F in hex.
fn is_pci_slot(text: &str) -> bool {
    let shape = b"hhhh:hh:hh.h";
    text.len() == shape.len()
        && text.bytes().zip(shape).all(|(byte, kind)| match kind {
            b'h' => byte.is_ascii_hexdigit(),
            kind => byte == *kind,
        })
}

impl FromStr for DeviceAddress {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let bad = || DeviceError::Address(text.to_owned());
        let split = text.find([':', '/']).ok_or_else(bad)?;
        let (kind, rest) = (&text[..=split], &text[split + 1..]);
        if rest.is_empty() {
            return Err(bad());
        }
        match kind {
            "emu:" => Ok(DeviceAddress::Emulator(rest.into())),
            "pci/" if is_pci_slot(rest) => Ok(DeviceAddress::Pci(rest.to_owned())),
            "netdevsim/" => Ok(DeviceAddress::Netdevsim(rest.to_owned())),
            "veth:" => Ok(DeviceAddress::Veth(rest.to_owned())),
            _ => Err(bad()),
        }
    }
}

/// Get at a device.
pub fn open(address: &DeviceAddress) -> Result<Box<dyn Nic>, DeviceError> {
    match address {
        DeviceAddress::Emulator(dir) => Ok(Box::new(Emulator::connect(dir)?)),
        other => Err(DeviceError::Unsupported {
            what: other.to_string(),
            why: "this build drives emulators (emu:DIR) only".into(),
        }),
    }
}

/// Emulators that run on this machine with a run directory in one of the usual places: /run/chanio
/// and what is in it, and $XDG_RUNTIME_DIR/chanio.
pub fn discover() -> Vec<DeviceAddress> {
    let mut dirs = vec![PathBuf::from("/run/chanio")];
    if let Ok(entries) = std::fs::read_dir("/run/chanio") {
        dirs.extend(entries.flatten().map(|e| e.path()));
    }
    if let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR") {
        dirs.push(Path::new(&runtime).join("chanio"));
    }
    dirs.retain(|dir| dir.join("control.sock").exists());
    dirs.sort();
    dirs.dedup();
    dirs.into_iter().map(DeviceAddress::Emulator).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip_and_the_rest_is_refused() {
        for good in [
            "emu:/run/chanio",
            "pci/0000:03:00.0",
            "netdevsim/netdevsim10",
            "veth:br0",
        ] {
            assert_eq!(good.parse::<DeviceAddress>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "emu:",
            "emu",
            "pci/3:0.0",
            "pci/0000:03:00.00",
            "usb:1",
            "/run/chanio",
        ] {
            assert!(bad.parse::<DeviceAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn kinds_without_a_backend_say_so() {
        let refused = open(&"pci/0000:03:00.0".parse().unwrap())
            .err()
            .unwrap()
            .to_string();
        assert!(
            refused.contains("pci/0000:03:00.0 is not supported"),
            "{refused}"
        );
    }
}
