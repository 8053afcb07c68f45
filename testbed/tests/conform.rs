//! The conformance suite on the emulator, as users run it: what comes of it is known case by case.

use chanio_testbed::conform::render;
use chanio_testbed::conform::report::{CaseReport, Outcome, Report, SentFrame};
use chanio_testbed::conform::vectors::VECTORS;
use chanio_testbed::emulator::Emulator;
use chanio_testbed::netns::isolate;
use chanio_testbed::process::run;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// What an emulator that is like a vendor's NIC cannot do: beginnings of names, and of reasons.
type Missing = &'static [(&'static str, &'static str)];

const GENERIC: Missing = &[("tables.full", "takes more than")];

const MLX5: Missing = &[
    ("match.arp_", "Unsupported key"),
    ("match.mpls_", "Matching on MPLS is supported only"),
    ("match.src_port.range", "Unsupported key"),
    ("match.dst_port.range", "Unsupported key"),
    ("match.src_port.sctp", "Only UDP and TCP transports"),
    ("match.dst_port.sctp", "Only UDP and TCP transports"),
    ("match.ip_flags.firstfrag", "Match on frag first/later"),
    ("match.ct_state.new", "matching on ct_state +new"),
    ("action.mpls", "mpls is supported only"),
    ("action.csum.broken", "TC csum action is only offloaded"),
    ("hairpin.channel", "can't forward from a VF to itself"),
    ("tables.full", "takes more than"),
];

/// Runs the suite on an emulator with these options.
fn report_on(options: &str, arguments: &[&str]) -> (Report, Option<i32>) {
    let dir = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(dir.path(), options);
    let mut command = emulator.command("--json conform --seed 7");
    let out = command.args(arguments).output().expect("chanio");
    let text = String::from_utf8_lossy(&out.stdout);
    let report = serde_json::from_str(&text);
    let report = report.unwrap_or_else(|e| {
        panic!("{e}: {text}{}", String::from_utf8_lossy(&out.stderr));
    });
    // It is as it was.
    assert_eq!(emulator.json("nic show")[0]["channels"], 0);
    assert_eq!(emulator.json("eswitch show")[0]["mode"], "legacy");
    emulator.stop();
    (report, out.status.code())
}

/// Every case passed but those that are named, and those are not supported for the reason given.
fn conforms(profile: &str, missing: Missing) {
    let options = format!(
        "--queues 600 --workers 1 --representors tap --uplink tap:wire0 --profile {profile}"
    );
    let (report, code) = report_on(&options, &[]);
    let device = &report.devices[0];
    println!("{}", device.summary());
    let wrong = |case: &&CaseReport| {
        let expected = missing.iter().find(|(name, _)| case.name.starts_with(name));
        match (&case.outcome, expected) {
            (Outcome::Passed, None) => false,
            (Outcome::NotSupported { why }, Some((_, reason))) => !why.starts_with(reason),
            _ => true,
        }
    };
    let wrong: Vec<_> = device.cases.iter().filter(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!((code, device.profile.as_str()), (Some(0), profile));
    assert!(device.cases.len() > 160, "{}", device.cases.len());
    let plots = device.cases.iter().flat_map(|case| &case.measured);
    assert!(plots.count() >= 4, "rates and RSS are measured");
}

#[test]
fn the_generic_nic_does_all_there_is() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    conforms("generic", GENERIC);
}

#[test]
fn a_vendors_nic_does_what_its_driver_takes() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    conforms("mlx5-cx6dx", MLX5);
}

#[test]
fn without_netdevs_what_needs_them_is_not_supported() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let options = "--queues 600 --workers 1 --representors off";
    let (report, code) = report_on(options, &["--case", "slow.", "--case", "guards."]);
    let device = &report.devices[0];
    assert_eq!((code, device.endpoints.as_str()), (Some(0), "vhost-user"));
    let end = |name| device.case(name).map(|case| case.outcome.clone());
    assert_eq!(end("guards.spoof"), Some(Outcome::Passed));
    let Some(Outcome::NotSupported { why }) = end("slow.to_host") else {
        panic!("{device:#?}");
    };
    assert!(why.contains("switched off"), "{why}");
}

/// Cases whose channels are a Debian guest's NICs: packets by tables and by the switch, several
/// queues, a driver that goes, and the guest's own stack with its checksum and segmentation offloads.
const IN_A_GUEST: [&str; 7] = [
    "slow.to_host",
    "match.in_port",
    "action.mirror",
    "guards.mtu",
    "spread.exact",
    "stack.",
    "change.driver_reset",
];

#[test]
fn a_guest_has_the_channels() {
    if !chanio_testbed::can_run() {
        return;
    }
    chanio_testbed::guest::image();
    isolate();
    let mut arguments = vec!["--endpoints", "guest"];
    arguments.extend(IN_A_GUEST.iter().flat_map(|case| ["--case", case]));
    let options = "--queues 40 --workers 1 --representors tap";
    let (report, code) = report_on(options, &arguments);
    let device = &report.devices[0];
    let passed = |case: &&CaseReport| case.outcome == Outcome::Passed;
    let wrong: Vec<_> = device.cases.iter().filter(|case| !passed(case)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!((code, device.endpoints.as_str()), (Some(0), "guest"));
    assert_eq!(device.cases.len(), 11);
}

#[test]
fn a_device_in_use_is_left_alone() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(dir.path(), "--queues 8 --representors off --channels 2");
    let (code, why) = emulator.refused("conform");
    assert!(code == 1 && why.contains("2 channels"), "{code} {why}");
    assert_eq!(emulator.json("channel show").as_array().unwrap().len(), 2);
    emulator.stop();
}

