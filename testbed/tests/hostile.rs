//! Clients that break the rules, beside DPDK programs that do not: what `chanio channel show` says
//! of the former, and what the latter lose.

use chanio_emu::frontend::misbehave::{self, Violation};
use chanio_emu::frontend::{Client, ClientOptions};
use chanio_testbed::emulator::Emulator;
use chanio_testbed::hugepages::Hugepages;
use chanio_testbed::netns::isolate;
use chanio_testbed::process::wait_for;
use chanio_testbed::testpmd::Testpmd;
use serde_json::Value;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

fn options() -> ClientOptions {
    ClientOptions {
        queue_size: 64,
        features: misbehave::FEATURES,
        ..ClientOptions::default()
    }
}

/// A channel as the command line shows it.
fn shown(emu: &Emulator, channel: &str) -> Value {
    emu.json(&format!("channel show {channel}"))[0].take()
}

/// See `bad` stopped for a reason, in both forms that the command line has.
fn stopped(emu: &Emulator, what: &str, says: &str) {
    wait_for(what, PATIENCE, || shown(emu, "bad")["state"] == "faulted");
    let fault = shown(emu, "bad")["fault"].take();
    let fault = fault.as_str().unwrap_or_default();
    println!("{what}: {fault}");
    assert!(fault.contains(says), "`{fault}` does not say `{says}`");
    let table = emu.chanio("channel show bad");
    assert!(
        table.contains("faulted") && table.contains(fault),
        "{table}"
    );
}

/// Packets that the channel sent, received, and lost.
fn counted(emu: &Emulator, channel: &str) -> (u64, u64, u64) {
    let stats = emu.json(&format!("stats {channel}"))[0].take();
    let number = |v: &Value| v.as_u64().expect("a counter");
    let drops = stats["drops"].as_object().expect("drops");
    (
        number(&stats["tx_packets"]),
        number(&stats["rx_packets"]),
        drops.values().map(number).sum(),
    )
}

#[test]
fn each_violation_is_shown_and_dpdk_beside_it_loses_nothing() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let pages = Hugepages::reserve(dir.path(), 256);
    let emu = Emulator::start(dir.path(), "--queues 10 --representors off --workers 1");
    emu.chanio("eswitch set --mode switchdev");
    for name in ["steady1", "steady2", "flood", "bad"] {
        emu.chanio(&format!("channel add {name}"));
    }
    for (from, to) in [
        ("steady1", "steady2"),
        ("steady2", "steady1"),
        ("flood", "bad"),
        ("bad", "flood"),
    ] {
        emu.chanio(&format!("flow add in_port {from} action redirect {to}"));
    }
    let sockets = [emu.socket("steady1"), emu.socket("steady2")];
    let sockets: Vec<&Path> = sockets.iter().map(|s| s.as_path()).collect();
    let mut steady = Testpmd::start("steady", dir.path(), &pages, &sockets, "");
    // 32 packets in each direction, for ever: one that is lost is missing at the end.
    steady.command("set fwd io");
    steady.command("start tx_first 1");

    // Whatever is done to `bad` is done under traffic to it.
    let flooding = AtomicBool::new(true);
    let sent = std::thread::scope(|threads| {
        let flood = threads.spawn(|| {
            let mut client = Client::connect(&emu.socket("flood"), options()).unwrap();
            let (mut sent, mut got) = (0u64, Vec::new());
            while flooding.load(Ordering::Relaxed) {
                while client.send(&[0x22; 600]).unwrap() {
                    sent += 1;
                }
                client.flush().unwrap();
                while client.receive(&mut got).unwrap() {}
                std::thread::sleep(Duration::from_millis(1));
            }
            wait_for("the last packets to go", PATIENCE, || {
                client.in_flight().unwrap() == 0
            });
            sent
        });
        let stop_flood = Stop(&flooding);
        for violation in misbehave::IN_RINGS.iter().chain(&misbehave::IN_MESSAGES) {
            let Violation { what, says, harm } = violation;
            let mut client = Client::connect(&emu.socket("bad"), options()).unwrap();
            wait_for("it to receive", PATIENCE, || {
                client.receive(&mut Vec::new()).unwrap()
            });
            assert_eq!(shown(&emu, "bad")["state"], "running");
            harm(&client);
            stopped(&emu, what, says);
        }
        // Who stays connected can be let in again.
        let again = &misbehave::IN_RINGS[0];
        let client = Client::connect(&emu.socket("bad"), options()).unwrap();
        (again.harm)(&client);
        stopped(&emu, "and again", again.says);
        emu.chanio("channel set bad --clear-fault");
        let cleared = shown(&emu, "bad");
        assert_eq!(
            (&cleared["state"], &cleared["fault"]),
            (&"disconnected".into(), &Value::Null)
        );
        drop(client);
        for (what, bytes, says) in [
            (
                "a message cut short",
                &[1, 0, 0, 0, 1][..],
                "truncated vhost-user message: 5 bytes",
            ),
            (
                "a message of four gigabytes",
                &[2, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff][..],
                "4294967295 bytes",
            ),
            (
                "a message that does not exist",
                &[99, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..],
                "request 99",
            ),
        ] {
            // The one before may still be on its way out, and then this one is turned away.
            wait_for(what, PATIENCE, || {
                let socket = UnixStream::connect(emu.socket("bad")).unwrap();
                let _ = (&socket).write_all(bytes);
                drop(socket);
                std::thread::sleep(Duration::from_millis(50));
                shown(&emu, "bad")["fault"]
                    .as_str()
                    .unwrap_or_default()
                    .contains(says)
            });
            stopped(&emu, what, says);
        }
        // A client that behaves finds the channel as new.
        let mut client = Client::connect(&emu.socket("bad"), options()).unwrap();
        wait_for("it to receive", PATIENCE, || {
            client.receive(&mut Vec::new()).unwrap()
        });
        assert_eq!(shown(&emu, "bad")["state"], "running");
        drop(stop_flood);
        flood.join().unwrap()
    });

    // Every packet of the flood has arrived or was lost for a reason.
    let (flooded, _, _) = counted(&emu, "flood");
    let (_, arrived, lost) = counted(&emu, "bad");
    println!("flood: {sent} sent, {arrived} delivered, {lost} lost at `bad`");
    assert_eq!((flooded, arrived + lost), (sent, sent));

    steady.command("stop");
    steady.drain();
    let client = steady.stats();
    println!("beside them: {client:?}");
    assert!(client[0].tx > 10_000, "{client:?}");
    for (i, name) in ["steady1", "steady2"].iter().enumerate() {
        assert_eq!(client[i].tx, client[1 - i].rx, "{client:?}");
        assert_eq!(counted(&emu, name), (client[i].tx, client[i].rx, 0));
    }
    emu.stop();
}

/// Ends the flood, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
