//! Refusals as gRPC statuses.

use crate::nic::Refused;
use crate::nic::attach_text::AttachError;
use crate::nic::edge::shown;
use chanio_model::flow::RuleTextError;
use chanio_model::rate::RateError;
use tonic::{Code, Status};

/// Bytes of a status message. It travels in a header, whose size peers limit.
const MAX_MESSAGE: usize = 2000;

/// Why a call is not carried out; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The NIC does not do it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Not an attachment.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Not a rule.
    #[error(transparent)]
    Rule(#[from] RuleTextError),
    /// Nothing is called so.
    #[error("{field}: no port is called `{}`", shown(.name))]
    NoPort {
        /// Where it was named.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// A field's value is not one that is taken.
    #[error("{field}: {value} is not allowed, must be {allowed}")]
    Invalid {
        /// The field, as the API spells it.
        field: &'static str,
        /// What was asked for.
        value: String,
        /// What would be taken.
        allowed: &'static str,
    },
    /// One of several items.
    #[error("{list}[{index}].{source}")]
    Item {
        /// The repeated field.
        list: &'static str,
        /// From 0.
        index: usize,
        /// What is wrong with it.
        source: Box<RequestError>,
    },
}

impl RequestError {
    /// What is wrong with one item of a list of `len`; the only one needs no number.
    pub(super) fn item(self, list: &'static str, index: usize, len: usize) -> Self {
        if len == 1 {
            return self;
        }
        let source = Box::new(self);
        RequestError::Item {
            list,
            index,
            source,
        }
    }

    fn code(&self) -> Code {
        match self {
            RequestError::Refused(refused) => code(refused),
            RequestError::NoPort { .. } | RequestError::Rule(RuleTextError::UnknownPort { .. }) => {
                Code::NotFound
            }
            RequestError::Attach(_) | RequestError::Rule(_) | RequestError::Invalid { .. } => {
                Code::InvalidArgument
            }
            RequestError::Item { source, .. } => source.code(),
        }
    }
}

/// The status code that tells a client what kind of refusal this is.
pub fn code(refused: &Refused) -> Code {
    match refused {
        Refused::Rate(RateError::Unknown(_)) => Code::NotFound,
        Refused::Rate(RateError::Taken(_)) => Code::AlreadyExists,
        Refused::Invalid { .. }
        | Refused::Rule(_)
        | Refused::Rss(_)
        | Refused::Rate(_)
        | Refused::Receive(_) => Code::InvalidArgument,
        Refused::PoolExhausted { .. } => Code::ResourceExhausted,
        Refused::DuplicateName(_) | Refused::DuplicateMac { .. } => Code::AlreadyExists,
        Refused::NoChannel(_)
        | Refused::NoVport(_)
        | Refused::NoRule(_)
        | Refused::NoFdbEntry { .. } => Code::NotFound,
        Refused::WrongMode { .. } | Refused::Missing { .. } | Refused::Profile(_) => {
            Code::FailedPrecondition
        }
        Refused::Os { .. } => Code::Internal,
        Refused::ShuttingDown => Code::Unavailable,
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        let mut text = error.to_string();
        if text.len() > MAX_MESSAGE {
            let cut = (0..=MAX_MESSAGE).rev().find(|i| text.is_char_boundary(*i));
            text.truncate(cut.unwrap_or(0));
            text.push('…');
        }
        Status::new(error.code(), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chanio_model::flow::RuleSpec;

    #[test]
    fn items_keep_their_code_and_say_which() {
        let rule = "in_port nobody action drop".parse::<RuleSpec>();
        let error = RequestError::from(rule.unwrap_err()).item("rules", 3, 5);
        let status = Status::from(error);
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.message().starts_with("rules[3].in_port: no port"));
    }

    #[test]
    fn messages_fit_a_header() {
        let rule = "ä".repeat(2000).parse::<RuleSpec>();
        let status = Status::from(RequestError::from(rule.unwrap_err()));
        assert!(status.message().len() <= MAX_MESSAGE + '…'.len_utf8());
        assert!(status.message().starts_with("`ä"));
    }
}
