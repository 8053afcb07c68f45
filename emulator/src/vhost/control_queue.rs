//! Commands of the control virtqueue (virtio 1.3 §5.1.6.5): what the bytes mean, and the receive
//! filter that they add up to. No I/O.

use super::features::{CTRL_MAC_ADDR, CTRL_RX, CTRL_VLAN, GUEST_ANNOUNCE, HASH_REPORT, MQ, RSS};
use chanio_model::Mac;
use chanio_model::eswitch::{RxFilter, RxMode, VlanSet};
use chanio_model::rss::{HashTypes, MAX_TABLE as MAX_RSS_TABLE, RssError, RssKey};
use virtio_bindings::virtio_net as net;

/// Longest command looked at, bytes; enough for 1,300 addresses.
pub const MAX_COMMAND: usize = 8192;

/// Addresses of each kind that a filter holds; with more it takes all of that kind.
pub const MAX_TABLE: usize = 64;

/// What a driver asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Take every packet.
    Promisc(bool),
    /// Take every multicast packet.
    AllMulti(bool),
    /// Take these addresses beside its own.
    MacTable {
        /// Unicast; `None`: more than [`MAX_TABLE`].
        unicast: Option<Vec<Mac>>,
        /// Multicast; `None`: more than [`MAX_TABLE`].
        multicast: Option<Vec<Mac>>,
    },
    /// Have this address.
    MacAddr(Mac),
    /// Take this VLAN, 0 to 4095.
    VlanAdd(u16),
    /// No longer take this VLAN, 0 to 4095.
    VlanDel(u16),
    /// Receive on this many queue pairs.
    QueuePairs(u16),
    /// Spread packets over its queue pairs by their hash.
    Rss(RssCommand),
    /// Report this hash of packets.
    Hash {
        /// What is hashed.
        types: HashTypes,
        /// By which key; `None`: none was given, which only `HashTypes::NONE` may do without.
        key: Option<RssKey>,
    },
    /// It has announced itself.
    AnnounceAck,
}

/// As struct virtio_net_rss_config has it (virtio 1.3 §5.1.6.5.6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RssCommand {
    /// What is hashed.
    pub types: HashTypes,
    /// By which key; `None`: none was given.
    pub key: Option<RssKey>,
    /// Queue pairs, counted from 0: a power of two of them, at most
    /// [`chanio_model::rss::MAX_TABLE`].
    pub table: Vec<u16>,
    /// The pair for what is not hashed.
    pub unclassified: u16,
    /// Transmit queues that the driver means to use. It is free to use others.
    pub max_tx_vq: u16,
}

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Longer than [`MAX_COMMAND`].
    #[error("control command of {len} bytes, at most {MAX_COMMAND} are read")]
    TooLong {
        /// Bytes.
        len: u32,
    },
    /// Too short for class and command.
    #[error("control command of {len} bytes, the header alone has 2")]
    NoHeader {
        /// Bytes.
        len: usize,
    },
    /// Not one that this device knows.
    #[error("control class {class}, command {command} is not supported")]
    Unknown {
        /// Class byte.
        class: u8,
        /// Command byte.
        command: u8,
    },
    /// The data is not as long as the command needs.
    #[error("control class {class}, command {command}: {len} bytes of data do not fit it")]
    Length {
        /// Class byte.
        class: u8,
        /// Command byte.
        command: u8,
        /// Bytes behind the header.
        len: usize,
    },
    /// A VLAN identifier of more than 12 bits.
    #[error("VLAN {vid} is not 0 to 4095")]
    Vlan {
        /// As sent.
        vid: u16,
    },
    /// Hash types, a key or an indirection table that RSS does not have.
    #[error(transparent)]
    Rss(#[from] RssError),
    /// Hash types without a key.
    #[error("hash types {types} without a key")]
    NoKey {
        /// What was to be hashed.
        types: HashTypes,
    },
    /// The feature that allows it was not negotiated.
    #[error("{command:?} needs a feature that was not negotiated")]
    NotNegotiated {
        /// Name of the command.
        command: &'static str,
    },
}

