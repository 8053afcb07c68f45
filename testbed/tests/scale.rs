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

/// Files that a process which plays a NIC has besides those of channels, and then some.
const OTHER_FILES: usize = 400;

/// Channels that are netdevs, by the driver layer: of devices of devlink's, and of the emulator's
/// own. In one namespace, and in a container, where moving each there costs the kernel a grace
/// period. A channel is two open files of the NIC's process, its netdev and its representor, so where
/// the limit of open files is lower they are shared out over several NICs. Takes many minutes:
/// `cargo nextest run --workspace --run-ignored only --no-capture -E 'test(through_the_driver)'`,
/// with CHANIO_CHANNELS in the environment for another number.
#[test]
#[ignore = "takes many minutes"]
fn ten_thousand_channels_through_the_driver_layer() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    // What IPv6 does for each netdev is not what is measured.
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    let wanted =
        std::env::var("CHANIO_CHANNELS").map_or(10_000_usize, |text| text.parse().unwrap());
    let limit = chanio_emu::port::nofile_limit((2 * wanted + OTHER_FILES) as u64) as usize;
    let nics = (2 * wanted).div_ceil(limit - OTHER_FILES);
    let container = chanio_testbed::netns::Netns::new("pod");
    for device in ["emu", "pci"] {
        for netns in ["home", container.name()] {
            let [made, listed, removed] = through_the_driver(device, netns, wanted, nics);
            let each = made * 1e3 / wanted as f64;
            println!(
                "{device}: {wanted} channels on {nics} NICs in netns {netns}: made in {made:.1} s \
                 ({each:.2} ms each), listed in {listed:.1} s, removed in {removed:.1} s"
            );
        }
    }
}

/// Seconds that making, listing and removing so many takes, on all of these NICs one after the other.
fn through_the_driver(device: &str, netns: &str, wanted: usize, nics: usize) -> [f64; 3] {
    let mut times = [0.0; 3];
    let mut all = Vec::new();
    for n in 0..nics {
        let dir = tempfile::tempdir().unwrap();
        let count = wanted / nics + usize::from(n < wanted % nics);
        let slot = format!("0000:{:02x}:00.0", n + 3);
        let options = format!(
            "--queues {} --netlink --pci {slot} --nic-index {n} --function-queues 1 --workers 1",
            count + 1
        );
        let emu = Emulator::start(dir.path(), &options);
        let (address, over): (String, Arc<dyn Transport>) = match device {
            "emu" => (
                format!("emu:{}", emu.run_dir().display()),
                Arc::new(Machine),
            ),
            _ => {
                let played = Played::find(emu.run_dir()).unwrap();
                (format!("pci/{slot}"), Arc::new(played))
            }
        };
        let address: DeviceAddress = address.parse().unwrap();
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
        let spec = |at: usize| ChannelSpec {
            attach: Attach::tap(&place, &format!("e{n}n{at}"), Vec::new()).unwrap(),
            ..wish(&format!("ch{at}"))
        };
        let begun = Instant::now();
        let made = nic.add_channels((0..count).map(spec).collect()).unwrap();
        times[0] += begun.elapsed().as_secs_f64();
        assert_eq!(made.len(), count);
        all.push((nic, emu, dir, count));
    }
    let begun = Instant::now();
    let mut names = Vec::new();
    for (nic, _, _, count) in &mut all {
        let listed = nic.channels(&[]).unwrap();
        assert_eq!(listed.len(), *count);
        names.push(listed.into_iter().map(|c| c.name).collect::<Vec<_>>());
    }
    times[1] = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    for ((nic, ..), names) in all.iter_mut().zip(&names) {
        nic.del_channels(names).unwrap();
    }
    times[2] = begun.elapsed().as_secs_f64();
    for (mut nic, emu, ..) in all {
        assert_eq!(nic.channels(&[]).unwrap().len(), 0);
        drop(nic);
        emu.stop();
    }
    times
}
