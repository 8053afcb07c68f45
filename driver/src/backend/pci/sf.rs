//! Subfunctions: a port is added, its function configured and activated, and when its driver has
//! come (Documentation/networking/devlink/devlink-port.rst) its netdev is moved to the container.

use super::super::container::{self, Inside};
use super::super::ethtool::{On, set_queues};
use super::super::link::Link;
use super::super::route::Route;
use super::super::rss;
use super::super::sysfs::{netdevs, read_number};
use super::super::undo::Undo;
use super::super::wanted::{Place, Wanted, check_mac, check_mtu, invalid};
use super::Pci;
use super::state::{PciChannel, State};
use crate::nic::ChannelChange;
use crate::transport::TransportError;
use crate::{DeviceError, transport::Netns};
use chanio_netlink::attr::Bitfield32;
use chanio_netlink::devlink::{
    Flavour, FunctionState, OperationalState, Port, capability, command,
};
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A notification can be lost: how long one is waited for before looking again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Where auxiliary devices are.
const AUXILIARY: &str = "/sys/bus/auxiliary/devices";

impl Pci {
    /// Makes subfunctions; what was made is undone by `undo`.
    pub(super) fn add_sfs(
        &mut self,
        state: &State,
        wanted: &[Wanted],
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        let taken: HashSet<u32> = state.sf_numbers.iter().copied().collect();
        let free = (1..).filter(|number| !taken.contains(number));
        let mut ports = Vec::with_capacity(wanted.len());
        for (channel, number) in wanted.iter().zip(free) {
            let port = self.add_port(number, undo)?;
            let index = self.configure(&port, channel)?;
            ports.push((index, number));
        }
        // All of them come at once: their drivers need not wait for each other.
        let until = Instant::now() + self.transport.patience();
        for (port, number) in &ports {
            self.wait_attached(*port, *number, until)?;
        }
        let mut devices = HashMap::new();
        for ((_, number), channel) in ports.iter().zip(wanted) {
            let link = self.wait_netdev(*number, &mut devices, until)?;
            self.move_inside(&link, channel, undo)?;
        }
        Ok(())
    }

    /// A new port, which has an index.
    fn add_port(&mut self, number: u32, undo: &mut Undo<Self>) -> Result<Port, DeviceError> {
        let step = format!("adding subfunction {number}");
        let mut asked = self.devlink.about(command::PORT_NEW);
        asked.port = Port {
            flavour: Some(Flavour::PciSf),
            pf: Some(self.pf_number()),
            sf: Some(number),
            ..Port::default()
        };
        let made = self.devlink.ask(&asked).map_err(|e| e.at(&step))?;
        let ports = made.into_iter().map(|told| told.port);
        let mut ports = ports.filter(|port| port.sf == Some(number));
        let made = ports.find_map(|port| Some((port.index?, port)));
        let (index, port) = made.ok_or_else(|| DeviceError::Refused {
            reason: format!("{step}: the kernel does not tell which port it is"),
        })?;
        undo.push(
            format!("removing subfunction {number}"),
            move |pci: &mut Self| pci.del_port(index),
        );
        Ok(port)
    }

    /// The function's number in the slot.
    fn pf_number(&self) -> u16 {
        let function = self.device.name.rsplit('.').next();
        let number = function.and_then(|text| u16::from_str_radix(text, 16).ok());
        number.unwrap_or(0)
    }

    fn del_port(&mut self, index: u32) -> Result<(), DeviceError> {
        let mut asked = self.devlink.about(command::PORT_DEL);
        asked.port.index = Some(index);
        let done = self.devlink.ask(&asked);
        done.map(drop)
            .map_err(|e| e.at("removing a subfunction's port"))
    }

