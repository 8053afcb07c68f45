//! The fields of a split ring's tables (virtio 1.3 §2.7.5, §2.7.6, §2.7.8), each a single load or
//! store. All fields are little-endian.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// Descriptor flags (virtio 1.3 §2.7.5).
pub(super) const DESC_F_NEXT: u16 = 1;
pub(super) const DESC_F_WRITE: u16 = 2;
pub(super) const DESC_F_INDIRECT: u16 = 4;
/// Available ring flag: the driver does not want calls (virtio 1.3 §2.7.6).
pub(super) const AVAIL_F_NO_INTERRUPT: u16 = 1;
/// Used ring flag: the device does not want kicks (virtio 1.3 §2.7.8).
pub(super) const USED_F_NO_NOTIFY: u16 = 1;

/// One descriptor, copied out of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Desc {
    /// Guest physical address.
    pub(super) addr: u64,
    /// Bytes.
    pub(super) len: u32,
    pub(super) flags: u16,
    /// Index of the next descriptor in the same table, if `flags` has NEXT.
    pub(super) next: u16,
}

impl Desc {
    /// Bytes of a descriptor in guest memory.
    pub(super) const SIZE: u32 = 16;

    /// As it stands in guest memory.
    pub(super) fn to_bytes(self) -> [u8; 16] {
        let rest = u64::from(self.len) | u64::from(self.flags) << 32 | u64::from(self.next) << 48;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.addr.to_le_bytes());
        bytes[8..].copy_from_slice(&rest.to_le_bytes());
        bytes
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
}

/// Sixteen bytes at any alignment, loaded as two words.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct RawDesc {
    addr: u64,
    rest: u64,
}

/// A table of descriptors in mapped guest memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct DescTable {
    ptr: NonNull<u8>,
    len: u16,
}

impl DescTable {
    /// # Safety
    /// `ptr..ptr + 16 * len` is mapped for as long as the table is used.
    #[inline]
    pub(super) unsafe fn new(ptr: NonNull<u8>, len: u16) -> Self {
        DescTable { ptr, len }
    }

    /// Entries.
    #[inline]
    pub(super) fn len(self) -> u16 {
        self.len
    }

    /// Loads entry `index` once.
    #[inline]
    pub(super) fn read(self, index: u16) -> Desc {
        assert!(
            index < self.len,
            "descriptor index is checked by the caller"
        );
        // SAFETY: in bounds by the assertion and `new`'s contract; `RawDesc` has alignment 1 and
        // any bytes are a value of it. Volatile, so that the checks see the very bytes that are
        // used afterwards and no second load is made.
        let raw = unsafe {
            self.ptr
                .cast::<RawDesc>()
                .add(usize::from(index))
                .read_volatile()
        };
        let rest = u64::from_le(raw.rest);
        Desc {
            addr: u64::from_le(raw.addr),
            len: rest as u32,
            flags: (rest >> 32) as u16,
            next: (rest >> 48) as u16,
        }
    }

    /// Asks the cache for entry `index`, which may be anything.
    #[inline]
    pub(super) fn prefetch(self, index: u16) {
        prefetch(
            self.ptr
                .as_ptr()
                .wrapping_add(usize::from(index) * Desc::SIZE as usize),
        );
    }
}

/// Asks the cache for the line at `ptr`. Never faults, whatever `ptr` is.
#[inline]
pub(super) fn prefetch(ptr: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint without architectural effect, for any address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(ptr.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = ptr;
}

/// Asks the cache for the line at `ptr`, to be written: what [`prefetch`] gets has to be taken from
/// the other side's cache a second time by the first store. Never faults, whatever `ptr` is.
#[inline]
pub(super) fn prefetch_for_writing(ptr: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint without architectural effect for any address; processors that do not know it
    // do nothing. (The intrinsic is only this instruction for targets above the baseline.)
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) ptr, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    prefetch(ptr);
}

/// Host addresses of one ring's three tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) desc: DescTable,
    avail: NonNull<u8>,
    used: NonNull<u8>,
    size: u16,
}

impl Layout {
    /// # Safety
    /// For as long as the layout is used: `desc` has `size` mapped entries, `avail` is 6 + 2·`size`
    /// mapped bytes aligned to 2, `used` is 6 + 8·`size` mapped bytes aligned to 4. `size` is a
    /// power of two.
    pub(super) unsafe fn new(
        desc: NonNull<u8>,
        avail: NonNull<u8>,
        used: NonNull<u8>,
        size: u16,
    ) -> Self {
        // SAFETY: passed on from the caller.
        let desc = unsafe { DescTable::new(desc, size) };
        Layout {
            desc,
            avail,
            used,
            size,
        }
    }

    /// Bytes of the three tables for a ring of `size` entries: descriptor, available, used.
    pub(super) fn sizes(size: u16) -> (usize, usize, usize) {
        let n = usize::from(size);
        (16 * n, 6 + 2 * n, 6 + 8 * n)
    }

    /// Entries.
    #[inline]
    pub(super) fn size(&self) -> u16 {
        self.size
    }

    #[inline]
    fn slot(&self, position: u16) -> usize {
        usize::from(position & (self.size - 1))
    }

    /// # Safety
    /// `offset` is even and `offset + 2` within the table behind `base`.
    #[inline]
    unsafe fn word(&self, base: NonNull<u8>, offset: usize) -> &AtomicU16 {
        // SAFETY: in bounds and aligned by the caller and `Layout::new`'s contract. Every access
        // from this process to these words is atomic; other processes' are outside its memory
        // model.
        unsafe { AtomicU16::from_ptr(base.as_ptr().add(offset).cast()) }
    }

