//! A channel's netdev in a container's namespace.

use crate::netns::{Netns, cannot_run, eventually, have};
use chanio_emu::nic::Refused;
use chanio_emu::port::{Attached, IfName, RECV_BUF_LEN, SendError, TapSpec, attach};
use chanio_model::Mac;
use std::io::IoSlice;

const MAC: Mac = Mac([2, 0, 0, 0, 7, 1]);

fn try_attach(
    netns: &str,
    name: &str,
    queues: u16,
    addresses: &[&str],
) -> Result<Attached, Refused> {
    let ifname: IfName = name.parse().unwrap();
    let addresses: Vec<_> = addresses.iter().map(|a| a.parse().unwrap()).collect();
    let spec = TapSpec {
        netns,
        ifname: &ifname,
        queues,
        mac: MAC,
        mtu: 1400,
        addresses: &addresses,
        carrier: true,
        up: true,
    };
    attach(&spec)
}

#[test]
fn the_container_sees_a_plain_netdev_with_all_that_was_asked_for() {
    let Some(netns) = Netns::new() else { return };
    let ours = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let addresses = ["10.7.0.1/24", "fd00:7::1/64"];
    let attached = try_attach(netns.path(), "eth0", 4, &addresses).unwrap();
    assert_eq!(
        std::fs::read_link("/proc/thread-self/ns/net").unwrap(),
        ours
    );
    assert_eq!(netns.netdevs(), ["eth0"]);
    let link = &netns.ip_json("-d link show eth0")[0];
    assert_eq!(link["ifindex"], attached.ifindex);
    assert_eq!(link["address"], MAC.to_string());
    assert_eq!(link["mtu"], 1400);
    assert_eq!(link["linkinfo"]["info_data"]["multi_queue"], true, "{link}");
    assert_eq!(link["linkinfo"]["info_data"]["numqueues"], 4, "{link}");
    let flags = link["flags"].as_array().unwrap();
    assert!(
        flags.contains(&"UP".into()) && flags.contains(&"LOWER_UP".into()),
        "{link}"
    );
    for secret in [
        "ifalias",
        "link_netnsid",
        "link_netns",
        "phys_port_name",
        "phys_switch_id",
    ] {
        assert!(link.get(secret).is_none(), "{secret} in {link}");
    }
    let shown = netns.ip("addr show eth0");
    assert!(addresses.iter().all(|a| shown.contains(a)), "{shown}");

    let new = Mac([2, 0, 0, 0, 7, 2]);
    netns.ip("link set eth0 down");
    netns.ip("link set eth0 name other0");
    attached.change(Some(new), Some(1300)).unwrap();
    let link = &netns.ip_json("link show other0")[0];
    assert_eq!(
        (&link["address"], &link["mtu"]),
        (&new.to_string().into(), &1300.into())
    );
    attached.set_carrier(false).unwrap();
    netns.ip("link set other0 up");
    assert!(netns.ip("link show other0").contains("NO-CARRIER"));

    drop(attached);
    assert_eq!(netns.netdevs(), [""; 0]);
}

#[test]
fn frames_come_out_of_the_queues_in_any_namespace() {
    let Some(netns) = Netns::new() else { return };
    if !have("ping") {
        return;
    }
    let attached = try_attach(netns.path(), "eth0", 2, &["10.7.0.1/24"]).unwrap();
    // An ARP request for the address that is pinged, on one of the queues.
    netns.output("ping", "-c 1 -W 1 10.7.0.9");
    let mut buf = vec![0; RECV_BUF_LEN];
    let mut arp = None;
    eventually("an ARP request", || {
        for queue in &attached.queues {
            while let Some(len) = queue.recv(&mut buf).unwrap() {
                if buf[24..26] == [8, 6] {
                    arp = Some(buf[12..len].to_vec());
                }
            }
        }
        arp.is_some()
    });
    let arp = arp.unwrap();
    assert_eq!(arp[..6], [0xff; 6]);
    assert_eq!(arp[6..12], MAC.0);
    assert_eq!(arp[38..42], [10, 7, 0, 9]);
    // And in the other direction: what is answered is learned.
    let reply = [&MAC.0[..], &[2, 9, 9, 9, 9, 9], &arp[12..20], &[0, 2]].concat();
    let reply = [
        &reply[..],
        &[2, 9, 9, 9, 9, 9],
        &arp[38..42],
        &MAC.0,
        &arp[28..32],
    ]
    .concat();
    attached.queues[1]
        .send(&[IoSlice::new(&[0; 12]), IoSlice::new(&reply)])
        .unwrap();
    eventually("the neighbour", || {
        netns.ip("neigh show").contains("02:09:09:09:09:09")
    });
}

#[test]
fn refusals_are_precise_and_leave_nothing() {
    let Some(netns) = Netns::new() else { return };
    netns.ip("link add eth0 type veth peer name peer0");
    let before = netns.netdevs();
    let why = |netns: &str, name: &str, queues, addresses: &[&str]| {
        try_attach(netns, name, queues, addresses)
            .unwrap_err()
            .to_string()
    };
    let path = netns.path();
    let exists = why(path, "eth0", 2, &[]);
    assert!(
        exists.contains("eth0") && exists.contains("no netdev there has yet"),
        "{exists}"
    );
    assert!(why(path, "eth1", 257, &[]).contains("1 to 256"));
    assert!(why(path, "eth1", 0, &[]).contains("1 to 256"));
    let twice = why(path, "eth1", 3, &["10.0.0.1/24", "10.0.0.1/24"]);
    assert!(
        twice.contains("10.0.0.1/24") && twice.contains("exists"),
        "{twice}"
    );
    let unknown = why("no-such-netns", "eth1", 1, &[]);
    assert!(
        unknown.contains("no-such-netns") && unknown.contains("exists"),
        "{unknown}"
    );
    for bad in ["", ".", "..", "../etc", "a/b"] {
        assert!(why(bad, "eth1", 1, &[]).contains("absolute path"), "{bad}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let no_netns = why(file.path().to_str().unwrap(), "eth1", 1, &[]);
    assert!(
        no_netns.contains("must be a network namespace"),
        "{no_netns}"
    );
    let other_kind = why("/proc/self/ns/mnt", "eth1", 1, &[]);
    assert!(
        other_kind.contains("must be a network namespace"),
        "{other_kind}"
    );
    assert_eq!(netns.netdevs(), before);
}

#[test]
fn a_namespace_that_goes_takes_the_netdev_and_not_us() {
    if !nix::unistd::getuid().is_root() {
        return cannot_run("not root");
    }
    let name = format!("chanio-test-{}", std::process::id());
    let ip = |what: &str| {
        std::process::Command::new("ip")
            .args(["netns", what, &name])
            .status()
            .unwrap()
            .success()
    };
    assert!(ip("add"));
    let attached = try_attach(&name, "eth0", 2, &["10.7.0.1/24"]);
    assert!(ip("del"));
    let attached = attached.unwrap();
    let mut buf = vec![0; RECV_BUF_LEN];
    let queue = &attached.queues[1];
    eventually("the namespace is gone", || {
        matches!(queue.send(&[IoSlice::new(&[0; 72])]), Err(SendError::Down))
    });
    eventually("reading fails", || queue.recv(&mut buf).is_err());
    assert!(attached.change(Some(MAC), None).is_err());
}
