//! Macvlan devices with queues of the NIC's.

use crate::bed::{Bed, SLOT, spec};
use chanio::device::open_over;
use chanio::nic::{Channel, ChannelChange, ChannelSpec, FunctionKind};
use chanio::transport::{Machine, Netns, Protocol, Transport, Wire};
use chanio::{DeviceAddress, DeviceError, Nic};
use chanio_testbed::netns::isolate;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// What i40e gives on 64 processors (i40e_fwd_add): `(64 - 16) / 2`.
const MOST: usize = 24;

pub fn macvlan(name: &str, netns: &str, address: &str) -> ChannelSpec {
    ChannelSpec {
        function: Some(FunctionKind::Macvlan),
        queues: 1,
        ..spec(name, netns, address)
    }
}

fn ip(words: &str) -> String {
    let output = Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

/// An i40e whose netdev is up.
pub fn up() -> Bed {
    let bed = Bed::new("intel-x710");
    ip("link set c0p0 up");
    bed
}

#[test]
fn macvlan_devices_talk_by_the_nics_switch_and_have_no_representors() {
    if !chanio_testbed::can_run() {
        return;
    }
    let bed = up();
    let mut nic = bed.open();
    assert!(nic.why_not(chanio::Feature::Queues).is_none());
    let specs = vec![
        macvlan("web1", "a", "10.0.0.1/24"),
        macvlan("web2", "b", "10.0.0.2/24"),
    ];
    let made = nic.add_channels(specs).unwrap();
    let web1 = &made[0];
    assert_eq!((web1.queues, web1.mtu, web1.state), (1, 1400, "running"));
    assert_eq!((&*web1.attach, &web1.representor), ("tap:a:eth0", &None));
    bed.containers[0].run(&["ping", "-c1", "-W1", "10.0.0.2"]);
    // Whoever comes next sees the same, without being told what channels are.
    let mut nic = bed.open();
    let told = nic.channels(&[]).unwrap();
    let names: Vec<_> = told.iter().map(|channel| &*channel.name).collect();
    assert!(
        names.contains(&"web1") && names.contains(&"web2"),
        "{names:?}"
    );
    let info = nic.info().unwrap();
    assert_eq!(info.capabilities.max_channels as usize, MOST);
    assert!(!info.capabilities.representors);
    let why = &info.capabilities.cannot["representors"];
    assert!(why.contains("a macvlan device has no representor"), "{why}");
    let refused = nic.representors().unwrap_err().to_string();
    assert!(
        refused.contains("a macvlan device has no representor"),
        "{refused}"
    );
    for (change, what) in [
        (
            ChannelChange {
                mac: Some("02:00:00:00:00:07".into()),
                ..ChannelChange::default()
            },
            "mac is not supported: the NIC knows a macvlan device by the address",
        ),
        (
            ChannelChange {
                vlan: Some(7),
                ..ChannelChange::default()
            },
            "vlan is not supported",
        ),
        (
            ChannelChange {
                mtu: Some(9000),
                ..ChannelChange::default()
            },
            "mtu: 9000 is not allowed, must be 68 to 1500, the MTU of `c0p0`",
        ),
    ] {
        let refused = nic.set_channel("web1", change).unwrap_err().to_string();
        assert!(refused.contains(what), "{refused}");
    }
    let change = ChannelChange {
        mtu: Some(1300),
        ..ChannelChange::default()
    };
    assert_eq!(nic.set_channel("web1", change).unwrap().mtu, 1300);
    let stats = nic.stats(&["web1".into()], false).unwrap();
    assert!(
        stats[0].tx_packets > 0 && stats[0].rx_packets > 0,
        "{stats:?}"
    );
    let refused = nic.rates(&[]).unwrap_err().to_string();
    assert!(
        refused.contains("no rates for macvlan devices"),
        "{refused}"
    );
    // As long as there are some, channels are of this kind.
    let vf = ChannelSpec {
        function: Some(FunctionKind::Vf),
        ..spec("web3", "a", "10.0.0.3/24")
    };
    let refused = nic.add_channels(vec![vf.clone()]).unwrap_err().to_string();
    assert!(
        refused.contains("2 channels that are macvlan devices"),
        "{refused}"
    );
    nic.del_channels(&["web1".into(), "web2".into()]).unwrap();
    assert!(!bed.containers[1].run(&["ip", "link"]).contains("eth0"));
    nic.add_channels(vec![vf]).unwrap();
    let refused = nic.add_channels(vec![macvlan("web4", "a", "10.0.0.4/24")]);
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("there are 1 virtual functions"),
        "{refused}"
    );
}

