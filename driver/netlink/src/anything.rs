//! One entry for fuzzing: bytes through every parser.

use crate::devlink::Devlink;
use crate::ethtool::{Channels, Coalesce, Ethtool, Features, Rings};
use crate::genl::Family;
use crate::message::{Acknowledgement, Message};
use crate::played::{Answer, Entry, Request};
use crate::tc::{Filter, Qdisc};

/// Reads the bytes as every kind of message there is, and what parses once more after emitting
/// it: the two must agree.
pub fn parse_anything(bytes: &[u8]) {
    for message in Message::parse_all(bytes).unwrap_or_default() {
        let _ = Acknowledgement::parse(&message);
        payload(&message.payload);
    }
    payload(bytes);
    packet(bytes);
}

fn packet(bytes: &[u8]) {
    if let Ok(request) = Request::parse(bytes) {
        let again = request.to_bytes().expect("what was read can be sent");
        assert_eq!(Request::parse(&again), Ok(request));
    }
    if let Ok(answer) = Answer::parse(bytes) {
        assert_eq!(answer.to_bytes().as_deref(), Ok(bytes));
    }
    let _ = Entry::parse_list(bytes);
    let mut datagram = bytes.to_vec();
    crate::route::replace_netns_fds(&mut datagram, Some);
    assert_eq!(datagram, bytes);
}

fn payload(bytes: &[u8]) {
    if let Ok(filter) = Filter::parse(bytes) {
        stable(&filter, |f| f.message(0, 0), |m| Filter::parse(&m.payload));
    }
    if let Ok(devlink) = Devlink::parse(bytes) {
        stable(
            &devlink,
            |d| d.message(0, 0),
            |m| Devlink::parse(&m.payload),
        );
    }
    ethtool::<Channels>(bytes);
    ethtool::<Rings>(bytes);
    ethtool::<Coalesce>(bytes);
    ethtool::<Features>(bytes);
    if let Ok(family) = Family::parse(bytes) {
        stable(&family, |f| f.message(0), |m| Family::parse(&m.payload));
    }
    if let Ok(qdisc) = Qdisc::parse(bytes) {
        stable(&qdisc, |q| q.message(0, 0), |m| Qdisc::parse(&m.payload));
    }
}

fn ethtool<B: crate::ethtool::Body + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = Ethtool::<B>::parse(bytes) {
        stable(
            &message,
            |e| e.message(0, 0),
            |m| Ethtool::parse(&m.payload),
        );
    }
}

/// What was read once is read the same again.
fn stable<T: PartialEq + std::fmt::Debug>(
    value: &T,
    emit: impl Fn(&T) -> crate::Result<Message>,
    parse: impl Fn(&Message) -> crate::Result<T>,
) {
    // A message that says the same may be longer, so much that it does not fit.
    if let Ok(message) = emit(value) {
        assert_eq!(&parse(&message).expect("what was emitted parses"), value);
    }
}
