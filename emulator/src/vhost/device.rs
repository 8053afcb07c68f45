//! The seam between a vhost-user session and the channel behind it.

use crate::ring::{Call, EventFd, Ring};
use chanio_model::Mac;
use chanio_model::eswitch::RxMode;
use chanio_model::rss::{HashTypes, RssKey, RssSettings};

/// Position of a ring in its device: 2k is the receive ring of pair k (the driver's view: the
/// device writes it), 2k+1 the transmit ring (virtio 1.3 §5.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RingIndex(pub u16);

impl RingIndex {
    /// The queue pair it belongs to.
    pub fn pair(self) -> u16 {
        self.0 / 2
    }

    /// Whether the driver sends on it.
    pub fn is_tx(self) -> bool {
        self.0 % 2 == 1
    }
}

/// A ring that is ready to run.
pub struct RingStart {
    /// The ring, at the position where it starts.
    pub ring: Ring,
    /// How the driver wakes us, to be put into an epoll set ([`crate::ring::Kick`]); `None`: it
    /// does not, the ring must be polled.
    pub kick: Option<EventFd>,
    /// How we wake the driver; `None`: it polls.
    pub call: Option<Call>,
    /// Negotiated virtio features.
    pub features: u64,
}

/// What a session asks of its channel. All calls come from the one thread that runs sessions.
pub trait Device: Send + Sync {
    /// Queue pairs of the channel.
    fn max_queue_pairs(&self) -> u16;
    /// The address in the device's config space.
    fn mac(&self) -> Mac;
    /// The MTU in the device's config space, bytes.
    fn mtu(&self) -> u16;
    /// The link bit in the device's config space.
    fn link_up(&self) -> bool;
    /// A client has attached (`true`) or gone (`false`; all its rings are stopped by then).
    fn set_connected(&self, connected: bool);
    /// Features that the driver has accepted; 0 when it goes or resets the device.
    fn set_features(&self, features: u64);
    /// Start a data ring. It runs until [`Device::stop_ring`]; a fault stops all rings of the
    /// channel and is kept for `channel show`.
    fn start_ring(&self, index: RingIndex, start: RingStart);
    /// Stop a data ring: after this returns no thread touches its memory. Returns the position at
    /// which it would go on (`next_avail`), `None` if it was not running.
    fn stop_ring(&self, index: RingIndex) -> Option<u16>;
    /// Number of queue pairs that the driver uses for receiving (control queue, MQ command). Ends
    /// what [`Device::set_rss`] began.
    fn set_active_pairs(&self, pairs: u16);
    /// Which queue pair each packet goes to, as the driver wants it (control queue, RSS_CONFIG);
    /// this also says what hash is reported.
    fn set_rss(&self, rss: RssSettings);
    /// What hash is reported (control queue, HASH_CONFIG); packets are spread as before.
    fn set_hash_report(&self, types: HashTypes, key: RssKey);
    /// The driver's receive filter (control queue, RX, MAC and VLAN commands). An error is a
    /// refusal (an untrusted channel asking for promiscuous mode) and leaves it as it was.
    fn set_rx_mode(&self, mode: RxMode) -> Result<(), String>;
    /// The driver asks for another address (control queue, MAC_ADDR_SET).
    fn set_mac(&self, mac: Mac) -> Result<(), String>;
    /// The client misbehaved: stop the channel and keep the reason.
    fn fault(&self, reason: String);
}
