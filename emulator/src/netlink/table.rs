//! Functions, found by all that requests name them by: each without looking at the others, so that
//! thousands cost no more apiece than a few.

use super::ethtool::Given;
use super::played::Role;
use crate::port::IfName;
use chanio_model::{ChannelName, Mac, VportId};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

/// What kind of function it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A subfunction, by the number that its owner gave it.
    Sf(u32),
    /// A virtual function, counted from 0.
    Vf(u16),
    /// A macvlan device.
    Macvlan {
        /// Counted from 0.
        number: u16,
        /// IFLA_MACVLAN_MODE.
        mode: u32,
    },
}

/// Whether a function's driver is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It is being configured.
    Inactive,
    /// Its driver will have come by then.
    Probing(Instant),
    /// Its driver is there, and its auxiliary device has this number.
    Attached(u32),
    /// It is in use, but its driver could not make its netdev.
    Detached,
}

/// A function.
#[derive(Clone, Debug)]
pub struct Function {
    /// What kind.
    pub kind: Kind,
    /// The channel that it is.
    pub channel: ChannelName,
    /// Its vport.
    pub vport: VportId,
    /// Its representor's netdev.
    pub representor: u32,
    /// Its address, once somebody has set one.
    pub hw_addr: Option<Mac>,
    /// RoCE is allowed.
    pub roce: bool,
    /// It can be migrated.
    pub migratable: bool,
    /// How many event queues its driver may make.
    pub max_io_eqs: u32,
    /// Queue pairs that its packets are spread over.
    pub used_queues: u16,
    /// Its netdev's name, when it appears.
    pub netdev: IfName,
    /// Its rules that choose queues.
    pub ntuple: Given,
    /// Its netdev's index in the emulator's namespace, where it is or was before it was moved;
    /// none while it waits elsewhere for a driver.
    ifindex: Option<u32>,
    life: Life,
}

impl Function {
    /// One that nobody uses yet.
    pub fn new(kind: Kind, channel: ChannelName, vport: VportId, netdev: IfName) -> Self {
        Self {
            kind,
            channel,
            vport,
            netdev,
            ntuple: Given::new(),
            representor: 0,
            hw_addr: None,
            roce: true,
            migratable: false,
            max_io_eqs: 0,
            used_queues: 1,
            ifindex: None,
            life: Life::Inactive,
        }
    }

    /// Whether it is in use.
    pub fn life(&self) -> Life {
        self.life
    }

    /// It was activated.
    pub fn is_active(&self) -> bool {
        self.life != Life::Inactive
    }

    /// The number of its auxiliary device, while its driver is there.
    pub fn auxiliary(&self) -> Option<u32> {
        match self.life {
            Life::Attached(number) => Some(number),
            _ => None,
        }
    }

    /// Its netdev in the emulator's namespace, while its driver is there.
    pub fn ifindex(&self) -> Option<u32> {
        self.ifindex.filter(|_| self.auxiliary().is_some())
    }
}

/// Numbers from one on, the lowest free one first.
#[derive(Debug)]
struct Numbers {
    free: BTreeSet<u32>,
    next: u32,
}

impl Numbers {
    fn from(next: u32) -> Self {
        Self {
            free: BTreeSet::new(),
            next,
        }
    }

    fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn give_back(&mut self, number: u32) {
        self.free.insert(number);
    }
}

/// All functions, by devlink's index of their port.
#[derive(Debug)]
pub struct Functions {
    by_port: BTreeMap<u32, Function>,
    by_kind: HashMap<Kind, u32>,
    by_netdev: HashMap<u32, Role>,
    by_auxiliary: BTreeMap<u32, u32>,
    /// Whose drivers are coming, in the order in which they were asked to.
    probing: VecDeque<(Instant, u32)>,
    sf_ports: Numbers,
    auxiliaries: Numbers,
}

