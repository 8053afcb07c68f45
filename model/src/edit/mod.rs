//! Rewriting one packet, as tc's actions do: a [`Packet`] takes in a frame's first bytes, the
//! operations change them, and what comes out is delivered in front of the rest, which nobody
//! looked at.
//!
//! | file | what lives there |
//! |---|---|
//! | `packet` | the buffer |
//! | `vlan` | VLAN tags pushed, popped, modified |
//! | `mpls` | MPLS labels pushed, popped, modified |
//! | `field` | header fields set (pedit) |
//! | `csum` | checksums computed anew (csum) |
//! | `nat` | addresses and ports translated (ct) |
//! | `tunnel/` | tunnels put on and taken off (tunnel_key) |
//! | `follow` | the checksums that follow a change |
//! | `delta` | the arithmetic of that |
//!
//! # Where this differs from the kernel's software path, and why
//!
//! - *Checksums follow every change.* The kernel's pedit leaves them wrong until a csum action
//!   puts them right; hardware has no such moment in between.
//! - *pedit finds IP behind any number of tags and writes only fields the packet has.* The
//!   kernel writes at an offset from where it takes the network header to be: with two tags that
//!   is the inner tag, and for the wrong protocol it is whatever lies there.
//! - *csum* leaves a first fragment's checksum, and UDP-Lite's pseudo-header has the whole length;
//!   see [`Packet::csum`].
//! - *Geneve's critical flag* is not set for critical options; that is how the kernel does it, but
//!   not RFC 8926 §3.4.
//! - *Outer checksums are not verified when a tunnel is taken off*: that would take the payload.
//! - *VXLAN packets with and without a group policy are understood alike*; a kernel device is
//!   set up for one or the other. Zero UDP checksums are taken over IPv6, as with
//!   `udp6zerocsumrx`.
//! - *Outer IPv4 identifications* count up per worker; the kernel draws them from a keyed hash.
//!   *UDP source ports* come from a fixed hash of the flow, the kernel's from one keyed at boot.

mod csum;
mod delta;
mod field;
mod follow;
mod mpls;
mod nat;
mod packet;
pub mod tunnel;
mod vlan;

pub use csum::Csums;
pub use field::{Field, FieldChange, FieldEdit, FieldError};
pub use mpls::{MplsModify, MplsPush};
pub use packet::{Edited, HEAD_MAX, Packet, ROOM};
pub use tunnel::{
    FoundTunnel, GeneveOptions, Payload, TunnelKind, TunnelPorts, TunnelPortsError, TunnelSet,
    TunnelSetError,
};
pub use vlan::{VlanModify, VlanProto, VlanTag};
