//! Rings of both layouts, device against driver: random chains, sizes, batches and notifications,
//! with every byte checked on both sides. `virtio-queue` has no packed rings to compare with.

use std::collections::HashMap;
use std::sync::Arc;

use chanio_emu::ring::driver::{DriverQueue, QueueOptions, SharedArea};
use chanio_emu::ring::{BURST, Burst, Reserve, Ring, RxScratch, Token};
use proptest::prelude::*;

/// Each chain has a place for its buffers and its indirect table.
const PLACE: u64 = 0x1000;
const TABLE: u64 = 0x800;
const PLACES: u64 = 0x10000;
const MAX_SIZE: u16 = 100;

#[derive(Clone, Debug)]
enum Op {
    /// Buffers to be read and to be written, through a table or not.
    Add(Vec<u32>, Vec<u32>, bool),
    /// The driver shows what it has added.
    Show,
    Pop(usize),
    /// Pop chains with so many bytes, and the one that has the last of them.
    PopBytes(u64),
    /// Pop and give back.
    Rewind(usize),
    /// Complete one of what was popped: the oldest, or any where that is allowed.
    Complete(prop::sample::Index),
    /// Pop and complete as read, all at once.
    Read(usize),
    /// The device shows what it has completed.
    Publish,
    /// The driver looks at this many.
    Reap(usize),
    EnableKicks,
    DisableKicks,
    EnableCalls,
    DisableCalls,
}

fn op() -> impl Strategy<Value = Op> {
    let lengths = || prop::collection::vec(1u32..60, 0..5);
    prop_oneof![
        10 => (lengths(), lengths(), any::<bool>()).prop_map(|(o, i, t)| Op::Add(o, i, t)),
        4 => (1u32..60).prop_map(|len| Op::Add(vec![len], vec![], false)),
        4 => Just(Op::Show),
        3 => (0usize..40).prop_map(Op::Pop),
        2 => (0u64..400).prop_map(Op::PopBytes),
        1 => (0usize..40).prop_map(Op::Rewind),
        6 => any::<prop::sample::Index>().prop_map(Op::Complete),
        2 => (0usize..40).prop_map(Op::Read),
        4 => Just(Op::Publish),
        4 => (1usize..40).prop_map(Op::Reap),
        1 => Just(Op::EnableKicks),
        1 => Just(Op::DisableKicks),
        1 => Just(Op::EnableCalls),
        1 => Just(Op::DisableCalls),
    ]
}

fn options() -> impl Strategy<Value = QueueOptions> {
    let size = any::<bool>().prop_flat_map(|packed| {
        if packed {
            (Just(packed), 1..=MAX_SIZE).boxed()
        } else {
            (Just(packed), (0u32..7).prop_map(|shift| 1u16 << shift)).boxed()
        }
    });
    (size, any::<[bool; 2]>(), any::<u16>()).prop_map(
        |((packed, size), [event_idx, in_order], n)| {
            let start = if packed { (n % size) | (n & 0x8000) } else { n };
            QueueOptions {
                size,
                packed,
                event_idx,
                in_order,
                start,
            }
        },
    )
}

/// A chain in flight, as its driver remembers it.
struct InFlight {
    place: u64,
    number: u8,
    readable: u32,
    writable: u32,
    /// What the device wrote, once it has; `None`: whatever, but it is completed as read.
    written: Option<u32>,
}

struct Sides {
    area: SharedArea,
    options: QueueOptions,
    driver: DriverQueue,
    device: Ring,
    burst: Burst,
    /// By the name the driver gives it.
    in_flight: HashMap<u16, InFlight>,
    free_places: Vec<u64>,
    /// Names in the order shown, not yet popped.
    shown: std::collections::VecDeque<u16>,
    added: Vec<u16>,
    popped: Vec<Token>,
    /// Completed, not yet published; published, not yet reaped.
    completed: usize,
    published: usize,
    count: u8,
    /// A kick, a call is due at the next chain.
    kick_due: Option<bool>,
    call_due: Option<bool>,
}

impl Sides {
    fn new(options: QueueOptions) -> Self {
        let places = u64::from(MAX_SIZE) + 1;
        let area = SharedArea::new(0, PLACES + places * PLACE).unwrap();
        let driver = DriverQueue::with(Arc::clone(area.memory()), 0, options).unwrap();
        let device = Ring::new(Arc::clone(area.memory()), &driver.config()).unwrap();
        Sides {
            area,
            options,
            driver,
            device,
            burst: Burst::default(),
            in_flight: HashMap::new(),
            free_places: (0..places).map(|n| PLACES + n * PLACE).collect(),
            shown: Default::default(),
            added: Vec::new(),
            popped: Vec::new(),
            completed: 0,
            published: 0,
            count: 0,
            kick_due: None,
            call_due: None,
        }
    }

