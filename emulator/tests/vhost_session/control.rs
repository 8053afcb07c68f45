use crate::fixture::{BUFFERS, Bench, Client, EVENT_IDX, SPLIT};
use chanio_emu::ring::driver::DriverQueue;
use chanio_model::Mac;
use chanio_model::eswitch::RxMode;
use chanio_model::rss::{HashTypes, RssKey, RssSettings};
use std::time::{Duration, Instant};
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;

/// Answers are written here.
const ANSWER: u64 = BUFFERS + 0x1_0000;

fn command(client: &Client, queue: &mut DriverQueue, bytes: &[u8]) -> u8 {
    let memory = client.area.memory();
    memory.write(BUFFERS, bytes).unwrap();
    memory.write(ANSWER, &[0xee]).unwrap();
    // Header and data in descriptors of their own, as Linux sends them.
    let data = (BUFFERS + 2, bytes.len() as u32 - 2);
    let out = [(BUFFERS, 2), data];
    let out = if data.1 == 0 { &out[..1] } else { &out[..] };
    queue.add(out, &[(ANSWER, 1)]).unwrap();
    if queue.publish() {
        client.kick.write(1).unwrap();
    }
    let start = Instant::now();
    loop {
        if let Some((_, len)) = queue.poll_used().unwrap() {
            assert_eq!(len, 1);
            break;
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "no answer to {bytes:?}"
        );
        std::thread::yield_now();
    }
    let mut answer = [0];
    memory.read(ANSWER, &mut answer).unwrap();
    answer[0]
}

fn filter(bench: &Bench) -> chanio_model::eswitch::RxFilter {
    match bench.device.with(|state| state.rx_mode.clone()) {
        RxMode::Filtered(filter) => filter,
        RxMode::All => panic!("no filter was set"),
    }
}

#[test]
fn commands_reach_the_device() {
    for features in [SPLIT, SPLIT & !EVENT_IDX, !0, !EVENT_IDX] {
        let bench = Bench::new(2);
        let mut client = bench.client_with(features);
        let mut queue = client.run(4, 0);
        assert_eq!(
            bench.device.with(|state| state.starts),
            0,
            "not a data ring"
        );
        assert_eq!(bench.device.with(|state| state.active_pairs), Some(1));

        assert_eq!(command(&client, &mut queue, &[4, 0, 2, 0]), 0);
        assert_eq!(bench.device.with(|state| state.active_pairs), Some(2));
        assert_eq!(command(&client, &mut queue, &[4, 0, 3, 0]), 1);
        assert_eq!(command(&client, &mut queue, &[4, 0, 0, 0]), 1);
        assert_eq!(bench.device.with(|state| state.active_pairs), Some(2));

        assert_eq!(command(&client, &mut queue, &[0, 0, 0]), 0);
        assert_eq!(command(&client, &mut queue, &[2, 0, 7, 0]), 0);
        let table = [
            1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 8, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1,
        ];
        assert_eq!(command(&client, &mut queue, &table), 0);
        let now = filter(&bench);
        assert_eq!(now.unicast, [Mac([2, 0, 0, 0, 0, 8])]);
        assert_eq!(now.multicast, [Mac([1, 0, 0x5e, 0, 0, 1])]);
        assert!(now.vlans.as_ref().unwrap().contains(7));

        // Refused, and nothing changes.
        assert_eq!(command(&client, &mut queue, &[0, 0, 1]), 1);
        assert_eq!(command(&client, &mut queue, &[1, 1, 2, 0, 0, 0, 0, 9]), 1);
        assert_eq!(command(&client, &mut queue, &[77, 0]), 1);
        assert_eq!(filter(&bench), now);
        bench.device.with(|state| state.trusted = true);
        assert_eq!(command(&client, &mut queue, &[0, 0, 1]), 0);
        assert_eq!(command(&client, &mut queue, &[1, 1, 2, 0, 0, 0, 0, 9]), 0);
        assert!(filter(&bench).promisc);
        assert_eq!(bench.device.with(|state| state.mac.unwrap().0[5]), 9);
    }
}

#[test]
fn the_filter_survives_a_new_memory_table() {
    let bench = Bench::new(1);
    let mut client = bench.client();
    let mut queue = client.run(2, 0);
    assert_eq!(command(&client, &mut queue, &[0, 0, 0]), 0);
    assert_eq!(command(&client, &mut queue, &[2, 0, 7, 0]), 0);
    client.share();
    assert_eq!(command(&client, &mut queue, &[2, 0, 9, 0]), 0);
    let vlans = filter(&bench).vlans.unwrap();
    assert!(vlans.contains(7) && vlans.contains(9));
}

