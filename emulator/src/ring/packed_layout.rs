//! The parts of a packed ring (virtio 1.3 §2.8), each field a single load or store. All fields are
//! little-endian.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::layout::{
    DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, Desc, prefetch, prefetch_for_writing,
};

/// Descriptor flags that follow the wrap counters (virtio 1.3 §2.8.1).
const DESC_F_AVAIL: u16 = 1 << 7;
const DESC_F_USED: u16 = 1 << 15;

/// A place in a packed ring: a slot, and the wrap counter of the lap in which it is reached.
///
/// As 16 bits, the slot in 15 and the counter above, it is what the event areas hold (virtio 1.3
/// §2.8.14) and what vhost-user calls a base. Kept in 32 for the reason that
/// [`super::index::Index`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position(u32);

impl Position {
    #[inline]
    pub(super) fn from_raw(raw: u16) -> Self {
        Position(u32::from(raw))
    }

    #[inline]
    pub(super) fn raw(self) -> u16 {
        self.0 as u16
    }

    /// The slot.
    #[inline]
    pub(super) fn index(self) -> u16 {
        self.0 as u16 & 0x7fff
    }

    /// The wrap counter.
    #[inline]
    pub(super) fn wrap(self) -> bool {
        self.0 & 0x8000 != 0
    }

    /// The same slot a lap later, or earlier.
    pub(super) fn other_lap(self) -> Self {
        Position(self.0 ^ 0x8000)
    }

    /// The place `n` slots on, at most a lap.
    #[inline]
    pub(super) fn advance(&mut self, n: u16, size: u16) {
        let (index, lap) = (self.0 & 0x7fff, self.0 & 0x8000);
        // 32768 slots and as many again do not fit in 16 bits.
        let index = index + u32::from(n);
        *self = if index >= u32::from(size) {
            Position((index - u32::from(size)) | (lap ^ 0x8000))
        } else {
            Position(index | lap)
        };
    }

    /// What the flags of a descriptor made available here have of AVAIL and USED.
    #[inline]
    pub(super) fn avail_flags(self) -> u16 {
        if self.wrap() {
            DESC_F_AVAIL
        } else {
            DESC_F_USED
        }
    }

    /// What the flags of a descriptor used here have of AVAIL and USED.
    #[inline]
    pub(super) fn used_flags(self) -> u16 {
        if self.wrap() {
            DESC_F_AVAIL | DESC_F_USED
        } else {
            0
        }
    }
}

/// A descriptor's second half: length, buffer id and flags, written and read as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// Bytes.
    pub(super) len: u32,
    /// Buffer id.
    pub(super) id: u16,
    pub(super) flags: u16,
}

impl Meta {
    #[inline]
    fn from_word(word: u64) -> Self {
        let word = u64::from_le(word);
        Meta {
            len: word as u32,
            id: (word >> 32) as u16,
            flags: (word >> 48) as u16,
        }
    }

    #[inline]
    fn word(self) -> u64 {
        (u64::from(self.len) | u64::from(self.id) << 32 | u64::from(self.flags) << 48).to_le()
    }

    /// Whether the driver has made it available in the lap of `at`.
    #[inline]
    pub(super) fn is_available(self, at: Position) -> bool {
        self.flags & (DESC_F_AVAIL | DESC_F_USED) == at.avail_flags()
    }

    /// Whether the device has used it in the lap of `at`.
    #[inline]
    pub(super) fn is_used(self, at: Position) -> bool {
        self.flags & (DESC_F_AVAIL | DESC_F_USED) == at.used_flags()
    }

    #[inline]
    pub(super) fn has_next(self) -> bool {
        self.flags & DESC_F_NEXT != 0
    }

    #[inline]
    pub(super) fn is_writable(self) -> bool {
        self.flags & DESC_F_WRITE != 0
    }

    #[inline]
    pub(super) fn is_indirect(self) -> bool {
        self.flags & DESC_F_INDIRECT != 0
    }

    /// With its address, as those see it who collect segments: a buffer and its direction.
    #[inline]
    pub(super) fn desc(self, addr: u64) -> Desc {
        Desc {
            addr,
            len: self.len,
            flags: self.flags,
            next: 0,
        }
    }

    /// An entry of an indirect table, which was read as a split ring's: flags and the last field
    /// have changed places (virtio 1.3 §2.8.13). Only WRITE means anything there (§2.8.7).
    #[inline]
    pub(super) fn indirect_entry(read: Desc) -> Desc {
        Desc {
            flags: read.next & DESC_F_WRITE,
            next: 0,
            ..read
        }
    }

    /// The same in the other direction: what to write for `desc`.
    pub(super) fn indirect_entry_for(desc: Desc) -> Desc {
        Desc {
            flags: 0,
            next: desc.flags & DESC_F_WRITE,
            ..desc
        }
    }
}

