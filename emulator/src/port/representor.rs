//! Representors: the host's netdev of a vport. What the host sends on it comes out of the channel
//! (or goes onto the wire), what the switch sends to the host is received on it
//! (kernel: Documentation/networking/representors.rst).

use super::netdev::{LinkChange, Netdevs};
use super::{IfName, Tap};
use crate::nic::Refused;
use chanio_model::{ChannelName, Mac, VportId};
use nix::net::if_::if_nametoindex;
use std::io;
use std::sync::Arc;

/// MTU of a new TAP, bytes.
const DEFAULT_MTU: u32 = 1500;

/// The name of a vport's representor: `c<nic>pf0sf<vport>`, of the uplink's `c<nic>p0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RepresentorName(IfName);

impl RepresentorName {
    /// Of NIC number `nic_index`.
    ///
    /// # Errors
    /// [`Refused::Invalid`] if the numbers are so large that the name has more than 15 characters.
    pub fn new(nic_index: u32, vport: VportId) -> Result<Self, Refused> {
        let name = if vport.is_uplink() {
            format!("c{nic_index}p0")
        } else {
            format!("c{nic_index}pf0sf{}", vport.0)
        };
        name.parse().map(Self).map_err(|_| Refused::Invalid {
            field: "representor",
            value: name,
            allowed: format!("at most {} characters", IfName::MAX_LEN),
        })
    }

    /// As a netdev's name.
    pub fn ifname(&self) -> &IfName {
        &self.0
    }
}

impl std::fmt::Display for RepresentorName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A representor to be made.
#[derive(Clone, Debug)]
pub struct RepresentorSpec {
    /// Whose.
    pub vport: VportId,
    /// The channel, which becomes the netdev's ifalias; `None` for the uplink, whose alias is
    /// `uplink`.
    pub channel: Option<ChannelName>,
    /// Bytes, 68 to 65,521.
    pub mtu: u32,
    /// Its carrier to begin with.
    pub carrier: bool,
    /// The netdev's own address; `None`: the kernel chooses one.
    pub mac: Option<Mac>,
}

/// A representor that exists; its netdev goes away with it.
#[derive(Debug)]
pub struct Representor {
    /// Whose.
    pub vport: VportId,
    /// The netdev's name when it was made.
    pub name: RepresentorName,
    /// The netdev, even after it was renamed.
    pub ifindex: u32,
    /// Its only queue.
    pub tap: Tap,
}

/// Makes and deletes the representors of one NIC, in the network namespace of its [`Netdevs`].
/// All methods are to be called in a thread that is in that namespace.
#[derive(Debug)]
pub struct Representors {
    netdevs: Arc<Netdevs>,
    nic_index: u32,
}

impl Representors {
    /// For NIC number `nic_index`, 0 to 99.
    pub fn new(netdevs: Arc<Netdevs>, nic_index: u32) -> Self {
        Self { netdevs, nic_index }
    }

    /// The netdevs among which the representors are.
    pub fn netdevs(&self) -> &Arc<Netdevs> {
        &self.netdevs
    }

    /// Makes all of these or none. They are administratively down, as other representors are when
    /// their driver makes them.
    ///
    /// # Errors
    /// [`Refused::Invalid`] naming the netdev if one of the names is taken; what [`Tap::create`]
    /// and the kernel refuse.
    pub fn create(&self, batch: &[RepresentorSpec]) -> Result<Vec<Representor>, Refused> {
        let mut made = Vec::with_capacity(batch.len());
        let result = self.try_create(batch, &mut made);
        if result.is_err() {
            self.delete(std::mem::take(&mut made));
        }
        result.map(|()| made)
    }

    fn try_create(
        &self,
        batch: &[RepresentorSpec],
        made: &mut Vec<Representor>,
    ) -> Result<(), Refused> {
        for spec in batch {
            let name = RepresentorName::new(self.nic_index, spec.vport)?;
            let tap = Tap::create(name.ifname())?;
            let ifindex = if_nametoindex(name.ifname().as_str())
                .map_err(|e| Refused::os(format!("finding representor `{name}`"), e))?;
            made.push(Representor {
                vport: spec.vport,
                name,
                ifindex,
                tap,
            });
        }
        let change = |(spec, made): (&RepresentorSpec, &Representor)| LinkChange {
            alias: Some(
                spec.channel
                    .as_ref()
                    .map_or("uplink", ChannelName::as_str)
                    .to_owned(),
            ),
            // Setting what is there already would cost a message of its own inside the kernel.
            mtu: (spec.mtu != DEFAULT_MTU).then_some(spec.mtu),
            carrier: (!spec.carrier).then_some(false),
            mac: spec.mac,
            ..LinkChange::new(made.ifindex)
        };
        let changes: Vec<_> = batch.iter().zip(made.iter()).map(change).collect();
        let outcomes = self
            .netdevs
            .apply(&changes)
            .map_err(|e| Refused::os("setting up representors", e))?;
        for (made, outcome) in made.iter().zip(outcomes) {
            outcome.map_err(|e| {
                Refused::os(
                    format!("setting up representor `{}`", made.name),
                    io::Error::from(e),
                )
            })?;
        }
        Ok(())
    }

    /// Deletes these, all at once.
    pub fn delete(&self, representors: Vec<Representor>) {
        let ifindexes: Vec<_> = representors.iter().map(|r| r.ifindex).collect();
        if let Err(err) = self.netdevs.delete(&ifindexes) {
            // Closing the queues below deletes what is left, only more slowly.
            tracing::warn!(%err, "deleting representors at once failed, deleting each");
        }
    }

    /// Sets the carrier of many.
    ///
    /// # Errors
    /// The first refusal; netdevs that are gone are none.
    pub fn set_carrier(
        &self,
        carriers: impl IntoIterator<Item = (u32, bool)>,
    ) -> Result<(), Refused> {
        let change = |(ifindex, up)| LinkChange {
            carrier: Some(up),
            ..LinkChange::new(ifindex)
        };
        let changes: Vec<_> = carriers.into_iter().map(change).collect();
        let os = |err: io::Error| Refused::os("setting carrier of representors", err);
        let outcomes = self.netdevs.apply(&changes).map_err(os)?;
        let failed = outcomes
            .into_iter()
            .filter_map(Result::err)
            .find(|e| e.errno != libc::ENODEV);
        failed.map_or(Ok(()), |err| Err(os(err.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_whose_and_fit() {
        let name = |nic, vport| RepresentorName::new(nic, VportId(vport)).map(|n| n.to_string());
        assert_eq!(name(0, 0).unwrap(), "c0p0");
        assert_eq!(name(0, 7).unwrap(), "c0pf0sf7");
        assert_eq!(name(99, 1_000_000).unwrap(), "c99pf0sf1000000");
        let err = name(99, 10_000_000).unwrap_err().to_string();
        assert!(err.contains("c99pf0sf10000000"), "{err}");
    }
}
