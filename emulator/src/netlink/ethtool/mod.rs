//! ethtool, for what the driver has to answer itself: what it is, channels, receive-side scaling,
//! its own statistics. Features, link settings and the like are those of the real netdev.
//!
//! | file | what lives there |
//! |---|---|
//! | `ioctl` | SIOCETHTOOL's commands (linux/ethtool.h) |
//! | `netlink` | the requests of the generic family `ethtool` (linux/ethtool_netlink.h) |
//! | `rss` | indirection table, key and hashed fields |
//! | `stats` | statistics under the names of the driver |

mod ioctl;
mod netlink;
mod rss;
mod stats;

use super::played::{Played, Role};
use crate::nic::spec::ChannelChange;
use chanio_model::ChannelName;
use chanio_model::rss::{RssChange, RssKey, RssSettings};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

/// A netdev of the NIC's, for ethtool.
struct Netdev {
    role: Role,
    /// Of a function's own netdev.
    channel: Option<ChannelName>,
    /// Queue pairs it can have.
    most: u16,
    /// Queue pairs it uses.
    used: u16,
}

impl Played {
    /// The netdev of this name or index. ENODEV: it is not the NIC's.
    fn ethtool_netdev(&self, name: Option<&str>, ifindex: u32) -> Result<Netdev, Errno> {
        let ifindex = match (ifindex, name) {
            (0, Some(name)) => if_nametoindex(name).map_err(|_| Errno::ENODEV)?,
            (index, _) => index,
        };
        let role = self.visible_role(ifindex).ok_or(Errno::ENODEV)?;
        let function = match role {
            Role::Function(port) => self.functions.get(port),
            _ => None,
        };
        Ok(match function {
            Some(function) => Netdev {
                role,
                channel: Some(function.channel.clone()),
                most: self.config.function_queues,
                used: function.used_queues,
            },
            // Representors and the wire have one.
            None => Netdev {
                role,
                channel: None,
                most: 1,
                used: 1,
            },
        })
    }

    /// What a function's packets are spread by.
    fn rss_of(&self, netdev: &Netdev) -> Result<(ChannelName, RssSettings), Errno> {
        let channel = netdev.channel.clone().ok_or(Errno::EOPNOTSUPP)?;
        let info = self.nic.channel(channel.as_str());
        let info = info.map_err(|_| Errno::ENODEV)?;
        // Functions are made with it.
        let rss = info.rss.ok_or(Errno::EOPNOTSUPP)?;
        Ok((channel, rss))
    }

    fn change_rss(&self, channel: &ChannelName, rss: RssChange) -> Result<(), Errno> {
        let change = ChannelChange {
            rss: Some(rss),
            ..ChannelChange::default()
        };
        match self.nic.set_channel(channel, change) {
            Ok(_) => Ok(()),
            Err(refused) => {
                tracing::debug!(%refused, "receive-side scaling");
                Err(Errno::from_raw(self.vendor.refusal(&refused).errno))
            }
        }
    }

    /// Has a function spread its packets over so many of its queue pairs.
    fn use_queues(&mut self, netdev: &Netdev, count: u16) -> Result<(), Errno> {
        if count == 0 || count > netdev.most {
            return Err(Errno::EINVAL);
        }
        let Some(channel) = &netdev.channel else {
            return Ok(());
        };
        let table = RssSettings::even(RssKey::MICROSOFT, count).table().to_vec();
        let change = RssChange {
            table: Some(table),
            ..RssChange::default()
        };
        self.change_rss(channel, change)?;
        if let Role::Function(port) = netdev.role
            && let Some(function) = self.functions.get_mut(port)
        {
            function.used_queues = count;
        }
        Ok(())
    }
}
