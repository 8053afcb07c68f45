//! Configurations as text, and from one to another.

use super::fake::{Fake, Seen};
use super::*;
use crate::nic::NicApi;
use crate::nic::spec::{Attach, RepresentorMode, UplinkSpec};
use chanio_model::flow::{Action, RuleSpec};
use chanio_model::{Vlan, VportId};
use proptest::prelude::*;
use std::fmt::Write;
use std::path::Path;

fn read(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("nic.toml"), &Overrides::default())
}

fn why(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

const FULL: &str = r#"
[nic]
queues = 100
workers = 2
representors = "off"
uplink = "none"
nic_index = 3
ageing_secs = 60
run_dir = "/run/other"

[eswitch]
mode = "switchdev"
vepa = false

[[channel]]
name = "web1"
queues = 4
mac = "02:00:00:00:00:01"
vlan = 7
mtu = 9000
spoofchk = true
trust = true
link = "down"

[[channel]]
name = "web2"
attach = "tap:blue:eth1"
addresses = ["10.0.0.2/24", "fd00::2/64"]

[[flow]]
rule = "in_port web1 prio 10 action redirect web2"

[[fdb]]
vid = 7
mac = "02:00:00:00:00:aa"
port = "web1"
"#;

#[test]
fn what_channels_receive_and_tunnels_ports_are_read_and_followed() {
    let more = "block = 22\nmore_macs = [\"02:00:00:00:00:11\", \"01:00:5e:00:00:01\"]\n\
                promisc = false\nallmulti = true\nvlan_filter = \"5,7-9\"\n";
    let full = FULL.replace("link = \"down\"\n", more).replace(
        "vepa = false",
        "tunnel_ports = \"vxlan:8472\"\nuplink_block = 23",
    );
    let config = read(&full).unwrap();
    assert_eq!(config.tunnel_ports.to_string(), "vxlan:8472");
    assert_eq!(config.uplink_block, 23);
    let web1 = &config.channels[&"web1".parse().unwrap()];
    let receive = &web1.receive;
    assert!(web1.block == 22 && !receive.promisc && receive.allmulti);
    assert_eq!(receive.addresses.len(), 2);
    assert_eq!(receive.vlans.as_ref().unwrap().to_string(), "5,7-9");
    let plan = plan(&read(FULL).unwrap(), &config).unwrap();
    let (_, change) = &plan.set_channels[0];
    assert_eq!((change.block, change.receive.add.len()), (Some(22), 2));
    assert!(plan.eswitch.tunnel_ports.is_some());
    assert_eq!(plan.eswitch.uplink_block, Some(23));
    for (from, to, why) in [
        (
            "block = 22",
            "block = 65536",
            "channel.block: 65536 is not allowed, must be 0 to 65535",
        ),
        ("5,7-9", "5,9-7", "channel.vlan_filter: `9-7` is not a VLAN"),
        (
            "01:00:5e:00:00:01",
            "02:00:00:00:00:01",
            "add_mac: the channel has 02:00:00:00:00:01",
        ),
        (
            "vxlan:8472",
            "gre:1",
            "eswitch.tunnel_ports: `gre:1` is not a tunnel's port",
        ),
        (
            "uplink_block = 23",
            "uplink_block = 65536",
            "eswitch.uplink_block: 65536 is not allowed, must be 0 to 65535",
        ),
    ] {
        let error = read(&full.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn every_key_is_read() {
    let config = read(FULL).unwrap();
    let nic = &config.nic;
    assert_eq!(
        (nic.queues, nic.workers, nic.nic_index, nic.ageing_secs),
        (100, 2, 3, 60)
    );
    assert_eq!(nic.representors, RepresentorMode::Off);
    assert_eq!(
        (nic.uplink.clone(), nic.run_dir.as_path()),
        (UplinkSpec::None, Path::new("/run/other"))
    );
    assert_eq!((config.mode, config.vepa), (Mode::Switchdev, false));
    let web1 = &config.channels[&"web1".parse().unwrap()];
    assert_eq!((web1.queues, web1.mtu, web1.vlan), (4, 9000, Vlan::new(7)));
    assert!(web1.spoofchk && web1.trust && !web1.link_up);
    assert_eq!(web1.attach, Attach::VhostUser);
    let web2 = &config.channels[&"web2".parse().unwrap()];
    assert_eq!(
        (web2.queues, web2.mtu, web2.mac, web2.link_up),
        (1, 1500, None, true)
    );
    let Attach::Tap {
        netns,
        ifname,
        addresses,
    } = &web2.attach
    else {
        panic!("{web2:?}")
    };
    assert_eq!(
        (netns.as_str(), ifname.as_deref(), addresses.len()),
        ("blue", Some("eth1"), 2)
    );
    assert_eq!(
        config.flows[0].text,
        "prio 10 in_port web1 action redirect web2"
    );
    assert_eq!(config.flows[0].ports.len(), 2);
    assert_eq!(
        config.fdb[&(7, "02:00:00:00:00:aa".parse().unwrap())],
        "web1"
    );
}

#[test]
fn the_command_line_wins_and_generates_channels() {
    let over = Overrides {
        queues: Some(7),
        run_dir: Some("/run/mine".into()),
        channels: 3,
        queues_per_channel: Some(2),
        ..Overrides::default()
    };
    let config = Config::parse(FULL, Path::new("nic.toml"), &over).unwrap();
    assert_eq!((config.nic.queues, config.nic.workers), (7, 2));
    assert_eq!(config.nic.run_dir, Path::new("/run/mine"));
    assert_eq!(config.channels.len(), 5);
    assert_eq!(config.channels[&"ch3".parse().unwrap()].queues, 2);

    let bad = Overrides {
        queues: Some(0),
        ..over
    };
    let bad = Config::parse(FULL, Path::new("nic.toml"), &bad).unwrap_err();
    assert_eq!(
        bad.to_string(),
        "command line: nic.queues: 0 is not allowed, must be 1 to 1000000"
    );
    assert_eq!(why(""), "queues: missing; give --queues N or [nic] queues");
}

#[test]
fn errors_name_file_line_field_and_what_is_allowed() {
    // What to replace in the full file, the line it is on, and what is said.
    let cases = [
        (
            "queues = 100",
            "queues = -1",
            3,
            "nic.queues: -1 is not allowed, must be 1 to 1000000",
        ),
        (
            "queues = 100",
            "queues = \"x\"",
            3,
            "nic.queues: invalid type: string \"x\"",
        ),
        (
            "queues = 100",
            "queue = 100",
            3,
            "unknown field `queue`, expected one of `queues`",
        ),
        (
            "queues = 100",
            "queues = ?",
            3,
            "string values must be quoted",
        ),
        (
            "workers = 2",
            "workers = 65",
            4,
            "nic.workers: 65 is not allowed, must be 1 to 64",
        ),
        (
            "\"off\"",
            "\"on\"",
            5,
            "nic.representors: `on` is none of auto, tap, off",
        ),
        ("\"none\"", "\"wifi\"", 6, "nic.uplink: `wifi`"),
        (
            "= 60",
            "= 9",
            8,
            "nic.ageing_secs: 9 is not allowed, must be 10 to 1000000",
        ),
        (
            "\"switchdev\"",
            "\"both\"",
            12,
            "eswitch.mode: `both` is not allowed, must be legacy or switchdev",
        ),
        (
            "vepa = false",
            "vepa = true",
            13,
            "eswitch.vepa: true is not allowed",
        ),
        (
            "name = \"web1\"",
            "name = \"../x\"",
            16,
            "channel.name: `../x`",
        ),
        (
            "name = \"web1\"",
            "name = \"uplink\"",
            16,
            "channel.name: `uplink`",
        ),
        (
            "queues = 4",
            "queues = 257",
            17,
            "channel.queues: 257 is not allowed, must be 1 to 256",
        ),
        (
            ":01\"\nvlan",
            "\"\nvlan",
            18,
            "channel.mac: `02:00:00:00:00` is not allowed",
        ),
        (
            "vlan = 7",
            "vlan = 4095",
            19,
            "channel.vlan: 4095 is not allowed, must be 0 to 4094",
        ),
        (
            "mtu = 9000",
            "mtu = 65536",
            20,
            "channel.mtu: 65536 is not allowed, must be 68 to 9500",
        ),
        (
            "\"down\"",
            "\"off\"",
            23,
            "channel.link: `off` is not allowed, must be up or down",
        ),
        (
            "\"web2\"\na",
            "\"web1\"\na",
            26,
            "channel.name: a channel `web1` exists already",
        ),
        (
            "tap:blue:eth1",
            "tap:../x",
            27,
            "channel.attach: netns `../x`",
        ),
        (
            "tap:blue:eth1",
            "vhost-user",
            28,
            "channel.addresses: only `tap:NETNS[:IF]`",
        ),
        (
            "10.0.0.2/24",
            "10.0.0.2/33",
            28,
            "channel.addresses: `10.0.0.2/33` is not ADDRESS/PREFIX",
        ),
        (
            "in_port web1",
            "in_port web3",
            31,
            "flow.rule: in_port: no port is called `web3`",
        ),
        (
            "in_port web1",
            "in_port vport:1",
            31,
            "flow.rule: `vport:1` may be another channel's",
        ),
        (
            "prio 10",
            "prio 0",
            31,
            "flow.rule: prio: 0 is not a priority",
        ),
        (
            "mode = \"switchdev\"",
            "",
            31,
            "flow.rule: flow rules need eswitch.mode",
        ),
        (
            "vid = 7",
            "vid = 4095",
            34,
            "fdb.vid: 4095 is not allowed, must be 0 to 4094",
        ),
        (
            ":aa",
            ":01",
            35,
            "fdb.mac: 02:00:00:00:00:01 is channel `web1`'s own address",
        ),
        (
            "02:00:00:00:00:aa",
            "01:00:00:00:00:aa",
            35,
            "fdb.mac: 01:00:00:00:00:aa is not allowed",
        ),
        (
            "port = \"web1\"",
            "port = \"web3\"",
            36,
            "fdb.port: `web3` is not allowed",
        ),
    ];
    for (from, to, line, text) in cases {
        assert!(FULL.contains(from), "{from}");
        let error = why(&FULL.replacen(from, to, 1));
        assert!(
            error.starts_with(&format!("nic.toml:{line}: ")),
            "{to}: {error}"
        );
        assert!(error.contains(text), "{to}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let twice = |part: &str| why(&format!("{FULL}{}", &FULL[FULL.find(part).unwrap()..]));
    assert!(twice("[[fdb]]").contains("is there twice in VLAN 7"));
    assert!(twice("[[flow]]").contains("action redirect web2` is there twice"));
}

#[test]
fn what_is_fixed_stays() {
    let now = read(FULL).unwrap();
    for (from, to) in [
        ("queues = 100", "queues = 101"),
        ("workers = 2", "workers = 3"),
        ("\"off\"", "\"auto\""),
        ("nic_index = 3", "nic_index = 4"),
        ("/run/other", "/run/third"),
    ] {
        let new = read(&FULL.replacen(from, to, 1)).unwrap();
        let error = plan(&now, &new).unwrap_err().to_string();
        assert!(error.contains("cannot change while it runs"), "{error}");
    }
    let slower = read(&FULL.replacen("ageing_secs = 60", "ageing_secs = 70", 1)).unwrap();
    assert_eq!(plan(&now, &slower).unwrap().eswitch.ageing_secs, Some(70));
}

#[test]
fn what_is_the_same_is_not_touched() {
    let now = read(FULL).unwrap();
    let same = plan(&now, &now).unwrap();
    assert_eq!(
        same.to_string(),
        "channels: 0 added, 0 removed, 0 made anew, 0 changed; flows: 0 added, 0 removed; \
         addresses: 0 added, 0 removed"
    );
    let bigger = read(&FULL.replacen("queues = 4", "queues = 5", 1)).unwrap();
    let anew = plan(&now, &bigger).unwrap();
    // With the rule and the address that go with it.
    assert_eq!(
        anew.to_string(),
        "channels: 0 added, 0 removed, 1 made anew, 0 changed; flows: 1 added, 1 removed; \
         addresses: 1 added, 1 removed"
    );
}

/// What a NIC with this configuration shows.
fn expected(config: &Config) -> Seen {
    Seen {
        channels: config
            .channels
            .values()
            .map(|spec| format!("{spec:?}"))
            .collect(),
        rules: config.flows.iter().map(|f| f.text.clone()).collect(),
        fdb: config.fdb.clone(),
        rates: BTreeMap::new(),
        eswitch: (config.mode, config.vepa, config.nic.ageing_secs),
    }
}

/// A few names and addresses, so that configurations often meet.
fn config() -> impl Strategy<Value = Config> {
    let channel = (
        any::<bool>(),
        1..4u16,
        0..4u8,
        0..3u16,
        0..2u16,
        any::<bool>(),
        0..6u8,
    );
    let channels = prop::collection::vec(channel, 4);
    let flows = prop::collection::btree_set((0..5usize, 0..5usize, 1..3u16), 0..5);
    let fdb = prop::collection::btree_map((0..2u16, 0..4u8), 0..5usize, 0..4);
    (
        channels,
        flows,
        fdb,
        any::<bool>(),
        any::<bool>(),
        10..12u32,
    )
        .prop_map(|(channels, flows, fdb, switchdev, vepa, ageing)| {
            let mut text = format!(
                "[nic]\nqueues = 12\nworkers = 1\nageing_secs = {ageing}\n[eswitch]\nmode = \
                 \"{}\"\nvepa = {}\n",
                if switchdev { "switchdev" } else { "legacy" },
                vepa && !switchdev,
            );
            let mut names = vec!["uplink".to_owned()];
            let mut macs = BTreeSet::new();
            for (i, (there, queues, mac, vlan, mtu, flag, attach)) in channels.iter().enumerate() {
                if !there {
                    continue;
                }
                names.push(format!("c{i}"));
                write!(
                    text,
                    "[[channel]]\nname = \"c{i}\"\nqueues = {queues}\nvlan = {vlan}\nmtu = {}\n\
                     trust = {flag}\nattach = \"{}\"\n",
                    1500 + mtu,
                    if *attach == 0 {
                        "tap:blue"
                    } else {
                        "vhost-user"
                    },
                )
                .unwrap();
                if *flag {
                    write!(
                        text,
                        "block = {}\npromisc = false\nvlan_filter = \"{}\"\n\
                         more_macs = [\"01:00:5e:00:00:0{mtu}\"]\n",
                        1 + mtu,
                        5 + vlan,
                    )
                    .unwrap();
                }
                // 0 is for the NIC to choose, and an address is one channel's.
                if *mac > 0 && macs.insert((*vlan, *mac)) {
                    writeln!(text, "mac = \"02:00:00:00:00:0{mac}\"").unwrap();
                }
            }
            for (from, to, prio) in flows.iter().filter(|_| switchdev) {
                let (from, to) = (from % names.len(), to % names.len());
                let rule = format!(
                    "prio {prio} in_port {} action redirect {}",
                    names[from], names[to]
                );
                if !text.contains(&rule) {
                    write!(text, "[[flow]]\nrule = \"{rule}\"\n").unwrap();
                }
            }
            for ((vid, mac), port) in fdb {
                if !macs.contains(&(vid, mac)) {
                    let port = &names[port % names.len()];
                    write!(
                        text,
                        "[[fdb]]\nvid = {vid}\nmac = \"02:00:00:00:00:0{mac}\"\nport = \"{port}\"\n"
                    )
                    .unwrap();
                }
            }
            read(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
        })
}

fn started(config: &Config) -> Fake {
    let fake = Fake::new(12);
    let mut empty = Config::empty(config.nic.clone());
    empty.nic.ageing_secs = 300;
    apply(&fake, &plan(&empty, config).unwrap()).unwrap();
    fake
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_plan_leads_from_one_to_the_other(a in config(), b in config()) {
        let fake = started(&a);
        prop_assert_eq!(fake.seen(), expected(&a));
        apply(&fake, &plan(&a, &b).unwrap()).unwrap();
        prop_assert_eq!(fake.seen(), expected(&b));
    }

    #[test]
    fn a_plan_that_is_refused_leaves_everything_as_it_was(
        a in config(), b in config(), after in 0..12u32
    ) {
        let fake = started(&a);
        // Made through the API, and to stay as well.
        let port = fake.channels().first().map_or(VportId::UPLINK, |c| c.vport);
        fake.add_fdb(0, "02:00:00:00:00:99".parse().unwrap(), port).unwrap();
        if a.mode == Mode::Switchdev {
            let mut rule: RuleSpec = "prio 9 action redirect uplink".parse().unwrap();
            rule.actions[0] = Action::Redirect(port);
            fake.add_rules(vec![rule]).unwrap();
        }
        let before = fake.seen();
        fake.refuse_after(after);
        let result = apply(&fake, &plan(&a, &b).unwrap());
        if fake.was_spared() {
            prop_assert!(result.is_ok());
        } else {
            prop_assert!(matches!(result, Err(ApplyError::Step(_))), "{:?}", result);
            let mut seen = fake.seen();
            // An address that the NIC chose is kept, by name, when a channel is made again.
            seen.channels = chosen(&before.channels, seen.channels);
            prop_assert_eq!(seen, before);
        }
    }
}

/// Forgets addresses of the NIC's choice where they were not named before.
fn chosen(before: &[String], now: Vec<String>) -> Vec<String> {
    let forget = |(old, new): (&String, String)| {
        let (Some(start), true) = (new.find("mac: Some(02:ca"), old.contains("mac: None")) else {
            return new;
        };
        let end = start + new[start..].find(')').unwrap();
        format!("{}mac: None{}", &new[..start], &new[end + 1..])
    };
    before.iter().zip(now).map(forget).collect()
}

#[test]
fn rates_follow_the_file_and_come_back() {
    let nodes = "[[rate]]\nname = \"gold\"\ntx_max = \"100mbit\"\n";
    let leaf = "[[rate]]\nname = \"web\"\nparent = \"gold\"\ntx_share = \"10mbit\"\n";
    let channel = "[[channel]]\nname = \"web\"\n";
    let text = |parts: &[&str]| format!("[nic]\nqueues = 9\n{}", parts.concat());
    let parse = |text: &str| Config::parse(text, Path::new("f.toml"), &Overrides::default());
    let config = parse(&text(&[channel, nodes, leaf])).unwrap();
    let web = &config.rates[&"web".parse().unwrap()];
    assert_eq!((web.tx_share, web.tx_weight), (1_250_000, 1));
    let plain = parse(&text(&[channel])).unwrap();
    let steps = plan(&plain, &config).unwrap();
    let (before, after) = steps.rates.unwrap();
    assert!(before.is_empty() && after == config.rates);
    assert!(plan(&config, &config).unwrap().rates.is_none());
    // A channel that is made anew has lost its rate.
    let wider = "[[channel]]\nname = \"web\"\nqueues = 2\n";
    let wider = parse(&text(&[wider, nodes, leaf])).unwrap();
    assert!(plan(&config, &wider).unwrap().rates.is_some());
    let twice = parse(&text(&[channel, nodes, nodes]))
        .unwrap_err()
        .to_string();
    assert!(twice.contains("name: `gold` is there twice"), "{twice}");
    let wrong = parse(&text(&["[[rate]]\nname = \"a\"\ntx_max = \"fast\"\n"]));
    let wrong = wrong.unwrap_err().to_string();
    assert!(
        wrong.contains("f.toml:5: rate.tx_max: `fast` is not a rate"),
        "{wrong}"
    );
}
