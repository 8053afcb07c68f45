//! A channel as a netdev in a container's network namespace: a multi-queue TAP whose queues the
//! emulator holds. The container sees a plain netdev, nothing of the switch; what it may send is
//! for the switch to decide (a container with CAP_NET_ADMIN can change its netdev's address).

use super::link_watch::{attribute, attribute_u32};
use super::netdev::LinkChange;
use super::netns::{self, inside, no_entry};
use super::rtnl::{Request, Rtnl};
use super::{IfName, Steering, Tap};
use crate::nic::Refused;
use chanio_model::Mac;
use ipnet::IpNet;
use nix::net::if_::if_nametoindex;
use rtnetlink::AddressMessageBuilder;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The netdev to be made.
#[derive(Clone, Debug)]
pub struct TapSpec<'a> {
    /// A name as in `ip netns`, or an absolute path such as /proc/PID/ns/net.
    pub netns: &'a str,
    /// Its name in there.
    pub ifname: &'a IfName,
    /// Queue pairs, 1 to 256.
    pub queues: u16,
    /// Its address.
    pub mac: Mac,
    /// Bytes, 68 to 65,521.
    pub mtu: u32,
    /// Its IP addresses.
    pub addresses: &'a [IpNet],
    /// Its carrier to begin with.
    pub carrier: bool,
    /// Administratively; left down, it has none of the addresses either.
    pub up: bool,
}

/// A netdev in a namespace, held by its queues: when this is dropped, it is gone.
#[derive(Debug)]
pub struct Attached {
    /// One for each queue pair. They work from any namespace.
    pub queues: Vec<Tap>,
    /// The netdev's index in its namespace.
    pub ifindex: u32,
    /// Which of them a packet goes to.
    pub steering: Steering,
}

/// Makes the netdev, up and with its addresses, or leaves nothing behind.
///
/// It is made in the calling thread's namespace and then moved: queues belong to the namespace in
/// which they were opened and keep it alive, and a container's has to be able to go.
///
/// # Errors
/// [`Refused::Invalid`]: no such namespace, or a netdev of this name exists there; too many
/// queues. [`Refused::Missing`]: a privilege. [`Refused::Os`]: the kernel does not like the MTU or
/// an address.
pub fn attach(spec: &TapSpec<'_>) -> Result<Attached, Refused> {
    let netns = netns::open(spec.netns)?;
    let taken = || Refused::Invalid {
        field: "attach",
        value: format!("netdev `{}` in netns `{}`", spec.ifname, spec.netns),
        allowed: "a name that no netdev there has yet".into(),
    };
    let queues = match netns::is_here(netns.as_fd()) {
        false => Tap::create_unnamed(spec.queues)?,
        true => match Tap::create_queues(spec.ifname.as_str(), spec.queues) {
            Err(Refused::Invalid {
                field: "netdev", ..
            }) => return Err(taken()),
            made => made?,
        },
    };
    // A socket of this namespace, also when it is used from the other one.
    let mut outside = Rtnl::open().map_err(|e| step_failed(spec, "making netdev", e))?;
    let link = prepare(&queues, &netns, spec)?;
    let ifindex = inside(netns.as_fd(), spec.netns, || {
        let moved = outside.run_one(link.message());
        moved.map_err(|err| match err.errno {
            libc::EEXIST => taken(),
            libc::EPERM => no_entry(spec.netns),
            _ => step_failed(spec, "setting MAC and MTU of netdev", err),
        })?;
        match spec.up {
            true => bring_up(spec),
            false => index_of(spec),
        }
    })?;
    Ok(Attached {
        queues,
        ifindex,
        steering: Steering::default(),
    })
}

impl Attached {
    /// Changes the netdev, wherever it is now and whatever its name.
    ///
    /// # Errors
    /// [`Refused::Os`]: the netdev is gone, or the kernel refuses.
    pub fn change(&self, mac: Option<Mac>, mtu: Option<u32>) -> Result<(), Refused> {
        let os = |err: io::Error| Refused::os("changing the netdev in its namespace", err);
        let Some(queue) = self.queues.first() else {
            return Ok(());
        };
        // Asked anew, because holding a namespace open would keep it alive, and because the
        // netdev may have been moved.
        let netns = queue.netns().map_err(os)?;
        inside(netns.as_fd(), "of the netdev", || {
            let ifindex = if_nametoindex(queue.name().map_err(os)?.as_str());
            let ifindex = ifindex.map_err(|e| os(e.into()))?;
            let change = LinkChange {
                mac,
                mtu,
                ..LinkChange::new(ifindex)
            };
            let mut rtnl = Rtnl::open().map_err(os)?;
            rtnl.run_one(change.message()).map_err(|e| os(e.into()))
        })
    }

