//! What a rule has done to a packet by the time the packet is handed to the kernel.

use super::tc::{Fate, Item, takes_all};
use chanio_model::flow::{Action, Control, Match, RuleSpec};
use std::collections::HashMap;
use std::ops::Range;

/// How packets that take a rule may get to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ways {
    /// As they came.
    untouched: bool,
    /// Changed, copied or counted against a meter, which the kernel would then do again.
    touched: bool,
}

impl Ways {
    fn any(self) -> bool {
        self.untouched || self.touched
    }

    fn open(&mut self, touched: bool) {
        match touched {
            true => self.touched = true,
            false => self.untouched = true,
        }
    }
}

/// The chains of one port.
pub(super) struct Effects<'a> {
    items: &'a [Item],
    /// Where in `items` each is.
    chains: HashMap<u32, Range<usize>>,
    /// Whether all packets that get there end there; while that is being found out: no, so that
    /// who goes round in circles does not end.
    ends: HashMap<u32, bool>,
}

impl Effects<'_> {
    /// Takes those out of hardware by which the kernel could get a packet that something was done
    /// to. `items` are in the order of their chains.
    pub fn settle(items: &mut [Item]) {
        loop {
            let mut effects = Effects::new(items);
            let offending: Vec<_> = (0..items.len())
                .filter_map(|at| match &items[at].fate {
                    Fate::In(spec) => effects.offence(spec).map(|why| (at, why)),
                    Fate::Out { .. } => None,
                })
                .collect();
            if offending.is_empty() {
                return;
            }
            for (at, why) in offending {
                if let Fate::In(spec) = &items[at].fate {
                    let cover: Option<Match> = Some(spec.matches.clone());
                    items[at].fate = Fate::Out { why, cover };
                }
            }
        }
    }

    fn new(items: &[Item]) -> Effects<'_> {
        let mut chains: HashMap<u32, Range<usize>> = HashMap::new();
        for (at, item) in items.iter().enumerate() {
            chains.entry(item.place.chain).or_insert(at..at).end = at + 1;
        }
        let ends = HashMap::new();
        Effects {
            items,
            chains,
            ends,
        }
    }

    fn offence(&mut self, spec: &RuleSpec) -> Option<String> {
        let (ways, last) = self.ways(spec);
        let done = last.filter(|_| ways.touched)?;
        Some(format!(
            "after {done} the packet may get to the kernel, which would do it again"
        ))
    }

    /// And the last action that does something.
    fn ways(&mut self, spec: &RuleSpec) -> (Ways, Option<&'static str>) {
        let mut ways = Ways::default();
        let mut done = spec.matches.is_tunnel().then_some("leaving the tunnel");
        for action in &spec.actions {
            match action {
                Action::Drop | Action::Redirect(_) => return (ways, done),
                Action::Pass | Action::Trap => {
                    ways.open(done.is_some());
                    return (ways, done);
                }
                Action::Goto(chain) => {
                    if !self.ends(*chain) {
                        ways.open(done.is_some());
                    }
                    return (ways, done);
                }
                Action::Police(police) => {
                    done = Some("police");
                    let both = [police.exceed, police.conform];
                    for control in both {
                        match control {
                            Control::Pass => ways.open(true),
                            Control::Goto(chain) if !self.ends(chain) => ways.open(true),
                            _ => {}
                        }
                    }
                    if !both.contains(&Control::Pipe) {
                        return (ways, done);
                    }
                }
                other => done = Some(name(other)),
            }
        }
        ways.open(done.is_some());
        (ways, done)
    }

    /// Whether every packet that gets to a chain is dropped or sent by it.
    fn ends(&mut self, chain: u32) -> bool {
        if let Some(known) = self.ends.get(&chain) {
            return *known;
        }
        self.ends.insert(chain, false);
        let items = self.items;
        let range = self.chains.get(&chain).cloned().unwrap_or_default();
        let mut found = false;
        for item in &items[range] {
            match &item.fate {
                Fate::Out { cover: None, .. } => {}
                Fate::Out { .. } => break,
                Fate::In(spec) if self.ways(spec).0.any() => break,
                Fate::In(spec) if takes_all(&spec.matches) => {
                    found = true;
                    break;
                }
                Fate::In(_) => {}
            }
        }
        self.ends.insert(chain, found);
        found
    }
}

/// As tc calls it.
fn name(action: &Action) -> &'static str {
    match action {
        Action::Mirror(_) => "mirred mirror",
        Action::VlanPush(_) | Action::VlanPop | Action::VlanModify(_) => "vlan",
        Action::MplsPush(_) | Action::MplsPop(_) | Action::MplsModify(_) | Action::MplsDecTtl => {
            "mpls"
        }
        Action::Pedit(_) => "pedit",
        Action::Csum(_) => "csum",
        Action::TunnelSet(_) | Action::TunnelUnset => "tunnel_key",
        Action::Ct(_) => "ct",
        Action::Sample(_) => "sample",
        Action::Police(_) => "police",
        Action::Drop | Action::Pass | Action::Trap | Action::Redirect(_) | Action::Goto(_) => {
            "gact"
        }
    }
}
