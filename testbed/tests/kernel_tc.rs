//! The eswitch against tc flower in a stock kernel.

use chanio_testbed::difftest::case::PORTS;
use chanio_testbed::difftest::explore::explore;
use chanio_testbed::difftest::kernel::Kernel;
use chanio_testbed::difftest::protocol::{Order, Sent};

/// The harness itself: what is known of the kernel comes out of it.
#[test]
fn the_guest_sends_mirrors_rewrites_and_hands_up() {
    if !chanio_testbed::can_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut kernel = Kernel::boot(dir.path(), 4);
    let header = "0".repeat(24);
    let macs = "020000000002020000000001";
    let ip = "0800450000140000000040110000010203040a000001";
    let lines = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    let order = Order {
        setup: lines(&[
            "filter add block 1 protocol 802.1q prio 10 flower indev p1 vlan_id 5 \
             action mirred egress mirror dev p0 action vlan push id 7 pipe \
             action mirred egress redirect dev p3",
            "filter add block 1 protocol ip prio 11 flower action pedit ex munge ip ttl set 7 pipe \
             action goto chain 3",
            "filter add block 1 protocol ip prio 12 flower nonsense",
        ]),
        frames: vec![
            Sent {
                port: 1,
                hex: format!("{header}{macs}81000005{ip}"),
                put_aside: false,
            },
            Sent {
                port: 2,
                hex: format!("{header}{macs}{ip}"),
                put_aside: false,
            },
        ],
        show: lines(&["filter show block 1"]),
        cleanup: lines(&["filter del block 1"]),
    };
    for report in kernel.run(&[order.clone(), order]) {
        let got = |frame: usize| -> Vec<_> {
            let of = report.frames[frame].iter();
            of.map(|got| (got.netdev.as_str(), got.hex.strip_prefix(&header).unwrap()))
                .collect()
        };
        let (tagged, twice) = (
            format!("{macs}81000005{ip}"),
            format!("{macs}8100000781000005{ip}"),
        );
        assert_eq!(got(0), [("p0", &*tagged), ("p3", &*twice)]);
        let rewritten = format!("{macs}{}", ip.replace("4011", "0711"));
        assert_eq!(got(1), [("r2", &*rewritten)]);
        assert!(report.refused.contains("nonsense"), "{report:?}");
        assert_eq!(
            report.shown.matches("\"packets\":1").count(),
            5,
            "{report:?}"
        );
    }
}

/// `CHANIO_CASES` and `CHANIO_SEED` in the environment make it longer, or the same again.
#[test]
fn random_rules_do_to_random_frames_what_they_do_in_tc() {
    if !chanio_testbed::can_run() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let cases = number("CHANIO_CASES").unwrap_or(500);
    let seed = number("CHANIO_SEED").unwrap_or(1);
    let dir = tempfile::tempdir().unwrap();
    let mut kernel = Kernel::boot(dir.path(), PORTS);
    let tally = explore(&mut kernel, cases as usize, seed, 5);
    println!("seed {seed}: {tally}");
    assert!(tally.different.is_empty());
}
