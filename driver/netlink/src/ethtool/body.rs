//! What messages are about.

use super::attributes::{channels, coalesce, features, rings};
use super::{Bitset, Body};
use crate::Result;
use crate::attr::{AttrSet, Table, Writer, record};

record! {
    /// Queues that share an interrupt.
    pub struct Channels of channels {
        /// Receive only, at most.
        rx_max: u32 = RX_MAX;
        /// Transmit only, at most.
        tx_max: u32 = TX_MAX;
        /// For other events, at most.
        other_max: u32 = OTHER_MAX;
        /// Receive and transmit, at most.
        combined_max: u32 = COMBINED_MAX;
        /// Receive only.
        rx_count: u32 = RX_COUNT;
        /// Transmit only.
        tx_count: u32 = TX_COUNT;
        /// For other events.
        other_count: u32 = OTHER_COUNT;
        /// Receive and transmit.
        combined_count: u32 = COMBINED_COUNT;
    }
}
record! {
    /// Ring sizes, in descriptors.
    pub struct Rings of rings {
        /// Receive, at most.
        rx_max: u32 = RX_MAX;
        /// Transmit, at most.
        tx_max: u32 = TX_MAX;
        /// Receive.
        rx: u32 = RX;
        /// Transmit.
        tx: u32 = TX;
    }
}
record! {
    /// When the NIC interrupts.
    pub struct Coalesce of coalesce {
        /// Microseconds after a packet was received.
        rx_usecs: u32 = RX_USECS;
        /// After so many packets were received.
        rx_frames: u32 = RX_MAX_FRAMES;
        /// Microseconds after a packet was sent.
        tx_usecs: u32 = TX_USECS;
        /// After so many packets were sent.
        tx_frames: u32 = TX_MAX_FRAMES;
        /// 1: the NIC adapts what it does after receiving.
        adaptive_rx: u8 = USE_ADAPTIVE_RX;
        /// 1: the NIC adapts what it does after sending.
        adaptive_tx: u8 = USE_ADAPTIVE_TX;
    }
}
record! {
    /// What the netdev can do and does.
    pub struct Features of features {
        /// Can be changed.
        hardware: Bitset = HW;
        /// Is wanted.
        wanted: Bitset = WANTED;
        /// Is done.
        active: Bitset = ACTIVE;
        /// Is never done.
        never: Bitset = NOCHANGE;
    }
}

/// Only the header: requests to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Nothing;

impl Nothing {
    fn read(_: &Table<'_>) -> Result<Self> {
        Ok(Nothing)
    }
    fn write(&self, _: &mut Writer) {}
}

macro_rules! bodies {
    ($($body:ident: $set:ident),+ $(,)?) => {$(
        impl Body for $body {
            fn set() -> &'static AttrSet {
                &$set::ALL
            }
            fn read(table: &Table<'_>) -> Result<Self> {
                $body::read(table)
            }
            fn write(&self, out: &mut Writer) {
                $body::write(self, out);
            }
        }
    )+};
}
// A request to be told has the same header whatever it asks for.
bodies!(Channels: channels, Rings: rings, Coalesce: coalesce, Features: features, Nothing: channels);
