//! vhost-user sessions: the protocol between a channel and the VM, DPDK program or container that
//! drives it.
//!
//! One thread serves all connections; one costs its state and nothing else
//! (docs/adr/0001-vhost-user-layer.md). It never waits for a client: a message is handed to the
//! `vhost` crate only when all of it has arrived and the reply has room. Another thread listens
//! (docs/adr/0003-doorman.md).
//!
//! | file | what lives there |
//! |---|---|
//! | `server` | what the rest of the emulator calls |
//! | `event_loop` | the thread: connections, reconnects |
//! | `doorman` | the thread that listens and accepts, with open files of its own |
//! | `listen` | socket files |
//! | `connection` | messages taken off one socket |
//! | `socket` | looking at a socket without waiting |
//! | `requests` | messages handed to the session |
//! | `session` | what one client has set up, and which rings run because of it |
//! | `vring` | the same for one ring |
//! | `features` | virtio feature bits |
//! | `net_config` | the device's config space |
//! | `control_queue` | control commands: their bytes and the receive filter they make |
//! | `control_ring` | the control queue as it runs |
//! | `device` | the seam to the channel behind a session |
//! | `error` | what a client can do wrong |

mod connection;
mod control_queue;
mod control_ring;
mod device;
mod doorman;
mod error;
mod event_loop;
pub mod features;
mod listen;
mod net_config;
mod requests;
mod server;
mod session;
mod socket;
mod vring;

pub use device::{Device, RingIndex, RingStart};
pub use event_loop::SessionHandle;
pub use features::{HASH_REPORT, MRG_RXBUF, header_len, rx_offloads};
pub use server::{SessionSpec, VhostServer};
pub use session::MAX_QUEUE_PAIRS;
