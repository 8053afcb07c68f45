use crate::fixture::{BASE, Bench, Client, Fake};
use chanio_emu::vhost::SessionSpec;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use vhost::VhostBackend;
use vhost::vhost_user::Frontend;

const GET_FEATURES: u32 = 1;
const SET_FEATURES: u32 = 2;
const SET_MEM_TABLE: u32 = 5;
const SET_VRING_KICK: u32 = 12;
const GET_PROTOCOL_FEATURES: u32 = 15;
const SET_PROTOCOL_FEATURES: u32 = 16;
const SEND_RARP: u32 = 19;
const NET_SET_MTU: u32 = 20;
const SET_BACKEND_REQ_FD: u32 = 21;
const NEED_REPLY: u32 = 8;

fn message(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [request, 1 | flags, body.len() as u32] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(body);
    bytes
}

fn send_fds(socket: &UnixStream, bytes: &[u8], fds: &[RawFd]) {
    let control = [ControlMessage::ScmRights(fds)];
    let parts = [IoSlice::new(bytes)];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &parts,
        &control,
        MsgFlags::empty(),
        None,
    )
    .unwrap();
}

fn raw(bench: &Bench) -> UnixStream {
    let socket = UnixStream::connect(&bench.path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    socket
}

/// The body of one reply.
fn reply(socket: &mut UnixStream, request: u32) -> u64 {
    let mut bytes = [0; 20];
    socket.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes[..4], request.to_ne_bytes());
    assert_eq!(bytes[4..8], 5u32.to_ne_bytes(), "version 1, a reply");
    u64::from_ne_bytes(bytes[12..].try_into().unwrap())
}

/// Negotiates MTU, BACKEND_REQ and REPLY_ACK.
fn negotiate(socket: &mut UnixStream) {
    socket.write_all(&message(GET_FEATURES, 0, &[])).unwrap();
    reply(socket, GET_FEATURES);
    socket
        .write_all(&message(GET_PROTOCOL_FEATURES, 0, &[]))
        .unwrap();
    reply(socket, GET_PROTOCOL_FEATURES);
    let protocol = 1u64 << 3 | 1 << 4 | 1 << 5;
    socket
        .write_all(&message(SET_PROTOCOL_FEATURES, 0, &protocol.to_ne_bytes()))
        .unwrap();
    let features = 1u64 << 30 | 1 << 32;
    socket
        .write_all(&message(SET_FEATURES, NEED_REPLY, &features.to_ne_bytes()))
        .unwrap();
    assert_eq!(reply(socket, SET_FEATURES), 0);
}

#[test]
fn half_a_message_delays_nobody() {
    let bench = Bench::new(1);
    let other = Fake::new(1);
    let path = bench.path.with_extension("other");
    bench
        .server
        .add(vec![SessionSpec::Listen(path.clone(), other)])
        .unwrap();
    let mut slow = raw(&bench);
    let whole = message(GET_FEATURES, 0, &[]);
    slow.write_all(&whole[..5]).unwrap();
    let start = Instant::now();
    for _ in 0..100 {
        Frontend::connect(&path, 2).unwrap().get_features().unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    // In pieces of one byte, and it is answered all the same.
    for byte in &whole[5..] {
        slow.write_all(&[*byte]).unwrap();
    }
    assert_ne!(reply(&mut slow, GET_FEATURES), 0);
    let set = message(SET_FEATURES, 0, &(1u64 << 32).to_ne_bytes());
    for byte in set {
        slow.write_all(&[byte]).unwrap();
    }
    bench
        .device
        .wait("features", |state| state.features == 1 << 32);
}

#[test]
fn waiting_for_the_rest_of_a_message_costs_no_cpu() {
    let bench = Bench::new(1);
    let mut slow = raw(&bench);
    slow.write_all(&message(SET_FEATURES, 0, &[0; 8])[..15])
        .unwrap();
    bench.device.wait("connected", |state| state.connected);
    let before = session_thread_ticks();
    std::thread::sleep(Duration::from_millis(500));
    let spent = session_thread_ticks() - before;
    assert!(
        spent < 10,
        "{spent} ticks of 10 ms in half a second of waiting"
    );
}

/// User and system time of this process's threads named `vhost`, in clock ticks. Other tests of the
/// same process idle in theirs, or the test above would be wrong under a runner with threads.
fn session_thread_ticks() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok())
        .filter(|stat| stat.contains("(vhost)"))
        .map(|stat| {
            let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        })
        .sum()
}

