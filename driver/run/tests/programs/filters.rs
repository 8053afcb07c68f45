//! Where filters hang, how they are replaced, listed and deleted, chains, qdiscs with blocks.

use crate::recorder::{ETH0, REP1, assert_same, record};
use chanio_netlink::attr::Masked;
use chanio_netlink::message::Message;
use chanio_netlink::tc::action::{Action, Control, Gact, Mirred, MirredWhat};
use chanio_netlink::tc::flower::{FlowerRule, RuleFlags};
use chanio_netlink::tc::{
    At, CLSACT, DEL_CHAIN, DEL_FILTER, DEL_QDISC, EGRESS, Filter, FilterKind, FilterMore,
    GET_CHAIN, GET_FILTER, GET_QDISC, Header, INGRESS, MatchallRule, NEW_CHAIN, NEW_FILTER,
    NEW_QDISC, Qdisc,
};

const REQUEST: u16 = 0x5;
const DUMP: u16 = 0x301;
const ADD: u16 = 0x605;
/// tc replaces by creating without being exclusive.
const REPLACE: u16 = 0x405;

/// The first that a command line sends, which may be refused.
fn sent(line: &str) -> Message {
    let (mut requests, output) = record(line);
    assert!(
        !requests.is_empty(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    requests.remove(0)
}

fn check(line: &str, kind: u16, flags: u16, ours: Filter) {
    let theirs = sent(line);
    assert_same(line, &theirs, &ours.message(kind, flags).unwrap());
    assert_eq!(Filter::parse(&theirs.payload).unwrap(), ours, "{line}");
}

fn ingress() -> Filter {
    Filter {
        at: At::Device {
            ifindex: ETH0,
            parent: INGRESS,
        },
        ..Filter::default()
    }
}

fn drop_rule() -> FlowerRule {
    let mut rule = FlowerRule {
        actions: vec![Action::new(Gact::default(), Control::Shot)],
        flags: Some(RuleFlags::default()),
        ..FlowerRule::default()
    };
    rule.key.eth.eth_type = Some(0x0800);
    rule
}

fn flower(at: At) -> Filter {
    let kind = Some(FilterKind::Flower(Box::new(drop_rule())));
    Filter {
        at,
        priority: 1,
        protocol: 0x0800,
        kind,
        ..Filter::default()
    }
}

fn chain(chain: u32) -> FilterMore {
    FilterMore {
        chain: Some(chain),
        ..FilterMore::default()
    }
}

#[test]
fn places() {
    let at = ingress().at;
    let line = "tc filter add dev eth0 egress prio 1 protocol ip flower action drop";
    check(
        line,
        NEW_FILTER,
        ADD,
        flower(At::Device {
            ifindex: ETH0,
            parent: EGRESS,
        }),
    );
    let line = "tc filter add block 22 prio 1 protocol ip flower action drop";
    check(line, NEW_FILTER, ADD, flower(At::Block(22)));
    let line =
        "tc filter add dev eth0 ingress prio 1 handle 5 chain 3 protocol ip flower action drop";
    check(
        line,
        NEW_FILTER,
        ADD,
        Filter {
            handle: 5,
            more: chain(3),
            ..flower(at)
        },
    );
    let line = "tc filter replace dev eth0 ingress prio 1 handle 1 protocol ip flower action drop";
    check(
        line,
        NEW_FILTER,
        REPLACE,
        Filter {
            handle: 1,
            ..flower(at)
        },
    );
}

#[test]
fn deleting_and_listing() {
    let named = |handle| {
        let rule = FlowerRule {
            actions: Vec::new(),
            ..drop_rule()
        };
        let kind = Some(FilterKind::Flower(Box::new(rule)));
        Filter {
            handle,
            priority: 1,
            protocol: 0x0800,
            kind,
            ..ingress()
        }
    };
    let words = "dev eth0 ingress prio 1 handle 1 protocol ip flower";
    check(
        &format!("tc filter del {words}"),
        DEL_FILTER,
        REQUEST,
        named(1),
    );
    check(&format!("tc filter get {words}"), GET_FILTER, 0x9, named(1));
    check(
        "tc filter del dev eth0 ingress",
        DEL_FILTER,
        REQUEST,
        ingress(),
    );
    check(
        "tc filter show dev eth0 ingress",
        GET_FILTER,
        DUMP,
        ingress(),
    );
}

#[test]
fn everything() {
    let line = "tc filter add dev eth0 ingress prio 1 protocol all matchall skip_sw classid 1:3 \
                action mirred egress mirror dev rep1";
    let mirror = Mirred {
        what: MirredWhat::EgressMirror,
        ifindex: REP1,
        block: None,
    };
    let rule = MatchallRule {
        actions: vec![Action::new(mirror, Control::Pipe)],
        class: Some(0x0001_0003),
        flags: Some(RuleFlags(RuleFlags::SKIP_SW)),
        ..MatchallRule::default()
    };
    let kind = Some(FilterKind::Matchall(Box::new(rule)));
    check(
        line,
        NEW_FILTER,
        ADD,
        Filter {
            priority: 1,
            protocol: 3,
            kind,
            ..ingress()
        },
    );
}

#[test]
fn chains() {
    let plain = Filter {
        more: chain(5),
        ..ingress()
    };
    check(
        "tc chain add dev eth0 ingress chain 5",
        NEW_CHAIN,
        ADD,
        plain.clone(),
    );
    check(
        "tc chain del dev eth0 ingress chain 5",
        DEL_CHAIN,
        REQUEST,
        plain,
    );
    check("tc chain show dev eth0 ingress", GET_CHAIN, DUMP, ingress());
    let line = "tc chain add dev eth0 ingress chain 5 protocol ip flower dst_ip 0.0.0.0/8";
    let mut template = FlowerRule {
        actions: Vec::new(),
        ..drop_rule()
    };
    let (value, mask) = ("0.0.0.0".parse().unwrap(), "255.0.0.0".parse().unwrap());
    template.key.ip.v4_dst = Some(Masked { value, mask });
    let kind = Some(FilterKind::Flower(Box::new(template)));
    let ours = Filter {
        protocol: 0x0800,
        kind,
        more: chain(5),
        ..ingress()
    };
    check(line, NEW_CHAIN, ADD, ours);
}

#[test]
fn qdiscs() {
    let check = |line: &str, kind: u16, flags: u16, ours: Qdisc| {
        let theirs = sent(line);
        assert_same(line, &theirs, &ours.message(kind, flags).unwrap());
        assert_eq!(Qdisc::parse(&theirs.payload).unwrap(), ours, "{line}");
    };
    let clsact = || Qdisc::clsact(ETH0);
    check("tc qdisc add dev eth0 clsact", NEW_QDISC, ADD, clsact());
    check("tc qdisc del dev eth0 clsact", DEL_QDISC, REQUEST, clsact());
    let mut blocks = clsact();
    (blocks.more.ingress_block, blocks.more.egress_block) = (Some(22), Some(23));
    check(
        "tc qdisc add dev eth0 ingress_block 22 egress_block 23 clsact",
        NEW_QDISC,
        ADD,
        blocks,
    );
    let mut ingress = clsact();
    ingress.more.kind = Some("ingress".into());
    assert_eq!(ingress.header.parent, CLSACT);
    check("tc qdisc add dev eth0 ingress", NEW_QDISC, ADD, ingress);
    let header = Header {
        ifindex: ETH0,
        ..Header::default()
    };
    let all = Qdisc {
        header,
        ..Qdisc::default()
    };
    check("tc qdisc show dev eth0", GET_QDISC, DUMP, all);
}
