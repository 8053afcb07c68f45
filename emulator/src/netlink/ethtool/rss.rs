//! Receive-side scaling of a function: its indirection table, key, and what is hashed.

use super::Netdev;
use super::ioctl::{put, word};
use crate::netlink::played::Played;
use chanio_model::rss::{HashTypes, KEY_LEN, RssChange, RssKey, RssSettings};
use nix::errno::Errno;

// struct ethtool_rxfh.
const CONTEXT: usize = 4;
const TABLE_SIZE: usize = 8;
const KEY_SIZE: usize = 12;
const FUNCTION: usize = 16;
const CONFIG: usize = 24;
/// ETH_RSS_HASH_TOP.
const TOEPLITZ: u8 = 1;
/// ETH_RXFH_INDIR_NO_CHANGE.
const NO_CHANGE: u32 = u32::MAX;

// struct ethtool_rxnfc.
const FLOW_TYPE: usize = 4;
const DATA: usize = 8;

// RXH_*.
const IP: u64 = 1 << 4 | 1 << 5;
const PORTS: u64 = 1 << 6 | 1 << 7;

/// A flow type's kinds of hash: with ports, and without; none where ports cannot be hashed.
fn types_of(flow_type: u32) -> Result<(Option<HashTypes>, HashTypes), Errno> {
    Ok(match flow_type {
        1 => (Some(HashTypes::TCP_V4), HashTypes::IP_V4),
        2 => (Some(HashTypes::UDP_V4), HashTypes::IP_V4),
        5 => (Some(HashTypes::TCP_V6), HashTypes::IP_V6),
        6 => (Some(HashTypes::UDP_V6), HashTypes::IP_V6),
        // SCTP, AH and ESP, IP itself.
        3 | 4 | 9 | 10 | 0x10 => (None, HashTypes::IP_V4),
        7 | 8 | 11 | 12 | 0x11 => (None, HashTypes::IP_V6),
        _ => return Err(Errno::EINVAL),
    })
}

impl Played {
    /// ETHTOOL_GRXFH
    pub(super) fn get_hashed(&self, netdev: &Netdev, data: &mut [u8]) -> Result<(), Errno> {
        let (_, rss) = self.rss_of(netdev)?;
        let (with_ports, plain) = types_of(word(data, FLOW_TYPE)?)?;
        let fields = match with_ports {
            Some(types) if rss.types().has(types) => IP | PORTS,
            _ if rss.types().has(plain) => IP,
            _ => 0,
        };
        put(data, DATA, &fields.to_ne_bytes())
    }

    /// ETHTOOL_SRXFH (mellanox/mlx5/core/en_fs_ethtool.c: mlx5e_set_rss_hash_opt): of TCP and UDP
    /// addresses with or without ports.
    pub(super) fn set_hashed(&self, netdev: &Netdev, data: &[u8]) -> Result<(), Errno> {
        let (channel, rss) = self.rss_of(netdev)?;
        let (Some(types), plain) = types_of(word(data, FLOW_TYPE)?)? else {
            return Err(Errno::EOPNOTSUPP);
        };
        let (low, high) = (word(data, DATA)?, word(data, DATA + 4)?);
        let bits = match u64::from(high) << 32 | u64::from(low) {
            fields if fields == IP | PORTS => rss.types().bits() | types.bits(),
            IP => rss.types().bits() & !types.bits() | plain.bits(),
            _ => return Err(Errno::EINVAL),
        };
        let types = HashTypes::from_bits(bits).map_err(|_| Errno::EINVAL)?;
        let change = RssChange {
            types: Some(types),
            ..RssChange::default()
        };
        self.change_rss(&channel, change)
    }

