//! devlink-rate: leaves are the ports of channels, nodes are named (devlink-rate(8)).

use super::super::undo::Undo;
use super::super::wanted::no_channel;
use super::Pci;
use super::state::{Kind, State};
use crate::feature::refuse;
use crate::nic::Rate;
use crate::{DeviceError, Feature};
use chanio_model::rate::RateChange;
use chanio_netlink::devlink::{self, EswitchMode, RateType, command};
use std::collections::HashMap;

impl Pci {
    /// In legacy mode only virtual functions have rates.
    fn rates_state(&mut self) -> Result<State, DeviceError> {
        let state = self.state()?;
        match state.mode {
            EswitchMode::Switchdev => Ok(state),
            _ if self.no_eswitch() => Err(refuse(self, Feature::RateNodes)),
            _ => Err(DeviceError::Unsupported {
                what: "a rate node in eswitch mode legacy".into(),
                why: "nodes are of the switch; in legacy mode a virtual function has a minimum \
                      and a maximum only"
                    .into(),
            }),
        }
    }

    pub(super) fn read_rates(&mut self, names: &[String]) -> Result<Vec<Rate>, DeviceError> {
        let state = self.state()?;
        if self.kind == Kind::Macvlan {
            return Err(refuse(self, Feature::TxMax));
        }
        if state.mode == EswitchMode::Legacy {
            let picked = state.pick(names)?;
            return Ok(picked
                .into_iter()
                .map(|c| self.vf_rate(&state, c))
                .collect());
        }
        let told = self.devlink.rates().map_err(|e| e.at("listing rates"))?;
        let channels = state.channels.iter();
        let channels: HashMap<_, _> = channels
            .filter_map(|c| Some((c.index?, &c.port.name)))
            .collect();
        let named = |(port, rate): &(Option<u32>, devlink::Rate)| {
            let leaf = || channels.get(port.as_ref()?).map(|name| (*name).clone());
            match rate.kind {
                Some(RateType::Node) => Some((rate.node.clone()?, "node")),
                _ => Some((leaf()?, "leaf")),
            }
        };
        let mut rates = Vec::new();
        for one in &told {
            let Some((name, kind)) = named(one) else {
                continue;
            };
            let (_, rate) = one;
            rates.push(Rate {
                name,
                kind,
                tx_share: rate.tx_share.unwrap_or(0),
                tx_max: rate.tx_max.unwrap_or(0),
                tx_priority: rate.tx_priority.unwrap_or(0),
                tx_weight: rate.tx_weight.unwrap_or(0),
                parent: rate.parent.clone().filter(|parent| !parent.is_empty()),
            });
        }
        if names.is_empty() {
            return Ok(rates);
        }
        let find = |name: &String| {
            let mut rates = rates.iter();
            rates
                .find(|rate| rate.name == *name)
                .cloned()
                .ok_or_else(|| DeviceError::Refused {
                    reason: format!("name: no channel and no rate node `{name}`"),
                })
        };
        names.iter().map(find).collect()
    }

    fn read_rate(&mut self, name: &str) -> Result<Rate, DeviceError> {
        let mut rates = self.read_rates(&[name.to_owned()])?;
        rates.pop().ok_or_else(|| no_channel(name))
    }

    pub(super) fn make_node(
        &mut self,
        name: &str,
        change: RateChange,
    ) -> Result<Rate, DeviceError> {
        let state = self.rates_state()?;
        if state.channel(name).is_some() {
            return Err(DeviceError::Refused {
                reason: format!("name: `{name}` is a channel's"),
            });
        }
        let mut asked = self.devlink.about(command::RATE_NEW);
        asked.rate = wanted(change);
        asked.rate.kind = Some(RateType::Node);
        asked.rate.node = Some(name.to_owned());
        let done = self.devlink.ask(&asked);
        done.map_err(|e| e.at(&format!("adding rate node `{name}`")))?;
        self.read_rate(name)
    }

    pub(super) fn change_rate(
        &mut self,
        name: &str,
        change: RateChange,
    ) -> Result<Rate, DeviceError> {
        let state = self.state()?;
        if self.kind == Kind::Macvlan {
            return Err(refuse(self, Feature::TxMax));
        }
        if state.mode == EswitchMode::Legacy {
            let channel = state.channel(name).ok_or_else(|| no_channel(name))?.clone();
            self.set_vf_rate(&state, &channel, &change)?;
            return self.read_rate(name);
        }
        let mut asked = self.devlink.about(command::RATE_SET);
        asked.rate = wanted(change);
        match state.channel(name) {
            Some(channel) => asked.port.index = channel.index,
            None => asked.rate.node = Some(name.to_owned()),
        }
        let done = self.devlink.ask(&asked);
        done.map_err(|e| e.at(&format!("setting the rate of `{name}`")))?;
        self.read_rate(name)
    }

    /// Takes off what was set for a function's port, which stays when its channel goes and would
    /// have it for the next one (switchdev mode).
    pub(super) fn clear_leaf(
        &mut self,
        port: u32,
        undo: &mut Undo<Self>,
    ) -> Result<(), DeviceError> {
        let told = self.devlink.rates().map_err(|e| e.at("listing rates"))?;
        let here = told.into_iter().find(|(of, _)| *of == Some(port));
        let Some((_, old)) = here else {
            return Ok(());
        };
        let set = |rate: Option<u64>| rate.filter(|rate| *rate != 0);
        let parent = old.parent.filter(|parent| !parent.is_empty());
        let old = devlink::Rate {
            tx_share: set(old.tx_share),
            tx_max: set(old.tx_max),
            parent,
            ..devlink::Rate::default()
        };
        if old == devlink::Rate::default() {
            return Ok(());
        }
        let new = devlink::Rate {
            tx_share: old.tx_share.map(|_| 0),
            tx_max: old.tx_max.map(|_| 0),
            parent: old.parent.as_ref().map(|_| String::new()),
            ..devlink::Rate::default()
        };
        let put = move |pci: &mut Self, rate: devlink::Rate| {
            let mut asked = pci.devlink.about(command::RATE_SET);
            asked.port.index = Some(port);
            asked.rate = rate;
            let done = pci.devlink.ask(&asked).map(drop);
            done.map_err(|e| e.at("setting the rate of a function that is given back"))
        };
        put(self, new)?;
        undo.push("setting the rate again", move |pci: &mut Self| {
            put(pci, old)
        });
        Ok(())
    }

    pub(super) fn remove_node(&mut self, name: &str) -> Result<(), DeviceError> {
        self.rates_state()?;
        let mut asked = self.devlink.about(command::RATE_DEL);
        asked.rate.node = Some(name.to_owned());
        let done = self.devlink.ask(&asked);
        done.map(drop)
            .map_err(|e| e.at(&format!("removing rate node `{name}`")))
    }
}

fn wanted(change: RateChange) -> devlink::Rate {
    devlink::Rate {
        tx_share: change.tx_share,
        tx_max: change.tx_max,
        tx_priority: change.tx_priority,
        tx_weight: change.tx_weight,
        // An empty name is none.
        parent: change
            .parent
            .map(|name| name.map_or_else(String::new, |name| name.to_string())),
        ..devlink::Rate::default()
    }
}
