//! The control API: gRPC on a unix socket.

/// Messages, client and server stubs, generated from proto/chanio.proto.
#[allow(missing_docs, clippy::all, clippy::undocumented_unsafe_blocks)]
pub mod proto {
    tonic::include_proto!("chanio.v1");
    /// For server reflection.
    pub const DESCRIPTORS: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/chanio.descriptors.bin"));
}
