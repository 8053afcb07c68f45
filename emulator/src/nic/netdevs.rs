//! Requests about the netdevs of channels that are TAPs.

use super::{Nic, Refused};
use crate::port::{Endpoint, IfName};
use chanio_model::ChannelName;
use std::os::fd::BorrowedFd;

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
        let state = self.open()?;
        let entry = state
            .channels
            .get(channel)
            .ok_or_else(|| Refused::NoChannel(channel.to_string()))?;
        let port = entry.port.clone();
        drop(state);
        match &port.endpoint {
            Endpoint::Netdev(netdev) => netdev.move_to(netns, name),
            _ => Err(Refused::Invalid {
                field: "name",
                value: channel.to_string(),
                allowed: "a channel that is a TAP".into(),
            }),
        }
    }
}
