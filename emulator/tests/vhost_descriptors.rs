//! A process that has run out of descriptors: alone in its binary, since it takes them all.

#[allow(dead_code)]
#[path = "vhost_session/fixture.rs"]
mod fixture;

use fixture::Bench;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::time::Duration;

#[test]
fn clients_are_accepted_once_there_are_descriptors_again() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
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
}
