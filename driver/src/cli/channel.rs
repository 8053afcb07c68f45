//! `chanio channel` and `chanio representor`

use super::out::Out;
use super::watch::Watch;
use super::{CliError, Done, Switch, or_dash, yes_no};
use chanio::Nic;
use chanio::nic::{Channel, ChannelChange, ChannelSpec, FunctionKind};
use chanio_emu::nic::spec::Attach;
use chanio_model::Mac;
use chanio_model::eswitch::{ReceiveChange, VlanSet, VlanSetError};
use chanio_model::rss::{HashTypes, RssChange, RssKey};
use ipnet::IpNet;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Make a channel, or many
    Add(Add),
    /// Remove channels, with the flow rules that name them
    Del {
        /// Which
        #[arg(required_unless_present = "all")]
        names: Vec<String>,
        /// All of them
        #[arg(long, conflicts_with = "names")]
        all: bool,
    },
    /// Change a running channel
    Set {
        /// Which
        name: String,
        /// Queue pairs that are used, of those that it can have
        #[arg(long, value_name = "K")]
        queues: Option<u16>,
        #[command(flatten)]
        settings: Settings,
        /// Let it start again after a fault
        #[arg(long)]
        clear_fault: bool,
    },
    /// These channels, or all
    Show {
        /// Which
        names: Vec<String>,
        #[command(flatten)]
        watch: Watch,
    },
}

#[derive(clap::Subcommand)]
pub enum RepresentorCommand {
    /// All representors
    Show,
}

