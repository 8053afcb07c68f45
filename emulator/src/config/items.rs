//! The tables of which there can be many: channels, flow rules, addresses.

use super::file;
use super::source::Source;
use super::{Config, ConfigError, FlowRule};
use crate::nic::Refused;
use crate::nic::attach_text::AttachError;
use crate::nic::edge::{self, DEFAULT_MTU, MTU, QUEUES, RssText, shown};
use crate::nic::spec::*;
use chanio_model::eswitch::{Mode, Receive, ReceiveChange, VlanSet};
use chanio_model::flow::{RuleSpec, RuleTextError};
use chanio_model::rate::{MAX_PRIORITY, MAX_WEIGHT, RateName, RateText, Rates};
use chanio_model::{ChannelName, Mac, VportId};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::ops::Range;
use toml::Spanned;

/// A configuration to which items are added, and what must not come twice.
pub(super) struct Builder {
    pub config: Config,
    /// Channels' own addresses, as far as they are not the NIC's choice.
    own: HashMap<(u16, Mac), ChannelName>,
    flows: HashSet<String>,
}

impl Builder {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            own: HashMap::new(),
            flows: HashSet::new(),
        }
    }

    /// # Errors
    /// Why the channel cannot be added to the others.
    pub fn add_channel(&mut self, spec: ChannelSpec) -> Result<(), Refused> {
        if self.config.channels.contains_key(&spec.name) {
            return Err(Refused::DuplicateName(spec.name));
        }
        let vid = spec.vlan.map_or(0, |vlan| vlan.id());
        let more = spec.receive.own().map(|mac| (vid, mac));
        for key in own_address(&spec).into_iter().chain(more) {
            if let Some(owner) = self.own.insert(key, spec.name.clone()) {
                let mac = key.1;
                return Err(Refused::DuplicateMac { mac, owner });
            }
        }
        self.config.channels.insert(spec.name.clone(), spec);
        Ok(())
    }

    /// Rules call ports by the names that the file gives them. Other ports may be gone, or may be
    /// others, at the next start.
    pub fn add_flow(&mut self, source: &Source, flow: file::Flow) -> Result<(), ConfigError> {
        let rule = flow.rule;
        let wrong =
            |what: &dyn Display| source.value("flow", &rule.span(), format!("rule: {what}"));
        let (spec, ports) = read_rule(rule.get_ref(), &self.config).map_err(|e| wrong(&e))?;
        if self.config.mode != Mode::Switchdev {
            return Err(wrong(&"flow rules need eswitch.mode = \"switchdev\""));
        }
        let name = |v: VportId| Some(ports.get(v.index().checked_sub(1)?)?.to_string());
        let text = spec.with_names(&name).to_string();
        if !self.flows.insert(text.clone()) {
            return Err(wrong(&format_args!("`{text}` is there twice")));
        }
        let ports = ports.into_iter().collect();
        self.config.flows.push(FlowRule { text, ports });
        Ok(())
    }

    pub fn add_rate(&mut self, source: &Source, from: file::Rate) -> Result<(), ConfigError> {
        let wrong = |what: &dyn Display| source.value("rate", &from.name.span(), what);
        let name = from.name.get_ref().parse::<RateName>();
        let name = name.map_err(|e| wrong(&e))?;
        let rates = rates(source, &from)?;
        if self.config.rates.insert(name, rates).is_some() {
            let name = from.name.get_ref();
            return Err(wrong(&format_args!(
                "name: `{}` is there twice",
                shown(name)
            )));
        }
        Ok(())
    }

    pub fn add_fdb(&mut self, source: &Source, from: file::Fdb) -> Result<(), ConfigError> {
        let config = &mut self.config;
        let wrong = |at: &Range<usize>, what: &dyn Display| source.value("fdb", at, what);
        let vid = match &from.vid {
            None => 0,
            Some(vid) => edge::vid(*vid.get_ref()).map_err(|e| wrong(&vid.span(), &e))?,
        };
        let at = from.mac.span();
        let mac = edge::mac(from.mac.get_ref()).map_err(|e| wrong(&at, &e))?;
        if !mac.is_unicast() {
            let what = format!("mac: {mac} is not allowed, must be unicast and not zero");
            return Err(wrong(&at, &what));
        }
        let port = from.port.get_ref();
        let known = port
            .parse()
            .is_ok_and(|name: ChannelName| config.channels.contains_key(&name));
        if port != "uplink" && !known {
            let allowed = "`uplink` or a channel of this file";
            let what = format!("port: `{}` is not allowed, must be {allowed}", shown(port));
            return Err(wrong(&from.port.span(), &what));
        }
        if let Some(channel) = self.own.get(&(vid, mac)) {
            let what = format!("mac: {mac} is channel `{channel}`'s own address");
            return Err(wrong(&at, &what));
        }
        if config.fdb.insert((vid, mac), port.clone()).is_some() {
            return Err(wrong(
                &at,
                &format_args!("mac: {mac} is there twice in VLAN {vid}"),
            ));
        }
        Ok(())
    }
}

