use crate::fixture::{
    BASE, BUFFERS, Bench, Client, PROTOCOL_FEATURES, SIZE, SPLIT, addresses, region,
};
use chanio_emu::ring::driver::SharedArea;
use std::io::Write;
use std::os::unix::net::UnixStream;
use vhost::VhostBackend;
use vhost::vhost_user::{Frontend, VhostUserFrontend};

#[test]
fn a_ring_runs_from_its_base_until_it_is_asked_for() {
    let bench = Bench::new(1);
    let mut client = bench.client();
    let mut queue = client.set_up(1, 65_530);
    assert_eq!(
        bench.device.with(|state| state.starts),
        0,
        "not before it is enabled"
    );
    client.frontend.set_vring_enable(1, true).unwrap();
    // The reply goes out after the ring was started.
    assert_eq!(bench.device.with(|state| state.starts), 1);
    for len in 60..70 {
        queue.add_out(&[(BUFFERS, len)]).unwrap();
    }
    queue.publish();
    assert_eq!(bench.device.pop(1), (60..70).collect::<Vec<_>>());
    assert_eq!(client.frontend.get_vring_base(1).unwrap(), 4);
    assert!(
        bench.device.with(|state| state.rings.is_empty()),
        "stopped before the reply"
    );
    assert_eq!(queue.poll_used().unwrap(), Some((0, 0)));
}

#[test]
fn disabling_stops_and_enabling_goes_on_where_it_was() {
    let bench = Bench::new(1);
    let mut client = bench.client();
    let mut queue = client.run(1, 0);
    queue.add_out(&[(BUFFERS, 100)]).unwrap();
    queue.publish();
    assert_eq!(bench.device.pop(1), [100]);
    client.frontend.set_vring_enable(1, false).unwrap();
    assert!(bench.device.with(|state| state.rings.is_empty()));
    queue.add_out(&[(BUFFERS, 200)]).unwrap();
    queue.publish();
    client.frontend.set_vring_enable(1, true).unwrap();
    assert_eq!(bench.device.pop(1), [200]);
    // Twice is not an error.
    client.frontend.set_vring_enable(1, true).unwrap();
    assert_eq!(bench.device.with(|state| state.starts), 2);
}

#[test]
fn without_protocol_features_rings_are_enabled_from_the_start() {
    let bench = Bench::new(1);
    let client = Client::negotiated(&bench.path, SPLIT & !PROTOCOL_FEATURES);
    client.share();
    client.set_up(0, 0);
    client.frontend.get_features().unwrap();
    assert_eq!(bench.device.with(|state| state.starts), 1);
}

#[test]
fn a_new_memory_table_moves_running_rings() {
    let bench = Bench::new(1);
    let mut client = bench.client();
    let mut queue = client.run(1, 0);
    queue.add_out(&[(BUFFERS, 100)]).unwrap();
    queue.publish();
    assert_eq!(bench.device.pop(1), [100]);
    // The same memory and one region more, as a hotplug does it.
    let more = SharedArea::new(0x4000_0000, 0x1_0000).unwrap();
    client
        .frontend
        .set_mem_table(&[client.region(), region(&more)])
        .unwrap();
    assert_eq!(bench.device.with(|state| state.starts), 2);
    queue.add_out(&[(0x4000_1000, 300)]).unwrap();
    queue.publish();
    assert_eq!(bench.device.pop(1), [300]);
}

#[test]
fn regions_come_and_go_one_by_one() {
    let bench = Bench::new(1);
    let mut client = Client::negotiated(&bench.path, SPLIT);
    client.frontend.add_mem_region(&client.region()).unwrap();
    let mut queue = client.run(1, 0);
    let more = SharedArea::new(0x4000_0000, 0x1_0000).unwrap();
    client.frontend.add_mem_region(&region(&more)).unwrap();
    queue.add_out(&[(0x4000_1000, 300)]).unwrap();
    queue.publish();
    assert_eq!(bench.device.pop(1), [300]);
    // A frontend may say it once for each of its queue pairs.
    client.frontend.add_mem_region(&region(&more)).unwrap();
    client.frontend.remove_mem_region(&region(&more)).unwrap();
    client.frontend.remove_mem_region(&region(&more)).unwrap();
    assert_eq!(bench.device.with(|state| state.starts), 3);
    // The ring's own: it cannot go on.
    assert!(client.frontend.remove_mem_region(&client.region()).is_err());
    bench
        .device
        .wait_fault("ring 1: descriptor table at client address");
}

