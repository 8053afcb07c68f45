//! How channels that are in containers spread packets over their queues, and RoCE.

use crate::bed::{Bed, spec};
use crate::switchdev;
use chanio::Nic;
use chanio::nic::{Channel, ChannelChange, ChannelSpec};
use chanio_model::rss::{RssChange, RssKey};

fn change(table: Option<Vec<u16>>, key: Option<RssKey>, types: Option<&str>) -> RssChange {
    RssChange {
        table,
        key,
        types: types.map(|text| text.parse().unwrap()),
        ..RssChange::default()
    }
}

fn set(nic: &mut dyn Nic, rss: RssChange) -> Result<Channel, chanio::DeviceError> {
    let change = ChannelChange {
        rss: Some(rss),
        ..ChannelChange::default()
    };
    nic.set_channel("web1", change)
}

#[test]
fn packets_of_a_channel_in_a_container_are_spread_as_told() {
    if !chanio_testbed::can_run() {
        return;
    }
    for profile in ["mlx5-cx6dx", "intel-x710"] {
        let bed = Bed::new(profile);
        let mut nic = bed.open();
        if profile == "mlx5-cx6dx" {
            nic.set_eswitch(switchdev(true)).unwrap();
        }
        let key = RssKey::new(&[7; 40]).unwrap();
        let wanted = ChannelSpec {
            rss: Some(change(Some(vec![1, 0]), None, Some("ip4,ip6,tcp4"))),
            ..spec("web1", "a", "10.0.0.1/24")
        };
        let made = nic.add_channels(vec![wanted]).unwrap();
        let rss = made[0].rss.clone().unwrap();
        assert!(rss.table.chunks(2).all(|pair| pair == [1, 0]), "{rss:?}");
        assert_eq!(rss.hash_types, ["ip4", "tcp4", "ip6"]);

        let told = set(
            &mut *nic,
            change(Some(vec![0]), Some(key), Some("ip4,ip6,udp6")),
        );
        let rss = told.unwrap().rss.unwrap();
        assert!(rss.table.iter().all(|queue| *queue == 0), "{rss:?}");
        assert_eq!(rss.hash_types, ["ip4", "ip6", "udp6"]);
        assert!(rss.key.starts_with("07:07:07:07"), "{rss:?}");
        // A change of one leaves the others.
        let told = set(&mut *nic, change(Some(vec![0, 1]), None, None));
        let now = told.unwrap().rss.unwrap();
        assert_eq!((now.key, now.hash_types), (rss.key.clone(), rss.hash_types));
        assert!(now.table.contains(&1));

        for (bad, words) in [
            (
                change(Some(vec![2]), None, None),
                "queue 2 is not allowed, must be 0 to 1",
            ),
            (change(None, None, Some("none")), "rss-hash"),
            (
                RssChange {
                    off: true,
                    ..RssChange::default()
                },
                "rss off is not supported: a driver always spreads packets",
            ),
        ] {
            let refused = set(&mut *nic, bad).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
        let queues = |queues| ChannelChange {
            queues: Some(queues),
            ..ChannelChange::default()
        };
        let told = nic.set_channel("web1", queues(1)).unwrap();
        assert_eq!((told.queues, told.active_queues), (1, 1));
        let refused = nic.set_channel("web1", queues(3)).unwrap_err().to_string();
        assert!(
            refused.contains("queues: 3 is not allowed, must be 1 to 2"),
            "{refused}"
        );
        assert_eq!(nic.set_channel("web1", queues(2)).unwrap().queues, 2);
    }
}

#[test]
fn whatever_step_of_spreading_otherwise_fails_all_is_as_before() {
    if !chanio_testbed::can_run() {
        return;
    }
    let bed = Bed::new("intel-x710");
    let wanted = ChannelSpec {
        rss: Some(change(Some(vec![1, 1, 1, 0]), None, None)),
        ..spec("web1", "a", "10.0.0.1/24")
    };
    bed.open().add_channels(vec![wanted]).unwrap();
    let (steps, now) = bed.refuse_each_step(|nic| {
        let change = ChannelChange {
            queues: Some(1),
            rss: Some(change(
                Some(vec![0]),
                Some(RssKey::new(&[7]).unwrap()),
                Some("ip4,ip6"),
            )),
            ..ChannelChange::default()
        };
        Ok(vec![nic.set_channel("web1", change)?])
    });
    println!("{steps} steps of spreading packets otherwise failed in turn");
    let rss = now[0].rss.as_ref().unwrap();
    assert_eq!(
        (now[0].queues, &*rss.hash_types),
        (1, &["ip4".into(), "ip6".into()][..])
    );
    assert!(steps > 15 && rss.key.starts_with("07:00:00"));
}

#[test]
fn a_subfunctions_roce_is_set_before_its_driver_comes() {
    if !chanio_testbed::can_run() {
        return;
    }
    let without = ChannelSpec {
        roce: Some(false),
        ..spec("web1", "a", "10.0.0.1/24")
    };
    let bed = Bed::new("mlx5-cx6dx");
    let mut nic = bed.open();
    let refused = nic.add_channels(vec![without.clone()]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "roce is not supported: only a subfunction's can be set, before its driver comes"
    );
    nic.set_eswitch(switchdev(true)).unwrap();
    let with = spec("web2", "b", "10.0.0.2/24");
    let made = nic.add_channels(vec![without.clone(), with]).unwrap();
    assert_eq!((made[0].roce, made[1].roce), (Some(false), Some(true)));
    drop((nic, bed));

    let bed = Bed::new("intel-e810");
    let mut nic = bed.open();
    nic.set_eswitch(switchdev(true)).unwrap();
    let refused = nic.add_channels(vec![without]).unwrap_err().to_string();
    assert!(
        refused.contains("doesn't support RoCE function attribute"),
        "{refused}"
    );
    assert!(nic.channels(&[]).unwrap().is_empty());
}