#[derive(clap::Args)]
pub struct Add {
    /// 1 to 63 characters out of a-z A-Z 0-9 . _ -; with --count the first part of the names
    name: String,
    /// Queue pairs: 1 to 127 with vhost-user, 1 to 256 with a TAP
    #[arg(long, default_value_t = 1, value_name = "K")]
    queues: u16,
    /// What kind of function of the NIC's it is, of those that it has; chosen by the NIC if not given
    #[arg(long, value_name = "KIND")]
    function: Option<Function>,
    /// Allow RDMA over Ethernet, or forbid it (subfunctions)
    #[arg(long, value_name = "on|off")]
    roce: Option<Switch>,
    #[command(flatten)]
    settings: Settings,
    /// vhost-user, vhost-user-client:PATH, tap:NETNS[:IF], or none (netdevsim); with --count {n} in
    /// it is each channel's number, as tap:pod{n} or tap:pod:eth{n}
    #[arg(long, default_value = "vhost-user", value_name = "WHERE")]
    attach: String,
    /// Address of the netdev in the container, with its prefix; may be given several times
    #[arg(long = "address", value_name = "ADDRESS/PREFIX")]
    addresses: Vec<IpNet>,
    /// Make so many, called NAME1, NAME2, …
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    count: Option<u32>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Function {
    /// A subfunction
    Sf,
    /// A virtual function
    Vf,
    /// A macvlan device with queues of the NIC's (l2-fwd-offload)
    Macvlan,
}

impl From<Function> for FunctionKind {
    fn from(function: Function) -> Self {
        match function {
            Function::Sf => FunctionKind::Sf,
            Function::Vf => FunctionKind::Vf,
            Function::Macvlan => FunctionKind::Macvlan,
        }
    }
}

#[derive(clap::Args)]
pub struct Settings {
    /// Address; chosen by the NIC if not given
    #[arg(long, value_name = "MAC")]
    mac: Option<String>,
    /// Port VLAN, 1 to 4094; 0: none
    #[arg(long, value_name = "V")]
    vlan: Option<u16>,
    /// Largest L3 packet, bytes
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u16>,
    /// Drop frames whose source is not the channel's own
    #[arg(long)]
    spoofchk: Option<Switch>,
    /// Allow the driver to change its address and receive mode
    #[arg(long)]
    trust: Option<Switch>,
    /// Join TCP segments for a driver that takes large packets
    #[arg(long)]
    lro: Option<Switch>,
    /// Administrative link state
    #[arg(long)]
    link: Option<Link>,
    #[command(flatten)]
    rss: RssArgs,
    /// Share rules that match `block N` with all others of this block, 1 to 65535; 0: with none
    #[arg(long, value_name = "N")]
    block: Option<u16>,
    #[command(flatten)]
    receive: ReceiveArgs,
}

/// What it receives while its driver asks for nothing else.
#[derive(Clone, clap::Args)]
pub struct ReceiveArgs {
    /// Give it another address, a station's or a group's; may be given several times
    #[arg(long = "add-mac", value_name = "MAC")]
    add: Vec<Mac>,
    /// Take such an address away
    #[arg(long = "del-mac", value_name = "MAC")]
    del: Vec<Mac>,
    /// Receive all addresses, or its own, its groups and broadcast [default: on]
    #[arg(long, value_name = "on|off")]
    promisc: Option<Switch>,
    /// Receive all groups [default: off]
    #[arg(long, value_name = "on|off")]
    allmulti: Option<Switch>,
    /// Of tagged frames receive those of these VLANs only, as 5,10-19; off: of all
    #[arg(long, value_name = "VLANS|off", value_parser = vlan_filter)]
    vlan_filter: Option<VlanFilter>,
}

/// VLANs, or all.
#[derive(Clone)]
struct VlanFilter(Option<Box<VlanSet>>);

fn vlan_filter(text: &str) -> Result<VlanFilter, VlanSetError> {
    Ok(VlanFilter(match text {
        "off" => None,
        text => Some(Box::new(text.parse()?)),
    }))
}

impl ReceiveArgs {
    fn change(self) -> ReceiveChange {
        ReceiveChange {
            promisc: self.promisc.map(Switch::is_on),
            allmulti: self.allmulti.map(Switch::is_on),
            add: self.add,
            del: self.del,
            vlans: self.vlan_filter.map(|filter| filter.0),
        }
    }
}

/// Receive-side scaling; any of these switches it on.
#[derive(Clone, clap::Args)]
pub struct RssArgs {
    /// Spread packets over the queues by a Toeplitz hash, or as the device does it
    #[arg(long, value_name = "on|off")]
    rss: Option<Switch>,
    /// Its key, 1 to 40 bytes in hex
    #[arg(long, value_name = "HEX")]
    rss_key: Option<RssKey>,
    /// Queues, counted from 0, by the low bits of the hash: a power of two of them, at most 512
    #[arg(long, value_name = "Q,Q,…", value_delimiter = ',')]
    rss_table: Option<Vec<u16>>,
    /// What is hashed: of ip4,tcp4,udp4,ip6,tcp6,udp6,ip6-ex,tcp6-ex,udp6-ex, or none
    #[arg(long, value_name = "TYPES")]
    rss_hash: Option<HashTypes>,
    /// The queue for packets of which nothing is hashed
    #[arg(long, value_name = "Q")]
    rss_unclassified: Option<u16>,
}

impl RssArgs {
    fn change(self) -> Option<RssChange> {
        let off = matches!(self.rss, Some(Switch::Off));
        let change = RssChange {
            off,
            types: self.rss_hash,
            key: self.rss_key,
            table: self.rss_table,
            unclassified: self.rss_unclassified,
        };
        (self.rss.is_some() || change != RssChange::default()).then_some(change)
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Link {
    Up,
    Down,
}

impl Command {
    /// What can be said without the device.
    pub fn check(&self) -> Result<(), CliError> {
        if let Command::Add(Add {
            count: Some(2..),
            settings: Settings { mac: Some(_), .. },
            ..
        }) = self
        {
            return Err(CliError::Usage(
                "mac: --count makes several channels, which cannot share one address".into(),
            ));
        }
        Ok(())
    }
}

pub fn run(command: Command, nic: &mut dyn Nic, out: &mut Out) -> Done {
    match command {
        Command::Add(add) => {
            let single = add.count.is_none();
            let specs = add.specs()?;
            let made = nic.add_channels(specs)?;
            match &made[..] {
                [channel] if single && out.is_json() => Ok(out.json(channel)?),
                made if single => print(made, out),
                made if out.is_json() => Ok(out.json(&made)?),
                made => Ok(out.text(&format!("{} channels\n", made.len()))?),
            }
        }
        Command::Del { names, all } => {
            let names = if all {
                nic.channels(&[])?.into_iter().map(|c| c.name).collect()
            } else {
                names
            };
            nic.del_channels(&names)?;
            Ok(out.done(&serde_json::json!({ "deleted": names.len() }))?)
        }
        Command::Set {
            name,
            queues,
            settings,
            clear_fault,
        } => {
            let change = ChannelChange {
                queues,
                mac: settings.mac,
                vlan: settings.vlan,
                mtu: settings.mtu,
                spoofchk: settings.spoofchk.map(Switch::is_on),
                trust: settings.trust.map(Switch::is_on),
                link_up: settings.link.map(|l| matches!(l, Link::Up)),
                rss: settings.rss.change(),
                lro: settings.lro.map(Switch::is_on),
                block: settings.block,
                receive: settings.receive.change(),
                clear_fault,
            };
            let channel = nic.set_channel(&name, change)?;
            Ok(out.done(&channel)?)
        }
        Command::Show { names, watch } => watch.show(out, |out| print(&nic.channels(&names)?, out)),
    }
}

impl Add {
    fn specs(self) -> Result<Vec<ChannelSpec>, CliError> {
        // A name has no braces, so that nobody can mean them otherwise.
        let attach = |n: Option<u32>| {
            let text = match n {
                Some(n) => self.attach.replace("{n}", &n.to_string()),
                None => self.attach.clone(),
            };
            let attach = text.parse::<Attach>();
            let attach = attach.and_then(|a| a.with_addresses(self.addresses.clone()));
            attach.map_err(|e| CliError::Usage(e.to_string()))
        };
        let spec = |n: Option<u32>| -> Result<_, CliError> {
            Ok(ChannelSpec {
                name: n.map_or(self.name.clone(), |n| format!("{}{n}", self.name)),
                function: self.function.map(FunctionKind::from),
                roce: self.roce.map(Switch::is_on),
                queues: self.queues,
                mac: self.settings.mac.clone(),
                vlan: self.settings.vlan.unwrap_or(0),
                mtu: self.settings.mtu.unwrap_or(1500),
                spoofchk: self.settings.spoofchk.is_some_and(Switch::is_on),
                trust: self.settings.trust.is_some_and(Switch::is_on),
                link_up: !matches!(self.settings.link, Some(Link::Down)),
                rss: self.settings.rss.clone().change(),
                lro: self.settings.lro.is_some_and(Switch::is_on),
                block: self.settings.block.unwrap_or(0),
                receive: self.settings.receive.clone().change(),
                attach: attach(n)?,
            })
        };
        match self.count {
            None => Ok(vec![spec(None)?]),
            Some(count) => (1..=count).map(|n| spec(Some(n))).collect(),
        }
    }
}

fn print(channels: &[Channel], out: &mut Out) -> Done {
    let heading = [
        "NAME",
        "VPORT",
        "MAC",
        "QUEUES",
        "ACTIVE",
        "VLAN",
        "MTU",
        "LINK",
        "STATE",
        "REPRESENTOR",
        "ATTACH",
        "FAULT",
    ];
    Ok(out.list(channels, heading, |c| {
        [
            c.name.clone(),
            c.vport.to_string(),
            c.mac.clone(),
            c.queues.to_string(),
            c.active_queues.to_string(),
            c.vlan.map_or("-".into(), |v| v.to_string()),
            c.mtu.to_string(),
            c.link.into(),
            c.state.into(),
            or_dash(c.representor.as_deref()),
            c.socket.clone().unwrap_or_else(|| c.attach.clone()),
            or_dash(c.fault.as_deref()),
        ]
    })?)
}

pub fn representors(nic: &mut dyn Nic, out: &mut Out) -> Done {
    let heading = ["NAME", "VPORT", "CHANNEL", "UP", "CARRIER", "MTU"];
    Ok(out.list(&nic.representors()?, heading, |r| {
        [
            r.name.clone(),
            r.vport.to_string(),
            or_dash(r.channel.as_deref()),
            yes_no(r.up).into(),
            yes_no(r.carrier).into(),
            r.mtu.to_string(),
        ]
    })?)
}