    /// The netdev's address and MTU, wherever it is now.
    ///
    /// # Errors
    /// [`Refused::Os`]: the netdev is gone.
    pub fn settings(&self) -> Result<(Mac, u32), Refused> {
        let os = |err: io::Error| Refused::os("looking at the netdev in its namespace", err);
        let gone = || os(io::Error::from_raw_os_error(libc::ENODEV));
        let queue = self.queues.first().ok_or_else(gone)?;
        let netns = queue.netns().map_err(os)?;
        inside(netns.as_fd(), "of the netdev", || {
            let name = queue.name().map_err(os)?;
            let mut rtnl = Rtnl::open().map_err(os)?;
            let mut found = None;
            let of = |body: &[u8]| {
                let named =
                    |text: &[u8]| (text.strip_suffix(&[0])? == name.as_bytes()).then_some(());
                if attribute(body, libc::IFLA_IFNAME, named).is_some() {
                    let mac = |bytes: &[u8]| bytes.try_into().ok().map(Mac);
                    let mac = attribute(body, libc::IFLA_ADDRESS, mac);
                    found = mac.zip(attribute_u32(body, libc::IFLA_MTU));
                }
            };
            rtnl.dump_links(of).map_err(os)?;
            found.ok_or_else(gone)
        })
    }

    /// Moves the netdev from wherever it is now to another namespace, where it is down and has this
    /// name. Returns its index there.
    ///
    /// # Errors
    /// [`Refused::Os`]: the netdev is gone, the name is taken there, or the kernel refuses.
    pub fn move_to(&self, netns: BorrowedFd<'_>, name: &IfName) -> Result<u32, Refused> {
        let os = |err: io::Error| Refused::os("moving the netdev to another namespace", err);
        let gone = || os(io::Error::from_raw_os_error(libc::ENODEV));
        let queue = self.queues.first().ok_or_else(gone)?;
        let from = queue.netns().map_err(os)?;
        inside(from.as_fd(), "of the netdev", || {
            let ifindex = if_nametoindex(queue.name().map_err(os)?.as_str());
            let change = LinkChange {
                netns: Some(netns.as_raw_fd()),
                name: Some(name.clone()),
                // What moves is closed on the way, but a rename comes before that.
                up: Some(false),
                ..LinkChange::new(ifindex.map_err(|e| os(e.into()))?)
            };
            let mut rtnl = Rtnl::open().map_err(os)?;
            rtnl.run_one(change.message()).map_err(|e| os(e.into()))
        })?;
        inside(netns, "that it moves to", || {
            let ifindex = if_nametoindex(name.as_str());
            ifindex.map_err(|e| os(e.into()))
        })
    }

    /// Carrier of the netdev.
    ///
    /// # Errors
    /// The system's, `EBADFD` when the netdev is gone.
    pub fn set_carrier(&self, up: bool) -> io::Result<()> {
        self.queues
            .first()
            .map_or(Ok(()), |queue| queue.set_carrier(up))
    }
}

/// The failure of a step with the netdev.
fn step_failed(spec: &TapSpec<'_>, step: &str, err: impl Into<io::Error>) -> Refused {
    Refused::os(
        format!("{step} `{}` in netns `{}`", spec.ifname, spec.netns),
        err,
    )
}

/// All that one message can do: to the other namespace, under the name wanted there.
fn prepare(queues: &[Tap], netns: &OwnedFd, spec: &TapSpec<'_>) -> Result<LinkChange, Refused> {
    let failed = |err: io::Error| step_failed(spec, "making netdev", err);
    let name = queues
        .first()
        .map_or(Ok(String::new()), Tap::name)
        .map_err(failed)?;
    let ifindex = if_nametoindex(name.as_str()).map_err(|e| failed(e.into()))?;
    Ok(LinkChange {
        name: Some(spec.ifname.clone()),
        netns: Some(netns.as_raw_fd()),
        mac: Some(spec.mac),
        mtu: Some(spec.mtu),
        carrier: Some(spec.carrier),
        ..LinkChange::new(ifindex)
    })
}

/// The netdev's index in the calling thread's namespace.
fn index_of(spec: &TapSpec<'_>) -> Result<u32, Refused> {
    if_nametoindex(spec.ifname.as_str()).map_err(|e| step_failed(spec, "finding netdev", e))
}

/// In the namespace: addresses, and up. Returns the netdev's index there.
fn bring_up(spec: &TapSpec<'_>) -> Result<u32, Refused> {
    let ifindex = index_of(spec)?;
    let addresses = spec.addresses.iter().map(|address| Request {
        message: address_message(ifindex, *address),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    });
    let up = LinkChange {
        up: Some(true),
        ..LinkChange::new(ifindex)
    };
    let up = Request {
        message: up.message(),
        flags: 0,
    };
    let outcomes = Rtnl::open()
        .and_then(|mut rtnl| rtnl.run(addresses.chain([up])))
        .map_err(|e| step_failed(spec, "setting up netdev", e))?;
    let adding = |address| format!("adding address {address} to netdev");
    let mut steps = spec.addresses.iter().map(adding);
    for outcome in outcomes {
        let step = steps.next();
        let step = step.as_deref().unwrap_or("bringing up netdev");
        outcome.map_err(|e| step_failed(spec, step, e))?;
    }
    Ok(ifindex)
}

/// The message that gives a netdev an address.
pub fn address_message(ifindex: u32, address: IpNet) -> RouteNetlinkMessage {
    let prefix = address.prefix_len();
    RouteNetlinkMessage::NewAddress(match address {
        IpNet::V4(net) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(ifindex)
            .address(net.addr(), prefix)
            .build(),
        IpNet::V6(net) => AddressMessageBuilder::<Ipv6Addr>::new()
            .index(ifindex)
            .address(net.addr(), prefix)
            .build(),
    })
}