/// Event area: notify at every descriptor, ...
pub(super) const EVENT_ENABLE: u16 = 0;
/// ... not at all, ...
pub(super) const EVENT_DISABLE: u16 = 1;
/// ... or when a place is passed.
pub(super) const EVENT_DESC: u16 = 2;

/// What an event area says (virtio 1.3 §2.8.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The place, if `flags` is [`EVENT_DESC`].
    pub(super) at: Position,
    pub(super) flags: u16,
}

impl Event {
    /// Whether one who has just moved `moved` slots, to `new`, is to notify. `desc` says whether
    /// places were negotiated (EVENT_IDX).
    #[inline]
    pub(super) fn is_due(self, new: Position, moved: u32, size: u16, desc: bool) -> bool {
        match self.flags & 3 {
            EVENT_DISABLE => false,
            EVENT_DESC if desc => {
                let lap = if self.at.wrap() == new.wrap() {
                    0
                } else {
                    i32::from(size)
                };
                // How far `new` is past it. Anything if the place is none; nothing depends on it.
                let past = i32::from(new.index()) + lap - i32::from(self.at.index());
                past > 0 && past as u32 <= moved
            }
            _ => true,
        }
    }

    #[inline]
    fn from_word(word: u32) -> Self {
        let word = u32::from_le(word);
        Event {
            at: Position::from_raw(word as u16),
            flags: (word >> 16) as u16,
        }
    }

    #[inline]
    fn word(self) -> u32 {
        (u32::from(self.at.raw()) | u32::from(self.flags) << 16).to_le()
    }
}

/// Host addresses of one packed ring's three parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackedLayout {
    desc: NonNull<u8>,
    driver: NonNull<u8>,
    device: NonNull<u8>,
    size: u16,
}

impl PackedLayout {
    /// # Safety
    /// For as long as the layout is used: `desc` is 16·`size` mapped bytes aligned to 16, `driver`
    /// and `device` are 4 mapped bytes each, aligned to 4.
    pub(super) unsafe fn new(
        desc: NonNull<u8>,
        driver: NonNull<u8>,
        device: NonNull<u8>,
        size: u16,
    ) -> Self {
        PackedLayout {
            desc,
            driver,
            device,
            size,
        }
    }

    /// Bytes of the descriptor ring.
    pub(super) fn ring_bytes(size: u16) -> usize {
        16 * usize::from(size)
    }

    /// Bytes of each event area.
    pub(super) const EVENT_BYTES: usize = 4;

    /// Slots.
    #[inline]
    pub(super) fn size(&self) -> u16 {
        self.size
    }

    /// A descriptor's address field, or the word behind it.
    #[inline]
    fn half(&self, index: u16, second: bool) -> &AtomicU64 {
        assert!(index < self.size, "positions are kept inside the ring");
        let offset = 16 * usize::from(index) + 8 * usize::from(second);
        // SAFETY: in bounds by the assertion, aligned to 8 by the contract of `new`. Every access
        // from this process to these words is atomic; other processes' are outside its memory
        // model.
        unsafe { AtomicU64::from_ptr(self.desc.as_ptr().add(offset).cast()) }
    }

    /// Loads a descriptor's second half once. What the other side wrote before it set these flags
    /// is visible after.
    #[inline]
    pub(super) fn meta(&self, index: u16) -> Meta {
        Meta::from_word(self.half(index, true).load(Ordering::Acquire))
    }

    /// Loads a descriptor's address once; after its second half, which says that it is there.
    #[inline]
    pub(super) fn addr(&self, index: u16) -> u64 {
        u64::from_le(self.half(index, false).load(Ordering::Relaxed))
    }

    /// Stores a descriptor's address. The driver's side.
    #[inline]
    pub(super) fn set_addr(&self, index: u16, addr: u64) {
        self.half(index, false)
            .store(addr.to_le(), Ordering::Relaxed);
    }

    /// Stores a descriptor's second half: behind one that is shown later, ...
    #[inline]
    pub(super) fn set_meta(&self, index: u16, meta: Meta) {
        self.half(index, true).store(meta.word(), Ordering::Relaxed);
    }

    /// ... or showing it, and everything stored before.
    #[inline]
    pub(super) fn show(&self, index: u16, meta: Meta) {
        self.half(index, true).store(meta.word(), Ordering::Release);
    }

    /// Asks the cache for a descriptor, ...
    #[inline]
    pub(super) fn prefetch(&self, index: u16) {
        prefetch(self.desc.as_ptr().wrapping_add(Self::ring_bytes(index)));
    }

