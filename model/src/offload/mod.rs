//! Checksum and segmentation offloads.

/// What kind of segmentation a frame still needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4, each segment a datagram (USO).
    Udp4,
    /// UDP over IPv6, likewise.
    Udp6,
}

/// A frame that still has to be cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gso {
    /// How.
    pub kind: GsoKind,
    /// Payload of each segment but the last, in bytes.
    pub size: u16,
    /// Length of everything in front of the payload, Ethernet header included, in bytes.
    pub hdr_len: u16,
    /// TCP: the CWR flag belongs to the first segment only (RFC 3168).
    pub ecn: bool,
}
