//! ethtool's requests as ethtool(8) sends them.

use crate::recorder::{ETHTOOL, assert_same, record};
use chanio_netlink::ethtool::{
    Bitset, Body, COMPACT_BITSETS, Channels, Coalesce, Ethtool, Features, Nothing, Rings, command,
};
use std::fmt::Debug;

/// NLM_F_REQUEST with NLM_F_ACK.
const REQUEST: u16 = 0x5;

/// Runs `ethtool WORDS`, and compares the request with this command among those that it sends.
fn check<B: Body + PartialEq + Debug>(words: &str, number: u8, make: impl FnOnce(&mut Ethtool<B>)) {
    let line = format!("ethtool {words}");
    let mut ours = Ethtool::<B>::new(number, "eth0");
    make(&mut ours);
    let (theirs, output) = record(&line);
    let told = String::from_utf8_lossy(&output.stderr);
    let is_it = |m: &&chanio_netlink::message::Message| {
        m.kind == ETHTOOL && m.payload.first() == Some(&number)
    };
    let theirs = theirs.iter().find(is_it);
    let theirs = theirs.unwrap_or_else(|| panic!("{line}: {told}"));
    assert_same(&line, theirs, &ours.message(ETHTOOL, REQUEST).unwrap());
    assert_eq!(
        Ethtool::<B>::parse(&theirs.payload).unwrap(),
        ours,
        "{line}"
    );
}

#[test]
fn what_is_asked_for() {
    check::<Nothing>("-l eth0", command::CHANNELS_GET, |_| {});
    check::<Nothing>("-g eth0", command::RINGS_GET, |_| {});
    check::<Nothing>("-c eth0", command::COALESCE_GET, |_| {});
}

#[test]
fn what_is_changed() {
    check::<Channels>("-L eth0 combined 4", command::CHANNELS_SET, |m| {
        m.body.combined_count = Some(4);
    });
    check::<Channels>("-L eth0 rx 2 tx 3", command::CHANNELS_SET, |m| {
        (m.body.rx_count, m.body.tx_count) = (Some(2), Some(3));
    });
    check::<Rings>("-G eth0 rx 512 tx 1024", command::RINGS_SET, |m| {
        (m.body.rx, m.body.tx) = (Some(512), Some(1024));
    });
    check::<Coalesce>(
        "-C eth0 rx-usecs 8 tx-frames 16",
        command::COALESCE_SET,
        |m| {
            (m.body.rx_usecs, m.body.tx_frames) = (Some(8), Some(16));
        },
    );
    check::<Coalesce>("-C eth0 adaptive-rx on", command::COALESCE_SET, |m| {
        m.body.adaptive_rx = Some(1);
    });
}

#[test]
fn features() {
    check::<Nothing>("-k eth0", command::FEATURES_GET, |m| {
        m.header.flags = Some(COMPACT_BITSETS);
    });
    check::<Features>("-K eth0 rx-gro-hw on", command::FEATURES_SET, |m| {
        m.header.flags = Some(COMPACT_BITSETS);
        m.body.wanted = Some(Bitset::named(&[("rx-gro-hw", true)]));
    });
}
