//! The `ct` action as rules have it (tc-ct(8), uapi linux/tc_act/tc_ct.h).

use super::tuple::octets;
use std::net::IpAddr;
use thiserror::Error;

/// What a `ct` action does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtAction {
    /// `ct clear`: forget what tracking said of this packet.
    Clear,
    /// Everything else.
    Track(CtSpec),
}

/// `ct [zone Z] [commit [force]] [mark M[/MASK]] [label L[/MASK]] [nat …]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtSpec {
    /// The zone.
    pub zone: u16,
    /// Remember the connection, and set mark and label.
    pub commit: bool,
    /// If the packet goes against the connection's direction, forget that connection and let this
    /// packet begin one. Only of a connection that an earlier action of the same list found, as in
    /// the kernel.
    pub force: bool,
    /// Value and the bits of the mark to set; without `commit` it does nothing.
    pub mark: u32,
    /// See `mark`.
    pub mark_mask: u32,
    /// Value of the label; the lowest byte first.
    pub label: [u8; 16],
    /// The bits of the label to set; without `commit` it does nothing.
    pub label_mask: [u8; 16],
    /// Address translation.
    pub nat: Option<CtNat>,
}

/// The `nat` part of a `ct` action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtNat {
    /// `nat`: as the connection has it already.
    Existing,
    /// `nat src`: a new connection gets a source out of the range.
    Src(NatRange),
    /// `nat dst`: a new connection gets a destination out of the range.
    Dst(NatRange),
}

/// Addresses and ports to translate to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatRange {
    version: u8,
    min: [u8; 16],
    max: [u8; 16],
    ports: Option<(u16, u16)>,
}

/// Why there is no such range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NatRangeError {
    /// IPv4 and IPv6.
    #[error("addresses {min}-{max}: expected two of one family")]
    Families {
        /// As asked.
        min: IpAddr,
        /// As asked.
        max: IpAddr,
    },
    /// Ends before it begins.
    #[error("addresses {min}-{max}: expected the lower one first")]
    Addresses {
        /// As asked.
        min: IpAddr,
        /// As asked.
        max: IpAddr,
    },
    /// Ends before it begins.
    #[error("ports {min}-{max}: expected the lower one first")]
    Ports {
        /// As asked.
        min: u16,
        /// As asked.
        max: u16,
    },
}

impl NatRange {
    /// The range of addresses, ends included, and of ports (ICMP: identifiers), if they matter.
    pub fn new(min: IpAddr, max: IpAddr, ports: Option<(u16, u16)>) -> Result<Self, NatRangeError> {
        let ((low, version), (high, other)) = (octets(min), octets(max));
        if version != other {
            return Err(NatRangeError::Families { min, max });
        }
        if low > high {
            return Err(NatRangeError::Addresses { min, max });
        }
        match ports {
            Some((min, max)) if min > max => Err(NatRangeError::Ports { min, max }),
            _ => Ok(Self {
                version,
                min: low,
                max: high,
                ports,
            }),
        }
    }

    /// First and last address.
    pub fn addresses(&self) -> (IpAddr, IpAddr) {
        let ip = |bytes| {
            let tuple = super::Tuple {
                src: bytes,
                version: self.version,
                ..Default::default()
            };
            tuple.src_ip()
        };
        (ip(self.min), ip(self.max))
    }

    /// First and last port.
    pub fn ports(&self) -> Option<(u16, u16)> {
        self.ports
    }

    /// 4 or 6.
    pub(super) fn version(&self) -> u8 {
        self.version
    }

    /// First and last address, as tuples have them.
    pub(super) fn octets(&self) -> (&[u8; 16], &[u8; 16]) {
        (&self.min, &self.max)
    }

    /// Just one address, no ports.
    pub(super) fn only(version: u8, address: [u8; 16]) -> Self {
        Self {
            version,
            min: address,
            max: address,
            ports: None,
        }
    }
}

/// How to rewrite one packet: what its connection's translation makes of it.
///
/// In an ICMP error the outer header's address is set, and the opposite end of the embedded
/// packet: what became the outer source is the embedded packet's destination, port included, and
/// the other way round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatRewrite {
    /// Source address and port to set.
    pub src: Option<NatEnd>,
    /// Destination address and port to set.
    pub dst: Option<NatEnd>,
}

impl NatRewrite {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.src.is_none() && self.dst.is_none()
    }
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatEnd {
    /// In wire order; IPv4 in the first four bytes.
    pub address: [u8; 16],
    /// The port of TCP, UDP, UDP-Lite, SCTP; the identifier of an ICMP query. Of other protocols
    /// nothing is to be set.
    pub port: u16,
}
