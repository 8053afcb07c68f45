//! Receive-side scaling: which of a channel's queues a packet goes to.
//!
//! | file | what lives there |
//! |---|---|
//! | `toeplitz` | the hash: from precomputed tables, and bit by bit |
//! | `input` | what of a packet is hashed, by hash type (virtio 1.3 §5.1.6.4.3) |
//! | `mobility` | the addresses that Mobile IPv6 puts into extension headers |
//! | `settings` | hash types, key and indirection table, checked |
//! | `change` | settings as control asks for them, in part |

mod change;
mod input;
mod mobility;
mod settings;
mod toeplitz;

pub use change::RssChange;
pub use input::{HashReport, MAX_INPUT, Tuple};
pub use settings::{HashTypes, KEY_LEN, MAX_TABLE, RssError, RssKey, RssSettings};
pub use toeplitz::{Toeplitz, bitwise};

use crate::VportId;
use crate::wire;

/// What a packet's headers yield: the hash, and over what it was computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketHash {
    /// 0 where nothing was hashed.
    pub value: u32,
    /// Over what.
    pub report: HashReport,
}

/// Settings in force, with the tables made from their key.
#[derive(Debug)]
pub struct Rss {
    settings: RssSettings,
    hash: Toeplitz,
}

impl Rss {
    /// Makes the tables: about 4 KiB.
    pub fn new(settings: RssSettings) -> Self {
        Self {
            hash: Toeplitz::new(settings.key()),
            settings,
        }
    }

    /// What it was made of.
    pub fn settings(&self) -> &RssSettings {
        &self.settings
    }

    /// The hash of a frame of `frame_len` bytes, of which `head` holds the first ones.
    pub fn hash(&self, head: &[u8], frame_len: u32) -> PacketHash {
        let types = self.settings.types();
        let tuple = wire::parse(head, frame_len, VportId::UPLINK)
            .ok()
            .and_then(|parsed| Tuple::of(head, &parsed, types));
        tuple.map_or(PacketHash::default(), |tuple| PacketHash {
            value: self.hash.hash(tuple.bytes()),
            report: tuple.report(),
        })
    }

    /// The queue pair, counted from 0, for a packet with this hash.
    #[inline]
    pub fn queue(&self, hash: PacketHash) -> u16 {
        match hash.report {
            HashReport::None => self.settings.unclassified(),
            _ => self.settings.entry(hash.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FrameSpec;

    fn rss(types: HashTypes) -> Rss {
        let table = vec![0, 1, 2, 3];
        let settings = RssSettings::new(types, RssKey::MICROSOFT, table, 2, 4).unwrap();
        Rss::new(settings)
    }

    #[test]
    fn classified_packets_go_by_the_table_others_to_the_unclassified_queue() {
        let rss = rss(HashTypes::TCP_V4);
        let tcp = FrameSpec::tcp4(10).build();
        let hash = rss.hash(&tcp, tcp.len() as u32);
        assert_eq!(hash.report, HashReport::TcpV4);
        assert_eq!(rss.queue(hash), (hash.value % 4) as u16);
        let udp = FrameSpec::udp4(10).build();
        let none = rss.hash(&udp, udp.len() as u32);
        assert_eq!(none, PacketHash::default());
        assert_eq!(rss.queue(none), 2);
        assert_eq!(rss.hash(&tcp[..13], 13), PacketHash::default(), "a runt");
    }

    #[test]
    fn a_flow_keeps_its_queue_whatever_its_tags() {
        let rss = rss(HashTypes::ALL);
        let plain = FrameSpec::tcp4(10);
        let tagged = FrameSpec {
            vlan: Some(5),
            ..plain.clone()
        };
        let hash = |frame: Vec<u8>| rss.hash(&frame, frame.len() as u32);
        assert_eq!(hash(plain.build()), hash(tagged.build()));
    }
}
