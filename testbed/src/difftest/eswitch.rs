//! A case through the eswitch's model.

use super::case::{Case, Outcome, PORTS, Seen};
use chanio_model::eswitch::{
    Arriving, Change, Dest, Fdb, FdbLimits, FlowCache, Meta, Mode, Outputs, Switch, VportConfig,
};
use chanio_model::flow::{Rule, RuleSpec};
use chanio_model::{RuleId, VportId, wire};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
    for (n, rule) in case.rules.iter().enumerate() {
        let name = (rule.chain, rule.prio);
        let made = rule.text().parse::<RuleSpec>().map_err(|e| e.to_string());
        let made = made
            .and_then(|spec| Rule::new(RuleId(n as u64 + 1), spec, 1).map_err(|e| e.to_string()));
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
    outcome.seen = rules.keys().map(|name| (*name, Vec::new())).collect();
    let mut cache = FlowCache::default();
    let mut out = Outputs::default();
    for (n, frame) in case.frames.iter().enumerate() {
        let bytes = frame.bytes();
        let before: Vec<_> = rules.values().map(|rule| rule.totals()).collect();
        let mut came = Vec::new();
        if let Ok(parsed) = wire::parse(&bytes, bytes.len() as u32, VportId(frame.port as u32)) {
            let meta = Meta::new(bytes.len() as u32, &parsed, None, n as u64 + 1, 0);
            switch.begin_burst(&mut cache);
            let slot = switch.slot(&cache, &parsed.key);
            let packet = Arriving {
                key: &parsed.key,
                meta,
                head: &bytes,
                offload: None,
            };
            out.begin_burst();
            let result = switch.from_vport_cached(&mut cache, slot, &fdb, packet, &mut out);
            if result.is_ok() {
                for output in &out.list {
                    let netdev = match output.dest {
                        Dest::Vport(id) => format!("p{}", id.0),
                        Dest::Representor(id) => format!("r{}", id.0),
                    };
                    let whole = out.heads.whole(output, &bytes);
                    came.push((netdev, whole.expect("a copy of this frame")));
                }
            }
        }
        came.sort_by(|a, b| a.0.cmp(&b.0));
        outcome.frames.push(came);
        let tag = if frame.tags.is_empty() { 0 } else { 4 };
        let counted = (bytes.len() as u64).saturating_sub(14 + tag);
        let mut met = BTreeSet::new();
        for (((name, seen), rule), before) in
            outcome.seen.iter_mut().zip(rules.values()).zip(before)
        {
            let packets = rule.totals().packets - before.packets;
            if packets > 0 {
                met.insert(*name);
            }
            let first = Seen::default();
            seen.resize(1, first);
            seen[0].packets += packets;
            seen[0].bytes += packets * counted;
        }
        hits.push(met);
    }
    Run { outcome, hits }
}
