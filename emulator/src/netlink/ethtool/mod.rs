//! ethtool, for what the driver has to answer itself: what it is, channels, receive-side scaling,
//! its own statistics. Features, link settings and the like are those of the real netdev.
//!
//! | file | what lives there |
//! |---|---|
//! | `features` | the feature that the netdev has not |
//! | `ioctl` | SIOCETHTOOL's commands (linux/ethtool.h) |
//! | `netlink` | the requests of the generic family `ethtool` (linux/ethtool_netlink.h) |
//! | `ntuple` | rules that choose a queue |
//! | `rss` | indirection table, key and hashed fields |
//! | `stats` | statistics under the names of the driver |

mod features;
mod ioctl;
mod netlink;
mod ntuple;
mod rss;
mod stats;

pub use ntuple::Given;

pub use features::number as l2_forwarding_number;

use super::played::{Played, Role};
use crate::nic::spec::ChannelChange;
use chanio_model::ChannelName;
use chanio_model::rss::{RssChange, RssKey, RssSettings};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

/// A netdev of the NIC's, for ethtool.
struct Netdev {
    role: Role,
    /// A macvlan device, of which ethtool knows little (drivers/net/macvlan.c:
    /// macvlan_ethtool_ops).
    macvlan: bool,
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
        Ok(self.netdev_of_role(role))
    }

    fn netdev_of_role(&self, role: Role) -> Netdev {
        let macvlan = self.macvlan_mode(role).is_some();
        let function = match role {
            Role::Function(port) if !macvlan => self.functions.get(port),
            _ => None,
        };
        match function {
            Some(function) => Netdev {
                role,
                macvlan,
                channel: Some(function.channel.clone()),
                most: self.config.function_queues,
                used: function.used_queues,
            },
            None => {
                let queues = match role {
                    Role::Uplink => self.vendor.pf_queues,
                    _ => 1,
                };
                Netdev {
                    role,
                    macvlan,
                    channel: None,
                    most: queues,
                    used: queues,
                }
            }
        }
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
            // The physical function's are not the emulator's: the host is no port of its switch.
            return match count == netdev.used {
                true => Ok(()),
                false => Err(Errno::EOPNOTSUPP),
            };
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
