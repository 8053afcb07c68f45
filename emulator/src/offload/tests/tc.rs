//! Filters: what is in hardware, in which order, and why the rest is not.

use super::recorded::{CLSACT, CLSACT_GONE, U32};
use super::*;
use chanio_model::flow::Origin;
use chanio_netlink::tc::{At, DEL_FILTER, DEL_QDISC};

const SKIP_HW: u32 = RuleFlags::SKIP_HW;

fn texts(rules: &[&str]) -> Vec<String> {
    let name = |vport: VportId| Some(format!("p{vport}"));
    let text = |text: &&str| match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(inner) => format!("[{}]", spec(inner).with_names(&name)),
        None => spec(text).with_names(&name).to_string(),
    };
    rules.iter().map(text).collect()
}

#[test]
fn filters_become_rules_of_their_port_and_go_with_it() {
    let mut world = World::new();
    let rule = "prio 5 in_port p1 ip4 dst_ip 10.0.0.0/8 action redirect p2";
    assert_eq!(world.filter(1, rule, 0), Effect::Changed);
    let plan = world.plan();
    assert_eq!(plan.texts(), texts(&[rule]));
    assert_eq!((plan.rules[0].1, plan.why_not(1)), (Origin::Tc, None));
    // The same again changes nothing.
    assert_eq!(world.plan().rules, plan.rules);
    // The other end is down, then this one.
    world.port(2, false, &[]);
    assert_eq!(world.plan().why_not(1), Some("p2 is down"));
    world.port(2, true, &[]);
    assert_eq!(world.plan().rules, plan.rules);
    world.port(1, false, &[]);
    let down = world.plan();
    assert_eq!((down.why_not(1), down.rules.len()), (Some("p1 is down"), 0));
    // An XDP program sees what comes in before tc does.
    world.port(1, true, &[nla(43, &nla(2, &[1]))]);
    let xdp = "an XDP program looks at what p1 receives";
    assert_eq!(world.plan().why_not(1), Some(xdp));
    world.port(1, true, &[]);
    world.basis.switchdev = false;
    assert_eq!(
        world.plan().why_not(1),
        Some("the eswitch is in legacy mode")
    );
    world.basis.switchdev = true;
    assert_eq!(
        world.note(libc::RTM_DELLINK, &link(0, 11, true, &[])),
        Effect::Changed
    );
    let gone = world.plan();
    assert!(gone.rules.is_empty() && gone.listed.is_empty());
}

#[test]
fn software_only_filters_are_not_overtaken() {
    let mut world = World::new();
    let port = "prio 5 in_port p1 udp4 dst_port 53 action drop";
    let rest = "prio 9 in_port p1 ip4 dst_ip 10.0.0.0/8 action redirect p2";
    world.filter(1, port, SKIP_HW);
    world.filter(2, rest, 0);
    let plan = world.plan();
    let handed = "[prio 5 in_port p1 udp4 dst_port 53 action pass]";
    assert_eq!(plan.texts(), texts(&[handed, rest]));
    assert!(plan.why_not(1).unwrap().starts_with("skip_hw"));
    // Behind all others nothing needs to be handed over.
    world.filter(1, &port.replace("prio 5", "prio 50"), SKIP_HW);
    let key = filter(1, port, 0).message(DEL_FILTER, 0).unwrap();
    assert_eq!(world.note(DEL_FILTER, &key.payload), Effect::Changed);
    assert_eq!(world.plan().texts(), texts(&[rest]));
    // What takes everything closes the chain.
    world.filter(3, "prio 7 in_port p1 action drop", SKIP_HW);
    let plan = world.plan();
    assert!(plan.rules.is_empty());
    let behind = "behind the filter of chain 0, prio 7, which is only in software";
    assert_eq!(plan.why_not(2), Some(behind));
}

#[test]
fn recorded_u32_hides_what_its_protocol_hides() {
    let mut world = World::new();
    assert_eq!(world.note(NEW_QDISC, &bytes(CLSACT)), Effect::Changed);
    assert_eq!(world.note(NEW_FILTER, &bytes(U32)), Effect::Changed);
    let rule = "prio 9 in_port p1 arp action redirect p2";
    world.filter(2, rule, 0);
    let plan = world.plan();
    assert_eq!(
        plan.texts(),
        texts(&["[prio 7 in_port p1 eth_type ipv4 action pass]", rule])
    );
    let u32_handle = 0x8000_0800;
    assert_eq!(
        plan.why_not(u32_handle),
        Some("filter kind u32 is not supported, supported are flower and matchall")
    );
    // Qdisc and filters go in one message.
    assert_eq!(world.note(DEL_QDISC, &bytes(CLSACT_GONE)), Effect::Changed);
    assert!(world.plan().listed.is_empty());
    for len in 0..bytes(U32).len() {
        world.note(NEW_FILTER, &bytes(U32)[..len]);
        world.plan();
    }
}

