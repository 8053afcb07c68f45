//! A NIC as its users run it: the commands of the README, changes under traffic, machines that lack
//! something. All through the two programs.

use chanio_emu::frontend::{Client, ClientOptions};
use chanio_testbed::emulator::{Emulator, emulator_command};
use chanio_testbed::hugepages::Hugepages;
use chanio_testbed::netns::{Netns, ip_counters, isolate};
use chanio_testbed::process::{program, run, wait_for};
use chanio_testbed::testpmd::Testpmd;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

fn ip(words: &str) -> String {
    run(Command::new("ip").args(words.split_whitespace()))
}

/// One netdev as `ip -j` shows it.
fn link(name: &str) -> Value {
    let list: Value = serde_json::from_str(&ip(&format!("-j link show {name}"))).unwrap();
    list[0].clone()
}

fn has_carrier(netdev: &Value) -> bool {
    let flags = netdev["flags"].as_array().unwrap();
    !flags.contains(&"NO-CARRIER".into())
}

#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let pods = [Netns::new("pod1"), Netns::new("pod2")];
    let emu = Emulator::start(dir.path(), "--queues 10000 --workers 1");
    assert!(emu.ready.contains("representors=tap"), "{}", emu.ready);
    emu.chanio("eswitch set --mode switchdev");
    for n in [1, 2] {
        let where_to = format!("--attach tap:pod{n}:eth0 --address 10.9.0.{n}/24");
        let made = emu.json(&format!("channel add web{n} {where_to}"));
        assert_eq!(made["representor"], format!("c0pf0sf{n}"));
        let netdev = link(&format!("c0pf0sf{n}"));
        assert_eq!(netdev["ifalias"], format!("web{n}"));
        assert!(has_carrier(&netdev), "{netdev}");
    }
    ip("link add br0 type bridge");
    ip("link set br0 up");
    for n in [1, 2] {
        ip(&format!("link set c0pf0sf{n} up master br0"));
    }
    let ping = ["ping", "-c", "3", "-i", "0.2", "-W", "3", "10.9.0.2"];
    pods[0].run(&ping);
    // The kernel's counters of the representors, and the command line's. Between the two looks the
    // bridge may have sent something of its own.
    for n in [1, 2] {
        wait_for("counters to agree", PATIENCE, || {
            let stats = emu.json(&format!("stats web{n}"))[0].take();
            let own = |key: &str| stats["representor"][key].as_u64().unwrap();
            let shown = (
                own("rx_packets"),
                own("rx_bytes"),
                own("tx_packets"),
                own("tx_bytes"),
            );
            ip_counters(&format!("c0pf0sf{n}")) == shown && stats["rx_packets"] == shown.2
        });
    }

    // The same in the switch, and a policy.
    emu.chanio("flow add prio 10 in_port web1 action redirect web2");
    emu.chanio("flow add prio 10 in_port web2 action redirect web1");
    let policy = "prio 1 in_port web1 eth_type ipv4 ip_proto tcp dst_port 25 action drop";
    let id: u64 = emu
        .chanio(&format!("flow add {policy}"))
        .trim()
        .parse()
        .unwrap();
    let to_host = || ip_counters("c0pf0sf1").0;
    let before = to_host();
    pods[0].run(&ping);
    assert_eq!(to_host(), before, "nothing goes through the host");
    let connect = |port: u16| {
        let script = format!("timeout 2 bash -c 'echo > /dev/tcp/10.9.0.2/{port}'");
        let status = pods[0]
            .command(&["sh", "-c", &script])
            .output()
            .unwrap()
            .status;
        status.code()
    };
    assert_eq!(
        connect(26),
        Some(1),
        "nobody listens, and that is said at once"
    );
    assert_eq!(connect(25), Some(124), "nobody answers");
    let flows = emu.json("flow show");
    let rule = flows.as_array().unwrap().iter().find(|f| f["id"] == id);
    let dropped = rule.unwrap()["packets"].as_u64().unwrap();
    assert!(dropped > 0);
    let stats = emu.json("stats web1");
    assert_eq!(stats[0]["drops"]["rule_drop"], dropped);
    let drops = emu.chanio("stats --drops");
    assert!(
        drops.contains("rule_drop") && drops.contains(&dropped.to_string()),
        "{drops}"
    );

    // Both ends follow the channel.
    emu.chanio("channel set web1 --mtu 1400 --link down");
    let inside = || -> Value {
        let text = pods[0].run(&["ip", "-j", "link", "show", "eth0"]);
        serde_json::from_str::<Value>(&text).unwrap()[0].take()
    };
    for netdev in [link("c0pf0sf1"), inside()] {
        assert_eq!(netdev["mtu"], 1400);
        assert!(!has_carrier(&netdev), "{netdev}");
    }
    emu.chanio("channel set web1 --link up");
    assert!(has_carrier(&link("c0pf0sf1")) && has_carrier(&inside()));
    pods[0].run(&ping);

    // What cannot be done is refused as a whole.
    let (code, why) = emu.refused("channel add web1");
    assert!(code == 1 && why.contains("`web1` exists already"), "{why}");
    let (code, why) = emu.refused("channel add web3 --attach tap:nowhere");
    assert!(code == 1 && why.contains("nowhere"), "{why}");
    let (code, _) = emu.refused("channel add web3 --colour red");
    assert_eq!(code, 2);
    drop(pods);
    let (code, why) = emu.refused("channel set web1 --mtu 1300");
    assert_eq!(code, 1, "its netdev went with its namespace: {why}");
    assert_eq!(link("c0pf0sf1")["mtu"], 1400);
    assert_eq!(emu.json("channel show web1")[0]["mtu"], 1400);

    let script = format!(
        "source <({} completions bash) && complete -p chanio",
        program("chanio").display()
    );
    run(Command::new("bash").args(["-c", &script]));

    emu.chanio("channel add vm --queues 2");
    emu.chanio("channel del web1");
    assert!(!Path::new("/sys/class/net/c0pf0sf1").exists());
    emu.stop();
    let left = std::fs::read_dir("/sys/class/net").unwrap().flatten();
    let mut left = left.map(|entry| entry.file_name().into_string().unwrap());
    assert!(left.all(|name| !name.starts_with("c0p")));
}

