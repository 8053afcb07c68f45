//! Rate limits: leaves are ports, nodes are groups of them.

use super::devlink;
use crate::attr::{numbers, record};

numbers! {
    /// enum devlink_rate_type
    pub enum RateType: u16 {
        /// A port's.
        Leaf = 0,
        /// A group's.
        Node = 1,
    }
}

record! {
    /// A limit. A leaf is named by its port.
    pub struct Rate of devlink {
        /// A port's or a group's.
        kind: RateType as u16 = RATE_TYPE;
        /// Bytes per second that it gets at least, when it competes.
        tx_share: u64 = RATE_TX_SHARE;
        /// Bytes per second that it gets at most.
        tx_max: u64 = RATE_TX_MAX;
        /// The group's name.
        node: String = RATE_NODE_NAME;
        /// The group that it is in; an empty name is none.
        parent: String = RATE_PARENT_NODE_NAME;
        /// Strict priority among its siblings.
        tx_priority: u32 = RATE_TX_PRIORITY;
        /// Its share among siblings of its priority.
        tx_weight: u32 = RATE_TX_WEIGHT;
    }
}