impl Functions {
    /// None yet; the ports of subfunctions count from `first_sf_port`.
    pub fn new(first_sf_port: u32) -> Self {
        Self {
            by_port: BTreeMap::new(),
            by_kind: HashMap::new(),
            by_netdev: HashMap::new(),
            by_auxiliary: BTreeMap::new(),
            probing: VecDeque::new(),
            sf_ports: Numbers::from(first_sf_port),
            // The physical function's own are before.
            auxiliaries: Numbers::from(2),
        }
    }

    /// The function behind a port.
    pub fn get(&self, port: u32) -> Option<&Function> {
        self.by_port.get(&port)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, port: u32) -> Option<&mut Function> {
        self.by_port.get_mut(&port)
    }

    /// The port of a function.
    pub fn port_of(&self, kind: Kind) -> Option<u32> {
        self.by_kind.get(&kind).copied()
    }

    /// What a netdev is to a function.
    pub fn role(&self, ifindex: u32) -> Option<Role> {
        self.by_netdev.get(&ifindex).copied()
    }

    /// The port of the function with this auxiliary device.
    pub fn with_auxiliary(&self, number: u32) -> Option<u32> {
        self.by_auxiliary.get(&number).copied()
    }

    /// All, by their ports.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Function)> {
        self.by_port
            .iter()
            .map(|(port, function)| (*port, function))
    }

    /// Those whose ports are in the range.
    pub fn range(&self, ports: std::ops::Range<u32>) -> impl Iterator<Item = (u32, &Function)> {
        self.by_port
            .range(ports)
            .map(|(port, function)| (*port, function))
    }

    /// The subfunctions that have auxiliary devices, by these.
    pub fn with_auxiliaries(&self) -> impl Iterator<Item = (u32, &Function)> {
        let found = self.by_auxiliary.iter();
        found.filter_map(|(number, port)| Some((*number, self.get(*port)?)))
    }

    /// A port for a new subfunction; the lowest that none has.
    pub fn take_sf_port(&mut self) -> u32 {
        self.sf_ports.take()
    }

    /// The port that was taken is not used after all.
    pub fn give_sf_port_back(&mut self, port: u32) {
        self.sf_ports.give_back(port);
    }

    /// A new one, whose netdev has this index.
    pub fn insert(&mut self, port: u32, function: Function, ifindex: Option<u32>) {
        self.by_kind.insert(function.kind, port);
        self.by_netdev
            .insert(function.representor, Role::Representor(port));
        self.by_port.insert(port, function);
        self.set_ifindex(port, ifindex);
    }

    /// Takes one out.
    pub fn remove(&mut self, port: u32) -> Option<Function> {
        self.set_life(port, Life::Inactive);
        self.set_ifindex(port, None);
        let function = self.by_port.remove(&port)?;
        self.by_kind.remove(&function.kind);
        self.by_netdev.remove(&function.representor);
        if let Kind::Sf(_) = function.kind {
            self.sf_ports.give_back(port);
        }
        Some(function)
    }

    /// Where a function's netdev is now.
    pub fn set_ifindex(&mut self, port: u32, ifindex: Option<u32>) {
        let Some(function) = self.by_port.get_mut(&port) else {
            return;
        };
        if let Some(old) = std::mem::replace(&mut function.ifindex, ifindex)
            && self.by_netdev.get(&old) == Some(&Role::Function(port))
        {
            self.by_netdev.remove(&old);
        }
        if let Some(new) = ifindex {
            self.by_netdev.insert(new, Role::Function(port));
        }
    }

    fn set_life(&mut self, port: u32, life: Life) {
        let Some(function) = self.by_port.get_mut(&port) else {
            return;
        };
        if let Life::Attached(number) = std::mem::replace(&mut function.life, life) {
            self.by_auxiliary.remove(&number);
            self.auxiliaries.give_back(number);
        }
    }

    /// Nobody uses it any more.
    pub fn deactivate(&mut self, port: u32) {
        self.set_life(port, Life::Inactive);
    }

    /// Its driver will have come by then.
    pub fn await_driver(&mut self, port: u32, at: Instant) {
        self.set_life(port, Life::Probing(at));
        self.probing.push_back((at, port));
    }

    /// Its driver is there; or, without a netdev, is not.
    pub fn driver_came(&mut self, port: u32, ifindex: Option<u32>) {
        self.set_ifindex(port, ifindex);
        let life = match ifindex {
            Some(_) => Life::Attached(self.auxiliaries.take()),
            None => Life::Detached,
        };
        self.set_life(port, life);
        let is_sf = |f: &Function| matches!(f.kind, Kind::Sf(_));
        if let (Life::Attached(number), Some(true)) = (life, self.get(port).map(is_sf)) {
            self.by_auxiliary.insert(number, port);
        }
    }

    /// When the next driver will have come. Every driver takes as long, so the first to be asked
    /// for is the first to come.
    pub fn next_probe(&self) -> Option<Instant> {
        self.probing.front().map(|(at, _)| *at)
    }

    /// The next function whose driver has come by now.
    pub fn next_due(&mut self, now: Instant) -> Option<u32> {
        while let Some((at, port)) = self.probing.front().copied() {
            if at > now {
                return None;
            }
            self.probing.pop_front();
            // It may have been deactivated, or removed, since.
            let waits = self.get(port).map(Function::life) == Some(Life::Probing(at));
            if waits {
                return Some(port);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn function(number: u32) -> Function {
        let channel = format!("pf0sf{number}").parse().unwrap();
        Function {
            representor: 100 + number,
            ..Function::new(
                Kind::Sf(number),
                channel,
                VportId(number),
                format!("s{number}").parse().unwrap(),
            )
        }
    }

    fn add(all: &mut Functions, number: u32) -> u32 {
        let port = all.take_sf_port();
        all.insert(port, function(number), Some(200 + number));
        port
    }

    #[test]
    fn functions_are_found_by_all_their_names_until_they_go() {
        let mut all = Functions::new(0x8000);
        let (one, two) = (add(&mut all, 1), add(&mut all, 2));
        assert_eq!((one, two), (0x8000, 0x8001));
        let now = Instant::now();
        all.await_driver(two, now);
        assert_eq!(all.next_due(now), Some(two));
        all.driver_came(two, Some(202));
        assert_eq!(all.with_auxiliary(2), Some(two));
        assert_eq!(all.port_of(Kind::Sf(2)), Some(two));
        assert_eq!(all.role(102), Some(Role::Representor(two)));
        assert_eq!(all.role(202), Some(Role::Function(two)));
        assert_eq!(all.get(one).unwrap().ifindex(), None, "not to be seen yet");
        all.remove(two).unwrap();
        assert_eq!((all.role(102), all.role(202)), (None, None));
        assert_eq!(
            (all.with_auxiliary(2), all.port_of(Kind::Sf(2))),
            (None, None)
        );
        // The lowest numbers that are free are the next ones.
        assert_eq!(add(&mut all, 3), two);
        all.driver_came(two, Some(203));
        assert_eq!(all.with_auxiliary(2), Some(two));
    }

    #[test]
    fn drivers_come_in_their_order_and_only_to_those_who_wait() {
        let mut all = Functions::new(10);
        let ports: Vec<_> = (1..=3).map(|n| add(&mut all, n)).collect();
        let begin = Instant::now();
        let at = |n: u32| begin + Duration::from_millis(n.into());
        for (n, port) in (1..).zip(&ports) {
            all.await_driver(*port, at(n));
        }
        all.deactivate(ports[0]);
        assert_eq!(all.next_due(at(0)), None);
        assert_eq!(all.next_due(at(2)), Some(ports[1]));
        assert_eq!(all.next_due(at(2)), None);
        assert_eq!(all.next_probe(), Some(at(3)));
        all.remove(ports[2]);
        assert_eq!(all.next_due(at(9)), None);
        assert_eq!(all.next_probe(), None);
    }
}
