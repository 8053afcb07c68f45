//! The control API: gRPC on a unix socket.
//!
//! | file | what lives there |
//! |---|---|
//! | `service` | the calls |
//! | `convert` | messages from and to the NIC's types |
//! | `error` | refusals as statuses |
//! | `socket` | the run directory and the socket in it |
//! | `server` | all of it on a thread |

mod convert;
mod error;
mod server;
mod service;
mod socket;

pub use error::{RequestError, code};
pub use server::{ControlServer, MAX_MESSAGE};
pub use socket::{RunDir, SOCKET_NAME};

/// Messages, client and server stubs, generated from proto/chanio.proto.
#[allow(missing_docs, clippy::all, clippy::undocumented_unsafe_blocks)]
pub mod proto {
    tonic::include_proto!("chanio.v1");
    /// For server reflection.
    pub const DESCRIPTORS: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/chanio.descriptors.bin"));
}