#[test]
fn rings_of_a_client_that_comes_back_go_on_where_they_were() {
    // QEMU finds the base in the ring, virtio-user says 0.
    for base in [5, 0] {
        let bench = Bench::new(2);
        let mut client = bench.client();
        let mut queue = client.run(3, 0);
        for _ in 0..5 {
            queue.add_out(&[(BUFFERS, 64)]).unwrap();
        }
        queue.publish();
        assert_eq!(bench.device.pop(3).len(), 5);
        let Client { frontend, area, .. } = client;
        drop(frontend);
        bench
            .device
            .wait("gone", |state| !state.connected && state.features == 0);

        let mut again = Client::negotiated(&bench.path, SPLIT);
        again.area = area;
        again.share();
        queue.add_out(&[(BUFFERS, 77)]).unwrap();
        queue.publish();
        again.run_existing(3, &queue, base).unwrap();
        assert_eq!(bench.device.pop(3), [77]);
        assert_eq!(bench.device.with(|state| state.connects), 2);
    }
}

#[test]
fn a_call_changes_while_the_ring_runs() {
    let bench = Bench::new(1);
    let mut client = bench.client();
    let mut queue = client.run(1, 0);
    queue.add_out(&[(BUFFERS, 64)]).unwrap();
    queue.publish();
    assert_eq!(bench.device.pop(1), [64]);
    client.frontend.set_vring_call(1, &client.call).unwrap();
    queue.add_out(&[(BUFFERS, 65)]).unwrap();
    queue.publish();
    assert_eq!(bench.device.pop(1), [65]);
}

#[test]
fn reset_device_forgets_rings_and_features_but_not_memory() {
    let bench = Bench::new(1);
    let mut client = bench.client();
    client.run(0, 0);
    client.run(1, 0);
    client.frontend.reset_device().unwrap();
    assert!(
        bench
            .device
            .with(|state| state.rings.is_empty() && state.features == 0)
    );
    client.frontend.set_features(client.features).unwrap();
    client.run(1, 0);
    assert!(bench.device.with(|state| state.rings.contains_key(&1)));
}

#[test]
fn many_pairs_run_side_by_side() {
    let bench = Bench::new(3);
    let mut client = bench.client();
    let queues: Vec<_> = (0..6).map(|index| client.run(index, 0)).collect();
    for (index, mut queue) in queues.into_iter().enumerate() {
        queue.add_out(&[(BUFFERS, 60 + index as u32)]).unwrap();
        queue.publish();
        assert_eq!(bench.device.pop(index as u16), [60 + index as u32]);
    }
}

#[test]
fn rings_may_be_enabled_before_anything_else() {
    // virtio-user does that when it reconnects, QEMU before SET_FEATURES.
    let bench = Bench::new(1);
    let socket = UnixStream::connect(&bench.path).unwrap();
    for index in 0..2u32 {
        let words = [18u32, 1, 8, index, 1];
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        (&socket).write_all(&bytes).unwrap();
    }
    let frontend = Frontend::from_stream(socket, 256);
    let features = frontend.get_features().unwrap() & SPLIT;
    frontend.set_features(features).unwrap();
    let client = Client::over(frontend, features);
    client.share();
    client.set_up(1, 0);
    // Answered after all that.
    client.frontend.get_features().unwrap();
    assert!(bench.device.with(|state| state.rings.contains_key(&1)));
}

#[test]
fn what_a_ring_must_be() {
    type Violation = (&'static str, fn(&mut Client));
    let cases: [Violation; 6] = [
        ("ring 7: the channel has queue rings 0 to 1", |client| {
            client.frontend.set_vring_num(7, 64).unwrap_err();
        }),
        ("ring 0: size 100 is not a power of two", |client| {
            client.frontend.set_vring_num(0, 100).unwrap_err();
        }),
        ("ring 0: size 0 is not a power of two", |client| {
            client.frontend.set_vring_num(0, 0).unwrap_err();
        }),
        (
            "descriptor table at client address 0x10 is in no memory region",
            |client| {
                let mut addresses = addresses(&client.queue(0, 0));
                addresses.desc_table_addr = 0x10;
                client.frontend.set_vring_num(0, SIZE).unwrap();
                client.frontend.set_vring_addr(0, &addresses).unwrap();
                client.frontend.set_vring_enable(0, true).unwrap();
                client.frontend.set_vring_kick(0, &client.kick).unwrap_err();
            },
        ),
        ("is not inside one memory region", |client| {
            let mut addresses = addresses(&client.queue(0, 0));
            addresses.used_ring_addr = BASE + 0x10_0000 - 16;
            client.frontend.set_vring_num(0, SIZE).unwrap();
            client.frontend.set_vring_addr(0, &addresses).unwrap();
            client.frontend.set_vring_enable(0, true).unwrap();
            client.frontend.set_vring_kick(0, &client.kick).unwrap_err();
        }),
        ("SET_VRING_NUM while it runs", |client| {
            client.run(0, 0);
            client.frontend.set_vring_num(0, 128).unwrap_err();
        }),
    ];
    let bench = Bench::new(1);
    for (i, (reason, violate)) in cases.into_iter().enumerate() {
        violate(&mut bench.client());
        bench
            .device
            .wait(reason, |state| state.faults.len() > i && !state.connected);
        let fault = bench.device.with(|state| state.faults[i].clone());
        assert!(fault.contains(reason), "{fault}");
    }
}
