//! Where a device is, and how to get at it.

use crate::backend::veth::Veth;
use crate::backend::{self, pci::Pci};
use crate::emulator::Emulator;
use crate::transport::{Machine, Played, Transport};
use crate::{DeviceError, Nic};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

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

/// Get at a device of this machine.
pub fn open(address: &DeviceAddress) -> Result<Box<dyn Nic>, DeviceError> {
    open_over(address, Arc::new(Machine))
}

/// Get at a device of the emulator with this run directory, which plays the kernel.
pub fn open_via(address: &DeviceAddress, run_dir: &Path) -> Result<Box<dyn Nic>, DeviceError> {
    open_over(address, Arc::new(played(run_dir, &address.to_string())?))
}

fn played(run_dir: &Path, address: &str) -> Result<Played, DeviceError> {
    Played::find(run_dir).map_err(|error| DeviceError::Unreachable {
        address: address.to_owned(),
        why: error.to_string(),
    })
}

/// Get at a device over this transport; emulators have a way of their own.
pub fn open_over(
    address: &DeviceAddress,
    transport: Arc<dyn Transport>,
) -> Result<Box<dyn Nic>, DeviceError> {
    match address {
        DeviceAddress::Emulator(dir) => Ok(Box::new(Emulator::connect(dir)?)),
        DeviceAddress::Veth(name) => Ok(Box::new(Veth::open(name, transport)?)),
        DeviceAddress::Pci(slot) => Ok(Box::new(Pci::open(slot, transport)?)),
        DeviceAddress::Netdevsim(name) => Ok(Box::new(Pci::netdevsim(name, transport)?)),
    }
}

/// Emulators that run on this machine with a run directory in one of the usual places: /run/chanio
/// and what is in it, and $XDG_RUNTIME_DIR/chanio.
pub fn emulators() -> Vec<DeviceAddress> {
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

/// The devices of this machine: emulators, physical functions of NICs, netdevsim's devices, and
/// the bridges that `veth:NAME` has made.
///
/// # Errors
/// The kernel does not say which there are.
pub fn discover() -> Result<Vec<DeviceAddress>, DeviceError> {
    let mut found = emulators();
    found.extend(backend::discover(&Machine)?);
    Ok(found)
}

/// The devices of the emulator with this run directory, which plays the kernel.
///
/// # Errors
/// None runs there, or it does not say.
pub fn discover_via(run_dir: &Path) -> Result<Vec<DeviceAddress>, DeviceError> {
    backend::discover(&played(run_dir, "nic list")?)
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
    fn a_slot_without_a_device_says_so() {
        let refused = open(&"pci/0000:fe:1f.7".parse().unwrap()).err().unwrap();
        let text = refused.to_string();
        assert!(
            text.contains("no such device, or no driver has it"),
            "{text}"
        );
    }
}
