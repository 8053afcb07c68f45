//! Feature bits: what the device offers and whether a driver's choice makes sense.

use chanio_model::offload::{HASH_HDR_LEN, RxOffloads, VNET_HDR_LEN};
use virtio_bindings::{virtio_config as config, virtio_net as net, virtio_ring as ring};

const fn bit(position: u32) -> u64 {
    1 << position
}

/// vhost-user's own bit in the virtio feature word: protocol features exist, and rings start
/// disabled.
pub const PROTOCOL_FEATURES: u64 = bit(30);
/// Not a legacy driver; the virtio-net header has 12 bytes.
pub const VERSION_1: u64 = bit(config::VIRTIO_F_VERSION_1);
/// Rings are packed, not split.
pub const RING_PACKED: u64 = bit(config::VIRTIO_F_RING_PACKED);
/// Chains are completed in the order in which they were made available.
pub const IN_ORDER: u64 = bit(config::VIRTIO_F_IN_ORDER);
/// Descriptors may point at tables of descriptors.
pub const INDIRECT_DESC: u64 = bit(ring::VIRTIO_RING_F_INDIRECT_DESC);
/// Kicks and calls are asked for by index.
pub const EVENT_IDX: u64 = bit(ring::VIRTIO_RING_F_EVENT_IDX);
/// Received frames may take several buffers.
pub const MRG_RXBUF: u64 = bit(net::VIRTIO_NET_F_MRG_RXBUF);
/// The driver sends frames without checksum.
pub const CSUM: u64 = bit(net::VIRTIO_NET_F_CSUM);
/// The driver takes frames without checksum.
pub const GUEST_CSUM: u64 = bit(net::VIRTIO_NET_F_GUEST_CSUM);
/// The driver sends unsegmented TCP over IPv4.
pub const HOST_TSO4: u64 = bit(net::VIRTIO_NET_F_HOST_TSO4);
/// The driver sends unsegmented TCP over IPv6.
pub const HOST_TSO6: u64 = bit(net::VIRTIO_NET_F_HOST_TSO6);
/// What it sends unsegmented may carry ECN.
pub const HOST_ECN: u64 = bit(net::VIRTIO_NET_F_HOST_ECN);
/// The driver sends unsegmented UDP.
pub const HOST_USO: u64 = bit(net::VIRTIO_NET_F_HOST_USO);
/// The driver takes unsegmented TCP over IPv4.
pub const GUEST_TSO4: u64 = bit(net::VIRTIO_NET_F_GUEST_TSO4);
/// The driver takes unsegmented TCP over IPv6.
pub const GUEST_TSO6: u64 = bit(net::VIRTIO_NET_F_GUEST_TSO6);
/// What it takes unsegmented may carry ECN.
pub const GUEST_ECN: u64 = bit(net::VIRTIO_NET_F_GUEST_ECN);
/// The driver takes unsegmented UDP over IPv4.
pub const GUEST_USO4: u64 = bit(net::VIRTIO_NET_F_GUEST_USO4);
/// The driver takes unsegmented UDP over IPv6.
pub const GUEST_USO6: u64 = bit(net::VIRTIO_NET_F_GUEST_USO6);
/// Config space has the MAC address.
pub const MAC: u64 = bit(net::VIRTIO_NET_F_MAC);
/// Config space has the link state.
pub const STATUS: u64 = bit(net::VIRTIO_NET_F_STATUS);
/// Config space has the MTU.
pub const MTU: u64 = bit(net::VIRTIO_NET_F_MTU);
/// More than one queue pair.
pub const MQ: u64 = bit(net::VIRTIO_NET_F_MQ);
/// There is a control queue.
pub const CTRL_VQ: u64 = bit(net::VIRTIO_NET_F_CTRL_VQ);
/// It takes promiscuous and all-multicast.
pub const CTRL_RX: u64 = bit(net::VIRTIO_NET_F_CTRL_RX);
/// It takes a VLAN filter.
pub const CTRL_VLAN: u64 = bit(net::VIRTIO_NET_F_CTRL_VLAN);
/// It takes a new MAC address.
pub const CTRL_MAC_ADDR: u64 = bit(net::VIRTIO_NET_F_CTRL_MAC_ADDR);
/// The driver announces itself when asked to.
pub const GUEST_ANNOUNCE: u64 = bit(net::VIRTIO_NET_F_GUEST_ANNOUNCE);

