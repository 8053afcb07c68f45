//! What came of a run, as plain data: `conformance.json` is this.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One run of the suite, on one device or several.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the suite.
    pub version: String,
    /// What random choices were made from.
    pub seed: u64,
    /// A column of the matrix each.
    pub devices: Vec<DeviceReport>,
}

/// What came of it on one device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// What the matrix calls it: a profile, or the device's address.
    pub title: String,
    /// Its address.
    pub device: String,
    /// The kind of NIC it is, or is like.
    pub profile: String,
    /// Version of what runs it.
    pub version: String,
    /// What sent and received frames: `netns`, `vhost-user`, or `nobody`.
    pub endpoints: String,
    /// In the order in which they were run.
    pub cases: Vec<CaseReport>,
}

/// What came of one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// What it holds devices to.
    pub about: String,
    /// Where that is written.
    pub source: String,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How long it took.
    pub seconds: f64,
    /// What was measured on the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<Measured>,
    /// What was lost meanwhile: vport, reason, packets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drops: BTreeMap<String, BTreeMap<String, u64>>,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The device did what it is held to.
    Passed,
    /// It did something else.
    Failed {
        /// In a sentence.
        why: String,
        /// What was to come of it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        expected: String,
        /// What came instead.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        got: String,
        /// The frames that were sent last, in hex.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        frames: Vec<SentFrame>,
        /// What the device says would become of them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        trace: Vec<String>,
    },
    /// The device cannot do it.
    NotSupported {
        /// In its own words.
        why: String,
    },
    /// The case could not be run.
    Error {
        /// What went wrong.
        why: String,
    },
}

/// A frame that a case sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentFrame {
    /// On which port.
    pub port: String,
    /// By the host, on the port's representor.
    pub from_host: bool,
    /// From the Ethernet header on.
    pub hex: String,
}

/// Numbers to be plotted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What they are.
    pub title: String,
    /// What is counted.
    pub unit: String,
    /// One bar each.
    pub bars: Vec<Bar>,
}

/// One number beside what it was to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// What it is of.
    pub label: String,
    /// What was measured.
    pub value: f64,
    /// What was to be.
    pub expected: f64,
}

impl Outcome {
    /// One word, as the JSON has it.
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed { .. } => "failed",
            Outcome::NotSupported { .. } => "not_supported",
            Outcome::Error { .. } => "error",
        }
    }

    /// Why it did not pass.
    pub fn why(&self) -> Option<&str> {
        match self {
            Outcome::Passed => None,
            Outcome::Failed { why, .. }
            | Outcome::NotSupported { why }
            | Outcome::Error { why } => Some(why),
        }
    }

    /// Whether somebody has to look at it.
    pub fn is_bad(&self) -> bool {
        matches!(self, Outcome::Failed { .. } | Outcome::Error { .. })
    }
}

impl DeviceReport {
    /// How many cases ended with each word.
    pub fn tally(&self) -> BTreeMap<&'static str, usize> {
        let mut tally = BTreeMap::new();
        for case in &self.cases {
            *tally.entry(case.outcome.word()).or_default() += 1;
        }
        tally
    }

    /// What came of the case with this name.
    pub fn case(&self, name: &str) -> Option<&CaseReport> {
        self.cases.iter().find(|case| case.name == name)
    }

    /// The tally in a line: `96 passed, 2 failed, 12 not supported, 0 errors`.
    pub fn summary(&self) -> String {
        let tally = self.tally();
        let count = |word| tally.get(word).copied().unwrap_or(0);
        format!(
            "{} passed, {} failed, {} not supported, {} errors",
            count("passed"),
            count("failed"),
            count("not_supported"),
            count("error")
        )
    }
}

impl Report {
    /// The names of all cases, each once, in the order of the first device that has them.
    pub fn case_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        let mut known = std::collections::HashSet::new();
        for case in self.devices.iter().flat_map(|device| &device.cases) {
            if known.insert(&case.name) {
                names.push(&case.name);
            }
        }
        names
    }

    /// Whether nothing failed.
    pub fn is_good(&self) -> bool {
        let mut cases = self.devices.iter().flat_map(|device| &device.cases);
        !cases.any(|case| case.outcome.is_bad())
    }
}