/// The numbers and texts of a rate object. Whether it fits the others is for the NIC to say.
fn rates(source: &Source, from: &file::Rate) -> Result<Rates, ConfigError> {
    let wrong = |at: Range<usize>, what: &dyn Display| source.value("rate", &at, what);
    let rate = |field: &str, text: &Option<Spanned<String>>| match text {
        None => Ok(0),
        Some(text) => {
            let rate = text.get_ref().parse::<RateText>();
            let rate = rate.map_err(|e| wrong(text.span(), &format_args!("{field}: {e}")));
            rate.map(|rate| rate.0)
        }
    };
    let number = |field, value: &Option<Spanned<i64>>, range, default| match value {
        None => Ok(default),
        Some(v) => edge::number(field, *v.get_ref(), range).map_err(|e| wrong(v.span(), &e)),
    };
    let parent = |text: &Spanned<String>| {
        let name = text.get_ref().parse();
        name.map_err(|e| wrong(text.span(), &format_args!("parent: {e}")))
    };
    Ok(Rates {
        tx_share: rate("tx_share", &from.tx_share)?,
        tx_max: rate("tx_max", &from.tx_max)?,
        tx_priority: number("tx_priority", &from.tx_priority, 0..=MAX_PRIORITY, 0)?,
        tx_weight: number("tx_weight", &from.tx_weight, 1..=MAX_WEIGHT, 1)?,
        parent: from.parent.as_ref().map(parent).transpose()?,
    })
}

