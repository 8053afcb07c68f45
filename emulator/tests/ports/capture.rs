//! Capture files that other tools wrote, and ours read by them.

use crate::netns::have;
use chanio_emu::port::{RECV_BUF_LEN, SendError, Uplink};
use std::io::IoSlice;
use std::path::Path;
use std::process::Command;

fn open(spec: &str) -> Uplink {
    Uplink::open(&spec.parse().unwrap()).unwrap()
}

fn tool(name: &str, args: &[&str]) -> String {
    let output = Command::new(name).args(args).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

/// UDP from 10.0.0.1 to 10.0.0.2 with an identification of `n`.
fn udp(n: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([
        0x45, 0, 0, 36, 0, n, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ]);
    frame.extend([0, 7, 0, 9, 0, 16, 0, 0]);
    frame.extend([n; 8]);
    frame
}

fn all_frames(port: &Uplink) -> Vec<Vec<u8>> {
    let mut buf = vec![0xee; RECV_BUF_LEN];
    let mut frames = Vec::new();
    assert!(port.fds().is_empty());
    while port.has_more() {
        let len = port.recv(&mut buf).unwrap().unwrap();
        assert_eq!(buf[..12], [0; 12]);
        frames.push(buf[12..len].to_vec());
    }
    assert_eq!(port.recv(&mut buf).unwrap(), None);
    frames
}

#[test]
fn tshark_reads_what_we_write_and_we_read_what_editcap_writes() {
    if !have("tshark") || !have("editcap") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let ours = file("ours.pcapng");
    let sent: Vec<_> = (1..=100).map(udp).collect();
    let port = open(&format!("pcap:,{ours}"));
    assert!(!port.has_more());
    let began = seconds_now();
    for frame in &sent {
        let (a, b) = frame.split_at(20);
        port.send(&[IoSlice::new(&[0; 12]), IoSlice::new(a), IoSlice::new(b)])
            .unwrap();
    }
    port.flush().unwrap();

    let fields = [
        "-T",
        "fields",
        "-e",
        "frame.time_epoch",
        "-e",
        "ip.id",
        "-e",
        "frame.len",
    ];
    let shown = tool(
        "tshark",
        &[&["-r", &ours, "-o", "ip.check_checksum:FALSE"], &fields[..]].concat(),
    );
    let rows: Vec<Vec<&str>> = shown
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    assert_eq!(rows.len(), sent.len(), "{shown}");
    let mut last = began;
    for (n, row) in (1..).zip(&rows) {
        let (seconds, fraction) = row[0].split_once('.').unwrap();
        assert_eq!(fraction.len(), 9, "nanoseconds: {}", row[0]);
        let time: f64 = row[0].parse().unwrap();
        assert!(
            time >= last - 0.001 && time < began + 30.0,
            "{seconds} {last}"
        );
        last = time;
        assert_eq!(
            u32::from_str_radix(row[1].trim_start_matches("0x"), 16),
            Ok(n)
        );
        assert_eq!(row[2], "50");
    }

    for format in ["pcap", "nsecpcap", "pcapng"] {
        let theirs = file(format);
        tool("editcap", &["-F", format, &ours, &theirs]);
        assert_eq!(
            all_frames(&open(&format!("pcap:{theirs}"))),
            sent,
            "{format}"
        );
    }
    // As captured with a snapshot length.
    let cut = file("cut");
    tool("editcap", &["-F", "pcap", "-s", "40", &ours, &cut]);
    let cut: Vec<_> = all_frames(&open(&format!("pcap:{cut},{}", file("unused"))));
    assert!(
        cut.iter()
            .zip(&sent)
            .all(|(cut, whole)| cut[..] == whole[..40])
    );
}

fn seconds_now() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs_f64()
}

#[test]
fn dropping_the_port_writes_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.pcapng");
    let port = open(&format!("pcap:,{}", path.display()));
    port.send(&[IoSlice::new(&[0; 12]), IoSlice::new(&udp(1))])
        .unwrap();
    drop(port);
    assert_eq!(
        all_frames(&open(&format!("pcap:{}", path.display()))),
        [udp(1)]
    );
}

#[test]
fn errors_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let why = |spec: String| {
        Uplink::open(&spec.parse().unwrap())
            .unwrap_err()
            .to_string()
    };
    let missing = dir.path().join("missing.pcap");
    let err = why(format!("pcap:{}", missing.display()));
    assert!(
        err.contains("missing.pcap") && err.contains("No such file"),
        "{err}"
    );
    let no_dir = dir.path().join("no/dir");
    let err = why(format!("pcap:,{}", no_dir.display()));
    assert!(
        err.contains("no/dir") && err.contains("No such file"),
        "{err}"
    );
    let junk = dir.path().join("junk");
    std::fs::write(&junk, [0x55; 100]).unwrap();
    let err = why(format!("pcap:{}", junk.display()));
    assert!(err.contains("junk: file header: "), "{err}");
    assert!(Path::new(&junk).exists());
    // A full disk is told, when the buffer is written.
    let full = open("pcap:,/dev/null");
    assert!(
        full.send(&[IoSlice::new(&[0; 12]), IoSlice::new(&udp(1))])
            .is_ok()
    );
    let refused = Uplink::open(&"pcap:,/dev/full".parse().unwrap());
    assert!(refused.is_err());
    assert!(matches!(
        full.send(&[IoSlice::new(&[1; 12])]),
        Err(SendError::BadHeader)
    ));
}
