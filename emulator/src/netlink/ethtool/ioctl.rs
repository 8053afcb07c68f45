//! SIOCETHTOOL (linux/ethtool.h): a struct that begins with the command's number, changed in place.

use super::Netdev;
use crate::netlink::host::Host;
use crate::netlink::played::{Played, ROUTE, Role};
use crate::netlink::route;
use crate::netlink::table::Function;
use crate::port::netns;
use chanio_model::Mac;
use nix::errno::Errno;
use nix::sys::stat::fstat;
use std::os::fd::{AsFd, BorrowedFd};

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

/// Whether two descriptors are of one file.
fn is_same(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    let id = |fd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    matches!((id(a), id(b)), (Ok(a), Ok(b)) if a == b)
}

/// The address of a netdev of the calling thread's namespace.
fn mac_of(name: &str) -> Option<Mac> {
    let mut host = Host::open(ROUTE).ok()?;
    route::address_of(&mut host, name)
}

impl Played {
    /// Carries out a command. ENODEV and ENOTTY: it is for the real kernel.
    pub fn ethtool_ioctl(&mut self, name: &str, mut data: Vec<u8>) -> Result<Vec<u8>, Errno> {
        let netdev = self.ethtool_netdev(Some(name), 0)?;
        self.carry_out(&netdev, &mut data)?;
        Ok(data)
    }

    /// The same for a netdev in another namespace.
    pub fn ethtool_ioctl_in(
        &mut self,
        netns: BorrowedFd<'_>,
        name: &str,
        mut data: Vec<u8>,
    ) -> Result<Vec<u8>, Errno> {
        let port = self.function_in(netns, name).ok_or(Errno::ENODEV)?;
        let netdev = self.netdev_of_role(Role::Function(port));
        self.carry_out(&netdev, &mut data)?;
        Ok(data)
    }

    /// The function whose netdev is there under this name.
    fn function_in(&self, netns: BorrowedFd<'_>, name: &str) -> Option<u32> {
        let is_it = |function: &Function| {
            let place = self.nic.netdev_place(&function.channel);
            let place = place.ok().flatten();
            place.is_some_and(|(at, called)| called == name && is_same(at.as_fd(), netns))
        };
        // Most often it still has the address that its owner has set: asking all of many where
        // their netdevs are would take long.
        let mac = netns::inside(netns, "of a netdev", || Ok(mac_of(name)));
        let mac = mac.ok().flatten();
        let mut likely = self.functions.iter();
        let likely = likely.find(|(_, f)| mac.is_some() && f.hw_addr == mac && is_it(f));
        let found = likely.or_else(|| self.functions.iter().find(|(_, f)| is_it(f)));
        found.map(|(port, _)| port)
    }

    fn carry_out(&mut self, netdev: &Netdev, data: &mut [u8]) -> Result<(), Errno> {
        let command = word(data, 0)?;
        if netdev.macvlan {
            return match command {
                GDRVINFO => self.drvinfo(netdev, data),
                GRXFH..=SRXCLSRLINS
                | GRXFHINDIR
                | SRXFHINDIR
                | GCHANNELS
                | SCHANNELS
                | GRSSH
                | SRSSH => Err(Errno::EOPNOTSUPP),
                _ => Err(Errno::ENOTTY),
            };
        }
        match command {
            GDRVINFO => self.drvinfo(netdev, data)?,
            GSSET_INFO => self.set_info(netdev, data)?,
            GSTRINGS if word(data, 4)? == SET_STATS => self.strings(netdev, data)?,
            GSTATS => self.statistics(netdev, data)?,
            GCHANNELS => {
                let (most, used) = (u32::from(netdev.most), u32::from(netdev.used));
                for at in 1..CHANNELS_WORDS {
                    put(data, 4 * at, &[0; 4])?;
                }
                put(data, 4 * MAX_COMBINED, &most.to_ne_bytes())?;
                put(data, 4 * COMBINED, &used.to_ne_bytes())?;
            }
            SCHANNELS => {
                for other in [5, 6, 7] {
                    if word(data, 4 * other)? != 0 {
                        return Err(Errno::EINVAL);
                    }
                }
                let count = word(data, 4 * COMBINED)?;
                self.use_queues(netdev, u16::try_from(count).map_err(|_| Errno::EINVAL)?)?;
            }
            GRXRINGS => {
                let rings = u64::from(netdev.used);
                put(data, RXNFC_DATA, &rings.to_ne_bytes())?;
            }
            GRXFH => self.get_hashed(netdev, data)?,
            SRXFH => self.set_hashed(netdev, data)?,
            GRSSH => self.get_rss(netdev, data)?,
            SRSSH => self.set_rss(netdev, data)?,
            GRXFHINDIR => self.get_table(netdev, data)?,
            SRXFHINDIR => self.set_table(netdev, data)?,
            GRXCLSRLCNT => self.count_rules(netdev, data)?,
            GRXCLSRULE => self.tell_rule(netdev, data)?,
            GRXCLSRLALL => self.list_rules(netdev, data)?,
            SRXCLSRLDEL => self.del_rule(netdev, data)?,
            SRXCLSRLINS => self.add_rule(netdev, data)?,
            _ => return Err(Errno::ENOTTY),
        }
        Ok(())
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
        // drivers/net/macvlan.c: macvlan_ethtool_get_drvinfo
        let (bus, driver, firmware) = match netdev.macvlan {
            true => (String::new(), "macvlan", ""),
            false => {
                let (bus, driver) = self.bus_and_driver(netdev.role);
                (bus, driver, firmware)
            }
        };
        for (at, text) in [
            (DRIVER, driver),
            (FIRMWARE, firmware),
            (BUS_INFO, bus.as_str()),
        ] {
            let text = text.as_bytes();
            put(data, at, &text[..text.len().min(31)])?;
        }
        let count = match netdev.macvlan {
            true => 0,
            false => self.stat_names(netdev).len() as u32,
        };
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
