//! Rates: leaves are the ports of functions, nodes are named (net/devlink/rate.c).

use super::{Device, message};
use crate::netlink::played::Played;
use crate::netlink::refuse;
use crate::nic::spec::RateInfo;
use chanio_model::rate::{RateChange, RateName, Rates};
use chanio_netlink::devlink::{Devlink, Rate, RateType, command};
use chanio_netlink::kernel::Refusal;
use chanio_netlink::message::Message;
use std::collections::HashMap;

/// Whose rate.
enum Object {
    /// A port's.
    Leaf(u32),
    /// A node.
    Node(String),
}

impl Played {
    /// The nodes there are.
    pub(super) fn rate_nodes(&self) -> impl Iterator<Item = RateInfo> {
        self.nic.rates().into_iter().filter(|rate| rate.is_node)
    }

    pub(super) fn tell_rates(&self) -> Result<Vec<Message>, Refusal> {
        let mut all = Vec::new();
        if !self.switchdev() {
            // Leaves are made with the ports of representors.
            return Ok(all);
        }
        let rates = self.nic.rates();
        let leaves: HashMap<_, _> = rates.iter().map(|rate| (&rate.name, rate)).collect();
        for (port, function) in self.functions.iter() {
            if let Some(rate) = leaves.get(&function.channel) {
                all.push(self.tell_rate(&Object::Leaf(port), &rate.rates)?);
            }
        }
        for node in rates.iter().filter(|rate| rate.is_node) {
            all.push(self.tell_rate(&Object::Node(node.name.to_string()), &node.rates)?);
        }
        Ok(all)
    }

    pub(super) fn tell_rate_asked(&self, asked: &Devlink) -> Result<Message, Refusal> {
        let object = self.rate_object(asked)?;
        let rates = self.rates_of(&object)?;
        self.tell_rate(&object, &rates)
    }

    fn rates_of(&self, object: &Object) -> Result<Rates, Refusal> {
        let name = self.rate_name(object)?;
        let mut all = self.nic.rates().into_iter();
        let found =
            all.find(|rate| rate.name == name && rate.is_node == matches!(object, Object::Node(_)));
        found
            .map(|rate| rate.rates)
            .ok_or_else(|| Refusal::errno(libc::ENODEV))
    }

    fn tell_rate(&self, object: &Object, rates: &Rates) -> Result<Message, Refusal> {
        let mut about = self.about(Device::Pf, command::RATE_NEW);
        about.rate = Rate {
            kind: Some(RateType::Leaf),
            tx_share: Some(rates.tx_share),
            tx_max: Some(rates.tx_max),
            tx_priority: Some(rates.tx_priority),
            // A driver without weights has never been given one.
            tx_weight: Some(if self.vendor.weighted_rates {
                rates.tx_weight
            } else {
                0
            }),
            parent: rates.parent.as_ref().map(RateName::to_string),
            ..Rate::default()
        };
        match object {
            Object::Leaf(port) => about.port.index = Some(*port),
            Object::Node(name) => {
                about.rate.kind = Some(RateType::Node);
                about.rate.node = Some(name.clone());
            }
        }
        message(&about)
    }

    fn rate_object(&self, asked: &Devlink) -> Result<Object, Refusal> {
        if !self.vendor.eswitch {
            return Err(refuse::unsupported());
        }
        match (&asked.rate.node, asked.port.index) {
            (Some(name), _) => Ok(Object::Node(name.clone())),
            (None, Some(port)) if self.switchdev() && self.functions.get(port).is_some() => {
                Ok(Object::Leaf(port))
            }
            (None, Some(_)) => Err(Refusal::errno(libc::ENODEV)),
            (None, None) => Err(Refusal::errno(libc::EINVAL)),
        }
    }

    fn rate_name(&self, object: &Object) -> Result<RateName, Refusal> {
        match object {
            Object::Leaf(port) => Ok(self.function(*port)?.channel.clone()),
            Object::Node(name) => name
                .parse()
                .map_err(|error| refuse::text(libc::EINVAL, &format!("{error}"))),
        }
    }

