use crate::fixture::{Bench, Client, MAC, PROTOCOL_FEATURES, VERSION_1};
use vhost::VhostBackend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};

#[test]
fn a_client_learns_what_the_device_has() {
    let bench = Bench::new(4);
    let mut frontend = Frontend::connect(&bench.path, 256).unwrap();
    frontend.set_owner().unwrap();
    let features = frontend.get_features().unwrap();
    assert_eq!(
        features & (PROTOCOL_FEATURES | VERSION_1),
        PROTOCOL_FEATURES | VERSION_1
    );
    assert_eq!(
        features & (1 << 26 | 1 << 33),
        0,
        "neither dirty log nor an IOMMU"
    );
    let protocol = frontend.get_protocol_features().unwrap();
    let not_ours = VhostUserProtocolFeatures::STATUS
        | VhostUserProtocolFeatures::LOG_SHMFD
        | VhostUserProtocolFeatures::INFLIGHT_SHMFD
        | VhostUserProtocolFeatures::PAGEFAULT;
    assert!(!protocol.intersects(not_ours));
    frontend.set_protocol_features(protocol).unwrap();
    assert_eq!(frontend.get_queue_num().unwrap(), 9);
    assert!(frontend.get_max_mem_slots().unwrap() >= 8);
    frontend.set_features(features).unwrap();
    bench.device.wait("features", |state| {
        state.features == features & !PROTOCOL_FEATURES
    });
    let flags = VhostUserConfigFlags::empty();
    let (_, config) = frontend.get_config(0, 12, flags, &[0; 12]).unwrap();
    assert_eq!(config[..6], MAC.0);
    assert_eq!(config[6..], [1, 0, 4, 0, 0xdc, 5]);
}

#[test]
fn what_was_not_offered_ends_the_session_with_its_name() {
    let bench = Bench::new(1);
    let frontend = Frontend::connect(&bench.path, 2).unwrap();
    let features = frontend.get_features().unwrap();
    frontend.set_features(features | 1 << 33).unwrap();
    bench.device.wait_fault("0x200000000 were not offered");

    // The next client finds everything as at the first time.
    Client::negotiated(&bench.path, !0);
    assert_eq!(bench.device.with(|state| state.faults.len()), 1);
}

#[test]
fn the_address_is_the_devices_to_give() {
    let bench = Bench::new(1);
    let mut client = bench.client();
    let flags = VhostUserConfigFlags::WRITABLE;
    let mac = [2, 0, 0, 0, 0, 9];
    assert!(client.frontend.set_config(0, flags, &mac).is_err());
    assert!(client.frontend.set_config(8, flags, &[1, 0]).is_err());
    bench.device.with(|state| state.trusted = true);
    client.frontend.set_config(0, flags, &mac).unwrap();
    assert_eq!(bench.device.with(|state| state.mac.unwrap().0), mac);
    let faults = bench.device.with(|state| state.faults.clone());
    assert!(faults.is_empty(), "a refusal is no fault: {faults:?}");
}
