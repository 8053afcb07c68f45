//! Why bytes are not the message they should be.

/// What is wrong with a message, naming the attribute as its uapi header does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A header or a fixed struct is cut short.
    #[error("{what}: {got} bytes, needs at least {want}")]
    Short {
        /// The header or struct.
        what: &'static str,
        /// Bytes there are.
        got: usize,
        /// Bytes it has at least.
        want: usize,
    },
    /// A length field says what cannot be.
    #[error("{what}: length {got} is out of range, allowed are {min} to {max}")]
    Length {
        /// Where the length stands.
        what: &'static str,
        /// What it says.
        got: usize,
        /// The least it can say.
        min: usize,
        /// The most it can say.
        max: usize,
    },
    /// The attributes of a nest do not fill it.
    #[error("{family}: attributes are malformed at byte {offset}")]
    Attributes {
        /// Whose attributes.
        family: &'static str,
        /// Where in the nest.
        offset: usize,
    },
    /// An attribute's value has the wrong size.
    #[error("{family}{attr}: {got} bytes, must be {want}")]
    Size {
        /// Whose attribute.
        family: &'static str,
        /// Its name or number.
        attr: String,
        /// Bytes there are.
        got: usize,
        /// Bytes there must be.
        want: usize,
    },
    /// A string that is not UTF-8.
    #[error("{family}{attr}: not a UTF-8 string")]
    NotText {
        /// Whose attribute.
        family: &'static str,
        /// Its name or number.
        attr: String,
    },
    /// An attribute without which the message means nothing.
    #[error("{family}{attr}: missing")]
    Missing {
        /// Whose attribute.
        family: &'static str,
        /// Its name.
        attr: &'static str,
    },
    /// A number that stands for nothing.
    #[error("{what}: {got} is out of range, allowed are {allowed}")]
    Value {
        /// The field.
        what: &'static str,
        /// What it says.
        got: u64,
        /// What it could say.
        allowed: &'static str,
    },
}

/// A result of reading a message.
pub type Result<T> = std::result::Result<T, Error>;
