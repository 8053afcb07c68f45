//! Acknowledgements and what the kernel says about a refusal (linux/netlink.h, enum
//! nlmsgerr_attrs).

use super::{Message, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSG_ERROR};
use crate::attr::{Table, Writer, attributes, record};
use crate::{Error, Result};

attributes! {
    /// enum nlmsgerr_attrs
    pub mod nlmsgerr = "NLMSGERR_ATTR_" {
        UNUSED, MSG, OFFS, COOKIE, POLICY, MISS_TYPE, MISS_NEST,
    }
}

attributes! {
    /// enum netlink_policy_type_attr
    pub mod policy = "NL_POLICY_TYPE_ATTR_" {
        UNSPEC, TYPE, MIN_VALUE_S, MAX_VALUE_S, MIN_VALUE_U, MAX_VALUE_U, MIN_LENGTH, MAX_LENGTH,
        POLICY_IDX, POLICY_MAXTYPE, BITFIELD32_MASK, PAD, MASK,
    }
}

record! {
    /// What an attribute's value must be like.
    pub struct Policy of policy {
        /// NL_ATTR_TYPE_*.
        kind: u32 = TYPE;
        /// The least number of a signed one.
        min_signed: i64 = MIN_VALUE_S;
        /// The greatest number of a signed one.
        max_signed: i64 = MAX_VALUE_S;
        /// The least number.
        min: u64 = MIN_VALUE_U;
        /// The greatest number.
        max: u64 = MAX_VALUE_U;
        /// The least number of bytes.
        min_length: u32 = MIN_LENGTH;
        /// The greatest number of bytes.
        max_length: u32 = MAX_LENGTH;
        /// Which bits may be set.
        mask: u64 = MASK;
    }
}

record! {
    /// The attributes of an acknowledgement but for the policy.
    struct Told of nlmsgerr {
        /// The text.
        message: String = MSG;
        /// The offset.
        offset: u32 = OFFS;
        /// The cookie.
        cookie: Vec<u8> = COOKIE;
        /// The missing attribute.
        missing: u32 = MISS_TYPE;
        /// Where it is missing.
        missing_in: u32 = MISS_NEST;
    }
}

/// What the kernel says beside the error number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct ExtAck {
    /// In words.
    pub message: Option<String>,
    /// Where in the request the refused attribute starts, counted from its header.
    pub offset: Option<u32>,
    /// What a successful request made, in the subsystem's own form.
    pub cookie: Option<Vec<u8>>,
    /// The number of an attribute that should have been there.
    pub missing: Option<u32>,
    /// The offset of the nest that it should have been in.
    pub missing_in: Option<u32>,
    /// What the refused attribute must be like.
    pub policy: Option<Box<Policy>>,
}

impl ExtAck {
    /// Words alone.
    pub fn text(message: impl Into<String>) -> Self {
        ExtAck {
            message: Some(message.into()),
            ..Self::default()
        }
    }

    fn read(table: &Table<'_>) -> Result<Self> {
        let told = Told::read(table)?;
        let policy = table.attr(nlmsgerr::POLICY);
        let policy = policy.map(|attr| Policy::read(&attr.nest(&policy::ALL)?).map(Box::new));
        Ok(ExtAck {
            message: told.message,
            offset: told.offset,
            cookie: told.cookie,
            missing: told.missing,
            missing_in: told.missing_in,
            policy: policy.transpose()?,
        })
    }

    fn write(&self, out: &mut Writer) {
        let told = Told {
            message: self.message.clone(),
            offset: self.offset,
            cookie: self.cookie.clone(),
            missing: self.missing,
            missing_in: self.missing_in,
        };
        told.write(out);
        if let Some(policy) = &self.policy {
            out.nest(nlmsgerr::POLICY, |out| policy.write(out));
        }
    }
}

/// The kernel's answer to a request that was carried out (error 0) or refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledgement {
    /// 0, or the errno as a positive number.
    pub error: i32,
    /// The request's header; the payload is not kept.
    pub request: Message,
    /// What is said about it.
    pub told: ExtAck,
}

/// The size of struct nlmsgerr: an errno and the request's header.
const NLMSGERR_SIZE: usize = 20;

impl Acknowledgement {
    /// Reads a message of type NLMSG_ERROR.
    pub fn parse(message: &Message) -> Result<Self> {
        let payload = &message.payload;
        let short = || Error::Short {
            what: "nlmsgerr",
            got: payload.len(),
            want: NLMSGERR_SIZE,
        };
        let (error, echoed) = payload.split_first_chunk().ok_or_else(short)?;
        let header = echoed.get(..NLMSGERR_SIZE - 4).ok_or_else(short)?;
        // The echoed request is cut behind its header in a success and with NETLINK_CAP_ACK; its
        // own length field does not know.
        let error = i32::from_ne_bytes(*error);
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let capped = error == 0 || message.flags & NLM_F_CAPPED != 0;
        let end = if capped {
            header.len()
        } else {
            length.next_multiple_of(4)
        };
        let mut request = header.to_vec();
        request[..4].copy_from_slice(&16u32.to_ne_bytes());
        let (request, _) = Message::parse(&request)?;
        let told = if message.flags & NLM_F_ACK_TLVS == 0 {
            ExtAck::default()
        } else {
            let bytes = echoed.get(end..).ok_or(Error::Length {
                what: "nlmsgerr.msg.nlmsg_len",
                got: length,
                min: header.len(),
                max: echoed.len(),
            })?;
            ExtAck::read(&Table::new(&nlmsgerr::ALL, bytes)?)?
        };
        Ok(Acknowledgement {
            error: error.checked_neg().unwrap_or(i32::MAX),
            request,
            told,
        })
    }

    /// The message that says so to the socket that sent `request`, its payload left out as after
    /// NETLINK_CAP_ACK. Attributes are for sockets that asked for them (NETLINK_EXT_ACK).
    pub fn emit(&self, attributes: bool) -> Result<Message> {
        let told = attributes && self.told != ExtAck::default();
        let flags = NLM_F_CAPPED | if told { NLM_F_ACK_TLVS } else { 0 };
        let mut message = Message::new(NLMSG_ERROR, flags, |out| {
            out.bytes(&(-self.error).to_ne_bytes());
            let header = Message {
                payload: Vec::new(),
                ..self.request.clone()
            };
            out.bytes(&header.to_bytes());
            if told {
                self.told.write(out);
            }
        })?;
        message.sequence = self.request.sequence;
        message.port = self.request.port;
        Ok(message)
    }
}