    /// Sets all that has to be set before its driver comes, and lets it come. Its index.
    fn configure(&mut self, made: &Port, wanted: &Wanted) -> Result<u32, DeviceError> {
        let port = made.index.unwrap_or_default();
        let mac = wanted.mac.0.to_vec();
        let set = self
            .devlink
            .set_function(port, |function| function.hw_addr = Some(mac));
        set.map_err(|e| e.at("setting the subfunction's hw_addr"))?;
        let queues = u32::from(wanted.queues);
        let set = self
            .devlink
            .set_function(port, |function| function.max_io_eqs = Some(queues));
        match set {
            // Kernels before 6.12, and drivers without it: the number of queues is then set, or
            // found to be another, once there is a netdev.
            Err(error) if error.is(libc::EOPNOTSUPP) || error.is(libc::EINVAL) => {}
            set => set.map_err(|e| e.at("setting the subfunction's max_io_eqs"))?,
        }
        if let Some(roce) = wanted.roce {
            let set = self.devlink.set_function(port, |function| {
                function.capabilities = Some(Bitfield32 {
                    value: if roce { capability::ROCE } else { 0 },
                    selector: capability::ROCE,
                });
            });
            set.map_err(|e| e.at("setting the subfunction's roce"))?;
        }
        let representor = match made.netdev_ifindex {
            Some(index) => index,
            None => self.representor_of(port)?,
        };
        let change = LinkUnspec::new_with_index(representor)
            .alias(wanted.name.as_str())
            .mtu(wanted.mtu)
            .up()
            .build();
        self.route
            .set(change)
            .map_err(|e| e.at("setting up the representor"))?;
        let state = FunctionState::Active;
        let set = self
            .devlink
            .set_function(port, |function| function.state = Some(state));
        set.map_err(|e| e.at("activating the subfunction"))?;
        Ok(port)
    }

    /// Whether a channel may do RDMA over Ethernet, where that is told.
    pub(super) fn roce(&self, channel: &PciChannel) -> Option<bool> {
        let caps = channel.function.capabilities?;
        let told = caps.selector & capability::ROCE != 0;
        told.then_some(caps.value & capability::ROCE != 0)
    }

    /// The index of a port's netdev, which comes a little after the port.
    fn representor_of(&mut self, port: u32) -> Result<u32, DeviceError> {
        let until = Instant::now() + self.transport.patience();
        loop {
            let told = self
                .devlink
                .port(port)
                .map_err(|e| e.at("asking for a port"))?;
            if let Some(index) = told.netdev_ifindex {
                return Ok(index);
            }
            if Instant::now() >= until {
                return Err(self.late(&format!("the representor of port {port}")));
            }
            self.wait(until)?;
        }
    }

    fn late(&self, what: &str) -> DeviceError {
        let patience = self.transport.patience();
        DeviceError::Refused {
            reason: format!("{what} did not come within {} ms", patience.as_millis()),
        }
    }

    pub(super) fn wait(&mut self, until: Instant) -> Result<(), DeviceError> {
        let next = until.min(Instant::now() + LOOK_AGAIN);
        self.devlink
            .wait(next)
            .map_err(|e| e.at("waiting for notifications"))
    }

    /// Waits for the subfunction's driver.
    fn wait_attached(&mut self, port: u32, number: u32, until: Instant) -> Result<(), DeviceError> {
        loop {
            // What was told before does not tell of what comes.
            self.devlink.forget();
            let told = self
                .devlink
                .port(port)
                .map_err(|e| e.at("asking for a port"))?;
            let state = told
                .function
                .and_then(|function| function.operational_state);
            if state == Some(OperationalState::Attached) {
                return Ok(());
            }
            if Instant::now() >= until {
                let what = format!("the driver of subfunction {number} (port {port})");
                return Err(self.late(&what));
            }
            self.wait(until)?;
        }
    }

    /// The devices of subfunctions on the auxiliary bus, by the subfunctions' numbers.
    pub(super) fn auxiliaries(&self) -> Result<HashMap<u32, String>, DeviceError> {
        let step = |what: &str| format!("{what} {AUXILIARY}");
        let names = match self.transport.list(AUXILIARY.as_ref()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            names => names.map_err(|e| TransportError::from(e).at(&step("listing")))?,
        };
        let mut found = HashMap::new();
        // mlx5_core.sf.2, ice.sf.0
        for name in names.into_iter().filter(|name| name.contains(".sf.")) {
            let path = Path::new(AUXILIARY).join(&name);
            let target = match self.transport.link_target(&path) {
                // It goes meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                target => target.map_err(|e| TransportError::from(e).at(&step("following")))?,
            };
            let mut parts = target.components();
            if !parts.any(|part| part.as_os_str() == &*self.device.name) {
                continue;
            }
            let number = read_number(&*self.transport, &path.join("sfnum"))?;
            found.extend(number.map(|number| (number, name)));
        }
        Ok(found)
    }

