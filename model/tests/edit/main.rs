//! Any sequence of operations on any frame gives what the naive reference gives.

mod cut;
mod frames;
mod naive;
mod odd;
mod ops;
mod vectors;

use chanio_model::edit::*;
use chanio_model::offload::{Csum, Offload, finish_checksum};
use frames::spec;
use ops::{Around, apply, ops};
use proptest::prelude::*;

/// The frame as it is delivered: head, what is left of the source, checksums finished.
fn flat(packet: &Packet, source: &[u8]) -> Vec<u8> {
    let edited = packet.edited();
    let (from, len) = (edited.taken as usize, edited.tail as usize);
    let mut out = [edited.head, &source[from..from + len]].concat();
    assert_eq!(out.len(), edited.len() as usize);
    if let Some(csum) = edited.offload.csum {
        assert!(
            finish_checksum(&mut out, csum),
            "{csum:?} in {} bytes",
            out.len()
        );
    }
    out
}

/// Equal, or 0x0000 in the one where 0xffff is in the other: the two zeros of a checksum.
fn same(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len().min(b.len()) {
        let pair = (a.get(i..i + 2), b.get(i..i + 2));
        if a[i] == b[i] {
            i += 1;
        } else if matches!(
            pair,
            (Some([0, 0]), Some([255, 255])) | (Some([255, 255]), Some([0, 0]))
        ) {
            i += 2;
        } else {
            return false;
        }
    }
    a.len() == b.len()
}

/// Leaves the transport's checksum to be finished, as a driver does.
fn unfinished(frame: &mut [u8]) -> Option<Csum> {
    let at = naive::find(frame);
    let (field, _) = naive::field(&at)?;
    if at.fragment || at.end != frame.len() || at.proto == 136 || naive::be16(frame, field) == 0 {
        return None;
    }
    let partial = naive::partial(frame)?;
    frame[field..field + 2].copy_from_slice(&partial.to_be_bytes());
    Some(Csum {
        start: at.l4 as u16,
        offset: (field - at.l4) as u16,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10000))]

    #[test]
    fn equals_the_naive_reference(
        spec in spec(),
        ops in ops(),
        pending: bool,
        head in 192usize..=512,
    ) {
        let mut want = spec.build();
        let mut source = want.clone();
        let csum = if pending { unfinished(&mut source) } else { None };
        let offload = Offload { csum, ..Offload::default() };
        let mut packet = Packet::new(7);
        let head = &source[..head.min(source.len())];
        packet.load(head, source.len() as u32, offload).unwrap();
        let mut around = Around::default();
        for op in &ops {
            let lived = apply(op, &mut packet, &mut want, &mut around);
            if !lived {
                return Ok(());
            }
            let got = flat(&packet, &source);
            prop_assert!(same(&got, &want), "after {op:?}\n got {got:02x?}\nwant {want:02x?}");
        }
    }

    #[test]
    fn nothing_panics_on_any_bytes(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        like in spec(),
        noise in proptest::collection::vec((0usize..200, any::<u8>()), 0..6),
        random: bool,
        head in 0usize..=512,
        ops in ops(),
        csum in proptest::option::of((0u16..300, 0u16..20)),
    ) {
        let mut frame = if random { bytes } else { like.build() };
        for (at, byte) in noise {
            if let Some(slot) = frame.get_mut(at) {
                *slot = byte;
            }
        }
        let csum = csum.map(|(start, offset)| Csum { start, offset });
        let csum = csum.filter(|c| {
            usize::from(c.start) >= 14 && usize::from(c.start) + usize::from(c.offset) + 2 <= frame.len()
        });
        let offload = Offload { csum, ..Offload::default() };
        let mut packet = Packet::new(0);
        let head = &frame[..head.min(frame.len())];
        if packet.load(head, frame.len() as u32, offload).is_err() {
            return Ok(());
        }
        for op in &ops {
            let _ = op.on(&mut packet);
            let edited = packet.edited();
            prop_assert!(edited.taken + edited.tail <= frame.len() as u32);
            prop_assert!(edited.head.len() >= 14);
        }
    }
}

#[test]
fn the_naive_crc_is_crc32c() {
    // The check value of RFC 3720's and the CRC catalogue's CRC-32C.
    assert_eq!(naive::crc32c(b"123456789"), 0xe306_9283);
}
