//! Whatever is emitted parses to the same.

use crate::devlink::Devlink;
use crate::ethtool::{Channels, Coalesce, Ethtool, Features, Rings};
use crate::genl::Family;
use crate::message::{Acknowledgement, ExtAck, Message};
use crate::tc::{Filter, Qdisc};
use crate::{Error, Result};
use arbitrary::{Arbitrary, Unstructured};
use proptest::prelude::*;
use std::fmt::Debug;

fn seed() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..6000)
}

/// Makes a value from the seed and sends it through bytes.
fn check<T>(
    seed: &[u8],
    emit: impl Fn(&T) -> Result<Message>,
    parse: impl Fn(&Message) -> Result<T>,
) -> std::result::Result<(), TestCaseError>
where
    T: for<'a> Arbitrary<'a> + Debug + PartialEq,
{
    let value = T::arbitrary(&mut Unstructured::new(seed)).unwrap();
    // On the wire a string ends at its first NUL.
    prop_assume!(!format!("{value:?}").contains("\\0"));
    let message = match emit(&value) {
        Ok(message) => message,
        Err(Error::Length {
            what: "attribute", ..
        }) => return Err(TestCaseError::reject("long")),
        Err(error) => return Err(TestCaseError::fail(error.to_string())),
    };
    let mut datagram = message.to_bytes();
    message.emit(&mut datagram);
    let parsed = Message::parse_all(&datagram).unwrap();
    prop_assert_eq!(&parsed, &[message.clone(), message]);
    prop_assert_eq!(parse(&parsed[0]).unwrap(), value);
    Ok(())
}

proptest! {
    #[test]
    fn filter(seed in seed()) {
        check(&seed, |filter: &Filter| filter.message(44, 5), |m| Filter::parse(&m.payload))?;
    }

    #[test]
    fn qdisc(seed in seed()) {
        check(&seed, |qdisc: &Qdisc| qdisc.message(36, 5), |m| Qdisc::parse(&m.payload))?;
    }

    #[test]
    fn devlink(seed in seed()) {
        check(&seed, |d: &Devlink| d.message(20, 5), |m| Devlink::parse(&m.payload))?;
    }

    #[test]
    fn ethtool(seed in seed()) {
        check(&seed, |e: &Ethtool<Channels>| e.message(20, 5), |m| Ethtool::parse(&m.payload))?;
        check(&seed, |e: &Ethtool<Rings>| e.message(20, 5), |m| Ethtool::parse(&m.payload))?;
        check(&seed, |e: &Ethtool<Coalesce>| e.message(20, 5), |m| Ethtool::parse(&m.payload))?;
        check(&seed, |e: &Ethtool<Features>| e.message(20, 5), |m| Ethtool::parse(&m.payload))?;
    }

    #[test]
    fn family(seed in seed()) {
        check(&seed, |family: &Family| family.message(5), |m| Family::parse(&m.payload))?;
    }

    #[test]
    fn acknowledgement(seed in seed(), error in 0..4096, sequence: u32, port: u32) {
        let request = Message { kind: 44, flags: 5, sequence, port, payload: Vec::new() };
        let told = |told: &ExtAck| Acknowledgement { error, request: request.clone(), told: told.clone() };
        check(
            &seed,
            |ext: &ExtAck| told(ext).emit(true),
            |message| {
                let read = Acknowledgement::parse(message)?;
                assert_eq!((read.error, &read.request), (error, &request));
                Ok(read.told)
            },
        )?;
    }

    #[test]
    fn broken_messages(
        seed in seed(),
        breaks in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let filter = Filter::arbitrary(&mut Unstructured::new(&seed)).unwrap();
        let devlink = Devlink::arbitrary(&mut Unstructured::new(&seed)).unwrap();
        for message in [filter.message(44, 5), devlink.message(20, 5)].into_iter().flatten() {
            let mut bytes = message.to_bytes();
            for (at, byte) in &breaks {
                *at.get_mut(&mut bytes) = *byte;
            }
            crate::parse_anything(&bytes);
            crate::parse_anything(&bytes[16..]);
        }
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        crate::parse_anything(&bytes);
    }
}
