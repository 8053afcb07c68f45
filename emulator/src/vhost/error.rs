//! Everything that a client can do wrong, or ask for in vain.

use super::features::FeatureError;
use crate::ring::{EventError, MemoryError, RingError, RingFault};
use vhost::vhost_user::message::MAX_MSG_SIZE;

/// Why a request was not carried out. The text is what `channel show` gives as fault.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A ring that the channel does not have.
    #[error(
        "ring {index}: the channel has queue rings 0 to {last_data} and control ring {control}"
    )]
    RingIndex {
        /// As sent.
        index: u32,
        /// Last ring that carries packets.
        last_data: u16,
        /// The control queue's ring.
        control: u16,
    },
    /// Split rings have a power of two of entries (virtio 1.3 §2.7).
    #[error("ring {index}: size {size} is not a power of two from 1 to 32768")]
    RingSize {
        /// The ring.
        index: u16,
        /// As sent.
        size: u32,
    },
    /// Packed rings have any number of entries up to 32768 (virtio 1.3 §2.8).
    #[error("ring {index}: size {size} is not 1 to 32768")]
    PackedSize {
        /// The ring.
        index: u16,
        /// As sent.
        size: u32,
    },
    /// A split ring's position has 16 bits.
    #[error("ring {index}: base {base} is not 0 to 65535")]
    RingBase {
        /// The ring.
        index: u16,
        /// As sent.
        base: u32,
    },
    /// What describes a ring cannot change while it runs.
    #[error("ring {index}: {request} while it runs, GET_VRING_BASE must come first")]
    Running {
        /// The ring.
        index: u16,
        /// The request.
        request: &'static str,
    },
    /// A ring's table is at an address that no region covers.
    #[error("ring {index}: {table} at client address {uva:#x} is in no memory region")]
    Unmapped {
        /// The ring.
        index: u16,
        /// Which table.
        table: &'static str,
        /// Address in the client.
        uva: u64,
    },
    /// The ring cannot be run in this memory.
    #[error("ring {index}: {source}")]
    Ring {
        /// The ring.
        index: u16,
        /// Why.
        source: RingError,
    },
    /// A kick, call or error descriptor that is no eventfd.
    #[error("ring {index}: {request}: {source}")]
    Event {
        /// The ring.
        index: u16,
        /// The request it came with.
        request: &'static str,
        /// Why.
        source: EventError,
    },
    /// Memory that cannot be mapped.
    #[error("{request}: {source}")]
    Memory {
        /// The request it came with.
        request: &'static str,
        /// Why.
        source: MemoryError,
    },
    /// A choice of features that does not make sense.
    #[error("SET_FEATURES: {0}")]
    Features(#[from] FeatureError),
    /// Protocol features that were not offered.
    #[error("SET_PROTOCOL_FEATURES: {asked:#x}, offered were {offered:#x}")]
    ProtocolFeatures {
        /// As sent.
        asked: u64,
        /// What we have.
        offered: u64,
    },
    /// The control queue's driver broke the rules.
    #[error("control queue, ring {index}: {source}")]
    Control {
        /// The ring.
        index: u16,
        /// Why.
        source: RingFault,
    },
    /// A control command without a byte for the answer.
    #[error("control queue: descriptor {head} starts a command with no room for its answer")]
    ControlNoRoom {
        /// Head of the chain.
        head: u16,
    },
    /// The control queue is not polled: it is idle for almost all of its life.
    #[error("control queue, ring {index}: it needs a kick eventfd, polling is not supported")]
    ControlPolled {
        /// The ring.
        index: u16,
    },
    /// The answer to a control command could not be announced.
    #[error("control queue: calling the driver: {0}")]
    ControlCall(nix::errno::Errno),
    /// A message with a size beyond any that the protocol has.
    #[error("message {request} of {size} bytes, at most {MAX_MSG_SIZE} are allowed")]
    MessageSize {
        /// The message.
        request: String,
        /// As sent.
        size: u32,
    },
    /// Not the protocol version of this era.
    #[error("message {request} with flags {flags:#x}: version {} instead of 1", .flags & 3)]
    Version {
        /// The message.
        request: String,
        /// As sent.
        flags: u32,
    },
    /// The client left in the middle of a message.
    #[error("truncated vhost-user message: {have} bytes, then the client closed the connection")]
    Truncated {
        /// Bytes of it that came.
        have: usize,
    },
    /// Descriptors are attached to something other than the first byte of a message.
    #[error("a message is cut in two by attached descriptors")]
    Split,
    /// A message that does not have the form it needs.
    #[error("message {request}: {reason}")]
    Message {
        /// The message.
        request: String,
        /// Why.
        reason: String,
    },
    /// Refused, and nothing else happens.
    #[error("{request}: {reason}")]
    Refused {
        /// The request.
        request: &'static str,
        /// Why.
        reason: String,
    },
}

impl SessionError {
    /// Whether the session goes on after it: the client asked for something it cannot have.
    pub fn is_refusal(&self) -> bool {
        matches!(self, SessionError::Refused { .. })
    }
}
