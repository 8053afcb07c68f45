//! The qdiscs that filters hang on: ingress and clsact, with their shared blocks.

use super::header::{CLSACT, Header, tca};
use crate::Result;
use crate::attr::{Raw, Table, record};
use crate::message::Message;

record! {
    /// A qdisc's attributes.
    pub struct QdiscMore of tca {
        /// `clsact`, `ingress` or another.
        kind: String = KIND;
        /// All of its options.
        options: Vec<u8> = OPTIONS;
        /// 1: it is in hardware.
        hw_offload: u8 = HW_OFFLOAD;
        /// The block that its filters on received packets are in.
        ingress_block: u32 = INGRESS_BLOCK;
        /// The block that its filters on sent packets are in.
        egress_block: u32 = EGRESS_BLOCK;
    }
}

/// A qdisc, or a request about some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Qdisc {
    /// Where it is: the device, its own number, its parent.
    pub header: Header,
    /// The rest.
    pub more: QdiscMore,
    /// Attributes that are not known here.
    #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(default))]
    pub unknown: Vec<Raw>,
}

impl Qdisc {
    /// The clsact qdisc of a device.
    pub fn clsact(ifindex: i32) -> Self {
        let header = Header {
            ifindex,
            handle: 0xffff_0000,
            parent: CLSACT,
            ..Header::default()
        };
        let more = QdiscMore {
            kind: Some("clsact".to_owned()),
            ..QdiscMore::default()
        };
        Qdisc {
            header,
            more,
            unknown: Vec::new(),
        }
    }

    /// Reads the payload of RTM_*QDISC.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let (header, attributes) = Header::parse(payload)?;
        let table = Table::new(&tca::ALL, attributes)?;
        Ok(Qdisc {
            header,
            more: QdiscMore::read(&table)?,
            unknown: table.rest(),
        })
    }

    /// A message about it: `kind` is one of RTM_*QDISC.
    pub fn message(&self, kind: u16, flags: u16) -> Result<Message> {
        Message::new(kind, flags, |out| {
            self.header.emit(out);
            self.more.write(out);
            out.put_raw(&self.unknown);
        })
    }
}
