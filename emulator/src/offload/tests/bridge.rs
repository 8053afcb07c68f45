//! Addresses of bridges, out of recorded and of made messages.

use super::recorded::{BRIDGE_PORT, OWN_ADDRESS};
use super::*;
use chanio_model::Mac;

const BRIDGE: u32 = 20;

/// RTM_NEWNEIGH of an address of the bridge's.
fn address(mac: Mac, vid: u16, port: u32, state: u16) -> Vec<u8> {
    let mut body = vec![libc::AF_BRIDGE as u8, 0, 0, 0];
    body.extend(port.to_ne_bytes());
    body.extend(state.to_ne_bytes());
    body.extend([0, 0]);
    body.extend(nla(2, &mac.0));
    body.extend(nla(9, &BRIDGE.to_ne_bytes()));
    if vid != 0 {
        body.extend(nla(5, &vid.to_ne_bytes()));
    }
    body
}

/// RTM_NEWVLAN: a port's VLANs, from the first to the last.
fn vlans(port: u32, flags: u16, first: u16, last: u16, state: u8) -> Vec<u8> {
    let info = [flags.to_ne_bytes(), first.to_ne_bytes()].concat();
    let mut entry = nla(1, &info);
    if last != first {
        entry.extend(nla(2, &last.to_ne_bytes()));
    }
    entry.extend(nla(3, &[state]));
    let mut body = vec![libc::AF_BRIDGE as u8, 0, 0, 0];
    body.extend(port.to_ne_bytes());
    body.extend(nla(1, &entry));
    body
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

const REACHABLE: u16 = 2;
const PERMANENT: u16 = 0x80;

/// Ports 1 and 2 are the bridge's, in state forwarding.
fn world(filtering: bool) -> World {
    let mut world = World::new();
    let settings = [
        nla(4, &30_000u32.to_ne_bytes()),
        nla(7, &[u8::from(filtering)]),
        nla(8, &0x8100u16.to_be_bytes()),
    ]
    .concat();
    let info = [nla(1, b"bridge\0"), nla(2, &settings)].concat();
    let attributes = [nla(3, b"br0\0"), nla(18, &info)];
    world.note(libc::RTM_NEWLINK, &link(0, BRIDGE, true, &attributes));
    for n in 1..=2 {
        let info = [nla(4, b"bridge\0"), nla(5, &nla(1, &[3]))].concat();
        world.port(n, true, &[nla(10, &BRIDGE.to_ne_bytes()), nla(18, &info)]);
    }
    world
}

#[test]
fn known_addresses_are_looked_up_from_known_addresses() {
    let mut world = world(false);
    world.note(libc::RTM_NEWNEIGH, &address(mac(1), 0, 11, REACHABLE));
    world.note(libc::RTM_NEWNEIGH, &address(mac(2), 0, 12, REACHABLE));
    // Its own, and one behind a netdev of somebody else's.
    world.note(libc::RTM_NEWNEIGH, &address(mac(3), 0, 11, PERMANENT));
    world.note(libc::RTM_NEWNEIGH, &address(mac(4), 0, 99, REACHABLE));
    assert_eq!(
        world.note(libc::RTM_NEWNEIGH, &bytes(OWN_ADDRESS)),
        Effect::Changed
    );
    let plan = world.plan();
    let wanted = [
        "prio 1 in_port p1 src_mac 02:00:00:00:00:01 action goto chain 1",
        "prio 1 in_port p2 src_mac 02:00:00:00:00:02 action goto chain 1",
        "chain 1 prio 1 in_port p1 dst_mac 02:00:00:00:00:01 action pass",
        "chain 1 prio 1 in_port p2 dst_mac 02:00:00:00:00:02 action pass",
        "chain 1 prio 2 dst_mac 02:00:00:00:00:01 action redirect p1",
        "chain 1 prio 2 dst_mac 02:00:00:00:00:02 action redirect p2",
    ];
    let name = |vport: VportId| Some(format!("p{vport}"));
    let wanted = wanted.map(|text| spec(text).with_names(&name).to_string());
    assert_eq!(plan.texts(), wanted);
    assert_eq!(plan.listed.len(), 2);
    // The recorded message says that port 1 is isolated, and that it is in state disabled.
    assert_eq!(
        world.note(libc::RTM_NEWLINK, &bytes(BRIDGE_PORT)),
        Effect::Changed
    );
    let plan = world.plan();
    assert_eq!(plan.rules.len(), 3);
    let why: Vec<_> = plan
        .listed
        .iter()
        .filter_map(|l| l.why_not.as_deref())
        .collect();
    assert_eq!(why, ["p1 is not in state forwarding"]);
    assert_eq!(
        world.note(libc::RTM_DELNEIGH, &address(mac(2), 0, 12, REACHABLE)),
        Effect::Changed
    );
    assert!(world.plan().rules.is_empty());
}

#[test]
fn tags_come_and_go_by_vlan() {
    let mut world = world(true);
    const PVID: u16 = 2;
    const UNTAGGED: u16 = 4;
    world.note(112, &vlans(11, PVID | UNTAGGED, 5, 5, 3));
    world.note(112, &vlans(12, 0, 5, 7, 3));
    for (n, port) in [(1, 11), (2, 12)] {
        world.note(libc::RTM_NEWNEIGH, &address(mac(n), 5, port, REACHABLE));
    }
    let plan = world.plan();
    let all = plan.texts().join("\n");
    for part in [
        "in_port p1 src_mac 02:00:00:00:00:01",
        "dst_mac 02:00:00:00:00:01 action vlan pop action redirect p1",
        "dst_mac 02:00:00:00:00:01 action redirect p1",
        "dst_mac 02:00:00:00:00:02 action redirect p2",
        "action vlan push id 5",
    ] {
        assert!(all.contains(part), "{part} in {all}");
    }
    // Where it comes from: twice for the port whose own VLAN it is, once for the other; and for
    // each form two rules where it goes to.
    assert_eq!(plan.rules.len(), 2 + 1 + 4 * 2);
    // VLAN 5 blocked at port 2; then port 2 is not in it.
    world.note(112, &vlans(12, 0, 5, 5, 4));
    let why = |plan: &Plan| plan.listed[1].why_not.clone().unwrap_or_default();
    assert_eq!(
        why(&world.plan()),
        "p2 is not in state forwarding in VLAN 5"
    );
    world.note(113, &vlans(12, 0, 5, 6, 3));
    assert_eq!(why(&world.plan()), "p2 is not in VLAN 5");
    assert_eq!(
        world.mirror.vlans[&12].keys().copied().collect::<Vec<_>>(),
        [7]
    );
}

#[test]
fn a_filter_that_leaves_nothing_hides_the_bridge() {
    let mut world = world(false);
    for (n, port) in [(1, 11), (2, 12)] {
        world.note(libc::RTM_NEWNEIGH, &address(mac(n), 0, port, REACHABLE));
    }
    assert_eq!(world.plan().rules.len(), 6);
    let skip = RuleFlags::SKIP_HW;
    world.filter(1, "in_port p1 tcp4 action drop", skip);
    // One that takes some is in front of the bridge, though no filter is behind it.
    let plan = world.plan();
    assert_eq!(plan.rules.len(), 7);
    assert!(plan.texts()[0].starts_with('['));
    world.filter(2, "in_port p1 action drop", skip);
    let plan = world.plan();
    assert_eq!(plan.rules.len(), 3);
    let why = plan.listed.iter().filter_map(|l| l.why_not.as_deref());
    assert!(
        why.clone()
            .any(|why| why == "p1 has filters that are only in software")
    );
}
