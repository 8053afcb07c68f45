//! Channels come and go whole, within limits.

use crate::conform::bed::{Bed, wish};
use crate::conform::case::{Case, Ended, Setup::Bare, Stop, case, ensure, refused, same};
use chanio::nic::ChannelSpec;
use std::collections::BTreeSet;

/// Most channels that a case makes to find the end.
const MANY: u32 = 1024;

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "allocation.add_and_delete",
            "a channel is listed until it is deleted, and its queues go back to the pool",
            "Documentation/networking/devlink/devlink-port.rst: Subfunction, deployment steps",
            Bare,
            &[],
            add_and_delete,
        ),
        case(
            "allocation.all_or_none",
            "of a batch with one bad channel none is made",
            "chanio::Nic::add_channels",
            Bare,
            &[],
            all_or_none,
        ),
        case(
            "allocation.duplicate",
            "a second channel of the same name is refused, the first stays",
            "devlink port add: EEXIST",
            Bare,
            &[],
            duplicate,
        ),
        case(
            "allocation.address",
            "the address asked for is the channel's; others get distinct unicast ones",
            "Documentation/networking/devlink/devlink-port.rst: MAC address setup",
            Bare,
            &[],
            address,
        ),
        case(
            "allocation.queues",
            "a channel has as many queue pairs as asked for, as its netdev or socket shows",
            "ethtool(8): -l, combined",
            Bare,
            &[],
            queues,
        ),
        case(
            "allocation.pool",
            "more queue pairs than there are left are refused, with nothing made",
            "Documentation/networking/devlink/devlink-resource.rst",
            Bare,
            &[],
            pool,
        ),
        case(
            "allocation.limit",
            "exactly as many channels as the device says can be made, and one more is refused",
            "Documentation/networking/devlink/devlink-port.rst: max_sfs; profile's source",
            Bare,
            &[],
            limit,
        ),
        case(
            "allocation.bad_values",
            "no queues, an MTU of 10, a group address: refused, naming the field",
            "chanio::DeviceError: field and allowed range",
            Bare,
            &[],
            bad_values,
        ),
    ]
}

/// Free queue pairs, where the device has a common pool of them.
fn free(bed: &mut Bed) -> Ended<Option<u32>> {
    Ok(bed.nic.info()?.queues_free)
}

/// The same for cases that are about nothing else.
fn free_of_pool(bed: &mut Bed) -> Ended<u32> {
    let none = || Stop::NotSupported("there is no common pool of queues".into());
    free(bed)?.ok_or_else(none)
}

fn names(bed: &mut Bed) -> Ended<Vec<String>> {
    let channels = bed.nic.channels(&[])?;
    Ok(channels.into_iter().map(|channel| channel.name).collect())
}

fn add_and_delete(bed: &mut Bed) -> Ended {
    let before = free(bed)?;
    let made = bed.add(vec![wish("a"), wish("b")])?;
    same("channels made", made.len(), 2)?;
    same("channels listed", names(bed)?, vec!["a".into(), "b".into()])?;
    same("channels counted", bed.nic.info()?.channels, 2)?;
    let taken = before.map(|n| n - 2);
    same("free queues", free(bed)?, taken)?;
    bed.del("a")?;
    same("channels listed", names(bed)?, vec!["b".into()])?;
    let gone = bed.nic.del_channels(&["a".into()]);
    let why = refused("deleting what is gone", gone)?;
    ensure(why.contains('a'), || {
        format!("`{why}` does not name the channel")
    })?;
    bed.del("b")?;
    same("free queues", free(bed)?, before)
}

fn all_or_none(bed: &mut Bed) -> Ended {
    let before = free(bed)?;
    let bad = ChannelSpec {
        mtu: 10,
        ..wish("c")
    };
    let batch = [wish("a"), wish("b"), bad].map(|spec| bed.attached(spec));
    refused(
        "a batch with an MTU of 10",
        bed.nic.add_channels(batch.into()),
    )?;
    same("channels listed", names(bed)?, Vec::<String>::new())?;
    same("free queues", free(bed)?, before)?;
    // Nothing is in the way of the same names.
    bed.add(vec![wish("a"), wish("b")])?;
    let bad = bed
        .nic
        .del_channels(&["a".into(), "nobody".into(), "b".into()]);
    refused("a deletion with a stranger in it", bad)?;
    same("channels listed", names(bed)?, vec!["a".into(), "b".into()])
}

fn duplicate(bed: &mut Bed) -> Ended {
    let first = bed.add(vec![wish("a")])?;
    let again = bed.attached(wish("a"));
    let why = refused("a second `a`", bed.nic.add_channels(vec![again]))?;
    ensure(why.contains('a'), || {
        format!("`{why}` does not name the channel")
    })?;
    let now = bed.nic.channels(&["a".into()])?;
    same("its address", &now[0].mac, &first[0].mac)
}

