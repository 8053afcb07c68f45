//! Ring positions as the hot path keeps them.

/// A free-running index of 16 bits (virtio 1.3 §2.7.6, §2.7.8), kept in 32.
///
/// Compilers load an aligned field of 16 bits as 32 where the upper half does not matter. A
/// processor cannot forward a store of 16 bits to such a load: it waits until that store, and all
/// stores before it, have reached the cache. On the hot path those are payload for lines that
/// another core has, so that one index in 16 bits was half of the cost of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Index(u32);

impl Index {
    #[inline]
    pub(super) fn new(value: u16) -> Self {
        Index(u32::from(value))
    }

    #[inline]
    pub(super) fn get(self) -> u16 {
        self.0 as u16
    }

    #[inline]
    pub(super) fn advance(&mut self, n: u16) {
        *self = Index::new(self.get().wrapping_add(n));
    }
}
