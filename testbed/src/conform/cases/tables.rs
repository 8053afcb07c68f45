//! Order, marks, ageing, limits and refusals of rules.

use super::{A, B, C, REP_A, REP_B, done, frame};
use crate::conform::bed::{Bed, within};
use crate::conform::case::{
    Case, Ended,
    Need::{Representors, Switchdev},
    Setup::World,
    Stop, case, ensure, refused, same,
};
use crate::conform::world::Place;
use chanio::DeviceError;
use chanio::nic::ChannelChange;
use std::time::{Duration, Instant};

const TC: &str = "tc(8): filters, prio; tc-flower(8)";

/// Most rules that a case adds to find the end.
const MANY: usize = 70_000;
/// How long it adds rules.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rules in a request.
const BATCH: usize = 2_000;

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "tables.priority",
            "of the rules that match, the lowest number wins, in whichever order they were added",
            TC,
            World,
            &[Switchdev],
            priority,
        ),
        case(
            "tables.delete",
            "a deleted rule takes nothing more, the others go on",
            TC,
            World,
            &[Switchdev, Representors],
            delete,
        ),
        case(
            "tables.replace",
            "a rule replaced keeps its place, and no packet meets neither",
            "tc(8): filter replace",
            World,
            &[Switchdev],
            replace,
        ),
        case(
            "tables.cookie",
            "a rule is listed with the mark it was given",
            "uapi linux/rtnetlink.h: TCA_ACT_COOKIE",
            World,
            &[Switchdev],
            cookie,
        ),
        case(
            "tables.idle_timeout",
            "a rule that nobody uses goes after its time, one in use stays",
            "ovs-ofctl(8): idle_timeout",
            World,
            &[Switchdev],
            idle_timeout,
        ),
        case(
            "tables.all_or_none",
            "of a batch with one bad rule none is added",
            "chanio::Nic::add_flows",
            World,
            &[Switchdev],
            all_or_none,
        ),
        case(
            "tables.block",
            "a rule for a block takes what its channels send, as long as they are in it",
            "tc(8): shared filter blocks; tc-flower(8): block",
            World,
            &[Switchdev, Representors],
            block,
        ),
        case(
            "tables.refusals",
            "what is no rule is refused, naming what is wrong",
            "tc-flower(8)",
            World,
            &[Switchdev],
            refusals,
        ),
        case(
            "tables.full",
            "a full table refuses one rule more, keeps the others working, and has room after a deletion",
            "the profile's limit and its source",
            World,
            &[Switchdev],
            full,
        ),
    ]
}

fn sent(bed: &Bed) -> Vec<u8> {
    frame(bed.world.ports[1].mac, bed.world.ports[0].mac, 60)
}

fn priority(bed: &mut Bed) -> Ended {
    let sent = sent(bed);
    let ids = bed.rules(&[
        "prio 30 in_port {a} action redirect {b}",
        "prio 10 in_port {a} dst_mac 02:c0:00:00:00:0b action redirect {c}",
        "prio 20 in_port {a} action redirect {b}",
    ])?;
    bed.world.exchange(A, &sent, &[(C, sent.clone())])?;
    bed.nic.del_flows(&ids[1..2])?;
    bed.world.exchange(A, &sent, &[(B, sent.clone())])?;
    bed.world.quiet()?;
    let counted = bed.counted(&[ids[0], ids[2]])?;
    same("packets of prio 30 and prio 20", counted, vec![0, 1])?;
    bed.rules(&["prio 5 in_port {a} action redirect {c}"])?;
    bed.world.exchange(A, &sent, &[(C, sent.clone())])
}

fn delete(bed: &mut Bed) -> Ended {
    let sent = sent(bed);
    let ids = bed.rules(&[
        "in_port {a} dst_mac 02:c0:00:00:00:0b action redirect {b}",
        "in_port {c} action redirect {b}",
    ])?;
    bed.world.exchange(A, &sent, &[(B, sent.clone())])?;
    bed.nic.del_flows(&ids[..1])?;
    bed.world.exchange(A, &sent, &[(REP_A, sent.clone())])?;
    bed.world.exchange(C, &sent, &[(B, sent.clone())])?;
    same("rules listed", bed.nic.flows()?.len(), 1)?;
    refused("deleting it again", bed.nic.del_flows(&ids))?;
    same("rules listed", bed.nic.flows()?.len(), 1)?;
    bed.world.quiet()
}

fn replace(bed: &mut Bed) -> Ended {
    let sent = sent(bed);
    bed.rules(&["prio 9 in_port {a} action redirect {b}"])?;
    bed.world.exchange(A, &sent, &[(B, sent.clone())])?;
    let rule = "prio 9 in_port a action redirect c".to_owned();
    bed.nic.add_flows(vec![rule], true)?;
    same("rules listed", bed.nic.flows()?.len(), 1)?;
    bed.world.exchange(A, &sent, &[(C, sent.clone())])?;
    bed.world.quiet()
}

fn cookie(bed: &mut Bed) -> Ended {
    bed.rules(&[
        "prio 1 in_port {a} cookie 0xfeedbeef action redirect {b}",
        "prio 2 in_port {a} action redirect {b}",
    ])?;
    let flows = bed.nic.flows()?;
    let cookies: Vec<_> = flows.iter().map(|flow| flow.cookie).collect();
    same("cookies", cookies, vec![0xfeed_beef, 0])?;
    let shown = (flows[0].priority, flows[0].actions.clone());
    same(
        "priority and actions",
        shown,
        (1, vec!["redirect b".into()]),
    )
}

