//! Why a request was refused.

use chanio_model::{ChannelName, RuleId, VportId};

/// A request that the NIC does not carry out; nothing has changed. The text names the field, the
/// offending value and what would be allowed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A field's value is not one that this NIC takes.
    #[error("{field}: {value} is not allowed, must be {allowed}")]
    Invalid {
        /// The field, as the API spells it.
        field: &'static str,
        /// What was asked for.
        value: String,
        /// What would be taken.
        allowed: String,
    },
    /// The pool has fewer queue pairs left than asked for.
    #[error("queues: {asked} queue pairs asked for, {free} of {pool} are free")]
    PoolExhausted {
        /// Queue pairs asked for.
        asked: u64,
        /// Queue pairs not taken by any channel.
        free: u64,
        /// Queue pairs of the NIC.
        pool: u64,
    },
    /// The name is taken.
    #[error("name: a channel `{0}` exists already")]
    DuplicateName(ChannelName),
    /// The address is taken by another channel in the same VLAN.
    #[error("mac: {mac} already belongs to channel `{owner}`")]
    DuplicateMac {
        /// The address.
        mac: chanio_model::Mac,
        /// Who has it.
        owner: ChannelName,
    },
    /// No such channel.
    #[error("name: no channel `{0}`")]
    NoChannel(String),
    /// No such vport.
    #[error("vport: no vport {0}")]
    NoVport(VportId),
    /// Not a rule.
    #[error(transparent)]
    Rule(#[from] chanio_model::flow::RuleError),
    /// Not what a rate can be set to.
    #[error(transparent)]
    Rate(#[from] chanio_model::rate::RateError),
    /// Not what RSS can be set to.
    #[error("rss {0}")]
    Rss(#[from] chanio_model::rss::RssError),
    /// Not what a channel can receive, or an address that it cannot have.
    #[error(transparent)]
    Receive(#[from] chanio_model::eswitch::ReceiveError),
    /// No such rule.
    #[error("id: no flow rule {0}")]
    NoRule(RuleId),
    /// No such FDB entry.
    #[error("mac: no static FDB entry {mac} in VLAN {vid}")]
    NoFdbEntry {
        /// The address.
        mac: chanio_model::Mac,
        /// 0: untagged.
        vid: u16,
    },
    /// The eswitch is not in the mode that this needs.
    #[error("{what} needs eswitch mode {needed}, the mode is {mode}")]
    WrongMode {
        /// What was asked for.
        what: &'static str,
        /// The mode it needs.
        needed: &'static str,
        /// The mode now.
        mode: &'static str,
    },
    /// A NIC of this kind would not do it.
    #[error(transparent)]
    Profile(#[from] chanio_model::profile::Refusal),
    /// The machine lacks something that this needs.
    #[error("{what}: {why}")]
    Missing {
        /// What was asked for.
        what: String,
        /// What the machine lacks, and how to get it.
        why: String,
    },
    /// The operating system refused a step; all earlier ones were undone.
    #[error("{what}: {source}")]
    Os {
        /// The step.
        what: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The NIC is shutting down.
    #[error("the NIC is shutting down")]
    ShuttingDown,
}

impl Refused {
    /// A step that the operating system refused.
    pub fn os(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Refused::Os {
            what: what.into(),
            source: source.into(),
        }
    }
}
