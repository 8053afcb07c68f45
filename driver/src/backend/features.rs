//! Features of a netdev, as `ethtool -k` and `-K` have them (linux/ethtool_netlink.h,
//! ETHTOOL_MSG_FEATURES_*).

use super::route::Told;
use crate::DeviceError;
use crate::transport::{Protocol, Session, Transport, TransportError};
use chanio_netlink::ethtool::{self, Bitset, COMPACT_BITSETS, Ethtool, FAMILY, Nothing, command};

/// A feature of a netdev.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Feature {
    pub(super) on: bool,
    /// Whether it can be changed.
    pub(super) free: bool,
}

/// A socket of the family `ethtool`.
pub(super) struct Features {
    session: Session,
    /// None in kernels before 5.6.
    family: Option<u16>,
}

impl Features {
    pub(super) fn open(transport: &dyn Transport) -> Result<Self, DeviceError> {
        let step = "opening ethtool";
        let session = Session::open(transport, Protocol::Generic);
        let mut session = session.map_err(|e| TransportError::from(e).at(step))?;
        let family = match session.family(FAMILY) {
            Err(TransportError::NoFamily(_)) => None,
            family => Some(family.map_err(|e| e.at(step))?.id),
        };
        Ok(Features { session, family })
    }

    /// A feature of a netdev by its name; none where the kernel knows no such feature.
    pub(super) fn get(&mut self, netdev: &str, name: &str) -> Told<Option<Feature>> {
        let Some(family) = self.family else {
            return Ok(None);
        };
        let asked = Ethtool::<Nothing>::new(command::FEATURES_GET, netdev);
        let told = self.session.request(asked.message(family, 0)?)?;
        let Some(told) = told.first() else {
            return Ok(None);
        };
        let told = Ethtool::<ethtool::Features>::parse(&told.payload)?.body;
        let find = |set: Option<Bitset>| {
            let mut bits = set.map(|set| set.bits).unwrap_or_default().into_iter();
            bits.find(|bit| bit.name.as_deref() == Some(name))
        };
        // The first set has all that there are, the other one those that are on.
        let Some(known) = find(told.hardware) else {
            return Ok(None);
        };
        Ok(Some(Feature {
            on: find(told.active).is_some(),
            free: known.value.is_some(),
        }))
    }

    /// Switches a feature, as `ethtool -K` does; whether it was done is for [`Features::get`] to
    /// tell.
    pub(super) fn set(&mut self, netdev: &str, name: &str, on: bool) -> Told<()> {
        let Some(family) = self.family else {
            return Err(TransportError::NoFamily(FAMILY.to_owned()));
        };
        let mut asked = Ethtool::<ethtool::Features>::new(command::FEATURES_SET, netdev);
        asked.header.flags = Some(COMPACT_BITSETS);
        asked.body.wanted = Some(Bitset::named(&[(name, on)]));
        self.session.request(asked.message(family, 0)?).map(drop)
    }
}