/// Why a text is not a rule for the file.
#[derive(Debug, thiserror::Error)]
enum RuleError {
    #[error(transparent)]
    Text(#[from] RuleTextError),
    #[error("`{}` may be another channel's at the next start; use the channel's name", shown(.0))]
    Number(String),
}

/// A rule in which ports have stand-ins for numbers, since there is no NIC yet that would have
/// given them: N is the Nth of the names that come with it.
fn read_rule(text: &str, config: &Config) -> Result<(RuleSpec, Vec<ChannelName>), RuleError> {
    let mut words = text.split_ascii_whitespace();
    if let Some(number) = words.find(|word| word.starts_with("vport:")) {
        return Err(RuleError::Number(number.to_owned()));
    }
    let ports = RefCell::new(Vec::<ChannelName>::new());
    let names = |name: &str| {
        let (name, _) = config
            .channels
            .get_key_value(&name.parse::<ChannelName>().ok()?)?;
        let mut ports = ports.borrow_mut();
        let known = ports.iter().position(|p| p == name);
        let index = known.unwrap_or_else(|| {
            ports.push(name.clone());
            ports.len() - 1
        });
        Some(VportId(index as u32 + 1))
    };
    let spec = RuleSpec::parse(text, &names)?;
    Ok((spec, ports.into_inner()))
}

/// VLAN and address that the address table holds for a channel, if it is not the NIC's choice.
pub(super) fn own_address(spec: &ChannelSpec) -> Option<(u16, Mac)> {
    Some((spec.vlan.map_or(0, |v| v.id()), spec.mac?))
}

/// A channel as the file has it.
pub(super) fn channel(source: &Source, from: file::Channel) -> Result<ChannelSpec, ConfigError> {
    let refused = |at: Range<usize>| move |refused: Refused| source.value("channel", &at, refused);
    let wrong = |at: Range<usize>| move |e: AttachError| source.value("channel", &at, e);
    let number = |field, value: &Option<Spanned<i64>>, range, default| match value {
        None => Ok(default),
        Some(v) => edge::number(field, *v.get_ref(), range).map_err(refused(v.span())),
    };
    let name = edge::channel_name(from.name.get_ref()).map_err(refused(from.name.span()))?;
    let mac = |text: &Spanned<String>| edge::mac(text.get_ref()).map_err(refused(text.span()));
    let vlan = |v: &Spanned<i64>| edge::port_vlan(*v.get_ref()).map_err(refused(v.span()));
    let attach = match &from.attach {
        None => Attach::VhostUser,
        Some(text) => text
            .get_ref()
            .parse::<Attach>()
            .map_err(wrong(text.span()))?,
    };
    let mut addresses = Vec::with_capacity(from.addresses.len());
    for text in &from.addresses {
        let address = text.get_ref().parse().map_err(|_| {
            let what = format!(
                "addresses: `{}` is not ADDRESS/PREFIX, as 10.0.0.1/24",
                shown(text.get_ref())
            );
            source.value("channel", &text.span(), what)
        });
        addresses.push(address?);
    }
    let queues = number("queues", &from.queues, QUEUES, 1)?;
    let rss = match &from.rss {
        None => None,
        Some(asked) => {
            let file::Rss {
                hash_types,
                key,
                table,
                unclassified,
            } = asked.get_ref();
            let text = RssText {
                types: hash_types.as_deref(),
                key: key.as_deref(),
                table: table.clone(),
                unclassified: *unclassified,
            };
            let settings = edge::rss(&text).and_then(|change| Ok(change.apply(None, queues)?));
            settings.map_err(refused(asked.span()))?
        }
    };
    let mut change = ReceiveChange {
        promisc: from.promisc,
        allmulti: from.allmulti,
        ..ReceiveChange::default()
    };
    for text in &from.more_macs {
        change.add.push(mac(text)?);
    }
    if let Some(text) = &from.vlan_filter {
        let set = text.get_ref().parse::<VlanSet>();
        let set =
            set.map_err(|e| source.value("channel", &text.span(), format!("vlan_filter: {e}")))?;
        change.vlans = Some(Some(Box::new(set)));
    }
    let first = from.mac.as_ref().map(mac).transpose()?;
    let receive = change.apply(&Receive::default(), first);
    let at = from
        .more_macs
        .first()
        .map_or(from.name.span(), Spanned::span);
    let receive = receive.map_err(|e| source.value("channel", &at, e))?;
    let at = from
        .addresses
        .first()
        .map_or(from.name.span(), Spanned::span);
    Ok(ChannelSpec {
        name,
        queues,
        mac: first,
        vlan: from.vlan.as_ref().map(vlan).transpose()?.flatten(),
        mtu: number("mtu", &from.mtu, MTU, DEFAULT_MTU)?,
        spoofchk: from.spoofchk.unwrap_or(false),
        trust: from.trust.unwrap_or(false),
        lro: from.lro.unwrap_or(false),
        link_up: match &from.link {
            None => true,
            Some(link) => {
                source.one_of("channel", "link", link, [("up", true), ("down", false)])?
            }
        },
        rss,
        block: number("block", &from.block, 0..=u16::MAX, 0)?,
        receive,
        attach: attach.with_addresses(addresses).map_err(wrong(at))?,
    })
}
