//! The command line against a running emulator.

use chanio_emu::control::{ControlServer, RunDir};
use chanio_emu::frontend::{Client, ClientOptions};
use chanio_emu::nic::Nic;
use chanio_emu::nic::spec::*;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output};
use std::sync::Arc;

struct Bed {
    dir: tempfile::TempDir,
    nic: Arc<Nic>,
    server: Option<ControlServer>,
    _claim: RunDir,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let claim = RunDir::claim(dir.path()).unwrap();
        let nic = Nic::start(NicConfig {
            queues: 100,
            run_dir: dir.path().to_owned(),
            workers: 1,
            representors: RepresentorMode::Off,
            uplink: UplinkSpec::None,
            nic_index: 0,
            ageing_secs: 300,
            profile: &chanio_model::profile::GENERIC,
            offload: false,
        })
        .unwrap();
        let server = ControlServer::start(nic.clone(), &claim).unwrap();
        Self {
            dir,
            nic,
            server: Some(server),
            _claim: claim,
        }
    }

    fn run(&self, args: &[&str]) -> Output {
        let device = format!("emu:{}", self.dir.path().display());
        chanio()
            .args(["--device", &device])
            .args(args)
            .output()
            .unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let out = self.run(&[&["--json"], args].concat());
        assert!(
            out.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        serde_json::from_slice(&out.stdout).unwrap()
    }

    fn text(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(
            out.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    }

    /// Exit code, and the one line that says why.
    fn refused(&self, args: &[&str]) -> (i32, String) {
        let out = self.run(args);
        assert!(out.stdout.is_empty(), "{args:?} printed something");
        (
            out.status.code().unwrap(),
            String::from_utf8(out.stderr).unwrap(),
        )
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
        self.nic.shutdown();
    }
}

fn chanio() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chanio"));
    command
        .env_remove("CHANIO_DEVICE")
        .env_remove("XDG_RUNTIME_DIR");
    command
}

#[test]
fn channels_rules_and_addresses_come_and_go() {
    let bed = Bed::new();
    let made = bed.json(&[
        "channel",
        "add",
        "web1",
        "--queues",
        "4",
        "--mac",
        "02:00:00:00:00:01",
    ]);
    assert_eq!(made["name"], "web1");
    assert_eq!(made["queues"], 4);
    assert_eq!(made["mac"], "02:00:00:00:00:01");
    assert_eq!(made["representor"], Value::Null);
    assert!(
        made["socket"]
            .as_str()
            .unwrap()
            .ends_with("/channel/web1.sock")
    );
    assert_eq!(made["state"], "disconnected");
    let many = bed.json(&["channel", "add", "pod", "--count", "20"]);
    assert_eq!(many.as_array().unwrap().len(), 20);
    let table = bed.text(&["channel", "show", "pod7", "web1"]);
    assert!(table.contains("pod7") && !table.contains("pod8"), "{table}");
    let shown = bed.json(&["channel", "show"]);
    assert_eq!(shown.as_array().unwrap().len(), 21);
    let nic = bed.json(&["nic", "show"]);
    assert_eq!(
        (&nic[0]["queues_free"], &nic[0]["channels"]),
        (&76.into(), &21.into())
    );
    assert_eq!(nic[0]["capabilities"]["representors"], false);

    let set = bed.json(&[
        "channel",
        "set",
        "pod7",
        "--vlan",
        "9",
        "--link",
        "down",
        "--spoofchk",
        "on",
    ]);
    assert_eq!(
        (&set["vlan"], &set["link"], &set["spoofchk"]),
        (&9.into(), &"down".into(), &true.into())
    );

    bed.text(&["fdb", "add", "02:00:00:00:00:99", "web1", "--vlan", "7"]);
    let fdb = bed.json(&["fdb", "show"]);
    let entry = fdb
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["vlan"] == 7)
        .unwrap();
    assert_eq!(
        (&entry["port"], &entry["static"]),
        (&"web1".into(), &true.into())
    );
    bed.text(&["fdb", "del", "02:00:00:00:00:99", "--vlan", "7"]);

    assert_eq!(
        bed.json(&["eswitch", "set", "--mode", "switchdev"])["mode"],
        "switchdev"
    );
    let rule = [
        "flow",
        "add",
        "prio",
        "10",
        "in_port",
        "web1",
        "dst_ip",
        "10.0.0.0/8",
        "action",
        "mirror",
        "pod1",
        "action",
        "redirect",
        "pod2",
    ];
    assert_eq!(bed.text(&rule), "1\n");
    let file = bed.dir.path().join("rules");
    std::fs::write(
        &file,
        "# two\nin_port pod1 action drop\n\nprio 3 in_port uplink action pass # b\n",
    )
    .unwrap();
    let ids = bed.json(&["flow", "add", "--file", file.to_str().unwrap()]);
    assert_eq!(ids["ids"], serde_json::json!([2, 3]));
    let flows = bed.json(&["flow", "show"]);
    assert_eq!(flows[0]["priority"], 10);
    assert_eq!(flows[0]["match"]["in_port"], "web1");
    assert_eq!(flows[0]["match"]["dst_ip"], "10.0.0.0/8");
    assert_eq!(
        flows[0]["actions"],
        serde_json::json!(["mirror pod1", "redirect pod2"])
    );
    assert_eq!(
        (&flows[0]["packets"], &flows[0]["idle_ns"]),
        (&0.into(), &Value::Null)
    );
    bed.text(&["flow", "del", "2"]);
    // Rules that name a channel go with it.
    bed.text(&["channel", "del", "pod2"]);
    assert_eq!(bed.json(&["flow", "show"]).as_array().unwrap().len(), 1);
    bed.text(&["flow", "flush"]);

    let stats = bed.json(&["stats", "web1"]);
    assert_eq!(stats.as_array().unwrap().len(), 1);
    assert_eq!(
        (&stats[0]["name"], &stats[0]["tx_packets"]),
        (&"web1".into(), &0.into())
    );
    assert_eq!(stats[0]["drops"], serde_json::json!({}));
    assert_eq!(bed.json(&["representor", "show"]), serde_json::json!([]));
    bed.text(&["channel", "del", "--all"]);
    assert_eq!(bed.json(&["channel", "show"]), serde_json::json!([]));
}

