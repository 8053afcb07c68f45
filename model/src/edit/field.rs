//! Fields that can be set, as act_pedit of tc does in its extended form (`pedit ex munge …`).

use super::Packet;
use crate::DropReason;
use crate::wire::{IpVersion, Layout, ip_proto};

macro_rules! fields {
    ($($variant:ident, $name:literal, $bits:literal, $doc:literal;)*) => {
        /// A header field that can be set, in the frame's outermost headers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Field {
            $(#[doc = $doc] $variant,)*
        }

        impl Field {
            /// Every field.
            pub const ALL: &'static [Field] = &[$(Field::$variant,)*];

            /// As tc calls it.
            pub fn name(self) -> &'static str {
                match self { $(Field::$variant => $name,)* }
            }

            /// Its length in bits.
            pub fn bits(self) -> u32 {
                match self { $(Field::$variant => $bits,)* }
            }
        }
    };
}

fields! {
    EthDst, "eth dst", 48, "Destination MAC.";
    EthSrc, "eth src", 48, "Source MAC.";
    Ipv4Src, "ip src", 32, "IPv4 source address.";
    Ipv4Dst, "ip dst", 32, "IPv4 destination address.";
    Ipv4Tos, "ip tos", 8, "IPv4 type of service: DSCP and ECN.";
    Ipv4Ttl, "ip ttl", 8, "IPv4 time to live.";
    Ipv6Src, "ip6 src", 128, "IPv6 source address.";
    Ipv6Dst, "ip6 dst", 128, "IPv6 destination address.";
    Ipv6TrafficClass, "ip6 traffic_class", 8, "IPv6 traffic class: DSCP and ECN.";
    Ipv6FlowLabel, "ip6 flow_lbl", 20, "IPv6 flow label.";
    Ipv6HopLimit, "ip6 hoplimit", 8, "IPv6 hop limit.";
    TcpSrc, "tcp sport", 16, "TCP source port.";
    TcpDst, "tcp dport", 16, "TCP destination port.";
    UdpSrc, "udp sport", 16, "UDP source port.";
    UdpDst, "udp dport", 16, "UDP destination port.";
    SctpSrc, "sctp sport", 16, "SCTP source port.";
    SctpDst, "sctp dport", 16, "SCTP destination port.";
}

/// What a field becomes. Numbers are in host order, right-aligned: of an address the first byte
/// on the wire is the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldChange {
    /// The bits of `mask` become those of `value`.
    Set {
        /// New bits; zero wherever the mask is zero.
        value: u128,
        /// Bits that change.
        mask: u128,
    },
    /// The number is added, without carry out of the field (255 and 1 are 0): `ttl add 255` takes
    /// one off. Only for fields of one byte.
    Add(u8),
}

/// One field to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FieldEdit {
    /// Which.
    pub field: Field,
    /// To what.
    pub change: FieldChange,
}

/// Why a change is not one that can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Longer than the field.
    #[error("pedit {name}: {value:#x}/{mask:#x} does not fit {bits} bits", name = .field.name(), bits = .field.bits())]
    TooWide {
        /// The field.
        field: Field,
        /// As given.
        value: u128,
        /// As given.
        mask: u128,
    },
    /// Such bits would never be written.
    #[error("pedit {name}: the value {value:#x} has bits outside the mask {mask:#x}", name = .field.name())]
    ValueOutsideMask {
        /// The field.
        field: Field,
        /// As given.
        value: u128,
        /// As given.
        mask: u128,
    },
    /// The kernel adds 32-bit words as the machine reads them: nothing useful in a longer field.
    #[error("pedit {}: only ip tos, ip ttl, ip6 traffic_class and ip6 hoplimit can be added to", .0.name())]
    NotAddable(Field),
}

impl FieldEdit {
    /// All of a field.
    pub fn set(field: Field, value: u128) -> Self {
        let mask = u128::MAX >> (128 - field.bits());
        Self {
            field,
            change: FieldChange::Set { value, mask },
        }
    }

    /// Whether the change is one that can be made.
    pub fn check(&self) -> Result<(), FieldError> {
        let field = self.field;
        match self.change {
            FieldChange::Set { value, mask } => {
                let full = u128::MAX >> (128 - field.bits());
                if (value | mask) & !full != 0 {
                    return Err(FieldError::TooWide { field, value, mask });
                }
                if value & !mask != 0 {
                    return Err(FieldError::ValueOutsideMask { field, value, mask });
                }
                Ok(())
            }
            FieldChange::Add(_) if field.bits() == 8 => Ok(()),
            FieldChange::Add(_) => Err(FieldError::NotAddable(field)),
        }
    }
}