/// Takes one command apart: everything that the driver made readable, header included.
///
/// # Errors
/// [`CommandError`]; a command with data left over is refused as well.
pub fn parse(bytes: &[u8]) -> Result<Command, CommandError> {
    let &[class, command, ref data @ ..] = bytes else {
        return Err(CommandError::NoHeader { len: bytes.len() });
    };
    let length = || CommandError::Length {
        class,
        command,
        len: data.len(),
    };
    let flag = || match data {
        [value] => Ok(*value != 0),
        _ => Err(length()),
    };
    let number = || {
        let number = data.try_into().map(u16::from_le_bytes);
        number.map_err(|_| length())
    };
    let vlan = || match number()? {
        vid @ 0..=4095 => Ok(vid),
        vid => Err(CommandError::Vlan { vid }),
    };
    Ok(match (u32::from(class), u32::from(command)) {
        (net::VIRTIO_NET_CTRL_RX, net::VIRTIO_NET_CTRL_RX_PROMISC) => Command::Promisc(flag()?),
        (net::VIRTIO_NET_CTRL_RX, net::VIRTIO_NET_CTRL_RX_ALLMULTI) => Command::AllMulti(flag()?),
        (net::VIRTIO_NET_CTRL_MAC, net::VIRTIO_NET_CTRL_MAC_TABLE_SET) => {
            let (unicast, rest) = table(data).ok_or_else(length)?;
            let (multicast, rest) = table(rest).ok_or_else(length)?;
            if !rest.is_empty() {
                return Err(length());
            }
            Command::MacTable { unicast, multicast }
        }
        (net::VIRTIO_NET_CTRL_MAC, net::VIRTIO_NET_CTRL_MAC_ADDR_SET) => {
            Command::MacAddr(Mac(data.try_into().map_err(|_| length())?))
        }
        (net::VIRTIO_NET_CTRL_VLAN, net::VIRTIO_NET_CTRL_VLAN_ADD) => Command::VlanAdd(vlan()?),
        (net::VIRTIO_NET_CTRL_VLAN, net::VIRTIO_NET_CTRL_VLAN_DEL) => Command::VlanDel(vlan()?),
        (net::VIRTIO_NET_CTRL_MQ, net::VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) => {
            Command::QueuePairs(number()?)
        }
        (net::VIRTIO_NET_CTRL_MQ, net::VIRTIO_NET_CTRL_MQ_RSS_CONFIG) => {
            Command::Rss(rss_config(data).ok_or_else(length)??)
        }
        (net::VIRTIO_NET_CTRL_MQ, net::VIRTIO_NET_CTRL_MQ_HASH_CONFIG) => {
            let (types, rest) = data.split_first_chunk().ok_or_else(length)?;
            // Eight reserved bytes, which devices ignore.
            let rest = rest.get(8..).ok_or_else(length)?;
            let types = HashTypes::from_bits(u32::from_le_bytes(*types))?;
            let key = hash_key(rest, types).ok_or_else(length)??;
            Command::Hash { types, key }
        }
        (net::VIRTIO_NET_CTRL_ANNOUNCE, net::VIRTIO_NET_CTRL_ANNOUNCE_ACK) => {
            if !data.is_empty() {
                return Err(length());
            }
            Command::AnnounceAck
        }
        _ => return Err(CommandError::Unknown { class, command }),
    })
}

/// `None`: the data is not as long as its fields say.
fn rss_config(data: &[u8]) -> Option<Result<RssCommand, CommandError>> {
    let number = |bytes: [u8; 2]| u16::from_le_bytes(bytes);
    let (types, rest) = data.split_first_chunk()?;
    let (mask, rest) = rest.split_first_chunk()?;
    let (unclassified, rest) = rest.split_first_chunk()?;
    let len = usize::from(number(*mask)) + 1;
    if !len.is_power_of_two() || len > MAX_RSS_TABLE {
        return Some(Err(RssError::TableLength { len }.into()));
    }
    let (table, rest) = rest.split_at_checked(2 * len)?;
    let (table, _) = table.as_chunks::<2>();
    let (max_tx_vq, rest) = rest.split_first_chunk()?;
    let types = match HashTypes::from_bits(u32::from_le_bytes(*types)) {
        Ok(types) => types,
        Err(error) => return Some(Err(error.into())),
    };
    Some(hash_key(rest, types)?.map(|key| RssCommand {
        types,
        key,
        table: table.iter().copied().map(number).collect(),
        unclassified: number(*unclassified),
        max_tx_vq: number(*max_tx_vq),
    }))
}