    /// What is to be changed, if this NIC has it.
    fn rate_change(&self, object: &Object, rate: &Rate) -> Result<RateChange, Refusal> {
        let whose = match object {
            Object::Leaf(_) => "leafs",
            Object::Node(_) => "nodes",
        };
        let no = |what: &str| {
            let words = format!("{what} set isn't supported for the {whose}");
            Err(refuse::text(libc::EOPNOTSUPP, &words))
        };
        for rate in [rate.tx_share, rate.tx_max].into_iter().flatten() {
            self.check_rate(rate)?;
        }
        if !self.vendor.weighted_rates {
            if rate.tx_priority.is_some() {
                return no("TX priority");
            }
            if rate.tx_weight.is_some() {
                return no("TX weight");
            }
            // mlx5's groups are not within groups.
            if rate.parent.is_some() && matches!(object, Object::Node(_)) {
                return no("Parent");
            }
        }
        let parent = match rate.parent.as_deref() {
            None => None,
            Some("") => Some(None),
            Some(name) => {
                let node = Object::Node(name.to_owned());
                if matches!(object, Object::Node(own) if own == name) {
                    let words = "Parent to self is not allowed";
                    return Err(refuse::text(libc::EINVAL, words));
                }
                self.rates_of(&node)?;
                Some(Some(self.rate_name(&node)?))
            }
        };
        Ok(RateChange {
            tx_share: rate.tx_share,
            tx_max: rate.tx_max,
            tx_priority: rate.tx_priority,
            tx_weight: rate.tx_weight,
            parent,
        })
    }

    /// mellanox/mlx5/core/esw/qos.c: esw_qos_devlink_rate_to_mbps;
    /// intel/ice/devlink/devlink.c: ice_set_object_tx_max
    fn check_rate(&self, rate: u64) -> Result<(), Refusal> {
        if !rate.is_multiple_of(self.vendor.rate_unit) && self.vendor.driver == "mlx5_core" {
            let words = "TX rate value not in link speed units of 1Mbps";
            return Err(self.vendor.refuse(libc::EINVAL, words));
        }
        if rate / 125_000 > u64::from(self.vendor.speed) {
            let words = "TX rate value exceed link maximum speed";
            return Err(self.vendor.refuse(libc::EINVAL, words));
        }
        Ok(())
    }

    pub(super) fn set_rate(&mut self, asked: &Devlink) -> Result<(), Refusal> {
        let object = self.rate_object(asked)?;
        self.rates_of(&object)?;
        let change = self.rate_change(&object, &asked.rate)?;
        let name = self.rate_name(&object)?;
        let info = self.nic.set_rate(&name, &change);
        let info = info.map_err(|refused| self.vendor.refusal(&refused))?;
        let told = self.tell_rate(&object, &info.rates)?;
        self.tell_devlink(told);
        Ok(())
    }

    pub(super) fn add_rate(&mut self, asked: &Devlink) -> Result<(), Refusal> {
        let object = self.rate_object(asked)?;
        let Object::Node(_) = &object else {
            return Err(Refusal::errno(libc::EINVAL));
        };
        if !self.switchdev() {
            let words = "Rate node creation supported only in switchdev mode";
            return Err(self.vendor.refuse(libc::EOPNOTSUPP, words));
        }
        if self.rates_of(&object).is_ok() {
            return Err(Refusal::errno(libc::EEXIST));
        }
        let change = self.rate_change(&object, &asked.rate)?;
        let name = self.rate_name(&object)?;
        let info = self.nic.add_rate(&name, &change);
        let info = info.map_err(|refused| self.vendor.refusal(&refused))?;
        let told = self.tell_rate(&object, &info.rates)?;
        self.tell_devlink(told);
        Ok(())
    }

    pub(super) fn del_rate(&mut self, asked: &Devlink) -> Result<(), Refusal> {
        let object = self.rate_object(asked)?;
        let rates = self.rates_of(&object)?;
        let name = self.rate_name(&object)?;
        let is_below = |rate: &RateInfo| rate.rates.parent.as_ref() == Some(&name);
        if self.nic.rates().iter().any(is_below) {
            let words = "Node has children. Cannot delete node.";
            return Err(refuse::text(libc::EBUSY, words));
        }
        let mut told = self.tell_rate(&object, &rates)?;
        self.nic
            .del_rate(&name)
            .map_err(|refused| self.vendor.refusal(&refused))?;
        // The first byte of the payload is the command.
        told.payload[0] = command::RATE_DEL as u8;
        self.tell_devlink(told);
        Ok(())
    }
}
