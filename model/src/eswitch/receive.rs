//! What a channel receives while its driver asks for nothing else, as control sets it.

use super::{RxFilter, RxMode, VlanSet};
use crate::Mac;
use std::fmt;
use std::str::FromStr;

/// Addresses that a channel can have besides its first.
pub const MAX_ADDRESSES: usize = 64;

/// What a channel receives while its driver asks for nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receive {
    /// All addresses. Otherwise its own, its groups and broadcast.
    pub promisc: bool,
    /// All groups.
    pub allmulti: bool,
    /// Addresses besides its first: unicast ones are its own, so it may send from them as well.
    pub addresses: Vec<Mac>,
    /// Tagged frames of these VLANs only; `None`: of all.
    pub vlans: Option<Box<VlanSet>>,
}

impl Default for Receive {
    /// Everything.
    fn default() -> Self {
        Self {
            promisc: true,
            allmulti: false,
            addresses: Vec::new(),
            vlans: None,
        }
    }
}

impl Receive {
    /// The same as a receive filter.
    pub fn mode(&self) -> RxMode {
        if self.promisc && self.vlans.is_none() {
            return RxMode::All;
        }
        let groups = self.addresses.iter().filter(|mac| mac.is_multicast());
        RxMode::Filtered(RxFilter {
            // Would take all VLANs as well.
            promisc: false,
            alluni: self.promisc,
            allmulti: self.promisc || self.allmulti,
            unicast: Vec::new(),
            multicast: groups.copied().collect(),
            vlans: self.vlans.clone(),
        })
    }

    /// The channel's own addresses besides its first.
    pub fn own(&self) -> impl Iterator<Item = Mac> {
        self.addresses
            .iter()
            .copied()
            .filter(|mac| mac.is_unicast())
    }
}

/// What to change of [`Receive`]; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiveChange {
    /// See [`Receive::promisc`].
    pub promisc: Option<bool>,
    /// See [`Receive::allmulti`].
    pub allmulti: Option<bool>,
    /// Addresses to add.
    pub add: Vec<Mac>,
    /// Addresses to take away.
    pub del: Vec<Mac>,
    /// See [`Receive::vlans`]; `Some(None)` lets all through.
    pub vlans: Option<Option<Box<VlanSet>>>,
}

/// Why it cannot be changed so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// No station and no group.
    #[error("add_mac: {0} is not allowed, must be a station's or a group's address")]
    Address(Mac),
    /// It is there.
    #[error("add_mac: the channel has {0} already")]
    Present(Mac),
    /// It is not there.
    #[error("del_mac: the channel has no added address {0}")]
    Absent(Mac),
    /// More than [`MAX_ADDRESSES`].
    #[error("add_mac: {0} addresses besides the first, allowed are {MAX_ADDRESSES}")]
    TooMany(usize),
}

impl ReceiveChange {
    /// What leads from one to the other.
    pub fn between(from: &Receive, to: &Receive) -> Self {
        let missing = |of: &Receive, other: &Receive| {
            let mut all = of.addresses.clone();
            all.retain(|mac| !other.addresses.contains(mac));
            all
        };
        Self {
            promisc: (from.promisc != to.promisc).then_some(to.promisc),
            allmulti: (from.allmulti != to.allmulti).then_some(to.allmulti),
            add: missing(to, from),
            del: missing(from, to),
            vlans: (from.vlans != to.vlans).then(|| to.vlans.clone()),
        }
    }

    /// What it becomes of a channel whose first address is `first`.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub fn apply(&self, to: &Receive, first: Option<Mac>) -> Result<Receive, ReceiveError> {
        let mut new = to.clone();
        for mac in &self.del {
            let at = new.addresses.iter().position(|known| known == mac);
            new.addresses.remove(at.ok_or(ReceiveError::Absent(*mac))?);
        }
        for mac in &self.add {
            if !mac.is_unicast() && (!mac.is_multicast() || *mac == Mac::BROADCAST) {
                return Err(ReceiveError::Address(*mac));
            }
            if new.addresses.contains(mac) || first == Some(*mac) {
                return Err(ReceiveError::Present(*mac));
            }
            new.addresses.push(*mac);
        }
        if new.addresses.len() > MAX_ADDRESSES {
            return Err(ReceiveError::TooMany(new.addresses.len()));
        }
        new.promisc = self.promisc.unwrap_or(new.promisc);
        new.allmulti = self.allmulti.unwrap_or(new.allmulti);
        if let Some(vlans) = &self.vlans {
            new.vlans.clone_from(vlans);
        }
        Ok(new)
    }
}

/// Why a text is not a list of VLANs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a VLAN or a range of VLANs, allowed are 1 to 4094, as in 5,10-19")]
pub struct VlanSetError(String);

impl FromStr for VlanSet {
    type Err = VlanSetError;

