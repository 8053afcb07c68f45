//! `SplitRing` against rust-vmm's `virtio_queue::Queue`: both are driven over identical, mostly
//! hostile guest memory. What both accept must be the same; what only the reference accepts must
//! have one of the reasons for which we are stricter.

use std::sync::Arc;

use chanio_emu::ring::driver::{DriverQueue, SharedArea};
use chanio_emu::ring::{
    BURST, Burst, Chain, GuestMemory, MAX_SEGMENTS, RingConfig, RingFault, SplitRing,
};
use proptest::prelude::*;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const MEMORY: u64 = 0x10000;
/// Where indirect tables and buffers are, mostly. The ring is below.
const TABLES: u64 = 0x4000;
const BUFFERS: u64 = 0x8000;
const INDIRECT: u16 = 4;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// Address, bytes, flags, next.
type RawDesc = (u64, u32, u16, u16);
/// A buffer of a chain: address, bytes, writable.
type Buffer = (u64, u32, bool);

/// A descriptor that is more often right than not.
fn desc(size: u16, tables: u32) -> impl Strategy<Value = RawDesc> {
    let buffer = (
        prop_oneof![
            200 => BUFFERS..MEMORY - 64,
            1 => MEMORY - 64..MEMORY + 64,
            1 => any::<u64>(),
        ],
        prop_oneof![200 => 1u32..64, 1 => Just(0), 1 => any::<u32>()],
        prop_oneof![
            40 => Just(0u16),
            30 => Just(NEXT),
            50 => Just(WRITE),
            10 => Just(NEXT | WRITE),
            1 => any::<u16>(),
        ],
    );
    let table = (
        prop_oneof![100 => (0u64..0x3f0).prop_map(|i| TABLES + 16 * i), 1 => any::<u64>()],
        prop_oneof![100 => (40u32..45).prop_map(|n| 16 * n), 1 => Just(0), 1 => any::<u32>()],
        prop_oneof![
            30 => Just(INDIRECT),
            5 => Just(INDIRECT | WRITE),
            1 => Just(INDIRECT | NEXT),
        ],
    );
    let next = prop_oneof![100 => 0..size, 1 => any::<u16>()];
    (
        prop_oneof![40 => buffer.boxed(), tables => table.boxed()],
        next,
    )
        .prop_map(|((addr, len, flags), next)| (addr, len, flags, next))
}

#[derive(Clone, Debug)]
enum Op {
    /// Write these heads and move the available index by as many, or now and then by anything.
    Offer(Vec<u16>, Option<u16>),
    Pop(usize),
    Unpop,
    /// Complete this many of what was popped, with this length, and publish.
    Complete(usize, u32),
    UsedEvent(u16),
    Flags(u16),
    EnableKicks,
    DisableKicks,
}

fn op(size: u16) -> impl Strategy<Value = Op> {
    let head = prop_oneof![300 => 0..size, 1 => any::<u16>()];
    let jump = prop_oneof![200 => Just(None), 1 => any::<u16>().prop_map(Some)];
    prop_oneof![
        4 => (prop::collection::vec(head, 0..8), jump).prop_map(|(h, j)| Op::Offer(h, j)),
        4 => (0usize..40).prop_map(Op::Pop),
        1 => Just(Op::Unpop),
        4 => (0usize..6, any::<u32>()).prop_map(|(n, len)| Op::Complete(n, len)),
        1 => (0u16..20).prop_map(Op::UsedEvent),
        1 => any::<u16>().prop_map(Op::Flags),
        1 => Just(Op::EnableKicks),
        1 => Just(Op::DisableKicks),
    ]
}

#[derive(Clone, Debug)]
struct Case {
    size: u16,
    start: u16,
    event_idx: bool,
    own: Vec<RawDesc>,
    tables: Vec<RawDesc>,
    ops: Vec<Op>,
}

fn case() -> impl Strategy<Value = Case> {
    (0u32..8).prop_flat_map(|shift| {
        let size = 1u16 << shift;
        (
            prop_oneof![Just(0u16), Just(0xfff0), any::<u16>()],
            any::<bool>(),
            prop::collection::vec(desc(size, 8), usize::from(size)),
            prop::collection::vec(desc(40, 1), 0x400),
            prop::collection::vec(op(size), 1..60),
        )
            .prop_map(move |(start, event_idx, own, tables, ops)| Case {
                size,
                start,
                event_idx,
                own,
                tables,
                ops,
            })
    })
}

/// Both rings, each over its own memory with the same contents.
struct Pair {
    area: SharedArea,
    config: RingConfig,
    ours: SplitRing,
    reference: Queue,
    reference_mem: GuestMemoryMmap,
    avail_idx: u16,
    published_once: bool,
}

