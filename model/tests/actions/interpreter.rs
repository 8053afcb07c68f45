//! Rules done to byte vectors, one word after the other.

use crate::naive;
use chanio_model::edit::{Payload, TunnelSet};
use chanio_model::eswitch::Dest;
use chanio_model::flow::reference::LinearTables;
use chanio_model::flow::{Action, Rule, Seen};
use chanio_model::wire::{self, HEAD_LEN};
use chanio_model::{DropReason, RuleId, VportId};
use std::collections::HashMap;
use std::sync::Arc;

/// The port that has a VLAN of its own.
pub const TAGGED_PORT: VportId = VportId(4);
/// That VLAN.
pub const VID: u16 = 5;

/// A copy to be delivered.
pub struct Copy {
    pub dest: Dest,
    frame: Vec<u8>,
    around: Option<TunnelSet>,
}

impl Copy {
    /// Its bytes; what a tunnel's headers may choose is as in `got`.
    pub fn bytes(&self, got: &[u8]) -> Vec<u8> {
        let mut frame = self.frame.clone();
        if let Some(set) = &self.around {
            let outer = naive::find(got);
            let port = got
                .get(outer.l4..outer.l4 + 2)
                .map_or(0, |_| naive::be16(got, outer.l4));
            naive::tunnel_set(&mut frame, set, port, naive::be16(got, outer.l3 + 4));
        }
        frame
    }
}

/// What became of a packet.
#[derive(Default)]
pub struct Done {
    pub error: Option<DropReason>,
    pub copies: Vec<Copy>,
    pub lost: Vec<(VportId, DropReason)>,
    /// There were more than eight tags on it at some time.
    pub deep: bool,
}

pub struct Interpreter {
    rules: LinearTables,
    counters: HashMap<(RuleId, usize), (u64, u64)>,
}

impl Interpreter {
    pub fn new(rules: &[Arc<Rule>]) -> Self {
        let mut tables = LinearTables::default();
        rules
            .iter()
            .for_each(|rule| assert!(tables.insert(rule.clone())));
        Self {
            rules: tables,
            counters: HashMap::new(),
        }
    }

    pub fn counted(&self, rule: RuleId, action: usize) -> (u64, u64) {
        self.counters
            .get(&(rule, action))
            .copied()
            .unwrap_or_default()
    }

    pub fn run(&mut self, frame: &[u8], port: VportId) -> Done {
        let mut done = Done::default();
        let mut now = frame.to_vec();
        if port == TAGGED_PORT {
            let at = naive::find(frame);
            match at.l3 {
                14 => naive::vlan_push(&mut now, tag(VID)),
                _ if naive::be16(frame, 14) & 0xfff == 0 => now[15] = VID as u8,
                _ => {
                    done.error = Some(DropReason::VlanNotAllowed);
                    return done;
                }
            }
        }
        let reason = self.chains(now, frame.len() as u64, port, &mut done);
        if let Some(reason) = reason {
            if done.copies.is_empty() && done.lost.is_empty() {
                done.error = Some(reason);
            } else {
                done.lost.push((port, reason));
            }
        }
        done
    }

    /// Why the packet itself is lost, if it is.
    fn chains(
        &mut self,
        mut frame: Vec<u8>,
        len: u64,
        port: VportId,
        done: &mut Done,
    ) -> Option<DropReason> {
        let mut around = None;
        let mut chain = 0;
        for _ in 0..=16 {
            let head = &frame[..frame.len().min(HEAD_LEN)];
            let key = wire::parse(head, frame.len() as u32, port).unwrap().key;
            let host = Dest::Representor(port);
            let Some(rule) = self.rules.lookup(chain, Seen::plain(&key)).cloned() else {
                give(done, host, &frame, None);
                return None;
            };
            let mut goes_on = false;
            for (index, action) in rule.spec().actions.iter().enumerate() {
                done.deep |= naive::find(&frame).l3 > 14 + 8 * 4;
                let counter = self.counters.entry((rule.id(), index)).or_default();
                *counter = (counter.0 + 1, counter.1 + len);
                match action {
                    Action::Drop => return Some(DropReason::RuleDrop),
                    Action::Redirect(to) => {
                        return send(done, *to, &frame, &around);
                    }
                    Action::Mirror(to) => {
                        let lost = send(done, *to, &frame, &around);
                        done.lost.extend(lost.map(|reason| (port, reason)));
                    }
                    Action::Goto(to) => (chain, goes_on) = (*to, true),
                    Action::VlanPush(tag) => naive::vlan_push(&mut frame, *tag),
                    Action::VlanPop => naive::vlan_pop(&mut frame),
                    Action::VlanModify(to) => naive::vlan_modify(&mut frame, *to),
                    Action::Pedit(edits) => {
                        edits.iter().for_each(|edit| naive::edit(&mut frame, edit));
                    }
                    Action::TunnelSet(set) => around = Some((**set).clone()),
                    Action::TunnelUnset => around = None,
                    _ => {}
                }
            }
            done.deep |= naive::find(&frame).l3 > 14 + 8 * 4;
            if !goes_on {
                give(done, host, &frame, None);
                return None;
            }
        }
        Some(DropReason::TooManyJumps)
    }
}

fn tag(vid: u16) -> chanio_model::edit::VlanTag {
    chanio_model::edit::VlanTag {
        vid,
        ..Default::default()
    }
}

fn give(done: &mut Done, dest: Dest, frame: &[u8], around: Option<TunnelSet>) {
    done.copies.push(Copy {
        dest,
        frame: frame.to_vec(),
        around,
    });
}

/// Why the copy is lost at the in-port, if it is.
fn send(
    done: &mut Done,
    to: VportId,
    frame: &[u8],
    around: &Option<TunnelSet>,
) -> Option<DropReason> {
    let at = naive::find(frame);
    let bare = around
        .as_ref()
        .is_some_and(|set| set.payload == Payload::Ip);
    if bare && !at.v4 && !at.v6 {
        return Some(DropReason::TunnelPayload);
    }
    let mut frame = frame.to_vec();
    match to.0 {
        0..=3 => {}
        4 => {
            let tagged = naive::find(&frame).l3 > 14;
            if around.is_some() || !tagged || naive::be16(&frame, 14) & 0xfff != VID {
                done.lost.push((to, DropReason::VlanFiltered));
                return None;
            }
            naive::vlan_pop(&mut frame);
        }
        _ => return Some(DropReason::RuleTarget),
    }
    give(done, Dest::Vport(to), &frame, around.clone());
    None
}
