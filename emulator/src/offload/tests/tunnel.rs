//! Tunnels' netdevs: what goes into them and what comes out.

use super::*;
use chanio_model::Mac;
use chanio_model::edit::{TunnelKind, TunnelPorts};
use std::net::IpAddr;

/// The uplink's netdev, and the tunnel's.
const UPLINK: u32 = 10;
const TUNNEL: u32 = 20;
const NEAR: [u8; 4] = [192, 0, 2, 1];
const FAR: [u8; 4] = [192, 0, 2, 2];
const FAR_MAC: [u8; 6] = [4; 6];

const INTO: &str = "prio 1 in_port p1 ip4 action tunnel_key set kind vxlan src_ip 192.0.2.1 \
                    dst_ip 192.0.2.2 src_mac 02:02:02:02:02:02 dst_mac 04:04:04:04:04:04 id 7 \
                    dst_port 4789 action redirect p0";
const OUT_OF: &str = "prio 1 ip4 enc_kind vxlan enc_key_id 7 enc_src_ip 192.0.2.2 \
                      enc_dst_ip 192.0.2.1 action redirect p1";

fn vxlan(world: &mut World, index: u32, up: bool, data: &[Vec<u8>]) {
    let info = [nla(1, b"vxlan\0"), nla(2, &data.concat())].concat();
    let attributes = [nla(3, format!("vxlan{index}\0").as_bytes()), nla(18, &info)];
    world.note(libc::RTM_NEWLINK, &link(0, index, up, &attributes));
}

fn external(port: u16) -> [Vec<u8>; 2] {
    [nla(15, &port.to_be_bytes()), nla(25, &[1])]
}

fn uplink(world: &mut World, mtu: u32, more: &[Vec<u8>]) {
    let mut attributes = vec![nla(1, &[2; 6]), nla(3, b"p0\0"), nla(4, &mtu.to_ne_bytes())];
    attributes.extend(more.iter().cloned());
    world.note(libc::RTM_NEWLINK, &link(0, UPLINK, true, &attributes));
}

fn address(world: &mut World, kind: u16) -> Effect {
    let mut body = vec![2, 24, 0, 0];
    body.extend(UPLINK.to_ne_bytes());
    body.extend(nla(2, &NEAR));
    world.note(kind, &body)
}

fn neighbour(world: &mut World, state: u16) -> Effect {
    let mut body = vec![2, 0, 0, 0];
    body.extend(UPLINK.to_ne_bytes());
    body.extend(state.to_ne_bytes());
    body.extend([0, 1]);
    body.extend(nla(1, &FAR));
    body.extend(nla(2, &FAR_MAC));
    world.note(libc::RTM_NEWNEIGH, &body)
}

fn ends() -> (IpAddr, IpAddr) {
    (NEAR.into(), FAR.into())
}

/// An uplink, a tunnel's netdev, and all that is needed to send to the other end.
fn world() -> World {
    let mut world = World::new();
    world.basis.ports.insert(
        0,
        KernelPort {
            vport: VportId::UPLINK,
            ifindex: UPLINK,
            mtu: None,
        },
    );
    uplink(&mut world, 1600, &[]);
    vxlan(&mut world, TUNNEL, true, &external(4789));
    address(&mut world, libc::RTM_NEWADDR);
    neighbour(&mut world, 2);
    let way = way::Way {
        netdev: UPLINK,
        via: FAR.into(),
    };
    world.mirror.ways.insert(ends(), Ok(way));
    let qdisc = Qdisc::clsact(TUNNEL.cast_signed());
    world.note(NEW_QDISC, &qdisc.message(NEW_QDISC, 0).unwrap().payload);
    world
}

fn with_names(texts: &[&str]) -> Vec<String> {
    let name = |vport: VportId| Some(format!("p{vport}"));
    let texts = texts.iter();
    texts
        .map(|text| spec(text).with_names(&name).to_string())
        .collect()
}

