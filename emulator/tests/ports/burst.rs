//! Bursts through the kernel, with and without io_uring: a TAP on one side, a packet socket on its
//! netdev on the other.

use crate::netns::Netns;
use crate::tap::tap;
use chanio_emu::nic::spec::UplinkSpec;
use chanio_emu::port::burst::{Outcomes, Pieces};
use chanio_emu::port::{Inbox, Netdev, Uplink, Uring};
use chanio_model::offload::VNET_HDR_LEN;
use nix::errno::Errno;
use std::time::{Duration, Instant};

const HEADER: [u8; VNET_HDR_LEN] = [0; VNET_HDR_LEN];

/// A frame that says which it is, of a kind that nobody else sends.
fn frame(n: usize, len: usize) -> Vec<u8> {
    let mut frame = [[0xff; 6], [2, 0, 0, 0, 0, 9]].concat();
    frame.extend([0x88, 0xb5, n as u8, (n >> 8) as u8]);
    frame.resize(len, n as u8);
    frame
}

/// Sends bursts of `counts` frames, and gives what the other side gets in the end.
fn pass(
    from: Netdev<'_>,
    to: Netdev<'_>,
    mut uring: Option<&mut Uring>,
    sent: &[Vec<u8>],
) -> Vec<Vec<u8>> {
    let (mut pieces, mut outcomes) = (Pieces::default(), Outcomes::new());
    let (mut inbox, mut got) = (Inbox::default(), Vec::new());
    for burst in sent.chunks(32) {
        let mut header = HEADER;
        let len = from.adapt(&mut header);
        let mut frames = pieces.begin();
        for frame in burst {
            assert!(frames.has_room());
            let (head, tail) = frame.split_at(frame.len().min(40));
            for piece in [&header[..len], head, tail] {
                frames.slice(piece);
            }
            frames.end_frame();
        }
        from.send_all(&frames, uring.as_deref_mut(), &mut outcomes);
        assert!(outcomes.iter().all(|o| *o == Ok(())), "{outcomes:?}");
        let until = Instant::now() + Duration::from_secs(5);
        let mut left = burst.len();
        while left > 0 {
            assert!(Instant::now() < until, "{left} of {}", burst.len());
            // In odd portions, as a limiter asks for them.
            inbox.fill(to, 1 + left % 31, uring.as_deref_mut()).unwrap();
            for bytes in inbox.frames() {
                assert_eq!(bytes[..VNET_HDR_LEN], HEADER);
                if bytes[VNET_HDR_LEN + 6..][..6] == [2, 0, 0, 0, 0, 9] {
                    got.push(bytes[VNET_HDR_LEN..].to_vec());
                    left -= 1;
                }
            }
        }
    }
    got
}

#[test]
fn bursts_arrive_whole_and_in_order() {
    let Some(netns) = Netns::new() else { return };
    let tap = tap(&netns, "t0");
    netns.ip("link set t0 mtu 65521");
    netns.ip("link set t0 up");
    let spec: UplinkSpec = "packet:t0".parse().unwrap();
    let host = netns.run(move || Uplink::open(&spec).unwrap());
    let (tap, host) = (Netdev::Tap(&tap), Netdev::from(&host));
    // Short, at a usual MTU, and the longest; mixed, too.
    let lens = |n: usize| [60, 1514, 9000, 65_535, 60 + n][(n / 50).min(4)];
    let sent: Vec<_> = (0..250).map(|n| frame(n, lens(n))).collect();
    let mut uring = Uring::open().expect("this kernel has io_uring");
    for uring in [Some(&mut uring), None] {
        let mut uring = uring;
        assert!(pass(tap, host, uring.as_deref_mut(), &sent) == sent);
        assert!(pass(host, tap, uring, &sent) == sent);
    }
}

#[test]
fn one_frame_that_is_refused_does_not_take_others_with_it() {
    let Some(netns) = Netns::new() else { return };
    let tap = tap(&netns, "t0");
    netns.ip("link set t0 up");
    let spec: UplinkSpec = "packet:t0".parse().unwrap();
    let host = netns.run(move || Uplink::open(&spec).unwrap());
    let mut uring = Uring::open().expect("this kernel has io_uring");
    let (good, short) = (frame(1, 60), [0; 5]);
    for (netdev, uring) in [
        (Netdev::Tap(&tap), Some(&mut uring)),
        (Netdev::Tap(&tap), None),
        (Netdev::from(&host), None),
    ] {
        let mut header = HEADER;
        let len = netdev.adapt(&mut header);
        let mut pieces = Pieces::default();
        let mut frames = pieces.begin();
        for frame in [&good[..], &short, &good, &short, &short, &good] {
            frames.slice(&header[..len]);
            frames.slice(frame);
            frames.end_frame();
        }
        let mut outcomes = Outcomes::new();
        netdev.send_all(&frames, uring, &mut outcomes);
        let fine: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
        assert_eq!(fine, [true, false, true, false, false, true]);
        assert_eq!(outcomes[1], Err(Errno::EINVAL));
    }
}
