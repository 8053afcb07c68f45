//! A virtio-net header and a frame, as a driver hands them over: parse, check the offload request,
//! and carry out in software whatever was accepted.
//!
//! Input: 12 bytes of header, then the frame.

#![no_main]

use chanio_model::offload::{RxOffloads, Segmenter, VNET_HDR_LEN, VnetHdr, finish_checksum};
use chanio_model::{DropReason, VportId, wire};
use libfuzzer_sys::fuzz_target;

/// What a worker copies before it looks.
const HEAD: usize = 192;

fuzz_target!(|data: &[u8]| {
    let Some((header, frame)) = data.split_first_chunk::<VNET_HDR_LEN>() else { return };
    let len = frame.len() as u32;
    let head = &frame[..frame.len().min(HEAD)];
    let parsed = match wire::parse(head, len, VportId(1)) {
        Ok(parsed) => parsed,
        Err(reason) => return assert_eq!(reason, DropReason::Runt),
    };
    assert!(usize::from(parsed.l4_offset) <= head.len());
    let Ok(offload) = VnetHdr::read(header).check(&parsed, head, len) else { return };

    // What was accepted can be done, whatever the rest of the frame says.
    assert!(offload.fits(RxOffloads::ALL));
    let mut flat = frame.to_vec();
    if let Some(gso) = offload.gso {
        let segments = Segmenter::new(&flat, &offload).expect("accepted");
        let mut out = vec![0; segments.max_len()];
        let mut payload = 0;
        for n in 0..segments.count() {
            let len = segments.write(n, &mut out).expect("there is such a segment");
            payload += len - usize::from(gso.hdr_len);
        }
        assert_eq!(payload, frame.len() - usize::from(gso.hdr_len));
        assert!(segments.write(segments.count(), &mut out).is_none());
    } else if let Some(csum) = offload.csum {
        assert!(finish_checksum(&mut flat, csum));
    }
});