#[test]
fn leaving_in_the_middle_of_a_message_is_a_fault_leaving_between_two_is_not() {
    let bench = Bench::new(1);
    let mut socket = raw(&bench);
    socket.write_all(&message(GET_FEATURES, 0, &[])).unwrap();
    reply(&mut socket, GET_FEATURES);
    drop(socket);
    bench
        .device
        .wait("gone", |state| state.connects == 1 && !state.connected);
    assert!(bench.device.with(|state| state.faults.is_empty()));

    for cut in [1, 11, 12, 19] {
        let mut socket = raw(&bench);
        socket
            .write_all(&message(SET_FEATURES, 0, &[0; 8])[..cut])
            .unwrap();
        drop(socket);
        let reason = format!("truncated vhost-user message: {cut} bytes");
        bench.device.wait_fault(&reason);
    }
}

#[test]
fn nonsense_ends_the_session_with_a_reason() {
    let huge = {
        let mut bytes = message(SET_FEATURES, 0, &[]);
        bytes[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
        bytes
    };
    let mut version = message(GET_FEATURES, 0, &[]);
    version[4] = 2;
    let cases: [(Vec<u8>, &str); 8] = [
        (huge, "SET_FEATURES of 4294967295 bytes, at most 4096"),
        (version, "version 2 instead of 1"),
        (message(99, 0, &[]), "request 99: invalid message"),
        (
            message(GET_FEATURES, 0x40, &[]),
            "GET_FEATURES: invalid message",
        ),
        (
            message(SET_FEATURES, 0, &[0; 4]),
            "SET_FEATURES: invalid message",
        ),
        (
            message(SET_MEM_TABLE, 0, &[0xff; 40]),
            "SET_MEM_TABLE: invalid message",
        ),
        (
            message(SET_VRING_KICK, 0, &[0; 8]),
            "SET_VRING_KICK: invalid message",
        ),
        (message(NET_SET_MTU, 0, &[0; 100]), "NET_SET_MTU: 100 bytes"),
    ];
    let bench = Bench::new(1);
    for (i, (bytes, reason)) in cases.into_iter().enumerate() {
        raw(&bench).write_all(&bytes).unwrap();
        bench
            .device
            .wait(reason, |state| state.faults.len() > i && !state.connected);
        let fault = bench.device.with(|state| state.faults[i].clone());
        assert!(fault.contains(reason), "{fault}");
    }
}

#[test]
fn any_bytes_at_all_are_survived() {
    let bench = Bench::new(1);
    // A small generator, so that a failure can be repeated.
    let mut x = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    for _ in 0..500 {
        let mut socket = raw(&bench);
        for _ in 0..4 {
            let len = (next() % 64) as usize;
            let body: Vec<u8> = (0..len).map(|_| next() as u8).collect();
            let mut bytes = message(
                (next() % 46) as u32,
                (next() as u32 & 1) * NEED_REPLY,
                &body,
            );
            if next() % 4 == 0 {
                let at = next() as usize % bytes.len();
                bytes[at] ^= next() as u8;
            }
            // The server may have hung up.
            let _ = socket.write_all(&bytes);
        }
    }
    bench
        .device
        .wait("the last has gone", |state| !state.connected);
    Client::negotiated(&bench.path, !0);
}

#[test]
fn descriptors_must_be_what_the_message_says() {
    let bench = Bench::new(1);
    let null = File::open("/dev/null").unwrap();
    let cases: [(u32, Vec<u8>, &str); 4] = [
        (SET_VRING_KICK, vec![0; 8], "not an eventfd"),
        (SET_BACKEND_REQ_FD, vec![], "not a stream socket"),
        (NET_SET_MTU, vec![0; 8], "descriptors are attached"),
        (GET_FEATURES, vec![], "GET_FEATURES: invalid message"),
    ];
    for (i, (request, body, reason)) in cases.into_iter().enumerate() {
        let mut socket = raw(&bench);
        negotiate(&mut socket);
        send_fds(&socket, &message(request, 0, &body), &[null.as_raw_fd()]);
        bench
            .device
            .wait(reason, |state| state.faults.len() > i && !state.connected);
        let fault = bench.device.with(|state| state.faults[i].clone());
        assert!(fault.contains(reason), "{fault}");
    }
}

#[test]
fn memory_must_be_memory() {
    let bench = Bench::new(1);
    let client = Client::negotiated(&bench.path, !0);
    let mut overlapping = client.region();
    overlapping.guest_phys_addr += 0x1000;
    client
        .frontend
        .set_mem_table(&[client.region(), overlapping])
        .unwrap_err();
    bench.device.wait_fault("overlap");

    let client = Client::negotiated(&bench.path, !0);
    let mut long = client.region();
    long.memory_size *= 2;
    client.frontend.set_mem_table(&[long]).unwrap_err();
    bench.device.wait_fault("needs a file of");

    let client = Client::negotiated(&bench.path, !0);
    let mut null = client.region();
    let file = File::open("/dev/null").unwrap();
    null.mmap_handle = file.as_raw_fd();
    client.frontend.set_mem_table(&[null]).unwrap_err();
    bench
        .device
        .wait_fault(&format!("memory region at {BASE:#x}: not a regular file"));
}

#[test]
fn descriptors_in_the_middle_of_a_header_are_a_fault() {
    let bench = Bench::new(1);
    let mut socket = raw(&bench);
    let null = File::open("/dev/null").unwrap();
    let bytes = message(GET_FEATURES, 0, &[]);
    send_fds(&socket, &bytes[..4], &[null.as_raw_fd()]);
    socket.write_all(&bytes[4..]).unwrap();
    bench.device.wait_fault("cut in two");
}

#[test]
fn a_client_that_reads_no_replies_is_left_alone_until_it_does() {
    let bench = Bench::new(1);
    let mut socket = raw(&bench);
    socket.set_nonblocking(true).unwrap();
    let request = message(GET_FEATURES, 0, &[]);
    let mut sent = 0;
    let start = Instant::now();
    // Until both directions are full.
    let mut quiet = Instant::now();
    while quiet.elapsed() < Duration::from_millis(200) && start.elapsed() < Duration::from_secs(5) {
        if let Ok(n) = socket.write(&request) {
            assert_eq!(n, request.len());
            sent += 1;
            quiet = Instant::now();
        }
    }
    assert!(
        quiet.elapsed() >= Duration::from_millis(200),
        "{sent} requests, and no end"
    );
    // Others are served meanwhile.
    let path = bench.path.with_extension("other");
    bench
        .server
        .add(vec![SessionSpec::Listen(path.clone(), Fake::new(1))])
        .unwrap();
    Frontend::connect(&path, 2).unwrap().get_features().unwrap();
    // Then every request gets its reply.
    socket.set_nonblocking(false).unwrap();
    for _ in 0..sent {
        assert_ne!(reply(&mut socket, GET_FEATURES), 0);
    }
    assert!(
        bench
            .device
            .with(|state| state.connected && state.faults.is_empty())
    );
}

#[test]
fn mtu_and_rarp_are_answered() {
    let bench = Bench::new(1);
    let mut socket = raw(&bench);
    negotiate(&mut socket);
    for (mtu, refused) in [(68u64, 0), (1500, 0), (67, 1), (1501, 1), (1 << 40, 1)] {
        socket
            .write_all(&message(NET_SET_MTU, NEED_REPLY, &mtu.to_ne_bytes()))
            .unwrap();
        assert_eq!(reply(&mut socket, NET_SET_MTU), refused, "{mtu}");
    }
    socket
        .write_all(&message(SEND_RARP, NEED_REPLY, &[2, 0, 0, 0, 0, 7, 0, 0]))
        .unwrap();
    assert_eq!(reply(&mut socket, SEND_RARP), 1, "was not offered");
    assert!(
        bench
            .device
            .with(|state| state.connected && state.faults.is_empty())
    );
}

#[test]
fn config_space_past_its_end_is_answered_with_nothing() {
    const GET_CONFIG: u32 = 24;
    let bench = Bench::new(1);
    let mut socket = raw(&bench);
    let protocol = 1u64 << 9;
    socket
        .write_all(&message(SET_PROTOCOL_FEATURES, 0, &protocol.to_ne_bytes()))
        .unwrap();
    let ask = |offset: u32, size: u32| {
        let mut body: Vec<u8> = [offset, size, 0]
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .collect();
        body.resize(12 + size as usize, 0);
        message(GET_CONFIG, 0, &body)
    };
    socket.write_all(&ask(250, 12)).unwrap();
    let mut answer = [0; 24];
    socket.read_exact(&mut answer).unwrap();
    // The protocol's way to refuse: size 0 in the header of the config, and nothing behind it.
    let expected: Vec<u8> = [GET_CONFIG, 5, 12, 250, 0, 0]
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    assert_eq!(answer[..], expected);
    socket.write_all(&ask(6, 6)).unwrap();
    let mut answer = [0; 30];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer[24..], [1, 0, 1, 0, 0xdc, 5]);
}

#[test]
fn config_changes_are_told_on_the_backend_channel() {
    let bench = Bench::new(1);
    let mut socket = raw(&bench);
    negotiate(&mut socket);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    send_fds(
        &socket,
        &message(SET_BACKEND_REQ_FD, NEED_REPLY, &[]),
        &[ours.as_raw_fd()],
    );
    assert_eq!(reply(&mut socket, SET_BACKEND_REQ_FD), 0);
    bench.server.config_changed(&bench.handle);
    theirs
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut told = [0; 12];
    UnixStream::read_exact(&mut theirs, &mut told).unwrap();
    assert_eq!(told[..], message(2, 0, &[])[..]);
}