#[test]
fn refusals_name_the_field_and_change_nothing() {
    let bed = Bed::new();
    bed.text(&["channel", "add", "web1"]);
    bed.text(&["eswitch", "set", "--mode", "switchdev"]);
    let cases: [(&[&str], i32, &[&str]); 13] = [
        (
            &["channel", "add", "web1"],
            1,
            &["name", "web1", "exists already"],
        ),
        (
            &["channel", "add", "web2", "--mac", "01:00:00:00:00:01"],
            1,
            &["mac", "unicast"],
        ),
        (
            &["channel", "add", "web2", "--mac", "nonsense"],
            1,
            &["mac", "nonsense"],
        ),
        (
            &["channel", "add", "web2", "--queues", "200"],
            1,
            &["queues", "200"],
        ),
        (
            &["channel", "add", "web2", "--queues", "100"],
            1,
            &["queues", "99 of 100 are free"],
        ),
        (
            &["channel", "add", "w", "--count", "1000"],
            1,
            &["queues", "1000"],
        ),
        (&["channel", "add", "we/b"], 1, &["name", "we/b"]),
        (
            &["channel", "add", "web2", "--vlan", "4095"],
            1,
            &["vlan", "4094"],
        ),
        (
            &["channel", "add", "web2", "--attach", "pigeon"],
            2,
            &["attach", "pigeon", "tap:NETNS"],
        ),
        (&["channel", "show", "nobody"], 1, &["nobody"]),
        (
            &["flow", "add", "in_port", "nobody", "action", "drop"],
            1,
            &["in_port", "nobody"],
        ),
        (
            &["flow", "add", "dst_port", "80", "action", "drop"],
            1,
            &["dst_port", "ip_proto"],
        ),
        (&["flow", "del", "77"], 1, &["77"]),
    ];
    for (args, code, says) in cases {
        let (got, text) = bed.refused(args);
        assert_eq!(got, code, "{args:?}: {text}");
        for word in says {
            assert!(
                text.contains(word),
                "{args:?}: `{text}` does not say `{word}`"
            );
        }
    }
    assert_eq!(bed.json(&["channel", "show"]).as_array().unwrap().len(), 1);
    assert_eq!(bed.json(&["flow", "show"]), serde_json::json!([]));
}