#[test]
fn a_long_queue_of_commands_is_worked_off() {
    let bench = Bench::new(1);
    let mut client = bench.client();
    let mut queue = client.queue(2, 0);
    client.area.memory().write(BUFFERS, &[2, 0, 7, 0]).unwrap();
    for _ in 0..30 {
        queue.add(&[(BUFFERS, 4)], &[(ANSWER, 1)]).unwrap();
    }
    queue.publish();
    // Written before the ring starts, and no kick: it looks by itself.
    client.run_existing(2, &queue, 0).unwrap();
    let start = Instant::now();
    let mut answers = 0;
    while answers < 30 {
        answers += u32::from(queue.poll_used().unwrap().is_some());
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{answers} answers"
        );
    }
}

#[test]
fn a_command_without_room_for_the_answer_is_a_fault() {
    let bench = Bench::new(1);
    let mut client = bench.client();
    let mut queue = client.run(2, 0);
    queue.add_out(&[(BUFFERS, 4)]).unwrap();
    queue.publish();
    client.kick.write(1).unwrap();
    bench.device.wait_fault("no room for its answer");
}

#[test]
fn a_broken_control_ring_is_a_fault() {
    let bench = Bench::new(1);
    let mut client = bench.client();
    let queue = client.run(2, 0);
    let avail_idx = queue.config().avail + 2;
    client
        .area
        .memory()
        .write(avail_idx, &[0xff, 0x7f])
        .unwrap();
    client.kick.write(1).unwrap();
    bench
        .device
        .wait_fault("control queue, ring 2: available index jumped");
}

#[test]
fn a_driver_is_asked_to_announce_itself_until_it_says_it_has() {
    let bench = Bench::new(1);
    let mut client = bench.client();
    let status = |client: &mut Client| {
        let flags = VhostUserConfigFlags::empty();
        client.frontend.get_config(6, 2, flags, &[0; 2]).unwrap().1
    };
    let mut queue = client.run(2, 0);
    assert_eq!(status(&mut client), [1, 0]);
    bench.server.announce(&bench.handle);
    let start = Instant::now();
    while status(&mut client) != [3, 0] {
        assert!(start.elapsed() < Duration::from_secs(10), "not asked");
    }
    assert_eq!(command(&client, &mut queue, &[3, 0]), 0);
    assert_eq!(status(&mut client), [1, 0]);
}

#[test]
fn a_device_of_127_pairs_uses_all_that_the_protocol_can_number() {
    let bench = Bench::new(127);
    let mut client = bench.client();
    // The last ring of all is the control queue; it has to be there for more than one pair.
    let mut control = client.run(254, 0);
    let queues: Vec<_> = (0..254).map(|index| client.run(index, 0)).collect();
    assert_eq!(bench.device.with(|state| state.rings.len()), 254);
    for (index, mut queue) in queues.into_iter().enumerate() {
        queue.add_out(&[(BUFFERS, 60 + index as u32)]).unwrap();
        queue.publish();
        assert_eq!(bench.device.pop(index as u16), [60 + index as u32]);
    }
    assert_eq!(command(&client, &mut control, &[4, 0, 127, 0]), 0);
    assert_eq!(bench.device.with(|state| state.active_pairs), Some(127));
    assert_eq!(command(&client, &mut control, &[4, 0, 128, 0]), 1);
}

#[test]
fn rss_reaches_the_device() {
    let bench = Bench::new(2);
    let mut client = bench.client();
    let mut queue = client.run(4, 0);
    let key = RssKey::new(&[7; 40]).unwrap();
    let types = HashTypes::TCP_V4 | HashTypes::UDP_V6;
    let mut bytes = vec![4, 1];
    bytes.extend(types.bits().to_le_bytes());
    // Two entries, the unclassified queue, the table, transmit queues.
    bytes.extend([1, 0, 1, 0, 1, 0, 0, 0, 2, 0, 40]);
    bytes.extend(key.bytes());
    assert_eq!(command(&client, &mut queue, &bytes), 0);
    let expected = RssSettings::new(types, key, vec![1, 0], 1, 2).unwrap();
    assert_eq!(bench.device.with(|state| state.rss.clone()), Some(expected));
    // A third queue, in the table and as the unclassified one.
    for at in [8, 10] {
        let mut wrong = bytes.clone();
        wrong[at] = 2;
        assert_eq!(command(&client, &mut queue, &wrong), 1);
    }
    let mut hash = vec![4, 2];
    hash.extend(types.bits().to_le_bytes());
    hash.extend([0; 8]);
    hash.push(40);
    hash.extend(key.bytes());
    assert_eq!(command(&client, &mut queue, &hash), 0);
    assert_eq!(bench.device.with(|state| state.hash), Some((types, key)));
}
