//! One frame at a time through a backend: how long it is under way.

use crate::backend::mac;
use crate::histogram::Histogram;
use chanio_emu::frontend::{Client, ClientOptions};
use chanio_model::Mac;
use std::io::BufRead;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes, without FCS.
const LENGTH: usize = 64;
/// A frame that takes longer is lost.
const LOST: Duration = Duration::from_millis(200);
/// A backend may take its time with a new client.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connects to two ports, says `ready`, and for each line of its input, a number of seconds, sends
/// frames one after the other, from the first port to the second and back by turns. Then it says
/// `times COUNT MEAN P50 P99`, in ns: from before a frame is put in a ring until it has been read
/// from the other.
///
/// # Errors
/// A port could not be connected, or a frame was lost.
pub fn run(first: &Path, second: &Path) -> Result<(), String> {
    let connect =
        |socket| Client::connect(socket, ClientOptions::default()).map_err(|e| e.to_string());
    let mut ports = [connect(first)?, connect(second)?];
    let frames = [frame(0, 1)?, frame(1, 0)?];
    let started = Instant::now();
    // Both ways, so that the switch knows both addresses.
    let mut good = 0;
    while good < 100 {
        let passed = pass(&mut ports, &frames, good % 2)?;
        good = if passed.is_some() { good + 1 } else { 0 };
        if started.elapsed() > PATIENCE {
            return Err("the backend forwards nothing".into());
        }
    }
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let seconds: f64 = line.parse().map_err(|e| format!("`{line}`: {e}"))?;
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        let mut times = Histogram::default();
        let mut from = 0;
        while Instant::now() < until {
            let time = pass(&mut ports, &frames, from)?;
            times.add(time.ok_or("a frame was lost")?.as_nanos() as u64);
            from = 1 - from;
        }
        println!(
            "times {} {:.0} {:.0} {:.0}",
            times.count(),
            times.mean(),
            times.quantile(0.5),
            times.quantile(0.99)
        );
    }
    Ok(())
}

/// Sends a frame from port `from` to the other; how long it took, none if it was lost.
fn pass(
    ports: &mut [Client; 2],
    frames: &[Vec<u8>; 2],
    from: usize,
) -> Result<Option<Duration>, String> {
    let mut received = Vec::with_capacity(2048);
    let started = Instant::now();
    let sent = ports[from].send(&frames[from]).map_err(|e| e.to_string())?;
    if !sent {
        return Err("the transmit ring is full".into());
    }
    ports[from].flush().map_err(|e| e.to_string())?;
    let mut polls = 0u32;
    loop {
        let got = ports[1 - from].receive(&mut received);
        if got.map_err(|e| e.to_string())? && received == frames[from] {
            return Ok(Some(started.elapsed()));
        }
        polls += 1;
        if polls.is_multiple_of(1024) && started.elapsed() > LOST {
            return Ok(None);
        }
    }
}

/// A frame of an EtherType for experiments (IEEE 802, 0x88b5), which nobody answers.
fn frame(from: usize, to: usize) -> Result<Vec<u8>, String> {
    let address = |port| mac(port).parse::<Mac>().map_err(|e| format!("{e}"));
    let mut frame = Vec::with_capacity(LENGTH);
    frame.extend(address(to)?.0);
    frame.extend(address(from)?.0);
    frame.extend(0x88b5u16.to_be_bytes());
    frame.resize(LENGTH, 0);
    Ok(frame)
}
