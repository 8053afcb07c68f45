//! What a client has said about one ring.

use super::error::SessionError;
use super::features::{EVENT_IDX, IN_ORDER, INDIRECT_DESC, RING_PACKED};
use crate::ring::{EventFd, GuestMemory, RingConfig};

/// Addresses of a ring's tables in the client's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddress {
    /// Descriptor table, or a packed ring's descriptor ring.
    pub desc: u64,
    /// Available ring, or a packed ring's driver event area.
    pub avail: u64,
    /// Used ring, or a packed ring's device event area.
    pub used: u64,
}

impl RingAddress {
    /// The same as guest physical addresses: desc, avail, used.
    ///
    /// # Errors
    /// [`SessionError::Unmapped`].
    pub fn translate(&self, mem: &GuestMemory, index: u16) -> Result<[u64; 3], SessionError> {
        let find = |table, uva| {
            mem.uva_to_gpa(uva)
                .ok_or(SessionError::Unmapped { index, table, uva })
        };
        Ok([
            find("descriptor table", self.desc)?,
            find("available ring", self.avail)?,
            find("used ring", self.used)?,
        ])
    }
}

/// How the driver says that there is work.
#[derive(Debug, Default)]
pub enum KickState {
    /// Not set up: the ring is stopped.
    #[default]
    Unset,
    /// It does not: poll.
    Polled,
    /// It writes an eventfd that was closed here: what is new on a receive ring is found when there
    /// is something to deliver.
    Unread,
    /// It writes this eventfd.
    Event(EventFd),
}

/// One ring as set up so far. It runs once size, addresses and kick are there and it is enabled
/// (vhost-user, "Ring states"; we do not serve a ring that is started but disabled).
#[derive(Debug, Default)]
pub struct Vring {
    /// Entries; 0: not said yet.
    pub size: u16,
    /// Where its tables are.
    pub address: Option<RingAddress>,
    /// Where it starts, or goes on; `None`: not said yet, at the beginning.
    pub base: Option<u16>,
    /// How the driver wakes us.
    pub kick: KickState,
    /// How we wake the driver; `None`: it polls.
    pub call: Option<EventFd>,
    /// SET_VRING_ENABLE.
    pub enabled: bool,
    /// The device has it.
    pub running: bool,
}

impl Vring {
    /// Whether a client has said all that is needed to run it, enabling apart.
    pub fn is_set_up(&self) -> bool {
        self.size != 0 && self.address.is_some() && !matches!(self.kick, KickState::Unset)
    }

    /// How to take it up in this memory with these features, if it is set up.
    ///
    /// # Errors
    /// [`SessionError::Unmapped`].
    pub fn config(
        &self,
        index: u16,
        mem: &GuestMemory,
        features: u64,
    ) -> Result<Option<RingConfig>, SessionError> {
        let Some(address) = self.address.filter(|_| self.is_set_up()) else {
            return Ok(None);
        };
        let [desc, avail, used] = address.translate(mem, index)?;
        let has = |feature| features & feature != 0;
        let packed = has(RING_PACKED);
        // virtio 1.3 §2.8.1: wrap counters start at 1.
        let beginning = if packed { 1 << 15 } else { 0 };
        Ok(Some(RingConfig {
            size: self.size,
            desc,
            avail,
            used,
            next_avail: self.base.unwrap_or(beginning),
            event_idx: has(EVENT_IDX),
            indirect: has(INDIRECT_DESC),
            // virtio 1.3 §5.1.2; the control queue's number is even.
            transmit: index % 2 == 1,
            packed,
            in_order: has(IN_ORDER),
        }))
    }
}
