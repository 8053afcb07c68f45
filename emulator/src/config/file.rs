//! The TOML file as written: the shape of the tables, every value with its place.

use serde::Deserialize;
use toml::Spanned;

type Number = Option<Spanned<i64>>;
type Text = Option<Spanned<String>>;

/// The whole file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub nic: Nic,
    #[serde(default)]
    pub eswitch: Eswitch,
    #[serde(default)]
    pub channel: Vec<Channel>,
    #[serde(default)]
    pub flow: Vec<Flow>,
    #[serde(default)]
    pub fdb: Vec<Fdb>,
    #[serde(default)]
    pub rate: Vec<Rate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rate {
    pub name: Spanned<String>,
    pub tx_share: Text,
    pub tx_max: Text,
    pub tx_priority: Number,
    pub tx_weight: Number,
    pub parent: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nic {
    pub queues: Number,
    pub workers: Number,
    pub representors: Text,
    pub uplink: Text,
    pub nic_index: Number,
    pub ageing_secs: Number,
    pub profile: Text,
    pub offload: Option<bool>,
    pub run_dir: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Eswitch {
    pub mode: Text,
    pub vepa: Option<Spanned<bool>>,
    pub tunnel_ports: Text,
    pub uplink_block: Number,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Channel {
    pub name: Spanned<String>,
    pub queues: Number,
    pub mac: Text,
    pub vlan: Number,
    pub mtu: Number,
    pub spoofchk: Option<bool>,
    pub trust: Option<bool>,
    pub lro: Option<bool>,
    pub link: Text,
    pub attach: Text,
    #[serde(default)]
    pub addresses: Vec<Spanned<String>>,
    pub rss: Option<Spanned<Rss>>,
    pub block: Number,
    #[serde(default)]
    pub more_macs: Vec<Spanned<String>>,
    pub promisc: Option<bool>,
    pub allmulti: Option<bool>,
    pub vlan_filter: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rss {
    pub hash_types: Option<String>,
    pub key: Option<String>,
    pub table: Option<Vec<i64>>,
    pub unclassified: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flow {
    pub rule: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fdb {
    pub vid: Number,
    pub mac: Spanned<String>,
    pub port: Spanned<String>,
}
