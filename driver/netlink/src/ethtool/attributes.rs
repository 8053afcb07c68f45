//! ethtool's commands and attributes, by their numbers.

use crate::attr::attributes;

/// ETHTOOL_MSG_*; requests and answers are numbered apart.
pub mod command {
    /// String sets.
    pub const STRSET_GET: u8 = 1;
    /// Port, transceiver and MDI.
    pub const LINKINFO_GET: u8 = 2;
    /// Speed, duplex and advertised modes.
    pub const LINKMODES_GET: u8 = 4;
    /// Whether there is a link.
    pub const LINKSTATE_GET: u8 = 6;
    /// Features.
    pub const FEATURES_GET: u8 = 11;
    /// Changes features.
    pub const FEATURES_SET: u8 = 12;
    /// Ring sizes.
    pub const RINGS_GET: u8 = 15;
    /// Changes ring sizes.
    pub const RINGS_SET: u8 = 16;
    /// Channels.
    pub const CHANNELS_GET: u8 = 17;
    /// Changes channels.
    pub const CHANNELS_SET: u8 = 18;
    /// Coalescing.
    pub const COALESCE_GET: u8 = 19;
    /// Changes coalescing.
    pub const COALESCE_SET: u8 = 20;
    /// The answer with channels.
    pub const CHANNELS_GET_REPLY: u8 = 18;
}

attributes! {
    /// ETHTOOL_A_HEADER_*
    pub mod header = "ETHTOOL_A_HEADER_" { UNSPEC, DEV_INDEX, DEV_NAME, FLAGS }
}
attributes! {
    /// ETHTOOL_A_CHANNELS_*
    pub mod channels = "ETHTOOL_A_CHANNELS_" {
        UNSPEC, HEADER, RX_MAX, TX_MAX, OTHER_MAX, COMBINED_MAX, RX_COUNT, TX_COUNT, OTHER_COUNT,
        COMBINED_COUNT,
    }
}
attributes! {
    /// ETHTOOL_A_RINGS_*
    pub mod rings = "ETHTOOL_A_RINGS_" {
        UNSPEC, HEADER, RX_MAX, RX_MINI_MAX, RX_JUMBO_MAX, TX_MAX, RX, RX_MINI, RX_JUMBO, TX,
        RX_BUF_LEN, TCP_DATA_SPLIT, CQE_SIZE, TX_PUSH,
    }
}
attributes! {
    /// ETHTOOL_A_COALESCE_*
    pub mod coalesce = "ETHTOOL_A_COALESCE_" {
        UNSPEC, HEADER, RX_USECS, RX_MAX_FRAMES, RX_USECS_IRQ, RX_MAX_FRAMES_IRQ, TX_USECS,
        TX_MAX_FRAMES, TX_USECS_IRQ, TX_MAX_FRAMES_IRQ, STATS_BLOCK_USECS, USE_ADAPTIVE_RX,
        USE_ADAPTIVE_TX, PKT_RATE_LOW, RX_USECS_LOW, RX_MAX_FRAMES_LOW, TX_USECS_LOW,
        TX_MAX_FRAMES_LOW, PKT_RATE_HIGH, RX_USECS_HIGH, RX_MAX_FRAMES_HIGH, TX_USECS_HIGH,
        TX_MAX_FRAMES_HIGH, RATE_SAMPLE_INTERVAL, USE_CQE_MODE_TX, USE_CQE_MODE_RX,
    }
}
attributes! {
    /// ETHTOOL_A_FEATURES_*
    pub mod features = "ETHTOOL_A_FEATURES_" { UNSPEC, HEADER, HW, WANTED, ACTIVE, NOCHANGE }
}
attributes! {
    /// ETHTOOL_A_BITSET_*
    pub mod bitset = "ETHTOOL_A_BITSET_" { UNSPEC, NOMASK, SIZE, BITS, VALUE, MASK }
}
attributes! {
    /// ETHTOOL_A_BITSET_BITS_*
    pub mod bits = "ETHTOOL_A_BITSET_BITS_" { UNSPEC, BIT }
}
attributes! {
    /// ETHTOOL_A_BITSET_BIT_*
    pub mod bit = "ETHTOOL_A_BITSET_BIT_" { UNSPEC, INDEX, NAME, VALUE }
}