#[test]
fn whatever_step_of_a_macvlan_device_fails_all_is_as_before() {
    if !chanio_testbed::can_run() {
        return;
    }
    let bed = up();
    let (steps, made) =
        bed.refuse_each_step(|nic| nic.add_channels(vec![macvlan("web1", "a", "10.0.0.1/24")]));
    println!("{steps} steps of a macvlan device failed in turn");
    assert!(steps > 15 && made[0].state == "running");
}

/// Beyond what the driver has queues for the kernel makes a macvlan device in software, and says
/// nothing.
#[test]
fn one_macvlan_device_more_than_the_nic_has_queues_for_is_refused() {
    if !chanio_testbed::can_run() {
        return;
    }
    let bed = up();
    let mut nic = bed.open();
    let add = |nic: &mut dyn Nic, numbers: std::ops::RangeInclusive<usize>| {
        let one = |n: usize| ChannelSpec {
            attach: chanio_emu::nic::spec::Attach::tap("a", &format!("e{n}"), Vec::new()).unwrap(),
            ..macvlan(&format!("pod{n}"), "a", "10.0.0.1/24")
        };
        nic.add_channels(numbers.map(one).collect())
    };
    let running = |made: &[Channel]| made.iter().filter(|c| c.state == "running").count();
    let made = add(&mut *nic, 1..=MOST - 1).unwrap();
    assert_eq!(running(&made), MOST - 1);
    let before = bed.snapshot();
    // The first of these has queues, the second has not: neither stays.
    let refused = add(&mut *nic, MOST..=MOST + 1).unwrap_err().to_string();
    let words = format!(
        "channel `pod{}`: its macvlan device got no queues of the NIC's and would be forwarded in \
         software; the driver (i40e) gives some to {MOST} at most here, and {MOST} have them",
        MOST + 1
    );
    assert_eq!(refused, words);
    assert_eq!(bed.snapshot(), before);
    add(&mut *nic, MOST..=MOST).unwrap();
    assert!(add(&mut *nic, MOST + 1..=MOST + 1).is_err());
    // One that is deleted in the container leaves its queues to the next.
    bed.containers[0].run(&["ip", "link", "del", "e3"]);
    assert_eq!(nic.channels(&[]).unwrap().len(), MOST - 1);
    assert_eq!(running(&add(&mut *nic, MOST + 1..=MOST + 1).unwrap()), 1);
}

/// The real kernel's netdevs, and a PCI device that is none of theirs: what /sys says of it.
struct OfOneNetdev(&'static str);

impl OfOneNetdev {
    fn nowhere<T>() -> io::Result<T> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl Transport for OfOneNetdev {
    fn open(&self, protocol: Protocol) -> io::Result<Box<dyn Wire>> {
        Machine.open(protocol)
    }
    fn open_in(&self, netns: &Netns, protocol: Protocol) -> io::Result<Box<dyn Wire>> {
        Machine.open_in(netns, protocol)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match path.file_name().and_then(|name| name.to_str()) {
            Some("sriov_numvfs") => Ok(b"0\n".to_vec()),
            _ => Self::nowhere(),
        }
    }
    fn write(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        Self::nowhere()
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        match path.ends_with("net") {
            true => Ok(vec![self.0.to_owned()]),
            false => Self::nowhere(),
        }
    }
    fn link_target(&self, path: &Path) -> io::Result<PathBuf> {
        match path.ends_with("driver") {
            true => Ok("../../../bus/pci/drivers/veth".into()),
            false => Self::nowhere(),
        }
    }
    fn ethtool(&self, netdev: &str, data: &mut Vec<u8>) -> io::Result<()> {
        Machine.ethtool(netdev, data)
    }
    fn ethtool_in(&self, netns: &Netns, netdev: &str, data: &mut Vec<u8>) -> io::Result<()> {
        Machine.ethtool_in(netns, netdev, data)
    }
}

/// The kernel has macvlan devices on any netdev: one whose driver has no queues for them is told
/// by its feature, before anything is made.
#[test]
fn the_real_kernel_without_the_offload_is_refused() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let _container = chanio_testbed::netns::Netns::new("a");
    ip("link add lower type veth peer name far");
    ip("link set lower up");
    let address: DeviceAddress = format!("pci/{SLOT}").parse().unwrap();
    let open = || open_over(&address, Arc::new(OfOneNetdev("lower"))).unwrap();
    let before = ip("-o link");
    let refused = open().add_channels(vec![macvlan("web1", "a", "10.0.0.1/24")]);
    let Err(DeviceError::Unsupported { what, why }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(what, "function macvlan");
    assert_eq!(
        why,
        "netdev `lower` (driver veth) has l2-fwd-offload off, fixed"
    );
    assert_eq!(ip("-o link"), before);
    ip("link set lower down");
    let refused = open().add_channels(vec![macvlan("web1", "a", "10.0.0.1/24")]);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("ip link set lower up"), "{refused}");
}