#[test]
fn vectors_are_what_scapy_makes() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conform/vectors.py");
    let made = run(Command::new("/usr/bin/python3").arg(script));
    assert_eq!(made.trim(), VECTORS.trim(), "run vectors.py > vectors.json");
}

/// A report with failures of every kind, out of what an emulator says.
fn with_failures() -> Report {
    let (mut report, _) = report_on(
        "--queues 8 --workers 1 --representors off",
        &["--case", "rates.max", "--case", "legacy."],
    );
    let mut other = report.devices[0].clone();
    other.title = "other <b>".into();
    for (n, case) in other.cases.iter_mut().enumerate() {
        let why = format!("<script>alert({n})</script>");
        case.outcome = match n % 3 {
            0 => Outcome::Error { why },
            1 => Outcome::NotSupported { why },
            _ => Outcome::Failed {
                why,
                expected: "00".into(),
                got: "01".into(),
                frames: vec![SentFrame {
                    port: "a".into(),
                    from_host: false,
                    hex: "02".into(),
                }],
                trace: vec!["chain 0 & on".into()],
            },
        };
    }
    report.devices.push(other);
    report
}

/// The page as Chromium has it: what it says on its console, and the document.
fn opened(page: &Path, dir: &Path) -> Option<(String, String)> {
    let mut chromium = Command::new("chromium");
    chromium.args(["--headless=new", "--no-sandbox", "--disable-gpu"]);
    chromium.args(["--enable-logging=stderr", "--dump-dom"]);
    chromium.arg(format!(
        "--user-data-dir={}",
        dir.join("chromium").display()
    ));
    chromium.arg(format!("file://{}", page.display()));
    let out = match chromium.output() {
        Ok(out) => out,
        Err(error) if std::env::var_os("CI").is_none() => {
            println!("skipped: chromium: {error}");
            return None;
        }
        Err(error) => panic!("chromium: {error}; testbed/setup.sh installs it"),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&out.stderr);
    let console = said.lines().filter(|line| line.contains("CONSOLE"));
    Some((console.collect(), text(&out.stdout)))
}

#[test]
fn the_page_is_what_the_report_says() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let report = with_failures();
    render::write(dir.path(), &report).unwrap();
    let page = dir.path().join("conformance.html");
    let Some((console, document)) = opened(&page, dir.path()) else {
        return;
    };
    assert_eq!(console, "", "the page complains");
    assert!(!document.contains("<script"), "markup out of a reason");
    // Every cell, and nothing else.
    let mut cells = BTreeMap::new();
    for cell in document.split("<td class=\"").skip(1) {
        let (word, rest) = cell.split_once('"').expect("a class");
        let attribute = |name: &str| {
            let (_, rest) = rest.split_once(&format!("{name}=\""))?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        if let (true, Some(case), Some(device)) = (
            rest.starts_with(" data-case"),
            attribute("data-case"),
            attribute("data-device"),
        ) {
            cells.insert((case, device), word.to_owned());
        }
    }
    let mut expected = BTreeMap::new();
    for (n, device) in report.devices.iter().enumerate() {
        for case in &device.cases {
            let word = case.outcome.word().to_owned();
            expected.insert((case.name.clone(), n.to_string()), word);
        }
    }
    assert_eq!(cells, expected);
    assert!(
        document.matches("<svg").count() >= 2,
        "a plot of each device"
    );
    assert!(
        document.contains("chain 0 &amp; on"),
        "the trace of a failure"
    );
}

#[test]
fn two_reports_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let mut report = Report {
        devices: vec![Default::default()],
        ..Report::default()
    };
    report.devices[0].cases.push(CaseReport {
        name: "slow.to_host".into(),
        about: String::new(),
        source: String::new(),
        outcome: Outcome::Passed,
        seconds: 0.0,
        measured: Vec::new(),
        drops: BTreeMap::new(),
    });
    let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
    render::write(&one, &report).unwrap();
    report.devices[0].cases[0].outcome = Outcome::NotSupported {
        why: "no representors".into(),
    };
    render::write(&other, &report).unwrap();
    let compare = |a: &Path, b: &Path| {
        let mut command = Command::new(chanio_testbed::process::program("chanio"));
        command.args(["conform", "--compare"]);
        command.args([a.join("conformance.json"), b.join("conformance.json")]);
        let out = command.output().expect("chanio");
        (
            out.status.code(),
            String::from_utf8_lossy(&out.stdout).into_owned(),
        )
    };
    assert_eq!(compare(&one, &one).0, Some(0));
    let (code, said) = compare(&one, &other);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("B not supported: no representors"), "{said}");
}
