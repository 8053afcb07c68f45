//! Channels, their settings and rates, and the eswitch's, as the API has them.

use crate::DeviceError;
use crate::nic::*;
use chanio_emu::control::proto::{self, attach::Kind};
use chanio_emu::nic::spec::Attach;
use chanio_model::Mac;
use chanio_model::eswitch::ReceiveChange;
use chanio_model::rate::RateChange;
use chanio_model::rss::RssChange;

/// An empty string means there is none.
pub(super) fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

pub(super) fn eswitch(e: &proto::Eswitch) -> Eswitch {
    Eswitch {
        mode: match e.mode() {
            proto::EswitchMode::Switchdev => "switchdev",
            proto::EswitchMode::Legacy | proto::EswitchMode::Unspecified => "legacy",
        },
        vepa: e.vepa,
        ageing_secs: e.ageing_secs,
        flows: e.flows,
        fdb_entries: e.fdb_entries,
        tunnel_ports: some(e.tunnel_ports.clone()),
        uplink_block: Some(e.uplink_block).filter(|block| *block != 0),
        kernel_overruns: e.kernel_overruns,
    }
}

/// On the wire 0 means that nothing was said, and the device's default; here it was said.
pub(super) fn check_said(spec: &ChannelSpec) -> Result<(), DeviceError> {
    let zero = |field, allowed| DeviceError::Refused {
        reason: format!("{field}: 0 is not allowed, must be {allowed}"),
    };
    match spec {
        ChannelSpec { queues: 0, .. } => Err(zero("queues", "1 to 256")),
        ChannelSpec { mtu: 0, .. } => Err(zero("mtu", "68 to 9500")),
        _ => Ok(()),
    }
}

pub(super) fn channel_spec(spec: ChannelSpec) -> proto::ChannelSpec {
    let kind = match spec.attach {
        // None comes here: see add_channels.
        Attach::VhostUser | Attach::Nothing => Kind::VhostUser(proto::attach::VhostUser {}),
        Attach::VhostUserClient { path } => Kind::VhostUserClient(proto::attach::VhostUserClient {
            path: path.display().to_string(),
        }),
        Attach::Tap {
            netns,
            ifname,
            addresses,
        } => Kind::Tap(proto::attach::Tap {
            netns,
            ifname: ifname.unwrap_or_default(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
        }),
    };
    proto::ChannelSpec {
        name: spec.name,
        queues: spec.queues.into(),
        mac: spec.mac.unwrap_or_default(),
        vlan: spec.vlan.into(),
        mtu: spec.mtu.into(),
        spoofchk: spec.spoofchk,
        trust: spec.trust,
        link_down: !spec.link_up,
        rss: spec.rss.map(rss_change),
        lro: spec.lro,
        block: spec.block.into(),
        receive: Some(receive(spec.receive)),
        attach: Some(proto::Attach { kind: Some(kind) }),
    }
}

pub(super) fn receive(change: ReceiveChange) -> proto::Receive {
    let texts = |macs: Vec<Mac>| macs.iter().map(Mac::to_string).collect();
    proto::Receive {
        promisc: change.promisc,
        allmulti: change.allmulti,
        add_macs: texts(change.add),
        del_macs: texts(change.del),
        vlan_filter: change
            .vlans
            .map(|set| set.map_or(String::new(), |set| set.to_string())),
    }
}

pub(super) fn channel(c: proto::Channel) -> Channel {
    let state = match c.state() {
        proto::ChannelState::Disconnected => "disconnected",
        proto::ChannelState::Connected => "connected",
        proto::ChannelState::Running => "running",
        proto::ChannelState::Faulted => "faulted",
        proto::ChannelState::Unspecified => "unknown",
    };
    let spec = c.spec.unwrap_or_default();
    let attach = match spec.attach.and_then(|a| a.kind) {
        Some(Kind::Tap(tap)) => {
            let ifname = if tap.ifname.is_empty() {
                "eth0"
            } else {
                &tap.ifname
            };
            format!("tap:{}:{ifname}", tap.netns)
        }
        Some(Kind::VhostUserClient(client)) => format!("vhost-user-client:{}", client.path),
        Some(Kind::VhostUser(_)) | None => "vhost-user".into(),
    };
    let receive = spec.receive.unwrap_or_default();
    Channel {
        block: (spec.block != 0).then_some(spec.block),
        more_macs: receive.add_macs,
        promisc: receive.promisc.unwrap_or(true),
        allmulti: receive.allmulti.unwrap_or(false),
        vlan_filter: receive.vlan_filter.and_then(some),
        name: spec.name,
        vport: c.vport,
        mac: c.mac,
        queues: spec.queues,
        active_queues: c.active_queues,
        vlan: (spec.vlan != 0).then_some(spec.vlan),
        mtu: spec.mtu,
        spoofchk: spec.spoofchk,
        trust: spec.trust,
        lro: spec.lro,
        link: if spec.link_down { "down" } else { "up" },
        attach,
        representor: some(c.representor),
        socket: some(c.socket),
        state,
        fault: some(c.fault),
        features: format!("{:#x}", c.features),
        roce: None,
        rss: c.rss.map(rss),
    }
}

pub(super) fn rate_change(name: &str, change: RateChange) -> proto::RateChange {
    let parent = change.parent;
    proto::RateChange {
        name: name.to_owned(),
        tx_share: change.tx_share,
        tx_max: change.tx_max,
        tx_priority: change.tx_priority,
        tx_weight: change.tx_weight,
        parent: parent.map(|name| name.map_or_else(String::new, |name| name.to_string())),
    }
}

pub(super) fn rate(rate: proto::Rate) -> Rate {
    Rate {
        name: rate.name,
        kind: if rate.node { "node" } else { "leaf" },
        tx_share: rate.tx_share,
        tx_max: rate.tx_max,
        tx_priority: rate.tx_priority,
        tx_weight: rate.tx_weight,
        parent: some(rate.parent),
    }
}

pub(super) fn rss_change(change: RssChange) -> proto::Rss {
    let table = change.table.unwrap_or_default();
    proto::Rss {
        off: change.off,
        hash_types: change.types.map(|types| types.to_string()),
        key: change.key.map(|key| key.to_string()),
        table: table.into_iter().map(u32::from).collect(),
        unclassified: change.unclassified.map(u32::from),
    }
}

pub(super) fn rss(rss: proto::Rss) -> Rss {
    let types = rss.hash_types.unwrap_or_default();
    let types = types.split(',').filter(|name| *name != "none");
    Rss {
        hash_types: types.map(str::to_owned).collect(),
        key: rss.key.unwrap_or_default(),
        table: rss.table,
        unclassified: rss.unclassified.unwrap_or_default(),
    }
}
