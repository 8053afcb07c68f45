//! What sessions cost in descriptors: in a binary of their own, one at a time, since they count and
//! take those of the whole process.

#[allow(dead_code)]
#[path = "vhost_session/fixture.rs"]
mod fixture;

use chanio_emu::vhost::SessionSpec;
use fixture::{Bench, Client, Fake, eventfd};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Open files of this thread, and so of all but the doorman. It counts the folder itself too.
fn open_files() -> usize {
    std::fs::read_dir("/proc/thread-self/fd").unwrap().count()
}

#[test]
fn clients_are_accepted_once_there_are_descriptors_again() {
    let _alone = alone();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 256.min(hard), hard).unwrap();
    let bench = Bench::new(1);
    let mut filler = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        filler.push(file);
    }
    filler.pop();
    let _client = UnixStream::connect(&bench.path).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        !bench.device.with(|state| state.connected),
        "there is no descriptor for it"
    );
    filler.clear();
    bench.device.wait("accepted", |state| state.connected);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
}

#[test]
fn a_socket_that_waits_for_its_client_costs_nothing() {
    let _alone = alone();
    let bench = Bench::new(1);
    let before = open_files();
    let path = |i: usize| bench.path.with_file_name(format!("{i}.sock"));
    let specs = |count| (0..count).map(|i| SessionSpec::Listen(path(i), Fake::new(1)));
    let handles = bench.server.add(specs(200).collect()).unwrap();
    assert_eq!(open_files(), before);
    let frontend = Client::negotiated(&path(123), !0).frontend;
    assert!(frontend.get_features().is_ok());
    bench.server.remove(handles);
    assert!(!path(123).exists());

    // Its own table is full one day as well: all or nothing, and the rest goes on.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 256.min(hard), hard).unwrap();
    let error = bench.server.add(specs(300).collect()).unwrap_err();
    assert!(error.to_string().contains("Too many open files"), "{error}");
    assert!((0..300).all(|i| !path(i).exists()));
    let _client = bench.client();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
}

#[test]
fn a_kick_that_is_never_read_is_not_kept() {
    let _alone = alone();
    let bench = Bench::new(2);
    let mut client = bench.client();
    let before = open_files();
    let queues: Vec<_> = (0..4).map(|index| client.set_up(index, 0)).collect();
    // Four calls, and the kicks of the two transmit rings.
    assert_eq!(open_files(), before + 6);
    for index in 0..4 {
        client.frontend.set_vring_enable(index, true).unwrap();
    }
    assert_eq!(bench.device.with(|state| state.starts), 4);
    // A stopped ring needs a new kick, also when nothing was kept of the old one.
    let base = client.frontend.get_vring_base(2).unwrap() as u16;
    client.frontend.set_vring_call(2, &client.call).unwrap();
    assert_eq!(bench.device.with(|state| state.starts), 4);
    client.run_existing(2, &queues[2], base).unwrap();
    assert_eq!(bench.device.with(|state| state.starts), 5);
    assert_eq!(open_files(), before + 6);
    // What is closed at once has to be an eventfd all the same.
    client.frontend.get_vring_base(0).unwrap();
    let message = words(&[12, 1, 8, 0, 0]);
    send_with(
        client.frontend.as_raw_fd(),
        &message,
        &[File::open("/dev/null").unwrap()],
    );
    bench.device.wait_fault("not an eventfd");
}

#[test]
fn too_many_descriptors_are_closed_again() {
    let _alone = alone();
    let bench = Bench::new(1);
    let before = open_files();
    let many: Vec<_> = (0..20).map(|_| eventfd()).collect();
    for request in [18u32, 12] {
        let mut socket = UnixStream::connect(&bench.path).unwrap();
        send_with(socket.as_raw_fd(), &words(&[request, 1, 8, 0, 0]), &many);
        let _ = socket.read(&mut [0]);
        bench.device.wait("hung up", |state| !state.connected);
    }
    assert_eq!(open_files(), before + many.len());
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn send_with(socket: i32, bytes: &[u8], files: &[impl AsRawFd]) {
    let fds: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(
        socket,
        &[IoSlice::new(bytes)],
        &rights,
        MsgFlags::empty(),
        None,
    )
    .unwrap();
}
