//! The files of the PCI device, its functions and their netdevs, as they are under /sys.
//!
//! Nothing is kept: each path is looked up when it is asked for, links in its middle included. What
//! is not the NIC's is not there (ENOENT), and for the asker to look up in the real /sys.

use super::played::{Played, Role};
use super::slot::PciSlot;
use super::table::{Function, Kind};
use chanio_netlink::devlink::command;
use chanio_netlink::played::{Entry, EntryKind};
use nix::errno::Errno;
use nix::net::if_::{if_indextoname, if_nametoindex};

/// What is at a path.
enum Node {
    Directory,
    File,
    /// To this path, relative to where the link is.
    Link(String),
}

/// Links followed for one path (MAXSYMLINKS).
const MAX_LINKS: usize = 40;

/// The bridge behind which the device is.
const ROOT: &str = "pci0000:00";

/// A PCI device.
#[derive(Clone, Copy)]
enum Pci<'a> {
    Pf,
    Vf(&'a Function),
}

impl Played {
    /// read(2) of a whole file.
    pub fn sys_read(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let parts = self.resolve(path, true)?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match self.node(&parts).ok_or(Errno::ENOENT)? {
            Node::Directory => Err(Errno::EISDIR),
            _ => self.content(&parts),
        }
    }

    /// readlink(2).
    pub fn sys_read_link(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let parts = self.resolve(path, false)?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match self.node(&parts).ok_or(Errno::ENOENT)? {
            Node::Link(target) => Ok(target.into_bytes()),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The names in a directory.
    pub fn sys_list(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let parts = self.resolve(path, true)?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match self.node(&parts).ok_or(Errno::ENOENT)? {
            Node::Directory => {}
            _ => return Err(Errno::ENOTDIR),
        }
        let kind = |name: &str| {
            let mut child = parts.clone();
            child.push(name);
            match self.node(&child) {
                Some(Node::Directory) => EntryKind::Directory,
                Some(Node::Link(_)) => EntryKind::Link,
                _ => EntryKind::File,
            }
        };
        let names = self.names_in(&parts);
        let entries = names.into_iter().map(|name| Entry {
            kind: kind(&name),
            name,
        });
        Ok(Entry::list(&entries.collect::<Vec<_>>()))
    }

    /// write(2).
    pub fn sys_write(&mut self, path: &str, data: &[u8]) -> Result<(), Errno> {
        let parts = self.resolve(path, true)?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match self.node(&parts).ok_or(Errno::ENOENT)? {
            Node::Directory => return Err(Errno::EISDIR),
            Node::Link(_) | Node::File => {}
        }
        let slot = self.config.slot.to_string();
        match parts[..] {
            ["devices", ROOT, device, "sriov_numvfs"] if device == slot => self.write_vfs(data),
            // Without permission to write, as mode 0444 says of all others.
            _ => Err(Errno::EACCES),
        }
    }

    /// drivers/pci/iov.c: sriov_numvfs_store
    fn write_vfs(&mut self, data: &[u8]) -> Result<(), Errno> {
        let text = str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let count: u16 = text.parse().map_err(|_| Errno::EINVAL)?;
        if count > self.vendor.total_vfs {
            return Err(Errno::ERANGE);
        }
        let now = self.vfs().count();
        if now == usize::from(count) {
            return Ok(());
        }
        if now != 0 && count != 0 {
            return Err(Errno::EBUSY);
        }
        let failed = |refusal: chanio_netlink::kernel::Refusal| {
            // A file has no words to refuse with; the kernel's log has.
            tracing::warn!(%refusal, count, "sriov_numvfs");
            Errno::from_raw(refusal.errno)
        };
        if self.switchdev() && count == 0 {
            self.tell_vf_ports(command::PORT_DEL).map_err(failed)?;
        }
        self.set_vfs(count).map_err(failed)?;
        if self.switchdev() && count != 0 {
            self.tell_vf_ports(command::PORT_NEW).map_err(failed)?;
        }
        Ok(())
    }

    /// The path below /sys without links in it; the last part's link is followed if asked to.
    fn resolve(&self, path: &str, last: bool) -> Result<Vec<String>, Errno> {
        let mut left: Vec<String> = parts_of(path).rev().map(str::to_owned).collect();
        if left.pop().as_deref() != Some("sys") {
            return Err(Errno::ENOENT);
        }
        let mut at: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = left.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            at.push(part);
            if left.is_empty() && !last {
                break;
            }
            let parts: Vec<&str> = at.iter().map(String::as_str).collect();
            match self.node(&parts).ok_or(Errno::ENOENT)? {
                Node::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::ELOOP);
                    }
                    at.pop();
                    left.extend(parts_of(&target).rev().map(str::to_owned));
                }
                Node::File if !left.is_empty() => return Err(Errno::ENOTDIR),
                _ => {}
            }
        }
        Ok(at)
    }

    fn pci(&self, slot: &str) -> Option<Pci<'_>> {
        if slot == self.config.slot.to_string() {
            return Some(Pci::Pf);
        }
        let mut vfs = (0..).zip(self.vfs());
        vfs.find(|(number, _)| self.config.slot.vf(*number).to_string() == slot)
            .map(|(_, (_, function))| Pci::Vf(function))
    }

    fn slots(&self) -> impl Iterator<Item = PciSlot> {
        let slot = self.config.slot;
        let vfs = 0..self.vfs().count() as u16;
        std::iter::once(slot).chain(vfs.map(move |number| slot.vf(number)))
    }

    /// The name of an auxiliary device.
    pub fn auxiliary_name(&self, number: u32) -> String {
        format!("{}.{number}", self.vendor.sf_device.unwrap_or_default())
    }

    /// Auxiliary devices, which only subfunctions have.
    fn auxiliaries(&self) -> impl Iterator<Item = String> {
        let all = self.functions.with_auxiliaries();
        all.map(|(number, _)| self.auxiliary_name(number))
    }

    /// The subfunction of an auxiliary device.
    pub fn auxiliary_named(&self, name: &str) -> Option<&Function> {
        let (class, number) = name.rsplit_once('.')?;
        let number = number.parse().ok()?;
        // Numbers are written in one way only.
        let is_it = Some(class) == self.vendor.sf_device && self.auxiliary_name(number) == name;
        let port = self.functions.with_auxiliary(number).filter(|_| is_it)?;
        self.functions.get(port)
    }

    /// The netdevs of a directory `net`, whose place is the device's.
    fn netdevs(&self, device: &[&str]) -> Vec<String> {
        match *device {
            ["devices", ROOT, slot] => match self.pci(slot) {
                Some(Pci::Pf) => {
                    let hidden = |role: &Role| matches!(role, Role::Function(_));
                    let roles = self.visible_netdevs().into_iter();
                    let own = roles.filter(|(_, role)| !hidden(role));
                    own.filter_map(|(ifindex, _)| name_of(ifindex)).collect()
                }
                Some(Pci::Vf(function)) => netdev_of(function).into_iter().collect(),
                None => Vec::new(),
            },
            ["devices", ROOT, _, auxiliary] => {
                let function = self.auxiliary_named(auxiliary);
                function.and_then(netdev_of).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Where a netdev's device is.
    fn device_of(&self, netdev: &str) -> Option<Vec<String>> {
        let ifindex = if_nametoindex(netdev).ok()?;
        let role = self.visible_role(ifindex)?;
        let mut at = vec!["devices".to_owned(), ROOT.to_owned()];
        let slot = self.config.slot;
        match role {
            Role::Function(port) => {
                let function = self.functions.get(port)?;
                match function.kind {
                    Kind::Vf(number) => at.push(slot.vf(number).to_string()),
                    Kind::Sf(_) => {
                        at.push(slot.to_string());
                        at.push(self.auxiliary_name(function.auxiliary()?));
                    }
                    // It has no device.
                    Kind::Macvlan { .. } => return None,
                }
            }
            _ => at.push(slot.to_string()),
        }
        Some(at)
    }

    fn node(&self, parts: &[&str]) -> Option<Node> {
        let below = |device: &[&str], rest: &[&str]| match *rest {
            [] | ["net"] => Some(Node::Directory),
            ["net", netdev, ref file @ ..] => {
                if self.device_of(netdev)? != device {
                    return None;
                }
                match *file {
                    [] => Some(Node::Directory),
                    ["device"] => Some(Node::Link("../..".to_owned())),
                    [file] if NETDEV_FILES.contains(&file) => Some(Node::File),
                    _ => None,
                }
            }
            _ => None,
        };
        match *parts {
            [] | ["bus" | "class" | "devices"] | ["class", "net"] | ["devices", ROOT] => {
                Some(Node::Directory)
            }
            ["bus", "pci" | "auxiliary"] | ["bus", "pci" | "auxiliary", "devices" | "drivers"] => {
                Some(Node::Directory)
            }
            ["class", "net", netdev] => {
                let device = self.device_of(netdev)?.join("/");
                Some(Node::Link(format!("../../{device}/net/{netdev}")))
            }
            ["bus", "pci", "devices", slot] => {
                self.pci(slot)?;
                Some(Node::Link(format!("../../../devices/{ROOT}/{slot}")))
            }
            ["bus", "pci", "drivers", driver] => {
                self.drivers().contains(&driver).then_some(Node::Directory)
            }
            ["bus", "pci", "drivers", driver, slot] => (self.driver(self.pci(slot)?) == driver)
                .then(|| Node::Link(format!("../../../../devices/{ROOT}/{slot}"))),
            ["bus", "auxiliary", "devices", name] => {
                self.auxiliary_named(name)?;
                let slot = self.config.slot;
                Some(Node::Link(format!("../../../devices/{ROOT}/{slot}/{name}")))
            }
            ["devices", ROOT, slot, ref rest @ ..] => {
                let pci = self.pci(slot)?;
                match (rest, pci) {
                    (["driver"], _) => {
                        let driver = self.driver(pci);
                        Some(Node::Link(format!("../../../bus/pci/drivers/{driver}")))
                    }
                    (["subsystem"], _) => Some(Node::Link("../../../bus/pci".to_owned())),
                    (["physfn"], Pci::Vf(..)) => {
                        Some(Node::Link(format!("../{}", self.config.slot)))
                    }
                    ([file], Pci::Pf) if PF_FILES.contains(file) => Some(Node::File),
                    ([file], _) if PCI_FILES.contains(file) => Some(Node::File),
                    ([name], Pci::Pf) if name.starts_with("virtfn") => {
                        let number: u16 = name.strip_prefix("virtfn")?.parse().ok()?;
                        let there = usize::from(number) < self.vfs().count();
                        let slot = self.config.slot.vf(number);
                        there.then(|| Node::Link(format!("../{slot}")))
                    }
                    ([name, file @ ..], Pci::Pf) if self.auxiliary_named(name).is_some() => {
                        match file {
                            ["sfnum"] => Some(Node::File),
                            ["driver"] => None,
                            ["subsystem"] => {
                                Some(Node::Link("../../../../bus/auxiliary".to_owned()))
                            }
                            _ => below(&parts[..4], file),
                        }
                    }
                    (rest, _) => below(&parts[..3], rest),
                }
            }
            _ => None,
        }
    }

    fn drivers(&self) -> Vec<&'static str> {
        let mut drivers = vec![self.vendor.driver];
        if self.vendor.vf_driver != self.vendor.driver && self.vfs().next().is_some() {
            drivers.push(self.vendor.vf_driver);
        }
        drivers
    }

    fn driver(&self, pci: Pci<'_>) -> &'static str {
        match pci {
            Pci::Pf => self.vendor.driver,
            Pci::Vf(..) => self.vendor.vf_driver,
        }
    }

    fn names_in(&self, parts: &[&str]) -> Vec<String> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        match *parts {
            [] => owned(&["bus", "class", "devices"]),
            ["bus"] => owned(&["auxiliary", "pci"]),
            ["bus", "pci" | "auxiliary"] => owned(&["devices", "drivers"]),
            ["class"] => owned(&["net"]),
            ["class", "net"] => {
                let netdevs = self.visible_netdevs();
                netdevs.keys().filter_map(|index| name_of(*index)).collect()
            }
            ["devices"] => owned(&[ROOT]),
            ["bus", "pci", "devices"] | ["devices", ROOT] => {
                self.slots().map(|slot| slot.to_string()).collect()
            }
            ["bus", "pci", "drivers"] => owned(&self.drivers()),
            ["bus", "pci", "drivers", driver] => {
                let slots = self.slots().map(|slot| slot.to_string());
                let bound = |slot: &String| {
                    let pci = self.pci(slot);
                    pci.is_some_and(|pci| self.driver(pci) == driver)
                };
                slots.filter(bound).collect()
            }
            ["bus", "auxiliary", "devices"] => self.auxiliaries().collect(),
            ["devices", ROOT, slot] => {
                let mut names: Vec<String> = owned(PCI_FILES);
                names.extend([
                    "driver".to_owned(),
                    "net".to_owned(),
                    "subsystem".to_owned(),
                ]);
                match self.pci(slot) {
                    Some(Pci::Pf) => {
                        names.extend(owned(PF_FILES));
                        let vfs = 0..self.vfs().count();
                        names.extend(vfs.map(|number| format!("virtfn{number}")));
                        names.extend(self.auxiliaries());
                    }
                    _ => names.push("physfn".to_owned()),
                }
                names
            }
            ["devices", ROOT, _, "net"] => self.netdevs(&parts[..3]),
            ["devices", ROOT, _, _] => owned(&["net", "sfnum", "subsystem"]),
            ["devices", ROOT, _, _, "net"] => self.netdevs(&parts[..4]),
            [.., "net", _] => {
                let mut names: Vec<String> = owned(NETDEV_FILES);
                names.push("device".to_owned());
                names
            }
            _ => Vec::new(),
        }
    }

    fn content(&self, parts: &[&str]) -> Result<Vec<u8>, Errno> {
        let line = |text: String| Ok(format!("{text}\n").into_bytes());
        if let [.., "net", netdev, file] = *parts {
            return self.netdev_file(netdev, file);
        }
        if let ["devices", ROOT, _, auxiliary, "sfnum"] = *parts {
            return match self.auxiliary_named(auxiliary).map(|f| f.kind) {
                Some(Kind::Sf(number)) => line(number.to_string()),
                _ => Err(Errno::ENOENT),
            };
        }
        let ["devices", ROOT, slot, file] = *parts else {
            return Err(Errno::ENOENT);
        };
        let vendor = self.vendor;
        let pci = self.pci(slot).ok_or(Errno::ENOENT)?;
        let device = match pci {
            Pci::Pf => vendor.device,
            Pci::Vf(..) => vendor.vf_device,
        };
        match file {
            "vendor" | "subsystem_vendor" => line(format!("{:#06x}", vendor.vendor)),
            "device" => line(format!("{device:#06x}")),
            "subsystem_device" => line("0x0000".to_owned()),
            // Network controller, Ethernet (linux/pci_ids.h: PCI_CLASS_NETWORK_ETHERNET).
            "class" => line("0x020000".to_owned()),
            "numa_node" => line("-1".to_owned()),
            "enable" => line("1".to_owned()),
            "sriov_numvfs" => line(self.vfs().count().to_string()),
            "sriov_totalvfs" => line(vendor.total_vfs.to_string()),
            "sriov_drivers_autoprobe" => line("1".to_owned()),
            "sriov_vf_device" => line(format!("{:x}", vendor.vf_device)),
            "uevent" => line(format!(
                "DRIVER={}\nPCI_CLASS=20000\nPCI_ID={:04X}:{device:04X}\nPCI_SLOT_NAME={slot}",
                self.driver(pci),
                vendor.vendor
            )),
            _ => Err(Errno::ENOENT),
        }
    }

    /// net/core/net-sysfs.c; what the real netdev's file says, where the driver has no part in it.
    fn netdev_file(&self, netdev: &str, file: &str) -> Result<Vec<u8>, Errno> {
        let ifindex = if_nametoindex(netdev)?;
        let role = self.visible_role(ifindex).ok_or(Errno::ENOENT)?;
        let shown = self.switchdev() && !matches!(role, Role::Function(_));
        match file {
            "phys_port_name" => match self.phys_port_name(role).filter(|_| shown) {
                Some(name) => Ok(format!("{name}\n").into_bytes()),
                None => Err(Errno::EOPNOTSUPP),
            },
            "phys_switch_id" if shown => {
                let id: String = self
                    .switch_id()
                    .iter()
                    .map(|b| format!("{b:02x}"))
                    .collect();
                Ok(format!("{id}\n").into_bytes())
            }
            "phys_switch_id" => Err(Errno::EOPNOTSUPP),
            "speed" => match role {
                Role::Uplink => Ok(format!("{}\n", self.vendor.speed).into_bytes()),
                _ => Err(Errno::EINVAL),
            },
            _ => std::fs::read(format!("/sys/class/net/{netdev}/{file}"))
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))),
        }
    }
}

const PCI_FILES: &[&str] = &[
    "class",
    "device",
    "enable",
    "numa_node",
    "subsystem_device",
    "subsystem_vendor",
    "uevent",
    "vendor",
];

const PF_FILES: &[&str] = &[
    "sriov_drivers_autoprobe",
    "sriov_numvfs",
    "sriov_totalvfs",
    "sriov_vf_device",
];

const NETDEV_FILES: &[&str] = &[
    "addr_len",
    "address",
    "carrier",
    "dev_id",
    "dev_port",
    "flags",
    "ifalias",
    "ifindex",
    "iflink",
    "mtu",
    "operstate",
    "phys_port_name",
    "phys_switch_id",
    "speed",
    "tx_queue_len",
    "type",
    "uevent",
];

/// A path's parts; one that says "here" is none.
fn parts_of(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
}

fn name_of(ifindex: u32) -> Option<String> {
    if_indextoname(ifindex).ok()?.into_string().ok()
}

/// The netdev of a function, while it is in the emulator's namespace.
fn netdev_of(function: &Function) -> Option<String> {
    function.ifindex().and_then(name_of)
}
