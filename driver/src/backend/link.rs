//! A netdev as the kernel tells it (linux/if_link.h), as far as backends look at it.

use chanio_model::Mac;
use rtnetlink::packet_core::{Emitable, NetlinkDeserializable, NetlinkHeader};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoPortData, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage, Stats64,
};

/// The largest number of characters of an ifalias (linux/if.h, IFALIASZ with its NUL).
pub(super) const MAX_ALIAS: usize = 255;

/// A bridge's settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BridgeSettings {
    /// It looks at VLAN tags.
    pub(super) vlan_filtering: bool,
    /// Hundredths of a second that a learned address lives.
    pub(super) ageing: u32,
}

/// A netdev.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) alias: Option<String>,
    /// `veth`, `bridge`, `macvlan`; none for those of hardware.
    pub(super) kind: Option<String>,
    pub(super) mac: Mac,
    pub(super) mtu: u32,
    /// Administratively.
    pub(super) up: bool,
    pub(super) carrier: bool,
    /// The bridge that it is a port of.
    pub(super) master: Option<u32>,
    /// The peer, or the netdev below.
    pub(super) link: Option<u32>,
    /// The number of the namespace where that is; none: this one.
    pub(super) link_netns: Option<i32>,
    pub(super) tx_queues: u32,
    /// `pf0vf1`.
    pub(super) port_name: Option<String>,
    pub(super) switch_id: Option<Vec<u8>>,
    /// The name of the device that it is of: `0000:03:00.0`.
    pub(super) parent: Option<String>,
    pub(super) stats: Stats64,
    /// Of a bridge.
    pub(super) bridge: Option<BridgeSettings>,
    /// Of a bridge's port: frames from unknown addresses are dropped.
    pub(super) locked: bool,
    /// All that was told, for what only one backend looks at.
    pub(super) message: LinkMessage,
}

impl Link {
    /// Reads what was told.
    pub(super) fn new(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Link {
            index: message.header.index,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            ..Link::default()
        };
        for attribute in &message.attributes {
            link.read(attribute);
        }
        link.message = message;
        link
    }

    fn read(&mut self, attribute: &LinkAttribute) {
        use LinkAttribute::*;
        match attribute {
            IfName(name) => self.name.clone_from(name),
            IfAlias(alias) => self.alias = Some(alias.clone()),
            Address(bytes) => {
                // Other link layers have longer ones, or none.
                self.mac = bytes.as_slice().try_into().map(Mac).unwrap_or_default();
            }
            Mtu(mtu) => self.mtu = *mtu,
            Controller(0) => {}
            Controller(index) => self.master = Some(*index),
            Link(index) => self.link = Some(*index),
            LinkNetNsId(id) => self.link_netns = Some(*id),
            NumTxQueues(count) => self.tx_queues = *count,
            PhysPortName(name) => self.port_name = Some(name.clone()),
            PhysSwitchId(id) => {
                let mut bytes = vec![0; id.buffer_len()];
                id.emit(&mut bytes);
                self.switch_id = Some(bytes);
            }
            ParentDevName(name) => self.parent = Some(name.clone()),
            Stats64(stats) => self.stats = *stats,
            LinkInfo(infos) => infos.iter().for_each(|info| self.read_info(info)),
            _ => {}
        }
    }

    fn read_info(&mut self, info: &LinkInfo) {
        match info {
            LinkInfo::Kind(kind) => self.kind = Some(kind.to_string()),
            LinkInfo::Data(InfoData::Bridge(settings)) => {
                let bridge = self.bridge.get_or_insert_default();
                for setting in settings {
                    match setting {
                        InfoBridge::VlanFiltering(on) => bridge.vlan_filtering = *on,
                        InfoBridge::AgeingTime(time) => bridge.ageing = *time,
                        _ => {}
                    }
                }
            }
            LinkInfo::PortData(InfoPortData::BridgePort(settings)) => {
                self.locked = settings.contains(&InfoBridgePort::Locked(true));
            }
            _ => {}
        }
    }

    /// Whether it is of this kind.
    pub(super) fn is(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }
}

/// A message of rtnetlink out of its bytes.
pub(super) fn parse(
    message: &chanio_netlink::message::Message,
) -> Result<RouteNetlinkMessage, String> {
    let mut header = NetlinkHeader::default();
    header.message_type = message.kind;
    RouteNetlinkMessage::deserialize(&header, &message.payload).map_err(|e| e.to_string())
}

/// A message of rtnetlink as bytes, its flags and sequence number yet to be given.
pub(super) fn message(
    message: &RouteNetlinkMessage,
    flags: u16,
) -> chanio_netlink::message::Message {
    let mut payload = vec![0; message.buffer_len()];
    message.emit(&mut payload);
    chanio_netlink::message::Message {
        kind: message.message_type(),
        flags,
        payload,
        ..Default::default()
    }
}
