//! Names of channels and representors.

use super::done;
use crate::conform::bed::{Bed, wish};
use crate::conform::case::{
    Case, Ended, Need::Representors, Setup::Bare, Stop, case, ensure, refused, same,
};
use std::path::Path;

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "naming.bad_names",
            "names that a file or a rule could not hold are refused",
            "chanio_model::ChannelName",
            Bare,
            &[],
            bad_names,
        ),
        case(
            "naming.representor",
            "a channel's representor is a netdev of the host with the channel's name as its alias",
            "Documentation/networking/representors.rst: how are representors identified; \
             linux/if.h: IFNAMSIZ",
            Bare,
            &[Representors],
            representor,
        ),
        case(
            "naming.representor_goes",
            "the representor goes with its channel, and the next one's is another's",
            "Documentation/networking/representors.rst: should be removed with the object",
            Bare,
            &[Representors],
            representor_goes,
        ),
    ]
}

fn bad_names(bed: &mut Bed) -> Ended {
    let long = "x".repeat(300);
    for name in ["", "a b", "a/b", "..", "a\n", "uplink", "vport:1", &long] {
        let mut spec = bed.attached(wish("a"));
        spec.name = name.to_owned();
        let shown = name.chars().take(20).collect::<String>();
        refused(
            &format!("the name {shown:?}"),
            bed.nic.add_channels(vec![spec]),
        )?;
    }
    same("channels", bed.nic.channels(&[])?.len(), 0)
}

fn sysfs(netdev: &str, file: &str) -> Option<String> {
    let path = Path::new("/sys/class/net").join(netdev).join(file);
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

fn representor(bed: &mut Bed) -> Ended {
    let made = bed.add(vec![wish("a"), wish("b")])?;
    let listed = bed.nic.representors()?;
    for channel in &made {
        let Some(netdev) = &channel.representor else {
            return Err(Stop::Failed(crate::conform::case::Failure::new(format!(
                "channel {} has no representor",
                channel.name
            ))));
        };
        ensure(netdev.len() <= 15, || {
            format!("{netdev} has more than 15 characters")
        })?;
        let of = |r: &&chanio::nic::Representor| r.channel.as_ref() == Some(&channel.name);
        let listed: Vec<_> = listed.iter().filter(of).map(|r| &r.name).collect();
        same("representors listed for it", listed, vec![netdev])?;
        same(
            "its alias",
            sysfs(netdev, "ifalias"),
            Some(channel.name.clone()),
        )?;
        let mtu = sysfs(netdev, "mtu");
        same("its MTU", mtu, Some(channel.mtu.to_string()))?;
    }
    done()
}

fn representor_goes(bed: &mut Bed) -> Ended {
    let first = bed.add(vec![wish("a")])?;
    let netdev = first[0].representor.clone().unwrap_or_default();
    ensure(sysfs(&netdev, "ifindex").is_some(), || {
        format!("no netdev {netdev}")
    })?;
    let index = sysfs(&netdev, "ifindex");
    bed.del("a")?;
    if sysfs(&netdev, "ifalias").is_some_and(|alias| alias.is_empty()) {
        let listed = bed.nic.representors()?;
        let stays = listed.iter().find(|r| r.name == netdev);
        if stays.is_some_and(|r| r.channel.is_none()) {
            return Err(Stop::NotSupported(
                "a function outlives its channel: its representor stays, without a name".into(),
            ));
        }
    }
    same(
        "the netdev after the deletion",
        sysfs(&netdev, "ifindex"),
        None,
    )?;
    same(
        "representors of channels",
        bed.nic
            .representors()?
            .iter()
            .filter(|r| r.channel.is_some())
            .count(),
        0,
    )?;
    let next = bed.add(vec![wish("b")])?;
    let netdev = next[0].representor.clone().unwrap_or_default();
    same("its alias", sysfs(&netdev, "ifalias"), Some("b".into()))?;
    ensure(sysfs(&netdev, "ifindex") != index, || {
        "the same netdev again".into()
    })
}
