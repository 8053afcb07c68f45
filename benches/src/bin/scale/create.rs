//! How long channels take to be made: beside `ip`, which makes as many TAPs and nothing else.

use crate::emulator::Emulator;
use crate::spread;
use chanio_emu::port::Netdevs;
use chanio_testbed::netns::isolate;
use chanio_testbed::process;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

pub fn run(channels: u32, repeat: u32) {
    let (mut plain, mut gone) = (Vec::new(), Vec::new());
    for _ in 0..repeat {
        let (made, removed) = create(channels, "off");
        plain.push(made);
        gone.push(removed);
    }
    println!("{channels} channels, {repeat} times, seconds min / median / max");
    println!("  created without representors   {}", spread(&mut plain));
    println!("  removed                        {}", spread(&mut gone));
    if !chanio_testbed::can_run() {
        return println!("  (representors need root)");
    }
    isolate();
    let (mut with, mut gone, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    let mut ratios = Vec::new();
    for _ in 0..repeat {
        let ip = ip_batch(channels);
        let (made, removed) = create(channels, "tap");
        theirs.push(ip);
        with.push(made);
        gone.push(removed);
        ratios.push(made / ip);
    }
    println!("  created with representors      {}", spread(&mut with));
    println!("  removed                        {}", spread(&mut gone));
    println!("  as many TAPs by ip -batch      {}", spread(&mut theirs));
    println!("  ratio, run by run              {}", spread(&mut ratios));
}

fn create(channels: u32, representors: &str) -> (f64, f64) {
    let emulator = Emulator::start(channels, representors, 1);
    let made = emulator.chanio(&format!("channel add ch --count {channels}"));
    let removed = emulator.chanio("channel del --all");
    emulator.stop();
    (made, removed)
}

/// TAPs in the namespace that the representors are made in as well; seconds.
fn ip_batch(count: u32) -> f64 {
    let line = |n| format!("tuntap add dev t{n} mode tap vnet_hdr\n");
    let lines: String = (1..=count).map(line).collect();
    let started = Instant::now();
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("ip");
    let mut stdin = ip.stdin.take().expect("piped");
    stdin.write_all(lines.as_bytes()).expect("ip reads");
    drop(stdin);
    assert!(ip.wait().expect("own child").success());
    let took = started.elapsed().as_secs_f64();

    let links = process::run(Command::new("ip").args(["-o", "link", "show", "type", "tun"]));
    let index = |line: &str| line.split(':').next()?.trim().parse().ok();
    let made: Vec<u32> = links.lines().filter_map(index).collect();
    assert_eq!(made.len(), count as usize);
    let netdevs = Netdevs::open().expect("netlink");
    netdevs.delete(&made).expect("they are ours");
    took
}
