//! A ring of either layout, as those see it who serve it.

use std::sync::Arc;

use super::chain::{Burst, Token};
use super::fault::{RingError, RingFault};
use super::layout::full_fence;
use super::memory::GuestMemory;
use super::packed::PackedRing;
use super::split::{RingConfig, SplitRing};

/// A virtqueue as its device sees it. Owned by one worker at a time.
#[derive(Debug)]
pub enum Ring {
    /// Three tables (virtio 1.3 §2.7).
    Split(SplitRing),
    /// One ring (virtio 1.3 §2.8).
    Packed(PackedRing),
}

impl Ring {
    /// Takes up the ring that `config` describes in `mem`. Writes nothing.
    ///
    /// # Errors
    /// As [`SplitRing::new`] and [`PackedRing::new`].
    pub fn new(mem: Arc<GuestMemory>, config: &RingConfig) -> Result<Self, RingError> {
        if config.packed {
            PackedRing::new(mem, config).map(Ring::Packed)
        } else {
            SplitRing::new(mem, config).map(Ring::Split)
        }
    }

    /// Where the next pop begins: what GET_VRING_BASE returns and [`RingConfig::next_avail`] takes.
    #[inline]
    pub fn next_avail(&self) -> u16 {
        match self {
            Ring::Split(ring) => ring.next_avail(),
            Ring::Packed(ring) => ring.next_avail(),
        }
    }

    /// Takes back what was popped since [`Ring::next_avail`] gave `position`: those chains will be
    /// popped again. They must not have been pushed as used.
    #[inline]
    pub fn rewind(&mut self, position: u16) {
        match self {
            Ring::Split(ring) => ring.rewind(position),
            Ring::Packed(ring) => ring.rewind(position),
        }
    }

    /// Replaces what `burst` holds by up to `max` (and at most [`super::BURST`]) next chains;
    /// returns how many.
    ///
    /// # Errors
    /// A [`RingFault`]; then `burst` holds the good chains before the bad one, already popped.
    #[inline]
    pub fn pop_burst(&mut self, burst: &mut Burst, max: usize) -> Result<usize, RingFault> {
        match self {
            Ring::Split(ring) => ring.pop_burst(burst, max),
            Ring::Packed(ring) => ring.pop_burst(burst, max),
        }
    }

    /// Replaces what `burst` holds by the next chains: at most [`super::BURST`], and no more behind
    /// the one with which they have `bytes` that the driver wrote, so at least one if there is one.
    /// Returns how many.
    ///
    /// # Errors
    /// As [`Ring::pop_burst`].
    #[inline]
    pub fn pop_bytes(&mut self, burst: &mut Burst, bytes: u64) -> Result<usize, RingFault> {
        match self {
            Ring::Split(ring) => ring.pop_bytes(burst, bytes),
            Ring::Packed(ring) => ring.pop_bytes(burst, bytes),
        }
    }

    /// Completes a chain into which `len` bytes were written (0 for one that was only read). The
    /// driver sees it after [`Ring::publish`].
    #[inline]
    pub fn push_used(&mut self, chain: Token, len: u32) {
        match self {
            Ring::Split(ring) => ring.push_used(chain.id, len),
            Ring::Packed(ring) => ring.push_used(chain, len),
        }
    }

    /// Completes all chains of a burst, which were only read.
    #[inline]
    pub fn push_read(&mut self, burst: &Burst) {
        match self {
            Ring::Split(ring) => ring.push_read(burst),
            Ring::Packed(ring) => ring.push_read(burst),
        }
    }

    /// Makes everything pushed visible to the driver; returns whether it wants a call.
    #[inline]
    pub fn publish(&mut self) -> bool {
        self.show() && {
            full_fence();
            self.wants_call()
        }
    }

    /// The first half of [`Ring::publish`]: what was pushed, if anything, gets to the driver as
    /// soon as this processor's stores do. Unless it was nothing, a [`full_fence`] and
    /// [`Ring::wants_call`] have to follow; one fence does for several rings.
    #[inline]
    pub fn show(&mut self) -> bool {
        match self {
            Ring::Split(ring) => ring.show(),
            Ring::Packed(ring) => ring.show(),
        }
    }

    /// The other half: whether the driver wants a call for what was shown. The driver stores its
    /// wish, then looks at the ring; we the other way round. Without a full barrier on both sides
    /// both could see the old state, and the call be lost.
    ///
    /// The first call of a ring's life is always wanted: what a predecessor published may never
    /// have been announced.
    #[inline]
    pub fn wants_call(&mut self) -> bool {
        match self {
            Ring::Split(ring) => ring.wants_call(),
            Ring::Packed(ring) => ring.wants_call(),
        }
    }

    /// Asks the driver to kick when it makes the next chain available; returns whether chains are
    /// waiting already, so that a kick may not come and the caller must not go to sleep.
    ///
    /// # Errors
    /// A [`RingFault`] of the ring itself.
    #[inline]
    pub fn enable_kicks(&mut self) -> Result<bool, RingFault> {
        match self {
            Ring::Split(ring) => ring.enable_kicks(),
            Ring::Packed(ring) => ring.enable_kicks(),
        }
    }

    /// Tells the driver that the ring is polled.
    #[inline]
    pub fn disable_kicks(&mut self) {
        match self {
            Ring::Split(ring) => ring.disable_kicks(),
            Ring::Packed(ring) => ring.disable_kicks(),
        }
    }

    /// Asks the cache for what the next pop reads first.
    #[inline]
    pub fn prefetch(&self) {
        match self {
            Ring::Split(ring) => ring.prefetch(),
            Ring::Packed(ring) => ring.prefetch(),
        }
    }

    /// The guest memory this ring works in.
    #[inline]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        match self {
            Ring::Split(ring) => ring.memory(),
            Ring::Packed(ring) => ring.memory(),
        }
    }
}
