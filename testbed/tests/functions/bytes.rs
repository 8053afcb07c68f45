//! What the driver layer asks of the kernel is what ip, bridge and ethtool ask for the same, byte
//! by byte: both go by the same proxy to the same emulator.

use crate::bed::{Bed, SLOT, spec};
use crate::macvlan::{macvlan, up};
use crate::proxy::{Asked, Proxy};
use chanio::device::open_via;
use chanio::nic::{ChannelChange, ChannelSpec};
use chanio::transport::Transport;
use chanio::{DeviceAddress, Nic};
use chanio_model::rss::{RssChange, RssKey};
use chanio_netlink::message::Message;
use chanio_testbed::process::program;
use std::path::Path;
use std::process::Command;

const RTM_NEWLINK: u16 = 16;
const RTM_SETLINK: u16 = 19;
const RTM_GETNEIGH: u16 = 30;
/// Of the ethtool family; commands of SIOCETHTOOL.
const FEATURES_SET: u8 = 12;
const GRXFH: u32 = 0x29;
const SRXFH: u32 = 0x2a;
const GRSSH: u32 = 0x46;
const SRSSH: u32 = 0x47;

/// Of struct ethtool_rxnfc those that these commands read: command, flow type, fields.
const FIELDS: usize = 16;
/// And of those only what a question has.
const ASKED: usize = 8;
const WHOLE: usize = usize::MAX;

const MAC: &str = "02:00:00:00:00:77";

struct Both {
    proxy: Proxy,
    bed: Bed,
}

impl Both {
    fn new() -> Self {
        let bed = up();
        let proxy = Proxy::before(bed.run_dir());
        Both { proxy, bed }
    }

    fn open(&self) -> Box<dyn Nic> {
        let address: DeviceAddress = format!("pci/{SLOT}").parse().unwrap();
        open_via(&address, self.proxy.run_dir()).unwrap()
    }

    /// What a command line asks, which must succeed.
    fn theirs(&mut self, line: &str) -> Vec<Asked> {
        self.proxy.asked();
        let mut command = Command::new(program("chanio"));
        command.arg("run").arg("--via").arg(self.proxy.run_dir());
        let output = command.arg("--").args(line.split_whitespace()).output();
        let output = output.unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {told}");
        self.proxy.asked()
    }
}