    fn add(&mut self, out: &[u32], into: &[u32], table: bool) -> Result<(), TestCaseError> {
        let free = self.driver.free();
        let count = out.len() + into.len();
        let place = *self.free_places.last().unwrap();
        let mut at = place;
        let mut buffers = |lengths: &[u32]| -> Vec<_> {
            let place = |len: &u32| {
                let buffer = (at, *len);
                at += u64::from(*len);
                buffer
            };
            lengths.iter().map(place).collect()
        };
        let (out, into) = (buffers(out), buffers(into));
        let added = if table {
            self.driver.add_indirect(place + TABLE, &out, &into)
        } else {
            self.driver.add(&out, &into)
        };
        let fits = usize::from(free) >= if table { 1 } else { count };
        prop_assert_eq!(added.is_some(), count > 0 && fits);
        let Some(name) = added else { return Ok(()) };
        prop_assert!(name < self.options.size);
        self.free_places.pop();
        self.count = self.count.wrapping_add(1);
        let sum = |buffers: &[(u64, u32)]| buffers.iter().map(|b| b.1).sum::<u32>();
        let chain = InFlight {
            place,
            number: self.count,
            readable: sum(&out),
            writable: sum(&into),
            written: None,
        };
        let bytes = vec![chain.number; chain.readable as usize];
        self.area.memory().write(place, &bytes).unwrap();
        prop_assert!(self.in_flight.insert(name, chain).is_none());
        self.added.push(name);
        Ok(())
    }

    fn show(&mut self) -> Result<(), TestCaseError> {
        let kick = self.driver.publish();
        if self.added.is_empty() {
            prop_assert!(!kick);
        } else if let Some(due) = self.kick_due {
            // Disabled by an event that was passed long ago, it may come back once in a while.
            prop_assert!(kick || !due);
            prop_assert!(!kick || due || self.options.event_idx);
            if self.options.event_idx && due {
                self.kick_due = None;
            }
        }
        self.shown.extend(self.added.drain(..));
        Ok(())
    }

    fn pop(&mut self, max: usize) -> Result<(), TestCaseError> {
        let n = self.device.pop_burst(&mut self.burst, max).unwrap();
        prop_assert_eq!(n, self.shown.len().min(max).min(BURST));
        self.check_popped(n)
    }

    fn pop_bytes(&mut self, bytes: u64) -> Result<(), TestCaseError> {
        let n = self.device.pop_bytes(&mut self.burst, bytes).unwrap();
        let before = self.shown.iter().scan(0, |sum, name| {
            let before = *sum;
            *sum += u64::from(self.in_flight[name].readable);
            Some(before)
        });
        // The first goes always, the others as long as there is something left for them.
        let wanted = before
            .enumerate()
            .take_while(|(n, sum)| *n == 0 || *sum < bytes);
        prop_assert_eq!(n, wanted.count().min(BURST));
        self.check_popped(n)
    }

    fn check_popped(&self, n: usize) -> Result<(), TestCaseError> {
        prop_assert_eq!(n, self.burst.len());
        for (chain, name) in self.burst.iter().zip(&self.shown) {
            prop_assert_eq!(chain.token().id, *name);
            let known = &self.in_flight[name];
            prop_assert_eq!(chain.readable().len(), known.readable);
            prop_assert_eq!(chain.writable().len(), known.writable);
            let mut bytes = vec![0; known.readable as usize + 1];
            let got = chain.readable().copy_out(0, &mut bytes);
            prop_assert_eq!(got, known.readable as usize);
            prop_assert!(bytes[..got].iter().all(|b| *b == known.number));
        }
        Ok(())
    }

    /// Fills what the burst has room for.
    fn fill(&mut self) {
        for chain in self.burst.iter() {
            let known = self.in_flight.get_mut(&chain.token().id).unwrap();
            let len = chain.writable().len() - chain.writable().len() / 3;
            let bytes = vec![!known.number; len as usize];
            chain.writable().copy_in(0, &bytes);
            known.written = Some(len);
            self.popped.push(chain.token());
            self.shown.pop_front();
        }
    }

    fn publish(&mut self) -> Result<(), TestCaseError> {
        let call = self.device.publish();
        if self.completed == 0 {
            prop_assert!(!call);
        } else if let Some(due) = self.call_due {
            prop_assert!(call || !due);
            if self.options.event_idx && due {
                self.call_due = None;
            }
        }
        self.published += std::mem::take(&mut self.completed);
        Ok(())
    }

    fn reap(&mut self, max: usize) -> Result<(), TestCaseError> {
        for _ in 0..max {
            let Some((name, len)) = self.driver.poll_used().unwrap() else {
                prop_assert_eq!(self.published, 0);
                return Ok(());
            };
            prop_assert!(self.published > 0, "not published yet");
            self.published -= 1;
            let chain = self.in_flight.remove(&name).unwrap();
            prop_assert_eq!(len, chain.written.unwrap_or(0));
            let mut bytes = vec![0; len as usize];
            let at = chain.place + u64::from(chain.readable);
            self.area.memory().read(at, &mut bytes).unwrap();
            prop_assert!(bytes.iter().all(|b| *b == !chain.number));
            self.free_places.push(chain.place);
        }
        Ok(())
    }

