//! Following packets: traces and captures.

use super::hex;
use serde::Serialize;
use std::time::Duration;

/// One thing that happens to a traced packet.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "step", rename_all = "lowercase")]
pub enum TraceStep {
    /// It is looked up.
    Lookup {
        /// In this chain.
        chain: u32,
        /// With these headers, as a match would ask for them.
        headers: String,
        /// The rule it takes.
        rule: Option<u64>,
        /// That rule as text.
        rule_text: Option<String>,
    },
    /// An action of the rule is done.
    Action {
        /// As text.
        action: String,
    },
    /// It was rewritten.
    Rewritten {
        /// What it begins with now, in hex.
        #[serde(serialize_with = "hex")]
        head: Vec<u8>,
        /// Bytes of all of it.
        len: u32,
    },
    /// A copy goes there.
    Output {
        /// A channel's name, or `uplink`.
        port: String,
        /// To the host, on the port's representor.
        representor: bool,
        /// What it begins with there, in hex.
        #[serde(serialize_with = "hex")]
        head: Vec<u8>,
    },
    /// It, or a copy, is lost.
    Lost {
        /// The port that is charged.
        port: String,
        /// The drop reason.
        reason: String,
        /// What that means.
        explanation: String,
    },
}

/// What to capture; an empty list means all.
#[derive(Clone, Debug, Default)]
pub struct CaptureFilter {
    /// Channels, representors or `uplink`.
    pub ports: Vec<String>,
    /// `tx`, `rx`, `representor-rx`, `representor-tx`, `drop`.
    pub points: Vec<String>,
    /// Queue pair.
    pub queue: Option<u16>,
    /// Names of drop reasons.
    pub reasons: Vec<String>,
    /// So many bytes of each frame; 0: all.
    pub snaplen: u32,
    /// End after so long.
    pub duration: Option<Duration>,
}

/// A frame that was captured.
#[derive(Clone, Debug, Serialize)]
pub struct CapturedFrame {
    /// Nanoseconds since 1970.
    pub at_ns: u64,
    /// The channel's name, or `uplink`.
    pub port: String,
    /// As in [`CaptureFilter::points`].
    pub point: String,
    /// Queue pair, where it is known.
    pub queue: Option<u32>,
    /// Bytes from the Ethernet header on, without FCS.
    pub len: u32,
    /// Its first bytes, in hex.
    #[serde(serialize_with = "hex")]
    pub data: Vec<u8>,
    /// Why it was lost.
    pub reason: Option<String>,
    /// The flow rule that decided.
    pub rule: Option<u64>,
    /// Frames missed since the capture began.
    pub missed: u64,
    /// The chain that had no rule for it, so that it goes to the host.
    pub no_rule_in: Option<u32>,
}
