//! Rules, connections, counters, and what is seen of packets, as the API has them.

use super::channels::some;
use crate::nic::*;
use chanio_emu::control::proto;
use std::collections::BTreeMap;

/// Key and value as they stand in the text, and the actions behind them.
pub(super) fn flow(f: proto::Flow) -> Flow {
    let mut parts = f.rule.split(" action ");
    let mut matches = BTreeMap::new();
    let mut words = parts.next().unwrap_or_default().split_whitespace();
    while let Some(key) = words.next() {
        let Some(value) = words.next() else { break };
        if !matches!(key, "chain" | "prio" | "cookie" | "idle_timeout") {
            matches.insert(key.to_owned(), value.to_owned());
        }
    }
    let actions = parts.map(str::to_owned).collect();
    let seen = |a: proto::FlowAction| FlowAction {
        action: a.action,
        packets: a.packets,
        bytes: a.bytes,
        idle_ns: a.idle_ns,
    };
    Flow {
        id: f.id,
        rule: f.rule,
        priority: f.priority,
        cookie: f.cookie,
        matches,
        actions,
        packets: f.packets,
        bytes: f.bytes,
        idle_ns: f.idle_ns,
        chain: f.chain,
        action_stats: f.actions.into_iter().map(seen).collect(),
    }
}

/// In the names that drivers give `ethtool -S`.
pub(super) fn connection(c: proto::Connection) -> Connection {
    let side = |side: Option<proto::ConnectionSide>| {
        let side = side.unwrap_or_default();
        ConnectionSide {
            src: side.src,
            dst: side.dst,
            src_port: side.src_port,
            dst_port: side.dst_port,
            packets: side.packets,
            bytes: side.bytes,
        }
    };
    Connection {
        id: c.id,
        zone: c.zone,
        protocol: c.protocol,
        state: some(c.state),
        original: side(c.original),
        reply: side(c.reply),
        seen_reply: c.seen_reply,
        assured: c.assured,
        offloaded: c.offloaded,
        expires_ns: c.expires_ns,
        mark: c.mark,
        label: c.label,
    }
}

pub(super) fn kernel_rule(rule: proto::KernelRule) -> KernelRule {
    KernelRule {
        place: rule.place,
        kind: rule.kind,
        chain: rule.chain,
        priority: rule.priority,
        handle: rule.handle,
        protocol: rule.protocol,
        rule: some(rule.rule),
        ports: rule.ports,
        in_hw_count: rule.in_hw,
        why_not: some(rule.why_not),
        ids: rule.ids,
        packets: rule.packets,
        bytes: rule.bytes,
        idle_ns: rule.idle_ns,
    }
}

pub(super) fn queue_stats(queues: &[proto::QueueStats]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (number, queue) in queues.iter().enumerate() {
        for (direction, count) in [("rx", &queue.rx), ("tx", &queue.tx)] {
            let count = count.unwrap_or_default();
            all.insert(format!("{direction}_queue_{number}_packets"), count.packets);
            all.insert(format!("{direction}_queue_{number}_bytes"), count.bytes);
        }
    }
    all
}

pub(super) fn vport_stats(s: proto::VportStats) -> VportStats {
    let (tx, rx) = (s.tx.unwrap_or_default(), s.rx.unwrap_or_default());
    let (to_host, from_host) = (
        s.representor_rx.unwrap_or_default(),
        s.representor_tx.unwrap_or_default(),
    );
    VportStats {
        vport: s.vport,
        name: s.name,
        tx_packets: tx.packets,
        tx_bytes: tx.bytes,
        rx_packets: rx.packets,
        rx_bytes: rx.bytes,
        drops: s
            .drops
            .iter()
            .map(|d| (d.reason.clone(), d.packets))
            .collect(),
        representor: some(s.representor).map(|name| RepresentorStats {
            name,
            rx_packets: to_host.packets,
            rx_bytes: to_host.bytes,
            tx_packets: from_host.packets,
            tx_bytes: from_host.bytes,
        }),
        queues: queue_stats(&s.queues),
        explanations: s
            .drops
            .into_iter()
            .map(|d| (d.reason, d.explanation))
            .collect(),
    }
}

pub(super) fn captured(f: proto::CapturedFrame) -> CapturedFrame {
    CapturedFrame {
        at_ns: f.at_ns,
        port: f.port,
        point: f.point,
        queue: f.queue,
        len: f.len,
        data: f.data,
        reason: some(f.reason),
        rule: f.rule,
        missed: f.missed,
        no_rule_in: f.no_rule_in,
    }
}

/// `None`: of a kind that only a newer emulator knows.
pub(super) fn trace_step(step: proto::TraceStep) -> Option<TraceStep> {
    use proto::trace_step::Step;
    Some(match step.step? {
        Step::Lookup(l) => TraceStep::Lookup {
            chain: l.chain,
            headers: l.headers,
            rule: l.rule,
            rule_text: some(l.rule_text),
        },
        Step::Action(action) => TraceStep::Action { action },
        Step::Rewritten(r) => TraceStep::Rewritten {
            head: r.head,
            len: r.len,
        },
        Step::Output(o) => TraceStep::Output {
            port: o.port,
            representor: o.representor,
            head: o.head,
        },
        Step::Lost(l) => TraceStep::Lost {
            port: l.port,
            reason: l.reason,
            explanation: l.explanation,
        },
    })
}
