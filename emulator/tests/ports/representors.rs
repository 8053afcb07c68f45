//! Representors: many netdevs, watched.

use crate::netns::{Netns, eventually};
use chanio_emu::port::{
    LinkChange, Netdevs, Representor, RepresentorSpec, Representors, raise_nofile_limit,
};
use chanio_model::{Mac, VportId};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

fn specs(vports: std::ops::Range<u32>) -> Vec<RepresentorSpec> {
    let spec = |vport| RepresentorSpec {
        vport: VportId(vport),
        channel: (vport != 0).then(|| format!("web-{vport}").parse().unwrap()),
        mtu: if vport == 3 { 9000 } else { 1500 },
        carrier: vport % 2 == 1,
        mac: (vport == 4).then_some(Mac([2, 0, 0, 0, 0, 4])),
    };
    vports.map(spec).collect()
}

fn representors(netns: &Netns) -> Arc<Representors> {
    netns.run(|| Arc::new(Representors::new(Arc::new(Netdevs::open().unwrap()), 0)))
}

fn create(netns: &Netns, of: &Arc<Representors>, vports: std::ops::Range<u32>) -> Vec<Representor> {
    let of = of.clone();
    netns.run(move || of.create(&specs(vports)).unwrap())
}

#[test]
fn netdevs_have_what_was_asked_for_and_changes_are_seen() {
    let Some(netns) = Netns::new() else { return };
    let of = representors(&netns);
    let made = create(&netns, &of, 0..20);
    let links = netns.ip_json("link show");
    let link = |name: &str| {
        let found = links
            .as_array()
            .unwrap()
            .iter()
            .find(|l| l["ifname"] == name);
        found.unwrap_or_else(|| panic!("{name} in {links}")).clone()
    };
    assert_eq!(link("c0p0")["ifalias"], "uplink");
    assert_eq!(link("c0pf0sf3")["ifalias"], "web-3");
    assert_eq!(
        (&link("c0pf0sf3")["mtu"], &link("c0pf0sf4")["mtu"]),
        (&9000.into(), &1500.into())
    );
    assert_eq!(link("c0pf0sf4")["address"], "02:00:00:00:00:04");
    assert_eq!(link("c0pf0sf19")["ifindex"], made[19].ifindex);

    let table = of.netdevs().links().clone();
    let (three, four) = (made[3].ifindex, made[4].ifindex);
    eventually("all are known", || {
        made.iter().all(|r| table.get(r.ifindex).is_some())
    });
    assert_eq!(table.get(three).map(|l| (l.up, l.mtu)), Some((false, 9000)));
    netns.ip("link set c0pf0sf3 up mtu 2000");
    eventually("up", || {
        table
            .get(three)
            .is_some_and(|l| l.up && l.mtu == 2000 && l.carrier)
    });
    netns.ip("link set c0pf0sf4 up");
    eventually("up without carrier", || {
        table.get(four).is_some_and(|l| l.up && !l.carrier)
    });
    of.set_carrier([(four, true), (three, false), (0x7fff_0000, true)])
        .unwrap();
    eventually("carrier", || table.get(four).is_some_and(|l| l.carrier));
    eventually("no carrier", || {
        table.get(three).is_some_and(|l| !l.carrier)
    });
    // Bridges tell of their ports in messages that look like a netdev's own.
    netns.ip("link add br0 type bridge");
    netns.ip("link set c0pf0sf4 master br0");
    netns.ip("link set c0pf0sf4 nomaster");
    netns.ip("link set c0pf0sf4 down");
    eventually("down", || table.get(four).is_some_and(|l| !l.up));

    let rename = LinkChange {
        name: Some("other".parse().unwrap()),
        no_addr_gen: true,
        ..LinkChange::new(four)
    };
    let outcomes = of
        .netdevs()
        .apply(&[rename, LinkChange::new(0x7fff_0000)])
        .unwrap();
    assert_eq!(outcomes[0], Ok(()));
    assert_eq!(outcomes[1].as_ref().unwrap_err().errno, libc::ENODEV);
    assert!(netns.ip("-d link show other").contains("addrgenmode none"));

    // Somebody else's netdev, and one of ours that was deleted already.
    netns.ip("link del c0pf0sf5");
    let before = made.len();
    of.delete(made);
    assert_eq!(netns.netdevs(), ["br0"], "of {before}");
    eventually("the table follows", || table.get(three).is_none());
}

