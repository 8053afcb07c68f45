//! Ten thousand channels, through the programs that users run.

use chanio::DeviceAddress;
use chanio::device::open_over;
use chanio::nic::{ChannelSpec, EswitchChange};
use chanio::transport::{Machine, Played, Transport};
use chanio_emu::nic::spec::Attach;
use chanio_testbed::conform::bed::wish;
use chanio_testbed::emulator::Emulator;
use chanio_testbed::netns::isolate;
use std::sync::Arc;
use std::time::Instant;

/// Resident memory of a process, MiB.
fn rss(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    line.trim()
        .trim_end_matches(" kB")
        .parse::<f64>()
        .expect("a number")
        / 1024.0
}

fn scale(representors: &str, channels: u32) {
    let dir = tempfile::tempdir().unwrap();
    let options = format!("--queues 10000 --representors {representors} --workers 1");
    let emu = Emulator::start(dir.path(), &options);
    let before = rss(emu.pid());
    let chanio = |words: &str| {
        let started = Instant::now();
        (emu.chanio(words), started.elapsed())
    };
    let (_, created) = chanio(&format!("channel add ch --count {channels}"));
    let full = rss(emu.pid());
    let (text, listed) = chanio("--json channel show");
    let list: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(list.len() as u32, channels);
    assert!(
        list.iter()
            .all(|c| c["representor"].is_string() == (representors == "tap"))
    );
    let sockets = std::fs::read_dir(emu.run_dir().join("channel"))
        .unwrap()
        .count() as u32;
    assert_eq!(sockets, channels);
    let netdevs = || {
        let names = std::fs::read_dir("/sys/class/net").unwrap().flatten();
        names
            .filter(|e| e.file_name().to_string_lossy().starts_with("c0pf0sf"))
            .count() as u32
    };
    assert_eq!(netdevs(), if representors == "tap" { channels } else { 0 });
    let (_, deleted) = chanio("channel del --all");
    assert_eq!(netdevs(), 0);
    let (_, again) = chanio("channel add ch --count 100");
    println!(
        "{channels} channels, representors {representors}: created {:.2} s, listed {:.2} s, deleted \
         {:.2} s, 100 more {:.2} s; RSS {before:.1} MiB before, {full:.1} MiB with all ({:.1} KiB each)",
        created.as_secs_f64(),
        listed.as_secs_f64(),
        deleted.as_secs_f64(),
        again.as_secs_f64(),
        (full - before) * 1024.0 / f64::from(channels)
    );
    emu.stop();
    assert_eq!(netdevs(), 0);
}

#[test]
fn ten_thousand_channels() {
    scale("off", 10_000);
}

#[test]
fn ten_thousand_channels_with_representors() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    // A representor each, and the process's own.
    let limit = chanio_emu::port::nofile_limit(10_000 + 1_200);
    let channels = 10_000.min(limit - 200) as u32;
    if channels < 10_000 {
        println!("{channels} channels instead of 10000: the limit of open files is {limit}");
    }
    scale("tap", channels);
}

/// Channels that are netdevs, by the driver layer: of a device of devlink's, and of the emulator's
/// own. In one namespace, and in a container, where moving each there costs the kernel a grace
/// period. Takes minutes:
/// `cargo nextest run --workspace --run-ignored only --no-capture -E 'test(through_the_driver)'`,
/// with CHANIO_CHANNELS in the environment for another number.
#[test]
#[ignore = "takes minutes"]
fn ten_thousand_channels_through_the_driver_layer() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    // What IPv6 does for each netdev is not what is measured.
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    let wanted =
        std::env::var("CHANIO_CHANNELS").map_or(10_000_usize, |text| text.parse().unwrap());
    // A representor and a netdev each.
    let limit = chanio_emu::port::nofile_limit(2 * wanted as u64 + 1_200);
    let count = wanted.min(limit.saturating_sub(100) as usize / 2);
    if count < wanted {
        println!("{count} channels instead of {wanted}: the limit of open files is {limit}");
    }
    let container = chanio_testbed::netns::Netns::new("pod");
    for device in ["pci/0000:03:00.0", "emu"] {
        for netns in ["home", container.name()] {
            let dir = tempfile::tempdir().unwrap();
            let options = format!(
                "--queues {} --netlink --function-queues 1 --workers 1",
                count + 1
            );
            let emu = Emulator::start(dir.path(), &options);
            let (address, over): (DeviceAddress, Arc<dyn Transport>) = match device {
                "emu" => {
                    let address = format!("emu:{}", emu.run_dir().display());
                    (address.parse().unwrap(), Arc::new(Machine))
                }
                pci => {
                    let played = Played::find(emu.run_dir()).unwrap();
                    (pci.parse().unwrap(), Arc::new(played))
                }
            };
            let mut nic = open_over(&address, over).unwrap();
            let switchdev = Some(true);
            let mode = EswitchChange {
                switchdev,
                ..EswitchChange::default()
            };
            nic.set_eswitch(mode).unwrap();
            let place = match netns {
                "home" => format!("/proc/{}/ns/net", emu.pid()),
                name => name.to_owned(),
            };
            let spec = |n: usize| ChannelSpec {
                attach: Attach::tap(&place, &format!("e{n}"), Vec::new()).unwrap(),
                ..wish(&format!("ch{n}"))
            };
            let begun = Instant::now();
            let made = nic.add_channels((0..count).map(spec).collect()).unwrap();
            let made_in = begun.elapsed();
            assert_eq!(made.len(), count);
            let begun = Instant::now();
            assert_eq!(nic.channels(&[]).unwrap().len(), count);
            println!(
                "{device}: {count} channels in netns {netns}: made in {:.1} s ({:.2} ms each), listed \
                 in {:.1} s",
                made_in.as_secs_f64(),
                made_in.as_secs_f64() * 1e3 / count as f64,
                begun.elapsed().as_secs_f64(),
            );
            emu.stop();
        }
    }
}