#[test]
fn devices_that_are_not_there_are_said_to_be_so() {
    let run = |device: &str| {
        let out = chanio()
            .args(["--device", device, "nic", "show"])
            .output()
            .unwrap();
        (
            out.status.code().unwrap(),
            String::from_utf8(out.stderr).unwrap(),
        )
    };
    for (device, code, says) in [
        ("emu:/nowhere", 1, "no emulator runs there"),
        ("pci/0000:fe:1f.7", 1, "no such device"),
        ("veth:lo", 1, "`lo` is not a bridge"),
        ("usb:1", 2, "`usb:1` is none of"),
    ] {
        let (got, text) = run(device);
        assert_eq!(got, code, "{device}: {text}");
        assert!(text.contains(says), "{device}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn completions_for_three_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let out = chanio().args(["completions", shell]).output().unwrap();
        assert!(out.status.success());
        assert!(
            String::from_utf8(out.stdout).unwrap().contains("eswitch"),
            "{shell}"
        );
    }
}

#[test]
fn the_demo_agrees_with_itself() {
    let out = chanio()
        .args(["demo", "--queues", "300", "--seconds", "1"])
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(
        out.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    for word in [
        "300 channels created",
        "dropped: rule_drop",
        "dropped: spoofed_mac",
        "counters agree",
    ] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn rss_is_set_in_parts_and_shown() {
    let bed = Bed::new();
    let plain = bed.json(&["channel", "add", "web1", "--queues", "4"]);
    assert_eq!(plain["rss"], Value::Null);
    let set = |args: &[&str]| bed.json(&[&["channel", "set", "web1"], args].concat());
    let rss = set(&["--rss-table", "0,1,2,3", "--rss-hash", "tcp4,udp4"])["rss"].clone();
    assert_eq!(rss["table"], serde_json::json!([0, 1, 2, 3]));
    assert_eq!(rss["hash_types"], serde_json::json!(["tcp4", "udp4"]));
    let rss = set(&["--rss-key", "6d:5a", "--rss-unclassified", "3"])["rss"].clone();
    assert!(rss["key"].as_str().unwrap().starts_with("6d:5a:00:00"));
    assert_eq!(rss["table"], serde_json::json!([0, 1, 2, 3]));
    assert_eq!(rss["unclassified"], 3);
    let (code, why) = bed.refused(&["channel", "set", "web1", "--rss-table", "0,1,2"]);
    assert_eq!(code, 1);
    assert!(
        why.contains("table: 3 entries, must be a power of two"),
        "{why}"
    );
    let (code, why) = bed.refused(&["channel", "set", "web1", "--rss-key", "6d:5"]);
    assert_eq!(code, 2, "{why}");
    assert_eq!(set(&["--rss", "off"])["rss"], Value::Null);
    let made = bed.json(&["channel", "add", "web2", "--queues", "2", "--rss", "on"]);
    let table = made["rss"]["table"].as_array().unwrap();
    assert_eq!((table.len(), &table[1]), (128, &Value::from(1)));
}

#[test]
fn rates_in_devlinks_words() {
    let bed = Bed::new();
    bed.json(&["channel", "add", "web1"]);
    let plain = bed.json(&["rate", "show", "web1"]);
    assert_eq!(plain[0]["type"], "leaf");
    assert_eq!(
        (&plain[0]["tx_max"], &plain[0]["tx_weight"]),
        (&0.into(), &1.into())
    );
    let node = [
        "rate", "add", "gold", "tx_max", "100mbit", "tx_share", "10mbit",
    ];
    let node = bed.json(&node);
    assert_eq!(
        (&node["type"], &node["tx_max"]),
        (&"node".into(), &12_500_000.into())
    );
    let set = |words: &str| {
        let words: Vec<_> = words.split(' ').collect();
        bed.json(&[&["rate", "set"], &words[..]].concat())
    };
    let leaf = set("web1 parent gold tx_weight 3 tx_share 5mbit");
    assert_eq!(
        (&leaf["parent"], &leaf["tx_share"]),
        (&"gold".into(), &625_000.into())
    );
    let shown = bed.text(&["rate", "show"]);
    assert!(
        shown.contains("100mbit") && shown.contains("5mbit"),
        "{shown}"
    );

    for (words, code, why) in [
        (
            "set web1 tx_share 101mbit",
            1,
            "would be guaranteed 101mbit, its tx_max is 100mbit",
        ),
        ("set web1 parent lead", 1, "parent: `lead` is not a node"),
        ("set nobody tx_max 1mbit", 1, "no rate object `nobody`"),
        ("add web1", 1, "name: `web1` is taken"),
        ("del gold", 1, "node `gold` is the parent of `web1`"),
        ("set web1 tx_max fast", 2, "tx_max: `fast` is not a rate"),
        (
            "set web1 tx_weight 1001",
            1,
            "tx_weight: 1001 is not 1 to 1000",
        ),
    ] {
        let words: Vec<_> = words.split(' ').collect();
        let (got, said) = bed.refused(&[&["rate"], &words[..]].concat());
        assert!(got == code && said.contains(why), "{words:?}: {got} {said}");
    }
    let (code, why) = bed.refused(&["channel", "add", "gold"]);
    assert!(code == 1 && why.contains("name: `gold` is taken"), "{why}");
    assert_eq!(set("web1 noparent")["parent"], Value::Null);
    assert_eq!(bed.json(&["rate", "del", "gold"])["deleted"], 1);
    bed.json(&["channel", "del", "web1"]);
    assert_eq!(bed.json(&["rate", "show"]), serde_json::json!([]));
}

#[test]
fn queues_are_counted_in_ethtools_names() {
    let bed = Bed::new();
    bed.json(&["channel", "add", "web1", "--queues", "2"]);
    let plain = bed.json(&["stats", "web1"]);
    assert_eq!(plain[0].get("queues"), None);
    let stats = bed.json(&["stats", "web1", "--queues"]);
    let queues = stats[0]["queues"].as_object().unwrap();
    assert_eq!(queues.len(), 8);
    assert_eq!(queues["tx_queue_1_bytes"], 0);
    assert!(
        bed.text(&["stats", "--queues"])
            .contains("rx_queue_0_packets")
    );
}

#[test]
fn channels_take_more_addresses_vlans_and_a_block() {
    let bed = Bed::new();
    bed.json(&[
        "channel",
        "add",
        "web",
        "--add-mac",
        "02:00:00:00:00:11",
        "--add-mac",
        "01:00:5e:00:00:01",
        "--promisc",
        "off",
        "--vlan-filter",
        "5,7-9",
        "--block",
        "22",
    ]);
    let shown = bed.json(&["channel", "show", "web"])[0].clone();
    assert_eq!(
        shown["more_macs"],
        serde_json::json!(["02:00:00:00:00:11", "01:00:5e:00:00:01"])
    );
    assert_eq!(
        (&shown["block"], &shown["vlan_filter"]),
        (&22.into(), &"5,7-9".into())
    );
    assert_eq!(
        (&shown["promisc"], &shown["allmulti"]),
        (&false.into(), &false.into())
    );
    let known = |mac: &str| bed.text(&["fdb", "show"]).contains(mac);
    assert!(known("02:00:00:00:00:11") && !known("01:00:5e"));
    for (args, why) in [
        (
            &["channel", "set", "web", "--del-mac", "02:00:00:00:00:12"][..],
            "no added address",
        ),
        (
            &["channel", "set", "web", "--add-mac", "02:00:00:00:00:11"],
            "has 02:00:00:00:00:11 already",
        ),
        (
            &["channel", "add", "other", "--mac", "02:00:00:00:00:11"],
            "belongs to channel `web`",
        ),
        (
            &["channel", "add", "other", "--add-mac", "02:00:00:00:00:11"],
            "belongs to channel `web`",
        ),
        (&["fdb", "del", "02:00:00:00:00:11"], "own address"),
    ] {
        let (code, said) = bed.refused(args);
        assert!(code == 1 && said.contains(why), "{args:?}: {code} {said}");
    }
    let (code, said) = bed.refused(&["channel", "set", "web", "--vlan-filter", "5-4095"]);
    assert!(code == 2 && said.contains("1 to 4094"), "{said}");
    bed.json(&[
        "channel",
        "set",
        "web",
        "--del-mac",
        "02:00:00:00:00:11",
        "--vlan-filter",
        "off",
        "--block",
        "0",
        "--allmulti",
        "on",
    ]);
    let shown = bed.json(&["channel", "show", "web"])[0].clone();
    assert_eq!(
        (&shown["block"], &shown["vlan_filter"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(shown["allmulti"], true);
    assert!(!known("02:00:00:00:00:11"));
}

#[test]
fn tunnels_have_the_ports_they_are_given() {
    let bed = Bed::new();
    let ports = || bed.json(&["eswitch", "show"])[0]["tunnel_ports"].clone();
    assert_eq!(ports(), "vxlan:4789,vxlan-gpe:4790,geneve:6081");
    bed.json(&["eswitch", "set", "--tunnel-ports", "vxlan:8472,vxlan:4789"]);
    assert_eq!(ports(), "vxlan:4789,vxlan:8472");
    let (code, said) = bed.refused(&["eswitch", "set", "--tunnel-ports", "gre:47"]);
    assert!(
        code == 2 && said.contains("`gre:47` is not a tunnel's port"),
        "{said}"
    );
    bed.json(&["eswitch", "set", "--tunnel-ports", "none"]);
    assert_eq!(ports(), "none");
}

#[test]
fn what_is_watched_comes_again_a_document_a_line() {
    let bed = Bed::new();
    bed.json(&["channel", "add", "web"]);
    let device = format!("emu:{}", bed.dir.path().display());
    let mut child = chanio()
        .args(["--device", &device, "--json", "stats", "--watch=0.1"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines.take(3) {
        let stats: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(
            stats.as_array().unwrap().len(),
            2,
            "the channel and the uplink"
        );
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for noun in ["flow", "channel", "fdb", "rate"] {
        let (code, said) = bed.refused(&[noun, "show", "--watch=0"]);
        assert!(code == 2 && said.contains("0.1 to 3600"), "{noun}: {said}");
    }
}

#[test]
fn connections_are_listed_as_conntrack_does_and_forgotten() {
    let bed = Bed::new();
    bed.json(&["eswitch", "set", "--mode", "switchdev"]);
    bed.json(&["channel", "add", "web"]);
    let rule = "in_port web eth_type ipv4 ip_proto udp action ct commit zone 5 mark 7 action drop";
    bed.json(&[&["flow", "add"], &rule.split(' ').collect::<Vec<_>>()[..]].concat());
    let info = bed.nic.channel("web").unwrap();
    let socket = info.socket.unwrap();
    let mut client = Client::connect(&socket, ClientOptions::default()).unwrap();
    let mut frame = vec![
        2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64,
    ];
    frame.extend([17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 9, 0, 8, 0, 0]);
    // The header's checksum.
    let words = frame[14..34]
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    assert!(client.send(&frame).unwrap());
    client.flush().unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while bed.json(&["ct", "show"]).as_array().unwrap().is_empty() {
        assert!(std::time::Instant::now() < until, "{:?}", bed.nic.stats());
    }
    let line = bed.text(&["ct", "show", "--zone", "5", "--proto", "udp"]);
    assert!(line.starts_with("udp      17 "), "{line}");
    assert!(
        line.contains(
            " src=10.0.0.1 dst=10.0.0.2 sport=7 dport=9 packets=1 bytes=28 [UNREPLIED] src=10.0.0.2"
        ) && line.trim_end().ends_with("mark=7 zone=5"),
        "{line}"
    );
    assert_eq!(bed.text(&["ct", "show", "--proto", "tcp"]), "");
    assert_eq!(bed.json(&["ct", "flush", "--zone", "6"])["deleted"], 0);
    assert_eq!(bed.json(&["ct", "flush", "--zone", "5"])["deleted"], 1);
    assert_eq!(bed.json(&["ct", "show"]), serde_json::json!([]));
}
