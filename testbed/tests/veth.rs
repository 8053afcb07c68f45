//! `veth:NAME`: the driver layer on plain Linux.

use chanio::device::open_over;
use chanio::nic::{ChannelChange, ChannelSpec, EswitchChange};
use chanio::transport::{Effect, Faults, Machine, When};
use chanio::{DeviceAddress, Nic};
use chanio_emu::nic::spec::Attach;
use chanio_testbed::netns::{Netns, isolate, netdev_state};
use std::sync::Arc;

fn open(faults: &Faults) -> Box<dyn Nic> {
    open_over(
        &"veth:br0".parse::<DeviceAddress>().unwrap(),
        Arc::new(faults.clone()),
    )
    .unwrap()
}

fn spec(name: &str, netns: &str, address: &str) -> ChannelSpec {
    ChannelSpec {
        function: None,
        roce: None,
        name: name.into(),
        queues: 2,
        mac: None,
        vlan: 0,
        mtu: 1400,
        spoofchk: true,
        trust: false,
        lro: false,
        link_up: true,
        rss: None,
        block: 0,
        receive: Default::default(),
        attach: Attach::tap(netns, "", vec![address.parse().unwrap()]).unwrap(),
    }
}

#[test]
fn two_containers_talk_through_the_bridge_until_one_lies() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let (a, b) = (Netns::new("a"), Netns::new("b"));
    let mut nic = open(&Faults::around(Arc::new(Machine)));
    let specs = vec![
        spec("web1", "a", "10.0.0.1/24"),
        spec("web2", "b", "10.0.0.2/24"),
    ];
    let made = nic.add_channels(specs).unwrap();
    assert_eq!(made[1].representor.as_deref(), Some("c0pf0sf2"));
    assert_eq!(
        (made[1].queues, made[1].mtu, &*made[1].attach),
        (2, 1400, "tap:b:eth0")
    );
    // Asked anew, each time, who has the address.
    let ping = || {
        a.run(&["ip", "neigh", "flush", "dev", "eth0"]);
        a.command(&["ping", "-c1", "-W1", "10.0.0.2"])
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(ping());
    // What it then answers with is not its own.
    b.run(&["ip", "link", "set", "eth0", "address", "02:00:00:00:00:07"]);
    assert!(!ping());
    let mac = |mac: &str| ChannelChange {
        mac: Some(mac.into()),
        ..ChannelChange::default()
    };
    nic.set_channel("web2", mac("02:00:00:00:00:08")).unwrap();
    assert!(ping());
    // Somebody who has never heard of it sees the same.
    let told = open(&Faults::around(Arc::new(Machine)))
        .channels(&[])
        .unwrap();
    assert_eq!(
        (&*told[1].name, &*told[1].mac),
        ("web2", "02:00:00:00:00:08")
    );
    assert!(told[1].spoofchk);
    let stats = nic.stats(&["web1".into()], false).unwrap();
    assert!(stats[0].tx_packets >= 3 && stats[0].rx_packets >= 2);
    nic.del_channels(&["web1".into(), "web2".into()]).unwrap();
    assert!(!a.run(&["ip", "link"]).contains("eth0"));
    assert!(nic.channels(&[]).unwrap().is_empty());
}

#[test]
fn whatever_step_fails_all_is_as_before() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let containers = [&Netns::new("a"), &Netns::new("b")];
    let faults = Faults::around(Arc::new(Machine));
    let specs = || {
        vec![
            spec("web1", "a", "10.0.0.1/24"),
            spec("web2", "b", "10.0.0.2/24"),
        ]
    };
    let refuse = || Effect::Refuse {
        errno: 16,
        text: Some("injected".into()),
    };
    type Change = Box<dyn Fn(&mut dyn Nic) -> bool>;
    let add: Change = Box::new(move |nic| nic.add_channels(specs()).is_ok());
    let change: Change = Box::new(|nic| {
        let change = ChannelChange {
            mac: Some("02:00:00:00:00:09".into()),
            mtu: Some(1300),
            link_up: Some(false),
            ..ChannelChange::default()
        };
        nic.set_channel("web1", change).is_ok()
    });
    let free: Change = Box::new(|nic| {
        let free = ChannelChange {
            spoofchk: Some(false),
            ..ChannelChange::default()
        };
        ["web1", "web2"]
            .iter()
            .all(|name| nic.set_channel(name, free.clone()).is_ok())
    });
    let mode: Change = Box::new(|nic| {
        let switchdev = EswitchChange {
            switchdev: Some(true),
            ageing_secs: Some(100),
            ..EswitchChange::default()
        };
        nic.set_eswitch(switchdev).is_ok()
    });
    let mut tried = Vec::new();
    for (change, enumerated) in [(add, true), (change, true), (free, false), (mode, true)] {
        let before = netdev_state(&containers);
        for step in 0.. {
            faults.clear();
            let mut nic = open(&faults);
            faults.clear();
            if enumerated {
                faults.plan(When::Nth(step), refuse());
            }
            let done = change(&mut *nic);
            let reached = faults.seen().len() > step;
            if !enumerated || !reached {
                assert!(done);
                tried.push(step);
                break;
            }
            assert!(
                !done,
                "step {step} failed and nobody said so: {:?}",
                faults.seen()
            );
            assert_eq!(
                netdev_state(&containers),
                before,
                "step {step}: {:?}",
                faults.seen()
            );
        }
    }
    println!("steps that failed in turn: {tried:?}");
    assert!(tried[0] > 20, "{tried:?}");
}
