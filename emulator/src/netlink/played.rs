//! The device and who carries out what.

use super::host::Host;
use super::route::{Addresses, Filters};
use super::table::{Functions, Kind};
use super::vendor::{self, Vendor};
use super::{NetlinkConfig, devlink, ethtool};
use crate::nic::{Nic, Refused};
use chanio_model::VportId;
use chanio_model::eswitch::Mode;
use chanio_netlink::attr::{Raw, Writer};
use chanio_netlink::devlink::EncapMode;
use chanio_netlink::genl::{self, Family, FamilyMore, Group, NEW_FAMILY};
use chanio_netlink::kernel::{Client, Kernel, Notification, Refusal, Reply};
use chanio_netlink::message::{Message, NLM_F_DUMP, NLM_F_REQUEST};
use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// NETLINK_ROUTE.
pub const ROUTE: i32 = 0;
/// NETLINK_GENERIC.
pub const GENERIC: i32 = 16;

/// The devlink family's number and that of its group: far above those that the kernel gives, which
/// count from below.
pub const DEVLINK: u16 = 1000;
const DEVLINK_GROUP: u32 = 1000;

/// One NIC as the kernel would have it.
pub struct Played {
    pub(super) nic: Arc<Nic>,
    pub(super) vendor: &'static Vendor,
    pub(super) config: NetlinkConfig,
    pub(super) route: Host,
    pub(super) generic: Host,
    /// The kernel's number of the family `ethtool`, if it has one.
    ethtool: Option<u16>,
    /// The namespace in which the emulator runs.
    pub(super) home: OwnedFd,
    /// Where netdevs are whose functions were deactivated; made with the first.
    pub(super) hidden: Option<OwnedFd>,
    pub(super) functions: Functions,
    pub(super) encap: EncapMode,
    /// devlink's parameters that differ from what they begin with.
    pub(super) params: BTreeMap<&'static str, Vec<u8>>,
    pub(super) filters: Filters,
    pub(super) addresses: Addresses,
    /// The feature l2-fwd-offload of the physical function's netdev is on.
    pub(super) l2_forwarding: bool,
    /// Its number in this kernel.
    pub(super) l2_forwarding_number: Option<u32>,
    told: Vec<Notification>,
}

/// What a netdev of the kernel's is to the NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The physical function's, in switchdev mode the wire's representor.
    Uplink,
    /// A function's representor, by its port.
    Representor(u32),
    /// A representor of a channel that nobody made through this door.
    Other(VportId),
    /// A function's own, by its port.
    Function(u32),
}

impl Played {
    /// Plays the kernel for a NIC, in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Refused::Missing`]: the NIC has no netdev for its wire. [`Refused::Os`].
    pub fn new(nic: Arc<Nic>, config: NetlinkConfig) -> Result<Self, Refused> {
        let info = nic.info();
        if let Err(why) = info.representors {
            return Err(Refused::Missing {
                what: "netlink: the netdevs of the PCI device".into(),
                why,
            });
        }
        let os = |error| Refused::os("netlink: a socket to the kernel", error);
        let mut generic = Host::open(GENERIC).map_err(os)?;
        let family = family_number(&mut generic, chanio_netlink::ethtool::FAMILY);
        let l2_forwarding_number =
            family.and_then(|family| ethtool::l2_forwarding_number(&mut generic, family));
        let home = File::open("/proc/thread-self/ns/net");
        let vendor = vendor::of(info.profile);
        Ok(Self {
            vendor,
            config,
            route: Host::open(ROUTE).map_err(os)?,
            generic,
            ethtool: family,
            home: home.map_err(os)?.into(),
            hidden: None,
            functions: Functions::new(vendor.first_sf_port),
            encap: EncapMode::Basic,
            params: BTreeMap::new(),
            filters: Filters::default(),
            addresses: Addresses::new(),
            l2_forwarding: false,
            l2_forwarding_number,
            told: Vec::new(),
            nic,
        })
    }

    /// Whether the switch is in switchdev mode.
    pub fn switchdev(&self) -> bool {
        self.nic.eswitch().mode == Mode::Switchdev
    }

    /// The netdev of the physical function.
    pub fn uplink(&self) -> Option<u32> {
        self.nic.netdev_of(VportId::UPLINK)
    }

    /// What a netdev is that is the NIC's.
    pub fn role(&self, ifindex: u32) -> Option<Role> {
        let of_function = self.functions.role(ifindex);
        of_function.or_else(|| {
            let vport = self.nic.vport_by_netdev(ifindex)?;
            Some(match vport.is_uplink() {
                true => Role::Uplink,
                false => Role::Other(vport),
            })
        })
    }

    /// The same of one that can be seen.
    pub fn visible_role(&self, ifindex: u32) -> Option<Role> {
        self.role(ifindex).filter(|role| !self.is_hidden(*role))
    }

    /// Whether the kernel has a netdev that there would not be: a driver in legacy mode has made
    /// no representors, and one that has not come no netdev.
    pub fn is_hidden(&self, role: Role) -> bool {
        match role {
            Role::Representor(_) => !self.switchdev(),
            Role::Function(port) => {
                let function = self.functions.get(port);
                function.is_none_or(|function| function.ifindex().is_none())
            }
            Role::Uplink | Role::Other(_) => false,
        }
    }

    /// The netdevs that are the NIC's and can be seen, by their index.
    pub fn visible_netdevs(&self) -> BTreeMap<u32, Role> {
        let representors = self.nic.representors();
        let representors = representors.iter().map(|r| r.ifindex);
        let functions = self.functions.iter().filter_map(|(_, f)| f.ifindex());
        let all = representors.chain(functions);
        all.filter_map(|ifindex| Some((ifindex, self.visible_role(ifindex)?)))
            .collect()
    }