    /// ETHTOOL_GRSSH (net/ethtool/ioctl.c: ethtool_get_rxfh): sizes where the asker has no room.
    pub(super) fn get_rss(&self, netdev: &Netdev, data: &mut [u8]) -> Result<(), Errno> {
        let (_, rss) = self.rss_of(netdev)?;
        if word(data, CONTEXT)? != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let entries = rss.table().len();
        let (room, key_room) = (
            word(data, TABLE_SIZE)? as usize,
            word(data, KEY_SIZE)? as usize,
        );
        if (room != 0 && room != entries) || (key_room != 0 && key_room != KEY_LEN) {
            return Err(Errno::EINVAL);
        }
        put(data, TABLE_SIZE, &(entries as u32).to_ne_bytes())?;
        put(data, KEY_SIZE, &(KEY_LEN as u32).to_ne_bytes())?;
        put(data, FUNCTION, &[TOEPLITZ])?;
        if room != 0 {
            put_table(data, CONFIG, &rss)?;
        }
        if key_room != 0 {
            put(data, CONFIG + 4 * room, rss.key().bytes())?;
        }
        Ok(())
    }

    /// ETHTOOL_SRSSH (net/ethtool/ioctl.c: ethtool_set_rxfh)
    pub(super) fn set_rss(&mut self, netdev: &Netdev, data: &[u8]) -> Result<(), Errno> {
        let (channel, rss) = self.rss_of(netdev)?;
        if word(data, CONTEXT)? != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let function = *data.get(FUNCTION).ok_or(Errno::EFAULT)?;
        if function != 0 && function != TOEPLITZ {
            return Err(Errno::EOPNOTSUPP);
        }
        let entries = rss.table().len();
        let (given, key_size) = (word(data, TABLE_SIZE)?, word(data, KEY_SIZE)? as usize);
        let mut change = RssChange::default();
        let mut key_at = CONFIG;
        match given {
            NO_CHANGE => {}
            // As it was made.
            0 => change.table = Some(self.even_table(netdev, entries)),
            count if count as usize == entries => {
                change.table = Some(read_table(data, CONFIG, entries, netdev.used)?);
                key_at += 4 * entries;
            }
            _ => return Err(Errno::EINVAL),
        }
        if key_size != 0 {
            if key_size != KEY_LEN {
                return Err(Errno::EINVAL);
            }
            let key = data.get(key_at..key_at + KEY_LEN).ok_or(Errno::EFAULT)?;
            change.key = Some(RssKey::new(key).map_err(|_| Errno::EINVAL)?);
        }
        self.change_rss(&channel, change)
    }

    fn even_table(&self, netdev: &Netdev, entries: usize) -> Vec<u16> {
        (0..entries)
            .map(|i| (i % usize::from(netdev.used)) as u16)
            .collect()
    }

    /// ETHTOOL_GRXFHINDIR
    pub(super) fn get_table(&self, netdev: &Netdev, data: &mut [u8]) -> Result<(), Errno> {
        let (_, rss) = self.rss_of(netdev)?;
        let room = word(data, 4)?;
        put(data, 4, &(rss.table().len() as u32).to_ne_bytes())?;
        match room as usize {
            0 => Ok(()),
            room if room < rss.table().len() => Err(Errno::EINVAL),
            _ => put_table(data, 8, &rss),
        }
    }

    /// ETHTOOL_SRXFHINDIR
    pub(super) fn set_table(&self, netdev: &Netdev, data: &[u8]) -> Result<(), Errno> {
        let (channel, rss) = self.rss_of(netdev)?;
        let entries = rss.table().len();
        let table = match word(data, 4)? as usize {
            0 => self.even_table(netdev, entries),
            count if count == entries => read_table(data, 8, entries, netdev.used)?,
            _ => return Err(Errno::EINVAL),
        };
        let change = RssChange {
            table: Some(table),
            ..RssChange::default()
        };
        self.change_rss(&channel, change)
    }
}

fn put_table(data: &mut [u8], at: usize, rss: &RssSettings) -> Result<(), Errno> {
    for (place, queue) in rss.table().iter().enumerate() {
        put(data, at + 4 * place, &u32::from(*queue).to_ne_bytes())?;
    }
    Ok(())
}

/// A table of queues below `used`.
fn read_table(data: &[u8], at: usize, entries: usize, used: u16) -> Result<Vec<u16>, Errno> {
    let queue = |place: usize| match word(data, at + 4 * place)? {
        queue if queue < u32::from(used) => Ok(queue as u16),
        _ => Err(Errno::EINVAL),
    };
    (0..entries).map(queue).collect()
}
