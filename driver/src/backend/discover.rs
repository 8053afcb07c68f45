//! Which devices there are.

use super::route::Route;
use super::sysfs::{Bus, Device};
use super::veth::is_ours;
use crate::transport::{Transport, TransportError};
use crate::{DeviceAddress, DeviceError};
use std::path::Path;

/// PCI's base class of network controllers (linux/pci_ids.h, PCI_BASE_CLASS_NETWORK).
const NETWORK: &str = "0x02";

/// NICs' physical functions that have a driver, netdevsim's devices, and bridges of ours.
pub(crate) fn discover(transport: &dyn Transport) -> Result<Vec<DeviceAddress>, DeviceError> {
    let mut found = Vec::new();
    for name in names(transport, "/sys/bus/pci/devices")? {
        let device = Device {
            bus: Bus::Pci,
            name: name.clone(),
        };
        let path = device.path();
        // A device that goes meanwhile, or that nobody drives, is none.
        let class = transport.read(&path.join("class")).unwrap_or_default();
        let nic = String::from_utf8_lossy(&class).starts_with(NETWORK);
        let virtual_function = transport.link_target(&path.join("physfn")).is_ok();
        if nic && !virtual_function && device.driver(transport).is_ok() {
            found.push(DeviceAddress::Pci(name));
        }
    }
    let simulated = names(transport, "/sys/bus/netdevsim/devices")?;
    found.extend(simulated.into_iter().map(DeviceAddress::Netdevsim));
    let links = Route::open(transport)?.links();
    let links = links.map_err(|e| e.at("listing netdevs"))?;
    let bridges = links.into_iter().filter(is_ours);
    found.extend(bridges.map(|link| DeviceAddress::Veth(link.name)));
    Ok(found)
}

/// What is in a directory; nothing where there is none, as without a bus's driver.
fn names(transport: &dyn Transport, directory: &str) -> Result<Vec<String>, DeviceError> {
    match transport.list(Path::new(directory)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.map_err(|e| TransportError::from(e).at(&format!("listing {directory}"))),
    }
}