    /// The subfunction's netdev, which its driver makes. `known` are the auxiliary devices as they
    /// were when it was last looked.
    fn wait_netdev(
        &mut self,
        number: u32,
        known: &mut HashMap<u32, String>,
        until: Instant,
    ) -> Result<Link, DeviceError> {
        loop {
            if !known.contains_key(&number) {
                *known = self.auxiliaries()?;
            }
            let names = match known.get(&number) {
                Some(device) => netdevs(&*self.transport, &Path::new(AUXILIARY).join(device))?,
                None => Vec::new(),
            };
            if let Some(name) = names.first() {
                let link = self.route.link_named(name);
                let link = link.map_err(|e| e.at("finding the subfunction's netdev"))?;
                if let Some(link) = link {
                    return Ok(link);
                }
            }
            if Instant::now() >= until {
                return Err(self.late(&format!("the netdev of subfunction {number}")));
            }
            self.wait(until)?;
        }
    }

    /// Gives a function's netdev its queues and moves it to the container, under its name there.
    pub(super) fn move_inside(
        &mut self,
        link: &Link,
        wanted: &Wanted,
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        let here = On::Here(&link.name);
        set_queues(&*self.transport, here, link.tx_queues, wanted.queues)?;
        let place = wanted.place()?;
        let netns = Netns::open(&place.netns)?;
        let change = moved(link.index, wanted, place, self.route.netns_number(&netns));
        let whose = format!("netdev `{}` to netns `{}`", link.name, netns.name());
        let done = self
            .route
            .set_with(change, std::os::fd::AsFd::as_fd(&netns));
        done.map_err(|error| match error.is(libc::EEXIST) {
            true => invalid(
                "attach",
                format!("netdev `{}` in netns `{}`", place.ifname, netns.name()),
                "a name that no netdev there has yet",
            ),
            false => error.at(&format!("moving {whose}")),
        })?;
        if !place.addresses.is_empty() {
            container::bring_up(&*self.transport, place)?;
        }
        let Some(spread) = &wanted.rss else {
            return Ok(());
        };
        let mut there = Route::open_in(&*self.transport, &netns)?;
        let link = there.link_named(place.ifname.as_str());
        let link = link.map_err(|e| e.at("finding the channel's netdev"))?;
        let inside = Arc::new(Inside {
            netns: place.netns.clone(),
            link: link.unwrap_or_default(),
        });
        let transport = self.transport.clone();
        rss::change(&transport, &inside, spread, wanted.queues.into(), undo)
    }

    /// Removes subfunctions.
    pub(super) fn del_sfs(&mut self, gone: &[PciChannel]) -> Result<(), DeviceError> {
        for channel in gone {
            self.del_port(channel.index.unwrap_or_default())?;
        }
        Ok(())
    }

    /// Changes a subfunction: its address, which is its netdev's as well, and its MTU.
    pub(super) fn change_sf(
        &mut self,
        channel: &PciChannel,
        change: &ChannelChange,
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        let mac = change.mac.as_deref().map(check_mac).transpose()?;
        change.mtu.map(check_mtu).transpose()?;
        let mut found = [channel.clone()];
        self.find_inside(&mut found)?;
        let [channel] = found;
        if let (Some(mac), Some(port)) = (mac, channel.index) {
            let old = channel.function.hw_addr.clone();
            let step = "setting the subfunction's hw_addr";
            let set = |addr: Vec<u8>| {
                move |function: &mut chanio_netlink::devlink::Function| {
                    function.hw_addr = Some(addr);
                }
            };
            let done = self.devlink.set_function(port, set(mac.0.to_vec()));
            done.map_err(|e| e.at(step))?;
            if let Some(old) = old {
                undo.push(step, move |pci: &mut Self| {
                    pci.devlink
                        .set_function(port, set(old))
                        .map_err(|e| e.at(step))
                });
            }
        }
        self.change_inside(&channel, mac, change.mtu, undo)
    }
}

/// All that one message can do: to the other namespace, under the name wanted there, and up, unless
/// it is to have addresses first.
fn moved(index: u32, wanted: &Wanted, place: &Place, netns: LinkAttribute) -> LinkMessage {
    let change = LinkUnspec::new_with_index(index)
        .name(place.ifname.as_str())
        .address(wanted.mac.0.to_vec())
        .mtu(wanted.mtu)
        .append_extra_attribute(netns);
    match place.addresses.is_empty() {
        true => change.up().build(),
        false => change.build(),
    }
}
