//! Netdevs in containers' namespaces.

use super::link::Link;
use super::route::Route;
use super::undo::Undo;
use super::wanted::Place;
use crate::DeviceError;
use crate::transport::{Netns, Protocol, Session, Transport, TransportError};
use chanio_model::Mac;
use rtnetlink::LinkUnspec;
use std::io::ErrorKind::{InvalidInput, PermissionDenied};

/// In the namespace: the netdev's addresses, and up.
pub(super) fn bring_up(transport: &dyn Transport, wanted: &Place) -> Result<(), DeviceError> {
    let mut inside = Route::open_in(transport, &Netns::open(&wanted.netns)?)?;
    let whose = format!("netdev `{}` in netns `{}`", wanted.ifname, wanted.netns);
    let link = inside.link_named(wanted.ifname.as_str());
    let link = link.map_err(|e| e.at(&format!("finding {whose}")))?;
    let link = link.ok_or_else(|| DeviceError::Refused {
        reason: format!("{whose} is gone"),
    })?;
    for address in &wanted.addresses {
        let step = format!("adding address {address} to {whose}");
        let added = inside.add_address(link.index, *address);
        added.map_err(|e| e.at(&step))?;
    }
    let up = LinkUnspec::new_with_index(link.index).up().build();
    inside
        .set(up)
        .map_err(|e| e.at(&format!("bringing up {whose}")))
}

/// A netdev in a container, as far as its namespace has a name.
#[derive(Debug)]
pub(super) struct Inside {
    /// As `ip netns` has it.
    pub(super) netns: String,
    pub(super) link: Link,
}

impl Inside {
    /// Where it is, as `channel add --attach` has it.
    pub(super) fn attach(&self) -> String {
        attach(Some(&self.netns), Some(&self.link.name))
    }
}

/// Changes a netdev in a container.
pub(super) fn change<C>(
    transport: &dyn Transport,
    at: &Inside,
    mac: Option<Mac>,
    mtu: Option<u16>,
    undo: &mut Undo<C>,
) -> Result<(), DeviceError> {
    let step = format!("changing netdev `{}` in netns `{}`", at.link.name, at.netns);
    let mut inside = Route::open_in(transport, &Netns::open(&at.netns)?)?;
    let link = || LinkUnspec::new_with_index(at.link.index);
    let (mut new, mut back) = (link(), link());
    if let Some(mac) = mac {
        (new, back) = (
            new.address(mac.0.to_vec()),
            back.address(at.link.mac.0.to_vec()),
        );
    }
    if let Some(mtu) = mtu {
        (new, back) = (new.mtu(mtu.into()), back.mtu(at.link.mtu));
    }
    inside.set(new.build()).map_err(|e| e.at(&step))?;
    let back = back.build();
    undo.push(step, move |_| {
        inside.set(back).map_err(|e| e.at("changing it back"))
    });
    Ok(())
}

/// Where a channel's netdev is, as `channel add --attach` has it; `?` for what cannot be told.
pub(super) fn attach(netns: Option<&str>, ifname: Option<&str>) -> String {
    format!("tap:{}:{}", netns.unwrap_or("?"), ifname.unwrap_or("?"))
}

/// The netdevs in all namespaces that `ip netns` knows that are wanted.
pub(super) fn find(
    transport: &dyn Transport,
    wanted: impl Fn(&Link) -> bool,
) -> Result<Vec<Inside>, DeviceError> {
    let mut found = Vec::new();
    for name in Netns::names() {
        // One that has gone meanwhile has no netdevs.
        let Ok(netns) = Netns::open(&name) else {
            continue;
        };
        let entering = format!("entering netns `{}`", netns.name());
        let wire = match transport.open_in(&netns, Protocol::Route) {
            // What is no namespace, or none for us, has no netdev that could be told of.
            Err(error) if matches!(error.kind(), InvalidInput | PermissionDenied) => continue,
            wire => wire.map_err(|e| TransportError::from(e).at(&entering))?,
        };
        let links = Route::over(Session::over(wire)).links();
        let step = format!("listing netdevs in netns `{}`", netns.name());
        let links = links.map_err(|e| e.at(&step))?;
        let links = links.into_iter().filter(|link| wanted(link));
        found.extend(links.map(|link| Inside {
            netns: name.clone(),
            link,
        }));
    }
    Ok(found)
}
