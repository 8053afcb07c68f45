//! `veth:NAME` in a Debian guest, whose kernel has tc flower and bridges that look at VLAN tags.

use chanio_testbed::conform::in_guest::{self, Column, Order};
use chanio_testbed::conform::report::Outcome;
use chanio_testbed::guest::{BOOT, Guest, image};
use chanio_testbed::process::program;

/// Commands and, in between, what they must print: `ok TEXT` when the last one succeeded and
/// printed it, `no TEXT` when it was refused with it.
const STEPS: &str = r#"
channel add web1 --attach tap:a --address 10.0.0.1/24 --mac 02:00:00:00:00:01 --vlan 7
ok web1
channel add web2 --attach tap:b --address 10.0.0.2/24 --mac 02:00:00:00:00:02 --spoofchk on
ok web2
ping fails
channel set web2 --vlan 7
ping works
--json fdb show
ok "vlan": 7
eswitch set --mode switchdev
no port VLAN or spoofchk
channel set web1 --vlan 0
channel set web2 --vlan 0 --spoofchk off
eswitch set --mode switchdev
ping fails
flow add prio 10 in_port web1 action redirect web2
flow add prio 20 in_port web2 action drop
flow add prio 20 in_port web2 action redirect web1
no File exists
ping fails
flow add --replace prio 20 in_port web2 action mirror web1 action drop
ping works
flow add prio 30 in_port web2 action trap
no use pass
flow show
ok prio 20 in_port web2 action mirror web1 action drop
flow show --actions
ok mirror web1
channel del web2
flow show
eswitch set --mode legacy
channel del web1
"#;

#[test]
fn port_vlans_and_flow_rules_are_the_kernels() {
    if !chanio_testbed::can_run() {
        return;
    }
    image();
    let dir = tempfile::tempdir().unwrap();
    let mut script = String::from(
        "load veth bridge sch_ingress cls_flower act_gact act_mirred\n\
         ip netns add a; ip netns add b\n\
         said() { echo \"$out\" | grep -q -e \"$1\" || { echo \"wrong: $last: $out\"; false; }; }\n\
         try() { last=\"$*\"; out=$(chanio --device veth:br0 \"$@\" 2>&1) && code=0 || code=$?; }\n\
         good() { [ $code = 0 ] || { echo \"wrong: $last: $out\"; false; }; }\n\
         ping_b() { ip netns exec a ping -c 1 -W 1 10.0.0.2 > /dev/null; }\n",
    );
    let lines: Vec<_> = STEPS.lines().filter(|line| !line.is_empty()).collect();
    for (place, line) in lines.iter().enumerate() {
        let refused = lines
            .get(place + 1)
            .is_some_and(|next| next.starts_with("no "));
        script += &match line.split_once(' ') {
            Some(("ok", text)) => format!("said '{text}'\n"),
            Some(("no", text)) => format!("[ $code = 1 ]; said '{text}'\n"),
            Some(("ping", "works")) => "ping_b\n".into(),
            Some(("ping", _)) => "if ping_b; then echo 'wrong: a ping'; false; fi\n".into(),
            _ if refused => format!("try {line}\n"),
            _ => format!("try {line}; good\n"),
        };
    }
    let mut guest = Guest {
        programs: &[program("chanio")],
        ..Guest::new(dir.path(), &script)
    }
    .boot();
    let ended = |text: &str| text.contains("guest: done") || text.contains("guest: failed");
    let text = guest.wait_output("the script's end", 0, BOOT, ended);
    assert!(text.contains("guest: done"), "{text}");
}

/// Cases of the conformance suite, by name or group; all of them take minutes
/// (testbed/conformance.sh).
const CASES: [&str; 12] = [
    "slow.",
    "hairpin.",
    "wire.",
    "match.in_port",
    "match.vlan_",
    "match.enc_kind",
    "action.drop",
    "action.pass",
    "action.mirror",
    "action.pedit.ip",
    "action.trap",
    "tables.block",
];

/// What tc cannot say: names, and what is in the reason.
const CANNOT: [(&str, &str); 3] = [
    (
        "match.vlan_id.any_tpid",
        "match on a VLAN tag without vlan_tpid",
    ),
    ("match.enc_kind", "in_port with what came through a tunnel"),
    ("action.trap", "action trap is not supported"),
];

#[test]
fn the_kernels_rules_are_what_the_suite_holds_every_device_to() {
    if !chanio_testbed::can_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let order = Order {
        column: Column::Veth,
        cases: CASES.map(str::to_owned).into(),
        seed: 7,
        patience: 2 * BOOT,
        then: String::new(),
    };
    let (report, said) = in_guest::run(dir.path(), &order).unwrap_or_else(|why| panic!("{why}"));
    let device = &report.devices[0];
    println!("{}: {}", device.version, device.summary());
    let wrong = device.cases.iter().filter(|case| {
        let cannot = CANNOT.iter().find(|(name, _)| case.name == *name);
        match (&case.outcome, cannot) {
            (Outcome::Passed, None) => false,
            (Outcome::NotSupported { why }, Some((_, reason))) => !why.contains(reason),
            _ => true,
        }
    });
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{wrong:#?}\n{said}");
    assert_eq!(device.cases.len(), 24, "{said}");
}
