//! What a guest with a stock kernel receives: TCP segments joined for it (LRO), and flows spread over
//! its queues (RSS).

use chanio_emu::nic::spec::*;
use chanio_model::rss::RssChange;
use chanio_testbed::guest::{BOOT, Guest};
use chanio_testbed::netns::{Netns, isolate};
use chanio_testbed::nic::{Bed, channel, container};
use std::time::Duration;

/// The guest's kernel counts what each of its queues received.
const SCRIPT: &str = "
ethtool -L eth0 combined 2
ip link set eth0 up
ip addr add 10.9.0.9/24 dev eth0
ping -c 3 10.9.0.1
ethtool -x eth0 2>&1
counted() { echo guest: $1 $(ethtool -S eth0 | grep -E 'rx_queue_[01]_(packets|bytes)') end; }
counted start
for step in apart joined one both; do
  iperf3 -c 10.9.0.1 -t 2 -R -P 8 --forceflush > /dev/null || echo 'guest: no tcp'
  counted $step
  read go < /dev/console
done
";

/// Packets and bytes of both queues behind `guest: STEP`.
fn counted(text: &str, step: &str) -> [[u64; 2]; 2] {
    let lines = text.lines().filter_map(|line| line.split_once("guest: "));
    let mut found = lines.filter_map(|(_, rest)| rest.strip_prefix(step)?.strip_prefix(' '));
    let line = found.next().unwrap_or_else(|| panic!("{step}: {text}"));
    let words: Vec<_> = line.split_whitespace().collect();
    let value = |name: &str| -> u64 {
        let at = words.iter().position(|word| *word == name);
        let number = at.and_then(|at| words.get(at + 1)?.parse().ok());
        number.unwrap_or_else(|| panic!("{name}: {line}"))
    };
    [0, 1].map(|n| ["packets", "bytes"].map(|what| value(&format!("rx_queue_{n}_{what}:"))))
}

#[test]
fn a_guest_receives_joined_segments_and_flows_where_the_table_says() {
    if !chanio_testbed::can_run() {
        return;
    }
    chanio_testbed::guest::image();
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let pod = Netns::new("pod");
    let bed = Bed::switchdev(dir.path(), RepresentorMode::Off);
    let ch = bed.add(vec![
        ChannelSpec {
            queues: 2,
            ..channel("vm")
        },
        container("pod", "pod", "10.9.0.1/24", 1),
    ]);
    // Segments as a wire has them.
    pod.run(&["ethtool", "-K", "eth0", "tso", "off", "gso", "off"]);
    bed.rule("in_port vm action redirect pod");
    bed.rule("in_port pod action redirect vm");
    let _server = pod.iperf3_server(dir.path());
    let mut guest = Guest {
        net: Some((ch[0].socket.as_deref().unwrap(), ch[0].mac, 2)),
        ..Guest::new(dir.path(), SCRIPT)
    }
    .boot();
    let set = |change: ChannelChange| bed.nic.set_channel(&ch[0].spec.name, change).unwrap();
    let table = |queues: &[u16]| ChannelChange {
        rss: Some(RssChange {
            table: Some(queues.to_vec()),
            unclassified: queues.last().copied(),
            ..RssChange::default()
        }),
        ..ChannelChange::default()
    };
    let joined = ChannelChange {
        lro: Some(true),
        ..ChannelChange::default()
    };
    let changes = [
        ("apart", joined),
        ("joined", table(&[1])),
        ("one", table(&[0, 1])),
    ];
    for (step, change) in changes {
        let told = format!("guest: {step} ");
        guest.wait_output(&told, 0, BOOT, |t| {
            t.lines().any(|l| l.contains(&told) && l.contains(" end"))
        });
        set(change);
        guest.say("go");
    }
    guest.wait_output("both", 0, Duration::from_secs(60), |t| {
        t.lines()
            .any(|l| l.contains("guest: both ") && l.contains(" end"))
    });
    guest.say("go");
    guest.wait(Duration::from_secs(30));
    let text = guest.output();
    assert!(!text.contains("guest: no tcp"), "{text}");
    for line in text.lines().filter(|line| line.contains("ndirection")) {
        println!("ethtool -x: {}", line.trim());
    }
    let steps = ["start", "apart", "joined", "one", "both"].map(|step| counted(&text, step));
    let grown = |n: usize, queue: usize| -> [u64; 2] {
        [0, 1].map(|what| steps[n][queue][what] - steps[n - 1][queue][what])
    };
    let mean = |n: usize| {
        let [a, b] = [grown(n, 0), grown(n, 1)];
        (a[1] + b[1]) / (a[0] + b[0]).max(1)
    };
    println!(
        "bytes of a frame that the guest receives: {} apart, {} joined",
        mean(1),
        mean(2)
    );
    assert!(mean(1) <= 1514 && mean(2) > 3000);
    println!(
        "packets by queue: {:?} with a table of 1, {:?} with 0 and 1",
        [grown(3, 0)[0], grown(3, 1)[0]],
        [grown(4, 0)[0], grown(4, 1)[0]]
    );
    assert!(grown(3, 0)[0] == 0 && grown(3, 1)[0] > 100);
    assert!(grown(4, 0)[0] > 100 && grown(4, 1)[0] > 100);
    assert_eq!(bed.nic.channel("vm").unwrap().fault, None);
    bed.nic.shutdown();
}