#[test]
fn what_goes_into_a_tunnel_leaves_by_the_kernels_route_and_neighbour() {
    let mut world = world();
    world.filter(1, INTO, 0);
    assert_eq!(way::wanted(&world.mirror), [ends()].into());
    let plan = world.plan();
    assert_eq!(plan.texts(), with_names(&[INTO]), "{:?}", plan.why_not(1));
    assert_eq!(plan.neighbours[0].1, (UPLINK, IpAddr::from(FAR)));

    // A frame of 1,500 bytes, and 50 of headers.
    uplink(&mut world, 1549, &[]);
    let why = "mtu: p0 takes 1549 bytes, packets in the tunnel may have 1550";
    assert_eq!(world.plan().why_not(1), Some(why));
    uplink(&mut world, 1600, &[]);
    // NUD_FAILED, NUD_STALE.
    assert_eq!(neighbour(&mut world, 0x20), Effect::Changed);
    let why = "neighbour 192.0.2.2 on p0 is not known yet";
    assert_eq!(world.plan().why_not(1), Some(why));
    assert_eq!(neighbour(&mut world, 4), Effect::Changed);
    assert_eq!(neighbour(&mut world, 2), Effect::None);
    assert_eq!(world.plan().why_not(1), None);

    for (data, up, why) in [
        (&external(4789)[..], false, "vxlan20 is down"),
        (
            &external(4789)[..1],
            true,
            "vxlan20 is not `external`: its packets do not say what their outer headers are",
        ),
        (
            &[&external(4789)[..], &[nla(23, &[])]].concat(),
            true,
            "vxlan20 has gbp",
        ),
    ] {
        vxlan(&mut world, TUNNEL, up, data);
        assert_eq!(world.plan().why_not(1), Some(why));
    }
    vxlan(&mut world, TUNNEL, true, &external(4789));
    // Routes change: they are asked for anew, and what came of it is said.
    assert_eq!(world.note(libc::RTM_NEWROUTE, &[]), Effect::Changed);
    assert!(world.mirror.ways_stale);
    let other = way::Way {
        netdev: 12,
        via: FAR.into(),
    };
    for (way, why) in [
        (Ok(other), "the route to 192.0.2.2 leads to p2, not to p0"),
        (
            Err("no route from 192.0.2.1 to 192.0.2.2: gone".to_owned()),
            "no route from 192.0.2.1 to 192.0.2.2: gone",
        ),
    ] {
        world.mirror.ways.insert(ends(), way);
        assert_eq!(world.plan().why_not(1), Some(why));
    }
}

#[test]
fn what_comes_out_of_a_tunnel_was_for_the_host() {
    let mut world = world();
    world.filter(1, OUT_OF, 0);
    let rule = OUT_OF
        .replace("prio 1", "chain 268435455 prio 1 in_port p0")
        .replace("enc_src_ip", "enc_dst_port 4789 enc_src_ip");
    // Without a tag, for the host by its MAC and its address, and maybe in the tunnel.
    let entry = "prio 1 in_port p0 vlan_id none dst_mac 02:02:02:02:02:02 eth_type ipv4 \
                 dst_ip 192.0.2.1 ip_proto udp dst_port 4789 action goto chain 268435455";
    let plan = world.plan();
    let wanted = with_names(&[entry, &rule]);
    assert_eq!(plan.texts(), wanted, "{:?}", plan.why_not(1));
    // One way in for all filters of an address.
    world.filter(2, &OUT_OF.replace("enc_key_id 7", "enc_key_id 8"), 0);
    assert_eq!(world.plan().rules.len(), 3);
    assert_eq!(plan.listed[0].place, "vxlan20");
    // None of the host's addresses any more.
    assert_eq!(address(&mut world, libc::RTM_DELADDR), Effect::Changed);
    let why = "enc_dst_ip 192.0.2.1 is no address of this host";
    assert_eq!(world.plan().why_not(1), Some(why));
    assert_eq!(address(&mut world, libc::RTM_NEWADDR), Effect::Changed);
    // What else could get the packet.
    uplink(&mut world, 1600, &[nla(10, &12u32.to_ne_bytes())]);
    let why = "what p0 receives is for p2";
    assert_eq!(world.plan().why_not(1), Some(why));
    uplink(&mut world, 1600, &[nla(43, &nla(2, &[1]))]);
    let why = "an XDP program looks at what p0 receives";
    assert_eq!(world.plan().why_not(1), Some(why));
    uplink(&mut world, 1600, &[]);
    vxlan(&mut world, 21, true, &external(4789));
    let why = "vxlan21 may take packets for vxlan20";
    assert_eq!(world.plan().why_not(1), Some(why));
    vxlan(&mut world, 21, true, &external(4790));
    assert_eq!(world.plan().why_not(1), None);
    world.basis.tunnel_ports = TunnelPorts::none();
    let why = "UDP port 4789 is none of the switch's for vxlan (chanio eswitch set --tunnel-ports)";
    assert_eq!(world.plan().why_not(1), Some(why));
    assert!(world.basis.tunnel_ports.set(4789, TunnelKind::Vxlan));
    world.note(libc::RTM_DELLINK, &link(0, TUNNEL, true, &[]));
    assert!(world.plan().listed.is_empty());
}

