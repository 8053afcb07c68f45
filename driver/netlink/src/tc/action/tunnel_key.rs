//! tunnel_key: attach a tunnel's metadata or take it off (linux/tc_act/tc_tunnel_key.h).

use super::Generic;
use super::kind::{Options, word};
use crate::attr::{Attr, AttrSet, Be, Flag, Table, Writer, attributes, record};
use crate::tc::tunnel_options::TunnelOptions;
use crate::{Error, Result};
use std::net::{Ipv4Addr, Ipv6Addr};

attributes! {
    /// TCA_TUNNEL_KEY_*
    pub mod tunnel_key = "TCA_TUNNEL_KEY_" {
        UNSPEC, TM, PARMS, ENC_IPV4_SRC, ENC_IPV4_DST, ENC_IPV6_SRC, ENC_IPV6_DST, ENC_KEY_ID, PAD,
        ENC_DST_PORT, NO_CSUM, ENC_OPTS, ENC_TOS, ENC_TTL, NO_FRAG,
    }
}

/// TCA_TUNNEL_KEY_ACT_*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub enum TunnelKeyWhat {
    /// Attach it: a tunnel device then encapsulates.
    Set = 1,
    /// Take it off, after a tunnel device has decapsulated.
    #[default]
    Unset = 2,
}

record! {
    /// The metadata.
    pub struct TunnelMetadata of tunnel_key {
        /// The outer source.
        ipv4_src: Ipv4Addr = ENC_IPV4_SRC;
        /// The outer destination.
        ipv4_dst: Ipv4Addr = ENC_IPV4_DST;
        /// The outer source.
        ipv6_src: Ipv6Addr = ENC_IPV6_SRC;
        /// The outer destination.
        ipv6_dst: Ipv6Addr = ENC_IPV6_DST;
        /// VNI or GRE key.
        key_id: u32 as Be<u32> = ENC_KEY_ID;
        /// The outer UDP destination.
        dst_port: u16 as Be<u16> = ENC_DST_PORT;
        /// 1: the outer UDP checksum is left zero.
        no_csum: u8 = NO_CSUM;
        /// Options of the tunnel header.
        options: TunnelOptions = ENC_OPTS;
        /// The outer type of service.
        tos: u8 = ENC_TOS;
        /// The outer time to live.
        ttl: u8 = ENC_TTL;
        /// The outer packet must not be fragmented.
        no_frag: Flag = NO_FRAG;
    }
}

/// What is done with which metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct TunnelKey {
    /// Set or unset.
    pub what: TunnelKeyWhat,
    /// What is set.
    pub metadata: TunnelMetadata,
}

impl Options for TunnelKey {
    const NAME: &'static str = "tunnel_key";
    const SET: &'static AttrSet = &tunnel_key::ALL;
    const PARMS: u16 = tunnel_key::PARMS;
    const TM: u16 = tunnel_key::TM;

    fn read_options(table: &Table<'_>, parms: &Attr<'_>, tail: &[u8]) -> Result<Self> {
        let what = match word(parms, tail, 0)? {
            1 => TunnelKeyWhat::Set,
            2 => TunnelKeyWhat::Unset,
            other => {
                return Err(Error::Value {
                    what: "tc_tunnel_key.t_action",
                    got: other.into(),
                    allowed: "1 and 2",
                });
            }
        };
        Ok(TunnelKey {
            what,
            metadata: TunnelMetadata::read(table)?,
        })
    }

    fn write_options(&self, generic: &Generic, out: &mut Writer) {
        out.attr(tunnel_key::PARMS, |out| {
            generic.emit(out);
            out.bytes(&(self.what as u32).to_ne_bytes());
        });
        self.metadata.write(out);
    }
}