/// A length byte and so many bytes, none left over; `None` if they are not that many.
fn hash_key(data: &[u8], types: HashTypes) -> Option<Result<Option<RssKey>, CommandError>> {
    let (len, key) = data.split_first()?;
    if key.len() != usize::from(*len) {
        return None;
    }
    Some(match key {
        [] if types == HashTypes::NONE => Ok(None),
        [] => Err(CommandError::NoKey { types }),
        key => RssKey::new(key).map(Some).map_err(CommandError::from),
    })
}

type Table<'a> = (Option<Vec<Mac>>, &'a [u8]);

/// One table of addresses: a count of 4 bytes, then 6 bytes each.
fn table(data: &[u8]) -> Option<Table<'_>> {
    let (count, rest) = data.split_first_chunk()?;
    let count = u32::from_le_bytes(*count) as usize;
    let (entries, rest) = rest.split_at_checked(count.checked_mul(6)?)?;
    let (entries, _) = entries.as_chunks::<6>();
    let macs = (count <= MAX_TABLE).then(|| entries.iter().copied().map(Mac).collect());
    Some((macs, rest))
}

impl Command {
    /// Whether the driver may use it with these features.
    ///
    /// # Errors
    /// [`CommandError::NotNegotiated`].
    pub fn allowed(&self, features: u64) -> Result<(), CommandError> {
        let (needs, command) = match self {
            Command::Promisc(_) => (CTRL_RX, "PROMISC"),
            Command::AllMulti(_) => (CTRL_RX, "ALLMULTI"),
            Command::MacTable { .. } => (CTRL_RX, "MAC_TABLE_SET"),
            Command::MacAddr(_) => (CTRL_MAC_ADDR, "MAC_ADDR_SET"),
            Command::VlanAdd(_) => (CTRL_VLAN, "VLAN_ADD"),
            Command::VlanDel(_) => (CTRL_VLAN, "VLAN_DEL"),
            Command::QueuePairs(_) => (MQ, "VQ_PAIRS_SET"),
            Command::Rss(_) => (RSS, "RSS_CONFIG"),
            Command::Hash { .. } => (HASH_REPORT, "HASH_CONFIG"),
            Command::AnnounceAck => (GUEST_ANNOUNCE, "ANNOUNCE_ACK"),
        };
        if features & needs == needs {
            Ok(())
        } else {
            Err(CommandError::NotNegotiated { command })
        }
    }
}

/// The receive filter as commands leave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RxState {
    /// `None`: no command has said; everything is taken until one does.
    promisc: Option<bool>,
    all_multi: bool,
    unicast: Option<Vec<Mac>>,
    multicast: Option<Vec<Mac>>,
    vlans: Option<Box<VlanSet>>,
}

impl RxState {
    /// What a device starts with (as in QEMU, everything passes until a driver asks for less).
    pub fn new(features: u64) -> Self {
        RxState {
            // A driver that cannot speak of addresses gets all of them.
            promisc: None,
            all_multi: false,
            unicast: Some(Vec::new()),
            multicast: Some(Vec::new()),
            vlans: (features & CTRL_VLAN != 0).then(|| Box::new(VlanSet::EMPTY)),
        }
    }

    /// The state after a command; `None` if the command is not about receiving.
    pub fn after(&self, command: &Command) -> Option<Self> {
        let mut next = self.clone();
        match command {
            Command::Promisc(on) => next.promisc = Some(*on),
            Command::AllMulti(on) => next.all_multi = *on,
            Command::MacTable { unicast, multicast } => {
                next.unicast.clone_from(unicast);
                next.multicast.clone_from(multicast);
            }
            Command::VlanAdd(vid) => next.vlans.as_mut()?.insert(*vid),
            Command::VlanDel(vid) => next.vlans.as_mut()?.remove(*vid),
            Command::MacAddr(_)
            | Command::QueuePairs(_)
            | Command::Rss(_)
            | Command::Hash { .. }
            | Command::AnnounceAck => return None,
        }
        Some(next)
    }