#[test]
fn what_was_done_to_a_packet_is_not_done_again() {
    let mac = "02:00:00:00:00:09";
    for (rules, out) in [
        // Alone on its way to the kernel.
        (&["action pass"][..], None),
        (&["action mirror p2"], Some("mirred mirror")),
        (&["action mirror p2 action pass"], Some("mirred mirror")),
        (&["action mirror p2 action drop"], None),
        (&["action vlan push id 5 action redirect p3"], None),
        (&["action vlan push id 5 action trap"], Some("vlan")),
        (
            &["action police rate 1mbit burst 10000 conform-exceed drop/pass"],
            Some("police"),
        ),
        (
            &["action police rate 1mbit burst 10000 conform-exceed drop/pipe action redirect p2"],
            None,
        ),
        (
            &["action police rate 1mbit burst 10000 conform-exceed pass/pipe action redirect p2"],
            Some("police"),
        ),
        // By way of other chains.
        (&["action goto chain 1"], None),
        (&["action vlan push id 5 action goto chain 1"], Some("vlan")),
        (
            &[
                "action vlan push id 5 action goto chain 1",
                "chain 1 action redirect p2",
            ],
            None,
        ),
        (
            &[
                "action vlan push id 5 action goto chain 1",
                "chain 1 udp4 action redirect p2",
            ],
            Some("vlan"),
        ),
        (
            &[
                "action vlan push id 5 action goto chain 1",
                "chain 1 udp4 action drop",
                "chain 1 prio 49153 action redirect p2",
            ],
            None,
        ),
        (
            &[
                "action vlan push id 5 action goto chain 1",
                "chain 1 udp4 action pass",
                "chain 1 prio 49153 action redirect p2",
            ],
            Some("vlan"),
        ),
        (
            &[
                "action vlan push id 5 action goto chain 1",
                "chain 1 action goto chain 2",
                "chain 2 action drop",
            ],
            None,
        ),
        (
            &[
                "action vlan push id 5 action goto chain 1",
                "chain 1 action goto chain 2",
                "chain 2 action goto chain 1",
            ],
            Some("vlan"),
        ),
        (
            &[
                "action goto chain 1",
                "chain 1 action goto chain 2",
                "chain 2 action goto chain 1",
            ],
            None,
        ),
        (
            &[
                "action vlan push id 5 action goto chain 1",
                "chain 1 action redirect p2 skip_hw",
            ],
            Some("vlan"),
        ),
        (&["action goto chain 0"], Some("goto chain 0")),
        (&["action ct zone 1 action goto chain 1"], Some("action ct")),
        (
            &["udp4 action pedit ex munge eth dst set MAC action csum udp action redirect p2"],
            None,
        ),
        (
            &["udp4 action pedit ex munge eth dst set MAC"],
            Some("pedit"),
        ),
    ] {
        let mut world = World::new();
        for (handle, text) in (1..).zip(rules) {
            let (text, flags) = match text.strip_suffix(" skip_hw") {
                Some(text) => (text, SKIP_HW),
                None => (*text, 0),
            };
            let place = text
                .strip_prefix("chain 1 ")
                .map_or(text.to_owned(), |t| format!("in_port p1 {t}"));
            let text = if place == text {
                format!("in_port p1 {text}")
            } else {
                format!("chain 1 {place}")
            };
            world.filter(handle, &text.replace("MAC", mac), flags);
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
}

const POLICE: &str =
    "action police index 9 rate 1mbit burst 10000 conform-exceed drop/pipe action redirect p2";

#[test]
fn a_shared_block_is_on_each_of_its_ports() {
    let mut world = World::new();
    for n in [1, 3] {
        let mut qdisc = Qdisc::clsact(n + 10);
        qdisc.more.ingress_block = Some(22);
        let message = qdisc.message(NEW_QDISC, 0).unwrap();
        world.note(NEW_QDISC, &message.payload);
    }
    let mut shared = |handle, text: &str| {
        let filter = Filter {
            at: At::Block(22),
            ..filter(handle, &format!("in_port p1 {text}"), 0)
        };
        world.note(NEW_FILTER, &filter.message(NEW_FILTER, 0).unwrap().payload);
    };
    shared(1, "prio 1 arp action redirect p2");
    shared(2, &format!("prio 2 {POLICE}"));
    let plan = world.plan();
    let both = ["arp action redirect p2", POLICE].map(|text| {
        let prio = if text == POLICE { 2 } else { 1 };
        ["p1", "p3"].map(|port| format!("prio {prio} in_port {port} {text}"))
    });
    let wanted: Vec<_> = both.iter().flatten().map(String::as_str).collect();
    assert_eq!(plan.texts(), texts(&wanted));
    let listed: Vec<_> = plan.listed.iter().map(|l| (&*l.place, l.ports)).collect();
    assert_eq!(listed, [("block 22", 2); 2]);
    // The meter is one for all: in hardware with all ports or not at all, and for one filter.
    world.port(3, false, &[]);
    let why = "action police: a port of the block that is not in hardware shares it";
    assert_eq!(world.plan().why_not(2), Some(why));
    world.port(3, true, &[]);
    assert_eq!(world.plan().why_not(2), None);
    world.filter(3, &format!("in_port p2 {POLICE}"), 0);
    let plan = world.plan();
    for handle in [2, 3] {
        assert_eq!(
            plan.why_not(handle),
            Some("action police: others share index 9")
        );
    }
    world.note(
        DEL_FILTER,
        &filter(3, &format!("in_port p2 {POLICE}"), 0)
            .message(DEL_FILTER, 0)
            .unwrap()
            .payload,
    );
    // One leaves, then there is no block any more.
    for n in [1, 3] {
        let message = Qdisc::clsact(n + 10).message(DEL_QDISC, 0).unwrap();
        world.note(DEL_QDISC, &message.payload);
        assert_eq!(world.plan().rules.len(), if n == 1 { 2 } else { 0 });
    }
    assert!(world.plan().listed.is_empty());
}

#[test]
fn deletions_by_number_and_by_priority_and_changed_actions() {
    let mut world = World::new();
    let del = |world: &mut World, handle, priority| {
        let filter = Filter {
            priority,
            ..filter(handle, "in_port p1 action drop", 0)
        };
        world.note(DEL_FILTER, &filter.message(DEL_FILTER, 0).unwrap().payload)
    };
    for (handle, prio) in [(1, 5), (2, 5), (3, 6)] {
        let text = format!("prio {prio} in_port p1 tcp4 dst_port {handle} action drop");
        world.filter(handle, &text, 0);
    }
    assert_eq!(world.plan().rules.len(), 3);
    assert_eq!(del(&mut world, 1, 5), Effect::Changed);
    assert_eq!(del(&mut world, 1, 5), Effect::None);
    assert_eq!(world.plan().rules.len(), 2);
    assert_eq!(del(&mut world, 0, 5), Effect::Changed);
    assert_eq!(world.plan().rules.len(), 1);
    // A new matchall comes without number and actions.
    let nameless = Filter {
        kind: Some(FilterKind::Named("matchall".to_owned())),
        ..filter(0, "in_port p1 action drop", 0)
    };
    let nameless = nameless.message(NEW_FILTER, 0).unwrap();
    assert_eq!(world.note(NEW_FILTER, &nameless.payload), Effect::Unknown);
    // RTM_NEWACTION: nobody tells which filters use it.
    assert_eq!(world.note(48, &[0; 4]), Effect::Unknown);
    // Filters on what a port sends are listed; those that choose a class are nobody's business.
    let at = |parent| At::Device {
        ifindex: 11,
        parent,
    };
    for (parent, effect) in [(0xffff_fff3, Effect::Changed), (0x0001_0000, Effect::None)] {
        let filter = Filter {
            at: at(parent),
            ..filter(9, "in_port p1 action drop", 0)
        };
        let message = filter.message(NEW_FILTER, 0).unwrap();
        assert_eq!(world.note(NEW_FILTER, &message.payload), effect);
    }
    let plan = world.plan();
    let egress = plan.listed.iter().find(|l| l.place == "p1 egress").unwrap();
    assert!(egress.why_not.is_some());
    // And nothing is sent past them.
    world.filter(10, "in_port p2 action redirect p1", 0);
    assert_eq!(
        world.plan().why_not(10),
        Some("filters look at what p1 sends")
    );
}

#[test]
fn a_full_table_takes_what_goes_first() {
    let mut world = World::new();
    for handle in 1..=4 {
        let text = format!("prio {handle} in_port p1 tcp4 dst_port {handle} action drop");
        world.filter(handle, &text, 0);
    }
    world.basis.rules = (16 << 20) - 2;
    let plan = world.plan();
    assert_eq!((plan.rules.len(), plan.why_not(2)), (2, None));
    for handle in [3, 4] {
        assert!(plan.why_not(handle).unwrap().starts_with("rules: "));
    }
    // A chain that does not fit whole is not led to.
    world.filter(5, "chain 1 in_port p1 action drop", 0);
    world.filter(6, "chain 1 prio 3 in_port p1 udp4 action drop", 0);
    world.filter(7, "chain 1 prio 2 in_port p1 udp4 action drop", 0);
    let plan = world.plan();
    assert!(plan.rules.is_empty() && plan.why_not(1).is_some());
}
