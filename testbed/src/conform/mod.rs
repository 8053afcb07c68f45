//! The conformance suite: one list of cases for every device that the driver layer drives, and a
//! report that says where devices differ (docs/conformance.md).
//!
//! | file | what lives there |
//! |---|---|
//! | [`case`] | a case, what it needs, and how it can end |
//! | [`bed`] | the device under test, and what cases make on it |
//! | [`world`] | three channels with somebody at every end |
//! | [`endpoint`] | somebody who sends and receives frames: a netdev, or a virtio driver |
//! | [`machine`] | a guest whose NICs the channels are |
//! | [`stacks`] | two kernel's stacks that talk to each other |
//! | [`behind`] | the host, where its kernel carries out the rules |
//! | [`inside`] | work done in another network namespace |
//! | [`vectors`] | rules with frames, made by scapy (`vectors.py`) |
//! | [`cases`] | the cases, a file for each group |
//! | [`suite`] | all of it, on one device |
//! | [`in_guest`] | all of it, inside a guest |
//! | [`report`] | what came of it, as plain data |
//! | [`render`] | reports as HTML, JUnit, Markdown; where two devices differ |

pub mod bed;
pub mod behind;
pub mod case;
pub mod cases;
pub mod endpoint;
pub mod in_guest;
pub mod inside;
pub mod machine;
pub mod render;
pub mod report;
pub mod stacks;
pub mod suite;
pub mod vectors;
pub mod world;