#[test]
fn changes_do_not_disturb_the_traffic_of_others() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let pages = Hugepages::reserve(dir.path(), 256);
    let file = dir.path().join("nic.toml");
    let configure = |round: u32| {
        let mut text = String::from(
            "[nic]\nqueues = 1000\nworkers = 1\n[eswitch]\nmode = \"switchdev\"\n\
             [[channel]]\nname = \"steady1\"\n[[channel]]\nname = \"steady2\"\n\
             [[flow]]\nrule = \"in_port steady1 action redirect steady2\"\n\
             [[flow]]\nrule = \"in_port steady2 action redirect steady1\"\n",
        );
        let other = format!(
            "[[channel]]\nname = \"round{round}\"\nqueues = 2\n\
             [[channel]]\nname = \"other\"\nmtu = {}\nvlan = {}\n\
             [[flow]]\nrule = \"prio 5 in_port other eth_type ipv4 ip_proto udp dst_port {} action drop\"\n",
            1500 + round,
            1 + round,
            1 + round
        );
        text.push_str(&other);
        std::fs::write(&file, text).unwrap();
    };
    configure(0);
    let emu = Emulator::start(dir.path(), &format!("--config {}", file.display()));
    let sockets = [emu.socket("steady1"), emu.socket("steady2")];
    let sockets: Vec<&Path> = sockets.iter().map(|s| s.as_path()).collect();
    let mut steady = Testpmd::start("steady", dir.path(), &pages, &sockets, "");
    steady.command("set fwd io");
    steady.command("start tx_first 1");

    let rules = dir.path().join("rules");
    let text = (0..200).map(|n| format!("prio 7 in_port pod{} action drop\n", n % 50 + 1));
    std::fs::write(&rules, text.collect::<String>()).unwrap();
    for round in 1..=10 {
        configure(round);
        emu.reload();
        wait_for("the new file to be followed", PATIENCE, || {
            emu.socket(&format!("round{round}")).exists()
        });
        assert!(!emu.socket(&format!("round{}", round - 1)).exists());
        emu.chanio("channel add pod --count 50");
        let clients: Vec<_> = (1..=10)
            .map(|n| {
                Client::connect(&emu.socket(&format!("pod{n}")), ClientOptions::default()).unwrap()
            })
            .collect();
        emu.chanio(&format!("flow add --file {}", rules.display()));
        emu.chanio("channel set pod1 --vlan 7 --link down");
        drop(clients);
        let names: Vec<_> = (1..=50).map(|n| format!("pod{n}")).collect();
        emu.chanio(&format!("channel del {}", names.join(" ")));
        // Rules that name a channel go with it.
        assert_eq!(emu.json("flow show").as_array().unwrap().len(), 3);
    }
    steady.command("stop");
    steady.drain();
    let client = steady.stats();
    println!("through ten rounds of changes: {client:?}");
    assert!(client[0].tx > 10_000, "{client:?}");
    for (i, name) in ["steady1", "steady2"].iter().enumerate() {
        assert_eq!(client[i].tx, client[1 - i].rx, "{client:?}");
        let stats = emu.json(&format!("stats {name}"))[0].take();
        assert_eq!(stats["tx_packets"], client[i].tx);
        assert_eq!(stats["rx_packets"], client[i].rx);
        assert_eq!(stats["drops"], serde_json::json!({}));
    }
    emu.stop();
}

#[test]
fn what_the_machine_lacks_is_said_and_the_rest_works() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let _pod = Netns::new("pod");
    let without = |case: &str, wrapper: &str, why: &str| {
        println!("without {case}");
        let dir = tempfile::tempdir().unwrap();
        let emu = Emulator::start_under(wrapper, dir.path(), "--queues 10 --workers 1");
        assert!(emu.ready.contains("representors=none"), "{}", emu.ready);
        let shown = emu.chanio("nic show");
        assert!(shown.contains(why), "{shown}");
        let made = emu.json("channel add web1");
        assert_eq!(made["representor"], Value::Null);
        Client::connect(&emu.socket("web1"), ClientOptions::default()).unwrap();
        let (code, said) = emu.refused("channel add web2 --attach tap:pod");
        assert!(code == 1 && said.contains(why), "{said}");
        emu.stop();
        let options = "--queues 10 --representors tap";
        let out = emulator_command(wrapper, &dir.path().join("run"), options)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains(why), "{said}");
    };
    let no_net_admin = "setpriv --bounding-set=-net_admin --inh-caps=-net_admin";
    without("CAP_NET_ADMIN", no_net_admin, "CAP_NET_ADMIN is missing");
    run(Command::new("mount").args(["-t", "tmpfs", "none", "/dev/net"]));
    without(
        "/dev/net/tun",
        "",
        "/dev/net/tun: the device node is missing",
    );
}

#[test]
fn the_demo_needs_no_privileges() {
    if !chanio_testbed::can_run() {
        return;
    }
    let mut demo = Command::new("setpriv");
    demo.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    demo.arg(program("chanio"))
        .args(["demo", "--queues", "1000", "--seconds", "1"]);
    let text = run(&mut demo);
    assert!(text.contains("counters agree"), "{text}");
}