#[test]
fn a_taken_name_refuses_the_batch_and_leaves_nothing() {
    let Some(netns) = Netns::new() else { return };
    let of = representors(&netns);
    netns.ip("link add c0pf0sf7 type bridge");
    let err = netns.run(move || of.create(&specs(1..10)).unwrap_err().to_string());
    assert!(err.contains("c0pf0sf7"), "{err}");
    assert_eq!(netns.netdevs(), ["c0pf0sf7"]);
}

#[test]
fn an_mtu_that_the_kernel_refuses_leaves_nothing() {
    let Some(netns) = Netns::new() else { return };
    let of = representors(&netns);
    let mut batch = specs(1..10);
    batch[6].mtu = 70_000;
    let err = netns.run(move || of.create(&batch).unwrap_err().to_string());
    assert!(err.contains("c0pf0sf7") && err.contains("mtu"), "{err}");
    assert_eq!(netns.netdevs(), [""; 0]);
}

#[test]
fn more_notifications_than_fit_are_caught_up_with() {
    let Some(netns) = Netns::new() else { return };
    let of = representors(&netns);
    let made = create(&netns, &of, 1..3);
    let table = of.netdevs().links().clone();
    let index = made[0].ifindex;
    let changes: Vec<_> = (0..20_000)
        .map(|i| LinkChange {
            mtu: Some(1000 + i % 400),
            ..LinkChange::new(index)
        })
        .collect();
    of.netdevs().apply(&changes).unwrap();
    eventually("the last one", || {
        table
            .get(index)
            .is_some_and(|l| l.mtu == 1000 + 19_999 % 400)
    });
}

/// Not a limit, a figure: CHANIO_REPRESENTORS=10000 for the real number. Processor time says more
/// than the clock on a machine that does other things as well.
#[test]
fn creation_time_beside_ip_batch() {
    let count: u32 = std::env::var("CHANIO_REPRESENTORS").map_or(300, |n| n.parse().unwrap());
    if let Err(why) = raise_nofile_limit(u64::from(count) + 100) {
        return crate::netns::cannot_run(&why.to_string());
    }
    let (Some(ours), Some(theirs)) = (Netns::new(), Netns::new()) else {
        return;
    };
    let text = |line: &dyn Fn(u32) -> String| (1..=count).map(line).collect::<String>();
    let tuntap = text(&|n| format!("tuntap add dev c0pf0sf{n} mode tap vnet_hdr\n"));
    let alias = text(&|n| format!("link set dev c0pf0sf{n} alias web-{n}\n"));
    let ip_batch = |lines: String| {
        measured(UsageWho::RUSAGE_CHILDREN, || {
            theirs.run(move || {
                let mut ip = Command::new("ip");
                let mut ip = ip
                    .args(["-batch", "-"])
                    .stdin(Stdio::piped())
                    .spawn()
                    .unwrap();
                ip.stdin
                    .take()
                    .unwrap()
                    .write_all(lines.as_bytes())
                    .unwrap();
                assert!(ip.wait().unwrap().success());
            });
        })
    };
    let ((), tuntap) = ip_batch(tuntap);
    let ((), alias) = ip_batch(alias);

    let of = representors(&ours);
    let (made, creating) = measured(UsageWho::RUSAGE_SELF, || create(&ours, &of, 1..count + 1));
    assert_eq!(made.len(), count as usize);
    let ((), deleting) = measured(UsageWho::RUSAGE_SELF, || of.delete(made));
    assert_eq!(ours.netdevs(), [""; 0]);

    let show =
        |what: &str, [clock, cpu]: [f64; 2]| println!("{what}: {clock:.2} s, {cpu:.2} s CPU");
    println!("{count} representors");
    show("created", creating);
    show("deleted", deleting);
    show("ip -batch, tuntap add", tuntap);
    show("ip -batch, link set alias", alias);
    let ratio = |i: usize| {
        (
            creating[i] / tuntap[i],
            creating[i] / (tuntap[i] + alias[i]),
        )
    };
    println!(
        "ratio to tuntap add, and to both: clock {:.2?}, CPU {:.2?}",
        ratio(0),
        ratio(1)
    );
}

/// How long it takes: seconds of the clock, and of processor time.
fn measured<T>(who: UsageWho, work: impl FnOnce() -> T) -> (T, [f64; 2]) {
    let cpu = || {
        let usage = getrusage(who).unwrap();
        let micros = usage.user_time() + usage.system_time();
        micros.num_microseconds() as f64 / 1e6
    };
    let (clock, before) = (Instant::now(), cpu());
    let result = work();
    (result, [clock.elapsed().as_secs_f64(), cpu() - before])
}