/// The last of these that is about links or neighbours, with one of these types.
fn message(asked: &[Asked], kinds: &[u16]) -> Message {
    let found = asked.iter().rev().find_map(|one| match one {
        Asked::Netlink(message) if kinds.contains(&message.kind) => Some(message.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("none of {kinds:?} in {asked:?}"))
}

/// The request of a generic family with this command.
fn generic(asked: &[Asked], command: u8) -> Message {
    let found = asked.iter().rev().find_map(|one| match one {
        Asked::Netlink(message) if message.kind > 16 && message.payload[0] == command => {
            Some(message.clone())
        }
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no command {command} in {asked:?}"))
}

/// All structs of an ioctl's command, as far as they say something.
fn ioctls(asked: &[Asked], command: u32, length: usize) -> Vec<Vec<u8>> {
    let of = |one: &Asked| match one {
        Asked::Ethtool(data) if data[..4] == command.to_ne_bytes() => {
            Some(data[..length.min(data.len())].to_vec())
        }
        _ => None,
    };
    let found: Vec<_> = asked.iter().filter_map(of).collect();
    assert!(!found.is_empty(), "no command {command:#x} in {asked:?}");
    found
}

/// Numbers and values; of a nest, the values in it.
type Attributes = Vec<(u16, Vec<Vec<u8>>)>;

/// The attributes of a message in order of their bytes, without padding, nests in the same way:
/// those that say that they are some, and of these kinds.
fn attributes(mut bytes: &[u8], nests: &[u16]) -> Attributes {
    // IFLA_INFO_DATA, which ip(8) does not say to be a nest. Elsewhere 2 is something else.
    let inner: &[u16] = if nests.is_empty() { &[] } else { &[2] };
    let mut all = Vec::new();
    while let [l0, l1, k0, k1, ..] = *bytes {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let (kind, flagged) = (u16::from_ne_bytes([k0, k1]) & 0x3fff, k1 & 0x80 != 0);
        let value = &bytes[4..length];
        let content = match flagged || nests.contains(&kind) {
            true => attributes(value, inner)
                .into_iter()
                .map(|(kind, value)| [&kind.to_ne_bytes(), &*value.concat()].concat())
                .collect(),
            // Text may end with a NUL or not: the kernel reads it as the same.
            false => {
                let end = value
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .map_or(0, |at| at + 1);
                vec![value[..end].to_vec()]
            }
        };
        all.push((kind, content));
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    all.sort();
    all
}

/// Header and attributes of a message about a link; what a message is about need not be the same
/// one twice.
fn link(message: &Message) -> (Vec<u8>, Attributes) {
    /// IFLA_LINKINFO.
    const NESTS: [u16; 1] = [18];
    let mut header = message.payload[..16].to_vec();
    header[4..8].fill(0);
    (header, attributes(&message.payload[16..], &NESTS))
}

#[test]
fn a_macvlan_device_is_asked_for_as_ip_and_ethtool_do() {
    if !chanio_testbed::can_run() {
        return;
    }
    let mut both = Both::new();
    let theirs = [
        both.theirs("ethtool -K c0p0 l2-fwd-offload on"),
        both.theirs(&format!(
            "ip link add link c0p0 name mv00000077 address {MAC} mtu 1400 type macvlan mode bridge"
        )),
        both.theirs("bridge fdb show dev c0p0"),
        both.theirs("ip link set dev mv00000077 alias web1"),
        both.theirs(&format!(
            "ip link set dev mv00000077 netns {} name eth0 address {MAC} mtu 1400",
            both.bed.containers[0].name()
        )),
    ];
    both.bed.containers[0].run(&["ip", "link", "del", "eth0"]);
    both.theirs("ethtool -K c0p0 l2-fwd-offload off");
    let mut nic = both.open();
    both.proxy.asked();
    let wanted = ChannelSpec {
        mac: Some(MAC.into()),
        ..macvlan("web1", "a", "10.0.0.1/24")
    };
    nic.add_channels(vec![wanted]).unwrap();
    let ours = both.proxy.asked();
    let [features, add, fdb, alias, moved] = theirs;
    let (theirs, own) = (
        generic(&features, FEATURES_SET),
        generic(&ours, FEATURES_SET),
    );
    let said = |message: &Message| attributes(&message.payload[4..], &[]);
    assert_eq!((theirs.flags, said(&theirs)), (own.flags, said(&own)));

    // With flags to make something, there is one.
    let made = ours.iter().find_map(|one| match one {
        Asked::Netlink(m) if m.kind == RTM_NEWLINK && m.flags & 0x400 != 0 => Some(m.clone()),
        _ => None,
    });
    let (theirs, own) = (message(&add, &[RTM_NEWLINK]), made.unwrap());
    assert_eq!((theirs.flags, link(&theirs)), (own.flags, link(&own)));

    let changes: Vec<_> = ours
        .iter()
        .filter_map(|one| match one {
            Asked::Netlink(m) if m.kind == RTM_SETLINK => Some(m),
            _ => None,
        })
        .collect();
    // ip(8) changes a link with RTM_NEWLINK, which does the same to one that is there.
    let theirs = message(&alias, &[RTM_NEWLINK, RTM_SETLINK]);
    assert_eq!(link(&theirs), link(changes[0]));
    let theirs = message(&moved, &[RTM_NEWLINK, RTM_SETLINK]);
    assert_eq!(link(&theirs), link(changes[1]));

    let (theirs, own) = (
        message(&fdb, &[RTM_GETNEIGH]),
        message(&ours, &[RTM_GETNEIGH]),
    );
    assert_eq!(theirs.flags, own.flags);
    // Family and netdev of struct ndmsg; bridge(8) sends room for attributes behind it.
    assert_eq!(theirs.payload[..8], own.payload[..8]);
}

#[test]
fn a_spread_over_queues_is_asked_for_as_ethtool_does() {
    if !chanio_testbed::can_run() {
        return;
    }
    let mut both = Both::new();
    let vfs = format!("/sys/bus/pci/devices/{SLOT}/sriov_numvfs");
    both.bed.faults.write(Path::new(&vfs), b"1").unwrap();
    let netdev = "enp3s0f0v0";
    let key = ["07"; 40].join(":");
    let theirs = [
        (both.theirs(&format!("ethtool -x {netdev}")), GRSSH, WHOLE),
        (
            both.theirs(&format!("ethtool -X {netdev} weight 1 0")),
            SRSSH,
            WHOLE,
        ),
        (
            both.theirs(&format!("ethtool -X {netdev} hkey {key}")),
            SRSSH,
            WHOLE,
        ),
        // What is behind the fields is what was in ethtool's stack.
        (
            both.theirs(&format!("ethtool -n {netdev} rx-flow-hash udp4")),
            GRXFH,
            ASKED,
        ),
        (
            both.theirs(&format!("ethtool -N {netdev} rx-flow-hash udp4 sd")),
            SRXFH,
            FIELDS,
        ),
        (
            both.theirs(&format!("ethtool -N {netdev} rx-flow-hash udp4 sdfn")),
            SRXFH,
            FIELDS,
        ),
    ];
    let mut nic = both.open();
    nic.add_channels(vec![spec("web1", "a", "10.0.0.1/24")])
        .unwrap();
    both.proxy.asked();
    let rss = |rss| ChannelChange {
        rss: Some(rss),
        ..ChannelChange::default()
    };
    let types = |text: &str| RssChange {
        types: Some(text.parse().unwrap()),
        ..RssChange::default()
    };
    for change in [
        rss(RssChange {
            table: Some(vec![0]),
            ..RssChange::default()
        }),
        rss(RssChange {
            key: Some(RssKey::new(&[7; 40]).unwrap()),
            ..RssChange::default()
        }),
        rss(types("ip4,ip6,tcp4,tcp6,udp6")),
        rss(types("ip4,ip6,tcp4,tcp6,udp4,udp6")),
    ] {
        nic.set_channel("web1", change).unwrap();
    }
    let ours = both.proxy.asked();
    for (theirs, command, length) in theirs {
        for their in ioctls(&theirs, command, length) {
            let same = ioctls(&ours, command, length).contains(&their);
            let ours = ioctls(&ours, command, length);
            assert!(
                same,
                "command {command:#x}: {their:02x?}\nis none of {ours:02x?}"
            );
        }
    }
}
