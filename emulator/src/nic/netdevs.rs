//! Requests about the netdevs of channels that are TAPs.

use super::{Nic, Refused};
use crate::nic::spec::ChannelChange;
use crate::port::{Attached, Endpoint, IfName};
use chanio_model::steer::QueueRules;
use chanio_model::{ChannelName, Mac};
use std::os::fd::{BorrowedFd, OwnedFd};

impl Nic {
    /// Move a channel's netdev, wherever it is now, to another network namespace, where it is down
    /// and has this name. Returns its index there.
    ///
    /// # Errors
    /// [`Refused::NoChannel`]; [`Refused::Invalid`] for a channel that is no TAP; [`Refused::Os`].
    pub fn move_netdev(
        &self,
        channel: &ChannelName,
        netns: BorrowedFd<'_>,
        name: &IfName,
    ) -> Result<u32, Refused> {
        self.with_netdev(channel, |netdev| netdev.move_to(netns, name))
    }

    /// Address and MTU of a channel's netdev, wherever it is now.
    ///
    /// # Errors
    /// As [`Nic::move_netdev`].
    pub fn netdev_settings(&self, channel: &ChannelName) -> Result<(Mac, u32), Refused> {
        self.with_netdev(channel, Attached::settings)
    }

    /// Have the switch know a channel by the address and MTU that its netdev has been given.
    ///
    /// # Errors
    /// As [`Nic::set_channel`].
    pub fn follow_netdev(
        &self,
        channel: &ChannelName,
        change: ChannelChange,
    ) -> Result<(), Refused> {
        self.change_channel(channel, change, false).map(drop)
    }

    /// Where a channel's netdev is now: its network namespace, and its name there. None: somebody
    /// has deleted it, or its namespace has gone.
    ///
    /// # Errors
    /// As [`Nic::move_netdev`].
    pub fn netdev_place(
        &self,
        channel: &ChannelName,
    ) -> Result<Option<(OwnedFd, String)>, Refused> {
        self.with_netdev(channel, |netdev| {
            let Some(queue) = netdev.queues.first() else {
                return Ok(None);
            };
            let place = || std::io::Result::Ok((queue.netns()?, queue.name()?));
            match place() {
                Ok(place) => Ok(Some(place)),
                Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Ok(None),
                Err(error) => Err(Refused::os("asking where a netdev is", error)),
            }
        })
    }

    /// Has the port of a channel that is a TAP choose queues by these rules.
    ///
    /// # Errors
    /// [`Refused::NoChannel`]; [`Refused::Invalid`] for a channel that is no TAP.
    pub fn set_queue_rules(&self, channel: &ChannelName, rules: QueueRules) -> Result<(), Refused> {
        self.with_netdev(channel, |netdev| {
            netdev.steering.set_rules(rules);
            Ok(())
        })
    }

    fn with_netdev<T>(
        &self,
        channel: &ChannelName,
        work: impl FnOnce(&Attached) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let state = self.open()?;
        let entry = state
            .channels
            .get(channel)
            .ok_or_else(|| Refused::NoChannel(channel.to_string()))?;
        let port = entry.port.clone();
        drop(state);
        match &port.endpoint {
            Endpoint::Netdev(netdev) => work(netdev),
            _ => Err(Refused::Invalid {
                field: "name",
                value: channel.to_string(),
                allowed: "a channel that is a TAP".into(),
            }),
        }
    }
}
