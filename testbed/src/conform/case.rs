//! A case: what it is called, what it needs, and how it can end.

use super::bed::Bed;
use super::report::Outcome;
use chanio::DeviceError;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::io;

/// One thing that devices are held to.
pub struct Case {
    /// Group and name with dots between, as `slow.to_host`.
    pub name: Cow<'static, str>,
    /// What it holds devices to, as one line.
    pub about: Cow<'static, str>,
    /// Where that is written.
    pub source: Cow<'static, str>,
    /// What the device must be able to do.
    pub needs: Cow<'static, [Need]>,
    /// What must be there before it begins.
    pub setup: Setup,
    /// What it does.
    pub body: Body,
}

/// What a case does; the `Bed` is its device.
pub type Body = Box<dyn Fn(&mut Bed) -> Ended + Send>;

/// What a device must be able to do for a case to be run on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Switchdev mode.
    Switchdev,
    /// Legacy mode.
    Legacy,
    /// A netdev for each channel's host side.
    Representors,
    /// A channel that is a netdev, below a kernel's own stack.
    Netdev,
    /// Somebody at the other end of the wire.
    Wire,
}

/// What must be there before a case begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// No channel and no rule, in whichever mode.
    Bare,
    /// Switchdev mode and the three channels of [`super::world::World`], without rules.
    World,
}

/// How a body ends.
pub type Ended<T = ()> = Result<T, Stop>;

/// Why a body ends early.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Stop {
    /// The device did something else than it is held to.
    Failed(Failure),
    /// The device cannot do it, and says why.
    NotSupported(String),
    /// The case could not be run.
    Error(String),
}

/// What went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// In a sentence.
    pub why: String,
    /// What was to come of it.
    pub expected: String,
    /// What came instead.
    pub got: String,
}

impl Failure {
    /// A failure without more than a sentence.
    pub fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            ..Self::default()
        }
    }
}

/// A case of these parts.
pub fn case(
    name: &'static str,
    about: &'static str,
    source: &'static str,
    setup: Setup,
    needs: &'static [Need],
    body: fn(&mut Bed) -> Ended,
) -> Case {
    Case {
        name: name.into(),
        about: about.into(),
        source: source.into(),
        needs: needs.into(),
        setup,
        body: Box::new(body),
    }
}

/// Ends the body unless it is so.
pub fn ensure(so: bool, why: impl FnOnce() -> String) -> Ended {
    match so {
        true => Ok(()),
        false => Err(Stop::Failed(Failure::new(why()))),
    }
}

/// Ends the body unless both are the same.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, expected: T) -> Ended {
    if got == expected {
        return Ok(());
    }
    Err(Stop::Failed(Failure {
        why: format!("{what} differs"),
        expected: format!("{expected:?}"),
        got: format!("{got:?}"),
    }))
}

/// What a refusal says; a failure if the device did it after all. Something that this kind of
/// device cannot even be asked stays what it is.
pub fn refused<T>(what: &str, answer: Result<T, DeviceError>) -> Ended<String> {
    match answer {
        Ok(_) => Err(Stop::Failed(Failure::new(format!(
            "{what} was taken, it must be refused"
        )))),
        Err(DeviceError::Refused { reason }) => Ok(reason),
        Err(other) => Err(other.into()),
    }
}

impl From<DeviceError> for Stop {
    fn from(error: DeviceError) -> Self {
        match &error {
            DeviceError::Refused { reason } => {
                Stop::Failed(Failure::new(format!("refused: {reason}")))
            }
            DeviceError::Unsupported { .. } => Stop::NotSupported(error.to_string()),
            _ => Stop::Error(error.to_string()),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Error(error.to_string())
    }
}

impl From<Ended> for Outcome {
    fn from(ended: Ended) -> Self {
        match ended {
            Ok(()) => Outcome::Passed,
            Err(Stop::Failed(Failure { why, expected, got })) => Outcome::Failed {
                why,
                expected,
                got,
                frames: Vec::new(),
                trace: Vec::new(),
            },
            Err(Stop::NotSupported(why)) => Outcome::NotSupported { why },
            Err(Stop::Error(why)) => Outcome::Error { why },
        }
    }
}
