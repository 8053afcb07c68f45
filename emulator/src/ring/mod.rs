//! Guest memory and the device side of split virtqueues: the hot, and only hot, unsafe code.
//!
//! Everything a ring holds was written by a guest that may be hostile and may rewrite it while it
//! is being read. The rules kept here: every field is loaded once into a local, bounded, and only
//! then used; guest bytes are copied with raw pointers and never seen through a `&[u8]`; a client
//! that shortens its memory under us poisons its own rings and nothing else.
//!
//! | module | what lives there |
//! |---|---|
//! | [`memory`] | the regions of one client, mapped; address translation |
//! | `mapping` | one mapped region: what kind of file is accepted, where it lands |
//! | [`sigbus`] | surviving a client that truncates its memory file |
//! | [`fault`] | every way a ring can be refused or turn out to be broken |
//! | `index` | positions as the hot path keeps them |
//! | `layout` | the fields of the three tables as single loads and stores |
//! | [`chain`] | descriptor chains walked into segments; a burst of them |
//! | [`copy`] | bytes between guest segments and local memory, or guest to guest |
//! | [`queue`] | a ring of either layout, for those who serve it |
//! | [`split`] | the ring: pop, push used, publish, kicks and calls |
//! | [`packed`] | the same for a packed ring; `packed_layout` its fields, `packed_chain` its walk |
//! | [`rx`] | buffers reserved for one frame, mergeable or not |
//! | [`event`] | received eventfds: kicks in epoll, calls |
//! | [`notify`] | raising a call that a hostile peer cannot make block |
//! | [`driver`] | the other side, for the demo driver, tests and benches; `split_driver`, `packed_driver` |

pub mod chain;
pub mod copy;
pub mod driver;
pub mod event;
pub mod fault;
mod index;
mod layout;
mod mapping;
pub mod memory;
pub mod notify;
pub mod packed;
mod packed_chain;
mod packed_driver;
mod packed_layout;
pub mod queue;
pub mod rx;
pub mod sigbus;
pub mod split;
mod split_driver;

pub use chain::{BURST, Burst, Chain, MAX_SEGMENTS, Token};
pub use copy::{Readable, Writable};
pub use event::{Call, EventError, EventFd, Kick};
pub use fault::{RingError, RingFault};
pub use layout::full_fence;
pub use memory::{GuestMemory, MAX_MEM_SLOTS, MemoryError, RegionSpec};
pub use notify::Notifier;
pub use packed::PackedRing;
pub use queue::Ring;
pub use rx::{Filling, Reservation, Reserve, RxScratch};
pub use split::{RingConfig, SplitRing};
