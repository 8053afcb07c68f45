//! tc: filters, their actions, the qdiscs they hang on (linux/rtnetlink.h, linux/pkt_cls.h).

pub mod action;
mod filter;
pub mod flower;
mod header;
mod matchall;
pub mod model;
mod qdisc;
mod tbf;
pub mod tunnel_options;

pub use filter::{Filter, FilterKind, FilterMore, TERSE};
pub use header::{
    At, CLSACT, DEL_CHAIN, DEL_FILTER, DEL_QDISC, EGRESS, GET_CHAIN, GET_FILTER, GET_QDISC, Header,
    INGRESS, NEW_CHAIN, NEW_FILTER, NEW_QDISC, ROOT, tca,
};
pub use matchall::MatchallRule;
pub use qdisc::{Qdisc, QdiscMore};
pub use tbf::Tbf;
