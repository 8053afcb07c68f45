use crate::fixture::{Bench, Client, Fake};
use chanio_emu::vhost::{SessionSpec, VhostServer};
use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

#[test]
fn one_client_at_a_time() {
    let bench = Bench::new(1);
    let client = bench.client();
    let mut second = UnixStream::connect(&bench.path).unwrap();
    second
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    assert_eq!(second.read(&mut [0]).unwrap(), 0, "turned away");
    drop(client);
    // The first has gone; it does not matter whether the server has noticed yet.
    drop(Client::negotiated(&bench.path, !0));
    bench.device.wait("both were served", |state| {
        state.connects == 2 && !state.connected
    });
}

#[test]
fn removing_stops_everything_before_it_returns() {
    let bench = Bench::new(1);
    let mut client = bench.client();
    client.run(0, 0);
    client.run(1, 0);
    bench.server.remove(vec![bench.handle]);
    assert!(
        bench
            .device
            .with(|state| state.rings.is_empty() && !state.connected)
    );
    assert!(!bench.path.exists());
    assert!(UnixStream::connect(&bench.path).is_err());
    // The handle is stale now, and that is all.
    bench.server.remove(vec![bench.handle]);
    bench.server.reset(&bench.handle);
}

#[test]
fn reset_disconnects_and_lets_the_client_come_back() {
    let bench = Bench::new(1);
    let mut client = bench.client();
    client.run(1, 0);
    bench.server.reset(&bench.handle);
    assert!(
        bench
            .device
            .with(|state| state.rings.is_empty() && !state.connected)
    );
    bench.client().run(1, 0);
    bench.device.wait("again", |state| state.starts == 2);
}

#[test]
fn adding_is_all_or_nothing() {
    let bench = Bench::new(1);
    let fresh = bench.path.with_extension("fresh");
    let specs = vec![
        SessionSpec::Listen(fresh.clone(), Fake::new(1)),
        SessionSpec::Listen(bench.path.clone(), Fake::new(1)),
    ];
    let error = bench.server.add(specs).unwrap_err().to_string();
    assert!(
        error.contains("c.sock") && error.contains("another process listens"),
        "{error}"
    );
    assert!(!fresh.exists());
    let long = bench.path.with_extension("x".repeat(108));
    for spec in [
        SessionSpec::Listen(long.clone(), Fake::new(1)),
        SessionSpec::Connect(long, Fake::new(1)),
    ] {
        let error = bench.server.add(vec![spec]).unwrap_err().to_string();
        assert!(error.contains("may have 1 to 107"), "{error}");
    }
}

#[test]
fn dropping_the_server_leaves_nothing_behind() {
    let bench = Bench::new(1);
    let _client = bench.client();
    let Bench {
        server,
        device,
        path,
        ..
    } = bench;
    drop(server);
    assert!(!path.exists());
    assert!(device.with(|state| !state.connected));
}

#[test]
fn a_connecting_channel_comes_back_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmm.sock");
    let server = VhostServer::start().unwrap();
    let device = Fake::new(1);
    let handle = server
        .add(vec![SessionSpec::Connect(path.clone(), device.clone())])
        .unwrap()[0];
    std::thread::sleep(Duration::from_millis(250));
    // Nobody was there; now somebody is.
    let listener = UnixListener::bind(&path).unwrap();
    let start = Instant::now();
    for n in 1..=3 {
        let (socket, _) = listener.accept().unwrap();
        device.wait("connected", |state| state.connects == n && state.connected);
        drop(socket);
        device.wait("lost", |state| !state.connected);
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    server.remove(vec![handle]);
    listener.set_nonblocking(true).unwrap();
    while listener.accept().is_ok() {}
    std::thread::sleep(Duration::from_millis(1200));
    assert!(
        listener.accept().is_err(),
        "removed, so it does not come back"
    );
}
