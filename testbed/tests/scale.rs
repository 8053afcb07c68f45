//! Ten thousand channels, through the programs that users run.

use chanio_testbed::emulator::Emulator;
use chanio_testbed::netns::isolate;
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
