//! Packed rings, as clients set them up.

use crate::fixture::{
    BASE, BUFFERS, Bench, Client, EVENT_IDX, IN_ORDER, RING_PACKED, VERSION_1, addresses,
};
use chanio_emu::ring::driver::{DriverQueue, QueueOptions};
use std::io::Write;
use std::os::unix::net::UnixStream;
use vhost::VhostBackend;
use vhost::vhost_user::{Frontend, VhostUserFrontend};

/// The wrap counter of a position.
const WRAP: u16 = 1 << 15;

/// A queue of any size at ring 1's place.
fn queue(client: &Client, size: u16, start: u16) -> DriverQueue {
    let options = QueueOptions {
        event_idx: client.features & EVENT_IDX != 0,
        in_order: client.features & IN_ORDER != 0,
        start,
        ..QueueOptions::packed(size)
    };
    DriverQueue::with(client.area.memory().clone(), BASE + 0x1000, options).unwrap()
}

/// Runs it, with or without saying where it begins.
fn run(client: &mut Client, queue: &DriverQueue, base: Option<u16>) -> vhost::Result<()> {
    let frontend = &mut client.frontend;
    frontend.set_vring_call(1, &client.call)?;
    frontend.set_vring_num(1, queue.config().size)?;
    if let Some(base) = base {
        frontend.set_vring_base(1, base)?;
    }
    frontend.set_vring_addr(1, &addresses(queue))?;
    frontend.set_vring_kick(1, &client.kick)?;
    frontend.set_vring_enable(1, true)
}

fn add(queue: &mut DriverQueue, lengths: impl IntoIterator<Item = u32>) {
    for len in lengths {
        queue.add_out(&[(BUFFERS, len)]).unwrap();
    }
    queue.publish();
}

fn used(queue: &mut DriverQueue) -> usize {
    std::iter::from_fn(|| queue.poll_used().unwrap()).count()
}

#[test]
fn a_ring_of_any_size_runs_from_its_base_until_it_is_asked_for() {
    for features in [!0, !EVENT_IDX, !IN_ORDER] {
        let bench = Bench::new(1);
        let mut client = bench.client_with(features);
        let mut queue = queue(&client, 100, 95 | WRAP);
        run(&mut client, &queue, Some(95 | WRAP)).unwrap();
        add(&mut queue, 60..70);
        assert_eq!(bench.device.pop(1), (60..70).collect::<Vec<_>>());
        // Slot 5 of a lap with the other wrap counter, for available and used ones alike.
        assert_eq!(client.frontend.get_vring_base(1).unwrap(), 5 << 16 | 5);
        assert_eq!(used(&mut queue), 10);

        // It goes on there, said or not.
        add(&mut queue, [71]);
        client.frontend.set_vring_kick(1, &client.kick).unwrap();
        assert_eq!(bench.device.pop(1), [71]);
        assert_eq!(client.frontend.get_vring_base(1).unwrap(), 6 << 16 | 6);
        add(&mut queue, [72]);
        client.frontend.set_vring_base(1, 6).unwrap();
        client.frontend.set_vring_kick(1, &client.kick).unwrap();
        assert_eq!(bench.device.pop(1), [72]);
        client.frontend.set_vring_enable(1, false).unwrap();
        add(&mut queue, [73]);
        client.frontend.set_vring_enable(1, true).unwrap();
        assert_eq!(bench.device.pop(1), [73]);
        assert_eq!(used(&mut queue), 3);
    }
}

#[test]
fn a_ring_without_a_base_begins_in_its_first_lap() {
    let bench = Bench::new(1);
    let mut client = bench.client_with(!0);
    let mut queue = queue(&client, 7, WRAP);
    run(&mut client, &queue, None).unwrap();
    add(&mut queue, 60..67);
    assert_eq!(bench.device.pop(1), (60..67).collect::<Vec<_>>());
    assert_eq!(client.frontend.get_vring_base(1).unwrap(), 0, "one lap on");
}

#[test]
fn a_base_is_its_lower_half() {
    let bench = Bench::new(1);
    let socket = UnixStream::connect(&bench.path).unwrap();
    let raw = socket.try_clone().unwrap();
    let frontend = Frontend::from_stream(socket, 256);
    let features = frontend.get_features().unwrap();
    frontend.set_features(features).unwrap();
    for (base, start) in [(3 | 1 << 15, 3 | WRAP), (0x8005_0005, 5), (0xffff_0001, 1)] {
        let words = [10u32, 1, 8, 1, base];
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        (&raw).write_all(&bytes).unwrap();
        let expected = u32::from(start) << 16 | u32::from(start);
        assert_eq!(frontend.get_vring_base(1).unwrap(), expected);
    }
}

#[test]
fn a_client_that_comes_back_brings_a_new_ring() {
    let bench = Bench::new(1);
    let mut client = bench.client_with(!0);
    let mut old = queue(&client, 64, WRAP);
    run(&mut client, &old, Some(WRAP)).unwrap();
    add(&mut old, 60..65);
    assert_eq!(bench.device.pop(1).len(), 5);
    let Client { frontend, area, .. } = client;
    drop(frontend);
    bench.device.wait("gone", |state| !state.connected);

    let mut again = Client::negotiated(&bench.path, !0);
    again.area = area;
    again.share();
    let mut queue = queue(&again, 64, WRAP);
    run(&mut again, &queue, Some(WRAP)).unwrap();
    add(&mut queue, [77]);
    assert_eq!(bench.device.pop(1), [77]);
}

#[test]
fn what_a_packed_ring_must_be() {
    type Violation = (&'static str, fn(&mut Client));
    let cases: [Violation; 6] = [
        ("ring 1: size 0 is not 1 to 32768", |client| {
            client.frontend.set_vring_num(1, 0).unwrap_err();
        }),
        ("ring 1: size 32769 is not 1 to 32768", |client| {
            client.frontend.set_vring_num(1, 32769).unwrap_err();
        }),
        ("slot 100 is outside a packed ring of 100", |client| {
            let queue = queue(client, 100, WRAP);
            run(client, &queue, Some(100)).unwrap_err();
        }),
        ("driver event area at guest address", |client| {
            let mut addresses = addresses(&queue(client, 100, WRAP));
            addresses.avail_ring_addr += 2;
            client.frontend.set_vring_num(1, 100).unwrap();
            client.frontend.set_vring_addr(1, &addresses).unwrap();
            client.frontend.set_vring_enable(1, true).unwrap();
            client.frontend.set_vring_kick(1, &client.kick).unwrap_err();
        }),
        ("in no memory region", |client| {
            let mut addresses = addresses(&queue(client, 100, WRAP));
            addresses.used_ring_addr = 0x1000;
            client.frontend.set_vring_num(1, 100).unwrap();
            client.frontend.set_vring_addr(1, &addresses).unwrap();
            client.frontend.set_vring_enable(1, true).unwrap();
            client.frontend.set_vring_kick(1, &client.kick).unwrap_err();
        }),
        ("RING_PACKED was accepted without VERSION_1", |client| {
            let legacy = client.features & !VERSION_1;
            assert_ne!(legacy & RING_PACKED, 0);
            client.frontend.set_features(legacy).unwrap_err();
        }),
    ];
    let bench = Bench::new(1);
    for (i, (reason, violate)) in cases.into_iter().enumerate() {
        violate(&mut bench.client_with(!0));
        bench
            .device
            .wait(reason, |state| state.faults.len() > i && !state.connected);
        let fault = bench.device.with(|state| state.faults[i].clone());
        assert!(fault.contains(reason), "{fault}");
    }
}