impl Pair {
    fn new(case: &Case) -> Self {
        let area = SharedArea::new(0, MEMORY).unwrap();
        let mem = Arc::clone(area.memory());
        let Case {
            size,
            start,
            event_idx,
            ..
        } = *case;
        let config = DriverQueue::new(Arc::clone(&mem), 0, size, event_idx, start)
            .unwrap()
            .config();
        for (base, descs) in [(config.desc, &case.own), (TABLES, &case.tables)] {
            for (i, &(addr, len, flags, next)) in descs.iter().enumerate() {
                let at = base + 16 * i as u64;
                mem.write(at, &addr.to_le_bytes()).unwrap();
                mem.write(at + 8, &len.to_le_bytes()).unwrap();
                mem.write(at + 12, &flags.to_le_bytes()).unwrap();
                mem.write(at + 14, &next.to_le_bytes()).unwrap();
            }
        }
        let mut contents = vec![0; MEMORY as usize];
        mem.read(0, &mut contents).unwrap();
        let reference_mem =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
        reference_mem
            .write_slice(&contents, GuestAddress(0))
            .unwrap();
        let mut reference = Queue::new(size).unwrap();
        reference
            .try_set_desc_table_address(GuestAddress(config.desc))
            .unwrap();
        reference
            .try_set_avail_ring_address(GuestAddress(config.avail))
            .unwrap();
        reference
            .try_set_used_ring_address(GuestAddress(config.used))
            .unwrap();
        reference.set_event_idx(event_idx);
        reference.set_next_avail(start);
        reference.set_next_used(start);
        reference.set_ready(true);
        let ours = SplitRing::new(mem, &config).unwrap();
        Pair {
            area,
            config,
            ours,
            reference,
            reference_mem,
            avail_idx: start,
            published_once: false,
        }
    }

    fn write(&self, gpa: u64, word: u16) {
        self.area.memory().write(gpa, &word.to_le_bytes()).unwrap();
        self.reference_mem
            .write_slice(&word.to_le_bytes(), GuestAddress(gpa))
            .unwrap();
    }

    fn used_rings_agree(&self) -> bool {
        let len = 6 + 8 * usize::from(self.config.size);
        let (mut ours, mut theirs) = (vec![0; len], vec![0; len]);
        self.area
            .memory()
            .read(self.config.used, &mut ours)
            .unwrap();
        self.reference_mem
            .read_slice(&mut theirs, GuestAddress(self.config.used))
            .unwrap();
        ours == theirs
    }

    fn raw_desc(&self, index: u16, tables: bool) -> Vec<u16> {
        // Flags and next of all descriptors that could be meant by an index in a fault.
        let bases = if tables {
            (0..0x400).map(|i| TABLES + 16 * i).collect()
        } else {
            vec![0]
        };
        bases
            .into_iter()
            .filter_map(|base| {
                let mut flags = [0; 2];
                self.area
                    .memory()
                    .read(base + 16 * u64::from(index) + 12, &mut flags)?;
                Some(u16::from_le_bytes(flags))
            })
            .collect()
    }
}

/// A chain as the reference yields it: head, buffers, whether it ended as it should.
fn reference_chain(pair: &mut Pair) -> Option<(u16, Vec<Buffer>, bool)> {
    let mut chains = pair.reference.iter(&pair.reference_mem).ok()?;
    let chain = chains.next()?;
    let head = chain.head_index();
    let mut complete = false;
    let mut buffers = Vec::new();
    for desc in chain {
        complete = !desc.has_next();
        buffers.push((desc.addr().0, desc.len(), desc.is_write_only()));
    }
    Some((head, buffers, complete))
}

/// A chain of ours in the same form.
fn our_chain(mem: &GuestMemory, chain: Chain<'_>) -> Vec<Buffer> {
    let base = mem.translate(0, 1).unwrap().0.as_ptr().addr();
    let all = usize::MAX;
    let readable = chain.readable();
    let writable = chain.writable();
    readable
        .pieces(0, all)
        .map(|(ptr, len)| (ptr.addr(), len, false))
        .chain(
            writable
                .pieces(0, all)
                .map(|(ptr, len)| (ptr.addr(), len, true)),
        )
        .map(|(at, len, write)| ((at - base) as u64, len as u32, write))
        .collect()
}

/// Whether the reference's view of a chain is one that a device can serve.
fn well_formed(buffers: &[Buffer], complete: bool) -> bool {
    let in_memory = |&(addr, len, _): &Buffer| {
        len > 0
            && addr
                .checked_add(u64::from(len))
                .is_some_and(|end| end <= MEMORY)
    };
    complete
        && !buffers.is_empty()
        && buffers.len() <= MAX_SEGMENTS
        && buffers.iter().all(in_memory)
        && buffers.is_sorted_by_key(|b| b.2)
}