#[test]
fn what_has_left_its_tunnel_does_not_get_to_the_kernel() {
    for (rules, out) in [
        (&["action pass"][..], Some("leaving the tunnel")),
        (&["action goto chain 1"], Some("leaving the tunnel")),
        (&["action goto chain 1", "chain 1 action drop"], None),
        (&["action mirror p2"], Some("mirred mirror")),
        (&["action mirror p2 action redirect p1"], None),
        (&["action drop"], None),
    ] {
        let mut world = world();
        for (handle, text) in (1..).zip(rules) {
            let text = match text.strip_prefix("chain 1 ") {
                Some(rest) => format!("chain 1 enc_kind vxlan {rest}"),
                None => format!("enc_kind vxlan enc_key_id 7 enc_dst_ip 192.0.2.1 {text}"),
            };
            world.filter(handle, &text, 0);
        }
        let plan = world.plan();
        let why = plan.why_not(1);
        match out {
            None => assert_eq!(why, None, "{rules:?}"),
            Some(what) => assert!(
                why.is_some_and(|why| why.contains(what)),
                "{rules:?}: {why:?}"
            ),
        }
    }
    // What is only in software is not handed over, so nothing that it may be for is behind it.
    let mut world = world();
    for (handle, text, flags) in [
        (
            1,
            "prio 1 enc_kind vxlan enc_key_id 7 enc_dst_ip 192.0.2.1 action drop",
            1,
        ),
        (
            2,
            "prio 2 enc_kind vxlan enc_key_id 8 enc_dst_ip 192.0.2.1 action drop",
            0,
        ),
        (
            3,
            "prio 3 udp4 enc_kind vxlan enc_dst_ip 192.0.2.1 action drop",
            0,
        ),
    ] {
        world.filter(handle, text, flags);
    }
    let plan = world.plan();
    assert_eq!(plan.rules.len(), 2);
    assert_eq!(plan.why_not(2), None);
    let behind = "behind the filter of chain 0, prio 1, which is only in software";
    assert_eq!(plan.why_not(3), Some(behind));
    // For no address in particular, or one that is not ours.
    let text = "prio 1 enc_kind vxlan enc_key_id 9 action drop";
    let mut world = self::world();
    world.filter(1, text, 0);
    let why = world.plan().why_not(1).map(str::to_owned);
    assert_eq!(
        why.as_deref(),
        Some("no enc_dst_ip: it would be in hardware for one address")
    );
}

#[test]
fn cut_off_messages_are_no_news() {
    let mut body = vec![2, 24, 0, 0];
    body.extend(UPLINK.to_ne_bytes());
    body.extend(nla(2, &NEAR));
    for len in 0..body.len() {
        assert_eq!(way::address(&body[..len]), None);
    }
    let mut world = world();
    for kind in [libc::RTM_NEWNEIGH, libc::RTM_NEWADDR, libc::RTM_NEWROUTE] {
        for len in 0..40 {
            world.note(kind, &vec![2; len]);
            world.plan();
        }
    }
    assert_eq!(world.mirror.links[&UPLINK].mac, Mac([2; 6]));
}
