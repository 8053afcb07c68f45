//! What would become of a packet, and by which rules: the switch's own way, with nothing coming
//! of it.

use super::published::Config;
use super::receive::Origin;
use chanio_model::eswitch::{Arriving, Dest, Fdb, Meta, Output, Outputs, Probe};
use chanio_model::flow::{Action, FlowKey, Rule, Seen};
use chanio_model::{DropReason, Nanos, RuleId, VportId, wire};

/// One thing that happens to a packet.
#[derive(Clone, Debug)]
pub enum Step {
    /// It is looked up in a chain, with these headers, and takes this rule or none.
    Lookup {
        /// The chain.
        chain: u32,
        /// What the chain's rules see.
        key: FlowKey,
        /// The rule that wins.
        rule: Option<RuleId>,
    },
    /// An action of that rule is done.
    Action(Action),
    /// What the action has made of it: its first bytes, and its length.
    Rewritten(Vec<u8>, u32),
    /// A copy goes there, with this in front.
    Output(Dest, Vec<u8>),
    /// A copy, or the packet, is lost at this port.
    Lost(VportId, DropReason),
}

#[derive(Default)]
struct Recorder(Vec<Step>);

impl Probe for Recorder {
    const DRY: bool = true;

    fn lookup(&mut self, chain: u32, seen: Seen<'_>, rule: Option<&Rule>) {
        let tunnelled = rule.is_some_and(|rule| rule.spec().matches.is_tunnel());
        let key = match seen.inner {
            Some(inner) if tunnelled => *inner.flow,
            _ => *seen.flow,
        };
        let rule = rule.map(Rule::id);
        self.0.push(Step::Lookup { chain, key, rule });
    }

    fn action(&mut self, _index: usize, action: &Action) {
        self.0.push(Step::Action(action.clone()));
    }

    fn rewritten(&mut self, head: &[u8], len: u32) {
        self.0.push(Step::Rewritten(head.to_vec(), len));
    }
}

/// Follows a finished packet that begins with `head` and is `len` bytes long through the switch.
pub fn explain(
    config: &Config,
    fdb: &Fdb,
    vport: VportId,
    origin: Origin,
    head: &[u8],
    len: u32,
    now: Nanos,
) -> Vec<Step> {
    let mut recorder = Recorder::default();
    let parsed = match wire::parse(head, len, vport) {
        Ok(parsed) => parsed,
        Err(reason) => return vec![Step::Lost(vport, reason)],
    };
    let meta = Meta::new(len, &parsed, None, now, 0);
    let mut out = Outputs::default();
    let decided = match origin {
        Origin::Vport => {
            let packet = Arriving {
                key: &parsed.key,
                meta,
                head,
                offload: None,
            };
            let switch = &config.switch;
            switch.from_vport_watched(fdb, packet, &mut out, &mut recorder)
        }
        Origin::Representor => {
            let switch = &config.switch;
            switch.from_representor(vport, &parsed.key, meta, &mut out)
        }
    };
    let Recorder(mut steps) = recorder;
    match decided {
        Ok(()) => {
            let outputs = out.list.iter();
            steps
                .extend(outputs.map(|output| Step::Output(output.dest, front(output, &out, head))));
            let lost = out.lost.iter();
            steps.extend(lost.map(|(vport, reason)| Step::Lost(*vport, *reason)));
        }
        Err(reason) => steps.push(Step::Lost(vport, reason)),
    }
    steps
}

/// The last rule that a packet took, or the chain that had none for it.
pub fn last_lookup(steps: &[Step]) -> (Option<RuleId>, Option<u32>) {
    let last = steps.iter().rev().find_map(|step| match step {
        Step::Lookup { chain, rule, .. } => Some((*chain, *rule)),
        _ => None,
    });
    match last {
        Some((chain, None)) => (None, Some(chain)),
        Some((_, rule)) => (rule, None),
        None => (None, None),
    }
}

/// The first bytes of a copy.
fn front(output: &Output, out: &Outputs, head: &[u8]) -> Vec<u8> {
    const ROOM: usize = wire::VLAN_TAG_LEN;
    let head = out
        .heads
        .get(output.head)
        .map_or(head, |edited| edited.head);
    let mut bytes = vec![0; ROOM + head.len()];
    bytes[ROOM..].copy_from_slice(head);
    let start = output.vlan.apply(&mut bytes, ROOM).unwrap_or(ROOM);
    bytes.split_off(start)
}
