//! What the machine that tests and the agent in the guest say to each other: one JSON object a
//! line, an order and its report.

use serde::{Deserialize, Serialize};

/// One case: rules to be made, frames to be sent one after the other, what is to be shown
/// afterwards, and what leaves the guest as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Lines for `tc -batch`, before the frames.
    pub setup: Vec<String>,
    /// The frames.
    pub frames: Vec<Sent>,
    /// Lines for `tc -batch`, behind the frames; their output comes back.
    pub show: Vec<String>,
    /// Lines for `tc -batch`, at the end.
    pub cleanup: Vec<String>,
}

/// A frame that the netdev of a port receives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Number of the port.
    pub port: usize,
    /// 12 bytes of virtio-net header and the frame.
    pub hex: String,
    /// The kernel may put it aside on its way, for a thread of its own to go on with: tunnels do.
    #[serde(default)]
    pub put_aside: bool,
}

/// A frame that came out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Got {
    /// Name of the netdev that sent it.
    pub netdev: String,
    /// 12 bytes of virtio-net header and the frame.
    pub hex: String,
}

/// What became of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What tc said to each part that it refused; empty if all went well.
    pub refused: String,
    /// For each frame, what came out before the next was sent.
    pub frames: Vec<Vec<Got>>,
    /// What the lines of `show` printed.
    pub shown: String,
}

/// Bytes as text.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text as bytes; `None` if it is not hex.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips() {
        assert_eq!(
            from_hex(&to_hex(&[0, 0x7f, 0xff])),
            Some(vec![0, 0x7f, 0xff])
        );
        assert_eq!(from_hex("0g"), None);
    }
}
