//! Rules that choose a queue, as `ethtool -N` gives them to a virtual function's driver.

use crate::bed::{Bed, SLOT, spec};
use chanio::transport::Transport;
use chanio_testbed::process::program;
use std::path::Path;
use std::process::Command;

fn ethtool(bed: &Bed, words: &str) -> Result<String, String> {
    let mut command = Command::new(program("chanio"));
    command.arg("run").arg("--via").arg(bed.run_dir());
    let output = command
        .args(["--", "ethtool"])
        .args(words.split_whitespace());
    let output = output.output().unwrap();
    // For a rule that is refused ethtool(8) ends as if nothing were the matter.
    match output.status.success() && output.stderr.is_empty() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Packets that each queue of the second function has received, and what was dropped there.
fn received(bed: &Bed) -> [u64; 3] {
    let told = bed.emulator.json("stats --queues pf0vf1");
    let queue = |n| told[0]["queues"][format!("rx_queue_{n}_packets")].as_u64();
    let dropped = told[0]["drops"]["queue_rule"].as_u64();
    [queue(0), queue(1), dropped].map(|count| count.unwrap_or(0))
}

#[test]
fn rules_of_ethtool_lead_packets_to_queues() {
    if !chanio_testbed::can_run() {
        return;
    }
    let bed = Bed::new("intel-e810");
    let vfs = format!("/sys/bus/pci/devices/{SLOT}/sriov_numvfs");
    bed.faults.write(Path::new(&vfs), b"2").unwrap();
    let netdev = "enp3s0f0v1";
    let add = |rule: &str| ethtool(&bed, &format!("-N {netdev} flow-type {rule}"));
    for (rule, location) in [
        ("udp4 dst-port 53 action 1", 7),
        ("udp4 src-ip 10.0.0.1 dst-port 54 action -1", 9),
        ("tcp6 dst-ip fd00::2 dst-port 80 action 0", 11),
    ] {
        add(&format!("{rule} loc {location}")).unwrap();
    }
    let told = ethtool(&bed, &format!("-n {netdev}")).unwrap();
    for part in [
        "Total 3 rules",
        "Filter: 7\n\tRule Type: UDP over IPv4",
        "Dest port: 53 mask: 0x0",
        "Action: Direct to queue 1",
        "Src IP addr: 10.0.0.1 mask: 0.0.0.0",
        "Action: Drop",
        "Dest IP addr: fd00::2 mask: ::",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // ethtool finds a place itself.
    add("ip4 l4proto 47 action 0").unwrap();
    let told = ethtool(&bed, &format!("-n {netdev}")).unwrap();
    assert!(told.contains("Filter: 127"), "{told}");
    for (rule, why) in [
        ("udp4 dst-port 53 action 0 loc 20", "File exists"),
        ("udp4 dst-port 99 action 0 loc 7", "File exists"),
        ("udp4 dst-port 53 m 0xff action 0", "not supported"),
        ("udp4 dst-port 99 action 2", "Invalid argument"),
        ("ah4 spi 5 action 0", "not supported"),
    ] {
        let told = add(rule).unwrap_err();
        assert!(told.contains(why), "{rule}: {told}");
    }
    // Of the wire's netdev the emulator has none.
    ethtool(&bed, "-N c0p0 flow-type udp4 dst-port 53 action 0").unwrap_err();

    let mut nic = bed.open();
    let [a, b] = ["10.0.0.1/24", "10.0.0.2/24"];
    nic.add_channels(vec![spec("one", "a", a), spec("two", "b", b)])
        .unwrap();
    bed.containers[0].run(&["ping", "-c1", "-W1", "10.0.0.2"]);
    let send = |port: u16| {
        let before = received(&bed);
        let line = format!("for i in $(seq 40); do echo x > /dev/udp/10.0.0.2/{port}; done");
        // Each from a port of its own; that nobody listens there is told by ICMP, later.
        let _ = bed.containers[0].command(&["bash", "-c", &line]).output();
        std::thread::sleep(std::time::Duration::from_millis(200));
        let now = received(&bed);
        [0, 1, 2].map(|at| now[at] - before[at])
    };
    let [_, on_the_other, dropped] = send(53);
    assert!(on_the_other >= 40 && dropped == 0);
    assert_eq!(send(54)[2], 40);
    let [first, second, dropped] = send(55);
    assert!(first > 5 && second > 5 && dropped == 0, "{first} {second}");
}
