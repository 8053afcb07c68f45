//! Where on the PCI bus the NIC is shown.

use std::fmt;
use std::str::FromStr;

/// A place on the PCI bus, `0000:03:00.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciSlot {
    domain: u16,
    bus: u8,
    device: u8,
    function: u8,
}

/// Text that is no place on the PCI bus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "pci: `{0}` is not DDDD:BB:DD.F in hexadecimal, the device up to 1f and the function up to 7"
)]
pub struct PciSlotError(pub String);

impl Default for PciSlot {
    fn default() -> Self {
        Self {
            domain: 0,
            bus: 3,
            device: 0,
            function: 0,
        }
    }
}

impl PciSlot {
    /// The place of virtual function `number`: as on most NICs from device 0x10 on, eight to a
    /// device, going on on the next bus.
    pub fn vf(self, number: u16) -> Self {
        let at = 0x10 * 8 + u32::from(number);
        Self {
            bus: self.bus.wrapping_add((at / 256) as u8),
            device: (at % 256 / 8) as u8,
            function: (at % 8) as u8,
            ..self
        }
    }

    /// How predictable names of its netdevs begin (systemd.net-naming-scheme(7)): `enp3s0f0`.
    pub fn netdev_prefix(self) -> String {
        format!("enp{}s{}f{}", self.bus, self.device, self.function)
    }
}

impl fmt::Display for PciSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PciSlot {
            domain,
            bus,
            device,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

impl FromStr for PciSlot {
    type Err = PciSlotError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let [domain, bus, rest] = text.split(':').collect::<Vec<_>>().try_into().ok()?;
            let (device, function) = rest.split_once('.')?;
            let hex = |text: &str, len: usize, max: u16| {
                let digits = text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
                let number = u16::from_str_radix(text, 16).ok()?;
                (digits && number <= max).then_some(number)
            };
            Some(Self {
                domain: hex(domain, 4, u16::MAX)?,
                bus: hex(bus, 2, 0xff)? as u8,
                device: hex(device, 2, 0x1f)? as u8,
                function: hex(function, 1, 7)? as u8,
            })
        };
        parse().ok_or_else(|| PciSlotError(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_written() {
        let slot: PciSlot = "0000:3b:1f.7".parse().unwrap();
        assert_eq!(slot.to_string(), "0000:3b:1f.7");
        assert_eq!(slot.netdev_prefix(), "enp59s31f7");
        assert_eq!(PciSlot::default().to_string(), "0000:03:00.0");
        for bad in [
            "",
            "03:00.0",
            "0000:03:20.0",
            "0000:03:00.8",
            "0000:3:00.0",
            "0000:03:00.+",
        ] {
            assert!(bad.parse::<PciSlot>().is_err(), "{bad}");
        }
    }

    #[test]
    fn virtual_functions_go_on_on_the_next_bus() {
        let slot = PciSlot::default();
        assert_eq!(slot.vf(0).to_string(), "0000:03:10.0");
        assert_eq!(slot.vf(9).to_string(), "0000:03:11.1");
        assert_eq!(slot.vf(128).to_string(), "0000:04:00.0");
    }
}