/// The driver may say which queue a packet goes to.
pub const RSS: u64 = bit(net::VIRTIO_NET_F_RSS);
/// The driver gets a packet's hash in a header of 20 bytes.
pub const HASH_REPORT: u64 = bit(net::VIRTIO_NET_F_HASH_REPORT);

const ALWAYS: u64 = PROTOCOL_FEATURES
    | VERSION_1
    // For legacy drivers: frames need not be laid out in descriptors of fixed roles.
    | bit(config::VIRTIO_F_ANY_LAYOUT)
    | INDIRECT_DESC
    | EVENT_IDX
    | RING_PACKED
    | IN_ORDER
    | MRG_RXBUF
    | CSUM
    | GUEST_CSUM
    | HOST_TSO4
    | HOST_TSO6
    | HOST_ECN
    | HOST_USO
    | GUEST_TSO4
    | GUEST_TSO6
    | GUEST_ECN
    | GUEST_USO4
    | GUEST_USO6
    | MAC
    | STATUS
    | MTU
    | CTRL_VQ
    | CTRL_RX
    | CTRL_VLAN
    | CTRL_MAC_ADDR
    | GUEST_ANNOUNCE
    | HASH_REPORT;

/// What a channel with this many queue pairs offers.
pub fn offered(queue_pairs: u16) -> u64 {
    if queue_pairs > 1 {
        ALWAYS | MQ | RSS
    } else {
        ALWAYS
    }
}

/// Why a driver's choice of features is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// Bits that the device does not have.
    #[error("features {accepted:#x} were accepted, of which {unknown:#x} were not offered")]
    NotOffered {
        /// What the driver accepted.
        accepted: u64,
        /// The part of it that was not offered.
        unknown: u64,
    },
    /// A feature without the one that it builds on.
    #[error("feature {feature} was accepted without {needs}")]
    Missing {
        /// The feature accepted.
        feature: &'static str,
        /// What it needs.
        needs: &'static str,
    },
}

// Legacy drivers know no features above bit 31 (virtio 1.3 §6.3). virtio 1.3 §5.1.3.1, the offloads. The control queue's part is not checked: QEMU and virtio-user
// serve that queue themselves and hand on the bits behind it without CTRL_VQ.
const DEPENDENCIES: [(u64, &str, u64, &str); 12] = [
    (RING_PACKED, "RING_PACKED", VERSION_1, "VERSION_1"),
    (IN_ORDER, "IN_ORDER", VERSION_1, "VERSION_1"),
    (HASH_REPORT, "HASH_REPORT", VERSION_1, "VERSION_1"),
    (GUEST_TSO4, "GUEST_TSO4", GUEST_CSUM, "GUEST_CSUM"),
    (GUEST_TSO6, "GUEST_TSO6", GUEST_CSUM, "GUEST_CSUM"),
    (GUEST_USO4, "GUEST_USO4", GUEST_CSUM, "GUEST_CSUM"),
    (GUEST_USO6, "GUEST_USO6", GUEST_CSUM, "GUEST_CSUM"),
    (
        GUEST_ECN,
        "GUEST_ECN",
        GUEST_TSO4 | GUEST_TSO6,
        "GUEST_TSO4 or GUEST_TSO6",
    ),
    (HOST_TSO4, "HOST_TSO4", CSUM, "CSUM"),
    (HOST_TSO6, "HOST_TSO6", CSUM, "CSUM"),
    (HOST_USO, "HOST_USO", CSUM, "CSUM"),
    (
        HOST_ECN,
        "HOST_ECN",
        HOST_TSO4 | HOST_TSO6,
        "HOST_TSO4 or HOST_TSO6",
    ),
];