    #[inline]
    pub(super) fn avail_flags(&self) -> &AtomicU16 {
        // SAFETY: the available ring starts with flags, idx.
        unsafe { self.word(self.avail, 0) }
    }

    #[inline]
    pub(super) fn avail_idx(&self) -> &AtomicU16 {
        // SAFETY: as above.
        unsafe { self.word(self.avail, 2) }
    }

    /// The available ring's entry for a free-running `position`.
    #[inline]
    pub(super) fn avail_entry(&self, position: u16) -> &AtomicU16 {
        // SAFETY: `slot < size`, and `size` entries follow the first four bytes.
        unsafe { self.word(self.avail, 4 + 2 * self.slot(position)) }
    }

    /// Written by the driver: call me when the used index passes this.
    #[inline]
    pub(super) fn used_event(&self) -> &AtomicU16 {
        // SAFETY: the last two bytes of the available ring, behind `size` entries.
        unsafe { self.word(self.avail, 4 + 2 * usize::from(self.size)) }
    }

    #[inline]
    pub(super) fn used_flags(&self) -> &AtomicU16 {
        // SAFETY: the used ring starts with flags, idx.
        unsafe { self.word(self.used, 0) }
    }

    #[inline]
    pub(super) fn used_idx(&self) -> &AtomicU16 {
        // SAFETY: as above.
        unsafe { self.word(self.used, 2) }
    }

    /// Written by the device: kick me when the available index passes this.
    #[inline]
    pub(super) fn avail_event(&self) -> &AtomicU16 {
        // SAFETY: the last two bytes of the used ring, behind `size` entries.
        unsafe { self.word(self.used, 4 + 8 * usize::from(self.size)) }
    }

    /// Stores the used element for a free-running `position`. Not ordered: the release store of
    /// the index publishes it.
    #[inline]
    pub(super) fn write_used(&self, position: u16, head: u16, len: u32) {
        let element = u64::from(len) << 32 | u64::from(head);
        // SAFETY: `slot < size` and the elements start at byte 4 of the table; alignment 1.
        unsafe {
            let at = self.used.as_ptr().add(4 + 8 * self.slot(position));
            at.cast::<[u8; 8]>().write(element.to_le_bytes());
        }
    }

    /// Asks the cache for the used elements of `n` positions from `position` on, to be written.
    #[inline]
    pub(super) fn prefetch_used(&self, position: u16, n: u16) {
        const IN_A_LINE: u16 = 8;
        let first = self.used.as_ptr();
        let lines = n.div_ceil(IN_A_LINE);
        for line in 0..=lines {
            // The last of them, because elements begin anywhere in a line.
            let ahead = (line * IN_A_LINE).min(n);
            let at = 4 + 8 * self.slot(position.wrapping_add(ahead));
            prefetch_for_writing(first.wrapping_add(at));
        }
    }

    /// The used element at a free-running `position`: id and length. The driver's side.
    pub(super) fn read_used(&self, position: u16) -> (u32, u32) {
        // SAFETY: as in `write_used`.
        let [id, len] = unsafe {
            let at = self
                .used
                .as_ptr()
                .add(4 + 8 * self.slot(position))
                .cast::<[u32; 2]>();
            at.read_volatile()
        };
        (u32::from_le(id), u32::from_le(len))
    }

    /// Stores descriptor `index`. The driver's side.
    pub(super) fn write_desc(&self, index: u16, desc: Desc) {
        assert!(index < self.size, "descriptor index is the driver's own");
        // SAFETY: in bounds by the assertion; alignment 1.
        unsafe {
            let at = self.desc.ptr.cast::<[u8; 16]>().add(usize::from(index));
            at.write_volatile(desc.to_bytes());
        }
    }
}

/// Ordering between a store of ours and a following load of what the other side writes, as the
/// notification handshakes need on both sides.
#[inline]
pub fn full_fence() {
    std::sync::atomic::fence(Ordering::SeqCst);
}

/// Whether moving an index from `old` to `new` passed `event` (virtio 1.3 §2.7.10, in free-running
/// 16-bit arithmetic): the other side asked to hear of the step that leaves `event` behind.
#[inline]
pub(super) fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_due_when_passed_also_across_the_wrap() {
        assert!(need_event(5, 6, 5));
        assert!(!need_event(5, 5, 4));
        assert!(!need_event(5, 7, 6));
        assert!(need_event(5, 100, 0));
        assert!(need_event(0xffff, 0, 0xffff));
        assert!(need_event(0xfffe, 3, 0xfff0));
        assert!(need_event(2, 3, 0xfff0));
        assert!(!need_event(3, 3, 0xfff0));
    }

    #[test]
    fn a_descriptor_is_read_as_it_was_written() {
        let mut bytes = [0u8; 33];
        let at = NonNull::from(&mut bytes).cast::<u8>();
        let desc = Desc {
            addr: 0x1122_3344_5566_7788,
            len: 0x99aa_bbcc,
            flags: 5,
            next: 0xddee,
        };
        // SAFETY: 33 bytes hold an entry at offsets 0 and, odd, 1.
        unsafe {
            for offset in [0, 1] {
                let at = at.add(offset);
                at.cast::<[u8; 16]>().write(desc.to_bytes());
                assert_eq!(DescTable::new(at, 1).read(0), desc);
            }
        }
        assert_eq!(bytes[1], 0x88, "little-endian");
    }
}
