//! SIOCETHTOOL (linux/ethtool.h): a struct that begins with the command's number, changed in place.

use super::Netdev;
use crate::netlink::played::{Played, Role};
use nix::errno::Errno;

const GDRVINFO: u32 = 0x03;
const GSTRINGS: u32 = 0x1b;
const GSTATS: u32 = 0x1d;
const GRXFH: u32 = 0x29;
const SRXFH: u32 = 0x2a;
const GRXRINGS: u32 = 0x2d;
const GRXCLSRLCNT: u32 = 0x2e;
const GRXCLSRULE: u32 = 0x2f;
const GRXCLSRLALL: u32 = 0x30;
const SRXCLSRLDEL: u32 = 0x31;
const SRXCLSRLINS: u32 = 0x32;
const GSSET_INFO: u32 = 0x37;
const GRXFHINDIR: u32 = 0x38;
const SRXFHINDIR: u32 = 0x39;
const GCHANNELS: u32 = 0x3c;
const SCHANNELS: u32 = 0x3d;
const GRSSH: u32 = 0x46;
const SRSSH: u32 = 0x47;

/// ETH_SS_STATS.
const SET_STATS: u32 = 1;
/// ETH_GSTRING_LEN.
const STRING_LEN: usize = 32;

/// Where in struct ethtool_channels, in words: most and used combined ones.
const MAX_COMBINED: usize = 4;
const COMBINED: usize = 8;
const CHANNELS_WORDS: usize = 9;

/// Where in struct ethtool_rxnfc.
const RXNFC_DATA: usize = 8;

/// The word at this place, in bytes.
pub fn word(data: &[u8], at: usize) -> Result<u32, Errno> {
    let bytes = data.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EFAULT)
}

/// Writes bytes to this place.
pub fn put(data: &mut [u8], at: usize, bytes: &[u8]) -> Result<(), Errno> {
    let place = data.get_mut(at..at + bytes.len()).ok_or(Errno::EFAULT)?;
    place.copy_from_slice(bytes);
    Ok(())
}

impl Played {
    /// Carries out a command. ENODEV and ENOTTY: it is for the real kernel.
    pub fn ethtool_ioctl(&mut self, name: &str, mut data: Vec<u8>) -> Result<Vec<u8>, Errno> {
        let netdev = self.ethtool_netdev(Some(name), 0)?;
        match word(&data, 0)? {
            GDRVINFO => self.drvinfo(&netdev, &mut data)?,
            GSSET_INFO => self.set_info(&netdev, &mut data)?,
            GSTRINGS if word(&data, 4)? == SET_STATS => self.strings(&netdev, &mut data)?,
            GSTATS => self.statistics(&netdev, &mut data)?,
            GCHANNELS => {
                let (most, used) = (u32::from(netdev.most), u32::from(netdev.used));
                for at in 1..CHANNELS_WORDS {
                    put(&mut data, 4 * at, &[0; 4])?;
                }
                put(&mut data, 4 * MAX_COMBINED, &most.to_ne_bytes())?;
                put(&mut data, 4 * COMBINED, &used.to_ne_bytes())?;
            }
            SCHANNELS => {
                for other in [5, 6, 7] {
                    if word(&data, 4 * other)? != 0 {
                        return Err(Errno::EINVAL);
                    }
                }
                let count = word(&data, 4 * COMBINED)?;
                self.use_queues(&netdev, u16::try_from(count).map_err(|_| Errno::EINVAL)?)?;
            }
            GRXRINGS => {
                let rings = u64::from(netdev.used);
                put(&mut data, RXNFC_DATA, &rings.to_ne_bytes())?;
            }
            GRXFH => self.get_hashed(&netdev, &mut data)?,
            SRXFH => self.set_hashed(&netdev, &data)?,
            GRSSH => self.get_rss(&netdev, &mut data)?,
            SRSSH => self.set_rss(&netdev, &data)?,
            GRXFHINDIR => self.get_table(&netdev, &mut data)?,
            SRXFHINDIR => self.set_table(&netdev, &data)?,
            GRXCLSRLCNT | GRXCLSRULE | GRXCLSRLALL | SRXCLSRLDEL | SRXCLSRLINS => {
                // The switch has no rules that choose a queue.
                return Err(Errno::EOPNOTSUPP);
            }
            _ => return Err(Errno::ENOTTY),
        }
        Ok(data)
    }

    /// struct ethtool_drvinfo
    fn drvinfo(&self, netdev: &Netdev, data: &mut [u8]) -> Result<(), Errno> {
        const DRIVER: usize = 4;
        const FIRMWARE: usize = 68;
        const BUS_INFO: usize = 100;
        const STATS_COUNT: usize = 180;
        const SIZE: usize = 196;
        let info = data.get_mut(4..SIZE).ok_or(Errno::EFAULT)?;
        info.fill(0);
        let firmware = self.vendor.running.first().map_or("", |(_, value)| *value);
        let (bus, driver) = self.bus_and_driver(netdev.role);
        for (at, text) in [
            (DRIVER, driver),
            (FIRMWARE, firmware),
            (BUS_INFO, bus.as_str()),
        ] {
            let text = text.as_bytes();
            put(data, at, &text[..text.len().min(31)])?;
        }
        let count = self.stat_names(netdev).len() as u32;
        put(data, STATS_COUNT, &count.to_ne_bytes())
    }

    /// A netdev's place on its bus and its driver (mellanox/mlx5/core/en_rep.c:
    /// mlx5e_rep_get_drvinfo).
    fn bus_and_driver(&self, role: Role) -> (String, &'static str) {
        let (_, device) = self.parent(role);
        let driver = match (role, self.vendor.driver) {
            (Role::Representor(_) | Role::Other(_), "mlx5_core") => "mlx5e_rep",
            (Role::Function(port), _) if self.is_vf(port) => self.vendor.vf_driver,
            (_, driver) => driver,
        };
        (device, driver)
    }

    /// struct ethtool_sset_info: of the statistics only; other sets are the real netdev's.
    fn set_info(&self, netdev: &Netdev, data: &mut [u8]) -> Result<(), Errno> {
        const MASK: usize = 8;
        const COUNTS: usize = 16;
        if u64::from(word(data, MASK)?) != 1 << SET_STATS {
            return Err(Errno::ENOTTY);
        }
        let count = self.stat_names(netdev).len() as u32;
        put(data, COUNTS, &count.to_ne_bytes())
    }

    /// struct ethtool_gstrings
    fn strings(&self, netdev: &Netdev, data: &mut [u8]) -> Result<(), Errno> {
        const FIRST: usize = 12;
        let names = self.stat_names(netdev);
        put(data, 8, &(names.len() as u32).to_ne_bytes())?;
        for (place, name) in names.iter().enumerate() {
            let mut string = [0; STRING_LEN];
            let name = name.as_bytes();
            let length = name.len().min(STRING_LEN - 1);
            string[..length].copy_from_slice(&name[..length]);
            put(data, FIRST + place * STRING_LEN, &string)?;
        }
        Ok(())
    }

    /// struct ethtool_stats
    fn statistics(&self, netdev: &Netdev, data: &mut [u8]) -> Result<(), Errno> {
        const FIRST: usize = 8;
        let values = self.stat_values(netdev)?;
        put(data, 4, &(values.len() as u32).to_ne_bytes())?;
        for (place, value) in values.iter().enumerate() {
            put(data, FIRST + 8 * place, &value.to_ne_bytes())?;
        }
        Ok(())
    }
}
