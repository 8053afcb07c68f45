//! Why a configuration is not used.

use crate::nic::Refused;
use chanio_model::flow::RuleTextError;
use std::fmt;
use std::path::PathBuf;

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of the file, from 1.
    Line(PathBuf, usize),
    /// An option of the command line.
    CommandLine,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(file, line) => write!(f, "{}:{line}", file.display()),
            Place::CommandLine => f.write_str("command line"),
        }
    }
}

/// A configuration that cannot be used; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, or not these keys.
    #[error("{place}: {}{message}", .field.as_ref().map(|f| format!("{f}: ")).unwrap_or_default())]
    Syntax {
        /// Where.
        place: Place,
        /// The key, where one is known.
        field: Option<String>,
        /// What is wrong.
        message: String,
    },
    /// A value that is not taken. `what` names the field and what is allowed.
    #[error("{place}: {section}.{what}")]
    Value {
        /// Where.
        place: Place,
        /// The table of the file.
        section: &'static str,
        /// Field, value, and what is allowed.
        what: String,
    },
    /// Neither in the file nor on the command line.
    #[error("{field}: missing; give {option} or [nic] {field}")]
    Missing {
        /// The key.
        field: &'static str,
        /// The option.
        option: &'static str,
    },
    /// Fixed when the NIC was started.
    #[error(
        "nic.{field}: {new} is not what the NIC was started with, {now}; this cannot change while \
         it runs"
    )]
    Fixed {
        /// The key.
        field: &'static str,
        /// The value in use.
        now: String,
        /// The value asked for.
        new: String,
    },
}

/// Why a step of a plan cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The NIC refuses it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A rule that was read without the NIC does not fit it.
    #[error("flow.rule: `{text}`: {source}")]
    Rule {
        /// The rule.
        text: String,
        /// What is wrong.
        #[source]
        source: RuleTextError,
    },
    /// No port has this name now.
    #[error("fdb.port: no port is called `{0}`")]
    NoPort(String),
}

/// A plan that was not carried out; what had been done was undone.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A step that cannot be done.
    #[error(transparent)]
    Step(#[from] StepError),
    /// And what had been done could not all be taken back.
    #[error("{why}; besides, not everything that was done could be undone: {undo}")]
    NotUndone {
        /// The step that could not be done.
        why: Box<StepError>,
        /// What could not be taken back.
        undo: Box<StepError>,
    },
}