    /// The mode of a macvlan device.
    pub fn macvlan_mode(&self, role: Role) -> Option<u32> {
        let Role::Function(port) = role else {
            return None;
        };
        match self.functions.get(port)?.kind {
            Kind::Macvlan { mode, .. } => Some(mode),
            Kind::Sf(_) | Kind::Vf(_) => None,
        }
    }

    /// phys_port_name (net/devlink/port.c: __devlink_port_phys_port_name_get).
    pub fn phys_port_name(&self, role: Role) -> Option<String> {
        Some(match role {
            Role::Uplink => "p0".to_owned(),
            Role::Other(vport) => format!("pf0sf{vport}"),
            Role::Representor(port) => match self.functions.get(port)?.kind {
                Kind::Sf(number) => format!("pf0sf{number}"),
                Kind::Vf(number) => format!("pf0vf{number}"),
                Kind::Macvlan { .. } => return None,
            },
            Role::Function(_) => return None,
        })
    }

    /// phys_switch_id: eight bytes that all ports of one NIC share, and no other NIC's.
    pub fn switch_id(&self) -> [u8; 8] {
        let mut hasher = DefaultHasher::new();
        self.nic.info().run_dir.hash(&mut hasher);
        hasher.finish().to_be_bytes()
    }

    /// Members of devlink's group are told.
    pub fn tell_devlink(&mut self, message: Message) {
        self.told.push(Notification {
            protocol: GENERIC,
            group: DEVLINK_GROUP,
            message,
        });
    }

    /// Members of a group of rtnetlink's are told.
    pub fn tell_route(&mut self, group: u32, message: Message) {
        self.told.push(Notification {
            protocol: ROUTE,
            group,
            message,
        });
    }

    /// The controller of generic netlink: our families, and the kernel's others.
    fn family(&mut self, client: &Client, request: &Message) -> Result<Reply, Refusal> {
        let asked = Family::parse(&request.payload)?;
        if asked.header.command != genl::GET_FAMILY {
            return self.generic.ask(request, client.strict);
        }
        let ours = [devlink_family()?];
        if request.flags & NLM_F_DUMP == NLM_F_DUMP {
            let mut all = Vec::new();
            for family in &ours {
                all.push(family.message(0)?);
            }
            let is_ours = |message: &Message| {
                Family::parse(&message.payload)
                    .is_ok_and(|f| ours.iter().any(|o| o.more.name == f.more.name))
            };
            if let Reply::Dump(others) = self.generic.ask(request, client.strict)? {
                all.extend(others.into_iter().filter(|message| !is_ours(message)));
            }
            return Ok(Reply::Dump(all));
        }
        let is_it = |family: &&Family| {
            family.more.name == asked.more.name || family.more.id == asked.more.id
        };
        match ours.iter().find(is_it) {
            Some(family) => Ok(Reply::Answers(vec![family.message(0)?])),
            None => self.generic.ask(request, client.strict),
        }
    }
}

/// The kernel's number of a generic family.
fn family_number(generic: &mut Host, name: &str) -> Option<u16> {
    let request = Family::named(name).message(NLM_F_REQUEST).ok()?;
    match generic.ask(&request, false).ok()? {
        Reply::Answers(answers) | Reply::Dump(answers) => {
            Family::parse(&answers.first()?.payload).ok()?.more.id
        }
    }
}

fn devlink_family() -> Result<Family, Refusal> {
    Ok(Family {
        header: genl::Header {
            command: NEW_FAMILY,
            version: 2,
        },
        more: FamilyMore {
            id: Some(DEVLINK),
            name: Some(chanio_netlink::devlink::FAMILY.to_owned()),
            version: Some(chanio_netlink::devlink::VERSION.into()),
            header_size: Some(0),
            max_attr: Some(u32::from(devlink::HIGHEST_ATTRIBUTE)),
        },
        groups: vec![Group {
            name: Some(chanio_netlink::devlink::CONFIG_GROUP.to_owned()),
            id: Some(DEVLINK_GROUP),
        }],
        unknown: operations(devlink::COMMANDS)?,
    })
}

/// CTRL_ATTR_OPS: what each command takes.
fn operations(commands: &[(u16, u32)]) -> Result<Vec<Raw>, Refusal> {
    /// CTRL_ATTR_OP_ID and CTRL_ATTR_OP_FLAGS.
    const ID: u16 = 1;
    const FLAGS: u16 = 2;
    /// NLA_F_NESTED.
    const NESTED: u16 = 0x8000;
    let mut out = Writer::new();
    for (place, (command, flags)) in (1u16..).zip(commands) {
        out.nest(place, |out| {
            out.put(ID, &u32::from(*command));
            out.put(FLAGS, flags);
        });
    }
    Ok(vec![Raw {
        kind: genl::ctrl::OPS | NESTED,
        value: out.finish()?,
    }])
}

impl Kernel for Played {
    fn plays(&self, protocol: i32) -> bool {
        [ROUTE, GENERIC].contains(&protocol)
    }

    fn request(&mut self, client: &Client, request: &Message) -> Result<Reply, Refusal> {
        match (client.protocol, request.kind) {
            (ROUTE, _) => self.route_request(client, request),
            (GENERIC, genl::CONTROLLER) => self.family(client, request),
            (GENERIC, DEVLINK) => self.devlink_request(request),
            (GENERIC, kind) if Some(kind) == self.ethtool => self.ethtool_request(client, request),
            (GENERIC, _) => self.generic.ask(request, client.strict),
            _ => Err(Refusal::errno(libc::EPROTONOSUPPORT)),
        }
    }

    fn notifications(&mut self) -> Vec<Notification> {
        std::mem::take(&mut self.told)
    }
}
