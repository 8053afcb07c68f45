//! How fast channels may send, in devlink-rate's terms: a tree whose leaves are channels and whose
//! nodes are groups of them (Documentation/networking/devlink/devlink-port.rst).
//!
//! | file | what lives there |
//! |---|---|
//! | `settings` | what can be asked of a leaf or node |
//! | `text` | rates in words: `10mbit` |
//! | `tree` | named leaves and nodes with their parents, checked as a whole |
//! | `bucket` | a token bucket that may go into debt |
//! | `divide` | who gets how much of a node's rate |
//! | `class` | a leaf or node at work: who may send now, and what was sent |
//! | `scheduler` | the shares, computed anew every millisecond for those that send |
//!
//! There is no queue of packets anywhere: a worker asks the leaf of a channel before it takes
//! packets from its rings, and if the leaf has no credit, they stay where they are. A ceiling
//! (`tx_max`) is a token bucket, at each level. Below a node with a ceiling, each leaf's bucket is
//! filled at the rate that the node has for it: first what is guaranteed (`tx_share`), then by
//! priority, and within one by weight, never more than is asked for. What nobody asks for can be
//! had by all.

mod bucket;
mod class;
mod divide;
mod scheduler;
mod settings;
mod text;
mod tree;

pub use bucket::Bucket;
pub use class::Leaf;
pub use divide::{Claim, divide};
pub use scheduler::{EPOCH, Scheduler};
pub use settings::{MAX_PRIORITY, MAX_WEIGHT, RateChange, RateWordsError, Rates};
pub use text::{RateText, RateTextError};
pub use tree::{MAX_DEPTH, RateError, RateName, RateObject, Tree};
