//! flower: match on the packet's fields (linux/pkt_cls.h, TCA_FLOWER_*).

mod attributes;
mod key;
mod mpls;
mod rule;

pub use attributes::flower;
pub use key::{
    ArpKey, CfmKey, CtKey, CvlanKey, EncKey, EthKey, FlowerKey, Icmpv4Key, Icmpv6Key, IpKey,
    OtherKey, PortRanges, SctpKey, TcpKey, UdpKey, VlanKey,
};
pub use mpls::{MplsFirst, MplsKey, MplsLse};
#[cfg(any(test, feature = "arbitrary"))]
pub(crate) use rule::few;
pub use rule::{FlowerRule, RuleFlags, class_of_hw_tc, hw_tc_of_class};