    /// VLANs and ranges of them, with commas between.
    fn from_str(text: &str) -> Result<Self, VlanSetError> {
        let mut set = VlanSet::EMPTY;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.parse().ok().filter(|vid| (1..=4094).contains(vid));
            match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => {
                    (first..=last).for_each(|vid: u16| set.insert(vid));
                }
                _ => {
                    let shown = part.chars().take(20).flat_map(char::escape_debug);
                    return Err(VlanSetError(shown.collect()));
                }
            }
        }
        Ok(set)
    }
}

impl fmt::Display for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut vid = 1;
        while vid < 4095 {
            if !self.contains(vid) {
                vid += 1;
                continue;
            }
            let first = vid;
            while vid < 4094 && self.contains(vid + 1) {
                vid += 1;
            }
            write!(f, "{separator}{first}")?;
            if vid > first {
                write!(f, "-{vid}")?;
            }
            separator = ",";
            vid += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::VportConfig;
    use super::*;
    use crate::DropReason;

    const FIRST: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const SECOND: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 3]);
    const GROUP: Mac = Mac([1, 0, 0x5e, 0, 0, 1]);

    #[test]
    fn a_list_of_vlans_is_read_as_it_is_written() {
        for text in ["5", "1-4094", "5,7-9,4094", "1,3,5"] {
            assert_eq!(text.parse::<VlanSet>().unwrap().to_string(), text);
        }
        assert_eq!("9,7,8,7-8".parse::<VlanSet>().unwrap().to_string(), "7-9");
        for bad in ["", "0", "4095", "9-7", "5,", "x", "-5", "1-2-3"] {
            assert!(bad.parse::<VlanSet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_received_follows_every_setting() {
        let takes = |receive: &Receive, dst, vid| {
            let config = VportConfig {
                macs: std::iter::once(FIRST).chain(receive.own()).collect(),
                rx_mode: receive.mode(),
                ..VportConfig::default()
            };
            config.filter(dst, vid)
        };
        let all = Receive::default();
        assert_eq!(takes(&all, OTHER, 9), Ok(()));
        let change = ReceiveChange {
            promisc: Some(false),
            add: vec![SECOND, GROUP],
            vlans: Some(Some(Box::new("5-6".parse().unwrap()))),
            ..ReceiveChange::default()
        };
        let own = change.apply(&all, Some(FIRST)).unwrap();
        for (dst, vid, wanted) in [
            (FIRST, 0, Ok(())),
            (SECOND, 5, Ok(())),
            (GROUP, 6, Ok(())),
            (Mac::BROADCAST, 0, Ok(())),
            (OTHER, 0, Err(DropReason::MacFiltered)),
            (FIRST, 7, Err(DropReason::VlanFiltered)),
            (Mac([1, 0, 0x5e, 0, 0, 2]), 0, Err(DropReason::MacFiltered)),
        ] {
            assert_eq!(takes(&own, dst, vid), wanted, "{dst} {vid}");
        }
        let more = Receive {
            allmulti: true,
            ..own.clone()
        };
        assert_eq!(takes(&more, Mac([1, 0, 0x5e, 0, 0, 2]), 0), Ok(()));
        let promisc = Receive {
            promisc: true,
            ..own.clone()
        };
        assert_eq!(takes(&promisc, OTHER, 5), Ok(()));
        assert_eq!(takes(&promisc, OTHER, 7), Err(DropReason::VlanFiltered));
        // There and back.
        let back = ReceiveChange::between(&own, &all);
        assert_eq!(back.apply(&own, Some(FIRST)), Ok(all.clone()));
        assert_eq!(
            ReceiveChange::between(&all, &own).apply(&all, None),
            Ok(own.clone())
        );
        assert_eq!(ReceiveChange::between(&own, &own), ReceiveChange::default());
    }

    #[test]
    fn refusals_name_the_address() {
        let with = |add: &[Mac], del: &[Mac]| {
            let change = ReceiveChange {
                add: add.to_vec(),
                del: del.to_vec(),
                ..ReceiveChange::default()
            };
            change.apply(&Receive::default(), Some(FIRST)).map(|_| ())
        };
        assert_eq!(with(&[FIRST], &[]), Err(ReceiveError::Present(FIRST)));
        assert_eq!(
            with(&[SECOND, SECOND], &[]),
            Err(ReceiveError::Present(SECOND))
        );
        assert_eq!(with(&[], &[SECOND]), Err(ReceiveError::Absent(SECOND)));
        for bad in [Mac::BROADCAST, Mac([0; 6])] {
            assert_eq!(with(&[bad], &[]), Err(ReceiveError::Address(bad)));
        }
        let many: Vec<_> = (0..65).map(|n| Mac([2, 1, 0, 0, 0, n])).collect();
        assert_eq!(with(&many, &[]), Err(ReceiveError::TooMany(65)));
        assert_eq!(with(&many[1..], &[]), Ok(()));
    }
}
