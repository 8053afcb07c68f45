//! `pci/SLOT`: subfunctions, virtual functions and macvlan devices, on an emulator that plays the
//! kernel.

mod bed;
mod bytes;
mod macvlan;
mod ntuple;
mod proxy;
mod spread;

use bed::{Bed, SLOT, spec};
use chanio::Nic;
use chanio::nic::{ChannelChange, ChannelSpec, EswitchChange};
use chanio::transport::{Effect, Transport, When};
use chanio_emu::nic::spec::Attach;
use std::path::Path;
use std::time::{Duration, Instant};

fn switchdev(on: bool) -> EswitchChange {
    EswitchChange {
        switchdev: Some(on),
        ..EswitchChange::default()
    }
}

#[test]
fn subfunctions_talk_by_rules_that_are_in_hardware() {
    if !chanio_testbed::can_run() {
        return;
    }
    let bed = Bed::new("mlx5-cx6dx");
    let mut nic = bed.open();
    assert_eq!(nic.info().unwrap().profile, "mlx5_core");
    nic.set_eswitch(switchdev(true)).unwrap();
    let specs = vec![
        spec("web1", "a", "10.0.0.1/24"),
        spec("web2", "b", "10.0.0.2/24"),
    ];
    let made = nic.add_channels(specs).unwrap();
    assert_eq!(
        (made[1].queues, made[1].mtu, &*made[1].attach),
        (2, 1400, "tap:b:eth0")
    );
    assert_eq!((made[0].state, made[0].vport), ("running", 1));
    let ping = || {
        let [a, _] = &bed.containers;
        a.run(&["ip", "neigh", "flush", "dev", "eth0"]);
        a.command(&["ping", "-c1", "-W1", "10.0.0.2"])
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(!ping());
    let rules = ["web1 action redirect web2", "web2 action redirect web1"];
    let rules = rules
        .iter()
        .map(|rule| format!("prio 10 in_port {rule}"))
        .collect();
    let ids = nic.add_flows(rules, false).unwrap();
    assert!(ping());
    let flows = nic.flows().unwrap();
    assert_eq!(flows.iter().map(|flow| flow.id).collect::<Vec<_>>(), ids);
    assert_eq!(flows[0].rule, "prio 10 in_port web1 action redirect web2");
    assert!(flows.iter().all(|flow| flow.packets >= 2), "{flows:?}");
    let mac = ChannelChange {
        mac: Some("02:00:00:00:00:07".into()),
        ..ChannelChange::default()
    };
    assert_eq!(
        nic.set_channel("web2", mac).unwrap().mac,
        "02:00:00:00:00:07"
    );
    assert!(ping());
    // Whoever comes next sees the same; rules go with the channels that they name.
    let told = bed.open().channels(&[]).unwrap();
    assert_eq!(
        (&*told[1].name, &*told[1].mac),
        ("web2", "02:00:00:00:00:07")
    );
    nic.del_channels(&["web2".into()]).unwrap();
    assert!(nic.flows().unwrap().is_empty());
    assert!(!bed.containers[1].run(&["ip", "link"]).contains("eth0"));
}

#[test]
fn whatever_step_of_a_subfunction_fails_all_is_as_before() {
    if !chanio_testbed::can_run() {
        return;
    }
    let bed = Bed::new("mlx5-cx6dx");
    bed.open().set_eswitch(switchdev(true)).unwrap();
    let (steps, made) =
        bed.refuse_each_step(|nic| nic.add_channels(vec![spec("web1", "a", "10.0.0.1/24")]));
    println!("{steps} steps of a subfunction failed in turn");
    assert!(steps > 15 && made[0].state == "running");
    bed.open().del_channels(&["web1".into()]).unwrap();
    let add = |nic: &mut dyn Nic| nic.add_channels(vec![spec("web2", "b", "10.0.0.2/24")]);

    // A driver that never comes.
    let before = bed.snapshot();
    let mut nic = bed.open();
    bed.faults.never_attach();
    bed.faults.set_patience(Duration::from_millis(300));
    let begun = Instant::now();
    let refused = add(&mut *nic).unwrap_err().to_string();
    assert!(refused.contains("did not come within 300 ms"), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(bed.snapshot(), before);

    // Nobody tells that it has come, and it takes long to answer.
    let mut nic = bed.open();
    bed.faults.lose_notifications();
    bed.faults
        .plan(When::Always, Effect::Delay(Duration::from_millis(10)));
    assert_eq!(add(&mut *nic).unwrap()[0].state, "running");
}

#[test]
fn whatever_step_of_a_virtual_function_fails_all_is_as_before() {
    if !chanio_testbed::can_run() {
        return;
    }
    let bed = Bed::new("mlx5-cx6dx");
    let (steps, made) = bed.refuse_each_step(|nic| {
        nic.add_channels(vec![ChannelSpec {
            vlan: 5,
            spoofchk: true,
            trust: true,
            ..spec("web1", "a", "10.0.0.1/24")
        }])
    });
    println!("{steps} steps of a virtual function failed in turn");
    assert!(steps > 15);
    let web1 = &made[0];
    assert_eq!(
        (web1.vlan, web1.spoofchk, web1.trust),
        (Some(5), true, true)
    );
    assert_eq!((&*web1.attach, &web1.representor), ("tap:a:eth0", &None));
    let mut nic = bed.open();
    let change = ChannelChange {
        vlan: Some(0),
        trust: Some(false),
        link_up: Some(false),
        ..ChannelChange::default()
    };
    let web1 = nic.set_channel("web1", change).unwrap();
    assert_eq!((web1.vlan, web1.trust, web1.link), (None, false, "down"));
    // There is one function, and it is taken.
    let refused = nic
        .add_channels(vec![spec("web2", "b", "10.0.0.2/24")])
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("0 of the device's 1 virtual functions are free")
    );
    nic.del_channels(&["web1".into()]).unwrap();
    nic.add_channels(vec![spec("web2", "b", "10.0.0.2/24")])
        .unwrap();
}

#[test]
fn virtual_functions_in_switchdev_mode_have_representors() {
    if !chanio_testbed::can_run() {
        return;
    }
    let bed = Bed::new("intel-e810");
    let mut nic = bed.open();
    nic.set_eswitch(switchdev(true)).unwrap();
    let vfs = format!("/sys/bus/pci/devices/{SLOT}/sriov_numvfs");
    bed.faults.write(Path::new(&vfs), b"2").unwrap();
    let nobodys = nic.representors().unwrap();
    assert_eq!(nobodys.len(), 3);
    assert!(
        nobodys
            .iter()
            .all(|representor| representor.channel.is_none())
    );
    let (steps, made) =
        bed.refuse_each_step(|nic| nic.add_channels(vec![spec("web1", "a", "10.0.0.1/24")]));
    println!("{steps} steps of a virtual function with a representor failed in turn");
    let told = nic.representors().unwrap();
    let of_web1 = told
        .iter()
        .find(|r| r.channel.as_deref() == Some("web1"))
        .unwrap();
    assert_eq!(made[0].representor.as_deref(), Some(&*of_web1.name));
    nic.add_channels(vec![spec("web2", "b", "10.0.0.2/24")])
        .unwrap();
    let rules = ["web1 action redirect web2", "web2 action redirect web1"];
    let rules = rules
        .iter()
        .map(|rule| format!("prio 10 in_port {rule}"))
        .collect();
    nic.add_flows(rules, false).unwrap();
    bed.containers[0].run(&["ping", "-c1", "-W1", "10.0.0.2"]);
    nic.del_channels(&["web1".into(), "web2".into()]).unwrap();
    assert_eq!(nic.representors().unwrap().len(), 3);
}

/// `CHANIO_CHANNELS` in the environment makes it more.
#[test]
fn many_subfunctions_are_made_in_one_call() {
    if !chanio_testbed::can_run() {
        return;
    }
    let count: usize = std::env::var("CHANIO_CHANNELS").map_or(50, |text| text.parse().unwrap());
    let bed = Bed::with("generic", 2 * count + 2);
    let mut nic = bed.open();
    nic.set_eswitch(switchdev(true)).unwrap();
    let begun = Instant::now();
    let made = nic.add_channels((1..=count).map(plain).collect()).unwrap();
    let made_in = begun.elapsed();
    assert!(made.iter().all(|channel| channel.state == "running"));
    let begun = Instant::now();
    let names: Vec<_> = nic
        .channels(&[])
        .unwrap()
        .into_iter()
        .map(|c| c.name)
        .collect();
    let listed_in = begun.elapsed();
    assert_eq!(names.len(), count);
    let begun = Instant::now();
    nic.del_channels(&names).unwrap();
    println!(
        "{count} subfunctions made in {made_in:.2?}, listed in {listed_in:.2?}, removed in {:.2?}",
        begun.elapsed()
    );
    assert!(nic.channels(&[]).unwrap().is_empty());
}

/// A channel of a container's, without an address.
fn plain(n: usize) -> ChannelSpec {
    ChannelSpec {
        attach: Attach::tap("a", &format!("e{n}"), Vec::new()).unwrap(),
        ..spec(&format!("pod{n}"), "a", "10.0.0.1/24")
    }
}

/// Counted in requests, not in time: the same for each, however many there are.
#[test]
fn what_a_channel_costs_does_not_grow_with_their_number() {
    if !chanio_testbed::can_run() {
        return;
    }
    let bed = Bed::with("generic", 100);
    bed.open().set_eswitch(switchdev(true)).unwrap();
    let asked = |work: &dyn Fn(&mut dyn Nic)| {
        let mut nic = bed.open();
        bed.faults.clear();
        work(&mut *nic);
        bed.faults.seen().len()
    };
    let costs = [6, 12, 24].map(|count| {
        let added = asked(&|nic| {
            nic.add_channels((1..=count).map(plain).collect()).unwrap();
        });
        let counted = asked(&|nic| {
            // The uplink has counters, too.
            assert_eq!(nic.stats(&[], false).unwrap().len(), count + 1);
        });
        let rule = |n: usize| format!("in_port pod{n} action drop");
        let ruled = asked(&|nic| {
            nic.add_flows((1..=count).map(rule).collect(), false)
                .unwrap();
        });
        let removed = asked(&|nic| {
            let channels = nic.channels(&[]).unwrap();
            let names: Vec<_> = channels.into_iter().map(|c| c.name).collect();
            nic.del_channels(&names).unwrap();
        });
        println!(
            "{count}: {added} to add, {counted} to count, {ruled} for rules, {removed} to remove"
        );
        [added, counted, ruled, removed]
    });
    // A look more or less at who has not come yet.
    const SLACK: usize = 6;
    for step in 0..4 {
        let [few, some, many] = costs.map(|cost| cost[step]);
        assert!(many >= 24 && many > some && some > few, "{costs:?}");
        assert!(many - some <= 2 * (some - few) + SLACK, "{step}: {costs:?}");
    }
}

/// As mlx5_core is told of a new address or MTU, and puts it into hardware.
#[test]
fn the_switch_follows_what_a_container_does_to_its_netdev() {
    if !chanio_testbed::can_run() {
        return;
    }
    let bed = Bed::new("mlx5-cx6dx");
    let mut nic = bed.open();
    nic.set_eswitch(switchdev(true)).unwrap();
    nic.add_channels(vec![plain(1), plain(2)]).unwrap();
    let address = "02:c0:00:00:00:99";
    let change = ["ip", "link", "set", "e1", "mtu", "9000", "address", address];
    bed.containers[0].run(&change);
    let there = |name: &str| -> (u64, String) {
        // Whoever asks the kernel that is played finds it done.
        nic_list(&bed);
        let channels = bed.emulator.json("channel show");
        let channels = channels.as_array().unwrap().iter();
        let mut named = channels.filter(|c| c["name"] == name);
        let channel = named.next().unwrap();
        let mac = channel["mac"].as_str().unwrap();
        (channel["mtu"].as_u64().unwrap(), mac.to_owned())
    };
    assert_eq!(there("pf0sf1"), (9000, address.to_owned()));
    let (mtu, mac) = there("pf0sf2");
    assert!(
        mtu == 1400 && mac != address,
        "the other one stays: {mtu} {mac}"
    );
    // An address that another channel has is not the switch's to take away.
    bed.containers[0].run(&["ip", "link", "set", "e2", "address", address]);
    assert_ne!(there("pf0sf2").1, address);
}

fn nic_list(bed: &Bed) {
    bed.open().channels(&[]).unwrap();
}
