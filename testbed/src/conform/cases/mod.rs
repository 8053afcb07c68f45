//! The cases, in the order in which they are run.
//!
//! | file | what devices are held to |
//! |---|---|
//! | `allocation` | channels come and go whole, within limits |
//! | `naming` | names of channels and representors |
//! | `slow` | what no rule takes goes to the host, and back; hairpin |
//! | `legacy` | addresses, learning, VLANs |
//! | `guards` | spoof checking, port VLAN, MTU, link |
//! | `tables` | order, marks, ageing, limits and refusals of rules |
//! | `counters` | exact counts everywhere |
//! | `spread` | RSS |
//! | `stack` | a kernel's TCP at both ends |
//! | `rates` | ceilings and shares |
//! | `change` | deletion under traffic, resets, modes, persistence |
//! | `seeing` | trace and capture tell what happened |

mod allocation;
mod change;
mod counters;
mod guards;
mod legacy;
mod naming;
mod rates;
mod seeing;
mod slow;
mod spread;
mod stack;
mod tables;

use super::case::{Case, Ended};
use super::vectors;
use super::world::{MARK, Place};

/// All of them.
pub fn all() -> Vec<Case> {
    let groups = [
        allocation::cases(),
        naming::cases(),
        slow::cases(),
        vectors::cases(),
        tables::cases(),
        counters::cases(),
        seeing::cases(),
        guards::cases(),
        legacy::cases(),
        spread::cases(),
        stack::cases(),
        rates::cases(),
        change::cases(),
    ];
    groups.into_iter().flatten().collect()
}

/// An Ethernet frame of `len` bytes, not of any protocol that a switch knows.
fn frame(dst: [u8; 6], src: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame = [&dst[..], &src, &[0x88, 0xb5], MARK].concat();
    while frame.len() < len {
        frame.push(frame.len() as u8);
    }
    frame
}

/// The same with an 802.1Q tag.
fn tagged(vid: u16, frame: &[u8]) -> Vec<u8> {
    [
        &frame[..12],
        &[0x81, 0],
        &vid.to_be_bytes()[..],
        &frame[12..],
    ]
    .concat()
}

const BROADCAST: [u8; 6] = [0xff; 6];
/// Nobody has it.
const STRANGER: [u8; 6] = [0x02, 0xc0, 0, 0, 0, 0x77];

/// The channel's own end of the first, second and third port.
const A: Place = Place::Own(0);
const B: Place = Place::Own(1);
const C: Place = Place::Own(2);
/// The host's.
const REP_A: Place = Place::Host(0);
const REP_B: Place = Place::Host(1);

/// All that a case asks for is there.
fn done() -> Ended {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_distinct_and_every_case_has_a_source() {
        let cases = all();
        let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
        assert_eq!(names.len(), cases.len());
        for case in &cases {
            assert!(!case.source.is_empty() && !case.about.is_empty());
            let (group, _) = case.name.split_once('.').expect("group.name");
            assert!(group.chars().all(|c| c.is_ascii_lowercase()), "{group}");
        }
    }
}
