//! What all tc messages begin with (linux/rtnetlink.h, struct tcmsg and TCA_*).

use crate::attr::{Writer, attributes};
use crate::{Error, Result};

attributes! {
    /// TCA_*
    pub mod tca = "TCA_" {
        UNSPEC, KIND, OPTIONS, STATS, XSTATS, RATE, FCNT, STATS2, STAB, PAD, DUMP_INVISIBLE, CHAIN,
        HW_OFFLOAD, INGRESS_BLOCK, EGRESS_BLOCK, DUMP_FLAGS, EXT_WARN_MSG,
    }
}

/// RTM_NEWQDISC.
pub const NEW_QDISC: u16 = 36;
/// RTM_DELQDISC.
pub const DEL_QDISC: u16 = 37;
/// RTM_GETQDISC.
pub const GET_QDISC: u16 = 38;
/// RTM_NEWTFILTER.
pub const NEW_FILTER: u16 = 44;
/// RTM_DELTFILTER.
pub const DEL_FILTER: u16 = 45;
/// RTM_GETTFILTER.
pub const GET_FILTER: u16 = 46;
/// RTM_NEWCHAIN.
pub const NEW_CHAIN: u16 = 100;
/// RTM_DELCHAIN.
pub const DEL_CHAIN: u16 = 101;
/// RTM_GETCHAIN.
pub const GET_CHAIN: u16 = 102;

/// The parent of a netdev's own qdisc (TC_H_ROOT).
pub const ROOT: u32 = 0xffff_ffff;
/// The parent of the ingress and clsact qdiscs (TC_H_CLSACT).
pub const CLSACT: u32 = 0xffff_fff1;
/// Filters on what a device receives (TC_H_CLSACT with TC_H_MIN_INGRESS).
pub const INGRESS: u32 = 0xffff_fff2;
/// Filters on what it sends (TC_H_CLSACT with TC_H_MIN_EGRESS).
pub const EGRESS: u32 = 0xffff_fff3;

/// Stands for a shared block where a device's index would (TCM_IFINDEX_MAGIC_BLOCK).
const BLOCK: i32 = -1;

/// struct tcmsg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Header {
    /// AF_UNSPEC.
    pub family: u8,
    /// The device, or -1 for a block.
    pub ifindex: i32,
    /// The object's own number.
    pub handle: u32,
    /// Where it hangs; with a block, the block's number.
    pub parent: u32,
    /// A filter's priority (upper half) and protocol (lower half, in network order).
    pub info: u32,
}

impl Header {
    /// Its size on the wire.
    pub const SIZE: usize = 20;

    /// Reads it and tells what is behind it.
    pub fn parse(payload: &[u8]) -> Result<(Self, &[u8])> {
        let Some((bytes, rest)) = payload.split_first_chunk::<{ Self::SIZE }>() else {
            return Err(Error::Short {
                what: "tcmsg",
                got: payload.len(),
                want: Self::SIZE,
            });
        };
        let (words, _) = bytes.as_chunks();
        let word = |i: usize| u32::from_ne_bytes(words[i]);
        let header = Header {
            family: bytes[0],
            ifindex: word(1).cast_signed(),
            handle: word(2),
            parent: word(3),
            info: word(4),
        };
        Ok((header, rest))
    }

    /// Appends it.
    pub fn emit(&self, out: &mut Writer) {
        out.bytes(&[self.family, 0, 0, 0]);
        out.bytes(&self.ifindex.to_ne_bytes());
        for word in [self.handle, self.parent, self.info] {
            out.bytes(&word.to_ne_bytes());
        }
    }
}

/// Where filters hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub enum At {
    /// On one device.
    Device {
        /// Its index.
        #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(with = index))]
        ifindex: i32,
        /// [`INGRESS`], [`EGRESS`] or a class.
        parent: u32,
    },
    /// On all devices of a shared block.
    Block(u32),
}

impl Default for At {
    fn default() -> Self {
        At::Device {
            ifindex: 0,
            parent: 0,
        }
    }
}

impl From<Header> for At {
    fn from(header: Header) -> Self {
        match header.ifindex {
            BLOCK => At::Block(header.parent),
            ifindex => At::Device {
                ifindex,
                parent: header.parent,
            },
        }
    }
}

impl At {
    /// A header with this place.
    pub fn header(self) -> Header {
        let (ifindex, parent) = match self {
            At::Device { ifindex, parent } => (ifindex, parent),
            At::Block(block) => (BLOCK, block),
        };
        Header {
            ifindex,
            parent,
            ..Header::default()
        }
    }
}

#[cfg(any(test, feature = "arbitrary"))]
fn index(bytes: &mut arbitrary::Unstructured<'_>) -> arbitrary::Result<i32> {
    bytes.int_in_range(0..=i32::MAX)
}