    fn apply(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match op {
            Op::Add(out, into, table) => return self.add(out, into, *table),
            Op::Show => return self.show(),
            Op::Pop(max) => {
                self.pop(*max)?;
                self.fill();
            }
            Op::PopBytes(bytes) => {
                self.pop_bytes(*bytes)?;
                self.fill();
            }
            Op::Rewind(max) => {
                let before = self.device.next_avail();
                self.pop(*max)?;
                self.device.rewind(before);
                prop_assert_eq!(self.device.next_avail(), before);
            }
            Op::Complete(which) => {
                if self.popped.is_empty() {
                    return Ok(());
                }
                let which = if self.options.in_order {
                    0
                } else {
                    which.index(self.popped.len())
                };
                let chain = self.popped.remove(which);
                let len = self.in_flight[&chain.id].written.unwrap();
                self.device.push_used(chain, len);
                self.completed += 1;
            }
            Op::Read(max) => {
                // In order, what was popped before comes first.
                if self.popped.is_empty() || !self.options.in_order {
                    self.pop(*max)?;
                    self.device.push_read(&self.burst);
                    self.completed += self.burst.len();
                    self.shown.drain(..self.burst.len());
                }
            }
            Op::Publish => return self.publish(),
            Op::Reap(max) => return self.reap(*max),
            Op::EnableKicks => {
                let waiting = self.device.enable_kicks().unwrap();
                prop_assert_eq!(waiting, !self.shown.is_empty());
                self.kick_due = (!waiting).then_some(true);
            }
            Op::DisableKicks => {
                self.device.disable_kicks();
                self.kick_due = Some(false);
            }
            Op::EnableCalls => {
                // The queue must be drained first, or the event is behind what is there.
                self.reap(usize::MAX)?;
                let waiting = self.driver.enable_calls();
                prop_assert!(!waiting);
                self.call_due = Some(true);
            }
            Op::DisableCalls => {
                self.driver.disable_calls();
                self.call_due = Some(false);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn chains_go_there_and_back(
        options in options(),
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let mut sides = Sides::new(options);
        for op in &ops {
            sides.apply(op)?;
        }
        // All of it ends in order, whatever was under way.
        sides.show()?;
        while !sides.shown.is_empty() {
            sides.pop(BURST)?;
            sides.fill();
        }
        for chain in std::mem::take(&mut sides.popped) {
            let len = sides.in_flight[&chain.id].written.unwrap();
            sides.device.push_used(chain, len);
            sides.completed += 1;
        }
        sides.publish()?;
        sides.reap(usize::MAX)?;
        prop_assert!(sides.in_flight.is_empty());
        prop_assert_eq!(sides.driver.free(), options.size);
    }

    /// Frames spread over mergeable buffers, of chains of one to three descriptors. None is so small
    /// that a frame would need more of them than one may have.
    #[test]
    fn frames_go_into_buffers(
        options in options(),
        buffers in prop::collection::vec(prop::collection::vec(5u32..50, 1..4), 1..60),
        frames in prop::collection::vec((1u32..300, any::<bool>()), 1..60),
    ) {
        let mut sides = Sides::new(options);
        let mut scratch = RxScratch::default();
        let mut buffers = buffers.iter().cycle();
        for (i, (total, keep)) in frames.into_iter().enumerate() {
            loop {
                let before = sides.added.len();
                sides.add(&[], buffers.next().unwrap(), false)?;
                if sides.added.len() == before {
                    break;
                }
            }
            sides.show()?;
            let room: u32 = sides.shown.iter().map(|n| sides.in_flight[n].writable).sum();
            let before = sides.device.next_avail();
            let taken = match sides.device.reserve(&mut scratch, total, true).unwrap() {
                Reserve::Ready(reserved) => {
                    prop_assert!(room >= total);
                    let bytes = vec![i as u8; total as usize];
                    prop_assert_eq!(reserved.writable().copy_in(0, &bytes), total as usize);
                    let n = usize::from(reserved.num_buffers());
                    if keep {
                        reserved.commit();
                    }
                    if keep { n } else { 0 }
                }
                // The ring is full, so it may also be that no number of such buffers would do.
                Reserve::NoBuffers | Reserve::TooSmall { .. } => {
                    prop_assert!(room < total);
                    0
                }
            };
            prop_assert!(sides.driver.poll_used().unwrap().is_none());
            sides.device.publish();
            if taken == 0 {
                prop_assert_eq!(sides.device.next_avail(), before);
                continue;
            }
            let mut left = total;
            for name in sides.shown.drain(..taken) {
                let chain = sides.in_flight.remove(&name).unwrap();
                let len = chain.writable.min(left);
                prop_assert_eq!(sides.driver.poll_used().unwrap(), Some((name, len)));
                let mut got = vec![!(i as u8); len as usize];
                sides.area.memory().read(chain.place, &mut got).unwrap();
                prop_assert!(got.iter().all(|b| *b == i as u8));
                sides.free_places.push(chain.place);
                left -= len;
            }
            prop_assert_eq!(left, 0);
            prop_assert!(sides.driver.poll_used().unwrap().is_none());
        }
    }
}
