//! Netdevs of one network namespace, changed over netlink many at a time.

use super::IfName;
use super::link_watch::{LinkTable, LinkWatch, attribute_u32};
use super::rtnl::{KernelError, Request, Rtnl};
use crate::nic::Refused;
use chanio_model::Mac;
use parking_lot::Mutex;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage,
};
use rustc_hash::FxHashSet;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

/// A change to one netdev, carried out by one message. `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Which.
    pub ifindex: u32,
    /// New name; most kernels want the netdev down for that.
    pub name: Option<IfName>,
    /// A descriptor of the network namespace to move to; the other changes are made there. It has
    /// to stay open until the change was carried out.
    pub netns: Option<RawFd>,
    /// `ifalias`, at most 255 bytes.
    pub alias: Option<String>,
    /// Address.
    pub mac: Option<Mac>,
    /// Bytes.
    pub mtu: Option<u32>,
    /// Administrative state.
    pub up: Option<bool>,
    /// Carrier; for netdevs, such as a TAP, whose driver leaves it to others.
    pub carrier: Option<bool>,
    /// Set: the kernel makes no IPv6 link-local address when the netdev goes up.
    pub no_addr_gen: bool,
}

impl LinkChange {
    /// No change yet to this netdev.
    pub fn new(ifindex: u32) -> Self {
        Self {
            ifindex,
            ..Self::default()
        }
    }

    pub(super) fn message(&self) -> RouteNetlinkMessage {
        let mut link = LinkUnspec::new_with_index(self.ifindex);
        if let Some(name) = &self.name {
            link = link.name(name.as_str());
        }
        if let Some(netns) = self.netns {
            link = link.setns_by_fd(netns);
        }
        if let Some(alias) = &self.alias {
            link = link.alias(alias);
        }
        if let Some(mac) = self.mac {
            link = link.address(mac.0.to_vec());
        }
        if let Some(mtu) = self.mtu {
            link = link.mtu(mtu);
        }
        link = match self.up {
            Some(true) => link.up(),
            Some(false) => link.down(),
            None => link,
        };
        if let Some(carrier) = self.carrier {
            link = link.carrier(carrier);
        }
        if self.no_addr_gen {
            let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
            link = link.append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![inet6]));
        }
        RouteNetlinkMessage::SetLink(link.build())
    }
}

/// The netdevs of the network namespace in which it was opened.
pub struct Netdevs {
    rtnl: Mutex<Rtnl>,
    watch: LinkWatch,
}

impl fmt::Debug for Netdevs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netdevs")
            .field("links", &self.watch.links().len())
            .finish_non_exhaustive()
    }
}

impl Netdevs {
    /// Opens the calling thread's network namespace and starts to watch it.
    ///
    /// # Errors
    /// The system refuses a netlink socket or a thread.
    pub fn open() -> Result<Self, Refused> {
        let open = || {
            Ok(Self {
                rtnl: Mutex::new(Rtnl::open()?),
                watch: LinkWatch::start()?,
            })
        };
        open().map_err(|err: io::Error| Refused::os("opening netlink", err))
    }

    /// The state of netdevs, kept up to date.
    pub fn links(&self) -> &Arc<LinkTable> {
        self.watch.links()
    }

    /// Carries out all changes, also after one was refused; the result has one entry for each, in
    /// order.
    ///
    /// # Errors
    /// The netlink socket fails.
    pub fn apply(&self, changes: &[LinkChange]) -> io::Result<Vec<Result<(), KernelError>>> {
        let request = |change: &LinkChange| Request {
            message: change.message(),
            flags: 0,
        };
        self.rtnl.lock().run(changes.iter().map(request))
    }

    /// Deletes netdevs; those that are gone already are no error.
    ///
    /// Deleting one takes the kernel a grace period or two (tens of milliseconds), so many are
    /// first put into a group of their own, and the group is deleted at once.
    ///
    /// # Errors
    /// The first refusal; the rest is deleted nonetheless.
    pub fn delete(&self, ifindexes: &[u32]) -> io::Result<()> {
        let mut rtnl = self.rtnl.lock();
        let outcomes = if let [one] = ifindexes {
            let link = LinkUnspec::new_with_index(*one).build();
            rtnl.run([Request {
                message: RouteNetlinkMessage::DelLink(link),
                flags: 0,
            }])?
        } else {
            let group = unused_group(&mut rtnl)?;
            let join = ifindexes.iter().map(|ifindex| {
                let link = LinkUnspec::new_with_index(*ifindex)
                    .link_group(group)
                    .build();
                Request {
                    message: RouteNetlinkMessage::SetLink(link),
                    flags: 0,
                }
            });
            let mut outcomes = rtnl.run(join)?;
            let mut all = LinkMessage::default();
            all.attributes.push(LinkAttribute::Group(group));
            let all = Request {
                message: RouteNetlinkMessage::DelLink(all),
                flags: 0,
            };
            outcomes.extend(rtnl.run([all])?);
            outcomes
        };
        let failed = outcomes
            .into_iter()
            .filter_map(Result::err)
            .find(|e| e.errno != libc::ENODEV);
        failed.map_or(Ok(()), |err| Err(err.into()))
    }
}

/// A netdev group that has no member. Nobody else knows the number, and the range is far from what
/// people choose by hand.
fn unused_group(rtnl: &mut Rtnl) -> io::Result<u32> {
    let mut taken = FxHashSet::default();
    rtnl.dump_links(|body| taken.extend(attribute_u32(body, libc::IFLA_GROUP)))?;
    let first = 0x4000_0000 | (std::process::id() << 6);
    Ok((first..)
        .find(|group| !taken.contains(group))
        .unwrap_or(first))
}
