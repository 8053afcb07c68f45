//! `netdevsim/NAME` in switchdev mode, in a guest with a Debian kernel: real devlink, no packets.

use chanio_testbed::conform::in_guest::{self, Column, Order, allocation};
use chanio_testbed::conform::report::Outcome;
use chanio_testbed::guest::BOOT;

/// Cases of the conformance suite, by name or group.
const CASES: [&str; 7] = [
    "allocation.",
    "naming.",
    "slow.to_host",
    "match.in_port",
    "legacy.unicast",
    "rates.listed",
    "change.persistence",
];

/// What it cannot do: names, and how the reason begins.
const CANNOT: [(&str, &str); 6] = [
    (
        "allocation.queues",
        "queues is not supported: netdevsim's virtual functions",
    ),
    ("allocation.pool", "there is no common pool"),
    ("naming.representor_goes", "a function outlives its channel"),
    (
        "slow.to_host",
        "netdevsim's virtual functions have no netdevs",
    ),
    (
        "match.in_port",
        "flow rules is not supported: its driver offloads no flower",
    ),
    (
        "legacy.unicast",
        "a channel in eswitch mode legacy is not supported",
    ),
];

#[test]
fn channels_names_and_rates_are_real_devlinks() {
    if !chanio_testbed::can_run() {
        return;
    }
    if let Err(why) = Column::Netdevsim.kernel().image() {
        assert!(std::env::var_os("CI").is_none(), "{why}");
        println!("skipped: {why}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let order = Order {
        column: Column::Netdevsim,
        cases: CASES.map(str::to_owned).into(),
        seed: 7,
        patience: 2 * BOOT,
        // More than the list of functions in one netlink attribute holds.
        then: allocation(&[100]),
    };
    let (report, said) = in_guest::run(dir.path(), &order).unwrap_or_else(|why| panic!("{why}"));
    let device = &report.devices[0];
    println!("{}: {}", device.profile, device.summary());
    let wrong = device.cases.iter().filter(|case| {
        let cannot = CANNOT.iter().find(|(name, _)| case.name == *name);
        match (&case.outcome, cannot) {
            (Outcome::Passed, None) => false,
            (Outcome::NotSupported { why }, Some((_, reason))) => !why.starts_with(reason),
            _ => true,
        }
    });
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{wrong:#?}\n{said}");
    assert_eq!(device.cases.len(), 16, "{said}");
    let took = said
        .lines()
        .find(|line| line.starts_with("netdevsim: 100 channels in"));
    println!("{}", took.unwrap_or_else(|| panic!("{said}")));
}
