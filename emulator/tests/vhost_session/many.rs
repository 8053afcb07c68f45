use crate::fixture::Fake;
use chanio_emu::vhost::{SessionSpec, VhostServer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vhost::VhostBackend;
use vhost::vhost_user::{Frontend, VhostUserFrontend};

/// Both ends are in this process: three descriptors for each.
const CHANNELS: usize = 2000;

#[test]
fn two_thousand_clients_at_once_on_one_thread() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let needed = (3 * CHANNELS + 100) as u64;
    assert!(
        hard >= needed,
        "needs RLIMIT_NOFILE of {needed}, the hard limit is {hard}"
    );
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let server = VhostServer::start().unwrap();
    let devices: Vec<Arc<Fake>> = (0..CHANNELS).map(|_| Fake::new(1)).collect();
    let path = |i: usize| dir.path().join(format!("{i}.sock"));
    let specs = devices.iter().enumerate();
    let specs = specs
        .map(|(i, device)| SessionSpec::Listen(path(i), device.clone()))
        .collect();
    let start = Instant::now();
    let handles = server.add(specs).unwrap();
    let listening = start.elapsed();

    let start = Instant::now();
    let mut frontends: Vec<_> = (0..CHANNELS)
        .map(|i| Frontend::connect(path(i), 2).unwrap())
        .collect();
    for frontend in &mut frontends {
        let features = frontend.get_features().unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(protocol).unwrap();
        frontend.set_features(features).unwrap();
    }
    for device in &devices {
        device.wait("negotiated", |state| state.features != 0);
    }
    let negotiating = start.elapsed();
    // Generous: a machine that runs other tests too.
    let limit = Duration::from_secs(60);
    assert!(
        listening < limit && negotiating < limit,
        "{listening:?} {negotiating:?}"
    );

    server.remove(handles);
    assert!(
        devices
            .iter()
            .all(|device| device.with(|state| !state.connected))
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
