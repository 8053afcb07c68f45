//! Switching by address between two ports, as fast as it goes.

use super::{Case, Contender, MPPS};
use crate::backend::SWITCHES;
use crate::client::{Frames, Loop};

pub fn cases() -> Vec<Case> {
    let imix = "a mix of 64, 570 and 1500 B (7:4:1, interleaved in runs of 14, 8 and 2)";
    [
        ("loop64", Frames::Of(64), "64 B", false),
        ("loop1500", Frames::Of(1500), "1500 B", false),
        ("loopimix", Frames::Imix, imix, false),
        ("loop64-packed", Frames::Of(64), "64 B", true),
        ("loop1500-packed", Frames::Of(1500), "1500 B", true),
        ("loopimix-packed", Frames::Imix, imix, true),
    ]
    .map(|(name, frames, what, packed)| case(name, frames, what, packed))
    .into()
}

fn case(name: &str, frames: Frames, what: &str, packed: bool) -> Case {
    let rings = if packed { "packed" } else { "split" };
    Case::new(
        name,
        format!(
            "frames of {what} go round between two ports ({rings} rings, 1024 entries), {} in \
             flight in each direction; chanio and OVS-DPDK switch by address, testpmd only copies",
            frames.in_flight()
        ),
        &[MPPS],
        SWITCHES
            .map(|(name, start)| {
                Contender::new(name, move |bed| {
                    Loop::start(bed, start(bed, 2)?, frames, packed)
                })
            })
            .into(),
    )
}