/// Checks what a driver accepted against what was offered.
///
/// # Errors
/// [`FeatureError`].
pub fn check(accepted: u64, offered: u64) -> Result<(), FeatureError> {
    let unknown = accepted & !offered;
    if unknown != 0 {
        return Err(FeatureError::NotOffered { accepted, unknown });
    }
    for (bits, feature, base, needs) in DEPENDENCIES {
        if accepted & bits != 0 && accepted & base == 0 {
            return Err(FeatureError::Missing { feature, needs });
        }
    }
    Ok(())
}

/// Bytes of virtio-net header in front of each frame (virtio 1.3 §5.1.6): the 12-byte form has
/// `num_buffers`, which legacy drivers know only with mergeable buffers; the 20-byte form has the
/// packet's hash behind it.
pub fn header_len(features: u64) -> usize {
    if features & HASH_REPORT != 0 {
        HASH_HDR_LEN
    } else if features & (VERSION_1 | MRG_RXBUF) != 0 {
        VNET_HDR_LEN
    } else {
        VNET_HDR_LEN - 2
    }
}

/// What the driver takes unfinished.
pub fn rx_offloads(features: u64) -> RxOffloads {
    let has = |bit| features & bit != 0;
    RxOffloads {
        csum: has(GUEST_CSUM),
        tso4: has(GUEST_TSO4),
        tso6: has(GUEST_TSO6),
        ecn: has(GUEST_ECN),
        uso4: has(GUEST_USO4),
        uso6: has(GUEST_USO6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_can_be_accepted() {
        for pairs in [1, 2, 127] {
            check(offered(pairs), offered(pairs)).unwrap();
            check(0, offered(pairs)).unwrap();
        }
        assert_eq!(offered(1) & (MQ | RSS), 0);
        assert_ne!(offered(2) & MQ, 0);
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        let platform = bit(config::VIRTIO_F_ACCESS_PLATFORM);
        let accepted = VERSION_1 | platform;
        let refused = FeatureError::NotOffered {
            accepted,
            unknown: platform,
        };
        assert_eq!(check(accepted, offered(1)), Err(refused));
        assert!(check(MQ, offered(1)).is_err());
    }

    #[test]
    fn offloads_need_what_they_build_on() {
        let all = offered(2);
        assert!(check(GUEST_TSO4, all).is_err());
        assert!(check(GUEST_CSUM | GUEST_ECN, all).is_err());
        assert!(check(GUEST_CSUM | GUEST_TSO6 | GUEST_ECN, all).is_ok());
        assert!(check(HOST_USO, all).is_err());
        assert!(check(CSUM | HOST_USO, all).is_ok());
        assert!(
            check(MQ, all).is_ok(),
            "the frontend serves the control queue"
        );
    }

    #[test]
    fn legacy_drivers_have_split_rings_and_no_hash() {
        let all = offered(1);
        for feature in [RING_PACKED, IN_ORDER, HASH_REPORT] {
            assert!(check(feature, all).is_err());
            assert!(check(feature | VERSION_1, all).is_ok());
        }
    }

    #[test]
    fn the_header_has_12_bytes_unless_legacy_without_mergeable_or_with_hash() {
        assert_eq!(header_len(0), 10);
        assert_eq!(header_len(CSUM), 10);
        assert_eq!(header_len(MRG_RXBUF), 12);
        assert_eq!(header_len(VERSION_1), 12);
        assert_eq!(header_len(VERSION_1 | MRG_RXBUF | HASH_REPORT), 20);
    }

    #[test]
    fn what_the_driver_takes_follows_its_own_bits() {
        assert_eq!(rx_offloads(offered(1)), RxOffloads::ALL);
        assert_eq!(
            rx_offloads(CSUM | HOST_TSO4 | HOST_USO),
            RxOffloads::default()
        );
        let tso6 = RxOffloads {
            csum: true,
            tso6: true,
            ..RxOffloads::default()
        };
        assert_eq!(rx_offloads(GUEST_CSUM | GUEST_TSO6), tso6);
    }
}
