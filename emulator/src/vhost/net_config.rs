//! The device's config space: struct virtio_net_config (virtio 1.3 §5.1.4).

use chanio_model::Mac;
use chanio_model::rss::{self, HashTypes};
use virtio_bindings::virtio_net::{VIRTIO_NET_S_ANNOUNCE, VIRTIO_NET_S_LINK_UP};

/// Bytes of config space that can be read; what is past the fields below reads as zero, as
/// frontends ask for the size of the struct that they know.
pub const SIZE: u32 = 256;

// struct virtio_net_config: speed (12) and duplex (16) are not offered and read as zero.
const RSS_MAX_KEY_SIZE: usize = 17;
const RSS_MAX_TABLE: usize = 18;
const HASH_TYPES: usize = 20;

/// Smallest MTU a virtio-net device may have (virtio 1.3 §5.1.4.1).
pub const MIN_MTU: u16 = 68;

/// What a driver can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// The device's address.
    pub mac: Mac,
    /// The link is up.
    pub link_up: bool,
    /// The driver is to announce itself.
    pub announce: bool,
    /// Queue pairs.
    pub max_pairs: u16,
    /// Largest L3 packet, bytes.
    pub mtu: u16,
}

impl NetConfig {
    /// `size` bytes from `offset` on, fields little-endian (virtio 1.3 §5.1.4; a legacy guest on
    /// this machine has the same order). `None` if that reaches past [`SIZE`].
    pub fn read(&self, offset: u32, size: u32) -> Option<Vec<u8>> {
        let end = offset.checked_add(size).filter(|&end| end <= SIZE)?;
        let mut status = 0;
        if self.link_up {
            status |= VIRTIO_NET_S_LINK_UP as u16;
        }
        if self.announce {
            status |= VIRTIO_NET_S_ANNOUNCE as u16;
        }
        let mut space = [0; SIZE as usize];
        space[0..6].copy_from_slice(&self.mac.0);
        space[6..8].copy_from_slice(&status.to_le_bytes());
        space[8..10].copy_from_slice(&self.max_pairs.to_le_bytes());
        space[10..12].copy_from_slice(&self.mtu.to_le_bytes());
        space[RSS_MAX_KEY_SIZE] = rss::KEY_LEN as u8;
        space[RSS_MAX_TABLE..][..2].copy_from_slice(&(rss::MAX_TABLE as u16).to_le_bytes());
        space[HASH_TYPES..][..4].copy_from_slice(&HashTypes::ALL.bits().to_le_bytes());
        Some(space[offset as usize..end as usize].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: NetConfig = NetConfig {
        mac: Mac([2, 0, 0, 0, 0, 7]),
        link_up: true,
        announce: false,
        max_pairs: 0x0102,
        mtu: 1500,
    };

    #[test]
    fn fields_are_where_drivers_look() {
        let expected = [2, 0, 0, 0, 0, 7, 1, 0, 2, 1, 0xdc, 5];
        assert_eq!(CONFIG.read(0, 12).unwrap(), expected);
        assert_eq!(CONFIG.read(8, 2).unwrap(), [2, 1]);
        assert_eq!(
            NetConfig {
                announce: true,
                ..CONFIG
            }
            .read(6, 2)
            .unwrap(),
            [3, 0]
        );
        assert_eq!(
            NetConfig {
                link_up: false,
                ..CONFIG
            }
            .read(6, 2)
            .unwrap(),
            [0, 0]
        );
    }

    #[test]
    fn the_rest_reads_as_zero_up_to_the_end() {
        assert_eq!(CONFIG.read(12, 5).unwrap(), [0; 5], "speed and duplex");
        assert_eq!(CONFIG.read(17, 7).unwrap(), [40, 0, 2, 0xff, 1, 0, 0]);
        assert_eq!(CONFIG.read(24, 232).unwrap(), [0; 232]);
        assert_eq!(CONFIG.read(255, 1).unwrap(), [0]);
        assert_eq!(CONFIG.read(256, 0).unwrap(), [0u8; 0]);
        assert_eq!(CONFIG.read(24, 233), None);
        assert_eq!(CONFIG.read(u32::MAX, 2), None);
    }
}
