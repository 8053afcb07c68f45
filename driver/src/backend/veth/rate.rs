//! What a channel may send, as tbf on the container's end.

use super::super::wanted::no_channel;
use super::state::State;
use super::{DeviceError, Feature, Route, Veth};
use crate::feature::refuse;
use crate::nic::Rate;
use crate::transport::Netns;
use chanio_model::rate::RateChange;
use chanio_netlink::message::{NLM_F_CREATE, NLM_F_REPLACE};
use chanio_netlink::tc::{DEL_QDISC, GET_QDISC, Header, NEW_QDISC, Qdisc, QdiscMore, ROOT, Tbf};

/// How much may be sent at once: what a rate gives in so many microseconds, and not less than a
/// frame of 64 KiB with its headers, which GSO hands down whole.
const BURST_US: u64 = 10_000;
const MIN_BURST: u64 = 66_000;
/// How long a packet may wait.
const LATENCY_US: u64 = 50_000;

impl Veth {
    /// The container's end of a channel, in a namespace with a name.
    fn inside(&mut self, state: &State, name: &str) -> Result<(Route, u32), DeviceError> {
        let port = state.channel(name).ok_or_else(|| no_channel(name))?;
        let names = self.netns_names()?;
        let home = port.link.link_netns.and_then(|id| names.get(&id));
        let (Some(home), Some(index)) = (home, port.link.link) else {
            return Err(DeviceError::Refused {
                reason: format!("the namespace of channel `{name}` has no name in /run/netns"),
            });
        };
        let netns = Netns::open(home)?;
        Ok((Route::open_in(&*self.transport, &netns)?, index))
    }

    pub(super) fn read_rates(&mut self, names: &[String]) -> Result<Vec<Rate>, DeviceError> {
        let state = self.state()?;
        let names: Vec<_> = state.pick(names)?.iter().map(|c| c.name.clone()).collect();
        names
            .iter()
            .map(|name| self.read_rate(&state, name))
            .collect()
    }

    fn read_rate(&mut self, state: &State, name: &str) -> Result<Rate, DeviceError> {
        let (mut route, index) = self.inside(state, name)?;
        Ok(leaf(
            name,
            read_tbf(&mut route, index)?.map_or(0, |tbf| tbf.rate),
        ))
    }

    pub(super) fn change_rate(
        &mut self,
        name: &str,
        change: RateChange,
    ) -> Result<Rate, DeviceError> {
        if change.tx_share.is_some_and(|share| share != 0) {
            return Err(refuse(self, Feature::TxShare));
        }
        let in_group = change.parent.as_ref().is_some_and(Option::is_some);
        let ordered = change.tx_priority.is_some_and(|p| p != 0) || change.tx_weight.is_some();
        if in_group || ordered {
            return Err(refuse(self, Feature::RateNodes));
        }
        let state = self.state()?;
        let (mut route, index) = self.inside(&state, name)?;
        let Some(rate) = change.tx_max else {
            return self.read_rate(&state, name);
        };
        let header = Header {
            ifindex: index.cast_signed(),
            parent: ROOT,
            ..Header::default()
        };
        let request = if rate == 0 {
            if read_tbf(&mut route, index)?.is_none() {
                return Ok(leaf(name, 0));
            }
            let qdisc = Qdisc {
                header,
                ..Qdisc::default()
            };
            qdisc.message(DEL_QDISC, 0)
        } else {
            let at_once = |us: u64| rate.saturating_mul(us) / 1_000_000;
            let burst = at_once(BURST_US).max(MIN_BURST);
            let narrow = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
            let tbf = Tbf {
                rate,
                burst: narrow(burst),
                limit: narrow(burst.saturating_add(at_once(LATENCY_US))),
            };
            let more = QdiscMore {
                kind: Some(Tbf::KIND.into()),
                options: Some(tbf.options()),
                ..QdiscMore::default()
            };
            let qdisc = Qdisc {
                header,
                more,
                ..Qdisc::default()
            };
            qdisc.message(NEW_QDISC, NLM_F_CREATE | NLM_F_REPLACE)
        };
        let request = request.map_err(|e| DeviceError::Refused {
            reason: e.to_string(),
        })?;
        match route.session().request(request) {
            Ok(_) => self.read_rate(&state, name),
            Err(error) if error.is(libc::ENOENT) => Err(DeviceError::Unsupported {
                what: Feature::TxMax.name().into(),
                why: "this kernel has no tbf qdisc (CONFIG_NET_SCH_TBF)".into(),
            }),
            Err(error) => Err(error.at("setting qdisc tbf")),
        }
    }
}

fn leaf(name: &str, tx_max: u64) -> Rate {
    Rate {
        name: name.to_owned(),
        kind: "leaf",
        tx_share: 0,
        tx_max,
        tx_priority: 0,
        tx_weight: 1,
        parent: None,
    }
}

/// The netdev's root qdisc, if it is a tbf.
fn read_tbf(route: &mut Route, index: u32) -> Result<Option<Tbf>, DeviceError> {
    let refused = |e: chanio_netlink::Error| DeviceError::Refused {
        reason: e.to_string(),
    };
    let asked = Qdisc::default().message(GET_QDISC, 0).map_err(refused)?;
    let told = route
        .session()
        .dump(asked)
        .map_err(|e| e.at("listing qdiscs"))?;
    for message in told {
        let qdisc = Qdisc::parse(&message.payload).map_err(refused)?;
        let here = qdisc.header.ifindex == index.cast_signed() && qdisc.header.parent == ROOT;
        if here && qdisc.more.kind.as_deref() == Some(Tbf::KIND) {
            let options = qdisc.more.options.unwrap_or_default();
            return Tbf::parse(&options).map(Some).map_err(refused);
        }
    }
    Ok(None)
}
