//! What the kernel tells of bridges' addresses (RTM_*NEIGH of AF_BRIDGE) and VLANs (RTM_*VLAN).

use super::link::{FORWARDING, attributes, u8_of, u16_of};
use chanio_model::Mac;
use rtnetlink::packet_core::Parseable;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState,
};

// linux/if_bridge.h
const BRIDGE_VLANDB_ENTRY: u16 = 1;
const BRIDGE_VLANDB_ENTRY_INFO: u16 = 1;
const BRIDGE_VLANDB_ENTRY_RANGE: u16 = 2;
const BRIDGE_VLANDB_ENTRY_STATE: u16 = 3;
const BRIDGE_VLAN_INFO_PVID: u16 = 1 << 1;
const BRIDGE_VLAN_INFO_UNTAGGED: u16 = 1 << 2;
/// The size of struct br_vlan_msg.
const VLAN_HEADER_LEN: usize = 8;
/// VLAN ids are below this.
const VIDS: u16 = 4096;

/// Which entry of a bridge's address table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FdbKey {
    /// The bridge's index.
    pub bridge: u32,
    /// 0: of no VLAN.
    pub vid: u16,
    pub mac: Mac,
}

/// Where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FdbEntry {
    /// The port's index, or the bridge's own.
    pub port: u32,
    /// The bridge itself has it.
    pub local: bool,
    /// It does not age.
    pub fixed: bool,
    /// Not to be used before somebody unlocks it.
    pub locked: bool,
}

/// An entry of a bridge's table; `None` for all other neighbours.
pub(super) fn fdb(body: &[u8]) -> Option<(FdbKey, FdbEntry)> {
    if body.first() != Some(&(libc::AF_BRIDGE as u8)) {
        return None;
    }
    let message = NeighbourMessage::parse(body).ok()?;
    debug_assert_eq!(message.header.family, AddressFamily::Bridge);
    let (mut bridge, mut mac, mut vid, mut locked) = (None, None, 0, false);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Controller(index) => bridge = Some(*index),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(&bytes[..]).ok().map(Mac);
            }
            NeighbourAttribute::Vlan(id) => vid = *id,
            NeighbourAttribute::ExtFlags(flags) => {
                locked = flags.contains(NeighbourExtFlags::Locked);
            }
            _ => {}
        }
    }
    // Entries of a netdev's own filter name no bridge.
    let (bridge, mac) = (bridge?, mac?);
    let state = message.header.state;
    let entry = FdbEntry {
        port: message.header.ifindex,
        local: state == NeighbourState::Permanent,
        fixed: state != NeighbourState::Reachable && state != NeighbourState::Stale,
        locked,
    };
    Some((FdbKey { bridge, vid, mac }, entry))
}

/// A port's part in a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortVlan {
    /// What comes without a tag belongs to it.
    pub pvid: bool,
    /// What leaves in it has no tag.
    pub untagged: bool,
    pub forwarding: bool,
}

/// VLANs from the first to the last, of which the same is said.
pub(super) type VlanRange = (u16, u16, PortVlan);

/// The port's index (or the bridge's), and the VLANs that the message is about.
pub(super) fn vlans(body: &[u8]) -> Option<(u32, Vec<VlanRange>)> {
    let (header, rest) = body.split_first_chunk::<VLAN_HEADER_LEN>()?;
    let index = u32::from_ne_bytes(*header.last_chunk()?);
    let entries = attributes(rest).filter(|nla| nla.kind() == BRIDGE_VLANDB_ENTRY);
    let entry = |bytes: &[u8]| {
        let (mut info, mut last, mut state) = (None, None, FORWARDING);
        for nla in attributes(bytes) {
            match nla.kind() {
                BRIDGE_VLANDB_ENTRY_INFO => info = nla.value().first_chunk::<4>().copied(),
                BRIDGE_VLANDB_ENTRY_RANGE => last = Some(u16_of(&nla)),
                BRIDGE_VLANDB_ENTRY_STATE => state = u8_of(&nla),
                _ => {}
            }
        }
        let [f0, f1, v0, v1] = info?;
        let (flags, first) = (u16::from_ne_bytes([f0, f1]), u16::from_ne_bytes([v0, v1]));
        let vlan = PortVlan {
            pvid: flags & BRIDGE_VLAN_INFO_PVID != 0,
            untagged: flags & BRIDGE_VLAN_INFO_UNTAGGED != 0,
            forwarding: state == FORWARDING,
        };
        let last = last.unwrap_or(first);
        (first < VIDS && last < VIDS).then_some((first, last, vlan))
    };
    let list = entries.filter_map(|nla| entry(nla.value())).collect();
    Some((index, list))
}
