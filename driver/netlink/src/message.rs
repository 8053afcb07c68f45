//! Netlink messages (linux/netlink.h, struct nlmsghdr) in and out of datagrams.

mod extack;

pub use extack::{Acknowledgement, ExtAck, Policy};

use crate::attr::Writer;
use crate::{Error, Result};
use netlink_packet_core::NetlinkBuffer;
pub use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_APPEND, NLM_F_CAPPED, NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO,
    NLM_F_EXCL, NLM_F_MULTIPART, NLM_F_REPLACE, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP,
    NLMSG_OVERRUN,
};

/// The size of struct nlmsghdr.
const NETLINK_HEADER_LEN: usize = 16;

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// nlmsg_type: NLMSG_*, RTM_* or a generic family's number.
    pub kind: u16,
    /// NLM_F_*.
    pub flags: u16,
    /// Tells which request an answer is for.
    pub sequence: u32,
    /// The port of the socket that asked; 0 in requests and the kernel's notifications.
    pub port: u32,
    /// All behind the header.
    pub payload: Vec<u8>,
}

impl Message {
    /// A message with this payload, its sequence number yet to be given.
    pub fn new(kind: u16, flags: u16, fill: impl FnOnce(&mut Writer)) -> Result<Self> {
        let mut out = Writer::new();
        fill(&mut out);
        Ok(Message {
            kind,
            flags,
            sequence: 0,
            port: 0,
            payload: out.finish()?,
        })
    }

    /// The messages of one datagram.
    pub fn parse_all(datagram: &[u8]) -> Result<Vec<Self>> {
        let mut messages = Vec::new();
        let mut rest = datagram;
        while !rest.is_empty() {
            let (message, length) = Self::parse(rest)?;
            messages.push(message);
            // Padding between messages may be missing after the last.
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(messages)
    }

    /// The first message of a datagram and its length.
    pub fn parse(datagram: &[u8]) -> Result<(Self, usize)> {
        if datagram.len() < NETLINK_HEADER_LEN {
            return Err(Error::Short {
                what: "nlmsghdr",
                got: datagram.len(),
                want: NETLINK_HEADER_LEN,
            });
        }
        let header = NetlinkBuffer::new(datagram);
        let length = header.length() as usize;
        if !(NETLINK_HEADER_LEN..=datagram.len()).contains(&length) {
            return Err(Error::Length {
                what: "nlmsg_len",
                got: length,
                min: NETLINK_HEADER_LEN,
                max: datagram.len(),
            });
        }
        let message = Message {
            kind: header.message_type(),
            flags: header.flags(),
            sequence: header.sequence_number(),
            port: header.port_number(),
            payload: datagram[NETLINK_HEADER_LEN..length].to_vec(),
        };
        Ok((message, length))
    }

    /// Appends the message, padded for a next one.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let length = NETLINK_HEADER_LEN + self.payload.len();
        out.resize(start + NETLINK_HEADER_LEN, 0);
        let mut header = NetlinkBuffer::new(&mut out[start..]);
        // Messages are far below 4 GiB: memory would end first.
        header.set_length(length as u32);
        header.set_message_type(self.kind);
        header.set_flags(self.flags);
        header.set_sequence_number(self.sequence);
        header.set_port_number(self.port);
        out.extend_from_slice(&self.payload);
        out.resize(start + length.next_multiple_of(4), 0);
    }

    /// The message as a datagram of its own.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(NETLINK_HEADER_LEN + self.payload.len() + 3);
        self.emit(&mut bytes);
        bytes
    }
}
