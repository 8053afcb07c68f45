//! A case through the eswitch's model.

use super::case::{Case, Outcome, PORTS, Seen};
use super::frame::Frame;
use super::rule;
use chanio_model::eswitch::{
    Arriving, Change, Dest, Fdb, FdbLimits, FlowCache, Meta, Mode, Output, Outputs, Switch,
    VportConfig,
};
use chanio_model::flow::{Origin, Policers, Rule, RuleSpec};
use chanio_model::offload::{Offload, VnetHdr, finish_checksum};
use chanio_model::{RuleId, VportId, wire};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Room for a tag in front of a frame.
const ROOM: usize = 64;

/// Time between two frames, in nanoseconds.
const STEP: u64 = 1_000_000;

/// What became of a case, and which rules each frame met.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// What became of it.
    pub outcome: Outcome,
    /// For each frame, the rules by chain and priority.
    pub hits: Vec<BTreeSet<(u32, u16)>>,
}

/// Run it.
pub fn run(case: &Case) -> Run {
    let mut hits = Vec::new();
    let mut outcome = Outcome::default();
    let mut switch = Switch::default();
    let fdb = Fdb::new(FdbLimits::default());
    let mut changes = vec![Change::SetMode(Mode::Switchdev), Change::SetUplink(true)];
    for port in 1..PORTS as u32 {
        let config = VportConfig {
            mtu: 9000,
            ..VportConfig::default()
        };
        changes.push(Change::AddVport(VportId(port), Arc::new(config)));
    }
    for change in &changes {
        switch.apply(change).expect("a new switch takes it");
    }
    let mut rules = BTreeMap::new();
    let mut policers = Policers::default();
    for (n, rule) in case.rules.iter().enumerate() {
        let name = (rule.chain, rule.prio);
        let made = rule.text().parse::<RuleSpec>().map_err(|e| e.to_string());
        let made = made.and_then(|spec| {
            let id = RuleId(n as u64 + 1);
            Rule::of(Origin::Control, id, spec, 1, &mut policers).map_err(|e| e.to_string())
        });
        match made {
            Ok(rule) => {
                let rule = Arc::new(rule);
                switch
                    .apply(&Change::AddRule(rule.clone()))
                    .expect("a new id");
                rules.insert(name, rule);
            }
            Err(reason) => {
                outcome.refused.insert(name, reason);
            }
        }
    }
    let rule_actions = |rule: &Rule| rule.spec().actions.len();
    outcome.seen = rules
        .iter()
        .map(|(name, rule)| (*name, vec![Seen::default(); rule_actions(rule)]))
        .collect();
    let mut cache = FlowCache::default();
    let mut out = Outputs::for_worker(0);
    for (n, frame) in case.frames.iter().enumerate() {
        let bytes = frame.bytes();
        let packets = |rule: &Rule| -> Vec<u64> {
            let actions = 0..rule_actions(rule);
            actions.map(|n| rule.action_totals(n).packets).collect()
        };
        let before: Vec<_> = rules.values().map(|rule| packets(rule)).collect();
        let mut came = Vec::new();
        let (len, port) = (bytes.len() as u32, VportId(frame.port as u32));
        if let Ok(parsed) = wire::parse(&bytes, len, port) {
            let head = &bytes[..bytes.len().min(wire::HEAD_LEN)];
            let offload = VnetHdr::read(&frame.header()).check(&parsed, head, len);
            let offload = offload.expect("a header that fits");
            let packet = Arriving {
                key: &parsed.key,
                meta: Meta::new(len, &parsed, None, (n as u64 + 1) * STEP, 0),
                head,
                offload: Some(&offload),
            };
            switch.begin_burst(&mut cache);
            out.begin_burst();
            let slot = switch.slot(&cache, &parsed.key);
            let result = switch.from_vport_cached(&mut cache, slot, &fdb, packet, &mut out);
            if result.is_ok() {
                let leaving = |output| leaving(output, &out, &bytes, offload);
                came.extend(out.list.iter().map(leaving));
            }
        }
        came.sort_by(|a, b| a.0.cmp(&b.0));
        outcome.frames.push(came);
        let (whole, inside) = (counted(&bytes, frame), counted(&frame.inside(), frame));
        let mut met = BTreeSet::new();
        for (((name, seen), rule), before) in
            outcome.seen.iter_mut().zip(rules.values()).zip(before)
        {
            let asked = case
                .rules
                .iter()
                .find(|rule| (rule.chain, rule.prio) == *name);
            let in_tunnel = asked.is_some_and(rule::Rule::is_for_tunnels);
            let counted = if in_tunnel { inside } else { whole };
            for ((seen, now), before) in seen.iter_mut().zip(packets(rule)).zip(before) {
                if now > before {
                    met.insert(*name);
                }
                seen.packets += now - before;
                seen.bytes += (now - before) * counted;
            }
        }
        hits.push(met);
    }
    share_counts(case, &mut outcome.seen);
    Run { outcome, hits }
}

/// tc has one action, with its counters, for all police with the same index.
fn share_counts(case: &Case, seen: &mut BTreeMap<(u32, u16), Vec<Seen>>) {
    /// An action of a rule.
    type Place = ((u32, u16), usize);
    let mut shared: BTreeMap<&str, Vec<Place>> = BTreeMap::new();
    for rule in &case.rules {
        for (n, action) in rule.actions.iter().enumerate() {
            if let Some(rest) = action.strip_prefix("police index ") {
                let index = rest.split(' ').next().unwrap_or_default();
                shared
                    .entry(index)
                    .or_default()
                    .push(((rule.chain, rule.prio), n));
            }
        }
    }
    for places in shared.values() {
        let mut sum = Seen::default();
        for (name, n) in places {
            if let Some(one) = seen.get(name).and_then(|all| all.get(*n)) {
                sum.packets += one.packets;
                sum.bytes += one.bytes;
            }
        }
        for (name, n) in places {
            if let Some(one) = seen.get_mut(name).and_then(|all| all.get_mut(*n)) {
                *one = sum;
            }
        }
    }
}

/// What tc counts of a frame: the Ethernet header and the outermost tag are off by then.
fn counted(bytes: &[u8], frame: &Frame) -> u64 {
    let tag = if frame.tags.is_empty() { 0 } else { 4 };
    (bytes.len() as u64).saturating_sub(14 + tag)
}

/// One copy as it leaves: by which netdev, and all of it, finished as for a receiver that takes
/// nothing else.
fn leaving(output: &Output, out: &Outputs, came: &[u8], offload: Offload) -> (String, Vec<u8>) {
    let netdev = match output.dest {
        Dest::Vport(id) => format!("p{}", id.0),
        Dest::Representor(id) => format!("r{}", id.0),
    };
    let mut whole = vec![0; ROOM];
    let offload = match out.heads.get(output.head) {
        Some(edited) => {
            whole.extend(edited.head);
            whole.extend(&came[edited.taken as usize..][..edited.tail as usize]);
            edited.offload
        }
        None => {
            whole.extend(came);
            offload
        }
    };
    let start = output.vlan.apply(&mut whole, ROOM).expect("room");
    let mut frame = whole.split_off(start);
    if let Some(csum) = offload.shifted(output.vlan.delta()).csum {
        finish_checksum(&mut frame, csum);
    }
    (netdev, frame)
}