fn pop(pair: &mut Pair, burst: &mut Burst, max: usize) -> Result<bool, TestCaseError> {
    let outcome = pair.ours.pop_burst(burst, max);
    let mem = Arc::clone(pair.area.memory());
    for chain in burst.iter() {
        let theirs = reference_chain(pair);
        let (head, buffers, complete) = theirs.expect("the reference sees a chain");
        prop_assert_eq!(head, chain.head());
        prop_assert!(well_formed(&buffers, complete), "{:?}", buffers);
        prop_assert_eq!(our_chain(&mem, chain), buffers);
    }
    let fault = match outcome {
        Ok(n) => {
            prop_assert_eq!(n, burst.len());
            if n < max.min(BURST) {
                prop_assert!(reference_chain(pair).is_none());
            }
            return Ok(true);
        }
        Err(fault) => fault,
    };
    let theirs = reference_chain(pair);
    match fault {
        RingFault::AvailJump { idx, next, size } => {
            prop_assert!(theirs.is_none());
            prop_assert!(idx.wrapping_sub(next) > size);
        }
        // Here the reference takes what the specification forbids, or looks at less.
        RingFault::IndirectWithNext { index } => {
            prop_assert!(pair.raw_desc(index, false).iter().any(|f| f & 5 == 5));
        }
        RingFault::IndirectBadLength { len } => {
            prop_assert!(len == 0 || len % 16 != 0 || len > 32768 * 16);
        }
        RingFault::OutOfMemory { gpa, len } => {
            prop_assert!(gpa.checked_add(len.into()).is_none_or(|end| end > MEMORY));
        }
        RingFault::NestedIndirect { index } => {
            prop_assert!(pair.raw_desc(index, true).iter().any(|f| f & 4 == 4));
            prop_assert!(!theirs.unwrap().2);
        }
        _ => {
            let (_, buffers, complete) = theirs.expect("the reference sees a chain");
            prop_assert!(!well_formed(&buffers, complete), "{}: {:?}", fault, buffers);
        }
    }
    Ok(false)
}

fn run(case: &Case) -> Result<(), TestCaseError> {
    let mut pair = Pair::new(case);
    let mut burst = Burst::default();
    let mut popped: Vec<u16> = Vec::new();
    let mut flags = 0;
    let mut used_event = case.start;
    for op in &case.ops {
        match op {
            Op::Offer(heads, jump) => {
                let waiting = pair.avail_idx.wrapping_sub(pair.ours.next_avail());
                for &head in heads
                    .iter()
                    .take(usize::from(case.size.saturating_sub(waiting)))
                {
                    let slot = u64::from(pair.avail_idx % case.size);
                    pair.write(pair.config.avail + 4 + 2 * slot, head);
                    pair.avail_idx = pair.avail_idx.wrapping_add(1);
                }
                pair.avail_idx = jump.unwrap_or(pair.avail_idx);
                pair.write(pair.config.avail + 2, pair.avail_idx);
            }
            Op::Pop(max) => {
                if !pop(&mut pair, &mut burst, *max)? {
                    return Ok(());
                }
                popped.extend(burst.iter().map(|c| c.head()));
            }
            Op::Unpop => {
                if popped.pop().is_some() {
                    pair.ours.rewind(pair.ours.next_avail().wrapping_sub(1));
                    let back = pair.reference.next_avail().wrapping_sub(1);
                    pair.reference.set_next_avail(back);
                }
            }
            Op::Complete(n, len) => {
                let n = (*n).min(popped.len());
                for head in popped.drain(..n) {
                    pair.ours.push_used(head, *len);
                    pair.reference
                        .add_used(&pair.reference_mem, head, *len)
                        .unwrap();
                }
                let ours = pair.ours.publish();
                let mut theirs = pair
                    .reference
                    .needs_notification(&pair.reference_mem)
                    .unwrap();
                if !case.event_idx {
                    // The reference does not know the flag.
                    theirs = flags & 1 == 0 && n > 0;
                } else if n > 0 && !pair.published_once {
                    theirs = true;
                }
                pair.published_once |= n > 0;
                prop_assert_eq!(ours, theirs, "used_event {}", used_event);
                prop_assert_eq!(pair.ours.used_idx(), pair.reference.next_used());
                prop_assert!(pair.used_rings_agree());
            }
            Op::UsedEvent(ahead) => {
                used_event = pair.ours.used_idx().wrapping_add(*ahead).wrapping_sub(4);
                pair.write(pair.config.avail + 4 + 2 * u64::from(case.size), used_event);
            }
            Op::Flags(word) => {
                flags = *word;
                pair.write(pair.config.avail, flags);
            }
            Op::EnableKicks => {
                let theirs = pair
                    .reference
                    .enable_notification(&pair.reference_mem)
                    .unwrap();
                match pair.ours.enable_kicks() {
                    Ok(ours) => prop_assert_eq!(ours, theirs),
                    Err(fault) => {
                        let jump = matches!(fault, RingFault::AvailJump { .. });
                        prop_assert!(jump, "{}", fault);
                        prop_assert!(pair.reference.iter(&pair.reference_mem).is_err());
                        return Ok(());
                    }
                }
                prop_assert!(pair.used_rings_agree());
            }
            Op::DisableKicks => {
                pair.reference
                    .disable_notification(&pair.reference_mem)
                    .unwrap();
                pair.ours.disable_kicks();
                prop_assert!(pair.used_rings_agree());
            }
        }
        prop_assert_eq!(pair.ours.next_avail(), pair.reference.next_avail());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_virtio_queue(case in case()) {
        run(&case)?;
    }
}
