//! `chanio nic`

use super::out::Out;
use super::{Done, or_dash};
use chanio::nic::NicInfo;
use chanio::{Nic, device};
use std::path::Path;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Devices of this machine, and what each can do
    List,
    /// One device
    Show,
}

pub fn list(via: Option<&Path>, out: &mut Out) -> Done {
    let addresses = match via {
        None => device::discover()?,
        Some(run_dir) => device::discover_via(run_dir)?,
    };
    let mut found = Vec::new();
    for address in addresses {
        let opened = match via {
            None => device::open(&address),
            Some(run_dir) => device::open_via(&address, run_dir),
        };
        match opened.and_then(|mut nic| nic.info()) {
            Ok(info) => found.push(info),
            // It may be starting or stopping.
            Err(error) => eprintln!("chanio: {error}"),
        }
    }
    print(&found, out)
}

pub fn show(nic: &mut dyn Nic, out: &mut Out) -> Done {
    print(&[nic.info()?], out)
}

fn print(list: &[NicInfo], out: &mut Out) -> Done {
    let heading = [
        "DEVICE",
        "VERSION",
        "QUEUE PAIRS",
        "FREE",
        "CHANNELS",
        "WORKERS",
        "UPLINK",
        "PROFILE",
        "MODES",
        "REPRESENTORS",
    ];
    let count = |n: Option<u32>| n.map_or("-".into(), |n| n.to_string());
    Ok(out.list(list, heading, |nic| {
        let caps = &nic.capabilities;
        [
            nic.device.clone(),
            nic.version.clone(),
            count(nic.queues),
            count(nic.queues_free),
            nic.channels.to_string(),
            count(nic.workers),
            nic.uplink.clone(),
            nic.profile.clone(),
            caps.modes.join(","),
            match &caps.no_representors {
                None => "netdevs".into(),
                why => format!("none: {}", or_dash(why.as_deref())),
            },
        ]
    })?)
}