    /// What the switch is to do.
    pub fn mode(&self) -> RxMode {
        let Some(promisc) = self.promisc else {
            return RxMode::All;
        };
        RxMode::Filtered(RxFilter {
            promisc,
            alluni: self.unicast.is_none(),
            allmulti: self.all_multi || self.multicast.is_none(),
            unicast: self.unicast.clone().unwrap_or_default(),
            multicast: self.multicast.clone().unwrap_or_default(),
            vlans: self.vlans.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn macs(n: usize, first: u8) -> Vec<Mac> {
        (0..n)
            .map(|i| Mac([first, 0, 0, 0, (i >> 8) as u8, i as u8]))
            .collect()
    }

    fn mac_table(unicast: &[Mac], multicast: &[Mac]) -> Vec<u8> {
        let mut bytes = vec![1, 0];
        for table in [unicast, multicast] {
            bytes.extend((table.len() as u32).to_le_bytes());
            bytes.extend(table.iter().flat_map(|mac| mac.0));
        }
        bytes
    }

    #[test]
    fn commands_are_taken_apart() {
        assert_eq!(parse(&[0, 0, 1]), Ok(Command::Promisc(true)));
        assert_eq!(parse(&[0, 1, 0]), Ok(Command::AllMulti(false)));
        assert_eq!(
            parse(&[1, 1, 2, 0, 0, 0, 0, 9]),
            Ok(Command::MacAddr(Mac([2, 0, 0, 0, 0, 9])))
        );
        assert_eq!(parse(&[2, 0, 0xff, 0x0f]), Ok(Command::VlanAdd(4095)));
        assert_eq!(parse(&[2, 1, 5, 0]), Ok(Command::VlanDel(5)));
        assert_eq!(parse(&[3, 0]), Ok(Command::AnnounceAck));
        assert_eq!(parse(&[4, 0, 2, 1]), Ok(Command::QueuePairs(0x102)));
        let (unicast, multicast) = (macs(2, 2), macs(3, 1));
        let command = parse(&mac_table(&unicast, &multicast)).unwrap();
        let (unicast, multicast) = (Some(unicast), Some(multicast));
        assert_eq!(command, Command::MacTable { unicast, multicast });
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(parse(&[]), Err(CommandError::NoHeader { len: 0 }));
        assert_eq!(parse(&[0]), Err(CommandError::NoHeader { len: 1 }));
        assert_eq!(
            parse(&[0, 2, 1]),
            Err(CommandError::Unknown {
                class: 0,
                command: 2
            })
        );
        assert_eq!(
            parse(&[9, 0]),
            Err(CommandError::Unknown {
                class: 9,
                command: 0
            })
        );
        assert_eq!(
            parse(&[2, 0, 0, 0x10]),
            Err(CommandError::Vlan { vid: 4096 })
        );
        let short: [&[u8]; 8] = [
            &[0, 0],
            &[0, 0, 1, 1],
            &[1, 1, 2, 0, 0],
            &[2, 0, 1],
            &[3, 0, 0],
            &[4, 0, 1],
            &[1, 0, 0, 0, 0],
            &[1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        ];
        for bytes in short {
            assert!(
                matches!(parse(bytes), Err(CommandError::Length { .. })),
                "{bytes:?}"
            );
        }
        let mut long = mac_table(&macs(1, 2), &[]);
        long.push(0);
        assert!(matches!(parse(&long), Err(CommandError::Length { .. })));
    }

    #[test]
    fn a_table_that_does_not_fit_takes_all_of_its_kind() {
        let bytes = mac_table(&macs(MAX_TABLE + 1, 2), &macs(MAX_TABLE, 1));
        let command = parse(&bytes).unwrap();
        let state = RxState::new(CTRL_RX)
            .after(&Command::Promisc(false))
            .unwrap();
        let RxMode::Filtered(filter) = state.after(&command).unwrap().mode() else {
            panic!("a filter was asked for");
        };
        assert!(filter.alluni && !filter.allmulti && !filter.promisc);
        assert_eq!(filter.multicast.len(), MAX_TABLE);
    }

    #[test]
    fn everything_passes_until_a_driver_asks_for_less() {
        let state = RxState::new(CTRL_RX | CTRL_VLAN);
        assert_eq!(state.mode(), RxMode::All);
        let state = state.after(&Command::VlanAdd(7)).unwrap();
        assert_eq!(state.mode(), RxMode::All);
        let state = state.after(&Command::Promisc(false)).unwrap();
        let RxMode::Filtered(filter) = state.mode() else {
            panic!("a filter was asked for")
        };
        let vlans = filter.vlans.unwrap();
        assert!(vlans.contains(7) && !vlans.contains(8));
        assert_eq!(state.after(&Command::AnnounceAck), None);
    }

    const TYPES: HashTypes = HashTypes::USUAL;

    fn rss(table: &[u16], unclassified: u16, key: &[u8]) -> Vec<u8> {
        let mut bytes = vec![4, 1];
        bytes.extend(TYPES.bits().to_le_bytes());
        let mask = (table.len() as u16).wrapping_sub(1);
        for number in [mask, unclassified].iter().chain(table).chain([&7]) {
            bytes.extend(number.to_le_bytes());
        }
        bytes.push(key.len() as u8);
        bytes.extend(key);
        bytes
    }

    #[test]
    fn rss_is_taken_apart_and_bounded() {
        let key = RssKey::MICROSOFT;
        let bytes = rss(&[0, 1, 2, 1], 3, key.bytes());
        let expected = RssCommand {
            types: TYPES,
            key: Some(key),
            table: vec![0, 1, 2, 1],
            unclassified: 3,
            max_tx_vq: 7,
        };
        assert_eq!(parse(&bytes), Ok(Command::Rss(expected)));
        for cut in 2..bytes.len() {
            let error = parse(&bytes[..cut]).unwrap_err();
            assert!(
                matches!(error, CommandError::Length { .. }),
                "{cut}: {error}"
            );
        }
        for table in [&[][..], &[0; 3], &[0; 1024]] {
            let bytes = rss(table, 0, key.bytes());
            assert!(matches!(
                parse(&bytes),
                Err(CommandError::Rss(RssError::TableLength { .. }))
            ));
        }
        assert!(parse(&rss(&[0; 512], 0, key.bytes())).is_ok());
        let long = rss(&[0], 0, &[1; 41]);
        assert_eq!(
            parse(&long),
            Err(CommandError::Rss(RssError::KeyLength { len: 41 }))
        );
        assert_eq!(
            parse(&rss(&[0], 0, &[])),
            Err(CommandError::NoKey { types: TYPES })
        );
        let mut unknown = rss(&[0], 0, key.bytes());
        unknown[4] = 1;
        assert_eq!(
            parse(&unknown),
            Err(CommandError::Rss(RssError::HashTypes { unknown: 0x1_0000 }))
        );
    }

    #[test]
    fn a_hash_may_be_asked_for_without_a_table() {
        let mut bytes = vec![4, 2, 2, 0, 0, 0];
        bytes.extend([0xff; 8]);
        bytes.extend([2, 0x6d, 0x5a]);
        let key = RssKey::new(&[0x6d, 0x5a]).ok();
        let types = HashTypes::TCP_V4;
        assert_eq!(parse(&bytes), Ok(Command::Hash { types, key }));
        for cut in 2..bytes.len() {
            assert!(parse(&bytes[..cut]).is_err(), "{cut}");
        }
        let off = [4, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let (types, key) = (HashTypes::NONE, None);
        assert_eq!(parse(&off), Ok(Command::Hash { types, key }));
    }

    #[test]
    fn commands_need_their_feature() {
        let (types, key) = (HashTypes::NONE, None);
        let hash = Command::Hash { types, key };
        assert!(hash.allowed(HASH_REPORT).is_ok() && hash.allowed(RSS).is_err());
        assert!(Command::QueuePairs(1).allowed(MQ).is_ok());
        assert!(Command::QueuePairs(1).allowed(!MQ).is_err());
        assert!(Command::VlanAdd(1).allowed(CTRL_RX).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(Command::VlanAdd(vid) | Command::VlanDel(vid)) = parse(&bytes) {
                prop_assert!(vid <= 4095);
            }
        }

        #[test]
        fn tables_come_out_as_they_went_in(u in 0usize..80, m in 0usize..80, cut in 0usize..200) {
            let (unicast, multicast) = (macs(u, 2), macs(m, 1));
            let bytes = mac_table(&unicast, &multicast);
            let fits = |table: Vec<Mac>| (table.len() <= MAX_TABLE).then_some(table);
            let expected =
                Command::MacTable { unicast: fits(unicast), multicast: fits(multicast) };
            prop_assert_eq!(parse(&bytes), Ok(expected));
            if cut > 0 && cut < bytes.len() - 1 {
                prop_assert!(parse(&bytes[..bytes.len() - cut]).is_err());
            }
        }
    }
}
