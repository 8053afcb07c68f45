//! A ring in guest memory that is nothing but the fuzzer's input: pop everything, copy everything,
//! complete it, and reserve receive buffers in the same ring.
//!
//! Input: 8 bytes of parameters, then guest memory from address 0 on: descriptors, available ring
//! and used ring (of a packed ring the two event areas) one behind the other, then indirect tables and buffers; zeros to the end.

#![no_main]

use std::sync::{Arc, LazyLock};

use chanio_emu::ring::driver::SharedArea;
use chanio_emu::ring::{BURST, Burst, GuestMemory, Reserve, Ring, RingConfig, RxScratch};
use libfuzzer_sys::fuzz_target;

/// Two regions that touch, so that buffers cross from one into the other.
const FIRST: u64 = 0x2000;
const SECOND: u64 = 0x2000;

/// Kept from run to run; only the contents change.
static MEMORY: LazyLock<Arc<GuestMemory>> = LazyLock::new(|| {
    let first = SharedArea::new(0, FIRST).expect("memfd");
    let second = SharedArea::new(FIRST, SECOND).expect("memfd");
    first
        .memory()
        .with_region(&second.spec(), second.file())
        .expect("two regions")
});

fuzz_target!(|data: &[u8]| {
    let Some((parameters, contents)) = data.split_first_chunk::<8>() else {
        return;
    };
    let [
        size,
        flags,
        start_low,
        start_high,
        total_low,
        total_high,
        max,
        unpop,
    ] = *parameters;
    let mem = &*MEMORY;
    let mut bytes = vec![0; (FIRST + SECOND) as usize];
    let n = contents.len().min(bytes.len());
    bytes[..n].copy_from_slice(&contents[..n]);
    mem.write(0, &bytes).expect("all mapped");

    let packed = flags & 16 != 0;
    let start = u16::from_le_bytes([start_low, start_high]);
    let (size, next_avail) = if packed {
        let size = 1 + u16::from(size) % 128;
        (size, (start & 0x8000) | (start % size))
    } else {
        (1u16 << (size % 8), start)
    };
    let avail = 16 * u64::from(size);
    let avail_bytes = if packed { 4 } else { 6 + 2 * u64::from(size) };
    let config = RingConfig {
        size,
        desc: 0,
        avail,
        used: (avail + avail_bytes).next_multiple_of(4),
        next_avail,
        event_idx: flags & 1 != 0,
        indirect: flags & 2 != 0,
        transmit: flags & 32 != 0,
        packed,
        in_order: flags & 8 != 0,
    };
    let mut ring = Ring::new(Arc::clone(mem), &config).expect("a good place");
    let total = u32::from(u16::from_le_bytes([total_low, total_high]));
    receive(&mut ring, total, flags & 4 != 0);
    let _ = ring.enable_kicks();
    transmit(&mut ring, usize::from(max), usize::from(unpop));
});

/// Pops, copies and completes until the ring is empty or broken.
fn transmit(ring: &mut Ring, max: usize, back: usize) {
    let mut burst = Burst::default();
    let mut local = [0; 256];
    let mut served = 0;
    let mut positions = vec![ring.next_avail()];
    // A hostile available index cannot offer more than the ring's size at once, and nothing moves
    // it but our own completions, if buffers point at it.
    while let Ok(n) = ring.pop_burst(&mut burst, max.max(1)) {
        assert!(n <= BURST);
        for chain in burst.iter() {
            let (readable, writable) = (chain.readable(), chain.writable());
            let all: usize = readable.pieces(0, usize::MAX).map(|p| p.1).sum();
            assert_eq!(all, readable.len() as usize);
            let got = readable.copy_out(3, &mut local);
            assert_eq!(
                got,
                (readable.len() as usize).saturating_sub(3).min(local.len())
            );
            let put = writable.copy_in(1, &local);
            assert_eq!(
                put,
                (writable.len() as usize).saturating_sub(1).min(local.len())
            );
            writable.copy_from(0, readable, 0, usize::MAX);
            ring.push_used(chain.token(), writable.len());
        }
        ring.publish();
        served += n;
        positions.push(ring.next_avail());
        if n == 0 || served > 1 << 12 {
            break;
        }
    }
    ring.rewind(positions[back % positions.len()]);
    let _ = ring.pop_burst(&mut burst, BURST);
    ring.disable_kicks();
}

/// Reserves and fills receive buffers until there are none.
fn receive(ring: &mut Ring, total: u32, mergeable: bool) {
    let mut scratch = RxScratch::default();
    for i in 0..64 {
        let before = ring.next_avail();
        let reserved = match ring.reserve(&mut scratch, total, mergeable) {
            Ok(Reserve::Ready(room)) => {
                assert_eq!(room.writable().len(), total);
                assert_eq!(
                    room.writable().copy_in(0, &vec![i; total as usize]),
                    total as usize
                );
                assert!(mergeable || room.num_buffers() == 1);
                if i % 4 != 3 {
                    room.commit();
                }
                true
            }
            Ok(Reserve::NoBuffers | Reserve::TooSmall { .. }) | Err(_) => false,
        };
        if !reserved {
            assert_eq!(ring.next_avail(), before);
            break;
        }
    }
    ring.publish();
}