fn idle_timeout(bed: &mut Bed) -> Ended {
    let sent = sent(bed);
    let ids = match bed.rules(&[
        "prio 1 in_port {a} dst_mac 02:c0:00:00:00:0b idle_timeout 1 action redirect {b}",
        "prio 2 in_port {a} idle_timeout 1 action redirect {b}",
    ]) {
        Err(DeviceError::Refused { reason }) if reason.contains("idle_timeout") => {
            return Err(Stop::NotSupported(reason));
        }
        answer => answer?,
    };
    let mut listed = Vec::new();
    within(Duration::from_secs(5), "the idle rule to go", || {
        // The other is in use all the while.
        let _ = bed.world.send(A, &sent);
        let _ = bed.world.drain();
        listed = bed.nic.flows()?.iter().map(|flow| flow.id).collect();
        Ok(!listed.contains(&ids[1]))
    })?;
    same("rules that stay", listed, vec![ids[0]])
}

fn all_or_none(bed: &mut Bed) -> Ended {
    bed.rules(&["prio 1 in_port {c} action redirect {b}"])?;
    let batch = [
        "prio 2 in_port {a} action redirect {b}",
        "prio 3 in_port {a} action redirect nobody",
    ];
    let why = refused("a rule to nobody", bed.rules(&batch))?;
    ensure(why.contains("nobody"), || {
        format!("`{why}` does not say which")
    })?;
    same("rules listed", bed.nic.flows()?.len(), 1)
}

fn block(bed: &mut Bed) -> Ended {
    const BLOCK: u16 = 7;
    let put = |bed: &mut Bed, name: &str, block: u16| -> Ended {
        let change = ChannelChange {
            block: Some(block),
            ..ChannelChange::default()
        };
        let now = bed.nic.set_channel(name, change)?;
        let told = (block != 0).then_some(block.into());
        same(&format!("the block of {name}"), now.block, told)
    };
    let sent = sent(bed);
    let rep_c = Place::Host(2);
    put(bed, "a", BLOCK)?;
    put(bed, "c", BLOCK)?;
    let ids = bed.rules(&["block 7 action redirect {b}"])?;
    bed.world.exchange(A, &sent, &[(B, sent.clone())])?;
    bed.world.exchange(C, &sent, &[(B, sent.clone())])?;
    bed.world.exchange(B, &sent, &[(REP_B, sent.clone())])?;
    same("packets of the rule", bed.counted(&ids)?, vec![2])?;
    put(bed, "c", 0)?;
    bed.world.exchange(C, &sent, &[(rep_c, sent.clone())])?;
    bed.world.exchange(A, &sent, &[(B, sent.clone())])?;
    same("packets of the rule", bed.counted(&ids)?, vec![3])?;
    // Who joins finds the rule there.
    put(bed, "c", BLOCK)?;
    bed.world.exchange(C, &sent, &[(B, sent.clone())])?;
    bed.world.quiet()?;
    bed.nic.del_flows(&ids)?;
    bed.world.exchange(A, &sent, &[(REP_A, sent.clone())])?;
    put(bed, "c", 0)?;
    put(bed, "a", 0)
}

fn refusals(bed: &mut Bed) -> Ended {
    for (rule, names) in [
        ("in_port {a} colour red action drop", "colour"),
        (
            "in_port {a} eth_type ipv4 dst_port 80 action drop",
            "dst_port",
        ),
        ("in_port {a} vlan_id 4095 action drop", "vlan_id"),
        ("in_port {a} src_ip 10.0.0.0/33 action drop", "src_ip"),
        ("prio 0 in_port {a} action drop", "prio"),
        ("in_port {a} action drop action redirect {b}", "action"),
        ("in_port {a}", "action"),
        ("in_port {a} action explode", "explode"),
    ] {
        let why = refused(rule, bed.rules(&[rule]))?;
        ensure(why.contains(names), || {
            format!("`{rule}`: `{why}` does not name {names}")
        })?;
    }
    same("rules", bed.nic.flows()?.len(), 0)
}

/// The `n`th rule of a table that is to be filled: one mask, and never the packet that is sent.
fn filler(n: usize) -> String {
    format!(
        "prio 9 in_port c vlan_id none eth_type ipv4 dst_ip 10.{}.{}.{} action drop",
        n >> 16,
        n >> 8 & 255,
        n & 255
    )
}

fn full(bed: &mut Bed) -> Ended {
    let sent = sent(bed);
    bed.rules(&["prio 1 in_port {a} action redirect {b}"])?;
    let (mut added, mut ids, mut size) = (0, Vec::new(), BATCH);
    let until = Instant::now() + PATIENCE;
    let why = loop {
        if Instant::now() > until {
            return Err(Stop::NotSupported(format!(
                "takes rules for more than {} s: the end of its table was not reached",
                PATIENCE.as_secs()
            )));
        }
        if added >= MANY {
            return Err(Stop::NotSupported(format!(
                "takes more than {MANY} rules: the end of its table was not reached"
            )));
        }
        match bed
            .nic
            .add_flows((added..added + size).map(filler).collect(), false)
        {
            Ok(more) => {
                added += size;
                ids = more;
            }
            Err(DeviceError::Refused { .. }) if size > 1 => size = (size / 4).max(1),
            Err(DeviceError::Refused { reason }) => break reason,
            Err(error) => return Err(error.into()),
        }
    };
    same("rules counted", bed.nic.eswitch()?.flows, added as u64 + 1)?;
    ensure(!why.is_empty(), || "a refusal without a reason".into())?;
    bed.world.exchange(A, &sent, &[(B, sent.clone())])?;
    bed.nic.del_flows(&ids[..1])?;
    bed.nic.add_flows(vec![filler(added)], false)?;
    refused(
        "a rule more",
        bed.nic.add_flows(vec![filler(added + 1)], false),
    )?;
    bed.world.exchange(A, &sent, &[(B, sent.clone())])?;
    done()
}
