//! ip's and bridge's requests about links and addresses, against the messages of
//! netlink-packet-route, which are what we send and read.

use crate::recorder::{ETH0, REP1, assert_same, record, request};
use chanio_netlink::message::Message;
use netlink_packet_core::{Emitable, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkMessage, LinkVfInfo, VfInfo, VfInfoLinkState, VfInfoMac,
    VfInfoRate, VfInfoSpoofCheck, VfInfoTrust, VfInfoTxRate, VfInfoVlan, VfLinkState, VfVlan,
    VfVlanInfo, VlanProtocol,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
/// NLM_F_REQUEST with NLM_F_ACK.
const REQUEST: u16 = 0x5;
const CREATE: u16 = 0x400;
const EXCL: u16 = 0x200;
const REPLACE: u16 = 0x100;
const APPEND: u16 = 0x800;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

fn message(kind: u16, flags: u16, body: &impl Emitable) -> Message {
    let mut payload = vec![0; body.buffer_len()];
    body.emit(&mut payload);
    Message {
        kind,
        flags,
        payload,
        ..Message::default()
    }
}

/// Runs the line, and compares what it sends with ours, and what we read of it with what was meant.
fn link(line: &str, make: impl FnOnce(&mut LinkMessage)) {
    let mut ours = LinkMessage::default();
    ours.header.index = ETH0 as u32;
    make(&mut ours);
    // Before it asks, ip(8) tries whether the kernel knows RTM_NEWLINK at all.
    let (mut theirs, output) = record(line);
    assert!(output.status.success(), "{line}: {output:?}");
    let theirs = theirs.pop().unwrap();
    assert_same(line, &theirs, &message(RTM_NEWLINK, REQUEST, &ours));
    let read = LinkMessage::parse(theirs.payload.as_slice()).unwrap();
    assert_eq!(read.attributes, ours.attributes, "{line}");
}

fn vf(words: &str, infos: Vec<VfInfo>) {
    let line = format!("ip link set dev eth0 vf 3 {words}");
    link(&line, |message| {
        let list = vec![LinkVfInfo(infos)];
        message.attributes.push(LinkAttribute::VfInfoList(list));
    });
}

#[test]
fn virtual_functions() {
    vf(
        "mac 02:00:00:00:00:77",
        vec![VfInfo::Mac(VfInfoMac::new(3, &MAC))],
    );
    let vlan = |id, qos, protocol| {
        let info = VfVlanInfo::new(3, id, qos, protocol);
        vec![VfInfo::VlanList(vec![VfVlan::Info(info)])]
    };
    vf("vlan 100", vec![VfInfo::Vlan(VfInfoVlan::new(3, 100, 0))]);
    vf(
        "vlan 100 qos 5",
        vec![VfInfo::Vlan(VfInfoVlan::new(3, 100, 5))],
    );
    vf(
        "vlan 100 proto 802.1ad",
        vlan(100, 0, VlanProtocol::Ieee8021Ad),
    );
    vf(
        "rate 1000",
        vec![VfInfo::TxRate(VfInfoTxRate::new(3, 1000))],
    );
    vf(
        "max_tx_rate 1000 min_tx_rate 100",
        vec![VfInfo::Rate(VfInfoRate::new(3, 100, 1000))],
    );
    vf(
        "spoofchk on",
        vec![VfInfo::SpoofCheck(VfInfoSpoofCheck::new(3, true))],
    );
    vf(
        "spoofchk off",
        vec![VfInfo::SpoofCheck(VfInfoSpoofCheck::new(3, false))],
    );
    vf("trust on", vec![VfInfo::Trust(VfInfoTrust::new(3, true))]);
    for (word, state) in [
        ("auto", VfLinkState::Auto),
        ("enable", VfLinkState::Enable),
        ("disable", VfLinkState::Disable),
    ] {
        let info = VfInfo::LinkState(VfInfoLinkState::new(3, state));
        vf(&format!("state {word}"), vec![info]);
    }
}

#[test]
fn links() {
    let flags = |message: &mut LinkMessage, flags| {
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
    };
    link("ip link set dev eth0 up", |m| flags(m, LinkFlags::Up));
    link("ip link set dev eth0 down", |m| {
        flags(m, LinkFlags::empty())
    });
    let attribute = |line: &str, attribute: LinkAttribute| {
        link(line, |m| m.attributes.push(attribute));
    };
    attribute("ip link set dev eth0 mtu 9000", LinkAttribute::Mtu(9000));
    attribute(
        "ip link set dev eth0 address 02:00:00:00:00:77",
        LinkAttribute::Address(MAC.to_vec()),
    );
    // ip(8) sends an alias without the NUL that strings end with: it is read as the same.
    let (mut theirs, _) = record("ip link set dev eth0 alias web");
    let read = LinkMessage::parse(theirs.pop().unwrap().payload.as_slice()).unwrap();
    assert_eq!(read.attributes, [LinkAttribute::IfAlias("web".to_owned())]);
    attribute("ip link set dev eth0 netns 1", LinkAttribute::NetNsPid(1));
    attribute(
        "ip link set dev eth0 nomaster",
        LinkAttribute::Controller(0),
    );
    attribute(
        "ip link set dev eth0 master rep1",
        LinkAttribute::Controller(REP1),
    );
}

fn fdb(words: &str, kind: u16, flags: u16, make: impl FnOnce(&mut NeighbourMessage)) {
    let line = format!("bridge fdb {words}");
    let mut ours = NeighbourMessage::default();
    ours.header.family = AddressFamily::Bridge;
    ours.header.ifindex = ETH0 as u32;
    ours.header.flags = NeighbourFlags::Own;
    // NUD_PERMANENT with NUD_NOARP.
    ours.header.state = NeighbourState::from(0xc0);
    let address = NeighbourAttribute::LinkLayerAddress(MAC.to_vec());
    ours.attributes.push(address);
    make(&mut ours);
    let theirs = request(&line);
    assert_same(&line, &theirs, &message(kind, REQUEST | flags, &ours));
    let read = NeighbourMessage::parse(theirs.payload.as_slice()).unwrap();
    assert_eq!(read, ours, "{line}");
}

#[test]
fn addresses() {
    let what = "02:00:00:00:00:77 dev eth0";
    let add = CREATE | EXCL;
    fdb(
        &format!("add {what} self permanent"),
        RTM_NEWNEIGH,
        add,
        |_| {},
    );
    fdb(&format!("add {what}"), RTM_NEWNEIGH, add, |_| {});
    fdb(
        &format!("append {what}"),
        RTM_NEWNEIGH,
        CREATE | APPEND,
        |_| {},
    );
    fdb(
        &format!("replace {what}"),
        RTM_NEWNEIGH,
        CREATE | REPLACE,
        |_| {},
    );
    fdb(&format!("del {what}"), RTM_DELNEIGH, 0, |_| {});
    fdb(&format!("add {what} vlan 5"), RTM_NEWNEIGH, add, |m| {
        m.attributes.push(NeighbourAttribute::Vlan(5));
    });
    fdb(
        &format!("add {what} master static"),
        RTM_NEWNEIGH,
        add,
        |m| {
            m.header.flags = NeighbourFlags::Controller;
            // NUD_NOARP with NUD_REACHABLE.
            m.header.state = NeighbourState::from(0x42);
        },
    );
}