/// Which checksums take a field in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Covered {
    /// None.
    No,
    /// The IPv4 header's.
    Header,
    /// The transport's pseudo-header, and the IPv4 header's where it is IPv4.
    Pseudo,
    /// The transport's.
    Transport,
}

/// Where a field is in a packet.
struct Place {
    /// The even number of bytes that holds it, from the start of the frame; at an even distance
    /// from the start of whatever is summed.
    at: usize,
    len: usize,
    /// Bits behind it in these bytes.
    shift: u32,
    covered: Covered,
}

impl Field {
    /// Where it is; `None` if the packet has no such header.
    fn place(self, layout: &Layout, head_len: usize) -> Option<Place> {
        let ip = |version| {
            layout
                .ip
                .filter(|ip| ip.version == version)
                .map(|_| layout.l3)
        };
        let (v4, v6) = (|| ip(IpVersion::V4), || ip(IpVersion::V6));
        let port = |proto| {
            let found = layout.transport().filter(|(p, _)| *p == proto);
            found.map(|(_, at)| at)
        };
        let (tcp, udp, sctp) = (ip_proto::TCP, ip_proto::UDP, ip_proto::SCTP);
        use Covered::*;
        let (at, len, shift, covered) = match self {
            Field::EthDst => (0, 6, 0, No),
            Field::EthSrc => (6, 6, 0, No),
            Field::Ipv4Tos => (v4()?, 2, 0, Header),
            Field::Ipv4Ttl => (v4()? + 8, 2, 8, Header),
            Field::Ipv4Src => (v4()? + 12, 4, 0, Pseudo),
            Field::Ipv4Dst => (v4()? + 16, 4, 0, Pseudo),
            Field::Ipv6TrafficClass => (v6()?, 2, 4, No),
            Field::Ipv6FlowLabel => (v6()?, 4, 0, No),
            Field::Ipv6HopLimit => (v6()? + 6, 2, 0, No),
            Field::Ipv6Src => (v6()? + 8, 16, 0, Pseudo),
            Field::Ipv6Dst => (v6()? + 24, 16, 0, Pseudo),
            Field::TcpSrc => (port(tcp)?, 2, 0, Transport),
            Field::TcpDst => (port(tcp)? + 2, 2, 0, Transport),
            Field::UdpSrc => (port(udp)?, 2, 0, Transport),
            Field::UdpDst => (port(udp)? + 2, 2, 0, Transport),
            Field::SctpSrc => (port(sctp)?, 2, 0, Transport),
            Field::SctpDst => (port(sctp)? + 2, 2, 0, Transport),
        };
        let place = Place {
            at,
            len,
            shift,
            covered,
        };
        (at + len <= head_len).then_some(place)
    }
}

impl Packet {
    /// Changes a field. False, and nothing changed, if the packet has no such field: the kernel's
    /// pedit likewise goes on with the next action. `RewriteDepth` if the checksum that takes the
    /// field in lies beyond the head.
    ///
    /// Checksums follow, also those still to be finished and SCTP's CRC: hardware keeps them
    /// right, while the kernel leaves that to a csum action behind.
    pub fn edit(&mut self, edit: &FieldEdit) -> Result<bool, DropReason> {
        let layout = self.layout()?;
        let Some(place) = edit.field.place(&layout, self.head().len()) else {
            return Ok(false);
        };
        let range = place.at..place.at + place.len;
        let mut bytes = [0; 16];
        bytes[16 - place.len..].copy_from_slice(&self.head()[range.clone()]);
        let old = u128::from_be_bytes(bytes);
        let full = (u128::MAX >> (128 - edit.field.bits())) << place.shift;
        let new = match edit.change {
            FieldChange::Set { value, mask } => {
                let mask = mask << place.shift & full;
                old & !mask | value << place.shift & mask
            }
            FieldChange::Add(add) => {
                old & !full | old.wrapping_add(u128::from(add) << place.shift) & full
            }
        };
        let new = new.to_be_bytes();
        let new = &new[16 - place.len..];
        match place.covered {
            Covered::No => self.head_mut()[range].copy_from_slice(new),
            Covered::Header => self.write_header(&layout, place.at, new),
            Covered::Pseudo => self.write_address(&layout, place.at, new)?,
            Covered::Transport => self.write_transport(&layout, place.at, new)?,
        }
        Ok(true)
    }
}