fn address(bed: &mut Bed) -> Ended {
    let asked = ChannelSpec {
        mac: Some("02:c0:00:00:00:55".into()),
        ..wish("a")
    };
    let made = bed.add(vec![asked, wish("b"), wish("c")])?;
    same("the address", made[0].mac.as_str(), "02:c0:00:00:00:55")?;
    let macs: BTreeSet<_> = bed.world.ports.iter().map(|port| port.mac).collect();
    same("distinct addresses", macs.len(), 3)?;
    let group = macs.iter().any(|mac| mac[0] & 1 != 0);
    ensure(!group, || format!("a group address among {macs:x?}"))
}

fn queues(bed: &mut Bed) -> Ended {
    let before = free(bed)?;
    let spec = ChannelSpec {
        queues: 4,
        ..wish("a")
    };
    let made = bed.add(vec![spec])?;
    same("queue pairs", made[0].queues, 4)?;
    same("free queues", free(bed)?, before.map(|n| n - 4))?;
    if bed.has_netdevs() {
        let shown = bed.run_at("a", &["ls", "/sys/class/net/eth0/queues"])?;
        let shown = shown.map_err(Stop::Error)?;
        let of = |kind| shown.lines().filter(|l| l.starts_with(kind)).count();
        same(
            "queues of the netdev, rx and tx",
            (of("rx-"), of("tx-")),
            (4, 4),
        )?;
    }
    Ok(())
}

fn pool(bed: &mut Bed) -> Ended {
    let (before, each) = (free_of_pool(bed)?, 64);
    let count = before / each + 1;
    if count > MANY.min(bed.info.capabilities.max_channels) {
        let why = format!("{before} queue pairs: more than {MANY} channels of {each} can use up");
        return Err(Stop::NotSupported(why));
    }
    let spec = |n| ChannelSpec {
        queues: each as u16,
        // Only counted: nobody has to be there.
        ..wish(&format!("pool{n}"))
    };
    let specs = (0..count).map(|n| bed.crowded(n, spec(n))).collect();
    let why = refused(
        &format!("{count} channels of {each} queues"),
        bed.nic.add_channels(specs),
    )?;
    ensure(why.contains("queue"), || {
        format!("`{why}` does not say that queues ran out")
    })?;
    same("free queues", free_of_pool(bed)?, before)?;
    same("channels", names(bed)?.len(), 0)
}

fn limit(bed: &mut Bed) -> Ended {
    let info = bed.nic.info()?;
    let most = info.capabilities.max_channels;
    if most > MANY || info.queues_free.is_some_and(|free| most > free) {
        let why = format!("max_channels is {most}: the suite makes at most {MANY}");
        return Err(Stop::NotSupported(why));
    }
    // Nobody has to be there: where there is a socket, that costs least.
    let socket = info.capabilities.attach.contains(&"vhost-user");
    let mut spec = |n: u32| match (socket, wish(&format!("limit{n}"))) {
        (true, spec) => spec,
        (false, spec) => bed.crowded(n, spec),
    };
    let (all, more) = ((0..most).map(&mut spec).collect(), spec(most));
    bed.nic.add_channels(all)?;
    same("channels", bed.nic.info()?.channels, most)?;
    let why = refused("one channel more", bed.nic.add_channels(vec![more]))?;
    ensure(
        why.contains(&most.to_string()) || why.contains("limit"),
        || format!("`{why}` does not name the limit {most}"),
    )?;
    same("channels", bed.nic.info()?.channels, most)
}

fn bad_values(bed: &mut Bed) -> Ended {
    type Spoil = fn(&mut ChannelSpec);
    let bad: [(&str, &str, Spoil); 5] = [
        ("no queues", "queues", |s| s.queues = 0),
        ("an MTU of 10", "mtu", |s| s.mtu = 10),
        ("a group address", "mac", |s| {
            s.mac = Some("01:00:5e:00:00:01".into());
        }),
        ("half an address", "mac", |s| s.mac = Some("02:c0".into())),
        ("VLAN 4095", "vlan", |s| s.vlan = 4095),
    ];
    for (what, field, spoil) in bad {
        let mut spec = bed.attached(wish("a"));
        spoil(&mut spec);
        let why = match bed.nic.add_channels(vec![spec]) {
            // Where there is no such field at all, that is an answer, too.
            Err(chanio::DeviceError::Unsupported { .. }) => continue,
            answer => refused(what, answer)?,
        };
        ensure(why.to_lowercase().contains(field), || {
            format!("{what}: `{why}` does not name {field}")
        })?;
        same(what, names(bed)?.len(), 0)?;
    }
    Ok(())
}
