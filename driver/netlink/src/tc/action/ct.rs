//! ct: track the packet's connection, translate its addresses (linux/tc_act/tc_ct.h).

use super::Generic;
use super::kind::Options;
use crate::Result;
use crate::attr::{Attr, AttrSet, Be, Table, Writer, attributes, record};
use std::net::{Ipv4Addr, Ipv6Addr};

attributes! {
    /// TCA_CT_*
    pub mod ct = "TCA_CT_" {
        UNSPEC, PARMS, TM, ACTION, ZONE, MARK, MARK_MASK, LABELS, LABELS_MASK, NAT_IPV4_MIN,
        NAT_IPV4_MAX, NAT_IPV6_MIN, NAT_IPV6_MAX, NAT_PORT_MIN, NAT_PORT_MAX, PAD, HELPER_NAME,
        HELPER_FAMILY, HELPER_PROTO,
    }
}

record! {
    /// What is done with the connection.
    pub struct Ct of ct {
        /// Of [`Ct::COMMIT`] and its sisters; none of them: look it up.
        action: u16 = ACTION;
        /// Connections of different zones never meet.
        zone: u16 = ZONE;
        /// Marks the connection.
        mark: u32 = MARK & MARK_MASK;
        /// Labels it.
        labels: [u8; 16] = LABELS & LABELS_MASK;
        /// The range that addresses are translated into.
        nat_ipv4_min: Ipv4Addr = NAT_IPV4_MIN;
        /// Its end.
        nat_ipv4_max: Ipv4Addr = NAT_IPV4_MAX;
        /// The range that addresses are translated into.
        nat_ipv6_min: Ipv6Addr = NAT_IPV6_MIN;
        /// Its end.
        nat_ipv6_max: Ipv6Addr = NAT_IPV6_MAX;
        /// The range that ports are translated into.
        nat_port_min: u16 as Be<u16> = NAT_PORT_MIN;
        /// Its end.
        nat_port_max: u16 as Be<u16> = NAT_PORT_MAX;
        /// Of an application layer gateway.
        helper_name: String = HELPER_NAME;
        /// Its address family.
        helper_family: u8 = HELPER_FAMILY;
        /// Its transport protocol.
        helper_proto: u8 = HELPER_PROTO;
    }
}

impl Ct {
    /// Enter a new connection.
    pub const COMMIT: u16 = 1 << 0;
    /// Even if the other direction has one.
    pub const FORCE: u16 = 1 << 1;
    /// Forget the packet's connection.
    pub const CLEAR: u16 = 1 << 2;
    /// Translate.
    pub const NAT: u16 = 1 << 3;
    /// The source.
    pub const NAT_SRC: u16 = 1 << 4;
    /// The destination.
    pub const NAT_DST: u16 = 1 << 5;
}

impl Options for Ct {
    const NAME: &'static str = "ct";
    const SET: &'static AttrSet = &ct::ALL;
    const PARMS: u16 = ct::PARMS;
    const TM: u16 = ct::TM;

    fn read_options(table: &Table<'_>, _: &Attr<'_>, _: &[u8]) -> Result<Self> {
        Ct::read(table)
    }

    fn write_options(&self, generic: &Generic, out: &mut Writer) {
        out.attr(ct::PARMS, |out| generic.emit(out));
        Ct::write(self, out);
    }
}
