//! How the switch treats one channel's vport.

use crate::{DropReason, Mac, Vlan};

/// How the switch decides where a packet goes (devlink's eswitch modes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A learning bridge per VLAN; representors only count.
    #[default]
    Legacy,
    /// Flow tables; what they miss goes to the representor of the port it came from.
    Switchdev,
}

/// The switch's side of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VportConfig {
    /// The channel's own addresses: allowed as source under `spoofchk`, and always received.
    pub macs: Vec<Mac>,
    /// Port VLAN (as `ip link set vf vlan`): the channel sends and receives untagged, the switch
    /// sees this tag. `None`: a trunk, frames pass as they are.
    pub port_vlan: Option<Vlan>,
    /// The group of ports that share their rules (tc's shared block): rules may match this number.
    /// 0: none.
    pub block: u16,
    /// Refuse frames whose source is not one of `macs`.
    pub spoofchk: bool,
    /// The channel may change its own addresses and receive mode. The data path does not look at
    /// it: whoever takes such a request does.
    pub trust: bool,
    /// Administrative state of the link.
    pub link_up: bool,
    /// Largest payload behind the Ethernet header and its tags, in bytes.
    pub mtu: u16,
    /// What the driver asked to receive.
    pub rx_mode: RxMode,
}

impl Default for VportConfig {
    /// A trunk with no address, link up, 1500 bytes, spoof checking off.
    fn default() -> Self {
        Self {
            macs: Vec::new(),
            port_vlan: None,
            block: 0,
            spoofchk: false,
            trust: false,
            link_up: true,
            mtu: 1500,
            rx_mode: RxMode::All,
        }
    }
}

/// What a channel's driver wants to receive (virtio 1.3 §5.1.6.5.1 to §5.1.6.5.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RxMode {
    /// Everything the switch sends to it: no driver has asked for less.
    #[default]
    All,
    /// Only what the filter takes.
    Filtered(RxFilter),
}

/// A driver's receive filter. Broadcast and the channel's own addresses always pass the address
/// part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RxFilter {
    /// Everything, VLAN filter or not: virtio's promiscuous mode takes all incoming packets.
    pub promisc: bool,
    /// Every unicast address.
    pub alluni: bool,
    /// Every multicast address.
    pub allmulti: bool,
    /// Further unicast addresses.
    pub unicast: Vec<Mac>,
    /// Multicast addresses.
    pub multicast: Vec<Mac>,
    /// VLAN ids that pass, one bit each; `None`: no VLAN filter. Untagged and priority-tagged
    /// frames always pass.
    pub vlans: Option<Box<VlanSet>>,
}

/// A set of VLAN ids, 0 to 4095.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanSet([u64; 64]);

impl VlanSet {
    /// The empty set, which is what a driver that negotiates the filter starts with.
    pub const EMPTY: Self = Self([0; 64]);

    /// Adds the low 12 bits of `vid`.
    pub fn insert(&mut self, vid: u16) {
        self.0[usize::from(vid & 0xfff) / 64] |= 1 << (vid % 64);
    }

    /// Removes the low 12 bits of `vid`.
    pub fn remove(&mut self, vid: u16) {
        self.0[usize::from(vid & 0xfff) / 64] &= !(1 << (vid % 64));
    }

    /// Whether the low 12 bits of `vid` are in the set.
    pub fn contains(&self, vid: u16) -> bool {
        self.0[usize::from(vid & 0xfff) / 64] & (1 << (vid % 64)) != 0
    }
}

impl VportConfig {
    /// Whether the driver takes a frame to `dst` that it would see with VLAN id `vid` (0:
    /// untagged); the reason if not: `VlanFiltered` or `MacFiltered`.
    pub fn filter(&self, dst: Mac, vid: u16) -> Result<(), DropReason> {
        let RxMode::Filtered(filter) = &self.rx_mode else {
            return Ok(());
        };
        if filter.promisc {
            return Ok(());
        }
        if vid != 0 && filter.vlans.as_ref().is_some_and(|set| !set.contains(vid)) {
            return Err(DropReason::VlanFiltered);
        }
        let taken = if dst.is_multicast() {
            filter.allmulti || dst == Mac::BROADCAST || filter.multicast.contains(&dst)
        } else {
            filter.alluni || self.macs.contains(&dst) || filter.unicast.contains(&dst)
        };
        if taken {
            Ok(())
        } else {
            Err(DropReason::MacFiltered)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const GROUP: Mac = Mac([1, 0, 0x5e, 0, 0, 1]);

    fn with(filter: RxFilter) -> VportConfig {
        VportConfig {
            macs: vec![OWN],
            rx_mode: RxMode::Filtered(filter),
            ..VportConfig::default()
        }
    }

    #[test]
    fn address_filter() {
        let bare = with(RxFilter::default());
        assert_eq!(bare.filter(OWN, 0), Ok(()));
        assert_eq!(bare.filter(Mac::BROADCAST, 0), Ok(()));
        assert_eq!(bare.filter(OTHER, 0), Err(DropReason::MacFiltered));
        assert_eq!(bare.filter(GROUP, 0), Err(DropReason::MacFiltered));

        let listed = with(RxFilter {
            unicast: vec![OTHER],
            multicast: vec![GROUP],
            ..RxFilter::default()
        });
        assert_eq!(listed.filter(OTHER, 0), Ok(()));
        assert_eq!(listed.filter(GROUP, 0), Ok(()));

        let all = with(RxFilter {
            alluni: true,
            allmulti: true,
            ..RxFilter::default()
        });
        assert_eq!(all.filter(OTHER, 7), Ok(()));
        assert_eq!(all.filter(GROUP, 7), Ok(()));
    }

    #[test]
    fn vlan_filter_takes_what_it_lists_and_untagged() {
        let mut set = VlanSet::EMPTY;
        set.insert(4095);
        set.insert(64);
        set.remove(64);
        set.insert(10);
        let filter = RxFilter {
            vlans: Some(Box::new(set)),
            ..RxFilter::default()
        };
        let config = with(filter.clone());
        for vid in [0, 10, 4095] {
            assert_eq!(config.filter(OWN, vid), Ok(()), "{vid}");
        }
        for vid in [1, 11, 64, 74] {
            assert_eq!(
                config.filter(OWN, vid),
                Err(DropReason::VlanFiltered),
                "{vid}"
            );
        }
        let promisc = with(RxFilter {
            promisc: true,
            ..filter
        });
        assert_eq!(promisc.filter(OTHER, 11), Ok(()));
    }
}
