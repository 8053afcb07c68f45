//! The cases that are held against tc, through a running NIC.

use chanio_testbed::difftest::eswitch;
use chanio_testbed::difftest::explore::{Draw, show};
use chanio_testbed::difftest::running::{Running, difference};
use chanio_testbed::netns::isolate;

/// `CHANIO_CASES` and `CHANIO_SEED` in the environment make it longer, or the same again.
#[test]
fn a_running_nic_does_what_the_model_does() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let cases = number("CHANIO_CASES").unwrap_or(200);
    let seed = number("CHANIO_SEED").unwrap_or(1);
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path());
    let mut draw = Draw::new(seed);
    let (mut frames, mut copies) = (0, 0);
    for n in 0..cases {
        let case = draw.case();
        let model = eswitch::run(&case).outcome;
        let got = running.run(&case, &model);
        if let Some(how) = difference(&case, &model, &got) {
            panic!("seed {seed}, case {n}: {how}\n{}", show(&case));
        }
        frames += case.frames.len();
        copies += got.frames.iter().map(Vec::len).sum::<usize>();
    }
    println!("seed {seed}: {cases} cases, {frames} frames, {copies} copies of them came out");
    assert!(copies > cases as usize);
}