    /// ... to be written.
    #[inline]
    pub(super) fn prefetch_for_writing(&self, index: u16) {
        prefetch_for_writing(self.desc.as_ptr().wrapping_add(Self::ring_bytes(index)));
    }

    #[inline]
    fn event(&self, area: NonNull<u8>) -> &AtomicU32 {
        // SAFETY: an event area is 4 mapped bytes aligned to 4 by the contract of `new`; accessed
        // atomically only, as in `half`.
        unsafe { AtomicU32::from_ptr(area.as_ptr().cast()) }
    }

    /// When the driver wants calls.
    #[inline]
    pub(super) fn driver_event(&self) -> Event {
        Event::from_word(self.event(self.driver).load(Ordering::Relaxed))
    }

    /// When the device wants kicks. Read on the driver's side.
    #[inline]
    pub(super) fn device_event(&self) -> Event {
        Event::from_word(self.event(self.device).load(Ordering::Relaxed))
    }

    /// Says when the driver wants calls. The driver's side.
    #[inline]
    pub(super) fn set_driver_event(&self, event: Event) {
        self.event(self.driver)
            .store(event.word(), Ordering::Relaxed);
    }

    /// Says when the device wants kicks.
    #[inline]
    pub(super) fn set_device_event(&self, event: Event) {
        self.event(self.device)
            .store(event.word(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_go_round_and_change_their_wrap() {
        for size in [1u16, 3, 256, 32768] {
            let mut at = Position::from_raw(0x8000);
            for step in 0..4 * u32::from(size) {
                let lap = step / u32::from(size);
                assert_eq!(u32::from(at.index()), step % u32::from(size));
                assert_eq!(at.wrap(), lap % 2 == 0);
                assert_eq!(Position::from_raw(at.raw()), at);
                at.advance(1, size);
            }
            at.advance(size, size);
            assert_eq!(at.raw(), 0, "a whole lap");
        }
    }

    #[test]
    fn events_are_due_when_passed_also_across_the_wrap() {
        let due = |event: u16, new: u16, moved| {
            let event = Event {
                at: Position::from_raw(event),
                flags: EVENT_DESC,
            };
            event.is_due(Position::from_raw(new), moved, 10, true)
        };
        let wrapped = 0x8000;
        assert!(due(5, 6, 1));
        assert!(!due(5, 5, 3), "reached, not passed");
        assert!(!due(5, 8, 2), "passed before");
        assert!(due(5, 8, 3));
        assert!(due(9 | wrapped, 0, 1));
        assert!(due(9, wrapped, 1));
        assert!(due(8 | wrapped, 3, 5));
        assert!(!due(8 | wrapped, 3, 4));
        assert!(!due(8, 3, 5), "a lap ahead");
        assert!(!due(3 | wrapped, 3, 9), "exactly a lap behind");
        assert!(due(3 | wrapped, 3, 10));
        let all = Event {
            at: Position::from_raw(7),
            flags: EVENT_DESC,
        };
        assert!(all.is_due(Position::from_raw(1), 1, 10, false));
    }

    #[test]
    fn the_largest_ring_counts_its_laps() {
        let event = Event {
            at: Position::from_raw(0x8000 | 32767),
            flags: EVENT_DESC,
        };
        assert!(event.is_due(Position::from_raw(0), 1, 32768, true));
        assert!(event.is_due(Position::from_raw(5), 6, 32768, true));
        assert!(!event.is_due(Position::from_raw(5), 5, 32768, true));
    }

    #[test]
    fn a_descriptor_is_read_as_it_was_written() {
        #[repr(align(16))]
        struct Bytes([u8; 48]);
        let mut bytes = Bytes([0; 48]);
        let at = NonNull::from(&mut bytes.0).cast::<u8>();
        // SAFETY: two descriptors and two areas in 48 bytes aligned to 16.
        let layout = unsafe { PackedLayout::new(at, at.add(32), at.add(36), 2) };
        let meta = Meta {
            len: 0x1122_3344,
            id: 0x5566,
            flags: 0x8081,
        };
        layout.set_addr(1, 0x99aa_bbcc_ddee_ff00);
        layout.show(1, meta);
        assert_eq!(layout.meta(1), meta);
        assert_eq!(layout.addr(1), 0x99aa_bbcc_ddee_ff00);
        let event = Event {
            at: Position::from_raw(0x8001),
            flags: EVENT_DESC,
        };
        layout.set_device_event(event);
        assert_eq!(layout.device_event(), event);
        assert_eq!(layout.driver_event().flags, EVENT_ENABLE);
        let expected = [
            0x00, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x44, 0x33, 0x22, 0x11, 0x66, 0x55,
            0x81, 0x80,
        ];
        assert_eq!(bytes.0[16..32], expected);
        assert_eq!(bytes.0[36..40], [1, 0x80, 2, 0]);
    }
}
